"""
DDL: attention with a sense of place
====================================

Locality-aware attention looks at the whole video and, by a prior, at the neighbours of
each snippet.

Attention weights form a matrix, one row for each snippet that looks. With the unit
matrix as its value, ``locality_aware_attention`` returns exactly that.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

from sklearn_vad.datasets import make_bags
from sklearn_vad.functional import locality_aware_attention

bags, y = make_bags(20, max_snippets=60, difficulty=0.2, random_state=3)
video = torch.from_numpy(np.array(bags[np.argmax(bags.lengths)]))
queries = 0.25 * (video - video.mean(dim=0))[None, None]  # (1, 1, T, D)
unit = torch.eye(len(video))[None, None]

maps = {
    "no prior": {"sigma": None},
    "after the softmax, as printed": {"sigma": 6.0},
    "before the softmax": {"sigma": 6.0, "prior": "before"},
}
found = {
    name: locality_aware_attention(queries, queries, unit, **options)[0, 0]
    for name, options in maps.items()
}

# %%
# Snippets of one scene look at each other. Added after the softmax, the prior outweighs
# that: a row of the softmax sums to 1, the prior's to about
# ``sqrt(2 * pi * sigma)``. Added before, rows still sum to 1, and the neighbours are
# merely preferred.

figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained")
for ax, (name, weights) in zip(axes, found.items(), strict=True):
    sums = weights.sum(dim=1)
    image = ax.imshow(weights.sqrt(), cmap="magma", vmin=0, vmax=1)
    ax.set_title(f"{name}\nrows sum to {sums.median():.1f}", fontsize="medium")
    ax.set_xlabel("snippet that is looked at")
axes[0].set_ylabel("snippet that looks")
bar = figure.colorbar(image, ax=axes, label="weight", shrink=0.75, ticks=[0, 0.5, 1])
bar.ax.set_yticklabels(["0", "0.25", "1 or more"])
plt.show()

# %%
# The prior alone, for three widths. Sigma is not squared in the paper, so 16, its value
# for UCF-Crime, reaches about ten snippets to each side.

from sklearn_vad.functional import locality_prior

figure, ax = plt.subplots(figsize=(7, 2.6), layout="constrained")
for sigma in (1.0, 6.0, 16.0):
    ax.plot(
        np.arange(-20, 21), locality_prior(41, sigma)[20], label=f"sigma = {sigma:g}"
    )
ax.set(xlabel="distance in snippets", ylabel="prior")
ax.legend()
plt.show()
