"""Searches, splitters and calibrators of scikit-learn around a detector."""

import pickle

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    KFold,
    RandomizedSearchCV,
    StratifiedGroupKFold,
    TunedThresholdClassifierCV,
    cross_val_score,
    cross_validate,
    learning_curve,
)
from sklearn.pipeline import make_pipeline

from sklearn_vad import (
    Bags,
    DDLAnomalyDetector,
    FrameLabels,
    MILRankingAnomalyDetector,
)
from sklearn_vad.metrics import (
    frame_average_precision_score,
    frame_average_precision_scorer,
    frame_roc_auc_score,
    frame_roc_auc_scorer,
    frame_scorers,
)

DDL = DDLAnomalyDetector(
    hidden_dim=16, mlp_dims=(16, 8), max_epochs=2, random_state=0, n_jobs=1
)
MIL = MILRankingAnomalyDetector(
    hidden_dims=(16, 8), max_epochs=2, random_state=0, n_jobs=1
)
RATES = [1e-2, 1e-4]
CONTAINERS = ["list", "object array", "3-D", "Bags", "store", "files"]


@pytest.fixture
def data(request, small, tmp_path):
    """Return (X, masks) with X in the container that the test asks for."""
    bags, y = small
    masks, kind = y.masks, request.param
    if kind == "3-D":  # one of the first 8 snippets is anomalous, or none is
        masks = [np.sort(m[:128])[::-1] for m in masks]
        masks = [m & label for m, label in zip(masks, y == 1, strict=True)]
        masks = [
            m | (np.arange(128) < 9 * a) for m, a in zip(masks, y == 1, strict=True)
        ]
        return np.stack([b[:8] for b in bags]), masks
    if kind == "store":
        bags.save(tmp_path / "store")
        return Bags.open(tmp_path / "store"), masks
    if kind == "files":
        paths = [tmp_path / f"{i}.npy" for i in bags.ids]
        for path, bag in zip(paths, bags, strict=True):
            np.save(path, bag)
        return Bags.from_files(paths), masks
    return {"list": list, "object array": np.asarray, "Bags": lambda b: b}[kind](
        bags
    ), masks


def by_hand(X, masks, metric=frame_roc_auc_score):
    """The value of each of two folds, without scikit-learn's machinery."""
    y = FrameLabels(masks)
    values = []
    for train, test in KFold(2).split(np.arange(len(y))):
        bags = Bags.from_list([X[i] for i in range(len(y))])
        est = clone(DDL).fit(bags[train], np.asarray(y)[train])
        scores = est.score_snippets(bags[test])
        values.append(metric([masks[i] for i in test], scores))
    return values


# The three spellings of the contract --------------------------------------
@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("data", CONTAINERS, indirect=True)
def test_frame_labels_and_routing_agree_with_a_plain_loop(data, n_jobs):
    X, masks = data
    expected = by_hand(X, masks)
    for est in (clone(DDL), make_pipeline("passthrough", clone(DDL))):
        options = {
            "scoring": frame_roc_auc_scorer,
            "cv": KFold(2),
            "n_jobs": n_jobs,
            "error_score": "raise",
        }
        labelled = cross_val_score(est, X, FrameLabels(masks), **options)
        np.testing.assert_allclose(labelled, expected, atol=1e-9)
        with config_context(enable_metadata_routing=True):
            y = np.asarray(FrameLabels(masks))
            routed = cross_val_score(
                est, X, y, params={"frame_labels": masks}, **options
            )
        np.testing.assert_allclose(routed, expected, atol=1e-9)


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("data", CONTAINERS, indirect=True)
def test_grid_search_with_several_metrics(data, n_jobs):
    X, masks = data
    for est, name in (
        (clone(DDL), "lr"),
        (make_pipeline("passthrough", clone(DDL)), "ddlanomalydetector__lr"),
    ):
        search = GridSearchCV(
            est,
            {name: RATES},
            scoring={"frame_auc": frame_roc_auc_scorer, "video_auc": "roc_auc"},
            refit="frame_auc",
            cv=KFold(2),
            n_jobs=n_jobs,
            error_score="raise",
        ).fit(X, FrameLabels(masks))
        means = search.cv_results_["mean_test_frame_auc"]
        assert search.best_score_ == means.max()
        assert search.best_params_ == {name: RATES[int(means.argmax())]}
        assert set(search.predict(X)) <= {0, 1}
        whole = frame_roc_auc_scorer(search, X, FrameLabels(masks))
        detector = search.best_estimator_
        detector = detector if hasattr(detector, "score_snippets") else detector[-1]
        assert whole == frame_roc_auc_score(masks, detector.score_snippets(X))


def test_routed_snippet_length_is_split_with_the_videos(small):
    bags, y = small
    lengths = [8.0 + i % 2 for i in range(len(bags))]
    masks = [
        np.repeat(m[::16], 9)[: round(n * length)]
        for m, n, length in zip(y.masks, bags.lengths, lengths, strict=True)
    ]
    expected = cross_val_score(
        clone(DDL),
        bags,
        FrameLabels(masks, lengths),
        scoring=frame_roc_auc_scorer,
        cv=2,
    )
    with config_context(enable_metadata_routing=True):
        routed = cross_val_score(
            clone(DDL),
            bags,
            np.asarray(FrameLabels(masks)),
            scoring=frame_roc_auc_scorer,
            params={"frame_labels": masks, "snippet_length": lengths},
            cv=2,
            error_score="raise",
        )
    assert np.array_equal(routed, expected)


def test_frame_scorers_run_inference_once(small, monkeypatch):
    bags, y = small
    calls = []
    original = DDLAnomalyDetector.score_snippets

    def counting(self, X):
        calls.append(len(X))
        return original(self, X)

    monkeypatch.setattr(DDLAnomalyDetector, "score_snippets", counting)
    found = cross_validate(
        clone(DDL), bags, y, scoring=frame_scorers, cv=KFold(2), error_score="raise"
    )
    assert calls == [12, 12]
    np.testing.assert_allclose(found["test_frame_roc_auc"], by_hand(bags, y.masks))
    np.testing.assert_allclose(
        found["test_frame_average_precision"],
        by_hand(bags, y.masks, frame_average_precision_score),
    )


def test_wrong_number_of_routed_labels_is_noticed(small):
    bags, y = small
    with (
        config_context(enable_metadata_routing=True),
        pytest.raises(ValueError, match="frame labels of 5 videos for 12 bags"),
    ):
        cross_val_score(
            clone(DDL),
            bags,
            np.asarray(y),
            scoring=frame_roc_auc_scorer,
            params={"frame_labels": y.masks[:5]},
            cv=2,
            error_score="raise",
        )


@pytest.mark.parametrize(
    ("X", "y", "error", "match"),
    [
        (None, [[0], [1]], TypeError, "X has type NoneType, expected bags"),
        (np.array(3), [[0], [1]], TypeError, "X has type ndarray, expected bags"),
        ([[[0.0]]], 3, ValueError, "a frame-level scorer needs frame labels"),
        ([[[0.0]]], np.array(3), ValueError, "a frame-level scorer needs frame labels"),
        ([[[0.0]]], "ab", ValueError, "a frame-level scorer needs frame labels"),
        ([[[0.0]]], {"a": [0]}, ValueError, "a frame-level scorer needs frame labels"),
        ([[[0.0]]], [[[0], [1, 0]]], ValueError, "scorer needs frame labels"),
    ],
)
def test_frame_scorers_refuse_what_is_no_data(X, y, error, match):
    with pytest.raises(error, match=match):
        frame_roc_auc_scorer(clone(MIL), X, y)


def test_video_labels_alone_are_not_enough_for_a_frame_scorer(small):
    bags, y = small
    with pytest.raises(ValueError, match="needs frame labels"):
        cross_val_score(
            clone(DDL),
            bags,
            np.asarray(y),
            scoring=frame_roc_auc_scorer,
            error_score="raise",
        )


# Other machinery ----------------------------------------------------------
def test_randomized_search(small):
    search = RandomizedSearchCV(
        clone(DDL),
        {"lr": RATES},
        n_iter=2,
        scoring=frame_average_precision_scorer,
        cv=2,
        random_state=0,
        error_score="raise",
    ).fit(*small)
    assert search.best_score_ == search.cv_results_["mean_test_score"].max()


def test_halving_search_over_epochs(small):
    search = HalvingGridSearchCV(
        clone(DDL),
        {"lr": RATES},
        resource="max_epochs",
        min_resources=1,
        max_resources=2,
        factor=2,
        scoring=frame_roc_auc_scorer,
        cv=2,
        error_score="raise",
    ).fit(*small)
    assert search.n_resources_ == [1, 2]
    assert search.best_estimator_.n_iter_ == 2


@pytest.mark.parametrize("incremental", [False, True])
def test_learning_curve(small, incremental):
    bags, y = small
    sizes, train, test = learning_curve(
        clone(MIL),
        bags,
        y,
        cv=2,
        train_sizes=[6, 12],
        scoring=frame_roc_auc_scorer,
        exploit_incremental_learning=incremental,
        error_score="raise",
    )
    assert sizes.tolist() == [6, 12]
    assert ((test >= 0) & (test <= 1)).all()
    assert train.shape == (2, 2)


def test_groups_stay_together(small):
    bags, y = small
    groups = np.arange(len(bags)) // 2
    scores = cross_val_score(
        clone(DDL),
        bags,
        y,
        groups=groups,
        cv=StratifiedGroupKFold(2),
        scoring=frame_roc_auc_scorer,
        error_score="raise",
    )
    train, test = next(StratifiedGroupKFold(2).split(bags, y, groups))
    est = clone(DDL).fit(bags[train], y[train])
    assert scores[0] == frame_roc_auc_score(y[test], est.score_snippets(bags[test]))


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
@pytest.mark.parametrize("ensemble", [True, False])
def test_calibration(small, method, ensemble):
    bags, y = small
    calibrated = CalibratedClassifierCV(
        clone(MIL), method=method, ensemble=ensemble, cv=2
    ).fit(bags, y)
    proba = calibrated.predict_proba(bags)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    # Calibration brings the mean nearer to the share of anomalous videos, 0.5: that
    # of 24 videos that the detector has seen, by a map learned from their halves.
    assert abs(proba[:, 1].mean() - np.mean(y)) < 0.25


def test_tuned_threshold(small):
    bags, y = small
    tuned = TunedThresholdClassifierCV(
        clone(MIL), scoring="balanced_accuracy", cv=2
    ).fit(bags, y)
    scores = tuned.estimator_.predict_proba(bags)[:, 1]
    expected = (scores >= tuned.best_threshold_).astype(int)
    assert np.array_equal(tuned.predict(bags), expected)
    assert frame_roc_auc_scorer(tuned, bags, y) == frame_roc_auc_score(
        y, tuned.estimator_.score_snippets(bags)
    )


@pytest.mark.parametrize("scoring", ["roc_auc", "average_precision", "accuracy"])
def test_video_level_scorers_work_unmodified(small, scoring):
    bags, y = small
    a = cross_val_score(clone(MIL), bags, y, scoring=scoring, cv=2)
    b = cross_val_score(clone(MIL), list(bags), np.asarray(y), scoring=scoring, cv=2)
    assert np.array_equal(a, b)


# What travels to the workers ----------------------------------------------
def test_search_ships_an_opened_store_as_its_path(tmp_path, monkeypatch):
    from joblib.externals.loky.backend import queues

    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(400, 64)).astype(np.float32) for _ in range(40)]
    Bags.from_list(arrays).save(tmp_path / "store")
    bags = Bags.open(tmp_path / "store")
    assert sum(a.nbytes for a in arrays) > 4_000_000
    assert len(pickle.dumps(bags)) < 2_000
    assert len(pickle.dumps(bags[np.arange(0, 40, 2)])) < 2_000

    sizes = []
    pickle_for_worker = queues.dumps

    def measured(obj, *args, **kwargs):
        out = pickle_for_worker(obj, *args, **kwargs)
        sizes.append(memoryview(out).nbytes)
        return out

    monkeypatch.setattr(queues, "dumps", measured)
    y = np.arange(40) % 2
    GridSearchCV(clone(MIL), {"lr": RATES}, cv=2, n_jobs=2).fit(bags, y)
    assert len(sizes) >= 4  # two settings on two folds
    assert sum(sizes) < 1_000_000
