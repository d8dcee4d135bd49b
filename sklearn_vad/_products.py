"""Matrix products by the faster of the two libraries that PyTorch has on CPUs.

PyTorch multiplies float32 matrices by MKL, which can be slow on processors of other
makers than its own; oneDNN, which PyTorch has too and uses inside `torch.nn.LSTM`,
is not. It is reached by an operator that torch keeps for its own compiler, so it may
be missing.
"""

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

_SMALL = 2**22  # multiplications that are not worth a detour
_ONEDNN = None
if torch.backends.mkldnn.is_available():
    _ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def goes_to_onednn(x):
    """Tell whether large products of `x` go to oneDNN."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and _ONEDNN is not None


def product(x, weight, bias=None):
    """Return ``x @ weight.T + bias``.

    Parameters
    ----------
    x : Tensor of shape (M, n)
    weight : Tensor of shape (k, n)
    bias : Tensor of shape (k,), default=None

    Returns
    -------
    product : Tensor of shape (M, k)
    """
    if not goes_to_onednn(x) or x.numel() * len(weight) <= _SMALL:
        return F.linear(x, weight, bias)
    return _ONEDNN(_dense(x), _dense(weight), bias, "none", [], "")


def _dense(x):
    """Return a matrix without gaps between rows, or columns; others take for ever."""
    return x if x.is_contiguous() or x.t().is_contiguous() else x.contiguous()


class _Product(torch.autograd.Function):
    """`product` with gradients by `product`."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad_x = product(grad, weight.t()) if ctx.needs_input_grad[0] else None
        grad_weight = product(grad.t(), x.t()) if ctx.needs_input_grad[1] else None
        grad_bias = grad.sum(dim=0) if ctx.needs_input_grad[2] else None
        return grad_x, grad_weight, grad_bias


def linear(x, weight, bias=None):
    """Return ``x @ weight.T + bias``, with gradients; under autocast as torch does.

    Parameters
    ----------
    x : Tensor of shape (..., n)
    weight : Tensor of shape (k, n)
    bias : Tensor of shape (k,), default=None

    Returns
    -------
    product : Tensor of shape (..., k)
    """
    half = torch.is_autocast_enabled(x.device.type)
    if half or not goes_to_onednn(x) or torch.jit.is_tracing():
        return F.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1])
    return _Product.apply(rows, weight, bias).reshape(*x.shape[:-1], len(weight))
