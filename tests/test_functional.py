"""Losses and attention against the papers' equations, written as plain loops."""

import math

import naive
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from sklearn_vad import _locality
from sklearn_vad import functional as vad

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
dtypes = pytest.mark.parametrize("dtype", TOLERANCE, ids=["float64", "float32"])

# Lengths on both sides of the steps of k = T // 16 + 1, for either class.
LENGTHS = [1, 2, 15, 16, 17, 33, 40, 1, 16, 48]
Y = [1, 0, 1, 1, 0, 1, 0, 0, 0, 1]


# --------------------------------------------------------------------------
# The losses under one signature: (scores, features, y, mask)
# --------------------------------------------------------------------------
def _topk_mean(module, scores, mask, k):
    """The mean of `topk_mean`'s values, of the tensor or the naive function."""
    values = module.topk_mean(scores, k, *mask)
    return values.mean()


# name -> (torch function, naive function); weights far above the defaults, so
# that a wrong smoothness or sparsity term shows.
LOSSES = {
    "topk_mean": (
        lambda s, f, y, m: _topk_mean(vad, s, [m], 3),
        lambda s, f, y: _topk_mean(naive, s, [], 3),
    ),
    "mil_bce": (
        lambda s, f, y, m: vad.mil_bce_loss(s, y, m),
        lambda s, f, y: naive.mil_bce_loss(s, y),
    ),
    "dynamics_ranking": (
        lambda s, f, y, m: vad.dynamics_ranking_loss(s, y, m),
        lambda s, f, y: naive.dynamics_ranking_loss(s, y),
    ),
    "dynamics_ranking, margin": (
        lambda s, f, y, m: vad.dynamics_ranking_loss(s, y, m, margin=0.4),
        lambda s, f, y: naive.dynamics_ranking_loss(s, y, margin=0.4),
    ),
    "dynamics_alignment": (
        lambda s, f, y, m: vad.dynamics_alignment_loss(s, f, m),
        lambda s, f, y: naive.dynamics_alignment_loss(s, f),
    ),
    "dynamics_alignment, eps": (
        lambda s, f, y, m: vad.dynamics_alignment_loss(s, f, m, eps=0.1),
        lambda s, f, y: naive.dynamics_alignment_loss(s, f, eps=0.1),
    ),
    "mil_ranking": (
        lambda s, f, y, m: vad.mil_ranking_loss(s, y, m),
        lambda s, f, y: naive.mil_ranking_loss(s, y),
    ),
    "mil_ranking, mean": (
        lambda s, f, y, m: vad.mil_ranking_loss(s, y, m, 0.3, 0.7, 0.2),
        lambda s, f, y: naive.mil_ranking_loss(s, y, 0.3, 0.7, 0.2),
    ),
    "mil_ranking, sum": (
        lambda s, f, y, m: vad.mil_ranking_loss(s, y, m, 0.3, 0.7, 0.2, "sum"),
        lambda s, f, y: naive.mil_ranking_loss(s, y, 0.3, 0.7, 0.2, "sum"),
    ),
    "mutual_cosine": (
        lambda s, f, y, m: vad.mutual_cosine_embedding_loss(f, y, m),
        lambda s, f, y: naive.mutual_cosine_embedding_loss(f, y),
    ),
    "mutual_cosine, margin": (
        lambda s, f, y, m: vad.mutual_cosine_embedding_loss(f, y, m, margin=-0.1),
        lambda s, f, y: naive.mutual_cosine_embedding_loss(f, y, margin=-0.1),
    ),
    "smooth_sparse": (
        lambda s, f, y, m: vad.smooth_sparse_loss(s, y, m, 0.7, 0.2),
        lambda s, f, y: naive.smooth_sparse_loss(s, y, 0.7, 0.2),
    ),
    "feature_magnitude": (
        lambda s, f, y, m: vad.feature_magnitude_loss(f, y, m),
        lambda s, f, y: naive.feature_magnitude_loss(f, y),
    ),
    "feature_magnitude, margin": (  # below some magnitudes and above others
        lambda s, f, y, m: vad.feature_magnitude_loss(f, y, m, k=1, margin=2.5),
        lambda s, f, y: naive.feature_magnitude_loss(f, y, k=1, margin=2.5),
    ),
    "magnitude_bce": (
        lambda s, f, y, m: vad.magnitude_bce_loss(s, f, y, m),
        lambda s, f, y: naive.magnitude_bce_loss(s, f, y),
    ),
    "magnitude_bce, k": (
        lambda s, f, y, m: vad.magnitude_bce_loss(s, f, y, m, k=16),
        lambda s, f, y: naive.magnitude_bce_loss(s, f, y, k=16),
    ),
}
losses = pytest.mark.parametrize("loss", LOSSES)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tensors are small here: threads would spend their time on each other."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def ragged(lengths, seed=0, decimals=16):
    """Scores in [0.05, 0.95], with ties where `decimals` is small, and features."""
    rng = np.random.default_rng(seed)
    scores = [0.05 + 0.9 * rng.random(n).round(decimals) for n in lengths]
    features = [rng.normal(size=(n, 5)) for n in lengths]
    return scores, features


def pad(bags, dtype=torch.float64, n_snippets=None, fill=0.0):
    """Stack bags of shape (T_i, ...), with `fill` behind each."""
    n_snippets = n_snippets or max(map(len, bags))
    out = torch.full((len(bags), n_snippets, *bags[0].shape[1:]), fill, dtype=dtype)
    for row, bag in zip(out, bags, strict=True):
        row[: len(bag)] = torch.as_tensor(bag)
    return out


def mask_of(lengths, n_snippets=None):
    return torch.arange(n_snippets or max(lengths)) < torch.tensor(lengths)[:, None]


def compute(loss, scores, features, y, **padding):
    """Value of a loss on padded bags."""
    mask = mask_of([len(s) for s in scores], padding.get("n_snippets"))
    tensors = (pad(bags, **padding) for bags in (scores, features))
    return LOSSES[loss][0](*tensors, torch.tensor(y), mask)


def gradients(inputs):
    """Gradients of the inputs that a loss uses; not all use scores."""
    return [x.grad for x in inputs if x.grad is not None]


batches = st.tuples(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 1)), min_size=1, max_size=6),
    st.integers(0, 10**6),
    st.sampled_from([1, 16]),
)


def unpack(batch):
    pairs, seed, decimals = batch
    lengths, y = zip(*pairs, strict=True)
    return (*ragged(lengths, seed, decimals), list(y))


# --------------------------------------------------------------------------
# All losses
# --------------------------------------------------------------------------
@losses
@dtypes
def test_loss_equals_the_printed_equation(loss, dtype):
    scores, features = ragged(LENGTHS)
    if dtype == torch.float32:  # let the loops see the same rounded numbers
        scores, features = (
            [np.float32(b).astype(float) for b in bags] for bags in (scores, features)
        )
    value = compute(loss, scores, features, Y, dtype=dtype)
    assert value.dtype == dtype
    expected = LOSSES[loss][1](scores, features, Y)
    assert value.item() == pytest.approx(expected, rel=TOLERANCE[dtype])


@losses
@settings(max_examples=30, deadline=None, database=None)
@given(batch=batches)
def test_loss_equals_the_printed_equation_on_any_batch(loss, batch):
    scores, features, y = unpack(batch)
    value = compute(loss, scores, features, y)
    expected = LOSSES[loss][1](scores, features, y)
    assert value.item() == pytest.approx(expected, rel=1e-10, abs=1e-12)


@losses
@settings(max_examples=20, deadline=None, database=None)
@given(
    batch=batches,
    extra=st.integers(0, 20),
    fill=st.sampled_from([math.nan, math.inf, -math.inf, 1e30, -1.0]),
)
def test_padding_changes_nothing_and_gets_no_gradient(loss, batch, extra, fill):
    pairs, seed, _ = batch
    lengths, y = zip(*pairs, strict=True)
    bags = ragged(lengths, seed)  # no ties: there the gradient is any of several

    def differentiate(width, fill):
        inputs = [pad(b, n_snippets=width, fill=fill).requires_grad_() for b in bags]
        mask = mask_of(lengths, width)
        value = LOSSES[loss][0](*inputs, torch.tensor(y), mask)
        value.backward()
        found = gradients(inputs)
        assert all((gradient[~mask] == 0).all() for gradient in found)
        return value, [gradient[:, : max(lengths)] for gradient in found]

    tight = differentiate(max(lengths), 0.0)
    wide = differentiate(max(lengths) + extra, fill)
    assert_close(wide, tight, rtol=1e-12, atol=1e-14)


@losses
@settings(max_examples=20, deadline=None, database=None)
@given(batch=batches, shuffle=st.randoms(use_true_random=False))
def test_order_of_bags_does_not_matter(loss, batch, shuffle):
    scores, features, y = unpack(batch)
    order = list(range(len(y)))
    shuffle.shuffle(order)
    moved = [[part[i] for i in order] for part in (scores, features, y)]
    value, expected = compute(loss, *moved), compute(loss, scores, features, y)
    assert_close(value, expected, rtol=1e-12, atol=1e-14)


@losses
def test_mask_says_what_is_real_also_in_front(loss):
    scores, features = ragged(LENGTHS)
    flipped = [[bag[::-1].copy() for bag in bags] for bags in (scores, features)]
    mask = mask_of(LENGTHS)
    behind = compute(loss, scores, features, Y)
    # Reversed bags, padded behind and reversed again: the same, padded in front.
    inputs = [pad(bags, fill=math.nan).flip(1) for bags in flipped]
    in_front = LOSSES[loss][0](*inputs, torch.tensor(Y), mask.flip(1))
    assert_close(in_front, behind, rtol=1e-12, atol=0)


@losses
def test_no_mask_means_all_real(loss):
    scores, features = ragged([20, 20, 20])
    inputs = [pad(scores), pad(features), torch.tensor([0, 1, 1])]
    without = LOSSES[loss][0](*inputs, None)
    assert torch.equal(without, LOSSES[loss][0](*inputs, mask_of([20, 20, 20])))


@losses
def test_gradcheck(loss):
    scores, features = ragged([4, 1, 18, 3, 17])
    y, mask = torch.tensor([0, 1, 1, 0, 1]), mask_of([4, 1, 18, 3, 17])
    inputs = [pad(bags).requires_grad_() for bags in (scores, features)]
    assert torch.autograd.gradcheck(lambda s, f: LOSSES[loss][0](s, f, y, mask), inputs)


@losses
@pytest.mark.parametrize(
    "y_dtype",
    [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float32, torch.float64],
)
def test_labels_of_any_dtype(loss, y_dtype):
    scores, features = map(pad, ragged(LENGTHS))
    y, mask = torch.tensor(Y), mask_of(LENGTHS)
    value = LOSSES[loss][0](scores, features, y.to(y_dtype), mask)
    assert torch.equal(value, LOSSES[loss][0](scores, features, y, mask))


full_precision = pytest.mark.parametrize("loss", [k for k in LOSSES if "topk" not in k])


@full_precision
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_input_is_computed_in_float32(loss, half, autocast):
    inputs = [pad(bags, half) for bags in ragged(LENGTHS)]
    y, mask = torch.tensor(Y), mask_of(LENGTHS)
    expected = LOSSES[loss][0](*(x.float() for x in inputs), y, mask)
    inputs = [x.requires_grad_() for x in inputs]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        value = LOSSES[loss][0](*inputs, y, mask)
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)
    value.backward()
    for gradient in gradients(inputs):
        assert gradient.isfinite().all()
        assert gradient.any()


@full_precision
def test_autocast_leaves_losses_in_float32(loss):
    scores, features = (pad(bags, torch.float32) for bags in ragged(LENGTHS))
    y, mask = torch.tensor(Y), mask_of(LENGTHS)
    expected = LOSSES[loss][0](scores, features, y, mask)
    with torch.autocast("cpu", torch.bfloat16):
        value = LOSSES[loss][0](scores, features, y, mask)
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)


@losses
@dtypes
@pytest.mark.parametrize("label", [0, 1])
def test_one_class(loss, dtype, label):
    scores, features = ragged([5, 17, 1])
    inputs = [pad(bags, dtype).requires_grad_() for bags in (scores, features)]
    y = [label] * 3
    value = LOSSES[loss][0](*inputs, torch.tensor(y), mask_of([5, 17, 1]))
    expected = LOSSES[loss][1](scores, features, y)
    assert value.item() == pytest.approx(expected, rel=TOLERANCE[dtype])
    if "dynamics_ranking" in loss or ("mil_ranking" in loss and label == 0):
        assert value.item() == 0
    value.backward()
    assert all(gradient.isfinite().all() for gradient in gradients(inputs))


@losses
@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("length", [1, 2, 16])
def test_one_bag(loss, label, length):
    scores, features = ragged([length])
    inputs = [pad(bags).requires_grad_() for bags in (scores, features)]
    value = LOSSES[loss][0](*inputs, torch.tensor([label]), None)
    expected = LOSSES[loss][1](scores, features, [label])
    assert value.item() == pytest.approx(expected, rel=1e-10)
    value.backward()
    assert all(gradient.isfinite().all() for gradient in gradients(inputs))


@losses
def test_batch_of_one_snippet_bags(loss):
    scores, features = ragged([1, 1, 1])
    inputs = [pad(bags).requires_grad_() for bags in (scores, features)]
    value = LOSSES[loss][0](*inputs, torch.tensor([1, 0, 1]), None)
    expected = LOSSES[loss][1](scores, features, [1, 0, 1])
    assert value.item() == pytest.approx(expected, rel=1e-10)
    value.backward()
    assert all(gradient.isfinite().all() for gradient in gradients(inputs))


# --------------------------------------------------------------------------
# topk_mean
# --------------------------------------------------------------------------
def test_topk_mean_by_hand():
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.3], [0.8, 0.2, 7.0, 7.0]])
    mask = mask_of([4, 2])
    assert_close(vad.topk_mean(scores, 1, mask), torch.tensor([0.9, 0.8]))
    assert_close(vad.topk_mean(scores, 2, mask), torch.tensor([0.7, 0.5]))
    # More than the second bag has, then more than either has.
    assert_close(vad.topk_mean(scores, 3, mask), torch.tensor([1.7 / 3, 0.5]))
    assert_close(vad.topk_mean(scores, 99, mask), torch.tensor([0.45, 0.5]))
    by_bag = vad.topk_mean(scores, torch.tensor([3, 1]), mask)
    assert_close(by_bag, torch.tensor([1.7 / 3, 0.8]))


@pytest.mark.parametrize(
    "k", [1, 2, 7, 40, 100, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [50] * 10]
)
@dtypes
def test_topk_mean_per_bag(k, dtype):
    scores = [np.float32(bag) for bag in ragged(LENGTHS)[0]]
    value = vad.topk_mean(
        pad(scores, dtype, fill=math.nan),
        k if isinstance(k, int) else torch.tensor(k),
        mask_of(LENGTHS),
    )
    expected = naive.topk_mean(scores, k)
    np.testing.assert_allclose(value.numpy(), expected, rtol=TOLERANCE[dtype])


def test_topk_mean_of_negative_and_huge_numbers():
    scores = torch.tensor([[-3.0, -1.0, -2.0], [-1e30, 1e30, 5.0]])
    value = vad.topk_mean(scores, 2, mask_of([3, 1]))
    assert_close(value, torch.tensor([-1.5, -1e30]))


def test_topk_mean_of_ties_sends_the_gradient_to_k_of_them():
    scores = torch.tensor([[0.5, 0.5, 0.5, 0.1]], requires_grad=True)
    value = vad.topk_mean(scores, 2)
    value.sum().backward()
    assert value.item() == 0.5
    assert sorted(scores.grad[0].tolist()) == [0, 0, 0.5, 0.5]
    assert scores.grad[0, 3] == 0


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_topk_mean_keeps_the_dtype(half):
    value = vad.topk_mean(torch.tensor([[0.25, 0.75, 0.5]], dtype=half), 2)
    assert_close(value, torch.tensor([0.625], dtype=half))


# --------------------------------------------------------------------------
# mil_bce_loss
# --------------------------------------------------------------------------
def test_mil_bce_by_hand():
    # 16 snippets: k is 2 in the anomalous bag and 1 in the normal one.
    scores = torch.zeros(2, 16)
    scores[:, :3] = torch.tensor([0.9, 0.7, 0.2])
    loss = vad.mil_bce_loss(scores, torch.tensor([1, 0]))
    assert loss.item() == pytest.approx((-math.log(0.8) - math.log(0.1)) / 2, rel=1e-6)


def test_mil_bce_wants_low_scores_of_normal_videos():
    """As printed, without the second term of Eq. 6, ones everywhere would be best."""
    y = torch.tensor([1, 0])
    assert vad.mil_bce_loss(torch.ones(2, 4), y) > vad.mil_bce_loss(
        torch.full((2, 4), 0.5), y
    )


@dtypes
@pytest.mark.parametrize("score", [0.0, 1.0])
@pytest.mark.parametrize("label", [0, 1])
def test_mil_bce_of_scores_at_the_ends(dtype, score, label):
    scores = torch.full((2, 20), score, dtype=dtype, requires_grad=True)
    loss = vad.mil_bce_loss(scores, torch.tensor([label, label]))
    loss.backward()
    assert scores.grad.isfinite().all()
    if score == label:
        assert loss.item() == 0
    else:
        assert 20 < loss.item() < math.inf


def test_saturated_sigmoid_trains_without_nan():
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    vad.mil_bce_loss(torch.sigmoid(logits), torch.tensor([1, 0])).backward()
    assert logits.grad.isfinite().all()


# --------------------------------------------------------------------------
# mil_ranking_loss
# --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"smoothness": 0, "sparsity": 0}, 0.9),
        ({"smoothness": 2, "sparsity": 0}, 0.9 + 2 * 0.16),
        ({"smoothness": 0, "sparsity": 0.5}, 0.9 + 0.5 * 0.8),
        ({"smoothness": 2, "sparsity": 0.5, "margin": 0.05}, 0.32 + 0.4),
        ({}, 0.9 + 8e-5 * (0.16 + 0.8)),
    ],
)
def test_mil_ranking_by_hand(weights, expected):
    scores = torch.tensor([[0.5, 9.0], [0.2, 0.6]], dtype=torch.float64)
    mask = torch.tensor([[True, False], [True, True]])
    loss = vad.mil_ranking_loss(scores, torch.tensor([0, 1]), mask, **weights)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_mil_ranking_reductions_differ_in_the_penalties_only():
    scores = torch.tensor([[0.2, 0.6], [0.4, 0.4], [0.3, 0.3]], dtype=torch.float64)
    y = torch.tensor([1, 1, 0])
    hinge = (0.7 + 0.9) / 2
    penalty = 2 * 0.16 + 0.5 * (0.8 + 0.8)
    mean = vad.mil_ranking_loss(scores, y, None, 1.0, 2, 0.5)
    total = vad.mil_ranking_loss(scores, y, None, 1.0, 2, 0.5, reduction="sum")
    assert mean.item() == pytest.approx(hinge + penalty / 2, rel=1e-12)
    assert total.item() == pytest.approx(hinge + penalty, rel=1e-12)


@pytest.mark.parametrize("reduction", ["none", "SUM", None])
def test_mil_ranking_refuses_other_reductions(reduction):
    with pytest.raises(ValueError, match="reduction must be 'mean' or 'sum'"):
        vad.mil_ranking_loss(
            torch.rand(2, 3), torch.tensor([0, 1]), reduction=reduction
        )


def test_mil_ranking_hinge_is_the_mean_over_pairs_not_of_means():
    # Of the pairs, only (0.2, 0.7) is in the wrong order, by 0.5.
    scores = torch.tensor([[0.9], [0.2], [0.1], [0.7]], dtype=torch.float64)
    loss = vad.mil_ranking_loss(scores, torch.tensor([1, 1, 0, 0]), None, 0.0, 0, 0)
    assert loss.item() == pytest.approx(0.5 / 4, rel=1e-12)


# --------------------------------------------------------------------------
# dynamics_ranking_loss
# --------------------------------------------------------------------------
@pytest.mark.parametrize(("margin", "expected"), [(0.0, 0.0), (0.5, 0.26), (0.2, 0.0)])
def test_dynamics_ranking_by_hand(margin, expected):
    # Energies: anomalous 0.5^2, normal 0.1^2.
    scores = torch.tensor([[0.3, 0.3, 0.8], [0.1, 0.2, 0.2]], dtype=torch.float64)
    loss = vad.dynamics_ranking_loss(scores, torch.tensor([1, 0]), margin=margin)
    assert loss.item() == pytest.approx(expected, abs=1e-12)


def test_dynamics_ranking_counts_snippets_not_steps():
    """16 snippets make k = 2 where anomalous, though they have only 15 steps."""
    scores = torch.zeros(2, 16, dtype=torch.float64)
    scores[:, 0], scores[:, 1] = 1.0, 0.4  # steps of 0.6 and 0.4
    loss = vad.dynamics_ranking_loss(scores, torch.tensor([1, 0]))
    assert loss.item() == pytest.approx(0.36 - (0.36 + 0.16) / 2, rel=1e-12)


@pytest.mark.parametrize("width", [1, 4])
def test_one_snippet_bags_have_no_energy(width):
    scores = torch.full((2, width), math.nan)
    scores[:, 0] = torch.tensor([0.9, 0.4])
    scores.requires_grad_()
    loss = vad.dynamics_ranking_loss(
        scores, torch.tensor([1, 0]), mask_of([1, 1], width), margin=0.3
    )
    loss.backward()
    assert loss.item() == pytest.approx(0.3)
    assert (scores.grad == 0).all()


# --------------------------------------------------------------------------
# dynamics_alignment_loss
# --------------------------------------------------------------------------
@dtypes
@pytest.mark.parametrize(
    ("second", "feature_step"),
    [
        ([0.0, 2.0], 1.0),  # at right angles
        ([-3.0, 0.0], 2.0),  # opposite: a negative loss
        ([5.0, 0.0], 0.0),  # same direction, other length
        ([1.0, 1.0], 1 - math.sqrt(0.5)),
        ([0.0, 0.0], 1.0),  # a row of zeros has cosine 0
    ],
)
def test_dynamics_alignment_by_hand(dtype, second, feature_step):
    scores = torch.tensor([[0.9, 0.2]], dtype=dtype)
    features = torch.tensor([[[1.0, 0.0], second]], dtype=dtype)
    loss = vad.dynamics_alignment_loss(scores, features)
    expected = -0.7 * math.log(feature_step + 1e-7)
    assert loss.item() == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_dynamics_alignment_averages_steps_then_bags():
    # Orthogonal rows: every step adds -|ds| log(1 + eps); use eps = 1.
    scores = torch.tensor([[0.0, 0.4, 0.2], [0.5, 0.0, 9.9], [0.3, 9.9, 9.9]])
    features = torch.eye(3).expand(3, 3, 3)
    loss = vad.dynamics_alignment_loss(scores, features, mask_of([3, 2, 1]), eps=1.0)
    expected = -math.log(2) * ((0.4 + 0.2) / 2 + 0.5 + 0) / 3
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("n_features", [3, 64, 512])
def test_equal_rows_in_float32(n_features):
    """1 - cos is off by up to 4e-7 here, on either side of 0, and eps is 1e-7."""
    rng = torch.Generator().manual_seed(0)
    row = torch.randn(500, 1, n_features, generator=rng)
    features = row.expand(500, 4, n_features).clone().requires_grad_()
    scores = torch.rand(500, 4, generator=rng)
    loss = vad.dynamics_alignment_loss(scores, features)
    steps = scores.diff(dim=1).abs().mean()
    assert_close(loss, steps * -math.log(1e-7), rtol=1e-5, atol=0)
    loss.backward()
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("change", [1e-4, 1e-3, 1e-2])
def test_nearly_equal_rows_in_float32(change):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(20, 1, 64)) + change * rng.normal(size=(20, 2, 64))
    features = np.float32(rows)
    scores = np.float32(rng.random((20, 2)))
    loss = vad.dynamics_alignment_loss(
        torch.from_numpy(scores), torch.from_numpy(features)
    )
    expected = naive.dynamics_alignment_loss(list(scores), list(features))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@dtypes
@pytest.mark.parametrize("zeros", [[2], [2, 3], [0], [5], [0, 1, 2, 3, 4, 5]])
def test_zero_rows(dtype, zeros):
    scores, features = ragged([6])
    features[0][zeros] = 0
    inputs = [pad(bags, dtype).requires_grad_() for bags in (scores, features)]
    loss = vad.dynamics_alignment_loss(*inputs)
    expected = naive.dynamics_alignment_loss(scores, features)
    assert loss.item() == pytest.approx(expected, rel=TOLERANCE[dtype], abs=1e-7)
    loss.backward()
    # One row of zeros must not drown the gradient of all others either.
    assert inputs[1].grad.abs().max() < 100
    assert inputs[0].grad.isfinite().all()


@settings(max_examples=30, deadline=None, database=None)
@given(seed=st.integers(0, 10**6), exponent=st.integers(-12, 12))
def test_dynamics_alignment_sees_directions_only(seed, exponent):
    scores, features = ragged([7, 3], seed)
    y = [1, 0]
    scaled = [bag * 10.0**exponent for bag in features]
    value = compute("dynamics_alignment", scores, scaled, y)
    expected = compute("dynamics_alignment", scores, features, y)
    assert_close(value, expected, rtol=1e-9, atol=1e-9)


# --------------------------------------------------------------------------
# locality_prior
# --------------------------------------------------------------------------
@pytest.mark.parametrize("sigma", [0.5, 6.0, 16.0, 400.0])
@pytest.mark.parametrize("n_snippets", [1, 2, 30])
def test_prior_equals_the_printed_equation(n_snippets, sigma):
    prior = vad.locality_prior(n_snippets, sigma)
    assert prior.dtype == torch.float32
    expected = naive.locality_prior(n_snippets, sigma)
    np.testing.assert_allclose(prior.numpy(), expected, rtol=2e-5, atol=1e-30)


def test_prior_by_hand():
    """Sigma is not squared: e^(-1/2), e^(-2) at distance 1 and 2 for sigma 1."""
    row = vad.locality_prior(3, 1)[0]
    assert row.tolist() == pytest.approx([1, math.exp(-0.5), math.exp(-2)])
    middle = vad.locality_prior(201, 16.0)[100]
    assert middle.sum().item() == pytest.approx(math.sqrt(2 * math.pi * 16), rel=1e-5)


# --------------------------------------------------------------------------
# locality_aware_attention
# --------------------------------------------------------------------------
def attention_bags(lengths, n_heads=2, d=3, seed=0, dtype=torch.float64):
    """Queries, keys and values, (heads, T_i, d) each, and the same padded."""
    rng = np.random.default_rng(seed)
    bags = [[rng.normal(size=(n_heads, n, d)) for n in lengths] for _ in range(3)]
    if dtype == torch.float32:
        bags = [[np.float32(x).astype(float) for x in part] for part in bags]
    return bags, [pad_heads(part, dtype) for part in bags]


def pad_heads(bags, dtype=torch.float64, **options):
    """Pad (heads, T_i, d) bags to (B, heads, T, d)."""
    turned = [np.swapaxes(bag, 0, 1) for bag in bags]
    return pad(turned, dtype, **options).transpose(1, 2).contiguous()


def attend(*args, where):
    """The attention with its prior "after" or "before" the softmax.

    In "blocks" is "before", done for three queries of each bag at a time.
    """
    key = args[1]
    n_bags = len(key) if len(args) > 4 and args[4] is not None else 1
    with pytest.MonkeyPatch.context() as patch:
        if where == "blocks":
            patch.setattr(_locality, "BIAS_ENTRIES", 3 * n_bags * key.shape[-2])
        prior = "after" if where == "after" else "before"
        return vad.locality_aware_attention(*args, prior=prior)


def naive_attend(*args, where):
    """What `attend` must return: blocks change nothing."""
    prior = "after" if where == "after" else "before"
    return naive.locality_aware_attention(*args, prior)


everywhere = pytest.mark.parametrize("where", ["after", "before", "blocks"])


def assert_attention(out, expected, tolerance):
    for row, bag in zip(out, expected, strict=True):
        n = bag.shape[1]
        np.testing.assert_allclose(
            row[:, :n].detach().numpy(), bag, rtol=tolerance, atol=10 * tolerance
        )
        assert (row[:, n:] == 0).all()


@everywhere
@dtypes
@pytest.mark.parametrize("sigma", [None, 0.5, 6.0, 16.0, 400.0, 1e9])
def test_attention_equals_the_equations(dtype, sigma, where):
    lengths = [1, 2, 7, 16, 17, 50]
    bags, padded = attention_bags(lengths, dtype=dtype)
    out = attend(*padded, sigma, mask_of(lengths), where=where)
    assert out.dtype == dtype
    expected = naive_attend(*bags, sigma, where=where)
    assert_attention(out, expected, TOLERANCE[dtype])


@dtypes
@pytest.mark.parametrize(
    ("sigma", "n_snippets"),
    [
        *[(0.5, n) for n in (1, 15, 16, 17, 31, 32, 33, 200)],
        *[(16.0, n) for n in (35, 36, 37, 72, 73, 300)],  # blocks of 36 in float64
        *[(400.0, n) for n in (100, 177, 400)],  # and of 177
    ],
)
def test_attention_over_several_blocks(dtype, sigma, n_snippets):
    bags, padded = attention_bags([n_snippets], n_heads=1, d=2, dtype=dtype)
    out = vad.locality_aware_attention(*padded, sigma)
    expected = naive.locality_aware_attention(*bags, sigma)
    assert_attention(out, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("n_snippets", [1, 2, 3, 4, 6, 40])
def test_blocks_of_queries_equal_all_at_once(n_snippets):
    bags, padded = attention_bags([n_snippets])
    inputs = [x.requires_grad_() for x in padded]
    out = {w: attend(*inputs, 6.0, where=w) for w in ("before", "blocks")}
    expected = naive.locality_aware_attention(*bags, 6.0, "before")
    assert_attention(out["blocks"], expected, 1e-10)
    assert_close(out["blocks"], out["before"], rtol=1e-12, atol=1e-12)
    weight = torch.randn(out["before"].shape, dtype=torch.float64)
    blocks, once = (torch.autograd.grad(o, inputs, weight) for o in out.values())
    assert_close(blocks, once, rtol=1e-12, atol=1e-12)


def test_a_block_has_one_query_at_least(monkeypatch):
    bags, padded = attention_bags([5, 2])
    monkeypatch.setattr(_locality, "BIAS_ENTRIES", 1)
    out = vad.locality_aware_attention(*padded, 6.0, mask_of([5, 2]), prior="before")
    expected = naive.locality_aware_attention(*bags, 6.0, "before")
    assert_attention(out, expected, 1e-10)


def test_attention_by_hand():
    """Logits ln 3 and 0, not scaled by 1 / sqrt(d) = 1 / 2, weigh 3/4 and 1/4."""
    query = torch.tensor([1.0, 0, 0, 0]).expand(1, 1, 2, 4)
    key = torch.tensor([[math.log(3), 0, 0, 0], [0, 0, 0, 0]])[None, None]
    value = torch.tensor([[1.0, 0, 0, 4], [0, 0, 0, 8]])[None, None]
    out = vad.locality_aware_attention(query, key, value, None)
    assert_close(out[0, 0], torch.tensor([[0.75, 0, 0, 5]]).expand(2, 4))
    out = vad.locality_aware_attention(query, key, value, 2.0)
    near = math.exp(-1 / 4)
    expected = [[1.75, 0, 0, 9 + 8 * near], [0.75 + near, 0, 0, 13 + 4 * near]]
    assert_close(out[0, 0], torch.tensor(expected))


def test_prior_before_the_softmax_by_hand():
    """Logits of 0, and a prior of 1 and e^(-1/4): the first weighs e / (e + e^g)."""
    nought, value = torch.zeros(1, 1, 2, 1), torch.tensor([[[[4.0], [8.0]]]])
    out = vad.locality_aware_attention(nought, nought, value, 2.0, prior="before")
    own = math.e / (math.e + math.exp(math.exp(-1 / 4)))
    assert out.ravel().tolist() == pytest.approx([8 - 4 * own, 4 + 4 * own])


def test_attention_rejects_an_unknown_prior():
    _, padded = attention_bags([3])
    with pytest.raises(ValueError, match="prior must be 'after' or 'before', got 'no'"):
        vad.locality_aware_attention(*padded, None, prior="no")


@pytest.mark.parametrize(
    ("sigma", "where"),
    [(None, "after"), (16.0, "after"), (16.0, "before"), (16.0, "blocks")],
)
@settings(max_examples=20, deadline=None, database=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    extra=st.integers(0, 20),
    fill=st.sampled_from([math.nan, math.inf, -math.inf, 1e30]),
    seed=st.integers(0, 10**6),
)
def test_attention_ignores_padding_and_company(
    sigma, where, lengths, extra, fill, seed
):
    bags, _ = attention_bags(lengths, seed=seed)
    width = max(lengths) + extra
    padded = [pad_heads(x, n_snippets=width, fill=fill).requires_grad_() for x in bags]
    mask = mask_of(lengths, width)
    out = attend(*padded, sigma, mask, where=where)
    weight = torch.randn(out.shape, dtype=out.dtype)
    (out * weight).sum().backward()
    for i, n in enumerate(lengths):
        alone = [torch.tensor(x[i][None], requires_grad=True) for x in bags]
        expected = attend(*alone, sigma, where=where)
        (expected * weight[i, :, :n]).sum().backward()
        assert_close(out[i, :, :n], expected[0], rtol=1e-10, atol=1e-12)
        assert (out[i, :, n:] == 0).all()
        for many, one in zip(padded, alone, strict=True):
            assert_close(many.grad[i, :, :n], one.grad[0], rtol=1e-10, atol=1e-10)
            assert (many.grad[i, :, n:] == 0).all()


@everywhere
def test_attention_with_much_padding_in_front(where):
    """Whole blocks of the softmax may hold no real snippet."""
    _, (query, key, value) = attention_bags([1500])
    expected = attend(*(x[:, :, 1100:] for x in (query, key, value)), 16.0, where=where)
    mask = (torch.arange(1500) >= 1100)[None]
    out = attend(query, key, value, 16.0, mask, where=where)
    assert_close(out[:, :, 1100:], expected, rtol=1e-10, atol=1e-12)
    assert (out[:, :, :1100] == 0).all()


@everywhere
@pytest.mark.parametrize("sigma", [None, 0.5])
def test_attention_gradcheck(sigma, where):
    _, padded = attention_bags([3, 18], n_heads=1, d=2)
    inputs = [x.requires_grad_() for x in padded]
    mask = mask_of([3, 18])
    assert torch.autograd.gradcheck(
        lambda *qkv: attend(*qkv, sigma, mask, where=where), inputs
    )


@everywhere
@pytest.mark.parametrize("d", [1, 3, 8, 9, 128])
def test_attention_of_any_width(d, where):
    bags, padded = attention_bags([20, 4], d=d, seed=1)
    # Values in another memory order must change nothing but speed.
    padded[2] = padded[2].transpose(2, 3).contiguous().transpose(2, 3)
    out = attend(*padded, 6.0, mask_of([20, 4]), where=where)
    expected = naive_attend(*bags, 6.0, where=where)
    assert_attention(out, expected, 1e-10)


@everywhere
@pytest.mark.parametrize(
    ("half", "tolerance"), [(torch.float16, 0.01), (torch.bfloat16, 0.08)]
)
def test_attention_in_half_precision(half, tolerance, where):
    bags, padded = attention_bags([40, 9])
    padded = [x.to(half) for x in padded]
    out = attend(*padded, 16.0, mask_of([40, 9]), where=where)
    assert out.dtype == half
    expected = naive_attend(*bags, 16.0, where=where)
    assert_attention(out.double(), expected, tolerance)


@everywhere
@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
def test_attention_under_autocast(where, given):
    bags, padded = attention_bags([40, 9])
    inputs = [x.to(given).requires_grad_() for x in padded]
    mask = mask_of([40, 9])
    with torch.autocast("cpu", torch.bfloat16):
        out = attend(*inputs, 16.0, mask, where=where)
    expected = naive_attend(*bags, 16.0, where=where)
    assert_attention(out.double(), expected, 0.08)
    out.sum().backward()  # outside of autocast, as the blocks are done again
    exact = [x.double().requires_grad_() for x in padded]
    attend(*exact, 16.0, mask, where=where).sum().backward()
    for one, other in zip(inputs, exact, strict=True):
        assert_close(one.grad.double(), other.grad, rtol=0.08, atol=0.8)


@pytest.mark.parametrize("rows", [16, 100, 256])
@pytest.mark.parametrize("first", [0, 300])
def test_attention_of_long_bags_by_products(rows, first, monkeypatch):
    """Without gradients long bags go by oneDNN; with them, by torch's attention."""
    monkeypatch.setattr(_locality, "_ROWS", rows)
    rng = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, 700, 16, generator=rng) for _ in range(3))
    part = query[:, :, first:]
    found = vad.locality_aware_attention(part, key, value, 16.0, first=first)
    part.requires_grad_()
    by_torch = vad.locality_aware_attention(part, key, value, 16.0, first=first)
    assert_close(found, by_torch.detach(), rtol=1e-5, atol=1e-5)
    exact = torch.softmax(query.double() @ key.double().mT, dim=-1)
    distance = torch.arange(700.0, dtype=torch.float64)
    exact = exact + torch.exp((distance[:, None] - distance).square() / -32)
    expected = (exact @ value.double())[:, :, first:]
    assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("first", [0, 1, 30, 90])
@pytest.mark.parametrize("sigma", [0.01, 16.0, 300.0, 1e9])
def test_prior_of_some_rows_and_its_gradient(first, sigma, monkeypatch):
    monkeypatch.setattr(_locality, "_PRIOR_ROWS", (8, 32))
    value = torch.randn(2, 3, 100, 4, dtype=torch.float64, requires_grad=True)
    n_rows = min(40, 100 - first)
    found = _locality._PriorProduct.apply(value, sigma, first, n_rows)
    prior = torch.exp(
        -(torch.arange(100.0).double()[:, None] - torch.arange(100.0)).square()
        / (2 * sigma)
    )[first : first + n_rows]
    assert_close(found, prior @ value, rtol=1e-12, atol=1e-12)
    weight = torch.randn(found.shape, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((found * weight).sum(), value)
    assert_close(gradient, prior.T @ weight, rtol=1e-12, atol=1e-12)


class LargestTensor(TorchDispatchMode):
    """Remember the number of entries of the largest tensor that any step makes."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(x, torch.Tensor):
                self.numel = max(self.numel, x.untyped_storage().size() // x.itemsize)
        return out


@pytest.mark.parametrize("prior", ["after", "before"])
@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_attention_makes_no_tensor_of_t_times_t(contiguous, masked, prior, monkeypatch):
    monkeypatch.setattr(_locality, "BIAS_ENTRIES", 600_000)
    n = 6000
    inputs = [torch.randn(1, 1, 8, n).transpose(2, 3) * 0.3 for _ in range(3)]
    if contiguous:
        inputs = [x.contiguous() for x in inputs]
    inputs = [x.requires_grad_() for x in inputs]
    mask = mask_of([n - 1], n) if masked else None
    with LargestTensor() as largest:
        out = vad.locality_aware_attention(*inputs, 16.0, mask, prior=prior)
        out.sum().backward()
    assert n < largest.numel <= 100 * n


@pytest.mark.parametrize(("where", "kept"), [("before", True), ("blocks", False)])
def test_blocks_of_queries_leave_no_bias_for_the_backward_pass(where, kept):
    n = 200
    inputs = [torch.randn(1, 1, n, 8, requires_grad=True) for _ in range(3)]
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: saved.append(x.numel()) or x, lambda x: x
    ):
        attend(*inputs, 16.0, mask_of([n], n), where=where)
    assert (sum(saved) >= n * n) == kept


def test_largest_tensor_sees_the_softmax_of_the_plain_kernel():
    """Or else the test above could not fail."""
    x = torch.randn(1, 1, 300, 8, requires_grad=True)
    with LargestTensor() as largest, sdpa_kernel(SDPBackend.MATH):
        vad.locality_aware_attention(x, x, x, 16.0)
    assert largest.numel >= 300 * 300


# --------------------------------------------------------------------------
# dissimilarity_map
# --------------------------------------------------------------------------
kinds = pytest.mark.parametrize("kind", ["dist", "cov"])


def snippets_with_steps(lengths, n_steps=3, n_channels=4, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, n_steps, n_channels)) + 0.5 for n in lengths]


@kinds
@dtypes
@pytest.mark.parametrize(("n_steps", "n_channels"), [(3, 4), (7, 2), (1, 5), (2, 1)])
def test_dissimilarity_map_equals_the_printed_equations(
    kind, dtype, n_steps, n_channels
):
    lengths = [5, 1, 2]
    bags = snippets_with_steps(lengths, n_steps, n_channels)
    if dtype == torch.float32:
        bags = [np.float32(bag).astype(float) for bag in bags]
    out = vad.dissimilarity_map(pad(bags, dtype), kind, mask_of(lengths))
    assert out.dtype == dtype
    for row, expected in zip(out, naive.dissimilarity_map(bags, kind), strict=True):
        tolerance = TOLERANCE[dtype]
        np.testing.assert_allclose(
            row[: len(expected)], expected, rtol=tolerance, atol=10 * tolerance
        )
        assert (row[len(expected) :] == 0).all()


def test_dist_by_hand():
    """The first snippet differs from zeros, the second from the first."""
    snippets = torch.tensor([[[[1.0, -2.0], [0.0, 4.0]], [[3.0, -2.0], [1.0, 1.0]]]])
    out = vad.dissimilarity_map(snippets)[0]
    # D_n = (1, 6), D_t = (3, 4); then D_n = (3, 3), D_t = (2, 4)
    assert out[0].tolist() == [[3, 18], [4, 24]]
    assert out[1].tolist() == [[6, 6], [12, 12]]


def test_cov_by_hand():
    """Not divided by a count; negative where the snippets move against each other."""
    first, second = [[1.0, 3.0], [3.0, 1.0]], [[0.0, 8.0], [2.0, 4.0]]
    out = vad.dissimilarity_map(torch.tensor([[first, second]]), "cov")[0]
    assert (out[0] == 0).all()  # covariance with the zeros before the first
    # Channels: (-1, 1) with (-1, 1), (1, -1) with (2, -2). D_n = (2, 4).
    # Steps: (-1, 1) with (-4, 4), (1, -1) with (-1, 1). D_t = (8, -2).
    assert out[1].tolist() == [[16, 32], [-4, -8]]


@kinds
@settings(max_examples=20, deadline=None, database=None)
@given(
    lengths=st.lists(st.integers(1, 8), min_size=1, max_size=4),
    extra=st.integers(0, 4),
    fill=st.sampled_from([math.nan, math.inf, -math.inf, 1e30]),
    seed=st.integers(0, 10**6),
)
def test_dissimilarity_map_ignores_padding_and_company(
    kind, lengths, extra, fill, seed
):
    bags = snippets_with_steps(lengths, seed=seed)
    width = max(lengths) + extra
    mask = mask_of(lengths, width)
    padded = pad(bags, n_snippets=width, fill=fill).requires_grad_()
    out = vad.dissimilarity_map(padded, kind, mask)
    weight = torch.randn(out.shape, dtype=out.dtype)
    (out * weight).sum().backward()
    assert (out[~mask] == 0).all()
    assert (padded.grad[~mask] == 0).all()
    for i, n in enumerate(lengths):
        alone = torch.tensor(bags[i][None], requires_grad=True)
        expected = vad.dissimilarity_map(alone, kind)
        (expected * weight[i, :n]).sum().backward()
        assert_close(out[i, :n], expected[0], rtol=1e-12, atol=1e-12)
        assert_close(padded.grad[i, :n], alone.grad[0], rtol=1e-10, atol=1e-10)


@kinds
def test_padding_in_front_counts_as_the_zeros_before_the_first(kind):
    (bag,) = snippets_with_steps([3])
    padded = pad([bag[::-1].copy()], n_snippets=5, fill=math.nan).flip(1)
    out = vad.dissimilarity_map(padded, kind, mask_of([3], 5).flip(1))
    (expected,) = naive.dissimilarity_map([bag], kind)
    np.testing.assert_allclose(out[0, 2:], expected, rtol=1e-12)
    assert (out[0, :2] == 0).all()


@kinds
def test_dissimilarity_map_gradcheck(kind):
    snippets = pad(snippets_with_steps([3, 1])).requires_grad_()
    mask = mask_of([3, 1])
    assert torch.autograd.gradcheck(
        lambda x: vad.dissimilarity_map(x, kind, mask), snippets
    )


@kinds
def test_dissimilarity_map_looks_one_snippet_back(kind):
    (bag,) = snippets_with_steps([6])
    changed = bag.copy()
    changed[2, 1] += [1, -1, 2, 0]
    moved = [
        not np.array_equal(a, b)
        for a, b in zip(
            vad.dissimilarity_map(pad([bag]), kind)[0],
            vad.dissimilarity_map(pad([changed]), kind)[0],
            strict=True,
        )
    ]
    assert moved == [False, False, True, True, False, False]


def test_dissimilarities_of_single_snippets():
    """Leading axes are free, and the two parts are those of the map."""
    (bag,) = snippets_with_steps([4])
    for kind in ("dist", "cov"):
        d_n, d_t = vad.dissimilarities(
            torch.tensor(bag[1:]), torch.tensor(bag[:-1]), kind
        )
        assert (d_n.shape, d_t.shape) == ((3, 1, 4), (3, 3, 1))
        for i in range(3):
            one, other = naive.dissimilarities(bag[i + 1], bag[i], kind)
            np.testing.assert_allclose(d_n[i, 0], one, rtol=1e-10)
            np.testing.assert_allclose(d_t[i, :, 0], other, rtol=1e-10)


@pytest.mark.parametrize("kind", ["Dist", "euclidean", None])
def test_dissimilarity_map_refuses_other_kinds(kind):
    with pytest.raises(ValueError, match="kind must be 'dist' or 'cov'"):
        vad.dissimilarity_map(torch.rand(1, 2, 3, 4), kind)


def test_weighted_ranking_is_the_ranking_loss_of_weighted_scores():
    """DAM Eq. 7, which sums over the anomalous bags."""
    detections, _ = ragged(LENGTHS)
    attentions, _ = ragged(LENGTHS, seed=1)
    weighted = [d * a + d for d, a in zip(detections, attentions, strict=True)]
    value = vad.mil_ranking_loss(
        pad(weighted), torch.tensor(Y), mask_of(LENGTHS), 1.0, 0.3, 0.2, "sum"
    )
    expected = naive.weighted_ranking_loss(detections, attentions, Y, 0.3, 0.2)
    assert value.item() == pytest.approx(expected, rel=1e-12)
