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

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils.metadata_routing import MetadataRequest

from .bags import FrameLabels
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
# Snippets with their numbers of anomalous and normal frames
# --------------------------------------------------------------------------
def validate(frame_labels, snippet_scores, snippet_length=16):
    """Check labels against scores and count the frames behind every score.

    Parameters
    ----------
    frame_labels : FrameLabels or sequence of array-like of shape (n_frames_i,)
    snippet_scores : sequence of array-like of shape (n_snippets_i,)
    snippet_length : float or sequence of float, default=16
        `FrameLabels` bring their own; another value beside them is an error.

    Returns
    -------
    scores : ndarray of shape (n_snippets_total,)
    positives, negatives : ndarray of int of shape (n_snippets_total,)
        Anomalous and normal frames of each snippet.
    n_snippets : ndarray of int of shape (n_videos,)

    Raises
    ------
    ValueError
        Names the video whose labels or scores don't fit.
    """
    labels = _as_frame_labels(frame_labels, snippet_length)
    arrays = _check_scores(snippet_scores, len(labels))
    n_snippets = np.array([len(a) for a in arrays])
    check_frame_counts(n_snippets, labels.n_frames, labels.snippet_length)
    positives, totals = _count_frames(labels, n_snippets)
    return np.concatenate(arrays), positives, totals - positives, n_snippets


def _as_frame_labels(frame_labels, snippet_length):
    if not isinstance(frame_labels, FrameLabels):
        return FrameLabels(frame_labels, snippet_length)
    given = np.asarray(snippet_length)
    if not (given.ndim == 0 and given == 16) and not np.array_equal(
        np.broadcast_to(given, frame_labels.shape), frame_labels.snippet_length
    ):
        raise ValueError(
            "snippet_length differs from the one that FrameLabels carry; leave it out"
        )
    return frame_labels


def _check_scores(snippet_scores, n_videos):
    if len(snippet_scores) != n_videos:
        raise ValueError(
            f"got scores of {len(snippet_scores)} videos and frame labels of {n_videos}"
        )
    arrays = []
    for i, values in enumerate(snippet_scores):
        scores = np.asarray(values)
        if scores.ndim != 1 or scores.size == 0 or scores.dtype.kind not in "biuf":
            raise ValueError(
                f"scores of video {i} have shape {scores.shape} and dtype"
                f" {scores.dtype}, expected (n_snippets,) numbers"
            )
        if not np.isfinite(scores).all():
            raise ValueError(f"scores of video {i} contain NaN or infinity")
        arrays.append(scores if scores.dtype.kind == "f" else scores.astype(float))
    return arrays


def _count_frames(labels, n_snippets):
    """Return the anomalous frames and all frames of every snippet, flat."""
    bounds = [
        snippet_bounds(n, frames, length)
        for n, frames, length in zip(
            n_snippets, labels.n_frames, labels.snippet_length, strict=True
        )
    ]
    totals = np.concatenate([np.diff(b) for b in bounds])
    positives = np.zeros(len(totals), dtype=np.int64)
    offset = 0
    for mask, anomalous, bound in zip(
        labels.masks, labels.video_labels, bounds, strict=True
    ):
        n = len(bound) - 1
        if anomalous:
            count = np.concatenate([[0], np.cumsum(mask)])
            positives[offset : offset + n] = np.diff(count[bound])
        offset += n
    return positives, totals


def _curve(scores, positives, negatives):
    """Return cumulative (true, false) positives at each distinct score, falling."""
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    last_of_tie = np.append(scores[1:] != scores[:-1], True)
    true = np.cumsum(positives[order])[last_of_tie]
    false = np.cumsum(negatives[order])[last_of_tie]
    return true, false


def _undefined(metric, reason):
    warnings.warn(
        f"{reason}; {metric} is not defined.", UndefinedMetricWarning, stacklevel=3
    )
    return float("nan")


def _roc_auc(scores, positives, negatives, name="frame_roc_auc_score"):
    true, false = _curve(scores, positives, negatives)
    if true.size == 0 or true[-1] == 0 or false[-1] == 0:
        return _undefined(name, "The frames hold one class only")
    rising = np.append(0, true[:-1]) + true
    steps = np.diff(false, prepend=0)
    return float(np.sum(rising * steps) / (2.0 * true[-1] * false[-1]))


def _average_precision(scores, positives, negatives, interpolation="step"):
    true, false = _curve(scores, positives, negatives)
    if true[-1] == 0 or false[-1] == 0:
        return _undefined(
            "frame_average_precision_score", "The frames hold one class only"
        )
    # A snippet that was cut away has no frames: 0 / 0 before the first one.
    some = true + false > 0
    precision = true[some] / (true[some] + false[some])
    recall = true[some] / true[-1]
    steps = np.diff(recall, prepend=0)
    if interpolation == "trapezoid":
        precision = (precision + np.append(1.0, precision[:-1])) / 2
    return float(np.sum(steps * precision))


def _per_video(values, n_snippets):
    """Repeat one value per video for each of its snippets."""
    return np.repeat(values, n_snippets)


def _anomalous_snippets(positives, n_snippets):
    """Tell for every snippet whether its video has an anomalous frame."""
    starts = np.cumsum(n_snippets) - n_snippets
    return _per_video(np.add.reduceat(positives, starts) > 0, n_snippets)


def _false_alarm_rate(scores, positives, negatives, n_snippets, threshold):
    normal = ~_anomalous_snippets(positives, n_snippets)
    frames = negatives[normal].sum()
    if frames == 0:
        return _undefined("false_alarm_rate", "There is no normal video")
    return float(negatives[normal & (scores >= threshold)].sum() / frames)


def _score_gap(scores, positives, negatives):
    if positives.sum() == 0 or negatives.sum() == 0:
        return _undefined("score_gap", "The frames hold one class only")
    scores = scores.astype(float)
    return float(
        np.average(scores, weights=positives) - np.average(scores, weights=negatives)
    )


def _anomalous_roc_auc(scores, positives, negatives, n_snippets):
    keep = _anomalous_snippets(positives, n_snippets)
    return _roc_auc(
        scores[keep], positives[keep], negatives[keep], "anomalous_roc_auc_score"
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
    scores, positives, negatives, _ = validate(
        frame_labels, snippet_scores, snippet_length
    )
    return _roc_auc(scores, positives, negatives)


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
    scores, positives, negatives, _ = validate(
        frame_labels, snippet_scores, snippet_length
    )
    return _average_precision(scores, positives, negatives, interpolation)


def false_alarm_rate(
    frame_labels, snippet_scores, *, threshold=0.5, snippet_length=16
):
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
        As `frame_roc_auc_score`.

    Examples
    --------
    >>> from sklearn_vad.metrics import false_alarm_rate
    >>> false_alarm_rate([[0, 0, 0, 0]], [[0.5, 0.2]], snippet_length=2)
    0.5
    """
    return _false_alarm_rate(
        *validate(frame_labels, snippet_scores, snippet_length), threshold
    )


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
    return _score_gap(*validate(frame_labels, snippet_scores, snippet_length)[:3])


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
    return _anomalous_roc_auc(*validate(frame_labels, snippet_scores, snippet_length))


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
    checked = validate(frame_labels, snippet_scores, snippet_length)
    frames = checked[:3]
    return {
        "frame_roc_auc_score": _roc_auc(*frames),
        "frame_average_precision_score": _average_precision(*frames),
        "false_alarm_rate": _false_alarm_rate(*checked, 0.5),
        "score_gap": _score_gap(*frames),
        "anomalous_roc_auc_score": _anomalous_roc_auc(*checked),
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
    """A scorer for ``scoring=`` that finds frame labels in y or in metadata."""

    def __init__(self, metrics):
        self._metrics = metrics

    def __call__(self, estimator, X, y=None, *, frame_labels=None, snippet_length=None):
        labels = self._find_labels(y, frame_labels, snippet_length, len(X))
        detector, X = _unwrap(estimator, X)
        checked = validate(labels, detector.score_snippets(X))[:3]
        values = {name: metric(*checked) for name, metric in self._metrics.items()}
        return values if len(values) > 1 else values.popitem()[1]

    def _find_labels(self, y, frame_labels, snippet_length, n_bags):
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


frame_roc_auc_scorer = _FrameScorer({"frame_roc_auc": _roc_auc})
frame_average_precision_scorer = _FrameScorer(
    {"frame_average_precision": _average_precision}
)
frame_scorers = _FrameScorer(
    {"frame_roc_auc": _roc_auc, "frame_average_precision": _average_precision}
)
