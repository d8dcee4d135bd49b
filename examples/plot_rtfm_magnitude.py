"""
RTFM: anomalies have large features
===================================

RTFM learns features whose norm tells anomalous snippets from normal ones. Its loss
looks at the three largest norms of a video: it draws them to a margin in anomalous
videos, and to 0 in normal ones. Here are the norms of unseen videos, with that loss and
without.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

from sklearn_vad import RTFMAnomalyDetector
from sklearn_vad.datasets import make_bags

bags, y = make_bags(160, n_features=16, difficulty=0.2, random_state=0)
train, test = slice(0, 100), slice(100, 160)

# %%
# The norm of 16 features is about 4 at first, and that of hundreds, for which the
# defaults are meant, well above 10: hence another margin, weight and learning rate.


def norms_of(detector, bags):
    """Return the norm of each snippet's features, all videos one after the other."""
    module = detector.net_.module_
    found = []
    with torch.no_grad():
        for bag in bags:
            X = torch.tensor(bag)[None]
            features = module(X, torch.ones(X.shape[:2], dtype=torch.bool))["features"]
            found.append(features[0].norm(dim=1).numpy())
    return np.concatenate(found)


norms = {}
for weight in (0.0, 0.01):
    detector = RTFMAnomalyDetector(
        magnitude_weight=weight, margin=30, lr=3e-3, max_epochs=40, random_state=0
    )
    norms[weight] = norms_of(detector.fit(bags[train], y[train]), bags[test])

# %%
# The truth of the snippets is used for the picture only.

majority = [  # whether most frames of a snippet are anomalous
    mask[: 16 * len(bag)].reshape(len(bag), 16).mean(axis=1) > 0.5
    for bag, mask in zip(bags[test], y[test].masks, strict=True)
]
inside = np.concatenate(majority)

figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True, layout="constrained")
titles = ["without the magnitude loss", "with it"]
for ax, title, found in zip(axes, titles, norms.values(), strict=True):
    bins = np.linspace(0, max(map(np.max, norms.values())), 40)
    for members, name, color in (
        (~inside, "normal snippets", "tab:blue"),
        (inside, "anomalous snippets", "tab:red"),
    ):
        style = {"histtype": "step", "lw": 1.8, "density": True}
        style["ls"] = "-" if color == "tab:red" else "--"
        ax.hist(found[members], bins, label=name, color=color, **style)
    ax.set(title=title, xlabel="norm of the features")
axes[0].set_ylabel("density of snippets")
axes[1].legend()
plt.show()
