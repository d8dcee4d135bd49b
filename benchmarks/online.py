"""How long a snippet waits for its score, one camera or 64 at once.

    python benchmarks/online.py [--threads 1] [--snippets 200]

Times `stream.push` of DAM (both variants, 7 x 1024 features, 1024 hidden units)
and of MIL ranking: median, 95th and 99th percentile, beside the same number of
matrix products that the LSTMs need and nothing else, and the frames per second
that this makes at 16 frames a snippet.
"""

import argparse
import time

import numpy as np
import torch
from tqdm.auto import tqdm

from sklearn_vad import DAMAnomalyDetector, MILRankingAnomalyDetector
from sklearn_vad._lstm import product
from sklearn_vad.online import push_together

WIDTH, N_STEPS = 1024, 7


def fit(detector, n_steps):
    """Train for one epoch on noise: only the time of scoring matters."""
    rng = np.random.default_rng(0)
    shape = (3, WIDTH) if n_steps is None else (3, n_steps, WIDTH)
    bags = [rng.normal(size=shape).astype(np.float32) for _ in range(2)]
    return detector.set_params(max_epochs=1, random_state=0).fit(bags, [0, 1])


def make_products(n_cameras):
    """Return the matrix products of both LSTMs, for one snippet a camera."""
    weight = torch.randn(4 * WIDTH, WIDTH)
    inputs = torch.randn(n_cameras * N_STEPS, WIDTH)
    states = torch.randn(n_cameras, WIDTH)

    @torch.inference_mode()
    def products():
        product(inputs, weight)  # the features' inputs
        product(states, weight)  # the attention's: one for all steps
        for _ in range(2 * (N_STEPS - 1)):
            product(states, weight)

    return products


def percentiles(cases, n_rounds):
    """Time all cases in turn; return milliseconds at 50, 95 and 99 %."""
    seconds = {name: [] for name in cases}
    for i in tqdm(range(n_rounds + 5), unit="snippet", leave=False):
        for name, case in cases.items():
            started = time.perf_counter()
            case()
            if i >= 5:
                seconds[name].append(time.perf_counter() - started)
    return {n: 1e3 * np.percentile(s, [50, 95, 99]) for n, s in seconds.items()}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--snippets", type=int, default=200)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    detectors = {
        "DAM, Dist": fit(DAMAnomalyDetector(variant="dist"), N_STEPS),
        "DAM, Cov": fit(DAMAnomalyDetector(variant="cov"), N_STEPS),
        "MIL ranking": fit(MILRankingAnomalyDetector(), None),
    }
    rng = np.random.default_rng(0)
    print(f"{args.threads} thread(s), {args.snippets} snippets a camera")
    for n_cameras in (1, 64):
        cases = {"products alone": make_products(n_cameras)}
        for name, est in detectors.items():
            shape = (WIDTH,) if "MIL" in name else (N_STEPS, WIDTH)
            snippets = rng.normal(size=(n_cameras, *shape)).astype(np.float32)
            streams = [est.stream() for _ in snippets]
            cases[name] = lambda s=streams, x=snippets: push_together(s, x)
        found = percentiles(cases, args.snippets)
        floor = found["products alone"][0]
        print(f"\n{n_cameras} camera(s)      50 %     95 %     99 %  frames/s  ratio")
        for name, times in found.items():
            cells = "".join(f"{t:9.2f}" for t in times)
            speed = 16 * n_cameras / times[0] * 1e3
            print(f"{name:15}{cells}{speed:10.0f}{times[0] / floor:7.2f}")


if __name__ == "__main__":
    main()
