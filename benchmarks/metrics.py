"""Time the frame metrics against expanding scores to frames for scikit-learn.

The usual way repeats every snippet score for its 16 frames and calls
``roc_auc_score`` and ``average_precision_score`` on all frames. Here both
metrics, and all five at once by ``evaluate``, are computed from the same
scores without expanding them: once from `FrameLabels` made beforehand, as the
usual way has its flat labels beforehand, and once from a plain list of masks.

All ways take turns, round by round, so that a slow moment of the machine
falls on all of them; ratios are those of the medians.

    python benchmarks/metrics.py --data DIR

DIR holds ``xd_violence_test_gt.npz``: `gt`, the 0/1 labels of all frames of
all videos, and `offsets`, where each video begins, with the end. Without
it, labels of the same size are made up.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from sklearn_vad import FrameLabels
from sklearn_vad.metrics import (
    evaluate,
    frame_average_precision_score,
    frame_roc_auc_score,
)

SNIPPET_LENGTH = 16


def load_masks(folder):
    """Read one array of frame labels per video."""
    with np.load(Path(folder, "xd_violence_test_gt.npz")) as file:
        return np.split(file["gt"], file["offsets"][1:-1])


def make_masks(rng, n_videos=800, n_frames=2_330_384):
    """Make up videos of whole snippets; five in eight have one to nine events."""
    n_snippets = n_frames // SNIPPET_LENGTH
    shares = rng.lognormal(sigma=0.9, size=n_videos)
    ends = np.round(np.cumsum(shares) / shares.sum() * (n_snippets - n_videos))
    lengths = (np.diff(ends, prepend=0) + 1).astype(int) * SNIPPET_LENGTH
    masks = [np.zeros(n, dtype=np.uint8) for n in lengths]
    for mask in masks[: n_videos * 5 // 8]:
        for _ in range(rng.integers(1, 10)):
            start = rng.integers(len(mask))
            mask[start : start + rng.integers(1, 2 + len(mask) // 8)] = 1
    return masks


def make_scores(rng, masks):
    """Make float32 scores with some ties that know a little about the labels."""
    scores = []
    for mask in masks:
        share = mask.reshape(-1, SNIPPET_LENGTH).mean(axis=1)
        noisy = rng.normal(loc=share, size=len(share))
        scores.append(np.round(1 / (1 + np.exp(-noisy)), 6).astype(np.float32))
    return scores


def main():
    """Run the benchmark and print medians, ratios and whether values agree."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="folder of xd_violence_test_gt.npz")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    rng = np.random.default_rng(args.seed)
    masks = make_masks(rng) if args.data is None else load_masks(args.data)
    scores = make_scores(rng, masks)
    frame_labels, flat_labels = FrameLabels(masks), np.concatenate(masks)

    def expand():
        frames = np.repeat(np.concatenate(scores), SNIPPET_LENGTH)
        return (
            roc_auc_score(flat_labels, frames),
            average_precision_score(flat_labels, frames),
        )

    def both(labels):
        return (
            frame_roc_auc_score(labels, scores),
            frame_average_precision_score(labels, scores),
        )

    def all_five(labels):
        return tuple(evaluate(labels, scores).values())[:2]

    ways = {
        "expanded, scikit-learn": expand,
        "FrameLabels, two metrics": lambda: both(frame_labels),
        "FrameLabels, evaluate": lambda: all_five(frame_labels),
        "list of masks, two metrics": lambda: both(masks),
        "list of masks, evaluate": lambda: all_five(masks),
    }
    seconds = {name: [] for name in ways}
    values = {}
    for _ in range(args.repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            values[name] = way()
            seconds[name].append(time.perf_counter() - start)

    kind = "made-up" if args.data is None else "XD-Violence"
    print(
        f"{kind} labels: {len(masks)} videos, {len(flat_labels)} frames,"
        f" {sum(map(len, scores))} snippets; {args.repeats} rounds"
    )
    expected = values["expanded, scikit-learn"]
    reference = np.median(seconds["expanded, scikit-learn"])
    for name in ways:
        median = np.median(seconds[name])
        difference = np.max(np.abs(np.subtract(values[name], expected)))
        print(
            f"{name:27} {1000 * median:8.1f} ms  ratio {reference / median:5.1f}"
            f"  largest difference {difference:.0e}"
        )
        if difference > 1e-12:
            raise SystemExit(f"values of {name} differ: {values[name]}, {expected}")
    auc, precision = expected
    print(f"frame AUC {auc:.6f}, frame average precision {precision:.6f}")


if __name__ == "__main__":
    main()
