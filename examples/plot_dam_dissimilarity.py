"""
DAM: how a snippet differs from the one before
==============================================

Dissimilarity attention looks at the inner time steps of a snippet and of the one
before it: which channels change, and at which steps.

Bags are ``(n_snippets, n_steps, n_features)`` here; in the synthetic events features
sway from step to step.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

from sklearn_vad.datasets import make_bags
from sklearn_vad.functional import dissimilarity_map

bags, y = make_bags(
    30, n_features=24, n_steps=7, max_snippets=70, difficulty=0.0, random_state=2
)
video = int(np.argmax(bags.lengths * y.video_labels))
snippets = torch.from_numpy(np.array(bags[video]))[None]  # (1, T, steps, channels)
found = dissimilarity_map(snippets, kind="dist")[0].numpy()

# %%
# The map of a snippet is the product of two sums of absolute differences, one for each
# step and one for each channel. Above, its mean over time: events stand out, and so do
# cuts between scenes, which is why the attention has to be learned. (The first snippet
# differs from nothing at all, and is left out.) Below, two maps in full: of a quiet
# snippet, and of the most dissimilar one in an event.

means = found.mean(axis=(1, 2))
covered = y.masks[video][: 16 * len(means)].reshape(-1, 16).any(axis=1)
inside = int(np.argmax(np.where(covered, means, 0)))
quiet = int(np.argmin(np.where(covered, np.inf, means)))

figure = plt.figure(figsize=(9, 5), layout="constrained")
axes = figure.subplot_mosaic([["time", "time"], ["quiet", "inside"]])
snippet = np.arange(1, len(means))
axes["time"].plot(snippet, means[1:], lw=1.5)
edges = np.flatnonzero(np.diff(np.r_[0, covered, 0])).reshape(-1, 2)
for start, end in edges:
    axes["time"].axvspan(start - 0.5, end - 0.5, color="#e69f00", alpha=0.35, lw=0)
axes["time"].set(
    xlabel="snippet (events shaded)", ylabel="mean of the map", xlim=(1, snippet[-1])
)
for name, i in {"quiet": quiet, "inside": inside}.items():
    axes["time"].plot(i, means[i], "o", color="k", mfc="none")
    axes[name].imshow(found[i], cmap="viridis", vmin=0, vmax=found[inside].max())
    axes[name].set_title(f"snippet {i}", fontsize="medium")
    axes[name].set(xlabel="channel", ylabel="step")
plt.show()
