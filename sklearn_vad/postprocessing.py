"""After scoring: smoother scores, a threshold, and events with begin and end.

Each is a step that the user takes: no detector and no metric smooths scores or
picks a threshold by itself.
"""

from numbers import Integral, Real

import numpy as np
from sklearn.utils._param_validation import Interval, validate_params
from sklearn.utils.validation import check_is_fitted

from .metrics import (
    EVENT,
    as_frame_labels,
    check_scores,
    count_bags,
    make_table,
    runs_of,
    unwrap,
)
from .timeline import expand_scores

__all__ = ["find_events", "smooth_scores", "tune_threshold"]


# --------------------------------------------------------------------------
# Smoothing
# --------------------------------------------------------------------------
@validate_params(
    {
        "width": [Interval(Integral, 1, None, closed="left")],
        "causal": ["boolean"],
    },
    prefer_skip_nested_validation=True,
)
def smooth_scores(snippet_scores, width, *, causal=False):
    """Average the scores of neighbouring snippets.

    A snippet near the border of its video gets the mean over the neighbours
    that exist. PEL4VAD instead averages a snippet with those after it and pads
    zeros at the end, which lowers the last scores of every video.

    Parameters
    ----------
    snippet_scores : sequence of array-like of shape (n_snippets_i,)
        Scores, one array per video.
    width : int
        Snippets to average, odd unless `causal`; 1 changes nothing.
    causal : bool, default=False
        Average a snippet with the ``width - 1`` before it, as one can while the
        video runs, not with as many on both sides.

    Returns
    -------
    smoothed : list of ndarray of shape (n_snippets_i,)
        Of the same float dtype (integers become float64). No value lies outside
        the scores that it is the mean of.

    Raises
    ------
    ValueError, TypeError
        For an even `width` that is not causal, and for scores that are empty,
        not 1-D or not finite.

    Examples
    --------
    >>> from sklearn_vad.postprocessing import smooth_scores
    >>> smooth_scores([[0.0, 0.5, 1.0, 0.0]], 3)
    [array([0.25, 0.5 , 0.5 , 0.5 ])]
    >>> smooth_scores([[0.0, 0.5, 1.0, 0.0]], 2, causal=True)
    [array([0.  , 0.25, 0.75, 0.5 ])]
    """
    if not causal and width % 2 == 0:
        raise ValueError(
            f"width must be odd, as many snippets on both sides, got {width}; an even"
            " one needs causal=True"
        )
    before, after = (width - 1, 0) if causal else (width // 2, width // 2)
    return [_average(own, before, after) for own in check_scores(snippet_scores)]


def _average(scores, before, after):
    """Return the mean of each score and the `before` and `after` next to it."""
    dtype = scores.dtype if scores.dtype.kind == "f" else np.float64
    wide = scores.astype(np.float64)
    n = len(wide)
    total, count = np.zeros(n), np.zeros(n)
    low, high = wide.copy(), wide.copy()
    for shift in range(max(-before, 1 - n), min(after, n - 1) + 1):
        here = slice(max(0, -shift), n - max(0, shift))
        there = wide[max(0, shift) : n + min(0, shift)]
        total[here] += there
        count[here] += 1
        np.minimum(low[here], there, out=low[here])
        np.maximum(high[here], there, out=high[here])
    # A mean of equal numbers may differ from them by rounding.
    return np.minimum(np.maximum(total / count, low), high).astype(dtype)


# --------------------------------------------------------------------------
# Threshold
# --------------------------------------------------------------------------
@validate_params(
    {"far": [Interval(Real, 0, 1, closed="left")]},
    prefer_skip_nested_validation=True,
)
def tune_threshold(est, bags, frame_labels, *, far=0.01, snippet_length=16):
    """Set the threshold of a detector by the false alarms that are acceptable.

    It is the lowest one at which `sklearn_vad.metrics.false_alarm_rate` of the
    given videos is at most `far`. It lies half-way between two neighbouring
    scores of these videos, so that none equals it; where even the highest score
    is one false alarm too many, just above that score.

    `predict` and `decision_function` then use it on the scores of videos, until
    `fit` or `partial_fit` sets its own again: 0.5, and of an ensemble the one that
    balances the errors on the videos of the training. Where a video's score is the
    maximum of its snippets, a normal video is predicted anomalous as soon as one
    snippet raises a false alarm. Metrics and `find_events` need to be told:
    ``threshold=est.threshold_``.

    Parameters
    ----------
    est : detector, Pipeline or search
        Fitted. ``threshold_`` of the detector in it is set.
    bags : Bags, sequence of arrays, object array or array
        Validation videos, normal ones among them. On those of the training, on
        which scores of normal videos are low, the threshold would be too.
    frame_labels : FrameLabels or sequence of array-like of shape (n_frames_i,)
        0/1 labels of `bags`, one array per video.
    far : float, default=0.01
        Share of the frames of normal videos that may reach the threshold, in
        [0, 1).
    snippet_length : float or sequence of float, default=16
        Frames per snippet. `FrameLabels` bring their own.

    Returns
    -------
    threshold : float

    Raises
    ------
    ValueError, TypeError
        Without normal videos, for another `far`, for labels that don't fit the
        bags, and where there is no detector in `est`.
    sklearn.exceptions.NotFittedError
        Before `fit`.

    Examples
    --------
    >>> from sklearn_vad import MILRankingAnomalyDetector
    >>> from sklearn_vad.datasets import make_bags
    >>> from sklearn_vad.metrics import false_alarm_rate
    >>> from sklearn_vad.postprocessing import tune_threshold
    >>> bags, y = make_bags(60, random_state=0)
    >>> est = MILRankingAnomalyDetector(max_epochs=5, random_state=0)
    >>> est = est.fit(bags[:30], y[:30])
    >>> threshold = tune_threshold(est, bags[30:], y[30:], far=0.05)
    >>> est.threshold_ == threshold
    True
    >>> scores = est.score_snippets(bags[30:])
    >>> false_alarm_rate(y[30:], scores, threshold=threshold) <= 0.05
    True
    """
    check_is_fitted(est)
    labels = as_frame_labels(frame_labels, snippet_length)
    n_bags = count_bags(bags)
    if len(labels) != n_bags:
        raise ValueError(f"got frame labels of {len(labels)} videos for {n_bags} bags")
    if labels.video_labels.all():
        raise ValueError(
            f"none of the {len(labels)} videos is normal: false alarms are counted in"
            " videos without an anomalous frame, expected one or more"
        )
    detector, bags = unwrap(est, bags)
    table = make_table(labels, detector.score_snippets(bags))
    while hasattr(detector, "estimator_"):  # that of a MultiCropDetector
        detector = detector.estimator_
    detector.threshold_ = _lowest_threshold(table, far)
    return detector.threshold_


def _lowest_threshold(table, far):
    share = np.cumsum(table.quiet) / table.quiet.sum()
    n_above = np.count_nonzero(share <= far)  # rows, from the highest score down
    # In the precision of the scores, in which they will be compared.
    dtype = np.result_type(table.scores, np.float16).type
    below = dtype(table.scores[n_above])
    if n_above == 0:
        return float(np.nextafter(below, dtype(np.inf)))
    above = dtype(table.scores[n_above - 1])
    middle = dtype(below + (above - below) / 2)
    return float(middle if below < middle < above else above)


# --------------------------------------------------------------------------
# Events
# --------------------------------------------------------------------------
@validate_params(
    {
        "threshold": [Interval(Real, None, None, closed="neither")],
        "min_frames": [Interval(Integral, 1, None, closed="left")],
        "merge_frames": [Interval(Integral, 0, None, closed="left")],
    },
    prefer_skip_nested_validation=True,
)
def find_events(
    snippet_scores,
    n_frames=None,
    *,
    threshold=0.5,
    snippet_length=16,
    min_frames=1,
    merge_frames=0,
):
    """Find the intervals of frames that score `threshold` or more.

    Parameters
    ----------
    snippet_scores : sequence of array-like of shape (n_snippets_i,)
        Scores, one array per video.
    n_frames : sequence of int or FrameLabels, default=None
        Frames of each video; None
        gives ``n_snippets_i * snippet_length``.
    threshold : float, default=0.5
        Such as ``est.threshold_``; see `tune_threshold`.
    snippet_length : float or sequence of float, default=16
        Frames per snippet, for all videos or for each.
    min_frames : int, default=1
        Events of fewer frames are dropped, after merging.
    merge_frames : int, default=0
        Events with fewer frames than this between them become one.

    Returns
    -------
    events : list of ndarray of shape (n_events_i,)
        One array per video with the fields "first" and "last", frames from 0, of
        which the last is excluded, and "score", the highest in the event. Events
        are in the order of time.

    Raises
    ------
    ValueError, TypeError
        For scores that are empty, not 1-D or not finite, and where frames and
        snippets don't fit.

    Examples
    --------
    >>> from sklearn_vad.postprocessing import find_events
    >>> (events,) = find_events([[0.1, 0.7, 0.9, 0.2, 0.6]], snippet_length=10)
    >>> events.tolist()
    [(10, 30, 0.9), (40, 50, 0.6)]
    >>> events["last"] - events["first"]
    array([20, 10])
    >>> find_events([[0.1, 0.7, 0.9, 0.2, 0.6]], [47], snippet_length=10,
    ...             merge_frames=11)[0].tolist()
    [(10, 47, 0.9)]
    """
    frame_scores = expand_scores(
        check_scores(snippet_scores),
        getattr(n_frames, "n_frames", n_frames),
        snippet_length=snippet_length,
    )
    return [_events(own, threshold, min_frames, merge_frames) for own in frame_scores]


def _events(scores, threshold, min_frames, merge_frames):
    first, last = runs_of(scores >= threshold).T
    near = np.flatnonzero(first[1:] - last[:-1] < merge_frames)
    first, last = np.delete(first, near + 1), np.delete(last, near)
    long = last - first >= min_frames
    events = np.empty(np.count_nonzero(long), dtype=EVENT)
    events["first"], events["last"] = first[long], last[long]
    for event in events:
        event["score"] = scores[event["first"] : event["last"]].max()
    return events
