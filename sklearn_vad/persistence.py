"""Fitted detectors in one file.

A file holds tensors and JSON, see `_tensor_file`, and names classes of a fixed
list only: nothing in it is ever run. `SaveMixin` gives a class ``save`` and
``load``; for them it defines two hooks:

``_get_fitted_state() -> (values, tensors, parts)``
    What `fit` left: attributes that JSON can hold, tensors and fitted detectors,
    each a dict by name. Raises `NotFittedError` before `fit`.
``_set_fitted_state(values, tensors, parts)``
    Takes the same in a new detector. It checks what it gets, since files lie:
    `check_state` and `check_tensors` help.
"""

import json
import math
import os
import warnings
from importlib import import_module

import numpy as np
import torch

from . import _tensor_file
from ._storage import shorten
from ._tensor_file import check_state

__all__ = ["load"]

FORMAT = 1
# By name, and imported on use: this module stands above the detectors.
_DETECTORS = (
    "DAMAnomalyDetector",
    "DDLAnomalyDetector",
    "EnsembleAnomalyDetector",
    "MILRankingAnomalyDetector",
    "MultiCropDetector",
    "RTFMAnomalyDetector",
    "STAAnomalyDetector",
)
# What a damaged or hostile file could make us read, or build, at most.
_MAX_PARAMETERS = 2**16
_MAX_ARRAY = 2**24
_MAX_MESSAGE = 4000  # characters: names of tensors come from the file, too


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
        description, tensors = _describe(self, lost)
        if lost:
            warnings.warn(
                f"parameters {', '.join(lost)} of {type(self).__name__} can't be saved;"
                " load will give them their defaults",
                UserWarning,
                stacklevel=2,
            )
        _tensor_file.write(os.fsdecode(path), "detector", FORMAT, description, tensors)

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
        saved, tensors, _ = _tensor_file.read(path, "detector", FORMAT)
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
