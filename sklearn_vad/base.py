"""The one base class: everything that detectors have in common, and no maths.

A bag's way through it: `fit` checks what came in, `_engine.train` trains the
module on padded batches, `_scoring.run_bags` runs it on whole bags, `score_frames`
spreads the scores over frames. A detector adds its parameters, its module, its
loss and what its training sees of a bag.
"""

import copy
import functools
import math
import warnings
from abc import ABCMeta, abstractmethod
from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from . import _engine
from ._batching import TrainingBatches
from ._checkpoint import Checkpoint, key_of
from ._onnx import OnnxMixin
from ._scores import SnippetScoresMixin
from ._scoring import run_bags
from ._storage import as_array, bag_name
from ._summary import describe_network
from ._tensor_file import check_state
from .bags import (
    FrameLabels,
    check_bags,
    check_same_videos,
    check_video_labels,
    reads_as_rows,
    sample_snippets,
    snippet_blocks,
)
from .metrics import (
    balanced_frame_roc_auc_score,
    frame_average_precision_score,
    frame_roc_auc_score,
)
from .online import SnippetStream
from .persistence import SaveMixin
from .timeline import check_frame_counts

# Snippets that principal components are learned from, at most: of 4096 features
# 320 MiB of float32, and ten times as many rows as a few hundred components need.
_PCA_ROWS = 20_000
_VIDEO_SCORES = {"roc_auc": roc_auc_score, "average_precision": average_precision_score}
_FRAME_SCORES = {
    "balanced_frame_roc_auc": balanced_frame_roc_auc_score,
    "frame_roc_auc": frame_roc_auc_score,
    "frame_average_precision": frame_average_precision_score,
}
# What `fit` leaves, beside the net.
_FITTED = {
    "classes_": np.ndarray,
    "threshold_": Real,
    "history_": list,
    "n_iter_": Integral,
    "best_epoch_": Integral,
    "n_features_in_": Integral,
    "feature_names_in_": np.ndarray,
    "_bag_ndim": Integral,
    "_n_steps": (Integral, type(None)),
    "_fitted_on_rows": bool,
}


def _all_or_nothing(fit):
    """Let a call that fails leave the detector as it was, not half fitted."""

    @functools.wraps(fit)
    def wrapper(self, *args, **kwargs):
        before = dict(vars(self))
        try:
            return fit(self, *args, **kwargs)
        except BaseException:
            vars(self).update(before)  # at no time without: others may be scoring
            for name in vars(self).keys() - before.keys():
                delattr(self, name)
            raise

    return wrapper


class BaseAnomalyDetector(
    OnnxMixin, SaveMixin, SnippetScoresMixin, BaseEstimator, metaclass=ABCMeta
):
    """Base class of all detectors.

    A subclass stores its parameters, the common ones among them, and defines
    `_make_module`, `_loss_terms` and, where its training does not see whole
    bags, `_training_view`.
    """

    _parameter_constraints = {
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "lr_decay": [StrOptions({"cosine"}), None],
        "optimizer": [StrOptions(set(_engine.OPTIMIZERS))],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "balanced_batches": ["boolean"],
        "input_scaling": [StrOptions({"uniform", "standard"}), None],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "video_weight": [Interval(Real, 0, None, closed="left")],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither"), None],
        "validation_score": [StrOptions({"auto", *_VIDEO_SCORES, *_FRAME_SCORES})],
        "patience": [Interval(Integral, 1, None, closed="left"), None],
        "warm_start": ["boolean"],
        "random_state": ["random_state", np.random.Generator],
        "precision": [StrOptions({"float32", "bfloat16"})],
        "n_jobs": [
            Interval(Integral, 1, None, closed="left"),
            Interval(Integral, None, -1, closed="right"),
            None,
        ],
        "memory_limit": [Interval(Real, 0, None, closed="neither")],
        "callbacks": [list, None],
        "verbose": ["verbose"],
    }

    _published = {"input_scaling": None}  # what differs from the defaults
    _bag_ndims = (2,)  # axes of a bag that the detector can take
    _video_score_rule = "maximum of the snippets' scores"
    _online = False  # whether a score needs no later snippet

    # What a detector defines ----------------------------------------------
    @abstractmethod
    def _make_module(self, n_features):
        """Return the network, ``module(X, mask) -> dict`` with "scores".

        Its ``scaling``, an `InputScaling`, is what features go through first. Its
        ``make_portable()``, where it has one, replaces what `to_onnx` can't write.
        """

    @abstractmethod
    def _loss_terms(self):
        """Return ``(output, y, mask) -> dict`` of named loss terms to be added."""

    def _training_view(self):
        """Return the function from a bag to what training sees of it."""
        return _whole_bag

    def _check_bags(self, bags):
        """Raise for training bags that the detector can't learn from."""

    @classmethod
    def as_published(cls, **params):
        """Return a detector with the values of the paper where defaults differ.

        Parameters
        ----------
        **params
            Parameters that shall differ from the paper.

        Returns
        -------
        detector : object

        Examples
        --------
        >>> from sklearn_vad import DDLAnomalyDetector
        >>> est = DDLAnomalyDetector.as_published(max_epochs=10)
        >>> est.batch_size, est.lr, est.max_epochs
        (128, 0.0005, 10)
        """
        return cls(**{**cls._published, **params})

    # Fitting --------------------------------------------------------------
    @_all_or_nothing
    def fit(self, X, y, validation=None, checkpoint=None):
        """Train on bags with one label per video.

        Parameters
        ----------
        X : Bags, sequence of arrays, object array or array
            The videos; see `sklearn_vad.Bags`. Axis 0 of an array is always
            videos: a 2-D array is read as videos of one snippet.
        y : array-like of shape (n_bags,) or FrameLabels
            Two classes; the larger one (``classes_[1]``) is anomalous. Of
            `FrameLabels`, training sees the video labels only.
        validation : tuple (bags, y), default=None
            Held-out videos, scored after every epoch by `validation_score`;
            the weights of the best epoch are kept. `FrameLabels` as y give
            frame-level scores.
        checkpoint : str or path-like, default=None
            Folder to keep the training in, after every epoch. The same call, after
            the process was killed, goes on from there and ends with the same bits
            as without; after the end it loads what was learned. Each combination
            of parameters and data has a sub-directory of its own, so that a whole
            search can share the folder. With ``random_state=None`` the seed of the
            training that is there is taken. The state of `callbacks` is not kept.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError, TypeError
            For input of a wrong kind; the message names the bag. For a checkpoint
            that is damaged, or that other versions made.

        Warns
        -----
        ConvergenceWarning
            When the loss is not finite. Training stops there, and the last finite
            weights are kept.
        """
        self._validate_params()
        going_on = self.warm_start and hasattr(self, "net_")
        bags, y = self._check_training_input(X, y, reset=not going_on)
        classes = self._check_classes(y)
        y = np.asarray(y == classes[1], dtype=np.int64)
        seed = _engine.draw_seed(self.random_state)
        validation = self._check_validation(validation, classes)
        self._check_needs_validation(validation)
        if checkpoint is not None:
            data = (bags, y, *(validation or ()))
            checkpoint = self._open_checkpoint(checkpoint, seed, data, going_on)
            seed = checkpoint.seed
        if self.validation_fraction is not None:
            bags, y, validation = self._hold_out(bags, y, seed)
        with _engine.cpu_threads(self.n_jobs):
            net = self.net_ if going_on else self._begin(bags, seed, checkpoint)
            self._train(net, bags, y, self.lr_decay, validation, checkpoint)
        self._set_fitted(net, bags, classes)
        return self

    @_all_or_nothing
    def partial_fit(self, X, y, classes=None):
        """Train for `max_epochs` more, at constant learning rate.

        The network and the optimiser's state are kept from the last call; the
        first call starts anew.

        Parameters
        ----------
        X : Bags, sequence of arrays, object array or array
        y : array-like of shape (n_bags,) or FrameLabels
            One class is enough once `classes` are known.
        classes : array-like of shape (2,), default=None
            Both labels, the anomalous one larger; needed in a first call whose
            y holds one class only.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError, TypeError
            As in `fit`, and for labels that are not among the classes.
        """
        self._validate_params()
        known = hasattr(self, "net_")
        bags, y = self._check_training_input(X, y, reset=not known)
        if classes is not None:
            classes = _check_labels("classes", classes)
        if known:
            known_classes = self.classes_
        else:
            known_classes = self._check_classes(y if classes is None else classes)
        if classes is not None and not np.array_equal(
            np.unique(classes), known_classes
        ):
            raise ValueError(f"classes {classes} differ from {known_classes}")
        unknown = np.setdiff1d(y, known_classes)
        if len(unknown):
            raise ValueError(f"y holds labels {unknown} besides {known_classes}")
        y = np.asarray(y == known_classes[1], dtype=np.int64)
        with _engine.cpu_threads(self.n_jobs):
            if known:
                net = self.net_
            else:
                seed = _engine.draw_seed(self.random_state)
                net = self._begin(bags, seed)
            self._train(net, bags, y)
        self._set_fitted(net, bags, known_classes)
        return self

    def _open_checkpoint(self, folder, seed, data, going_on):
        """Return the checkpoint of this training, read if it is there."""
        if going_on:
            raise ValueError(
                "checkpoint keeps trainings from their start; with warm_start=True a"
                " fitted detector goes on from its own weights"
            )
        key = key_of(self, None if self.random_state is None else seed, data)
        device = _engine.resolve_device(self.device).type
        checkpoint = Checkpoint(folder, key, seed, device)
        if checkpoint.saved and self.callbacks:
            warnings.warn(
                f"training goes on from {str(checkpoint.path)!r}, which does not hold"
                " the state of the callbacks",
                UserWarning,
                stacklevel=4,
            )
        return checkpoint

    def _begin(self, bags, seed, checkpoint=None):
        """Return a new net that has seen no more of the bags than their scale."""
        self._check_components(bags)
        if checkpoint is not None and checkpoint.saved is not None:
            with checkpoint.explained():
                weights = checkpoint.saved.part("module")
                return self._new_net(bags.n_features, seed, weights)
        net = self._new_net(bags.n_features, seed)
        if self.n_components is not None:
            rows = sample_snippets(bags, max(_PCA_ROWS, 2 * self.n_components))
            net.module_.scaling.fit_axes(rows, self.input_scaling)
        elif self.input_scaling is not None:
            net.module_.scaling.fit(snippet_blocks(bags), self.input_scaling)
        return net

    def _check_components(self, bags):
        """Raise for more components than the snippets of the training have."""
        n_rows = bags.lengths.sum() * math.prod(bags.snippet_shape[:-1])
        most = min(n_rows, bags.n_features)
        if self.n_components is not None and self.n_components > most:
            raise ValueError(
                f"n_components={self.n_components} of {n_rows} snippets with"
                f" {bags.n_features} features, expected {most} at most"
            )

    def _new_net(self, n_features, seed, weights=None):
        return _engine.build_net(
            lambda: self._make_module(n_features),
            self._loss_terms(),
            seed=seed,
            optimizer=self.optimizer,
            lr=self.lr,
            weight_decay=self.weight_decay,
            max_epochs=self.max_epochs,
            device=self.device,
            precision=self.precision,
            callbacks=self.callbacks,
            weights=weights,
        )

    def _train(self, net, bags, y, lr_decay=None, validation=None, checkpoint=None):
        net.max_epochs = self.max_epochs
        batches = TrainingBatches(
            bags,
            y,
            self._training_view(),
            self.batch_size,
            self.balanced_batches,
            net.generator,
        )
        _engine.train(
            net,
            batches,
            lr=self.lr,
            lr_decay=lr_decay,
            validate=None if validation is None else self._validator(*validation),
            patience=self.patience,
            progress=bool(self.verbose),
            checkpoint=checkpoint,
        )

    def _set_fitted(self, net, bags, classes):
        self.net_ = net
        self.classes_ = classes
        self.threshold_ = 0.5
        self.history_ = [
            {k: v for k, v in epoch.items() if k != "batches"} for epoch in net.history
        ]
        self.n_iter_ = len(self.history_)
        scores = [epoch.get("valid_score", np.nan) for epoch in self.history_]
        known = np.isfinite(scores).any()
        self.best_epoch_ = int(np.nanargmax(scores)) + 1 if known else self.n_iter_

    # Saving, see `persistence` --------------------------------------------
    def _get_fitted_state(self):
        check_is_fitted(self, "net_")
        values = {name: getattr(self, name) for name in _FITTED if hasattr(self, name)}
        module = self.net_.module_  # `load` builds it from the parameters of today
        _engine.check_same_network(
            module, lambda: self._make_module(self.n_features_in_)
        )
        if self.net_.precision != self.precision:  # it would score otherwise, too
            raise ValueError(
                "parameters were changed since fit: precision of the network is"
                f" {self.net_.precision!r}, by the parameters it would be"
                f" {self.precision!r}; set them back, or fit again"
            )
        return values, self.net_.module_.state_dict(), {}

    def _set_fitted_state(self, values, tensors, parts):
        check_state("fitted attributes", values, _FITTED, ["feature_names_in_"])
        check_state("parts", parts, {})
        if values["classes_"].shape != (2,):
            raise ValueError(f"classes_ are {values['classes_']}, expected two")
        if values["_bag_ndim"] not in self._bag_ndims:
            raise ValueError(
                f"bags have {values['_bag_ndim']} axes, expected {self._bag_ndims}"
            )
        seed = _engine.draw_seed(self.random_state)
        net = self._new_net(values["n_features_in_"], seed, tensors)
        net.history.extend({"batches": [], **epoch} for epoch in values["history_"])
        net.module_.eval()
        vars(self).update(values, net_=net)

    # ONNX, see `_onnx` ----------------------------------------------------
    def _on_cpu(self):
        """Return a detector that scores as this one, on the CPU and in float32."""
        check_is_fitted(self, "net_")
        twin = copy.copy(self)
        twin.net_ = _engine.on_cpu(self.net_)
        return twin

    def _n_scored_segments(self):
        """Return into how many segments scoring pools a bag; None for snippets."""
        return None

    def _graph_video_scores(self, scores, mask):
        """Return `_video_score` of each bag as tensors; padded scores are 0."""
        return scores.amax(dim=1)

    # Checking -------------------------------------------------------------
    def _check_X(self, X, reset=False):
        """Return `X` as bags that this detector can take."""
        rows = reads_as_rows(X)
        if rows and not reset and not self._fitted_on_rows:
            raise ValueError(
                f"X is 2-D, shape {np.shape(X)}, but {type(self).__name__} was fitted"
                " on longer bags; for the scores of one video pass [video]"
            )
        if rows:
            X = as_array(X, "X") if hasattr(X, "detach") else X
            X = validate_data(self, X, reset=reset, dtype=[np.float64, np.float32])
        bags = check_bags(X)
        self._check_bag_ndim(bags, reset)
        if reset:
            self._check_bags(bags)
            self._bag_ndim, self._n_steps = bags.bag_ndim, bags.n_steps
            self.n_features_in_ = bags.n_features
            self._fitted_on_rows = bool((bags.lengths == 1).all())
            if not rows and hasattr(self, "feature_names_in_"):
                del self.feature_names_in_
        elif bags.n_features != self.n_features_in_:
            raise ValueError(
                f"bag 0 has {bags.n_features} features, but {type(self).__name__} is"
                f" expecting {self.n_features_in_} features as input"
            )
        return bags

    def _check_bag_ndim(self, bags, reset):
        n_axes, name = bags.bag_ndim, type(self).__name__
        if n_axes not in self._bag_ndims:
            steps = " or (n_snippets, n_steps, n_features)" * (3 in self._bag_ndims)
            raise ValueError(
                f"bags have {n_axes} axes, {name} takes (n_snippets,"
                f" n_features){steps}; for crops, on axis 1, use"
                f" MultiCropDetector({name}())"
            )
        if not reset and n_axes != self._bag_ndim:
            raise ValueError(
                f"bags have {n_axes} axes, but {name} was fitted on bags of"
                f" {self._bag_ndim}; for the scores of one video pass [video]"
            )
        if not reset and bags.n_steps != self._n_steps:
            raise ValueError(
                f"snippets have {bags.n_steps} inner time steps, but {name} was fitted"
                f" on {self._n_steps}"
            )

    def _check_training_input(self, X, y, reset=True):
        if y is None:
            check_video_labels(y, 0)
        bags = self._check_X(X, reset=reset)
        labels = check_video_labels(y, len(bags))
        check_same_videos(bags, y)
        return bags, labels

    # Validation -----------------------------------------------------------
    def _check_validation(self, validation, classes):
        """Return validation data as (bags, 0/1 labels or FrameLabels)."""
        if validation is None:
            return None
        if not isinstance(validation, (tuple, list)) or len(validation) != 2:
            raise TypeError("validation must be a pair (bags, y)")
        bags = self._check_X(validation[0])
        labels = check_video_labels(validation[1], len(bags))
        check_same_videos(bags, validation[1])
        if isinstance(validation[1], FrameLabels):
            return bags, self._check_validation_frames(bags, validation[1])
        if not np.array_equal(np.unique(labels), classes):
            raise ValueError(
                f"validation labels are {np.unique(labels)}, expected both {classes}"
            )
        return bags, np.asarray(labels == classes[1], dtype=np.int64)

    def _check_needs_validation(self, validation):
        """Raise for validation data given twice, and for wishes that need some."""
        if validation is not None and self.validation_fraction is not None:
            raise ValueError("validation and validation_fraction exclude each other")
        if validation is not None or self.validation_fraction is not None:
            return
        for name, default in (("patience", None), ("validation_score", "auto")):
            if getattr(self, name) != default:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} needs validation videos: pass"
                    " validation=(bags, y) to fit, or set validation_fraction"
                )

    def _check_validation_frames(self, bags, labels):
        """Raise before training what would fail after its first epoch."""
        ids = bags.ids if labels.ids is None else labels.ids
        lengths = labels.snippet_length
        check_frame_counts(bags.lengths, labels.n_frames, lengths, ids)
        n_anomalous = sum(int(mask.sum()) for mask in labels.masks)
        if n_anomalous in (0, labels.n_frames.sum()):
            raise ValueError(
                "the frame labels of the validation videos are of one class only"
            )
        return labels

    def _hold_out(self, bags, y, seed):
        """Split off `validation_fraction` of the videos, as many of each class."""
        try:
            rows = train_test_split(
                np.arange(len(y)),
                test_size=self.validation_fraction,
                stratify=y,
                random_state=seed,
            )
        except ValueError as error:
            raise ValueError(
                f"validation_fraction={self.validation_fraction} of {len(y)} videos"
                f" leaves too few of a class: {error}"
            ) from error
        train, valid = (np.sort(part) for part in rows)
        return bags[train], y[train], (bags[valid], y[valid])

    def _validator(self, bags, y):
        """Return the score of a net on validation data, as `validation_score` says."""
        name, has_frames = self.validation_score, isinstance(y, FrameLabels)
        if name == "auto":
            name = "frame_roc_auc" if has_frames else "roc_auc"
        if name in _FRAME_SCORES and not has_frames:
            raise ValueError(
                f"validation_score={name!r} needs validation=(bags, FrameLabels(masks))"
            )

        def validate(net):
            scores = self._lean(self._outputs(net, bags, ["scores"])["scores"])
            if name in _FRAME_SCORES:
                return _FRAME_SCORES[name](y, scores)
            return _VIDEO_SCORES[name](np.asarray(y), self._video_scores(scores))

        return validate

    # Scoring --------------------------------------------------------------
    def score_snippets(self, X):
        """Score every snippet of every bag.

        Parameters
        ----------
        X : Bags, sequence of arrays, object array or array

        Returns
        -------
        scores : list of ndarray of shape (n_snippets_i,)
            In [0, 1]; higher is more anomalous.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError, TypeError
            For input of a wrong kind, or unlike that of `fit`, and for a video that
            can't be scored within `memory_limit`.
        """
        return self._lean(self._run(X, ["scores"])["scores"])

    def _lean(self, scores):
        """Let the scores of snippets lean on their video's, by `video_weight`."""
        w = self.video_weight
        if w == 0:
            return scores
        videos = self._video_scores(scores)
        return [
            np.float32((s + w * v) / (1 + w))
            for s, v in zip(scores, videos, strict=True)
        ]

    def _run(self, X, names):
        """Return outputs of the network by name, as lists of (n_snippets_i,)."""
        check_is_fitted(self, "net_")
        self._check_memory_limit()
        bags = self._check_X(X)
        with _engine.cpu_threads(self.n_jobs):
            outputs = self._outputs(self.net_, bags, names, bool(self.verbose))
        for i, scores in enumerate(outputs.get("scores", ())):
            if not np.isfinite(scores).all():
                raise ValueError(
                    f"{bag_name(i, bags.ids)} gets scores that are not finite: its"
                    f" features, up to {np.abs(bags[i]).max():.3g}, or those of the"
                    " training, are too large for the network"
                )
        return outputs

    def _check_memory_limit(self):
        """Raise for a limit that was set after `fit`, which checks all parameters."""
        limit = self.memory_limit
        if not isinstance(limit, Real) or not limit > 0:
            raise ValueError(
                f"memory_limit={limit!r}, expected a number of GiB above 0"
            )

    def _outputs(self, net, bags, names, progress=False, view=None, **options):
        """Run a net; a detector that scores a `view` of bags maps it back here."""
        return run_bags(net, bags, names, progress, view, self.memory_limit, **options)

    def summary(self):
        """Describe the fitted network in a few lines of text.

        Returns
        -------
        text : str
            One line for each layer: its name, its kind, the shapes of its parameters
            and how many numbers they hold; then the total. Shapes in brackets are
            learned from the scale of the features, not trained, and not counted.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.

        Examples
        --------
        >>> from sklearn_vad import MILRankingAnomalyDetector
        >>> from sklearn_vad.datasets import make_bags
        >>> bags, y = make_bags(n_bags=20, random_state=0)
        >>> est = MILRankingAnomalyDetector(max_epochs=2, random_state=0).fit(bags, y)
        >>> print(est.summary())
        MILRankingAnomalyDetector: 64 features, 49,729 parameters, epoch 2 of 2
        layer    kind          parameters      number
        scaling  InputScaling  [2 (64)]             0
        mlp.0    Linear        512 x 64 + 512  33,280
        mlp.3    Linear        32 x 512 + 32   16,416
        mlp.5    Linear        1 x 32 + 1          33
        total                                  49,729
        """
        check_is_fitted(self, "net_")
        lines, n_parameters = describe_network(self.net_.module_)
        title = (
            f"{type(self).__name__}: {self.n_features_in_} features,"
            f" {n_parameters:,} parameters, epoch {self.best_epoch_} of {self.n_iter_}"
        )
        return "\n".join([title, *lines])

    def stream(self, state=None):
        """Return a stream that scores one video, snippet by snippet.

        Parameters
        ----------
        state : ndarray, default=None
            The `state` of an earlier stream, to go on from there.

        Returns
        -------
        stream : sklearn_vad.online.SnippetStream
            ``stream.push(snippet)`` returns the score that `score_snippets`
            gives of the whole bag.

        Raises
        ------
        TypeError
            When the detector's scores need snippets of the future.
        """
        check_is_fitted(self, "net_")
        if not self._online:
            raise TypeError(
                f"{type(self).__name__} can't score a stream: its attention looks at"
                " the whole video, later snippets included"
            )
        if self.video_weight:
            raise TypeError(
                f"with video_weight={self.video_weight}, a snippet's score needs the"
                " whole video; streams need video_weight=0"
            )
        return SnippetStream(self, state)


def _check_labels(name, labels):
    """Return distinct labels as an array of numbers or of texts."""
    array = as_array(labels, name)
    array = np.array(array.tolist()) if array.dtype.kind == "O" else array
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "biufU":
        raise ValueError(f"{name} are {labels!r}, expected both labels, such as [0, 1]")
    return array


def _whole_bag(bag):
    return bag


def check_widths(name, widths, n_layers=None):
    """Return the widths of layers as a tuple, or raise with the parameter's name.

    Parameters
    ----------
    name : str
        Of the parameter.
    widths : sequence of int
    n_layers : int, default=None
        How many there must be; None for one or more.

    Returns
    -------
    widths : tuple of int
    """
    fine = isinstance(widths, (tuple, list)) and all(
        isinstance(width, Integral) and width >= 1 for width in widths
    )
    if not fine or len(widths) == 0 or n_layers not in (None, len(widths)):
        number = "one or more" if n_layers is None else n_layers
        raise ValueError(
            f"{name} must be a tuple of {number} positive integers, got {widths!r}"
        )
    return tuple(widths)
