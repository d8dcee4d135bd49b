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

bags, y = make_bags(100, n_features=32, difficulty=0.2, max_snippets=60, random_state=0)
detectors = {
    "MIL ranking": MILRankingAnomalyDetector(max_epochs=10, random_state=0),
    "DDL": DDLAnomalyDetector(
        hidden_dim=64, sigma=1.0, kernel_size=3, lr=1e-3, max_epochs=8, random_state=0
    ),
    "DAM": DAMAnomalyDetector(n_hidden=64, lr=1e-3, max_epochs=8, random_state=0),
    "STA": STAAnomalyDetector(lr=1e-3, max_epochs=8, random_state=0),
}

# %%
# One inference of a fold gives both frame metrics; ``y`` holds the frame labels, and
# passes for the labels of the videos where ``fit`` is concerned.

cv = StratifiedKFold(3, shuffle=True, random_state=0)
found = {
    name: cross_validate(est, bags, y, scoring=frame_scorers, cv=cv)
    for name, est in detectors.items()
}

# %%
# Points are folds, bars their means. Three folds of a hundred videos differ among
# themselves as much as the methods do: that is what a single split would have hidden.

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
