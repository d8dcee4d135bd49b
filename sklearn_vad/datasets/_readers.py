"""Feature files as people have them: five formats, five layouts, one `Bags`.

What the field hands around, and how to read it:

========================================= ==========================================
Features                                  Call
========================================= ==========================================
One .npy per video, (T, D); or 32 ready   ``load_features(folder)``
segments, (32, D)
UCF-Crime, I3D, ten crops in one file:    ``load_features(folder, n_crops=10,``
(T, 10, D), as RTFM and its heirs use     ``layout="snippets_crops")``
The same with crops first, (10, T, D)     ``layout="crops_snippets", n_crops=10``
XD-Violence, and the UCF-Crime files of   ``load_features(folder, n_crops=5,``
its authors: video__0.npy to __4.npy      ``layout="crop_files")``
Of these the centre crop alone            ``layout="crop_files", pattern="*__0.npy"``
Sultani's C3D: .txt, 32 lines of 4096     ``load_features(folder, pattern="*.txt")``
DAM's snippets with inner time steps,     ``layout="snippets_steps"``
(T, n_steps, D)
MATLAB or HDF5, several arrays in a file  ``load_features(folder, key="features")``
========================================= ==========================================

Bags of the crop layouts are (n_snippets, n_crops, n_features).

Nothing is ever unpickled. A file that promises far more data than one of its size
would hold is refused before any are read: see `_most_bytes`.
"""

import os
import re
import warnings
from collections import Counter
from numbers import Integral
from pathlib import Path

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from .._progress import tqdm
from .._storage import (
    InFiles,
    _check_bag_shape,
    _check_finite,
    _fingerprint,
    _float_dtype,
    _to_dtype,
    as_list,
    bag_name,
    check_ids,
    check_same_tail,
    is_store,
)
from ..bags import Bags
from ._formats import FORMATS, read_part, suffix_of

# What one file holds; `_check_layout` counts the axes.
_LAYOUTS = {
    "snippets": "(n_snippets, n_features)",
    "snippets_steps": "(n_snippets, n_steps, n_features)",
    "snippets_crops": "(n_snippets, n_crops, n_features)",
    "crops_snippets": "(n_crops, n_snippets, n_features)",
    "crop_files": "(n_snippets, n_features)",
}
_TURNED = {
    "snippets_crops": "crops_snippets",
    "crops_snippets": "snippets_crops",
}
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".dill")
_CROP_NAME = re.compile(r"(.+)__([0-9]+)", re.DOTALL)


@validate_params(
    {
        "source": "no_validation",
        "pattern": [str, None],
        "layout": [StrOptions(set(_LAYOUTS))],
        "n_crops": [Interval(Integral, 1, None, closed="left"), None],
        "key": [str, None],
        "ids": "no_validation",
        "progress": ["boolean"],
    },
    prefer_skip_nested_validation=True,
)
def load_features(
    source,
    *,
    pattern=None,
    layout="snippets",
    n_crops=None,
    key=None,
    ids=None,
    progress=True,
):
    """Use feature files of many formats as bags, read only when needed.

    The shapes of all files are read and checked at the call, their data on use.
    Nothing is ever unpickled.

    ======================== ==========================================================
    Suffix                   Content
    ======================== ==========================================================
    ``.npy``                 one array
    ``.npz``                 one array, or several of which `key` names one
    ``.h5``, ``.hdf5``       the same; needs h5py, ``pip install 'sklearn_vad[hdf5]'``
    ``.mat``                 the same; version 7.3 needs h5py
    ``.txt``                 one line per snippet, numbers separated by white space;
                             read as float32
    ======================== ==========================================================

    Parameters
    ----------
    source : str, path, or sequence of str or path
        A folder, searched with all its subfolders, or the files themselves. In a
        folder, names that begin with a dot are left out, and links to other folders
        are not followed.
    pattern : str, default=None
        Which files of a folder to take, such as ``"*.npy"`` or ``"train/*.npy"``.
        By default all with one of the suffixes above.
    layout : str, default="snippets"
        What one file holds:

        - ``"snippets"``: (n_snippets, n_features);
        - ``"snippets_steps"``: (n_snippets, n_steps, n_features), for DAM;
        - ``"snippets_crops"``: (n_snippets, n_crops, n_features);
        - ``"crops_snippets"``: (n_crops, n_snippets, n_features);
        - ``"crop_files"``: (n_snippets, n_features), one crop of a video; the files
          ``video__0.npy``, ``video__1.npy`` and so on make one bag.

        Bags of the last three are (n_snippets, n_crops, n_features).
    n_crops : int, default=None
        Crops of every video; another number is an error. By default, all videos
        must have as many as the first. Give it where you know it: in videos of equal
        length, nothing else tells crops from snippets.
    key : str, default=None
        Name of the array in files that hold several; ``"group/name"`` in HDF5.
    ids : sequence of str, default=None
        Names of the videos, if `source` is no folder. By default the file names
        without suffix and crop number; where two folders have the same, the path
        from the folder that holds both.
    progress : bool, default=True
        Show a progress bar while the shapes are read.

    Returns
    -------
    bags : Bags
        In the order of their ids from a folder, in the given order else. It pickles
        as paths.

    Raises
    ------
    ValueError
        For missing, damaged and unknown files, pickles, shapes that don't fit the
        layout, and videos that differ in crops, steps or features, at the call; for
        NaN, infinity, damaged data and files changed since the call, on use.
    TypeError
        For arrays of anything but real numbers.
    ImportError
        For HDF5 files without h5py.

    See Also
    --------
    Bags.save : Write what was read as one memory-mapped store, much faster to use.
    Bags.from_files : The same for .npy files, not even opened before they are used.

    Notes
    -----
    MATLAB writes the axes of an array in reverse order into HDF5. They are turned back
    for .mat files; for .h5 files that MATLAB's ``h5write`` made they are not.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from sklearn_vad.datasets import load_features
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, n_snippets in [("fight", 5), ("street", 3)]:
    ...         np.save(os.path.join(folder, name), np.ones((n_snippets, 10, 4)))
    ...     bags = load_features(folder, layout="snippets_crops", progress=False)
    ...     bags.ids.tolist(), bags.lengths.tolist(), bags[0].shape
    (['fight', 'street'], [5, 3], (5, 10, 4))
    """
    if n_crops is not None and "crop" not in layout:
        raise ValueError(f"{n_crops=} is for layouts with crops, got {layout=}")
    in_folder = isinstance(source, (str, os.PathLike))
    paths = _search(source, pattern, ids) if in_folder else _listed(source, pattern)
    if layout == "snippets":
        _warn_of_crop_files(paths)
    stems, videos = _join_crops(paths) if layout == "crop_files" else _one_each(paths)
    if ids is None:
        ids = _default_ids(stems, videos, source if in_folder else None)
    ids = check_ids(ids, len(videos))
    if in_folder:
        order = np.argsort(ids, kind="stable")
        videos, ids = [videos[i] for i in order], ids[order]
    files = FeatureFiles(videos, ids, layout, key)
    files.read_headers(n_crops, progress)
    return Bags(files, np.arange(len(videos)), ids)


# --------------------------------------------------------------------------
# Which files, and which of them make one video
# --------------------------------------------------------------------------
def _search(source, pattern, ids):
    """Return the absolute paths of a folder's feature files."""
    if ids is not None:
        raise ValueError("ids are for a list of paths; in a folder, file names are ids")
    folder = Path(os.path.abspath(source))
    if not folder.is_dir():
        what = "a file, not a folder: say [path]" if folder.exists() else "no folder"
        raise ValueError(f"{str(folder)!r} is {what}")
    if is_store(folder):
        raise ValueError(f"{str(folder)!r} is a store: open it with Bags.open")
    try:
        found = sorted(folder.rglob("*" if pattern is None else pattern))
    except (ValueError, NotImplementedError) as error:
        raise ValueError(f"{pattern=} is no pattern of file names: {error}") from error
    files = [str(path) for path in found if _is_visible_file(path, folder)]
    if pattern is None:
        chosen = [path for path in files if suffix_of(path) in FORMATS]
    else:
        chosen = files
    if not chosen:
        suffixes = ", ".join(sorted({suffix_of(path) for path in files} - {""}))
        raise ValueError(
            f"{str(folder)!r} holds no files"
            f"{'' if pattern is None else f' that match {pattern!r}'} to read:"
            f" expected {', '.join(FORMATS)}, found {suffixes or 'none'}"
            " (pickles such as .pt, .pth and .pkl are never opened)"
        )
    return chosen


def _is_visible_file(path, folder):
    parts = path.relative_to(folder).parts
    return path.is_file() and not any(part.startswith(".") for part in parts)


def _listed(paths, pattern):
    """Return a list of paths as absolute ones."""
    if pattern is not None:
        raise ValueError(f"{pattern=} is for a folder, got a list of paths")
    paths = as_list(paths, "source", "a folder or a list of paths")
    if not paths:
        raise ValueError("no files: expected a list with at least one path")
    for index, path in enumerate(paths):
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(
                f"source[{index}] has type {type(path).__name__}, expected the path"
                " of a file; for arrays use Bags.from_list"
            )
    return [os.path.abspath(path) for path in paths]


def _one_each(paths):
    """Return the stems of videos of one file each, and lists of that file."""
    return [os.path.splitext(path)[0] for path in paths], [[path] for path in paths]


def _join_crops(paths):
    """Return the stems of videos, without crop number, and the files of each."""
    videos = {}
    for path in paths:
        stem = os.path.join(os.path.dirname(path), _crop_of(path)[0])
        videos.setdefault(stem, []).append(path)
    return list(videos), [sorted(files, key=_crop_of) for files in videos.values()]


def _warn_of_crop_files(paths):
    """Warn where every video seems to lie in several files, one for each crop."""
    names = [_CROP_NAME.fullmatch(Path(path).stem) for path in paths]
    videos = {name.group(1) for name in names if name}
    if all(names) and 2 * len(videos) <= len(names):
        warnings.warn(
            f"{len(names)} files such as {Path(paths[0]).name!r} are read as so many"
            f" videos; if they are the crops of {len(videos)} videos, pass"
            " layout='crop_files'",
            stacklevel=4,
        )


def _crop_of(path):
    """Return the video and the crop number that a file's name tells."""
    found = _CROP_NAME.fullmatch(os.path.splitext(os.path.basename(path))[0])
    if found is None:
        raise ValueError(
            f"{path!r} has no crop number in its name, expected one such as"
            " video__0.npy for layout='crop_files'"
        )
    return found[1], int(found[2])


def _default_ids(stems, videos, folder):
    """Return file names; for one that comes twice, the path from the folder."""
    files = {}
    for stem, (file, *_) in zip(stems, videos, strict=True):
        if stem in files:
            raise ValueError(
                f"{files[stem]!r} and {file!r} have the same name, expected one file"
                " per video; pattern takes some files of a folder, ids name a list"
            )
        files[stem] = file
    names = [os.path.basename(stem) for stem in stems]
    counts = Counter(names)
    if folder is None:
        folder = os.path.commonpath([os.path.dirname(stem) for stem in stems])
    return [
        name if counts[name] == 1 else Path(os.path.relpath(stem, folder)).as_posix()
        for name, stem in zip(names, stems, strict=True)
    ]


# --------------------------------------------------------------------------
# The storage behind the bags
# --------------------------------------------------------------------------
class FeatureFiles(InFiles):
    """Feature files of any format and layout; several per bag if crops are apart.

    It pickles as paths, with the shape and dtype of every bag.
    """

    def __init__(self, videos, ids, layout, key):
        self.paths = videos
        self.fingerprints = [[_fingerprint(p) for p in files] for files in videos]
        self.ids = ids
        self.layout = layout
        self.key = key
        self._headers = None

    def read_headers(self, n_crops, progress):
        """Read the shapes of all files, and check that they make like bags."""
        bar = tqdm(
            self.paths,
            desc="reading shapes",
            unit="video",
            leave=False,
            disable=not progress,
        )
        with bar:
            headers = [
                self._read_header(files, bag_name(index, self.ids))
                for index, files in enumerate(bar)
            ]
        shapes = [shape for shape, _ in headers]
        if "crop" in self.layout:
            self._check_crops(shapes, n_crops)
        check_same_tail(shapes, self.ids)
        self._headers = headers

    def _read_header(self, files, name):
        """Return the shape and dtype of the bag that these files make."""
        if self.layout == "crop_files":
            _check_crop_numbers(files, name)
        shapes, dtypes = [], set()
        for path in files:
            file_name = f"{name}: {path!r}"
            _check_path(path, file_name)
            shape, dtype = read_part("header", path, self.key, file_name)
            _check_layout(shape, self.layout, file_name)
            _check_bag_shape(shape, file_name)
            dtypes.add(_float_dtype(dtype, file_name))
            shapes.append(shape)
            if shape != shapes[0]:
                raise ValueError(
                    f"{file_name} has shape {shape}, expected {shapes[0]} as in"
                    f" {files[0]!r}, another crop of this video"
                )
        if self.layout == "crop_files":
            shape = (shape[0], len(files), *shape[1:])
        elif self.layout == "crops_snippets":
            shape = (shape[1], shape[0], *shape[2:])
        return shape, np.result_type(*dtypes)

    def _check_crops(self, shapes, n_crops):
        """Raise unless all bags have `n_crops` crops, or as many as the first."""
        expected = n_crops or shapes[0][1]
        wrong = next((i for i, s in enumerate(shapes) if s[1] != expected), None)
        if wrong is None:
            return
        hint = "pattern takes files of one kind from a folder"
        lengths = {shape[0] for shape in shapes}
        if self.layout in _TURNED and lengths == {n_crops or shapes[0][0]}:
            other = _TURNED[self.layout]
            hint = (
                f"since all have {shapes[0][0]} snippets, this looks like"
                f" layout={other!r}, {_LAYOUTS[other]}"
            )
        raise ValueError(
            f"{bag_name(wrong, self.ids)}: {self.paths[wrong][0]!r} makes"
            f" {shapes[wrong][0]} snippets of {shapes[wrong][1]} crops, expected"
            f" {expected} crops{'' if n_crops else f' as in {bag_name(0, self.ids)}'};"
            f" {hint}"
        )

    def read(self, index, name):
        shape, dtype = self._headers[index]
        files = zip(self.paths[index], self.fingerprints[index], strict=True)
        if self.layout == "crop_files":
            shape = shape[:1] + shape[2:]  # of each file
            crops = [self._read_file(*file, shape, name) for file in files]
            bag = np.stack(crops, axis=1)
        else:
            bag = self._read_file(*next(files), shape, name)
        bag = _to_dtype(bag, dtype)
        bag.flags.writeable = False
        return bag

    def _read_file(self, path, fingerprint, shape, name):
        """Return the array of one file, snippets first, checked."""
        name = f"{name}: {path!r}"
        if _fingerprint(path) != fingerprint:
            what = "changed on disk" if os.path.exists(path) else "was removed"
            raise ValueError(f"{name} {what} after load_features; call it again")
        array = read_part("data", path, self.key, name)
        array = _to_dtype(array, _float_dtype(array.dtype, name))
        if self.layout == "crops_snippets":
            array = array.swapaxes(0, 1)
        if array.shape != shape:
            raise ValueError(
                f"{name} is damaged: it promised shape {shape}, and has {array.shape}"
            )
        _check_finite(array, name)
        return array


def _check_path(path, name):
    """Raise unless `path` is a file of a format that is read."""
    suffix = suffix_of(path)
    if suffix in _PICKLES:
        raise ValueError(
            f"{name} is a pickle, which is never opened, since it can run any code;"
            f" expected {', '.join(FORMATS)}"
        )
    if suffix not in FORMATS:
        raise ValueError(f"{name} is of no known format, expected {', '.join(FORMATS)}")
    if not os.path.isfile(path):
        raise ValueError(f"{name}: no such file")


def _check_layout(shape, layout, name):
    """Raise unless an array has the axes of its layout, which is never guessed."""
    fitting = [
        other for other, axes in _LAYOUTS.items() if axes.count("n_") == len(shape)
    ]
    if layout not in fitting:
        others = "".join(f"; or is it layout={o!r}, {_LAYOUTS[o]}?" for o in fitting)
        raise ValueError(
            f"{name} has shape {shape}, expected {_LAYOUTS[layout]} for"
            f" {layout=}{others}"
        )


def _check_crop_numbers(files, name):
    """Raise unless the crops of a video are numbered 0, 1, 2 and so on."""
    numbers = [_crop_of(path)[1] for path in files]
    if numbers != list(range(len(numbers))):
        raise ValueError(
            f"{name}: {files[0]!r} and its like have crop numbers {numbers},"
            f" expected every number from 0 to {numbers[-1]} once"
        )
