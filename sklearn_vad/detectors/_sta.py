"""STA: criss-cross attention over the feature map, and a bidirectional RNN.

Y. Liu, J. Liu, X. Zhu, D. Wei, X. Huang and L. Song, "Learning task-specific
representation for video anomaly detection with spatial-temporal attention",
ICASSP 2022.

Where the paper is silent or contradicts itself, we do this:

- Eq. 2 is a softmax over the cells of the query's own cross, the centre once.
  As printed, the sum runs over queries, and cells off the cross count exp(0).
- Eq. 3 sums the products; values are the features themselves, without a gain.
- The 1x1 convolutions have biases: without them the attention would be uniform
  on non-negative features.
- The second pass has the weights of the first.
- Eq. 4 averages over the pairs of a video, then over the videos of a class; Eq. 5
  over all pairs of the batch, and over its anomalous videos.
- The RNN is Elman's, two layers of 64 units a direction, then one linear unit.
- Table 2's "FC" is the perceptron of MIL ranking, 512 and 32 units, with ReLU
  after both and without dropout.
"""

import functools
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .._criss_cross import PlainCrissCross
from ..base import BaseAnomalyDetector, check_widths
from ..functional import (
    criss_cross_attention,
    mil_ranking_loss,
    mutual_cosine_embedding_loss,
)
from ..layers import InputScaling, Linear, probabilities
from ..timeline import pool_segments, spread_segments


class CrissCrossNet(nn.Module):
    """Recurrent criss-cross attention, Eqs. 1-3, and a regressor of scores.

    Parameters
    ----------
    n_features : int
        C.
    n_channels : int
        D, of queries and keys.
    n_passes : int
        Passes of the attention, all with the same weights.
    temperature : float
        Of its softmax.
    l2_normalize : bool
        Divide every snippet by its L2 norm first; a row of zeros stays.
    regressor : {"rnn", "fc"}
    hidden_dim : int
        Units a layer and direction of the RNN, which has two layers.
    fc_dims : tuple of int
        Hidden layers of the perceptron.
    n_components : int, default=None
        See `InputScaling`.
    """

    def __init__(
        self,
        n_features,
        n_channels,
        n_passes,
        temperature,
        l2_normalize,
        regressor,
        hidden_dim,
        fc_dims,
        n_components=None,
    ):
        super().__init__()
        self.plain_attention = None
        self.n_passes = n_passes
        self.temperature = temperature
        self.scaling = InputScaling(n_features, l2_normalize, n_components)
        n_features = self.scaling.n_out
        self.extra_per_snippet = 32 * n_features  # the attention's, in float64
        # 1x1 convolutions of a map of one channel
        self.query = nn.Linear(1, n_channels)
        self.key = nn.Linear(1, n_channels)
        self.rnn, layers, width = None, [], n_features
        if regressor == "rnn":
            self.rnn = nn.RNN(
                n_features,
                hidden_dim,
                num_layers=2,
                nonlinearity="relu",
                batch_first=True,
                bidirectional=True,
            )
            width = 2 * hidden_dim
        else:
            for size in fc_dims:
                layers += [Linear(width, size), nn.ReLU()]
                width = size
        self.regressor = nn.Sequential(*layers, Linear(width, 1))

    def make_portable(self):
        """Compute by operators that every runtime has, with weights as they are."""
        self.plain_attention = PlainCrissCross(
            self._parameters_of_attention(), self.temperature
        )

    def _parameters_of_attention(self):
        query, key = self.query, self.key
        return query.weight.squeeze(1), query.bias, key.weight.squeeze(1), key.bias

    def _attend(self, X, mask):
        if self.plain_attention is not None:
            return self.plain_attention(X, mask)
        parameters = self._parameters_of_attention()
        return criss_cross_attention(X, *parameters, mask, temperature=self.temperature)

    def _recur(self, features, mask):
        """Run the RNN over real snippets only, both ways; (B, T, 2 hidden_dim)."""
        packed = pack_padded_sequence(
            features, mask.sum(dim=1).cpu(), batch_first=True, enforce_sorted=False
        )
        states, _ = pad_packed_sequence(
            self.rnn(packed)[0], batch_first=True, total_length=features.shape[1]
        )
        return states

    def _recur_plainly(self, features, mask):
        """As `_recur`, but each direction for itself, with all padding at the end."""
        step = torch.arange(mask.shape[1], device=mask.device)
        turn = torch.where(mask, mask.sum(dim=1, keepdim=True) - 1 - step, step)

        def turned(x):  # the real snippets, last to first; twice is as before
            return x.gather(1, turn.unsqueeze(2).expand_as(x))

        def run(x, weights):
            start = x.new_zeros(1, x.shape[0], self.rnn.hidden_size)
            options = True, 1, 0.0, False, False, True  # biases, a layer, batch first
            return torch.rnn_relu(x, start, weights, *options)[0]

        layers = iter(self.rnn.all_weights)
        for ahead, back in zip(layers, layers, strict=True):
            states = run(features, ahead), turned(run(turned(features), back))
            features = torch.cat(states, dim=2)
        return features

    def forward(self, X, mask):
        features = self.scaling(X)
        for _ in range(self.n_passes):
            features = self._attend(features, mask)  # (B, T, C)
        recur = self._recur if self.plain_attention is None else self._recur_plainly
        states = features if self.rnn is None else recur(features, mask)
        logits = self.regressor(states).squeeze(2)  # (B, T)
        return {"scores": probabilities(logits), "features": features}


def sta_loss_terms(
    output, y, mask, *, mce_weight, mce_margin, margin, smoothness, sparsity
):
    """Return the terms of Eq. 6, by name; their sum is the loss."""
    scores = output["scores"]
    ranking = mil_ranking_loss(scores, y, mask, margin, smoothness, sparsity)
    terms = {"ranking": ranking}
    if mce_weight:
        mce = mutual_cosine_embedding_loss(output["features"], y, mask, mce_margin)
        terms["mutual_cosine"] = mce_weight * mce
    return terms


def _pool(bag, n_segments):
    return pool_segments(np.asarray(bag, dtype=np.float32), n_segments, "mean")


class STAAnomalyDetector(BaseAnomalyDetector):
    r"""Spatial-temporal criss-cross attention with a bidirectional RNN.

    A video's features are a map, snippets down and dimensions across. Every
    cell attends to its row and its column; done twice, every cell has seen the
    whole map. A mutual cosine embedding loss makes the snippets of normal videos
    alike, and those of anomalous videos differ; a bidirectional RNN turns
    snippets into scores [1]_.

    The attention takes time and memory linear in the number of cells; see
    `sklearn_vad.functional.criss_cross_attention`. The video score is the
    maximum of the snippet scores.

    Parameters
    ----------
    n_channels : int, default=10
        D, channels of query and key.
    n_passes : int, default=2
        Passes of the attention, with shared weights.
    temperature : float, default=1.0
        Of the attention's softmax, at least 0.1. As printed (1.0) the weights of
        a row of 1024 cells differ by a factor of 7 at most.
    l2_normalize : bool, default=False
        Divide every snippet by its L2 norm, as MIL ranking does to C3D features;
        not needed for features that come normalised.
    regressor : {"rnn", "fc"}, default="rnn"
        What turns snippets into scores, see Table 2.
    hidden_dim : int, default=64
        Units of each of the two layers of the RNN, in each direction.
    fc_dims : tuple of int, default=(512, 32)
        Widths of the hidden layers of "fc".
    n_segments : int or None, default=32
        Training pools each bag into so many segments, by mean; None trains on
        the ragged bags, and needs ``resolution="snippet"``.
    resolution : {"segment", "snippet"}, default="segment"
        Scoring runs on the segments of a bag, as training does, and every
        snippet gets the score of its segment; or on the bag, snippet by snippet.
    mce_weight : float, default=0.02
        lambda_MCE of Eq. 6, of the mutual cosine embedding loss.
    mce_margin : float, default=0.4
        xi of Eq. 4.
    margin : float, default=1.0
        Of the hinge of Eq. 5.
    smoothness : float, default=2e-4
        lambda_1 of Eq. 5.
    sparsity : float, default=4e-5
        lambda_2 of Eq. 5.
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
    batch_size : int, default=60
        Videos in a batch, 30 of each class; 2 or more.
    lr : float, default=1e-3
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
        GiB that scoring may take beside the features. By segments any video is
        scored in that; ``resolution="snippet"`` refuses longer ones.
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
        One per epoch: "train_loss", each loss term, "dur" in seconds and,
        with validation videos, "valid_score".
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
    MILRankingAnomalyDetector : The baseline without temporal context.
    DDLAnomalyDetector : Attention between whole snippets.

    Notes
    -----
    The RNN reads the video in both directions, so scores can't be computed
    online.

    References
    ----------
    .. [1] Y. Liu, J. Liu, X. Zhu, D. Wei, X. Huang and L. Song, "Learning
       task-specific representation for video anomaly detection with
       spatial-temporal attention", ICASSP 2022.

    Examples
    --------
    >>> from sklearn_vad import STAAnomalyDetector
    >>> from sklearn_vad.datasets import make_bags
    >>> bags, y = make_bags(n_bags=20, random_state=0)
    >>> est = STAAnomalyDetector(max_epochs=2, random_state=0).fit(bags, y)
    >>> len(est.score_snippets(bags)[3]) == len(bags[3])
    True
    """

    _published = {
        "input_scaling": None,
        "max_epochs": 50,
        "lr": 1e-4,
        "lr_decay": None,
    }

    _parameter_constraints = {
        **BaseAnomalyDetector._parameter_constraints,
        "batch_size": [Interval(Integral, 2, None, closed="left")],  # one of each class
        "n_channels": [Interval(Integral, 1, None, closed="left")],
        "n_passes": [Interval(Integral, 0, None, closed="left")],
        "temperature": [Interval(Real, 0.1, None, closed="left")],
        "l2_normalize": ["boolean"],
        "regressor": [StrOptions({"rnn", "fc"})],
        "hidden_dim": [Interval(Integral, 1, None, closed="left")],
        "n_segments": [Interval(Integral, 1, None, closed="left"), None],
        "resolution": [StrOptions({"segment", "snippet"})],
        "mce_weight": [Interval(Real, 0, None, closed="left")],
        "mce_margin": [Interval(Real, -1, 1, closed="both")],
        "margin": [Real],
        "smoothness": [Interval(Real, 0, None, closed="left")],
        "sparsity": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        *,
        n_channels=10,
        n_passes=2,
        temperature=1.0,
        l2_normalize=False,
        regressor="rnn",
        hidden_dim=64,
        fc_dims=(512, 32),
        n_segments=32,
        resolution="segment",
        mce_weight=0.02,
        mce_margin=0.4,
        margin=1.0,
        smoothness=2e-4,
        sparsity=4e-5,
        input_scaling="uniform",
        n_components=None,
        video_weight=0.0,
        max_epochs=20,
        batch_size=60,
        lr=1e-3,
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
        self.n_channels = n_channels
        self.n_passes = n_passes
        self.temperature = temperature
        self.l2_normalize = l2_normalize
        self.regressor = regressor
        self.hidden_dim = hidden_dim
        self.fc_dims = fc_dims
        self.n_segments = n_segments
        self.resolution = resolution
        self.mce_weight = mce_weight
        self.mce_margin = mce_margin
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

    def _make_module(self, n_features):
        return CrissCrossNet(
            n_features,
            self.n_channels,
            self.n_passes,
            self.temperature,
            self.l2_normalize,
            self.regressor,
            self.hidden_dim,
            check_widths("fc_dims", self.fc_dims),
            self.n_components,
        )

    def _loss_terms(self):
        return functools.partial(
            sta_loss_terms,
            mce_weight=self.mce_weight,
            mce_margin=self.mce_margin,
            margin=self.margin,
            smoothness=self.smoothness,
            sparsity=self.sparsity,
        )

    def _training_view(self):
        if self.n_segments is None:
            return super()._training_view()
        return functools.partial(_pool, n_segments=self.n_segments)

    def _check_bags(self, bags):
        if self.resolution == "segment" and self.n_segments is None:
            raise ValueError(
                'resolution="segment" needs n_segments, got None; with n_segments=None'
                ' choose resolution="snippet"'
            )

    def _n_scored_segments(self):
        return None if self.resolution == "snippet" else self.n_segments

    def _outputs(self, net, bags, names, progress=False, view=None):
        if self._n_scored_segments() is None:
            return super()._outputs(net, bags, names, progress)
        view = self._training_view()
        found = super()._outputs(net, bags, names, progress, view)
        return {
            name: [
                spread_segments(scores, length)
                for scores, length in zip(segments, bags.lengths, strict=True)
            ]
            for name, segments in found.items()
        }
