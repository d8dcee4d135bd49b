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
detector.fit(bags[others], y[others])

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
# What was known while the video ran: at each moment, everything to the left. Smoothing
# must not look ahead either: ``smooth_scores(..., causal=True)``.

from sklearn_vad.postprocessing import smooth_scores

(smoothed,) = smooth_scores([scores], 3, causal=True)
frames = 16 * np.arange(1, len(scores) + 1)  # a score comes when its snippet ends
figure, ax = plt.subplots(figsize=(9, 3), layout="constrained")
ax.fill_between(
    np.arange(len(y.masks[camera])),
    y.masks[camera],
    step="post",
    color="tab:red",
    alpha=0.15,
    lw=0,
    label="anomalous",
)
ax.step(frames, scores, where="post", lw=1, alpha=0.5, label="as pushed")
ax.step(frames, smoothed, where="post", lw=2, color="tab:blue", label="mean of last 3")
ax.set(xlabel="frame", ylabel="score", xlim=(0, frames[-1]), ylim=(0, 1.02))
_ = ax.legend(loc="upper right")
