"""Pictures of scores over time, in the manner of scikit-learn's displays."""

import numpy as np

from .bags import FrameLabels, check_bags
from .metrics import unwrap
from .timeline import check_frame_counts, snippet_bounds

__all__ = ["ScoreTimelineDisplay"]


class ScoreTimelineDisplay:
    """Scores of one video over time, with its anomalous intervals shaded.

    Make one with `from_estimator` or `from_predictions`.

    Parameters
    ----------
    snippet_scores : array-like of shape (n_snippets,)
    frame_labels : array-like of shape (n_frames,), default=None
        0/1; None shades nothing.
    snippet_length : float, default=16
        Frames per snippet.
    name : str, default=None
        Of the detector, for the legend.
    threshold : float, default=0.5
        Drawn as a line; None leaves it out.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    line_ : matplotlib artist of the scores

    Examples
    --------
    >>> from sklearn_vad.display import ScoreTimelineDisplay
    >>> display = ScoreTimelineDisplay.from_predictions(
    ...     [0.1, 0.8, 0.2], [0, 0, 1, 1, 0, 0], snippet_length=2)
    >>> display.ax_.get_xlabel()
    'frame'
    """

    def __init__(
        self,
        snippet_scores,
        *,
        frame_labels=None,
        snippet_length=16,
        name=None,
        threshold=0.5,
    ):
        self.snippet_scores = snippet_scores
        self.frame_labels = frame_labels
        self.snippet_length = snippet_length
        self.name = name
        self.threshold = threshold

    @classmethod
    def from_estimator(
        cls,
        estimator,
        bag,
        frame_labels=None,
        *,
        snippet_length=16,
        name=None,
        ax=None,
    ):
        """Score one video and plot it.

        Parameters
        ----------
        estimator : fitted detector, alone, in a Pipeline or in a search
        bag : array-like of shape (n_snippets, n_features)
            One video.
        frame_labels : array-like of shape (n_frames,), default=None
        snippet_length : float, default=16
        name : str, default=None
            The estimator's class by default.
        ax : matplotlib Axes, default=None

        Returns
        -------
        display : ScoreTimelineDisplay
        """
        detector, bags = unwrap(estimator, check_bags([bag]))
        scores = detector.score_snippets(bags)[0]
        return cls.from_predictions(
            scores,
            frame_labels,
            snippet_length=snippet_length,
            name=type(detector).__name__ if name is None else name,
            threshold=getattr(detector, "threshold_", 0.5),
            ax=ax,
        )

    @classmethod
    def from_predictions(
        cls,
        snippet_scores,
        frame_labels=None,
        *,
        snippet_length=16,
        name=None,
        threshold=0.5,
        ax=None,
    ):
        """Plot given scores of one video.

        Parameters
        ----------
        snippet_scores, frame_labels, snippet_length, name, threshold
            As in the class.
        ax : matplotlib Axes, default=None

        Returns
        -------
        display : ScoreTimelineDisplay

        Raises
        ------
        ValueError
            When scores or frame labels are no 1-D arrays of valid values, or
            don't fit each other.
        """
        scores = np.asarray(snippet_scores, dtype=float)
        if scores.ndim != 1 or scores.size == 0:
            raise ValueError(
                f"snippet_scores have shape {scores.shape}, expected (n_snippets,)"
                " of one video"
            )
        if frame_labels is not None:
            labels = FrameLabels([frame_labels], snippet_length)
            check_frame_counts(
                np.array([scores.size]), labels.n_frames, labels.snippet_length
            )
            frame_labels = labels.masks[0]
        display = cls(
            scores,
            frame_labels=frame_labels,
            snippet_length=snippet_length,
            name=name,
            threshold=threshold,
        )
        return display.plot(ax=ax)

    def plot(self, ax=None):
        """Draw into `ax`, or into a new figure.

        Drawing a second detector into the same axes overlays its line.

        Parameters
        ----------
        ax : matplotlib Axes, default=None

        Returns
        -------
        self : ScoreTimelineDisplay
        """
        import matplotlib.pyplot as plt
        from matplotlib.patches import StepPatch

        if ax is None:
            _, ax = plt.subplots(figsize=(8, 2.4), layout="constrained")
        first = not any(isinstance(patch, StepPatch) for patch in ax.patches)
        n_frames = round(len(self.snippet_scores) * self.snippet_length)
        if self.frame_labels is not None:
            n_frames = len(self.frame_labels)
            if first:
                self._shade(ax)
        bounds = snippet_bounds(len(self.snippet_scores), n_frames, self.snippet_length)
        if first and self.threshold is not None:
            ax.axhline(self.threshold, color="0.5", lw=0.8, ls="--", zorder=1)
        self.line_ = ax.stairs(
            self.snippet_scores, bounds, baseline=None, lw=1.5, label=self.name
        )
        ax.set(xlim=(0, n_frames), ylim=(-0.02, 1.02), xlabel="frame", ylabel="score")
        if self.name is not None:
            ax.legend(loc="upper right", fontsize="small", framealpha=0.8)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _shade(self, ax):
        edges = np.flatnonzero(np.diff(self.frame_labels, prepend=False, append=False))
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            ax.axvspan(start, stop, color="tab:red", alpha=0.18, lw=0, zorder=0)
