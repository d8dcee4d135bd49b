"""Several detectors, each from several seeds, that vote for the score of a snippet.

Detectors trained on video labels alone differ much between seeds, and so do the
scales of their scores: the mean is of what a score means among the snippets of
the training, not of the scores themselves.
"""

from numbers import Integral, Real

import numpy as np
import torch
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.ensemble import VotingClassifier
from sklearn.pipeline import _name_estimators
from sklearn.utils._param_validation import Interval
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.validation import check_is_fitted, validate_data

from .._engine import draw_seed
from .._levels import N_QUANTILES, balance_threshold, find_quantiles, to_levels
from .._progress import tqdm
from .._scores import SnippetScoresMixin
from .._storage import as_array
from .._tensor_file import check_state, check_tensors
from ..bags import check_bags, check_same_videos, check_video_labels, reads_as_rows
from ..base import _all_or_nothing
from ..persistence import SaveMixin

# What `fit` leaves, beside the members, their scales and their weights.
_FITTED = {
    "classes_": np.ndarray,
    "threshold_": Real,
    "n_features_in_": Integral,
    "feature_names_in_": np.ndarray,
}


def _make_member(estimator, seed, keep_seed):
    """Return a clone with a seed, and with a number of threads.

    Sums of another number of threads round differently, and how many torch takes
    by itself depends on the process: so it is one where it is not given.
    """
    member, params = clone(estimator), {}
    for name, value in member.get_params().items():
        kind = name.rpartition("__")[2]  # that of a MultiCropDetector is nested
        if kind == "random_state" and (value is None or not keep_seed):
            params[name] = seed
        elif kind == "n_jobs" and value is None:
            params[name] = 1
    return member.set_params(**params)


def _is_detector(value):
    return hasattr(value, "score_snippets") and not isinstance(value, type)


def _fit_member(member, X, *fit_params):
    return member.fit(X, *fit_params), member.score_snippets(X)


class EnsembleAnomalyDetector(SaveMixin, SnippetScoresMixin, _BaseComposition):
    """Average the snippet scores of several detectors, and of several seeds each.

    Scores of one detector may hover at 0.02 and those of another use all of
    [0, 1]; in a plain mean the latter alone would decide. So each member's score
    is replaced by its level, the share of the training snippets that the member
    scores below it, and the ensemble's score is the weighted mean of the levels.
    A level says how rare a score is, and is no probability: 0.5 is that of a
    median snippet. What a member does with its scores that keeps their order has
    hardly an effect; in turn a member whose scores differ by rounding alone
    counts as much as any, unless `weights` say otherwise. The video score is the
    maximum of the snippet scores, whatever it is in the members.

    Parameters
    ----------
    estimators : list of (str, detector) or list of detector
        Of this package, unfitted. The names are for `set_params` and grids, as
        in ``ddl__lr``; without, they are those of the classes in lower case.
    n_seeds : int, default=1
        How often each of them is fitted, from another seed each time.
    weights : sequence of float of shape (n_estimators,), default=None
        What the mean gives to each of `estimators`, shared by its seeds; None
        means the same for all.
    video_weight : float, default=0.0
        The w in ``(s + w * V) / (1 + w)``, the score of a snippet whose mean
        level is s, in a video whose highest is V. 0 leaves the video out.
    n_jobs : int, default=None
        Members to fit, and to score with, at a time; None means 1, or what
        `joblib.parallel_config` says. A member whose own `n_jobs` is None takes
        one thread, so that the bits are the same whatever `n_jobs`.
    random_state : int, RandomState, Generator or None, default=None
        Source of the members' seeds. With ``n_seeds=1`` a member that has its
        own `random_state` keeps it; with more, it is replaced. A seed depends on
        the place in `estimators` and on the repetition only.
    verbose : int, default=0
        1 shows a progress bar over the members.

    Attributes
    ----------
    estimators_ : list of detector
        The fitted members: all seeds of the first, then of the second.
    quantiles_ : ndarray of shape (n_members, 1001)
        Quantiles of the members' scores of the training snippets, float32.
    weights_ : ndarray of shape (n_members,)
        They add up to 1.
    threshold_ : float
        Of video scores: where, on the videos of the training, sensitivity and
        specificity are nearest. The members knew these videos, so it suits new
        ones less; `sklearn_vad.postprocessing.tune_threshold` sets a better one
        by validation videos.
    classes_ : ndarray of shape (2,)
        Normal and anomalous label.
    n_features_in_ : int
        Features of a snippet.

    See Also
    --------
    MultiCropDetector : Averages over the crops of a video; may be a member.

    Examples
    --------
    >>> from sklearn_vad import DDLAnomalyDetector, EnsembleAnomalyDetector
    >>> from sklearn_vad import MILRankingAnomalyDetector
    >>> from sklearn_vad.datasets import make_bags
    >>> bags, y = make_bags(n_bags=20, random_state=0)
    >>> pairs = [("ddl", DDLAnomalyDetector()), ("mil", MILRankingAnomalyDetector())]
    >>> est = EnsembleAnomalyDetector(pairs, n_seeds=2, weights=[1, 2], random_state=0)
    >>> est = est.set_params(ddl__max_epochs=2, mil__max_epochs=2).fit(bags, y)
    >>> len(est.estimators_), est.weights_.round(3)
    (4, array([0.167, 0.167, 0.333, 0.333]))
    >>> est.score_snippets(bags)[0].shape == (len(bags[0]),)
    True
    """

    _parameter_constraints = {
        "estimators": [list, tuple],
        "n_seeds": [Interval(Integral, 1, None, closed="left")],
        "weights": ["array-like", None],
        "video_weight": [Interval(Real, 0, None, closed="left")],
        "n_jobs": [Integral, None],
        "random_state": ["random_state", np.random.Generator],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        estimators,
        *,
        n_seeds=1,
        weights=None,
        video_weight=0.0,
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.estimators = estimators
        self.n_seeds = n_seeds
        self.weights = weights
        self.video_weight = video_weight
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    # Parameters -----------------------------------------------------------
    @property
    def _named(self):
        """`estimators` as (name, detector) pairs; what is wrong is left as it is."""
        items = self.estimators
        plain = isinstance(items, (list, tuple)) and all(map(_is_detector, items))
        return _name_estimators(items) if plain else items

    def get_params(self, deep=True):
        """Return the parameters, those of the named detectors too.

        Parameters
        ----------
        deep : bool, default=True
            Whether to add each detector by its name, and its parameters.

        Returns
        -------
        params : dict
        """
        return {**self._get_params("_named", deep), "estimators": self.estimators}

    def set_params(self, **params):
        """Set parameters, also those of a detector, or a detector by its name.

        Parameters
        ----------
        **params : dict
            Such as ``n_seeds=3``, ``ddl__lr=1e-3`` or ``ddl=detector``.

        Returns
        -------
        self : object
        """
        if "estimators" in params:  # before the names that are in it
            self.estimators = params.pop("estimators")
        if set(params) - set(self._get_param_names()):
            self.estimators = self._named
        return self._set_params("estimators", **params)

    def _sk_visual_block_(self):
        """Show the members side by side in notebooks, as scikit-learn's ensembles."""
        return VotingClassifier(self._named)._sk_visual_block_()

    def _check_estimators(self):
        """Return the detectors, without their names."""
        if not self.estimators:
            raise ValueError("estimators are empty: expected one or more detectors")
        pairs = self._named
        for i, pair in enumerate(pairs):
            fine = isinstance(pair, (list, tuple)) and len(pair) == 2
            if not fine or not _is_detector(pair[1]):
                raise TypeError(
                    f"estimators[{i}] is {pair!r}: expected a detector or (name,"
                    " detector); a Pipeline goes around the ensemble, not into it"
                )
        names, detectors = zip(*pairs, strict=True)
        self._validate_names(names)
        return detectors

    def _check_weights(self, n_estimators):
        """Return the weights of all members."""
        weights = [1] * n_estimators if self.weights is None else self.weights
        weights = np.asarray(weights, dtype=np.float64)
        if weights.shape != (n_estimators,):
            raise ValueError(
                f"weights have shape {weights.shape} for {n_estimators} estimators,"
                f" expected ({n_estimators},): one each, shared by its seeds"
            )
        if not (np.isfinite(weights) & (weights >= 0)).all() or not weights.any():
            rule = "finite and 0 or more, one of them positive"
            raise ValueError(f"weights must be {rule}, got {self.weights}")
        return np.repeat(weights / weights.sum() / self.n_seeds, self.n_seeds)

    def _check_X(self, X, reset=False):
        """Return `X` as bags, or as rows, which the members read by themselves."""
        if not reads_as_rows(X):
            if reset and hasattr(self, "feature_names_in_"):
                del self.feature_names_in_
            return check_bags(X)
        X = as_array(X, "X") if hasattr(X, "detach") else X
        return validate_data(self, X, reset=reset, dtype=[np.float64, np.float32])

    # Fitting --------------------------------------------------------------
    @_all_or_nothing
    def fit(self, X, y, validation=None, checkpoint=None):
        """Fit every member, and learn the scale of its scores.

        Parameters
        ----------
        X : Bags, sequence of arrays, object array or array
            The videos; see `sklearn_vad.Bags`.
        y : array-like of shape (n_bags,) or FrameLabels
            Two classes; the larger one (``classes_[1]``) is anomalous. Of
            `FrameLabels`, the members see the video labels only.
        validation : tuple (bags, y), default=None
            Held-out videos; every member keeps the weights of its best epoch.
        checkpoint : str or path-like, default=None
            Folder to keep the members' trainings in; see the detectors' own `fit`.
            It needs a `random_state`, or the seeds would be others the next time.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError, TypeError
            For bad `estimators` or `weights`, and as in `fit` of the detectors.
        """
        self._validate_params()
        detectors = self._check_estimators()
        weights = self._check_weights(len(detectors))
        X = self._check_X(X, reset=True)
        check_same_videos(X, y)
        y = check_video_labels(y, len(X))
        classes = self._check_classes(y)
        members = self._make_members(detectors)
        given = (y, validation, checkpoint)
        calls = (delayed(_fit_member)(each, X, *given) for each in members)
        members, scores = zip(*self._run(calls, len(weights), "fitting"), strict=True)
        self.estimators_ = list(members)
        self.weights_ = weights
        self.quantiles_ = np.stack([find_quantiles(np.concatenate(s)) for s in scores])
        self.classes_ = classes
        self.n_features_in_ = members[0].n_features_in_
        videos = self._video_scores(self._combine(scores))
        self.threshold_ = balance_threshold(videos, y == classes[1])
        return self

    def _make_members(self, detectors):
        seed = draw_seed(self.random_state)
        for place, detector in enumerate(detectors):
            for repetition in range(self.n_seeds):
                source = np.random.SeedSequence(seed, spawn_key=(place, repetition))
                own = int(source.generate_state(1)[0] >> 1)
                yield _make_member(detector, own, keep_seed=self.n_seeds == 1)

    def _run(self, calls, n_calls, what):
        """Return the results of calls in their order, with a bar if wanted."""
        if not self.verbose:  # not each backend hands out results one by one
            return Parallel(n_jobs=self.n_jobs)(calls)
        results = Parallel(n_jobs=self.n_jobs, return_as="generator")(calls)
        return list(tqdm(results, what, n_calls, unit="member"))

    # Saving, see `persistence` --------------------------------------------
    def _get_fitted_state(self):
        check_is_fitted(self)
        values = {name: getattr(self, name) for name in _FITTED if hasattr(self, name)}
        tensors = {
            "quantiles_": torch.from_numpy(np.array(self.quantiles_, np.float32)),
            "weights_": torch.from_numpy(np.array(self.weights_, np.float64)),
        }
        parts = {f"estimators_[{i}]": est for i, est in enumerate(self.estimators_)}
        clone(self)._set_fitted_state(values, tensors, parts)  # raises where load would
        return values, tensors, parts

    def _set_fitted_state(self, values, tensors, parts):
        check_state("fitted attributes", values, _FITTED, ["feature_names_in_"])
        if values["classes_"].shape != (2,):
            raise ValueError(f"classes_ are {values['classes_']}, expected two")
        members = self._check_members(parts, values["n_features_in_"])
        quantiles = torch.empty(len(members), N_QUANTILES, dtype=torch.float32)
        weights = torch.empty(len(members), dtype=torch.float64)
        check_tensors(tensors, {"quantiles_": quantiles, "weights_": weights})
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        if (np.diff(arrays["quantiles_"], prepend=0, append=1) < 0).any():
            raise ValueError("quantiles_ must rise from 0 or more to 1 or less")
        weights = arrays["weights_"]
        if (weights < 0).any() or not np.isclose(weights.sum(), 1):
            raise ValueError(f"weights_ are {weights}, expected shares of 1")
        vars(self).update(values, **arrays, estimators_=members)

    def _check_members(self, parts, n_features):
        """Return fitted members, if they are those that the parameters ask for."""
        detectors, n = self._check_estimators(), self.n_seeds
        if len(parts) != n * len(detectors):
            raise ValueError(f"{len(parts)} members, expected {n * len(detectors)}")
        names = [f"estimators_[{i}]" for i in range(len(parts))]
        types = {name: type(detectors[i // n]) for i, name in enumerate(names)}
        check_state("parts", parts, types)
        for name, member in parts.items():
            if member.n_features_in_ != n_features:
                raise ValueError(f"{name} takes other than {n_features} features")
        return [parts[name] for name in names]

    # Scoring --------------------------------------------------------------
    def score_snippets(self, X):
        """Score every snippet of every bag, by the mean of the members' levels.

        Parameters
        ----------
        X : Bags, sequence of arrays, object array or array

        Returns
        -------
        scores : list of ndarray of shape (n_snippets_i,)
            In [0, 1], float64; higher is more anomalous.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError, TypeError
            For input of a wrong kind, or unlike that of `fit`.
        """
        check_is_fitted(self)
        X = self._check_X(X)
        calls = (delayed(member.score_snippets)(X) for member in self.estimators_)
        return self._combine(self._run(calls, len(self.estimators_), "scoring"))

    def _combine(self, scores):
        """Return the ensemble's scores, given those of each member."""
        scales = zip(scores, self.quantiles_, self.weights_, strict=True)
        mean = sum(w * to_levels(np.concatenate(own), q) for own, q, w in scales)
        mean = np.minimum(mean, 1)  # weights add up to 1 but for rounding
        ends = np.cumsum([len(video) for video in scores[0]])
        w = self.video_weight
        return [(s + w * s.max()) / (1 + w) for s in np.split(mean, ends[:-1])]

    def summary(self):
        """Describe the fitted members in a line each.

        Returns
        -------
        text : str
            Of each member its weight, features, parameters and epochs. Its layers are
            in its own summary, ``est.estimators_[i].summary()``.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        """
        check_is_fitted(self)
        lines = [f"EnsembleAnomalyDetector: {len(self.estimators_)} members"]
        pairs = zip(self.weights_, self.estimators_, strict=True)
        for i, (weight, member) in enumerate(pairs):
            own = member.summary().splitlines()
            title = " ".join(line for line in own if ": " in line)
            lines.append(f"{i}  weight {weight:.3f}  {title}")
        return "\n".join(lines)

    def to_onnx(self, path):
        """Raise TypeError: members are exported one by one.

        Parameters
        ----------
        path : str or path-like
        """
        raise TypeError(
            "EnsembleAnomalyDetector can't be one ONNX graph: export its members,"
            " est.estimators_[i].to_onnx(path), and take the mean of the levels of"
            " their scores (quantiles_) by weights_"
        )

    def stream(self, state=None):
        """Raise TypeError: an ensemble scores whole videos only.

        Parameters
        ----------
        state : ndarray, default=None
        """
        raise TypeError(
            "EnsembleAnomalyDetector can't score a stream: members may look at later"
            " snippets; stream one of estimators_ alone"
        )
