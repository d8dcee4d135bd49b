"""
MIL ranking: from video labels to snippets
==========================================

The loss compares the highest score of an anomalous video with the highest one of a
normal video, and nothing else. Watch what that does to all the other snippets.

Since one network scores all snippets, what it learns of the highest ones holds for
those like them: event snippets rise together, and what also happens in normal videos
is pressed down, in anomalous videos as well.
"""

import matplotlib.pyplot as plt
import numpy as np

from sklearn_vad import MILRankingAnomalyDetector
from sklearn_vad.datasets import make_bags

bags, y = make_bags(120, difficulty=0.2, random_state=0)

# %%
# ``partial_fit`` trains one epoch more at each call. The truth of the snippets is
# used for the picture only.

majority = [  # whether most frames of a snippet are anomalous
    mask[: 16 * len(bag)].reshape(len(bag), 16).mean(axis=1) > 0.5
    for bag, mask in zip(bags, y.masks, strict=True)
]
inside = np.concatenate(majority)
of_anomalous = np.repeat(y.video_labels == 1, bags.lengths)
groups = {
    "anomalous snippets": inside,
    "normal snippets of anomalous videos": of_anomalous & ~inside,
    "snippets of normal videos": ~of_anomalous,
}
detector = MILRankingAnomalyDetector(max_epochs=1, random_state=0)
epochs = []
for _ in range(15):
    detector.partial_fit(bags, y)
    epochs.append(detector.score_snippets(bags))
flat = [np.concatenate(scores) for scores in epochs]
means = [[scores[members].mean() for members in groups.values()] for scores in flat]

# %%
figure, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
colors = ["tab:red", "tab:orange", "tab:blue"]
for name, line, color in zip(groups, np.transpose(means), colors, strict=True):
    ax.plot(range(1, len(line) + 1), line, color=color, marker="o", ms=4, label=name)
ax.set(xlabel="epoch", ylabel="mean score", ylim=(0, None))
ax.legend()
plt.show()

# %%
# All frames, not their means alone: after the first epoch, and after the last. Each
# histogram is of all its frames, the bar above is the gap between the means. Some
# anomalous frames stay low: the loss has not asked for all of them.

from sklearn_vad.display import ScoreGapDisplay

figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for ax, epoch in zip(axes, (1, 15), strict=True):
    name = f"after epoch {epoch}"
    ScoreGapDisplay.from_predictions(y, epochs[epoch - 1], n_bins=30, name=name, ax=ax)
plt.show()
