"""Losses and attention terms of the papers, as pure functions of tensors.

Every function takes any float dtype on any device, is differentiable, and is
batch first. `mask` is bool ``(B, T)``, True for a real snippet; None means that
all are real. Padded entries never change a value and never receive a gradient,
whatever they hold. `y` is ``(B,)`` with 1 for an anomalous and 0 for a normal
video; classes are told apart by `y`, never by position.

Half-precision input of a loss is computed in float32, under autocast too.

References
----------
- DDL: Y. Pu and X. Wu, "Locality-aware attention network with discriminative
  dynamics learning for weakly supervised anomaly detection", ICME 2022.
- Sultani: W. Sultani, C. Chen and M. Shah, "Real-world anomaly detection in
  surveillance videos", CVPR 2018.
- DAM: S. Majhi, S. Das and F. Brémond, "DAM: Dissimilarity attention module for
  weakly-supervised video anomaly detection", AVSS 2021.
- STA: Y. Liu, J. Liu, X. Zhu, D. Wei, X. Huang and L. Song, "Learning task-specific
  representation for video anomaly detection with spatial-temporal attention",
  ICASSP 2022.
- RTFM: Y. Tian, G. Pang, Y. Chen, R. Singh, J. W. Verjans and G. Carneiro,
  "Weakly-supervised video anomaly detection with robust temporal feature magnitude
  learning", ICCV 2021.
"""

import functools
import math

import torch
import torch.nn.functional as F

from ._criss_cross import CHUNK, criss_cross
from ._locality import attend

__all__ = [
    "criss_cross_attention",
    "dissimilarities",
    "dissimilarity_map",
    "dynamics_alignment_loss",
    "dynamics_ranking_loss",
    "feature_magnitude_loss",
    "locality_aware_attention",
    "locality_prior",
    "magnitude_bce_loss",
    "mil_bce_loss",
    "mil_ranking_loss",
    "mutual_cosine_embedding_loss",
    "shift_by_one",
    "smooth_sparse_loss",
    "topk_mean",
]


# --------------------------------------------------------------------------
# Common steps
# --------------------------------------------------------------------------
def _in_full_precision(function):
    """Run a loss outside of autocast, with its half-precision tensors in float32."""

    def widen(value):
        half = isinstance(value, torch.Tensor) and value.dtype in (
            torch.float16,
            torch.bfloat16,
        )
        return value.float() if half else value

    @functools.wraps(function)
    def wrapper(scores, *args, **kwargs):
        with torch.autocast(scores.device.type, enabled=False):
            kwargs = {name: widen(value) for name, value in kwargs.items()}
            return function(widen(scores), *map(widen, args), **kwargs)

    return wrapper


def _real(scores, mask):
    """Return the mask, all True when None."""
    return torch.ones_like(scores, dtype=torch.bool) if mask is None else mask


def _zero_padding(values, mask):
    """Replace padded entries of ``(B, T)`` or ``(B, T, ...)`` by zeros."""
    if mask is None:
        return values
    return values.masked_fill(~mask.view(*mask.shape, *[1] * (values.ndim - 2)), 0)


def _n_top(mask, y):
    """Return k of the k-max rule: T // 16 + 1 for anomalous bags, 1 for normal."""
    lengths = mask.sum(dim=1)
    return torch.where(y.bool(), lengths // 16 + 1, torch.ones_like(lengths))


def _mean_hinge(higher, lower, y, margin):
    """Mean of max(0, margin - higher_a + lower_n) over all (a, n) pairs, or 0."""
    anomalous, normal = higher[y.bool()], lower[~y.bool()]
    hinge = F.relu(margin - anomalous[:, None] + normal[None, :])
    return hinge.sum() / max(hinge.numel(), 1)


# --------------------------------------------------------------------------
# Multiple instance learning
# --------------------------------------------------------------------------
def topk_mean(scores, k, mask=None):
    """Mean of the k highest scores of each bag.

    Parameters
    ----------
    scores : Tensor of shape (B, T)
    k : int or integer Tensor of shape (B,)
        At least 1. A bag with fewer real snippets uses all that it has.
    mask : bool Tensor of shape (B, T), default=None

    Returns
    -------
    mean : Tensor of shape (B,)
        0 for a bag without a real snippet.

    Examples
    --------
    >>> import torch
    >>> from sklearn_vad.functional import topk_mean
    >>> topk_mean(torch.tensor([[1.0, 5.0, 3.0]]), 2)
    tensor([4.])
    """
    real = _real(scores, mask)
    k = torch.as_tensor(k, device=scores.device).expand(len(scores))
    k = torch.minimum(k, real.sum(dim=1))
    top = scores.masked_fill(~real, -math.inf).topk(int(k.max()), dim=1).values
    used = torch.arange(top.shape[1], device=scores.device) < k[:, None]  # (B, k_max)
    return top.masked_fill(~used, 0).sum(dim=1) / k.clamp(min=1)


@_in_full_precision
def mil_bce_loss(scores, y, mask=None):
    r"""Binary cross-entropy of the k-max video score, Eq. 6 of DDL.

    .. math:: -\frac{1}{N} \sum_i y_i \log(p_i) + (1 - y_i) \log(1 - p_i)

    where p is the mean of the k highest scores, k = T // 16 + 1 for anomalous
    and 1 for normal bags. The paper prints the first term only, with which
    scores of 1 everywhere are optimal.

    Parameters
    ----------
    scores : Tensor of shape (B, T)
        In [0, 1].
    y : Tensor of shape (B,)
    mask : bool Tensor of shape (B, T), default=None

    Returns
    -------
    loss : Tensor of shape ()
        Mean over bags.

    Examples
    --------
    >>> import torch
    >>> from sklearn_vad.functional import mil_bce_loss
    >>> mil_bce_loss(torch.tensor([[0.5, 0.1]]), torch.tensor([1])).round(decimals=4)
    tensor(0.6931)
    """
    p = topk_mean(scores, _n_top(_real(scores, mask), y), mask)
    return F.binary_cross_entropy(p, y.to(p.dtype))


@_in_full_precision
def mil_ranking_loss(
    scores, y, mask=None, margin=1.0, smoothness=8e-5, sparsity=8e-5, reduction="mean"
):
    r"""MIL ranking loss with smoothness and sparsity terms, Eqs. 6-7 of Sultani.

    .. math:: \max(0, m - \max_t s^a_t + \max_t s^n_t)
              + \lambda_1 \sum_t (s^a_{t+1} - s^a_t)^2 + \lambda_2 \sum_t s^a_t

    Parameters
    ----------
    scores : Tensor of shape (B, T)
    y : Tensor of shape (B,)
    mask : bool Tensor of shape (B, T), default=None
    margin, smoothness, sparsity : float
        m, lambda_1 and lambda_2 above.
    reduction : {"mean", "sum"}, default="mean"
        Over anomalous bags, of the last two terms. The hinge is always the
        mean over all (anomalous, normal) pairs.

    Returns
    -------
    loss : Tensor of shape ()
        A class missing from the batch drops the terms that need it.

    Raises
    ------
    ValueError
        For an unknown `reduction`.

    Examples
    --------
    >>> import torch
    >>> from sklearn_vad.functional import mil_ranking_loss
    >>> scores = torch.tensor([[0.75, 0.25], [0.5, 0.25]])
    >>> mil_ranking_loss(scores, torch.tensor([1, 0]), smoothness=0, sparsity=0)
    tensor(0.7500)
    """
    top = scores.masked_fill(~_real(scores, mask), -math.inf).amax(dim=1)
    penalty = smooth_sparse_loss(scores, y, mask, smoothness, sparsity, reduction)
    return _mean_hinge(top, top, y, margin) + penalty


@_in_full_precision
def smooth_sparse_loss(
    scores, y, mask=None, smoothness=8e-5, sparsity=8e-5, reduction="mean"
):
    r"""Temporal smoothness and sparsity of anomalous videos, Eqs. 5-6 of Sultani.

    .. math:: \lambda_1 \sum_t (s^a_{t+1} - s^a_t)^2 + \lambda_2 \sum_t s^a_t

    Parameters
    ----------
    scores : Tensor of shape (B, T)
    y : Tensor of shape (B,)
    mask : bool Tensor of shape (B, T), default=None
    smoothness, sparsity : float
        lambda_1 and lambda_2 above.
    reduction : {"mean", "sum"}, default="mean"
        Over anomalous bags.

    Returns
    -------
    loss : Tensor of shape ()
        0 without an anomalous bag.

    Raises
    ------
    ValueError
        For an unknown `reduction`.

    Examples
    --------
    >>> import torch
    >>> from sklearn_vad.functional import smooth_sparse_loss
    >>> scores = torch.tensor([[0.5, 1.0], [0.0, 1.0]])
    >>> smooth_sparse_loss(scores, torch.tensor([1, 0]), smoothness=2, sparsity=1)
    tensor(2.)
    """
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
    real, kept = _real(scores, mask), _zero_padding(scores, mask)
    steps = (kept[:, 1:] - kept[:, :-1]) * (real[:, 1:] & real[:, :-1])
    penalty = smoothness * steps.square().sum(dim=1) + sparsity * kept.sum(dim=1)
    penalty = penalty[y.bool()]
    return penalty.sum() / (max(len(penalty), 1) if reduction == "mean" else 1)


# --------------------------------------------------------------------------
# DDL: discriminative dynamics learning
# --------------------------------------------------------------------------
@_in_full_precision
def dynamics_ranking_loss(scores, y, mask=None, margin=0.0):
    r"""Rank score dynamics of anomalous above those of normal bags, Eqs. 7-8 of DDL.

    With the score dynamics :math:`\delta_t = \lvert s_t - s_{t+1} \rvert`, a bag's
    energy E is the mean of its k largest :math:`\delta_t^2`, k = T // 16 + 1 for
    anomalous and 1 for normal bags; the loss is :math:`\max(0, \zeta - E^a + E^n)`.

    Parameters
    ----------
    scores : Tensor of shape (B, T)
    y : Tensor of shape (B,)
    mask : bool Tensor of shape (B, T), default=None
    margin : float, default=0.0
        The paper's zeta.

    Returns
    -------
    loss : Tensor of shape ()
        Mean over all (anomalous, normal) pairs of the batch; 0 when a class is
        missing. Bags of one snippet have energy 0.

    Examples
    --------
    >>> import torch
    >>> from sklearn_vad.functional import dynamics_ranking_loss
    >>> scores = torch.tensor([[0.5, 0.5, 0.5], [0.0, 1.0, 1.0]])
    >>> dynamics_ranking_loss(scores, torch.tensor([1, 0]))
    tensor(1.)
    """
    real = _real(scores, mask)
    kept = _zero_padding(scores, mask)
    steps = (kept[:, 1:] - kept[:, :-1]).square()  # (B, T - 1)
    energy = topk_mean(steps, _n_top(real, y), real[:, 1:] & real[:, :-1])
    return _mean_hinge(energy, energy, y, margin)


def _feature_steps(features):
    """Return 1 - cos of consecutive rows, (B, T - 1); 1 next to a row of zeros."""
    norm = torch.linalg.vector_norm(features, dim=2, keepdim=True)
    unit = features / norm.where(norm > 0, 1)
    turned = (unit[:, 1:] - unit[:, :-1]).square().sum(dim=2) / 2
    nonzero = norm.squeeze(2) > 0
    return turned.where(nonzero[:, 1:] & nonzero[:, :-1], 1)


@_in_full_precision
def dynamics_alignment_loss(scores, features, mask=None, eps=1e-7):
    r"""Align score dynamics with feature dynamics, Eqs. 9-10 of DDL.

    .. math:: \frac{1}{N} \sum_i \frac{1}{T_i - 1}
              \sum_t -\delta^s_t \log(\delta^f_t + \epsilon),
              \quad \delta^s_t = \lvert s_t - s_{t+1} \rvert,
              \quad \delta^f_t = 1 - \cos(x_t, x_{t+1})

    Both dynamics receive gradients, and all bags take part, normal ones too.
    :math:`\delta^f` is computed as half the squared distance of the unit rows,
    which is the same number, but exactly 0 for equal rows, where 1 - cos is off
    by more than :math:`\epsilon` in float32, on either side of 0. A row of zeros
    has cosine 0 with any other.

    Parameters
    ----------
    scores : Tensor of shape (B, T)
    features : Tensor of shape (B, T, C)
    mask : bool Tensor of shape (B, T), default=None
    eps : float, default=1e-7

    Returns
    -------
    loss : Tensor of shape ()
        Mean over the T_i - 1 steps of a bag, then over all bags; bags of one
        snippet count 0. It is negative where features turn by more than 90
        degrees.

    Examples
    --------
    >>> import torch
    >>> from sklearn_vad.functional import dynamics_alignment_loss
    >>> features = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])
    >>> dynamics_alignment_loss(torch.tensor([[0.0, 1.0]]), features)
    tensor(1.2279)
    """
    real = _real(scores, mask)
    kept, features = _zero_padding(scores, mask), _zero_padding(features, mask)
    score_steps = (kept[:, 1:] - kept[:, :-1]).abs()  # (B, T - 1)
    steps = real[:, 1:] & real[:, :-1]
    cross = -score_steps * torch.log(_feature_steps(features) + eps) * steps
    return (cross.sum(dim=1) / steps.sum(dim=1).clamp(min=1)).mean()


# --------------------------------------------------------------------------
# DDL: locality-aware attention
# --------------------------------------------------------------------------
def locality_prior(n_snippets, sigma):
    r"""Gaussian-like location prior, Eq. 2 of DDL.

    .. math:: G_{ij} = \exp\left(-\frac{|i - j|^2}{2 \sigma}\right)

    Parameters
    ----------
    n_snippets : int
        T.
    sigma : float
        Not squared, as printed. A full row sums to about sqrt(2 pi sigma).

    Returns
    -------
    prior : Tensor of shape (T, T)
        In torch's default dtype, on the CPU.

    Examples
    --------
    >>> from sklearn_vad.functional import locality_prior
    >>> locality_prior(3, sigma=0.5)[0]
    tensor([1.0000, 0.3679, 0.0183])
    """
    position = torch.arange(n_snippets, dtype=torch.get_default_dtype())
    return torch.exp(-(position[:, None] - position).square() / (2 * sigma))


def locality_aware_attention(
    query, key, value, sigma, mask=None, *, prior="after", first=0, window=None
):
    r"""Self-attention re-calibrated by a location prior, Eqs. 1-4 of DDL.

    .. math:: (\mathrm{softmax}(Q K^T) + G)\, V

    The logits are not scaled, the prior is added after the softmax, the same
    for every head, and the sum is not renormalised, all as printed. No T x T
    tensor is made: the softmax runs in blocks, and the prior as a product with
    a band outside of which it vanishes in the dtype at hand. (For float64 on
    CUDA torch has no such softmax.)

    With ``prior="before"`` the same prior, not its logarithm, is added to the
    logits instead, so that the weights of a row sum to 1:

    .. math:: \mathrm{softmax}(Q K^T + G)\, V

    Parameters
    ----------
    query, key, value : Tensor of shape (B, heads, T, d)
    sigma : float or None
        Width of the prior, see `locality_prior`; None leaves the prior out.
    mask : bool Tensor of shape (B, T), default=None
        Every bag needs at least one real snippet.
    prior : {"after", "before"}, default="after"
        Add the prior after the softmax, as printed, or before it.
    first : int, default=0
        `query` may hold some rows only, those of the snippets from `first` on:
        so long videos go in pieces, with the same result. Without a mask.
    window : int, default=None
        Cut the snippets into blocks of so many; each attends to its own block and
        the two beside it only, an approximation in time linear in T. It is exact up
        to two blocks. A prior that is added after the softmax stays whole.

    Returns
    -------
    out : Tensor of shape (B, heads, T, d)
        The rows of `query`; zero at padded snippets.

    Raises
    ------
    ValueError
        For an unknown `prior`, or a mask beside a query of some rows.

    Examples
    --------
    >>> import torch
    >>> from sklearn_vad.functional import locality_aware_attention
    >>> one = torch.ones(1, 1, 2, 1)
    >>> locality_aware_attention(one, one, one, sigma=0.5).ravel()
    tensor([2.3679, 2.3679])
    """
    if prior not in ("after", "before"):
        raise ValueError(f"prior must be 'after' or 'before', got {prior!r}")
    if mask is not None and query.shape[-2] != key.shape[-2]:
        raise ValueError(
            f"query holds {query.shape[-2]} of {key.shape[-2]} snippets, expected all"
            " of them beside a mask"
        )
    if mask is not None:
        keep = mask[:, None, :, None]  # (B, 1, T, 1)
        query, key, value = (x.masked_fill(~keep, 0) for x in (query, key, value))
    out = attend(query, key, value, sigma, mask, prior, first, window)
    return out if mask is None else out.masked_fill(~keep, 0)


# --------------------------------------------------------------------------
# DAM: dissimilarity attention
# --------------------------------------------------------------------------
def dissimilarities(snippets, previous, kind="dist"):
    r"""Dissimilarity of snippets to the ones before them, Eqs. 1-2 of DAM.

    "dist" sums absolute differences:

    .. math:: D_n[k] = \sum_j |C_i[j, k] - C_{i-1}[j, k]|, \quad
              D_t[j] = \sum_k |C_i[j, k] - C_{i-1}[j, k]|

    "cov" takes the diagonals of the cross-covariances, not normalised: of every
    channel over the steps for D_n, of every step over the channels for D_t. It
    grows with *similarity*, and is signed, as printed.

    Parameters
    ----------
    snippets, previous : Tensor of shape (..., steps, channels)
    kind : {"dist", "cov"}, default="dist"

    Returns
    -------
    d_n : Tensor of shape (..., 1, channels)
    d_t : Tensor of shape (..., steps, 1)

    Raises
    ------
    ValueError
        For an unknown `kind`.

    Examples
    --------
    >>> import torch
    >>> from sklearn_vad.functional import dissimilarities
    >>> d_n, d_t = dissimilarities(torch.ones(2, 3), torch.zeros(2, 3))
    >>> d_n, d_t.ravel()
    (tensor([[2., 2., 2.]]), tensor([3., 3.]))
    """
    if kind == "dist":
        change = (snippets - previous).abs()
        return change.sum(dim=-2, keepdim=True), change.sum(dim=-1, keepdim=True)
    if kind != "cov":
        raise ValueError(f"kind must be 'dist' or 'cov', got {kind!r}")

    def covariance(axis):
        centred = (x - x.mean(dim=axis, keepdim=True) for x in (snippets, previous))
        return math.prod(centred).sum(dim=axis, keepdim=True)

    return covariance(-2), covariance(-1)


def shift_by_one(snippets):
    """Return for each snippet the one before it in its bag; zeros for the first.

    Parameters
    ----------
    snippets : Tensor of shape (B, T, ...)

    Returns
    -------
    previous : Tensor of shape (B, T, ...)

    Examples
    --------
    >>> import torch
    >>> from sklearn_vad.functional import shift_by_one
    >>> shift_by_one(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[0., 1., 2.]])
    """
    return torch.cat([torch.zeros_like(snippets[:, :1]), snippets[:, :-1]], dim=1)


def dissimilarity_map(snippets, kind="dist", mask=None):
    r"""Dissimilarity map of snippets with inner time steps, Eqs. 1-3 of DAM.

    .. math:: D_{nt}[j, k] = D_t[j] \, D_n[k]

    with D_n and D_t of `dissimilarities`. The snippet before the first is zero.
    Nothing is normalised, as printed: values grow like steps * channels * f**2.

    Parameters
    ----------
    snippets : Tensor of shape (B, T, steps, channels)
    kind : {"dist", "cov"}, default="dist"
    mask : bool Tensor of shape (B, T), default=None

    Returns
    -------
    map : Tensor of shape (B, T, steps, channels)
        Zero at padded snippets.

    Raises
    ------
    ValueError
        For an unknown `kind`.

    Examples
    --------
    >>> import torch
    >>> from sklearn_vad.functional import dissimilarity_map
    >>> dissimilarity_map(torch.ones(1, 2, 2, 3))[0, :, 0]
    tensor([[6., 6., 6.],
            [0., 0., 0.]])
    """
    snippets = _zero_padding(snippets, mask)
    d_n, d_t = dissimilarities(snippets, shift_by_one(snippets), kind)
    return _zero_padding(d_n * d_t, mask)


# --------------------------------------------------------------------------
# STA: spatial-temporal attention
# --------------------------------------------------------------------------
def criss_cross_attention(
    x,
    query_weight,
    query_bias,
    key_weight,
    key_bias,
    mask=None,
    *,
    temperature=1.0,
):
    r"""One pass of criss-cross attention over feature maps, Eqs. 1-3 of STA.

    The features of a video are a map of one channel, snippets down and feature
    dimensions across. A 1x1 convolution makes a query and a key of D channels
    from each cell, :math:`q_{ij} = x_{ij} w_q + b_q`; each cell attends to its
    row and its column, itself once:

    .. math:: x'_{ij} = x_{ij} + \sum_{(m, n)} M^{ij}_{mn} x_{mn}, \quad
              M^{ij} = \mathrm{softmax} \left(
              \frac{\cos(q_{ij}, k_{mn})}{\tau} \right)_{m = i \, or \, n = j}

    As printed, :math:`\tau = 1`. Time and memory grow with T C, not with
    T C (T + C): the exponential of a cosine is a short Fourier series in the
    angles of query and key, so a row's sums over its keys are a few moments of
    the row, common to all its queries.

    The result is exact to rounding, that of `x`, not of the arithmetic: the
    series is cut where the bound on what it leaves out is, relative to each
    attention weight, one unit in the last place of the dtype of `x` (float32 for
    half precision), and all sums are made in float64. Below a temperature of
    about 0.3 cancellation in float64 counts more, up to
    ``1e-15 exp(2 / temperature)`` where all keys of a cross point away from the
    query: 5e-7 at 0.1.

    Parameters
    ----------
    x : Tensor of shape (B, T, C)
    query_weight, query_bias, key_weight, key_bias : Tensor of shape (D,)
        Of the convolutions. Without biases all cosines of a map of non-negative
        features are equal. A query or key of zeros has cosine 0 with all
        others, and passes no gradient.
    mask : bool Tensor of shape (B, T), default=None
    temperature : float, default=1.0
        Of the softmax, at least 0.1. A lower one makes attention sharper.

    Returns
    -------
    out : Tensor of shape (B, T, C)
        Zero at padded snippets.

    Raises
    ------
    ValueError
        For tensors of other shapes, and a temperature below 0.1.

    Examples
    --------
    >>> import torch
    >>> from sklearn_vad.functional import criss_cross_attention
    >>> x = torch.tensor([[[0.0, 3.0], [6.0, 9.0]]])
    >>> w, b = torch.zeros(1), torch.ones(1)  # all alike: the mean of the cross
    >>> criss_cross_attention(x, w, b, w, b)
    tensor([[[ 3.,  7.],
             [11., 15.]]])
    """
    parameters = query_weight, query_bias, key_weight, key_bias
    if x.ndim != 3:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (B, T, C)")
    shapes = [tuple(parameter.shape) for parameter in parameters]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1:
        raise ValueError(f"weights and biases have shapes {shapes}, expected (D,) each")
    if not temperature >= 0.1:
        raise ValueError(f"temperature must be at least 0.1, got {temperature!r}")
    real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    real = (real if mask is None else mask).unsqueeze(2)
    step = max(1, CHUNK // x[0].numel())
    parts = zip(_zero_padding(x, mask).split(step), real.split(step), strict=True)
    return torch.cat(
        [criss_cross(*part, *parameters, float(temperature))[0] for part in parts]
    )


@_in_full_precision
def mutual_cosine_embedding_loss(features, y, mask=None, margin=0.4):
    r"""Mutual cosine embedding loss, Eq. 4 of STA.

    .. math:: 1 - \underset{i < j}{\mathrm{Avg}} \cos(f^n_i, f^n_j)
              + \underset{i < j}{\mathrm{Avg}} \min(\cos(f^a_i, f^a_j), \xi)

    Snippets of a normal video shall be alike, snippets of an anomalous video
    apart; pairs of cosine above the margin :math:`\xi` pass no gradient.

    Parameters
    ----------
    features : Tensor of shape (B, T, C)
        A row of zeros has cosine 0 with any other.
    y : Tensor of shape (B,)
    mask : bool Tensor of shape (B, T), default=None
    margin : float, default=0.4
        The paper's xi.

    Returns
    -------
    loss : Tensor of shape ()
        Averages over the pairs of a video, then over the videos of a class that
        have a pair. A class without one drops its term.

    Examples
    --------
    >>> import torch
    >>> from sklearn_vad.functional import mutual_cosine_embedding_loss
    >>> features = torch.tensor([[[1.0, 0.0], [2.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    >>> mutual_cosine_embedding_loss(features, torch.tensor([1, 0]))
    tensor(1.4000)
    """
    features = _zero_padding(features, mask)
    norm = torch.linalg.vector_norm(features, dim=2, keepdim=True)
    unit = features / norm.where(norm > 0, 1)
    cosine = unit @ unit.mT  # (B, T, T)
    real = _real(features[..., 0], mask)
    pairs = (real[:, :, None] & real[:, None, :]).triu(diagonal=1)
    n_pairs = pairs.sum(dim=(1, 2))
    anomalous = y.bool()
    kept = cosine.clamp(max=margin).where(anomalous[:, None, None], cosine)
    average = kept.where(pairs, 0).sum(dim=(1, 2)) / n_pairs.clamp(min=1)  # (B,)
    terms = torch.where(anomalous, average, 1 - average)
    loss = features.new_zeros(())
    for members in (anomalous, ~anomalous):
        members = members & (n_pairs > 0)
        loss = loss + terms[members].sum() / members.sum().clamp(min=1)
    return loss


# --------------------------------------------------------------------------
# RTFM: feature magnitudes
# --------------------------------------------------------------------------
@_in_full_precision
def feature_magnitude_loss(features, y, mask=None, k=3, margin=100.0):
    r"""Separate the feature magnitudes of anomalous and normal videos, as RTFM does.

    .. math:: \left( |m - g_k(X^a)| + g_k(X^n) \right)^2, \quad
              g_k(X) = \frac{1}{k} \sum_{t \in \Omega_k(X)} \|x_t\|_2

    with :math:`\Omega_k` the k snippets of largest norm. The paper prints a hinge,
    :math:`\max(0, m - g_k(X^a) + g_k(X^n))`, for which the difference alone counts;
    this form, of the authors' code, draws anomalous magnitudes to the margin and
    normal ones to 0.

    Parameters
    ----------
    features : Tensor of shape (B, T, C)
    y : Tensor of shape (B,)
    mask : bool Tensor of shape (B, T), default=None
    k : int, default=3
        A bag with fewer snippets uses all that it has.
    margin : float, default=100.0
        m.

    Returns
    -------
    loss : Tensor of shape ()
        Mean over all (anomalous, normal) pairs of the batch; 0 when a class is
        missing.

    Examples
    --------
    >>> import torch
    >>> from sklearn_vad.functional import feature_magnitude_loss
    >>> features = torch.tensor([[[3.0, 4.0], [0.0, 1.0]], [[0.0, 2.0], [0.0, 0.0]]])
    >>> feature_magnitude_loss(features, torch.tensor([1, 0]), k=1, margin=6.0)
    tensor(9.)
    """
    top = topk_mean(_magnitudes(features, mask), k, mask)
    anomalous, normal = top[y.bool()], top[~y.bool()]
    pairs = (margin - anomalous).abs()[:, None] + normal[None, :]
    return pairs.square().sum() / max(pairs.numel(), 1)


def _magnitudes(features, mask):
    """Return the norms of snippets, (B, T)."""
    return torch.linalg.vector_norm(_zero_padding(features, mask), dim=2)


@_in_full_precision
def magnitude_bce_loss(scores, features, y, mask=None, k=3):
    r"""Binary cross-entropy of the scores where features are largest, as RTFM has it.

    .. math:: -\frac{1}{N} \sum_i y_i \log(p_i) + (1 - y_i) \log(1 - p_i), \quad
              p = \frac{1}{k} \sum_{t \in \Omega_k(X)} s_t

    with :math:`\Omega_k` the k snippets whose features have the largest norm. The
    choice passes no gradient to the features.

    Parameters
    ----------
    scores : Tensor of shape (B, T)
        In [0, 1].
    features : Tensor of shape (B, T, C)
    y : Tensor of shape (B,)
    mask : bool Tensor of shape (B, T), default=None
    k : int, default=3
        A bag with fewer snippets uses all that it has.

    Returns
    -------
    loss : Tensor of shape ()
        Mean over bags.

    Examples
    --------
    >>> import torch
    >>> from sklearn_vad.functional import magnitude_bce_loss
    >>> features = torch.tensor([[[9.0], [1.0]]])  # the first snippet is chosen
    >>> scores = torch.tensor([[0.5, 0.9]])
    >>> magnitude_bce_loss(scores, features, torch.tensor([1]), k=1).round(decimals=4)
    tensor(0.6931)
    """
    real = _real(scores, mask)
    norms = _magnitudes(features.detach(), mask).masked_fill(~real, -math.inf)
    top = norms.topk(min(k, norms.shape[1]), dim=1).indices  # (B, k)
    used = real.gather(1, top)
    chosen = _zero_padding(scores, mask).gather(1, top)  # 0 where not used
    p = chosen.sum(dim=1) / used.sum(dim=1).clamp(min=1)
    return F.binary_cross_entropy(p, y.to(p.dtype))
