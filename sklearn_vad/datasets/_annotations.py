"""`Annotations`: what is known of each video, found by its id."""

import os
import re
from collections import Counter
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain

import numpy as np

from .._storage import as_array, as_list, check_ids, shorten
from ..bags import FrameLabels
from ..timeline import _MAX_FRAMES

_SUFFIX = r"\.(?:mp4|avi|mkv|npy|npz|h5|hdf5|mat|txt)"


# --------------------------------------------------------------------------
# Ids
# --------------------------------------------------------------------------
def ids_of(bags):
    """Return the ids of `Bags`, or those of a plain list, as a list of str."""
    ids = getattr(bags, "ids", bags)
    if ids is None:
        raise ValueError(
            "the bags have no ids, and videos are found by id, never by position:"
            " make them with Bags.from_files(paths) or Bags.from_list(arrays, ids=...)"
        )
    ids = as_list(ids, "ids", "bags with ids, or a list with one id per video")
    for index, value in enumerate(ids):
        if not isinstance(value, (str, os.PathLike)):
            raise TypeError(
                f"id {index} has type {type(value).__name__}, expected a text;"
                " bags without ids are no list of ids"
            )
    return [str(os.fspath(value)) for value in ids]


def video_id(path):
    """Return a file's name without its folder and known suffixes."""
    name = re.split(r"[/\\]", path)[-1]
    name = re.sub(f"({_SUFFIX})+$", "", name, flags=re.IGNORECASE)
    if not name:
        raise ValueError(f"{path!r} names no video, expected a file name")
    return name


def _without_crop(video):
    """Return an id without the number of a crop, as in ``Abuse001_x264__3``."""
    return re.sub(r"__[0-9]+$", "", video)


def video_name(index, ids):
    return f"video {index} (id {shorten(ids[index])!r})"


# --------------------------------------------------------------------------
# The container
# --------------------------------------------------------------------------
@dataclass(frozen=True, eq=False, repr=False)
class Annotations:
    """What is known of each video: its label, categories and events.

    Annotations do not change. A slice, an index array or a mask gives those of
    some videos, an integer those of one.

    Parameters
    ----------
    ids : sequence of str
        Names of the videos, all different.
    categories : sequence of sequence of str
        Of each video one or several, in the data set's own words.
    video_labels : array-like of int of shape (n_videos,)
        1 = anomalous, 0 = normal.
    events : sequence of array-like of int of shape (n_events_i, 2)
        Anomalous frames ``[start, end)`` of each video, counted from 0; none in
        normal videos.
    n_frames : array-like of int of shape (n_videos,), default=None
        Lengths of the videos; None where the file does not tell.
    events_known : array-like of bool of shape (n_videos,), default=None
        False for a video of which the label is all that is known. None: the
        events of all videos are known.

    See Also
    --------
    load_ucf_crime_annotations, load_xd_violence_annotations : Two benchmarks.
    load_shanghaitech_annotations : The third, from frame masks.
    load_csv_annotations : A table of your own.

    Examples
    --------
    >>> from sklearn_vad.datasets import Annotations
    >>> ann = Annotations(
    ...     ["Arson01", "Normal07"], [["Arson"], ["Normal"]], [1, 0], [[[2, 4]], []]
    ... )
    >>> ann
    Annotations(n_videos=2, n_anomalous=1, n_events=1)
    >>> ann.frame_labels([5, 3]).masks[0].astype(int)
    array([0, 0, 1, 1, 0])
    >>> ann.align(["features/Normal07.npy", "features/Arson01.npy"]).y
    array([0, 1])
    """

    ids: np.ndarray
    categories: list
    video_labels: np.ndarray
    events: list
    n_frames: np.ndarray | None = None
    events_known: np.ndarray | None = None

    def __post_init__(self):
        ids = as_list(self.ids, "ids", "a list with one id per video")
        ids = check_ids(ids, len(ids))
        labels = _as_labels(self.video_labels, ids)
        self._fill(
            ids=ids,
            categories=_as_categories(self.categories, ids),
            video_labels=labels,
            events=_as_events(self.events, labels, ids),
            n_frames=as_frame_counts(self.n_frames, ids),
            events_known=_as_known(self.events_known, ids),
        )

    def _fill(self, **columns):
        for column in columns.values():
            if isinstance(column, np.ndarray):
                column.flags.writeable = False
        self.__dict__.update(columns)
        return self

    @property
    def shape(self):
        """``(n_videos,)``, as scikit-learn's splitters look for it."""
        return self.ids.shape

    @property
    def y(self):
        """The video labels, an array of one's own: ``est.fit(bags, ann.y)``."""
        return self.video_labels.copy()

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, key):
        index = np.atleast_1d(np.arange(len(self))[key])
        if index.ndim > 1:
            raise IndexError(f"expected an index, a slice or a mask, got {key!r}")
        return object.__new__(Annotations)._fill(
            **{name: _take(column, index) for name, column in self.__dict__.items()}
        )

    def __repr__(self):
        return (
            f"Annotations(n_videos={len(self)},"
            f" n_anomalous={int(self.video_labels.sum())},"
            f" n_events={sum(map(len, self.events))})"
        )

    def align(self, bags):
        """Return the annotations of these bags, in their order.

        Videos are found by id, never by position. Folders and known suffixes
        of an id don't count, nor does the number of a crop behind it
        (``Abuse001_x264__3``), unless an annotation bears it too.
        Annotations without a bag are left out.

        Parameters
        ----------
        bags : Bags or sequence of str
            Bags with ids, or the ids. Several may mean the same video.

        Returns
        -------
        annotations : Annotations

        Raises
        ------
        ValueError
            When the bags have no ids, or an id has no annotation; the message
            names a few of these, and the annotation that comes nearest.
        """
        names = [video_id(value) for value in ids_of(bags)]
        place = {video_id(video): i for i, video in enumerate(self.ids.tolist())}
        found = [place.get(name, place.get(_without_crop(name))) for name in names]
        lost = [i for i, index in enumerate(found) if index is None]
        if lost:
            free = [name for name in place if name not in set(names)]
            few = ", ".join(f"bag {i} {_nearest(names[i], free)}" for i in lost[:3])
            raise ValueError(
                f"{len(lost)} of {len(names)} bags have no annotation: {few}"
                f"{', ...' if len(lost) > 3 else ''}; expected ids among those of"
                f" the {len(self)} annotated videos"
            )
        aligned = self[np.array(found, dtype=int)]
        # A plain list may spell names in another way than the bags do.
        ids = getattr(bags, "ids", None)
        return aligned._fill(_label_ids=None if ids is None else ids.copy())

    def frame_labels(self, n_frames=None, *, snippet_length=16, outside="raise"):
        """Return 0/1 labels of all frames.

        Events that begin inside a video and end beyond it are cut.

        Parameters
        ----------
        n_frames : array-like of int of shape (n_videos,), or dict, default=None
            Length of each video, in frames; a dict has them by id. None takes those
            of the file; without such, and where features cover whole snippets
            only, pass for instance ``16 * bags.lengths``.
        snippet_length : float or sequence of float, default=16
            As in `FrameLabels`.
        outside : {"raise", "drop"}, default="raise"
            What to do with an event that begins beyond the end of its video.

        Returns
        -------
        frame_labels : FrameLabels

        Raises
        ------
        ValueError
            When an anomalous video has no event, whether the file has weak
            labels only or misses it (and perhaps the whole category), when an
            event is outside its video, or without frame counts. The message
            names the video.
        """
        if not isinstance(outside, str) or outside not in ("raise", "drop"):
            raise ValueError(f"outside must be 'raise' or 'drop', got {outside!r}")
        n_frames = as_frame_counts(n_frames, self.ids)
        n_frames = self.n_frames if n_frames is None else n_frames
        if n_frames is None:
            raise ValueError(
                "these annotations don't tell the lengths of the videos: pass"
                " n_frames, one number per video, such as 16 * bags.lengths"
            )
        if n_frames.sum(dtype=float) > _MAX_FRAMES:
            raise ValueError(
                f"the {len(self)} videos have {n_frames.sum(dtype=float):.3g} frames"
                f" together, expected at most {_MAX_FRAMES}, a label for each in memory"
            )
        self._check_events_known()
        masks = [self._mask(i, n, outside) for i, n in enumerate(n_frames)]
        ids = self.__dict__.get("_label_ids", self.ids)  # the bags', once aligned
        return FrameLabels(masks, snippet_length, ids)

    def _check_events_known(self):
        weak = np.flatnonzero((self.video_labels == 1) & ~self.events_known)
        if len(weak):
            words = "/".join(self.categories[weak[0]])
            raise ValueError(
                f"{video_name(weak[0], self.ids)} is anomalous ({words}), but its video"
                f" label is all that is known, as of {len(weak)} videos; frame labels"
                " need the frames of its events"
            )
        check_has_frames(self, [len(events) > 0 for events in self.events])

    def _mask(self, index, n_frames, outside):
        """Return which frames of a video are anomalous."""
        events = self.events[index]
        inside = events[:, 0] < n_frames
        if not inside.all() and (outside == "raise" or not inside.any()):
            start, end = events[~inside][0]
            raise ValueError(
                f"{video_name(index, self.ids)} has {n_frames} frames, but"
                f" {'an event' if inside.any() else 'all events'} outside of them (one"
                f" from {start} to {end}), expected events that begin inside; is this"
                " the video's length, at the frame rate that was annotated?"
            )
        mask = np.zeros(n_frames, dtype=bool)
        for start, end in events[inside]:
            mask[start:end] = True
        return mask


def _take(column, index):
    if isinstance(column, list):
        return [column[i] for i in index]
    return None if column is None else column[index]


def _nearest(name, names):
    near = get_close_matches(name, names, n=1)
    return f"(id {name!r}, nearest: {near[0]!r})" if near else f"(id {name!r})"


def check_has_frames(annotations, has_frames):
    """Raise for anomalous videos without anomalous frames; find lost categories."""
    anomalous = annotations.video_labels == 1
    lacking = anomalous & ~np.array(has_frames, dtype=bool)
    if not lacking.any():
        return
    first = int(np.argmax(lacking))
    empty, total = (_count_categories(annotations[m]) for m in (lacking, anomalous))
    lost = [f"{word} ({n} videos)" for word, n in empty.items() if n == total[word] > 1]
    raise ValueError(
        f"{video_name(first, annotations.ids)} is anomalous"
        f" ({'/'.join(annotations.categories[first])}), but has no anomalous frame,"
        f" expected some; so it is with {lacking.sum()} of {anomalous.sum()} anomalous"
        " videos"
        + (f", whole categories among them: {', '.join(lost)}" if lost else "")
    )


def _count_categories(annotations):
    return Counter(chain.from_iterable(annotations.categories))


# --------------------------------------------------------------------------
# Checking columns
# --------------------------------------------------------------------------
def _column(values, name, ids):
    values = as_list(values, name, "one entry per video")
    if len(values) != len(ids):
        raise ValueError(f"got {len(values)} {name} for {len(ids)} videos")
    return values


def _as_labels(labels, ids):
    labels = _column(labels, "video_labels", ids)
    for i, label in enumerate(labels):
        if np.ndim(label) or label not in (0, 1):
            raise ValueError(
                f"the label of {video_name(i, ids)} is {label!r}, expected 0 or 1"
            )
    return np.array(labels, dtype=np.int64)


def _as_categories(categories, ids):
    categories = _column(categories, "categories", ids)
    for i, words in enumerate(categories):
        is_list = isinstance(words, (list, tuple)) and len(words) > 0
        if not is_list or not all(isinstance(word, str) for word in words):
            raise ValueError(
                f"the categories of {video_name(i, ids)} are {words!r}, expected one or"
                " more texts, such as ('Arson',)"
            )
    return [tuple(map(str, words)) for words in categories]


def _as_events(events, labels, ids):
    checked = []
    for i, given in enumerate(_column(events, "events", ids)):
        name = f"the events of {video_name(i, ids)}"
        pairs = as_array(given, name)
        pairs = pairs.reshape(-1, 2) if pairs.size == 0 else pairs
        if pairs.ndim != 2 or pairs.shape[1] != 2:
            raise ValueError(f"{name} have shape {pairs.shape}, expected (n_events, 2)")
        if pairs.size and pairs.dtype.kind not in "iu":
            raise ValueError(f"{name} have dtype {pairs.dtype}, expected whole frames")
        pairs = pairs.astype(np.int64)
        if not ((pairs[:, 0] >= 0) & (pairs[:, 0] < pairs[:, 1])).all():
            raise ValueError(f"{name} are {pairs.tolist()}, expected 0 <= start < end")
        if len(pairs) and not labels[i]:
            raise ValueError(f"{video_name(i, ids)} is normal, but has events")
        pairs.flags.writeable = False
        checked.append(pairs)
    return checked


def as_frame_counts(n_frames, ids):
    """Return lengths of videos as a checked array, None as None."""
    if n_frames is None:
        return None
    if isinstance(n_frames, dict):
        missing = [i for i, video in enumerate(ids) if video not in n_frames]
        if missing:
            raise ValueError(f"n_frames has none for {video_name(missing[0], ids)}")
        n_frames = [n_frames[video] for video in ids]
    counts = as_array(n_frames, "n_frames")
    if counts.shape != (len(ids),):
        raise ValueError(
            f"n_frames has shape {counts.shape}, expected one number for each of"
            f" {len(ids)} videos"
        )
    if len(ids) and counts.dtype.kind not in "iu":
        raise ValueError(f"n_frames has dtype {counts.dtype}, expected whole numbers")
    if (counts < 1).any():
        i = int(np.argmax(counts < 1))
        raise ValueError(
            f"{video_name(i, ids)} has {counts[i]} frames, expected 1 or more"
        )
    return counts.astype(np.int64)


def _as_known(known, ids):
    if known is None:
        return np.ones(len(ids), dtype=bool)
    known = as_array(_column(known, "events_known", ids), "events_known")
    if len(ids) and known.dtype.kind != "b":
        raise ValueError(f"events_known has dtype {known.dtype}, expected bool")
    return known.astype(bool)
