"""DDL: locality-aware attention and discriminative dynamics learning.

Y. Pu and X. Wu, "Locality-aware attention network with discriminative dynamics
learning for weakly supervised anomaly detection", ICME 2022.

Where the paper is silent or contradicts itself, we do this:

- Eq. 1 has no 1/sqrt(d), as printed; the projections carry no biases.
- Eq. 3: the prior is added after the softmax, not renormalised, the same for
  every head, as printed. `prior="before"` reads "bias term" as one of the logits.
- The "1x1 causal convolution with kernel size K" covers K snippets of the past.
- GELU (exact) and dropout follow both layers of the MLP.
- Eq. 6 is the full binary cross-entropy; as printed, without the term of normal
  videos, scores of 1 everywhere would be optimal.
- Eq. 8 is the mean over all (anomalous, normal) pairs of the batch.
"""

import functools
import itertools
import math
from numbers import Integral, Real

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn

from .. import _engine
from .._locality import (
    dense_attention_weights,
    dense_locality_aware_attention,
    prior_reach,
)
from .._packing import Packing
from .._products import linear
from ..base import BaseAnomalyDetector, check_widths
from ..functional import (
    dynamics_alignment_loss,
    dynamics_ranking_loss,
    locality_aware_attention,
    mil_bce_loss,
)
from ..layers import Dropout, InputScaling, Linear, probabilities
from ..timeline import uniform_rows


class LANet(nn.Module):
    """Locality-aware attention, MLP and causal convolution, Eqs. 1-5.

    Parameters
    ----------
    n_features : int
        D.
    n_heads, hidden_dim : int
        k and D_h; the heads share the hidden dimension.
    sigma : float or None
        Of the location prior; None leaves it out.
    prior : {"after", "before"}
        Where the prior is added, after the softmax or before it.
    mlp_dims : tuple of int
    kernel_size : int
        K, in snippets.
    dropout : float
    n_components : int, default=None
        See `InputScaling`.
    """

    def __init__(
        self,
        n_features,
        n_heads,
        hidden_dim,
        sigma,
        prior,
        mlp_dims,
        kernel_size,
        dropout,
        n_components=None,
    ):
        super().__init__()
        self.attention = locality_aware_attention
        self.portable = False
        self.n_heads = n_heads
        self.sigma = sigma
        self.scaling = InputScaling(n_features, n_components=n_components)
        n_features = self.scaling.n_out
        self.prior = prior
        self.query = Linear(n_features, hidden_dim, bias=False)  # phi
        self.key = Linear(n_features, hidden_dim, bias=False)  # psi
        self.value = Linear(n_features, hidden_dim, bias=False)  # W_k
        self.out = Linear(hidden_dim, n_features, bias=False)  # W_h
        self.norm = nn.LayerNorm(n_features)
        widths = [n_features, *mlp_dims]
        layers = []
        for fan_in, fan_out in itertools.pairwise(widths):
            layers += [Linear(fan_in, fan_out), nn.GELU(), Dropout(dropout)]
        self.mlp = nn.Sequential(*layers)
        self.regressor = nn.Conv1d(widths[-1], 1, kernel_size)
        self.held_per_snippet = 2 * hidden_dim  # by `run_in_pieces`: keys and values

    def make_portable(self):
        """Compute by operators that every runtime has, on padding, too."""
        self.attention = dense_locality_aware_attention
        self.portable = True

    def _split_heads(self, x):
        return x.unflatten(2, (self.n_heads, -1)).transpose(1, 2)  # (B, heads, T, d)

    def _attend(self, query, key, value, mask=None, **rows):
        """Attend in all heads; (B, T, D_h), of the snippets of `query`."""
        heads = [self._split_heads(x) for x in (query, key, value)]
        attended = self.attention(*heads, self.sigma, mask, prior=self.prior, **rows)
        return attended.transpose(1, 2).flatten(2)

    def _features(self, X, attended):
        """Return what Eq. 4 and the perceptron make of it; (..., mlp_dims[-1])."""
        return self.mlp(self.norm(self.out(attended).add_(X)))

    def _regress(self, features):
        """Score snippets, K - 1 before them included, Eq. 5; (B, T)."""
        kernel = self.regressor.weight.squeeze(0).t()  # (K, mlp_dims[-1])
        # A convolution to one channel is K sums of shifted products.
        products = linear(features, kernel)
        n = features.shape[1] - len(kernel) + 1
        logits = [products[:, i : n + i, i] for i in range(len(kernel))]
        return probabilities(self.regressor.bias + sum(logits))

    def _pad(self, features):
        """Put K - 1 snippets of zeros before the first."""
        return F.pad(features, (0, 0, self.regressor.kernel_size[0] - 1, 0))

    def forward(self, X, mask, window=None):
        if self.portable:
            X = self.scaling(X)
            attended = self._attend(self.query(X), self.key(X), self.value(X), mask)
            features = self._features(X, attended)
        else:
            packing = Packing(mask)
            X = self.scaling(packing.pack(X))  # (N, D), the snippets of all bags
            projections = self.query(X), self.key(X), self.value(X)
            attend = functools.partial(self._attend, window=window)
            attended = packing.attend(attend, *projections)
            features = packing.unpack(self._features(X, attended))
        return {"scores": self._regress(self._pad(features)), "features": features}

    def run_in_pieces(self, bag, n, window=None):
        """Score a long video, n snippets at a time; as `forward`, to rounding.

        Beside the piece, only the keys and values that it attends to are held.

        Parameters
        ----------
        bag : ndarray of shape (n_snippets, n_features)
        n : int
        window : int, default=None
            See `locality_aware_attention`. Pieces are whole blocks then.

        Returns
        -------
        output : dict
            "scores", of shape ``(n_snippets,)``.
        """
        n_all, beside = len(bag), len(bag)
        if window is not None:
            n = max(n // window, 1) * window
            reach = 0 if self.sigma is None else prior_reach(n_all, self.sigma)
            beside = max(math.ceil(reach / window), 1) * window
        held, begin = [], 0  # keys and values of the snippets from `begin` on
        scores, past = [], None  # features of the K - 1 snippets before
        for i in range(0, n_all, n):
            seen = held[0].shape[1] if held else 0
            new = bag[begin + seen : i + n + beside]
            start = max(i - beside, 0)
            held = self._hold(held, start - begin, new, n)
            begin = start
            X = self._read(bag[i : i + n])
            attended = self._attend(
                self.query(X), *held, first=i - begin, window=window
            )
            features = self._features(X, attended)
            if past is None:
                known = self._pad(features)
            else:
                known = torch.cat([past, features], dim=1)
            scores.append(self._regress(known)[0])
            past = known[:, features.shape[1] :]
        return {"scores": torch.cat(scores)}

    def attention_map(self, bag, with_prior=True):
        """Return the weights of Eq. 3 in every head, (n_heads, T, T).

        Parameters
        ----------
        bag : ndarray of shape (n_snippets, n_features)
        with_prior : bool, default=True
            False gives the softmax of Eq. 1 alone.
        """
        X = self._read(bag)
        heads = [self._split_heads(layer(X)) for layer in (self.query, self.key)]
        mask = X.new_ones(X.shape[:2], dtype=torch.bool)
        sigma = self.sigma if with_prior else None
        return dense_attention_weights(*heads, sigma, mask, self.prior)[0]

    def _hold(self, held, n_gone, new, n):
        """Return keys and values, (1, T, D_h) each, without old and with new ones."""
        kept = [x[:, n_gone:] for x in held]
        if len(new) == 0:
            return kept
        n_kept = kept[0].shape[1] if kept else 0
        for i in range(0, len(new), n):
            X = self._read(new[i : i + n])
            found = self.key(X), self.value(X)
            if i == 0:
                held = [x.new_empty(1, n_kept + len(new), x.shape[2]) for x in found]
            for whole, piece in zip(held, found, strict=True):
                whole[:, n_kept + i : n_kept + i + n] = piece
        for whole, old in zip(held, kept or held, strict=True):
            whole[:, :n_kept] = old[:, :n_kept]
        return held

    def _read(self, piece):
        X = torch.from_numpy(np.array(piece, dtype=np.float32))
        return self.scaling(X.to(self.key.weight.device).unsqueeze(0))


def ddl_loss_terms(output, y, mask, *, ranking_weight, alignment_weight, margin, eps):
    """Return the terms of Eq. 11, by name; their sum is the loss."""
    scores, features = output["scores"], output["features"]
    terms = {"mil": mil_bce_loss(scores, y, mask)}
    if ranking_weight:
        ranking = dynamics_ranking_loss(scores, y, mask, margin)
        terms["dynamics_ranking"] = ranking_weight * ranking
    if alignment_weight:
        alignment = dynamics_alignment_loss(scores, features, mask, eps)
        terms["dynamics_alignment"] = alignment_weight * alignment
    return terms


def _sample_uniformly(bag, max_snippets):
    if max_snippets is None or len(bag) <= max_snippets:
        return bag  # and no copy
    return bag[uniform_rows(len(bag), max_snippets)]


class DDLAnomalyDetector(BaseAnomalyDetector):
    r"""Locality-aware attention network with discriminative dynamics learning.

    Self-attention, re-calibrated by a Gaussian-like prior on the distance of
    snippets, feeds a multilayer perceptron and a causal convolution. Besides
    the multiple instance loss, two losses work on the *dynamics*, the change
    from a snippet to the next: the scores of anomalous videos shall change
    more than those of normal videos, and scores shall change where features do
    [1]_.

    The network's defaults are the paper's for UCF-Crime, those of training and
    scaling suit most features; `as_published` and `for_xd_violence` have the
    paper's two settings. The video score is the mean of the ``T // 16 + 1`` highest
    snippet scores.

    Parameters
    ----------
    n_heads : int, default=4
        Attention heads, k of Eq. 1.
    hidden_dim : int, default=512
        Width of the attention, D_h of Eq. 4; a multiple of `n_heads`.
    sigma : float or None, default=16.0
        Width of the location prior of Eq. 2, in snippets squared; None leaves
        the prior out.
    prior : {"after", "before"}, default="after"
        "after" adds the prior to the attention weights, after the softmax, as
        Eq. 3 has it; "before" adds it to the logits, inside the softmax.
    mlp_dims : tuple of int, default=(512, 128)
        Widths of the perceptron's layers.
    kernel_size : int, default=10
        Snippets that the causal convolution of Eq. 5 sees: the present one and
        those before it.
    dropout : float, default=0.1
        After each layer of the perceptron.
    max_snippets : int or None, default=200
        Longer bags are sampled uniformly to this number in training; shorter
        ones stay as they are. Scoring always sees the whole video.
    ranking_weight : float, default=1.0
        lambda_1 of Eq. 11, of the dynamics ranking loss.
    alignment_weight : float, default=1.0
        lambda_2 of Eq. 11, of the dynamics alignment loss.
    margin : float, default=0.0
        zeta of Eq. 8.
    eps : float, default=1e-7
        epsilon of Eq. 10.
    attention_window : int or None, default=None
        For videos of hours. Scoring cuts a video into blocks of so many snippets, and
        each attends to its own block and the two beside it instead of the whole video:
        time and memory grow with the length, no more with its square. Shorter videos,
        up to two blocks, get the same scores. Training sees `max_snippets` anyway.
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
    batch_size : int, default=32
        Videos in a batch.
    lr : float, default=1e-4
        Initial learning rate.
    lr_decay : {"cosine", None}, default="cosine"
        How the learning rate falls to 0 over `max_epochs` in `fit`.
    optimizer : {"adam", "adamw", "adagrad", "sgd"}, default="adam"
    weight_decay : float, default=0.0
        On weights, not on biases and norms.
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

    Notes
    -----
    Attention looks at the whole video, so scores can't be computed online.

    The paper's `sigma` and `kernel_size` are of ragged videos. Where videos are
    pooled into 32 segments, which cover more time each, ``sigma=1, kernel_size=3``
    did better (docs/results.md).

    References
    ----------
    .. [1] Y. Pu and X. Wu, "Locality-aware attention network with
       discriminative dynamics learning for weakly supervised anomaly
       detection", ICME 2022.

    Examples
    --------
    >>> from sklearn_vad import DDLAnomalyDetector
    >>> from sklearn_vad.datasets import make_bags
    >>> bags, y = make_bags(n_bags=20, random_state=0)
    >>> est = DDLAnomalyDetector(hidden_dim=32, max_epochs=2, random_state=0)
    >>> scores = est.fit(bags, y).score_snippets(bags)
    >>> len(scores) == len(bags) and len(scores[3]) == len(bags[3])
    True
    """

    _published = {
        "input_scaling": None,
        "max_epochs": 50,
        "batch_size": 128,
        "lr": 5e-4,
    }

    _video_score_rule = "mean of the n // 16 + 1 highest of n snippets' scores"

    _parameter_constraints = {
        **BaseAnomalyDetector._parameter_constraints,
        "n_heads": [Interval(Integral, 1, None, closed="left")],
        "hidden_dim": [Interval(Integral, 1, None, closed="left")],
        "sigma": [Interval(Real, 0, None, closed="neither"), None],
        "prior": [StrOptions({"after", "before"})],
        "kernel_size": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "max_snippets": [Interval(Integral, 2, None, closed="left"), None],
        "ranking_weight": [Interval(Real, 0, None, closed="left")],
        "alignment_weight": [Interval(Real, 0, None, closed="left")],
        "margin": [Real],
        "eps": [Interval(Real, 0, None, closed="neither")],
        "attention_window": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(
        self,
        *,
        n_heads=4,
        hidden_dim=512,
        sigma=16.0,
        prior="after",
        mlp_dims=(512, 128),
        kernel_size=10,
        dropout=0.1,
        max_snippets=200,
        ranking_weight=1.0,
        alignment_weight=1.0,
        margin=0.0,
        eps=1e-7,
        attention_window=None,
        input_scaling="uniform",
        n_components=None,
        video_weight=0.0,
        max_epochs=20,
        batch_size=32,
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
        self.n_heads = n_heads
        self.hidden_dim = hidden_dim
        self.sigma = sigma
        self.prior = prior
        self.mlp_dims = mlp_dims
        self.kernel_size = kernel_size
        self.dropout = dropout
        self.max_snippets = max_snippets
        self.ranking_weight = ranking_weight
        self.alignment_weight = alignment_weight
        self.margin = margin
        self.eps = eps
        self.attention_window = attention_window
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

    @classmethod
    def for_xd_violence(cls, **params):
        """Return a detector with the paper's setting for XD-Violence.

        Parameters
        ----------
        **params
            Parameters that shall differ from that setting.

        Returns
        -------
        detector : DDLAnomalyDetector

        Examples
        --------
        >>> from sklearn_vad import DDLAnomalyDetector
        >>> DDLAnomalyDetector.for_xd_violence().hidden_dim
        128
        """
        setting = {
            **cls._published,
            "hidden_dim": 128,
            "sigma": 6.0,
            "kernel_size": 5,
            "ranking_weight": 2.0,
            "alignment_weight": 1.0,
        }
        return cls(**{**setting, **params})

    @torch.inference_mode()
    def attention_map(self, bag, *, with_prior=True):
        """Return how much each snippet of a video attends to each other.

        Parameters
        ----------
        bag : array-like of shape (n_snippets, n_features)
            One video.
        with_prior : bool, default=True
            With the location prior, as the network has it; False leaves it out of
            the same network, for comparison.

        Returns
        -------
        attention : ndarray of shape (n_heads, n_snippets, n_snippets)
            float32, a row for each snippet that attends. Without the prior rows add
            up to 1; with the prior "after" the softmax, to more.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError, TypeError
            For input of a wrong kind, or unlike that of `fit`, and for a video whose
            map takes more than `memory_limit`.

        See Also
        --------
        sklearn_vad.display.AttentionDisplay : Draws it.

        Examples
        --------
        >>> from sklearn_vad import DDLAnomalyDetector
        >>> from sklearn_vad.datasets import make_bags
        >>> bags, y = make_bags(n_bags=20, random_state=0)
        >>> est = DDLAnomalyDetector(hidden_dim=32, max_epochs=2, random_state=0)
        >>> attention = est.fit(bags, y).attention_map(bags[0], with_prior=False)
        >>> attention.shape == (4, len(bags[0]), len(bags[0]))
        True
        >>> attention[0, 0].sum().round(3)
        np.float32(1.0)
        """
        check_is_fitted(self, "net_")
        self._check_memory_limit()
        bags = self._check_X([bag])
        n_snippets, module = int(bags.lengths[0]), self.net_.module_
        # Logits, weights and their sum with the prior are there at once.
        needed = 4 * 4 * module.n_heads * n_snippets**2 / 2**30
        if needed > self.memory_limit:
            raise ValueError(
                f"the attention map of {n_snippets} snippets takes {needed:.1f} GiB,"
                f" memory_limit={self.memory_limit} are allowed"
            )
        with _engine.cpu_threads(self.n_jobs):
            return module.attention_map(bags[0], with_prior).cpu().numpy()

    def _make_module(self, n_features):
        if self.hidden_dim % self.n_heads:
            raise ValueError(
                f"hidden_dim={self.hidden_dim} is no multiple of n_heads={self.n_heads}"
            )
        return LANet(
            n_features,
            self.n_heads,
            self.hidden_dim,
            self.sigma,
            self.prior,
            check_widths("mlp_dims", self.mlp_dims),
            self.kernel_size,
            self.dropout,
            self.n_components,
        )

    def _loss_terms(self):
        return functools.partial(
            ddl_loss_terms,
            ranking_weight=self.ranking_weight,
            alignment_weight=self.alignment_weight,
            margin=self.margin,
            eps=self.eps,
        )

    def _outputs(self, net, bags, names, progress=False, view=None):
        window = self.attention_window  # may have changed since `fit` checked it
        if window is not None and not (isinstance(window, Integral) and window >= 1):
            raise ValueError(
                f"attention_window={window!r}, expected a number of snippets or None"
            )
        return super()._outputs(net, bags, names, progress, view, window=window)

    def _on_cpu(self):
        if self.attention_window is not None:
            raise ValueError(
                f"attention_window={self.attention_window} can't be exported: the graph"
                " attends to the whole video; set it to None"
            )
        return super()._on_cpu()

    def _training_view(self):
        return functools.partial(_sample_uniformly, max_snippets=self.max_snippets)

    def _video_score(self, scores):
        k = len(scores) // 16 + 1
        return scores[scores.argpartition(-k)[-k:]].mean()

    def _graph_video_scores(self, scores, mask):
        # `topk_mean` takes as many scores as it needs: a number that depends on data.
        k = mask.sum(dim=1, keepdim=True) // 16 + 1
        rank = torch.arange(mask.shape[1], device=mask.device)
        highest = scores.sort(dim=1, descending=True).values
        return highest.masked_fill(rank >= k, 0).sum(dim=1) / k.squeeze(1)
