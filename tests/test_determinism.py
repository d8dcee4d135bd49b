"""One seed, one result: to the bit, in any process or thread; nothing global moves."""

import hashlib
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed, parallel_config
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

from sklearn_vad import (
    DAMAnomalyDetector,
    DDLAnomalyDetector,
    MILRankingAnomalyDetector,
    RTFMAnomalyDetector,
    STAAnomalyDetector,
)
from sklearn_vad.datasets import make_bags
from sklearn_vad.metrics import frame_roc_auc_scorer

DETECTORS = {
    "dam": DAMAnomalyDetector(n_hidden=32, max_epochs=3, random_state=7, n_jobs=1),
    "ddl": DDLAnomalyDetector(
        hidden_dim=32, mlp_dims=(32, 16), max_epochs=3, random_state=7, n_jobs=1
    ),
    "mil_ranking": MILRankingAnomalyDetector(max_epochs=3, random_state=7, n_jobs=1),
    "rtfm": RTFMAnomalyDetector(
        hidden_dims=(32, 16), max_epochs=3, random_state=7, n_jobs=1
    ),
    "sta": STAAnomalyDetector(hidden_dim=8, max_epochs=3, random_state=7, n_jobs=1),
}


def data():
    return make_bags(30, n_features=16, max_snippets=40, random_state=5)


def fingerprint(name, **params):
    """Fit, score, and return a digest of all the bits of the scores."""
    bags, y = data()
    est = clone(DETECTORS[name]).set_params(**params).fit(bags, y)
    return hashlib.sha256(np.concatenate(est.score_snippets(bags))).hexdigest()


@pytest.fixture(params=list(DETECTORS))
def name(request):
    return request.param


def test_twice_in_a_process(name):
    assert fingerprint(name) == fingerprint(name)
    assert fingerprint(name) != fingerprint(name, random_state=8)


def test_in_a_fresh_process(name):
    code = (
        f"from tests.test_determinism import fingerprint; print(fingerprint({name!r}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == fingerprint(name)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_in_parallel_workers(name, backend):
    expected = [fingerprint(name, random_state=seed) for seed in (7, 8, 9, 10)]
    with parallel_config(backend, n_jobs=2):
        found = Parallel()(
            delayed(fingerprint)(name, random_state=seed) for seed in (7, 8, 9, 10)
        )
    assert found == expected


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_cross_validation_in_parallel(name, backend):
    bags, y = data()
    serial = cross_val_score(
        DETECTORS[name], bags, y, scoring=frame_roc_auc_scorer, cv=3
    )
    with parallel_config(backend, n_jobs=2):
        parallel = cross_val_score(
            DETECTORS[name], bags, y, scoring=frame_roc_auc_scorer, cv=3
        )
    assert np.array_equal(serial, parallel)


def test_nothing_global_moves(name):
    bags, y = data()
    est = clone(DETECTORS[name]).set_params(validation_fraction=0.3)

    def states():
        return (
            random.getstate(),
            np.random.get_state()[1].tobytes(),  # noqa: NPY002
            torch.get_rng_state().numpy().tobytes(),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
        )

    before = states()
    est.fit(bags, y)
    est.partial_fit(bags, y)
    est.score_snippets(bags)
    clone(est).set_params(random_state=None).fit(bags, y)
    assert states() == before


def test_global_seeds_do_not_matter(name):
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    first = fingerprint(name)
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    assert fingerprint(name) == first


def test_no_seed_means_fresh_entropy(name):
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    first = fingerprint(name, random_state=None)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert fingerprint(name, random_state=None) != first


def test_generators_as_random_state(name):
    for make in (np.random.default_rng, np.random.RandomState):
        first = fingerprint(name, random_state=make(3))
        assert fingerprint(name, random_state=make(3)) == first
    shared = np.random.default_rng(3)
    first = fingerprint(name, random_state=shared)
    assert fingerprint(name, random_state=shared) != first  # it moved on


def test_threads_are_restored_after_an_error(name):
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="one class"):
        clone(DETECTORS[name]).set_params(n_jobs=before + 1).fit([np.ones((2, 3))], [1])

    class Broken(type(DETECTORS[name])):
        def _make_module(self, n_features):
            assert torch.get_num_threads() == before + 1
            raise RuntimeError("broken")

    bags, y = data()
    with pytest.raises(RuntimeError, match="broken"):
        Broken(n_jobs=before + 1).fit(bags, y)
    assert torch.get_num_threads() == before
