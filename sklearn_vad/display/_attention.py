"""What detectors attend to: DDL's attention map, and DAM's Clip_A over time."""

import numpy as np

from .._storage import as_array
from ..metrics import runs_of, unwrap
from ..timeline import snippet_bounds
from ._drawing import (
    TRUTH_COLOR,
    check_axes,
    check_bag,
    check_video,
    drawn,
    gid_of,
    import_pyplot,
    legend_above,
    legend_handles,
    line_style,
    make_axes,
    shade_truth,
)
from ._timeline import find_clip_attention

_DECADES = 4  # of weights that colours tell apart, at most


class AttentionDisplay:
    """What a detector attends to in one video.

    Of DDL, the map of LA-Net's attention, without and with the location prior side by
    side, on one logarithmic scale of colours: a row for each snippet that attends, a
    column for each that it attends to. Of DAM, Clip_A over time; several detectors
    are overlaid by drawing into the same axes, ``ax=first.ax_``.

    Make one with `from_estimator` or `from_predictions`.

    Parameters
    ----------
    attention : ndarray of shape (n_snippets, n_snippets) or (n_snippets,)
        A map, or a weight for each snippet.
    without_prior : ndarray of shape (n_snippets, n_snippets), default=None
        The map without the prior, drawn to the left of `attention`.
    frame_labels : array-like of shape (n_frames,), default=None
        0/1; anomalous intervals are marked at the edges of a map, and shaded
        elsewhere.
    snippet_length : float, default=16
        Frames per snippet.
    name : str, default=None
        Of the detector.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Those of `attention`.
    axes_ : list of matplotlib Axes
        All of them, from left to right.
    figure_ : matplotlib Figure
    images_ : list of matplotlib AxesImage
        The maps.
    line_ : matplotlib artist of Clip_A, or None

    See Also
    --------
    ScoreTimelineDisplay : Shows Clip_A beneath the scores.
    sklearn_vad.DDLAnomalyDetector.attention_map : The map of every head.
    sklearn_vad.DAMAnomalyDetector.attend : Clip_A of every snippet.

    Examples
    --------
    >>> from sklearn_vad.display import AttentionDisplay
    >>> display = AttentionDisplay.from_predictions(
    ...     [[1.5, 0.6], [0.7, 1.4]], without_prior=[[0.5, 0.5], [0.6, 0.4]])
    >>> [ax.get_title() for ax in display.axes_]
    ['without prior', 'with prior']
    """

    def __init__(
        self,
        attention,
        *,
        without_prior=None,
        frame_labels=None,
        snippet_length=16,
        name=None,
    ):
        self.attention = attention
        self.without_prior = without_prior
        self.frame_labels = frame_labels
        self.snippet_length = snippet_length
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator,
        bag,
        frame_labels=None,
        *,
        head=None,
        snippet_length=16,
        name=None,
        ax=None,
        **kwargs,
    ):
        """Look at one video through a detector's attention, and plot that.

        Parameters
        ----------
        estimator : fitted DDLAnomalyDetector or DAMAnomalyDetector
            Alone, in a Pipeline or in a search.
        bag : array-like of shape (n_snippets, n_features)
            One video.
        frame_labels : array-like of shape (n_frames,), default=None
        head : int, default=None
            Of DDL's heads, from 0; None gives their mean.
        snippet_length : float, default=16
        name : str, default=None
            The estimator's class by default.
        ax : matplotlib Axes, or two of them for maps, default=None
        **kwargs : dict
            As in `plot`.

        Returns
        -------
        display : AttentionDisplay

        Raises
        ------
        ValueError, TypeError
            As `from_predictions`, for anything but one video, and for a detector that
            has no attention to show, or no such head.
        """
        detector, bags = unwrap(estimator, check_bag(bag))
        without = None
        if hasattr(detector, "attention_map"):
            attention = _one_map(detector.attention_map(bags[0]), head)
            if detector.sigma is not None:
                maps = detector.attention_map(bags[0], with_prior=False)
                without = _one_map(maps, head)
        elif head is not None:
            raise ValueError(f"head={head!r}, but {type(detector).__name__} has none")
        elif hasattr(detector, "attend"):
            attention = find_clip_attention(detector, bags)
        else:
            raise TypeError(
                f"{type(detector).__name__} has no attention to show, expected a"
                " DDLAnomalyDetector or a DAMAnomalyDetector"
            )
        return cls.from_predictions(
            attention,
            frame_labels,
            without_prior=without,
            snippet_length=snippet_length,
            name=type(detector).__name__ if name is None else name,
            ax=ax,
            **kwargs,
        )

    @classmethod
    def from_predictions(
        cls,
        attention,
        frame_labels=None,
        *,
        without_prior=None,
        snippet_length=16,
        name=None,
        ax=None,
        **kwargs,
    ):
        """Plot given attention in one video.

        Parameters
        ----------
        attention, frame_labels, without_prior, snippet_length, name
            As in the class.
        ax : matplotlib Axes, or two of them for two maps, default=None
        **kwargs : dict
            As in `plot`.

        Returns
        -------
        display : AttentionDisplay

        Raises
        ------
        ValueError, TypeError
            When maps are not square, negative or of different sizes, when values are
            not finite, or don't fit the frame labels.
        """
        attention = as_array(attention, "attention")
        if attention.ndim == 1 and without_prior is None:
            checked, mask, length = check_video(attention, frame_labels, snippet_length)
        else:
            checked = _check_map(attention, "attention")
            _, mask, length = check_video(
                np.zeros(len(checked)), frame_labels, snippet_length
            )
        if without_prior is not None:
            without_prior = _check_map(without_prior, "without_prior")
            if without_prior.shape != checked.shape:
                raise ValueError(
                    f"without_prior has shape {without_prior.shape}, attention has"
                    f" {checked.shape}; expected two maps of one video"
                )
        display = cls(
            checked,
            without_prior=without_prior,
            frame_labels=mask,
            snippet_length=length,
            name=name,
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax=None, **kwargs):
        """Draw into `ax`, or into a new figure.

        Parameters
        ----------
        ax : matplotlib Axes, or two of them for two maps, default=None
        **kwargs : dict
            Of the image, such as ``cmap="magma"``, or of the line of Clip_A.

        Returns
        -------
        self : AttentionDisplay
        """
        self.images_, self.line_ = [], None
        if np.ndim(self.attention) == 1:
            self.axes_ = [self._plot_line(make_axes(ax, (8, 2)), kwargs)]
        else:
            self._plot_maps(ax, kwargs)
        self.ax_ = self.axes_[-1]
        self.figure_ = self.ax_.figure
        return self

    def _plot_line(self, ax, kwargs):
        n_snippets = len(self.attention)
        n_frames = round(n_snippets * self.snippet_length)
        if self.frame_labels is not None:
            n_frames = len(self.frame_labels)
        style = line_style(len(drawn(ax, "line")), kwargs, n_snippets)
        style = {"label": self.name, "gid": gid_of("line"), **style}
        shade_truth(ax, self.frame_labels)
        bounds = snippet_bounds(n_snippets, n_frames, self.snippet_length)
        self.line_ = ax.stairs(self.attention, bounds, baseline=None, **style)
        ax.set(xlim=(0, n_frames), xlabel="frame", ylabel="$Clip_A$", ymargin=0.1)
        legend_above(ax, legend_handles(ax, "line", "truth"))
        return ax

    def _plot_maps(self, ax, kwargs):
        maps = {"without prior": self.without_prior, "with prior": self.attention}
        if self.without_prior is None:
            maps = {self.name or "attention": self.attention}
        self.axes_ = _make_map_axes(ax, len(maps))
        style = {"norm": _log_scale(list(maps.values())), "cmap": "viridis", **kwargs}
        for own, (title, values) in zip(self.axes_, maps.items(), strict=True):
            # Integers are the edges of snippets, as frames divided by their length.
            extent = (0, len(values), len(values), 0)
            image = own.imshow(values, extent=extent, aspect="equal", **style)
            own.set_title(title, pad=6 if self.frame_labels is None else 12)
            own.set_xlabel("to snippet")
            self._mark_truth(own)
            self.images_.append(image)
        self.axes_[0].set_ylabel("from snippet")
        shrink = 1 if ax is None else 0.7  # other layouts leave maps lower than axes
        own.figure.colorbar(image, ax=self.axes_, label="weight", shrink=shrink)
        if ax is None:
            self._explain(own, named=len(maps) > 1)

    def _explain(self, ax, named):
        """Write above the maps of a figure of our own what they are of."""
        if named and self.name is not None:
            ax.figure.suptitle(self.name, fontsize="medium")
        if drawn(ax, "truth"):
            ax.figure.legend(
                handles=drawn(ax, "truth")[:1],
                labels=["anomalous"],
                loc="outside upper right",
                fontsize="small",
                frameon=False,
            )

    def _mark_truth(self, ax):
        """Draw a bar above and to the right of a map along anomalous intervals."""
        if self.frame_labels is None:
            return
        style = {"color": TRUTH_COLOR, "linewidth": 0, "clip_on": False}
        for first, last in runs_of(self.frame_labels) / self.snippet_length:
            ax.axvspan(first, last, 1.01, 1.04, gid=gid_of("truth"), **style)
            ax.axhspan(first, last, 1.01, 1.04, gid=gid_of("truth"), **style)


def _one_map(maps, head):
    """Return the map of one head, or the mean over heads."""
    if head is None:
        return maps.mean(axis=0)
    if not isinstance(head, (int, np.integer)) or not 0 <= head < len(maps):
        raise ValueError(f"head={head!r}, expected a number from 0 to {len(maps) - 1}")
    return maps[head]


def _check_map(values, name):
    values = as_array(values, name)
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "biuf":
        raise ValueError(
            f"{name} has shape {values.shape} and dtype {values.dtype}, expected"
            " numbers: a map (n_snippets, n_snippets); of several heads one, or a mean"
        )
    if values.shape[0] != values.shape[1]:
        raise ValueError(f"{name} has shape {values.shape}, expected a square map")
    if not np.isfinite(values).all() or (values < 0).any():
        raise ValueError(f"{name} holds negative or infinite values or NaN")
    return values.astype(float)


def _make_map_axes(ax, n):
    """Return n axes, of a new figure unless they are given."""
    if ax is None:
        plt = import_pyplot()
        size = (3.6 * n + 1.4, 4)
        made = plt.subplots(1, n, figsize=size, layout="compressed", sharey=True)[1]
        return list(np.ravel(made))
    axes = list(np.ravel(ax))
    if len(axes) != n:
        raise ValueError(
            f"ax holds {len(axes)} axes, expected {n}: one for each map, without and"
            " with the prior"
        )
    return [check_axes(each) for each in axes]


def _log_scale(maps):
    """Return one scale for the colours of all maps."""
    from matplotlib.colors import LogNorm

    highest = max(each.max() for each in maps) or 1.0  # maps of zeros
    lowest = min(each.min() for each in maps)
    lowest = max(lowest, highest / 10**_DECADES)
    return LogNorm(min(lowest, highest / 2), highest, clip=True)
