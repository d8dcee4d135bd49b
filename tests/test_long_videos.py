"""Videos that don't fit the memory: in pieces, exactly, or refused with the need."""

import numpy as np
import pytest
import torch
from sklearn.base import clone

from sklearn_vad import (
    DAMAnomalyDetector,
    DDLAnomalyDetector,
    MILRankingAnomalyDetector,
    MultiCropDetector,
    RTFMAnomalyDetector,
    STAAnomalyDetector,
)
from sklearn_vad import functional as vad
from sklearn_vad._scoring import run_bags
from sklearn_vad.bags import Bags
from sklearn_vad.datasets import make_bags
from sklearn_vad.layers import values_per_snippet

COMMON = {"max_epochs": 1, "random_state": 0, "n_jobs": 1}
MIL = MILRankingAnomalyDetector(hidden_dims=(16, 8), **COMMON)
DAM = DAMAnomalyDetector(n_hidden=16, mlp_dims=(16,), **COMMON)
DDL = DDLAnomalyDetector(hidden_dim=16, mlp_dims=(16, 8), **COMMON)
RTFM = RTFMAnomalyDetector(hidden_dims=(16, 8), **COMMON)
STA = STAAnomalyDetector(hidden_dim=8, **COMMON)
KIB = 2**-20  # in GiB
LONG = 150


@pytest.fixture(scope="module")
def videos():
    return make_bags(24, n_features=8, max_snippets=30, random_state=0)


def long_ones(n_steps=None):
    rng = np.random.default_rng(1)
    shape = (8,) if n_steps is None else (n_steps, 8)
    lengths = (LONG, 3, LONG - 1, 40)
    return [rng.normal(size=(n, *shape)).astype(np.float32) for n in lengths]


def held_by_ddl(n_snippets):
    return 4 * n_snippets * 2 * 16


@pytest.mark.parametrize("limit", [1e-9, 40 * KIB, 100 * KIB])
@pytest.mark.parametrize("detector", [MIL, DAM], ids=["mil_ranking", "dam"])
def test_pieces_are_exact(detector, limit, videos):
    est = clone(detector).fit(*videos)
    whole = est.score_snippets(long_ones())
    pieces = est.set_params(memory_limit=limit).score_snippets(long_ones())
    for one, other in zip(whole, pieces, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"prior": "before"},
        {"sigma": None},
        {"sigma": 2000.0},
        {"sigma": 0.1, "kernel_size": 1},
        {"n_heads": 2, "hidden_dim": 18, "kernel_size": 40},
        {"n_components": 4},
    ],
    ids=repr,
)
def test_pieces_of_ddl_are_exact(params, videos):
    est = clone(DDL).set_params(**params).fit(*videos)
    whole = est.score_snippets(long_ones())
    for piece in (1, 7, 64):  # snippets at once, at the longest video
        snippet = 4 * values_per_snippet(est.net_.module_, (8,))
        held = 4 * LONG * est.net_.module_.held_per_snippet
        est.set_params(memory_limit=(held + piece * snippet) / 2**30)
        pieces = est.score_snippets(long_ones())
        for one, other in zip(whole, pieces, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("params", [{}, {"n_components": 5}], ids=repr)
def test_pieces_of_rtfm_are_exact(params, videos, monkeypatch):
    est = clone(RTFM).set_params(**params).fit(*videos)
    module, taken = est.net_.module_, []
    run = module.run_in_pieces
    monkeypatch.setattr(
        module, "run_in_pieces", lambda bag, n: taken.append(n) or run(bag, n)
    )
    whole = est.score_snippets(long_ones())
    assert taken == []
    snippet, held = 4 * values_per_snippet(module, (8,)), 4 * LONG
    for piece in (1, 15, 64):
        taken.clear()
        est.set_params(memory_limit=(held + piece * snippet) / 2**30)
        for one, other in zip(whole, est.score_snippets(long_ones()), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
        assert piece in taken


def test_pieces_of_rtfm_in_bfloat16(videos):
    est = clone(RTFM).set_params(precision="bfloat16").fit(*videos)
    whole = est.score_snippets(long_ones())
    snippet = 4 * values_per_snippet(est.net_.module_, (8,))
    est.set_params(memory_limit=(4 * LONG + 12 * snippet) / 2**30)
    for one, other in zip(whole, est.score_snippets(long_ones()), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=5e-3)


def test_pieces_of_rtfm_hold_little(videos):
    """A day of snippets fits where DDL's keys and values do not."""
    est = clone(RTFM).fit(*videos)
    module = est.net_.module_
    snippet = 4 * values_per_snippet(module, (8,))
    est.set_params(memory_limit=100 * snippet / 2**30)
    video = np.concatenate([long_ones()[0]] * 20)
    assert 4 * len(video) < 100 * snippet < 4 * len(video) * 32
    with torch.no_grad():
        whole = module(torch.from_numpy(video[None]), torch.ones(1, 3000).bool())
    (found,) = est.score_snippets([video])
    np.testing.assert_allclose(found, whole["scores"][0], rtol=0, atol=1e-6)


def test_pieces_in_bfloat16(videos):
    est = clone(DDL).set_params(precision="bfloat16").fit(*videos)
    whole = est.score_snippets(long_ones())
    snippet = 4 * values_per_snippet(est.net_.module_, (8,))
    est.set_params(memory_limit=(held_by_ddl(LONG) + 7 * snippet) / 2**30)
    for one, other in zip(whole, est.score_snippets(long_ones()), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=5e-3)


def test_pieces_were_taken(videos, monkeypatch):
    """The comparison above would hold without any pieces, too."""
    est = clone(DDL).fit(*videos)
    module, seen = est.net_.module_, []
    run = module.run_in_pieces

    def spy(bag, n):
        seen.append((len(bag), n))
        return run(bag, n)

    monkeypatch.setattr(module, "run_in_pieces", spy)
    limit = (held_by_ddl(LONG) + 7 * 4 * values_per_snippet(module, (8,))) / 2**30
    est.set_params(memory_limit=limit).score_snippets(long_ones())
    assert (LONG, 7) in seen
    assert all(length > 40 or n >= 7 for length, n in seen)


# --------------------------------------------------------------------------
# Attention in blocks
# --------------------------------------------------------------------------
def seen_in_blocks(window, n):
    """Which snippet may see which: those of its own block and of the two beside."""
    block = np.arange(n) // window
    return torch.from_numpy(np.abs(block[:, None] - block) <= 1)


@pytest.mark.parametrize("prior", ["after", "before"])
@pytest.mark.parametrize("sigma", [None, 0.5, 16.0])
@pytest.mark.parametrize("window", [1, 5, 16, 32, 64])
def test_attention_in_blocks_by_the_formula(window, sigma, prior):
    rng = torch.Generator().manual_seed(0)
    n, size = 61, (2, 3, 61, 4)
    query, key, value = (
        torch.randn(size, generator=rng, dtype=torch.float64) for _ in range(3)
    )
    position = torch.arange(n, dtype=torch.float64)
    added = torch.zeros(n, n, dtype=torch.float64)
    if sigma is not None:
        added = torch.exp((position[:, None] - position).square() / (-2 * sigma))
    logits = query @ key.mT + (added if prior == "before" else 0)
    logits = logits.masked_fill(~seen_in_blocks(window, n), -torch.inf)
    weights = logits.softmax(dim=-1) + (added if prior == "after" else 0)
    expected = weights @ value
    for first in (0, 1, 30, 60):
        found = vad.locality_aware_attention(
            query[:, :, first:],
            key,
            value,
            sigma,
            prior=prior,
            first=first,
            window=window,
        )
        torch.testing.assert_close(found, expected[:, :, first:], rtol=1e-9, atol=1e-9)
    mask = torch.arange(n) < torch.tensor([[61], [30]])
    found = vad.locality_aware_attention(
        query, key, value, sigma, mask, prior=prior, window=window
    )
    torch.testing.assert_close(found[0], expected[0], rtol=1e-9, atol=1e-9)
    assert not found[1, :, 30:].any()


@pytest.mark.parametrize("sigma", [None, 16.0, 5000.0])
@pytest.mark.parametrize("window", [1, 4, 32, 74, 75])
def test_pieces_of_attention_in_blocks_are_exact(window, sigma, videos):
    est = clone(DDL).set_params(sigma=sigma).fit(*videos)
    exact = est.score_snippets(long_ones())
    whole = est.set_params(attention_window=window).score_snippets(long_ones())
    assert np.allclose(exact[0], whole[0], rtol=0, atol=1e-7) == (2 * window >= LONG)
    for i in (1, 3):  # of 3 and 40 snippets
        if len(exact[i]) <= 2 * window:
            np.testing.assert_allclose(exact[i], whole[i], rtol=0, atol=1e-6)
    snippet = 4 * values_per_snippet(est.net_.module_, (8,))
    for piece in (1, 7, 40):
        est.set_params(memory_limit=(held_by_ddl(LONG) + piece * snippet) / 2**30)
        for one, other in zip(whole, est.score_snippets(long_ones()), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_attention_in_blocks_needs_no_more_memory_for_longer_videos(videos):
    est = clone(DDL).fit(*videos)
    longer = [np.concatenate([long_ones()[0]] * 20)]
    est.set_params(memory_limit=held_by_ddl(LONG) / 2**30)
    with pytest.raises(ValueError, match="of 3000 snippets needs about"):
        est.score_snippets(longer)
    est.set_params(attention_window=8)
    pieces = est.score_snippets(longer)
    whole = est.set_params(memory_limit=2.0).score_snippets(longer)
    np.testing.assert_allclose(pieces[0], whole[0], rtol=0, atol=1e-6)


def test_training_does_not_know_of_the_window(videos):
    scores = [
        clone(DDL)
        .set_params(attention_window=w)
        .fit(*videos)
        .set_params(attention_window=None)
        .score_snippets(long_ones())
        for w in (None, 1)
    ]
    assert all(map(np.array_equal, *scores))


@pytest.mark.parametrize("window", [0, -3, 2.5, "all"])
def test_bad_windows(window, videos):
    with pytest.raises(ValueError, match="attention_window"):
        clone(DDL).set_params(attention_window=window).fit(*videos)
    est = clone(DDL).fit(*videos).set_params(attention_window=window)
    with pytest.raises(ValueError, match=r"attention_window=.*expected a number of"):
        est.score_snippets(videos[0])


def test_graphs_have_no_window(videos, tmp_path):
    est = clone(DDL).set_params(attention_window=8).fit(*videos)
    with pytest.raises(ValueError, match="attention_window=8 can't be exported"):
        est.to_onnx(tmp_path / "ddl.onnx")


@pytest.mark.parametrize("variant", ["dist", "cov"])
def test_inner_steps_go_in_pieces(variant, videos):
    rng = np.random.default_rng(0)
    bags = [rng.normal(size=(6, 3, 8)).astype(np.float32) for _ in range(8)]
    est = clone(DAM).set_params(variant=variant).fit(bags, np.arange(8) % 2)
    whole = est.score_snippets(long_ones(3))
    pieces = est.set_params(memory_limit=100 * KIB).score_snippets(long_ones(3))
    for one, other in zip(whole, pieces, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_crops_go_in_pieces(videos):
    bags, y = videos
    crops = [np.stack([bag, bag[:, ::-1]], axis=1) for bag in bags]
    est = MultiCropDetector(clone(MIL)).fit(crops, y)
    whole = est.score_snippets(crops)
    est.estimator_.set_params(memory_limit=1e-9)
    for one, other in zip(whole, est.score_snippets(crops), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


# --------------------------------------------------------------------------
# What does not fit
# --------------------------------------------------------------------------
def test_ddl_says_what_it_needs(videos):
    est = clone(DDL).fit(*videos).set_params(memory_limit=held_by_ddl(100) / 2**30)
    bags = Bags.from_list(long_ones(), ids=["a", "b", "c", "d"])
    need = f"{held_by_ddl(LONG) / 2**30:.3g}"
    match = rf"bag 0 \(id 'a'\) of 150 snippets needs about {need} GiB, .* LANet sees"
    with pytest.raises(ValueError, match=match):
        est.score_snippets(bags)
    est.score_snippets(bags[[1, 3]])


def test_segments_take_the_memory_of_segments(videos):
    est = clone(STA).fit(*videos)
    whole = est.score_snippets(long_ones())
    segments = 4 * 32 * values_per_snippet(est.net_.module_, (8,)) / 2**30
    found = est.set_params(memory_limit=segments).score_snippets(long_ones())
    for one, other in zip(whole, found, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_sta_says_what_it_needs(videos):
    est = clone(STA).set_params(resolution="snippet").fit(*videos)
    whole = est.score_snippets(long_ones())
    snippet = 4 * values_per_snippet(est.net_.module_, (8,))
    limit = LONG * snippet / 2**30
    est.set_params(memory_limit=limit)
    for one, other in zip(whole, est.score_snippets(long_ones()), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
    est.set_params(memory_limit=(LONG - 1) * snippet / 2**30)
    with pytest.raises(
        ValueError, match=r"bag 0 of 150 snippets needs .* memory_limit"
    ):
        est.score_snippets(long_ones())


@pytest.mark.parametrize("limit", [0, -1.0, None, "2 GiB"])
def test_bad_limits(limit, videos):
    with pytest.raises(ValueError, match="memory_limit"):
        clone(MIL).set_params(memory_limit=limit).fit(*videos)
    est = clone(MIL).fit(*videos).set_params(memory_limit=limit)
    with pytest.raises(ValueError, match=r"memory_limit=.*, expected a number of GiB"):
        est.score_snippets(videos[0])


# --------------------------------------------------------------------------
# The attention of some queries
# --------------------------------------------------------------------------
@pytest.mark.parametrize("prior", ["before", "after"])
@pytest.mark.parametrize("sigma", [None, 0.01, 3.0, 1e4])
@pytest.mark.parametrize(("first", "n"), [(0, 1), (0, 40), (17, 5), (39, 1), (30, 10)])
def test_attention_of_some_queries(prior, sigma, first, n):
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(
        3, 2, 3, 40, 5, generator=generator, dtype=torch.float64
    )
    whole = vad.locality_aware_attention(query, key, value, sigma, prior=prior)
    rows = slice(first, first + n)
    some = vad.locality_aware_attention(
        query[:, :, rows], key, value, sigma, prior=prior, first=first
    )
    torch.testing.assert_close(some, whole[:, :, rows], rtol=0, atol=1e-12)


def test_a_mask_needs_all_queries():
    x = torch.zeros(1, 1, 4, 2)
    mask = torch.ones(1, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="query holds 3 of 4 snippets"):
        vad.locality_aware_attention(x[:, :, 1:], x, x, 1.0, mask, first=1)


def test_values_per_snippet():
    module = clone(MIL)._make_module(8)
    assert values_per_snippet(module, (8,)) == 2 * (3 * 8 + 16 + 8 + 1)
    dam = clone(DAM)._make_module(8)  # two LSTMs, a gate, a perceptron of two layers
    per_step = 2 * (3 * 8 + 2 * 6 * 16 + 1 + 16 + 1)
    assert values_per_snippet(dam, (4, 8)) == 4 * per_step


def test_longest_bag_decides_alone(videos):
    """Short bags of a call still go together, in one pass."""
    est = clone(MIL).fit(*videos)
    found = run_bags(est.net_, videos[0], ["scores"], memory_limit=1e-9)["scores"]
    for one, other in zip(found, est.score_snippets(videos[0]), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
