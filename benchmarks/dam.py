"""DAM: what a training step costs.

    python benchmarks/dam.py [--threads 1] [--rounds 5]

Times one training step of the paper's size, 20 videos of 16 segments of 7 x 1024,
as it is here and with two plain `torch.nn.LSTM` calls, in float32 and bfloat16,
beside the floor: the products that no formulation can leave out, at the speed of
the faster matrix product that PyTorch has. What DAM's parts bring is in the study.
"""

import argparse
import statistics
import time

import torch

from sklearn_vad._lstm import product
from sklearn_vad.detectors._dam import (
    DissimilarityAttention,
    weighted_ranking_loss_terms,
)
from sklearn_vad.functional import dissimilarities
from sklearn_vad.layers import Dropout

N_VIDEOS, N_SEGMENTS, N_STEPS, WIDTH = 20, 16, 7, 1024


class PlainDAM(DissimilarityAttention):
    """The straightforward formulation: two calls of `torch.nn.LSTM`."""

    def score(self, current, previous):
        d_n, d_t = dissimilarities(current, previous, self.variant)
        features = self.feature_lstm(current.transpose(0, 1))[1][0][0]
        state = self.attention_lstm((d_n * d_t).transpose(0, 1))[1][0][0]
        features = features * state.softmax(dim=1) + features
        clip = self.clip(state.tanh()).squeeze(1).float().sigmoid()
        return self.mlp(features).squeeze(1).float().sigmoid(), clip


def make_step(module_class, precision):
    """Return a function that runs one training step."""
    torch.manual_seed(0)
    module = module_class(
        WIDTH, WIDTH, "dist", False, True, True, True, mlp_dims=(96,), dropout=0.2
    )
    for layer in module.modules():
        if isinstance(layer, Dropout):
            layer.generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4)
    X = torch.randn(N_VIDEOS, N_SEGMENTS, N_STEPS, WIDTH)
    mask = torch.ones(N_VIDEOS, N_SEGMENTS, dtype=torch.bool)
    y = torch.arange(N_VIDEOS) % 2

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            output = module(X, mask)
        terms = weighted_ranking_loss_terms(
            output, y, mask, margin=1.0, smoothness=8e-5, sparsity=8e-5
        )
        terms["ranking"].backward()
        optimizer.step()

    return step


def make_floor(precision):
    """Return the products of one step and nothing else.

    In products of (rows, 1024) with (1024, 4096), rows = 20 x 16: forward, the
    features take 7 from the inputs and 6 from the states, the attention 1 and
    6; backward, the same for the gradients of the weights, and 6 + 6 for those
    of the states.
    """
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    rows = N_VIDEOS * N_SEGMENTS
    states = torch.randn(rows, WIDTH, dtype=dtype)
    inputs = torch.randn(rows * N_STEPS, WIDTH, dtype=dtype)
    gates = torch.randn(rows, 4 * WIDTH, dtype=dtype)
    many_gates = torch.randn(rows * N_STEPS, 4 * WIDTH, dtype=dtype)
    weight = torch.randn(4 * WIDTH, WIDTH, dtype=dtype)
    back = weight.t().contiguous()
    later = slice(rows, None)

    def products():
        product(inputs, weight)
        product(states, weight)
        product(many_gates.t(), inputs.t())
        product(gates.t(), states.t())
        for _ in range(2):  # both LSTMs
            product(many_gates[later].t(), inputs[later].t())
            for _ in range(N_STEPS - 1):
                product(states, weight)
                product(gates, back)

    return products


def time_steps(n_rounds):
    print(f"one training step, {torch.get_num_threads()} thread(s), {n_rounds} rounds")
    for precision in ("float32", "bfloat16"):
        cases = {
            "two nn.LSTM": make_step(PlainDAM, precision),
            "this package": make_step(DissimilarityAttention, precision),
            "floor (products)": make_floor(precision),
        }
        seconds = {name: [] for name in cases}
        for i in range(n_rounds + 1):
            for name, case in cases.items():
                started = time.perf_counter()
                case()
                if i:  # the first round warms up
                    seconds[name].append(time.perf_counter() - started)
        medians = {name: statistics.median(s) for name, s in seconds.items()}
        ours = medians["this package"]
        for name, median in medians.items():
            print(f"{precision:9} {name:17} {1e3 * median:8.0f} ms")
        print(
            f"{precision:9} {medians['two nn.LSTM'] / ours:.2f} times as fast as two"
            f" nn.LSTM; {medians['floor (products)'] / ours:.0%} of the floor's speed"
        )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    time_steps(args.rounds)


if __name__ == "__main__":
    main()
