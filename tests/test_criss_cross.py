"""STA's attention against Eqs. 1-3 as loops: values, gradients, rounding, memory."""

import math

import naive
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import iv
from test_functional import LargestTensor
from torch.testing import assert_close

from sklearn_vad import _criss_cross, functional
from sklearn_vad.functional import criss_cross_attention

D = 10  # the paper's channels
TEMPERATURES = [1.0, 0.5, 0.1]
at_temperatures = pytest.mark.parametrize("temperature", TEMPERATURES)


def rounding(temperature):
    """The error that the docstring of the function owns up to, in float64."""
    return 1e-15 * math.exp(2 / temperature) + 1e-14


# --------------------------------------------------------------------------
# Maps, parameters, and the equations in a form that autograd can differentiate
# --------------------------------------------------------------------------
def normal(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype)


MAPS = {
    "random": lambda shape: normal(*shape),
    "zeros": lambda shape: torch.zeros(shape, dtype=torch.float64),
    "huge": lambda shape: normal(*shape) * 1e4,
    "tiny": lambda shape: normal(*shape) * 1e-4,
    "constant": lambda shape: torch.full(shape, 3.0, dtype=torch.float64),
    "half zeros": lambda shape: normal(*shape).relu(),
    "integers": lambda shape: normal(*shape).round() * 4,  # many equal, some 0
}
_W, _B, _V, _A = (normal(D, seed=seed) for seed in (1, 2, 3, 4))
PARAMETERS = {  # weight and bias of the query, then of the key
    "random": (_W, _B, _V, _A),
    "D=1": (_W[:1], _B[:1], _V[:1], _A[:1]),
    "D=2": (_W[:2], _B[:2], _V[:2], _A[:2]),
    "no weight": (0 * _W, _B, _V, _A),
    "no weights": (0 * _W, _B, 0 * _V, _A),
    "no biases": (_W, 0 * _B, _V, 0 * _A),
    "no query": (0 * _W, 0 * _B, _V, _A),
    "nothing": (0 * _W,) * 4,
    "query is key": (_W, _B, _W, _B),
    "parallel": (_W, 2 * _W, _V, -0.5 * _V),
    "parallel query": (_W, 2 * _W, _V, _A),
    "nearly parallel": (_W, 2 * _W + 1e-9 * _B, _V, -0.5 * _V + 1e-9 * _A),
}


def dense(x, query_weight, query_bias, key_weight, key_bias, temperature=1.0):
    """Eqs. 1-3 of one map (T, C), with all its T C (T + C) cosines in memory."""

    def directions(weight, bias):
        vectors = x[..., None] * weight + bias  # (T, C, D)
        norm = torch.linalg.vector_norm(vectors, dim=2, keepdim=True)
        return (vectors / norm.where(norm > 0, 1)).where(norm > 0, 0)

    query = directions(query_weight, query_bias)
    key = directions(key_weight, key_bias)
    in_row = torch.einsum("icd,ied->ice", query, key)
    in_column = torch.einsum("icd,mcd->icm", query, key)
    itself = torch.eye(len(x), dtype=torch.bool)[:, None]
    in_column = in_column.masked_fill(itself, -math.inf)
    cosines = torch.cat([in_row, in_column], dim=2)
    of_row, of_column = (
        (cosines / temperature).softmax(dim=2).split([x.shape[1], len(x)], dim=2)
    )
    from_row = torch.einsum("ice,ie->ic", of_row, x)
    return x + from_row + torch.einsum("icm,mc->ic", of_column, x)


def linear(x, *parameters, temperature=1.0):
    """The function under test, of one map."""
    return criss_cross_attention(x[None], *parameters, temperature=temperature)[0]


def differentiate(function, x, parameters, upstream, temperature=1.0):
    """Value, and the gradients of the map and the four parameters."""
    inputs = [tensor.detach().clone().requires_grad_() for tensor in (x, *parameters)]
    out = function(*inputs, temperature=temperature)
    gradients = torch.autograd.grad(
        out, inputs, upstream.to(out.dtype), materialize_grads=True
    )
    return [out.detach(), *gradients]


def sensitivities(x, parameters, upstream, temperature):
    """How large the terms are that a value and the five gradients are sums of."""
    pull = upstream.abs().sum() * x.abs().max() / temperature
    scales = [x.abs().max(), upstream.abs().sum()]
    for weight, bias in (parameters[:2], parameters[2:]):
        norm = torch.linalg.vector_norm(x[..., None] * weight + bias, dim=2)
        inverse = (1 / norm).nan_to_num(posinf=0)
        scales[1] = scales[1] + pull * weight.norm() * inverse.max()
        scales += [pull * (inverse * x).abs().max(), pull * inverse.max()]
    return [max(float(scale), 1e-300) for scale in scales]


def ones_at(rows, columns):
    def upstream(shape):
        out = torch.zeros(shape, dtype=torch.float64)
        out[rows, columns] = 1
        return out

    return upstream


UPSTREAM = {
    "random": lambda shape: normal(*shape, seed=5),
    "ones": ones_at(slice(None), slice(None)),
    "one cell": ones_at(-1, 0),
    "one row": ones_at(0, slice(None)),
    "one column": ones_at(slice(None), -1),
}


# --------------------------------------------------------------------------
# Values and gradients in float64
# --------------------------------------------------------------------------
@at_temperatures
@pytest.mark.parametrize("parameters", PARAMETERS)
@pytest.mark.parametrize("kind", MAPS)
def test_value_and_gradients_equal_the_printed_equations(kind, parameters, temperature):
    x, parameters = MAPS[kind]((5, 6)), PARAMETERS[parameters]
    upstream = normal(5, 6, seed=5)
    (expected,) = naive.criss_cross_attention([x], *parameters, temperature)
    truth = differentiate(dense, x, parameters, upstream, temperature)
    np.testing.assert_allclose(
        truth[0], expected, rtol=0, atol=1e-14 * float(x.abs().max())
    )
    found = differentiate(linear, x, parameters, upstream, temperature)
    scales = sensitivities(x, parameters, upstream, temperature)
    for value, true, scale in zip(found, truth, scales, strict=True):
        assert_close(value, true, rtol=0, atol=rounding(temperature) * scale)


@at_temperatures
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 2), (3, 40), (40, 3)])
@pytest.mark.parametrize("upstream", UPSTREAM)
def test_maps_of_any_shape_and_gradients_from_anywhere(shape, upstream, temperature):
    x, parameters = normal(*shape, seed=6), PARAMETERS["random"]
    upstream = UPSTREAM[upstream](shape)
    truth = differentiate(dense, x, parameters, upstream, temperature)
    found = differentiate(linear, x, parameters, upstream, temperature)
    if shape != (1, 1):
        assert all(gradient.abs().max() > 1e-4 for gradient in truth[1:])
    for value, true in zip(found, truth, strict=True):
        assert_close(value, true, rtol=0, atol=1e3 * rounding(temperature))


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_gradcheck(temperature):
    mask = torch.tensor([[True, True, False], [True, True, True]])
    inputs = [normal(2, 3, 2, seed=7), *(normal(3, seed=s) for s in (8, 9, 10, 11))]
    assert torch.autograd.gradcheck(
        lambda *inputs: criss_cross_attention(*inputs, mask, temperature=temperature),
        [tensor.requires_grad_() for tensor in inputs],
    )


@at_temperatures
def test_by_hand(temperature):
    """A query and keys at angles of 0, 45 and -45 degrees to it, of 0, 1 and -1."""
    query, key = torch.zeros(2), torch.tensor([1.0, 0.0])
    parameters = query, torch.tensor([1.0, 0.0]), key, torch.tensor([0.0, 1.0])
    x = torch.tensor([[[0.0, 1.0], [-1.0, 50.0]]])
    out = criss_cross_attention(x, *parameters, temperature=temperature)
    near = math.exp(math.sqrt(0.5) / temperature)
    far = math.exp(-math.sqrt(0.5) / temperature)
    assert out[0, 0, 0].item() == pytest.approx((near - far) / (1 + near + far))
    # Of the cell 50, whose own key is at an angle of tan = 1 / 50.
    own = math.exp(50 / math.sqrt(2501) / temperature)
    attended = (50 * own + near - far) / (own + near + far)
    assert out[0, 1, 1].item() == pytest.approx(50 + attended)


def test_one_channel_by_hand():
    """Without biases a cosine is the product of two signs, and that of 0 is 0."""
    one, zero = torch.ones(1), torch.zeros(1)
    x = torch.tensor([[[2.0, -3.0, 0.0], [4.0, 7.0, 7.0]]])
    out = criss_cross_attention(x, one, zero, one, zero)[0]
    e = math.e
    expected = 2 + (2 * e + 4 * e - 3 / e) / (2 * e + 1 / e + 1)
    assert out[0, 0].item() == pytest.approx(expected, rel=1e-6)
    assert out[0, 2].item() == pytest.approx((2 - 3 + 7) / 4, rel=1e-6)


def test_a_cell_sees_its_cross_only():
    x, parameters = normal(4, 5), PARAMETERS["random"]
    changed = x.clone()
    changed[1, 2] += 1
    once = linear(x, *parameters), linear(changed, *parameters)
    moved = (once[0] - once[1]).abs() > 1e-9
    cross = torch.zeros(4, 5, dtype=torch.bool)
    cross[1] = cross[:, 2] = True
    assert torch.equal(moved, cross)
    twice = (linear(out, *parameters) for out in once)
    assert (next(twice) - next(twice)).abs().min() > 1e-9


@pytest.mark.parametrize("temperature", [0.7, 3.0, 50.0, 1e5])
def test_other_temperatures(temperature):
    x, parameters = normal(4, 6), PARAMETERS["random"]
    (expected,) = naive.criss_cross_attention([x], *parameters, temperature)
    out = linear(x, *parameters, temperature=temperature)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-13)


# Vectors of zeros -----------------------------------------------------------
def test_cells_without_direction_have_cosine_zero_and_pass_no_gradient():
    """Zeros under zero biases: weight 1 in every cross, of query and of key."""
    parameters = _W, 0 * _B, _V, 0 * _A
    x = torch.tensor([[0.0, 2.0], [-3.0, 0.0]], dtype=torch.float64)
    (expected,) = naive.criss_cross_attention([x], *parameters)
    assert linear(x, *parameters)[0, 0].item() == pytest.approx(-1 / 3, rel=1e-14)
    np.testing.assert_allclose(linear(x, *parameters), expected, rtol=1e-13)
    for upstream in (normal(2, 2, seed=5), torch.ones(2, 2, dtype=torch.float64)):
        truth = differentiate(dense, x, parameters, upstream)
        found = differentiate(linear, x, parameters, upstream)
        assert_close(found, truth, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("part", [0, 2], ids=["query", "key"])
def test_vectors_that_happen_to_be_zeros(part):
    """-2 w + 2 w is zeros, as a plain computation finds, and has cosine 0."""
    parameters = [_W, _B, _V, _A]
    parameters[part + 1] = 2 * parameters[part]
    x = torch.tensor([[-2.0, 1.0], [3.0, -2.0]], dtype=torch.float64)
    assert not (x[0, 0] * parameters[part] + parameters[part + 1]).any()
    upstream = normal(2, 2, seed=5)
    truth = differentiate(dense, x, parameters, upstream)
    found = differentiate(linear, x, parameters, upstream)
    assert_close(found, truth, rtol=1e-12, atol=1e-13)


# --------------------------------------------------------------------------
# Rounding
# --------------------------------------------------------------------------
def float32_maps(kind, seed):
    """A map and parameters that float32 holds exactly."""
    x = normal(12, 20, seed=seed, dtype=torch.float32)
    parameters = [normal(D, seed=seed + s, dtype=torch.float32) for s in range(1, 5)]
    if kind == "features":  # as an I3D network's: after ReLU, small beside biases
        x = x.relu() * 0.02
        parameters[1::2] = [0.5 * bias.sign() for bias in parameters[1::2]]
    return x, parameters


@pytest.mark.parametrize("temperature", [*TEMPERATURES, 100.0])
@pytest.mark.parametrize("upstream", ["random", "ones"])
@pytest.mark.parametrize("kind", ["random", "features"])
def test_float32_is_no_worse_than_the_equations_in_float32(kind, upstream, temperature):
    """Of the value and of each gradient, the largest error over maps and entries."""
    ours, plain, ulp = [], [], []
    for seed in range(100, 700, 100):
        x, parameters = float32_maps(kind, seed)
        gradient = UPSTREAM[upstream](x.shape).float()
        wide = [x.double(), [p.double() for p in parameters], gradient.double()]
        truth = differentiate(dense, *wide, temperature)
        for function, errors in ((linear, ours), (dense, plain)):
            found = differentiate(function, x, parameters, gradient, temperature)
            assert all(value.dtype == torch.float32 for value in found)
            errors.append(
                [
                    (value - true).abs().max().item()
                    for value, true in zip(found, truth, strict=True)
                ]
            )
        ulp.append([2**-23 * true.abs().max().item() for true in truth])
    ours, plain, ulp = (np.max(errors, axis=0) for errors in (ours, plain, ulp))
    assert (ours <= 1.1 * plain + 0.1 * ulp).all(), (ours / plain).round(2)
    # And by itself: half a unit is the rounding of the result.
    assert (ours <= 2 * ulp).all(), (ours / ulp).round(2)


@pytest.mark.parametrize("kind", ["random", "features"])
def test_float32_of_a_video_of_the_papers_size(kind):
    shape = (32, 1024)
    x = normal(*shape, dtype=torch.float32)
    _, parameters = float32_maps(kind, 100)
    if kind == "features":
        x = x.relu() * 0.02
    out = linear(x, *parameters).double().numpy()
    cells = x.double().numpy()
    query, key = (
        cells[..., None] * weight.double().numpy() + bias.double().numpy()
        for weight, bias in (parameters[:2], parameters[2:])
    )
    query /= np.linalg.norm(query, axis=2, keepdims=True)
    key /= np.linalg.norm(key, axis=2, keepdims=True)
    for i in range(0, 32, 3):
        row = np.exp(query[i] @ key[i].T)  # (C, C)
        column = np.exp(np.einsum("cd,mcd->cm", query[i], key))  # (C, T)
        column[:, i] = 0
        weighted = row @ cells[i] + np.einsum("cm,mc->c", column, cells)
        expected = cells[i] + weighted / (row.sum(axis=1) + column.sum(axis=1))
        error = np.abs(out[i] - expected).max()
        assert error < 2e-6 * np.abs(cells).max()
        assert error < 1.01 * 2**-24 * np.abs(expected).max()  # the last rounding


@pytest.mark.parametrize("temperature", [0.1, 0.15, 0.2, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (32, 64)])
def test_error_where_all_keys_point_away(shape, temperature):
    """The worst case, which the docstring puts a number on."""
    x = torch.full(shape, 3.0, dtype=torch.float64)
    zeros = torch.zeros(2, dtype=torch.float64)
    worst = 0
    for angle in np.linspace(0, 2 * math.pi, 24):
        bias = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
        out = linear(x, zeros, bias, zeros, -bias, temperature=temperature)
        worst = max(worst, (out - 6).abs().max().item() / 3)
    assert worst < 1e-15 * math.exp(2 / temperature)
    assert worst < 5e-7


@pytest.mark.parametrize(
    ("dtype", "ulp"),
    [(torch.bfloat16, 2**-8), (torch.float16, 2**-11), (torch.float32, 2**-24)],
)
def test_narrow_maps_are_rounded_once_at_the_end(dtype, ulp):
    parameters = [p.float() for p in PARAMETERS["random"]]
    x = normal(5, 6).to(dtype)
    upstream = normal(5, 6, seed=5).to(dtype)
    found = differentiate(linear, x, parameters, upstream)
    wide = [x.double(), [p.double() for p in parameters], upstream.double()]
    truth = differentiate(dense, *wide)
    assert [value.dtype for value in found] == [dtype, dtype, *[torch.float32] * 4]
    for value, true in zip(found[:2], truth[:2], strict=True):
        assert_close(value.double(), true, rtol=1.01 * ulp, atol=1e-6)
    for value, true in zip(found[2:], truth[2:], strict=True):
        assert_close(value.double(), true, rtol=0, atol=1e-6)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(half):
    x, parameters = float32_maps("random", 0)
    upstream = normal(*x.shape, seed=5, dtype=torch.float32)
    expected = differentiate(linear, x, parameters, upstream)
    with torch.autocast("cpu", half):
        found = differentiate(linear, x, parameters, upstream)
    for value, true in zip(found, expected, strict=True):
        assert value.dtype == torch.float32
        assert torch.equal(value, true)


# The kernel -----------------------------------------------------------------
def angles(n):
    angle = torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)
    return torch.stack([angle.cos(), angle.sin()])


@pytest.mark.parametrize("tolerance", [2**-23, 2**-52], ids=["float32", "float64"])
@pytest.mark.parametrize("temperature", [0.1, 0.2, 0.35, 0.5, 1.0, 2.0, 30.0])
def test_degree_is_enough_for_the_kernel(temperature, tolerance):
    """In the plane of both (the worst), in planes at an angle, and at right angles."""
    n = _criss_cross.degree(temperature, tolerance)
    # In exact arithmetic, of directions that point away from each other:
    left_out = 2 * iv(np.arange(n + 1, n + 60), 1 / temperature).sum()
    assert left_out * math.exp(1 / temperature) < tolerance
    unit = angles(97)
    bases = [torch.linalg.qr(normal(D, 2, seed=seed))[0] for seed in (0, 1)]
    for form in (
        torch.eye(2, dtype=torch.float64),
        torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64)),
        bases[0].T @ bases[1],
        torch.zeros(2, 2, dtype=torch.float64),
    ):
        form = form / temperature
        kernel = torch.exp(unit.T @ form @ unit)
        tables = _criss_cross.coefficients(form, n)
        waves = _criss_cross.harmonics(unit, n)
        series = waves.T @ tables[0] @ waves
        allowed = tolerance + 4 * rounding(temperature)
        assert ((series - kernel).abs() / kernel).max() < allowed


@pytest.mark.parametrize("n", [1, 2, 7, 30])
def test_harmonics_are_those_of_the_angle_but_for_the_sign(n):
    unit = angles(11)
    found = _criss_cross.harmonics(unit, n).unflatten(0, (n + 1, 2))
    angle = torch.atan2(unit[1], unit[0])
    for j in range(1, n + 1):
        sign = 1 if torch.allclose(found[j, 0], (j * angle).cos()) else -1
        assert_close(found[j, 0], sign * (j * angle).cos(), rtol=0, atol=1e-13)
        assert_close(found[j, 1], sign * (j * angle).sin(), rtol=0, atol=1e-13)
    assert (found[0, 0] == 1).all()
    assert (found[0, 1] == 0).all()


def test_series_gives_vectors_of_zeros_cosine_zero():
    unit = torch.cat([angles(5), torch.zeros(2, 1, dtype=torch.float64)], dim=1)
    form = torch.tensor([[0.3, -0.6], [0.5, 0.2]], dtype=torch.float64)
    waves = _criss_cross.harmonics(unit, 20)
    series = waves.T @ _criss_cross.coefficients(form, 20)[0] @ waves
    assert_close(series, torch.exp(unit.T @ form @ unit), rtol=1e-13, atol=0)
    assert_close(series[5], torch.ones(6, dtype=torch.float64), rtol=1e-15, atol=0)


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_planes_hold_their_vectors(parameters):
    weight, bias = PARAMETERS[parameters][:2]
    plane = _criss_cross._Plane(weight, bias)
    values = normal(20, seed=12)
    unit, inverse = plane.directions(values)
    vectors = values * weight[:, None] + bias[:, None]  # (D, 20)
    rebuilt = (plane.basis @ unit)[: len(weight)]
    assert_close(rebuilt, vectors * inverse, rtol=0, atol=1e-13)
    norm = torch.linalg.vector_norm(vectors, dim=0)
    assert_close(inverse * norm, (norm > 0).double(), rtol=0, atol=1e-12)
    gram = plane.basis.T @ plane.basis
    assert_close(gram, torch.eye(2, dtype=torch.float64), rtol=0, atol=1e-14)


# --------------------------------------------------------------------------
# Masks, batches, blocks
# --------------------------------------------------------------------------
def pad(maps, width, fill):
    out = torch.full((len(maps), width, maps[0].shape[1]), fill, dtype=torch.float64)
    for row, cells in zip(out, maps, strict=True):
        row[: len(cells)] = cells
    return out


def mask_of(lengths, width):
    return torch.arange(width) < torch.tensor(lengths)[:, None]


@settings(max_examples=40, deadline=None, database=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    n_features=st.integers(1, 6),
    extra=st.integers(0, 5),
    fill=st.sampled_from([math.nan, math.inf, -math.inf, 1e30, -1.0, 0.0]),
    temperature=st.sampled_from([1.0, 0.4]),
    front=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_padding_company_and_order_change_nothing(
    lengths, n_features, extra, fill, temperature, front, seed
):
    maps = [normal(n, n_features, seed=seed + i) for i, n in enumerate(lengths)]
    parameters = [normal(3, seed=seed + 10 + i).requires_grad_() for i in range(4)]
    width = max(lengths) + extra
    x, mask = pad(maps, width, fill), mask_of(lengths, width)
    upstream = normal(*x.shape, seed=seed + 20)
    if front:  # the mask says what is real, wherever it is
        x, mask, upstream = x.flip(1), mask.flip(1), upstream.flip(1)
        maps = [cells.flip(0) for cells in maps]
    x.requires_grad_()
    out = criss_cross_attention(x, *parameters, mask, temperature=temperature)
    together = torch.autograd.grad(out, [x, *parameters], upstream)
    assert (out[~mask] == 0).all()
    assert (together[0][~mask] == 0).all()
    total = [torch.zeros(3, dtype=torch.float64) for _ in range(4)]
    for i, cells in enumerate(maps):
        alone = differentiate(
            linear, cells, parameters, upstream[i][mask[i]], temperature
        )
        assert_close(out[i][mask[i]], alone[0], rtol=1e-12, atol=1e-12)
        assert_close(together[0][i][mask[i]], alone[1], rtol=1e-9, atol=1e-9)
        total = [s + gradient for s, gradient in zip(total, alone[2:], strict=True)]
    assert_close(list(together[1:]), total, rtol=1e-9, atol=1e-9)


def test_ragged_batch_equals_the_printed_equations():
    lengths = [4, 1, 7]
    maps = [normal(n, 5, seed=n) for n in lengths]
    parameters = PARAMETERS["random"]
    for fill in (math.nan, math.inf, 1e30):
        out = criss_cross_attention(
            pad(maps, 9, fill), *parameters, mask_of(lengths, 9), temperature=0.5
        )
        expected = naive.criss_cross_attention(maps, *parameters, 0.5)
        for row, values in zip(out, expected, strict=True):
            np.testing.assert_allclose(row[: len(values)], values, atol=1e-12)
            assert (row[len(values) :] == 0).all()


def test_a_video_without_a_real_snippet_is_zeros_with_zero_gradients():
    x = pad([normal(3, 4)], 3, 0).expand(2, 3, 4).clone()
    x[1] = math.nan
    inputs = [x, *PARAMETERS["random"]]
    inputs = [tensor.clone().requires_grad_() for tensor in inputs]
    out = criss_cross_attention(*inputs, mask_of([3, 0], 3))
    gradients = torch.autograd.grad(out, inputs, torch.ones_like(out))
    alone = differentiate(linear, normal(3, 4), inputs[1:], torch.ones(3, 4))
    assert (out[1] == 0).all()
    assert (gradients[0][1] == 0).all()
    assert_close(gradients[0][0], alone[1], rtol=1e-12, atol=1e-12)
    assert_close(list(gradients[1:]), alone[2:], rtol=1e-10, atol=1e-12)


def test_no_mask_means_all_real():
    x, parameters = normal(2, 4, 5), PARAMETERS["random"]
    mask = torch.ones(2, 4, dtype=torch.bool)
    without = criss_cross_attention(x, *parameters)
    assert torch.equal(without, criss_cross_attention(x, *parameters, mask))


def test_memory_order_does_not_matter():
    x, parameters = normal(2, 5, 4), PARAMETERS["random"]
    turned = x.transpose(0, 2).contiguous().transpose(0, 2)
    assert not turned.is_contiguous()
    assert torch.equal(
        criss_cross_attention(turned, *parameters),
        criss_cross_attention(x, *parameters),
    )


@pytest.mark.parametrize(
    ("block", "chunk"), [(1, 1), (7, 35), (12, 36), (10**9, 70), (40, 10**9)]
)
def test_blocks_and_chunks_change_nothing(monkeypatch, block, chunk):
    x, mask = normal(5, 7, 5), mask_of([7, 1, 3, 7, 6], 7)
    upstream = normal(5, 7, 5, seed=5)

    def run():
        calls, lines = [], []
        operator, moments = functional.criss_cross, _criss_cross._moments

        def counting_calls(x, *args):
            calls.append(len(x))
            return operator(x, *args)

        def counting_lines(harmonics, values):
            lines.append(values.shape[1:].numel())
            return moments(harmonics, values)

        with monkeypatch.context() as patch:
            patch.setattr(functional, "criss_cross", counting_calls)
            patch.setattr(_criss_cross, "_moments", counting_lines)
            inputs = [x, *PARAMETERS["random"]]
            inputs = [tensor.clone().requires_grad_() for tensor in inputs]
            out = criss_cross_attention(*inputs, mask)
            gradients = torch.autograd.grad(out, inputs, upstream)
        return [out, *gradients], calls, lines

    expected, calls, lines = run()
    assert (calls, max(lines)) == ([5], 175)  # one call, all lines at a time
    monkeypatch.setattr(_criss_cross, "_BLOCK", block)
    monkeypatch.setattr(functional, "CHUNK", chunk)
    found, calls, lines = run()
    assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert max(calls) == min(5, max(1, chunk // 35))
    assert sum(calls) == 5
    assert max(lines) <= max(block, 7)


# --------------------------------------------------------------------------
# What it costs, what it leaves alone, what it refuses
# --------------------------------------------------------------------------
def test_memory_grows_with_the_cells(monkeypatch):
    over_crosses, largest = _criss_cross._over_crosses, []

    def watched(*args):  # the mode outside sees an operator, not its steps
        with LargestTensor() as mode:
            sums = over_crosses(*args)
        largest[-1] = max(largest[-1], mode.numel)
        return sums

    monkeypatch.setattr(_criss_cross, "_over_crosses", watched)
    for shape in ((64, 256), (128, 512)):
        x = normal(1, *shape, dtype=torch.float32).requires_grad_()
        parameters = [p.float().requires_grad_() for p in PARAMETERS["random"]]
        largest.append(0)
        with LargestTensor() as mode:
            criss_cross_attention(x, *parameters).sum().backward()
        cells = shape[0] * shape[1]
        assert mode.numel <= 2 * cells
        assert cells < largest[-1] < 64 * cells < cells * sum(shape) / 4
    assert largest[1] < 4.1 * largest[0]


def test_largest_tensor_sees_the_cosines_of_the_dense_form():
    """Or else the test above could not fail."""
    with LargestTensor() as mode:
        dense(normal(16, 32), *PARAMETERS["random"])
    assert mode.numel >= 16 * 32 * (16 + 32)


def test_nothing_but_maps_is_kept_for_the_gradient():
    kept = []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    x = normal(1, 20, 30).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        criss_cross_attention(x, *PARAMETERS["random"])
    assert max(kept) == 600
    assert sum(kept) <= 4 * 600 + 4 * D


def test_same_bits_twice_and_no_random_numbers():
    x, parameters = float32_maps("random", 0)
    upstream = normal(*x.shape, seed=5, dtype=torch.float32)
    before = torch.get_rng_state()
    first = differentiate(linear, x, parameters, upstream)
    second = differentiate(linear, x, parameters, upstream)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_input_is_left_alone():
    inputs = [normal(2, 3, 4), *PARAMETERS["random"]]
    copies = [tensor.clone().requires_grad_() for tensor in inputs]
    mask = mask_of([3, 2], 3)
    criss_cross_attention(*copies, mask).sum().backward()
    for copy, tensor in zip(copies, inputs, strict=True):
        assert torch.equal(copy, tensor)
    assert torch.equal(mask, mask_of([3, 2], 3))


def test_only_what_asks_for_a_gradient_gets_one():
    x, parameters = normal(1, 3, 4), [p.clone() for p in PARAMETERS["random"]]
    parameters[2].requires_grad_()
    criss_cross_attention(x, *parameters).sum().backward()
    assert parameters[2].grad.any()
    assert x.grad is None
    assert parameters[0].grad is None
    assert not criss_cross_attention(x, *PARAMETERS["random"]).requires_grad


def test_operators_keep_torchs_rules():
    """Compilers rely on them: on fakes with the shapes and aliases of the outputs."""
    x, real = normal(2, 3, 4), mask_of([3, 2], 3)[:, :, None]
    x = x.masked_fill(~real, 0)
    parameters = PARAMETERS["random"]
    leaves = [tensor.clone().requires_grad_() for tensor in (x, *parameters)]
    torch.library.opcheck(_criss_cross.criss_cross, (leaves[0], real, *leaves[1:], 0.5))
    _, total, attended = _criss_cross.criss_cross(x, real, *parameters, 0.5)
    torch.library.opcheck(
        _criss_cross.criss_cross_backward,
        (normal(2, 3, 4, seed=5), x, real, total, attended, *parameters, 0.5),
    )


def test_second_derivatives_are_refused():
    x = normal(1, 2, 3).requires_grad_()
    out = criss_cross_attention(x, *PARAMETERS["random"])
    (gradient,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        gradient.sum().backward()


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4, 5), (4,)])
def test_refuses_maps_of_other_axes(shape):
    message = rf"x has shape \({shape[0]},.*, expected \(B, T, C\)"
    with pytest.raises(ValueError, match=message):
        criss_cross_attention(torch.zeros(shape), *[torch.ones(2)] * 4)


@pytest.mark.parametrize(
    "shapes",
    [
        [(2,), (2,), (3,), (3,)],
        [(2,), (3,), (2,), (3,)],
        [(2,), (2,), (2,), ()],
        [(2, 1)] * 4,  # as torch.nn.Linear holds its weight
        [()] * 4,
    ],
)
def test_refuses_parameters_of_other_shapes(shapes):
    parameters = [torch.ones(shape) for shape in shapes]
    with pytest.raises(ValueError, match=r"weights and biases have shapes .*\(D,\)"):
        criss_cross_attention(torch.zeros(1, 2, 3), *parameters)


@pytest.mark.parametrize("temperature", [0.0999, 0.0, -1.0, math.nan, -math.inf])
def test_refuses_low_temperatures(temperature):
    parameters = PARAMETERS["random"]
    with pytest.raises(ValueError, match=r"temperature must be at least 0\.1, got"):
        linear(normal(2, 3), *parameters, temperature=temperature)


@pytest.mark.parametrize("temperature", [1e8, math.inf])
def test_attention_of_the_highest_temperatures_is_uniform(temperature):
    x, parameters = normal(3, 4, dtype=torch.float32), PARAMETERS["random"]
    out = linear(x, *parameters, temperature=temperature)
    mean = (x.sum(dim=0) + x.sum(dim=1, keepdim=True) - x) / 6
    assert_close(out, x + mean)
