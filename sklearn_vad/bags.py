"""What users pass: bags of snippet features, and labels for videos and frames.

A *bag* is one video, an array ``(n_snippets, n_features)`` or
``(n_snippets, n_steps, n_features)``. `Bags` holds many of them, `FrameLabels`
holds their 0/1 frame labels, and `check_bags` and `check_video_labels` are the
one gate through which everything a user passes has to go.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from numpy.lib import format as npy_format
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_consistent_length, column_or_1d

STORE_FORMAT = 1
_MAX_NPY_HEADER = 10_000


# --------------------------------------------------------------------------
# One bag
# --------------------------------------------------------------------------
def _name(index, ids=None):
    """Name a bag in an error message: its index, and its id when it has one."""
    return f"bag {index}" if ids is None else f"bag {index} (id {str(ids[index])!r})"


def _float_dtype(dtype, name):
    """Return the native float dtype in which values of `dtype` are kept."""
    if dtype.kind in "biu":
        return np.dtype(np.float32)
    if dtype.kind == "f":
        return np.dtype(f"f{min(dtype.itemsize, 8)}")
    raise TypeError(
        f"{name} has dtype {dtype}, expected real numbers (float16, float32 or float64)"
    )


def _check_finite(bag, name):
    """Raise when a bag holds NaN, infinity, or more than float32 can hold."""
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
        raise ValueError(f"{name} has no features: shape {shape}")


def _as_bag(values, name):
    """Convert one array, tensor or nested list to a checked float array."""
    if isinstance(values, (str, bytes, Path)):
        raise TypeError(
            f"{name} is a {type(values).__name__}, expected an array;"
            " for paths of .npy files use Bags.from_files"
        )
    if hasattr(values, "detach"):  # a torch tensor, without importing torch
        values = values.detach().cpu()
        if str(values.dtype) == "torch.bfloat16":  # a type that numpy lacks
            values = values.float()
        values = values.numpy()
    try:
        bag = np.asarray(values)
    except ValueError as error:  # rows of differing length
        raise ValueError(f"{name} is not a rectangular array: {error}") from error
    if bag.dtype.kind == "O":
        raise TypeError(
            f"{name} has dtype object, expected one numeric array"
            " (n_snippets, n_features)"
        )
    bag = bag.astype(_float_dtype(bag.dtype, name), copy=False)
    _check_bag_shape(bag.shape, name)
    _check_finite(bag, name)
    return bag


def _check_same_tail(shapes, ids=None):
    """Raise unless all bags agree in everything but their number of snippets."""
    first = shapes[0][1:]
    for index, shape in enumerate(shapes):
        if len(shape) != len(first) + 1:
            raise ValueError(
                f"{_name(index, ids)} has {len(shape)} axes (shape {tuple(shape)}),"
                f" expected {len(first) + 1} as in {_name(0, ids)}"
            )
        if tuple(shape[1:]) != tuple(first):
            raise ValueError(
                f"{_name(index, ids)} has {shape[-1]} features"
                f" (shape {tuple(shape)}), expected {first[-1]} as in {_name(0, ids)}"
                f" (shape {tuple(shapes[0])})"
            )


def _check_ids(ids, n_bags):
    """Return ids as an array of strings, one per bag and all different."""
    if ids is None:
        return None
    ids = np.asarray([str(i) for i in ids], dtype=str)
    if len(ids) != n_bags:
        raise ValueError(f"got {len(ids)} ids for {n_bags} bags")
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"ids must differ, got {str(values[counts > 1][0])!r} twice")
    return ids


# --------------------------------------------------------------------------
# Where bags lie: in memory, in one file per video, in one store
# --------------------------------------------------------------------------
def _fingerprint(path):
    """Return what must stay the same for as long as a file is in use."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def _starts(lengths):
    return np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)


class _Memory:
    """Bags in one flat array ``(total_snippets, ...)``, checked when made."""

    path = None

    def __init__(self, flat, lengths):
        self.flat = flat
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.starts = _starts(self.lengths)

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


class _Files:
    """One .npy file per bag; headers are read on first need, data on use."""

    def __init__(self, paths):
        self.paths = [os.path.abspath(os.fspath(path)) for path in paths]
        self.fingerprints = []
        for index, path in enumerate(self.paths):
            if not path.endswith(".npy"):
                raise ValueError(
                    f"bag {index}: cannot read {path!r}; expected a .npy file"
                    " (pickles such as .pt, .pth and .pkl are never opened)"
                )
            try:
                self.fingerprints.append(_fingerprint(path))
            except OSError as error:
                raise ValueError(
                    f"bag {index}: cannot read {path!r}: {error.strerror}"
                ) from error
        self._headers = None

    @property
    def headers(self):
        if self._headers is None:
            headers = [self._read_header(i) for i in range(len(self.paths))]
            _check_same_tail([shape for shape, _ in headers], self.paths)
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

    def _read_header(self, index):
        """Return (shape, float dtype) of a file, or raise with its name."""
        path, name = self.paths[index], _name(index, self.paths)
        self._check_unchanged(index)
        try:
            with open(path, "rb") as file:
                shape, _, dtype = _read_npy_header(file)
                offset = file.tell()
        except (ValueError, OSError) as error:
            raise ValueError(f"{name} is not a readable .npy file: {error}") from error
        if dtype.hasobject:
            raise ValueError(
                f"{name} holds pickled objects (dtype {dtype}), which are never read;"
                " save it as a plain float array"
            )
        expected = offset + int(np.prod(shape, dtype=object)) * dtype.itemsize
        if self.fingerprints[index][0] != expected:
            raise ValueError(
                f"{name} is truncated or damaged: its header promises {expected} bytes"
                f" for shape {shape}, the file has {self.fingerprints[index][0]}"
            )
        _check_bag_shape(shape, name)
        return shape, _float_dtype(dtype, name)

    def _check_unchanged(self, index):
        try:
            same = _fingerprint(self.paths[index]) == self.fingerprints[index]
        except OSError:
            same = False
        if not same:
            raise ValueError(
                f"{_name(index, self.paths)} changed on disk after Bags.from_files"
            )

    def read(self, index, name):
        shape, dtype = (
            self._headers[index] if self._headers else self._read_header(index)
        )
        self._check_unchanged(index)
        bag = np.load(self.paths[index], allow_pickle=False)
        bag = bag.astype(dtype, copy=False)
        _check_finite(bag, name)
        return bag


class _Store(_Memory):
    """A folder with ``snippets.npy``, memory-mapped, and ``bags.json``.

    It pickles as its path. The array is flat, as in memory, but its values
    are checked when they are first read, since another program may have
    written them.
    """

    def __init__(self, path, fingerprint=None):
        self.path = os.path.abspath(os.fspath(path))
        index = _read_store_index(self.path)
        self.ids = None if index["ids"] is None else np.asarray(index["ids"], str)
        super().__init__(self._open(), index["lengths"])
        if self.lengths.sum() != len(self.flat) or (self.lengths < 1).any():
            raise ValueError(
                f"store {self.path!r} is damaged: the lengths of its"
                f" {len(self.lengths)} bags add up to {self.lengths.sum()} snippets,"
                f" snippets.npy holds {len(self.flat)}"
            )
        self.fingerprint = _fingerprint(self._data_path)
        if fingerprint not in (None, self.fingerprint):
            raise ValueError(f"store {self.path!r} changed on disk since it was opened")
        self._checked = np.zeros(len(self.lengths), dtype=bool)

    @property
    def _data_path(self):
        return os.path.join(self.path, "snippets.npy")

    def _open(self):
        try:
            flat = np.load(self._data_path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError) as error:
            raise ValueError(f"store {self.path!r} is damaged: {error}") from error
        if flat.ndim < 2 or flat.dtype != _float_dtype(flat.dtype, self.path):
            raise ValueError(
                f"store {self.path!r} is damaged: snippets.npy has shape {flat.shape}"
                f" and dtype {flat.dtype}, expected native floats of 2 or more axes"
            )
        return flat

    def read(self, index, name):
        # A file cut short under a memory map kills the process on access.
        if _fingerprint(self._data_path) != self.fingerprint:
            raise ValueError(f"store {self.path!r} changed on disk after Bags.open")
        bag = np.asarray(super().read(index, name))
        if not self._checked[index]:
            _check_finite(bag, name)
            self._checked[index] = True
        return bag

    def __reduce__(self):
        return _Store, (self.path, self.fingerprint)


def _read_npy_header(file):
    """Return (shape, fortran_order, dtype) without reading any data."""
    version = npy_format.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"unknown .npy version {version}")
    reader = (
        npy_format.read_array_header_1_0
        if version == (1, 0)
        else npy_format.read_array_header_2_0
    )
    return reader(file, max_header_size=_MAX_NPY_HEADER)


def _read_store_index(path):
    try:
        text = Path(path, "bags.json").read_text(encoding="utf-8")
        index = json.loads(text)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path!r} is not a store written by Bags.save: {error}"
        ) from error
    if not isinstance(index, dict) or index.get("format") != STORE_FORMAT:
        raise ValueError(
            f"store {path!r} has another format than {STORE_FORMAT}, the one"
            " that this version reads"
        )
    ids, lengths = index.get("ids"), index.get("lengths")
    lengths_fine = isinstance(lengths, list) and all(type(n) is int for n in lengths)
    if not lengths_fine or not lengths or max(lengths) >= 2**48:
        raise ValueError(f"store {path!r} is damaged: bags.json has no valid lengths")
    if ids is not None and (not isinstance(ids, list) or len(ids) != len(lengths)):
        raise ValueError(f"store {path!r} is damaged: its ids don't match its bags")
    return index


# --------------------------------------------------------------------------
# Bags
# --------------------------------------------------------------------------
class Bags:
    """Many bags of snippet features, ragged in time.

    Build one with `from_list`, `from_files` or `open`. Indexing with an
    integer gives one bag as an array; a slice, an index array or a mask gives
    another `Bags` that shares the data. There is no way to get at the flat
    array behind it, so a subset cannot leak snippets of other videos, and
    pickling a subset ships only its own snippets.

    Attributes
    ----------
    shape : tuple
        ``(n_bags,)``. scikit-learn's splitters see a 1-D sequence of bags.
    lengths : ndarray of shape (n_bags,)
        Number of snippets of each bag.
    n_features : int
        Size of the last axis of every bag.
    ids : ndarray of str of shape (n_bags,), or None
        Names of the videos.
    dtype : numpy.dtype
        float16, float32 or float64. Integers are kept as float32.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_vad import Bags
    >>> bags = Bags.from_list([np.ones((5, 2)), np.zeros((3, 2))], ids=["a", "b"])
    >>> len(bags), bags.lengths, bags[1].shape
    (2, array([5, 3]), (3, 2))
    >>> bags[np.array([False, True])].ids.tolist()
    ['b']
    """

    def __init__(self, source, index, ids):
        self._source = source
        self._index = index
        self.ids = ids

    # Making and keeping ---------------------------------------------------
    @classmethod
    def from_list(cls, arrays, ids=None):
        """Copy arrays or tensors, one per video, into one flat store in memory.

        Parameters
        ----------
        arrays : sequence of array-like of shape (n_snippets_i, ..., n_features)
            The bags; all axes but the first must agree. Values must be finite.
        ids : sequence of str, default=None
            Names of the videos, all different.

        Returns
        -------
        bags : Bags

        Raises
        ------
        ValueError
            For an empty list, an empty bag, NaN or infinity, bags that differ
            in their features; the message names the bag.
        TypeError
            For strings, objects and complex numbers.
        """
        arrays = list(arrays)
        ids = _check_ids(ids, len(arrays))
        if not arrays:
            raise ValueError("no bags: expected a list with at least one video")
        bags = [_as_bag(a, _name(i, ids)) for i, a in enumerate(arrays)]
        _check_same_tail([bag.shape for bag in bags], ids)
        flat = np.concatenate(bags) if len(bags) > 1 else bags[0].copy()
        source = _Memory(flat, [len(bag) for bag in bags])
        return cls(source, np.arange(len(bags)), ids)

    @classmethod
    def from_files(cls, paths, ids=None):
        """Use one .npy file per video, read only when it is needed.

        Parameters
        ----------
        paths : sequence of str or path
            Each file holds one array ``(n_snippets, ..., n_features)``.
        ids : sequence of str, default=None
            Names of the videos; the file names without ``.npy`` by default,
            where those differ, else the paths.

        Returns
        -------
        bags : Bags
            It pickles as paths. Changing a file after this call is an error
            as soon as the file is used.

        Raises
        ------
        ValueError
            For a missing file or another format than .npy, at once; for a
            truncated or pickled file, empty bags, NaN, infinity and differing
            features, when the file is first used.
        """
        if isinstance(paths, (str, os.PathLike)):
            raise TypeError(
                f"paths must be a list with one .npy file per video, got {paths!r};"
                " for a folder pass sorted(Path(folder).glob('*.npy'))"
            )
        paths = list(paths)
        if not paths:
            raise ValueError("no bags: expected a list with at least one path")
        if ids is None:
            stems = [Path(path).stem for path in paths]
            ids = stems if len(set(stems)) == len(stems) else [str(p) for p in paths]
        ids = _check_ids(ids, len(paths))
        return cls(_Files(paths), np.arange(len(paths)), ids)

    @classmethod
    def open(cls, path):
        """Open a store that `save` wrote; its data stay on disk.

        Parameters
        ----------
        path : str or path
            The store's folder.

        Returns
        -------
        bags : Bags
            Memory-mapped. It pickles as its path, so worker processes share
            one copy of the data.

        Raises
        ------
        ValueError
            When the folder is no store, is damaged, or its parts don't match.
        """
        source = _Store(path)
        return cls(source, np.arange(len(source.lengths)), source.ids)

    def save(self, path):
        """Write these bags as one store, a folder that `open` maps into memory.

        The folder holds ``snippets.npy``, the flat array, and ``bags.json``,
        the lengths and ids. It appears whole or not at all; an existing store
        is replaced, anything else at `path` is left alone.

        Parameters
        ----------
        path : str or path
            Where to put the folder.

        Raises
        ------
        FileExistsError
            When something that is no store lies at `path`.
        """
        path = os.path.abspath(os.fspath(path))
        if os.path.lexists(path) and not os.path.isfile(os.path.join(path, "bags.json")):
            raise FileExistsError(f"{path!r} exists and is no store; it was left alone")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        scratch = tempfile.mkdtemp(prefix=".bags-", dir=os.path.dirname(path))
        try:
            new, old = os.path.join(scratch, "new"), os.path.join(scratch, "old")
            os.mkdir(new)
            self._write_store(new)
            if os.path.lexists(path):
                os.rename(path, old)
            os.rename(new, path)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _write_store(self, folder):
        shape = (int(self.lengths.sum()), *self._source.tail)
        flat = npy_format.open_memmap(
            os.path.join(folder, "snippets.npy"), "w+", self.dtype, shape
        )
        start = 0
        for bag in self:
            flat[start : start + len(bag)] = bag
            start += len(bag)
        flat.flush()
        index = {
            "format": STORE_FORMAT,
            "lengths": self.lengths.tolist(),
            "ids": None if self.ids is None else self.ids.tolist(),
        }
        Path(folder, "bags.json").write_text(json.dumps(index), encoding="utf-8")

    # Looking --------------------------------------------------------------
    @property
    def shape(self):
        return (len(self._index),)

    @property
    def lengths(self):
        return self._source.lengths[self._index]

    @property
    def bag_ndim(self):
        """Number of axes of every bag: 2, or 3 with inner time steps."""
        return 1 + len(self._source.tail)

    @property
    def n_features(self):
        return int(self._source.tail[-1])

    @property
    def dtype(self):
        return self._source.dtype

    def __len__(self):
        return len(self._index)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key):
        # scikit-learn slices as X[key, ...].
        if isinstance(key, tuple) and len(key) == 2 and key[1] is Ellipsis:
            key = key[0]
        if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
            key = range(len(self))[key]  # negative and out of range as in a list
            return self._source.read(self._index[key], _name(key, self.ids))
        key = _check_key(key)
        ids = None if self.ids is None else self.ids[key]
        return Bags(self._source, self._index[key], ids)

    def __array__(self, dtype=None, copy=None):
        if dtype is not None and np.dtype(dtype).kind != "O":
            raise TypeError("Bags are ragged: they convert to an object array only")
        out = np.empty(len(self), dtype=object)
        for i, bag in enumerate(self):
            out[i] = bag
        return out

    def __repr__(self):
        return f"Bags(n_bags={len(self)})"

    def __getstate__(self):
        # Whole or on disk: as it is. A subset in memory: its own snippets only.
        if type(self._source) is not _Memory or (
            np.array_equal(self._index, np.arange(len(self._source.lengths)))
        ):
            return self.__dict__
        flat = np.concatenate(list(self)) if len(self) else self._source.flat[:0]
        source = _Memory(flat, self.lengths)
        return {"_source": source, "_index": np.arange(len(self)), "ids": self.ids}


def _check_key(key):
    """Return a slice, or an array of indices or a mask, from what stands in []."""
    if isinstance(key, slice):
        return key
    array = np.asarray(key)
    if array.size == 0:
        array = array.astype(int)
    if array.ndim != 1 or array.dtype.kind not in "biu":
        raise IndexError(
            "expected an integer, a slice, a 1-D index array or a boolean mask,"
            f" got {key!r}"
        )
    return array


# --------------------------------------------------------------------------
# Frame labels
# --------------------------------------------------------------------------
def _as_mask(values, name):
    """Convert one video's frame labels to a checked bool array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    mask = np.asarray(values)
    if mask.ndim != 1 or mask.size == 0 or mask.dtype.kind not in "biuf":
        raise ValueError(
            f"frame labels of {name} have shape {mask.shape} and dtype {mask.dtype},"
            " expected a 1-D array with one 0/1 entry per frame"
        )
    if mask.dtype.kind == "b":
        return mask
    as_bool = mask != 0
    if not np.array_equal(as_bool, mask):
        bad = mask[as_bool != mask][0]
        raise ValueError(f"frame labels of {name} must be 0 or 1, got {bad!r}")
    return as_bool


def check_snippet_length(snippet_length, n_videos):
    """Return frames per snippet as a float array, one entry per video.

    Parameters
    ----------
    snippet_length : float or sequence of float
        One for all videos or one per video; positive, fractions allowed.
    n_videos : int

    Returns
    -------
    snippet_length : ndarray of shape (n_videos,)
    """
    lengths = np.asarray(snippet_length)
    if lengths.dtype.kind not in "iuf" or lengths.ndim > 1:
        raise TypeError(
            "snippet_length must be a number or one number per video,"
            f" got {snippet_length!r}"
        )
    if lengths.ndim == 1 and len(lengths) != n_videos:
        raise ValueError(f"got {len(lengths)} snippet lengths for {n_videos} videos")
    if not np.isfinite(lengths).all() or (lengths <= 0).any():
        raise ValueError(f"snippet_length must be positive, got {snippet_length!r}")
    return np.broadcast_to(lengths.astype(float), (n_videos,))


class FrameLabels(np.lib.mixins.NDArrayOperatorsMixin):
    """Frame labels that behave as the labels of their videos.

    Used as ``y``, an estimator's ``fit`` sees one 0/1 label per video (1 when
    any frame is anomalous), and the frame-level scorers find the frames.

    Parameters
    ----------
    masks : sequence of array-like of shape (n_frames_i,)
        0/1 or bool, one array per video, one entry per frame.
    snippet_length : float or sequence of float, default=16
        Frames that one snippet covers, for all videos or for each; fractions
        are allowed (32 equal segments cover ``n_frames / 32`` frames each).

    Attributes
    ----------
    video_labels : ndarray of int of shape (n_videos,)
    masks : list of bool arrays
    snippet_length : ndarray of shape (n_videos,)

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_vad import FrameLabels
    >>> y = FrameLabels([[0, 1, 1], [0, 0]], snippet_length=2)
    >>> np.asarray(y)
    array([1, 0])
    >>> y[1:].masks
    [array([False, False])]
    """

    def __init__(self, masks, snippet_length=16):
        if isinstance(masks, FrameLabels):
            masks = masks.masks
        arrays = [_as_mask(m, f"video {i}") for i, m in enumerate(masks)]
        if not arrays:
            raise ValueError("no frame labels: expected one array per video")
        self.n_frames = np.array([len(m) for m in arrays], dtype=np.int64)
        self._flat = np.concatenate(arrays)
        self._starts = _starts(self.n_frames)
        self.video_labels = np.array([int(m.any()) for m in arrays])
        self.snippet_length = check_snippet_length(snippet_length, len(arrays))

    @property
    def masks(self):
        ends = self._starts + self.n_frames
        return [self._flat[a:b] for a, b in zip(self._starts, ends, strict=True)]

    @property
    def shape(self):
        return self.video_labels.shape

    @property
    def ndim(self):
        return 1

    @property
    def dtype(self):
        return self.video_labels.dtype

    def __len__(self):
        return len(self.video_labels)

    def __iter__(self):
        return iter(self.video_labels)

    def __getitem__(self, key):
        if isinstance(key, tuple) and len(key) == 2 and key[1] is Ellipsis:
            key = key[0]
        if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
            return self.video_labels[key]
        key = _check_key(key)
        part = object.__new__(FrameLabels)
        part._flat = self._flat
        for name in ("_starts", "n_frames", "video_labels", "snippet_length"):
            setattr(part, name, getattr(self, name)[key])
        return part

    def __array__(self, dtype=None, copy=None):
        return np.array(self.video_labels, dtype=dtype)

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        inputs = [np.asarray(x) if isinstance(x, FrameLabels) else x for x in inputs]
        return getattr(ufunc, method)(*inputs, **kwargs)

    def __repr__(self):
        return f"FrameLabels(n_videos={len(self)}, n_frames={int(self.n_frames.sum())})"

    def __getstate__(self):
        whole = self.n_frames.sum() == len(self._flat)
        if whole and np.array_equal(self._starts, _starts(self.n_frames)):
            return self.__dict__
        flat = np.concatenate(self.masks) if len(self) else self._flat[:0]
        return {**self.__dict__, "_flat": flat, "_starts": _starts(self.n_frames)}


# --------------------------------------------------------------------------
# The gate
# --------------------------------------------------------------------------
def reads_as_rows(X):
    """Tell whether `X` is a plain 2-D array: each row a bag of one snippet."""
    if isinstance(X, Bags):
        return False
    if isinstance(X, (list, tuple)):  # rows as nested lists, never arrays
        return all([X, *(isinstance(row, (list, tuple)) for row in X)]) and all(
            np.isscalar(value) for row in X for value in row
        )
    if hasattr(X, "ndim") and not isinstance(X, np.ndarray):
        return X.ndim == 2  # data frames, sparse matrices, tensors
    return np.ndim(np.asarray(X)) == 2


def check_bags(X):
    """Return `X` as `Bags`, or raise an error that names the bag.

    Parameters
    ----------
    X : Bags, list or tuple of arrays or tensors, object array, array
        Axis 0 of an array is always bags. A 2-D array is read as rows: bags
        of one snippet.

    Returns
    -------
    bags : Bags
    """
    if isinstance(X, Bags):
        if len(X) == 0:
            raise ValueError("no bags: expected at least one video")
        return X
    if isinstance(X, (str, bytes, os.PathLike)):
        raise TypeError(f"X is {X!r}, expected bags; for files use Bags.from_files")
    if isinstance(X, dict) or not hasattr(X, "__len__") and not hasattr(X, "__array__"):
        raise TypeError(f"X is a {type(X).__name__}, expected bags or a list of arrays")
    if not isinstance(X, (list, tuple)):
        X = X.detach().cpu().numpy() if hasattr(X, "detach") else np.asarray(X)
        if X.ndim == 0 or (X.ndim == 1 and X.dtype.kind != "O"):
            raise ValueError(
                f"X has shape {X.shape}: expected a list of bags, each"
                " (n_snippets, n_features). Reshape your data: one video is [video]"
            )
        if X.ndim == 2:
            X = X[:, None, :]
    return Bags.from_list(X)


def check_video_labels(y, n_bags):
    """Return one label per video as a 1-D array, or raise a clear error.

    Parameters
    ----------
    y : array-like of shape (n_bags,) or FrameLabels
    n_bags : int

    Returns
    -------
    y : ndarray of shape (n_bags,)
    """
    if y is None:
        raise ValueError(
            "requires y to be passed, but the target y is None:"
            " expected one label per video"
        )
    if isinstance(y, (list, tuple)) and any(np.ndim(label) for label in y):
        raise ValueError(
            "y holds arrays, expected one label per video;"
            " wrap frame labels as FrameLabels(masks)"
        )
    y = column_or_1d(np.asarray(y), warn=True)
    if len(y) != n_bags:
        check_consistent_length(np.empty(n_bags), y)
    if y.dtype.kind in "fc" and not np.isfinite(y).all():
        raise ValueError("Input y contains NaN or infinity, expected two classes")
    kind = type_of_target(y, input_name="y", raise_unknown=True)
    if kind.startswith("continuous"):
        raise ValueError(
            f"Unknown label type: {kind}. Video labels must be two classes, such as"
            f" 0 and 1; got {np.unique(y)[:3]}..."
        )
    return y
