"""The study: every table of docs/results.md, from features, without peeking.

    python benchmarks/study.py all --data DIR        # both of these
    python benchmarks/study.py run --data DIR        # train and score, resumable
    python benchmarks/study.py report --data DIR     # tables, intervals, pictures

`run` trains every setting of `study_settings.py` on splits of the *training*
videos (see `study_data.split`): 64 % train, 16 % choose the epoch, and in the
tuned rows the learning rate, by the frame AUC in which all videos weigh the same,
and 20 % are scored once. No test video is looked at. Rows of `c3d_fixed` train all
epochs of the defaults on the 80 %, and nothing is chosen. Each run leaves one file in
``--work``; what is there is not run again, so a study that was killed goes on
where it was. Runs go through joblib: ``--jobs`` workers of one thread each, or
``--backend`` another one that joblib knows.

`report` reads the runs, resamples videos and seeds for the intervals, and writes
``docs/results.json`` (a row per setting and seed), ``docs/results.md`` and the
pictures.

`final` trains the best single configuration on all training videos and saves it; with
``--test FILE``, of the layout of the training file, it scores that too::

    python benchmarks/study.py final --data DIR --out detector.safetensors

DIR holds ``ucf_crime_c3d_train.npz``, ``ucf_crime_x3d_train.npz``, ``msl_test.npz``
and ``smap_test.npz``; a table whose file is missing is left out.
"""

import argparse
import functools
import hashlib
import json
import os
import platform
import time
import warnings
from pathlib import Path

import joblib
import numpy as np
import sklearn
import skorch
import torch
from sklearn.metrics import roc_auc_score
from study_data import DATASETS, match_lengths, same_videos, split
from study_settings import LR_FACTORS, TABLES
from tqdm.auto import tqdm

import sklearn_vad
from sklearn_vad.metrics import (
    balanced_frame_roc_auc_score,
    evaluate,
    frame_roc_auc_score,
)

FILES = {"c3d": "ucf_crime_c3d", "x3d": "ucf_crime_x3d", "msl": "msl", "smap": "smap"}
VIDEO_WEIGHT = 1.0  # of the second scoring of every run
CONTROLS = ("minus length", "perfect video labels", "random")


# --------------------------------------------------------------------------
# One run
# --------------------------------------------------------------------------
def measure(labels, scores, video_scores):
    """Return all metrics of some videos; a metric of one class only is left out."""
    matched = match_lengths(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one class only, or nothing above 0.5
        found = {
            **evaluate(labels, scores),
            "balanced_frame_roc_auc_score": balanced_frame_roc_auc_score(
                labels, scores
            ),
            "video_roc_auc": roc_auc_score(np.asarray(labels), video_scores),
        }
        if len(matched):
            found["matched_frame_roc_auc"] = frame_roc_auc_score(
                labels[matched], [scores[i] for i in matched]
            )
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def parameters(detector):
    """Return the parameters that decide a result, but those that are None."""
    left_out = {"device", "memory_limit", "n_jobs"}
    left_out |= {"verbose", "callbacks", "warm_start"}
    params = detector.get_params()
    names = sorted(params.keys() - left_out)
    return {name: params[name] for name in names if params[name] is not None}


def make(setting, lr, seed):
    """Return the unfitted detector; a learning rate of None is the setting's own."""
    return setting.make(seed, **({} if lr is None else {"lr": lr}))


def key_of(setting, detector, seed):
    """Return the name of a run's files: the same for the same run only."""
    what = [setting.dataset, setting.method, parameters(detector), seed]
    what += ["fixed"] * setting.fixed + ["traced"] * setting.traced
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def write_whole(path, write):
    """Let ``write(path)`` make a file that appears whole or not at all."""
    partial = path.with_name(f"{os.getpid()}-{path.name}")
    write(partial)
    partial.replace(path)


def run(setting, lr, seed, data, work):
    """Train one setting, score what it never saw, and leave both files."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # Adam's state fills with them, and slows down
    detector = make(setting, lr, seed)
    key = key_of(setting, detector, seed)
    target = work / f"{key}.json"
    if target.exists():
        return
    videos = DATASETS[setting.dataset](data, work, seed)
    parts = split(videos.labels, videos.groups, seed)
    train, select, report = (videos[rows] for rows in parts)
    started = time.perf_counter()
    detector.set_params(n_jobs=1)
    trace = []
    if setting.traced:
        detector.set_params(callbacks=[Trace(detector, select, report, trace)])
        detector.fit(train.bags, train.labels)
    elif setting.fixed:
        known = videos[np.sort(np.concatenate([parts.train, parts.select]))]
        detector.fit(known.bags, known.labels)
    else:
        chooses = (select.bags, select.labels)
        detector.fit(train.bags, train.labels, validation=chooses)
    seconds = time.perf_counter() - started
    scored = {}
    row = {
        "dataset": setting.dataset,
        "method": setting.method,
        "seed": seed,
        "parameters": parameters(detector),
        "best_epoch": detector.best_epoch_,
        "n_epochs": detector.n_iter_,
        "seconds": round(seconds, 2),
        "trace": trace,
    }
    for weight in (0.0, VIDEO_WEIGHT):
        detector.set_params(video_weight=weight)
        for name, part in (("select", select), ("report", report)):
            scores = detector.score_snippets(part.bags)
            row[f"{name}_{weight:g}"] = measure(
                part.labels, scores, detector.predict_proba(part.bags)[:, 1]
            )
            scored[f"{name}_{weight:g}"] = np.float32(np.concatenate(scores))
    write_whole(work / f"{key}.npz", functools.partial(_save_scores, scored))
    write_whole(target, lambda path: path.write_text(json.dumps(row)))


class Trace(skorch.callbacks.Callback):
    """Measure two parts after every epoch."""

    def __init__(self, detector, select, report, found):
        self.detector, self.select, self.report = detector, select, report
        self.found = found

    def on_epoch_end(self, net, **kwargs):
        row = {}
        for name, part in (("select", self.select), ("report", self.report)):
            scores = self.detector._outputs(net, part.bags, ["scores"])["scores"]
            row[name] = measure(part.labels, scores, [s.max() for s in scores])
        self.found.append(row)

    def __deepcopy__(self, memo):
        return self  # `found` is the caller's


def _save_scores(scored, path):
    with open(path, "wb") as file:
        np.savez(file, **scored)


# --------------------------------------------------------------------------
# All runs
# --------------------------------------------------------------------------
def runs_of(setting, n_seeds):
    """Yield (setting, learning rate or None, seed); None is the setting's own."""
    factors = (None, *LR_FACTORS) if setting.tuned else (None,)
    for seed in range(n_seeds):
        own = setting.make(seed).lr
        for factor in factors:
            yield setting, factor and own * factor, seed


def available(data, tables):
    """Return the tables whose features are there."""
    found = {}
    for name in tables:
        file = FILES.get(same_videos(TABLES[name][0].dataset))
        if file and not list(data.glob(f"{file}_*.npz")):
            tqdm.write(f"table {name} is left out: no {file}_*.npz in {data}")
        else:
            found[name] = TABLES[name]
    return found


def command_run(args):
    args.work.mkdir(parents=True, exist_ok=True)
    todo = {}
    for settings in available(args.data, args.tables).values():
        for setting in settings:
            for one in runs_of(setting, args.seeds):
                key = key_of(setting, make(*one), one[2])
                if not (args.work / f"{key}.json").exists():
                    todo.setdefault(key, one)
    # What the workers share is made once, before they start.
    for seed in sorted({s for _, _, s in todo.values()}):
        for dataset in sorted({o[0].dataset for o in todo.values() if o[2] == seed}):
            DATASETS[dataset](args.data, args.work, seed)
    with joblib.parallel_config(backend=args.backend, n_jobs=args.jobs):
        done = joblib.Parallel(return_as="generator_unordered")(
            joblib.delayed(run)(*one, args.data, args.work) for one in todo.values()
        )
        for _ in tqdm(done, total=len(todo), unit="run", smoothing=0):
            pass


def versions():
    return {
        "sklearn_vad": sklearn_vad.__version__,
        "torch": torch.__version__,
        "scikit-learn": sklearn.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for name, function in (
        ("all", command_all),
        ("run", command_run),
        ("report", command_report),
        ("final", command_final),
    ):
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        command.add_argument("--data", type=Path, required=True)
        command.add_argument("--work", type=Path, default=Path("study"))
        command.add_argument(
            "--tables",
            type=lambda text: text.split(","),
            default=list(TABLES),
            help=f"of {', '.join(TABLES)}",
        )
        command.add_argument("--seeds", type=int, default=5)
        command.add_argument("--jobs", type=int, default=-1, help="workers")
        command.add_argument("--backend", default="loky", help="of joblib")
        command.add_argument("--out", type=Path, help="of final: the saved detector")
        command.add_argument("--test", type=Path, help="of final: a file to score")
    args = parser.parse_args()
    unknown = set(args.tables) - set(TABLES)
    if unknown:
        parser.error(f"unknown tables {sorted(unknown)}; known are {list(TABLES)}")
    return args


def command_all(args):
    command_run(args)
    command_report(args)


def command_report(args):
    from study_report import report

    report(args)


def command_final(args):
    from study_final import final

    final(args)


if __name__ == "__main__":
    args = parse_args()
    args.function(args)
