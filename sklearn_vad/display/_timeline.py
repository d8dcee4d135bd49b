"""Scores of one video over time, and DAM's attention beneath them."""

from ..metrics import unwrap
from ..timeline import snippet_bounds
from ._drawing import (
    NEUTRAL,
    check_bag,
    check_video,
    drawn,
    gid_of,
    legend_above,
    legend_handles,
    line_style,
    make_axes,
    shade_truth,
)


class ScoreTimelineDisplay:
    """Scores of one video over time, with its anomalous intervals shaded.

    Make one with `from_estimator` or `from_predictions`. Several detectors are
    overlaid by drawing into the same axes: ``ax=first.ax_``.

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
    clip_attention : array-like of shape (n_snippets,), default=None
        DAM's Clip_A, drawn beneath the scores.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    line_ : matplotlib artist of the scores
    attention_ax_ : matplotlib Axes or None
        Those of Clip_A, beneath `ax_`.
    attention_line_ : matplotlib artist of Clip_A, or None

    See Also
    --------
    AttentionDisplay : DDL's attention map, and Clip_A by itself.

    Examples
    --------
    >>> from sklearn_vad.display import ScoreTimelineDisplay
    >>> display = ScoreTimelineDisplay.from_predictions(
    ...     [0.1, 0.8, 0.2], [0, 0, 1, 1, 0, 0], snippet_length=2, name="ours")
    >>> display.ax_.get_xlabel()
    'frame'
    >>> other = ScoreTimelineDisplay.from_predictions(
    ...     [0.3, 0.4, 0.5], snippet_length=2, name="baseline", ax=display.ax_)
    >>> [text.get_text() for text in other.ax_.get_legend().get_texts()]
    ['ours', 'baseline', 'anomalous', 'threshold']
    """

    def __init__(
        self,
        snippet_scores,
        *,
        frame_labels=None,
        snippet_length=16,
        name=None,
        threshold=0.5,
        clip_attention=None,
    ):
        self.snippet_scores = snippet_scores
        self.frame_labels = frame_labels
        self.snippet_length = snippet_length
        self.name = name
        self.threshold = threshold
        self.clip_attention = clip_attention

    @classmethod
    def from_estimator(
        cls,
        estimator,
        bag,
        frame_labels=None,
        *,
        snippet_length=16,
        name=None,
        clip_attention=False,
        ax=None,
        **line_kwargs,
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
        clip_attention : bool, default=False
            Draw Clip_A beneath the scores; DAM has it.
        ax : matplotlib Axes, default=None
        **line_kwargs : dict
            As in `plot`.

        Returns
        -------
        display : ScoreTimelineDisplay

        Raises
        ------
        ValueError, TypeError
            As `from_predictions`, for anything but one video, and for Clip_A of a
            detector that has none.
        """
        detector, bags = unwrap(estimator, check_bag(bag))
        attention = find_clip_attention(detector, bags) if clip_attention else None
        return cls.from_predictions(
            detector.score_snippets(bags)[0],
            frame_labels,
            snippet_length=snippet_length,
            name=type(detector).__name__ if name is None else name,
            threshold=getattr(detector, "threshold_", 0.5),
            clip_attention=attention,
            ax=ax,
            **line_kwargs,
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
        clip_attention=None,
        ax=None,
        **line_kwargs,
    ):
        """Plot given scores of one video.

        Parameters
        ----------
        snippet_scores, frame_labels, snippet_length, name, threshold
            As in the class.
        clip_attention : array-like of shape (n_snippets,), default=None
            DAM's Clip_A, drawn beneath the scores.
        ax : matplotlib Axes, default=None
        **line_kwargs : dict
            As in `plot`.

        Returns
        -------
        display : ScoreTimelineDisplay

        Raises
        ------
        ValueError
            When scores, attention or frame labels are no 1-D arrays of valid values,
            or don't fit each other.
        """
        scores, mask, length = check_video(snippet_scores, frame_labels, snippet_length)
        if clip_attention is not None:
            clip_attention = check_video(clip_attention, None, length)[0]
            if len(clip_attention) != len(scores):
                raise ValueError(
                    f"clip_attention is of {len(clip_attention)} snippets, the scores"
                    f" are of {len(scores)}; expected one value for each snippet"
                )
        display = cls(
            scores,
            frame_labels=mask,
            snippet_length=length,
            name=name,
            threshold=threshold,
            clip_attention=clip_attention,
        )
        return display.plot(ax=ax, **line_kwargs)

    def plot(self, ax=None, **line_kwargs):
        """Draw into `ax`, or into a new figure.

        Drawing a second detector into the same axes overlays its line, in another
        colour and with other dashes. Truth and threshold are drawn once; a threshold
        that differs gets the colour of its detector. The legend is above the axes:
        where there are axes above, let the figure have ``layout="constrained"``.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
        **line_kwargs : dict
            Of the line, such as ``color="tab:blue"`` or ``linewidth=2``.

        Returns
        -------
        self : ScoreTimelineDisplay
        """
        tall = self.clip_attention is not None
        ax = make_axes(ax, (8, 3.2 if tall else 2.4))
        n_snippets = len(self.snippet_scores)
        style = line_style(len(drawn(ax, "line")), line_kwargs, n_snippets)
        self._shown = {"label": self.name, "gid": gid_of("line"), **style}
        n_frames = round(n_snippets * self.snippet_length)
        if self.frame_labels is not None:
            n_frames = len(self.frame_labels)
        bounds = snippet_bounds(n_snippets, n_frames, self.snippet_length)
        last = max(n_frames, ax.get_xlim()[1] if drawn(ax, "line") else 0)
        shade_truth(ax, self.frame_labels)
        self._draw_threshold(ax)
        self.line_ = ax.stairs(
            self.snippet_scores, bounds, baseline=None, **self._shown
        )
        ax.set(xlim=(0, last), ylim=(-0.02, 1.02), xlabel="frame", ylabel="score")
        self._draw_attention(ax, bounds)
        legend_above(ax, legend_handles(ax, "line", "truth", "threshold"))
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _draw_threshold(self, ax):
        lines = drawn(ax, "threshold")
        known = [line.get_ydata()[0] for line in lines]
        if self.threshold is None or self.threshold in known:
            return
        color = self._shown.get("color", NEUTRAL) if lines else NEUTRAL
        label = "_" if lines else "threshold"
        ax.axhline(
            self.threshold,
            color=color,
            linewidth=0.9,
            linestyle="--",
            zorder=1,
            label=label,
            gid=gid_of("threshold"),
        )

    def _draw_attention(self, ax, bounds):
        self.attention_ax_ = _axes_beneath(ax)
        self.attention_line_ = None
        if self.clip_attention is not None:
            if self.attention_ax_ is None:
                self.attention_ax_ = _make_axes_beneath(ax)
            shade_truth(self.attention_ax_, self.frame_labels)
            self.attention_line_ = self.attention_ax_.stairs(
                self.clip_attention, bounds, baseline=None, **self._shown
            )
        if self.attention_ax_ is not None:
            ax.set_xlabel("")


def _axes_beneath(ax):
    """Return the axes that `_make_axes_beneath` has made, or None."""
    for other in ax.figure.axes:
        if other.get_gid() == gid_of("attention"):
            specs = ax.get_subplotspec(), other.get_subplotspec()
            if specs[0].get_gridspec() is specs[1].get_gridspec():
                return other
    return None


def _make_axes_beneath(ax):
    """Make axes for Clip_A in the lower third of the place that `ax` has."""
    place = ax.get_subplotspec()
    if place is None:
        raise ValueError(
            "Clip_A goes beneath the scores, into a part of their place: expected an ax"
            " of plt.subplots, got one with a place of its own"
        )
    engine = ax.figure.get_layout_engine()  # of those that make room for labels,
    hspace = 0.08 if engine is None else None  # "constrained" takes it of the figure
    upper, lower = place.subgridspec(2, 1, height_ratios=(2, 1), hspace=hspace)
    ax.set_subplotspec(upper)
    beneath = ax.figure.add_subplot(lower, sharex=ax, gid=gid_of("attention"))
    beneath.set(xlabel="frame", ylabel="$Clip_A$", ymargin=0.1)
    beneath.locator_params(axis="y", nbins=3)
    ax.tick_params(labelbottom=False)
    ax.figure.align_ylabels([ax, beneath])
    return beneath


def find_clip_attention(detector, bags):
    """Return Clip_A of one video; raise for a detector without."""
    if not hasattr(detector, "attend"):
        raise TypeError(
            f"{type(detector).__name__} has no Clip_A, expected a DAMAnomalyDetector"
        )
    return detector.attend(bags)["clip_attention"][0]
