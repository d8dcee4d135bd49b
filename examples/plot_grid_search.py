"""
Searching settings by frame AUC
===============================

``GridSearchCV`` works as for any classifier: with ragged videos, and with a scorer that
looks at frames while training sees only the labels of videos.
"""

import matplotlib.pyplot as plt
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split

from sklearn_vad import MILRankingAnomalyDetector
from sklearn_vad.datasets import make_bags
from sklearn_vad.metrics import frame_roc_auc_scorer

bags, y = make_bags(100, n_features=32, difficulty=0.3, random_state=0)
rest, test = train_test_split(range(100), test_size=0.3, stratify=y, random_state=0)

# %%
# Two seeds as a parameter: how much the seed decides is a part of the answer.

grid = {
    "lr": [1e-3, 1e-2, 1e-1],
    "dropout": [0.0, 0.5],
    "random_state": [0, 1],
}
search = GridSearchCV(
    MILRankingAnomalyDetector(hidden_dims=(64, 16), max_epochs=6),
    grid,
    scoring=frame_roc_auc_scorer,
    cv=StratifiedKFold(3, shuffle=True, random_state=0),
    error_score="raise",
)
search.fit(bags[rest], y[rest])
print(search.best_params_)
print(f"in the search {search.best_score_:.3f}, on videos put aside", end=" ")
print(f"{frame_roc_auc_scorer(search, bags[test], y[test]):.3f}")

# %%
# The means over folds and seeds. The search has used its videos up: what counts is the
# number of the videos that were put aside, above.

shape = len(grid["dropout"]), len(grid["lr"]), len(grid["random_state"])
means = search.cv_results_["mean_test_score"].reshape(shape)  # sorted by name
figure, ax = plt.subplots(figsize=(6, 2.8), layout="constrained")
image = ax.imshow(means.mean(axis=2), cmap="viridis", aspect="auto")
for row in range(shape[0]):
    for column in range(shape[1]):
        own = means[row, column]
        ax.text(
            column,
            row,
            f"{own.mean():.3f}\n± {own.std():.3f}",
            ha="center",
            va="center",
            color="k" if image.norm(own.mean()) > 0.6 else "w",
        )
ax.set_xticks(range(shape[1]), grid["lr"])
ax.set_yticks(range(shape[0]), grid["dropout"])
ax.set(xlabel="lr", ylabel="dropout")
figure.colorbar(image, label="frame AUC")
plt.show()
