"""
Comparing detectors
===================

All detectors are scikit-learn classifiers of videos: ``cross_validate`` compares them,
with scorers that look at frames.

The videos are synthetic, and small networks are enough for them. What the methods do
on real features, with seeds and intervals, is among the results of this site.
"""

import matplotlib.pyplot as plt
from sklearn.model_selection import StratifiedKFold, cross_validate

from sklearn_vad import (
    DAMAnomalyDetector,
    DDLAnomalyDetector,
    MILRankingAnomalyDetector,
    STAAnomalyDetector,
)
from sklearn_vad.datasets import make_bags
from sklearn_vad.metrics import frame_scorers

bags, y = make_bags(90, n_features=16, difficulty=0.2, max_snippets=50, random_state=0)
common = {"max_epochs": 8, "batch_size": 30, "random_state": 0}  # few videos
detectors = {
    "MIL ranking": MILRankingAnomalyDetector(**common),
    "DDL": DDLAnomalyDetector(
        hidden_dim=32, mlp_dims=(64, 32), sigma=1.0, kernel_size=3, lr=1e-2, **common
    ),
    "DAM": DAMAnomalyDetector(n_hidden=32, lr=1e-2, **common),
    "STA": STAAnomalyDetector(
        n_segments=16, n_channels=4, hidden_dim=32, fc_dims=(32,), lr=5e-3, **common
    ),
}

# %%
# One inference of a fold gives both frame metrics; ``y`` holds the frame labels, and
# passes for the labels of the videos where ``fit`` is concerned.

cv = StratifiedKFold(3, shuffle=True, random_state=0)
options = {"scoring": frame_scorers, "cv": cv, "return_estimator": True}
found = {
    name: cross_validate(est, bags, y, **options) for name, est in detectors.items()
}

# %%
# Points are folds, bars their means. Where the folds of a method lie further apart than
# the methods do, a single split would have said little.

columns = {
    "test_frame_roc_auc": "frame AUC",
    "test_frame_average_precision": "frame average precision",
}
figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True, layout="constrained")
for ax, (column, label) in zip(axes, columns.items(), strict=True):
    for row, name in enumerate(found):
        values = found[name][column]
        ax.plot(values, [row] * len(values), "o", color="tab:blue", alpha=0.5)
        ax.plot(values.mean(), row, "|", color="k", ms=22, mew=2)
    ax.set_xlabel(label)
    ax.grid(axis="x", alpha=0.3)
axes[0].set_yticks(range(len(found)), found)
axes[0].set_ylim(len(found) - 0.5, -0.5)
plt.show()

# %%
# Curves say more than their areas: how many of the anomalous frames are found at few
# false alarms? They are of the first fold, whose videos its detectors have not seen.

from sklearn_vad.display import FramePrecisionRecallDisplay, FrameRocDisplay

_, test = next(cv.split(bags, y))
figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
for name in found:
    est = found[name]["estimator"][0]
    for display, ax in zip(
        (FrameRocDisplay, FramePrecisionRecallDisplay), axes, strict=True
    ):
        display.from_estimator(est, bags[test], y[test], name=name, ax=ax)
plt.show()

# %%
# And one of these videos over time. MIL ranking looks at each snippet alone; DDL looks
# at its neighbours, too, and its scores stay high through an event.

from sklearn_vad.display import ScoreTimelineDisplay

longest = sorted(test, key=lambda i: -bags.lengths[i] * y.video_labels[i])
video = longest[1]
figure, ax = plt.subplots(figsize=(8, 2.6), layout="constrained")
for name in ("MIL ranking", "DDL"):
    ScoreTimelineDisplay.from_estimator(
        found[name]["estimator"][0], bags[video], y.masks[video], name=name, ax=ax
    )
plt.show()
