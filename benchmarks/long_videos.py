"""Score a day-long video with every detector, and print the memory that it takes.

    python benchmarks/long_videos.py [--snippets 162000] [--features 1024]

Each detector scores in a process of its own, from a store on disk. Printed is the
largest anonymous memory beyond what was there before scoring: the features are
mapped from the file and not counted. A shorter video is scored whole and in pieces,
and the largest difference of its scores is printed.
"""

import argparse
import multiprocessing
import resource
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

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

DETECTORS = {
    "MIL ranking": MILRankingAnomalyDetector(),
    "DDL": DDLAnomalyDetector(),
    "DAM (Dist)": DAMAnomalyDetector(),
    "RTFM": RTFMAnomalyDetector(),
    "STA, by segments": STAAnomalyDetector(),
    "STA, by snippets": STAAnomalyDetector(resolution="snippet"),
}


class Watch:
    """The most anonymous memory of this process since the watch was started."""

    def __enter__(self):
        self._stop = threading.Event()
        self.before = self.most = self._now()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._stop.set()
        self._thread.join()

    def _look(self):
        while not self._stop.wait(0.005):
            self.most = max(self.most, self._now())

    def _now(self):
        resident, shared = Path("/proc/self/statm").read_text().split()[1:3]
        return (int(resident) - int(shared)) * resource.getpagesize()


def measure(detector, store, limit):
    """Return scores, peak memory in bytes beyond the start, and seconds; or an error.

    Without a limit, the video goes whole.
    """
    bags, detector = Bags.open(store), load(detector)
    if limit is None:
        _scoring._SCORING_VALUES, limit = 2**40, 2**10
    detector.memory_limit = limit
    detector.score_snippets([np.array(bags[0][:64])])  # what is loaded on first use
    started = time.perf_counter()
    try:
        with Watch() as watch:
            scores = detector.score_snippets(bags)[0]
    except ValueError as error:
        return str(error), None, None
    return scores, watch.most - watch.before, time.perf_counter() - started


def in_process(*args):
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, *args).result()


def make_store(folder, n_snippets, n_features, seed):
    rng = np.random.default_rng(seed)
    path = Path(folder, f"{n_snippets}")
    Bags.from_list([rng.random((n_snippets, n_features), dtype=np.float32)]).save(path)
    return path


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--snippets", type=int, default=162_000, help="24 h at 30 Hz")
    parser.add_argument("--both-fit", type=int, default=6_000, help="snippets")
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--limit", type=float, default=2.0, help="GiB")
    parser.add_argument("--only", help="one detector's name")
    args = parser.parse_args(argv)
    rng = np.random.default_rng(0)
    small = rng.random((8, 40, args.features), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        day = make_store(folder, args.snippets, args.features, 1)
        short = make_store(folder, args.both_fit, args.features, 2)
        for name, detector in DETECTORS.items():
            if args.only not in (None, name):
                continue
            detector.set_params(max_epochs=1, random_state=0, n_jobs=1)
            saved = Path(folder, "detector.safetensors")
            detector.fit(small, np.arange(8) % 2).save(saved)
            whole = in_process(saved, short, None)[0]
            tight = args.limit * args.both_fit / args.snippets
            pieces = in_process(saved, short, tight)[0]
            scores, peak, seconds = in_process(saved, day, args.limit)
            print(f"{name}: ", end="")
            if isinstance(scores, str):
                print(f"refused: {scores}")
                continue
            print(
                f"{len(scores)} snippets, peak {peak / 2**30:.2f} GiB of"
                f" {args.limit:g}, {seconds:.0f} s; whole and in pieces differ by"
                f" {np.abs(whole - pieces).max():.1e} at most",
                flush=True,
            )


if __name__ == "__main__":
    main()
