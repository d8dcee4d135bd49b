"""Fitted detectors in one file: safetensors, with JSON in its header.

Nothing in a file is ever run: it holds tensors and JSON, no pickle, and names
classes of a fixed list only. `SaveMixin` gives a class ``save`` and ``load``; for
them it defines two hooks:

``_get_fitted_state() -> (values, tensors, parts)``
    What `fit` left: attributes that JSON can hold, tensors and fitted detectors,
    each a dict by name. Raises `NotFittedError` before `fit`.
``_set_fitted_state(values, tensors, parts)``
    Takes the same in a new detector. It checks what it gets, since files lie:
    `check_state` and `check_tensors` help.
"""

import contextlib
import hashlib
import json
import math
import os
import uuid
import warnings
from importlib import import_module

import numpy as np
import safetensors
import safetensors.torch
import sklearn
import torch

from . import __version__
from ._storage import shorten

__all__ = ["load"]

FORMAT = 1
# By name, and imported on use: this module stands above the detectors.
_DETECTORS = (
    "DAMAnomalyDetector",
    "DDLAnomalyDetector",
    "EnsembleAnomalyDetector",
    "MILRankingAnomalyDetector",
    "MultiCropDetector",
    "STAAnomalyDetector",
)
# What a damaged or hostile file could make us read, or build, at most.
_MAX_HEADER = 2**24
_MAX_PARAMETERS = 2**16
_MAX_ARRAY = 2**24
_MAX_MESSAGE = 4000  # characters: names of tensors come from the file, too
_KEY = "sklearn_vad"


class SaveMixin:
    """Give a detector ``save`` and ``load``; see the module for its hooks."""

    def save(self, path):
        """Save the fitted detector in one file.

        The file is in the safetensors format, with JSON in its header, and
        appears whole or not at all. Callbacks and generators are not saved,
        neither is the optimiser's state: training that goes on after `load`
        starts with a new one.

        Parameters
        ----------
        path : str or path-like
            Such as "detector.safetensors"; a file that is there is replaced.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError
            For weights that are not finite.

        Warns
        -----
        UserWarning
            For parameters that can't be saved; `load` gives them their defaults.
        """
        lost = []
        data = _to_bytes(self, lost)
        if lost:
            warnings.warn(
                f"parameters {', '.join(lost)} of {type(self).__name__} can't be saved;"
                " load will give them their defaults",
                UserWarning,
                stacklevel=2,
            )
        _write(os.fsdecode(path), data)

    @classmethod
    def load(cls, path):
        """Load a detector of this class.

        Parameters
        ----------
        path : str or path-like
            Of a file that `save` wrote.

        Returns
        -------
        detector : object
            Fitted; see `sklearn_vad.load`.

        Raises
        ------
        ValueError
            As `sklearn_vad.load`, and for a detector of another class.
        """
        return _load(path, cls)


def load(path):
    """Load a detector from the file that its ``save`` wrote.

    It scores as the saved one did, bit for bit on the same machine. `partial_fit`
    and `warm_start` go on from its weights, with a new state of the optimiser and
    of the generator.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    detector : object
        Fitted, of the class that was saved, on the device that its parameter
        `device` says.

    Raises
    ------
    FileNotFoundError
        Without such a file.
    ValueError
        For a file that is damaged, of another format or version, or that does
        not hold what its detector needs.

    Examples
    --------
    >>> import tempfile
    >>> import sklearn_vad
    >>> from sklearn_vad.datasets import make_bags
    >>> bags, y = make_bags(n_bags=20, random_state=0)
    >>> est = sklearn_vad.MILRankingAnomalyDetector(max_epochs=2, random_state=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     est.fit(bags, y).save(f"{folder}/detector.safetensors")
    ...     loaded = sklearn_vad.load(f"{folder}/detector.safetensors")
    >>> bool((loaded.score_snippets(bags)[0] == est.score_snippets(bags)[0]).all())
    True
    """
    return _load(path)


def _load(path, cls=None):
    path = os.fsdecode(path)
    try:
        saved, tensors = _read(path)
        return _restore(saved, tensors, cls)
    except OSError:
        raise
    except Exception as error:  # damaged files fail in a dozen ways
        reason = shorten(error, _MAX_MESSAGE) or type(error).__name__
        raise ValueError(f"cannot load {path!r}: {reason}") from error


# --------------------------------------------------------------------------
# Between a detector and its description
# --------------------------------------------------------------------------
def _describe(detector, lost):
    """Return (description for JSON, tensors); name in `lost` what it leaves out."""
    values, tensors, parts = detector._get_fitted_state()
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{type(detector).__name__}: {name} is not finite")
    described = {}
    for part, fitted in parts.items():
        _class_named(type(fitted).__name__)  # or nobody could load it
        described[part], own = _describe(fitted, [])
        tensors = {**tensors, **{f"{part}/{name}": own[name] for name in own}}
    description = {
        **_describe_unfitted(detector, lost),
        "fitted": {name: _to_json(values[name], None, name) for name in values},
        "parts": described,
    }
    return description, tensors


def _describe_unfitted(detector, lost, prefix=""):
    parameters = {}
    for name, value in detector.get_params(deep=False).items():
        try:
            parameters[name] = _to_json(value, lost, f"{prefix}{name}")
        except TypeError:
            lost.append(f"{prefix}{name}")
    _check_size(parameters)
    return {"class": type(detector).__name__, "parameters": parameters}


def _restore(saved, tensors, cls=None):
    """Return the fitted detector of a description."""
    types = {"class": str, "parameters": dict, "fitted": dict, "parts": dict}
    check_state("entries", saved, types)
    detector = _make({name: saved[name] for name in ("class", "parameters")}, cls)
    by_part = {part: {} for part in ("", *saved["parts"])}
    for name, tensor in tensors.items():
        part, slash, rest = name.partition("/")
        if slash and part not in saved["parts"]:
            raise ValueError(f"tensor {name} belongs to no part of the detector")
        by_part[part if slash else ""][rest if slash else name] = tensor
    own = by_part.pop("")
    parts = {part: _restore(saved["parts"][part], by_part[part]) for part in by_part}
    detector._set_fitted_state(_from_json(saved["fitted"]), own, parts)
    return detector


def _make(saved, cls=None):
    """Return the unfitted detector of a description."""
    check_state("entries of a detector", saved, {"class": str, "parameters": dict})
    cls = _class_named(saved["class"], cls)
    _check_size(saved["parameters"])
    unknown = sorted(set(saved["parameters"]) - set(cls._get_param_names()))
    if unknown:
        raise ValueError(
            f"it holds parameters {unknown}, expected those of {cls.__name__}"
        )
    detector = cls(**_from_json(saved["parameters"]))
    detector._validate_params()
    return detector


def _class_named(name, cls=None):
    if cls is None and name in _DETECTORS:
        return getattr(import_module("sklearn_vad.detectors"), name)
    if cls is not None and name == cls.__name__:
        return cls
    expected = cls.__name__ if cls else f"one of {', '.join(_DETECTORS)}"
    raise ValueError(f"the detector is of class {name!r}, expected {expected}")


def _check_size(parameters):
    size = len(json.dumps(parameters))
    if size > _MAX_PARAMETERS:
        raise ValueError(
            f"parameters take {size} characters, expected at most {_MAX_PARAMETERS}"
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


# --------------------------------------------------------------------------
# Values that JSON has no type for, as {"$type": value}
# --------------------------------------------------------------------------
def _to_json(value, lost=None, name=""):
    """Return what JSON can hold, or raise TypeError."""
    if isinstance(value, (np.ndarray, np.generic)):
        values = np.asarray(value)
        return {"$array": [_dtype(values.dtype).str, _to_json(values.tolist())]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(value)}
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, torch.device):
        return str(value)
    if isinstance(value, (list, tuple)):
        items = [_to_json(item, lost, f"{name}[{i}]") for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    if isinstance(value, dict) and all(
        isinstance(key, str) and key[:1] != "$" for key in value
    ):
        return {k: _to_json(v, lost, f"{name}[{k!r}]") for k, v in value.items()}
    if isinstance(value, SaveMixin) and lost is not None:
        _class_named(type(value).__name__)
        return {"$detector": _describe_unfitted(value, lost, f"{name}.")}
    raise TypeError(f"{name} can't be saved: it is of type {type(value).__name__}")


def _from_json(value):
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    for tag, build in _TAGS.items():
        if tag in value:
            return build(value[tag])
    return {key: _from_json(item) for key, item in value.items()}


def _array(saved):
    dtype, values = _dtype(np.dtype(saved[0])), _from_json(saved[1])
    if dtype.itemsize * np.size(values) > _MAX_ARRAY:
        raise ValueError(f"an array of {dtype} takes more than {_MAX_ARRAY} bytes")
    return np.array(values, dtype=dtype)[()]  # a scalar where there are no axes


def _dtype(dtype):
    if dtype.kind not in "biufUO" or (dtype.kind == "f" and dtype.itemsize > 8):
        raise TypeError(f"arrays of {dtype} can't be saved")
    return dtype


_TAGS = {
    "$array": _array,
    "$float": float,
    "$tuple": lambda saved: tuple(_from_json(saved)),
    "$detector": _make,
}


# --------------------------------------------------------------------------
# Between a description and its file
# --------------------------------------------------------------------------
def _digest(saved, tensors):
    """Return a checksum: a flipped bit in a weight looks like a weight."""
    digest = hashlib.sha256(json.dumps(saved).encode())
    for name in sorted(tensors):
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _to_bytes(detector, lost):
    description, tensors = _describe(detector, lost)
    tensors = {  # on the CPU, and none a view of another
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    modules = {"numpy": np, "scikit-learn": sklearn, "torch": torch}
    versions = {name: str(module.__version__) for name, module in modules.items()}
    saved = {
        "format": FORMAT,
        "versions": {"sklearn_vad": __version__, **versions},
        "detector": description,
    }
    text = json.dumps({**saved, "sha256": _digest(saved, tensors)})
    if len(text) > _MAX_HEADER // 2:
        raise ValueError(
            f"the description takes {len(text)} bytes, expected at most"
            f" {_MAX_HEADER // 2}"
        )
    return safetensors.torch.save(tensors, {_KEY: text})


def _write(path, data):
    """Let the file appear whole or not at all, whenever the process is killed."""
    folder, name = os.path.split(path)
    part = os.path.join(folder, f".{name}.part-{uuid.uuid4().hex}")
    try:
        with open(part, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


def _read(path):
    """Return (description, tensors) of a file, its checksum verified."""
    _check_header(path)
    with safetensors.safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(_KEY)
        if text is None:
            raise ValueError("no detector of sklearn_vad is in it")
        saved = json.loads(text)
        if saved.get("format") != FORMAT:
            raise ValueError(
                f"it has format {saved.get('format')!r}, expected {FORMAT}; it was"
                f" saved by {saved.get('versions')}, this is sklearn_vad {__version__}"
            )
        types = {"format": int, "versions": dict, "detector": dict, "sha256": str}
        check_state("entries", saved, types)
        # Copies: the file is mapped, and may change or shrink later.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    if saved.pop("sha256") != _digest(saved, tensors):
        raise ValueError("it is damaged: its contents don't have its checksum")
    return saved["detector"], tensors


def _check_header(path):
    """Raise for what safetensors should not even try to read."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError("it is no file")
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = os.fstat(file.fileno()).st_size
    if not 0 < length <= min(_MAX_HEADER, size - 8):
        raise ValueError(
            f"it is truncated or no safetensors file: the header would take {length} of"
            f" {size} bytes, expected at most {_MAX_HEADER}"
        )
