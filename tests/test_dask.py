"""Searches on a dask cluster: two worker processes, one of which is killed."""

import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_validate
from sklearn.pipeline import make_pipeline

from sklearn_vad import (
    Bags,
    DDLAnomalyDetector,
    EnsembleAnomalyDetector,
    MILRankingAnomalyDetector,
)
from sklearn_vad.datasets import make_bags
from sklearn_vad.metrics import frame_roc_auc_scorer, frame_scorers

distributed = pytest.importorskip("distributed")

MIL = MILRankingAnomalyDetector(
    hidden_dims=(16, 8), max_epochs=1, random_state=0, n_jobs=1
)
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Things that dask 2026 does when workers come and go; none of them is ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def client():
    with pytest.MonkeyPatch.context() as patch:
        for name in THREADS:  # what dask itself would set
            patch.setenv(name, "")
            patch.delenv(name)
        options = {"threads_per_worker": 1, "dashboard_address": None}
        with (
            distributed.LocalCluster(2, host="127.0.0.1", **options) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """As many videos as make dask treat index arrays as data: see `plain_splits`."""
    bags, y = make_bags(270, n_features=512, max_snippets=14, random_state=5)
    store = tmp_path_factory.mktemp("data") / "store"
    bags.save(store)
    return Bags.open(store), y


def plain_splits(y, n_splits=2):
    """Splits as lists: arrays above 1 kB would lie on one worker, and die with it."""
    splits = StratifiedKFold(n_splits).split(np.zeros(len(y)), y)
    return [(train.tolist(), test.tolist()) for train, test in splits]


def test_workers_use_one_torch_thread_each(client):
    def count():
        import torch

        return torch.get_num_threads()

    with joblib.parallel_config("dask"):
        found = joblib.Parallel()([joblib.delayed(count)()] * 4)
    assert found == [1] * 4


class Diary(TransformerMixin, BaseEstimator):
    """Changes nothing, takes a while, and writes down which process fits."""

    def __init__(self, path=None):
        self.path = path

    def fit(self, X, y):
        with open(self.path, "a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.15)
        return self

    def transform(self, X):
        return X

    def __sklearn_is_fitted__(self):
        return True


def kill_when(path, n_fits, killed):
    """Kill the process that begins so many fits with this one."""
    for _ in range(3000):
        started = path.read_text().split() if path.exists() else []
        if len(started) >= n_fits:
            killed.append(int(started[n_fits - 1]))
            os.kill(killed[0], signal.SIGKILL)
            return
        time.sleep(0.02)


def test_search_survives_a_killed_worker(client, data, tmp_path):
    bags, y = data
    path, killed = tmp_path / "diary", []
    search = GridSearchCV(
        make_pipeline(Diary(path), MIL),
        {"milrankinganomalydetector__lr": [1e-2, 1e-3, 1e-4]},
        scoring={"frame_auc": frame_roc_auc_scorer, "video_auc": "roc_auc"},
        refit="frame_auc",
        cv=plain_splits(y),
        error_score="raise",
    )
    serial = clone(search).fit(bags, y)
    path.unlink()
    workers = set(client.run(os.getpid).values())
    killer = threading.Thread(target=kill_when, args=(path, 3, killed), daemon=True)
    killer.start()
    with joblib.parallel_config("dask"):
        search.fit(bags, y)
    killer.join()
    assert set(killed) < workers  # one of two
    assert len(path.read_text().split()) > 6 + 1  # one fit at least was done again
    for name in (f"split{i}_test_{m}_auc" for i in (0, 1) for m in ("frame", "video")):
        assert np.array_equal(search.cv_results_[name], serial.cv_results_[name])
    assert search.best_params_ == serial.best_params_
    assert np.array_equal(
        search.decision_function(bags), serial.decision_function(bags)
    )


def test_same_bits_as_serial(client, data):  # other backends: test_determinism
    bags, y = data
    ddl = DDLAnomalyDetector(
        hidden_dim=16, mlp_dims=(8,), max_epochs=1, random_state=0, n_jobs=1
    )
    est = EnsembleAnomalyDetector([ddl, MIL], random_state=0)
    scores = {}
    for backend in ("sequential", "dask"):
        with joblib.parallel_config(backend):
            found = cross_validate(
                est, bags, y, scoring=frame_scorers, cv=plain_splits(y)
            )
        scores[backend] = found["test_frame_roc_auc"].tolist()
        scores[backend] += found["test_frame_average_precision"].tolist()
    assert scores["dask"] == scores["sequential"]
    assert np.isfinite(scores["dask"]).all()


def test_what_is_sent_is_small(client, data, monkeypatch):
    """Measured on the wire: all that the scheduler gets for a search."""
    bags, y = data
    assert bags.lengths.sum() * bags.n_features * bags.dtype.itemsize > 4e6
    sent = []
    submit = client.submit

    def spy(function, **kwargs):
        frames = distributed.protocol.serialize((function, kwargs["tasks"]))[1]
        sent.append(sum(map(len, frames)))
        return submit(function, **kwargs)

    monkeypatch.setattr(client, "submit", spy)
    monkeypatch.setattr(client, "scatter", None)  # nothing is data
    search = GridSearchCV(
        MIL, {"lr": [1e-2, 1e-3]}, scoring=frame_roc_auc_scorer, cv=plain_splits(y)
    )
    with joblib.parallel_config("dask", client=client):
        search.fit(bags, y)
    assert len(sent) >= 2
    assert sum(sent) < 4 * 20_000  # four fits
    assert len(pickle.dumps(bags)) < 1_000


@pytest.mark.parametrize(
    "scorer", [frame_scorers, frame_roc_auc_scorer, get_scorer("roc_auc")], ids=repr
)
def test_scorers_give_the_same_after_a_journey(scorer, small):
    bags, y = small
    est = clone(MIL).fit(bags, y)
    there = pickle.loads(pickle.dumps((scorer, est, bags, y)))
    assert there[0](*there[1:]) == scorer(est, bags, y)


DOCS = Path(__file__).parents[1] / "docs" / "cluster.md"
SMALLER = {
    '"tcp://login1:8786"': "ADDRESS",
    "MILRankingAnomalyDetector(max_epochs=20": "MILRankingAnomalyDetector(max_epochs=1",
}


def test_code_of_the_docs_runs(client, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python( no-test)?\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert [bool(unfit) for unfit, _ in blocks] == [
        False,
        True,
        True,
        False,
        False,
        True,
    ]
    for _, block in blocks:
        compile(block, "cluster.md", "exec")
    code = "\n".join(block for unfit, block in blocks if not unfit)
    for large, small in SMALLER.items():
        assert large in code
        code = code.replace(large, small)
    names = {"ADDRESS": client.scheduler.address}
    try:
        exec(compile(code, "cluster.md", "exec"), names)
    finally:
        names["client"].close()
    assert names["client"].id != client.id
    assert "lr" in capsys.readouterr().out
    assert 0 <= names["search"].best_score_ <= 1


def test_script_of_the_docs_runs(tmp_path):
    (script,) = re.findall(r"```python script\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert "max_epochs=20" in script
    path = tmp_path / "search.py"
    path.write_text(script.replace("max_epochs=20", "max_epochs=1"))
    run = subprocess.run(
        [sys.executable, path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "'lr': 0.001" in run.stdout or "'lr': 0.0001" in run.stdout
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2 * 3 + 1
