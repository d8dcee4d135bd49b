"""What all displays share: matplotlib on demand, colours, shading, legends, checks.

What has been drawn into axes is found again by the gid of its artists, so that a
second display knows that it is the second.
"""

import numpy as np

from ..bags import (
    Bags,
    FrameLabels,
    check_bags,
    check_same_videos,
    check_snippet_length,
)
from ..metrics import as_frame_labels, check_scores, runs_of, unwrap
from ..timeline import check_frame_counts

# Each has a contrast of 3 or more with white and with black, and stays apart from the
# others for colour-blind people; lines differ by their dashes besides.
COLORS = ("#2a6fdb", "#d55e00", "#12a37c", "#c766a8")
DASHES = ("-", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
TRUTH_COLOR = "#e69f00"  # of shading only: too light for lines on white
NEUTRAL = "0.5"  # seen on white and on black


# --------------------------------------------------------------------------
# Axes
# --------------------------------------------------------------------------
def import_pyplot():
    """Return ``matplotlib.pyplot``, or raise an error that says how to get it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"pictures need matplotlib ({error}): pip install 'sklearn_vad[plot]'"
        ) from error
    return plt


def make_axes(ax, figsize):
    """Return `ax`, checked, or the axes of a new figure."""
    plt = import_pyplot()
    if ax is None:
        return plt.subplots(figsize=figsize, layout="constrained")[1]
    return check_axes(ax)


def check_axes(ax):
    import_pyplot()
    from matplotlib.axes import Axes

    if not isinstance(ax, Axes):
        raise TypeError(f"ax is {type(ax).__name__}, expected one matplotlib Axes")
    return ax


def gid_of(kind):
    return f"sklearn_vad.{kind}"


def drawn(ax, kind):
    """Return the artists of a kind that displays have drawn into `ax`."""
    return [each for each in ax.get_children() if each.get_gid() == gid_of(kind)]


def line_style(n, given, n_points=0):
    """Return how the n-th line looks, unless `given` keywords say otherwise."""
    from matplotlib.cbook import normalize_kwargs
    from matplotlib.lines import Line2D

    style = {
        "color": COLORS[n % len(COLORS)],
        "linestyle": DASHES[(n + n // len(COLORS)) % len(DASHES)],
        "linewidth": 1.5 if n_points <= 1000 else 0.7,
    }
    return {**style, **normalize_kwargs(given, Line2D)}


def draw_curve(ax, x, y, label, given):
    """Draw one more line into `ax`, in a style of its own."""
    style = line_style(len(drawn(ax, "line")), given)
    (line,) = ax.plot(x, y, **{"label": label, "gid": gid_of("line"), **style})
    return line


# --------------------------------------------------------------------------
# Shading and legends
# --------------------------------------------------------------------------
def shade_truth(ax, frame_labels):
    """Shade the anomalous intervals of a video, unless they are shaded already."""
    if frame_labels is None or drawn(ax, "truth"):
        return
    for first, last in runs_of(frame_labels):
        ax.axvspan(
            first,
            last,
            color=TRUTH_COLOR,
            alpha=0.35,
            linewidth=0,
            zorder=0,
            label="anomalous",
            gid=gid_of("truth"),
        )


def legend_handles(ax, *kinds):
    """Return labelled artists of these kinds, the first of each label."""
    handles = {}
    for kind in kinds:
        for artist in drawn(ax, kind):
            label = artist.get_label()
            if label and not label.startswith("_"):
                handles.setdefault(label, artist)
    return list(handles.values())


def legend_above(ax, handles, title=None):
    """Put a legend above `ax`, where it hides no data, in one or two rows if it fits.

    It may reach over the labels at the left.
    """
    if not handles:
        return
    width, n = 1.15 * ax.get_window_extent().width, len(handles)
    tries = [(size, n_rows) for size in ("small", "x-small") for n_rows in (1, 2)]
    tries += [("x-small", n_rows) for n_rows in range(3, n + 1)]
    for size, n_rows in tries:
        legend = ax.legend(
            handles=handles,
            title=title,
            title_fontsize=size,
            alignment="left",
            loc="lower right",
            bbox_to_anchor=(1, 1),
            ncols=-(-n // n_rows),
            frameon=False,
            fontsize=size,
            borderaxespad=0.1,
            columnspacing=1.2,
            handletextpad=0.5,
        )
        if legend.get_window_extent().width <= width:
            break


def legend_inside(ax, handles, loc):
    """Put a legend into `ax`, in small type where `ax` is small."""
    wide = ax.get_window_extent().width > 3.5 * ax.figure.dpi
    size = "small" if wide else "x-small"
    ax.legend(handles=handles, loc=loc, fontsize=size, framealpha=0.8)


# --------------------------------------------------------------------------
# Curves
# --------------------------------------------------------------------------
def label_of(name, metric, value):
    """Return "name (metric = value)", or what there is of it."""
    if value is None:
        return name
    value = f"{metric} = {value:.3f}"
    return value if name is None else f"{name} ({value})"


def draw_chance(ax, x, y):
    """Draw the line of a detector that knows nothing, once."""
    if not drawn(ax, "chance"):
        ax.plot(
            x,
            y,
            color=NEUTRAL,
            linestyle="--",
            linewidth=0.9,
            zorder=1,
            label="chance",
            gid=gid_of("chance"),
        )


def draw_legend(ax, loc):
    """Put a legend of the curves into `ax`, if any has a name or a value."""
    handles = legend_handles(ax, "line", "chance")
    if len(handles) > len(drawn(ax, "chance")):
        legend_inside(ax, handles, loc)


# --------------------------------------------------------------------------
# Checks
# --------------------------------------------------------------------------
def find_scores(estimator, X, frame_labels):
    """Return the detector in an estimator, and its scores of all bags."""
    bags = check_bags(X)
    if len(bags) != len(frame_labels):
        raise ValueError(
            f"got {len(bags)} bags and frame labels of {len(frame_labels)} videos"
        )
    check_same_videos(bags, frame_labels)
    detector, bags = unwrap(estimator, bags)
    return detector, detector.score_snippets(bags)


def check_both_kinds(table, n_videos):
    """Raise unless there are anomalous and normal frames in a table of them."""
    for kind in ("anomalous", "normal"):
        if not getattr(table, kind).any():
            raise ValueError(
                f"there is no {kind} frame among the frame labels of {n_videos} videos,"
                " expected both kinds"
            )


def check_bag(bag):
    """Return one video as `Bags`."""
    if isinstance(bag, Bags):
        raise TypeError(
            f"bag is {bag!r}, expected one video: an array (n_snippets, n_features),"
            " such as bags[0]"
        )
    return check_bags([bag])


def check_video(values, frame_labels, snippet_length):
    """Check values per snippet, and frame labels, of one video.

    Parameters
    ----------
    values : array-like of shape (n_snippets,)
    frame_labels : array-like of shape (n_frames,), FrameLabels of one video or None
    snippet_length : float

    Returns
    -------
    values : ndarray of float of shape (n_snippets,)
    mask : ndarray of bool of shape (n_frames,), or None
    snippet_length : float
    """
    values = check_scores([values])[0].astype(float)
    if frame_labels is None:
        return values, None, float(check_snippet_length(snippet_length, 1)[0])
    labels = _as_one_video(frame_labels, snippet_length)
    length = labels.snippet_length
    check_frame_counts(np.array([len(values)]), labels.n_frames, length, labels.ids)
    return values, labels.masks[0], float(length[0])


def _as_one_video(frame_labels, snippet_length):
    if not isinstance(frame_labels, FrameLabels):
        return FrameLabels([frame_labels], snippet_length)
    if len(frame_labels) != 1:
        raise ValueError(
            f"frame_labels are those of {len(frame_labels)} videos, expected one: an"
            " array (n_frames,), such as y.masks[0]"
        )
    return as_frame_labels(frame_labels, snippet_length)
