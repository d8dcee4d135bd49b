"""Which videos belong together, so that no split puts them on both sides."""

import hashlib
import re
from numbers import Real

import numpy as np
from scipy.cluster.hierarchy import DisjointSet
from scipy.fft import dct
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.neighbors import radius_neighbors_graph
from sklearn.utils._param_validation import Interval, validate_params

from .._progress import tqdm
from .._storage import as_array, as_list
from ..bags import check_bags

_N_SIGNATURE = 64
# Signatures misjudge a squared distance by about 0.18 of it. Of 700 000 random ones,
# for differences of all kinds, none was more than 2.6 times too large, so that pairs
# within 4 times the tolerance leave out no close one.
_SLACK = 4.0
# XD-Violence: "<film>__#<from>_<to>_label_..."; crops: "<video>__3".
_SOURCE = r"(.+?)(?:__#.*|__[0-9]+)?"


@validate_params(
    {
        "bags": "no_validation",
        "tolerance": [Interval(Real, 0, 0.5, closed="left")],
        "progress": ["boolean"],
    },
    prefer_skip_nested_validation=True,
)
def find_duplicates(bags, *, tolerance=0.0, progress=False):
    """Group bags that hold the same features.

    Benchmarks have videos twice under different names. The groups are made for
    ``groups=`` of scikit-learn's splitters, which keep each of them on one side.

    Parameters
    ----------
    bags : Bags, or anything that detectors take
        Bags of any number of axes; crops are compared as they come. One bag is
        read at a time, and only where another one has as many snippets.
    tolerance : float, default=0.0
        0 finds bags that are equal byte by byte, in the dtype of `bags`. A
        larger value, below 0.5, also finds those of as many snippets whose
        cosine distance, all features in one vector, is at most this: the same
        video after another compression, for instance. Bags of all zeros are
        equal to each other only.
    progress : bool, default=False
        Whether to show a progress bar.

    Returns
    -------
    groups : ndarray of int of shape (n_bags,)
        Equal numbers for equal bags, in the order in which they first occur.
        With a tolerance, two bags that are each close to a third are in one
        group.

    See Also
    --------
    source_groups : Videos of one source, by name.
    merge_groups : Both kinds of groups at once.

    Notes
    -----
    With a tolerance, not all pairs are compared in full, but the signatures of
    all bags of equal length: 64 entries, picked at random, of the cosine
    transform of the features with random signs. Pairs whose signatures are
    within four times the tolerance are then compared in full. That misses a
    pair with a probability below one in a million; the random numbers are the
    same in every call.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_vad.datasets import find_duplicates
    >>> video, other = np.eye(3), np.ones((3, 3))
    >>> find_duplicates([video, other, video.copy(), video + 1e-3])
    array([0, 1, 0, 2])
    >>> find_duplicates([video, other, video.copy(), video + 1e-3], tolerance=0.01)
    array([0, 1, 0, 0])
    """
    bags = check_bags(bags)
    first = _first_equal(bags, progress)
    pairs = [(i, j) for i, j in enumerate(first.tolist()) if i != j]
    if tolerance > 0:
        distinct = np.flatnonzero(first == np.arange(len(bags)))
        buckets = list(_buckets(bags.lengths, distinct))
        total = sum(map(len, buckets))
        with tqdm(total=total, desc="comparing", disable=not progress) as bar:
            for bucket in buckets:
                pairs += _close_pairs(bags, bucket, tolerance, bar)
    return _components(pairs, len(bags), len(bags))


def _buckets(lengths, members):
    """Yield the members of equal length, where there are two or more."""
    for length in np.unique(lengths[members]):
        bucket = members[lengths[members] == length]
        if len(bucket) > 1:
            yield bucket


def _first_equal(bags, progress):
    """Return, for each bag, the first one with the same bytes."""
    first = np.arange(len(bags))
    buckets = list(_buckets(bags.lengths, first))
    total = sum(map(len, buckets))
    with tqdm(total=total, desc="hashing", disable=not progress) as bar:
        for bucket in buckets:
            known = {}
            for i in bucket.tolist():
                first[i] = known.setdefault(_digest(bags[i], bags.dtype), i)
                bar.update()
    return first


def _digest(bag, dtype):
    flat = np.ascontiguousarray(bag, dtype=dtype).reshape(-1)
    return hashlib.blake2b(flat.view(np.uint8), digest_size=16).digest()


def _close_pairs(bags, bucket, tolerance, bar):
    """Return enough pairs of close bags to join all that are close.

    Parameters
    ----------
    bags : Bags
    bucket : ndarray of int
        Bags of equal length.
    tolerance : float
    bar : tqdm

    Returns
    -------
    pairs : list of (int, int)
    """
    size = int(np.prod(bags[bucket[0]].shape))
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], size)
    picks = rng.choice(size, min(_N_SIGNATURE, size), replace=False)
    signatures = np.empty((len(bucket), len(picks)))
    for row, i in enumerate(bucket):
        spread = dct(signs * _unit(bags[i]), norm="ortho")[picks]
        signatures[row] = np.sqrt(size / len(picks)) * spread
        bar.update()
    # |a - b|^2 = 2 (cosine distance) of unit vectors; 1e-6 is for rounding.
    radius = np.sqrt(2 * tolerance * _SLACK) + 1e-6
    candidates = radius_neighbors_graph(signatures, radius)
    return _verify(bags, bucket, candidates, tolerance)


def _verify(bags, bucket, candidates, tolerance):
    """Compare candidates in full, unless they are joined by others already."""
    joined, pairs = DisjointSet(range(len(bucket))), []
    for a in range(len(bucket)):
        neighbors = candidates.indices[slice(*candidates.indptr[a : a + 2])]
        one = None
        for b in neighbors[neighbors > a].tolist():
            if joined.connected(a, b):
                continue
            one = _unit(bags[bucket[a]]) if one is None else one
            gap = one - _unit(bags[bucket[b]])
            if gap @ gap <= 2 * tolerance:
                joined.merge(a, b)
                pairs.append((bucket[a], bucket[b]))
    return pairs


def _unit(bag):
    """Return all features of a bag as one vector of length 1; zeros stay zeros."""
    flat = np.asarray(bag, dtype=np.float64).ravel()
    return flat / max(np.linalg.norm(flat), np.finfo(float).tiny)


# --------------------------------------------------------------------------
# Groups
# --------------------------------------------------------------------------
def source_groups(ids, pattern=_SOURCE):
    r"""Group videos that were cut from one source, by their names.

    Parameters
    ----------
    ids : Bags or sequence of str
        Names of the videos.
    pattern : str, default=r"(.+?)(?:__#.*|__[0-9]+)?"
        Regular expression that a name has to match as a whole. Names are of one
        source when its first group is equal, or the whole match where it has
        none. The default takes what stands before ``__#``, the film or stream
        of XD-Violence, and leaves out the number of a crop (``__3``). For the
        cameras of ShanghaiTech: ``r"([0-9]+)_[0-9]+"``.

    Returns
    -------
    groups : ndarray of int of shape (n_videos,)
        Equal numbers for one source, in the order in which they first occur.

    Raises
    ------
    ValueError
        When a name does not match; the message has it. For a pattern that is none.

    Examples
    --------
    >>> from sklearn_vad.datasets import source_groups
    >>> source_groups(["Heat__#00-01_label_A", "Abuse028_x264", "Heat__#07-09_label_G"])
    array([0, 1, 0])
    """
    ids = getattr(ids, "ids", ids)
    names = as_list(ids, "ids", "bags with ids, or a list with one id per video")
    if not isinstance(getattr(pattern, "pattern", pattern), str):
        raise TypeError(f"pattern is {pattern!r}, expected a regular expression")
    try:
        pattern = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern=} is no regular expression: {error}") from error
    return merge_groups([_source(i, name, pattern) for i, name in enumerate(names)])


def _source(index, name, pattern):
    if not isinstance(name, str):
        raise TypeError(f"id {index} has type {type(name).__name__}, expected a text")
    match = pattern.fullmatch(name)
    source = match and match[min(1, match.re.groups)]
    if source is None:
        raise ValueError(
            f"video {index} (id {str(name)!r}) does not match the pattern"
            f" {pattern.pattern!r},"
            " expected one that tells the source of every name"
        )
    return source


def merge_groups(*groups):
    """Join videos that are together in any of several groupings.

    Being together carries over: when the first grouping joins a and b, and the
    second b and c, all three are one group.

    Parameters
    ----------
    *groups : array-like of int or str of shape (n_videos,)
        Groupings of the same videos.

    Returns
    -------
    groups : ndarray of int of shape (n_videos,)
        Numbers from 0, in the order in which groups first occur.

    Raises
    ------
    ValueError
        Without groupings, or when they differ in length.

    Examples
    --------
    >>> from sklearn_vad.datasets import merge_groups
    >>> merge_groups([0, 0, 1, 2], ["a", "b", "b", "c"])
    array([0, 0, 0, 1])
    """
    if not groups:
        raise ValueError("no groups: expected one grouping or more")
    n, n_nodes, pairs = len(groups[0]), len(groups[0]), []
    for number, values in enumerate(groups):
        values = _check_groups(values, number, n)
        names, codes = np.unique(values, return_inverse=True)
        pairs += enumerate((n_nodes + codes).tolist())  # a video and its group
        n_nodes += len(names)
    return _components(pairs, n_nodes, n)


def _check_groups(values, number, n_videos):
    values = as_array(values, f"grouping {number}")
    if values.shape != (n_videos,):
        raise ValueError(
            f"grouping {number} has shape {values.shape}, expected one number or text"
            f" for each of {n_videos} videos"
        )
    if n_videos and values.dtype.kind not in "biuU":
        raise TypeError(
            f"grouping {number} has dtype {values.dtype}, expected whole numbers or"
            " texts"
        )
    return values


def _components(pairs, n_nodes, n_videos):
    """Number the connected parts of a graph by the first video in each."""
    rows, columns = np.array(pairs, dtype=int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(n_nodes, n_nodes))
    _, labels = connected_components(graph, directed=False)
    _, first, codes = np.unique(
        labels[:n_videos], return_index=True, return_inverse=True
    )
    return np.argsort(np.argsort(first))[codes]
