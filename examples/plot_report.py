"""
A report to click through
=========================

A figure shows a few videos. ``report`` writes one HTML file with all of them: a list,
sorted by score, a timeline of each, and a threshold to move while detections, events
and false alarms are counted.
"""

import tempfile
from pathlib import Path

import numpy as np

from sklearn_vad import MILRankingAnomalyDetector, report
from sklearn_vad.datasets import make_bags

bags, y = make_bags(160, n_features=32, difficulty=0.25, random_state=0)
train, test = np.arange(100), np.arange(100, 160)
detector = MILRankingAnomalyDetector(random_state=0).fit(bags[train], y[train])

# %%
# The file needs no network and no other file. Open it in a browser, and press ``?`` for
# its keys. The page *Look at results* of this site has it to try out.

path = Path(tempfile.mkdtemp()) / "report.html"
report(
    detector,
    bags[test],
    y[test],
    path,
    title="Sixty synthetic videos",
    fps=25,
    merge_frames=48,
)
print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")

# %%
# What it is about: the first videos of its list, those of the highest scores. Here
# events are shaded, in parts of which the detector sees nothing.

import matplotlib.pyplot as plt

from sklearn_vad.display import ScoreTimelineDisplay

ranked = test[np.argsort(-detector.decision_function(bags[test]), kind="stable")]
figure, axes = plt.subplots(3, figsize=(8, 6.6), layout="constrained")
for ax, i in zip(axes, ranked, strict=False):
    ScoreTimelineDisplay.from_estimator(
        detector, bags[i], y.masks[i], name="MIL ranking", ax=ax
    )
    ax.set_title(bags.ids[i], loc="left", fontsize="medium")
plt.show()
