"""
DDL: attention with a sense of place
====================================

Locality-aware attention looks at the whole video and, by a prior, at the neighbours of
each snippet.

Attention weights form a matrix: a row for each snippet that attends, a column for each
that it attends to. ``AttentionDisplay`` draws it, with the prior and without.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone

from sklearn_vad import DDLAnomalyDetector
from sklearn_vad.datasets import make_bags
from sklearn_vad.display import AttentionDisplay

bags, y = make_bags(60, n_features=32, max_snippets=60, difficulty=0.2, random_state=3)
video = int(np.argmax(bags.lengths * y.video_labels))
est = DDLAnomalyDetector(
    hidden_dim=64, mlp_dims=(64, 32), sigma=6.0, lr=3e-3, max_epochs=8, random_state=0
).fit(bags, y)

# %%
# To the left, what the network has learned: scenes and events show as blocks and
# columns. To the right, what it works with. Added after the softmax, as printed in the
# paper, the prior outweighs the rest: a row of the softmax sums to 1, one of the prior
# to about ``sqrt(2 * pi * sigma)``.

AttentionDisplay.from_estimator(
    est, bags[video], y.masks[video], name="prior after the softmax"
)
plt.show()
rows = est.attention_map(bags[video]).sum(axis=2)
print(f"rows sum to {np.median(rows):.1f} (median)")

# %%
# Added before the softmax, rows still sum to 1; the neighbours are merely preferred.

before = clone(est).set_params(prior="before").fit(bags, y)
AttentionDisplay.from_estimator(
    before, bags[video], y.masks[video], name="prior before the softmax"
)
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
