"""docs/speed.md and the README say what the speed harness found, and no more."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sklearn_vad import DDLAnomalyDetector

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def speed():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import speed
        import speed_report
        import speed_rounds
        import speed_training
        import straightforward
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    return SimpleNamespace(
        command=speed,
        report=speed_report,
        rounds=speed_rounds,
        training=speed_training,
        straightforward=straightforward,
    )


@pytest.fixture(scope="module")
def results():
    return json.loads((DOCS / "speed.json").read_text(encoding="utf-8"))


# --------------------------------------------------------------------------
# What is written
# --------------------------------------------------------------------------
def test_page_is_made_of_the_results_file(speed, results):
    assert speed.report.render(results) == (DOCS / "speed.md").read_text("utf-8")


def test_every_case_has_its_section_and_its_results(speed, results):
    template = (DOCS / "speed.md.in").read_text("utf-8")
    assert set(results["cases"]) == set(speed.command.CASES)
    assert re.findall(r"^### (\w+)$", template, re.M) == re.findall(
        r"^\$(\w+)$", template, re.M
    )
    assert set(re.findall(r"^\$(\w+)$", template, re.M)) == set(speed.command.CASES)


def test_nothing_measured_stands_in_the_text_itself():
    text = (DOCS / "speed.md.in").read_text("utf-8")
    assert re.findall(r"\d ?%|\d times|\d (?:m?s|seconds|MiB)\b", text) == []


def test_claims_of_the_readme_are_borne_out(speed, results):
    text = (ROOT / "README.md").read_text("utf-8")
    assert speed.report.unfounded(text, results) == []


def test_unfounded_claims_are_found(speed):
    row = {"ratios": {"ours": 2.34}, "of_floor": {"ours": 0.871}, "values": {"a": 51.2}}
    results = {"cases": {"step": {"rows": [row]}}}
    link = "(docs/speed.md#step)"
    for fine in (
        f"A [step]{link} is 2.3 times as fast, 87 % of the floor.",
        f"2 times, [51\ntimes]{link}",
        "One to three times a day. A share of 12 %.",
    ):
        assert speed.report.unfounded(fine, results) == []
    for text, expected in (
        (f"A [step]{link} is 2.4 times as fast.", ["2.4 times"]),
        (f"[step]{link}: 88 % of the floor", ["88 %"]),
        ("[read](docs/speed.md#read) is fast", ["read"]),
        ("It is 3 times as fast.", ["3 times as fast"]),
    ):
        assert speed.report.unfounded(text, results) == expected


def test_picture_of_the_page_exists():
    pictures = re.findall(r"\]\((images/[^)]+)\)", (DOCS / "speed.md").read_text())
    assert pictures
    assert [p for p in pictures if not (DOCS / p).is_file()] == []


# --------------------------------------------------------------------------
# How it is measured
# --------------------------------------------------------------------------
def test_ratios_and_floors_are_of_medians(speed):
    seconds = {"straightforward": [3.0, 1.0, 8.0], "ours": [1.0, 9.0, 1.5]}
    row = {"name": "a", "seconds": seconds, "floors": {"ours": [0.3, 0.1, 1.2]}}
    row = speed.rounds.summarise({**row, "base": None, "values": {}})
    assert row["medians"] == {"straightforward": 3.0, "ours": 1.5}
    assert row["ratios"] == {"ours": 2.0}
    assert row["of_floor"]["ours"] == pytest.approx(0.2)
    other = speed.rounds.summarise({**row, "base": "ours"})
    assert other["ratios"] == {"straightforward": 0.5}


def test_ways_take_turns_and_the_fastest_probe_is_the_floor(speed, monkeypatch):
    now, called = [0.0], []
    monkeypatch.setattr(speed.rounds.time, "perf_counter", lambda: now[0])

    def way(name, seconds):
        def call():
            called.append(name)
            now[0] += seconds

        return call

    probes = [
        speed.rounds.Probe(way("x", 0.5), 2),
        speed.rounds.Probe(way("y", 3), 0.1),
    ]
    ways = {"straightforward": way("s", 4), "ours": way("o", 2)}
    row = speed.rounds.compare("a", ways, 2, floors={"ours": probes}, n_videos=7)
    assert called == ["s", "o", "x", "y"] * 3
    assert row["seconds"] == {"straightforward": [4, 4], "ours": [2, 2]}
    assert row["floors"]["ours"] == pytest.approx([0.3, 0.3])
    assert row["of_floor"]["ours"] == pytest.approx(0.15)
    assert row["values"] == {"n_videos": 7}


def test_results_that_differ_end_the_case(speed):
    check = speed.rounds.check_equal
    assert check("a", [np.ones(2), 3.0], [np.ones(2), 3.000001]) == pytest.approx(1e-6)
    for wrong in (1.1, np.nan):
        with pytest.raises(SystemExit, match="a: results differ"):
            check("a", [1.0], [wrong])


def test_growth_is_the_slope_of_logs(speed):
    assert speed.rounds.exponent([10, 100], [3, 300]) == pytest.approx(2)


@pytest.mark.parametrize("training", [False, True])
def test_floor_of_ddl_counts_the_products_of_the_straightforward_form(speed, training):
    lengths, width = [3, 7], 16
    net = speed.straightforward.LANet(width).train(training)
    with FlopCounterMode(display=False) as counter:
        for n in lengths:
            scores, features = net(torch.randn(1, n, width), torch.ones(1, n).bool())
            if training:
                (scores.sum() + features.sum()).backward()
    counted = counter.get_total_flops()
    expected = speed.training.lanet_flops(lengths, width, training)
    padding = 128 * 9 * 2 * len(lengths) * (3 if training else 1)
    assert counted == pytest.approx(expected, abs=padding)


def test_step_and_straightforward_step_agree_at_ragged_lengths(speed):
    rng = np.random.default_rng(0)
    bags = [np.float32(rng.normal(size=(n, 8))) for n in (1, 2, 33, 17)]
    y = np.float32([0, 1, 1, 0])
    found = speed.training.check_step(bags, y)
    assert found["loss_differs_by"] < 1e-5
    assert found["gradient_differs_by"] < 1e-5


def test_straightforward_scores_are_those_of_the_detector(speed):
    rng = np.random.default_rng(0)
    bags = [np.float32(rng.normal(size=(n, 8))) for n in (5, 40, 1)]
    est = DDLAnomalyDetector(max_epochs=1, random_state=0).fit(bags, [0, 1, 0])
    net = speed.straightforward.LANet(8)
    net.load_state_dict(est.net_.module_.state_dict())
    plain = speed.straightforward
    scores = plain.score_videos(plain.score_with_lanet, net, bags)
    for ours, theirs in zip(est.score_snippets(bags), scores, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_command_writes_a_case_and_keeps_the_others(speed, tmp_path, monkeypatch):
    out = tmp_path / "speed.json"
    out.write_text('{"cases":{"kept":{"rows":[]}}}')
    script = str(ROOT / "benchmarks" / "speed.py")
    command = [sys.executable, script, "--quick", "--rounds", "1", "--out", str(out)]
    run = subprocess.run(
        [*command, "--cases", "metrics"], capture_output=True, text=True, check=True
    )
    assert "metrics" in run.stdout
    record = json.loads(out.read_text())["cases"]
    assert record["kept"] == {"rows": []}
    record = record["metrics"]
    assert record["settings"]["quick"]
    assert record["machine"]["torch"] == torch.__version__
    row = record["rows"][0]
    assert row["values"]["differ_by"] <= 1e-12
    medians = row["medians"]
    expected = medians["straightforward"] / medians["ours"]
    assert row["ratios"]["ours"] == pytest.approx(expected, rel=1e-3)
    assert list(tmp_path.iterdir()) == [out]
    wrong = subprocess.run(
        [*command, "--cases", "metric"], capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 1
    assert "no case metric" in wrong.stderr
