"""Kill trainings and savings at random moments, and see that nothing is lost.

    python benchmarks/kills.py --kills 200

A training with a checkpoint is killed (SIGKILL) after a random time and started
again by the same call, until it has come to its end; then its weights, history,
optimiser and generators are compared, bit by bit, with those of a training that was
never killed. A detector is saved over another one, back and forth, and killed
after a random time; then the file must load as one of the two. The script ends
with an error if anything differs.
"""

import argparse
import multiprocessing
import pickle
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
from tqdm import tqdm

from sklearn_vad import DDLAnomalyDetector, load
from sklearn_vad.datasets import make_bags

# A fork is there in no time, where a new process would import everything first: the
# parent trains and loads once, alone, so that its children have all they need.
CONTEXT = multiprocessing.get_context("fork")
TIMEOUT = 600.0
# tqdm's own lock is shared with forked children, and one that is killed keeps it: the
# parent would wait for ever. A lock of threads is not shared; no thread watches bars.
tqdm.set_lock(threading.RLock())
tqdm.monitor_interval = 0


def data():
    return make_bags(24, n_features=16, max_snippets=12, random_state=0)


def make(seed=0):
    return DDLAnomalyDetector(
        hidden_dim=32,
        mlp_dims=(32, 16),
        max_epochs=12,
        batch_size=8,
        validation_fraction=0.25,
        random_state=seed,
        n_jobs=1,
    )


def state_of(est):
    """Return, as bytes, all that a training leaves but how long it took."""
    history = [{k: v for k, v in row.items() if k != "dur"} for row in est.history_]
    optimizer = est.net_.optimizer_.state_dict()
    entries = [
        (place, name, value.numpy().tobytes())
        for place, state in sorted(optimizer["state"].items())
        for name, value in sorted(state.items())
    ]
    weights = [w.numpy().tobytes() for w in est.net_.module_.state_dict().values()]
    drawn = est.net_.generator.get_state().numpy().tobytes()
    lr = [group["lr"] for group in optimizer["param_groups"]]
    return repr((history, est.best_epoch_, lr, entries, weights, drawn)).encode()


def in_child(function, *args, kill_after=None):
    """Run a function in a child; return its result, or None if it was killed."""
    ours, theirs = CONTEXT.Pipe()
    child = CONTEXT.Process(target=_child, args=(theirs, function, args))
    child.start()
    theirs.close()
    try:
        if not ours.poll(TIMEOUT if kill_after is None else kill_after):
            child.kill()
            return None
        return pickle.loads(ours.recv_bytes())
    finally:
        child.join()
        ours.close()


def _child(pipe, function, args):
    pipe.send_bytes(pickle.dumps(function(*args)))


# --------------------------------------------------------------------------
# Training
# --------------------------------------------------------------------------
def train(folder=None):
    """Return what a training leaves, and its seconds."""
    started = time.perf_counter()
    est = make().fit(*data(), checkpoint=folder)
    return state_of(est), time.perf_counter() - started


def kill_trainings(n_kills, seed=0, progress=False):
    """Kill trainings `n_kills` times; return what was seen, by name."""
    torch.set_num_threads(1)  # no pool of threads that a fork would lack
    draw = random.Random(seed)
    train()
    whole, seconds = train()
    seen = {"kills": 0, "resumed": 0, "trainings ended": 0, "different": 0}
    bar = tqdm(total=n_kills, desc="training", unit="kill", disable=not progress)
    with bar, tempfile.TemporaryDirectory() as work:
        while seen["kills"] < n_kills or not seen["trainings ended"]:
            folder = Path(work, str(seen["trainings ended"]))
            seen["resumed"] += bool(list(folder.glob("*/training.safetensors")))
            last = seen["kills"] >= n_kills
            moment = None if last else draw.uniform(0, seconds / 2)
            found = in_child(train, folder, kill_after=moment)
            if found is None:
                seen["kills"] += 1
                bar.update()
                continue
            seen["trainings ended"] += 1
            seen["different"] += found[0] != whole
    return seen


# --------------------------------------------------------------------------
# Saving
# --------------------------------------------------------------------------
def save_forever(paths, target):
    """Save one detector over the other, again and again."""
    detectors = [load(path) for path in paths]
    while True:
        for est in detectors:
            est.save(target)


def weights_of(path):
    est = load(path)
    return [w.numpy().tobytes() for w in est.net_.module_.state_dict().values()]


def kill_savings(n_kills, seed=0, progress=False):
    """Kill `n_kills` processes that save; return what was seen, by name."""
    torch.set_num_threads(1)
    draw = random.Random(seed)
    seen = {"kills": 0, "first": 0, "second": 0, "lost": 0}
    with tempfile.TemporaryDirectory() as work:
        paths = [Path(work, f"{i}.safetensors") for i in range(2)]
        for i, path in enumerate(paths):
            make(i).fit(*data()).save(path)
        known = [weights_of(path) for path in paths]
        target = Path(work, "target.safetensors")
        target.write_bytes(paths[0].read_bytes())
        for _ in tqdm(range(n_kills), "saving", unit="kill", disable=not progress):
            in_child(save_forever, paths, target, kill_after=draw.uniform(0, 0.3))
            seen["kills"] += 1
            found = weights_of(target)
            name = {0: "first", 1: "second"}
            seen[name[known.index(found)] if found in known else "lost"] += 1
        left = len(list(Path(work).glob(".*.part-*")))
    return {**seen, "parts left behind": left}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    trainings = kill_trainings(args.kills, args.seed, progress=True)
    savings = kill_savings(args.kills, args.seed, progress=True)
    for what, seen in (("training", trainings), ("saving", savings)):
        print(f"{what}: " + ", ".join(f"{n} {name}" for name, n in seen.items()))
    sys.exit(trainings["different"] + savings["lost"] > 0)


if __name__ == "__main__":
    main()
