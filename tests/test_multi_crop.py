"""A detector on bags of crops: the mean over crops of what it gives for each."""

import pickle
import tracemalloc

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_vad import (
    Bags,
    DAMAnomalyDetector,
    DDLAnomalyDetector,
    FrameLabels,
    MILRankingAnomalyDetector,
    MultiCropDetector,
    RTFMAnomalyDetector,
    STAAnomalyDetector,
    _storage,
)
from sklearn_vad import bags as bags_module
from sklearn_vad.datasets import make_bags
from sklearn_vad.metrics import frame_roc_auc_score, frame_roc_auc_scorer
from sklearn_vad.preprocessing import BagTransformer, SegmentPooling

DAM = DAMAnomalyDetector(
    n_hidden=16, mlp_dims=(16,), max_epochs=2, random_state=0, n_jobs=1
)
DDL = DDLAnomalyDetector(
    hidden_dim=16, mlp_dims=(16, 8), max_epochs=2, random_state=0, n_jobs=1
)
MIL = MILRankingAnomalyDetector(
    hidden_dims=(16, 8), max_epochs=2, random_state=0, n_jobs=1
)
RTFM = RTFMAnomalyDetector(hidden_dims=(16, 8), max_epochs=2, random_state=0, n_jobs=1)
STA = STAAnomalyDetector(hidden_dim=8, max_epochs=2, random_state=0, n_jobs=1)
N_CROPS = 3


@pytest.fixture(
    params=[DAM, DDL, MIL, RTFM, STA],
    ids=["dam", "ddl", "mil_ranking", "rtfm", "sta"],
)
def detector(request):
    return clone(request.param)


def make_crops(bags, n_crops=N_CROPS):
    """Return bags with crops: noisy views of every snippet."""
    rng = np.random.default_rng(1)
    views = [rng.normal(0.5, 0.2, size=(n_crops, *bag.shape[1:])) for bag in bags]
    arrays = [
        (bag[:, None] + view).astype(np.float32)
        for bag, view in zip(bags, views, strict=True)
    ]
    return Bags.from_list(arrays, bags.ids)


@pytest.fixture(scope="module")
def data(small):
    return make_crops(small[0]), small[1]


def crop_of(bags, crop):
    return [bag[:, crop] for bag in bags]


def equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


# Values -------------------------------------------------------------------
def test_it_trains_on_every_crop_as_a_video(detector, data):
    bags, y = data
    videos = [bag[:, crop] for bag in bags for crop in range(N_CROPS)]
    expected = clone(detector).fit(videos, np.repeat(np.asarray(y), N_CROPS))
    est = MultiCropDetector(detector).fit(bags, y)
    assert equal(est.estimator_.score_snippets(videos), expected.score_snippets(videos))
    assert est.n_iter_ == len(est.history_) == est.best_epoch_ == 2
    losses = [epoch["train_loss"] for epoch in expected.history_]
    assert [epoch["train_loss"] for epoch in est.history_] == losses
    assert est.net_ is est.estimator_.net_


def test_scores_are_means_over_the_crops(detector, data):
    bags, y = data
    est = MultiCropDetector(detector).fit(bags, y)
    each = [est.estimator_.score_snippets(crop_of(bags, c)) for c in range(N_CROPS)]
    means = [np.mean(crops, axis=0) for crops in zip(*each, strict=True)]
    scores = est.score_snippets(bags)
    assert all(s.dtype == np.float32 for s in scores)
    for found, expected in zip(scores, means, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    k = [
        len(s) // 16 + 1 if isinstance(detector, DDLAnomalyDetector) else 1
        for s in means
    ]
    video = [np.sort(s)[::-1][:n].mean() for s, n in zip(means, k, strict=True)]
    np.testing.assert_allclose(est.predict_proba(bags)[:, 1], video, atol=1e-6)
    np.testing.assert_allclose(
        est.decision_function(bags), np.array(video) - 0.5, atol=1e-6
    )
    assert np.array_equal(est.predict(bags), est.decision_function(bags) > 0)
    frames = est.score_frames(bags, snippet_length=4)
    assert equal(frames, [np.repeat(s, 4) for s in scores])


def test_equal_crops_score_as_one(detector, data):
    bags, y = data
    est = MultiCropDetector(detector).fit(bags, y)
    for n_crops in (1, 2, 5):  # also another number than in fit
        same = [np.repeat(bag[:, :1], n_crops, axis=1) for bag in bags]
        expected = est.estimator_.score_snippets(crop_of(bags, 0))
        for found, scores in zip(est.score_snippets(same), expected, strict=True):
            np.testing.assert_allclose(found, scores, atol=1e-5)


def test_crops_of_snippets_with_inner_steps():
    bags, y = make_bags(12, n_features=4, n_steps=3, max_snippets=12, random_state=0)
    bags = make_crops(bags, 2)
    assert bags.bag_ndim == 4
    videos = [bag[:, crop] for bag in bags for crop in range(2)]
    expected = (
        clone(DAM).fit(videos, np.repeat(np.asarray(y), 2)).score_snippets(videos)
    )
    est = MultiCropDetector(clone(DAM)).fit(bags, y)
    means = [(a + b) / 2 for a, b in zip(expected[::2], expected[1::2], strict=True)]
    for found, mean in zip(est.score_snippets(bags), means, strict=True):
        np.testing.assert_allclose(found, mean, atol=1e-6)
    stream = est.stream()
    pushed = [stream.push(snippet) for snippet in bags[0]]
    np.testing.assert_allclose(pushed, means[0], atol=1e-6)


def test_same_seed_same_bits(detector, data):
    bags, y = data
    first = MultiCropDetector(detector).fit(bags, y)
    second = clone(first).fit(list(bags), list(y))
    assert equal(first.score_snippets(bags), second.score_snippets(list(bags)))
    other = clone(first).set_params(estimator__random_state=1).fit(bags, y)
    assert not equal(first.score_snippets(bags), other.score_snippets(bags))


# Validation ---------------------------------------------------------------
def test_validation_in_crops(data):
    bags, y = data
    est = MultiCropDetector(clone(DDL).set_params(max_epochs=6, lr=0.01))
    est.fit(bags[:16], y[:16], validation=(bags[16:], y[16:]))
    each = [
        score
        for scores in zip(
            *(est.estimator_.score_snippets(crop_of(bags[16:], c)) for c in range(3)),
            strict=True,
        )
        for score in scores
    ]
    repeated = FrameLabels([m for m in y[16:].masks for _ in range(3)])
    kept = frame_roc_auc_score(repeated, each)
    valid = [epoch["valid_score"] for epoch in est.history_]
    assert kept == pytest.approx(max(valid), abs=1e-9)
    assert est.best_epoch_ == 1 + valid.index(max(valid))
    videos = clone(est).fit(bags, y, validation=(bags, list(y)))
    assert 0 <= videos.history_[0]["valid_score"] <= 1


def test_crops_of_a_held_out_video_are_held_out_together(data, monkeypatch):
    bags, y = data
    seen = {}
    fit = MILRankingAnomalyDetector.fit

    def spy(self, X, y, validation=None, checkpoint=None):
        seen["train"], seen["valid"] = X, validation
        return fit(self, X, y, validation)

    monkeypatch.setattr(MILRankingAnomalyDetector, "fit", spy)
    est = MultiCropDetector(clone(MIL).set_params(validation_fraction=0.25))
    est.fit(bags, y)
    held_out, labels = seen["valid"]
    assert (len(seen["train"]), len(held_out)) == (18 * N_CROPS, 6 * N_CROPS)
    where = {bag[:, c].tobytes(): i for i, bag in enumerate(bags) for c in range(3)}
    train, valid = (
        {where[bag.tobytes()] for bag in part} for part in (seen["train"], held_out)
    )
    assert not train & valid
    assert len(valid) == 6
    assert labels.tolist() == [y[where[bag.tobytes()]] for bag in held_out]
    assert est.estimator_.get_params() == est.estimator.get_params()
    assert "valid_score" in est.history_[0]


@pytest.mark.parametrize(
    ("params", "validation", "error", "match"),
    [
        ({}, 3, TypeError, "validation must be a pair"),
        ({}, ([np.ones((2, 6))], [1]), ValueError, "bags have 2 axes"),
        ({}, ([np.ones((2, 3, 5))] * 2, [0, 1]), ValueError, "5 features"),
        ({}, ([np.ones((2, 3, 6))], [0, 1]), ValueError, "1 bags and 2 labels"),
        ({}, ([np.ones((2, 3, 6))] * 2, [1, 1]), ValueError, "both"),
        (
            {},
            ([np.ones((2, 3, 6))] * 2, FrameLabels([[0] * 32, [1] * 99])),
            ValueError,
            "video 1 has 2 snippets",
        ),
        ({"validation_fraction": 0.5}, "data", ValueError, "exclude each other"),
        ({"validation_fraction": 0.01}, None, ValueError, "too few of a class"),
        ({"validation_fraction": 1.5}, None, ValueError, "'validation_fraction'"),
        ({"patience": 2}, None, ValueError, "needs validation videos"),
    ],
)
def test_bad_validation(data, params, validation, error, match):
    est = MultiCropDetector(clone(MIL).set_params(**params))
    with pytest.raises(error, match=match):
        est.fit(*data, validation=data if validation == "data" else validation)
    assert not hasattr(est, "estimator_")


# Going on -----------------------------------------------------------------
def test_partial_fit(detector, data):
    bags, y = data
    whole = clone(detector).set_params(max_epochs=4, lr_decay=None)
    expected = MultiCropDetector(whole).fit(bags, y).score_snippets(bags)
    est = MultiCropDetector(detector)
    est.partial_fit(bags, y)
    copy = pickle.loads(pickle.dumps(est))
    assert equal(est.partial_fit(bags, y).score_snippets(bags), expected)
    assert equal(copy.partial_fit(bags, y).score_snippets(bags), expected)
    assert est.n_iter_ == 4
    est.set_params(estimator__max_epochs=1).partial_fit(bags[:2], [1, 1])
    assert est.n_iter_ == 5


def test_partial_fit_needs_both_classes_once(data):
    bags, y = data
    anomalous = np.flatnonzero(y == 1)
    est = MultiCropDetector(clone(MIL))
    with pytest.raises(ValueError, match="one class only"):
        est.partial_fit(bags[anomalous], y[anomalous])
    est.partial_fit(bags[anomalous], y[anomalous], classes=[0, 1])
    assert est.classes_.tolist() == [0, 1]
    with pytest.raises(ValueError, match="besides"):
        est.partial_fit(bags[:2], [0, 7])


def test_warm_start(data):
    bags, y = data
    warm = clone(MIL).set_params(warm_start=True)
    est = MultiCropDetector(warm).fit(bags, y).fit(bags, y)
    whole = MultiCropDetector(clone(MIL).set_params(max_epochs=4)).fit(bags, y)
    assert est.n_iter_ == 4
    assert equal(est.score_snippets(bags), whole.score_snippets(bags))
    cold = MultiCropDetector(clone(MIL)).fit(bags, y).fit(bags, y)
    assert cold.n_iter_ == 2


def test_fit_anew_forgets_the_axes_of_before(data):
    est = MultiCropDetector(clone(DAM)).fit(*data)
    est.fit([np.ones((4, 2, 3, 5))] * 2, [0, 1])
    assert est.n_features_in_ == 5


def test_a_fit_that_fails_leaves_the_detector_as_it_was(data):
    bags, y = data
    est = MultiCropDetector(clone(MIL)).fit(bags, y)
    expected = est.score_snippets(bags)
    with pytest.raises(ValueError, match="one class only"):
        est.fit([np.ones((3, 2, 9))] * 4, [1, 1, 1, 1])
    assert est.n_features_in_ == 6
    assert equal(est.score_snippets(bags), expected)


# Streams ------------------------------------------------------------------
@pytest.mark.parametrize("detector", [DAM, MIL], ids=["dam", "mil_ranking"])
def test_stream_equals_the_whole_bag(detector, data):
    bags, y = data
    est = MultiCropDetector(clone(detector)).fit(bags, y)
    expected, stream = est.score_snippets(bags)[1], est.stream()
    assert stream.state is None
    pushed = [stream.push(snippet) for snippet in bags[1]]
    assert all(isinstance(score, float) for score in pushed)
    np.testing.assert_allclose(pushed, expected, atol=1e-6)
    assert np.array_equal(stream.state, bags[1][-1])
    half = est.stream()
    for snippet in bags[1][:3]:
        half.push(torch.tensor(snippet))
    later = est.stream(state=half.state)
    np.testing.assert_allclose(later.push(bags[1][3]), expected[3], atol=1e-6)


@pytest.mark.parametrize("detector", [DDL, RTFM, STA], ids=["ddl", "rtfm", "sta"])
def test_detectors_that_look_ahead_can_not_stream(detector, data):
    est = MultiCropDetector(clone(detector)).fit(*data)
    name = type(detector).__name__
    with pytest.raises(TypeError, match=f"{name} can't score a stream"):
        est.stream()


def test_bad_snippets_leave_the_stream_as_it_was(data):
    bags, y = data
    est = MultiCropDetector(clone(DAM)).fit(bags, y)
    stream = est.stream()
    for bad in (bags[0][0, 0], bags[0], np.ones((0, 6)), np.ones((3, 5)), 1.0):
        with pytest.raises(ValueError, match=r"expected \(n_crops, 6\)"):
            stream.push(bad)
    with pytest.raises(ValueError, match="NaN"):
        stream.push([[1.0] * 6, [np.nan] * 6])
    assert stream.state is None
    stream.push(bags[0][0])
    with pytest.raises(ValueError, match=r"shape \(2, 6\), expected \(3, 6\)"):
        stream.push(bags[0][1, :2])
    np.testing.assert_allclose(
        stream.push(bags[0][1]), est.score_snippets(bags)[0][1], atol=1e-6
    )
    with pytest.raises(ValueError, match=r"state has shape \(3,\)"):
        est.stream(state=np.ones(3))


# Around it ----------------------------------------------------------------
def test_it_is_a_classifier(data):
    bags, y = data
    est = MultiCropDetector(clone(MIL))
    assert is_classifier(est)
    assert not est.__sklearn_tags__().classifier_tags.multi_class
    assert not hasattr(est, "classes_")
    named = est.fit(bags, np.where(y == 1, "zebra", "ant"))
    assert named.classes_.tolist() == ["ant", "zebra"]
    assert set(named.predict(bags)) <= {"ant", "zebra"}
    assert (named.threshold_, named.n_features_in_) == (0.5, 6)
    assert clone(named).get_params()["estimator__lr"] == MIL.lr
    video_auc = cross_val_score(est, bags, y, cv=2, scoring="roc_auc")
    assert ((video_auc >= 0) & (video_auc <= 1)).all()


@pytest.mark.parametrize("dump", [pickle, joblib], ids=["pickle", "joblib"])
def test_pickle_keeps_scores(detector, data, dump, tmp_path):
    bags, y = data
    est = MultiCropDetector(detector).fit(bags, y)
    with (tmp_path / "est").open("wb") as file:
        dump.dump(est, file)
    with (tmp_path / "est").open("rb") as file:
        copy = dump.load(file)
    assert equal(copy.score_snippets(bags), est.score_snippets(bags))


@pytest.mark.parametrize("kind", ["list", "Bags", "store", "files"])
def test_grid_search_over_a_pipeline(data, tmp_path, kind):
    bags, y = data
    arrays = list(bags)
    if kind == "store":
        bags.save(tmp_path / "store")
        bags = Bags.open(tmp_path / "store")
    elif kind == "files":
        paths = [tmp_path / f"{i}.npy" for i in bags.ids]
        for path, bag in zip(paths, bags, strict=True):
            np.save(path, bag)
        bags = Bags.from_files(paths)
    elif kind == "list":
        bags = arrays
    steps = [
        ("scale", BagTransformer(StandardScaler())),
        ("pool", SegmentPooling(8)),
        ("det", MultiCropDetector(clone(MIL))),
    ]
    lengths = [len(mask) / 8 for mask in y.masks]
    search = GridSearchCV(
        Pipeline(steps),
        {"det__estimator__lr": [1e-2, 1e-4]},
        scoring=frame_roc_auc_scorer,
        cv=KFold(2),
        n_jobs=2 if kind == "store" else 1,
        error_score="raise",
    ).fit(bags, FrameLabels(y.masks, lengths))

    train, test = next(KFold(2).split(arrays))
    rows = np.concatenate([arrays[i].reshape(-1, 6) for i in train])
    scaler = StandardScaler().fit(rows)
    scaled = [scaler.transform(a.reshape(-1, 6)).reshape(a.shape) for a in arrays]
    made = list(SegmentPooling(8).transform(scaled))
    est = MultiCropDetector(clone(MIL)).set_params(estimator__lr=1e-2)
    est.fit([made[i] for i in train], [y[i] for i in train])
    expected = frame_roc_auc_score(
        [y.masks[i] for i in test],
        est.score_snippets([made[i] for i in test]),
        snippet_length=[lengths[i] for i in test],
    )
    assert search.cv_results_["split0_test_score"][0] == pytest.approx(expected)
    assert search.predict(bags).shape == (24,)


def test_crops_are_views(tmp_path, monkeypatch):
    """Training copies a block at a time, scoring nothing, and scoring reads once."""
    monkeypatch.setattr(bags_module, "_BLOCK_ROWS", 400)
    rng = np.random.default_rng(0)
    bags = [rng.normal(size=(400, 10, 64)).astype(np.float32) for _ in range(24)]
    bags = Bags.from_list(bags)
    size = int(bags.lengths.sum()) * 640 * 4
    est = MultiCropDetector(clone(MIL).set_params(max_epochs=1, batch_size=10))
    tracemalloc.start()
    est.fit(bags, np.arange(24) % 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 24_000_000
    assert peak < 0.1 * size

    reads = []
    original = _storage.InStore.read
    monkeypatch.setattr(
        _storage.InStore,
        "read",
        lambda self, *args: reads.append(args[0]) or original(self, *args),
    )
    bags.save(tmp_path / "store")
    found = est.score_snippets(Bags.open(tmp_path / "store"))
    assert sorted(reads) == list(range(24))
    assert equal(found, est.score_snippets(bags))


# Errors -------------------------------------------------------------------
def test_unfitted(data):
    est = MultiCropDetector(clone(MIL))
    for method in (est.score_snippets, est.predict, est.predict_proba):
        with pytest.raises(NotFittedError):
            method(data[0])
    with pytest.raises(NotFittedError):
        est.stream()


@pytest.mark.parametrize(
    "estimator", [3, None, MILRankingAnomalyDetector, StandardScaler()]
)
def test_only_detectors_are_taken(data, estimator):
    with pytest.raises(
        ValueError, match=r"'estimator' parameter .*BaseAnomalyDetector"
    ):
        MultiCropDetector(estimator).fit(*data)


def test_bags_without_crops_are_refused(detector, small, data):
    name = type(detector).__name__
    est = MultiCropDetector(detector)
    bags, y = small
    match = rf"bags have 2 axes, MultiCropDetector takes .*use {name} itself.*\[video\]"
    for X in (bags, np.ones((24, 6)), np.ones((24, 3, 6))):
        for call in (est.fit, est.partial_fit):
            with pytest.raises(ValueError, match=match):
                call(X, y)
    est.fit(*data)
    for X in (bags, data[0][0], np.ones((24, 6))):
        with pytest.raises(ValueError, match=match):
            est.score_snippets(X)


def test_what_fit_saw_predict_must_see(data):
    est = MultiCropDetector(clone(MIL)).fit(*data)
    with pytest.raises(ValueError, match=r"5 features.*expecting 6"):
        est.score_snippets([np.ones((4, 3, 5))])
    with pytest.raises(ValueError, match=r"4 axes, MultiCropDetector of .* takes 3"):
        est.score_snippets([np.ones((4, 3, 2, 6))])
    with pytest.raises(ValueError, match="empty"):
        est.score_snippets([np.ones((0, 3, 6))])
    dam = MultiCropDetector(clone(DAM)).fit(*data)
    with pytest.raises(ValueError, match=r"4 axes, but .* fitted on bags of 3"):
        dam.score_snippets([np.ones((4, 3, 2, 6))])
    with pytest.raises(ValueError, match=r"5 axes, .* takes 3 or 4, crops on axis 1"):
        dam.fit([np.ones((4, 3, 2, 1, 6))] * 2, [0, 1])


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (None, "y to be passed"),
        ([1] * 24, "one class only"),
        ([0, 1, 2] * 8, "3 classes"),
        ([0, 1], "24 bags and 2 labels"),
        ([0] * 5 + [np.nan] + [1] * 18, "the label of bag 5 is nan"),
    ],
)
def test_bad_labels(data, y, match):
    with pytest.raises(ValueError, match=match):
        MultiCropDetector(clone(MIL)).fit(data[0], y)


def test_a_damaged_bag_is_named_by_its_video(tmp_path):
    for name in ("a", "b", "c", "d"):
        value = np.nan if name == "c" else 1.0
        np.save(tmp_path / f"{name}.npy", np.full((3, 2, 4), value))
    bags = Bags.from_files(sorted(tmp_path.glob("*.npy")))
    with pytest.raises(ValueError, match=r"bag 2 \(id 'c'\) contains NaN"):
        MultiCropDetector(clone(MIL)).fit(bags, [0, 1, 0, 1])


def test_detectors_name_it_where_they_are_given_crops(data):
    with pytest.raises(ValueError, match="use MultiCropDetector"):
        clone(MIL).fit(*data)
