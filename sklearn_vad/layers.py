"""Network modules that two or more detectors share."""

import math

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from torch import nn

from ._products import linear


class InputScaling(nn.Module):
    """Bring features to a common scale, learned from the training snippets.

    Parameters
    ----------
    n_features : int
    l2_normalize : bool, default=False
        Divide every snippet by its L2 norm first; a row of zeros stays.
    n_components : int, default=None
        Principal components to give instead of the features.

    Attributes
    ----------
    n_out : int
        Features that come out.
    """

    def __init__(self, n_features, l2_normalize=False, n_components=None):
        super().__init__()
        self.l2_normalize = l2_normalize
        self.n_out = n_components or n_features
        self.register_buffer("shift", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(self.n_out))
        axes = None if n_components is None else torch.eye(n_features, n_components)
        self.register_buffer("axes", axes)  # (n_features, n_components)

    def reset_parameters(self):
        """Change nothing until `fit`."""
        self.shift.zero_()
        self.scale.fill_(1)
        if self.axes is not None:
            nn.init.eye_(self.axes)

    def _normalize(self, x):
        return nn.functional.normalize(x, dim=-1) if self.l2_normalize else x

    def fit(self, blocks, kind):
        """Learn shift and scale, in float64.

        Parameters
        ----------
        blocks : iterable of ndarray of shape (n_rows, n_features)
        kind : {"uniform", "standard", None}
            One scale for all that comes out, so that its mean variance is 1,
            one for each, or none. A variance of 0 leaves the scale at 1.
        """
        scaler = StandardScaler()
        for rows in blocks:
            scaler.partial_fit(self._normalize(torch.from_numpy(rows)).numpy())
        # Rounding gives constant features a variance; their scale_ is 1.
        constant = scaler.scale_ != np.sqrt(scaler.var_)
        self._set(scaler.mean_, np.where(constant, 0, scaler.var_), kind)

    def fit_axes(self, rows, kind):
        """Learn shift, principal axes and scale.

        Parameters
        ----------
        rows : ndarray of shape (n_rows, n_features)
            `n_components` or more.
        kind : {"uniform", "standard", None}
            As in `fit`.
        """
        rows = self._normalize(torch.from_numpy(rows)).numpy()
        mean = rows.mean(axis=0, dtype=np.float64)
        # Without a mean, squares lose no digits in float32.
        pca = PCA(self.n_out, svd_solver="covariance_eigh").fit(np.float32(rows - mean))
        self.axes.copy_(torch.from_numpy(pca.components_.T))
        self._set(mean, pca.explained_variance_.astype(np.float64), kind)

    def _set(self, mean, variance, kind):
        if kind == "uniform":
            variance = np.full_like(variance, variance.mean())
        if kind is not None:
            scale = np.where(variance > 0, np.sqrt(variance), 1.0)
            self.scale.copy_(torch.from_numpy(scale))
        self.shift.copy_(torch.from_numpy(mean))

    def forward(self, x):
        x = self._normalize(x) - self.shift
        x = x if self.axes is None else linear(x, self.axes.t())
        return x.div_(self.scale)  # no copy: batches are large


class Linear(nn.Linear):
    """`torch.nn.Linear`, in float32 on CPUs by the faster of two libraries."""

    def forward(self, x):
        return linear(x, self.weight, self.bias)


class Dropout(nn.Module):
    """Dropout that draws from a given generator instead of the global one.

    `torch.nn.Dropout` takes no generator, so a model that contains it can't be
    reproduced without seeding the whole process.

    Parameters
    ----------
    p : float
        Probability of dropping an entry, in [0, 1), in steps of 2**-16.
    """

    def __init__(self, p):
        super().__init__()
        self.p = p
        self.generator = None  # set by the engine, for training

    def forward(self, x):
        if not self.training or self.p == 0:
            return x
        if self.generator is None:
            raise RuntimeError("Dropout has no generator: train it through fit")
        # A fourth of a 64-bit number decides on each entry: a number for each would
        # take longer than the network's own layers.
        n_dropped = min(round(self.p * 2**16), 2**16 - 1)
        drawn = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
        drawn.random_(-(2**63), None, generator=self.generator)
        parts = drawn.view(torch.int16)[: x.numel()].view(x.shape)
        keep = (parts >= n_dropped - 2**15).to(x.dtype)
        return x * keep.mul_(2**16 / (2**16 - n_dropped))

    def extra_repr(self):
        return f"p={self.p}"

    def __getstate__(self):
        # A generator belongs to one device; the engine keeps its state.
        return {**self.__dict__, "generator": None}


def _uniform(parameter, bound, generator):
    nn.init.uniform_(parameter, -bound, bound, generator=generator)


@torch.no_grad()
def initialise(module, generator):
    """Fill all weights from `generator`, by torch's own default rules.

    Parameters
    ----------
    module : torch.nn.Module
        Of linear, convolution, recurrent and layer-norm layers.
    generator : torch.Generator

    Raises
    ------
    TypeError
        For a layer with weights or buffers of another kind: nothing may stay
        unfilled.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv1d)):
            bound = layer.weight[0].numel() ** -0.5  # 1 / sqrt(fan in)
            for parameter in layer.parameters(recurse=False):
                _uniform(parameter, bound, generator)
        elif isinstance(layer, nn.RNNBase):
            for parameter in layer.parameters():
                _uniform(parameter, layer.hidden_size**-0.5, generator)
        elif isinstance(layer, (nn.LayerNorm, InputScaling)):
            layer.reset_parameters()  # ones and zeros, nothing drawn
        elif [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]:
            raise TypeError(f"no rule to initialise {type(layer).__name__}")


def values_per_snippet(module, snippet_shape):
    """Return how many numbers a forward pass needs at once for a snippet, at most.

    Three times the features, as they come, shifted and scaled, and what each layer
    gives, all twice, for what comes and goes in between; and what the module says
    that it needs beyond.

    Parameters
    ----------
    module : nn.Module
        Its ``extra_per_snippet``, if it has one, is added.
    snippet_shape : tuple of int
        ``(n_features,)`` or ``(n_steps, n_features)``.

    Returns
    -------
    n_values : int
    """
    *steps, n_features = snippet_shape
    values = 3 * n_features
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            values += layer.out_features
        elif isinstance(layer, nn.RNNBase):  # an LSTM's four gates and two states
            values += 6 * layer.hidden_size * layer.num_layers
    extra = getattr(module, "extra_per_snippet", 0)
    return (2 * values + extra) * math.prod(steps)


def probabilities(logits):
    """Return the sigmoid, of half-precision logits in float32.

    In bfloat16 it would be exactly 1 from logits of 6 on.

    Parameters
    ----------
    logits : Tensor

    Returns
    -------
    probabilities : Tensor
        In [0, 1], float32 or wider.
    """
    return torch.sigmoid(logits.to(torch.promote_types(logits.dtype, torch.float32)))
