"""The study's own parts: splits, length matching, intervals, and its bookkeeping."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from sklearn_vad import Bags, FrameLabels
from sklearn_vad.datasets import make_bags
from sklearn_vad.metrics import frame_roc_auc_score

BENCHMARKS = str(Path(__file__).parents[1] / "benchmarks")


@pytest.fixture(scope="module")
def study():
    sys.path.insert(0, BENCHMARKS)
    try:
        import study
        import study_data
        import study_report
        import study_settings
    finally:
        sys.path.remove(BENCHMARKS)
    study.data, study.report, study.settings = study_data, study_report, study_settings
    return study


@pytest.fixture(autouse=True)
def no_trace_of_a_run():
    yield
    torch.set_flush_denormal(False)  # which a run sets, in a worker of its own


def test_every_video_is_reported_once_and_groups_stay_together(study):
    y = np.arange(200) % 2
    groups = np.arange(200) // 2 % 60 * 2 + y  # of one label each
    reported = []
    for seed in range(5):
        parts = study.data.split(y, groups, seed)
        assert sorted(np.concatenate(parts)) == list(range(200))
        owners = [set(groups[rows]) for rows in parts]
        assert not owners[0] & owners[1] | owners[0] & owners[2] | owners[1] & owners[2]
        assert all(0 < y[rows].mean() < 1 for rows in parts)
        reported += list(parts.report)
    assert sorted(reported) == list(range(200))


def test_matched_videos_have_the_same_lengths(study):
    rng = np.random.default_rng(0)
    n_frames = np.concatenate(
        [rng.integers(50, 200, 40), np.int64(60 * 50 ** rng.random(60))]
    )
    y = np.arange(100) < 40
    masks = [np.arange(n) < (n // 2) * a for n, a in zip(n_frames, y, strict=True)]
    kept = study.data.match_lengths(FrameLabels(masks))
    lengths = np.log(n_frames[kept])
    labels = y[kept]
    assert len(set(kept)) == len(kept) == 2 * labels.sum() > 10
    pairs = np.sort(lengths[labels]) - np.sort(lengths[~labels])
    assert np.abs(pairs).max() <= np.log(1.25) + 1e-12
    assert roc_auc_score(y, -n_frames) > 0.85
    assert abs(roc_auc_score(labels, -lengths) - 0.5) < 0.15


def test_resampled_auc_is_that_of_the_drawn_videos(study):
    bags, labels = make_bags(12, max_snippets=20, random_state=0)
    rng = np.random.default_rng(0)
    scores = [rng.integers(0, 6, len(bag)) / 6 for bag in bags]  # with ties
    videos = study.data.Videos(bags, labels, np.arange(12))
    draws = np.stack([np.ones(12, dtype=int), rng.permutation(np.arange(12) % 3)])
    found = study.report.resampled_aucs(videos, np.concatenate(scores), draws)
    for auc, draw in zip(found, draws, strict=True):
        drawn = np.repeat(np.arange(12), draw)
        expected = frame_roc_auc_score(
            FrameLabels([labels.masks[i] for i in drawn]), [scores[i] for i in drawn]
        )
        assert auc == pytest.approx(expected, abs=1e-12)


def test_draws_are_of_videos_of_their_class_among_those_allowed(study):
    labels = np.array([0, 0, 0, 1, 1, 0])
    among = np.array([True, True, False, True, True, True])
    draws = study.report.draw_videos(labels, among, np.random.default_rng(0))
    assert (draws[:, 2] == 0).all()
    assert (draws[:, [0, 1, 5]].sum(axis=1) == 3).all()
    assert (draws[:, [3, 4]].sum(axis=1) == 2).all()
    assert np.abs(draws[:, among].mean(axis=0) - 1).max() < 0.15


def test_run_is_resumed_and_its_key_knows_what_matters(study, tmp_path, monkeypatch):
    Setting = study.settings.Setting
    small = {"max_epochs": 1, "hidden_dims": (4, 3)}
    monkeypatch.setitem(study.data.DATASETS, "tiny", _tiny(study))
    setting = Setting("tiny", "tiny", "MIL ranking", small)
    study.run(setting, None, 0, tmp_path, tmp_path)
    (path,) = tmp_path.glob("*.json")
    row, before = json.loads(path.read_text()), path.stat().st_mtime_ns
    assert row["seed"] == 0
    assert 0 <= row["report_0"]["frame_roc_auc_score"] <= 1
    assert row["report_1"]["video_roc_auc"] == row["report_0"]["video_roc_auc"]
    study.run(setting, None, 0, tmp_path, tmp_path)
    assert path.stat().st_mtime_ns == before
    keys = {
        study.key_of(one, study.make(one, lr, seed), seed)
        for one in (setting, setting._replace(fixed=True, name="renamed"))
        for lr in (None, 0.5)
        for seed in (0, 1)
    }
    assert len(keys) == 8
    renamed = setting._replace(name="renamed")
    assert study.key_of(renamed, study.make(renamed, None, 0), 0) == path.stem


def _tiny(study):
    def load(data, cache, seed):
        bags, labels = make_bags(40, max_snippets=12, random_state=seed)
        return study.data.Videos(Bags.from_list(list(bags)), labels, np.arange(40))

    return load
