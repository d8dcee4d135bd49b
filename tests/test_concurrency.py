"""Many threads at once: the bits of one alone, and every thread its own settings."""

import contextlib
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import joblib
import numpy as np
import pytest
import torch
from numpy.lib import format as npy_format
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_vad import (
    Bags,
    DAMAnomalyDetector,
    DDLAnomalyDetector,
    MILRankingAnomalyDetector,
    RTFMAnomalyDetector,
    STAAnomalyDetector,
)
from sklearn_vad import _engine as engine
from sklearn_vad.base import _all_or_nothing
from sklearn_vad.datasets import load_features, make_bags
from sklearn_vad.metrics import frame_roc_auc_scorer
from sklearn_vad.preprocessing import BagTransformer

DETECTORS = {
    "dam": DAMAnomalyDetector(n_hidden=8, max_epochs=1, random_state=7),
    "ddl": DDLAnomalyDetector(
        hidden_dim=16, mlp_dims=(8,), dropout=0.5, max_epochs=2, random_state=7
    ),
    "mil_ranking": MILRankingAnomalyDetector(
        hidden_dims=(16, 8), max_epochs=2, random_state=7
    ),
    "rtfm": RTFMAnomalyDetector(hidden_dims=(16, 8), max_epochs=2, random_state=7),
    "sta": STAAnomalyDetector(hidden_dim=4, max_epochs=2, random_state=7),
}
BAGS, Y = make_bags(24, n_features=8, max_snippets=30, random_state=5)
each_detector = pytest.mark.parametrize("name", DETECTORS)


@pytest.fixture(autouse=True)
def _eager_switches():
    """Let threads take turns as often as Python can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(*calls):
    """Start all calls together, each in a thread, and return their results."""
    barrier = threading.Barrier(len(calls), timeout=60)

    def run(call):
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(run, c) for c in calls]]


def same(first, second):
    return all(map(np.array_equal, first, second)) and len(first) == len(second)


def fit_and_score(est):
    return clone(est).fit(BAGS, Y).score_snippets(BAGS)


# One fitted detector ------------------------------------------------------
@each_detector
def test_one_detector_in_many_threads(name):
    est = clone(DETECTORS[name]).set_params(n_jobs=1).fit(BAGS, Y)
    scores, video = est.score_snippets(BAGS), est.decision_function(BAGS)
    auc = frame_roc_auc_scorer(est, BAGS, Y)
    found = at_once(
        *[partial(est.score_snippets, BAGS[i:]) for i in range(0, 24, 6)],
        partial(est.decision_function, BAGS),
        partial(frame_roc_auc_scorer, est, BAGS, Y),
        partial(fit_and_score, clone(est).set_params(verbose=1)),
    )
    assert same(found[0], scores)
    # A bag's scores may depend on its batch by rounding: so each part is alone again.
    for i, part in zip(range(6, 24, 6), found[1:4], strict=True):
        assert same(part, est.score_snippets(BAGS[i:]))
    assert np.array_equal(found[4], video)
    assert found[5] == auc
    assert same(found[6], scores)  # its bars disturbed nobody


@pytest.mark.parametrize("kind", ["store", "npy", "npz", "h5"])
def test_files_first_read_by_many_threads(kind, tmp_path):
    if kind == "store":
        BAGS.save(tmp_path / "store")
    for name, bag in zip(BAGS.ids, BAGS, strict=True):
        if kind == "npy":
            np.save(tmp_path / f"{name}.npy", bag)
        elif kind == "npz":
            np.savez(tmp_path / f"{name}.npz", features=bag)
        elif kind == "h5":
            with pytest.importorskip("h5py").File(tmp_path / f"{name}.h5", "w") as file:
                file["features"] = bag

    def open_them():
        if kind == "store":
            return Bags.open(tmp_path / "store")
        if kind == "npy":
            return Bags.from_files(sorted(tmp_path.glob("*.npy")))
        return load_features(tmp_path)

    order = [BAGS.ids.tolist().index(name) for name in open_them().ids]
    est = clone(DETECTORS["mil_ranking"]).set_params(n_jobs=1).fit(BAGS, Y)
    expected = est.score_snippets(BAGS[order])
    for _ in range(3):
        shared = open_them()  # nothing is read yet
        found = at_once(*[partial(est.score_snippets, shared)] * 4, open_them)
        assert all(same(scores, expected) for scores in found[:4])


@pytest.mark.parametrize("name", ["dam", "mil_ranking"])
def test_a_stream_for_each_thread(name):
    est = clone(DETECTORS[name]).set_params(n_jobs=1).fit(BAGS, Y)

    def push(bag):
        stream = est.stream()
        return [stream.push(snippet) for snippet in bag]

    alone = [push(bag) for bag in BAGS[:6]]
    assert same(at_once(*[partial(push, bag) for bag in BAGS[:6]]), alone)


def test_a_fit_that_fails_takes_nothing_away_meanwhile():
    class Detector:
        net_ = None

        @_all_or_nothing
        def fit(self):
            self.half_ = True
            raise ValueError

    est, done = Detector(), threading.Event()
    est.net_ = "fitted"

    def fail():
        for _ in range(20_000):
            with contextlib.suppress(ValueError):
                est.fit()
        done.set()

    def watch():
        n_missing = 0
        while not done.is_set():
            n_missing += est.net_ is None
        return n_missing

    assert at_once(fail, watch) == [None, 0]
    assert vars(est) == {"net_": "fitted"}


# Several fits at once -----------------------------------------------------
def test_all_detectors_fit_at_once(tmp_path):
    BAGS.save(tmp_path / "store")
    ests = [clone(est).set_params(n_jobs=1) for est in DETECTORS.values()]
    ests.append(clone(ests[1]).set_params(validation_fraction=0.3, patience=1))
    ests.append(make_pipeline(BagTransformer(StandardScaler()), clone(ests[2])))

    def run(est, bags):
        est = clone(est).fit(bags, Y)
        return est.predict_proba(bags)

    alone = [run(est, BAGS) for est in ests]
    for _ in range(2):
        shared = Bags.open(tmp_path / "store")
        found = at_once(*[partial(run, est, shared) for est in ests])
        assert same(found, alone)


# Threads of torch ---------------------------------------------------------
def test_each_thread_has_its_own_number_of_torch_threads():
    before = torch.get_num_threads()
    steps = threading.Barrier(3, timeout=60)
    fresh = []

    def hold(n_jobs, leaves_first):
        torch.ones(2).sum()  # torch has a number for this thread from now on
        steps.wait()
        with engine.cpu_threads(n_jobs):
            steps.wait()  # both are inside
            found = [torch.get_num_threads()]
            steps.wait()
            if not leaves_first:
                steps.wait()  # the other one is outside
                found.append(torch.get_num_threads())
        found.append(torch.get_num_threads())
        if leaves_first:
            steps.wait()
        return found

    def watch():
        for _ in range(3):
            steps.wait()
        fresh.append(torch.get_num_threads())  # first use of torch in this thread
        steps.wait()
        return torch.get_num_threads()

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(hold, before + 1, True)
        last = pool.submit(hold, before + 2, False)
        assert pool.submit(watch).result() == before
        assert first.result() == [before + 1, before]
        assert last.result() == [before + 2, before + 2, before]
    assert fresh == [before]
    assert torch.get_num_threads() == before


def test_number_of_torch_threads_is_restored_when_nested():
    before = torch.get_num_threads()
    with engine.cpu_threads(before + 1):
        with engine.cpu_threads(before + 2):
            assert torch.get_num_threads() == before + 2
        with engine.cpu_threads(None):
            assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    assert at_once(torch.get_num_threads) == [before]


def test_fits_with_different_n_jobs_do_not_disturb_each_other():
    bags, y = make_bags(16, n_features=256, max_snippets=60, random_state=0)
    est = MILRankingAnomalyDetector(hidden_dims=(128, 16), max_epochs=2, random_state=0)

    def run(n_jobs):
        fitted = clone(est).set_params(n_jobs=n_jobs).fit(bags, y)
        return fitted.score_snippets(bags)

    alone = {n: run(n) for n in (1, 2)}
    found = at_once(*[partial(run, n) for n in (1, 2, 1, 2)])
    for n, scores in zip((1, 2, 1, 2), found, strict=True):
        assert same(scores, alone[n])


def test_loky_workers_share_the_cores(monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)

    def count():  # sent by value: the worker imports torch and nothing else
        import torch

        return torch.get_num_threads()

    with joblib.parallel_config("loky", n_jobs=2):
        found = joblib.Parallel()([joblib.delayed(count)()] * 2)
    assert found == [max(joblib.cpu_count() // 2, 1)] * 2


@pytest.mark.parametrize("kind", ["store", "npy", "npz"])
def test_headers_are_parsed_one_at_a_time(kind, tmp_path, monkeypatch):
    # Python 3.11 mixes up the depths of two threads inside ast.literal_eval, whenever
    # collecting garbage there lets another thread run: rare, and the reader's failure.
    inside, most = [], []

    def parse(*args, **kwargs):
        inside.append(None)
        most.append(len(inside))
        time.sleep(1e-3)
        inside.pop()
        return original(*args, **kwargs)

    original = npy_format.read_array_header_1_0
    monkeypatch.setattr(npy_format, "read_array_header_1_0", parse)

    def read(thread):
        folder = tmp_path / str(thread)
        folder.mkdir()
        if kind == "store":
            BAGS[:3].save(folder / "store")
            return list(Bags.open(folder / "store"))
        for name, bag in zip(BAGS.ids[:3], BAGS[:3], strict=True):
            save = np.save if kind == "npy" else np.savez
            save(folder / f"{name}.{kind}", bag)
        return list(load_features(folder))

    found = at_once(*[partial(read, thread) for thread in range(4)])
    assert max(most) == 1
    assert len(most) >= 4
    assert all(same(bags, list(BAGS[:3])) for bags in found)
