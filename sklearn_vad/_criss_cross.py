"""Criss-cross attention in time and memory linear in the number of cells.

The map has one channel, so the query of a cell of value f is ``f * w + b``: it
lies in the plane of w and b, whatever their dimension is, and its direction is a
point on a circle. So is a key's. ``exp(cosine)`` is a smooth function of two
angles, that is, a short Fourier series in both, with harmonics h and a small
matrix C of coefficients:

    exp(cos(q, k)) = sum_ab h_a(q) C_ab h_b(k)

What attention needs at a query, a sum over the keys of its row or column, is

    sum_k exp(cos(q, k)) v_k = sum_ab h_a(q) C_ab (sum_k h_b(k) v_k)

where the last sum, a moment of the line, is the same for all its queries. Sums
over keys of ``exp(cos) q`` and ``exp(cos) k``, which the gradient needs, are the
same with other coefficients C.
"""

import functools
import math

import numpy as np
import torch
from scipy.special import iv
from torch import Tensor

_BLOCK = 2**14  # cells whose harmonics are in memory at a time
CHUNK = 2**17  # cells of the videos that one call should take


# --------------------------------------------------------------------------
# The kernel exp(cosine / temperature) as a Fourier series
# --------------------------------------------------------------------------
@functools.cache
def degree(temperature, tolerance):
    """Return how many harmonics make the series' relative error `tolerance`.

    As a function of either angle the kernel is ``exp(r cos(angle + shift))``,
    0 <= r <= 1 / temperature, with the modified Bessel functions I_j(r) as Fourier
    coefficients. Leaving out j > n in both angles costs at most four times
    their sum at r = 1 / temperature; the kernel itself is never below
    ``exp(-1 / temperature)``. Times a direction, as the gradient has it, the kernel
    reaches one harmonic further.
    """
    sharpness = 1 / temperature
    tail = np.cumsum(iv(np.arange(200, 0, -1), sharpness))[::-1]  # sums of j >= 1, ...
    return 1 + int(np.argmax(4 * math.exp(sharpness) * tail <= tolerance))


def harmonics(unit, n, room=None):
    """Return cos(j a) and sin(j a) of directions, j = 0 ... n.

    Some come negated, always the same ones, which the coefficients make up for.
    The place of sin(0 a) tells vectors of zeros, which have no direction; all
    their other harmonics are 0.

    Parameters
    ----------
    unit : Tensor of shape (2, ...)
        cos(a) and sin(a).
    n : int
    room : Tensor, default=None
        Of as many entries as the result, to put it into.

    Returns
    -------
    harmonics : Tensor of shape (2 n + 2, ...)
    """
    room = unit.new_empty((n + 1) * unit.numel()) if room is None else room
    out = room.view(n + 1, *unit.shape)
    twice_cos = (2 * unit[:1]).expand_as(unit).contiguous()
    steps = out.unbind(0)
    steps[0][0] = (unit[0] != 0) | (unit[1] != 0)
    steps[0][1] = 0
    steps[1].copy_(unit)
    for j in range(2, n + 1):  # cos(j a) = 2 cos(a) cos((j - 1) a) - cos((j - 2) a)
        sign = 1 if j % 2 else -1
        torch.addcmul(steps[j - 2], steps[j - 1], twice_cos, value=sign, out=steps[j])
    steps[0][1] = 1 - steps[0][0]
    return out.flatten(0, 1)


def coefficients(form, n):
    """Return C for the kernel, and for the kernel times either direction.

    Parameters
    ----------
    form : Tensor of shape (2, 2)
        The kernel is exp(q form k) of directions q and k.
    n : int
        Degree of the series.

    Returns
    -------
    plain : Tensor of shape (2 n + 2, 2 n + 2)
        Of the kernel. A vector of zeros has cosine 0 with all others.
    times_query, times_key : Tensor of shape (2, 2 n + 2, 2 n + 2)
        Of the kernel times each coordinate of q, and of k.
    """
    size = 4 * n + 4  # so many angles that what is left out does not fold back
    angle = torch.arange(size, dtype=form.dtype, device=form.device) * (
        2 * math.pi / size
    )
    unit = torch.stack([angle.cos(), angle.sin()])
    weights = harmonics(unit, n) * (2 / size)
    weights[0] /= 2
    kernel = torch.exp(unit.T @ form @ unit)
    plain = weights @ kernel @ weights.T
    plain[:2, 1] = plain[1, 0] = 1
    return (
        plain,
        weights @ (unit[:, :, None] * kernel) @ weights.T,
        weights @ (unit[:, None, :] * kernel) @ weights.T,
    )


# --------------------------------------------------------------------------
# Directions of queries and keys
# --------------------------------------------------------------------------
class _Plane:
    """The plane of ``f * weight + bias``, with coordinates that always exist.

    Attributes
    ----------
    basis : Tensor of shape (D, 2)
        Orthonormal, also where weight and bias are parallel or zero.
    """

    def __init__(self, weight, bias):
        vectors = torch.stack([weight, bias], dim=1).double()
        self.n_dims = len(vectors)
        if self.n_dims == 1:
            vectors = torch.cat([vectors, torch.zeros_like(vectors)])
        self.basis, triangle = torch.linalg.qr(vectors)
        self.slope, self.along, self.across = (
            triangle[0, 0],
            triangle[0, 1],
            triangle[1, 1],
        )

    def directions(self, values):
        """Return unit vectors (2, ...), zeros for zeros, and 1 / norm (...)."""
        unit = values.new_empty(2, *values.shape)
        along, across = unit
        torch.addcmul(self.along, self.slope, values, out=along)
        squared = torch.addcmul(self.across.square(), along, along)
        # What rounding leaves of w * f + b = 0 is no direction.
        nowhere = squared <= (4 * torch.finfo(squared.dtype).eps * self.along).square()
        inverse = squared.rsqrt_().masked_fill_(nowhere, 0)
        torch.mul(self.across, inverse, out=across)
        along *= inverse
        return unit, inverse

    def backward(self, values, unit, inverse, pull, other):
        """Take gradients from directions to values, weight and bias.

        The gradient of a cosine q k by the vector of length 1 / inverse along q
        is ``(k - (q k) q) * inverse``. It may point out of the plane, so it is
        put together from coordinates in both.

        Parameters
        ----------
        values, inverse : Tensor of shape (...)
        unit : Tensor of shape (2, ...)
        pull : Tensor of shape (2, ...)
            Sum of g k over the vectors k of the plane `other`, in its basis.
        other : _Plane

        Returns
        -------
        grad_values : Tensor of shape (...)
        grad_weight, grad_bias : Tensor of shape (D,)
        """
        inside = torch.tensordot(self.basis.T @ other.basis, pull, 1)
        parallel = (unit * inside).sum(dim=0) * unit
        grad_values = self.slope * (inside[0] - parallel[0]) * inverse
        lever = torch.stack([values * inverse, inverse]).flatten(1)  # (2, cells)
        grad = (lever @ pull.flatten(1).T) @ other.basis.T
        grad -= (lever @ parallel.flatten(1).T) @ self.basis.T
        return grad_values, *grad[:, : self.n_dims]


# --------------------------------------------------------------------------
# Sums over lines and crosses
# --------------------------------------------------------------------------
def _moments(harmonics, values):
    """Sum harmonics (P, M, L) times values (S, M, L) over lines; (M, S, P)."""
    return torch.bmm(values.transpose(0, 1), harmonics.permute(1, 2, 0))


def _series(moments, coefficients, harmonics):
    """Evaluate series at the cells of their lines.

    Parameters
    ----------
    moments : Tensor of shape (M, S, P)
        Of the harmonics of the cells that are summed over.
    coefficients : Tensor of shape (R, P, P)
        Rows belong to the cells at which the sums are wanted.
    harmonics : Tensor of shape (P, M, L)
        Of these cells.

    Returns
    -------
    sums : Tensor of shape (S, R, M, L)
    """
    n_moments, n_tables = moments.shape[1], len(coefficients)
    rows = moments @ coefficients.flatten(0, 1).T  # (M, S, R P)
    rows = rows.view(len(moments), n_moments * n_tables, -1)
    sums = torch.bmm(rows, harmonics.transpose(0, 1))  # (M, S R, L)
    return sums.transpose(0, 1).unflatten(0, (n_moments, n_tables))


def _over_lines(line_sums, maps):
    step = max(1, _BLOCK // maps.shape[2])
    return torch.cat([line_sums(*part) for part in maps.split(step, dim=1)], dim=1)


def _over_crosses(line_sums, *maps):
    """Add up what every cell gets from its row and from its column.

    Parameters
    ----------
    line_sums : callable
        From maps of lines, each (M, L), to sums (R, M, L).
    maps : Tensors of shape (B, N, C)

    Returns
    -------
    sums : Tensor of shape (R, B, N, C)
        In which the cell itself counts twice.
    """
    rows = torch.stack(maps)  # (S, B, N, C)
    columns = rows.transpose(2, 3).contiguous()
    sums = _over_lines(line_sums, rows.flatten(1, 2)).unflatten(1, rows.shape[1:3])
    other = _over_lines(line_sums, columns.flatten(1, 2))
    return sums.add_(other.unflatten(1, columns.shape[1:3]).transpose(2, 3))


# --------------------------------------------------------------------------
# The attention
# --------------------------------------------------------------------------
class _Kernel:
    """exp(cosine / temperature) of the queries and keys that parameters make."""

    def __init__(self, parameters, temperature, dtype):
        wide = torch.promote_types(dtype, torch.float32)
        self.room = torch.empty(0)
        self.n = degree(temperature, torch.finfo(wide).eps)
        self.queries = _Plane(*parameters[:2])
        self.keys = _Plane(*parameters[2:])
        self.form = self.queries.basis.T @ self.keys.basis / temperature
        self.plain, self.times_query, self.times_key = coefficients(self.form, self.n)

    def harmonics(self, values):
        """Return the harmonics (P, ...) of queries and of keys."""
        planes = self.queries, self.keys
        unit = torch.stack([p.directions(values)[0] for p in planes], dim=1)
        size = (self.n + 1) * unit.numel()
        if self.room.numel() != size:  # else the last block's: no new memory
            self.room = unit.new_empty(size)
        return harmonics(unit, self.n, self.room).unbind(1)

    def own(self, query, key):
        """Return the kernel of the query and the key of each cell itself."""
        return torch.exp((query * torch.tensordot(self.form, key, 1)).sum(dim=0))


@torch.library.custom_op("sklearn_vad::criss_cross", mutates_args=())
def criss_cross(
    x: Tensor,
    real: Tensor,
    query_weight: Tensor,
    query_bias: Tensor,
    key_weight: Tensor,
    key_bias: Tensor,
    temperature: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return attention plus residual, and two maps that the gradient needs.

    An operator of its own, since compilers make many small products of what is
    one product in each step here.

    Parameters
    ----------
    x : Tensor of shape (B, N, C)
        Finite where padded, too.
    real : bool Tensor of shape (B, N, 1)
    query_weight, query_bias, key_weight, key_bias : Tensor of shape (D,)
    temperature : float

    Returns
    -------
    out : Tensor of shape (B, N, C)
        In the dtype of `x`.
    total, attended : float64 Tensor of shape (B, N, C)
        The softmax's denominator, and what it attends to.
    """
    parameters = query_weight, query_bias, key_weight, key_bias
    kernel = _Kernel(parameters, temperature, x.dtype)
    real = real.double().expand_as(x)
    values = x.double() * real

    def line_sums(real, values):
        at_queries, at_keys = kernel.harmonics(values)
        moments = _moments(at_keys, torch.stack([real, values]))
        return _series(moments, kernel.plain[None], at_queries)[:, 0]

    total, weighted = _over_crosses(line_sums, real, values)
    query, key = (p.directions(values)[0] for p in (kernel.queries, kernel.keys))
    own = kernel.own(query, key)
    total = (total - own * real).masked_fill_(real == 0, 1)
    attended = (weighted - own * values) / total * real
    return (attended + values).to(x.dtype), total, attended


@torch.library.custom_op("sklearn_vad::criss_cross_backward", mutates_args=())
def criss_cross_backward(
    grad: Tensor,
    x: Tensor,
    real: Tensor,
    total: Tensor,
    attended: Tensor,
    query_weight: Tensor,
    query_bias: Tensor,
    key_weight: Tensor,
    key_bias: Tensor,
    temperature: float,
) -> list[Tensor]:
    """Return the gradients of x and of the four parameters."""
    parameters = query_weight, query_bias, key_weight, key_bias
    kernel = _Kernel(parameters, temperature, x.dtype)
    real = real.double().expand_as(x)
    values = x.double() * real
    grad = grad.double() * real
    # The gradient by a cosine is share * exp(cosine / temperature) * step, where
    # step is the key's value minus what the query attended to.
    share = grad / total

    def line_sums(real, values, share, attended):
        at_queries, at_keys = kernel.harmonics(values)
        moments = _moments(at_keys, torch.stack([real, values]))
        to_query = _series(moments, kernel.times_key, at_queries)
        to_query = share * (to_query[1] - attended * to_query[0])
        moments = _moments(at_queries, torch.stack([share, share * attended]))
        tables = torch.cat([kernel.times_query, kernel.plain[None]])
        to_key = _series(moments, tables.mT, at_keys)
        to_value = to_key[0, 2:]
        to_key = values * to_key[0, :2] - to_key[1, :2]
        return torch.cat([to_query, to_key, to_value])

    sums = _over_crosses(line_sums, real, values, share, attended)
    query, query_scale = kernel.queries.directions(values)
    key, key_scale = kernel.keys.directions(values)
    own = share * kernel.own(query, key)
    own_step = own * (values - attended)
    to_query = (sums[:2] - own_step * key) / temperature
    to_key = (sums[2:4] - own_step * query) * real / temperature
    from_query = kernel.queries.backward(
        values, query, query_scale, to_query, kernel.keys
    )
    from_key = kernel.keys.backward(values, key, key_scale, to_key, kernel.queries)
    grad_x = grad + (sums[4] - own) * real + from_query[0] + from_key[0]
    grads = (grad_x, *from_query[1:], *from_key[1:])
    dtypes = [t.dtype for t in (x, *parameters)]
    return [g.to(dtype, copy=True) for g, dtype in zip(grads, dtypes, strict=True)]


@criss_cross.register_fake
def _(x, real, *args):
    total, attended = (torch.empty_like(x, dtype=torch.float64) for _ in range(2))
    return torch.empty_like(x), total, attended


@criss_cross_backward.register_fake
def _(grad, x, real, total, attended, *args):
    return [torch.empty_like(tensor) for tensor in (x, *args[:4])]


def _setup_context(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:2], *output[1:], *inputs[2:6])
    ctx.temperature = inputs[6]


def _backward(ctx, grad, *_):
    grad_x, *grads = criss_cross_backward(grad, *ctx.saved_tensors, ctx.temperature)
    return grad_x, None, *grads, None


criss_cross.register_autograd(_backward, setup_context=_setup_context)


# --------------------------------------------------------------------------
# The same for other runtimes
# --------------------------------------------------------------------------
class PlainCrissCross:
    """`criss_cross` of fixed parameters, by operators that every runtime has.

    The series' coefficients are constants; nothing works in place, and no loop
    depends on a shape. In float64 inside, too: the moments need it.

    Parameters
    ----------
    parameters : tuple of Tensor of shape (D,)
        Weight and bias of the query, then of the key.
    temperature : float
    """

    def __init__(self, parameters, temperature):
        with torch.no_grad():
            self.kernel = _Kernel(parameters, temperature, parameters[0].dtype)

    def _directions(self, plane, values):
        along = plane.along + plane.slope * values
        squared = plane.across.square() + along.square()
        eps = torch.finfo(values.dtype).eps
        nowhere = squared <= (4 * eps * plane.along).square()
        inverse = squared.rsqrt().masked_fill(nowhere, 0)
        return torch.stack([along * inverse, plane.across * inverse], dim=2)

    def _harmonics(self, unit):
        somewhere = (unit.abs().sum(dim=2, keepdim=True) > 0).to(unit.dtype)
        steps = [torch.cat([somewhere, torch.zeros_like(somewhere)], dim=2), unit]
        for j in range(2, self.kernel.n + 1):  # the signs of `harmonics`
            step = 2 * unit[:, :, :1] * steps[j - 1]
            steps.append(steps[j - 2] + step if j % 2 else steps[j - 2] - step)
        steps[0] = torch.cat([somewhere, 1 - somewhere], dim=2)
        return torch.cat(steps, dim=2)  # (B, M, P, L)

    def _line_sums(self, summed, query, key):
        moments = summed @ self._harmonics(key).transpose(-2, -1)
        return moments @ self.kernel.plain.T @ self._harmonics(query)  # (B, M, 2, L)

    def __call__(self, x, mask):
        """Return attention plus residual.

        Parameters
        ----------
        x : Tensor of shape (B, N, C)
            Finite where padded, too.
        mask : bool Tensor of shape (B, N)

        Returns
        -------
        out : Tensor of shape (B, N, C)
            In the dtype of `x`.
        """
        real = mask.unsqueeze(2).expand_as(x).double()
        values = x.double() * real
        planes = self.kernel.queries, self.kernel.keys
        query, key = (self._directions(plane, values) for plane in planes)
        rows = torch.stack([real, values], dim=2), query, key  # (B, N, 2, C) each
        columns = (part.transpose(1, 3) for part in rows)
        sums = self._line_sums(*rows) + self._line_sums(*columns).transpose(1, 3)
        own = torch.exp((query * (self.kernel.form @ key)).sum(dim=2))
        total = (sums[:, :, 0] - own * real).masked_fill(real == 0, 1)
        attended = (sums[:, :, 1] - own * values) / total * real
        return (attended + values).to(x.dtype)
