"""Some hundred damaged files and odd calls; `benchmarks/fuzz.py` makes thousands."""

import numpy as np
import pytest
import torch
from fuzz_cases import KINDS, judge, why_unexplained
from fuzz_files import MOST_BYTES, SUBJECTS, FileFuzz, equal, peak_memory
from hypothesis import HealthCheck, given, settings

N_FILES = 12  # of each sort
N_CASES = 15


@pytest.mark.parametrize("subject", SUBJECTS)
def test_damaged_files(subject, tmp_path):
    pytest.importorskip("h5py")
    fuzz = FileFuzz(tmp_path, seed=0, only=subject)
    outcomes = set()
    for number in range(N_FILES):
        fuzz.prepare(number)
        before = peak_memory(reset=True)
        _, outcome, wrong = fuzz.read()
        assert wrong is None, f"file {number}: {wrong}"
        assert peak_memory() - before < MOST_BYTES, f"file {number}"
        outcomes.add(outcome)
    assert "refused" in outcomes


@pytest.mark.parametrize("kind", KINDS)
def test_odd_calls(kind):
    @settings(
        max_examples=N_CASES,
        database=None,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(KINDS[kind])
    def check(case):
        _, wrong = judge(case)
        assert wrong is None

    check()


# --------------------------------------------------------------------------
# The judges themselves
# --------------------------------------------------------------------------
def test_numpys_own_errors_are_not_explained():
    with pytest.raises(ValueError, match="broadcast") as caught:
        np.zeros(2) + np.zeros(3)
    assert "broadcast" in why_unexplained(caught.value)


def test_a_lost_error_is_found(tmp_path, monkeypatch):
    """A reader that forgets to check, or to name its file, is an offender."""
    name, write, read = SUBJECTS["split"]

    def run(careless):
        monkeypatch.setitem(SUBJECTS, "split", (name, write, careless))
        fuzz = FileFuzz.__new__(FileFuzz)
        fuzz.seed, fuzz.names = 0, ["split"]
        fuzz.paths = {"split": tmp_path / name}
        write(tmp_path / name)
        fuzz.good = {"split": (tmp_path / name).read_bytes()}
        fuzz.results = {"split": read(tmp_path / name)}
        return {fuzz.run(number)[1] for number in range(40)}

    assert run(read) == {"refused", "same", "changed"}
    assert run(lambda path: path.read_text().index("Abuse001")) >= {"unexplained"}


def test_equal():
    ones = [np.ones(2), {"a": torch.ones(2)}, "b"]
    assert equal(ones, [np.ones(2), {"a": torch.ones(2)}, "b"])
    assert not equal(ones, [np.ones(2, "f4"), {"a": torch.ones(2)}, "b"])
    assert not equal(ones, [np.ones(2), {"a": torch.zeros(2)}, "b"])
    assert not equal(ones, ones[:2])
