"""How the cases of speed.py measure: ways in turns, floors, memory, equality."""

import contextlib
import multiprocessing
import os
import statistics
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm


class Settings(NamedTuple):
    """What the command line says, for every case."""

    data: str | None = None
    rounds: int = 5
    threads: int = 1
    quick: bool = False
    full: bool = False

    def size(self, full, quick):
        """Return a size of the problem, a small one with ``--quick``."""
        return quick if self.quick else full


class Probe(NamedTuple):
    """What a floor is computed from: `run` does 1 / `factor` of what must be done."""

    run: object
    factor: float


# --------------------------------------------------------------------------
# Rows
# --------------------------------------------------------------------------
def compare(name, ways, n_rounds, *, floors=None, warm_up=True, base=None, **values):
    """Let ways take turns, and return what that says as a row of the results.

    Parameters
    ----------
    name : str
    ways : dict of callable
        "straightforward" is what the others are compared with, unless `base` is
        another one's name.
    n_rounds : int
    floors : dict of list of Probe, default=None
        For the names of ways, probes that run in the same rounds; the fastest counts.
    warm_up : bool, default=True
        Whether a round goes before that is not counted.
    **values
        Other numbers for the results.

    Returns
    -------
    row : dict
    """
    floors = floors or {}
    probes = {
        (way, i): probe for way, own in floors.items() for i, probe in enumerate(own)
    }
    calls = {**ways, **{key: probe.run for key, probe in probes.items()}}
    seconds = take_turns(calls, n_rounds, warm_up, name)
    scaled = {
        way: [
            min(seconds[way, i][j] * probe.factor for i, probe in enumerate(own))
            for j in range(n_rounds)
        ]
        for way, own in floors.items()
    }
    own = {way: seconds[way] for way in ways}
    return summarise(
        {"name": name, "seconds": own, "floors": scaled, "base": base, "values": values}
    )


def take_turns(calls, n_rounds, warm_up=True, name=""):
    """Return the seconds of each call in each round; all calls take turns."""
    seconds = {key: [] for key in calls}
    n_first = int(warm_up)
    total = (n_rounds + n_first) * len(calls)
    with tqdm(total=total, desc=name, leave=False, disable=None) as bar:
        for i in range(n_rounds + n_first):
            for key, call in calls.items():
                started = time.perf_counter()
                call()
                taken = time.perf_counter() - started
                if i >= n_first:
                    seconds[key].append(taken)
                bar.update()
    return seconds


def summarise(row):
    """Return a row with medians, ratios to the base, and how near floors are."""
    medians = {way: statistics.median(own) for way, own in row["seconds"].items()}
    base = medians.get(row["base"] or "straightforward")
    floors = {way: statistics.median(own) for way, own in row["floors"].items()}
    return {
        **row,
        "medians": medians,
        "ratios": {
            way: base / median
            for way, median in medians.items()
            if base is not None and way != (row["base"] or "straightforward")
        },
        "floor_medians": floors,
        "of_floor": {way: floor / medians[way] for way, floor in floors.items()},
    }


def exponent(sizes, values):
    """Return the slope of log values over log sizes."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


# --------------------------------------------------------------------------
# Floors
# --------------------------------------------------------------------------
def products(n_flops, n_rows, n_in, n_out, precision="float32"):
    """Return probes of a matrix product's speed, by both libraries of torch."""
    import torch
    import torch.nn.functional as F

    from sklearn_vad._products import product

    dtype = getattr(torch, precision)
    x, weight = torch.randn(n_rows, n_in), torch.randn(n_out, n_in)
    x, weight = x.to(dtype), weight.to(dtype)
    factor = n_flops / (2 * n_rows * n_in * n_out)
    calls = [lambda: F.linear(x, weight)]
    if dtype == torch.float32:
        calls.append(lambda: product(x, weight))
    return [Probe(call, factor) for call in calls]


def copies(n_bytes, piece):
    """Return a probe of how fast so many bytes are copied, in pieces, to one place."""
    here = np.ones((max(min(n_bytes, 2**28) // piece, 1), piece), np.uint8)
    there = np.zeros(piece, np.uint8)

    def run():
        for row in here:
            np.copyto(there, row)

    return [Probe(run, n_bytes / here.nbytes)]


# --------------------------------------------------------------------------
# Equality
# --------------------------------------------------------------------------
def check_equal(what, ours, theirs, tolerance=1e-5):
    """Return the largest difference, or raise where it is above the tolerance.

    Both are sequences of arrays, or of numbers.
    """
    largest = max(
        np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max()
        for a, b in zip(ours, theirs, strict=True)
    )
    largest = float(largest)
    if not largest <= tolerance:
        raise SystemExit(f"{what}: results differ by {largest:.2g}, not {tolerance:g}")
    return largest


# --------------------------------------------------------------------------
# Memory and processes
# --------------------------------------------------------------------------
def resident(name):
    """Return VmRSS (now) or VmHWM (the most so far) of this process in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise LookupError(name)


class Watch:
    """The most anonymous memory since the start, in MiB: no pages of mapped files."""

    def __enter__(self):
        self._stop = threading.Event()
        self.before = self.most = self._now()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._stop.set()
        self._thread.join()
        self.added = self.most - self.before

    def _look(self):
        while not self._stop.wait(0.01):
            self.most = max(self.most, self._now())

    def _now(self):
        pages, shared = Path("/proc/self/statm").read_text().split()[1:3]
        return (int(pages) - int(shared)) * os.sysconf("SC_PAGE_SIZE") / 2**20


def values_row(name, **values):
    """Return a row of numbers that are no seconds of rounds."""
    row = {"name": name, "seconds": {}, "floors": {}, "base": None, "values": values}
    return summarise(row)


def in_process(function, *args):
    """Return what ``function(*args)`` returns in a fresh process."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, function, args))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise SystemExit(f"the process of {function.__name__}{args} died") from None
    finally:
        process.join()


def _send(pipe, function, args):
    import torch

    torch.set_num_threads(1)
    pipe.send(function(*args))


def peak_of(make, *args):
    """Return what one call of what ``make(*args)`` returns adds to the memory, MiB."""
    call = make(*args)
    Path("/proc/self/clear_refs").write_text("5")  # the most so far is now
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


@contextlib.contextmanager
def threads(n):
    """Compute with so many threads, and then with as many as before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
