"""A detector trained on every crop of its videos, its scores averaged over crops.

What features of 5 or 10 crops are used for since TSN: a crop is a spatial view of
the same snippets, so it trains as a video of its own and votes for the snippet's
score.
"""

import copy

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils.validation import check_is_fitted

from .._engine import draw_seed
from .._onnx import OnnxMixin
from .._scores import SnippetScoresMixin
from .._storage import as_array
from .._tensor_file import check_state
from ..bags import (
    Bags,
    FrameLabels,
    check_bags,
    check_same_videos,
    check_video_labels,
)
from ..base import BaseAnomalyDetector
from ..online import push_together
from ..persistence import SaveMixin
from ..timeline import check_frame_counts


class _Crops:
    """Where every crop of every bag lies, as a bag of its own: a view, no copy.

    It answers as the storages do, see `_storage`. The crops of a bag follow each
    other.
    """

    def __init__(self, bags):
        self.bags = bags
        self.n_crops, *tail = bags.snippet_shape
        self.tail = tuple(tail)
        self.dtype = bags.dtype
        self.lengths = np.repeat(bags.lengths, self.n_crops)
        self._last = (None, None)

    def read(self, index, name):
        position, crop = divmod(int(index), self.n_crops)
        last = self._last  # scoring asks for the crops of a bag one after the other
        if last[0] != position:
            last = self._last = (position, self.bags[position])
        return last[1][:, crop]


def _separate_crops(bags):
    crops = _Crops(bags)
    return Bags(crops, np.arange(len(crops.lengths)))


def _repeat_for_crops(y, bags):
    return y[np.repeat(np.arange(len(bags)), bags.snippet_shape[0])]


def _of_estimator(name):
    return property(lambda self: getattr(self.estimator_, name))


class MultiCropDetector(
    OnnxMixin, SaveMixin, SnippetScoresMixin, MetaEstimatorMixin, BaseEstimator
):
    """Train a detector on every crop, and average its scores over the crops.

    Bags are ``(n_snippets, n_crops, n_features)``, and for detectors that take
    inner time steps also ``(n_snippets, n_crops, n_steps, n_features)``: axis 1
    is always crops. Every crop trains as a video of its own, with the label of
    the video; an epoch is `n_crops` times as long. The score of a snippet is the
    mean of the scores of its crops, and the video score is what the detector
    makes of these.

    Crops are views of the bags; nothing is copied. From files, and from bags
    that are transformed when they are read, training gets the whole bag for each
    crop: bags of many crops are faster from a store.

    Parameters
    ----------
    estimator : detector
        Any of this package. With its `validation_fraction`, all crops of a video
        are held out together.

    Attributes
    ----------
    estimator_ : detector
        The fitted clone.
    classes_ : ndarray of shape (2,)
        Normal and anomalous label.
    threshold_ : float
        Of video scores.
    n_features_in_ : int
        Features of a crop of a snippet.
    history_ : list of dict
        One per epoch; "valid_score" counts the crops of validation videos as
        videos.
    n_iter_ : int
        Epochs trained.
    best_epoch_ : int
        The epoch whose weights were kept, from 1.
    net_ : skorch.NeuralNet
        The trained net.

    See Also
    --------
    sklearn_vad.preprocessing.BagTransformer : Scales features of crops, too.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_vad import MILRankingAnomalyDetector, MultiCropDetector
    >>> from sklearn_vad.datasets import make_bags
    >>> bags, y = make_bags(n_bags=20, random_state=0)
    >>> crops = [np.stack([bag, bag[:, ::-1]], axis=1) for bag in bags]
    >>> crops[0].shape == (len(bags[0]), 2, 64)
    True
    >>> est = MultiCropDetector(MILRankingAnomalyDetector(max_epochs=2, random_state=0))
    >>> est.fit(crops, y).score_snippets(crops)[0].shape == (len(bags[0]),)
    True
    """

    _parameter_constraints = {"estimator": [BaseAnomalyDetector]}

    def __init__(self, estimator):
        self.estimator = estimator

    # Fitting --------------------------------------------------------------
    def fit(self, X, y, validation=None, checkpoint=None):
        """Train a clone of the detector on every crop.

        Parameters
        ----------
        X : Bags, sequence of arrays, object array or array
            Bags with crops on axis 1.
        y : array-like of shape (n_bags,) or FrameLabels
            Labels of the videos.
        validation : tuple (bags, y), default=None
            Held-out videos, with crops too.
        checkpoint : str or path-like, default=None
            Folder to keep the training in; see the detector's own `fit`.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError, TypeError
            For bags without crops, and as the detector's own `fit`.
        """
        self._validate_params()
        detector = self._detector_to_train(self.estimator.warm_start)
        detector._validate_params()
        bags = self._check_X(X, detector)
        check_same_videos(bags, y)
        y = check_video_labels(y, len(bags))
        validation = self._check_validation(validation, detector)
        detector._check_needs_validation(validation)
        fraction = detector.validation_fraction
        if fraction is not None:  # by video: its crops must not be on both sides
            seed = draw_seed(detector.random_state)
            bags, y, validation = detector._hold_out(bags, y, seed)
            detector.validation_fraction = None
        if validation is not None:
            held_out, labels = validation
            labels = _repeat_for_crops(labels, held_out)
            validation = _separate_crops(held_out), labels
        y = _repeat_for_crops(y, bags)
        detector.fit(_separate_crops(bags), y, validation, checkpoint)
        detector.validation_fraction = fraction
        self.estimator_ = detector
        return self

    def partial_fit(self, X, y, classes=None):
        """Train for `max_epochs` more, as the detector's own `partial_fit`.

        Parameters
        ----------
        X : Bags, sequence of arrays, object array or array
            Bags with crops on axis 1.
        y : array-like of shape (n_bags,) or FrameLabels
            One class is enough once `classes` are known.
        classes : array-like of shape (2,), default=None
            Both labels, the anomalous one larger.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError, TypeError
            As in `fit`, and for labels that are not among the classes.
        """
        self._validate_params()
        detector = self._detector_to_train(going_on=True)
        bags = self._check_X(X, detector)
        y = _repeat_for_crops(check_video_labels(y, len(bags)), bags)
        self.estimator_ = detector.partial_fit(_separate_crops(bags), y, classes)
        return self

    def _detector_to_train(self, going_on):
        """Return a new clone, or the fitted detector with parameters of today."""
        new = clone(self.estimator)
        if not (going_on and hasattr(self, "estimator_")):
            return new
        return copy.copy(self.estimator_).set_params(**new.get_params())

    # Saving, see `persistence` --------------------------------------------
    def _get_fitted_state(self):
        check_is_fitted(self)
        return {}, {}, {"estimator_": self.estimator_}

    def _set_fitted_state(self, values, tensors, parts):
        check_state("fitted attributes", {**values, **tensors}, {})
        check_state("parts", parts, {"estimator_": type(self.estimator)})
        self.estimator_ = parts["estimator_"]

    # ONNX, see `_onnx` ----------------------------------------------------
    def _on_cpu(self):
        check_is_fitted(self)
        twin = copy.copy(self)
        twin.estimator_ = self.estimator_._on_cpu()
        return twin

    # Checking -------------------------------------------------------------
    def _check_X(self, X, detector):
        """Return `X` as bags whose crops the detector can take."""
        bags = check_bags(X)
        n_axes, name = bags.bag_ndim, type(detector).__name__
        if n_axes == 2:
            raise ValueError(
                "bags have 2 axes, MultiCropDetector takes (n_snippets, n_crops,"
                f" n_features); without crops use {name} itself, and for the scores of"
                " one video pass [video]"
            )
        if n_axes - 1 not in detector._bag_ndims:
            axes = " or ".join(str(n + 1) for n in detector._bag_ndims)
            raise ValueError(
                f"bags have {n_axes} axes, MultiCropDetector of {name} takes {axes},"
                " crops on axis 1"
            )
        fitted = getattr(detector, "_bag_ndim", n_axes - 1) + 1
        if n_axes != fitted:
            raise ValueError(
                f"bags have {n_axes} axes, but MultiCropDetector was fitted on bags of"
                f" {fitted}; for the scores of one video pass [video]"
            )
        return bags

    def _check_validation(self, validation, detector):
        """Return validation data as (bags with crops, labels of the videos)."""
        if validation is None:
            return None
        if not isinstance(validation, (tuple, list)) or len(validation) != 2:
            raise TypeError("validation must be a pair (bags, y)")
        bags, y = self._check_X(validation[0], detector), validation[1]
        labels = check_video_labels(y, len(bags))
        if not isinstance(y, FrameLabels):
            return bags, labels
        check_frame_counts(bags.lengths, y.n_frames, y.snippet_length)
        return bags, y

    # Scoring --------------------------------------------------------------
    def score_snippets(self, X):
        """Score every snippet of every bag, by the mean over its crops.

        Parameters
        ----------
        X : Bags, sequence of arrays, object array or array
            Bags with crops on axis 1, of any number, also another than in `fit`.

        Returns
        -------
        scores : list of ndarray of shape (n_snippets_i,)
            In [0, 1]; higher is more anomalous.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError, TypeError
            For bags without crops, of a wrong kind, or unlike those of `fit`.
        """
        check_is_fitted(self)
        bags = self._check_X(X, self.estimator_)
        scores = self.estimator_._run(_separate_crops(bags), ["scores"])["scores"]
        n_crops = bags.snippet_shape[0]
        videos = (scores[i : i + n_crops] for i in range(0, len(scores), n_crops))
        means = (np.mean(crops, axis=0, dtype=np.float64) for crops in videos)
        return self.estimator_._lean([mean.astype(np.float32) for mean in means])

    def summary(self):
        """Describe the fitted network in a few lines of text.

        Returns
        -------
        text : str
            As the detector's own `summary`, after a line about the crops.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        """
        check_is_fitted(self)
        return f"MultiCropDetector: mean over crops of\n{self.estimator_.summary()}"

    def stream(self, state=None):
        """Return a stream that scores one video, snippet by snippet.

        Parameters
        ----------
        state : ndarray, default=None
            The `state` of an earlier stream, to go on from there.

        Returns
        -------
        stream : CropStream
            ``stream.push(snippet)`` takes the crops of a snippet, ``(n_crops,
            n_features)``, and returns the mean of their scores.

        Raises
        ------
        TypeError
            When the detector's scores need snippets of the future.
        """
        check_is_fitted(self)
        return CropStream(self.estimator_, state)

    def _video_scores(self, scores):
        return self.estimator_._video_scores(scores)

    classes_ = _of_estimator("classes_")
    threshold_ = _of_estimator("threshold_")
    n_features_in_ = _of_estimator("n_features_in_")
    history_ = _of_estimator("history_")
    n_iter_ = _of_estimator("n_iter_")
    best_epoch_ = _of_estimator("best_epoch_")
    net_ = _of_estimator("net_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags


class CropStream:
    """The score of one video of several crops, snippet by snippet.

    Made by ``MultiCropDetector.stream()``: one stream of the detector per crop,
    as many as the first snippet has.

    Parameters
    ----------
    estimator : fitted detector
    state : ndarray, default=None
        A `state` of an earlier stream, to go on from there.

    Attributes
    ----------
    state : ndarray or None
        The last snippet, with all its crops; None before the first.
    """

    def __init__(self, estimator, state=None):
        self._estimator = estimator
        self._shape = estimator.stream()._shape  # of a crop; raises if it can't
        self._streams = []
        if state is not None:
            self._streams = [
                estimator.stream(crop) for crop in self._check(state, "state")
            ]

    def _check(self, snippet, name):
        crops = as_array(snippet, name)
        n_crops = len(self._streams) or "n_crops"
        fine = crops.shape[1:] == self._shape and len(crops) > 0
        if not fine or n_crops not in ("n_crops", len(crops)):
            sizes = ", ".join(map(str, [n_crops, *self._shape]))
            raise ValueError(f"{name} has shape {crops.shape}, expected ({sizes})")
        return crops

    @property
    def state(self):
        if not self._streams:
            return None
        return np.stack([stream.state for stream in self._streams])

    def push(self, snippet):
        """Score the next snippet.

        Parameters
        ----------
        snippet : array-like of shape (n_crops, n_features) or \
                (n_crops, n_steps, n_features)

        Returns
        -------
        score : float
            In [0, 1], the mean over the crops.

        Raises
        ------
        ValueError, TypeError
            For a snippet unlike those of the bags of `fit`, or of another number of
            crops than the ones before; the stream stays as it was.
        """
        crops = self._check(snippet, "snippet")
        streams = self._streams or [self._estimator.stream() for _ in crops]
        score = float(np.mean(push_together(streams, crops)))
        self._streams = streams
        return score
