"""Options and data that several tests share."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")
# Tests run in several processes: one thread each, or they wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Without it, scikit-learn skips its checks of array-API input.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

from pathlib import Path

import pytest

from sklearn_vad.datasets import make_bags


def pytest_addoption(parser):
    parser.addoption("--data", default=None, help="folder with the real data sets")


@pytest.fixture(scope="session")
def data_dir(request):
    """Folder of real data, or a skip that says how to name it."""
    folder = request.config.getoption("--data") or os.environ.get("SKLEARN_VAD_DATA")
    if folder is None:
        pytest.skip("real data not given: pytest --data=DIR")
    return Path(folder)


@pytest.fixture(scope="session")
def small():
    """A few short synthetic videos, as (Bags, FrameLabels)."""
    return make_bags(24, n_features=6, max_snippets=24, difficulty=0.0, random_state=0)
