"""Score distributions of normal and of anomalous frames."""

from numbers import Integral

import numpy as np

from ..metrics import as_frame_labels, make_table
from ._drawing import (
    COLORS,
    NEUTRAL,
    check_both_kinds,
    find_scores,
    legend_above,
    make_axes,
)


class ScoreGapDisplay:
    """How the scores of normal and of anomalous frames are distributed.

    Two overlaid histograms, each of all its frames, with their means. The wider the
    gap between the means, the better a threshold separates. Frames are counted, not
    expanded. Make one with `from_estimator` or `from_predictions`.

    Parameters
    ----------
    normal, anomalous : ndarray of shape (n_bins,)
        Share of the normal, and of the anomalous, frames in each bin.
    edges : ndarray of shape (n_bins + 1,)
        Of the bins.
    means : tuple of float
        Mean score of normal, and of anomalous frames.
    name : str, default=None
        Of the detector, above the legend.

    Attributes
    ----------
    gap : float
        `sklearn_vad.metrics.score_gap`, the difference of the means.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    histograms_ : tuple of matplotlib artists
        Of normal and of anomalous frames.

    Examples
    --------
    >>> from sklearn_vad.display import ScoreGapDisplay
    >>> display = ScoreGapDisplay.from_predictions(
    ...     [[0, 0, 1, 1], [0, 0]], [[0.25, 0.75], [0.0]], snippet_length=2, n_bins=3)
    >>> display.normal, display.anomalous, display.gap
    (array([0.5, 0.5, 0. ]), array([0., 0., 1.]), 0.625)
    """

    def __init__(self, *, normal, anomalous, edges, means, name=None):
        self.normal = normal
        self.anomalous = anomalous
        self.edges = edges
        self.means = means
        self.name = name

    @property
    def gap(self):
        return self.means[1] - self.means[0]

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        frame_labels,
        *,
        snippet_length=16,
        n_bins=40,
        name=None,
        ax=None,
    ):
        """Score videos and plot the distributions.

        Parameters
        ----------
        estimator : fitted detector, alone, in a Pipeline or in a search
        X : Bags, sequence of arrays, object array or array
            The videos.
        frame_labels : FrameLabels or sequence of array-like of shape (n_frames_i,)
        snippet_length : float or sequence of float, default=16
            Frames per snippet; `FrameLabels` bring their own.
        n_bins : int, default=40
        name : str, default=None
            The estimator's class by default.
        ax : matplotlib Axes, default=None

        Returns
        -------
        display : ScoreGapDisplay

        Raises
        ------
        ValueError, TypeError
            As `from_predictions`.
        """
        labels = as_frame_labels(frame_labels, snippet_length)
        detector, scores = find_scores(estimator, X, labels)
        name = type(detector).__name__ if name is None else name
        return cls.from_predictions(labels, scores, n_bins=n_bins, name=name, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        frame_labels,
        snippet_scores,
        *,
        snippet_length=16,
        n_bins=40,
        name=None,
        ax=None,
    ):
        """Plot the distributions of given scores.

        Parameters
        ----------
        frame_labels : FrameLabels or sequence of array-like of shape (n_frames_i,)
            0/1 labels, one array per video.
        snippet_scores : sequence of array-like of shape (n_snippets_i,)
            Scores, one array per video.
        snippet_length : float or sequence of float, default=16
            Frames per snippet; `FrameLabels` bring their own.
        n_bins : int, default=40
            Equal bins from the lowest to the highest score.
        name : str, default=None
            Of the detector, above the legend.
        ax : matplotlib Axes, default=None

        Returns
        -------
        display : ScoreGapDisplay

        Raises
        ------
        ValueError, TypeError
            As `sklearn_vad.metrics.score_gap`, where frames are of one class only, and
            for a bad `n_bins`.
        """
        if not isinstance(n_bins, Integral) or n_bins < 1:
            raise ValueError(f"n_bins={n_bins!r}, expected a whole number from 1 on")
        labels = as_frame_labels(frame_labels, snippet_length)
        table = make_table(labels, snippet_scores)
        check_both_kinds(table, len(labels))
        scores = table.scores.astype(float)
        edges = np.histogram_bin_edges(scores, n_bins)
        shares, means = [], []
        for frames in (table.normal, table.anomalous):
            counts, _ = np.histogram(scores, edges, weights=frames)
            shares.append(counts / frames.sum())
            means.append(float(np.average(scores, weights=frames)))
        display = cls(
            normal=shares[0],
            anomalous=shares[1],
            edges=edges,
            means=tuple(means),
            name=name,
        )
        return display.plot(ax=ax)

    def plot(self, ax=None):
        """Draw into `ax`, or into a new figure.

        Parameters
        ----------
        ax : matplotlib Axes, default=None

        Returns
        -------
        self : ScoreGapDisplay
        """
        ax = make_axes(ax, (6, 3.2))
        kinds = zip(("normal", "anomalous"), COLORS, ("-", "--"), strict=False)
        handles = []
        for (kind, color, dashes), mean in zip(kinds, self.means, strict=True):
            shares = getattr(self, kind)
            bars = ax.stairs(shares, self.edges, fill=True, color=color, alpha=0.3)
            outline = ax.stairs(shares, self.edges, color=color, linestyle=dashes)
            outline.set(linewidth=1.5, label=f"{kind} frames, mean {mean:.3f}")
            ax.axvline(mean, color=color, linestyle=dashes, linewidth=1.5)
            handles.append((bars, outline))
        self.histograms_ = tuple(outline for _, outline in handles)
        span = ax.axvspan(*sorted(self.means), 0.97, 1, color=NEUTRAL, linewidth=0)
        span.set_label(f"gap {self.gap:.3f}")
        ax.set(xlabel="score", ylabel="share of frames", xlim=self.edges[[0, -1]])
        highest = max(self.normal.max(), self.anomalous.max())
        ax.set_ylim(0, 1.1 * highest)  # the gap's bar is above
        legend_above(ax, [*self.histograms_, span], self.name)
        self.ax_, self.figure_ = ax, ax.figure
        return self
