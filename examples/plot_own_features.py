"""
From a folder of .npy files
===========================

Features in files, one for each video, and a table with your annotations: from there to
scores of frames. Files are joined to annotations by name, never by position.
"""

import tempfile
from pathlib import Path

import numpy as np

from sklearn_vad.datasets import make_bags

# %%
# First, the files: yours are there already. ``features/<video>.npy`` are arrays of
# ``(n_snippets, n_features)``; ``annotations.csv`` has a row for each event, and one
# for each normal video.

folder = Path(tempfile.mkdtemp())
(folder / "features").mkdir()
made, truth = make_bags(100, n_features=32, difficulty=0.2, random_state=0)
lines = ["video,label,start,end"]
for name, bag, mask in zip(made.ids, made, truth.masks, strict=True):
    np.save(folder / "features" / f"{name}.npy", bag)
    changes = np.flatnonzero(np.diff(np.r_[0, mask, 0])).reshape(-1, 2)
    lines += [f"{name}.mp4,1,{start},{end}" for start, end in changes]
    lines += [f"{name}.mp4,0,,"] * (not mask.any())
(folder / "annotations.csv").write_text("\n".join(lines))
print("\n".join(lines[:4]))

# %%
# From here on, this is what you write. Nothing is read before it is needed, and
# ``align`` puts the annotations in the order of the files.

from sklearn_vad.datasets import load_csv_annotations, load_features

bags = load_features(folder / "features", progress=False)
annotations = load_csv_annotations(folder / "annotations.csv").align(bags)
y = annotations.frame_labels(n_frames=16 * bags.lengths)  # or the true numbers
print(bags, annotations)

# %%
# Train on two thirds, and look at a video of the rest.

from sklearn.model_selection import train_test_split

from sklearn_vad import MILRankingAnomalyDetector

train, test = train_test_split(
    np.arange(len(bags)), test_size=1 / 3, stratify=y, random_state=0
)
detector = MILRankingAnomalyDetector(random_state=0).fit(bags[train], y[train])
frame_scores = detector.score_frames(bags[test])
print(f"first test video: {len(frame_scores[0])} frames, {frame_scores[0].round(2)}")

# %%
# The longest of the anomalous test videos, and what would be reported of it.

from sklearn_vad.display import ScoreTimelineDisplay
from sklearn_vad.postprocessing import find_events

i = max(test, key=lambda i: bags.lengths[i] * y.video_labels[i])
display = ScoreTimelineDisplay.from_estimator(
    detector, bags[i], y.masks[i], name="MIL ranking"
)
(events,) = find_events(detector.score_snippets(bags[[i]]), merge_frames=48)
for first, last, _ in events.tolist():
    display.ax_.plot([first, last], [-0.01, -0.01], color="k", lw=4, clip_on=False)
_ = display.ax_.set_title(f"{bags.ids[i]}, reported: black", loc="left")
