"""MIL ranking: the baseline that every paper of the field compares with.

W. Sultani, C. Chen and M. Shah, "Real-world anomaly detection in surveillance
videos", CVPR 2018.

Where the paper is silent, we do this:

- The second layer is linear and L2 regularisation is 1e-3 per layer, as in the
  authors' code; as weight decay that is 2e-3.
- The hinge is the mean over all pairs of the batch; smoothness and sparsity are
  means over its anomalous bags. The authors' code sums them.
- Segments use every snippet (the authors' rounding drops the last one).
- Training sees segments, scoring sees every snippet.
"""

import functools
from numbers import Integral, Real

import numpy as np
from sklearn.utils._param_validation import Interval
from torch import nn

from ..base import BaseAnomalyDetector, check_widths
from ..functional import mil_ranking_loss
from ..layers import Dropout, InputScaling, Linear, probabilities
from ..timeline import pool_segments


class RankingMLP(nn.Module):
    """Three fully connected layers that score each snippet by itself.

    Parameters
    ----------
    n_features : int
    hidden_dims : tuple of int
        ReLU follows the first layer only.
    dropout : float
        After each hidden layer.
    l2_normalize : bool
        Divide every snippet by its L2 norm first; a row of zeros stays.
    n_components : int, default=None
        See `InputScaling`.
    """

    reach = 0  # snippets before one that its score depends on

    def __init__(
        self, n_features, hidden_dims, dropout, l2_normalize, n_components=None
    ):
        super().__init__()
        self.scaling = InputScaling(n_features, l2_normalize, n_components)
        first, second = hidden_dims
        self.mlp = nn.Sequential(
            Linear(self.scaling.n_out, first),
            nn.ReLU(),
            Dropout(dropout),
            Linear(first, second),
            Dropout(dropout),
            Linear(second, 1),
        )

    def score(self, current, previous=None):
        """Return the scores of snippets (..., n_features), and None.

        The snippets before them do not matter.
        """
        return probabilities(self.mlp(self.scaling(current)).squeeze(-1)), None

    def forward(self, X, mask):
        return {"scores": self.score(X)[0]}  # (B, T)


def ranking_loss_terms(output, y, mask, *, margin, smoothness, sparsity):
    """Return the MIL ranking loss as the only term."""
    scores = output["scores"]
    return {"ranking": mil_ranking_loss(scores, y, mask, margin, smoothness, sparsity)}


def _pool(bag, n_segments):
    return pool_segments(np.asarray(bag, dtype=np.float32), n_segments, "mean")


class MILRankingAnomalyDetector(BaseAnomalyDetector):
    r"""Deep multiple instance ranking of snippets, Sultani's baseline.

    A small perceptron scores each snippet by itself. The highest score of an
    anomalous video shall exceed the highest score of a normal video by a
    margin; within anomalous videos scores shall be smooth and sparse [1]_.

    The video score is the maximum of the snippet scores.

    Parameters
    ----------
    hidden_dims : tuple of two int, default=(512, 32)
        Widths of the hidden layers.
    dropout : float, default=0.6
        After each hidden layer.
    n_segments : int or None, default=32
        Training pools each bag into so many segments, by mean; None trains on
        the ragged bags. Scoring always sees the snippets.
    l2_normalize : bool, default=False
        Divide each snippet, or segment, by its L2 norm, as the paper does with
        C3D features.
    margin : float, default=1.0
        Of the hinge.
    smoothness : float, default=8e-5
        Weight of the squared differences of consecutive scores.
    sparsity : float, default=8e-5
        Weight of the sum of scores.
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
    lr : float, default=0.01
        Initial learning rate.
    lr_decay : {"cosine", None}, default=None
        How the learning rate falls to 0 over `max_epochs` in `fit`.
    optimizer : {"adam", "adamw", "adagrad", "sgd"}, default="adagrad"
    weight_decay : float, default=2e-3
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

    References
    ----------
    .. [1] W. Sultani, C. Chen and M. Shah, "Real-world anomaly detection in
       surveillance videos", CVPR 2018.

    Examples
    --------
    >>> from sklearn_vad import MILRankingAnomalyDetector
    >>> from sklearn_vad.datasets import make_bags
    >>> bags, y = make_bags(n_bags=20, random_state=0)
    >>> est = MILRankingAnomalyDetector(max_epochs=2, random_state=0).fit(bags, y)
    >>> est.predict(bags).shape
    (20,)
    """

    _online = True

    _published = {
        "input_scaling": None,
        "max_epochs": 50,
    }

    _parameter_constraints = {
        **BaseAnomalyDetector._parameter_constraints,
        "batch_size": [Interval(Integral, 2, None, closed="left")],  # one of each class
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "n_segments": [Interval(Integral, 1, None, closed="left"), None],
        "l2_normalize": ["boolean"],
        "margin": [Real],
        "smoothness": [Interval(Real, 0, None, closed="left")],
        "sparsity": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        *,
        hidden_dims=(512, 32),
        dropout=0.6,
        n_segments=32,
        l2_normalize=False,
        margin=1.0,
        smoothness=8e-5,
        sparsity=8e-5,
        input_scaling="uniform",
        n_components=None,
        video_weight=0.0,
        max_epochs=20,
        batch_size=60,
        lr=0.01,
        lr_decay=None,
        optimizer="adagrad",
        weight_decay=2e-3,
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
        self.hidden_dims = hidden_dims
        self.dropout = dropout
        self.n_segments = n_segments
        self.l2_normalize = l2_normalize
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
        widths = check_widths("hidden_dims", self.hidden_dims, n_layers=2)
        return RankingMLP(
            n_features, widths, self.dropout, self.l2_normalize, self.n_components
        )

    def _loss_terms(self):
        return functools.partial(
            ranking_loss_terms,
            margin=self.margin,
            smoothness=self.smoothness,
            sparsity=self.sparsity,
        )

    def _training_view(self):
        if self.n_segments is None:
            return super()._training_view()
        return functools.partial(_pool, n_segments=self.n_segments)
