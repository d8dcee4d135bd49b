"""What users pass: bags of snippet features, and labels for videos and frames.

A *bag* is one video, an array ``(n_snippets, n_features)`` or
``(n_snippets, n_steps, n_features)``. `Bags` holds many of them, `FrameLabels`
holds their 0/1 frame labels, and `check_bags` and `check_video_labels` are the
one gate through which everything a user passes has to go.
"""

import json
import math
import numbers
import os
import shutil
import tempfile
import zlib
from pathlib import Path

import numpy as np
from numpy.lib import format as npy_format
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import column_or_1d

from ._storage import (
    STORE_FORMAT,
    InFiles,
    InMemory,
    InStore,
    Mapped,
    as_array,
    as_bag,
    as_ids,
    as_list,
    bag_name,
    check_ids,
    check_same_tail,
    is_store,
    starts_of,
)

_BLOCK_ROWS = 4096


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

    def __init__(self, source, index=None, ids=None):
        if not hasattr(source, "read"):
            raise TypeError(
                "make Bags with Bags.from_list(arrays), Bags.from_files(paths) or"
                " Bags.open(store)"
            )
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
        arrays = as_list(arrays, "bags", "a list with one array per video")
        if not arrays:
            raise ValueError("no bags: expected a list with at least one video")
        ids = check_ids(ids, len(arrays))
        bags = [as_bag(a, bag_name(i, ids)) for i, a in enumerate(arrays)]
        check_same_tail([bag.shape for bag in bags], ids)
        flat = np.empty(
            (sum(len(bag) for bag in bags), *bags[0].shape[1:]),
            np.result_type(*{bag.dtype for bag in bags}),
        )
        np.concatenate(bags, out=flat)  # in C order, whatever that of the bags
        source = InMemory(flat, [len(bag) for bag in bags])
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
        paths = as_list(
            paths,
            "paths",
            "a list with one .npy file per video,"
            " such as sorted(Path(folder).glob('*.npy'))",
        )
        if not paths:
            raise ValueError("no bags: expected a list with at least one path")
        if ids is None:
            stems = [os.path.splitext(os.path.basename(str(p)))[0] for p in paths]
            ids = stems if len(set(stems)) == len(stems) else paths
        ids = check_ids(ids, len(paths))
        return cls(InFiles(paths, ids), np.arange(len(paths)), ids)

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
        source = InStore(path)
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
            When something that is no store lies at `path`, or when the store
            there has other files in its folder.
        ValueError
            When there are no bags.
        """
        path = os.path.abspath(os.fspath(path))
        if len(self) == 0:
            raise ValueError("no bags to save: expected at least one video")
        if os.path.lexists(path) and not is_store(path):
            raise FileExistsError(
                f"{path!r} exists and is no store, or holds other files besides;"
                " it was left alone"
            )
        os.makedirs(os.path.dirname(path), exist_ok=True)
        scratch = tempfile.mkdtemp(prefix=".bags-", dir=os.path.dirname(path))
        try:
            new, old = os.path.join(scratch, "new"), os.path.join(scratch, "old")
            os.mkdir(new)
            self._write_store(new)
            replaces = os.path.lexists(path)
            if replaces:
                os.rename(path, old)
            try:
                os.rename(new, path)
            except BaseException:
                if replaces:
                    os.rename(old, path)
                raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _write_store(self, folder):
        dtype = self.dtype
        header = {
            "descr": npy_format.dtype_to_descr(dtype),
            "fortran_order": False,
            "shape": (int(self.lengths.sum()), *self._source.tail),
        }
        # Plain writes: on a full disk a memory map would kill the process.
        with open(os.path.join(folder, "snippets.npy"), "wb") as file:
            npy_format.write_array_header_1_0(file, header)
            for bag in self:
                file.write(np.ascontiguousarray(bag, dtype=dtype))
            file.flush()
            os.fsync(file.fileno())
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
    def snippet_shape(self):
        """Shape of every snippet: all axes of a bag but the first."""
        return self._source.tail

    @property
    def n_steps(self):
        """Inner time steps of every snippet, None without such an axis."""
        return None if self.bag_ndim == 2 else int(self._source.tail[0])

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
        key = _check_key(key, len(self))
        if isinstance(key, int):
            return self._read(key, bag_name(key, self.ids))
        ids = None if self.ids is None else self.ids[key]
        return Bags(self._source, self._index[key], ids)

    def _read(self, position, name):
        return self._source.read(self._index[position], name)

    def __array__(self, dtype=None, copy=None):
        if dtype is not None and np.dtype(dtype).kind != "O":
            raise TypeError("Bags are ragged: they convert to an object array only")
        out = np.empty(len(self), dtype=object)
        for i, bag in enumerate(self):
            out[i] = bag
        return out

    def __repr__(self):
        return f"Bags(n_bags={len(self)})"

    def __str__(self):
        sizes = ", ".join(str(size) for size in self._source.tail)
        return (
            f"{len(self)} bags of (n_snippets, {sizes}), {self.dtype},"
            f" {self.lengths.sum()} snippets in all"
        )

    def __getstate__(self):
        source = self._source
        if isinstance(source, InFiles):
            return self.__dict__
        whole = np.array_equal(self._index, np.arange(len(source.lengths)))
        if isinstance(source, InStore) and whole and self.ids is source.ids:
            return {"_source": source}  # the rest is read from the store again
        if isinstance(source, InStore) or whole:
            return self.__dict__
        # A subset takes its own snippets only.
        if isinstance(source, Mapped):
            source = source.take(self._index)
        else:
            flat = np.concatenate(list(self)) if len(self) else source.flat[:0]
            source = InMemory(flat, self.lengths)
        return {"_source": source, "_index": np.arange(len(self)), "ids": self.ids}

    def __setstate__(self, state):
        self.__dict__.update(state)
        if "_index" not in state:
            self._index = np.arange(len(self._source.lengths))
            self.ids = self._source.ids


def stack_snippets(bags, positions=None, dtype=None):
    """Copy the snippets of bags, of all or of those at `positions`, into one array.

    Parameters
    ----------
    bags : Bags
    positions : sequence of int, default=None
    dtype : dtype, default=None
        That of the bags by default.

    Returns
    -------
    flat : ndarray of shape (total_snippets, ..., n_features)
    """
    positions = range(len(bags)) if positions is None else positions
    ends = np.cumsum(bags.lengths[positions])
    flat = np.empty((ends[-1], *bags.snippet_shape), dtype or bags.dtype)
    for i, end in zip(positions, ends, strict=True):
        bag = bags[i]
        flat[end - len(bag) : end] = bag
    return flat


def snippet_blocks(bags, least=None):
    """Yield the snippets of all bags as rows, a block of bags at a time.

    Crops and inner time steps are rows too.

    Parameters
    ----------
    bags : Bags
    least : int, default=None
        Rows of a block, but for bags that have fewer together; the rest goes into
        the last one. By default 4096 (32 MiB of float32 at 2048 features), or
        n_features where that is more: `IncrementalPCA` asks for as many.

    Yields
    ------
    rows : ndarray of shape (n_rows, n_features)
        float32 or wider; a copy.
    """
    least = max(_BLOCK_ROWS, bags.n_features) if least is None else least
    dtype = np.result_type(bags.dtype, np.float32)
    n_rows = bags.lengths * math.prod(bags.snippet_shape[:-1])
    for block in _runs(n_rows, least):
        yield stack_snippets(bags, block, dtype).reshape(-1, bags.n_features)


def sample_snippets(bags, most):
    """Return snippets spread evenly over all bags, as rows.

    Parameters
    ----------
    bags : Bags
    most : int
        Rows to return, about; crops and inner time steps are rows too.

    Returns
    -------
    rows : ndarray of shape (n_rows, n_features)
        float32 or wider; a copy.
    """
    inner = math.prod(bags.snippet_shape[:-1])
    step = -(-int(bags.lengths.sum()) * inner // most)  # every so many snippets
    starts = np.cumsum(bags.lengths) - bags.lengths
    dtype = np.result_type(bags.dtype, np.float32)
    kept = [bag[-start % step :: step] for bag, start in zip(bags, starts, strict=True)]
    return np.concatenate(kept, dtype=dtype).reshape(-1, bags.n_features)


def _runs(n_rows, least):
    """Split bags into runs that have `least` rows or more, a short rest included.

    Parameters
    ----------
    n_rows : ndarray of shape (n_bags,)
    least : int

    Returns
    -------
    runs : list of range
        All bags, in order; one run where there are too few rows for more.
    """
    stops, rows = [], 0
    for i, n in enumerate(n_rows):
        rows += n
        if rows >= least:
            stops.append(i + 1)
            rows = 0
    stops = [*stops[:-1], len(n_rows)]
    starts = [0, *stops[:-1]]
    return [range(*ends) for ends in zip(starts, stops, strict=True)]


def map_bags(bags, function, lengths=None, snippet_shape=None, dtype=None):
    """Return bags as a function makes them, ids kept.

    Bags in memory give bags in memory, made at once. All others are made when
    they are read, each time anew, so that nothing is loaded at once.

    Parameters
    ----------
    bags : Bags
    function : callable
        From one bag to one array; it pickles.
    lengths : ndarray of shape (n_bags,), default=None
    snippet_shape : tuple, default=None
    dtype : dtype, default=None
        What the function promises; None where it changes nothing.

    Returns
    -------
    bags : Bags
    """
    source = Mapped(
        bags,
        function,
        bags.lengths if lengths is None else lengths,
        bags.snippet_shape if snippet_shape is None else snippet_shape,
        bags.dtype if dtype is None else dtype,
    )
    order = np.arange(len(bags))
    mapped = Bags(source, order, bags.ids)
    if type(bags._source) is not InMemory:  # a store is memory-mapped, not in memory
        return mapped
    return Bags(InMemory(stack_snippets(mapped), source.lengths), order, bags.ids)


def _check_key(key, n):
    """Return what stands in [] as an int from 0, a slice, an index array or a mask."""
    if isinstance(key, tuple) and len(key) == 2 and key[1] is Ellipsis:
        key = key[0]  # scikit-learn slices as X[key, ...]
    if isinstance(key, slice):
        return key
    if not isinstance(key, tuple):
        try:
            array = np.asarray(key)
        except ValueError:  # lists of differing length
            array = np.empty((), object)
        if array.ndim == 1 and array.dtype.kind == "b" and len(array) != n:
            raise IndexError(f"the mask has {len(array)} entries for {n} videos")
        if array.ndim == 1 and array.dtype.kind in "iu":
            wrong = (array < -n) | (array >= n)
            if wrong.any():
                index = array[np.argmax(wrong)]
                raise IndexError(f"index {index} is out of range for {n} videos")
        if array.ndim == 1 and array.dtype.kind in "biu":
            return array
        if array.ndim == 1 and array.size == 0:  # [] is an array of floats
            return array.astype(int)
        if array.ndim == 0 and array.dtype.kind in "iu":
            if not -n <= array < n:
                raise IndexError(f"index {array} is out of range for {n} videos")
            return int(array) % n
    raise IndexError(
        "expected an integer, a slice, a 1-D index array or a boolean mask,"
        f" got {key!r}"
    )


# --------------------------------------------------------------------------
# Frame labels
# --------------------------------------------------------------------------
def _as_mask(mask, name):
    """Convert one video's frame labels, an array, to a checked bool array."""
    if mask.ndim != 1 or mask.size == 0 or mask.dtype.kind not in "biuf":
        raise ValueError(
            f"{name} have shape {mask.shape} and dtype {mask.dtype},"
            " expected a 1-D array with one 0/1 entry per frame"
        )
    as_bool = mask != 0
    wrong = np.flatnonzero(as_bool != mask)
    if len(wrong):
        raise ValueError(
            f"{name} must be 0 or 1, got {mask[wrong[0]]} at frame {wrong[0]}"
        )
    return as_bool


def _as_masks(masks):
    """Convert frame labels of all videos to one flat bool array, checked, and lengths.

    Where all are bool or uint8, as they mostly are, nothing is done video by video.
    """
    names = [f"frame labels of video {i}" for i in range(len(masks))]
    arrays = [as_array(*pair) for pair in zip(masks, names, strict=True)]
    if all(m.ndim == 1 and m.size and m.dtype.char in "?B" for m in arrays):
        flat = np.concatenate(arrays)
        if flat.dtype == bool or flat.max() <= 1:
            return flat.view(bool), np.array([m.size for m in arrays], dtype=np.int64)
    arrays = [_as_mask(*pair) for pair in zip(arrays, names, strict=True)]
    return np.concatenate(arrays), np.array([m.size for m in arrays], dtype=np.int64)


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
    lengths = as_array(snippet_length, "snippet_length")
    if lengths.dtype.kind not in "iuf" or lengths.ndim > 1:
        raise TypeError(
            "snippet_length must be a number or one number per video,"
            f" got {snippet_length!r}"
        )
    if lengths.ndim == 1 and len(lengths) != n_videos:
        raise ValueError(f"got {len(lengths)} snippet lengths for {n_videos} videos")
    fine = np.isfinite(lengths) & (lengths > 0)
    if not fine.all():
        i = int(np.argmin(fine))
        which = "" if lengths.ndim == 0 else f" of video {i}"
        raise ValueError(
            f"snippet_length{which} must be positive, got {lengths.flat[i]}"
        )
    return np.broadcast_to(lengths.astype(float), (n_videos,))


class FrameLabels(np.lib.mixins.NDArrayOperatorsMixin):
    """Frame labels that behave as the labels of their videos.

    Used as ``y``, an estimator's ``fit`` sees one 0/1 label per video (1 when
    any frame is anomalous), and the frame-level scorers find the frames.

    Parameters
    ----------
    masks : sequence of array-like of shape (n_frames_i,), or FrameLabels
        0/1 or bool, one array per video, one entry per frame. `FrameLabels`
        keep their own `snippet_length` unless another than the default is given.
    snippet_length : float or sequence of float, default=16
        Frames that one snippet covers, for all videos or for each; fractions
        are allowed (32 equal segments cover ``n_frames / 32`` frames each).
    ids : sequence of str, default=None
        Names of the videos. Where bags have names too, both must be the same.

    Attributes
    ----------
    video_labels : ndarray of int of shape (n_videos,)
    masks : list of bool arrays
    snippet_length : ndarray of shape (n_videos,)
    ids : ndarray of str of shape (n_videos,), or None

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

    def __init__(self, masks, snippet_length=16, ids=None):
        if isinstance(masks, FrameLabels):
            ids = masks.ids if ids is None else ids
            if np.ndim(snippet_length) == 0 and snippet_length == 16:
                snippet_length = masks.snippet_length
            masks = masks.masks
        masks = as_list(masks, "frame labels", "a list with one array per video")
        if not masks:
            raise ValueError("no frame labels: expected one array per video")
        self._flat, self.n_frames = _as_masks(masks)
        self._starts = starts_of(self.n_frames)
        labels = np.maximum.reduceat(self._flat.view(np.uint8), self._starts)
        self.video_labels = labels.astype(int)
        self.snippet_length = check_snippet_length(snippet_length, len(masks))
        if ids is not None:
            ids = as_list(ids, "ids", "a list with one id per video")
            ids = as_ids([str(i) for i in ids])
            if len(ids) != len(masks):
                raise ValueError(f"got {len(ids)} ids for {len(masks)} videos")
        self.ids = ids

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
        key = _check_key(key, len(self))
        if isinstance(key, int):
            return self.video_labels[key]
        part = object.__new__(FrameLabels)
        part._flat = self._flat
        for name in ("_starts", "n_frames", "video_labels", "snippet_length"):
            setattr(part, name, getattr(self, name)[key])
        part.ids = None if self.ids is None else self.ids[key]
        return part

    def __array__(self, dtype=None, copy=None):
        return np.array(self.video_labels, dtype=dtype)

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        inputs = [np.asarray(x) if isinstance(x, FrameLabels) else x for x in inputs]
        return getattr(ufunc, method)(*inputs, **kwargs)

    def __repr__(self):
        return f"FrameLabels(n_videos={len(self)}, n_frames={int(self.n_frames.sum())})"

    def __getstate__(self):
        flat = self._flat
        whole = self.n_frames.sum() == len(flat)
        if not whole or not np.array_equal(self._starts, starts_of(self.n_frames)):
            flat = np.concatenate(self.masks) if len(self) else flat[:0]
        # Every task of a search takes them along: 14 million frames in kilobytes.
        packed = zlib.compress(np.packbits(flat), 1)
        return {**self.__dict__, "_flat": packed, "_starts": None}

    def __setstate__(self, state):
        self.__dict__.update(state)
        packed = bytearray(zlib.decompress(state["_flat"]))
        n_frames = int(self.n_frames.sum())
        self._flat = np.unpackbits(np.array(packed, np.uint8), count=n_frames).view(
            bool
        )
        self._starts = starts_of(self.n_frames)


# --------------------------------------------------------------------------
# The gate
# --------------------------------------------------------------------------
def reads_as_rows(X):
    """Tell whether `X` is a plain 2-D array: each row a bag of one snippet."""
    if isinstance(X, Bags):
        return False
    if isinstance(X, (list, tuple)):  # rows as nested lists, never arrays
        fine = all([X, *(isinstance(row, (list, tuple)) for row in X)])
        fine = fine and len({len(row) for row in X}) == 1
        return fine and all(np.isscalar(value) for row in X for value in row)
    if hasattr(X, "ndim") and not isinstance(X, np.ndarray):
        return X.ndim == 2  # data frames, sparse matrices, tensors
    return hasattr(X, "__array__") and np.asarray(X).ndim == 2


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
    if not isinstance(X, (list, tuple)):
        if not hasattr(X, "__array__"):
            raise TypeError(
                f"X has type {type(X).__name__}, expected bags or a list of arrays"
            )
        X = as_array(X, "X")
        if X.ndim == 0 or (X.ndim == 1 and X.dtype.kind != "O"):
            raise ValueError(
                f"X has shape {X.shape}: expected a list of bags, each"
                " (n_snippets, n_features). Reshape your data: one video is [video]"
            )
        if X.ndim == 2:
            X = X[:, None, :]
    return Bags.from_list(X)


def check_same_videos(bags, labels):
    """Raise where bags and frame labels both have ids, and these differ.

    Parameters
    ----------
    bags : Bags, or anything without ids
    labels : FrameLabels, or anything without ids
    """
    if not isinstance(bags, Bags) or not isinstance(labels, FrameLabels):
        return
    if bags.ids is None or labels.ids is None:
        return
    wrong = np.flatnonzero(bags.ids != labels.ids)
    if len(wrong):
        i = wrong[0]
        raise ValueError(
            f"{bag_name(i, bags.ids)} has frame labels of {str(labels.ids[i])!r}:"
            " labels belong to videos by name, not by position; annotations come into"
            " the order of bags by annotations.align(bags)"
        )


def _labels_from_list(y):
    """Convert a list or object array of labels, all numbers or all texts."""
    labels = [
        label.item() if np.ndim(label) == 0 and hasattr(label, "item") else label
        for label in y
    ]
    for i, label in enumerate(labels):
        if np.ndim(label):
            raise ValueError(
                f"y holds an array for bag {i}, expected one label per video;"
                " wrap frame labels as FrameLabels(masks)"
            )
        if not isinstance(label, (numbers.Real, str)):
            raise ValueError(
                f"the label of bag {i} is {label!r}, expected a number or a text"
            )
        if isinstance(label, str) != isinstance(labels[0], str):
            raise ValueError(
                f"y mixes texts and numbers: the label of bag 0 is {labels[0]!r},"
                f" that of bag {i} is {label!r}"
            )
    return np.array(labels)


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
    if isinstance(y, (list, tuple)):
        y = _labels_from_list(y)
    elif not hasattr(y, "__array__"):
        raise TypeError(f"y has type {type(y).__name__}, expected one label per video")
    y = as_array(y, "y")
    if y.dtype.kind not in "biufUTO":
        raise ValueError(
            f"y has dtype {y.dtype}, expected labels that are numbers or texts"
        )
    y = column_or_1d(y, warn=True)
    if y.dtype.kind == "O":
        y = _labels_from_list(y)
    if len(y) != n_bags:
        raise ValueError(
            "Found input variables with inconsistent numbers of samples:"
            f" {n_bags} bags and {len(y)} labels in y; expected one label per video"
        )
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        i = int(np.argmin(np.isfinite(y)))
        raise ValueError(
            f"Input y contains NaN or infinity: the label of bag {i} is {y[i]},"
            " expected two classes"
        )
    kind = type_of_target(y, input_name="y", raise_unknown=True)
    if kind.startswith("continuous"):
        i = int(np.argmax(y != np.round(y)))
        raise ValueError(
            f"Unknown label type: {kind}. Video labels must be two classes, such as"
            f" 0 and 1; the label of bag {i} is {y[i]}"
        )
    return y
