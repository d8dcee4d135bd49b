"""
DDL: what its losses do to the scores
=====================================

With the multiple instance loss alone, scores are high somewhere in an anomalous video.
The dynamics losses look at how scores change from snippet to snippet.

The paper's Fig. 3 shows scores before and after them; here are synthetic videos.
"""

import numpy as np

from sklearn_vad import DDLAnomalyDetector
from sklearn_vad.datasets import make_bags

bags, y = make_bags(140, n_features=32, difficulty=0.4, max_snippets=60, random_state=0)
train, test = np.arange(110), np.arange(110, 140)

# %%
# Three detectors, alike but for their losses. The weights and the margin are larger
# than the defaults, so that what they do is seen after a short training; a convolution
# over one snippet smooths nothing by itself.

losses = {
    "MIL alone": {"ranking_weight": 0, "alignment_weight": 0},
    "and ranking": {"ranking_weight": 1, "margin": 1.0, "alignment_weight": 0},
    "and alignment": {"ranking_weight": 0, "alignment_weight": 3},
}
common = {"hidden_dim": 32, "mlp_dims": (64, 32), "sigma": 1.0, "kernel_size": 1}
detectors = {}
for name, weights in losses.items():
    options = {**common, **weights, "lr": 5e-3, "max_epochs": 10}
    est = DDLAnomalyDetector(random_state=0, **options)
    detectors[name] = est.fit(bags[train], y[train])

# %%
# Two videos that no detector has seen. Ranking wants large changes in anomalous videos:
# scores go to the ends of their range. Alignment makes changes expensive where the
# features hardly change: scores run flatter, inside of events and outside.

import matplotlib.pyplot as plt

from sklearn_vad.display import ScoreTimelineDisplay

longest = sorted(test, key=lambda i: -bags.lengths[i] * y.video_labels[i])
figure, axes = plt.subplots(2, figsize=(8, 5), layout="constrained")
for ax, i in zip(axes, longest[1:3], strict=True):
    for name, detector in detectors.items():
        ScoreTimelineDisplay.from_estimator(
            detector, bags[i], y.masks[i], name=name, ax=ax
        )
plt.show()
