"""What covers what in time: snippets, segments and frames.

A snippet covers ``snippet_length`` frames. Frame ``f`` belongs to snippet
``floor(f / snippet_length)``; frames past the last snippet belong to the last
one, and labels that end early cut the snippets. Everything that turns snippets
into frames, or frames into snippets, is here and nowhere else.

A segment is one of a fixed number of equal parts into which a bag is pooled.
"""

import numpy as np

from ._storage import as_array, as_list, bag_name
from .bags import check_snippet_length

__all__ = [
    "check_frame_counts",
    "expand_scores",
    "pool_segments",
    "snippet_bounds",
    "spread_segments",
    "uniform_rows",
]

_MAX_FRAMES = 2**32  # of all videos: five years at 25 frames a second


def snippet_bounds(n_snippets, n_frames, snippet_length):
    """Return the frames at which snippets begin and end, of one video or of many.

    Parameters
    ----------
    n_snippets : int or ndarray of shape (n_videos,)
        1 or more.
    n_frames : int or ndarray of shape (n_videos,)
        1 or more.
    snippet_length : float or ndarray of shape (n_videos,)
        Frames per snippet; fractions are allowed.

    Returns
    -------
    bounds : ndarray of int of shape (sum(n_snippets) + 1,)
        Snippet j covers frames ``bounds[j]`` up to ``bounds[j + 1]``, end
        excluded. ``bounds[0] == 0`` and ``bounds[-1] == sum(n_frames)``: with
        many videos, both snippets and frames are counted through all of them.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_vad.timeline import snippet_bounds
    >>> snippet_bounds(3, 50, 16)
    array([ 0, 16, 32, 50])
    >>> snippet_bounds(np.array([3, 2]), np.array([50, 30]), np.array([16, 15]))
    array([ 0, 16, 32, 50, 65, 80])
    """
    ends = np.cumsum(n_frames)
    columns = [np.cumsum(n_snippets) - n_snippets, ends - n_frames]
    before, offset, frames, length = (
        np.repeat(np.atleast_1d(column), n_snippets)
        for column in [*columns, n_frames, snippet_length]
    )
    index = np.arange(len(before)) - before
    first = np.ceil(index * length)
    if (np.floor(snippet_length) != snippet_length).any():
        # The first frame f with floor(f / length) >= index, or the end of the
        # video. The rounding of index * length may differ from that of f / length,
        # which is the definition: step to it.
        first -= np.floor((first - 1) / length) >= index
        first += np.floor(first / length) < index
    first = np.minimum(first, frames) + offset
    return np.append(first, ends[-1]).astype(np.int64)


def check_frame_counts(n_snippets, n_frames, snippet_length, ids=None):
    """Raise when frame labels can't belong to the bags they came with.

    Parameters
    ----------
    n_snippets, n_frames, snippet_length : ndarray of shape (n_videos,)
    ids : sequence of str, default=None
        Names of the videos, for the message.

    Raises
    ------
    ValueError
        When the snippets that the frames fill differ from the bag's by more
        than 2 and by more than 10 %: then `snippet_length` is wrong. The
        message names the first such video and, where it can, the cause.
    """
    filled = n_frames / snippet_length
    gap = np.abs(filled - n_snippets)
    wrong = (gap > 2) & (gap > 0.1 * n_snippets)
    if wrong.any():
        i = int(np.argmax(wrong))
        name = bag_name(i, ids).replace("bag", "video", 1)
        raise ValueError(
            f"{name} has {n_snippets[i]} snippets, but its {n_frames[i]} frames"
            f" fill {filled[i]:.1f} snippets of {snippet_length[i]:g} frames: "
            + _why_counts_differ(n_snippets, n_frames, filled, i)
        )


def _why_counts_differ(n_snippets, n_frames, filled, i):
    """Guess why video `i` has another number of snippets than its frames fill."""
    ratio = n_snippets[i] / filled[i]
    if any(abs(ratio / n_crops - 1) <= 0.1 for n_crops in (5, 10)):
        return (
            f"{ratio:.1f} times as many. The crops of the video seem to be concatenated"
            " along its snippets: give them an axis of their own (see the crop layouts"
            " of sklearn_vad.datasets.load_features), for MultiCropDetector, or score"
            " one crop"
        )
    each = n_frames / n_snippets
    why = (
        "snippet_length must be the number of frames that one snippet covers (about"
        f" {each[i]:.1f} here), and bags and frames must be of the same videos in the"
        " same order"
    )
    # One for all videos, up to a snippet or 2 % of each. Whole snippets only
    # tell it to within some percent.
    common = max(round(n_frames.sum() / n_snippets.sum()), 1)
    rest = np.abs(n_frames / common - n_snippets)
    if (rest <= np.maximum(1, 0.02 * n_snippets)).all():
        frames = "; metrics take scores of snippets, not of frames" * (common == 1)
        return f"{why}; a snippet_length of about {common} would fit{frames}"
    if len(n_snippets) > 1 and (n_snippets == n_snippets[0]).all():
        n = n_snippets[0]
        return f"{why}; for {n} equal parts of each video it is n_frames / {n}"
    return why


def expand_scores(snippet_scores, n_frames=None, *, snippet_length=16):
    """Give every frame the score of its snippet.

    Parameters
    ----------
    snippet_scores : sequence of array-like of shape (n_snippets_i,)
    n_frames : sequence of int, default=None
        Frames of each video; None gives ``n_snippets_i * snippet_length``,
        rounded to whole frames, at least 1.
    snippet_length : float or sequence of float, default=16

    Returns
    -------
    frame_scores : list of ndarray of shape (n_frames_i,)

    Raises
    ------
    ValueError
        When a frame count is not a positive whole number or does not fit the
        number of snippets, or scores are empty or not 1-D.

    Examples
    --------
    >>> from sklearn_vad.timeline import expand_scores
    >>> expand_scores([[0.1, 0.9]], [5], snippet_length=2)
    [array([0.1, 0.1, 0.9, 0.9, 0.9])]
    """
    values = as_list(snippet_scores, "scores", "a list with one array per video")
    snippet_scores = [
        as_array(scores, f"scores of video {i}") for i, scores in enumerate(values)
    ]
    for i, scores in enumerate(snippet_scores):
        if scores.ndim != 1 or scores.size == 0:
            raise ValueError(
                f"scores of video {i} have shape {scores.shape}, expected"
                " (n_snippets,) with n_snippets >= 1"
            )
    if not snippet_scores:
        return []
    n_snippets = np.array([len(scores) for scores in snippet_scores])
    lengths = check_snippet_length(snippet_length, len(snippet_scores))
    if n_frames is None:
        n_frames = np.maximum(np.round(n_snippets * lengths), 1)
    else:
        n_frames = _check_n_frames(n_frames, len(snippet_scores))
        check_frame_counts(n_snippets, n_frames, lengths)
    if n_frames.sum(dtype=float) > _MAX_FRAMES:
        raise ValueError(
            f"{n_frames.sum(dtype=float):.3g} frames of {len(n_snippets)} videos would"
            f" take a score each, expected at most {_MAX_FRAMES}; snippet_length is the"
            f" number of frames that one snippet covers, got {snippet_length!r}"
        )
    n_frames = n_frames.astype(np.int64)
    sizes = np.diff(snippet_bounds(n_snippets, n_frames, lengths))
    sizes = np.split(sizes, np.cumsum(n_snippets)[:-1])
    return [np.repeat(*pair) for pair in zip(snippet_scores, sizes, strict=True)]


def _check_n_frames(n_frames, n_videos):
    counts = as_array(n_frames, "n_frames")
    if counts.shape != (n_videos,):
        raise ValueError(
            f"n_frames has shape {counts.shape}, expected one number for each of"
            f" {n_videos} videos (frames per snippet are snippet_length=)"
        )
    if counts.dtype.kind not in "iu" or (counts < 1).any():
        raise ValueError(f"n_frames must be whole numbers >= 1, got {n_frames!r}")
    return counts.astype(np.int64)


def uniform_rows(n_snippets, n_max):
    """Return the snippets that uniform sampling keeps of a bag.

    Parameters
    ----------
    n_snippets : int
    n_max : int or None
        Bags of at most `n_max` snippets keep them all, as with None; longer
        ones keep ``floor(linspace(0, n_snippets - 1, n_max))``.

    Returns
    -------
    rows : ndarray of int of shape (min(n_snippets, n_max),)

    Examples
    --------
    >>> from sklearn_vad.timeline import uniform_rows
    >>> uniform_rows(10, 4)
    array([0, 3, 6, 9])
    """
    if n_max is None or n_snippets <= n_max:
        return np.arange(n_snippets)
    return np.floor(np.linspace(0, n_snippets - 1, n_max)).astype(np.int64)


def _segment_bounds(n_snippets, n_segments):
    return np.arange(n_segments + 1) * n_snippets // n_segments


def pool_segments(bag, n_segments, pool="mean"):
    """Pool a bag into a fixed number of segments of (nearly) equal length.

    Segment i covers the snippets from ``floor(i n / n_segments)`` up to
    ``floor((i + 1) n / n_segments)``, end excluded; where that is nothing
    (fewer snippets than segments), it is its first snippet.

    Parameters
    ----------
    bag : ndarray of shape (n_snippets, ...)
    n_segments : int
    pool : {"mean", "max"}, default="mean"

    Returns
    -------
    segments : ndarray of shape (n_segments, ...)

    Raises
    ------
    ValueError
        For an unknown `pool`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_vad.timeline import pool_segments
    >>> pool_segments(np.arange(5.0)[:, None], 2).ravel()
    array([0.5, 3. ])
    """
    if pool not in ("mean", "max"):
        raise ValueError(f"pool must be 'mean' or 'max', got {pool!r}")
    if len(bag) == n_segments and np.asarray(bag).dtype.kind == "f":
        return bag  # features of segments already, each of one snippet
    bounds = _segment_bounds(len(bag), n_segments)
    starts, sizes = bounds[:-1], np.diff(bounds)
    # reduceat takes the single row at `start` where a segment is empty.
    if pool == "max":
        return np.maximum.reduceat(bag, starts)
    wide = np.add.reduceat(bag, starts, dtype=np.result_type(bag, np.float32))
    sizes = np.maximum(sizes, 1).reshape(-1, *[1] * (bag.ndim - 1))
    return (wide / sizes).astype(bag.dtype, copy=False)


def spread_segments(scores, n_snippets):
    """Give every snippet the score of its segment, the way back of `pool_segments`.

    Parameters
    ----------
    scores : ndarray of shape (n_segments,)
    n_snippets : int
        Of the bag. With fewer snippets than segments, a snippet gets the mean of
        the segments that show it.

    Returns
    -------
    snippet_scores : ndarray of shape (n_snippets,)

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_vad.timeline import spread_segments
    >>> spread_segments(np.array([0.5, 3.0]), 5)
    array([0.5, 0.5, 3. , 3. , 3. ])
    """
    bounds = _segment_bounds(n_snippets, len(scores))
    if n_snippets >= len(scores):
        return np.repeat(scores, np.diff(bounds))
    shown = np.bincount(bounds[:-1], minlength=n_snippets)
    total = np.bincount(bounds[:-1], weights=scores, minlength=n_snippets)
    return (total / shown).astype(scores.dtype)
