"""Cases of speed.py: scoring whole videos, long ones, and streams."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import straightforward
import torch
from speed_data import WIDTH, halves, make_features, source, test_lengths
from speed_rounds import (
    Probe,
    Watch,
    check_equal,
    compare,
    exponent,
    in_process,
    products,
    resident,
    summarise,
    threads,
    values_row,
)
from speed_training import lanet_flops

from sklearn_vad import (
    Bags,
    DAMAnomalyDetector,
    DDLAnomalyDetector,
    MILRankingAnomalyDetector,
    RTFMAnomalyDetector,
    STAAnomalyDetector,
    _scoring,
    load,
)
from sklearn_vad._products import product
from sklearn_vad.datasets import make_bags
from sklearn_vad.online import push_together

DETECTORS = {
    "ddl": DDLAnomalyDetector,
    "mil_ranking": MILRankingAnomalyDetector,
    "dam": DAMAnomalyDetector,
    "sta": STAAnomalyDetector,
    "rtfm": RTFMAnomalyDetector,
}
PLAIN = {
    "ddl": (straightforward.LANet, straightforward.score_with_lanet),
    "mil_ranking": (straightforward.RankingMLP, straightforward.score_with_mlp),
    "dam": (straightforward.DAM, straightforward.score_with_dam),
    "sta": (straightforward.STA, straightforward.score_with_sta),
}


def fitted(kind, *tail, **params):
    """Return a detector trained for an epoch on noise: only its time matters."""
    bags = list(make_features([40] * 8, *tail, seed=1))
    est = DETECTORS[kind](max_epochs=1, random_state=0, **params)
    return est.fit(bags, halves(8))


def plain_of(kind, est):
    """Return the straightforward way to score videos, with a detector's weights."""
    make, score = PLAIN[kind]
    net = make(est.n_features_in_)
    net.load_state_dict(est.net_.module_.state_dict())
    return lambda bags: straightforward.score_videos(score, net, bags)


def flops(kind, lengths, width):
    """Return what no formulation of the scores can leave out."""
    n = int(np.sum(lengths))
    if kind == "ddl":
        return lanet_flops(lengths, width, training=False)
    if kind == "mil_ranking":
        return 2 * n * (width * 512 + 512 * 32 + 32)
    # DAM of one step: two LSTMs without a state before, nothing to forget, three gates
    return 2 * n * (2 * width * 3 * 1024 + 1024 * 96 + 96)


def floor_of(kind, lengths, width, precision="float32"):
    """Return probes for the floor."""
    needed = flops(kind, lengths, width)
    n_out = 4096 if kind == "dam" else 512
    return products(needed, min(int(np.sum(lengths)), 8192), width, n_out, precision)


# --------------------------------------------------------------------------
# All test videos
# --------------------------------------------------------------------------
def _score(kind, settings, precisions=("float32",)):
    """Time the scoring of all test videos, ours at once, the other one by one."""
    lengths, width = test_lengths(settings), settings.size(WIDTH, 128)
    if kind == "sta" and not settings.full:
        lengths = lengths[::6]  # dense criss-cross attention takes so long
    arrays = list(make_features(lengths, width))
    bags, est = Bags.from_list(arrays), fitted(kind, width)
    plain = plain_of(kind, est)
    expected = plain(arrays)
    differences = {
        "scores_differ_by": check_equal(kind, est.score_snippets(bags), expected)
    }
    ways = {"straightforward": lambda: plain(arrays)}
    ways["ours"] = lambda: est.score_snippets(bags)
    floors = {}
    if kind != "sta":  # whose attention and recurrence no product bounds
        floors["ours"] = floor_of(kind, lengths, width)
    if "bfloat16" in precisions:
        half = in_bfloat16(kind, est)
        ways["ours, bfloat16"] = lambda: half.score_snippets(bags)
        floors["ours, bfloat16"] = floor_of(kind, lengths, width, "bfloat16")
        pairs = zip(half.score_snippets(bags), expected, strict=True)
        apart = np.concatenate([np.abs(a - b) for a, b in pairs])
        differences["bfloat16_differs_by"] = float(apart.max())
        differences["bfloat16_differs_on_average_by"] = float(apart.mean())
    n_rounds = settings.rounds if kind != "dam" else min(settings.rounds, 3)
    row = compare(
        f"{len(lengths)} videos",
        ways,
        n_rounds,
        floors=floors,
        n_snippets=int(lengths.sum()),
        **differences,
    )
    return {"rows": [row], "lengths": source(settings)}


def in_bfloat16(kind, est):
    """Return a detector of the same weights in the other precision."""
    half = fitted(kind, est.n_features_in_, precision="bfloat16")
    half.net_.module_.load_state_dict(est.net_.module_.state_dict())
    return half


def score_ddl(settings):
    return _score("ddl", settings, ("float32", "bfloat16"))


def score_mil_ranking(settings):
    return _score("mil_ranking", settings)


def score_dam(settings):
    return _score("dam", settings)


def score_sta(settings):
    return _score("sta", settings)


# --------------------------------------------------------------------------
# While another process keeps a core busy
# --------------------------------------------------------------------------
BUSY = """
import torch
torch.set_num_threads(1)
x = torch.randn(1024, 1024)
while True:
    x @ x
"""


class BusyCore:
    """Another process that multiplies matrices, when it is told to."""

    def __enter__(self):
        self.process = subprocess.Popen([sys.executable, "-c", BUSY])
        time.sleep(5)  # it imports torch
        self.rest()
        return self

    def __exit__(self, *exc):
        self.process.kill()
        self.process.wait()

    def rest(self):
        self.process.send_signal(signal.SIGSTOP)

    def during(self, call):
        def busy():
            self.process.send_signal(signal.SIGCONT)
            try:
                call()
            finally:
                self.rest()

        return busy


def with_threads(n, call):
    """Return a function that computes with so many threads."""

    def run():
        with threads(n):
            call()

    return run


BESIDE = ", a core busy"


def _idle_and_busy(row):
    """Return two rows of one whose ways took turns beside a busy core and not."""
    idle, busy = (
        summarise(
            {
                **row,
                "name": row["name"] + (BESIDE if beside else ""),
                "seconds": {
                    way.removesuffix(BESIDE): seconds
                    for way, seconds in row["seconds"].items()
                    if way.endswith(BESIDE) == beside
                },
            }
        )
        for beside in (False, True)
    )
    before = idle["medians"]
    slower = {way: median / before[way] for way, median in busy["medians"].items()}
    return [idle, {**busy, "values": {"slower_than_idle": slower}}]


def score_ddl_busy(settings):
    lengths, width = test_lengths(settings), settings.size(WIDTH, 128)
    arrays = list(make_features(lengths, width))
    bags, est = Bags.from_list(arrays), fitted("ddl", width)
    half, plain = in_bfloat16("ddl", est), plain_of("ddl", est)
    calls = {
        "straightforward": lambda: plain(arrays),
        "ours": lambda: est.score_snippets(bags),
        "ours, bfloat16": lambda: half.score_snippets(bags),
    }
    rows, n_rounds = [], min(settings.rounds, 2)
    with BusyCore() as core:
        for n in range(1, min(os.cpu_count(), 2) + 1):
            ways = {}
            for way, call in calls.items():
                ways[way] = with_threads(n, call)
                ways[way + BESIDE] = core.during(ways[way])
            name = f"{n} thread{'s' * (n > 1)}"
            rows += _idle_and_busy(compare(name, ways, n_rounds, warm_up=n == 1))
    return {"rows": rows, "lengths": source(settings)}


# --------------------------------------------------------------------------
# Growth with features and videos
# --------------------------------------------------------------------------
def growth(settings):
    """Scoring by DDL over the number of features, and of videos."""
    rows, found = [], {}
    widths = settings.size((256, 1024, 4096), (32, 64))
    numbers = settings.size((50, 200, 800), (4, 8))
    cases = [("D", width, numbers[1], width) for width in widths]
    cases += [("videos", n, n, settings.size(WIDTH, 64)) for n in numbers]
    for what, size, n_videos, width in cases:
        lengths = np.full(n_videos, 200)
        bags, est = Bags.from_list(make_features(lengths, width)), fitted("ddl", width)
        call = {"ours": lambda est=est, bags=bags: est.score_snippets(bags)}
        floors = {"ours": floor_of("ddl", lengths, width)}
        name = f"{what} = {size}"
        row = compare(name, call, min(settings.rounds, 2), floors=floors, size=size)
        rows.append(row)
        found.setdefault(what, []).append((size, row["medians"]["ours"]))
    exponents = {
        what: exponent(*np.transpose(pairs[-2:])) for what, pairs in found.items()
    }
    return {"rows": rows, "exponents": exponents}


# --------------------------------------------------------------------------
# Streams
# --------------------------------------------------------------------------
def stream_products(n_cameras, width, n_steps):
    """Return the matrix products of DAM's LSTMs, for one snippet a camera."""
    weight = torch.randn(4 * 1024, width)
    inputs, states = (
        torch.randn(n_cameras * n_steps, width),
        torch.randn(n_cameras, width),
    )

    @torch.inference_mode()
    def run():
        product(inputs, weight)  # the features' inputs
        product(states, weight)  # the attention's: one for all steps
        for _ in range(2 * (n_steps - 1)):
            product(states, weight)

    return run


def _push(est, n_cameras, tail):
    """Return the function that gives every camera's stream one snippet more."""
    rng = np.random.default_rng(0)
    snippets = rng.normal(size=(n_cameras, *tail)).astype(np.float32)
    streams = [est.stream() for _ in snippets]
    if n_cameras == 1:
        return lambda: streams[0].push(snippets[0])
    return lambda: push_together(streams, snippets)


def stream(settings):
    """Seconds from a snippet to its score; DAM of 7 steps, and MIL ranking."""
    width, n_steps = WIDTH, 7
    detectors = {
        "DAM, Dist": fitted("dam", n_steps, width),
        "DAM, Cov": fitted("dam", n_steps, width, variant="cov"),
        "MIL ranking": fitted("mil_ranking", width),
    }
    rows = []
    for n_cameras, n in ((1, 200), (64, 50)):
        for name, est in detectors.items():
            dam = name.startswith("DAM")
            push = _push(est, n_cameras, (n_steps, width) if dam else (width,))
            floor = [Probe(stream_products(n_cameras, width, n_steps), 1)]
            row = compare(
                f"{name}, {n_cameras} camera{'s' * (n_cameras > 1)}",
                {"ours": push},
                settings.size(n, 10),
                floors={"ours": floor} if dam else None,
            )
            seconds = row["seconds"]["ours"]
            row["values"] = {
                "p99_ms": 1e3 * float(np.percentile(seconds, 99)),
                "frames_per_second": 16 * n_cameras / float(np.median(seconds)),
            }
            rows.append(row)
    return {"rows": rows}


# --------------------------------------------------------------------------
# Long videos
# --------------------------------------------------------------------------
def _measure(detector, store, limit, n_rounds=1):
    """Score the one video of a store; what that took, in this process.

    Without a limit, the video goes whole. A refusal is returned as its message.
    """
    bags, est = Bags.open(store), load(detector)
    if limit is None:
        _scoring._SCORING_VALUES, limit = 2**40, 2**10
    est.memory_limit = limit
    est.score_snippets([np.array(bags[0][:64])])  # what is loaded on first use
    scores, seconds = None, []
    try:
        with Watch() as watch:
            for _ in range(n_rounds):
                started = time.perf_counter()
                scores = est.score_snippets(bags)[0]
                seconds.append(time.perf_counter() - started)
    except ValueError as error:
        return {"refused": str(error)}
    most = resident("VmHWM")
    return {"scores": scores, "seconds": seconds, "added": watch.added, "most": most}


@contextlib.contextmanager
def _stores(sizes, width):
    """Yield stores of one video each, by its number of snippets; and the folder."""
    with tempfile.TemporaryDirectory() as folder:
        stores = {n: Path(folder, f"{n}") for n in sizes}
        for n, path in stores.items():
            Bags.from_list(make_features([n], width, seed=n)).save(path)
        yield stores, Path(folder)


def _long(kind, settings, **params):
    """Score ever longer videos from a store, each in a process of its own."""
    width, middle = settings.size(WIDTH, 64), settings.size(6000, 500)
    sizes = settings.size((1_000, 10_000, 100_000), (1_000, 4_000))
    est, rows, known = fitted(kind, width, **params), [], []
    with _stores((*sizes, middle), width) as (stores, folder):
        est.save(saved := folder / "detector.safetensors")
        for n in sizes:
            n_rounds = settings.rounds if n < 10_000 else 1
            found = in_process(_measure, saved, stores[n], 2.0, n_rounds)
            rows.append(_long_row(n, found, width))
            if "ours" in rows[-1]["medians"]:
                known.append((n, rows[-1]["medians"]["ours"]))
        parts = _measure_pieces(saved, stores[middle], middle)
    record = {"rows": rows, "whole_and_pieces_differ_by": parts}
    if len(known) > 1:
        record["exponents"] = {"T": exponent(*np.transpose(known[-2:]))}
    return record


def _long_row(n, found, width):
    """Return the row of a number of snippets."""
    name = f"T = {n:,}"
    if "refused" in found:
        return values_row(name, n_snippets=n, refused=found["refused"])
    values = {
        "n_snippets": n,
        "added_mib": found["added"],
        "most_mib": found["most"],
        "features_mib": 4 * n * width / 2**20,
    }
    return summarise(
        {
            "name": name,
            "seconds": {"ours": found["seconds"]},
            "floors": {},
            "base": None,
            "values": values,
        }
    )


def _measure_pieces(saved, store, n):
    """Return how much scores differ, of a video whole and in pieces; or None."""
    whole = in_process(_measure, saved, store, None)
    pieces = in_process(_measure, saved, store, 2.0 * n / 162_000)
    if "refused" in pieces or "refused" in whole:
        return None
    return check_equal("in pieces", [whole["scores"]], [pieces["scores"]], 1e-4)


def long_dam(settings):
    return _long("dam", settings)


def long_mil_ranking(settings):
    return _long("mil_ranking", settings)


def long_rtfm(settings):
    return _long("rtfm", settings)


def long_sta(settings):
    by_snippets = _long("sta", settings, resolution="snippet")
    record = _long("sta", settings)
    for row in by_snippets["rows"]:
        row["name"] += ", by snippets"
        record["rows"].append(row)
    return record


def long_ddl(settings):
    record = _long("ddl", settings)
    record["rows"] += [
        _beside_plain(n, settings) for n in settings.size((1_000, 5_000), (300,))
    ]
    record["rows"] += _windowed(settings)
    return record


def _beside_plain(n, settings):
    """Compare with the straightforward form on one video."""
    width = settings.size(WIDTH, 64)
    (bag,) = make_features([n], width)
    est = fitted("ddl", width)
    plain = plain_of("ddl", est)
    apart = check_equal(f"T = {n}", est.score_snippets([bag]), plain([bag]))
    ways = {"straightforward": lambda: plain([bag])}
    ways["ours"] = lambda: est.score_snippets([bag])
    floors = {"ours": floor_of("ddl", [n], width)}
    return compare(
        f"T = {n:,}, beside the T x T form",
        ways,
        min(settings.rounds, 3),
        floors=floors,
        scores_differ_by=apart,
    )


WINDOW = 512


def _windowed(settings):
    """The windowed approximation: its time, its memory and its error."""
    rows = _long("ddl", settings, attention_window=WINDOW)["rows"]
    for row in rows:
        row["name"] += f", attention_window={WINDOW}"
    return [*rows, _error_of_window(settings)]


def _error_of_window(settings):
    """Return how far scores are from exact ones, of a detector that has learned."""
    bags, labels = _videos_to_learn(settings)
    rng = np.random.default_rng(0)
    est = DDLAnomalyDetector(hidden_dim=128, random_state=0)
    est.set_params(max_epochs=settings.size(10, 2)).fit(bags, labels)
    # Long videos are short ones, one after the other.
    n, rows = settings.size(10_000, 1_500), []
    for i in itertools.cycle(rng.permutation(len(bags))):
        rows.append(np.array(bags[int(i)], dtype=np.float32))
        if sum(map(len, rows)) >= n:
            break
    video = [np.concatenate(rows)[:n]]
    exact = est.score_snippets(video)[0]
    est.set_params(attention_window=WINDOW)
    apart = np.abs(est.score_snippets(video)[0] - exact)
    return values_row(
        f"T = {n:,}, error of attention_window={WINDOW}",
        largest=float(apart.max()),
        mean=float(apart.mean()),
        sd_of_scores=float(exact.std()),
    )


def _videos_to_learn(settings):
    """Return videos and their labels: X3D of UCF-Crime, or made-up ones."""
    if settings.data is not None:
        from study_data import x3d

        videos = x3d(settings.data, None, 0)
        return videos.bags, np.asarray(videos.labels)
    bags, labels = make_bags(settings.size(300, 20), n_features=256, random_state=0)
    return bags, np.asarray(labels)
