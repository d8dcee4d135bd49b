"""Annotations as the authors of data sets publish them, found by a video's id.

Every reader returns `Annotations`, whose events are frame intervals
``[start, end)`` counted from 0. What a file means by "30 90" is said by
`first_frame`, the number of a video's first frame (0 or 1), and by
`end_included`, whether frame 90 is part of the event. An id is a file name
without its folder and without the suffixes of videos and arrays.
"""

import csv
import os
import re
from contextlib import contextmanager
from functools import partial
from math import floor, isfinite
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .._storage import _read_npy_header, check_ends, check_ids, read_npy, shorten
from ..bags import FrameLabels, check_snippet_length
from ._annotations import (
    Annotations,
    as_frame_counts,
    check_has_frames,
    ids_of,
    video_id,
    video_name,
)

_SUFFIX = r"\.(?:mp4|avi|mkv|npy|npz|h5|hdf5|mat|txt)"
_INTEGER = re.compile(r"-?[0-9]+")
_MAX_INTEGER = 2**31 - 1  # frames: two and a half years at 25 a second
_MAX_TEXT = 2**27  # bytes; XD-Violence's annotations take 40 kB
_XD_NAME = re.compile(r"(.+_label_([A-Z0-9-]+))(?:__[0-9]+)?")
_XD_CATEGORIES = {
    "A": "Normal",
    "B1": "Fighting",
    "B2": "Shooting",
    "B4": "Riot",
    "B5": "Abuse",
    "B6": "Car accident",
    "G": "Explosion",
}
_CSV_COLUMNS = ("video", "label", "start", "end", "category", "n_frames")


# --------------------------------------------------------------------------
# Reading: files, lines, intervals
# --------------------------------------------------------------------------
class _Video(NamedTuple):
    """What one line, or several, say of a video."""

    id: str
    categories: tuple
    label: int
    events: tuple = ()
    n_frames: int | None = None
    events_known: bool = True


def _read_text(path):
    try:
        check_ends(path)
        size = os.path.getsize(path)
        if size > _MAX_TEXT:
            raise ValueError(f"it takes {size} bytes, over {_MAX_TEXT}")
        # utf-8-sig leaves out the mark that Windows puts in front.
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # a UnicodeDecodeError is a ValueError
        raise ValueError(
            f"cannot read {os.fspath(path)!r}, expected a text in UTF-8: {error}"
        ) from error


def _read_lines(path):
    """Return (number, text) of the lines that are not blank."""
    lines = enumerate(_read_text(path).split("\n"), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


@contextmanager
def _at(path, number, line):
    """Say in which line of which file an error is."""
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"{os.fspath(path)!r}, line {number}: {shorten(error, 1000)}; the line is"
            f" {shorten(line)!r}"
        ) from error


def _read_videos(path, parse):
    """Read a file that has one line for each video, fields between blanks."""
    videos = {}
    for number, line in _read_lines(path):
        with _at(path, number, line):
            video = parse(line.split())
            if video.id in videos:
                raise ValueError(f"{video.id!r} occurs twice, expected one line each")
            videos[video.id] = video
    return videos


def _gather(videos, path):
    """Make `Annotations` of what was read."""
    if not videos:
        raise ValueError(f"{os.fspath(path)!r} names no video, expected one or more")
    without = [video.id for video in videos if video.n_frames is None]
    if 0 < len(without) < len(videos):
        raise ValueError(
            f"{os.fspath(path)!r} has no n_frames for {without[0]!r}, expected them"
            " for all videos or for none"
        )
    ids, categories, labels, events, n_frames, known = zip(*videos, strict=True)
    n_frames = None if without else np.array(n_frames)
    return Annotations(ids, categories, labels, events, n_frames, known)


def _integer(text, expected):
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"{shorten(text)!r} is no whole number, expected {expected}")
    if len(text) > 20 or abs(int(text)) > _MAX_INTEGER:
        raise ValueError(
            f"{shorten(text)!r} exceeds {_MAX_INTEGER}, expected {expected}"
        )
    return int(text)


def _length(text):
    """Return the number of frames of a video."""
    n_frames = _integer(text, "n_frames, the length of the video")
    if n_frames < 1:
        raise ValueError(f"n_frames is {n_frames}, expected 1 or more")
    return n_frames


def _pairs(fields, expected):
    """Return (start, end), (start, end), ... of a line's last fields."""
    numbers = [_integer(field, expected) for field in fields]
    if len(numbers) % 2 or not numbers:
        raise ValueError(f"got {len(numbers)} numbers of events, expected {expected}")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _frame_interval(first_frame, end_included):
    """Return a function from a file's (start, end) to frames [start, end) from 0."""
    if first_frame not in (0, 1) or end_included not in (True, False):
        raise ValueError(
            f"got {first_frame=}, {end_included=}, expected 0 or 1, and a bool"
        )
    return partial(_half_open, int(first_frame), bool(end_included))


def _half_open(first_frame, end_included, start, end):
    if start < first_frame:
        raise ValueError(
            f"an event begins at frame {start}, expected {first_frame} or more with"
            f" first_frame={first_frame}"
        )
    if end + end_included <= start:
        raise ValueError(
            f"an event goes from frame {start} to {end}, expected its end behind its"
            f" start (end_included={end_included})"
        )
    return start - first_frame, end - first_frame + end_included


# --------------------------------------------------------------------------
# The formats
# --------------------------------------------------------------------------
def load_ucf_crime_annotations(path, *, first_frame=1, end_included=True):
    """Read the temporal annotations of UCF-Crime's test videos.

    Each line is ``video category start end start end``, with ``-1 -1`` for no
    event; there may be a folder before the video, ``n_frames`` behind it, and
    more events at the end.

    Parameters
    ----------
    path : str or path
        ``Temporal_Anomaly_Annotation_for_Testing_Videos.txt``.
    first_frame : {0, 1}, default=1
        Number of a video's first frame.
    end_included : bool, default=True
        Whether the frame `end` is anomalous itself. By default, frames are
        counted from 1 with both ends included, as the authors' own evaluation
        does: "3500 4000" are 501 frames, the array's entries 3499 to 3999.
        Others slice ``[3500:4000]`` (``first_frame=0, end_included=False``),
        500 frames, the entries 3500 to 3999: every event is one frame shorter.
        RTFM counts from 0 with both ends (``first_frame=0``): 501 frames, all
        of them one frame later.

    Returns
    -------
    annotations : Annotations
        `n_frames` are those of the file, None in the authors' own.

    Raises
    ------
    ValueError
        For a line of another form, with its number, and a video that occurs
        twice.

    References
    ----------
    Sultani, Chen, Shah, "Real-world anomaly detection in surveillance videos",
    CVPR 2018.

    Examples
    --------
    >>> from tempfile import NamedTemporaryFile
    >>> from sklearn_vad.datasets import load_ucf_crime_annotations
    >>> with NamedTemporaryFile("w+") as file:
    ...     _ = file.write("Arson022_x264.mp4  Arson  3500  4000  -1  -1")
    ...     _ = file.seek(0)
    ...     ann = load_ucf_crime_annotations(file.name)
    >>> ann.ids.tolist(), ann.categories, ann.events[0].tolist()
    (['Arson022_x264'], [('Arson',)], [[3499, 4000]])
    """
    interval = _frame_interval(first_frame, end_included)
    videos = _read_videos(path, partial(_parse_ucf_crime, interval=interval))
    return _gather(list(videos.values()), path)


def _parse_ucf_crime(fields, interval):
    expected = "video [n_frames] category start end [start end ...], -1 -1 for no event"
    has_length = len(fields) > 1 and _INTEGER.fullmatch(fields[1])
    n_frames = _length(fields.pop(1)) if has_length else None
    if len(fields) < 4:
        raise ValueError(f"too few fields, expected {expected}")
    video, category, *numbers = fields
    pairs = [pair for pair in _pairs(numbers, expected) if pair != (-1, -1)]
    events = tuple(interval(*pair) for pair in pairs)
    label = int(category.lower() != "normal")
    if events and not label:
        raise ValueError("a normal video has an event, expected -1 -1 only")
    return _Video(video_id(video), (category,), label, events, n_frames)


def load_xd_violence_annotations(
    path, *, videos=None, first_frame=0, end_included=False
):
    """Read the temporal annotations of XD-Violence's test videos.

    Each line is ``video start end start end ...``. The categories stand in the
    name behind ``label_``: A normal, B1 fighting, B2 shooting, B4 riot, B5
    abuse, B6 car accident, G explosion. The file has anomalous videos only.

    Parameters
    ----------
    path : str or path
        ``annotations.txt``.
    videos : sequence of str, default=None
        Names of more videos, such as `load_split` reads: normal ones, which
        get in without events, and anomalous ones, of which the label is known
        only, unless they are in the file. Crops of a video (``..._label_A__3``)
        are one.
    first_frame : {0, 1}, default=0
        Number of a video's first frame.
    end_included : bool, default=False
        Whether the frame `end` is anomalous itself. By default, frames are
        ``[start:end]`` counted from 0, as the authors slice them: "26 80" are
        54 frames. With both ends included they are 55, one more per event;
        counting from 1 moves all of them one frame ahead.

    Returns
    -------
    annotations : Annotations
        Videos of the file, then those of `videos` that are not in it.
        `n_frames` is None.

    Raises
    ------
    ValueError
        For a line of another form, with its number, an unknown category, and
        a video that occurs twice.

    Notes
    -----
    The authors' own ground truth leaves out the last frame of each video, and
    then what does not fill a snippet: ``(n_frames - 1) // 16 * 16`` frames.

    References
    ----------
    Wu et al., "Not only look, but also listen: Learning multimodal violence
    detection under weak supervision", ECCV 2020.

    Examples
    --------
    >>> from tempfile import NamedTemporaryFile
    >>> from sklearn_vad.datasets import load_xd_violence_annotations
    >>> with NamedTemporaryFile("w+") as file:
    ...     _ = file.write("v=38GQ9L2meyE__#1_label_B6-0-0 26 80 210 288")
    ...     _ = file.seek(0)
    ...     ann = load_xd_violence_annotations(file.name, videos=["x__#1_label_A"])
    >>> ann.categories, ann.y.tolist(), ann.events[0].tolist()
    ([('Car accident',), ('Normal',)], [1, 0], [[26, 80], [210, 288]])
    """
    interval = _frame_interval(first_frame, end_included)
    found = _read_videos(path, partial(_parse_xd_violence, interval=interval))
    for name in [] if videos is None else ids_of(videos):
        video, categories = _xd_video(name)
        label = int(categories != ("Normal",))
        more = _Video(video, categories, label, events_known=not label)
        found.setdefault(video, more)
    return _gather(list(found.values()), path)


def _xd_video(path):
    """Return the id of a video, and the categories that are in its name."""
    match = _XD_NAME.fullmatch(video_id(path))
    if match is None:
        raise ValueError(
            f"the name {shorten(path)!r} has no category, expected one such as"
            " v=38GQ9L2meyE__#1_label_B1-B2-0 or ..._label_A"
        )
    codes = [code for code in match[2].split("-") if code != "0"]
    mixed = "A" in codes and len(codes) > 1
    if mixed or not codes or not set(codes) <= set(_XD_CATEGORIES):
        raise ValueError(
            f"the name {shorten(path)!r} has the categories {shorten(match[2])!r},"
            f" expected A, or some of {', '.join(list(_XD_CATEGORIES)[1:])}, with"
            " hyphens in between"
        )
    categories = dict.fromkeys(_XD_CATEGORIES[code] for code in codes)
    return match[1], tuple(categories)


def _parse_xd_violence(fields, interval):
    video, categories = _xd_video(fields[0])
    pairs = _pairs(fields[1:], "video start end [start end ...]")
    if "Normal" in categories:
        raise ValueError("a normal video (label_A) has an event, expected none")
    return _Video(video, categories, 1, tuple(interval(*pair) for pair in pairs))


def load_shanghaitech_annotations(folder, *, normal_videos=None):
    """Read the frame masks of ShanghaiTech Campus' test videos.

    There are no conventions to choose: a mask has one 0/1 entry per frame.

    Parameters
    ----------
    folder : str or path
        ``test_frame_mask``, which holds ``01_0014.npy`` and so on. Files with
        other suffixes are left alone.
    normal_videos : dict of str to int, default=None
        Frame counts of videos without a mask, by id. In the weakly supervised
        split, the test part has normal videos that the data set's authors gave
        for training, and those have no masks.

    Returns
    -------
    annotations : Annotations
        Sorted by id, those of `normal_videos` behind. Categories are "Normal"
        and "Anomalous"; `n_frames` are known.

    Raises
    ------
    ValueError
        For an unreadable file, or one that is no 1-D array of 0 and 1.

    References
    ----------
    Liu, Luo, Lian, Gao, "Future frame prediction for anomaly detection",
    CVPR 2018; Zhong et al., "Graph convolutional label noise cleaner", CVPR 2019.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from sklearn_vad.datasets import load_shanghaitech_annotations
    >>> with TemporaryDirectory() as folder:
    ...     np.save(Path(folder, "01_0014.npy"), [0, 1, 1, 0, 1])
    ...     ann = load_shanghaitech_annotations(folder, normal_videos={"05_001": 9})
    >>> ann.ids.tolist(), ann.events[0].tolist(), ann.n_frames.tolist()
    (['01_0014', '05_001'], [[1, 3], [4, 5]], [5, 9])
    """
    masks = {
        video_id(path.name): _read_mask(path)
        for path in sorted(Path(folder).glob("*.npy"))
    }
    videos = [_video_of_mask(*pair) for pair in masks.items()]
    for video, n_frames in dict(normal_videos or {}).items():
        if video_id(video) in masks:
            raise ValueError(f"{video!r} of normal_videos has a mask in the folder")
        videos.append(_Video(video_id(video), ("Normal",), 0, n_frames=n_frames))
    return _gather(videos, folder)


def _video_of_mask(video, mask):
    edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0))
    label = int(len(edges) > 0)
    category = "Anomalous" if label else "Normal"
    return _Video(video, (category,), label, edges.reshape(-1, 2), len(mask))


def _read_mask(path):
    """Read a 1-D array of 0 and 1 as bool."""
    name = os.fspath(path)
    try:
        shape, dtype = _read_npy_header(path)
    except ValueError as error:
        raise ValueError(
            f"cannot read {name!r}, expected a .npy file with one 0/1 entry per frame"
            f" (pickles are never opened): it {error}"
        ) from error
    if len(shape) != 1 or shape[0] == 0 or dtype.kind not in "biuf":
        raise ValueError(
            f"{name!r} holds an array {shape}, expected one of numbers, (n_frames,)"
        )
    labels = read_npy(path)
    wrong = np.flatnonzero((labels != 0) & (labels != 1))
    if len(wrong):
        raise ValueError(
            f"{name!r} holds {labels[wrong[0]]} at frame {wrong[0]}, expected 0 or 1"
        )
    return labels == 1


# --------------------------------------------------------------------------
# A table of one's own
# --------------------------------------------------------------------------
def load_csv_annotations(
    path, *, unit="frames", fps=None, first_frame=0, end_included=False
):
    """Read a table with one row per event, or per video that has none.

    The first line names the columns, in any order: ``video`` and ``label``
    (0 or 1), and if you like ``start`` and ``end``, ``category``, and
    ``n_frames``. A normal video has one row with empty start and end. Without
    these two columns the labels are weak: the events are not known.

    Parameters
    ----------
    path : str or path
        Values between commas, in UTF-8.
    unit : {"frames", "seconds"}, default="frames"
        Of start and end.
    fps : float, default=None
        Frames per second, for seconds. They are rounded to the nearest border
        between two frames, so an end is off by half a frame at most; each
        event has at least one frame.
    first_frame : {0, 1}, default=0
        Number of a video's first frame; for frames only.
    end_included : bool, default=False
        Whether the frame `end` is anomalous itself; for frames only. By
        default "30,90" are 60 frames, the entries 30 to 89 of the video; with
        both ends included they are 61, one more per event. Counting from 1
        moves all of them one frame ahead.

    Returns
    -------
    annotations : Annotations
        Videos as they come. Without a category they are "Normal" and
        "Anomalous"; a video has those of all its rows.

    Raises
    ------
    ValueError
        For an unknown column, and a row that is not complete, contradicts
        another one or repeats it, with its number.

    Examples
    --------
    >>> from tempfile import NamedTemporaryFile
    >>> from sklearn_vad.datasets import load_csv_annotations
    >>> table = "video,label,start,end\\na.mp4,1,0.5,2\\na.mp4,1,4,5\\nb.mp4,0,,"
    >>> with NamedTemporaryFile("w+") as file:
    ...     _ = file.write(table)
    ...     _ = file.seek(0)
    ...     ann = load_csv_annotations(file.name, unit="seconds", fps=25)
    >>> ann.y.tolist(), ann.events[0].tolist()
    ([1, 0], [[13, 50], [100, 125]])
    """
    interval = _csv_interval(unit, fps, first_frame, end_included)
    videos = {}
    for number, row, fields in _csv_rows(path):
        with _at(path, number, row):
            video = _parse_csv(fields, interval)
            known = videos.get(video.id)
            videos[video.id] = _merge(known, video) if known else video
    return _gather([_with_category(video) for video in videos.values()], path)


def _csv_rows(path):
    """Yield (number, text, {column: value}) of the rows that are not blank."""
    reader = csv.reader(_read_text(path).split("\n"), strict=True)
    try:
        header = [column.strip().lower() for column in next(reader, [])]
        with _at(path, 1, ",".join(header)):
            _check_header(header)
        for values in reader:
            row = ",".join(values)
            with _at(path, reader.line_num, row):
                if row.strip() and len(values) != len(header):
                    raise ValueError(
                        f"{len(values)} values, expected {len(header)}: "
                        + ",".join(header)
                    )
            if row.strip():
                values = [value.strip() for value in values]
                yield reader.line_num, row, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise ValueError(
            f"{os.fspath(path)!r}, line {reader.line_num}: no row of values between"
            f" commas: {error}"
        ) from error


def _check_header(header):
    fine = set(header) <= set(_CSV_COLUMNS) and len(set(header)) == len(header)
    fine = fine and {"video", "label"} <= set(header)
    if not fine or ("start" in header) != ("end" in header):
        raise ValueError(
            f"got the columns {header}, expected video,label[,start,end][,category]"
            "[,n_frames]"
        )


def _parse_csv(fields, interval):
    if fields["label"] not in ("0", "1"):
        raise ValueError(f"the label is {fields['label']!r}, expected 0 or 1")
    label, ends = int(fields["label"]), (fields.get("start"), fields.get("end"))
    if any(ends) and not all(ends):
        raise ValueError("only one of start and end is given, expected both or none")
    if any(ends) and not label:
        raise ValueError("a video with label 0 has an event, expected none")
    category, n_frames = fields.get("category"), fields.get("n_frames")
    return _Video(
        video_id(fields["video"]),
        (category,) if category else (),
        label,
        (interval(*ends),) if any(ends) else (),
        _length(n_frames) if n_frames else None,
        events_known="start" in fields,
    )


def _merge(one, other):
    """Return what two rows say of the same video."""
    if not (one.events and other.events):
        raise ValueError(f"{one.id!r} occurs twice, expected one row, or one per event")
    if other.events[0] in one.events:
        raise ValueError("the event occurs twice, expected one row per event")
    if one.n_frames != other.n_frames:
        raise ValueError(
            f"{other.n_frames} frames, expected {one.n_frames} as in the row before"
        )
    more = tuple(word for word in other.categories if word not in one.categories)
    events = one.events + other.events
    return one._replace(categories=one.categories + more, events=events)


def _with_category(video):
    default = ("Anomalous" if video.label else "Normal",)
    return video._replace(categories=video.categories or default)


def _csv_interval(unit, fps, first_frame, end_included):
    """Return a function from the texts of start and end to frames [start, end)."""
    frames = _frame_interval(first_frame, end_included)
    if unit == "frames" and fps is None:
        return lambda *ends: frames(*(_integer(end, "a whole frame") for end in ends))
    if unit != "seconds" or first_frame or end_included:
        raise ValueError(
            f"got {unit=}, {fps=}, {first_frame=}, {end_included=}, expected"
            " unit='frames' without fps, or unit='seconds' with fps alone"
        )
    if fps is None or not (isfinite(fps) and fps > 0):
        raise ValueError(f"unit='seconds' needs fps > 0, frames per second; got {fps}")
    return partial(_frames_of_seconds, fps)


def _frames_of_seconds(fps, start, end):
    try:
        seconds = float(start), float(end)
    except ValueError:
        seconds = (np.nan, np.nan)
    if not 0 <= seconds[0] < seconds[1] < np.inf:
        raise ValueError(
            f"an event goes from {start!r} to {end!r}, expected seconds, 0 <= start"
            " < end"
        )
    first, last = (floor(value * fps + 0.5) for value in seconds)
    return first, max(last, first + 1)


# --------------------------------------------------------------------------
# All frames in one array, lists of videos
# --------------------------------------------------------------------------
def load_concatenated_frame_labels(
    path, ids, n_frames, *, snippet_length=16, annotations=None
):
    """Read the frame labels of all videos from one array, the field's gt.npy.

    Such a file does not tell which frames belong to which video. Its lengths
    have to add up exactly, and the order of the videos is yours to know: it is
    that of the test list with which the file was made.

    Parameters
    ----------
    path : str or path
        A .npy file with one 0/1 entry per frame.
    ids : Bags or sequence of str
        The videos, in the order of the file.
    n_frames : array-like of int of shape (n_videos,)
        Frames of each video. Many such files have whole snippets only:
        ``16 * bags.lengths``.
    snippet_length : float or sequence of float, default=16
        As in `FrameLabels`.
    annotations : Annotations, default=None
        Where given, the labels of the videos have to agree with them. It finds
        files in which whole categories were lost, and another order.

    Returns
    -------
    frame_labels : FrameLabels

    Raises
    ------
    ValueError
        When the lengths don't add up, the message says by how much, and when
        the frames contradict the annotations.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from sklearn_vad.datasets import load_concatenated_frame_labels
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "gt.npy")
    ...     np.save(path, [0, 1, 1, 0, 0])
    ...     y = load_concatenated_frame_labels(path, ["a", "b"], [3, 2])
    >>> y.masks
    [array([False,  True,  True]), array([False, False])]
    """
    ids = ids_of(ids)
    ids = check_ids(ids, len(ids))
    if n_frames is None:
        raise ValueError("n_frames is None, expected one number per video")
    n_frames = as_frame_counts(n_frames, ids)
    flat = _read_mask(path)
    more = len(flat) - int(n_frames.sum())
    if more:
        raise ValueError(
            f"{os.fspath(path)!r} has {len(flat)} frames, but the {len(ids)} videos"
            f" have {n_frames.sum()}: {abs(more)} too {'many' if more > 0 else 'few'},"
            " expected equal numbers"
            + _hint(len(flat), n_frames, check_snippet_length(snippet_length, len(ids)))
        )
    masks = np.split(flat, np.cumsum(n_frames)[:-1])
    labels = FrameLabels(masks, snippet_length)
    if annotations is not None:
        _check_agrees(labels, annotations.align(ids))
    return labels


def _hint(total, n_frames, snippet_length):
    """Say what may be wrong with frame counts that don't add up."""
    others = {
        "cut to whole snippets": n_frames // snippet_length,
        "filled up to whole snippets": -(-n_frames // snippet_length),
        "less one and cut to whole snippets, as XD-Violence's authors do,": (
            (n_frames - 1) // snippet_length
        ),
    }
    for what, n_snippets in others.items():
        if np.round(n_snippets * snippet_length).sum() == total:
            return f"; n_frames {what} would add up"
    times, rest = divmod(int(n_frames.sum()), total)
    if times > 1 and not rest:
        return f"; these are {times} times as many: is each crop counted as a video?"
    if (n_frames % snippet_length == 0).all():
        return (
            "; all n_frames are multiples of the snippet length, as if made from"
            " numbers of snippets: the file may hold the videos' true lengths"
        )
    return ""


def _check_agrees(labels, annotations):
    check_has_frames(annotations, labels.video_labels == 1)
    wrong = np.flatnonzero(labels.video_labels > annotations.video_labels)
    if len(wrong):
        raise ValueError(
            f"{video_name(wrong[0], annotations.ids)} is normal, but has anomalous"
            " frames; expected none. Are ids and n_frames in the order of the file?"
        )


def load_split(path):
    """Read a list of videos, such as the lines of a training or test list.

    Parameters
    ----------
    path : str or path
        One video per line: a path or name, with or without suffix, and with or
        without a label behind it (after a blank or comma). A first line that
        says ``path`` or ``video`` is a header.

    Returns
    -------
    ids : list of str
        As they come, without folders and suffixes.

    Raises
    ------
    ValueError
        For a line of another form, with its number, and a video that occurs
        twice.

    Examples
    --------
    >>> from tempfile import NamedTemporaryFile
    >>> from sklearn_vad.datasets import load_split
    >>> with NamedTemporaryFile("w+") as file:
    ...     _ = file.write("Abuse/Abuse001_x264.mp4\\n01_0014,1\\n")
    ...     _ = file.seek(0)
    ...     load_split(file.name)
    ['Abuse001_x264', '01_0014']
    """
    ids = {}
    for number, line in _read_lines(path):
        with _at(path, number, line):
            video = _split_id(line)
            if video in ids:
                raise ValueError(f"{video!r} occurs twice, expected one line each")
        if number > 1 or video.lower() not in ("path", "video"):
            ids[video] = number
    if not ids:
        raise ValueError(f"{os.fspath(path)!r} names no video, expected one or more")
    return list(ids)


def _split_id(line):
    # A suffix ends the name, even one with blanks; else the first blank does.
    match = re.match(rf"(.+?{_SUFFIX})(?:[\s,]+([^\s,]+))?$", line, re.IGNORECASE)
    match = match or re.match(r"([^\s,]+)(?:[\s,]+([^\s,]+))?$", line)
    if match is None:
        raise ValueError("expected a path or name, and at most one label behind it")
    return video_id(match[1])
