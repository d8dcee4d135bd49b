"""Cases of speed.py: reading, metrics, search, import, threads."""

import contextlib
import importlib
import os
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import GridSearchCV
from speed_data import (
    SNIPPET_LENGTH,
    WIDTH,
    files_and_store,
    halves,
    make_features,
    source,
    test_frames,
    train_lengths,
)
from speed_rounds import (
    check_equal,
    compare,
    copies,
    summarise,
    take_turns,
    values_row,
)

from sklearn_vad import Bags, FrameLabels
from sklearn_vad.metrics import evaluate


# --------------------------------------------------------------------------
# Reading
# --------------------------------------------------------------------------
def _read_bytes():
    """Return how many bytes this process has had read from disks."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("read_bytes"):
            return int(line.split()[1])
    raise LookupError("read_bytes")


def _forget(paths):
    """Ask the system to drop files from its cache."""
    for path in paths:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _gather(bags, batch):
    """Copy every snippet into a batch."""
    for bag in bags:
        batch[: len(bag)] = bag


def _sample(bags, batch):
    """Copy what DDL's training sees, 200 snippets at most, into a batch."""
    for bag in bags:
        n = min(len(bag), 200)
        rows = np.linspace(0, len(bag) - 1, n).astype(int)
        np.take(bag, rows, axis=0, out=batch[:n])


def read(settings):
    """An epoch of features: one .npy per video beside one store."""
    lengths = train_lengths(settings)
    if not settings.full:
        lengths = lengths[:: settings.size(3, 80)]
    width = settings.size(WIDTH, 128)
    batch = np.zeros((lengths.max(), width), dtype=np.float32)
    n_bytes = int(lengths.sum()) * width * 4
    with files_and_store(lengths, width) as (paths, store):
        ways = {
            "straightforward": lambda use: use(map(np.load, paths), batch),
            "ours": lambda use: use(Bags.open(store), batch),
        }
        opened = Bags.open(store)  # whose values are checked in the first epoch
        later = {**ways, "ours": lambda use: use(opened, batch)}
        rows = []
        for name, use in (("all snippets", _gather), ("200 of a video", _sample)):
            calls = {way: lambda w=way, u=use: later[w](u) for way in ways}
            if use is _gather:
                calls["ours, first epoch"] = lambda u=use: ways["ours"](u)
            seen = batch[:1].nbytes * _seen(lengths, use)
            floors = {"ours": copies(int(seen.sum()), int(seen.mean()))}
            sizes = {"n_videos": len(lengths), "gib": int(seen.sum()) / 2**30}
            row = compare(
                f"warm, {name}", calls, settings.rounds, floors=floors, **sizes
            )
            rows.append(row)
        files = {
            "straightforward": paths,
            "ours": [path for path in store.rglob("*") if path.is_file()],
        }
        rows.append(_cold(ways, files, n_bytes, settings))
    return {"rows": rows, "lengths": source(settings)}


def _seen(lengths, use):
    return lengths if use is _gather else np.minimum(lengths, 200)


def _cold(ways, files, n_bytes, settings):
    """Time the first epoch after the system has forgotten the files."""
    n_rounds, from_disk = min(settings.rounds, 3), dict.fromkeys(ways, 0)

    def call(way):
        before = _read_bytes()
        ways[way](_gather)
        from_disk[way] += _read_bytes() - before

    seconds = {way: [] for way in ways}
    for _ in range(n_rounds):
        for way in ways:
            _forget(files[way])
            found = take_turns({way: lambda w=way: call(w)}, 1, warm_up=False)
            seconds[way] += found[way]
    share = {way: read / n_bytes / n_rounds for way, read in from_disk.items()}
    row = values_row("cold, all snippets", share_read_from_disk=share)
    if min(share.values()) < 0.9:
        row["name"] = "first epoch, not cold: the system kept the files"
    return _with_seconds(row, seconds)


def _with_seconds(row, seconds):
    return summarise({**row, "seconds": seconds})


# --------------------------------------------------------------------------
# Metrics
# --------------------------------------------------------------------------
def _masks(frames, rng):
    """Make up frame labels; every other video has one to three events."""
    masks = [np.zeros(n, dtype=np.uint8) for n in frames]
    for mask in masks[::2]:
        for _ in range(rng.integers(1, 4)):
            start = rng.integers(len(mask))
            mask[start : start + rng.integers(1, 2 + len(mask) // 4)] = 1
    return masks


def _xd_violence(settings, rng):
    """Return the frame labels of XD-Violence's test videos, or of such ones."""
    if settings.data is None:
        shares = rng.lognormal(sigma=0.9, size=800)
        ends = np.round(np.cumsum(shares) / shares.sum() * (145_649 - 800))
        frames = (np.diff(ends, prepend=0) + 1).astype(int) * SNIPPET_LENGTH
        return _masks(frames, rng)
    with np.load(Path(settings.data, "xd_violence_test_gt.npz")) as file:
        return np.split(file["gt"], file["offsets"][1:-1])


def _scores(masks, rng):
    """Make float32 scores with some ties that know a little about the labels."""
    scores = []
    for mask in masks:
        starts = np.arange(0, len(mask), SNIPPET_LENGTH)
        share = np.add.reduceat(mask, starts, dtype=np.float64) / SNIPPET_LENGTH
        noisy = 1 / (1 + np.exp(-rng.normal(loc=share)))
        scores.append(np.round(noisy, 6).astype(np.float32))
    return scores


def metrics(settings):
    """AUC and AP of frames, beside scikit-learn's on the scores of every frame."""
    rng = np.random.default_rng(0)
    frames = test_frames(settings)[: settings.size(None, 20)]
    sets = {"UCF-Crime's test videos": _masks(frames, rng)}
    sets["XD-Violence's test videos"] = _xd_violence(settings, rng)[
        : settings.size(None, 20)
    ]
    rows = []
    for name, masks in sets.items():
        scores, labels = _scores(masks, rng), FrameLabels(masks)
        flat, snippets = np.concatenate(masks), np.concatenate(scores)

        def expand(masks=masks, scores=scores, flat=flat):
            pairs = zip(masks, scores, strict=True)
            spread = [np.repeat(s, SNIPPET_LENGTH)[: len(m)] for m, s in pairs]
            spread = np.concatenate(spread)
            return roc_auc_score(flat, spread), average_precision_score(flat, spread)

        def ours(labels, scores=scores):
            found = evaluate(labels, scores)
            return list(found.values())[:2]

        difference = check_equal(name, ours(masks), expand(), 1e-12)
        ways = {
            "straightforward": expand,
            "ours": lambda masks=masks, ours=ours: ours(masks),
            "ours, FrameLabels": lambda labels=labels, ours=ours: ours(labels),
            "one argsort": lambda snippets=snippets: np.argsort(snippets),
        }
        row = compare(
            name,
            ways,
            3 * settings.rounds,
            n_videos=len(masks),
            n_frames=len(flat),
            n_snippets=len(snippets),
            differ_by=difference,
        )
        del row["ratios"]["one argsort"]  # it does no more than sort
        median = row["medians"]["one argsort"]
        row["values"]["argsorts"] = {
            way: row["medians"][way] / median for way in ("ours", "ours, FrameLabels")
        }
        rows.append(row)
    return {"rows": rows, "lengths": source(settings)}


# --------------------------------------------------------------------------
# Search
# --------------------------------------------------------------------------
@contextlib.contextmanager
def _c3d_store(settings):
    """Yield a store of C3D features of 32 segments, and labels."""
    with tempfile.TemporaryDirectory() as folder:
        if settings.data is None or settings.quick:
            n, width = settings.size(400, 40), settings.size(4096, 64)
            bags, y = Bags.from_list(make_features([32] * n, width)), halves(n)
        else:
            from study_data import c3d_full

            videos = c3d_full(settings.data, None, 0)
            bags, y = videos.bags, np.asarray(videos.labels)
        bags.save(Path(folder, "store"))
        yield Bags.open(Path(folder, "store")), y


def grid_search(settings):
    """12 candidates x 3 folds with two workers, beside the same fits alone."""
    from sklearn_vad import MILRankingAnomalyDetector
    from sklearn_vad.bags import snippet_blocks

    grid = {"lr": [1e-3, 3e-3, 1e-2], "sparsity": [8e-6, 8e-5], "smoothness": [0, 8e-5]}
    grid = grid if not settings.quick else {"lr": [1e-3, 1e-2]}
    with _c3d_store(settings) as (bags, y):
        est = MILRankingAnomalyDetector(max_epochs=2, random_state=0, n_jobs=1)
        walls, searches = {}, {}
        started = time.perf_counter()
        Parallel(2)([delayed(_import)(), delayed(_import)()])
        starting = time.perf_counter() - started
        for n_jobs in (1, 2):
            search = GridSearchCV(est, grid, cv=3, n_jobs=n_jobs, refit=False)
            search.set_params(scoring="roc_auc", error_score="raise")
            started = time.perf_counter()
            search.fit(bags, y)
            walls[n_jobs] = time.perf_counter() - started
            found = search.cv_results_
            seconds = found["mean_fit_time"] + found["mean_score_time"]
            searches[n_jobs] = 3 * float(seconds.sum())
        parts = {
            "fit": lambda: est.fit(bags, y),
            "reading an epoch": lambda: [bag.sum() for bag in bags],
            "scaling": lambda: _scale(snippet_blocks(bags), bags.n_features),
        }
        fit = compare(
            "one fit of all videos", parts, min(settings.rounds, 3), base="fit"
        )
        sent = len(pickle.dumps((clone(est), bags, y)))
    n_fits = 3 * int(np.prod([len(v) for v in grid.values()]))
    row = values_row(
        f"{n_fits} fits",
        starting=starting,
        wall=walls[2],
        sum_of_fits=searches[2],
        wall_over_half_the_sum=walls[2] / (searches[2] / 2),
        wall_alone=walls[1],
        sum_of_fits_alone=searches[1],
        wall_alone_over_sum=walls[1] / searches[1],
        wall_over_half_the_fits_alone=walls[2] / (searches[1] / 2),
        bytes_sent_per_fit=sent,
        bytes_of_features=int(bags.lengths.sum() * bags.n_features * 4),
    )
    row = _with_seconds(row, {"straightforward": [walls[1]], "ours": [walls[2]]})
    kind = "made up" if settings.data is None or settings.quick else "C3D of UCF-Crime"
    return {"rows": [row, fit], "lengths": kind}


def _import():
    """Load in a worker what it needs for its first fit."""
    importlib.import_module("sklearn_vad.detectors")


def _scale(blocks, n_features):
    from sklearn_vad.layers import InputScaling

    InputScaling(n_features).fit(blocks, "uniform")


# --------------------------------------------------------------------------
# Import
# --------------------------------------------------------------------------
def import_time(settings):
    """Seconds of imports, each in a fresh interpreter."""
    code = (
        "import sys, time; started = time.perf_counter(); import {};"
        " print(time.perf_counter() - started, 'torch' in sys.modules)"
    )
    modules = ("sklearn", "sklearn_vad", "sklearn_vad.metrics", "torch")
    seconds, loads = {f"import {name}": [] for name in modules}, {}
    for i in range(8 if not settings.quick else 3):
        for name in modules:
            command = [sys.executable, "-c", code.format(name)]
            found = subprocess.run(command, capture_output=True, text=True, check=True)
            taken, torch_loaded = found.stdout.split()
            loads[f"import {name}"] = torch_loaded == "True"
            if i:  # the first time may read from the disk
                seconds[f"import {name}"].append(float(taken))
    row = values_row("a fresh interpreter", loads_torch=loads)
    return {"rows": [_with_seconds(row, seconds)]}


# --------------------------------------------------------------------------
# Threads
# --------------------------------------------------------------------------
def threads(settings):
    """A step of DDL and the scoring of all test videos, with one thread and two."""
    from speed_data import test_lengths
    from speed_scoring import fitted, in_bfloat16, with_threads
    from speed_training import STEPS, _batch

    bags, y = _batch(settings)
    calls = {f"step, {way}": make(bags, y)[1] for way, make in STEPS.items()}
    width = settings.size(WIDTH, 128)
    videos = Bags.from_list(make_features(test_lengths(settings), width))
    est = fitted("ddl", width)
    half = in_bfloat16("ddl", est)
    calls["scoring, ours"] = lambda: est.score_snippets(videos)
    calls["scoring, ours, bfloat16"] = lambda: half.score_snippets(videos)
    rows = []
    for name, call in calls.items():
        ways = {f"{n} thread{'s' * (n > 1)}": with_threads(n, call) for n in (1, 2)}
        if os.cpu_count() < 2:
            del ways["2 threads"]
        row = compare(name, ways, min(settings.rounds, 2), base="1 thread")
        rows.append(row)
    return {"rows": rows, "lengths": source(settings)}
