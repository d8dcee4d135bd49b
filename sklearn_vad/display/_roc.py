"""ROC curves over the frames of all videos, and false alarms."""

from numbers import Real

import numpy as np

from ..metrics import (
    as_frame_labels,
    check_scores,
    frame_roc_auc_score,
    make_table,
)
from ..timeline import snippet_bounds
from ._drawing import (
    check_both_kinds,
    draw_chance,
    draw_curve,
    draw_legend,
    drawn,
    find_scores,
    label_of,
    legend_above,
    legend_handles,
    make_axes,
)

_X_AXES = {
    "false_positive_rate": "false positive rate (frames)",
    "false_alarm_rate": "false alarm rate (frames of normal videos)",
    "false_alarms_per_hour": "false alarms per hour of normal video",
}


# --------------------------------------------------------------------------
# Points of the curves
# --------------------------------------------------------------------------
def _shares(frames, where):
    if not frames.any():
        raise ValueError(
            f"x_axis={where!r} is of normal videos, but each of the videos has"
            " anomalous frames; use 'false_positive_rate'"
        )
    return np.append(0, np.cumsum(frames)) / frames.sum()


def _alarms_per_hour(labels, snippet_scores, thresholds, frame_rate):
    """Count the runs of snippets that reach each threshold, in normal videos.

    A run begins at a snippet that reaches the threshold after one that does not:
    there are as many as snippets that do, less those whose neighbour before does too.
    """
    scores = check_scores(snippet_scores, len(labels))
    n_snippets = np.array([len(own) for own in scores])
    bounds = snippet_bounds(n_snippets, labels.n_frames, labels.snippet_length)
    shown = np.split(np.diff(bounds) > 0, np.cumsum(n_snippets)[:-1])
    normal = np.flatnonzero(labels.video_labels == 0)
    own = [scores[i][shown[i]] for i in normal]
    pairs = [np.minimum(each[1:], each[:-1]) for each in own]
    n_runs = _count_reaching(own, thresholds) - _count_reaching(pairs, thresholds)
    return n_runs * 3600 * frame_rate / labels.n_frames[normal].sum()


def _count_reaching(scores, thresholds):
    scores = np.sort(np.concatenate(scores))
    return len(scores) - np.searchsorted(scores, thresholds)


def _check_x_axis(x_axis, frame_rate):
    """Raise for an axis that is none, and for a frame rate that it lacks."""
    if not isinstance(x_axis, str) or x_axis not in _X_AXES:
        raise ValueError(f"x_axis must be one of {list(_X_AXES)}, got {x_axis!r}")
    if x_axis != "false_alarms_per_hour" and frame_rate is None:
        return
    if not isinstance(frame_rate, Real) or not 0 < frame_rate < np.inf:
        raise ValueError(
            "frame_rate must be the frames per second of the videos, which x_axis="
            f"'false_alarms_per_hour' needs; got {frame_rate!r}"
        )


# --------------------------------------------------------------------------
# Displays
# --------------------------------------------------------------------------
class FrameRocDisplay:
    """ROC curve over the frames of all videos, of one or of several detectors.

    Make one with `from_estimator` or `from_predictions`. Several detectors are
    overlaid by drawing into the same axes: ``ax=first.ax_``. No frame is expanded: a
    snippet counts with its numbers of anomalous and normal frames.

    Parameters
    ----------
    x, tpr : ndarray of shape (n_points,)
        What `x_axis` says, and the true positive rate: the share of anomalous frames
        that reach the threshold.
    thresholds : ndarray of shape (n_points,)
        From infinity down.
    roc_auc : float, default=None
        For the legend: `sklearn_vad.metrics.frame_roc_auc_score`, whatever `x_axis`.
    name : str, default=None
        Of the detector, for the legend.
    x_axis : {"false_positive_rate", "false_alarm_rate", "false_alarms_per_hour"}, \
            default="false_positive_rate"
        What `x` is: the share of all normal frames; of the frames of normal videos;
        or how often, in an hour of normal video, the score rises to the threshold.
        Low thresholds let alarms merge; there the curve goes straight up.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    line_ : matplotlib Line2D

    See Also
    --------
    FramePrecisionRecallDisplay : Says more where anomalous frames are rare.

    Examples
    --------
    >>> from sklearn_vad.display import FrameRocDisplay
    >>> labels = [[0, 0, 1, 1], [0, 0, 0, 0]]
    >>> display = FrameRocDisplay.from_predictions(
    ...     labels, [[0.2, 0.7], [0.4, 0.8]], snippet_length=2, name="ours")
    >>> display.x, display.tpr
    (array([0.   , 0.333..., 0.333..., 0.666..., 1.   ]), array([0., 0., 1., 1., 1.]))
    >>> display.ax_.get_legend().get_texts()[0].get_text()
    'ours (AUC = 0.667)'
    """

    def __init__(
        self,
        *,
        x,
        tpr,
        thresholds,
        roc_auc=None,
        name=None,
        x_axis="false_positive_rate",
    ):
        self.x = x
        self.tpr = tpr
        self.thresholds = thresholds
        self.roc_auc = roc_auc
        self.name = name
        self.x_axis = x_axis

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        frame_labels,
        *,
        snippet_length=16,
        x_axis="false_positive_rate",
        frame_rate=None,
        name=None,
        ax=None,
        **line_kwargs,
    ):
        """Score videos and plot the curve.

        Parameters
        ----------
        estimator : fitted detector, alone, in a Pipeline or in a search
        X : Bags, sequence of arrays, object array or array
            The videos.
        frame_labels : FrameLabels or sequence of array-like of shape (n_frames_i,)
        snippet_length : float or sequence of float, default=16
            Frames per snippet; `FrameLabels` bring their own.
        x_axis, frame_rate
            As in `from_predictions`.
        name : str, default=None
            The estimator's class by default.
        ax : matplotlib Axes, default=None
        **line_kwargs : dict
            As in `plot`.

        Returns
        -------
        display : FrameRocDisplay

        Raises
        ------
        ValueError, TypeError
            As `from_predictions`.
        """
        _check_x_axis(x_axis, frame_rate)
        labels = as_frame_labels(frame_labels, snippet_length)
        detector, scores = find_scores(estimator, X, labels)
        return cls.from_predictions(
            labels,
            scores,
            x_axis=x_axis,
            frame_rate=frame_rate,
            name=type(detector).__name__ if name is None else name,
            ax=ax,
            **line_kwargs,
        )

    @classmethod
    def from_predictions(
        cls,
        frame_labels,
        snippet_scores,
        *,
        snippet_length=16,
        x_axis="false_positive_rate",
        frame_rate=None,
        name=None,
        ax=None,
        **line_kwargs,
    ):
        """Plot the curve of given scores.

        Parameters
        ----------
        frame_labels : FrameLabels or sequence of array-like of shape (n_frames_i,)
            0/1 labels, one array per video.
        snippet_scores : sequence of array-like of shape (n_snippets_i,)
            Scores, one array per video.
        snippet_length : float or sequence of float, default=16
            Frames per snippet; `FrameLabels` bring their own.
        x_axis : str, default="false_positive_rate"
            As in the class.
        frame_rate : float, default=None
            Frames per second, which "false_alarms_per_hour" needs.
        name : str, default=None
            Of the detector, for the legend.
        ax : matplotlib Axes, default=None
        **line_kwargs : dict
            As in `plot`.

        Returns
        -------
        display : FrameRocDisplay

        Raises
        ------
        ValueError
            As `sklearn_vad.metrics.frame_roc_auc_score`, and where frames are of one
            class only, or no video is normal and `x_axis` is of normal videos.
        """
        _check_x_axis(x_axis, frame_rate)
        labels = as_frame_labels(frame_labels, snippet_length)
        table = make_table(labels, snippet_scores)
        check_both_kinds(table, len(labels))
        if x_axis == "false_positive_rate":
            x = _shares(table.normal, x_axis)
        else:
            x = _shares(table.quiet, x_axis)
        if x_axis == "false_alarms_per_hour":
            found = _alarms_per_hour(labels, snippet_scores, table.scores, frame_rate)
            x = np.maximum.accumulate(np.append(0.0, found))
        display = cls(
            x=x,
            tpr=_shares(table.anomalous, x_axis),
            thresholds=np.append(np.inf, table.scores),
            roc_auc=frame_roc_auc_score(labels, snippet_scores),
            name=name,
            x_axis=x_axis,
        )
        return display.plot(ax=ax, **line_kwargs)

    def plot(self, ax=None, **line_kwargs):
        """Draw into `ax`, or into a new figure.

        A further detector in the same axes gets another colour and other dashes.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
        **line_kwargs : dict
            Of the line, such as ``color="tab:blue"`` or ``linewidth=2``.

        Returns
        -------
        self : FrameRocDisplay
        """
        ax = make_axes(ax, (4.8, 4.2))
        _check_same_axis(ax, _X_AXES[self.x_axis])
        per_hour = self.x_axis == "false_alarms_per_hour"
        if per_hour:
            ax.set_xscale("symlog", linthresh=1)
            ax.set_xlim(0, max(ax.get_xlim()[1], 1.3 * self.x.max()))
        else:
            ax.set_xlim(-0.01, 1.01)
            draw_chance(ax, [0, 1], [0, 1])
        label = label_of(self.name, "AUC", self.roc_auc)
        self.line_ = draw_curve(ax, self.x, self.tpr, label, line_kwargs)
        ax.set(
            ylim=(-0.01, 1.01),
            xlabel=_X_AXES[self.x_axis],
            ylabel="true positive rate",
        )
        if per_hour:  # good and bad curves leave no corner free
            legend_above(ax, legend_handles(ax, "line"))
        else:
            draw_legend(ax, "lower right")
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _check_same_axis(ax, expected):
    found = ax.get_xlabel()
    if drawn(ax, "line") and found in _X_AXES.values() and found != expected:
        raise ValueError(
            f"ax has an axis of {found!r}, this curve is of {expected!r}: draw it into"
            " other axes, or use one x_axis for all"
        )
