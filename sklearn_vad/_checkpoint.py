"""A training on its way, kept in a file, so that one that was killed goes on.

After every epoch the file holds all that the rest of the training depends on:
weights, optimiser, generators, history, and what early stopping has seen. A
training that starts from it ends with the same bits as one that was never killed.
"""

import contextlib
import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import _tensor_file
from ._storage import shorten
from ._tensor_file import check_state
from .bags import Bags, FrameLabels

FORMAT = 1
_FILE = "training.safetensors"
_MAX_MESSAGE = 4000  # characters: names of tensors come from the file, too
# They change speed, or what is shown. The seed stands for random_state.
_NOT_LEARNED_FROM = {
    "callbacks",
    "device",
    "memory_limit",
    "n_jobs",
    "random_state",
    "verbose",
    "warm_start",
}
_VALUES = {
    "device": str,
    "seed": int,
    "finished": bool,
    "lr": list,
    "history": list,
    "stop": (dict, type(None)),
}
_STOP = {"misses": int, "best_score": float, "best_epoch": int}


# --------------------------------------------------------------------------
# Which training it is
# --------------------------------------------------------------------------
def key_of(detector, seed, data):
    """Return the name of a training: the same for the same training only.

    Parameters
    ----------
    detector : estimator
    seed : int or None
        None for fresh entropy: any earlier training will do.
    data : sequence of Bags, ndarray, FrameLabels or None
        All that training and validation read.

    Returns
    -------
    key : str
    """
    params = detector.get_params(deep=False)
    names = sorted(params.keys() - _NOT_LEARNED_FROM)
    digest = hashlib.sha256()
    digest.update(repr([type(detector).__name__, seed]).encode())
    digest.update(repr([(name, params[name]) for name in names]).encode())
    for part in data:
        _add_data(digest, part)
    return f"{type(detector).__name__}-{digest.hexdigest()[:24]}"


def _add_data(digest, data):
    if isinstance(data, Bags):
        arrays = iter(data)
    elif isinstance(data, FrameLabels):
        arrays = iter([*data.masks, np.asarray(data.snippet_length)])
    else:
        arrays = () if data is None else (np.asarray(data),)
    digest.update(type(data).__name__.encode())
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array))


# --------------------------------------------------------------------------
# Its file
# --------------------------------------------------------------------------
class Saved(NamedTuple):
    """What a checkpoint holds."""

    values: dict
    tensors: dict

    def part(self, name):
        """Return the tensors under a name, by the rest of their names."""
        n = len(name) + 1
        return {
            key[n:]: tensor
            for key, tensor in self.tensors.items()
            if key.startswith(f"{name}/")
        }


class Checkpoint:
    """The file of one training, in a sub-directory of its own.

    Parameters
    ----------
    folder : str or path-like
        That many trainings share; made if it is not there.
    key : str
        Of this training, see `key_of`.
    seed : int
        Of this training, unless the file knows it already.
    device : str
        Kind of device that it runs on.

    Attributes
    ----------
    path : Path
    saved : Saved or None
        What was found in the file.
    seed : int

    Raises
    ------
    ValueError
        For a folder that is none, and for a file that is damaged, or that other
        versions or another kind of device made.
    """

    def __init__(self, folder, key, seed, device):
        if not isinstance(folder, (str, os.PathLike)):
            raise TypeError(
                f"checkpoint has type {type(folder).__name__}, expected the path of a"
                " folder"
            )
        self.path = Path(os.fsdecode(folder), key, _FILE)
        self.device = device
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ValueError(f"checkpoint={os.fsdecode(folder)!r} is no folder") from (
                error
            )
        with self.explained():
            self.saved = self._read()
        self.seed = seed if self.saved is None else self.saved.values["seed"]

    @contextlib.contextmanager
    def explained(self):
        """Let errors of a file that can't be used name it, and say what to do."""
        try:
            yield
        except OSError:
            raise
        except Exception as error:  # damaged files fail in a dozen ways
            reason = shorten(error, _MAX_MESSAGE) or type(error).__name__
            raise ValueError(
                f"cannot go on from checkpoint {str(self.path)!r}: {reason}; delete it"
                " to start anew"
            ) from error

    def _read(self):
        if not self.path.exists():
            return None
        values, tensors, made_with = _tensor_file.read(
            str(self.path), "checkpoint", FORMAT
        )
        check_state("values", values, _VALUES)
        if values["stop"] is not None:
            check_state("values of early stopping", values["stop"], _STOP)
        made_with = {**made_with, "device": values["device"]}
        for name, ours in {**_tensor_file.versions(), "device": self.device}.items():
            theirs = made_with.get(name)
            if theirs != ours:
                raise ValueError(f"it was made with {name} {theirs}, this is {ours}")
        return Saved(values, tensors)

    def write(self, net, stop, finished=False):
        """Write where the training stands.

        Parameters
        ----------
        net : skorch net
        stop : EarlyStopping or None
        finished : bool, default=False
        """
        values, tensors = _get_state(net, None if finished else stop)
        values = {
            **values,
            "device": self.device,
            "seed": self.seed,
            "finished": finished,
        }
        _tensor_file.write(str(self.path), "checkpoint", FORMAT, values, tensors)

    def restore(self, net, stop):
        """Bring a net, of the saved weights already, to where the training stood.

        Parameters
        ----------
        net : skorch net
        stop : EarlyStopping or None
        """
        with self.explained():
            _set_state(self.saved, net, stop)


# --------------------------------------------------------------------------
# The state of a net in training
# --------------------------------------------------------------------------
def _get_state(net, stop):
    optimizer = net.optimizer_.state_dict()
    tensors = _prefixed("module", net.module_.state_dict())
    tensors |= _prefixed("generator", _generator_states(net))
    for place, entries in optimizer["state"].items():
        known = {name: value for name, value in entries.items() if value is not None}
        tensors |= _prefixed(f"optimizer/{place}", known)
    values = {
        "lr": [group["lr"] for group in optimizer["param_groups"]],
        "history": [_plain(epoch) for epoch in net.history],
        "stop": None,
    }
    if stop is not None:
        values["stop"] = {
            "misses": stop.misses_,
            "best_score": float(stop.dynamic_threshold_),
            "best_epoch": stop.best_epoch_,
        }
        tensors |= _prefixed("best", stop.best_model_weights_ or {})
    return values, tensors


def _set_state(saved, net, stop):
    state = {}
    for name, tensor in saved.part("optimizer").items():
        place, entry = name.split("/")
        state.setdefault(int(place), {})[entry] = tensor
    groups = net.optimizer_.state_dict()["param_groups"]
    for group, lr in zip(groups, saved.values["lr"], strict=True):
        group["lr"] = lr
    net.optimizer_.load_state_dict({"state": state, "param_groups": groups})
    for place, drawn in saved.part("generator").items():
        net.generators[int(place)].set_state(drawn)
    net.history.extend({"batches": [], **row} for row in saved.values["history"])
    if stop is not None and saved.values["stop"] is not None:
        stop.misses_ = saved.values["stop"]["misses"]
        stop.dynamic_threshold_ = saved.values["stop"]["best_score"]
        stop.best_epoch_ = saved.values["stop"]["best_epoch"]
        stop.best_model_weights_ = saved.part("best") or None


def _generator_states(net):
    return {str(i): each.get_state() for i, each in enumerate(net.generators)}


def _prefixed(prefix, tensors):
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def _plain(epoch):
    """Return the numbers and words of an epoch's history."""
    row = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in epoch.items()
    }
    kept = (str, int, float, type(None))
    return {name: value for name, value in row.items() if isinstance(value, kept)}
