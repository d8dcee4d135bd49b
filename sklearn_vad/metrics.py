"""Metrics of video anomaly detection, by frames and by events; scorers.

Conventions
-----------
- Labels have one 0/1 entry per frame, scores one per snippet; a frame takes the
  score of its snippet (see `sklearn_vad.timeline`). Higher means more anomalous.
- Metrics are *micro*: the frames of all videos are pooled. An average over
  videos would be undefined for every normal video.
- Values equal scikit-learn's on the expanded frames. Nothing is expanded: a
  snippet counts with the numbers of its anomalous and normal frames.
- Where only one class is present, the value is NaN, with an
  `UndefinedMetricWarning`.
- A true event is a run of anomalous frames; frames count from 0, and the last
  one of an event is excluded.

References
----------
Sultani, Chen and Shah, "Real-world anomaly detection in surveillance videos",
CVPR 2018 (frame-level AUC); Wu et al., "Not only look, but also listen", ECCV
2020 (frame-level AP); Feng, Hong and Zheng, "MIST: Multiple instance
self-training framework for video anomaly detection", CVPR 2021 (AUC of a
category); Heilbron et al., "ActivityNet", CVPR 2015 (AP of events).
"""

import warnings
from dataclasses import dataclass
from functools import cached_property
from numbers import Real

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils.metadata_routing import MetadataRequest

from ._storage import as_array, as_list
from .bags import FrameLabels, check_same_videos, check_snippet_length
from .timeline import check_frame_counts, snippet_bounds

__all__ = [
    "anomalous_roc_auc_score",
    "balanced_frame_roc_auc_score",
    "category_roc_auc_score",
    "evaluate",
    "event_average_precision_score",
    "false_alarm_rate",
    "frame_average_precision_score",
    "frame_average_precision_scorer",
    "frame_roc_auc_score",
    "frame_roc_auc_scorer",
    "frame_scorers",
    "mean_event_average_precision",
    "score_gap",
]

_INTERPOLATIONS = ("step", "trapezoid")
# An event: frames from `first` up to `last`, which is excluded, and its score.
EVENT = np.dtype([("first", np.int64), ("last", np.int64), ("score", np.float64)])


# --------------------------------------------------------------------------
# Input: from labels and scores to a table of frames by score
# --------------------------------------------------------------------------
@dataclass(frozen=True)
class _Table:
    """How many frames have each score: a row per distinct score, highest first.

    Rows without frames occur, where labels end before the snippets. Counts are
    int64, or float64 where videos are weighted. `background` are the normal frames
    of anomalous videos, `quiet` the frames of normal videos.
    """

    scores: np.ndarray
    anomalous: np.ndarray
    background: np.ndarray
    quiet: np.ndarray

    @cached_property
    def normal(self):
        return self.background + self.quiet

    @cached_property
    def true(self):
        """Anomalous frames with this score or a higher one."""
        return np.cumsum(self.anomalous)

    @cached_property
    def frames(self):
        """Frames with this score or a higher one."""
        return np.cumsum(self.anomalous + self.normal)

    @cached_property
    def precision(self):
        """Share of anomalous frames among `frames`; before the first frame, 1."""
        out = np.ones(len(self.true))
        return np.divide(self.true, self.frames, out=out, where=self.frames > 0)

    def above(self, threshold):
        """Return the rows of scores that reach the threshold."""
        return slice(0, np.count_nonzero(self.scores >= threshold))


def make_table(frame_labels, snippet_scores, snippet_length=16):
    """Check labels against scores and count the frames that have each score."""
    labels = as_frame_labels(frame_labels, snippet_length)
    return _count_by_score(*_count_by_snippet(labels, snippet_scores)[:2])


def _count_by_snippet(labels, snippet_scores):
    """Return scores and frames of the three kinds, flat, and snippets of videos."""
    scores = check_scores(snippet_scores, len(labels))
    n_snippets = np.array([len(own) for own in scores])
    lengths = labels.snippet_length
    check_frame_counts(n_snippets, labels.n_frames, lengths, labels.ids)
    anomalous, normal = _count_frames(labels, n_snippets)
    background = normal * np.repeat(labels.video_labels, n_snippets)
    kinds = [anomalous, background, normal - background]
    return np.concatenate(scores), kinds, n_snippets


def _count_by_score(scores, kinds):
    order = np.argsort(scores)[::-1]
    scores = scores.take(order)
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))  # of equal ones
    totals = [np.cumsum(frames.take(order)).take(last) for frames in kinds]
    return _Table(scores.take(last), *(np.diff(total, prepend=0) for total in totals))


def as_frame_labels(frame_labels, snippet_length):
    if not isinstance(frame_labels, FrameLabels):
        return FrameLabels(frame_labels, snippet_length)
    if len(frame_labels) == 0:
        raise ValueError("no frame labels: expected those of at least one video")
    given = check_snippet_length(snippet_length, len(frame_labels))
    is_default = np.ndim(snippet_length) == 0 and snippet_length == 16
    if not is_default and not np.array_equal(given, frame_labels.snippet_length):
        raise ValueError(
            f"snippet_length={snippet_length!r} differs from the one that FrameLabels"
            " carry; leave it out"
        )
    return frame_labels


def check_scores(snippet_scores, n_videos=None):
    """Return snippet scores as arrays, or raise an error that names the video.

    Parameters
    ----------
    snippet_scores : sequence of array-like of shape (n_snippets_i,)
    n_videos : int, default=None
        How many there must be; None for any number.

    Returns
    -------
    scores : list of ndarray of shape (n_snippets_i,)
    """
    values = as_list(snippet_scores, "scores", "a list with one array per video")
    if n_videos not in (None, len(values)):
        raise ValueError(
            f"got scores of {len(values)} videos and frame labels of {n_videos}"
        )
    arrays = [as_array(v, f"scores of video {i}") for i, v in enumerate(values)]
    for i, scores in enumerate(arrays):
        if scores.ndim != 1 or scores.size == 0 or scores.dtype.kind not in "biuf":
            raise ValueError(
                f"scores of video {i} have shape {scores.shape} and dtype"
                f" {scores.dtype}, expected (n_snippets,) numbers"
            )
    if arrays and not np.isfinite(np.concatenate(arrays)).all():
        i = next(i for i, a in enumerate(arrays) if not np.isfinite(a).all())
        raise ValueError(f"scores of video {i} contain NaN or infinity")
    return arrays


def _count_frames(labels, n_snippets):
    """Return the anomalous and the normal frames of every snippet, flat."""
    bounds = snippet_bounds(n_snippets, labels.n_frames, labels.snippet_length)
    flat = np.concatenate(labels.masks)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    # Labels are long runs of equal values: where a run of anomalous frames begins,
    # and where it ends.
    begin, end = edges[flat[edges]], edges[~flat[edges]]
    begin = np.append(0, begin) if flat[0] else begin
    end = np.append(end, len(flat)) if flat[-1] else end
    # Snippets from that of the first frame to that of the last, all their frames,
    n_all, sizes = np.zeros(len(bounds), dtype=np.int64), np.diff(bounds)
    first = np.searchsorted(bounds, begin, side="right") - 1
    last = np.searchsorted(bounds, end, side="left")
    np.add.at(n_all, first, 1)
    np.add.at(n_all, last, -1)
    anomalous = np.cumsum(n_all[:-1]) * sizes
    # but for those before the first and after the last.
    np.subtract.at(anomalous, first, begin - bounds[first])
    np.subtract.at(anomalous, last - 1, bounds[last] - end)
    return anomalous, sizes - anomalous


def _find_members(categories, video_labels):
    """Return, by category, which videos belong to it, as a bool array."""
    values = as_list(categories, "categories", "a list with one text per video")
    if len(values) != len(video_labels):
        raise ValueError(
            f"got categories of {len(values)} videos and frame labels of"
            f" {len(video_labels)}"
        )
    _is_undefined("category_roc_auc_score", anomalous_video=video_labels)
    members = {}
    for i in np.flatnonzero(video_labels):
        for category in _as_categories(values[i], i):
            members.setdefault(category, np.zeros(len(values), dtype=bool))[i] = True
    return dict(sorted(members.items()))


def _as_categories(value, i):
    """Return the categories of one anomalous video as a list of str."""
    where, expected = f"categories of video {i}", "a text or a tuple of texts"
    names = [value] if isinstance(value, str) else as_list(value, where, expected)
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise TypeError(f"{where}: expected {expected}, got {wrong[0]!r} among them")
    if not names or not all(names):
        raise ValueError(f"video {i} has anomalous frames but no category: {value!r}")
    return [str(name) for name in names]


# --------------------------------------------------------------------------
# Metrics of a table
# --------------------------------------------------------------------------
def _is_undefined(metric, **kinds):
    """Warn and return True where one of the `kinds` of frames is missing."""
    missing = [kind.replace("_", " ") for kind, n in kinds.items() if not n.any()]
    if missing:
        # 4: the line of the user, who called the metric that called _<metric>.
        warnings.warn(
            f"There is no {missing[0]}, so {metric} is not defined.",
            UndefinedMetricWarning,
            stacklevel=4,
        )
    return bool(missing)


def _area_under_roc(table, normal):
    heights = 2 * table.true - table.anomalous  # twice the mean of both ends
    # As floats: products of counts of frames could overflow.
    area = (heights @ normal.astype(float)) / (2 * table.true[-1] * float(normal.sum()))
    return float(min(area, 1.0))  # weights of balanced frames are rounded


def _frame_roc_auc(table, metric="frame_roc_auc_score"):
    if _is_undefined(
        metric, anomalous_frame=table.true[-1:], normal_frame=table.normal
    ):
        return float("nan")
    return _area_under_roc(table, table.normal)


def _anomalous_roc_auc(table):
    if _is_undefined(
        "anomalous_roc_auc_score",
        anomalous_frame=table.true[-1:],
        normal_frame_in_an_anomalous_video=table.background,
    ):
        return float("nan")
    return _area_under_roc(table, table.background)


def _frame_average_precision(table, interpolation="step"):
    if _is_undefined(
        "frame_average_precision_score",
        anomalous_frame=table.true[-1:],
        normal_frame=table.normal,
    ):
        return float("nan")
    precision = table.precision  # before the first frame 1, as in scikit-learn
    if interpolation == "trapezoid":
        precision = (precision + np.append(1.0, precision[:-1])) / 2
    return float((precision @ table.anomalous) / table.true[-1])


def _false_alarm_rate(table, threshold=0.5):
    if _is_undefined("false_alarm_rate", normal_video=table.quiet):
        return float("nan")
    alarms = table.above(threshold)
    _warn_of_silence(table, alarms, threshold)
    return float(table.quiet[alarms].sum() / table.quiet.sum())


def _warn_of_silence(table, alarms, threshold):
    """Warn where no frame, of anomalous videos neither, reaches the threshold.

    Among normal videos alone, silence is what one hopes for.
    """
    n_frames = table.frames[alarms.stop - 1] if alarms.stop else 0
    if table.true[-1] and not n_frames:
        highest = table.scores[np.argmax(table.frames > 0)]
        warnings.warn(
            f"no score reaches the threshold {threshold} (the highest is"
            f" {highest:.6g}): a false-alarm rate of 0 says nothing here; choose a"
            " threshold with sklearn_vad.postprocessing.tune_threshold",
            stacklevel=4,
        )


def _score_gap(table):
    anomalous, normal = table.anomalous, table.normal
    if _is_undefined("score_gap", anomalous_frame=anomalous, normal_frame=normal):
        return float("nan")
    scores = table.scores.astype(float)
    means = [scores @ frames / frames.sum() for frames in (anomalous, normal)]
    return float(means[0] - means[1])


# --------------------------------------------------------------------------
# Metrics
# --------------------------------------------------------------------------
def frame_roc_auc_score(frame_labels, snippet_scores, *, snippet_length=16):
    """Area under the ROC curve over all frames of all videos.

    Parameters
    ----------
    frame_labels : FrameLabels or sequence of array-like of shape (n_frames_i,)
        0/1 labels, one array per video.
    snippet_scores : sequence of array-like of shape (n_snippets_i,)
        Scores, one array per video; higher is more anomalous.
    snippet_length : float or sequence of float, default=16
        Frames per snippet, for all videos or for each. `FrameLabels` bring
        their own.

    Returns
    -------
    auc : float
        In [0, 1]; NaN, with a warning, where all frames are of one class.

    Raises
    ------
    ValueError
        When labels and scores of a video differ by more than 2 snippets and by
        more than 10 %, or differ in number of videos.

    Examples
    --------
    >>> from sklearn_vad.metrics import frame_roc_auc_score
    >>> frame_roc_auc_score([[0, 0, 1, 1], [0, 0]], [[0.2, 0.7], [0.4]],
    ...                     snippet_length=2)
    1.0
    """
    return _frame_roc_auc(make_table(frame_labels, snippet_scores, snippet_length))


def balanced_frame_roc_auc_score(frame_labels, snippet_scores, *, snippet_length=16):
    """Area under the ROC curve over frames, with every video weighing the same.

    In `frame_roc_auc_score` a few very long videos can hold most of the normal
    frames, and then decide, by chance, which of two models is better. Here a
    frame counts 1 / n_frames of its video.

    Parameters
    ----------
    frame_labels, snippet_scores, snippet_length
        As in `frame_roc_auc_score`.

    Returns
    -------
    auc : float
        In [0, 1]; NaN, with a warning, where all frames are of one class.

    Raises
    ------
    ValueError
        As in `frame_roc_auc_score`.

    Examples
    --------
    >>> from sklearn_vad.metrics import balanced_frame_roc_auc_score
    >>> y = [[1, 1], [0, 0], [0] * 98]
    >>> balanced_frame_roc_auc_score(
    ...     y, [[0.5], [0.1], [0.9]], snippet_length=[2, 2, 98])
    0.5
    """
    labels = as_frame_labels(frame_labels, snippet_length)
    scores, kinds, n_snippets = _count_by_snippet(labels, snippet_scores)
    n_frames = np.repeat(labels.n_frames, n_snippets)
    table = _count_by_score(scores, [frames / n_frames for frames in kinds])
    return _frame_roc_auc(table, "balanced_frame_roc_auc_score")


def frame_average_precision_score(
    frame_labels, snippet_scores, *, snippet_length=16, interpolation="step"
):
    """Average precision over all frames of all videos.

    Parameters
    ----------
    frame_labels, snippet_scores, snippet_length
        As in `frame_roc_auc_score`.
    interpolation : {"step", "trapezoid"}, default="step"
        "step" is scikit-learn's ``average_precision_score``; "trapezoid" is
        ``auc(recall, precision)``, which most papers of the field print and
        which is optimistic.

    Returns
    -------
    average_precision : float
        In [0, 1]; NaN, with a warning, where all frames are of one class.

    Raises
    ------
    ValueError
        As `frame_roc_auc_score`, and for an unknown `interpolation`.

    Examples
    --------
    >>> from sklearn_vad.metrics import frame_average_precision_score
    >>> frame_average_precision_score([[0, 0, 1, 1]], [[0.9, 0.7]],
    ...                               snippet_length=2)
    0.5
    """
    if not isinstance(interpolation, str) or interpolation not in _INTERPOLATIONS:
        raise ValueError(
            f"interpolation must be 'step' or 'trapezoid', got {interpolation!r}"
        )
    table = make_table(frame_labels, snippet_scores, snippet_length)
    return _frame_average_precision(table, interpolation)


def false_alarm_rate(frame_labels, snippet_scores, *, threshold=0.5, snippet_length=16):
    """Share of the frames of normal videos that score `threshold` or more.

    A normal video is one without an anomalous frame; its frames are pooled
    with those of the other normal videos. Where there are anomalous videos and
    no frame of theirs reaches the threshold either, a rate of 0 is no merit: a
    warning says so.

    Parameters
    ----------
    frame_labels, snippet_scores, snippet_length
        As in `frame_roc_auc_score`.
    threshold : float, default=0.5
        See `sklearn_vad.postprocessing.tune_threshold`.

    Returns
    -------
    rate : float
        In [0, 1], lower is better; NaN, with a warning, without normal videos.

    Raises
    ------
    ValueError
        As `frame_roc_auc_score`, and for a `threshold` of NaN.

    Examples
    --------
    >>> from sklearn_vad.metrics import false_alarm_rate
    >>> false_alarm_rate([[0, 0, 0, 0]], [[0.5, 0.2]], snippet_length=2)
    0.5
    """
    if not isinstance(threshold, Real):
        raise TypeError(f"threshold must be a number, got {threshold!r}")
    if threshold != threshold:  # NaN; numpy takes no integer beyond 64 bits
        raise ValueError("threshold must be a number, got NaN")
    table = make_table(frame_labels, snippet_scores, snippet_length)
    return _false_alarm_rate(table, threshold)


def score_gap(frame_labels, snippet_scores, *, snippet_length=16):
    """Mean score of anomalous frames minus mean score of normal frames.

    Parameters
    ----------
    frame_labels, snippet_scores, snippet_length
        As in `frame_roc_auc_score`.

    Returns
    -------
    gap : float
        In [-1, 1] for scores in [0, 1]; NaN, with a warning, for one class.

    Raises
    ------
    ValueError
        As `frame_roc_auc_score`.

    Examples
    --------
    >>> from sklearn_vad.metrics import score_gap
    >>> score_gap([[0, 0, 1, 1]], [[0.25, 0.75]], snippet_length=2)
    0.5
    """
    return _score_gap(make_table(frame_labels, snippet_scores, snippet_length))


def anomalous_roc_auc_score(frame_labels, snippet_scores, *, snippet_length=16):
    """`frame_roc_auc_score` over the frames of anomalous videos only.

    Telling videos apart does not help here: this is the part of the frame AUC
    that comes from finding the anomaly inside its video.

    Parameters
    ----------
    frame_labels, snippet_scores, snippet_length
        As in `frame_roc_auc_score`.

    Returns
    -------
    auc : float
        In [0, 1]; NaN, with a warning, where it is undefined.

    Raises
    ------
    ValueError
        As `frame_roc_auc_score`.

    Examples
    --------
    >>> from sklearn_vad.metrics import anomalous_roc_auc_score
    >>> anomalous_roc_auc_score([[0, 0, 1, 1], [0, 0]], [[0.2, 0.7], [0.9]],
    ...                         snippet_length=2)
    1.0
    """
    return _anomalous_roc_auc(make_table(frame_labels, snippet_scores, snippet_length))


def category_roc_auc_score(
    frame_labels, snippet_scores, categories, *, negatives="own", snippet_length=16
):
    """`frame_roc_auc_score` of each category of anomalies.

    Papers print it by two conventions, whose values can't be compared: with all
    normal videos as negatives, telling videos apart helps too.

    Parameters
    ----------
    frame_labels, snippet_scores, snippet_length
        As in `frame_roc_auc_score`.
    categories : sequence of str or of tuple of str, one per video
        A video with several, as in XD-Violence, counts in each of them. Videos
        without an anomalous frame are normal, whatever their category says.
    negatives : {"own", "all_normal"}, default="own"
        Where normal frames come from: from the anomalous videos of the category
        ("own", as MIST has it), or from these and all normal videos.

    Returns
    -------
    aucs : dict of str to float
        By category, in alphabetical order; NaN, with a warning, where undefined.

    Raises
    ------
    ValueError, TypeError
        As `frame_roc_auc_score`, for other `negatives`, and for an anomalous
        video without a category.

    Examples
    --------
    >>> from sklearn_vad.metrics import category_roc_auc_score
    >>> labels = [[0, 1], [1, 0], [0, 0]]
    >>> scores = [[0.1, 0.9], [0.3, 0.2], [0.8, 0.1]]
    >>> categories = ["Arson", "Theft", "Normal"]
    >>> category_roc_auc_score(labels, scores, categories, snippet_length=1)
    {'Arson': 1.0, 'Theft': 1.0}
    >>> category_roc_auc_score(labels, scores, categories, snippet_length=1,
    ...                        negatives="all_normal")
    {'Arson': 1.0, 'Theft': 0.666...}
    """
    if not isinstance(negatives, str) or negatives not in ("own", "all_normal"):
        raise ValueError(f"negatives must be 'own' or 'all_normal', got {negatives!r}")
    labels = as_frame_labels(frame_labels, snippet_length)
    members = _find_members(categories, labels.video_labels)
    scores, kinds, n_snippets = _count_by_snippet(labels, snippet_scores)
    others = labels.video_labels == 0 if negatives == "all_normal" else False
    aucs = {}
    for category, own in members.items():
        chosen = np.repeat(own | others, n_snippets)
        table = _count_by_score(scores[chosen], [frames[chosen] for frames in kinds])
        aucs[category] = _frame_roc_auc(
            table, f"category_roc_auc_score of {category!r}"
        )
    return aucs


def evaluate(frame_labels, snippet_scores, *, snippet_length=16):
    """Compute the metrics that need nothing else, at their defaults, in one pass.

    Parameters
    ----------
    frame_labels, snippet_scores, snippet_length
        As in `frame_roc_auc_score`.

    Returns
    -------
    metrics : dict of str to float
        Under the names of the functions: "frame_roc_auc_score",
        "frame_average_precision_score", "false_alarm_rate", "score_gap" and
        "anomalous_roc_auc_score".

    Raises
    ------
    ValueError
        As `frame_roc_auc_score`.

    Examples
    --------
    >>> from sklearn_vad.metrics import evaluate
    >>> evaluate([[0, 1], [0, 0]], [[0.1, 0.9], [0.1, 0.1]],
    ...          snippet_length=1)["frame_roc_auc_score"]
    1.0
    """
    table = make_table(frame_labels, snippet_scores, snippet_length)
    return {
        "frame_roc_auc_score": _frame_roc_auc(table),
        "frame_average_precision_score": _frame_average_precision(table),
        "false_alarm_rate": _false_alarm_rate(table),
        "score_gap": _score_gap(table),
        "anomalous_roc_auc_score": _anomalous_roc_auc(table),
    }


# --------------------------------------------------------------------------
# Events
# --------------------------------------------------------------------------
def event_average_precision_score(frame_labels, events, *, iou=0.5, snippet_length=16):
    """Average precision of predicted events, whatever their category.

    Over all videos, from the highest score down, an event is true when it
    overlaps a true event of its video by at least `iou` (intersection over
    union); it takes the one that it overlaps most among those that are still
    free. The value is the area under precision over recall in steps, as in
    scikit-learn's ``average_precision_score``; ActivityNet's code interpolates
    (at each recall the highest precision from there on) and is never lower.

    Events of equal score count at once, and that which begins first in its
    video is matched first: the order in which they are given does not matter.

    Parameters
    ----------
    frame_labels : FrameLabels or sequence of array-like of shape (n_frames_i,)
        0/1 labels, one array per video. Their runs of 1 are the true events.
    events : sequence of ndarray of EVENT, or array-like of shape (n_events_i, 3)
        One array per video, as `sklearn_vad.postprocessing.find_events` returns
        them: first frame, last frame (excluded), score. Frames past the labels
        are cut off.
    iou : float, default=0.5
        In (0, 1].
    snippet_length : float or sequence of float, default=16
        Frames per snippet, as for `find_events`; `FrameLabels` bring their own.

    Returns
    -------
    average_precision : float
        In [0, 1]; 0 without predicted events, NaN, with a warning, without true
        ones.

    Raises
    ------
    ValueError, TypeError
        For events that are no intervals, that end far past their video (by more
        than 2 snippets and by more than 10 %), or of another number of videos.

    Examples
    --------
    >>> from sklearn_vad.metrics import event_average_precision_score
    >>> labels = [[0, 0, 1, 1, 0, 0, 1, 1], [0, 0, 0]]
    >>> events = [[(2, 5, 0.9)], [(0, 2, 0.4)]]
    >>> event_average_precision_score(labels, events)
    0.5
    """
    metric = "event_average_precision_score"
    return _mean_over_ious(metric, frame_labels, events, [iou], snippet_length)


def mean_event_average_precision(
    frame_labels, events, *, ious=(0.1, 0.2, 0.3, 0.4, 0.5), snippet_length=16
):
    """Mean of `event_average_precision_score` over several overlaps.

    Parameters
    ----------
    frame_labels, events
        As in `event_average_precision_score`.
    ious : sequence of float, default=(0.1, 0.2, 0.3, 0.4, 0.5)
        Each in (0, 1].
    snippet_length : float or sequence of float, default=16
        As in `event_average_precision_score`.

    Returns
    -------
    average_precision : float
        In [0, 1]; 0 without predicted events, NaN, with a warning, without true
        ones.

    Raises
    ------
    ValueError, TypeError
        As `event_average_precision_score`.

    Examples
    --------
    >>> from sklearn_vad.metrics import mean_event_average_precision
    >>> mean_event_average_precision([[1, 1, 0, 0]], [[(0, 4, 0.9)]], ious=[0.5, 0.7])
    0.5
    """
    ious = as_list(ious, "ious", "a list of numbers")
    metric = "mean_event_average_precision"
    return _mean_over_ious(metric, frame_labels, events, ious, snippet_length)


def _mean_over_ious(metric, frame_labels, events, ious, snippet_length):
    labels = as_frame_labels(frame_labels, snippet_length)
    truth, found = _check_events(labels, events, ious)
    n_true = np.array([len(own) for own in truth])
    if _is_undefined(metric, true_event=n_true):
        return float("nan")
    return float(np.mean([_event_average_precision(truth, found, x) for x in ious]))


def _event_average_precision(truth, found, iou):
    pairs = zip(truth, found, strict=True)
    hits = np.concatenate([_find_hits(*pair, iou) for pair in pairs])
    if len(hits) == 0:
        return 0.0
    _, row = np.unique(-np.concatenate(found)[:, 2], return_inverse=True)
    true = np.bincount(row, weights=hits)
    precision = np.cumsum(true) / np.cumsum(np.bincount(row))
    return float(np.sum(precision * true) / sum(map(len, truth)))


def _find_hits(truth, events, iou):
    """Tell of each event of one video whether it is true."""
    hits = np.zeros(len(events), dtype=bool)
    if len(truth) == 0:
        return hits
    overlaps = _overlaps(events, truth)
    for i in np.lexsort((events[:, 1], events[:, 0], -events[:, 2])):
        best = np.argmax(overlaps[i])
        if overlaps[i, best] >= iou:
            hits[i] = True
            overlaps[:, best] = 0  # taken
    return hits


def _overlaps(events, truth):
    """Return intersection over union, (n_events, n_true_events)."""
    first, last = events[:, :1], events[:, 1:2]
    shared = np.minimum(last, truth[:, 1]) - np.maximum(first, truth[:, 0])
    shared = np.maximum(shared, 0)
    return shared / (last - first + truth[:, 1] - truth[:, 0] - shared)


def runs_of(marked):
    """Return where runs of True begin and end, end excluded, as (n_runs, 2)."""
    edges = np.diff(np.asarray(marked), prepend=False, append=False)
    return np.flatnonzero(edges).reshape(-1, 2)


def _check_events(labels, events, ious):
    """Return true events and predicted ones, (n, 2) and (n, 3) of each video."""
    if not ious:
        raise ValueError("ious are empty: expected one or more numbers in (0, 1]")
    for iou in ious:
        if not isinstance(iou, Real) or not 0 < iou <= 1:
            raise ValueError(f"iou must be a number in (0, 1], got {iou!r}")
    values = as_list(events, "events", "a list with one array per video")
    if len(values) != len(labels):
        raise ValueError(
            f"got events of {len(values)} videos and frame labels of {len(labels)}"
        )
    found = [
        _as_events(value, f"events of video {i}") for i, value in enumerate(values)
    ]
    slack = np.maximum(2 * labels.snippet_length, 0.1 * labels.n_frames)
    ends = zip(found, labels.n_frames, slack, strict=True)
    found = [_cut_events(own, i, *end) for i, (own, *end) in enumerate(ends)]
    return [runs_of(mask) for mask in labels.masks], found


def _as_events(values, name):
    """Convert the events of one video to floats (n_events, 3)."""
    array = as_array(values, name)
    if array.dtype.names and set(EVENT.names) <= set(array.dtype.names):
        array = np.stack([array[field] for field in EVENT.names], axis=-1)
    if array.size == 0:
        return np.empty((0, 3))
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "iuf":
        raise ValueError(
            f"{name} have shape {array.shape} and dtype {array.dtype}, expected"
            " (n_events, 3) numbers: first frame, last frame (excluded), score"
        )
    array = array.astype(float)
    wrong = ~np.isfinite(array).all(axis=1) | (array[:, 0] < 0)
    wrong |= array[:, 0] >= array[:, 1]
    if wrong.any():
        raise ValueError(
            f"{name}: expected 0 <= first < last, in frames, and a finite score, got"
            f" {tuple(array[np.argmax(wrong)].tolist())}"
        )
    return array


def _cut_events(events, i, n_frames, slack):
    """Cut what lies past the labels of video `i`, as snippets are cut there."""
    last = events[:, 1].max(initial=0)
    if last > n_frames + slack:
        raise ValueError(
            f"an event of video {i} ends at frame {last:g}, but the video has"
            f" {n_frames} frames: events and frame labels must be of the same videos,"
            " and both count frames"
        )
    events = events[events[:, 0] < n_frames]
    return np.column_stack(
        [events[:, 0], np.minimum(events[:, 1], n_frames), events[:, 2]]
    )


# --------------------------------------------------------------------------
# Scorers
# --------------------------------------------------------------------------
def unwrap(estimator, X=None):
    """Return the detector inside pipelines and searches, and `X` as it sees it."""
    while not hasattr(estimator, "score_snippets"):
        if hasattr(estimator, "steps"):  # a Pipeline
            if X is not None and len(estimator.steps) > 1:
                X = estimator[:-1].transform(X)
            estimator = estimator[-1]
        elif hasattr(estimator, "best_estimator_"):  # a fitted search
            estimator = estimator.best_estimator_
        elif hasattr(estimator, "estimator_"):  # a tuned or fixed threshold
            estimator = estimator.estimator_
        else:
            raise TypeError(
                f"{type(estimator).__name__} has no score_snippets: expected a"
                " detector, alone, in a Pipeline or in a search"
            )
    return estimator, X


def _is_masks(values):
    """Tell whether `values` hold an array per video, not a label per video."""
    if not hasattr(values, "__iter__") or isinstance(values, (str, dict)):
        return False
    try:
        return np.ndim(next(iter(values), 0)) == 1
    except (TypeError, ValueError):  # an array without axes, ragged lists
        return False


def count_bags(X):
    """Return how many bags there are, of what has not been checked yet."""
    try:
        return len(X)
    except TypeError as error:
        raise TypeError(
            f"X has type {type(X).__name__}, expected bags or a list of arrays: {error}"
        ) from error


def _named_as(bags, labels):
    """Return frame labels that errors can name by the ids of the bags."""
    if labels.ids is not None or getattr(bags, "ids", None) is None:
        return labels
    named = labels[:]
    named.ids = bags.ids
    return named


class _FrameScorer:
    """A scorer for ``scoring=`` that finds frame labels in y or in metadata.

    Pass ``y=FrameLabels(masks)``, or route plain masks as ``frame_labels``. One
    metric gives a number; `frame_scorers` gives a dict of "frame_roc_auc" and
    "frame_average_precision", for `cross_validate` and for `GridSearchCV` with
    ``refit="frame_roc_auc"``. While scikit-learn hides an error as NaN, pass
    ``error_score="raise"`` to see it.
    """

    def __init__(self, metrics):
        self._metrics = metrics

    def __call__(self, estimator, X, y=None, *, frame_labels=None, snippet_length=None):
        labels = self._find_labels(y, frame_labels, snippet_length, count_bags(X))
        check_same_videos(X, labels)
        labels = _named_as(X, labels)
        detector, X = unwrap(estimator, X)
        table = make_table(labels, detector.score_snippets(X))
        values = {name: metric(table) for name, metric in self._metrics.items()}
        return values if len(values) > 1 else values.popitem()[1]

    def _find_labels(self, y, frame_labels, snippet_length, n_bags):
        if isinstance(y, FrameLabels) and frame_labels is not None:
            snippet_length = y.snippet_length  # before a routed one
        if frame_labels is None:
            frame_labels = y
        if not isinstance(frame_labels, FrameLabels) and not _is_masks(frame_labels):
            raise ValueError(
                "a frame-level scorer needs frame labels: pass y=FrameLabels(masks),"
                " or set_config(enable_metadata_routing=True) and"
                ' params={"frame_labels": masks}'
            )
        if len(frame_labels) != n_bags:
            raise ValueError(
                f"got frame labels of {len(frame_labels)} videos for {n_bags} bags;"
                " routed frame labels need one entry per bag, or they are not split"
            )
        if not isinstance(frame_labels, FrameLabels):
            length = 16 if snippet_length is None else snippet_length
            return FrameLabels(frame_labels, length)
        return frame_labels

    def get_metadata_routing(self):
        request = MetadataRequest(owner=repr(self))
        request.score.add_request(param="frame_labels", alias=True)
        request.score.add_request(param="snippet_length", alias=True)
        return request

    def __repr__(self):
        return f"{'_and_'.join(self._metrics)}_scorer"


frame_roc_auc_scorer = _FrameScorer({"frame_roc_auc": _frame_roc_auc})
frame_average_precision_scorer = _FrameScorer(
    {"frame_average_precision": _frame_average_precision}
)
frame_scorers = _FrameScorer(
    {
        "frame_roc_auc": _frame_roc_auc,
        "frame_average_precision": _frame_average_precision,
    }
)
