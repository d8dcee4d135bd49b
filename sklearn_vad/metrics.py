"""Frame-level metrics of video anomaly detection, and scorers for scikit-learn.

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

References
----------
Sultani, Chen and Shah, "Real-world anomaly detection in surveillance videos",
CVPR 2018 (frame-level AUC); Wu et al., "Not only look, but also listen", ECCV
2020 (frame-level AP).
"""

import warnings
from numbers import Real
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils.metadata_routing import MetadataRequest

from ._storage import as_array, as_list
from .bags import FrameLabels, check_snippet_length
from .timeline import check_frame_counts, snippet_bounds

__all__ = [
    "anomalous_roc_auc_score",
    "evaluate",
    "false_alarm_rate",
    "frame_average_precision_score",
    "frame_average_precision_scorer",
    "frame_roc_auc_score",
    "frame_roc_auc_scorer",
    "frame_scorers",
    "score_gap",
]


# --------------------------------------------------------------------------
# Input: from labels and scores to a table of frames by score
# --------------------------------------------------------------------------
class _Table(NamedTuple):
    """How many frames have each score: a row per distinct score, highest first.

    Rows without frames occur, where labels end before the snippets. Counts are
    whole numbers kept as float64, so that their products can't overflow.
    `background` are the normal frames of anomalous videos, `quiet` the frames
    of normal videos.
    """

    scores: np.ndarray
    anomalous: np.ndarray
    background: np.ndarray
    quiet: np.ndarray

    @property
    def normal(self):
        return self.background + self.quiet


def _make_table(frame_labels, snippet_scores, snippet_length=16):
    """Check labels against scores and count the frames that have each score."""
    labels = _as_frame_labels(frame_labels, snippet_length)
    scores, n_snippets = _check_scores(snippet_scores, len(labels))
    check_frame_counts(n_snippets, labels.n_frames, labels.snippet_length)
    anomalous, normal = _count_frames(labels, n_snippets)
    background = normal * np.repeat(labels.video_labels, n_snippets)

    scores, row = np.unique(scores, return_inverse=True)
    kinds = (anomalous, background, normal - background)
    counts = [np.bincount(row, weights=frames)[::-1] for frames in kinds]
    return _Table(scores[::-1], *counts)


def _as_frame_labels(frame_labels, snippet_length):
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


def _check_scores(snippet_scores, n_videos):
    """Return the scores of all snippets, flat, and the snippets of each video."""
    values = as_list(snippet_scores, "scores", "a list with one array per video")
    if len(values) != n_videos:
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
    flat = np.concatenate(arrays)
    n_snippets = np.array([len(scores) for scores in arrays])
    if not np.isfinite(flat).all():
        i = next(i for i, a in enumerate(arrays) if not np.isfinite(a).all())
        raise ValueError(f"scores of video {i} contain NaN or infinity")
    return flat, n_snippets


def _count_frames(labels, n_snippets):
    """Return the anomalous and the normal frames of every snippet, flat."""
    bounds = snippet_bounds(n_snippets, labels.n_frames, labels.snippet_length)
    flat = np.concatenate(labels.masks)
    # Labels are long runs of equal values. The number of anomalous frames
    # before a frame is known at both ends of a run and linear in between.
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], changes, [len(flat)]])
    before_edge = np.append(0, np.cumsum(np.diff(edges) * flat[edges[:-1]]))
    anomalous = np.diff(np.interp(bounds, edges, before_edge))
    return anomalous, np.diff(bounds) - anomalous


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


def _area_under_roc(anomalous, normal):
    true = np.cumsum(anomalous)
    heights = true + np.append(0, true[:-1])  # twice the mean of both ends
    return float(np.sum(heights * normal) / (2 * true[-1] * normal.sum()))


def _frame_roc_auc(table):
    anomalous, normal = table.anomalous, table.normal
    if _is_undefined(
        "frame_roc_auc_score", anomalous_frame=anomalous, normal_frame=normal
    ):
        return float("nan")
    return _area_under_roc(anomalous, normal)


def _anomalous_roc_auc(table):
    anomalous, normal = table.anomalous, table.background
    if _is_undefined(
        "anomalous_roc_auc_score",
        anomalous_frame=anomalous,
        normal_frame_in_an_anomalous_video=normal,
    ):
        return float("nan")
    return _area_under_roc(anomalous, normal)


def _frame_average_precision(table, interpolation="step"):
    anomalous, normal = table.anomalous, table.normal
    if _is_undefined(
        "frame_average_precision_score", anomalous_frame=anomalous, normal_frame=normal
    ):
        return float("nan")
    true, frames = np.cumsum(anomalous), np.cumsum(anomalous + normal)
    # Before the first frame the precision is 1, as in scikit-learn.
    precision = np.divide(true, frames, out=np.ones_like(true), where=frames > 0)
    if interpolation == "trapezoid":
        precision = (precision + np.append(1.0, precision[:-1])) / 2
    return float(np.sum(precision * anomalous) / true[-1])


def _false_alarm_rate(table, threshold=0.5):
    if _is_undefined("false_alarm_rate", normal_video=table.quiet):
        return float("nan")
    return float(table.quiet[table.scores >= threshold].sum() / table.quiet.sum())


def _score_gap(table):
    anomalous, normal = table.anomalous, table.normal
    if _is_undefined("score_gap", anomalous_frame=anomalous, normal_frame=normal):
        return float("nan")
    return float(
        np.average(table.scores, weights=anomalous)
        - np.average(table.scores, weights=normal)
    )


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
    return _frame_roc_auc(_make_table(frame_labels, snippet_scores, snippet_length))


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
    if interpolation not in ("step", "trapezoid"):
        raise ValueError(
            f"interpolation must be 'step' or 'trapezoid', got {interpolation!r}"
        )
    table = _make_table(frame_labels, snippet_scores, snippet_length)
    return _frame_average_precision(table, interpolation)


def false_alarm_rate(frame_labels, snippet_scores, *, threshold=0.5, snippet_length=16):
    """Share of the frames of normal videos that score `threshold` or more.

    A normal video is one without an anomalous frame; its frames are pooled
    with those of the other normal videos.

    Parameters
    ----------
    frame_labels, snippet_scores, snippet_length
        As in `frame_roc_auc_score`.
    threshold : float, default=0.5

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
    if np.isnan(threshold):
        raise ValueError("threshold must be a number, got NaN")
    table = _make_table(frame_labels, snippet_scores, snippet_length)
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
    return _score_gap(_make_table(frame_labels, snippet_scores, snippet_length))


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
    return _anomalous_roc_auc(_make_table(frame_labels, snippet_scores, snippet_length))


def evaluate(frame_labels, snippet_scores, *, snippet_length=16):
    """Compute every metric of this module at its defaults, in one pass.

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
    table = _make_table(frame_labels, snippet_scores, snippet_length)
    return {
        "frame_roc_auc_score": _frame_roc_auc(table),
        "frame_average_precision_score": _frame_average_precision(table),
        "false_alarm_rate": _false_alarm_rate(table),
        "score_gap": _score_gap(table),
        "anomalous_roc_auc_score": _anomalous_roc_auc(table),
    }


# --------------------------------------------------------------------------
# Scorers
# --------------------------------------------------------------------------
def _unwrap(estimator, X):
    """Return the detector inside pipelines and searches, and `X` as it sees it."""
    while not hasattr(estimator, "score_snippets"):
        if hasattr(estimator, "steps"):  # a Pipeline
            X = estimator[:-1].transform(X) if len(estimator.steps) > 1 else X
            estimator = estimator[-1]
        elif hasattr(estimator, "best_estimator_"):  # a fitted search
            estimator = estimator.best_estimator_
        elif hasattr(estimator, "estimator_"):  # a tuned or fixed threshold
            estimator = estimator.estimator_
        else:
            raise TypeError(
                f"{type(estimator).__name__} has no score_snippets: frame-level"
                " scorers need a detector, alone, in a Pipeline or in a search"
            )
    return estimator, X


def _is_masks(values):
    """Tell whether `values` hold an array per video, not a label per video."""
    return values is not None and np.ndim(next(iter(values), 0)) == 1


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
        labels = self._find_labels(y, frame_labels, snippet_length, len(X))
        detector, X = _unwrap(estimator, X)
        table = _make_table(labels, detector.score_snippets(X))
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
