"""What every detector does through the base class, with values where they count."""

import pickle
import re

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from skorch.callbacks import Callback, PrintLog

from sklearn_vad import (
    Bags,
    DAMAnomalyDetector,
    DDLAnomalyDetector,
    FrameLabels,
    MILRankingAnomalyDetector,
    RTFMAnomalyDetector,
    STAAnomalyDetector,
)
from sklearn_vad.datasets import make_bags
from sklearn_vad.metrics import frame_roc_auc_score

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


@pytest.fixture(
    params=[DAM, DDL, MIL, RTFM, STA],
    ids=["dam", "ddl", "mil_ranking", "rtfm", "sta"],
)
def est(request):
    return clone(request.param)


def equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


# Learning -----------------------------------------------------------------
@pytest.mark.parametrize(
    ("detector", "least"),
    [
        (DAMAnomalyDetector(n_hidden=32, lr=2e-3, random_state=0), 0.8),
        (DDLAnomalyDetector(hidden_dim=32, lr=2e-3, random_state=0), 0.8),
        (MILRankingAnomalyDetector(random_state=0), 0.85),
        (RTFMAnomalyDetector(random_state=0), 0.85),
    ],
    ids=["dam", "ddl", "mil_ranking", "rtfm"],
)
def test_learns_to_find_anomalies_in_unseen_videos(detector, least):
    bags, y = make_bags(160, max_snippets=40, difficulty=0.0, random_state=1)
    detector.set_params(max_epochs=40, n_jobs=2).fit(bags[:120], y[:120])
    scores = detector.score_snippets(bags[120:])
    assert frame_roc_auc_score(y[120:], scores) > least
    assert roc_auc_score(y[120:], detector.decision_function(bags[120:])) > 0.75


def test_loss_falls_and_its_terms_are_in_the_history(small):
    est = clone(DDL).set_params(max_epochs=15, lr=2e-3).fit(*small)
    first, last = est.history_[0], est.history_[-1]
    assert last["train_loss"] < first["train_loss"]
    terms = ["train_mil", "train_dynamics_ranking", "train_dynamics_alignment"]
    for epoch in est.history_:
        assert sum(epoch[t] for t in terms) == pytest.approx(epoch["train_loss"])
    assert [epoch["epoch"] for epoch in est.history_] == list(range(1, 16))
    assert est.n_iter_ == 15


def test_fit_sees_only_video_labels(est, small):
    bags, y = small
    shuffled = FrameLabels([np.sort(m)[::-1] for m in y.masks], 7.5)
    expected = clone(est).fit(bags, y.video_labels).score_snippets(bags)
    assert equal(clone(est).fit(bags, y).score_snippets(bags), expected)
    assert equal(clone(est).fit(bags, shuffled).score_snippets(bags), expected)


def test_anomalous_is_the_larger_class(est, small):
    bags, y = small
    names = np.where(y == 1, "zebra", "ant")
    named = clone(est).fit(bags, names)
    assert named.classes_.tolist() == ["ant", "zebra"]
    plain = clone(est).fit(bags, y)
    assert equal(named.score_snippets(bags), plain.score_snippets(bags))
    assert np.array_equal(named.predict(bags) == "zebra", plain.predict(bags) == 1)


# Scores -------------------------------------------------------------------
def test_scores_follow_each_other(est, small):
    bags, y = small
    est.fit(bags, y)
    scores = est.score_snippets(bags)
    assert [len(s) for s in scores] == bags.lengths.tolist()
    assert all(s.min() >= 0 and s.max() <= 1 for s in scores)
    proba = est.predict_proba(bags)
    if isinstance(est, DDLAnomalyDetector):
        video = [np.sort(s)[::-1][: len(s) // 16 + 1].mean() for s in scores]
    else:
        video = [s.max() for s in scores]
    np.testing.assert_allclose(proba[:, 1], video, rtol=1e-6)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    np.testing.assert_allclose(est.decision_function(bags), proba[:, 1] - 0.5)
    assert np.array_equal(est.predict(bags), (proba[:, 1] > 0.5).astype(int))


def test_score_frames_repeats_snippet_scores(est, small):
    bags, y = small
    est.fit(bags, y)
    snippets = est.score_snippets(bags[:2])
    plain = est.score_frames(bags[:2])
    assert np.array_equal(plain[0], np.repeat(snippets[0], 16))
    n_frames = bags.lengths[:2] * 16 + np.array([5, 0])
    longer = est.score_frames(bags[:2], n_frames)
    assert np.array_equal(longer[0][-5:], np.repeat(snippets[0][-1], 5))
    half = est.score_frames(bags[:1], [len(snippets[0]) * 5 // 2], snippet_length=2.5)
    index = np.floor(np.arange(len(half[0])) / 2.5).astype(int)
    assert np.array_equal(half[0], est.score_snippets(bags[:1])[0][index])


def test_scores_do_not_depend_on_company_order_or_padding(est, small):
    bags, y = small
    est.fit(bags, y)
    together = est.score_snippets(bags)
    order = np.random.default_rng(0).permutation(len(bags))
    shuffled = est.score_snippets(bags[order])
    for i in range(len(bags)):
        alone = est.score_snippets([bags[i]])[0]
        np.testing.assert_allclose(alone, together[i], atol=1e-5)
        position = int(np.flatnonzero(order == i)[0])
        np.testing.assert_allclose(shuffled[position], together[i], atol=1e-5)


@pytest.mark.parametrize(
    "convert",
    [
        list,
        tuple,
        np.asarray,
        lambda bags: [torch.tensor(b) for b in bags],
        lambda bags: [b.astype(np.float64) for b in bags],
        lambda bags: [np.asfortranarray(b).astype(">f4") for b in bags],
    ],
    ids=["list", "tuple", "object array", "tensors", "float64", "big-endian"],
)
def test_every_container_gives_the_same_scores(est, small, convert):
    bags, y = small
    expected = est.fit(bags, y).score_snippets(bags)
    other = clone(est).fit(convert(bags), list(y))
    assert equal(other.score_snippets(convert(bags)), expected)


def test_3d_array_is_bags_of_equal_length(est, small):
    bags, y = small
    cut = np.stack([b[:8] for b in bags])
    expected = clone(est).fit(list(cut), y).score_snippets(list(cut))
    assert equal(est.fit(cut, y).score_snippets(cut), expected)


# Small and odd training sets ----------------------------------------------
@pytest.mark.parametrize("batch_size", [1, 2, 3, 1000])
def test_any_batch_size_trains(est, small, batch_size):
    bags, y = small
    est.set_params(batch_size=batch_size)
    if batch_size == 1 and not isinstance(est, DDLAnomalyDetector):
        with pytest.raises(ValueError, match=r"'batch_size'.*\[2, inf\)"):
            est.fit(bags, y)  # nothing to rank
        return
    est.set_params(batch_size=batch_size).fit(bags, y)
    assert all(np.isfinite(s).all() for s in est.score_snippets(bags))


def test_unbalanced_batches_train(est, small):
    bags, y = small
    est.set_params(balanced_batches=False, batch_size=5).fit(bags, y)
    assert all(np.isfinite(e["train_loss"]) for e in est.history_)


def test_bags_of_one_snippet_train(est):
    X = np.random.default_rng(0).normal(size=(30, 1, 4))
    y = (X[:, 0, 0] > 0).astype(int)
    params = {"max_epochs": 60, "lr": 0.02, "dropout": 0.0}
    known = est.get_params()
    est.set_params(**{k: v for k, v in params.items() if k in known}).fit(X, y)
    assert roc_auc_score(y, est.decision_function(X)) > 0.9


def test_2d_array_is_bags_of_one_snippet(est):
    X = np.random.default_rng(0).normal(size=(30, 4))
    y = (X[:, 0] > 0).astype(int)
    rows = clone(est).fit(X, y)
    bags = clone(est).fit([row[None] for row in X], y)
    assert equal(rows.score_snippets(X), bags.score_snippets(X))
    frame = pd.DataFrame(X, columns=list("abcd"))
    named = clone(est).fit(frame, y)
    assert named.feature_names_in_.tolist() == list("abcd")
    assert equal(named.score_snippets(frame), rows.score_snippets(X))


# partial_fit and warm_start -----------------------------------------------
def test_partial_fit_takes_one_class_once_classes_are_known(est, small):
    bags, y = small
    anomalous = np.flatnonzero(y == 1)
    with pytest.raises(ValueError, match="one class"):
        clone(est).partial_fit(bags[anomalous], y[anomalous])
    est.partial_fit(bags[anomalous], y[anomalous], classes=[0, 1])
    est.partial_fit(bags[~(y == 1)], y[~(y == 1)])
    est.partial_fit(bags[0:1], y[0:1])
    assert est.n_iter_ == 6
    assert est.classes_.tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"labels .*2.* besides"):
        est.partial_fit(bags[:2], [0, 2])
    with pytest.raises(ValueError, match="differ"):
        est.partial_fit(bags, y, classes=[0, 5])


def test_partial_fit_is_training_at_constant_rate(est, small):
    bags, y = small
    whole = clone(est).set_params(max_epochs=4, lr_decay=None).fit(bags, y)
    est.partial_fit(bags, y).partial_fit(bags, y)
    assert equal(est.score_snippets(bags), whole.score_snippets(bags))
    decayed = clone(est).set_params(lr_decay="cosine").fit(bags, y)
    decayed.partial_fit(bags, y)
    assert decayed.net_.optimizer_.param_groups[0]["lr"] == est.lr


def test_partial_fit_goes_on_after_pickling(est, small):
    bags, y = small
    est.partial_fit(bags, y)
    copy = pickle.loads(pickle.dumps(est))
    expected = est.partial_fit(bags, y).score_snippets(bags)
    assert equal(copy.partial_fit(bags, y).score_snippets(bags), expected)


def test_cosine_decay_reaches_nearly_zero(small):
    rates = []

    class Spy(Callback):
        def on_epoch_end(self, net, **kwargs):
            rates.append(net.optimizer_.param_groups[0]["lr"])

    clone(DDL).set_params(callbacks=[Spy()], max_epochs=4, lr=1.0).fit(*small)
    np.testing.assert_allclose(rates, [1, 0.853553, 0.5, 0.146447], atol=1e-6)


def test_warm_start_goes_on(est, small):
    bags, y = small
    est.set_params(warm_start=True, lr_decay=None).fit(bags, y)
    first = est.score_snippets(bags)
    est.fit(bags, y)
    assert est.n_iter_ == 4
    assert not equal(est.score_snippets(bags), first)
    whole = clone(est).set_params(max_epochs=4).fit(bags, y)
    assert equal(est.score_snippets(bags), whole.score_snippets(bags))
    with pytest.raises(ValueError, match="9 features"):
        est.fit([np.ones((3, 9))] * 2, [0, 1])


# Validation and early stopping --------------------------------------------
def test_validation_keeps_the_best_epoch(small):
    bags, y = small
    est = clone(DDL).set_params(max_epochs=12, lr=0.01)
    est.fit(bags[:16], y[:16], validation=(bags[16:], y[16:]))
    scores = [epoch["valid_score"] for epoch in est.history_]
    kept = frame_roc_auc_score(y[16:], est.score_snippets(bags[16:]))
    assert kept == pytest.approx(max(scores), abs=1e-12)
    assert est.n_iter_ == 12


@pytest.mark.parametrize(
    "name", ["roc_auc", "average_precision", "frame_average_precision"]
)
def test_validation_scores_by_name(est, small, name):
    bags, y = small
    est.set_params(validation_score=name).fit(bags, y, validation=(bags, y))
    assert 0 <= est.history_[-1]["valid_score"] <= 1


@pytest.mark.parametrize(
    "params", [{"patience": 3}, {"validation_score": "roc_auc"}], ids=str
)
def test_wishes_that_need_validation_videos(est, small, params):
    with pytest.raises(ValueError, match="needs validation videos"):
        est.set_params(**params).fit(*small)


def test_best_epoch(small):
    bags, y = small
    est = clone(DDL).set_params(max_epochs=6, lr=0.01)
    est.fit(bags[:16], y[:16], validation=(bags[16:], y[16:]))
    scores = [epoch["valid_score"] for epoch in est.history_]
    assert est.best_epoch_ == 1 + scores.index(max(scores))
    assert clone(DDL).fit(bags, y).best_epoch_ == 2


def test_labels_that_sort_the_wrong_way_are_noticed(est, small):
    bags, y = small
    with pytest.warns(UserWarning, match=r"Normal.*taken as anomalous"):
        est.fit(bags, np.where(y == 1, "Anomaly", "Normal"))


def test_printing_callbacks_print(small, capsys):
    clone(DDL).set_params(callbacks=[PrintLog()]).fit(*small)
    assert "train_loss" in capsys.readouterr().out


def test_patience_stops_early(small):
    bags, y = small
    est = clone(DDL).set_params(max_epochs=50, lr=1e-12, patience=3)
    est.fit(bags, y, validation=(bags, np.asarray(y)))
    assert est.n_iter_ < 50


@pytest.mark.parametrize(
    "classes", [[], 3, "ab", [[0, 1]], [None, 1j], [["a"], ["b", "c"]]]
)
def test_classes_of_partial_fit_are_checked(classes, est, small):
    with pytest.raises(ValueError, match=r"^classes(:| are .*expected both labels)"):
        est.partial_fit(*small, classes=classes)
    assert not hasattr(est, "net_")


def test_classes_of_partial_fit_may_be_objects(est, small):
    classes = np.array([0, 1], dtype=object)
    assert est.partial_fit(*small, classes=classes).classes_.tolist() == [0, 1]


def test_validation_fraction_holds_out_videos_of_both_classes(est, small):
    bags, y = small
    est.set_params(validation_fraction=0.25).fit(bags, y)
    assert "valid_score" in est.history_[0]
    with pytest.raises(ValueError, match="too few"):
        clone(est).fit(bags[:4], [0, 0, 0, 1])
    with pytest.raises(ValueError, match="exclude"):
        clone(est).fit(bags, y, validation=(bags, y))
    with pytest.raises(ValueError, match=r"needs validation=.*FrameLabels"):
        clone(est).set_params(validation_score="frame_roc_auc").fit(bags, y)


@pytest.mark.parametrize(
    ("validation", "error", "match"),
    [
        (3, TypeError, "pair"),
        (([np.ones((2, 6))], [1]), ValueError, "both"),
        (([np.ones((2, 5))], [1]), ValueError, "5 features"),
        (([np.ones((2, 6))] * 2, [0, 1, 1]), ValueError, "inconsistent"),
        (([np.ones((2, 6))], FrameLabels([[0] * 32])), ValueError, "one class"),
        (([np.ones((2, 6))], FrameLabels([[0, 1] * 99])), ValueError, "snippet_length"),
    ],
)
def test_bad_validation(est, small, validation, error, match):
    with pytest.raises(error, match=match):
        est.fit(*small, validation=validation)


def test_a_fit_that_fails_leaves_the_detector_as_it_was(est, small):
    bags, y = small
    est.fit(bags, y)
    expected = est.score_snippets(bags)
    other = [np.ones((3, 9))] * 4
    with pytest.raises(ValueError, match="one class only"):
        est.fit(other, [1, 1, 1, 1])
    with pytest.raises(ValueError, match="validation"):
        est.set_params(validation_score="frame_roc_auc").fit(
            other, [0, 1, 0, 1], validation=(other, [0, 1, 0, 1])
        )
    assert est.n_features_in_ == 6
    assert equal(est.score_snippets(bags), expected)


@pytest.mark.parametrize("n_jobs", [1, 2, -1, None])
def test_n_jobs_is_set_inside_and_restored(small, n_jobs):
    found = []

    class Spy(Callback):
        def on_epoch_begin(self, net, **kwargs):
            found.append(torch.get_num_threads())

    before = torch.get_num_threads()
    clone(DDL).set_params(callbacks=[Spy()], n_jobs=n_jobs).fit(*small)
    expected = {None: before, -1: joblib.cpu_count()}.get(n_jobs, n_jobs)
    assert set(found) == {expected}
    assert torch.get_num_threads() == before


# Engine -------------------------------------------------------------------
def test_ctrl_c_is_not_swallowed(small):
    class Interrupt(Callback):
        def on_batch_end(self, net, **kwargs):
            raise RuntimeError("not a stop")

    with pytest.raises(RuntimeError, match="not a stop"):
        clone(DDL).set_params(callbacks=[Interrupt()]).fit(*small)

    def pressed_during_a_batch(output, y, mask):
        raise KeyboardInterrupt

    est = clone(DDL)
    est._loss_terms = lambda: pressed_during_a_batch
    with pytest.raises(KeyboardInterrupt):
        est.fit(*small)
    assert not hasattr(est, "net_")


def test_callback_can_stop_training(small):
    class Stop(Callback):
        def on_epoch_end(self, net, **kwargs):
            raise KeyboardInterrupt  # skorch's way to end the training

    est = clone(DDL).set_params(callbacks=[Stop()], max_epochs=9).fit(*small)
    assert est.n_iter_ == 1


def test_progress_bar(est, small, capsys):
    est.set_params(verbose=1).fit(*small)
    err = capsys.readouterr().err
    assert "epoch 2" in err
    assert "train_loss" in err
    clone(est).set_params(verbose=0).fit(*small)
    captured = capsys.readouterr()
    assert captured.err == captured.out == ""


def test_bfloat16_is_close_and_sigmoid_stays_in_float32(est, small):
    bags, y = small
    full = clone(est).fit(bags, y).score_snippets(bags)
    half = clone(est).set_params(precision="bfloat16").fit(bags, y).score_snippets(bags)
    assert not equal(full, half)
    np.testing.assert_allclose(np.concatenate(half), np.concatenate(full), atol=0.05)
    large = [b * 1e4 for b in bags]
    est.set_params(precision="bfloat16", lr=0.1, max_epochs=3).fit(bags, y)
    assert np.concatenate(est.score_snippets(large)).dtype == np.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_cuda_trains_scores_and_pickles(est, small, precision):
    bags, y = small
    cpu = clone(est).set_params(device="cpu").fit(bags, y).score_snippets(bags)
    est.set_params(device="cuda", precision=precision).fit(bags, y)
    again = clone(est).fit(bags, y)
    assert next(est.net_.module_.parameters()).is_cuda
    assert equal(est.score_snippets(bags), again.score_snippets(bags))
    atol = 0.1 if precision == "bfloat16" else 0.02  # dropout differs by device
    np.testing.assert_allclose(
        np.concatenate(est.score_snippets(bags)), np.concatenate(cpu), atol=atol
    )
    copy = pickle.loads(pickle.dumps(est))
    assert equal(copy.score_snippets(bags), est.score_snippets(bags))
    copy.partial_fit(bags, y)


@pytest.mark.parametrize("dump", [pickle, joblib], ids=["pickle", "joblib"])
def test_pickle_keeps_scores(est, small, dump, tmp_path):
    bags, y = small
    est.fit(bags, y)
    path = tmp_path / "est"
    with path.open("wb") as file:
        dump.dump(est, file)
    with path.open("rb") as file:
        copy = dump.load(file)
    assert equal(copy.score_snippets(bags), est.score_snippets(bags))


# Errors -------------------------------------------------------------------
def test_unfitted(est, small):
    for method in (est.score_snippets, est.predict, est.decision_function):
        with pytest.raises(NotFittedError):
            method(small[0])


def test_what_fit_saw_predict_must_see(est, small):
    bags, y = small
    est.fit(bags, y)
    with pytest.raises(ValueError, match=re.escape("[video]")):
        est.score_snippets(bags[0])
    with pytest.raises(ValueError, match=r"5 features.*expecting 6"):
        est.score_snippets([np.ones((4, 5))])
    takes_steps = isinstance(est, DAMAnomalyDetector)
    remedy = "fitted on bags of 2" if takes_steps else "MultiCropDetector"
    with pytest.raises(ValueError, match=f"bags have 3 axes.*{remedy}"):
        est.score_snippets([np.ones((4, 2, 6))])


@pytest.mark.parametrize("est", [DDL, MIL], ids=["ddl", "mil_ranking"])
def test_inner_steps_or_crops_are_refused(est):
    with pytest.raises(ValueError, match=r"bags have 3 axes.*MultiCropDetector"):
        clone(est).fit([np.ones((4, 2, 6))] * 4, [0, 1, 0, 1])


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (None, "y to be passed"),
        ([1] * 24, "one class only"),
        ([0, 1, 2] * 8, "3 classes"),
        (np.linspace(0, 1, 24), "Unknown label type"),
        ([0, 1], "inconsistent"),
        ([[0, 1]] * 24, "one label per video"),
        ([np.nan, 1] * 12, "NaN"),
    ],
)
def test_bad_labels(est, small, y, match):
    with pytest.raises(ValueError, match=match):
        est.fit(small[0], y)


@pytest.mark.parametrize(
    "params",
    [
        {"lr": -1},
        {"lr": "fast"},
        {"max_epochs": 0},
        {"batch_size": 0},
        {"optimizer": "lbfgs"},
        {"precision": "float16"},
        {"validation_fraction": 1.5},
        {"n_jobs": 0},
        {"patience": 0},
        {"random_state": "x"},
        {"dropout": 1.0},
        {"device": "abacus"},
        {"device": 3.5},
    ],
    ids=str,
)
def test_bad_parameters(est, small, params):
    (name,) = params
    with pytest.raises((ValueError, TypeError), match=name):
        est.set_params(**params).fit(*small)


@pytest.mark.parametrize(
    "params",
    [{"hidden_dim": 15}, {"mlp_dims": (0, 3)}, {"mlp_dims": 5}, {"sigma": 0}],
    ids=str,
)
def test_bad_ddl_parameters(small, params):
    (name,) = params
    with pytest.raises(ValueError, match=name):
        clone(DDL).set_params(**params).fit(*small)


@pytest.mark.parametrize("dims", [(3,), (0, 3), "ab"], ids=str)
def test_bad_mil_ranking_parameters(small, dims):
    with pytest.raises(ValueError, match="hidden_dims"):
        clone(MIL).set_params(hidden_dims=dims).fit(*small)


def test_lazy_bags_report_nan_by_name(est, tmp_path):
    arrays = [np.ones((4, 3)), np.ones((5, 3)), np.full((2, 3), np.nan)]
    paths = [tmp_path / f"v{i}.npy" for i in range(3)]
    for path, array in zip(paths, arrays, strict=True):
        np.save(path, array)
    bags = Bags.from_files(paths)
    with pytest.raises(ValueError, match=r"'v2'.*NaN"):
        est.fit(bags, [0, 1, 1])


def test_scores_that_are_not_finite_are_an_error(est, small, monkeypatch):
    """Attention overflows at features that a network can't hold."""
    bags, y = small
    est.fit(bags, y)
    scores = {"scores": [np.zeros(2, "f4"), np.array([0, np.nan], "f4")]}
    monkeypatch.setattr(est, "_outputs", lambda *args: scores)
    with pytest.raises(ValueError, match=r"^bag 1 gets scores .* up to 3e\+30"):
        est.score_snippets([np.ones((2, 6)), np.full((2, 6), -3e30)])


def test_ragged_lists_are_no_rows(est):
    with pytest.raises(ValueError, match=r"^bag 0 has shape \(2,\)"):
        est.fit([[1, 2], [3]], [0, 1])


@pytest.mark.parametrize("device", ["gpu", "cuda:99", np.array([]), None, 3.5])
def test_devices_that_are_none(device, small):
    est = MILRankingAnomalyDetector(max_epochs=1, random_state=0, device=device)
    with pytest.raises(ValueError, match=r"device=.* can't be used"):
        est.fit(*small)


@pytest.mark.parametrize("wrong", [5, print, ("name",), ("name", 5), [Callback()]])
def test_callbacks_that_are_none(wrong, small):
    est = MILRankingAnomalyDetector(max_epochs=1, callbacks=[Callback(), wrong])
    with pytest.raises(TypeError, match=r"callbacks hold .*, expected skorch"):
        est.fit(*small)


def test_callbacks_may_be_classes_and_have_names(small):
    given = [Callback, ("name", Callback())]
    est = MILRankingAnomalyDetector(max_epochs=1, callbacks=given).fit(*small)
    assert "name" in dict(est.net_.callbacks_)
