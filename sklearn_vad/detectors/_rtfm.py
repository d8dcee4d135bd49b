"""RTFM: robust temporal feature magnitude learning.

Y. Tian, G. Pang, Y. Chen, R. Singh, J. W. Verjans and G. Carneiro,
"Weakly-supervised video anomaly detection with robust temporal feature magnitude
learning", ICCV 2021.

Where the paper is silent, or the authors' code differs from it, we do this:

- The magnitude loss is that of the code, (|m - g(X^a)| + g(X^n))^2 with weight 1e-4;
  the paper prints the hinge max(0, m - g(X^a) + g(X^n)) without one.
- g is the mean of the k largest norms, as printed; the code takes the norm of the
  mean of those k features, and drops some snippets before it chooses.
- Cross-entropy is of the mean score of these k snippets, as in the code; the paper
  adds up that of each.
- The attention map is divided by the number of snippets, as in the code: as printed,
  sums would grow with the length of the video.
- Queries, keys and values have D / 4 channels, as printed; the code has half of that.
- ReLU follows each dilated convolution and the 1x1 convolution that reduces the
  features, as in the code; its batch norm, the further convolution behind the
  concatenation and the dropout of its features are left out, as in the paper.
- Where D is no multiple of 4, each branch has D / 4 rounded up, and the residual is
  filled up with zeros.
- Smoothness and sparsity are sums over a video, then means over the anomalous videos
  of a batch, with the code's weights, 8e-4 and 8e-3. The code takes differences
  across the borders of videos, and an L2 norm in the place of the sum of scores.
- Weight decay is the code's 5e-3; the paper says 5e-4.
- Pairs are all (anomalous, normal) pairs of the batch; the code takes the i-th of each.
- Training sees segments, scoring sees every snippet.
"""

import functools
import itertools
from numbers import Integral, Real

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.utils._param_validation import Interval
from torch import nn

from .._packing import Packing
from .._products import linear
from ..base import BaseAnomalyDetector, check_widths
from ..functional import (
    feature_magnitude_loss,
    magnitude_bce_loss,
    smooth_sparse_loss,
)
from ..layers import Dropout, InputScaling, Linear, probabilities
from ..timeline import pool_segments

_DILATIONS = (1, 2, 4)  # of the pyramid; the last is how far a convolution reaches


class RTFMNet(nn.Module):
    """Multi-scale temporal network, and a classifier of its features.

    A pyramid of dilated convolutions sees the neighbours of a snippet, an attention
    without softmax the whole video; side by side they are as wide as the input, which
    is added.

    Parameters
    ----------
    n_features : int
        D.
    hidden_dims : tuple of int
        Of the classifier.
    dropout : float
        After each hidden layer.
    n_components : int, default=None
        See `InputScaling`.
    """

    def __init__(self, n_features, hidden_dims, dropout, n_components=None):
        super().__init__()
        self.portable = False
        self.scaling = InputScaling(n_features, n_components=n_components)
        n_features = self.scaling.n_out
        self.width = -(-n_features // 4)  # w, of each of the four branches
        self.pyramid = nn.ModuleList(
            nn.Conv1d(n_features, self.width, 3, dilation=step, padding=step)
            for step in _DILATIONS
        )
        self.reduce = Linear(n_features, self.width)
        self.query = Linear(self.width, self.width)
        self.key = Linear(self.width, self.width)
        self.value = Linear(self.width, self.width)
        self.out = Linear(self.width, self.width)
        layers = []
        for fan_in, fan_out in itertools.pairwise([4 * self.width, *hidden_dims]):
            layers += [Linear(fan_in, fan_out), nn.ReLU(), Dropout(dropout)]
        self.classifier = nn.Sequential(*layers, Linear(hidden_dims[-1], 1))
        self.held_per_snippet = 1  # by `run_in_pieces`: nothing but the score
        # Products with the pyramid's kernels, their sums, and features, twice each.
        self.extra_per_snippet = 2 * (9 + 3 + 8) * self.width

    def make_portable(self):
        """Compute by operators that every runtime has, on padding, too."""
        self.portable = True

    def _products(self, X):
        """Return each snippet's products with the pyramid's kernels, (..., 9 w).

        A convolution is a sum of them, shifted, and they are narrower than X.
        """
        kernels = [conv.weight.permute(2, 0, 1).flatten(0, 1) for conv in self.pyramid]
        return linear(X, torch.cat(kernels))

    def _convolve(self, products):
        """Add up the products of neighbours; (B, T, 3 w)."""
        n, sums = products.shape[1], []
        each = products.unflatten(2, (len(_DILATIONS), 3, -1)).unbind(2)
        for step, product in zip(_DILATIONS, each, strict=True):
            before, present, after = product.unbind(2)
            before = F.pad(before, (0, 0, step, 0))[:, :n]
            after = F.pad(after, (0, 0, 0, step))[:, step:]
            sums.append(before + present + after)
        return torch.cat(sums, dim=2)

    def _look_around(self, products, query, key, value, mask=None):
        """Return what a snippet gets of the others of its bag, (B, T, 4 w)."""
        n = query.shape[1]
        if mask is not None:
            padding = ~mask.unsqueeze(2)
            products, key = (x.masked_fill(padding, 0) for x in (products, key))
            n = mask.sum(dim=1)[:, None, None]
        # Without a softmax the order of the products is free: T x T or w x w numbers.
        if query.shape[1] <= self.width and not self.portable:
            attended = query @ key.transpose(1, 2) @ value
        else:
            attended = query @ (key.transpose(1, 2) @ value)
        return torch.cat([self._convolve(products), attended / n], dim=2)

    def _features(self, X, reduced, seen):
        """Put the branches side by side and add the input; (..., 4 w)."""
        local, attended = seen.split([3 * self.width, self.width], dim=-1)
        local = torch.relu(local + torch.cat([conv.bias for conv in self.pyramid]))
        features = torch.cat([local, self.out(attended) + reduced], dim=-1)
        return features + F.pad(X, (0, 4 * self.width - X.shape[-1]))

    def _reduce(self, X):
        return torch.relu(self.reduce(X))

    def _score(self, features):
        return probabilities(self.classifier(features).squeeze(-1))

    def forward(self, X, mask):
        packing = None if self.portable else Packing(mask)
        # The snippets of all bags as rows, or the batch with its padding.
        X = self.scaling(X if packing is None else packing.pack(X))
        reduced = self._reduce(X)
        shown = self._products(X), *self._attention(reduced)
        if packing is None:
            features = self._features(X, reduced, self._look_around(*shown, mask))
            return {"scores": self._score(features), "features": features}
        seen = packing.attend(self._look_around, *shown)
        features = self._features(X, reduced, seen)
        output = {"scores": self._score(features), "features": features}
        return {name: packing.unpack(rows) for name, rows in output.items()}

    def _attention(self, reduced):
        return self.query(reduced), self.key(reduced), self.value(reduced)

    def run_in_pieces(self, bag, n):
        """Score a long video, n snippets at a time; as `forward`, to rounding.

        What all snippets give to the attention is one small matrix.

        Parameters
        ----------
        bag : ndarray of shape (n_snippets, n_features)
        n : int

        Returns
        -------
        output : dict
            "scores", of shape ``(n_snippets,)``.
        """
        reach, scores = _DILATIONS[-1], []
        n = max(n - 2 * reach, 1)
        common = 0
        for i in range(0, len(bag), n):
            _, key, value = self._attention(self._reduce(self._read(bag[i : i + n])))
            product = key.transpose(1, 2) @ value
            common = common + product.float() / len(bag)  # under autocast, too
        for i in range(0, len(bag), n):
            start = max(i - reach, 0)
            X = self._read(bag[start : i + n + reach])
            local = self._convolve(self._products(X))
            piece = slice(i - start, i - start + n)
            X, local = X[:, piece], local[:, piece]
            reduced = self._reduce(X)
            seen = torch.cat([local, self.query(reduced) @ common], dim=2)
            scores.append(self._score(self._features(X, reduced, seen))[0])
        return {"scores": torch.cat(scores)}

    def _read(self, piece):
        X = torch.from_numpy(np.array(piece, dtype=np.float32))
        return self.scaling(X.to(self.reduce.weight.device).unsqueeze(0))


def rtfm_loss_terms(
    output, y, mask, *, k, margin, magnitude_weight, smoothness, sparsity
):
    """Return the terms by name; their sum is the loss."""
    scores, features = output["scores"], output["features"]
    terms = {"mil": magnitude_bce_loss(scores, features, y, mask, k)}
    if magnitude_weight:
        magnitude = feature_magnitude_loss(features, y, mask, k, margin)
        terms["magnitude"] = magnitude_weight * magnitude
    if smoothness or sparsity:
        terms["smooth_sparse"] = smooth_sparse_loss(
            scores, y, mask, smoothness, sparsity
        )
    return terms


def _pool(bag, n_segments):
    return pool_segments(np.asarray(bag, dtype=np.float32), n_segments, "mean")


class RTFMAnomalyDetector(BaseAnomalyDetector):
    r"""Robust temporal feature magnitude learning.

    A network that sees the neighbourhood of a snippet, by dilated convolutions, and
    the whole video, by attention, learns features whose *norm* tells: the largest
    norms of an anomalous video shall be near a margin, those of a normal video near
    0. The snippets of largest norm are also those whose scores are trained by the
    label of the video [1]_.

    The network's defaults are the paper's; `as_published` has its values of training
    and scaling, too. The video score is the maximum of the snippet scores.

    Parameters
    ----------
    hidden_dims : tuple of int, default=(512, 128)
        Widths of the classifier's hidden layers.
    dropout : float, default=0.7
        After each of them.
    n_segments : int or None, default=32
        Training pools each bag into so many segments, by mean; None trains on
        the ragged bags. Scoring always sees the snippets.
    k : int, default=3
        Snippets, or segments, of largest feature norm that stand for a video.
    margin : float, default=100.0
        Where the norms of anomalous videos are drawn to.
    magnitude_weight : float, default=1e-4
        Of the feature magnitude loss.
    smoothness : float, default=8e-4
        Weight of the squared differences of consecutive scores.
    sparsity : float, default=8e-3
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
    batch_size : int, default=64
        Videos in a batch, 32 of each class; 2 or more.
    lr : float, default=3e-4
        Initial learning rate.
    lr_decay : {"cosine", None}, default="cosine"
        How the learning rate falls to 0 over `max_epochs` in `fit`.
    optimizer : {"adam", "adamw", "adagrad", "sgd"}, default="adam"
    weight_decay : float, default=5e-3
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
    DDLAnomalyDetector : Attention with a sense of place.

    Notes
    -----
    Attention looks at the whole video, so scores can't be computed online. It has no
    softmax, so time and memory grow with the length of a video, not with its square.

    References
    ----------
    .. [1] Y. Tian, G. Pang, Y. Chen, R. Singh, J. W. Verjans and G. Carneiro,
       "Weakly-supervised video anomaly detection with robust temporal feature
       magnitude learning", ICCV 2021.

    Examples
    --------
    >>> from sklearn_vad import RTFMAnomalyDetector
    >>> from sklearn_vad.datasets import make_bags
    >>> bags, y = make_bags(n_bags=20, random_state=0)
    >>> est = RTFMAnomalyDetector(max_epochs=2, random_state=0).fit(bags, y)
    >>> len(est.score_snippets(bags)[3]) == len(bags[3])
    True
    """

    _published = {
        "input_scaling": None,
        "max_epochs": 50,
        "lr": 1e-3,
        "lr_decay": None,
    }

    _parameter_constraints = {
        **BaseAnomalyDetector._parameter_constraints,
        "batch_size": [Interval(Integral, 2, None, closed="left")],  # one of each class
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "n_segments": [Interval(Integral, 1, None, closed="left"), None],
        "k": [Interval(Integral, 1, None, closed="left")],
        "margin": [Real],
        "magnitude_weight": [Interval(Real, 0, None, closed="left")],
        "smoothness": [Interval(Real, 0, None, closed="left")],
        "sparsity": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        *,
        hidden_dims=(512, 128),
        dropout=0.7,
        n_segments=32,
        k=3,
        margin=100.0,
        magnitude_weight=1e-4,
        smoothness=8e-4,
        sparsity=8e-3,
        input_scaling="uniform",
        n_components=None,
        video_weight=0.0,
        max_epochs=20,
        batch_size=64,
        lr=3e-4,
        lr_decay="cosine",
        optimizer="adam",
        weight_decay=5e-3,
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
        self.k = k
        self.margin = margin
        self.magnitude_weight = magnitude_weight
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
        widths = check_widths("hidden_dims", self.hidden_dims)
        return RTFMNet(n_features, widths, self.dropout, self.n_components)

    def _loss_terms(self):
        return functools.partial(
            rtfm_loss_terms,
            k=self.k,
            margin=self.margin,
            magnitude_weight=self.magnitude_weight,
            smoothness=self.smoothness,
            sparsity=self.sparsity,
        )

    def _training_view(self):
        if self.n_segments is None:
            return super()._training_view()
        return functools.partial(_pool, n_segments=self.n_segments)
