"""Input scaling of the detectors: what it is learned from, and what it leaves."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from sklearn_vad import (
    Bags,
    DAMAnomalyDetector,
    DDLAnomalyDetector,
    MILRankingAnomalyDetector,
    MultiCropDetector,
    RTFMAnomalyDetector,
    STAAnomalyDetector,
)
from sklearn_vad import bags as bags_module
from sklearn_vad.bags import snippet_blocks

SMALL = {"max_epochs": 2, "random_state": 0, "n_jobs": 1, "batch_size": 4}
DAM = DAMAnomalyDetector(n_hidden=8, mlp_dims=(8,), **SMALL)
DDL = DDLAnomalyDetector(hidden_dim=8, mlp_dims=(8, 4), **SMALL)
MIL = MILRankingAnomalyDetector(hidden_dims=(8, 4), **SMALL)
RTFM = RTFMAnomalyDetector(hidden_dims=(8, 4), **SMALL)
STA = STAAnomalyDetector(hidden_dim=4, **SMALL)
ONES = torch.ones(5)
Y = np.array([0, 1, 0, 1, 0, 1, 0, 1])
scalings = pytest.mark.parametrize("kind", ["uniform", "standard"])
all_scalings = pytest.mark.parametrize("kind", ["uniform", "standard", None])


@pytest.fixture(
    params=[DAM, DDL, MIL, RTFM, STA],
    ids=["dam", "ddl", "mil_ranking", "rtfm", "sta"],
)
def est(request):
    return clone(request.param)


def make_bags(inner=(), seed=0, lengths=(7, 20, 1, 33, 12, 5, 9, 16), dtype=np.float32):
    """Videos whose features have other means and scales than each other."""
    rng = np.random.default_rng(seed)
    units = np.array([1, 3, 0.2, 7, 1])
    bags = [rng.normal(size=(n, *inner, 5)) * units + 2 * units[::-1] for n in lengths]
    return [bag.astype(dtype) for bag in bags]


def naive_statistics(bags, kind, l2_normalize=False):
    """Mean and scale over all rows of all bags, one row at a time, in float64."""
    rows = [np.float64(row) for bag in bags for row in bag.reshape(-1, bag.shape[-1])]
    if l2_normalize:
        rows = [row / np.sqrt(sum(row**2)) for row in rows]
    mean = sum(rows) / len(rows)
    variance = sum((row - mean) ** 2 for row in rows) / len(rows)
    if kind == "uniform":
        variance = np.full(len(mean), sum(variance) / len(variance))
    return mean, np.sqrt(variance)


def scaling_of(est):
    return est.net_.module_.scaling


def assert_learned_from(est, bags, kind, l2_normalize=False):
    mean, scale = naive_statistics(bags, kind, l2_normalize)
    np.testing.assert_allclose(scaling_of(est).shift.cpu(), mean, rtol=1e-5)
    np.testing.assert_allclose(scaling_of(est).scale.cpu(), scale, rtol=1e-5)


def assert_close(found, expected, atol):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


# What it is learned from --------------------------------------------------
@scalings
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_learned_from_all_training_snippets(est, kind, dtype, monkeypatch):
    """All of each, not the segments that training sees; in blocks too."""
    monkeypatch.setattr(bags_module, "_BLOCK_ROWS", 20)
    bags = make_bags(dtype=dtype)
    assert len(list(snippet_blocks(Bags.from_list(bags)))) == 3
    est.set_params(input_scaling=kind).fit(bags, Y)
    assert_learned_from(est, bags, kind)


@scalings
def test_inner_steps_are_rows(kind):
    bags = make_bags((3,))
    est = clone(DAM).set_params(input_scaling=kind).fit(bags, Y)
    assert_learned_from(est, bags, kind)


@scalings
def test_crops_are_rows(est, kind):
    bags = make_bags((2,))
    detector = MultiCropDetector(est.set_params(input_scaling=kind)).fit(bags, Y)
    assert_learned_from(detector, bags, kind)


@scalings
@pytest.mark.parametrize("detector", [MIL, STA], ids=["mil_ranking", "sta"])
def test_learned_after_the_l2_norm(detector, kind):
    bags = make_bags()
    est = clone(detector).set_params(input_scaling=kind, l2_normalize=True)
    assert_learned_from(est.fit(bags, Y), bags, kind, l2_normalize=True)


def test_none_leaves_features_as_they_are(est):
    est.set_params(input_scaling=None).fit(make_bags(), Y)
    assert torch.equal(scaling_of(est).shift, 0 * ONES)
    assert torch.equal(scaling_of(est).scale, ONES)


@scalings
def test_validation_videos_have_no_part(est, kind):
    bags, other = make_bags(), [1e3 + 50 * bag for bag in make_bags(seed=1)]
    est.set_params(input_scaling=kind).fit(bags, Y, validation=(other, Y))
    assert_learned_from(est, bags, kind)


@scalings
def test_videos_held_out_have_no_part(est, kind):
    bags = Bags.from_list(make_bags())
    est.set_params(input_scaling=kind, validation_fraction=0.5, random_state=3)
    held_out = est._hold_out(bags, Y, 3)  # the seed of random_state=3
    train, valid = held_out[0], held_out[2][0]
    assert len(train) == len(valid) == 4
    assert_learned_from(clone(est).fit(bags, Y), list(train), kind)
    crops = [np.stack([bag, 2 * bag], axis=1) for bag in bags]
    train = [np.stack([bag, 2 * bag], axis=1) for bag in train]
    assert_learned_from(MultiCropDetector(est).fit(crops, Y), train, kind)


@settings(max_examples=10, deadline=None, database=None)
@given(order=st.permutations(range(8)))
def test_order_of_the_bags_has_no_part(order):
    bags = make_bags()
    first = clone(MIL).fit(bags, Y)
    second = clone(MIL).fit([bags[i] for i in order], Y[list(order)])
    for name in ("shift", "scale"):
        pair = (getattr(scaling_of(e), name) for e in (first, second))
        torch.testing.assert_close(*pair, rtol=1e-6, atol=1e-6)


# What does not change it --------------------------------------------------
@scalings
def test_later_calls_keep_it(est, kind):
    bags, other = make_bags(), [1e3 + 50 * bag for bag in make_bags(seed=1)]
    est.set_params(input_scaling=kind, warm_start=True).fit(bags, Y)
    est.fit(other, Y)
    est.partial_fit(other, Y)
    assert est.n_iter_ == 6
    assert_learned_from(est, bags, kind)
    assert_learned_from(est.set_params(warm_start=False).fit(other, Y), other, kind)


@scalings
def test_partial_fit_learns_from_its_first_bags(est, kind):
    bags = make_bags()
    est.set_params(input_scaling=kind)
    est.partial_fit(bags[:4], Y[:4]).partial_fit(bags[4:], Y[4:])
    assert_learned_from(est, bags[:4], kind)


def test_training_does_not_move_it(est):
    """Whatever the optimiser does: it is not among the parameters."""
    bags = make_bags()
    est.set_params(lr=1.0, weight_decay=0.5, optimizer="sgd", lr_decay=None)
    assert_learned_from(est.fit(bags, Y), bags, "uniform")


@all_scalings
def test_pickles_keep_it(est, kind):
    bags = make_bags()
    est.set_params(input_scaling=kind).fit(bags, Y)
    copy = pickle.loads(pickle.dumps(est))
    assert equal(copy.score_snippets(bags), est.score_snippets(bags))
    expected = est.partial_fit(bags, Y).score_snippets(bags)
    assert equal(copy.partial_fit(bags, Y).score_snippets(bags), expected)


@all_scalings
def test_same_seed_same_bits(est, kind):
    bags = make_bags()
    est.set_params(input_scaling=kind)
    first, second = (clone(est).fit(bags, Y).score_snippets(bags) for _ in range(2))
    assert equal(first, second)


def test_each_kind_trains_another_network(est):
    bags = make_bags()
    scores = [
        np.concatenate(
            clone(est).set_params(input_scaling=k).fit(bags, Y).score_snippets(bags)
        )
        for k in ("uniform", "standard", None)
    ]
    for i in range(3):
        assert np.abs(scores[i] - scores[i - 1]).max() > 1e-4


# What it is for -----------------------------------------------------------
UNITS = {
    "uniform": (1e3, -2e3 * np.arange(5)),
    "standard": (np.array([1e3, 1, 1e-2, 30, 5]), np.array([-1e3, 0, 1, 50, -3])),
}


@scalings
def test_units_of_features_do_not_matter(est, kind):
    """One factor for all features where they share a scale, one for each elsewhere."""
    bags = make_bags()
    est.set_params(input_scaling=kind, lr=0.01)
    expected = clone(est).fit(bags, Y).score_snippets(bags)
    factor, shift = UNITS[kind]
    other = [np.float32(bag * factor + shift) for bag in bags]
    assert_close(est.fit(other, Y).score_snippets(other), expected, 1e-4)
    assert np.ptp(np.concatenate(expected)) > 0.003
    published = clone(est).set_params(input_scaling=None)
    plain, found = (published.fit(x, Y).score_snippets(x) for x in (bags, other))
    assert np.abs(np.concatenate(plain) - np.concatenate(found)).max() > 1e-3


@pytest.mark.parametrize("detector", [DAM, MIL], ids=["dam", "mil_ranking"])
@settings(max_examples=10, deadline=None, database=None)
@given(factor=st.floats(1e-3, 1e3), shift=st.floats(-20, 20), seed=st.integers(0, 99))
def test_any_units(detector, factor, shift, seed):
    bags = make_bags(seed=seed)
    other = [np.float32(factor * (bag + shift)) for bag in bags]
    est = clone(detector).set_params(random_state=seed)
    expected, found = (clone(est).fit(x, Y).score_snippets(x) for x in (bags, other))
    assert_close(found, expected, 1e-4)


def test_bfloat16_scales_in_float32(est):
    """Features of 1000 with a deviation of 1 would lose it in bfloat16."""
    bags = [bag + np.float32(1000) for bag in make_bags()]
    full = clone(est).fit(bags, Y).score_snippets(bags)
    half = est.set_params(precision="bfloat16").fit(bags, Y).score_snippets(bags)
    assert scaling_of(est).shift.dtype == torch.float32
    assert_learned_from(est, bags, "uniform")
    assert_close(half, full, 0.05)
    assert not equal(half, full)


@all_scalings
@pytest.mark.parametrize(
    ("detector", "inner"),
    [(DAM, ()), (DAM, (3,)), (MIL, ()), (clone(MIL).set_params(l2_normalize=True), ())],
    ids=["dam_flat", "dam", "mil_ranking", "mil_normalized"],
)
def test_streams_equal_whole_bags(detector, inner, kind):
    bags = make_bags(inner)
    est = clone(detector).set_params(input_scaling=kind, lr=0.05).fit(bags, Y)
    for bag, expected in zip(bags, est.score_snippets(bags), strict=True):
        stream = est.stream()
        pushed = [stream.push(snippet) for snippet in bag]
        assert pushed[0] == pytest.approx(expected[0], abs=1e-6)
        np.testing.assert_allclose(pushed, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["none", "robust", True, 1])
def test_bad_scaling(est, kind):
    with pytest.raises(ValueError, match="'input_scaling' parameter of"):
        est.set_params(input_scaling=kind).fit(make_bags(), Y)
