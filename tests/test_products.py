"""Products by either library: values, gradients, matrices laid out in any way."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from sklearn_vad import _products
from sklearn_vad._products import linear, product
from sklearn_vad.layers import Linear


@pytest.fixture(params=["by oneDNN", "without oneDNN"])
def _library(request, monkeypatch):
    """Even small matrices go by oneDNN where torch has it, or by plain torch."""
    monkeypatch.setattr(_products, "_SMALL", 0)
    if request.param == "without oneDNN":
        monkeypatch.setattr(_products, "_ONEDNN", None)


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


LAYOUTS = {
    "rows": lambda x: x,
    "columns": lambda x: x.t().contiguous().t(),
    "every other row": lambda x: x.repeat_interleave(2, dim=0)[::2],
    "every other column": lambda x: x.repeat_interleave(2, dim=1)[:, ::2],
    "some columns": lambda x: torch.cat([x, 9 * x], dim=1)[:, : x.shape[1]],
    "some rows of columns": lambda x: (
        torch.cat([x, 9 * x]).t().contiguous().t()[: len(x)]
    ),
}


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bias", [False, True])
def test_product_equals_matmul(dtype, layout, bias):
    x, weight = random(17, 33, dtype=dtype), random(40, 33, seed=1, dtype=dtype)
    bias = random(40, seed=2, dtype=dtype) if bias else None
    expected = x.double() @ weight.double().t()
    expected += 0 if bias is None else bias.double()
    for pair in ((LAYOUTS[layout](x), weight), (x, LAYOUTS[layout](weight))):
        found = product(*pair, bias)
        assert found.dtype == dtype
        tolerance = 0.1 if dtype == torch.bfloat16 else 1e-5
        assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize(("m", "n", "k"), [(1, 5, 3), (5, 1, 3), (5, 3, 1), (1, 1, 1)])
def test_product_of_single_rows_and_columns(m, n, k):
    x, weight = random(m, n), random(k, n, seed=1)
    for pair in ((x, weight), (x.t().contiguous().t(), weight.t().contiguous().t())):
        assert_close(product(*pair), x @ weight.t())
    grown = random(2 * m, n)[::2], random(k, 2 * n, seed=1)[:, ::2]
    assert_close(product(*grown), grown[0] @ grown[1].t())


@pytest.mark.usefixtures("_library")
def test_product_of_expanded_rows():
    x, weight = random(1, 8).expand(5, 8), random(3, 8, seed=1)
    assert_close(product(x, weight), x @ weight.t())
    assert_close(product(weight, x), weight @ x.t())


def test_product_of_large_matrices():
    x, weight = random(256, 256), random(256, 256, seed=1)
    assert x.numel() * len(weight) > _products._SMALL
    expected = x.double() @ weight.double().t()
    assert_close(product(x, weight).double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(7,), (2, 7), (2, 3, 7), (0, 7)])
def test_linear_has_the_gradients_of_torch(shape, bias):
    inputs = [random(*shape), random(4, 7, seed=1)]
    inputs += [random(4, seed=2)] if bias else []
    weight = random(*shape[:-1], 4, seed=3)
    results = []
    for function in (linear, F.linear):
        leaves = [x.clone().requires_grad_() for x in inputs]
        out = function(*leaves)
        results.append([out, *torch.autograd.grad((out * weight).sum(), leaves)])
    for ours, theirs in zip(*results, strict=True):
        assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("_library")
def test_layer_is_half_as_precise_under_autocast_as_torch_has_it():
    layer, x = Linear(64, 32), random(10, 64)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x)
        expected = F.linear(x, layer.weight, layer.bias)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected)
