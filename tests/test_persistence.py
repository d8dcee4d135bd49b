"""One file for a fitted detector: what comes back, and what is refused."""

import copy
import errno
import hashlib
import json
import os
import pickle
import random
import re
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from skorch.callbacks import Callback

import sklearn_vad
from sklearn_vad import (
    DAMAnomalyDetector,
    DDLAnomalyDetector,
    EnsembleAnomalyDetector,
    MILRankingAnomalyDetector,
    MultiCropDetector,
    RTFMAnomalyDetector,
    STAAnomalyDetector,
)
from sklearn_vad._tensor_file import check_tensors
from sklearn_vad.base import BaseAnomalyDetector
from sklearn_vad.datasets import make_bags
from sklearn_vad.persistence import SaveMixin

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
each_detector = pytest.mark.parametrize(
    "detector",
    [DAM, DDL, MIL, RTFM, STA],
    ids=["dam", "ddl", "mil_ranking", "rtfm", "sta"],
)


@pytest.fixture(scope="module")
def fitted(small):
    return clone(MIL).fit(*small)


@pytest.fixture
def path(fitted, tmp_path):
    fitted.save(tmp_path / "detector.safetensors")
    return tmp_path / "detector.safetensors"


def equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def round_trip(est, folder):
    est.save(folder / "round_trip.safetensors")
    return sklearn_vad.load(folder / "round_trip.safetensors")


def read(path):
    """Return (what the header says, tensors), by nothing of the package."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        return json.loads(file.metadata()["sklearn_vad"]), tensors


def write(path, saved, tensors):
    """Write a file that the checksum does not give away."""
    saved.pop("sha256")
    digest = hashlib.sha256(json.dumps(saved).encode())
    for name in sorted(tensors):
        digest.update(tensors[name].numpy().tobytes())
    saved["sha256"] = digest.hexdigest()
    save_file(tensors, path, {"sklearn_vad": json.dumps(saved)})


def refused(path, match):
    """Expect a ValueError that names the file."""
    return pytest.raises(
        ValueError, match=f"^cannot load '{re.escape(str(path))}': .*{match}"
    )


# --------------------------------------------------------------------------
# What comes back
# --------------------------------------------------------------------------
def assert_same(loaded, est, bags):
    assert type(loaded) is type(est)
    assert equal(loaded.score_snippets(bags), est.score_snippets(bags))
    assert np.array_equal(loaded.predict(bags), est.predict(bags))
    assert loaded.classes_.dtype == est.classes_.dtype
    assert loaded.classes_.tolist() == est.classes_.tolist()


@each_detector
def test_loaded_detector_is_the_saved_one(detector, small, tmp_path):
    bags, y = small
    est = clone(detector).fit(bags, y)
    est.threshold_ = 0.1 + 0.2
    loaded = round_trip(est, tmp_path)
    assert_same(loaded, est, bags)
    assert loaded.get_params() == est.get_params()
    assert str(loaded.get_params()) == str(est.get_params())  # tuples stay tuples
    assert vars(loaded).keys() == vars(est).keys()
    assert loaded.threshold_ == 0.1 + 0.2
    assert loaded.history_ == est.history_
    assert len(est.history_) == est.n_iter_ == loaded.n_iter_ == 2
    assert_same(type(est).load(tmp_path / "round_trip.safetensors"), est, bags)
    again = round_trip(pickle.loads(pickle.dumps(loaded)), tmp_path)
    assert_same(again, est, bags)
    assert equal(
        clone(loaded).fit(bags, y).score_snippets(bags), est.score_snippets(bags)
    )


@pytest.mark.parametrize("parts", [{}, {"lstm": False, "variant": "cov"}])
def test_dam_with_inner_steps_and_its_stream(parts, tmp_path):
    bags, y = make_bags(20, n_features=5, n_steps=3, max_snippets=12, random_state=0)
    est = clone(DAM).set_params(**parts).fit(bags, y)
    loaded = round_trip(est, tmp_path)
    assert_same(loaded, est, bags)
    first, second = est.stream(), loaded.stream()
    for snippet in bags[0]:
        assert first.push(snippet) == second.push(snippet)
    with pytest.raises(ValueError, match="inner time steps"):
        loaded.predict([np.ones((4, 2, 5))])


def test_regressors_of_sta(small, tmp_path):
    for regressor in ("rnn", "fc"):
        est = clone(STA).set_params(regressor=regressor).fit(*small)
        assert_same(round_trip(est, tmp_path), est, small[0])


@each_detector
def test_detector_of_crops(detector, small, tmp_path):
    bags, y = small
    crops = [np.stack([bag, bag[:, ::-1]], axis=1) for bag in bags]
    est = MultiCropDetector(clone(detector)).fit(crops, y)
    loaded = round_trip(est, tmp_path)
    assert_same(loaded, est, crops)
    assert type(loaded.estimator) is type(detector)
    assert not hasattr(loaded.estimator, "net_")
    assert loaded.estimator.get_params() == est.estimator.get_params()
    assert loaded.history_ == est.history_
    if detector is MIL:
        assert loaded.stream().push(crops[0][0]) == est.stream().push(crops[0][0])


@pytest.mark.parametrize("named", [True, False])
def test_ensemble(named, small, tmp_path):
    bags, y = small
    seeds_alone = clone(MIL).set_params(random_state=None, n_jobs=None)
    pairs = [("mil", seeds_alone), ("ddl", clone(DDL))]
    est = EnsembleAnomalyDetector(
        pairs if named else [pair[1] for pair in pairs],
        n_seeds=2,
        weights=(1, 2),
        video_weight=0.3,
        random_state=0,
    ).fit(bags, y)
    loaded = round_trip(est, tmp_path)
    assert_same(loaded, est, bags)
    assert_same(type(est).load(tmp_path / "round_trip.safetensors"), est, bags)
    assert_same(round_trip(pickle.loads(pickle.dumps(loaded)), tmp_path), est, bags)
    assert np.array_equal(loaded.decision_function(bags), est.decision_function(bags))
    assert vars(loaded).keys() == vars(est).keys()
    for name in ("quantiles_", "weights_"):
        found, expected = getattr(loaded, name), getattr(est, name)
        assert np.array_equal(found, expected)
        assert found.dtype == expected.dtype
    assert loaded.threshold_ == est.threshold_
    assert loaded.n_features_in_ == est.n_features_in_ == 6
    for own, other in zip(loaded.estimators_, est.estimators_, strict=True):
        assert_same(own, other, bags)
        assert own.get_params() == other.get_params()
        assert own.history_ == other.history_
    assert str(loaded.get_params()) == str(est.get_params())  # tuples stay tuples
    for own, other in zip(loaded._named, est._named, strict=True):
        assert own[0] == other[0]
        assert own[1].get_params() == other[1].get_params()
        assert not hasattr(own[1], "net_")
    again = clone(loaded).fit(bags, y)
    assert equal(again.score_snippets(bags), est.score_snippets(bags))
    name = loaded._named[0][0]
    assert loaded.set_params(**{f"{name}__lr": 0.5})._named[0][1].lr == 0.5


def test_ensemble_of_crops_and_of_ensembles(small, tmp_path):
    bags, y = small
    crops = [np.stack([bag, bag[:, ::-1]], axis=1) for bag in bags]
    inner = EnsembleAnomalyDetector([MultiCropDetector(clone(MIL))], n_seeds=2)
    est = EnsembleAnomalyDetector([inner, MultiCropDetector(clone(DDL))])
    est.set_params(random_state=0).fit(crops, y)
    loaded = round_trip(est, tmp_path)
    assert_same(loaded, est, crops)
    assert [type(member) for member in loaded.estimators_[0].estimators_] == (
        [MultiCropDetector] * 2
    )
    assert loaded.get_params().keys() == est.get_params().keys()
    again = clone(loaded).fit(crops, y)
    assert equal(again.score_snippets(crops), est.score_snippets(crops))


@pytest.fixture(scope="module")
def ensemble(small):
    pairs = [("mil", clone(MIL)), ("ddl", clone(DDL))]
    return EnsembleAnomalyDetector(pairs).fit(*small)


def test_threshold_and_names_of_an_ensemble(ensemble, tmp_path):
    est = copy.copy(ensemble)
    est.threshold_ = 0.1 + 0.2
    est.classes_ = np.array(["calm", "riot"])
    est.feature_names_in_ = np.array(list("abcdef"), dtype=object)
    loaded = round_trip(est, tmp_path)
    assert loaded.threshold_ == 0.1 + 0.2
    assert loaded.classes_.tolist() == ["calm", "riot"]
    assert loaded.feature_names_in_.tolist() == list("abcdef")


@pytest.mark.parametrize(
    "classes",
    [
        np.array(["calm", "riot"]),
        np.array(["calm", "é\ud800"], dtype=object),
        np.array([False, True]),
        np.array([-1.0, 1.0], dtype=np.float32),
        np.array([3, 7], dtype=np.int8),
    ],
    ids=lambda classes: str(classes.dtype),
)
def test_classes_keep_their_type(classes, fitted, small, tmp_path):
    est = clone(fitted).fit(small[0], small[1])
    est.classes_ = classes
    loaded = round_trip(est, tmp_path)
    assert_same(loaded, est, small[0])
    assert set(loaded.predict(small[0])) <= set(classes.tolist())


def test_names_of_features_and_rows(tmp_path):
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    X = pandas.DataFrame(rng.normal(size=(20, 3)), columns=["a", "b", "c"])
    est = clone(MIL).fit(X, np.arange(20) % 2)
    loaded = round_trip(est, tmp_path)
    assert loaded.feature_names_in_.tolist() == ["a", "b", "c"]
    assert loaded.feature_names_in_.dtype == est.feature_names_in_.dtype
    assert_same(loaded, est, X)


def test_history_of_validation(small, tmp_path):
    bags, y = small
    est = clone(MIL).set_params(max_epochs=4, lr=0.1).fit(bags, y, (bags, y))
    est.history_[0]["valid_score"] = float("nan")
    loaded = round_trip(est, tmp_path)
    assert loaded.best_epoch_ == est.best_epoch_
    assert np.isnan(loaded.history_[0].pop("valid_score"))
    del est.history_[0]["valid_score"]
    assert loaded.history_ == est.history_


def test_parameters_keep_their_type(fitted, tmp_path):
    est = copy.copy(fitted).set_params(
        lr=np.float32(0.1), max_epochs=np.int64(3), hidden_dims=[16, 8], callbacks=[]
    )
    params = round_trip(est, tmp_path).get_params()
    assert params == est.get_params()
    for name, value in est.get_params().items():
        assert type(params[name]) is type(value), name


def test_training_goes_on(small, tmp_path):
    bags, y = small
    est = clone(MIL).set_params(optimizer="sgd", dropout=0.0).fit(bags, y)
    loaded = round_trip(est, tmp_path)
    before = loaded.score_snippets(bags)
    loaded.partial_fit(bags[:4], y[:4])
    assert loaded.n_iter_ == 4
    assert [epoch["epoch"] for epoch in loaded.history_] == [1, 2, 3, 4]
    assert loaded.history_[:2] == est.history_
    assert not equal(loaded.score_snippets(bags), before)
    warm = round_trip(est, tmp_path).set_params(warm_start=True, lr=1e-12)
    warm.fit(bags, y)
    assert warm.n_iter_ == 4
    for after, score in zip(warm.score_snippets(bags), before, strict=True):
        np.testing.assert_allclose(after, score, atol=1e-6)


def test_dropout_trains_on_after_loading(path, small):
    first, second = (sklearn_vad.load(path).partial_fit(*small) for _ in range(2))
    assert equal(first.score_snippets(small[0]), second.score_snippets(small[0]))


def test_nothing_global_is_drawn(path):
    def states():
        numpy_state = np.random.get_state()[1]  # noqa: NPY002
        return torch.get_rng_state().tolist(), numpy_state.tolist(), random.getstate()

    before = states()
    sklearn_vad.load(path)
    assert states() == before


def test_one_detector_gives_one_file(fitted, tmp_path):
    for name in "abc":
        fitted.save(str(tmp_path / name))
    first, *others = [(tmp_path / name).read_bytes() for name in "abc"]
    assert all(other == first for other in others)


def test_detector_does_not_depend_on_its_file(path, fitted, small):
    loaded = sklearn_vad.load(path)
    with open(path, "r+b") as file:
        file.truncate(10)
    assert equal(loaded.score_snippets(small[0]), fitted.score_snippets(small[0]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_weights_of_cuda_load_without(small, tmp_path, monkeypatch):
    est = clone(MIL).set_params(device="auto").fit(*small)
    assert est.net_.device == "cuda"
    est.save(tmp_path / "detector")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    loaded = sklearn_vad.load(tmp_path / "detector")
    assert loaded.device == "auto"
    assert loaded.net_.device == "cpu"
    for a, b in zip(
        loaded.score_snippets(small[0]), est.score_snippets(small[0]), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)


# --------------------------------------------------------------------------
# Saving
# --------------------------------------------------------------------------
@pytest.mark.parametrize(
    "est",
    [MIL, MultiCropDetector(MIL), EnsembleAnomalyDetector([MIL])],
    ids=["plain", "crops", "ensemble"],
)
def test_save_needs_fit(est, tmp_path):
    with pytest.raises(NotFittedError):
        clone(est).save(tmp_path / "detector")
    assert os.listdir(tmp_path) == []


class _Note(Callback):
    """Does nothing."""


def test_parameters_that_cannot_be_saved_are_named(small, tmp_path):
    bags, y = small
    crops = [bag[:, None] for bag in bags]
    est = clone(MIL).set_params(
        callbacks=[_Note()], random_state=np.random.RandomState(0), device="cpu"
    )
    with pytest.warns(UserWarning, match="callbacks, random_state of MILRanking") as w:
        loaded = round_trip(est.fit(bags, y), tmp_path)
    assert w[0].filename == __file__
    assert loaded.callbacks is None
    assert loaded.random_state is None
    assert_same(loaded, est, bags)
    est = MultiCropDetector(est).fit(crops, y)
    with pytest.warns(
        UserWarning, match=r"estimator\.callbacks, estimator\.random_state"
    ):
        loaded = round_trip(est, tmp_path)
    assert loaded.estimator.callbacks is None
    assert_same(loaded, est, crops)


def test_parameters_of_members_that_cannot_be_saved_are_named(small, tmp_path):
    member = clone(MIL).set_params(callbacks=[_Note()])
    est = EnsembleAnomalyDetector([("a", member)], random_state=0).fit(*small)
    with pytest.warns(
        UserWarning, match=r"parameters estimators\[0\]\[1\]\.callbacks of Ens"
    ):
        loaded = round_trip(est, tmp_path)
    assert loaded.estimators[0][1].callbacks is None
    assert_same(loaded, est, small[0])


def test_ensemble_that_could_not_be_loaded_is_not_saved(ensemble, tmp_path):
    other = copy.copy(ensemble).set_params(n_seeds=2)
    with pytest.raises(ValueError, match="2 members, expected 4"):
        other.save(tmp_path / "ensemble")
    other = copy.copy(ensemble).set_params(estimators=[clone(MIL), clone(MIL)])
    with pytest.raises(ValueError, match=r"estimators_\[1\] has type DDLAnomaly"):
        other.save(tmp_path / "ensemble")
    other = copy.copy(ensemble)
    other.quantiles_ = np.full_like(ensemble.quantiles_, np.nan)
    with pytest.raises(ValueError, match="quantiles_"):
        other.save(tmp_path / "ensemble")
    assert os.listdir(tmp_path) == []
    assert isinstance(ensemble.estimators[1][1], DDLAnomalyDetector)


def test_device_objects_come_back_as_names(small, tmp_path):
    est = clone(MIL).set_params(device=torch.device("cpu")).fit(*small)
    assert round_trip(est, tmp_path).device == "cpu"


def fails(*args, **kwargs):
    raise OSError(errno.ENOSPC, "disk full")


@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_save_that_fails_leaves_the_old_file(step, path, fitted, monkeypatch):
    before = path.read_bytes()
    other = pickle.loads(pickle.dumps(fitted))
    other.threshold_ = 0.7
    monkeypatch.setattr(os, step, fails)
    with pytest.raises(OSError, match="disk full"):
        other.save(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]
    monkeypatch.undo()
    other.save(path)
    assert sklearn_vad.load(path).threshold_ == 0.7
    assert os.listdir(path.parent) == [path.name]


def test_weights_that_are_not_finite_are_not_saved(fitted, path):
    before = path.read_bytes()
    broken = pickle.loads(pickle.dumps(fitted))
    with torch.no_grad():
        broken.net_.module_.mlp[0].weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"mlp\.0\.weight is not finite"):
        broken.save(path)
    assert path.read_bytes() == before


class OwnDetector(MILRankingAnomalyDetector):
    """A class that the package does not know."""


def test_own_class_is_loaded_by_itself(small, tmp_path):
    est = OwnDetector(**MIL.get_params()).fit(*small)
    est.save(tmp_path / "own")
    assert_same(OwnDetector.load(tmp_path / "own"), est, small[0])
    with refused(tmp_path / "own", "class 'OwnDetector', expected one of DAMAnomaly"):
        sklearn_vad.load(tmp_path / "own")
    crops = MultiCropDetector(est).fit([bag[:, None] for bag in small[0]], small[1])
    with pytest.raises(ValueError, match="class 'OwnDetector', expected one of"):
        crops.save(tmp_path / "crops")
    ensemble = EnsembleAnomalyDetector([est]).fit(*small)
    with pytest.raises(ValueError, match="class 'OwnDetector', expected one of"):
        ensemble.save(tmp_path / "ensemble")


class Scaled(MILRankingAnomalyDetector):
    """A detector whose network has a buffer."""

    def _make_module(self, n_features):
        module = super()._make_module(n_features)
        scale = torch.zeros(n_features, dtype=torch.float64)
        module.mlp[0].register_buffer("scale", scale)
        return module


def test_buffers_are_saved(small, tmp_path):
    est = Scaled(**MIL.get_params()).fit(*small)
    est.net_.module_.mlp[0].scale.copy_(torch.arange(6) / 7)
    est.save(tmp_path / "scaled")
    scale = Scaled.load(tmp_path / "scaled").net_.module_.mlp[0].scale
    assert scale.dtype == torch.float64
    assert scale.tolist() == (torch.arange(6) / 7).tolist()


class Pair(SaveMixin, BaseEstimator):
    """Detectors by two hooks: what a meta-estimator needs."""

    _parameter_constraints = {"estimators": [list]}

    def __init__(self, estimators):
        self.estimators = estimators

    def fit(self, X, y):
        self.estimators_ = [clone(est).fit(X, y) for est in self.estimators]
        self.threshold_ = 0.25
        return self

    def _get_fitted_state(self):
        parts = {str(i): est for i, est in enumerate(self.estimators_)}
        return {"threshold_": self.threshold_}, {"w": torch.ones(2)}, parts

    def _set_fitted_state(self, values, tensors, parts):
        check_tensors(tensors, {"w": torch.empty(2)})
        self.threshold_ = values["threshold_"]
        self.estimators_ = list(parts.values())


def test_two_hooks_save_a_list_of_detectors(small, tmp_path):
    pair = Pair([MIL, DDL]).fit(*small)
    pair.save(tmp_path / "pair")
    loaded = Pair.load(tmp_path / "pair")
    assert loaded.threshold_ == 0.25
    for own, other in zip(loaded.estimators_, pair.estimators_, strict=True):
        assert_same(own, other, small[0])
    for own, other in zip(loaded.estimators, pair.estimators, strict=True):
        assert own.get_params() == other.get_params()


def test_history_that_cannot_be_saved_is_named(fitted, path):
    before = path.read_bytes()
    est = copy.copy(fitted)
    est.history_ = [{"model": object()}]
    with pytest.raises(TypeError, match=r"history_\[0\]\['model'\] can't be saved"):
        est.save(path)
    assert path.read_bytes() == before


# --------------------------------------------------------------------------
# What is refused
# --------------------------------------------------------------------------
def test_class_must_be_the_one_that_was_saved(path):
    for cls in (DDLAnomalyDetector, MultiCropDetector, BaseAnomalyDetector):
        with refused(path, f"class 'MILRanking.*', expected {cls.__name__}"):
            cls.load(path)


def test_missing_and_wrong_paths(tmp_path):
    with pytest.raises(FileNotFoundError):
        sklearn_vad.load(tmp_path / "nothing")
    with refused(tmp_path, "is no file"):
        sklearn_vad.load(tmp_path)
    with pytest.raises(TypeError):
        sklearn_vad.load(3)


def test_truncated_files(path):
    data = path.read_bytes()
    for length in {*range(0, len(data), 97), 7, 8, 9, len(data) - 1}:
        path.write_bytes(data[:length])
        with refused(path, ""):
            sklearn_vad.load(path)


def test_every_bit_counts(path):
    data = path.read_bytes()
    header = 8 + struct.unpack("<Q", data[:8])[0]
    rng = np.random.default_rng(0)
    places = [*rng.integers(header, size=400), *rng.integers(header, len(data), 50)]
    for place in places:
        flipped = bytearray(data)
        flipped[place] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        with refused(path, ""):
            sklearn_vad.load(path)


@pytest.mark.parametrize("length", [0, 2, 2**24, 2**31, 2**62, 2**64 - 1])
def test_lying_header_length(length, path):
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    with refused(path, ""):
        sklearn_vad.load(path)


def test_huge_headers_are_not_read(path):
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", 2**30))
        file.truncate(2**31)  # a sparse file
    tracemalloc.start()
    with refused(path, f"no safetensors header is in its {2**31} bytes"):
        sklearn_vad.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


class _Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("dump", [pickle.dump, torch.save], ids=["pickle", "torch"])
def test_pickles_are_not_opened(dump, tmp_path):
    sung = tmp_path / "sung"
    with open(tmp_path / "pickle", "wb") as file:
        dump(_Canary(sung), file)
    with refused(tmp_path / "pickle", ""):
        sklearn_vad.load(tmp_path / "pickle")
    assert not sung.exists()
    if dump is pickle.dump:  # the canary can sing
        pickle.loads((tmp_path / "pickle").read_bytes())
        assert sung.exists()


def test_other_safetensors_files(tmp_path):
    for metadata in (None, {"format": "pt"}):
        save_file({"a": torch.ones(2)}, tmp_path / "other", metadata)
        with refused(tmp_path / "other", "no detector of sklearn_vad"):
            sklearn_vad.load(tmp_path / "other")
    for text in ("[]", "3", "{", "[" * 100_000, '{"format": 1}'):
        save_file({}, tmp_path / "other", {"sklearn_vad": text})
        with refused(tmp_path / "other", ""):
            sklearn_vad.load(tmp_path / "other")


def test_rewriting_alone_changes_nothing(path, fitted, small):
    write(path, *read(path))
    assert_same(sklearn_vad.load(path), fitted, small[0])


def test_other_format_version(path):
    saved, tensors = read(path)
    saved["format"] = 2
    saved["versions"]["sklearn_vad"] = "9.9"
    write(path, saved, tensors)
    with refused(path, "format 2, expected 1; .*9.9"):
        sklearn_vad.load(path)


@pytest.mark.parametrize(
    ("keys", "value", "match"),
    [
        (["class"], "eval", "class 'eval', expected one of"),
        (["class"], "os.system", "class 'os.system', expected one of"),
        (["class"], ["DDLAnomalyDetector"], "class has type list"),
        (["class"], "DDLAnomalyDetector", r"parameters \['hidden_dims', .*DDLAnomaly"),
        (["extra"], 1, "entries are .*extra"),
        (["parameters"], [], "parameters has type list"),
        (["parameters", "lr"], "fast", "'lr' parameter .* must be a float"),
        (["parameters", "lr"], {"$float": "nan"}, "'lr' parameter"),
        (["parameters", "unheard_of"], 1, r"parameters \['unheard_of'\]"),
        (["parameters", "device"], "abacus", "device='abacus' can't be used"),
        (["parameters", "hidden_dims"], {"$tuple": [16, 9]}, "tensor mlp.3.*expected"),
        (["parameters", "hidden_dims"], {"$tuple": [10**12, 8]}, "expected"),
        (["parameters", "hidden_dims"], {"$tuple": [10**30, 8]}, ""),
        (["parameters", "hidden_dims"], [1] * 10**5, "parameters take .* characters"),
        (["parameters", "lr"], {"$array": ["<U99999999", "a"]}, "more than"),
        (["parameters", "lr"], {"$array": ["V8", "a"]}, "can't be saved"),
        (["parameters", "callbacks"], {"$detector": {"class": "x"}}, "entries of a"),
        (["fitted", "net_"], 1, "fitted attributes are .*net_"),
        (["fitted", "predict"], 1, "fitted attributes are .*predict"),
        (["fitted", "threshold_"], "0.5", "threshold_ has type str"),
        (["fitted", "n_features_in_"], 7, r"tensor mlp.0.weight is .*\(16, 6\)"),
        (["fitted", "n_features_in_"], -1, ""),
        (["fitted", "_bag_ndim"], 3, "bags have 3 axes"),
        (["fitted", "classes_"], {"$array": ["<i8", [0, 1, 2]]}, "expected two"),
        (["fitted", "history_"], [3], ""),
        (["parts", "a"], {}, "entries are"),
    ],
)
def test_wrong_descriptions(keys, value, match, path):
    saved, tensors = read(path)
    place = saved["detector"]
    for key in keys[:-1]:
        place = place[key]
    assert place.get(keys[-1]) != value
    place[keys[-1]] = value
    write(path, saved, tensors)
    with refused(path, match):
        sklearn_vad.load(path)


@pytest.mark.parametrize("key", ["class", "parameters", "fitted", "parts"])
def test_missing_entries(key, path):
    saved, tensors = read(path)
    del saved["detector"][key]
    write(path, saved, tensors)
    with refused(path, "entries are"):
        sklearn_vad.load(path)


def test_parameters_that_are_missing_take_their_defaults(path):
    saved, tensors = read(path)
    assert saved["detector"]["parameters"].pop("max_epochs") == 2
    write(path, saved, tensors)
    assert sklearn_vad.load(path).max_epochs == 20


NAME = "mlp.0.weight"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.pop(NAME), "tensors are .*expected"),
        (lambda t: t.update(more=torch.ones(1)), "tensors are .*'more'.*expected"),
        (lambda t: t.update({"a/b": torch.ones(1)}), "a/b belongs to no part"),
        (
            lambda t: t.update({NAME: t[NAME].T.contiguous()}),
            r"\(6, 16\).*expected.*\(16, 6\)",
        ),
        (lambda t: t.update({NAME: t[NAME].double()}), "float64.*expected.*float32"),
        (lambda t: t[NAME][0].fill_(torch.nan), "NaN or inf, expected finite"),
        (lambda t: t[NAME][0].fill_(-torch.inf), "NaN or inf, expected finite"),
    ],
    ids=["missing", "more", "part", "shape", "dtype", "nan", "inf"],
)
def test_wrong_tensors(change, match, path):
    saved, tensors = read(path)
    change(tensors)
    write(path, saved, tensors)
    with refused(path, match):
        sklearn_vad.load(path)


def test_part_must_be_of_the_estimators_class(small, path, tmp_path):
    crops = [bag[:, None] for bag in small[0]]
    MultiCropDetector(MIL).fit(crops, small[1]).save(tmp_path / "mil")
    MultiCropDetector(DDL).fit(crops, small[1]).save(tmp_path / "ddl")
    mil, tensors = read(tmp_path / "mil")
    mil["detector"]["parameters"] = read(tmp_path / "ddl")[0]["detector"]["parameters"]
    write(path, mil, tensors)
    with refused(path, "estimator_ has type MILRanking.*expected.*DDLAnomaly"):
        sklearn_vad.load(path)


def _swap(tensors, name="quantiles_"):
    tensors[name][1, [0, -1]] = tensors[name][1, [-1, 0]]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.pop("quantiles_"), "tensors are .*expected .*quantiles_"),
        (
            lambda t: t.update(quantiles_=t["quantiles_"][:, 1:].contiguous()),
            r"quantiles_ is \(\(2, 1000\).*expected \(\(2, 1001\)",
        ),
        (
            lambda t: t.update(quantiles_=t["quantiles_"][:1].clone()),
            r"quantiles_ is \(\(1, 1001\).*expected \(\(2, 1001\)",
        ),
        (
            lambda t: t.update(quantiles_=t["quantiles_"].double()),
            "quantiles_ is .*float64.*expected .*float32",
        ),
        (_swap, "quantiles_ must rise"),
        (lambda t: t["quantiles_"][0, :1].fill_(-0.1), "quantiles_ must rise from 0"),
        (lambda t: t["quantiles_"][0, -1:].fill_(1.1), "quantiles_ must .* to 1 or"),
        (lambda t: t["quantiles_"][0, 3].fill_(torch.nan), "quantiles_ holds NaN"),
        (lambda t: t["weights_"].fill_(torch.nan), "weights_ holds NaN"),
        (lambda t: t["weights_"].fill_(1), "expected shares of 1"),
        (lambda t: t["weights_"].copy_(torch.tensor([2, -1])), "expected shares of 1"),
        (
            lambda t: t.update(weights_=torch.full((3,), 1 / 3).double()),
            r"weights_ is \(\(3,\).*expected \(\(2,\)",
        ),
    ],
)
def test_wrong_scales_of_an_ensemble(change, match, ensemble, path):
    ensemble.save(path)
    saved, tensors = read(path)
    change(tensors)
    write(path, saved, tensors)
    with refused(path, match):
        sklearn_vad.load(path)


def _third_member(detector):
    detector["parts"]["estimators_[2]"] = detector["parts"]["estimators_[0]"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: d["parameters"].update(n_seeds=10**12), "2 members, expected 2000"),
        (lambda d: d["parameters"].update(estimators=[]), "estimators are empty"),
        (lambda d: d["parameters"].update(estimators=[3, 4]), r"estimators\[0\] is 3"),
        (lambda d: d["parameters"].pop("estimators"), "estimators"),
        (
            lambda d: d["parameters"]["estimators"].reverse(),
            r"estimators_\[0\] has type",
        ),
        (
            lambda d: d["parameters"]["estimators"].pop(),
            "2 members, expected 1",
        ),
        (_third_member, "tensors are .*expected"),
        (lambda d: d["fitted"].update(classes_=3), "classes_ has type int"),
        (
            lambda d: d["fitted"].update(classes_={"$array": ["<i8", [0, 1, 2]]}),
            "expected two",
        ),
        (lambda d: d["fitted"].update(threshold_=None), "threshold_ has type None"),
        (lambda d: d["fitted"].pop("threshold_"), "fitted attributes are"),
        (lambda d: d["fitted"].update(predict=1), "fitted attributes are .*predict"),
        (
            lambda d: d["fitted"].update(n_features_in_=7),
            r"estimators_\[0\] takes other than 7 features",
        ),
        (
            lambda d: d["parts"].update(other=d["parts"].pop("estimators_[1]")),
            "belongs to no part",
        ),
    ],
)
def test_wrong_descriptions_of_an_ensemble(change, match, ensemble, path):
    ensemble.save(path)
    saved, tensors = read(path)
    change(saved["detector"])
    write(path, saved, tensors)
    with refused(path, match):
        sklearn_vad.load(path)


# --------------------------------------------------------------------------
# Parameters that were changed after fit
# --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("detector", "params", "match"),
    [
        (DDL, {"sigma": 2.0}, "sigma of the network is 16.0, .* would be 2.0"),
        (DDL, {"prior": "before"}, "prior of the network is 'after'"),
        (DDL, {"n_heads": 2}, "n_heads of the network is 4"),
        (DDL, {"dropout": 0.5}, r"p of the network\.mlp\.2 is 0.1"),
        (DAM, {"variant": "cov"}, "variant of the network is 'dist'"),
        (STA, {"temperature": 0.5}, "temperature of the network is 1.0"),
        (RTFM, {"dropout": 0.5}, r"p of the network\.classifier\.2 is 0.7"),
        (MIL, {"hidden_dims": (16, 4)}, r"network\.mlp\.3 is 8, .* would be 4"),
        (MIL, {"n_components": 3}, "network.* would be 3"),
        (MIL, {"precision": "bfloat16"}, "precision of the network is 'float32'"),
    ],
)
def test_a_file_would_score_otherwise(detector, params, match, small, tmp_path):
    est = clone(detector).fit(*small).set_params(**params)
    with pytest.raises(ValueError, match=f"changed since fit: .*{match}"):
        est.save(tmp_path / "detector.safetensors")
    assert list(tmp_path.iterdir()) == []


@each_detector
def test_parameters_of_training_and_scoring_may_change(detector, small, tmp_path):
    est = clone(detector).fit(*small)
    est.set_params(lr=0.5, max_epochs=1, video_weight=2.0, memory_limit=1.0)
    est.save(tmp_path / "detector.safetensors")
    loaded = sklearn_vad.load(tmp_path / "detector.safetensors")
    for one, other in zip(
        est.score_snippets(small[0]), loaded.score_snippets(small[0]), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_more_than_a_header_may_hold_is_not_saved(fitted, path):
    est, before = copy.copy(fitted), path.read_bytes()
    est.history_ = [{"note": "a" * 2**23}]
    with pytest.raises(ValueError, match=r"the description takes .* at most 8388608"):
        est.save(path)
    assert path.read_bytes() == before


def test_no_such_folder(fitted, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such folder: '.*/missing'"):
        fitted.save(tmp_path / "missing" / "detector.safetensors")


def test_a_checkpoint_is_no_detector(small, tmp_path):
    clone(MIL).fit(*small, checkpoint=tmp_path)
    (path,) = tmp_path.glob("*/training.safetensors")
    with refused(path, "it is the checkpoint of a training, no fitted detector"):
        sklearn_vad.load(path)
