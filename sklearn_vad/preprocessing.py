"""Bag transformers: bags in, `Bags` out, for a `Pipeline` before a detector.

Bags in memory are transformed at once. Bags on disk (files, a store, or what a
transformer made of them) are transformed one by one, whenever they are read:
nothing is loaded at once, and every epoch computes anew. To compute once,
``transformer.transform(bags).save(path)`` and go on with `Bags.open`.

`SegmentPooling` and `UniformSampler` change what a snippet covers, so frame
labels need the new snippet length of each video. A detector behind
``SegmentPooling(32)`` gives 32 scores a video, and its frames are evaluated by::

    y = FrameLabels(masks, snippet_length=[len(mask) / 32 for mask in masks])

The detectors pool and sample by themselves for training (`n_segments`,
`max_snippets`) and score every snippet: then the labels stay as they are.
"""

import functools
import math
import re
from numbers import Integral

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils import get_tags
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from ._storage import apply, as_array, bag_name
from .bags import check_bags, map_bags, reads_as_rows, snippet_blocks
from .timeline import pool_segments, uniform_rows

__all__ = ["BagTransformer", "SegmentPooling", "SnippetNormalizer", "UniformSampler"]

_FLOATS = ["float64", "float32", "float16"]


class _BaseBagTransformer(TransformerMixin, BaseEstimator):
    """What all have in common: what goes in, and that it is what `fit` saw."""

    def _check_X(self, X, reset=False):
        """Return `X` as bags of as many features as in `fit`."""
        rows, name = reads_as_rows(X), type(self).__name__
        if rows and not reset and not getattr(self, "_fitted_on_rows", True):
            raise ValueError(
                f"X is 2-D, shape {np.shape(X)}, but {name} was fitted on longer bags;"
                " to transform one video pass [video]"
            )
        if rows:
            X = as_array(X, "X") if hasattr(X, "detach") else X
            X = validate_data(self, X, reset=reset, dtype=_FLOATS)
        bags = check_bags(X)
        if reset:
            self.n_features_in_ = bags.n_features
            self._fitted_on_rows = bool((bags.lengths == 1).all())
            if not rows and hasattr(self, "feature_names_in_"):
                del self.feature_names_in_
        elif bags.n_features != getattr(self, "n_features_in_", bags.n_features):
            raise ValueError(
                f"bag 0 has {bags.n_features} features, but {name} is expecting"
                f" {self.n_features_in_} features as input"
            )
        return bags


# --------------------------------------------------------------------------
# With something to learn
# --------------------------------------------------------------------------
def _transform_snippets(bag, transformer):
    """Give the snippets of a bag to a transformer as rows; leading axes stay."""
    # A copy, so that a transformer that works in place can't change the bags.
    rows = np.array(bag, dtype=np.result_type(bag, np.float32), order="C")
    rows = rows.reshape(-1, bag.shape[-1])
    out = transformer.transform(rows)
    out = np.asarray(out.toarray() if issparse(out) else out)
    if out.ndim != 2 or len(out) != len(rows):
        raise ValueError(
            f"{type(transformer).__name__} returned shape {out.shape} for {len(rows)}"
            f" snippets, expected ({len(rows)}, n_features): a row for each"
        )
    return out.reshape(*bag.shape[:-1], out.shape[1])


def _fit_on_snippets(transformer, bags):
    """Fit in place: in blocks where it can, else on all snippets together."""
    if not get_tags(transformer).requires_fit:
        transformer.fit(next(snippet_blocks(bags[:1])))
    elif not hasattr(transformer, "partial_fit"):
        transformer.fit(next(snippet_blocks(bags, least=math.inf)))
    else:
        for rows in snippet_blocks(bags):
            transformer.partial_fit(rows)


class BagTransformer(_BaseBagTransformer):
    """Fit any scikit-learn transformer on the snippets of all bags.

    Every snippet is a row; crops and inner time steps are rows too. A
    transformer with `partial_fit`, such as `StandardScaler` or
    `IncrementalPCA`, gets blocks of bags, one after the other and each once, so
    that there is never more than a block in memory. Any other gets all snippets
    stacked. `transform` sees one bag at a time.

    Parameters
    ----------
    transformer : scikit-learn transformer
        Unsupervised: snippets have no labels. It computes in float32, or in
        float64 where bags have it; sparse output is made dense.

    Attributes
    ----------
    transformer_ : scikit-learn transformer
        The fitted clone.
    n_features_in_ : int
        Features of a snippet.
    feature_names_in_ : ndarray of str
        Where `X` was a data frame of one-snippet bags.

    See Also
    --------
    SnippetNormalizer : Norm of 1 for every snippet, for bags of any axes.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn_vad import MILRankingAnomalyDetector
    >>> from sklearn_vad.datasets import make_bags
    >>> from sklearn_vad.preprocessing import BagTransformer
    >>> bags, y = make_bags(n_bags=20, random_state=0)
    >>> est = make_pipeline(
    ...     BagTransformer(StandardScaler()),
    ...     MILRankingAnomalyDetector(max_epochs=2, random_state=0),
    ... ).fit(bags, y)
    >>> est.predict(bags).shape
    (20,)
    """

    _parameter_constraints = {"transformer": [HasMethods(["fit", "transform"])]}

    def __init__(self, transformer):
        self.transformer = transformer

    def fit(self, X, y=None):
        """Fit a clone of the transformer.

        Parameters
        ----------
        X : Bags, sequence of arrays, object array or array
            The videos; see `sklearn_vad.Bags`.
        y : None
            Ignored.

        Returns
        -------
        self : object

        Raises
        ------
        TypeError
            For a transformer that needs labels.
        ValueError
            For bags of a wrong kind, or with too few snippets for the transformer.
        """
        self._validate_params()
        bags = self._check_X(X, reset=True)
        transformer = clone(self.transformer)
        try:
            _fit_on_snippets(transformer, bags)
        except (TypeError, ValueError) as error:
            if not re.search(r"\by\b", str(error)):
                raise
            raise TypeError(
                f"{type(transformer).__name__} needs labels, but snippets have none,"
                f" only videos have: take an unsupervised transformer ({error})"
            ) from error
        self.transformer_ = transformer
        return self

    def transform(self, X):
        """Transform the snippets of every bag.

        Parameters
        ----------
        X : Bags, sequence of arrays, object array or array

        Returns
        -------
        bags : Bags
            As long as those of `X`; lazy where `X` lies on disk.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError
            For bags unlike those of `fit`, and, when a bag is read, for a result
            that is not finite or has not a row for each snippet.
        """
        check_is_fitted(self)
        bags = self._check_X(X)
        function = functools.partial(_transform_snippets, transformer=self.transformer_)
        # Only the transformer knows the width of what it returns, and its type.
        first = apply(function, bags[0], bag_name(0, bags.ids))
        return map_bags(
            bags, function, snippet_shape=first.shape[1:], dtype=first.dtype
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        if hasattr(self.transformer, "__sklearn_tags__"):
            inner = get_tags(self.transformer)
            kept = getattr(inner.transformer_tags, "preserves_dtype", [])
            kept = [dtype for dtype in kept if dtype != "float16"]
            tags.transformer_tags.preserves_dtype = kept
            tags.non_deterministic = inner.non_deterministic
        return tags


# --------------------------------------------------------------------------
# With nothing to learn
# --------------------------------------------------------------------------
class _StatelessBagTransformer(_BaseBagTransformer):
    """A transformer that may do without `fit`; a subclass defines `_map`."""

    def fit(self, X, y=None):
        """Check parameters and bags; there is nothing to learn.

        Parameters
        ----------
        X : Bags, sequence of arrays, object array or array
            The videos; see `sklearn_vad.Bags`.
        y : None
            Ignored.

        Returns
        -------
        self : object
        """
        self._validate_params()
        self._check_X(X, reset=True)
        return self

    def transform(self, X):
        """Transform every bag.

        Parameters
        ----------
        X : Bags, sequence of arrays, object array or array

        Returns
        -------
        bags : Bags
            Of the same dtype; lazy where `X` lies on disk.

        Raises
        ------
        ValueError, TypeError
            For input of a wrong kind, or unlike that of `fit`.
        """
        self._validate_params()
        return self._map(self._check_X(X))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.transformer_tags.preserves_dtype = list(_FLOATS)
        return tags


class SegmentPooling(_StatelessBagTransformer):
    """Pool every bag into the same number of segments.

    Segments are runs of snippets, equally long up to rounding; in a bag of fewer
    snippets, neighbouring segments show the same snippet. A detector then scores
    segments, each of ``n_frames / n_segments`` frames: frame labels say so by
    ``FrameLabels(masks, snippet_length=[len(mask) / n_segments for mask in masks])``.

    Parameters
    ----------
    n_segments : int, default=32
        Snippets of every bag that comes out.
    pool : {"mean", "max"}, default="mean"
        What a segment is of its snippets.

    Attributes
    ----------
    n_features_in_ : int
        Features of a snippet, after `fit`.
    feature_names_in_ : ndarray of str
        Where `X` of `fit` was a data frame of one-snippet bags.

    See Also
    --------
    sklearn_vad.timeline.pool_segments : The same for one bag.
    MILRankingAnomalyDetector : Its `n_segments` pools for training only.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_vad.preprocessing import SegmentPooling
    >>> segments = SegmentPooling(2).transform([np.arange(5.0)[:, None]])
    >>> segments[0].ravel()
    array([0.5, 3. ])
    """

    _parameter_constraints = {
        "n_segments": [Interval(Integral, 1, None, closed="left")],
        "pool": [StrOptions({"mean", "max"})],
    }

    def __init__(self, n_segments=32, pool="mean"):
        self.n_segments = n_segments
        self.pool = pool

    def _map(self, bags):
        function = functools.partial(
            pool_segments, n_segments=self.n_segments, pool=self.pool
        )
        return map_bags(bags, function, np.full(len(bags), self.n_segments))


class UniformSampler(_StatelessBagTransformer):
    """Keep evenly spaced snippets of bags that are longer.

    Shorter bags stay as they are. A detector then scores the snippets that were
    kept; those of a longer bag stand for ``n_frames / n_snippets`` frames each,
    and frame labels have to say so.

    Parameters
    ----------
    n_snippets : int, default=200
        Snippets to keep, at most.

    Attributes
    ----------
    n_features_in_ : int
        Features of a snippet, after `fit`.
    feature_names_in_ : ndarray of str
        Where `X` of `fit` was a data frame of one-snippet bags.

    See Also
    --------
    sklearn_vad.timeline.uniform_rows : Which snippets are kept.
    DDLAnomalyDetector : Its `max_snippets` samples for training only.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_vad.preprocessing import UniformSampler
    >>> video = np.arange(10.0)[:, None]
    >>> UniformSampler(4).transform([video])[0].ravel()
    array([0., 3., 6., 9.])

    Frame labels of 16-frame snippets, after sampling:

    >>> from sklearn_vad import FrameLabels
    >>> masks = [np.zeros(160), np.zeros(48)]
    >>> FrameLabels(masks, [max(16, len(mask) / 4) for mask in masks]).snippet_length
    array([40., 16.])
    """

    _parameter_constraints = {
        "n_snippets": [Interval(Integral, 1, None, closed="left")]
    }

    def __init__(self, n_snippets=200):
        self.n_snippets = n_snippets

    def _map(self, bags):
        function = functools.partial(_sample, n_snippets=self.n_snippets)
        return map_bags(bags, function, np.minimum(bags.lengths, self.n_snippets))


def _sample(bag, n_snippets):
    return bag[uniform_rows(len(bag), n_snippets)]


class SnippetNormalizer(_StatelessBagTransformer):
    """Divide every snippet by its norm, over its features.

    Crops and inner time steps are divided each by its own norm. A row of zeros
    stays as it is.

    Parameters
    ----------
    norm : {"l2", "l1", "max"}, default="l2"
        "max" is the largest magnitude.

    Attributes
    ----------
    n_features_in_ : int
        Features of a snippet, after `fit`.
    feature_names_in_ : ndarray of str
        Where `X` of `fit` was a data frame of one-snippet bags.

    See Also
    --------
    BagTransformer : Any scikit-learn transformer.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_vad.preprocessing import SnippetNormalizer
    >>> SnippetNormalizer().transform([np.array([[3.0, 4.0], [0.0, 0.0]])])[0]
    array([[0.6, 0.8], [0. , 0. ]])
    """

    _parameter_constraints = {"norm": [StrOptions({"l2", "l1", "max"})]}

    def __init__(self, norm="l2"):
        self.norm = norm

    def _map(self, bags):
        return map_bags(bags, functools.partial(_normalize, norm=self.norm))


def _normalize(bag, norm):
    wide = bag.astype(np.float64)  # squares of float16 overflow from 256 on
    order = {"l2": 2, "l1": 1, "max": np.inf}[norm]
    norms = np.linalg.norm(wide, order, axis=-1, keepdims=True)
    return (wide / np.where(norms == 0, 1, norms)).astype(bag.dtype)
