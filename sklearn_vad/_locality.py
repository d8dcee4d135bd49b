"""LA-Net's attention, softmax(Q K^T) + G, without a T x T tensor.

`functional.locality_aware_attention` says what it is and checks what it gets; here is
how. The softmax runs in blocks, PyTorch's or products of our own, whichever is faster,
and the prior as a product with a band outside of which it vanishes.
"""

import functools
import itertools
import math

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from ._products import goes_to_onednn, product

BIAS_ENTRIES = 2**23  # of the logits' bias of one block of queries: 32 MiB in float32
_PRIOR_ROWS = 64, 512  # of the prior's product at once, at least and at most
_ROWS = 256  # queries at once in products by oneDNN
_ROW_ENTRIES = 2**21  # of their weights at most, which shall stay in the caches
_LONG = 64  # snippets from which on a head is worth products of its own


# --------------------------------------------------------------------------
# The prior
# --------------------------------------------------------------------------
def prior_reach(n_snippets, sigma, dtype=torch.float32):
    """Return the distance from which on the prior counts nothing in a row's sum.

    Parameters
    ----------
    n_snippets : int
    sigma : float
    dtype : torch.dtype, default=torch.float32

    Returns
    -------
    distance : int
        `n_snippets` at most.
    """
    tail = -math.log(torch.finfo(dtype).eps / 16)
    return min(math.ceil(math.sqrt(2 * sigma * tail)), n_snippets)


class _PriorProduct(torch.autograd.Function):
    """Some rows of G V, in time and memory linear in T; its own gradient, as G = G'.

    Row by row G is the same but for a shift, so a block of rows is a product of one
    small matrix with the snippets that they reach; these are not copied.
    """

    @staticmethod
    def forward(ctx, value, sigma, first, n_rows):
        ctx.sigma, ctx.first, ctx.n_snippets = sigma, first, value.shape[-2]
        return _shifted_products(value, sigma, first, n_rows)

    @staticmethod
    def backward(ctx, grad):
        # Rows of grad are those from `first` on: seen from them, the output begins
        # `first` rows earlier.
        back = _PriorProduct.apply(grad, ctx.sigma, -ctx.first, ctx.n_snippets)
        return back, None, None, None


def _shifted_products(value, sigma, first, n_rows):
    """Return ``sum_j G[first + i, j] value[j]`` for i below `n_rows`."""
    n_bags, n_heads, n_snippets, _ = value.shape
    reach = prior_reach(max(n_snippets, n_rows), sigma, value.dtype)
    n = min(max(reach, _PRIOR_ROWS[0]), _PRIOR_ROWS[1])
    band = _prior_band(n, reach, sigma, value)
    value = value.transpose(1, 2).flatten(2)  # all heads at once, mostly a view
    blocks = []
    for i in range(first, first + n_rows, n):
        begin, end = i - reach, min(i + n, first + n_rows) + reach
        start = min(max(begin, 0), n_snippets)
        stop = max(min(end, n_snippets), start)
        rows = band[: end - begin - 2 * reach, start - begin : stop - begin]
        blocks.append(rows.expand(n_bags, -1, -1).bmm(value[:, start:stop]))
    out = torch.cat(blocks, dim=1) if len(blocks) > 1 else blocks[0]
    return out.unflatten(2, (n_heads, -1)).transpose(1, 2)


def _prior_band(n, reach, sigma, like):
    """Return n rows of G from `reach` columns before to `reach` after, no others."""
    row = torch.arange(n, dtype=torch.float64, device=like.device)
    column = torch.arange(-reach, n + reach, dtype=torch.float64, device=like.device)
    distance = (row[:, None] - column).square()
    band = torch.exp(-distance / (2 * sigma)).where(distance <= reach * reach, 0)
    return band.to(like.dtype)  # whose tail would be denormal numbers, which are slow


# --------------------------------------------------------------------------
# The softmax
# --------------------------------------------------------------------------
def _for_blocks(x):
    """Lay out (B, heads, T, d) so that torch's attention can run in blocks.

    It makes a T x T tensor where the last axis is not contiguous and, on CUDA,
    where d is no multiple of 8; zeros that fill d up change no product.
    """
    d = x.shape[-1]
    x = F.pad(x, (0, -d % 8)) if d % 8 else x
    return x if x.stride(-1) == 1 else x.contiguous()


def _attend_in_blocks(attend, query, key, value, mask, first, window):
    """Let each block of snippets attend to itself and the two blocks beside it."""
    n, end, blocks = key.shape[-2], first + query.shape[-2], []
    for block in range(first - first % window, end, window):
        seen = slice(max(block - window, 0), min(block + 2 * window, n))
        begin = max(block, first)
        rows = query[..., begin - first : min(block + window, end) - first, :]
        real = None if mask is None else mask[:, seen]
        others = key[..., seen, :], value[..., seen, :]
        blocks.append(attend(rows, *others, mask=real, first=begin - seen.start))
    return torch.cat(blocks, dim=-2)


def _softmax(query, key, value, mask, first=0):
    """Return softmax(Q K^T) V without a T x T tensor, wherever the queries begin."""
    no_grad = not torch.is_grad_enabled() or not query.requires_grad
    inputs = [x.float() if x.dtype.itemsize < 4 else x for x in (query, key, value)]
    long = key.shape[-2] >= _LONG and mask is None and goes_to_onednn(inputs[0])
    if no_grad and long:  # in float32 faster than torch's attention in bfloat16
        with torch.autocast("cpu", enabled=False):
            return _softmax_by_products(*inputs).to(query.dtype)
    # One row of the mask, (B, 1, 1, T), for all queries.
    attend = None if mask is None else mask[:, None, None, :]
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=attend, scale=1.0
    )


def _softmax_by_products(query, key, value):
    """As torch's attention does it in blocks, by the faster library; no gradients.

    That library prepares code for every new shape; so keys are filled up to a multiple
    of 64, and the last block of queries begins where it is as long as the others.
    """
    out = torch.empty_like(query)
    n, n_queries = key.shape[-2], query.shape[-2]
    step = min(max(min(_ROWS, _ROW_ENTRIES // n), 16), n_queries)
    key, value = (F.pad(x, (0, 0, 0, -n % 64)) for x in (key, value))
    for b, head in itertools.product(range(query.shape[0]), range(query.shape[1])):
        keys, values = key[b, head].contiguous(), value[b, head].t().contiguous()
        for i in range(0, n_queries, step):
            rows = slice(min(i, n_queries - step), min(i + step, n_queries))
            logits = product(query[b, head, rows], keys)
            logits[:, n:] = -math.inf
            out[b, head, rows] = product(logits.softmax(dim=-1), values)
    return out


def _attend_with_prior(query, key, value, mask, prior, first):
    """Return softmax(Q K^T + G) V of the queries from snippet `first` on.

    `prior` holds G by distance, from 1 - T to T - 1; each row of G is a window.
    """
    n, n_queries = key.shape[-2], query.shape[-2]
    windows = prior[n - first - n_queries : 2 * n - 1 - first].unfold(0, n, 1)
    bias = windows.flip(0).contiguous()  # (queries, T); flip may leave strided rows
    if mask is not None:  # (B, 1, queries, T)
        bias = bias.masked_fill(~mask[:, None, None, :], -math.inf)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0)


def _softmax_with_prior(query, key, value, sigma, mask, first=0):
    """Return softmax(Q K^T + G) V, for as many queries at once as BIAS_ENTRIES let."""
    n = key.shape[-2]
    distance = torch.arange(1 - n, n, dtype=torch.float64, device=query.device)
    prior = torch.exp(-distance.square() / (2 * sigma)).to(query.dtype)
    attend = functools.partial(
        _attend_with_prior, key=key, value=value, mask=mask, prior=prior
    )
    n_queries = max(BIAS_ENTRIES // (n if mask is None else mask.numel()), 1)
    if n_queries >= query.shape[-2]:
        return attend(query, first=first)
    # Autograd would keep every block's bias, T x T in all; so it makes them anew.
    again = functools.partial(
        checkpoint, attend, use_reentrant=False, preserve_rng_state=False
    )
    blocks = enumerate(query.split(n_queries, dim=-2))
    return torch.cat([again(q, first=first + i * n_queries) for i, q in blocks], dim=-2)


# --------------------------------------------------------------------------
# Both
# --------------------------------------------------------------------------
def attend(query, key, value, sigma, mask, prior, first, window):
    """Return the rows of `query`, whatever at padded snippets; padding is zeros.

    Parameters are those of `functional.locality_aware_attention`.
    """
    inputs = [_for_blocks(x) for x in (query, key, value)]
    softmax = _softmax
    if sigma is not None and prior == "before":
        softmax = functools.partial(_softmax_with_prior, sigma=sigma)
    if window is None or key.shape[-2] <= 2 * window:
        out = softmax(*inputs, mask=mask, first=first)
    else:
        out = _attend_in_blocks(softmax, *inputs, mask, first, window)
    out = out[..., : value.shape[-1]]
    if sigma is not None and prior == "after":
        out = out + _PriorProduct.apply(value, sigma, first, query.shape[-2])
    return out


def dense_locality_aware_attention(query, key, value, sigma, mask, *, prior="after"):
    """Return what `locality_aware_attention` does, by the formula as it stands.

    For runtimes that know matrices and softmax only: T x T tensors, but no blocks
    whose number depends on T.

    Parameters
    ----------
    query, key, value : Tensor of shape (B, heads, T, d)
    sigma : float or None
    mask : bool Tensor of shape (B, T)
    prior : {"after", "before"}, default="after"

    Returns
    -------
    out : Tensor of shape (B, heads, T, d)
        Zero at padded snippets.
    """
    keep = mask[:, None, :, None]
    query, key, value = (x.masked_fill(~keep, 0) for x in (query, key, value))
    weights = dense_attention_weights(query, key, sigma, mask, prior)
    return (weights @ value).masked_fill(~keep, 0)


def dense_attention_weights(query, key, sigma, mask, prior="after"):
    """Return what each snippet's row of weights is in `locality_aware_attention`.

    Parameters
    ----------
    query, key : Tensor of shape (B, heads, T, d)
    sigma : float or None
    mask : bool Tensor of shape (B, T)
    prior : {"after", "before"}, default="after"

    Returns
    -------
    weights : Tensor of shape (B, heads, T, T)
        Rows are of the snippets that attend, padded ones too; real columns count.
    """
    logits, added = query @ key.transpose(-2, -1), 0.0
    if sigma is not None:
        position = torch.arange(mask.shape[1], device=mask.device).to(query.dtype)
        added = torch.exp((position[:, None] - position).square() / (-2 * sigma))
    if prior == "before":
        logits, added = logits + added, 0.0
    weights = logits.masked_fill(~mask[:, None, None, :], -math.inf).softmax(dim=-1)
    return weights + added
