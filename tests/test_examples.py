"""The short examples run, and print what they promise."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name, folder):
    command = [sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_features_to_grid_search(tmp_path):
    out = run("features_to_grid_search.py", tmp_path)
    assert "60 videos, 30 of them anomalous" in out
    values = [float(line.rsplit(" ", 1)[1]) for line in out.splitlines()[1:]]
    assert len(values) == 2
    assert min(values) > 0.7


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ["av", "efficientnet_lite_pytorch"])),
    reason="needs the extra 'video'",
)
def test_videos_to_scores(tmp_path):
    out = run("videos_to_scores.py", tmp_path)
    assert "frame_roc_auc_score" in out
    assert list(tmp_path.glob("*.png"))
