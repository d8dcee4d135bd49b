"""From ragged bags to frame scores: the main job, on synthetic videos.

Cross-validates DDL and the MIL ranking baseline with frame-level scorers, then
draws the score timelines of videos that neither has seen, anomalous intervals
shaded, into ``demo.png``. Run it with ``make demo``; it takes one to three minutes.

The baseline has its defaults. DDL's prior and convolution are narrower than the
paper's, which are for longer videos, and its learning rate is the paper's: 180 videos
make few steps. Both were chosen on videos that another seed makes.
"""

import argparse
import time

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import cross_validate, train_test_split

from sklearn_vad import DDLAnomalyDetector, MILRankingAnomalyDetector
from sklearn_vad.datasets import make_bags
from sklearn_vad.display import ScoreTimelineDisplay
from sklearn_vad.metrics import frame_scorers

N_FOLDS = 4


def compare(detectors, bags, y):
    """Print mean and sd over folds of frame AUC and AP of each detector."""
    results = {}
    for name, detector in detectors.items():
        print(f"cross-validating {name} on {len(bags)} videos, two folds at a time ...")
        found = cross_validate(
            detector, bags, y, scoring=frame_scorers, cv=N_FOLDS, n_jobs=2
        )
        results[name] = [
            found["test_frame_roc_auc"],
            found["test_frame_average_precision"],
        ]
    print(f"\n{'held-out videos, 4 folds':28}{'frame AUC':>16}{'frame AP':>16}")
    for name, columns in results.items():
        cells = "".join(f"{f'{c.mean():.3f} ± {c.std():.3f}':>16}" for c in columns)
        print(f"{name:28}{cells}")
    share = np.concatenate(y.masks).mean()
    print(f"{'chance':28}{0.5:>16.3f}{share:>16.3f}")
    print("What they do on real features: docs/results.md.")


def draw(detectors, bags, y, path):
    """Draw timelines of three anomalous videos and a normal one."""
    anomalous = np.flatnonzero(y == 1)
    longest = anomalous[np.argsort(-bags.lengths[anomalous], kind="stable")][:3]
    normal = np.flatnonzero(y == 0)
    rows = [*longest, normal[np.argmax(bags.lengths[normal])]]
    figure, axes = plt.subplots(len(rows), figsize=(9, 8), layout="constrained")
    for ax, i in zip(axes, rows, strict=True):
        for name, detector in detectors.items():
            ScoreTimelineDisplay.from_estimator(
                detector, bags[i], y.masks[i], name=name, ax=ax
            )
        kind = "anomalous" if y[i] else "normal"
        ax.set_title(f"{bags.ids[i]} ({kind})", loc="left", fontsize="medium")
        if ax is not axes[0]:
            ax.get_legend().remove()
        if ax is not axes[-1]:
            ax.set_xlabel("")
    figure.suptitle(
        "Scores of unseen videos: the three longest anomalous ones, and a normal one."
        "\nAnomalous intervals shaded; above the dashed threshold a video is anomalous"
    )
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="demo.png", help="where to put the picture")
    args = parser.parse_args()
    started = time.perf_counter()
    bags, y = make_bags(n_bags=240, difficulty=0.25, random_state=0)
    detectors = {
        "DDL": DDLAnomalyDetector(
            hidden_dim=128, sigma=1.0, kernel_size=3, lr=5e-4, random_state=0, n_jobs=1
        ),
        "MIL ranking (baseline)": MILRankingAnomalyDetector(random_state=0, n_jobs=1),
    }
    compare(detectors, bags, y)
    train, test = train_test_split(
        np.arange(len(y)), test_size=0.25, stratify=y, random_state=0
    )
    for name, detector in detectors.items():
        print(f"\ntraining {name} on {len(train)} videos")
        detector.set_params(verbose=1).fit(bags[train], y[train]).set_params(verbose=0)
    draw(detectors, bags[test], y[test], args.out)
    print(f"\n{args.out} written; {time.perf_counter() - started:.0f} s in all")


if __name__ == "__main__":
    main()
