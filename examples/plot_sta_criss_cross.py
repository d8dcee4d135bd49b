"""
STA: the whole map in two passes
================================

In criss-cross attention a cell of the feature map, one feature of one snippet, looks at
its row and its column. Done twice, it has seen the whole map.

What a cell has seen shows in its gradient: which entries of the input change it, and by
how much?
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

from sklearn_vad.functional import criss_cross_attention

generator = torch.Generator().manual_seed(0)
features = torch.rand(1, 24, 40, generator=generator)  # (videos, snippets, features)
weights = [torch.randn(10, generator=generator) for _ in range(4)]

snippet, feature = 8, 25
maps = {"features": features[0].numpy()}
for n_passes in (1, 2):
    x = seen = features.clone().requires_grad_()
    for _ in range(n_passes):
        seen = criss_cross_attention(seen, *weights)
    seen[0, snippet, feature].backward()
    maps[f"seen after {n_passes} pass{'es' * (n_passes > 1)}"] = x.grad[0].abs().numpy()

# %%
# After one pass: its cross. After two: everything, more weakly off the cross. The usual
# implementation keeps an affinity for each pair of cells of a cross; this one takes
# time and memory that grow with the number of cells.

figure, axes = plt.subplots(1, 3, figsize=(10, 2.9), layout="constrained")
for ax, (name, values) in zip(axes, maps.items(), strict=True):
    if name == "features":
        ax.imshow(values, cmap="Greys", aspect="auto")
    else:
        logs = np.log10(values.clip(1e-4))
        image = ax.imshow(logs, cmap="magma", vmin=-4, vmax=0, aspect="auto")
    ax.plot(feature, snippet, "s", ms=9, mfc="none", mec="tab:cyan", mew=2)
    ax.set_title(name, fontsize="medium")
    ax.set_xlabel("feature")
axes[0].set_ylabel("snippet")
bar = figure.colorbar(image, ax=axes, label="size of the gradient", ticks=[-4, -2, 0])
bar.ax.set_yticklabels(["0.0001", "0.01", "1"])
plt.show()
