"""`last_hidden` against torch's own LSTM: values, gradients, half precision."""

import naive
import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from sklearn_vad import _products
from sklearn_vad._lstm import last_hidden
from sklearn_vad.layers import initialise

N_FEATURES, SIZE = 5, 4
scaled = pytest.mark.parametrize("scaled", [False, True])


def make_lstm(seed=0, dtype=torch.float64):
    """An LSTM whose weights are large enough for gates far from one half."""
    lstm = nn.LSTM(N_FEATURES, SIZE)
    initialise(lstm, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for parameter in lstm.parameters():
            parameter *= 2
    return lstm.to(dtype)


def make_inputs(n_sequences, n_steps, scaled, dtype=torch.float64):
    """Arguments of `last_hidden` behind the LSTM; all of them want gradients."""
    rng = torch.Generator().manual_seed(1)
    shape = (n_sequences, N_FEATURES) if scaled else (n_sequences, n_steps, N_FEATURES)
    inputs = [torch.randn(shape, generator=rng, dtype=dtype)]
    if scaled:
        inputs.append(torch.randn(n_sequences, n_steps, generator=rng, dtype=dtype))
    return [x.requires_grad_() for x in inputs]


def torch_last_hidden(lstm, x, scale=None):
    """The same by `torch.nn.LSTM`, with the inputs of all steps written out."""
    if scale is not None:
        x = scale[:, :, None] * x[:, None, :]
    return lstm(x.transpose(0, 1))[1][0][0]


def value_and_gradients(function, lstm, inputs):
    """Hidden states, then the gradients of inputs and weights, of one weighted sum."""
    hidden = function(lstm, *inputs)
    weight = torch.randn(
        hidden.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    ).to(hidden.dtype)
    wanted = [*inputs, *lstm.parameters()]
    return [hidden, *torch.autograd.grad((hidden * weight).sum(), wanted)]


@scaled
@pytest.mark.parametrize("n_sequences", [1, 3])
@pytest.mark.parametrize("n_steps", range(1, 8))
def test_equals_torch_with_all_gradients(scaled, n_sequences, n_steps):
    lstm, inputs = make_lstm(), make_inputs(n_sequences, n_steps, scaled)
    found = value_and_gradients(last_hidden, lstm, inputs)
    expected = value_and_gradients(torch_last_hidden, lstm, inputs)
    assert len(found) == 1 + len(inputs) + 4
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@scaled
def test_equals_torch_in_float32(scaled):
    lstm, inputs = make_lstm(dtype=torch.float32), make_inputs(3, 7, scaled)
    inputs = [x.detach().float().requires_grad_() for x in inputs]
    found = value_and_gradients(last_hidden, lstm, inputs)
    expected = value_and_gradients(torch_last_hidden, lstm, inputs)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@scaled
def test_equals_the_printed_gates(scaled):
    lstm, inputs = make_lstm(), make_inputs(2, 6, scaled)
    weights = [p.detach().numpy() for p in lstm.parameters()]
    found = last_hidden(lstm, *inputs)
    x = inputs[0] if not scaled else inputs[1][:, :, None] * inputs[0][:, None]
    for row, steps in zip(found, x.detach().numpy(), strict=True):
        expected = naive.lstm(steps, *weights)
        np.testing.assert_allclose(row.detach(), expected, rtol=1e-10)


@scaled
@pytest.mark.parametrize("n_steps", [1, 2, 4])
def test_gradcheck(scaled, n_steps):
    lstm, inputs = make_lstm(), make_inputs(2, n_steps, scaled)
    weights = list(lstm.parameters())
    assert torch.autograd.gradcheck(
        lambda *args: last_hidden(lstm, *args[: len(inputs)]), [*inputs, *weights]
    )


@scaled
def test_backward_twice_gives_the_same(scaled):
    lstm, inputs = make_lstm(), make_inputs(2, 3, scaled)
    loss = last_hidden(lstm, *inputs).square().sum()
    wanted = [*inputs, *lstm.parameters()]
    first = torch.autograd.grad(loss, wanted, retain_graph=True)
    second = torch.autograd.grad(loss, wanted)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_second_derivatives_are_refused():
    """The way back takes the gates for constants."""
    lstm, inputs = make_lstm(), make_inputs(2, 3, scaled=False)
    loss = last_hidden(lstm, *inputs).square().sum()
    (gradient,) = torch.autograd.grad(loss, inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.square().sum().backward()


@scaled
def test_only_some_gradients_are_wanted(scaled):
    """Inputs are data, and weights may be frozen."""
    lstm, inputs = make_lstm(), make_inputs(2, 3, scaled)
    inputs = [x.detach() for x in inputs]
    lstm.weight_hh_l0.requires_grad_(False)
    last_hidden(lstm, *inputs).sum().backward()
    found = lstm.weight_ih_l0.grad, lstm.bias_hh_l0.grad
    assert lstm.weight_hh_l0.grad is None
    lstm.zero_grad()
    torch_last_hidden(lstm, *inputs).sum().backward()
    expected = lstm.weight_ih_l0.grad, lstm.bias_hh_l0.grad
    assert_close(found, expected, rtol=1e-10, atol=1e-12)


@scaled
def test_leaves_inputs_and_weights_alone(scaled):
    lstm, inputs = make_lstm(), make_inputs(2, 3, scaled)
    before = [x.detach().clone() for x in (*inputs, *lstm.parameters())]
    last_hidden(lstm, *inputs).sum().backward()
    after = [*inputs, *lstm.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@scaled
def test_saturated_gates(scaled):
    """Inputs as large as an unscaled dissimilarity map make no NaN, either way."""
    lstm, inputs = make_lstm(), make_inputs(2, 3, scaled)
    inputs = [(1e4 * x.detach()).requires_grad_() for x in inputs]
    found = value_and_gradients(last_hidden, lstm, inputs)
    expected = value_and_gradients(torch_last_hidden, lstm, inputs)
    assert found[0].abs().max() <= 1
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.isfinite().all()
        assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@scaled
def test_bfloat16_under_autocast_is_close_and_returns_float32(scaled):
    lstm = make_lstm(dtype=torch.float32)
    inputs = [x.detach().float() for x in make_inputs(3, 7, scaled)]
    inputs = [x.requires_grad_() for x in inputs]
    expected = value_and_gradients(torch_last_hidden, lstm, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        found = value_and_gradients(last_hidden, lstm, inputs)
    assert not torch.equal(found[0], expected[0])  # or else nothing was rounded
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        error = (ours - theirs).abs().max() / theirs.abs().max()
        assert error < 0.03


@scaled
def test_output_has_the_dtype_of_the_weights(scaled):
    lstm = make_lstm(dtype=torch.float32)
    hidden = last_hidden(lstm, *make_inputs(2, 3, scaled))  # of float64
    assert hidden.dtype == torch.float32
    expected = torch_last_hidden(lstm.double(), *make_inputs(2, 3, scaled))
    assert_close(hidden.double(), expected, rtol=1e-5, atol=1e-6)


def test_no_sequences():
    lstm = make_lstm()
    assert last_hidden(lstm, torch.zeros(0, 3, N_FEATURES).double()).shape == (0, SIZE)


@pytest.mark.parametrize("library", ["by oneDNN", "without oneDNN"])
@scaled
def test_equals_torch_by_either_library(scaled, library, monkeypatch):
    monkeypatch.setattr(_products, "_SMALL", 0)
    if library == "without oneDNN":
        monkeypatch.setattr(_products, "_ONEDNN", None)
    test_equals_torch_in_float32(scaled)
