"""Where bags lie, in memory, in files or in a store, and what a bag may be.

All storages answer the same: `lengths`, `tail` (the shape of a snippet), `dtype`,
and ``read(index, name)``, which returns one checked, read-only bag.
"""

import io
import json
import math
import numbers
import os
import threading
from pathlib import Path

import numpy as np
from numpy.lib import format as npy_format

STORE_FORMAT = 1
_MAX_NPY_HEADER = 10_000
_MAX_AXES = 32  # what every version of numpy can hold
_MAX_INDEX = 2**26  # bytes of a store's bags.json: some million videos
_MAX_IDS = 2**26  # characters of all ids, each stored as long as the longest
_MAX_QUOTED = 200  # characters of a file's own text in an error message
_ONE_PARSES = threading.RLock()


# --------------------------------------------------------------------------
# One bag
# --------------------------------------------------------------------------
def bag_name(index, ids=None):
    """Name a bag in an error message: its index, and its id when it has one."""
    return (
        f"bag {index}" if ids is None else f"bag {index} (id {shorten(ids[index])!r})"
    )


def shorten(text, most=_MAX_QUOTED):
    """Return a text as an error message may quote it: a file's line can be 1 GB."""
    text = str(text)
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def as_list(values, name, expected):
    """Return a sequence as a list; text, mappings and sets are none."""
    if not isinstance(values, (str, bytes, os.PathLike, dict, set, frozenset)):
        try:
            return list(values)
        except TypeError:
            pass  # not iterable
    raise TypeError(f"{name}: expected {expected}, got {type(values).__name__}")


def as_array(values, name):
    """Convert an array, tensor or nested list to an array of any dtype."""
    if type(values) is np.ndarray:  # not a masked one; metrics ask for thousands
        return values
    if np.ma.is_masked(values):
        raise ValueError(f"{name}: masked entries, expected values everywhere")
    try:
        if hasattr(values, "detach"):  # a torch tensor, without importing torch
            values = values.detach()
            if str(values.dtype) == "torch.bfloat16":  # a type that numpy lacks
                values = values.float()
            values = values.numpy(force=True)
        return np.asarray(values)
    except ValueError as error:  # rows of differing length
        raise ValueError(f"{name}: not a rectangular array: {error}") from error
    except (TypeError, RuntimeError) as error:
        raise TypeError(f"{name}: expected an array: {error}") from error


def _float_dtype(dtype, name):
    """Return the native float dtype in which values of `dtype` are kept."""
    if dtype.kind in "biu":
        return np.dtype(np.float32)
    if dtype.kind == "f":
        return np.dtype(f"f{min(dtype.itemsize, 8)}")
    raise TypeError(
        f"{name} has dtype {dtype}, expected real numbers (float16, float32 or float64)"
    )


def _to_dtype(bag, dtype):
    # A long double beyond float64 becomes infinity, which _check_finite reports.
    with np.errstate(over="ignore"):
        return bag.astype(dtype, copy=False)


def _check_finite(bag, name):
    """Raise when a bag holds NaN, infinity, or more than float32 can hold."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = bag.sum(dtype=np.float32)
    if np.isfinite(total):  # as it is where all are, unless they are very large
        return
    if not np.isfinite(bag).all():
        kind = "NaN" if np.isnan(bag).any() else "infinity"
        row = int(np.argwhere(~np.isfinite(bag))[0][0])
        raise ValueError(
            f"{name} contains {kind} (first in snippet {row}); expected finite values"
        )
    if bag.dtype.itemsize > 4 and np.abs(bag).max() > np.finfo(np.float32).max:
        raise ValueError(
            f"{name} contains a value too large for dtype('float32'), "
            "in which the networks compute"
        )


def _check_bag_shape(shape, name):
    """Raise unless `shape` is that of a non-empty bag."""
    if len(shape) < 2:
        raise ValueError(
            f"{name} has shape {shape}, expected (n_snippets, n_features)"
            " or (n_snippets, n_steps, n_features)"
        )
    if shape[0] == 0:
        raise ValueError(f"{name} is empty: shape {shape}, expected n_snippets >= 1")
    if 0 in shape:
        raise ValueError(f"{name} has no features: shape {shape}, expected 1 or more")


def as_bag(values, name):
    """Convert one array, tensor or nested list to a checked float array."""
    if isinstance(values, (str, bytes, Path)):
        raise TypeError(
            f"{name} has type {type(values).__name__}, expected an array;"
            " for paths of .npy files use Bags.from_files"
        )
    bag = as_array(values, name)
    if bag.dtype.kind == "O":
        bag = _objects_to_float(bag, values, name)
    bag = _to_dtype(bag, _float_dtype(bag.dtype, name))
    _check_bag_shape(bag.shape, name)
    _check_finite(bag, name)
    return bag


def _objects_to_float(bag, values, name):
    """Convert an object array of real numbers, and refuse one of other things."""
    expected = "expected one numeric array (n_snippets, n_features)"
    if bag.ndim == 0:
        raise TypeError(f"{name} has type {type(values).__name__}, {expected}")
    for value in bag.flat:
        if not isinstance(value, numbers.Real):
            raise TypeError(
                f"{name} has dtype object and holds {type(value).__name__}, {expected}"
            )
    try:
        return bag.astype(np.float64)
    except OverflowError as error:
        raise ValueError(f"{name} contains a value too large for float64") from error


def check_same_tail(shapes, ids=None):
    """Raise unless all bags agree in everything but their number of snippets."""
    first = shapes[0][1:]
    for index, shape in enumerate(shapes):
        if len(shape) != len(first) + 1:
            raise ValueError(
                f"{bag_name(index, ids)} has {len(shape)} axes (shape {shape}),"
                f" expected {len(first) + 1} as in {bag_name(0, ids)}"
            )
        if shape[-1] == first[-1] and shape[1:] != first:
            raise ValueError(
                f"{bag_name(index, ids)} has shape {shape}, expected"
                f" {shape[:1] + first}: all axes but the first as in {bag_name(0, ids)}"
            )
        if shape[1:] != first:
            raise ValueError(
                f"{bag_name(index, ids)} has {shape[-1]} features"
                f" (shape {shape}), expected {first[-1]} as in {bag_name(0, ids)}"
                f" (shape {shapes[0]})"
            )


def as_ids(ids):
    """Return texts as an array, in which each takes as much as the longest."""
    longest = max(map(len, ids), default=0)
    if longest * len(ids) > _MAX_IDS:
        raise ValueError(
            f"the longest of {len(ids)} ids has {longest} characters, expected at most"
            f" {_MAX_IDS // len(ids)}"
        )
    return np.asarray(ids, dtype=str)


def check_ids(ids, n_bags):
    """Return ids as an array of strings, one per bag and all different."""
    if ids is None:
        return None
    ids = as_list(ids, "ids", "a list with one id per bag")
    ids = as_ids([str(i) for i in ids])
    if len(ids) != n_bags:
        raise ValueError(f"got {len(ids)} ids for {n_bags} bags, expected one per bag")
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"ids must differ, got {str(values[counts > 1][0])!r} twice")
    return ids


# --------------------------------------------------------------------------
# Where bags lie: in memory, in one file per video, in one store
# --------------------------------------------------------------------------
def _fingerprint(path):
    """Return what must stay the same while a file is in use, None without file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def starts_of(lengths):
    return np.cumsum(lengths) - lengths


def check_ends(path):
    """Raise for a pipe or a device, which could be read for ever."""
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise ValueError("it is a pipe or a device, expected a file")


def read_npy_head(stream):
    """Return (shape, dtype, order, length of the header) of numpy's format.

    numpy reads as much as a header says it has, 4 GB say, and then complains. It parses
    one as a Python literal, in which two threads disturb each other in Python 3.11
    ("AST constructor recursion depth mismatch"), hence the lock.
    """
    head = io.BytesIO(stream.read(12 + _MAX_NPY_HEADER))
    version = npy_format.read_magic(head)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"unknown .npy version {version}")
    reader = (
        npy_format.read_array_header_1_0
        if version == (1, 0)
        else npy_format.read_array_header_2_0
    )
    with _ONE_PARSES:
        shape, turned, dtype = reader(head, max_header_size=_MAX_NPY_HEADER)
    return shape, dtype, "F" if turned else "C", head.tell()


def read_npy(path, mmap=False):
    """Return the array of a .npy file, whose header was read and checked before."""
    with open(path, "rb") as file:
        shape, dtype, order, offset = read_npy_head(file)
    if mmap:
        return np.memmap(path, dtype, "r", offset, shape, order)
    n_values = math.prod(shape)
    array = np.fromfile(path, dtype, n_values, offset=offset)
    if len(array) != n_values:
        raise ValueError(f"it ends after {len(array)} values of {n_values}")
    return array.reshape(shape, order=order)


def _read_npy_header(path):
    """Return (shape, dtype) of a .npy file without reading any data."""
    try:
        check_ends(path)
        with open(path, "rb") as file:
            shape, dtype, _, offset = read_npy_head(file)
            size = os.fstat(file.fileno()).st_size
    except Exception as error:  # damaged headers fail in a dozen ways
        reason = shorten(error) or type(error).__name__
        raise ValueError(f"is not a readable .npy file: {reason}") from error
    if dtype.hasobject:
        raise ValueError(
            f"holds pickled objects (dtype {dtype}), which are never read;"
            " save it as a plain float array"
        )
    if len(shape) > _MAX_AXES or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"is damaged: its header has shape {shorten(shape)}")
    expected = offset + math.prod(shape) * dtype.itemsize
    if size != expected:
        raise ValueError(
            f"is truncated or damaged: its header promises {expected} bytes"
            f" for shape {shape}, the file has {size}"
        )
    return shape, dtype


class InMemory:
    """Bags in one flat array ``(total_snippets, ...)``, checked when made."""

    def __init__(self, flat, lengths):
        self.flat = flat
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.starts = starts_of(self.lengths)

    @property
    def tail(self):
        return self.flat.shape[1:]

    @property
    def dtype(self):
        return self.flat.dtype

    def read(self, index, name):
        start = self.starts[index]
        bag = self.flat[start : start + self.lengths[index]]
        bag.flags.writeable = False
        return bag


class InFiles:
    """One .npy file per bag; headers are read on first need, data on use."""

    def __init__(self, paths, ids):
        self.paths = []
        self.fingerprints = []
        self.ids = ids
        self._headers = None
        for index, path in enumerate(paths):
            name = bag_name(index, ids)
            if not isinstance(path, (str, os.PathLike)):
                raise TypeError(
                    f"{name} has type {type(path).__name__}, expected the path of a"
                    " .npy file; for arrays use Bags.from_list"
                )
            path = os.path.abspath(path)
            if not path.endswith(".npy"):
                raise ValueError(
                    f"{name}: cannot read {path!r}; expected a .npy file"
                    " (pickles such as .pt, .pth and .pkl are never opened)"
                )
            fingerprint = _fingerprint(path)
            if fingerprint is None:
                raise ValueError(f"{name}: cannot read {path!r}: no such file")
            self.paths.append(path)
            self.fingerprints.append(fingerprint)

    @property
    def headers(self):
        if self._headers is None:
            headers = [
                self._read_header(i, bag_name(i, self.ids))
                for i in range(len(self.paths))
            ]
            check_same_tail([shape for shape, _ in headers], self.ids)
            self._headers = headers
        return self._headers

    @property
    def lengths(self):
        return np.array([shape[0] for shape, _ in self.headers], dtype=np.int64)

    @property
    def tail(self):
        return self.headers[0][0][1:]

    @property
    def dtype(self):
        return np.result_type(*{dtype for _, dtype in self.headers})

    def _read_header(self, index, name):
        """Return (shape, float dtype) of a file, or raise with its name."""
        self._check_unchanged(index, name)
        name = f"{name}: {self.paths[index]!r}"
        try:
            shape, dtype = _read_npy_header(self.paths[index])
        except ValueError as error:
            raise ValueError(f"{name} {error}") from error
        _check_bag_shape(shape, name)
        return shape, _float_dtype(dtype, name)

    def _check_unchanged(self, index, name):
        path = self.paths[index]
        if _fingerprint(path) != self.fingerprints[index]:
            raise ValueError(
                f"{name}: {path!r} changed on disk after Bags.from_files; call it again"
            )

    def read(self, index, name):
        if self._headers is None:
            _, dtype = self._read_header(index, name)
        else:
            _, dtype = self._headers[index]
        self._check_unchanged(index, name)
        bag = _to_dtype(read_npy(self.paths[index]), dtype)
        _check_finite(bag, name)
        bag.flags.writeable = False
        return bag


class InStore(InMemory):
    """A folder with ``snippets.npy``, memory-mapped, and ``bags.json``.

    It pickles as its path. The array is flat, as in memory, but its values
    are checked when they are first read, since another program may have
    written them.
    """

    def __init__(self, path, fingerprints=None):
        self.path = os.path.abspath(os.fspath(path))
        self._data_path = os.path.join(self.path, "snippets.npy")
        index_path = os.path.join(self.path, "bags.json")
        self.fingerprints = [_fingerprint(p) for p in (self._data_path, index_path)]
        index = _read_store_index(self.path)
        if fingerprints not in (None, self.fingerprints):
            raise ValueError(f"store {self.path!r} changed on disk since it was opened")
        ids, lengths = index.get("ids"), index["lengths"]
        self.ids = ids
        flat = self._open()
        if sum(lengths) != len(flat):
            raise ValueError(
                f"store {self.path!r} is damaged: the lengths of its"
                f" {len(lengths)} bags add up to {sum(lengths)} snippets,"
                f" snippets.npy holds {len(flat)}"
            )
        super().__init__(flat, lengths)
        self._checked = np.zeros(len(lengths), dtype=bool)

    def _open(self):
        try:
            shape, dtype = _read_npy_header(self._data_path)
        except ValueError as error:
            raise ValueError(
                f"store {self.path!r} is damaged: snippets.npy {error}"
            ) from error
        fine = dtype in (np.float16, np.float32, np.float64)  # native ones
        if not fine or len(shape) < 2 or 0 in shape:
            raise ValueError(
                f"store {self.path!r} is damaged: snippets.npy has shape {shape}"
                f" and dtype {dtype}, expected native floats of 2 or more axes"
            )
        return read_npy(self._data_path, mmap=True)

    def read(self, index, name):
        # A file cut short under a memory map kills the process on access.
        if _fingerprint(self._data_path) != self.fingerprints[0]:
            raise ValueError(
                f"{name}: store {self.path!r} changed on disk after Bags.open;"
                " open it again"
            )
        bag = np.asarray(super().read(index, name))
        if not self._checked[index]:
            _check_finite(bag, name)
            self._checked[index] = True
        return bag

    def __reduce__(self):
        return InStore, (self.path, self.fingerprints)


class Mapped:
    """Bags seen through a function, which runs each time that a bag is read.

    It pickles as the bags, a store as its path, and the function.

    Parameters
    ----------
    bags : Bags
    function : callable
        From a bag to an array; see `apply`.
    lengths, tail, dtype
        What the function promises, in place of those of `bags`.
    """

    def __init__(self, bags, function, lengths, tail, dtype):
        self.bags = bags
        self.function = function
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.tail = tuple(tail)
        self.dtype = np.dtype(dtype)

    def take(self, index):
        """Return the bags at `index` only, seen through the same function."""
        lengths = self.lengths[index]
        return Mapped(self.bags[index], self.function, lengths, self.tail, self.dtype)

    def read(self, index, name):
        bag = apply(self.function, self.bags._read(index, name), name)
        promised = (int(self.lengths[index]), *self.tail)
        if bag.shape != promised:
            raise ValueError(
                f"{name}, transformed, has shape {bag.shape}, expected {promised}"
            )
        bag = _to_dtype(bag, self.dtype).view()
        _check_finite(bag, f"{name}, transformed,")
        bag.flags.writeable = False
        return bag


def apply(function, bag, name):
    """Return what a function makes of a bag as floats; errors name the bag."""
    try:
        bag = as_array(function(bag), "the result")
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    name = f"{name}, transformed,"
    bag = _to_dtype(bag, _float_dtype(bag.dtype, name))
    _check_bag_shape(bag.shape, name)
    return bag


def _is_list_of(kind, values):
    return isinstance(values, list) and all(type(value) is kind for value in values)


def is_store(path):
    """Tell whether a folder is a store, whole or damaged, and nothing besides."""
    try:
        names = set(os.listdir(path))
    except OSError:
        return False
    return "bags.json" in names and names <= {"bags.json", "snippets.npy"}


def _read_store_index(path):
    try:
        check_ends(os.path.join(path, "bags.json"))
        size = os.path.getsize(os.path.join(path, "bags.json"))
        if size > _MAX_INDEX:
            raise ValueError(f"bags.json takes {size} bytes, over {_MAX_INDEX}")
        text = Path(path, "bags.json").read_text(encoding="utf-8")
        index = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path!r} is not a store written by Bags.save: {error}"
        ) from error
    if not isinstance(index, dict) or index.get("format") != STORE_FORMAT:
        raise ValueError(
            f"store {path!r} has another format than {STORE_FORMAT}, the one"
            " that this version reads"
        )
    ids, lengths = index.get("ids"), index.get("lengths")
    if not lengths or not _is_list_of(int, lengths) or min(lengths) < 1:
        raise ValueError(
            f"store {path!r} is damaged: bags.json has no valid lengths, expected one"
            " number of snippets per bag, 1 or more"
        )
    if ids is not None and (not _is_list_of(str, ids) or len(ids) != len(lengths)):
        raise ValueError(
            f"store {path!r} is damaged: its ids don't match its {len(lengths)} bags,"
            " expected one text per bag"
        )
    try:
        index["ids"] = None if ids is None else as_ids(ids)
    except ValueError as error:
        raise ValueError(f"store {path!r} is damaged: {error}") from error
    return index
