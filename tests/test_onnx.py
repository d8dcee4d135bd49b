"""ONNX files of fitted detectors: values for padded batches of any length."""

import json
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sklearn_vad import (
    DAMAnomalyDetector,
    DDLAnomalyDetector,
    EnsembleAnomalyDetector,
    MILRankingAnomalyDetector,
    MultiCropDetector,
    RTFMAnomalyDetector,
    STAAnomalyDetector,
)
from sklearn_vad._batching import collate
from sklearn_vad._criss_cross import PlainCrissCross
from sklearn_vad._locality import dense_locality_aware_attention
from sklearn_vad._lstm import last_hidden, plain_last_hidden
from sklearn_vad._onnx import _segments_of
from sklearn_vad.functional import (
    criss_cross_attention,
    locality_aware_attention,
)
from sklearn_vad.timeline import pool_segments, spread_segments

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

COMMON = {"max_epochs": 2, "random_state": 0, "n_jobs": 1}
DAM = DAMAnomalyDetector(n_hidden=8, mlp_dims=(8,), lr=0.01, **COMMON)
DDL = DDLAnomalyDetector(hidden_dim=16, mlp_dims=(16, 8), lr=0.01, **COMMON)
MIL = MILRankingAnomalyDetector(hidden_dims=(16, 8), **COMMON)
RTFM = RTFMAnomalyDetector(hidden_dims=(16, 8), lr=0.01, **COMMON)
STA = STAAnomalyDetector(hidden_dim=8, lr=0.01, **COMMON)
DETECTORS = {
    "dam_dist": (DAM, ()),
    "dam_cov": (clone(DAM).set_params(variant="cov", scaled=True), (3,)),
    "ddl": (clone(DDL).set_params(video_weight=0.5), ()),
    "ddl_before": (clone(DDL).set_params(prior="before", n_components=3), ()),
    "mil_ranking": (clone(MIL).set_params(l2_normalize=True, video_weight=2.0), ()),
    "rtfm": (RTFM, ()),
    "rtfm_components": (clone(RTFM).set_params(n_components=5), ()),
    "sta": (STA, ()),
    "sta_snippets": (
        clone(STA).set_params(resolution="snippet", temperature=0.3, n_passes=1),
        (),
    ),
    "sta_fc": (
        clone(STA).set_params(regressor="fc", fc_dims=(8,), n_segments=7, n_passes=1),
        (),
    ),
    "crops": (MultiCropDetector(clone(DDL).set_params(video_weight=0.5)), (2,)),
    "crops_steps": (MultiCropDetector(clone(DAM).set_params(variant="cov")), (2, 3)),
}
LENGTHS = [(1,), (2, 3), (33, 7, 1), (3, 200, 2, 1), (1, 2, 3, 7, 33)]


def bags_of(lengths, axes=(), seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(length, *axes, 6) for length in lengths]
    return [rng.normal(0.3, 1.5, shape).astype(np.float32) for shape in shapes]


def padded(bags):
    """Return a batch whose padding, which must not matter, is NaN."""
    batch = {name: tensor.numpy() for name, tensor in collate(bags).items()}
    batch["X"][~batch["mask"]] = np.nan
    return batch


@pytest.fixture(scope="module")
def mil():
    return clone(MIL).fit(bags_of([9, 4, 5, 6]), [0, 1, 0, 1])


# --------------------------------------------------------------------------
# Scores
# --------------------------------------------------------------------------
@pytest.mark.parametrize("name", DETECTORS)
def test_onnxruntime_gives_the_scores_of_snippets(name, tmp_path, capfd):
    est, axes = DETECTORS[name]
    est = clone(est).fit(bags_of([9, 4, 5, 26], axes), [0, 1, 0, 1])
    before = torch.get_rng_state()
    est.to_onnx(tmp_path / "detector.onnx")
    assert torch.equal(torch.get_rng_state(), before)
    session = onnxruntime.InferenceSession(tmp_path / "detector.onnx")
    assert capfd.readouterr() == ("", "")
    spread = []
    for seed, lengths in enumerate(LENGTHS):
        bags = bags_of(lengths, axes, seed)
        (scores,) = session.run(["scores"], padded(bags))
        assert scores.dtype == np.float32
        for row, expected in zip(scores, est.score_snippets(bags), strict=True):
            np.testing.assert_allclose(row[: len(expected)], expected, atol=2e-6)
            assert (row[len(expected) :] == 0).all()
            spread.append(np.ptp(expected))
    assert max(spread) > 1e-3  # or nothing was compared


def test_a_row_without_snippets_leaves_the_others_alone(tmp_path):
    est = clone(DDL).fit(bags_of([9, 4, 5, 6]), [0, 1, 0, 1])
    est.to_onnx(tmp_path / "detector.onnx")
    batch = padded(bags_of([5, 3]))
    batch["mask"][1] = False
    session = onnxruntime.InferenceSession(tmp_path / "detector.onnx")
    (scores,) = session.run(None, batch)
    expected = est.score_snippets(bags_of([5]))[0]
    np.testing.assert_allclose(scores[0], expected, atol=2e-6)
    assert (scores[1] == 0).all()


def test_crops_may_be_of_another_number(tmp_path):
    est = MultiCropDetector(MIL).fit(bags_of([9, 4, 5, 6], (2,)), [0, 1, 0, 1])
    est.to_onnx(tmp_path / "detector.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "detector.onnx")
    bags = bags_of([4], (5,))
    (scores,) = session.run(None, padded(bags))
    np.testing.assert_allclose(scores[0], est.score_snippets(bags)[0], atol=2e-6)


def test_bfloat16_is_written_as_float32(tmp_path):
    X, y = bags_of([9, 4, 5, 6]), [0, 1, 0, 1]
    est = clone(MIL).set_params(precision="bfloat16").fit(X, y)
    est.to_onnx(tmp_path / "detector.onnx")
    est.net_.precision = "float32"
    session = onnxruntime.InferenceSession(tmp_path / "detector.onnx")
    (scores,) = session.run(None, padded(X[:1]))
    np.testing.assert_allclose(scores[0], est.score_snippets(X)[0], atol=2e-6)


def test_the_network_is_the_fitted_one(tmp_path):
    est = clone(DDL).fit(bags_of([9, 4, 5, 6]), [0, 1, 0, 1])
    before = est.score_snippets(bags_of([7]))[0]
    est.set_params(sigma=1.0, hidden_dim=8, precision="bfloat16")  # of the next fit
    est.to_onnx(tmp_path / "detector.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "detector.onnx")
    (scores,) = session.run(None, padded(bags_of([7])))
    np.testing.assert_allclose(scores[0], before, atol=2e-6)


# --------------------------------------------------------------------------
# The file
# --------------------------------------------------------------------------
def test_metadata(tmp_path):
    est = clone(STA).fit(bags_of([9, 4, 5, 6]), ["a", "b", "a", "b"])
    est.threshold_ = 0.25
    est.to_onnx(tmp_path / "detector.onnx")
    model = onnx.load(tmp_path / "detector.onnx")
    assert [entry.key for entry in model.metadata_props] == ["sklearn_vad"]
    found = json.loads(model.metadata_props[0].value)
    assert found["class"] == "STAAnomalyDetector"
    assert found["classes"] == ["a", "b"]
    assert found["threshold"] == 0.25
    assert found["n_features"] == 6
    assert found["versions"]["torch"] == str(torch.__version__)
    assert "32 segments" in found["scored"]
    assert found["axes"]["X"] == ["batch", "snippets", "n_features"]
    put_in = {
        entry.name: [axis.dim_param or axis.dim_value for axis in shape.dim]
        for entry in model.graph.input
        for shape in [entry.type.tensor_type.shape]
    }
    assert put_in == {"X": ["batch", "snippets", 6], "mask": ["batch", "snippets"]}


def test_a_wrong_graph_is_not_written(monkeypatch, tmp_path):
    est = clone(MIL).set_params(video_weight=1.0)
    est.fit(bags_of([9, 4, 5, 6]), [0, 1, 0, 1])
    path = tmp_path / "detector.onnx"
    path.write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(
            MILRankingAnomalyDetector,
            "_graph_video_scores",
            lambda self, scores, mask: scores[:, 0],
        )
        with pytest.raises(RuntimeError, match=r"torch's by \d.* for a bag of \d+ sni"):
            est.to_onnx(path)
    assert [file.name for file in tmp_path.iterdir()] == ["detector.onnx"]
    assert path.read_text() == "old"
    est.to_onnx(path)
    onnx.checker.check_model(onnx.load(path))


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_missing_packages_are_named(package, mil, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"{package}.*pip install .*\[onnx\]"):
        mil.to_onnx(tmp_path / "detector.onnx")


@pytest.mark.parametrize("est", [DDL, MultiCropDetector(MIL)], ids=["ddl", "crops"])
def test_not_fitted(est, tmp_path):
    with pytest.raises(NotFittedError):
        clone(est).to_onnx(tmp_path / "detector.onnx")


def test_ensemble_says_how(tmp_path):
    with pytest.raises(TypeError, match=r"estimators_\[i\]\.to_onnx"):
        EnsembleAnomalyDetector([MIL]).to_onnx(tmp_path / "detector.onnx")


# --------------------------------------------------------------------------
# Plain code equals the fast code
# --------------------------------------------------------------------------
@pytest.mark.parametrize("prior", ["after", "before"])
@pytest.mark.parametrize("sigma", [None, 0.5, 400.0])
def test_dense_attention(sigma, prior):
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 2, 90, 5, generator=generator)
    mask = torch.arange(90) < torch.tensor([[90], [1]])
    args = query, key, value, sigma, mask
    torch.testing.assert_close(
        dense_locality_aware_attention(*args, prior=prior),
        locality_aware_attention(*args, prior=prior),
        atol=1e-5,
        rtol=1e-6,
    )


@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_plain_criss_cross(temperature):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 9, 7, generator=generator)
    mask = torch.arange(9) < torch.tensor([[9], [4], [1]])
    x[1, 0, 3] = 0
    parameters = torch.randn(4, 5, generator=generator)
    parameters[1] = 0  # a feature of zero has a query of zeros
    torch.testing.assert_close(
        PlainCrissCross(tuple(parameters), temperature)(x * mask[..., None], mask),
        criss_cross_attention(x, *parameters, mask, temperature=temperature),
        atol=1e-6,
        rtol=1e-6,
    )


@pytest.mark.parametrize("n_steps", [1, 4])
def test_plain_lstm(n_steps):
    generator = torch.Generator().manual_seed(0)
    lstm = torch.nn.LSTM(3, 5)
    x = torch.randn(6, n_steps, 3, generator=generator)
    scale = torch.randn(6, n_steps, generator=generator)
    for args in ((x,), (x[:, 0], scale)):
        torch.testing.assert_close(
            plain_last_hidden(lstm, *args), last_hidden(lstm, *args)
        )


def test_plain_rnn():
    module = clone(STA).fit(bags_of([9, 4]), [0, 1]).net_.module_
    mask = torch.arange(9) < torch.tensor([[9], [4], [1]])
    features = torch.randn(3, 9, 6, generator=torch.Generator().manual_seed(0))
    found, expected = (
        f(features, mask) for f in (module._recur_plainly, module._recur)
    )
    torch.testing.assert_close(found[mask], expected[mask], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("n_segments", [1, 5, 32])
def test_segments(n_segments):
    bags = bags_of([1, 2, 5, 31, 32, 33, 70])
    shown = _segments_of(collate(bags)["mask"], n_segments).double().numpy()
    for bag, table in zip(bags, shown, strict=True):
        table, rest = table[:, : len(bag)], table[:, len(bag) :]
        assert not rest.any()
        means = table @ bag / table.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(means, pool_segments(bag, n_segments), atol=1e-6)
        scores = means[:, 0] @ table / table.sum(axis=0)
        expected = spread_segments(means[:, 0], len(bag))
        np.testing.assert_allclose(scores, expected, atol=1e-12)


def test_video_scores_of_ddl():
    bags = [bag[:, 0] for bag in bags_of([1, 15, 16, 31, 33, 200])]
    batch = collate(bags)
    found = DDL._graph_video_scores(batch["X"].abs(), batch["mask"])
    expected = DDL._video_scores([np.abs(bag) for bag in bags])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
