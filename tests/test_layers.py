"""Dropout and initialisation draw from the generator they are given, from no other."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from sklearn_vad.layers import Dropout, initialise


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
    assert_close(out[kept], torch.full_like(out[kept], 3.0 / (1 - p)))
    assert out.mean().item() == pytest.approx(3.0, rel=0.02)


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
            "dropout": Dropout(0.5),
            "act": nn.Sequential(nn.GELU(), nn.ReLU()),
        }
    )


def initialised(seed):
    """A module whose weights were all NaN before."""
    net = module()
    for parameter in net.parameters():
        nn.init.constant_(parameter, torch.nan)
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


def test_norms_begin_as_identity():
    norm = initialised(0)["norm"]
    assert torch.equal(norm.weight, torch.ones(12))
    assert torch.equal(norm.bias, torch.zeros(12))


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
