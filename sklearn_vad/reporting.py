"""A page to look through the scores of many videos: one HTML file, without network.

The page's own text, style and code are the files in ``_report``; here are the data
that it shows. Scores are embedded in full precision, and the page counts from them,
so its counts at any threshold are those of `sklearn_vad.metrics` and
`sklearn_vad.postprocessing`.

What users' files say (ids, paths, categories) reaches the page as JSON, in which
``<``, ``>`` and ``&`` are escaped, and from there the screen as text nodes. Should
that ever fail, the page's Content-Security-Policy lets no other code run than its
own, known by its hash, and nothing load but local pictures and videos.
"""

import base64
import errno
import hashlib
import html
import json
import math
import os
import re
import warnings
from collections.abc import Mapping
from importlib.resources import files
from numbers import Integral, Real
from pathlib import Path
from urllib.parse import quote

import numpy as np
from sklearn.utils._param_validation import Interval, validate_params
from sklearn.utils.validation import check_is_fitted

from . import __version__
from ._storage import as_list, bag_name, check_ids
from ._whole_file import write_whole
from .bags import check_same_videos, check_snippet_length
from .metrics import (
    as_frame_labels,
    check_scores,
    count_bags,
    evaluate,
    frame_roc_auc_score,
    runs_of,
    unwrap,
)
from .timeline import check_frame_counts

__all__ = ["report"]

_VIDEOS = {".mp4", ".m4v", ".webm", ".ogv", ".mov", ".mkv", ".avi"}
_PICTURES = {".jpg", ".jpeg", ".png", ".gif", ".webp", ".avif", ".bmp", ".svg"}
_METRICS = {
    "frame_roc_auc_score": "frame AUC",
    "frame_average_precision_score": "frame AP",
    "anomalous_roc_auc_score": "AUC within anomalous videos",
}


@validate_params(
    {
        "threshold": [Interval(Real, None, None, closed="neither"), None],
        "min_frames": [Interval(Integral, 1, None, closed="left")],
        "merge_frames": [Interval(Integral, 0, None, closed="left")],
        "title": [str, None],
    },
    prefer_skip_nested_validation=True,
)
def report(
    est,
    bags,
    frame_labels=None,
    path="report.html",
    *,
    scores=None,
    snippet_length=16,
    threshold=None,
    min_frames=1,
    merge_frames=0,
    fps=None,
    categories=None,
    media=None,
    title=None,
):
    """Write a page to look through the scores of videos: one HTML file.

    It lists the videos, ranked by score, to sort and to filter; shows each over
    time, to zoom into; and has a slider for the threshold that counts again what
    is detected: videos, events, false alarms. With frame labels it shows the truth
    beside it. The file needs no network and no other file, those of `media`
    excepted; press ``?`` in the page for its keys.

    Parameters
    ----------
    est : detector, Pipeline or search
        Fitted; None with `scores`.
    bags : Bags, sequence of arrays, object array or array
        What `est` scores. Their ids, or else those of `frame_labels`, name the
        videos. May be None with `scores`.
    frame_labels : FrameLabels or sequence of array-like of shape (n_frames_i,), \
default=None
        0/1 labels of `bags`, one array per video.
    path : str or path-like, default="report.html"
        A file that is there is replaced.
    scores : sequence of array-like of shape (n_snippets_i,), default=None
        Scores of snippets to show in place of those that `est` would give: smoothed
        ones, or those of another program. Without `est`, a video's score is the
        highest of its snippets.
    snippet_length : float or sequence of float, default=16
        Frames per snippet, for all videos or for each. `FrameLabels` bring their
        own.
    threshold : float, default=None
        Where the slider begins; by default ``threshold_`` of the detector, 0.5
        without one.
    min_frames, merge_frames : int, default=1 and 0
        What an event is; see `sklearn_vad.postprocessing.find_events`.
    fps : float, sequence of float or dict of float by id, default=None
        Frames per second, for all videos or for each; None where unknown. With it
        the page shows times, and false alarms per hour.
    categories : sequence of str or of tuple of str, or dict by id, default=None
        Shown, and found by the filter.
    media : sequence or dict by id, default=None
        For each video the path of a video file or of a picture, or a list of such
        paths, at most one of a video; None where there is none. Pictures are taken
        as evenly spread over the video. The page refers to these files by their
        place relative to it and holds no copies, which thousands of videos would
        make too large: move them together. Which formats play is up to the
        browser; MP4 with H.264 and WebM play in all.
    title : str, default=None

    Returns
    -------
    path : Path
        Of the file, which appears whole or not at all.

    Raises
    ------
    ValueError, TypeError
        As `sklearn_vad.metrics.frame_roc_auc_score`; for other numbers of values
        than videos; for media that are neither video nor picture.
    OSError
        For a file of `media`, or a folder of `path`, that is not there.
    sklearn.exceptions.NotFittedError
        Before `fit`.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from sklearn_vad import MILRankingAnomalyDetector, report
    >>> from sklearn_vad.datasets import make_bags
    >>> bags, y = make_bags(20, random_state=0)
    >>> est = MILRankingAnomalyDetector(max_epochs=1, random_state=0).fit(bags, y)
    >>> with TemporaryDirectory() as folder:
    ...     path = report(est, bags, y, f"{folder}/report.html", fps=25)
    ...     path.read_text(encoding="utf-8")[:15]
    '<!doctype html>'
    """
    path = _check_path(path)
    n_videos = _count_videos(est, bags, scores)
    labels = None
    if frame_labels is not None:
        labels = as_frame_labels(frame_labels, snippet_length)
        check_same_videos(bags, labels)
        snippet_length = labels.snippet_length
        if len(labels) != n_videos:
            raise ValueError(
                f"got frame labels of {len(labels)} videos for {n_videos} bags"
            )
    ids = getattr(bags, "ids", None)
    ids = getattr(labels, "ids", None) if ids is None else ids
    ids = check_ids(ids, n_videos)
    settings = {  # all of it checked before videos are scored, which may take long
        "snippet_length": check_snippet_length(snippet_length, n_videos),
        "fps": _check_fps(fps, ids, n_videos),
        "categories": _check_categories(categories, ids, n_videos),
        "media": _check_media(media, ids, n_videos, path.absolute().parent),
        "min_frames": int(min_frames),
        "merge_frames": int(merge_frames),
    }
    scored = _score(est, bags, scores, n_videos)
    ids = scored.pop("ids") if ids is None else ids
    if threshold is not None:
        scored["threshold"] = float(threshold)
    write_whole(os.fspath(path), _page(scored, labels, ids, settings, title))
    return path


# --------------------------------------------------------------------------
# What users pass
# --------------------------------------------------------------------------
def _check_path(path):
    path = Path(os.fsdecode(path))
    if not path.parent.is_dir():
        reason = "there is no such folder"
        raise FileNotFoundError(errno.ENOENT, reason, str(path.parent))
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "expected a file", str(path))
    return path


def _count_videos(est, bags, scores):
    if est is None and scores is None:
        raise TypeError("est is None: expected a fitted detector, or scores=")
    if bags is None and scores is None:
        raise TypeError("bags are None: expected bags to score, or scores=")
    if est is not None:
        check_is_fitted(est)
    if scores is None:
        return count_bags(bags)
    n_videos = len(check_scores(scores))
    if n_videos == 0:
        raise ValueError("no scores: expected those of at least one video")
    if bags is not None and count_bags(bags) != n_videos:
        raise ValueError(f"got scores of {n_videos} videos for {count_bags(bags)} bags")
    return n_videos


def _per_video(values, name, ids, n_videos):
    """Return a list of one value per video, from a list or from a dict by id."""
    if values is None:
        return [None] * n_videos
    if not isinstance(values, Mapping):
        values = as_list(values, name, "a list with one value per video or a dict")
        if len(values) != n_videos:
            raise ValueError(f"got {name} of {len(values)} videos for {n_videos} bags")
        return values
    if ids is None:
        raise ValueError(f"{name} are a dict by id, but the bags have no ids")
    if values and not any(name in values for name in ids.tolist()):
        raise ValueError(
            f"{name} have ids such as {next(iter(values))!r}, but none of the bags';"
            f" that of bag 0 is {str(ids[0])!r}"
        )
    return [values.get(name) for name in ids.tolist()]


def _check_fps(fps, ids, n_videos):
    if isinstance(fps, Real):
        fps = [fps] * n_videos
    values = _per_video(fps, "fps", ids, n_videos)
    for i, value in enumerate(values):
        if value is None:
            continue
        if not isinstance(value, Real) or not 0 < value < math.inf:
            raise ValueError(
                f"{bag_name(i, ids)}: expected frames per second above 0, or None, got"
                f" fps {value!r}"
            )
    return [None if value is None else float(value) for value in values]


def _check_categories(categories, ids, n_videos):
    if categories is None:
        return None
    found = []
    for i, own in enumerate(_per_video(categories, "categories", ids, n_videos)):
        where, expected = f"categories of {bag_name(i, ids)}", "a text or texts"
        names = [own] if isinstance(own, str) else own
        names = as_list(() if names is None else names, where, expected)
        for name in names:
            if not isinstance(name, str):
                raise TypeError(f"{where}: expected {expected}, got {name!r}")
        found.append([str(name) for name in names if name])
    return found


def _check_media(media, ids, n_videos, folder):
    """Return for each video the URLs of its video and of its pictures."""
    if media is None:
        return None
    found = []
    for i, own in enumerate(_per_video(media, "media", ids, n_videos)):
        where = f"media of {bag_name(i, ids)}"
        paths = [own] if isinstance(own, (str, bytes, os.PathLike)) else own
        paths = as_list(() if paths is None else paths, where, "a path or paths")
        paths = [_media_path(path, where) for path in paths]
        videos = [path for path in paths if _suffix(path) in _VIDEOS]
        if len(videos) > 1:
            raise ValueError(f"{where}: expected at most one video, got {videos}")
        pictures = [path for path in paths if path not in videos]
        urls = [_url(path, folder) for path in videos + pictures]
        found.append({"video": urls[0] if videos else None, "images": urls})
        del found[-1]["images"][: len(videos)]
    return found


def _suffix(path):
    return os.path.splitext(path)[1].lower()


def _media_path(path, where):
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"{where}: expected a path, got {path!r}")
    path = os.path.abspath(os.fsdecode(path))
    if _suffix(path) not in _VIDEOS | _PICTURES:
        known = ", ".join(sorted(_VIDEOS | _PICTURES))
        raise ValueError(
            f"{where}: expected a video or a picture ({known}), got {path!r}"
        )
    if not os.path.isfile(path):
        raise FileNotFoundError(errno.ENOENT, f"{where}: there is no such file", path)
    return path


def _url(path, folder):
    """Return where a file is, seen from the page, as text for a URL."""
    try:
        relative = os.path.relpath(path, folder)
    except ValueError:  # on another drive of Windows
        return Path(path).as_uri()
    return quote(os.fsencode(relative.replace(os.sep, "/")))


# --------------------------------------------------------------------------
# Data
# --------------------------------------------------------------------------
def _score(est, bags, scores, n_videos):
    """Return scores of snippets and videos, and what the detector says of them."""
    detector, ids = None, None
    if scores is None:
        detector, seen = unwrap(est, bags)
        scores = detector.score_snippets(seen)
        ids = getattr(seen, "ids", None)  # of an extractor, whose X are paths
    elif est is not None:
        detector, _ = unwrap(est, None)
    scores = check_scores(scores)
    if hasattr(detector, "_video_scores"):
        video_scores = detector._video_scores(scores)
    else:
        video_scores = np.array([own.max() for own in scores], dtype=float)
    if ids is None:
        ids = [f"video {i}" for i in range(n_videos)]
    return {
        "ids": ids,
        "scores": scores,
        "video_scores": video_scores,
        "threshold": float(getattr(detector, "threshold_", 0.5)),
        "detector": "" if detector is None else type(detector).__name__,
    }


def _page(scored, labels, ids, settings, title):
    """Return the page as bytes; the same input gives the same ones."""
    scores = scored["scores"]
    flat = np.concatenate(scores)
    # Of the precision in which the metrics compare scores with a threshold.
    kind = "f4" if flat.dtype.kind == "f" and flat.dtype.itemsize <= 4 else "f8"
    n_snippets = np.array([len(own) for own in scores])
    n_frames = np.maximum(np.round(n_snippets * settings["snippet_length"]), 1)
    if labels is not None:
        n_frames = labels.n_frames
        check_frame_counts(n_snippets, n_frames, settings["snippet_length"], ids)
    true_events, truth = _truth(labels, scores)
    shown = [0.0, 1.0, float(flat.min()), float(flat.max()), scored["threshold"]]
    data = {
        "title": f"Scores of {len(scores)} videos" if title is None else title,
        "detector": scored["detector"],
        "threshold": scored["threshold"],
        "range": [min(shown), max(shown)],
        "dtype": kind,
        "ids": [str(name) for name in ids],
        "n_snippets": n_snippets.tolist(),
        "n_frames": [int(n) for n in n_frames],
        **settings,
        "snippet_length": _short(settings["snippet_length"].tolist()),
        "fps": _short(settings["fps"]),
        **truth,
    }
    blocks = {
        "scores": _pack(flat, kind),
        "video_scores": _pack(scored["video_scores"], "f8"),
        "true_events": _pack(true_events, "u4"),
    }
    return _fill_in(data, blocks)


def _truth(labels, scores):
    """Return true events, flat, and what the page shows of the truth."""
    if labels is None:
        return [], {"n_true": None, "auc": None, "metrics": []}
    events = [runs_of(mask) for mask in labels.masks]
    aucs = []
    for i, mask in enumerate(labels.masks):
        defined = mask.any() and not mask.all()
        own = labels[i : i + 1], scores[i : i + 1]
        aucs.append(frame_roc_auc_score(*own) if defined else None)
    with warnings.catch_warnings():  # what is undefined stands as a dash
        warnings.simplefilter("ignore")
        values = evaluate(labels, scores)
    metrics = [
        (text, values[name] if math.isfinite(values[name]) else None)
        for name, text in _METRICS.items()
    ]
    n_true = [len(own) for own in events]
    return np.concatenate(events), {"n_true": n_true, "auc": aucs, "metrics": metrics}


def _short(values):
    """Return one value where all are the same: thousands would be as many words."""
    return values[0] if len(set(values)) == 1 else values


def _pack(values, kind):
    return base64.b64encode(np.asarray(values).astype(f"<{kind}").tobytes()).decode()


# --------------------------------------------------------------------------
# Page
# --------------------------------------------------------------------------
def _read(name):
    return (files("sklearn_vad") / "_report" / name).read_text(encoding="utf-8")


def _hash(text):
    return (
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    )


def _json(value):
    """Return JSON that can't end the script element it stands in."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&]", lambda match: f"\\u{ord(match[0]):04x}", text)


def _fill_in(data, blocks):
    css, js = _read("report.css"), _read("report.js")
    local = "'self' file:"  # for a page that a server shows, and for one on disk
    policy = (
        f"default-src 'none'; script-src {_hash(js)}; style-src {_hash(css)};"
        f" img-src {local} data:; media-src {local}; base-uri 'none';"
        " form-action 'none'"
    )
    parts = {
        **blocks,
        "css": css,
        "js": js,
        "policy": policy,
        "version": html.escape(__version__),
        "title": html.escape(data["title"]),
        "data": _json(data),
    }
    # In one pass: a part that holds "{{js}}" is text.
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _read("report.html"))
    return page.encode("utf-8", "xmlcharrefreplace")  # a lone surrogate in a title
