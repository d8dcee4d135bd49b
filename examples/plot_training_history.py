"""
Watching a training
===================

With validation videos, a training keeps its best epoch. The display shows which one
that was, and how each term of the loss has fallen.
"""

import numpy as np

from sklearn_vad import DDLAnomalyDetector
from sklearn_vad.datasets import make_bags

bags, y = make_bags(120, n_features=32, difficulty=0.6, max_snippets=60, random_state=3)
train, valid = np.arange(70), np.arange(70, 120)
est = DDLAnomalyDetector(
    hidden_dim=32, mlp_dims=(64, 32), sigma=1.0, lr=1e-2, max_epochs=15, random_state=0
)
est.fit(bags[train], y[train], validation=(bags[valid], y[valid]))
print(f"epoch {est.best_epoch_} of {len(est.history_)} was kept")

# %%
# What was trained: ``summary`` lists the layers and their numbers of parameters.

print(est.summary())

# %%
# The loss goes on falling when the validation score, the frame AUC here, rises no more.
# The number to report is that of further videos: these have chosen.

import matplotlib.pyplot as plt

from sklearn_vad.display import TrainingHistoryDisplay

TrainingHistoryDisplay.from_estimator(est)
plt.show()
