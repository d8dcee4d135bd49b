"""Tensors and JSON in one file that is safe to read: safetensors, with a checksum.

Nothing in such a file is ever run. It appears whole or not at all, and reading it
takes no more memory than the file itself. What the JSON means is up to those who
write it: fitted detectors (`persistence`) and trainings on their way (`_checkpoint`).
"""

import hashlib
import json
import os

import numpy as np
import safetensors
import safetensors.torch
import sklearn
import torch

from . import __version__
from ._whole_file import write_whole

_KEY = "sklearn_vad"
_MAX_HEADER = 2**24  # bytes that a damaged or hostile file could make us read


def versions():
    """Return the versions that decide what a file means, by package."""
    modules = {"numpy": np, "scikit-learn": sklearn, "torch": torch}
    found = {name: str(module.__version__) for name, module in modules.items()}
    return {"sklearn_vad": __version__, **found}


def write(path, kind, format, content, tensors):
    """Write one file, whole or not at all.

    Parameters
    ----------
    path : str
    kind : str
        What the file holds, such as "detector".
    format : int
        Of that kind.
    content : object
        For JSON.
    tensors : dict of Tensor
        By name.

    Raises
    ------
    ValueError
        For a content whose JSON would be too long to be read again.
    """
    tensors = {  # on the CPU, and none a view of another
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    saved = {"format": format, "versions": versions(), kind: content}
    text = json.dumps({**saved, "sha256": _digest(saved, tensors)})
    if len(text) > _MAX_HEADER // 2:
        raise ValueError(
            f"the description takes {len(text)} bytes, expected at most"
            f" {_MAX_HEADER // 2}"
        )
    write_whole(path, safetensors.torch.save(tensors, {_KEY: text}))


def read(path, kind, format):
    """Read what `write` wrote, its checksum verified.

    Parameters
    ----------
    path : str
    kind : str
    format : int
        As they were written.

    Returns
    -------
    content : object
    tensors : dict of Tensor
    made_with : dict
        Versions by package.

    Raises
    ------
    ValueError
        For a file of another kind or format, or a damaged one.
    OSError
        For one that can't be opened.
    Exception
        Whatever safetensors raises for a damaged header.
    """
    _check_header(path)
    with safetensors.safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(_KEY)
        if text is None:
            raise ValueError(f"no {kind} of sklearn_vad is in it")
        saved = json.loads(text)
        if kind == "detector" and "checkpoint" in saved:
            raise ValueError(
                "it is the checkpoint of a training, no fitted detector: call fit(...,"
                " checkpoint=...) as before, then save"
            )
        if saved.get("format") != format:
            raise ValueError(
                f"it has format {saved.get('format')!r}, expected {format}; it was"
                f" saved by {saved.get('versions')}, this is sklearn_vad {__version__}"
            )
        types = {"format": int, "versions": dict, kind: dict, "sha256": str}
        check_state("entries", saved, types)
        # Copies: the file is mapped, and may change or shrink later.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    if saved.pop("sha256") != _digest(saved, tensors):
        raise ValueError("it is damaged: its contents don't have its checksum")
    return saved[kind], tensors, saved["versions"]


def _digest(saved, tensors):
    """Return a checksum: a flipped bit in a weight looks like a weight."""
    digest = hashlib.sha256(json.dumps(saved).encode())
    for name in sorted(tensors):
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _check_header(path):
    """Raise for what safetensors should not even try to read."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError("it is no file")
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = os.fstat(file.fileno()).st_size
    if not 0 < length <= min(_MAX_HEADER, size - 8):
        raise ValueError(
            "it is truncated, or no file that `save` wrote: no safetensors header is in"
            f" its {size} bytes"
        )


def check_state(what, found, types, optional=()):
    """Raise unless a dict has the names and the types that it should.

    Parameters
    ----------
    what : str
        For the message.
    found : dict
    types : dict
        Type or tuple of types by name.
    optional : sequence of str
        Names that may be missing.
    """
    if not isinstance(found, dict):
        raise ValueError(f"{what} are of type {type(found).__name__}, expected a dict")
    if not set(types) - set(optional) <= set(found) <= set(types):
        raise ValueError(f"{what} are {sorted(found)}, expected {sorted(types)}")
    for name, value in found.items():
        if not isinstance(value, types[name]):
            raise ValueError(
                f"{name} has type {type(value).__name__}, expected {types[name]}"
            )


def check_tensors(found, expected):
    """Raise unless tensors are finite, and as expected in name, shape and dtype.

    Parameters
    ----------
    found, expected : dict of Tensor
        By name; the expected ones need no memory (device "meta").
    """
    if set(found) != set(expected):
        raise ValueError(f"tensors are {sorted(found)}, expected {sorted(expected)}")
    for name, tensor in found.items():
        came = tuple(tensor.shape), tensor.dtype
        wanted = tuple(expected[name].shape), expected[name].dtype
        if came != wanted:
            raise ValueError(f"tensor {name} is {came}, expected {wanted}")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"tensor {name} holds NaN or inf, expected finite numbers")
