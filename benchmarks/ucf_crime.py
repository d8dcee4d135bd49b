"""Detectors on real UCF-Crime features: held-out videos, seeds, no peeking.

    python benchmarks/ucf_crime.py --data DIR --methods ddl,mil_ranking --seeds 3

For every seed, the training videos are split in three, stratified by label,
with byte-identical videos on one side: 64 % train, 16 % choose the epoch, and
20 % are scored once, by the chosen epoch, for the table. No test video is ever
looked at; with ``--test FILE`` the same models also score a file of the same
layout, after all choices are made.

DIR holds ``ucf_crime_c3d_train.npz`` (C3D fc6, 32 segments a video) or, for
``--features x3d``, ``ucf_crime_x3d_train.npz`` (ragged bags). Each holds
"video", "y" (1 = anomalous), "n_frames" and "events" (video index, first frame,
last frame), and either "codes" (uint8) with "scale", or "features" with
"offsets" and "frames_per_snippet".
"""

import argparse
import hashlib
import json
import time
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from tqdm.auto import tqdm

from sklearn_vad import (
    Bags,
    DAMAnomalyDetector,
    DDLAnomalyDetector,
    FrameLabels,
    MILRankingAnomalyDetector,
    STAAnomalyDetector,
)
from sklearn_vad.metrics import evaluate

# A detector and what differs from its defaults.
METHODS = {
    "ddl": (DDLAnomalyDetector, {}),
    "dam": (DAMAnomalyDetector, {}),
    "dam_scaled": (DAMAnomalyDetector, {"scaled": True}),
    "mil_ranking": (MILRankingAnomalyDetector, {}),
    "sta": (STAAnomalyDetector, {}),
    "sta_without_mce": (STAAnomalyDetector, {"mce_weight": 0.0}),
    "sta_fc": (STAAnomalyDetector, {"regressor": "fc"}),
    "sta_fc_without_mce": (STAAnomalyDetector, {"regressor": "fc", "mce_weight": 0.0}),
}
# What differs by features. The paper normalises C3D segments; ours come normalised.
SETTINGS = {("mil_ranking", "x3d"): {"n_segments": None}}
COLUMNS = {
    "frame_roc_auc_score": "frame AUC",
    "frame_average_precision_score": "frame AP",
    "false_alarm_rate": "FAR",
    "anomalous_roc_auc_score": "anomalous-only AUC",
    "score_gap": "score gap",
    "video_roc_auc": "video AUC",
}


def load(path):
    """Return (Bags, FrameLabels, groups); byte-identical videos share a group."""
    with np.load(path, allow_pickle=False) as file:
        data = {name: file[name] for name in file.files}
    if "codes" in data:
        scale = data["scale"][..., None] / np.float32(255)
        arrays = [c * s for c, s in zip(data["codes"], scale, strict=True)]
        frames_per_snippet = data["n_frames"] / data["codes"].shape[1]
    else:
        arrays = np.split(data["features"], data["offsets"][1:-1])
        frames_per_snippet = data["frames_per_snippet"]
    masks = [np.zeros(n, dtype=bool) for n in data["n_frames"]]
    for video, first, last in data["events"]:
        masks[video][first:last] = True
    digests = [hashlib.sha256(np.ascontiguousarray(a)).hexdigest() for a in arrays]
    groups = np.unique(digests, return_inverse=True)[1]
    bags = Bags.from_list(arrays, ids=data["video"])
    labels = FrameLabels(masks, frames_per_snippet)
    # A few annotated events lie past a video's end: its label is the file's.
    odd = np.flatnonzero(labels.video_labels != data["y"])
    if len(odd):
        tqdm.write(f"{len(odd)} videos without a visible event are left out")
        keep = np.setdiff1d(np.arange(len(bags)), odd)
        bags, labels, groups = bags[keep], labels[keep], groups[keep]
    return bags, labels, groups


def split(y, groups, seed):
    """Return (train, select, report) as index arrays."""
    y = np.asarray(y)
    outer = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    rest, report = next(outer.split(y, y, groups))
    inner = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    train, select = next(inner.split(rest, y[rest], groups[rest]))
    return rest[train], rest[select], report


def measure(y, scores, video_scores):
    return {
        **evaluate(y, scores),
        "video_roc_auc": roc_auc_score(np.asarray(y), video_scores),
    }


def control(bags, y):
    """Score every video by minus its number of frames: no features at all."""
    value = 1 / (1 + y.n_frames)
    scores = [np.full(n, v) for n, v in zip(bags.lengths, value, strict=True)]
    return measure(y, scores, value)


def reduce(sets, train, n_components):
    """Return sets of bags in the principal components of the training part.

    The training part is `train` of the first set.
    """
    rows = np.concatenate([sets[0][i] for i in train])
    pca = PCA(n_components, svd_solver="covariance_eigh").fit(rows)
    return [
        Bags.from_list([np.float32(pca.transform(bag)) for bag in bags], ids=bags.ids)
        for bags in sets
    ]


def run(method, bags, y, parts, seed, args):
    """Train one method on one split; return the fitted detector."""
    train, select, _ = parts
    detector_class, params = METHODS[method]
    params = {**params, **SETTINGS.get((method, args.features), {})}
    if args.epochs is not None:
        params["max_epochs"] = args.epochs
    detector = detector_class(
        random_state=seed,
        patience=args.patience,
        validation_score=args.select,
        device=args.device,
        precision=args.precision,
        verbose=1,
        **params,
    )
    labels = y[select] if args.select.startswith("frame") else np.asarray(y[select])
    return detector.fit(bags[train], y[train], validation=(bags[select], labels))


def table(rows, title):
    """Return mean and sd over seeds as a Markdown table."""
    lines = [f"\n### {title}\n", f"| method | {' | '.join(COLUMNS.values())} |"]
    lines.append("|---" * (len(COLUMNS) + 1) + "|")
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = []
        for name in COLUMNS:
            values = [row[name] for row in rows if row["method"] == method]
            cells.append(f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of features")
    parser.add_argument("--features", choices=["c3d", "x3d"], default="c3d")
    parser.add_argument("--methods", default="ddl,mil_ranking")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--test", type=Path, help="held-out file of the same layout")
    parser.add_argument(
        "--select",
        choices=["frame_roc_auc", "frame_average_precision", "roc_auc"],
        default="frame_roc_auc",
        help="what chooses the epoch; roc_auc needs video labels only",
    )
    parser.add_argument("--patience", type=int, default=5, help="epochs")
    parser.add_argument(
        "--pca", type=int, help="reduce features, fitted on the training part"
    )
    parser.add_argument("--epochs", type=int, help="instead of the method's default")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--out", type=Path, help="also write all rows as JSON")
    args = parser.parse_args()
    args.methods = args.methods.split(",")
    unknown = set(args.methods) - set(METHODS)
    if unknown:
        parser.error(f"unknown methods {sorted(unknown)}; known are {sorted(METHODS)}")
    return args


def main():
    args = parse_args()
    bags, y, groups = load(args.data / f"ucf_crime_{args.features}_train.npz")
    test = load(args.test)[:2] if args.test else None
    rows, test_rows = [], []
    bar = tqdm(total=args.seeds * len(args.methods), desc="models", unit="model")
    for seed in range(args.seeds):
        parts = split(y, groups, seed)
        X, X_test = bags, test and test[0]
        if args.pca:
            sets = [bags, X_test] if test else [bags]
            X, X_test = [*reduce(sets, parts[0], args.pca), None][:2]
        for method in args.methods:
            started = time.perf_counter()
            detector = run(method, X, y, parts, seed, args)
            about = {
                "method": method,
                "seed": seed,
                "seconds": time.perf_counter() - started,
                "best_epoch": detector.best_epoch_,
                "selection_score": max(e["valid_score"] for e in detector.history_),
            }
            sets = [(rows, X[parts[2]], y[parts[2]])]
            sets += [(test_rows, X_test, test[1])] if test else []
            for out, videos, labels in sets:
                found = detector.score_snippets(videos)
                measured = measure(labels, found, detector.decision_function(videos))
                out.append({**about, **measured})
                if method == args.methods[0]:
                    name = "(control: minus length)"
                    out.append({"method": name, **control(videos, labels)})
            bar.update()
            tqdm.write(f"{method}, seed {seed}: best epoch {about['best_epoch']}")
    bar.close()
    rule = f"epoch chosen by {args.select} on separate videos, {args.seeds} seeds"
    features = f"{args.features}, PCA to {args.pca}" if args.pca else args.features
    print(table(rows, f"UCF-Crime, {features}, held-out training videos; {rule}"))
    if test:
        print(table(test_rows, f"{args.test.name}; {rule}"))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        result = {"arguments": vars(args), "rows": rows, "test_rows": test_rows}
        args.out.write_text(json.dumps(result, indent=1, default=str))


if __name__ == "__main__":
    main()
