"""
What frame AUC does not say
===========================

Frame AUC pools the frames of all videos. A detector that knows only *which videos* are
anomalous, and gives all frames of a video one score, has a high one. Two other metrics
show what is missing.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import train_test_split

from sklearn_vad import MILRankingAnomalyDetector
from sklearn_vad.datasets import make_bags
from sklearn_vad.metrics import (
    anomalous_roc_auc_score,
    balanced_frame_roc_auc_score,
    frame_roc_auc_score,
)

bags, y = make_bags(200, difficulty=0.3, random_state=0)
train, test = train_test_split(range(200), test_size=0.5, stratify=y, random_state=0)
detector = MILRankingAnomalyDetector(random_state=0).fit(bags[train], y[train])
bags, y = bags[test], y[test]
scores = detector.score_snippets(bags)

# %%
# Beside the detector's scores, controls that can't tell one frame of a video from
# another: the highest score of the video for all of its frames, its true label, and
# its length, without a look at any feature.

candidates = {
    "MIL ranking": scores,
    "its highest score, flat": [np.full_like(s, s.max()) for s in scores],
    "true video labels, flat": [
        np.full(len(s), float(label))
        for s, label in zip(scores, y.video_labels, strict=True)
    ],
    "minus length, flat": [np.full(len(s), 1 / len(s)) for s in scores],
}
metrics = {
    "frame AUC": frame_roc_auc_score,
    "balanced: videos weigh the same": balanced_frame_roc_auc_score,
    "inside anomalous videos": anomalous_roc_auc_score,
}

# %%
# Flat scores reach most of the detector's frame AUC. Inside anomalous videos it shows
# that they find nothing: true labels are at chance, and the highest score is above it
# only since videos with long events have higher ones. (In some real data sets minus
# length has a high frame AUC, too: normal videos are longer there.)

figure, ax = plt.subplots(figsize=(8, 4), layout="constrained")
height = 0.25
for i, (label, metric) in enumerate(metrics.items()):
    values = [metric(y, own) for own in candidates.values()]
    rows = np.arange(len(candidates)) + (i - 1) * height
    bars = ax.barh(rows, values, 0.9 * height, label=label)
    ax.bar_label(bars, fmt="%.2f", padding=3)
ax.axvline(0.5, color="0.5", lw=0.8)
ax.set_yticks(range(len(candidates)), candidates)
ax.invert_yaxis()
ax.set(xlim=(0, 1.08), xlabel="area under the ROC curve; 0.5 is chance")
ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3, frameon=False)
plt.show()
