"""DAM: dissimilarity attention, and scores that need no snippet of the future.

S. Majhi, S. Das and F. Brémond, "DAM: Dissimilarity attention module for
weakly-supervised video anomaly detection", AVSS 2021.

Where the paper is silent or contradicts itself, we do this:

- Eqs. 1-2: covariances are not normalised and keep their sign; the snippet
  before the first one is zero, in scaled features.
- Eqs. 4-5 share one attention LSTM, apart from that of the features; Clip_A
  takes a further tanh, as printed.
- The perceptron has the authors' widths, 96 and 1, and their dropout of 0.2.
- Training ranks the weighted scores wD, summing smoothness and sparsity over
  the anomalous videos of a batch; scoring returns the detection scores D, as
  the authors' code does: wD reaches 2, so a threshold of 0.5 means nothing on it.
- Training sees 16 segments a video, scoring every snippet.
"""

import functools
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from .._lstm import last_hidden, plain_last_hidden
from ..base import BaseAnomalyDetector, check_widths
from ..functional import dissimilarities, mil_ranking_loss, shift_by_one
from ..layers import Dropout, InputScaling, Linear, probabilities
from ..timeline import pool_segments


def largest_dissimilarities(current, previous, variant):
    """Return what D_n and D_t could be at most, on average over their entries.

    A difference is at most the sum of the magnitudes, a covariance the product
    of the standard deviations. Divided by these, dissimilarities do not depend
    on the scale of the features.

    Parameters
    ----------
    current, previous : Tensor of shape (M, steps, n)
    variant : {"dist", "cov"}

    Returns
    -------
    most_n, most_t : Tensor of shape (M, 1, 1)
        Positive.
    """
    if variant == "dist":
        magnitudes = current.abs() + previous.abs()
        bounds = dissimilarities(magnitudes, torch.zeros_like(magnitudes), variant)
    else:
        own = dissimilarities(current, current, variant)  # variances
        before = dissimilarities(previous, previous, variant)
        bounds = [(a * b).sqrt() for a, b in zip(own, before, strict=True)]
    tiny = torch.finfo(current.dtype).tiny
    return [b.mean(dim=(1, 2), keepdim=True).clamp(min=tiny) for b in bounds]


class DissimilarityAttention(nn.Module):
    """Feature LSTM, dissimilarity attention and perceptron, Eqs. 1-5.

    Every snippet is scored from itself and the one before it. Without `lstm`,
    a snippet's features are the mean over its steps.

    Parameters
    ----------
    n_features, n_hidden : int
        n and n_h.
    variant : {"dist", "cov"}
    scaled : bool
        Dissimilarities relative to the largest possible, and Channel_A times its
        width.
    lstm, channel_attention, clip_attention : bool
        Parts that Table 1 adds one after the other.
    mlp_dims : tuple of int
    dropout : float
    n_components : int, default=None
        See `InputScaling`.
    """

    reach = 1  # snippets before one that its score depends on

    def __init__(
        self,
        n_features,
        n_hidden,
        variant,
        scaled,
        lstm,
        channel_attention,
        clip_attention,
        mlp_dims,
        dropout,
        n_components=None,
    ):
        super().__init__()
        self.last_hidden = last_hidden
        self.portable = False
        self.variant = variant
        self.scaled = scaled
        self.channel_attention = channel_attention
        self.scaling = InputScaling(n_features, n_components=n_components)
        n_features = self.scaling.n_out
        width = n_hidden if lstm else n_features
        self.feature_lstm = nn.LSTM(n_features, n_hidden) if lstm else None
        attends = channel_attention or clip_attention
        self.attention_lstm = nn.LSTM(n_features, width) if attends else None
        self.clip = Linear(width, 1) if clip_attention else None
        layers = [Dropout(dropout)]
        for size in mlp_dims:
            layers += [Linear(width, size), nn.ReLU()]
            width = size
        self.mlp = nn.Sequential(*layers, Linear(width, 1))

    def make_portable(self):
        """Compute by operators that every runtime has."""
        self.last_hidden = plain_last_hidden
        self.portable = True

    def _attention_state(self, current, previous):
        """Run the attention LSTM over D_nt, Eqs. 1-3; (M, n_h)."""
        d_n, d_t = dissimilarities(current, previous, self.variant)
        if self.scaled:
            most_n, most_t = largest_dissimilarities(current, previous, self.variant)
            d_n, d_t = d_n / most_n, d_t / most_t
        # D_nt[j] = d_t[j] * d_n: every step's input is a multiple of d_n.
        return self.last_hidden(self.attention_lstm, d_n.squeeze(1), d_t.squeeze(2))

    def score(self, current, previous):
        """Return D and Clip_A of M snippets, given those before them.

        Parameters
        ----------
        current, previous : Tensor of shape (M, steps, n), or (M, n) of one step

        Returns
        -------
        scores, clip_attention : Tensor of shape (M,)
        """
        return self._score(self.scaling(current), self.scaling(previous))

    def _score(self, current, previous):
        if current.ndim == 2:
            current, previous = current.unsqueeze(1), previous.unsqueeze(1)
        if self.feature_lstm is None:
            features = current.mean(dim=1)
        else:
            features = self.last_hidden(self.feature_lstm, current)  # (M, n_h)
        clip = features.new_zeros(len(features))
        if self.attention_lstm is not None:
            state = self._attention_state(current, previous)
            if self.channel_attention:
                channel = state.softmax(dim=1)  # Eq. 4
                channel = channel * channel.shape[1] if self.scaled else channel
                features = features * channel + features
            if self.clip is not None:
                clip = probabilities(self.clip(state.tanh()).squeeze(1))  # Eq. 5
        return probabilities(self.mlp(features).squeeze(1)), clip

    def forward(self, X, mask):
        X = self.scaling(X)  # before the first, zeros: the mean of the features
        if self.portable:  # padding too: how many are real depends on data
            scores = self._score(X.flatten(0, 1), shift_by_one(X).flatten(0, 1))[0]
            return {"scores": scores.view(mask.shape)}
        scores, clip = self._score(X[mask], shift_by_one(X)[mask])  # real ones only
        padded = scores.new_zeros(mask.shape)
        scores = padded.masked_scatter(mask, scores)
        clip = padded.masked_scatter(mask, clip.to(scores.dtype))
        return {
            "scores": scores,
            "clip_attention": clip,
            "weighted_scores": scores * clip + scores,  # wD
        }


def weighted_ranking_loss_terms(output, y, mask, *, margin, smoothness, sparsity):
    """Return the weighted ranking loss of Eq. 7 as the only term."""
    loss = mil_ranking_loss(
        output["weighted_scores"], y, mask, margin, smoothness, sparsity, "sum"
    )
    return {"ranking": loss}


def _pool(bag, n_segments):
    return pool_segments(np.asarray(bag, dtype=np.float32), n_segments, "max")


class DAMAnomalyDetector(BaseAnomalyDetector):
    r"""Dissimilarity attention, an online detector.

    An LSTM reads the inner time steps of a snippet; a second one reads how the
    snippet differs from the one before it, and says which channels
    (Channel_A) and which snippets (Clip_A) matter. No score needs a snippet of
    the future: `stream` scores while the camera runs [1]_.

    Bags are ``(n_snippets, n_steps, n_features)``; ``(n_snippets, n_features)``
    is read as one step, and crops on axis 1 would be read as steps: for these use
    `MultiCropDetector`. The video score is the maximum of the snippet scores.

    Parameters
    ----------
    variant : {"dist", "cov"}, default="dist"
        Dissimilarity by absolute differences, or by covariances, which need
        two steps a snippet or more.
    n_hidden : int, default=1024
        Width of both LSTMs, n_h.
    scaled : bool, default=False
        Divide the dissimilarities of Eqs. 1-2 by the largest that the two
        snippets could have, on average, and multiply Channel_A by its width. As
        printed (False), the attention's input grows with the square of the
        features until its LSTM saturates, and Channel_A, about 1 / `n_hidden` a
        channel, changes next to nothing. On validation videos neither trained
        better; try True on features of large values.
    lstm, channel_attention, clip_attention : bool, default=True
        The parts that the paper's Table 1 adds one after the other. Without
        `lstm`, a snippet's features are the mean over its steps.
    mlp_dims : tuple of int, default=(96,)
        Widths of the perceptron's hidden layers.
    dropout : float, default=0.2
        Before the perceptron.
    n_segments : int or None, default=16
        Training pools each bag into so many segments, by maximum; None trains
        on the ragged bags. Scoring always sees the snippets.
    margin : float, default=1.0
        Of the hinge of Eq. 6.
    smoothness : float, default=8e-5
        lambda_1 of Eq. 7.
    sparsity : float, default=8e-5
        lambda_2 of Eq. 7.
    input_scaling : {"uniform", "standard", None}, default="uniform"
        How features are scaled first, as learned from the training videos:
        "uniform" subtracts the mean of each and divides all by one number, so
        that their mean variance is 1, "standard" divides each by its own
        standard deviation. None, the paper's way, leaves them as they are.
    n_components : int or None, default=None
        Principal components of the training snippets for the network to work
        on, instead of the features themselves: smaller networks where features
        are thousands.
    video_weight : float, default=0.0
        w: a snippet with score s in a video with score v gets
        ``(s + w v) / (1 + w)``. Video scores stay the same. Frames of different
        videos are then told apart better, those of one video less.
    max_epochs : int, default=20
        Passes over the training videos.
    batch_size : int, default=20
        Videos in a batch, 10 of each class; 2 or more.
    lr : float, default=1e-4
        Initial learning rate.
    lr_decay : {"cosine", None}, default="cosine"
        How the learning rate falls to 0 over `max_epochs` in `fit`.
    optimizer : {"adam", "adamw", "adagrad", "sgd"}, default="adam"
    weight_decay : float, default=0.0
        On weights, not on biases.
    balanced_batches : bool, default=True
        Draw as many anomalous as normal videos into each batch.
    validation_fraction : float, default=None
        Share of the training videos to hold out, stratified; see `patience`.
    validation_score : str, default="auto"
        What chooses the best epoch where there are validation videos: "roc_auc" or
        "average_precision", of videos; or, where ``validation`` brings
        `FrameLabels`, "frame_roc_auc", "frame_average_precision" or
        "balanced_frame_roc_auc", in which all videos weigh the same, so that a few
        long ones don't decide alone. "auto" is "frame_roc_auc" with `FrameLabels`,
        and "roc_auc" without.
    patience : int, default=None
        Stop after so many epochs without a better validation score. With
        None all epochs are trained. The best epoch's weights stay either way.
    warm_start : bool, default=False
        Let `fit` go on from the weights of the last call.
    random_state : int, RandomState, Generator or None, default=None
        Decides initial weights, batches, dropout and the held-out videos. No
        global generator is read or advanced.
    device : str or torch.device, default="auto"
        "auto" is CUDA where there is one, else the CPU.
    precision : {"float32", "bfloat16"}, default="float32"
        "bfloat16" runs the network under autocast; sigmoid and losses stay in
        float32.
    n_jobs : int, default=None
        CPU threads, set on entry and restored on exit; -1 means all cores,
        None leaves torch's own setting.
    memory_limit : float, default=2.0
        GiB that scoring may take beside the features. Longer videos are scored in
        pieces, with the same result.
    callbacks : list of skorch callbacks, default=None
        They find "train_loss", the loss terms and, with validation videos,
        "valid_score" in the net's history.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The trained net; ``net_.module_`` is the torch module.
    history_ : list of dict
        One per epoch: "train_loss", "dur" in seconds and, with validation
        videos, "valid_score".
    classes_ : ndarray of shape (2,)
        Normal and anomalous label.
    threshold_ : float
        0.5, of video scores.
    n_features_in_ : int
    n_iter_ : int
        Epochs trained.
    best_epoch_ : int
        The epoch whose weights were kept, from 1; without validation videos the
        last one.

    See Also
    --------
    DDLAnomalyDetector : Attention over the whole video.
    MILRankingAnomalyDetector : The baseline without temporal context.

    References
    ----------
    .. [1] S. Majhi, S. Das and F. Brémond, "DAM: Dissimilarity attention module
       for weakly-supervised video anomaly detection", AVSS 2021.

    Examples
    --------
    >>> from sklearn_vad import DAMAnomalyDetector
    >>> from sklearn_vad.datasets import make_bags
    >>> bags, y = make_bags(n_bags=20, n_steps=3, random_state=0)
    >>> est = DAMAnomalyDetector(n_hidden=16, max_epochs=2, random_state=0)
    >>> est = est.fit(bags, y)
    >>> stream = est.stream()
    >>> 0 <= stream.push(bags[0][0]) <= 1
    True
    """

    _bag_ndims = (2, 3)
    _online = True

    _published = {
        "input_scaling": None,
        "max_epochs": 50,
        "lr_decay": None,
    }

    _parameter_constraints = {
        **BaseAnomalyDetector._parameter_constraints,
        "batch_size": [Interval(Integral, 2, None, closed="left")],  # one of each class
        "variant": [StrOptions({"dist", "cov"})],
        "n_hidden": [Interval(Integral, 1, None, closed="left")],
        "scaled": ["boolean"],
        "lstm": ["boolean"],
        "channel_attention": ["boolean"],
        "clip_attention": ["boolean"],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "n_segments": [Interval(Integral, 1, None, closed="left"), None],
        "margin": [Real],
        "smoothness": [Interval(Real, 0, None, closed="left")],
        "sparsity": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        *,
        variant="dist",
        n_hidden=1024,
        scaled=False,
        lstm=True,
        channel_attention=True,
        clip_attention=True,
        mlp_dims=(96,),
        dropout=0.2,
        n_segments=16,
        margin=1.0,
        smoothness=8e-5,
        sparsity=8e-5,
        input_scaling="uniform",
        n_components=None,
        video_weight=0.0,
        max_epochs=20,
        batch_size=20,
        lr=1e-4,
        lr_decay="cosine",
        optimizer="adam",
        weight_decay=0.0,
        balanced_batches=True,
        validation_fraction=None,
        validation_score="auto",
        patience=None,
        warm_start=False,
        random_state=None,
        device="auto",
        precision="float32",
        n_jobs=None,
        memory_limit=2.0,
        callbacks=None,
        verbose=0,
    ):
        self.variant = variant
        self.n_hidden = n_hidden
        self.scaled = scaled
        self.lstm = lstm
        self.channel_attention = channel_attention
        self.clip_attention = clip_attention
        self.mlp_dims = mlp_dims
        self.dropout = dropout
        self.n_segments = n_segments
        self.margin = margin
        self.smoothness = smoothness
        self.sparsity = sparsity
        self.input_scaling = input_scaling
        self.n_components = n_components
        self.video_weight = video_weight
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.lr_decay = lr_decay
        self.optimizer = optimizer
        self.weight_decay = weight_decay
        self.balanced_batches = balanced_batches
        self.validation_fraction = validation_fraction
        self.validation_score = validation_score
        self.patience = patience
        self.warm_start = warm_start
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.n_jobs = n_jobs
        self.memory_limit = memory_limit
        self.callbacks = callbacks
        self.verbose = verbose

    def attend(self, X):
        """Return what the attention says about every snippet.

        Parameters
        ----------
        X : Bags, sequence of arrays, object array or array

        Returns
        -------
        attention : dict of list of ndarray of shape (n_snippets_i,)
            "clip_attention", Clip_A of Eq. 5, in [0, 1], zeros without
            `clip_attention`; and "weighted_scores", wD of Eq. 7, in [0, 2],
            which training ranks.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError, TypeError
            For input of a wrong kind, or unlike that of `fit`.
        """
        return self._run(X, ("clip_attention", "weighted_scores"))

    def _check_bags(self, bags):
        if self.variant == "cov" and (bags.n_steps in (None, 1)):
            raise ValueError(
                'variant="cov" needs bags of 2 or more inner time steps,'
                " (n_snippets, n_steps, n_features): centred over a single step,"
                " every covariance is zero"
            )

    def _make_module(self, n_features):
        return DissimilarityAttention(
            n_features,
            self.n_hidden,
            self.variant,
            self.scaled,
            self.lstm,
            self.channel_attention,
            self.clip_attention,
            check_widths("mlp_dims", self.mlp_dims),
            self.dropout,
            self.n_components,
        )

    def _loss_terms(self):
        return functools.partial(
            weighted_ranking_loss_terms,
            margin=self.margin,
            smoothness=self.smoothness,
            sparsity=self.sparsity,
        )

    def _training_view(self):
        if self.n_segments is None:
            return super()._training_view()
        return functools.partial(_pool, n_segments=self.n_segments)
