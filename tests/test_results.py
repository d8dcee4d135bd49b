"""docs/results.md and the README say what the results file says, and no more."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def report():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import study_report
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    return study_report


@pytest.fixture(scope="module")
def results():
    return json.loads((DOCS / "results.json").read_text(encoding="utf-8"))


def test_page_is_made_of_the_results_file(report, results):
    assert report.render(results) == (DOCS / "results.md").read_text(encoding="utf-8")


def test_nothing_measured_stands_in_the_text_itself():
    text = (DOCS / "results.md.in").read_text(encoding="utf-8")
    # Settings have one or two decimals, or are rates in the manner of 1e-3.
    assert re.findall(r"\d\.\d{3,}", text) == []
    assert re.findall(r"[+-]0\.\d|± ?\d|\bAUC (?:of )?\d", text) == []


def test_table_of_the_readme_is_made_of_the_results_file(report, results):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert report.readme_text(results) in text


def test_every_row_says_how_it_was_made(results):
    for rows in results["tables"].values():
        seeds = {}
        for row in rows:
            seeds.setdefault(row["name"], []).append(row["seed"])
            if not row["name"].startswith("control") and "method" in row:
                assert row["parameters"]["random_state"] == row["seed"]
                assert row["n_epochs"] >= row["best_epoch"] >= 1
                assert row["seconds"] > 0
        expected = list(range(results["n_seeds"]))
        assert all(own == expected for own in seeds.values())
        assert len(seeds) >= 3


def test_changed_results_change_the_page(report, results):
    changed = json.loads(json.dumps(results))
    changed["tables"]["c3d"][0]["metrics"]["frame_roc_auc_score"] += 0.1
    page = (DOCS / "results.md").read_text(encoding="utf-8")
    assert report.render(changed) != page


def test_tables_without_new_runs_stay(report, results):
    row = {"name": "a", "seed": 0, "metrics": {}}
    new = {"n_seeds": 7, "tables": {"x3d": [row]}, "differences": {"x3d": []}}
    merged = report.merge(results, new)
    assert merged["tables"]["x3d"] == [row]
    assert merged["tables"]["c3d"] == results["tables"]["c3d"]
    assert merged["differences"]["c3d"] == results["differences"]["c3d"]
    assert merged["agreement"] == results["agreement"]
    assert merged["n_seeds"] == 7
    old = {**results, "tables": {**results["tables"], "gone": [row]}}
    assert "gone" not in report.merge(old, new)["tables"]


def test_pictures_of_the_page_exist():
    page = (DOCS / "results.md").read_text(encoding="utf-8")
    pictures = re.findall(r"\]\((images/[^)]+)\)", page)
    assert len(pictures) >= 5
    assert [p for p in pictures if not (DOCS / p).is_file()] == []
