"""Precision over recall of the frames of all videos."""

import numpy as np

from ..metrics import as_frame_labels, frame_average_precision_score, make_table
from ._drawing import (
    check_both_kinds,
    draw_chance,
    draw_curve,
    draw_legend,
    find_scores,
    label_of,
    make_axes,
)


class FramePrecisionRecallDisplay:
    """Precision over recall of the frames of all videos, of one or several detectors.

    Make one with `from_estimator` or `from_predictions`. Several detectors are
    overlaid by drawing into the same axes: ``ax=first.ax_``. No frame is expanded: a
    snippet counts with its numbers of anomalous and normal frames.

    Parameters
    ----------
    precision, recall : ndarray of shape (n_points,)
        Share of anomalous frames among those that reach the threshold, and share of
        the anomalous frames that do. Before the first frame they are 1 and 0.
    thresholds : ndarray of shape (n_points,)
        From infinity down.
    average_precision : float, default=None
        For the legend: `sklearn_vad.metrics.frame_average_precision_score`.
    name : str, default=None
        Of the detector, for the legend.
    prevalence : float, default=None
        Share of anomalous frames, the precision of chance, drawn as a line.
    interpolation : {"step", "trapezoid"}, default="step"
        How the points are joined, and the area that `average_precision` is.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    line_ : matplotlib Line2D

    See Also
    --------
    FrameRocDisplay : Does not depend on how rare anomalous frames are.

    Examples
    --------
    >>> from sklearn_vad.display import FramePrecisionRecallDisplay
    >>> display = FramePrecisionRecallDisplay.from_predictions(
    ...     [[0, 0, 1, 1]], [[0.9, 0.7]], snippet_length=2, name="ours")
    >>> display.recall, display.precision
    (array([0., 0., 1.]), array([1. , 0. , 0.5]))
    >>> display.ax_.get_legend().get_texts()[0].get_text()
    'ours (AP = 0.500)'
    """

    def __init__(
        self,
        *,
        precision,
        recall,
        thresholds,
        average_precision=None,
        name=None,
        prevalence=None,
        interpolation="step",
    ):
        self.precision = precision
        self.recall = recall
        self.thresholds = thresholds
        self.average_precision = average_precision
        self.name = name
        self.prevalence = prevalence
        self.interpolation = interpolation

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        frame_labels,
        *,
        snippet_length=16,
        interpolation="step",
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
        interpolation : {"step", "trapezoid"}, default="step"
        name : str, default=None
            The estimator's class by default.
        ax : matplotlib Axes, default=None
        **line_kwargs : dict
            As in `plot`.

        Returns
        -------
        display : FramePrecisionRecallDisplay

        Raises
        ------
        ValueError, TypeError
            As `from_predictions`.
        """
        labels = as_frame_labels(frame_labels, snippet_length)
        detector, scores = find_scores(estimator, X, labels)
        return cls.from_predictions(
            labels,
            scores,
            interpolation=interpolation,
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
        interpolation="step",
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
        interpolation : {"step", "trapezoid"}, default="step"
            As in the class.
        name : str, default=None
            Of the detector, for the legend.
        ax : matplotlib Axes, default=None
        **line_kwargs : dict
            As in `plot`.

        Returns
        -------
        display : FramePrecisionRecallDisplay

        Raises
        ------
        ValueError
            As `sklearn_vad.metrics.frame_average_precision_score`, and where frames are
            of one class only.
        """
        labels = as_frame_labels(frame_labels, snippet_length)
        table = make_table(labels, snippet_scores)
        check_both_kinds(table, len(labels))
        average = frame_average_precision_score(
            labels, snippet_scores, interpolation=interpolation
        )
        display = cls(
            precision=np.append(1.0, table.precision),
            recall=np.append(0.0, table.true / table.true[-1]),
            thresholds=np.append(np.inf, table.scores),
            average_precision=average,
            name=name,
            prevalence=float(table.precision[-1]),
            interpolation=interpolation,
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
        self : FramePrecisionRecallDisplay
        """
        ax = make_axes(ax, (4.8, 4.2))
        if self.prevalence is not None:
            draw_chance(ax, [0, 1], [self.prevalence] * 2)
        if self.interpolation == "step":
            line_kwargs = {"drawstyle": "steps-pre", **line_kwargs}
        label = label_of(self.name, "AP", self.average_precision)
        self.line_ = draw_curve(ax, self.recall, self.precision, label, line_kwargs)
        ax.set(
            xlim=(-0.01, 1.01),
            ylim=(-0.01, 1.01),
            xlabel="recall (frames)",
            ylabel="precision",
        )
        draw_legend(ax, "best")
        self.ax_, self.figure_ = ax, ax.figure
        return self
