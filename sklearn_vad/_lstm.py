"""The last hidden state of an LSTM, without what nobody asked for.

`torch.nn.LSTM` returns all hidden states, multiplies the first one (zeros) with
the recurrent weights, and can't know that the inputs of all steps are multiples
of one vector. `last_hidden` leaves these out, and the forget gate of sequences of
one step; its backward pass adds up the gradient of the recurrent weights in one
product over all steps.
"""

import torch
from torch.autograd.function import once_differentiable

from ._products import linear, product


class _LastHidden(torch.autograd.Function):
    """Gates of all steps but the recurrent part -> last hidden state."""

    @staticmethod
    def forward(ctx, gates, scale, bias, weight):
        # gates (S, M, 4h); with scale (S, M, 1) they are (M, 4h), the same for all
        n_steps = len(gates) if scale is None else len(scale)
        hidden, cell, saved = None, None, []
        for j in range(n_steps):
            step = (
                gates[j] + bias
                if scale is None
                else torch.addcmul(bias, gates, scale[j])
            )
            if hidden is not None:
                step += product(hidden.to(weight.dtype), weight)
            size = step.shape[1] // 4
            step[:, : 2 * size].sigmoid_()  # input and forget gate
            step[:, 2 * size : 3 * size].tanh_()  # candidate
            step[:, 3 * size :].sigmoid_()  # output gate
            i, f, g, o = step.split(size, dim=1)
            before = cell
            cell = i * g if before is None else torch.addcmul(i * g, f, before)
            tanh_cell = cell.tanh()
            saved += [step, before, tanh_cell, hidden]
            hidden = o * tanh_cell
        ctx.saved = saved
        ctx.save_for_backward(gates, scale, weight)
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_hidden):
        gates, scale, weight = ctx.saved_tensors
        n_steps = len(ctx.saved) // 4
        size = grad_hidden.shape[1]
        back = weight.t().contiguous()
        grad_gates = grad_hidden.new_empty(n_steps, len(grad_hidden), 4 * size)
        grad_cell = torch.zeros_like(grad_hidden)
        for j in reversed(range(n_steps)):
            step, before, tanh_cell, _ = ctx.saved[4 * j : 4 * j + 4]
            i, f, g, o = step.split(size, dim=1)
            grad = grad_gates[j]
            gi, gf, gg, go = grad.split(size, dim=1)
            grad_cell.addcmul_(grad_hidden * o, 1 - tanh_cell.square())
            torch.mul(grad_hidden * tanh_cell, o - o.square(), out=go)
            torch.mul(grad_cell * g, i - i.square(), out=gi)
            torch.mul(grad_cell * i, 1 - g.square(), out=gg)
            if before is None:
                gf.zero_()
                break
            torch.mul(grad_cell * before, f - f.square(), out=gf)
            grad_cell *= f
            grad_hidden = product(grad.to(weight.dtype), back).to(grad.dtype)
        return _gradients(ctx, gates, scale, weight, grad_gates)


def _gradients(ctx, gates, scale, weight, grad_gates):
    """Return the gradients of gates, scale, bias and recurrent weights."""
    grad_scale = grad_weight = None
    grad_bias = grad_gates.sum(dim=(0, 1))
    hidden = ctx.saved[7::4]  # those that entered steps 1, 2, ...
    if ctx.needs_input_grad[3]:
        grad_weight = torch.zeros_like(weight)
        if hidden:
            rows = grad_gates[1:].flatten(0, 1).to(weight.dtype)
            grad_weight = product(rows.t(), torch.cat(hidden).to(weight.dtype).t())
    if scale is None:
        return grad_gates, None, grad_bias, grad_weight
    if ctx.needs_input_grad[1]:
        grad_scale = (grad_gates * gates).sum(dim=2, keepdim=True)
    return (grad_gates * scale).sum(dim=0), grad_scale, grad_bias, grad_weight


class _OnlyStep(torch.autograd.Function):
    """As `_LastHidden` of sequences of one step, which have nothing to forget."""

    @staticmethod
    def forward(ctx, gates_i, gates_go, scale, bias, weight):
        # gates (M, h) of the input gate, (M, 2h) of candidate and output gate
        size = gates_i.shape[1]
        gates = []
        for own, shift in ((gates_i, bias[:size]), (gates_go, bias[2 * size :])):
            gates.append(
                own + shift if scale is None else torch.addcmul(shift, own, scale)
            )
        i, go = gates
        i.sigmoid_()
        g, o = go[:, :size].tanh_(), go[:, size:].sigmoid_()
        tanh_cell = (i * g).tanh_()
        ctx.saved = i, g, o, tanh_cell
        ctx.save_for_backward(gates_i, gates_go, scale, weight)
        return o * tanh_cell

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_hidden):
        gates_i, gates_go, scale, weight = ctx.saved_tensors
        i, g, o, tanh_cell = ctx.saved
        size = i.shape[1]
        grad_cell = grad_hidden * o * (1 - tanh_cell.square())
        grad_i = grad_cell * g * (i - i.square())
        grad_go = torch.empty_like(gates_go)
        torch.mul(grad_cell * i, 1 - g.square(), out=grad_go[:, :size])
        torch.mul(grad_hidden * tanh_cell, o - o.square(), out=grad_go[:, size:])
        forget = grad_i.new_zeros(size)
        grad_bias = torch.cat([grad_i.sum(dim=0), forget, grad_go.sum(dim=0)])
        grad_scale = None
        if scale is not None:
            grad_scale = (grad_i * gates_i).sum(dim=1, keepdim=True)
            grad_scale += (grad_go * gates_go).sum(dim=1, keepdim=True)
            grad_i, grad_go = grad_i * scale, grad_go * scale
        return grad_i, grad_go, grad_scale, grad_bias, torch.zeros_like(weight)


def last_hidden(lstm, x, scale=None):
    """Run a one-layer LSTM and return its last hidden state only.

    Parameters
    ----------
    lstm : torch.nn.LSTM
        One layer, one direction; its weights are used.
    x : Tensor of shape (M, steps, n_features), or (M, n_features) with `scale`
        The input of M sequences.
    scale : Tensor of shape (M, steps), default=None
        Given, the input of step j is ``x * scale[:, j]``: one product with the
        input weights serves all steps.

    Returns
    -------
    hidden : Tensor of shape (M, hidden_size)
        In the dtype of the weights; products alone run in half precision under
        autocast.
    """
    weight_ih, weight_hh, bias_ih, bias_hh = lstm.all_weights[0]
    bias = bias_ih + bias_hh
    device = x.device.type
    dtype = bias.dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    with torch.autocast(device, enabled=False):
        rows, weight_ih = x.flatten(0, -2).to(dtype), weight_ih.to(dtype)
        n_steps = x.shape[1] if scale is None else scale.shape[1]
        if n_steps == 1:
            size = lstm.hidden_size
            wanted = weight_ih[:size], weight_ih[2 * size :]  # not the forget gate's
            gates = [linear(rows, weight).to(bias.dtype) for weight in wanted]
            scale = None if scale is None else scale.to(bias.dtype)
            return _OnlyStep.apply(*gates, scale, bias, weight_hh)
        gates = linear(rows, weight_ih).to(bias.dtype)
        gates = gates.unflatten(0, x.shape[:-1])
        if scale is None:
            gates = gates.transpose(0, 1)  # (steps, M, 4 * hidden_size)
        else:
            scale = scale.t().unsqueeze(2).to(bias.dtype)  # (steps, M, 1)
        return _LastHidden.apply(gates, scale, bias, weight_hh.to(dtype))


def plain_last_hidden(lstm, x, scale=None):
    """Return what `last_hidden` does, by torch's own LSTM, which ONNX has too."""
    if scale is not None:
        x = x.unsqueeze(1) * scale.unsqueeze(2)
    return lstm(x.transpose(0, 1))[1][0].squeeze(0)
