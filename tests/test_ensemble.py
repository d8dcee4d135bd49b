"""An ensemble: scores of its members on one scale, averaged over them."""

import pickle

import naive
import numpy as np
import pytest
from joblib import parallel_config
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_vad import (
    DAMAnomalyDetector,
    DDLAnomalyDetector,
    EnsembleAnomalyDetector,
    MILRankingAnomalyDetector,
    MultiCropDetector,
    STAAnomalyDetector,
)
from sklearn_vad.detectors import _ensemble
from sklearn_vad.metrics import frame_roc_auc_scorer
from sklearn_vad.postprocessing import tune_threshold
from sklearn_vad.preprocessing import BagTransformer

DAM = DAMAnomalyDetector(n_hidden=16, mlp_dims=(16,), max_epochs=2)
DDL = DDLAnomalyDetector(hidden_dim=16, mlp_dims=(16, 8), max_epochs=2)
MIL = MILRankingAnomalyDetector(hidden_dims=(16, 8), max_epochs=2)
STA = STAAnomalyDetector(hidden_dim=8, max_epochs=2)


def make(*estimators, **params):
    pairs = [(type(est).__name__[:3].lower(), clone(est)) for est in estimators]
    return EnsembleAnomalyDetector(pairs, **{"random_state": 0, **params})


def equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


# Scores of the ensemble ---------------------------------------------------
@pytest.mark.parametrize("video_weight", [0.0, 0.5])
def test_scores_are_weighted_means_of_levels(small, video_weight):
    bags, y = small
    est = make(DAM, MIL, n_seeds=2, weights=[1, 3], video_weight=video_weight)
    est.fit(bags[:16], y[:16])
    assert [type(member) for member in est.estimators_] == (
        [DAMAnomalyDetector] * 2 + [MILRankingAnomalyDetector] * 2
    )
    assert (est.quantiles_.shape, est.quantiles_.dtype) == ((4, 1001), np.float32)
    each = [member.score_snippets(bags[16:]) for member in est.estimators_]
    videos = []
    for i, found in enumerate(est.score_snippets(bags[16:])):
        mean = np.zeros(len(found))
        for scores, member, weight in zip(
            each, est.estimators_, [0.125, 0.125, 0.375, 0.375], strict=True
        ):
            train = np.concatenate(member.score_snippets(bags[:16]))
            quantiles = np.quantile(np.float64(train), np.arange(1001) / 1000)
            quantiles = np.float32(quantiles)
            levels = [naive.level(float(score), quantiles) for score in scores[i]]
            mean += weight * np.array(levels)
        expected = (mean + video_weight * mean.max()) / (1 + video_weight)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        videos.append(expected.max())
    np.testing.assert_allclose(est.predict_proba(bags[16:])[:, 1], videos, atol=1e-6)
    assert np.array_equal(est.predict(bags[16:]), np.array(videos) > est.threshold_)
    frames = est.score_frames(bags[16:], snippet_length=4)
    assert equal(frames, [np.repeat(s, 4) for s in est.score_snippets(bags[16:])])


def test_video_weight_needs_no_new_fit_and_keeps_video_scores(small):
    bags, y = small
    est = make(MIL, n_seeds=2).fit(bags, y)
    before, decision = est.score_snippets(bags), est.decision_function(bags)
    est.set_params(video_weight=2.0)
    for found, s in zip(est.score_snippets(bags), before, strict=True):
        np.testing.assert_allclose(found, (s + 2 * s.max()) / 3, atol=1e-15)
    np.testing.assert_allclose(est.decision_function(bags), decision, atol=1e-15)


def test_squashing_a_member_hardly_matters(small, monkeypatch):
    bags, y = small
    expected = make(MIL, DAM).fit(bags, y).score_snippets(bags)
    plain = DAMAnomalyDetector.score_snippets
    monkeypatch.setattr(
        DAMAnomalyDetector,
        "score_snippets",
        lambda self, X: [0.05 * s**2 for s in plain(self, X)],
    )
    squashed = make(MIL, DAM).fit(bags, y).score_snippets(bags)
    for found, scores in zip(squashed, expected, strict=True):
        np.testing.assert_allclose(found, scores, atol=5e-3)


def test_threshold_balances_errors_on_the_training_videos(small):
    bags, y = small
    est = make(MIL, DDL).fit(bags, y)
    decision = est.decision_function(bags)
    sensitivity = np.mean(decision[y == 1] > 0)
    specificity = np.mean(decision[y == 0] <= 0)
    assert abs(sensitivity - specificity) <= 1 / min(sum(y == 0), sum(y == 1))
    assert sensitivity > 0


# Seeds --------------------------------------------------------------------
def test_one_seed_each(small):
    bags, y = small
    fixed = clone(MIL).set_params(random_state=7)
    est = EnsembleAnomalyDetector([fixed, MIL, MIL], random_state=0).fit(bags, y)
    seeds = [member.random_state for member in est.estimators_]
    assert seeds[0] == 7
    assert len(set(seeds)) == 3
    alone = clone(fixed).set_params(n_jobs=1).fit(bags, y)
    assert equal(est.estimators_[0].score_snippets(bags), alone.score_snippets(bags))


def test_more_seeds_replace_those_of_the_members(small):
    fixed = clone(MIL).set_params(random_state=7, max_epochs=1)
    first = EnsembleAnomalyDetector([fixed], n_seeds=2, random_state=0).fit(*small)
    more = EnsembleAnomalyDetector([fixed, fixed], n_seeds=3, random_state=0)
    seeds = [[m.random_state for m in e.estimators_] for e in (first, more.fit(*small))]
    assert len(set(seeds[1])) == 6
    assert seeds[1][:2] == seeds[0]
    assert 7 not in seeds[1]
    other = clone(first).set_params(random_state=1).fit(*small)
    assert not equal(other.score_snippets(small[0]), first.score_snippets(small[0]))


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_same_bits_whatever_n_jobs(small, backend):
    bags, y = small
    serial = make(DDL, STA, n_seeds=2).fit(bags, y)
    with parallel_config(backend):
        parallel = make(DDL, STA, n_seeds=2, n_jobs=2).fit(list(bags), list(y))
        found = parallel.score_snippets(bags)
    assert equal(found, serial.score_snippets(bags))
    assert np.array_equal(parallel.quantiles_, serial.quantiles_)
    assert parallel.threshold_ == serial.threshold_


def test_own_number_of_threads_is_kept(small):
    est = make(MIL, DAM).set_params(mil__n_jobs=2).fit(*small)
    assert [member.n_jobs for member in est.estimators_] == [2, 1]


# Parameters ---------------------------------------------------------------
def test_nested_parameters():
    est = make(DDL, MIL)
    assert est.get_params()["ddl__lr"] == DDL.lr
    assert est.get_params()["mil"] is est.estimators[1][1]
    est.set_params(ddl__lr=0.5, mil=clone(DAM), n_seeds=3)
    assert est.estimators[0][1].lr == 0.5
    assert isinstance(est.estimators[1][1], DAMAnomalyDetector)
    assert clone(est).get_params()["mil__n_hidden"] == 16
    assert set(est.get_params(deep=False)) == {
        *("estimators", "n_seeds", "weights", "video_weight"),
        *("n_jobs", "random_state", "verbose"),
    }
    with pytest.raises(ValueError, match="Invalid parameter 'dam'"):
        est.set_params(dam__lr=1)


def test_names_of_a_plain_list():
    est = EnsembleAnomalyDetector([clone(DDL), clone(MIL), clone(MIL)])
    assert clone(est).estimators[0].hidden_dim == 16
    assert est.get_params()["ddlanomalydetector__lr"] == DDL.lr
    est.set_params(**{"milrankinganomalydetector-2__lr": 0.5})
    assert [pair[1].lr for pair in est.estimators] == [DDL.lr, MIL.lr, 0.5]
    est.set_params(estimators=[clone(DAM)], damanomalydetector__lr=0.25)
    assert est.estimators[0][1].lr == 0.25
    est.set_params(estimators=[clone(DAM)], n_seeds=2)
    assert est.get_params()["damanomalydetector__lr"] == DAM.lr


# Around it ----------------------------------------------------------------
def test_validation_goes_to_the_members(small):
    bags, y = small
    est = make(MIL, DAM).set_params(mil__patience=1, mil__max_epochs=5)
    est.fit(bags[:16], y[:16], validation=(bags[16:], y[16:]))
    assert all("valid_score" in m.history_[0] for m in est.estimators_)
    with pytest.raises(ValueError, match="needs validation videos"):
        est.fit(bags, y)


def test_scorers_and_searches(small):
    bags, y = small
    est = make(DAM, MIL)
    found = cross_val_score(est, bags, y, cv=2, scoring=frame_roc_auc_scorer)
    assert ((found > 0) & (found <= 1)).all()
    assert np.isfinite(cross_val_score(est, bags, y, cv=2, scoring="roc_auc")).all()
    grid = {"mil__lr": [1e-2, 1e-4], "n_seeds": [2]}
    search = GridSearchCV(est, grid, cv=2, scoring=frame_roc_auc_scorer, n_jobs=2)
    search.fit(bags, y)
    assert not np.isnan(search.cv_results_["mean_test_score"]).any()
    detector = search.best_estimator_
    assert detector.estimators_[2].lr == search.best_params_["mil__lr"]
    threshold = tune_threshold(search, bags, y, far=0.05)
    assert detector.threshold_ == threshold
    videos = detector.predict_proba(bags)[:, 1]
    assert np.array_equal(search.predict(bags), videos > threshold)


def test_in_a_pipeline(small):
    bags, y = small
    pipe = make_pipeline(BagTransformer(StandardScaler()), make(MIL, DAM)).fit(bags, y)
    expected = make(MIL, DAM).fit(pipe[0].transform(bags), y)
    assert equal(
        pipe[-1].score_snippets(pipe[:-1].transform(bags)),
        expected.score_snippets(pipe[0].transform(bags)),
    )
    assert frame_roc_auc_scorer(pipe, bags, y) > 0


def test_it_is_a_classifier(small):
    bags, y = small
    est = make(MIL)
    assert is_classifier(est)
    assert not est.__sklearn_tags__().classifier_tags.multi_class
    named = est.fit(bags, np.where(y == 1, "zebra", "ant"))
    assert named.classes_.tolist() == ["ant", "zebra"]
    assert named.n_features_in_ == 6
    assert set(named.predict(bags)) == {"ant", "zebra"}
    copy = pickle.loads(pickle.dumps(named))
    assert equal(copy.score_snippets(bags), named.score_snippets(bags))
    assert copy.threshold_ == named.threshold_


def test_rows_and_crops(small):
    rows = np.random.default_rng(0).normal(size=(24, 6))
    y = np.arange(24) % 2
    est = make(MIL, DAM).fit(rows, y)
    assert [len(scores) for scores in est.score_snippets(rows)] == [1] * 24
    with pytest.raises(ValueError, match=r"X is 2-D.*pass \[video\]"):
        make(MIL).fit(*small).predict(rows)
    crops = MultiCropDetector(clone(MIL))
    bags = [np.stack([bag, bag], axis=1) for bag in small[0]]
    est = make(crops, n_seeds=2).fit(bags, small[1])
    first, second = (member.estimator_ for member in est.estimators_)
    assert (first.n_jobs, second.n_jobs) == (1, 1)
    assert first.random_state != second.random_state


@pytest.mark.parametrize("verbose", [0, 1])
def test_progress_bar(small, verbose, capsys):
    est = make(MIL, n_seeds=2, verbose=verbose).fit(*small)
    err = capsys.readouterr().err
    assert ("fitting: 100%" in err and "2/2" in err) == bool(verbose)
    silent = make(MIL, n_seeds=2).fit(*small)
    assert equal(est.score_snippets(small[0]), silent.score_snippets(small[0]))


# Errors -------------------------------------------------------------------
@pytest.mark.parametrize(
    ("estimators", "error", "match"),
    [
        ([], ValueError, "estimators are empty"),
        (MIL, ValueError, "'estimators' parameter"),
        (
            [("mil", 3)],
            TypeError,
            r"\[0\] is \('mil', 3\): expected a detector",
        ),
        ([MILRankingAnomalyDetector], TypeError, "expected a detector"),
        ([make_pipeline(MIL)], TypeError, "a Pipeline goes around the ensemble"),
        (
            [("mil", MIL, 1)],
            TypeError,
            r"estimators\[0\] is .*expected a detector",
        ),
        (
            [("mil", MIL), MIL],
            TypeError,
            r"estimators\[1\] is .*expected a detector",
        ),
        ([("a", MIL), ("a", DAM)], ValueError, "not unique"),
        ([("a__b", MIL)], ValueError, "must not contain __"),
        ([("n_seeds", MIL)], ValueError, "conflict with constructor arguments"),
    ],
)
def test_bad_estimators(small, estimators, error, match):
    est = EnsembleAnomalyDetector(estimators)
    est.get_params()
    with pytest.raises(error, match=match):
        est.fit(*small)


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        ([1], r"shape \(1,\) for 2 estimators"),
        ([[1, 1]], r"shape \(1, 2\)"),
        ([1, -1], r"0 or more, one of them positive, got \[1, -1\]"),
        ([0, 0], "one of them positive"),
        ([1, np.nan], "finite"),
        (3, "'weights' parameter"),
    ],
)
def test_bad_weights(small, weights, match):
    with pytest.raises(ValueError, match=match):
        make(MIL, DAM, weights=weights).fit(*small)


@pytest.mark.parametrize("params", [{"n_seeds": 0}, {"video_weight": -0.1}])
def test_bad_parameters(small, params):
    with pytest.raises(ValueError, match=f"'{next(iter(params))}' parameter"):
        make(MIL, **params).fit(*small)


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (None, "y to be passed"),
        ([1] * 24, "one class only"),
        ([0, 1, 2] * 8, "3 classes"),
        ([0, 1], "24 bags and 2 labels"),
    ],
)
def test_bad_labels(small, y, match, monkeypatch):
    monkeypatch.setattr(_ensemble, "_fit_member", None)  # no member was fitted
    with pytest.raises(ValueError, match=match):
        make(MIL).fit(small[0], y)


def test_unfitted_and_failed_fits(small):
    bags, y = small
    est = make(MIL, DAM)
    for method in (est.score_snippets, est.predict, est.decision_function):
        with pytest.raises(NotFittedError):
            method(bags)
    est.fit(bags, y)
    expected = est.score_snippets(bags)
    with pytest.raises(ValueError, match="3 axes"):
        est.fit([np.ones((4, 3, 5))] * 4, [0, 1, 0, 1])
    assert equal(est.score_snippets(bags), expected)
    with pytest.raises(ValueError, match=r"5 features.*expecting 6"):
        est.score_snippets([np.ones((4, 5))])
    with pytest.raises(TypeError, match="can't score a stream"):
        est.stream()
    assert not hasattr(est, "partial_fit")
