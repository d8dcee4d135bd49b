"""
Scores while the camera runs
============================

A stream scores one snippet after the other, in constant time and memory. It gives the
scores that the whole video would have had in the end.

Only detectors whose scores need no later snippet have streams: MIL ranking, which looks
at one snippet alone, and DAM, which looks at the one before it as well.
"""

import time

import matplotlib.pyplot as plt
import numpy as np

from sklearn_vad import DAMAnomalyDetector
from sklearn_vad.datasets import make_bags

bags, y = make_bags(120, n_features=32, difficulty=0.2, random_state=0)
camera = int(np.argmax(bags.lengths * y.video_labels))  # a long anomalous video
others = np.arange(len(bags)) != camera
detector = DAMAnomalyDetector(n_hidden=64, lr=1e-3, random_state=0)
_ = detector.fit(bags[others], y[others])

# %%
# Here the camera is an array; in real use each snippet comes from an extractor.

stream = detector.stream()
scores, milliseconds = [], []
for snippet in bags[camera]:
    started = time.perf_counter()
    scores.append(stream.push(snippet))
    milliseconds.append(1000 * (time.perf_counter() - started))
print(f"{len(scores)} snippets, {np.median(milliseconds):.1f} ms each (median)")

whole = detector.score_snippets(bags[[camera]])[0]
print(f"difference from the whole video: {np.abs(whole - scores).max():.1e}")

# %%
# What was known while the video ran: the score of each snippet, when its last frame had
# come. Smoothing must not look ahead either: ``smooth_scores(..., causal=True)``.

from sklearn_vad.display import ScoreTimelineDisplay
from sklearn_vad.postprocessing import smooth_scores

(smoothed,) = smooth_scores([scores], 3, causal=True)
figure, ax = plt.subplots(figsize=(8, 2.6), layout="constrained")
ScoreTimelineDisplay.from_predictions(
    scores, y.masks[camera], name="as pushed", threshold=None, linewidth=1, ax=ax
)
ScoreTimelineDisplay.from_predictions(
    smoothed, y.masks[camera], name="mean of the last 3", threshold=None, ax=ax
)
plt.show()
