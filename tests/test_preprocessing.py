"""Bag transformers: what they give, and that nothing is loaded at once."""

import pickle
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import config_context
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.decomposition import PCA, IncrementalPCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectFromModel, SelectKBest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    Normalizer,
    PolynomialFeatures,
    QuantileTransformer,
    StandardScaler,
    normalize,
)
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_vad import (
    Bags,
    DDLAnomalyDetector,
    FrameLabels,
    MILRankingAnomalyDetector,
    _storage,
)
from sklearn_vad import (
    bags as bags_module,
)
from sklearn_vad.metrics import frame_roc_auc_score, frame_roc_auc_scorer
from sklearn_vad.preprocessing import (
    BagTransformer,
    SegmentPooling,
    SnippetNormalizer,
    UniformSampler,
)

MIL = MILRankingAnomalyDetector(
    hidden_dims=(16, 8), n_segments=None, max_epochs=2, random_state=0, n_jobs=1
)
EACH = [
    BagTransformer(StandardScaler()),
    SegmentPooling(4),
    UniformSampler(5),
    SnippetNormalizer(),
]
CONTAINERS = ["list", "Bags", "store", "files"]
ON_DISK = ["store", "files"]


@pytest.fixture(params=EACH, ids=lambda est: type(est).__name__)
def est(request):
    return clone(request.param)


def put(bags, kind, folder):
    """Return the same bags in another container."""
    if kind == "store":
        bags.save(folder / "store")
        return Bags.open(folder / "store")
    if kind == "files":
        paths = [folder / f"{i}.npy" for i in bags.ids]
        for path, bag in zip(paths, bags, strict=True):
            np.save(path, bag)
        return Bags.from_files(paths)
    return list(bags) if kind == "list" else bags


@pytest.fixture
def reads(monkeypatch):
    """Return a list that grows with the index of every bag read from disk."""
    found = []
    for storage in (_storage.InFiles, _storage.InStore):

        def read(self, index, name, original=storage.read):
            found.append(int(index))
            return original(self, index, name)

        monkeypatch.setattr(storage, "read", read)
    return found


def split(rows, bags):
    """Cut stacked rows into the bags that they came from."""
    return np.split(rows, np.cumsum(bags.lengths)[:-1])


def assert_same(bags, expected, **tolerance):
    assert isinstance(bags, Bags)
    assert len(bags) == len(expected)
    for bag, other in zip(bags, expected, strict=True):
        np.testing.assert_allclose(bag, other, **{"rtol": 0, **tolerance})


# BagTransformer: values ---------------------------------------------------
@pytest.mark.parametrize(
    "transformer",
    [
        PCA(3),
        StandardScaler(),
        StandardScaler(with_mean=False),
        Normalizer("l1"),
        QuantileTransformer(n_quantiles=20),
        FunctionTransformer(np.tanh),
        make_pipeline(StandardScaler(), PCA(2)),
        Pipeline([("all", "passthrough")]),
        PolynomialFeatures(2),
        KBinsDiscretizer(3, quantile_method="averaged_inverted_cdf"),  # sparse output
        StandardScaler().set_output(transform="pandas"),
    ],
    ids=lambda t: type(t).__name__,
)
def test_it_does_what_the_transformer_does_with_stacked_snippets(small, transformer):
    bags, y = small
    n_train = 16
    rows = np.concatenate(list(bags))
    expected = clone(transformer).fit(np.concatenate(list(bags[:n_train])))
    expected = expected.transform(rows)
    expected = expected.toarray() if hasattr(expected, "toarray") else expected
    est = BagTransformer(transformer).fit(bags[:n_train], y[:n_train])
    found = est.transform(bags)
    assert_same(found, split(np.asarray(expected), bags), atol=1e-6)
    assert found.ids.tolist() == bags.ids.tolist()
    assert found.n_features == expected.shape[1]
    assert est.n_features_in_ == 6


def test_every_container_gives_the_same(est, small, tmp_path):
    bags, _ = small
    expected = est.fit(bags).transform(bags)
    for kind in CONTAINERS:
        other = put(bags, kind, tmp_path)
        assert_same(clone(est).fit(other).transform(other), expected, atol=0)
        assert_same(clone(est).fit_transform(other, [0] * 24), expected, atol=0)


@pytest.mark.parametrize("shape", [(3,), (2, 3)], ids=["crops", "crops and steps"])
def test_leading_axes_are_rows_too(shape):
    rng = np.random.default_rng(0)
    bags = [rng.normal(size=(n, *shape, 5)).astype(np.float32) for n in (4, 1, 7)]
    rows = np.concatenate([bag.reshape(-1, 5) for bag in bags])
    pca = PCA(2).fit(rows)
    found = BagTransformer(PCA(2)).fit(bags).transform(bags)
    expected = [pca.transform(b.reshape(-1, 5)).reshape(*b.shape[:-1], 2) for b in bags]
    assert_same(found, expected, atol=1e-6)
    assert found.bag_ndim == 2 + len(shape)
    centre = BagTransformer(PCA(2)).fit(bags).transform([bag[:, :1] for bag in bags])
    assert_same(centre, [bag[:, :1] for bag in expected], atol=1e-6)


@pytest.mark.parametrize(
    ("given", "scaled", "sampled"),
    [
        ("float32", "float32", "float32"),
        ("float64", "float64", "float64"),
        ("float16", "float32", "float16"),
        ("int64", "float32", "float32"),
    ],
)
def test_dtype(given, scaled, sampled, tmp_path):
    bags = Bags.from_list([np.arange(12).reshape(6, 2).astype(given)] * 2, ["a", "b"])
    scale = BagTransformer(StandardScaler())
    for lies in (bags, put(bags, "store", tmp_path)):
        found = scale.fit_transform(lies)
        assert found.dtype == found[0].dtype == scaled
        for stateless in (SegmentPooling(2), UniformSampler(2), SnippetNormalizer()):
            found = stateless.fit_transform(lies)
            assert found.dtype == found[0].dtype == sampled
    whole_numbers = BagTransformer(
        FunctionTransformer(np.ndarray.astype, kw_args={"dtype": int})
    )
    assert whole_numbers.fit_transform(bags).dtype == np.float32


def test_a_transformer_that_works_in_place_leaves_the_bags_alone(small, tmp_path):
    def negate(rows):
        return np.negative(rows, out=rows)

    for transformer in (FunctionTransformer(negate), StandardScaler(copy=False)):
        for kind in ("Bags", "store"):
            bags = put(small[0], kind, tmp_path)
            BagTransformer(transformer).fit(bags).transform(bags)[0]
            assert_same(bags, small[0], atol=0)
    negated = BagTransformer(FunctionTransformer(negate)).fit_transform(bags)
    assert_same(negated, [-bag for bag in small[0]], atol=0)


def test_pandas_output_by_configuration(small):
    expected = BagTransformer(StandardScaler()).fit_transform(small[0])
    with config_context(transform_output="pandas"):
        found = BagTransformer(StandardScaler()).fit_transform(small[0])
    assert_same(found, expected, atol=0)


def test_data_frame_is_bags_of_one_snippet():
    X = np.random.default_rng(0).normal(size=(30, 4))
    frame = pd.DataFrame(X, columns=list("abcd"))
    est = BagTransformer(StandardScaler()).fit(frame)
    assert est.feature_names_in_.tolist() == list("abcd")
    expected = StandardScaler().fit_transform(X)
    assert_same(est.transform(frame), expected[:, None], atol=1e-12)
    est.fit([X])
    assert not hasattr(est, "feature_names_in_")


def test_parameters_of_the_transformer(small):
    est = BagTransformer(make_pipeline(StandardScaler(), PCA(2)))
    est.set_params(transformer__pca__n_components=3)
    assert clone(est).fit_transform(small[0]).n_features == 3
    assert not hasattr(est.transformer, "n_features_in_")  # a clone was fitted
    assert not hasattr(est, "transformer_")


# BagTransformer: streaming ------------------------------------------------
@given(st.lists(st.integers(1, 30), min_size=1), st.integers(1, 50))
def test_blocks_are_all_bags_in_order_and_none_is_too_short(n_rows, least):
    blocks = bags_module._runs(np.array(n_rows), least)
    assert [i for block in blocks for i in block] == list(range(len(n_rows)))
    sizes = [sum(n_rows[i] for i in block) for block in blocks]
    assert min(sizes) >= min(least, sum(n_rows))
    for block, size in zip(blocks[:-1], sizes[:-1], strict=True):
        assert size - n_rows[block[-1]] < least  # no longer than it has to be


@pytest.mark.parametrize("inner", [(), (2,), (2, 3)], ids=str)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_snippet_blocks_are_all_rows_once(inner, dtype, monkeypatch):
    rng = np.random.default_rng(0)
    lengths = (5, 8, 20, 6, 7, 1, 1)
    arrays = [rng.normal(size=(n, *inner, 4)).astype(dtype) for n in lengths]
    bags, n_inner = Bags.from_list(arrays), int(np.prod(inner))
    blocks = list(bags_module.snippet_blocks(bags, least=13 * n_inner))
    assert [len(block) for block in blocks] == [
        13 * n_inner,
        20 * n_inner,
        15 * n_inner,
    ]
    for block in blocks:
        assert block.dtype == (np.float64 if dtype == np.float64 else np.float32)
        block += 0  # a copy, one's own
    rows = np.concatenate([array.reshape(-1, 4) for array in arrays])
    np.testing.assert_array_equal(np.concatenate(blocks), rows)
    # By default as many rows as a constant says, or as there are features.
    monkeypatch.setattr(bags_module, "_BLOCK_ROWS", 13 * n_inner)
    default = list(bags_module.snippet_blocks(bags))
    assert [len(block) for block in default] == [len(block) for block in blocks]
    monkeypatch.setattr(bags_module, "_BLOCK_ROWS", 1)
    first = next(bags_module.snippet_blocks(bags))
    np.testing.assert_array_equal(first, arrays[0].reshape(-1, 4))  # 5 rows, 4 features
    first[:] = 0
    assert (bags[0] == arrays[0]).all()


def test_streamed_scaler_equals_a_stacked_one(small, monkeypatch):
    monkeypatch.setattr(bags_module, "_BLOCK_ROWS", 40)
    bags = Bags.from_list([100 + 5 * bag for bag in small[0]])
    rows = np.concatenate(list(bags))
    assert len(bags_module._runs(bags.lengths, 40)) > 5
    for transformer in (StandardScaler(), MinMaxScaler()):
        found = BagTransformer(transformer).fit(bags).transform(bags)
        expected = clone(transformer).fit(rows).transform(rows)
        assert_same(found, split(expected, bags), atol=1e-6, rtol=1e-6)


def test_incremental_pca_gets_blocks_that_are_long_enough(monkeypatch):
    """As fed by hand: 13 rows are the least, the last 2 join those before."""
    monkeypatch.setattr(bags_module, "_BLOCK_ROWS", 13)
    rng = np.random.default_rng(0)
    bags = [rng.normal(size=(n, 6)) for n in (5, 8, 20, 6, 7, 1, 1)]
    by_hand = IncrementalPCA(4)
    for block in (bags[:2], bags[2:3], bags[3:]):
        by_hand.partial_fit(np.concatenate(block))
    est = BagTransformer(IncrementalPCA(4)).fit(bags)
    np.testing.assert_array_equal(est.transformer_.components_, by_hand.components_)
    np.testing.assert_array_equal(est.transformer_.mean_, by_hand.mean_)
    assert_same(est.transform(bags), [by_hand.transform(b) for b in bags], atol=1e-12)


def test_a_block_has_as_many_rows_as_features(monkeypatch):
    """A bag of 3 snippets in 2 crops has 6 rows; 10 are needed."""
    sizes = []

    class Spy(IncrementalPCA):
        def partial_fit(self, X, y=None, check_input=True):
            sizes.append(len(X))
            return super().partial_fit(X, y, check_input)

    monkeypatch.setattr(bags_module, "_BLOCK_ROWS", 2)
    bags = [np.random.default_rng(i).normal(size=(3, 2, 10)) for i in range(7)]
    BagTransformer(Spy(10)).fit(bags)
    assert sizes == [12, 12, 18]


def test_nothing_but_a_block_is_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(bags_module, "_BLOCK_ROWS", 1000)
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(400, 128)).astype(np.float32) for _ in range(60)]
    Bags.from_list(arrays).save(tmp_path / "store")
    size = sum(a.nbytes for a in arrays)
    del arrays
    bags = Bags.open(tmp_path / "store")
    est = make_pipeline(BagTransformer(StandardScaler()), SegmentPooling(16))
    tracemalloc.start()
    found = est.fit(bags).transform(bags)
    found.save(tmp_path / "pooled")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 12_000_000
    assert peak < 0.3 * size  # a block is a twentieth, the scaler takes more
    tracemalloc.start()
    for bag in found:
        assert len(bag) == 16
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.1 * size  # a bag is a sixtieth


@pytest.mark.parametrize("kind", ON_DISK)
def test_how_often_a_bag_is_read(small, tmp_path, reads, kind):
    bags, everything = put(small[0], kind, tmp_path), list(range(24))
    est = BagTransformer(StandardScaler()).fit(bags)
    assert reads == everything
    reads.clear()
    found = est.transform(bags)
    assert reads == [0]  # for the width of the result
    reads.clear()
    assert found.lengths.tolist() == bags.lengths.tolist()
    assert reads == []
    found[3], found[3]
    assert reads == [3, 3]
    reads.clear()
    BagTransformer(Normalizer()).fit(bags)  # which has nothing to learn
    assert reads == [0]
    reads.clear()
    SegmentPooling(4).fit(bags).transform(bags)
    assert reads == []


def test_bags_in_memory_are_transformed_once(small):
    calls = []
    count = FunctionTransformer(lambda rows: calls.append(len(rows)) or rows)
    found = BagTransformer(count).fit(small[0]).transform(small[0])
    calls.clear()
    assert_same(found[:4], small[0][:4], atol=0)
    assert calls == []


# Lazy bags ----------------------------------------------------------------
@pytest.mark.parametrize("kind", ON_DISK)
def test_lazy_bags_are_bags(est, small, tmp_path, kind):
    expected = est.fit(small[0]).transform(small[0])
    found = est.transform(put(small[0], kind, tmp_path))
    assert found.lengths.tolist() == expected.lengths.tolist()
    assert found.ids.tolist() == expected.ids.tolist()
    assert found.snippet_shape == expected.snippet_shape
    odd = np.arange(1, 24, 2)
    assert_same(found[odd], expected[odd], atol=0)
    assert_same(found[odd][2:4], expected[[5, 7]], atol=0)
    assert not found[0].flags.writeable
    found.save(tmp_path / "made")
    assert_same(Bags.open(tmp_path / "made"), expected, atol=0)


def test_a_chain_of_lazy_bags(small, tmp_path):
    chain = make_pipeline(*map(clone, EACH))
    expected = chain.fit(small[0]).transform(small[0])
    assert_same(chain.transform(put(small[0], "store", tmp_path)), expected, atol=0)


def test_lazy_bags_have_one_dtype(tmp_path):
    for name, dtype in (("a", np.float32), ("b", np.float64)):
        np.save(tmp_path / f"{name}.npy", np.ones((3, 2), dtype))
    bags = Bags.from_files(sorted(tmp_path.glob("*.npy")))
    for est in (SegmentPooling(2), BagTransformer(StandardScaler())):
        found = est.fit(bags).transform(bags)
        assert {found.dtype, *(bag.dtype for bag in found)} == {found.dtype}


def test_lazy_bags_pickle_as_path_and_function(est, small, tmp_path):
    whole = est.fit(small[0]).transform(put(small[0], "store", tmp_path))
    for found in (whole, whole[3:9], whole[[7, 2]], whole[5:6][:1]):
        pickled = pickle.dumps(found)
        assert len(pickled) < 4_000
        copy = pickle.loads(pickled)
        assert_same(copy, found, atol=0)
        assert copy.ids.tolist() == found.ids.tolist()


def test_a_pickled_subset_takes_no_snippets_of_other_videos(tmp_path):
    arrays = [np.full((50, 3), float(i)) for i in range(1, 9)]
    found = SnippetNormalizer("max").transform(Bags.from_list(arrays))
    assert len(pickle.dumps(found[2:3])) < 2_500
    files = put(Bags.from_list(arrays, [f"v{i}" for i in range(8)]), "files", tmp_path)
    part = pickle.loads(pickle.dumps(SegmentPooling(2).transform(files)[[6]]))
    assert len(part._source.lengths) == 1
    assert_same(part, [np.full((2, 3), 7.0)], atol=0)


# Pooling, sampling, norms -------------------------------------------------
@pytest.mark.parametrize(("pool", "reduce"), [("mean", np.mean), ("max", np.max)])
def test_segment_pooling_by_hand(pool, reduce):
    rng = np.random.default_rng(0)
    bags = [rng.normal(size=(n, 2, 3)) for n in (3, 4, 11, 40)]
    found = SegmentPooling(4, pool=pool).fit_transform(bags)
    assert found.lengths.tolist() == [4] * 4
    for bag, segments in zip(bags, found, strict=True):
        for i, segment in enumerate(segments):
            start, stop = i * len(bag) // 4, (i + 1) * len(bag) // 4
            expected = reduce(bag[start : max(stop, start + 1)], axis=0)
            np.testing.assert_allclose(segment, expected, atol=1e-12)


def test_uniform_sampler_by_hand():
    video = np.arange(22.0).reshape(11, 2)
    found = UniformSampler(4).fit_transform([video, video[:3], video[:4]])
    assert_same(found, [video[[0, 3, 6, 10]], video[:3], video[:4]], atol=0)


def test_defaults_are_those_of_the_papers():
    bags = [np.ones((300, 1)), np.ones((33, 1))]
    assert SegmentPooling().fit_transform(bags).lengths.tolist() == [32, 32]
    assert UniformSampler().fit_transform(bags).lengths.tolist() == [200, 33]


@pytest.mark.parametrize("norm", ["l2", "l1", "max"])
def test_snippet_normalizer_equals_that_of_scikit_learn(norm):
    rng = np.random.default_rng(0)
    bags = [rng.normal(size=(n, 3, 4)).astype(np.float32) for n in (1, 6)]
    bags[1][2, 1] = 0  # one crop of zeros
    found = SnippetNormalizer(norm).fit_transform(bags)
    expected = [normalize(b.reshape(-1, 4), norm).reshape(b.shape) for b in bags]
    if norm == "max":  # scikit-learn's is the largest value, without magnitude
        expected = [
            b / np.where(b.any(-1), np.abs(b).max(-1), 1)[..., None] for b in bags
        ]
    assert_same(found, expected, atol=1e-6)
    assert (found[1][2, 1] == 0).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_norms_neither_overflow_nor_vanish(dtype):
    info = np.finfo(dtype)
    for size in (info.tiny, min(info.max, np.finfo(np.float32).max)):
        bag = np.array([[size, 0, 0], [0, -size, 0]], dtype)
        for norm in ("l2", "l1", "max") if size > 1 or dtype != "float64" else ("max",):
            found = SnippetNormalizer(norm).transform([bag])[0]
            assert found.tolist() == [[1, 0, 0], [0, -1, 0]]


def test_what_learns_nothing_needs_no_fit(small):
    for est in EACH[1:]:
        found = clone(est).transform(small[0])
        assert_same(found, clone(est).fit(small[0]).transform(small[0]), atol=0)


# In a pipeline ------------------------------------------------------------
def pipeline(**params):
    steps = [
        ("scale", BagTransformer(StandardScaler())),
        ("pool", SegmentPooling(8)),
        ("det", clone(MIL)),
    ]
    return Pipeline(steps).set_params(**params)


def frame_auc_by_hand(bags, masks, n_segments, train, test):
    scaler = StandardScaler().fit(np.concatenate([bags[i] for i in train]))

    def segments(i):
        rows, n = scaler.transform(bags[i]), len(bags[i])
        starts = np.arange(n_segments + 1) * n // n_segments
        ends = np.maximum(starts[1:], starts[:-1] + 1)
        return [rows[a:b].mean(axis=0) for a, b in zip(starts[:-1], ends, strict=True)]

    y = [int(masks[i].any()) for i in train]
    det = clone(MIL).fit([np.array(segments(i)) for i in train], y)
    scores = det.score_snippets([np.array(segments(i)) for i in test])
    lengths = [len(masks[i]) / n_segments for i in test]
    return frame_roc_auc_score([masks[i] for i in test], scores, snippet_length=lengths)


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("kind", CONTAINERS)
def test_grid_search_over_a_pipeline(small, tmp_path, kind, n_jobs):
    bags, y = small
    segments = FrameLabels(y.masks, [len(mask) / 8 for mask in y.masks])
    search = GridSearchCV(
        pipeline(),
        {"scale__transformer__with_mean": [True, False], "det__lr": [1e-2, 1e-4]},
        scoring=frame_roc_auc_scorer,
        cv=KFold(2),
        n_jobs=n_jobs,
        error_score="raise",
    ).fit(put(bags, kind, tmp_path), segments)
    at = search.cv_results_["params"].index(
        {"scale__transformer__with_mean": True, "det__lr": 1e-2}
    )
    for fold, (train, test) in enumerate(KFold(2).split(bags)):
        expected = frame_auc_by_hand(list(bags), y.masks, 8, train, test)
        found = search.cv_results_[f"split{fold}_test_score"][at]
        assert found == pytest.approx(expected, abs=1e-9)
    assert search.best_estimator_.predict(bags).shape == (24,)


def test_pipeline_on_a_store_never_loads_it_at_once(tmp_path):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(500, 64)).astype(np.float32) for _ in range(100)]
    size = sum(a.nbytes for a in arrays)
    Bags.from_list(arrays).save(tmp_path / "store")
    bags, y = Bags.open(tmp_path / "store"), np.arange(100) % 2
    del arrays
    est = pipeline(det__batch_size=10, det__max_epochs=1)
    tracemalloc.start()
    est.fit(bags, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 12_000_000
    assert peak < 0.6 * size


def test_pickled_pipeline_keeps_scores(small):
    est = pipeline().fit(*small)
    copy = pickle.loads(pickle.dumps(est))
    assert np.array_equal(copy.predict_proba(small[0]), est.predict_proba(small[0]))


def test_frame_labels_of_snippets_do_not_fit_segments(small):
    bags, y = small
    est = pipeline(pool__n_segments=3).fit(bags, y)
    with pytest.raises(ValueError, match=r"3 snippets.*snippet_length must be"):
        frame_roc_auc_scorer(est, bags, y)
    lengths = [len(mask) / 3 for mask in y.masks]
    found = frame_roc_auc_scorer(est, bags, FrameLabels(y.masks, lengths))
    scores = est[-1].score_snippets(est[:-1].transform(bags))
    frames = [
        s[np.floor(np.arange(len(m)) / (len(m) / 3)).astype(int)]
        for s, m in zip(scores, y.masks, strict=True)
    ]
    expected = frame_roc_auc_score(y.masks, frames, snippet_length=1)
    assert found == pytest.approx(expected, abs=1e-12)


def test_detectors_with_context_take_transformed_bags(small):
    bags, y = small
    ddl = DDLAnomalyDetector(
        hidden_dim=16, mlp_dims=(16, 8), max_epochs=1, random_state=0, n_jobs=1
    )
    est = make_pipeline(SnippetNormalizer(), UniformSampler(10), clone(ddl))
    kept = [np.linspace(0, n - 1, min(10, n)).astype(int) for n in bags.lengths]
    made = [normalize(b[rows]) for b, rows in zip(bags, kept, strict=True)]
    expected = ddl.fit(made, y).decision_function(made)
    found = est.fit(bags, y).decision_function(bags)
    np.testing.assert_allclose(found, expected, atol=1e-5)


# Errors -------------------------------------------------------------------
@pytest.mark.parametrize(
    "transformer",
    [
        SelectKBest(k=1),
        LinearDiscriminantAnalysis(),
        SelectFromModel(LogisticRegression()),
        make_pipeline(StandardScaler(), SelectKBest(k=1), PCA(1)),
    ],
    ids=lambda t: type(t).__name__,
)
def test_supervised_transformers_are_refused(small, transformer):
    name = type(transformer).__name__
    with pytest.raises(TypeError, match=f"{name} needs labels, but snippets have none"):
        BagTransformer(transformer).fit(*small)


def test_other_errors_of_the_transformer_pass(small):
    with pytest.raises(ValueError, match="n_components=99"):
        BagTransformer(PCA(99)).fit(small[0])


@pytest.mark.parametrize(
    ("est", "match"),
    [
        (BagTransformer(3), "'transformer' parameter of BagTransformer"),
        (BagTransformer(None), "'transformer' parameter of BagTransformer"),
        (BagTransformer(MIL), "'transformer' parameter of BagTransformer"),
        (SegmentPooling(0), "'n_segments' parameter of SegmentPooling"),
        (SegmentPooling(2.0), "'n_segments' parameter of SegmentPooling"),
        (SegmentPooling(2, pool="sum"), "'pool' parameter of SegmentPooling"),
        (UniformSampler(-1), "'n_snippets' parameter of UniformSampler"),
        (UniformSampler(None), "'n_snippets' parameter of UniformSampler"),
        (SnippetNormalizer("l3"), "'norm' parameter of SnippetNormalizer"),
    ],
    ids=str,
)
def test_bad_parameters(small, est, match):
    with pytest.raises(ValueError, match=match):
        est.fit(small[0])
    if not isinstance(est, BagTransformer):
        with pytest.raises(ValueError, match=match):
            est.transform(small[0])


def test_a_class_is_no_transformer(small):
    with pytest.raises(TypeError, match="instance of scikit-learn estimator"):
        BagTransformer(StandardScaler).fit(small[0])


def test_transform_sees_what_fit_saw(est, small):
    est.fit(small[0])
    name = type(est).__name__
    with pytest.raises(
        ValueError, match=f"bag 0 has 5 features, but {name} is expecting 6 features"
    ):
        est.transform([np.ones((4, 5))])
    with pytest.raises(ValueError, match=rf"X is 2-D, .*{name} was fitted.*\[video\]"):
        est.transform(small[0][0])
    with pytest.raises(ValueError, match="bag 1 contains NaN"):
        est.transform([np.ones((2, 6)), np.full((1, 6), np.nan)])


def test_unfitted(small):
    with pytest.raises(NotFittedError):
        BagTransformer(PCA(2)).transform(small[0])


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda rows: rows[:-1], r"bag 0 \(id .*returned shape .*a row for each"),
        (lambda rows: rows.sum(axis=1), r"returned shape \(\d+,\) for"),
        (lambda rows: rows[:, :0], "transformed, has no features"),
        (lambda rows: rows + 1j, "transformed, has dtype complex64"),
        (lambda rows: np.log(rows * 0 - 1), "transformed, contains NaN"),
        (lambda rows: rows * 1e200, "transformed, contains infinity"),
        (lambda rows: rows.astype(float) * 1e60, "too large for dtype"),
    ],
)
def test_a_result_that_is_no_bag(small, function, match):
    est = BagTransformer(FunctionTransformer(function)).fit(small[0])
    with (
        np.errstate(all="ignore"),
        pytest.raises((TypeError, ValueError), match=match),
    ):
        est.transform(small[0])


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda rows: rows[:-1], r"bag 1 \(id 'b'\): .* returned shape \(1, 3\)"),
        (
            lambda rows: rows[:, :2],
            r"bag 1 \(id 'b'\), transformed, has shape \(2, 2\)",
        ),
        (lambda rows: rows / 0, r"bag 1 \(id 'b'\), transformed, contains infinity"),
    ],
)
def test_lazy_errors_name_the_bag(tmp_path, function, match):
    """Also after slicing, and only when the bag is read."""
    bags = [np.full((n, 3), n) for n in (5, 4, 2)]
    bags = put(Bags.from_list(bags, ["x", "a", "b"]), "files", tmp_path)
    only_short = FunctionTransformer(lambda r: function(r) if len(r) == 2 else r)
    lazy = BagTransformer(only_short).fit(bags).transform(bags)[1:]
    assert len(lazy[0]) == 4
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=match):
        lazy[1]


def test_a_damaged_file_is_named_through_the_transformer(tmp_path):
    for name, value in (("v0", 1.0), ("v1", np.nan)):
        np.save(tmp_path / f"{name}.npy", np.full((3, 2), value))
    bags = Bags.from_files(sorted(tmp_path.glob("*.npy")))
    with pytest.raises(ValueError, match=r"bag 1 \(id 'v1'\) contains NaN"):
        BagTransformer(StandardScaler()).fit(bags)
    lazy = SegmentPooling(2).transform(bags)
    with pytest.raises(ValueError, match=r"bag 0 \(id 'v1'\) contains NaN"):
        lazy[[1]][0]


def test_bag_transformers_are_not_nested(small):
    nested = BagTransformer(SnippetNormalizer()).fit(small[0])
    with pytest.raises(ValueError, match=r"returned shape \(\d+,\)"):
        nested.transform(small[0])


# scikit-learn's own checks ------------------------------------------------
# They compare what `transform` returns as arrays of numbers, which `Bags` are
# not: here it is stacked, a row for each bag.
class Stacked(TransformerMixin, BaseEstimator):
    def transform(self, X):
        bags = super().transform(X)
        return np.stack(list(bags)).reshape(len(bags), -1)


class StackedBagTransformer(Stacked, BagTransformer):
    pass


class StackedSegmentPooling(Stacked, SegmentPooling):
    pass


class StackedUniformSampler(Stacked, UniformSampler):
    pass


class StackedSnippetNormalizer(Stacked, SnippetNormalizer):
    pass


@parametrize_with_checks(
    [
        StackedBagTransformer(StandardScaler()),
        StackedBagTransformer(PCA(1)),
        StackedSegmentPooling(4),
        StackedUniformSampler(5),
        StackedSnippetNormalizer(),
    ]
)
def test_check(estimator, check):
    check(estimator)


def test_rows_after_longer_bags():
    est = SegmentPooling(2).fit([np.ones((5, 3))])
    with pytest.raises(ValueError, match=r"X is 2-D, shape \(4, 3\), .*pass \[video\]"):
        est.transform(np.ones((4, 3)))
