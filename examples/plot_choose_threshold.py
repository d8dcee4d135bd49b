"""
Choosing a threshold
====================

A threshold is a decision about false alarms: how many may there be an hour? It is made
on videos that did not train the detector.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import train_test_split

from sklearn_vad import MILRankingAnomalyDetector
from sklearn_vad.datasets import make_bags
from sklearn_vad.metrics import false_alarm_rate
from sklearn_vad.postprocessing import find_events, tune_threshold

bags, y = make_bags(200, n_features=32, difficulty=0.3, random_state=0)
train, rest = train_test_split(
    np.arange(200), test_size=0.6, stratify=y, random_state=0
)
valid, test = train_test_split(rest, test_size=0.5, stratify=y[rest], random_state=0)
detector = MILRankingAnomalyDetector(random_state=0).fit(bags[train], y[train])

# %%
# ``tune_threshold`` takes the lowest threshold at which at most 5 % of the frames of
# normal validation videos would raise an alarm. ``predict`` uses it from then on.

default = detector.threshold_
threshold = tune_threshold(detector, bags[valid], y[valid], far=0.05)
print(f"threshold {threshold:.3f} instead of {default}")

# %%
# The same rate over all thresholds. It is never exactly what was asked for on other
# videos, since validation videos are a sample. Training videos must not choose: the
# detector has learned to give the normal ones of them low scores.

grid = np.geomspace(1e-3, 0.9, 25)
figure, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
for name, part in {"training": train, "validation": valid, "test": test}.items():
    scores = detector.score_snippets(bags[part])
    rates = [false_alarm_rate(y[part], scores, threshold=t) for t in grid]
    ax.plot(grid, rates, label=f"{name} videos", ls=":" if name == "training" else "-")
ax.axhline(0.05, color="0.5", lw=0.8)
ax.axvline(threshold, color="0.5", lw=0.8, ls="--")
ax.annotate("chosen", (threshold, 0.13), (6, 0), textcoords="offset points")
ax.set(xscale="log", xlabel="threshold", ylabel="false-alarm rate", ylim=(0, 0.15))
_ = ax.legend()

# %%
# A rate of frames is no number of alarms. Counted, those 5 % are some 200 an hour, for
# single snippets raise them. At a few alarms an hour, less than half of the anomalous
# frames are found. (These normal videos last a quarter of an hour: steps are coarse.)

from sklearn_vad.display import FrameRocDisplay

scores = detector.score_snippets(bags[test])
display = FrameRocDisplay.from_predictions(
    y[test], scores, x_axis="false_alarms_per_hour", frame_rate=25, name="test videos"
)
chosen = np.flatnonzero(display.thresholds >= threshold)[-1]
display.ax_.plot(display.x[chosen], display.tpr[chosen], "o", color="k", mfc="none")
display.ax_.annotate(
    "chosen",
    (display.x[chosen], display.tpr[chosen]),
    (8, -14),
    textcoords="offset points",
)
plt.show()

# %%
# Above a threshold, scores are events: first and last frame, and the highest score.

events = find_events(scores, y[test], threshold=threshold, merge_frames=32)
longest = np.argmax(bags.lengths[test] * y.video_labels[test])
print(f"{bags.ids[test[longest]]}:")
for first, last, score in events[longest].tolist():
    print(f"  frames {first:5} to {last:5}, score {score:.2f}")
