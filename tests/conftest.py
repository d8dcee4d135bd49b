"""Options and data that several tests share."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")

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
        pytest.skip("real data not given: pytest --data DIR")
    return Path(folder)


@pytest.fixture(scope="session")
def small():
    """A few short synthetic videos, as (Bags, FrameLabels)."""
    return make_bags(24, n_features=6, max_snippets=24, difficulty=0.0, random_state=0)
