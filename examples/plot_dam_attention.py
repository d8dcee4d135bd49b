"""
DAM: scores, and the attention beneath them
===========================================

DAM gives each snippet a weight of its own, Clip_A, by how it differs from the snippet
before (Dist) or how it resembles it (Cov). The paper's Fig. 3 draws it beneath the
scores; so does ``ScoreTimelineDisplay``.
"""

import numpy as np

from sklearn_vad import DAMAnomalyDetector
from sklearn_vad.datasets import make_bags

bags, y = make_bags(
    150, n_features=12, n_steps=4, max_snippets=60, difficulty=0.0, random_state=1
)
train, test = np.arange(110), np.arange(110, 150)
detectors = {}
for variant in ("dist", "cov"):
    est = DAMAnomalyDetector(
        variant=variant, n_hidden=32, lr=1e-2, max_epochs=12, random_state=0
    )
    detectors[variant.capitalize()] = est.fit(bags[train], y[train])

# %%
# In training the weight counts: the loss is of the score times one plus Clip_A. The
# scores of videos are without it, so a weight that is high where nothing happens, as
# at a cut to another scene, raises no alarm.

import matplotlib.pyplot as plt

from sklearn_vad.display import ScoreTimelineDisplay

longest = sorted(test, key=lambda i: -bags.lengths[i] * y.video_labels[i])
figure, axes = plt.subplots(2, figsize=(8, 6.4), layout="constrained")
for ax, i in zip(axes, longest[:2], strict=True):
    for name, detector in detectors.items():
        ScoreTimelineDisplay.from_estimator(
            detector, bags[i], y.masks[i], name=name, clip_attention=True, ax=ax
        )
plt.show()
