"""Layers: what scaling learns; dropout and initialisation draw from their generator."""

import copy
import math
import pickle

import naive
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from sklearn_vad.layers import Dropout, InputScaling, initialise


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def training_dropout(p, seed=0):
    layer = Dropout(p).train()
    layer.generator = generator(seed)
    return layer


@pytest.fixture
def untouched_global_generator():
    """Fail when the test moves torch's global generator."""
    torch.manual_seed(1234)
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)


# --------------------------------------------------------------------------
# Dropout
# --------------------------------------------------------------------------
@pytest.mark.usefixtures("untouched_global_generator")
def test_dropout_is_decided_by_its_generator():
    x = torch.ones(50, 20)
    first, again = training_dropout(0.4)(x), training_dropout(0.4)(x)
    assert torch.equal(first, again)
    assert not torch.equal(first, training_dropout(0.4, seed=1)(x))
    layer = training_dropout(0.4)
    assert torch.equal(layer(x), first)
    assert not torch.equal(layer(x), first)  # the generator moved on


@pytest.mark.parametrize("p", [0.1, 0.6, 0.9])
def test_dropout_keeps_the_mean(p):
    x = torch.full((1000, 200), 3.0)
    out = training_dropout(p)(x)
    kept = out != 0
    assert kept.float().mean().item() == pytest.approx(1 - p, abs=0.005)
    of_65536 = round(p * 2**16)  # p goes in these steps
    gain = 2**16 / (2**16 - of_65536)
    assert_close(out[kept], torch.full_like(out[kept], 3.0 * gain))
    assert gain == pytest.approx(1 / (1 - p), rel=1e-4)
    assert out.mean().item() == pytest.approx(3.0, rel=0.02)


def test_dropout_draws_every_entry_for_itself():
    """Four entries share one random number, and must not share anything else."""
    n = 40_000
    dropped = (training_dropout(0.3)(torch.ones(n)) == 0).double().view(-1, 4)
    for i in range(4):
        assert dropped[:, i].mean().item() == pytest.approx(0.3, abs=0.02)
    correlation = np.corrcoef(dropped.numpy().T) - np.eye(4)
    assert np.abs(correlation).max() < 0.05


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7])
def test_dropout_of_any_number_of_entries(n):
    out = torch.stack(
        [training_dropout(0.5, seed)(torch.ones(n)) for seed in range(50)]
    )
    assert set(out.unique().tolist()) == {0, 2}
    assert (out.mean(dim=0) - 1).abs().max() < 0.6


def test_dropout_close_to_one_stays_finite():
    out = training_dropout(0.9999999)(torch.ones(1000, 200))
    assert torch.isfinite(out).all()


def test_dropout_passes_the_gradient_of_what_it_kept():
    x = torch.ones(40, 5, requires_grad=True)
    out = training_dropout(0.5)(x)
    out.sum().backward()
    assert_close(x.grad, torch.where(out != 0, 2.0, 0.0))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dropout_keeps_the_dtype(dtype):
    out = training_dropout(0.5)(torch.ones(10, 10, dtype=dtype))
    assert out.dtype == dtype
    assert set(out.unique().tolist()) == {0, 2}


def test_dropout_does_nothing_in_eval_mode_or_with_p_0():
    x = torch.randn(5, 5, generator=generator())
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0).train()(x) is x


def test_dropout_needs_a_generator_to_train():
    with pytest.raises(RuntimeError, match="no generator"):
        Dropout(0.5).train()(torch.ones(3))


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))],
    ids=["deepcopy", "pickle"],
)
def test_dropout_copies_without_its_generator(duplicate):
    layer = training_dropout(0.3)
    twin = duplicate(layer)
    assert (twin.p, twin.training, twin.generator) == (0.3, True, None)
    assert layer.generator is not None


# --------------------------------------------------------------------------
# InputScaling
# --------------------------------------------------------------------------
def naive_statistics(rows, kind, l2_normalize=False):
    """Mean and scale of every feature, one value at a time, in two passes."""
    rows = [[float(x) for x in row] for row in rows]
    if l2_normalize:
        norms = [math.sqrt(sum(x**2 for x in row)) or 1.0 for row in rows]
        rows = [[x / n for x in row] for row, n in zip(rows, norms, strict=True)]
    columns = list(zip(*rows, strict=True))
    means = [math.fsum(column) / len(rows) for column in columns]
    variances = [
        math.fsum((x - mean) ** 2 for x in column) / len(rows)
        for column, mean in zip(columns, means, strict=True)
    ]
    if kind == "uniform":
        variances = [math.fsum(variances) / len(variances)] * len(variances)
    return means, [math.sqrt(variance) or 1.0 for variance in variances]


def fitted_scaling(blocks, kind="uniform", l2_normalize=False):
    scaling = InputScaling(blocks[0].shape[1], l2_normalize)
    scaling.fit(iter(blocks), kind)  # blocks are seen once
    return scaling


def make_rows(lengths=(40, 3, 17), n_features=5, seed=0, dtype=np.float32):
    """Blocks of rows, of features of different means and scales."""
    rng = np.random.default_rng(seed)
    scale = 10.0 ** np.arange(-1, n_features - 1)
    return [
        (rng.normal(2, 1, size=(n, n_features)) * scale).astype(dtype) for n in lengths
    ]


scalings = pytest.mark.parametrize("kind", ["uniform", "standard"])


@scalings
@pytest.mark.parametrize("l2_normalize", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scaling_learns_mean_and_deviation(kind, l2_normalize, dtype):
    blocks = make_rows(dtype=dtype)
    blocks[1][0] = 0  # a row without a norm
    scaling = fitted_scaling(blocks, kind, l2_normalize)
    rows = np.concatenate(blocks)
    shift, scale = naive_statistics(rows, kind, l2_normalize)
    np.testing.assert_allclose(scaling.shift, shift, rtol=1e-6)
    np.testing.assert_allclose(scaling.scale, scale, rtol=1e-6)
    assert (len(set(scale)) == 1) == (kind == "uniform")
    assert scaling.shift.dtype == scaling.scale.dtype == torch.float32
    rows = np.float32(rows)
    expected = naive.scaled(scaling, rows)
    np.testing.assert_allclose(scaling(torch.from_numpy(rows)), expected, atol=1e-5)


def test_scaling_by_hand():
    blocks = [np.float32([[1, 10], [3, 10]]), np.float32([[5, 16]])]
    # Means 3 and 12, variances 8 / 3 and 8, on average 16 / 3.
    uniform = fitted_scaling(blocks, "uniform")
    assert uniform.shift.tolist() == [3, 12]
    assert_close(uniform.scale, torch.tensor([16 / 3, 16 / 3]).sqrt())
    standard = fitted_scaling(blocks, "standard")
    assert standard.shift.tolist() == [3, 12]
    assert_close(standard.scale, torch.tensor([8 / 3, 8.0]).sqrt())
    x = torch.tensor([[5.0, 12.0]])
    assert_close(uniform(x), torch.tensor([[2 / (16 / 3) ** 0.5, 0.0]]))
    assert_close(standard(x), torch.tensor([[2 / (8 / 3) ** 0.5, 0.0]]))


@scalings
def test_scaled_rows_have_mean_0_and_mean_variance_1(kind):
    blocks = make_rows((500, 300))
    scaled = fitted_scaling(blocks, kind)(torch.from_numpy(np.concatenate(blocks)))
    variance = scaled.double().var(dim=0, correction=0)
    assert_close(scaled.mean(dim=0), torch.zeros(5), atol=1e-5, rtol=0)
    assert variance.mean().item() == pytest.approx(1, abs=1e-5)
    if kind == "standard":
        assert_close(variance, torch.ones_like(variance), atol=1e-5, rtol=0)
    else:  # ratios stay
        assert variance[4] / variance[3] == pytest.approx(100, rel=0.3)


@scalings
def test_a_constant_feature_becomes_0(kind):
    blocks = make_rows()
    for rows in blocks:
        rows[:, 2] = 0.1
    scaling = fitted_scaling(blocks, kind)
    shift, scale = naive_statistics(np.concatenate(blocks), kind)
    np.testing.assert_allclose(scaling.shift, shift, rtol=1e-6)
    if kind == "standard":
        scale[2] = 1.0  # the loop's variance is 0 but for rounding
    np.testing.assert_allclose(scaling.scale, scale, rtol=1e-6)
    assert (scaling(torch.from_numpy(blocks[0]))[:, 2] == 0).all()


@scalings
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, -73.3, 1e5 / 3])
def test_without_variance_the_scale_stays_1(kind, dtype, value):
    """Also where rounding makes a mean differ from the value by a bit."""
    blocks = [np.full((n, 3), value, dtype=dtype) for n in (1000, 777, 4999, 3)]
    scaling = fitted_scaling(blocks, kind)
    assert scaling.scale.tolist() == [1, 1, 1]
    assert_close(scaling.shift, torch.full((3,), value))


@scalings
def test_one_row_is_enough(kind):
    scaling = fitted_scaling([np.float32([[3, -4]])], kind, l2_normalize=True)
    assert_close(scaling.shift, torch.tensor([0.6, -0.8]))
    assert scaling.scale.tolist() == [1, 1]


@scalings
def test_a_large_mean_takes_no_digits_of_the_deviation(kind):
    """The sum of squares would lose them all, in float32."""
    blocks = [rows + np.float32(3e4) for rows in make_rows(n_features=3)]
    scaling = fitted_scaling(blocks, kind)
    _, scale = naive_statistics(np.concatenate(blocks), kind)
    np.testing.assert_allclose(scaling.scale, scale, rtol=1e-6)


@scalings
@settings(max_examples=30, deadline=None, database=None)
@given(
    cuts=st.sets(st.integers(1, 59), max_size=8),
    order=st.permutations(range(60)),
    l2_normalize=st.booleans(),
)
def test_neither_blocks_nor_order_matter(kind, cuts, order, l2_normalize):
    (rows,) = make_rows([60])
    whole = fitted_scaling([rows], kind, l2_normalize)
    blocks = np.split(rows[order], sorted(cuts))
    scaling = fitted_scaling(blocks, kind, l2_normalize)
    assert_close(scaling.shift, whole.shift, rtol=1e-6, atol=1e-7)
    assert_close(scaling.scale, whole.scale, rtol=1e-6, atol=1e-7)


@scalings
@settings(max_examples=30, deadline=None, database=None)
@given(factor=st.floats(1e-3, 1e3), shift=st.floats(-10, 10))
def test_scaled_rows_are_the_same_in_other_units(kind, factor, shift):
    (rows,) = make_rows([60], n_features=3)
    other = np.float32(factor * (rows + shift))
    expected, found = (
        fitted_scaling([x], kind)(torch.from_numpy(x)) for x in (rows, other)
    )
    assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_standard_scales_features_one_by_one():
    (rows,) = make_rows([60])
    units = np.float32([1e3, 1, 1e-3, 7, 50])
    expected, found = (
        fitted_scaling([x], "standard")(torch.from_numpy(x))
        for x in (rows, rows * units)
    )
    assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_scaling_changes_nothing_before_fit():
    scaling = InputScaling(3)
    x = torch.randn(4, 2, 3, generator=generator())
    assert torch.equal(scaling(x), x)
    normalizing = InputScaling(3, l2_normalize=True)
    assert_close(normalizing(x), x / x.norm(dim=-1, keepdim=True))
    assert torch.equal(normalizing(torch.zeros(1, 3)), torch.zeros(1, 3))
    scaling.fit([np.float32([[1, 2, 3], [3, 2, 0]])], "standard")
    scaling.reset_parameters()
    assert torch.equal(scaling(x), x)


def test_scaling_is_not_trained_but_saved():
    scaling = fitted_scaling(make_rows())
    assert list(scaling.parameters()) == []
    assert list(scaling.state_dict()) == ["shift", "scale"]
    assert not any(buffer.requires_grad for buffer in scaling.buffers())
    twin = pickle.loads(pickle.dumps(scaling))
    x = torch.randn(4, 5, generator=generator())
    assert torch.equal(twin(x), scaling(x))


# --------------------------------------------------------------------------
# initialise
# --------------------------------------------------------------------------
def module():
    return nn.ModuleDict(
        {
            "linear": nn.Linear(40, 30),
            "plain": nn.Linear(40, 30, bias=False),
            "conv": nn.Conv1d(8, 20, 5),
            "lstm": nn.LSTM(10, 16, bidirectional=True),
            "rnn": nn.RNN(10, 16, num_layers=2, nonlinearity="relu"),
            "norm": nn.LayerNorm(12),
            "scaling": InputScaling(12),
            "dropout": Dropout(0.5),
            "act": nn.Sequential(nn.GELU(), nn.ReLU()),
        }
    )


def initialised(seed):
    """A module whose weights and buffers were all NaN before."""
    net = module()
    for tensor in [*net.parameters(), *net.buffers()]:
        nn.init.constant_(tensor, torch.nan)
    initialise(net, generator(seed))
    return net


def test_same_seed_same_weights():
    first, again, other = initialised(0), initialised(0), initialised(1)
    for (name, a), b, c in zip(
        first.named_parameters(), again.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(a, b)
        assert torch.equal(a, c) == name.startswith("norm")


def test_initialise_draws_from_its_generator_alone():
    net = module()
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    draws = generator()
    initialise(net, draws)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert not torch.equal(draws.get_state(), generator().get_state())


@pytest.mark.parametrize(
    ("layer", "bound"),
    [
        ("linear", 40**-0.5),
        ("plain", 40**-0.5),
        ("conv", (8 * 5) ** -0.5),
        ("lstm", 16**-0.5),
        ("rnn", 16**-0.5),
    ],
)
def test_weights_fill_the_range_of_torchs_own_rule(layer, bound):
    """Uniform in +- 1 / sqrt(fan in), or of the hidden size where recurrent."""
    ours = initialised(0)[layer]
    theirs = module()[layer]
    for ours_, theirs_ in zip(ours.parameters(), theirs.parameters(), strict=True):
        for values in (ours_, theirs_):
            assert values.abs().max() <= bound
            assert values.abs().max() > 0.8 * bound
        if ours_.numel() > 400:
            assert ours_.std().item() == pytest.approx(bound / 3**0.5, rel=0.08)


def test_norms_and_scaling_begin_as_identity():
    norm = initialised(0)["norm"]
    assert torch.equal(norm.weight, torch.ones(12))
    assert torch.equal(norm.bias, torch.zeros(12))
    scaling = initialised(0)["scaling"]
    assert torch.equal(scaling.scale, torch.ones(12))
    assert torch.equal(scaling.shift, torch.zeros(12))


@pytest.mark.parametrize("options", [{"elementwise_affine": False}, {"bias": False}])
def test_norms_without_weights_or_bias(options):
    norm = nn.LayerNorm(3, **options)
    initialise(norm, generator())
    assert all((p == 1).all() for p in norm.parameters())


@pytest.mark.parametrize(
    "layer",
    [
        nn.Embedding(3, 4),
        nn.BatchNorm1d(3),
        nn.BatchNorm1d(3, affine=False),  # running statistics stay unfilled
        nn.PReLU(),
        nn.Conv2d(1, 1, 1),
        nn.MultiheadAttention(4, 2),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_unknown_layers_are_refused(layer):
    with pytest.raises(TypeError, match=f"initialise {type(layer).__name__}"):
        initialise(nn.Sequential(nn.Linear(2, 2), layer), generator())


def test_bare_parameters_are_refused():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

    with pytest.raises(TypeError, match="Scale"):
        initialise(Scale(), generator())
