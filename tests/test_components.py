"""`n_components`: the principal components that a network works on."""

import pickle

import numpy as np
import pytest
import torch

from sklearn_vad import (
    Bags,
    DAMAnomalyDetector,
    DDLAnomalyDetector,
    MILRankingAnomalyDetector,
    RTFMAnomalyDetector,
    STAAnomalyDetector,
    base,
    load,
)
from sklearn_vad.bags import sample_snippets

N_FEATURES, N_COMPONENTS = 12, 4
DETECTORS = [
    DDLAnomalyDetector(hidden_dim=8, mlp_dims=(6, 4), kernel_size=2),
    DAMAnomalyDetector(n_hidden=6, mlp_dims=(4,)),
    STAAnomalyDetector(hidden_dim=4, n_segments=6),
    MILRankingAnomalyDetector(hidden_dims=(6, 4)),
    RTFMAnomalyDetector(hidden_dims=(6, 4)),
]
y = np.arange(10) % 2


def make_videos(n_steps=None, mean=5.0):
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(N_FEATURES, N_FEATURES)) * 0.7 ** np.arange(N_FEATURES)
    inner = () if n_steps is None else (n_steps,)
    return [
        np.float32(rng.normal(size=(n, *inner, N_FEATURES)) @ mixing.T + mean)
        for n in (5, 9, 4, 7, 12, 3, 8, 6, 10, 11)
    ]


def fitted(detector, videos, **params):
    params = {"n_components": N_COMPONENTS, "max_epochs": 1, "random_state": 0} | params
    return type(detector)(**(detector.get_params() | params)).fit(videos, y)


@pytest.mark.parametrize("est", DETECTORS, ids=lambda est: type(est).__name__)
@pytest.mark.parametrize("scaling", ["uniform", "standard", None])
def test_network_sees_the_components(est, scaling):
    videos = make_videos()
    rows = np.concatenate(videos).astype(np.float64)
    mean = rows.mean(axis=0)
    _, singular, axes = np.linalg.svd(rows - mean, full_matrices=False)
    variance = singular[:N_COMPONENTS] ** 2 / (len(rows) - 1)
    expected = (rows - mean) @ axes[:N_COMPONENTS].T
    if scaling == "uniform":
        expected /= np.sqrt(variance.mean())
    elif scaling == "standard":
        expected /= np.sqrt(variance)
    layer = fitted(est, videos, input_scaling=scaling).net_.module_.scaling
    found = layer(torch.from_numpy(np.float32(rows))).numpy()
    signs = np.sign(np.sum(found * expected, axis=0))
    np.testing.assert_allclose(found * signs, expected, atol=2e-4)


# Not DAM, whose zero before the first snippet has components that are not zero.
@pytest.mark.parametrize(
    "est", [DETECTORS[0], *DETECTORS[2:]], ids=lambda est: type(est).__name__
)
def test_components_are_those_of_transformed_bags(est):
    """Scores are those of a detector that was given the components as bags."""
    videos = make_videos()
    inside = fitted(est, videos)
    layer = inside.net_.module_.scaling
    given = [layer(torch.from_numpy(video)).numpy() for video in videos]
    outside = fitted(est, given, n_components=None, input_scaling=None)
    for ours, theirs in zip(
        inside.score_snippets(videos), outside.score_snippets(given), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("est", DETECTORS[1::2], ids=lambda est: type(est).__name__)
def test_streams_take_the_features_themselves(est):
    videos = make_videos()
    est = fitted(est, videos)
    stream = est.stream()
    pushed = [stream.push(snippet) for snippet in videos[4]]
    np.testing.assert_allclose(pushed, est.score_snippets(videos)[4], atol=1e-6)


def test_inner_steps_are_rows_of_their_own():
    videos = make_videos(n_steps=3)
    layer = fitted(DETECTORS[1], videos).net_.module_.scaling
    rows = np.concatenate([v.reshape(-1, N_FEATURES) for v in videos])
    out = layer(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(out.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(out.var(axis=0).mean(), 1, rtol=0.02)


def test_large_means_cost_no_digits():
    near, far = (fitted(DETECTORS[3], make_videos(mean=m)) for m in (0.0, 1000.0))
    for a, b in zip(
        near.score_snippets(make_videos(mean=0.0)),
        far.score_snippets(make_videos(mean=1000.0)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=2e-3)


@pytest.mark.parametrize("n", [N_FEATURES + 1, 100])
def test_more_components_than_features_are_refused(n):
    with pytest.raises(ValueError, match=f"n_components={n} of 75 snippets with 12"):
        fitted(DETECTORS[3], make_videos(), n_components=n)


def test_more_components_than_snippets_are_refused():
    videos = [video[:1] for video in make_videos()]
    with pytest.raises(ValueError, match="n_components=11 of 10 snippets"):
        fitted(DETECTORS[3], videos, n_components=11)


def test_kept_by_pickle_and_by_save(tmp_path):
    videos = make_videos()
    est = fitted(DETECTORS[0], videos)
    est.save(tmp_path / "est")
    for again in (load(tmp_path / "est"), pickle.loads(pickle.dumps(est))):
        for a, b in zip(
            est.score_snippets(videos), again.score_snippets(videos), strict=True
        ):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("most", [1, 7, 20, 75, 1000])
def test_sampled_snippets_are_spread_evenly(most):
    videos = make_videos()
    rows = np.concatenate(videos)
    step = -(-len(rows) // most)
    expected = [row for i, row in enumerate(rows) if i % step == 0]
    np.testing.assert_array_equal(
        sample_snippets(Bags.from_list(videos), most), expected
    )


def test_components_of_a_sample(monkeypatch):
    monkeypatch.setattr(base, "_PCA_ROWS", 20)
    videos = make_videos()
    sample = np.concatenate(videos)[::4].astype(np.float64)
    layer = fitted(DETECTORS[3], videos).net_.module_.scaling
    np.testing.assert_allclose(layer.shift.numpy(), sample.mean(axis=0), rtol=1e-5)
