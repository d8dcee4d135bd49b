"""From a folder of ten-crop features and an annotation file to a grid search.

    python examples/features_to_grid_search.py

The first part makes what many people have: a folder with one .npy file per
video, (n_snippets, 10, n_features), and a text file with UCF-Crime's temporal
annotations. The second part, `search`, is what a user writes.
"""

import tempfile
from pathlib import Path

import numpy as np
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_vad import MILRankingAnomalyDetector, MultiCropDetector
from sklearn_vad.datasets import (
    find_duplicates,
    load_features,
    load_ucf_crime_annotations,
    make_bags,
)
from sklearn_vad.metrics import frame_roc_auc_scorer
from sklearn_vad.preprocessing import BagTransformer


def make_files(folder, n_videos=60):
    """Write features of ten crops and annotations, as people have them."""
    bags, y = make_bags(n_videos, n_features=16, max_snippets=60, random_state=0)
    rng = np.random.default_rng(0)
    (folder / "features").mkdir()
    lines = []
    for i, (bag, mask) in enumerate(zip(bags, y.masks, strict=True)):
        category = "Anomaly" if mask.any() else "Normal"
        name = f"{category}{i:03}_x264"
        crops = bag[:, None, :] + rng.normal(0, 0.1, (len(bag), 10, bag.shape[1]))
        np.save(folder / "features" / f"{name}.npy", np.float32(crops))
        # UCF-Crime counts frames from 1, and the last one is part of the event.
        changes = np.flatnonzero(np.diff(np.r_[0, mask, 0])).reshape(-1, 2)
        events = " ".join(f"{first + 1} {end}" for first, end in changes)
        lines.append(
            f"{category}/{name}.mp4 {len(mask)} {category} {events or '-1 -1'}"
        )
    (folder / "annotations.txt").write_text("\n".join(rng.permutation(lines)))


def search(folder):
    """Search a learning rate by frame AUC; this is all that a user writes."""
    bags = load_features(folder / "features", layout="snippets_crops", n_crops=10)
    annotations = load_ucf_crime_annotations(folder / "annotations.txt").align(bags)
    pipeline = make_pipeline(
        BagTransformer(StandardScaler()),
        MultiCropDetector(MILRankingAnomalyDetector(max_epochs=5, random_state=0)),
    )
    grid = {"multicropdetector__estimator__lr": [0.003, 0.01]}
    cv = StratifiedGroupKFold(3, shuffle=True, random_state=0)
    search = GridSearchCV(pipeline, grid, scoring=frame_roc_auc_scorer, cv=cv)
    y = annotations.frame_labels(snippet_length=16)
    search.fit(bags, y, groups=find_duplicates(bags))
    print(f"{len(bags)} videos, {y.video_labels.sum()} of them anomalous")
    for setting, mean in zip(
        search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
    ):
        print(f"{setting}: frame AUC {mean:.3f}")
    return search


def main():
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder))
        search(Path(folder))


if __name__ == "__main__":
    main()
