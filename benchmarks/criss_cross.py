"""Criss-cross attention: time and memory beside the usual implementation.

    python benchmarks/criss_cross.py [--rounds 5] [--widths 256,1024,2048,4096]
    python benchmarks/criss_cross.py --step

The usual implementation is that of CCNet: queries and keys as (B, D, N, C) maps
by 1x1 convolution, normalised, the affinities of every pixel to the N + C - 1
cells of its row and column in one tensor, softmax, two sums. Both take one map of
32 segments x C features, D = 10, on one thread, in turns in one process; peak
memory is taken in fresh processes (on Linux). ``--step`` runs one training step of
the paper's size, 60 videos of 32 x 4096, and prints its memory.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from sklearn_vad.detectors._sta import CrissCrossNet, sta_loss_terms
from sklearn_vad.functional import criss_cross_attention

N_SEGMENTS, N_CHANNELS = 32, 10
# Float32 values that the usual form keeps for each affinity, about.
KEPT = 7


def usual(x, query_weight, query_bias, key_weight, key_bias):
    """Criss-cross attention with a tensor of all affinities, as CCNet has it."""
    shape = N_CHANNELS, 1, 1, 1
    maps = x.unsqueeze(1)  # (B, 1, N, C)
    query = F.normalize(F.conv2d(maps, query_weight.view(shape), query_bias), dim=1)
    key = F.normalize(F.conv2d(maps, key_weight.view(shape), key_bias), dim=1)
    b, d, n, c = query.shape
    row = torch.bmm(
        query.permute(0, 2, 3, 1).reshape(b * n, c, d),
        key.permute(0, 2, 1, 3).reshape(b * n, d, c),
    )
    column = torch.bmm(
        query.permute(0, 3, 2, 1).reshape(b * c, n, d),
        key.permute(0, 3, 1, 2).reshape(b * c, d, n),
    )
    # The centre counts once: it is left to the row.
    column = column.masked_fill(torch.eye(n, dtype=torch.bool), -torch.inf)
    row, column = row.view(b, n, c, c), column.view(b, c, n, n).transpose(1, 2)
    weight = torch.cat([row, column], dim=3).softmax(dim=3)
    row = torch.bmm(weight[..., :c].reshape(b * n, c, c), x.reshape(b * n, c, 1))
    column = torch.bmm(
        weight[..., c:].transpose(1, 2).reshape(b * c, n, n),
        x.transpose(1, 2).reshape(b * c, n, 1),
    )
    return row.view(b, n, c) + column.view(b, c, n).transpose(1, 2) + x


def make_input(width):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, N_SEGMENTS, width, generator=generator, requires_grad=True)
    parameters = [
        torch.randn(N_CHANNELS, generator=generator, requires_grad=True)
        for _ in range(4)
    ]
    return x, *parameters


def forward(attention, inputs):
    with torch.no_grad():
        attention(*inputs)


def forward_backward(attention, inputs):
    attention(*inputs).sum().backward()


PASSES = {"forward": forward, "forward + backward": forward_backward}


# --------------------------------------------------------------------------
# Memory
# --------------------------------------------------------------------------
def resident(name):
    """Return VmRSS (now) or VmHWM (the most so far) of this process in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise LookupError(name)


def measure_memory(attention, width, step, pipe):
    """Send what one pass adds to the memory of a process."""
    torch.set_num_threads(1)
    step(attention, make_input(8))  # what libraries need at first use
    inputs = make_input(width)
    Path("/proc/self/clear_refs").write_text("5")  # the most so far is now
    before = resident("VmRSS")
    step(attention, inputs)
    pipe.send(resident("VmHWM") - before)


def memory_of(*case):
    """Run `measure_memory` in a fresh process."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=measure_memory, args=(*case, sender))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        return np.nan
    finally:
        process.join()


def fits(width):
    """Whether the usual form has memory enough to be run at this width."""
    needed = KEPT * 4 * N_SEGMENTS * width * (N_SEGMENTS + width)
    return needed < os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


# --------------------------------------------------------------------------
# Time
# --------------------------------------------------------------------------
def time_of(cases, step, inputs, n_rounds):
    """Return the median seconds of each case, taken in turns."""
    seconds = {name: [] for name in cases}
    for i in range(n_rounds + 1):
        for name, attention in cases.items():
            started = time.perf_counter()
            step(attention, inputs)
            if i:  # the first round warms up, and compiles
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(s) for name, s in seconds.items()}


def exponent(widths, values):
    """Return the slope of log values over log widths."""
    return np.polyfit(np.log(widths), np.log(values), 1)[0]


def compare(widths, n_rounds, compiled):
    torch.set_num_threads(1)
    memory, seconds = {}, {}
    jobs = [(name, width) for width in widths for name in PASSES]
    for name, width in tqdm(jobs, unit="case"):
        cases = {"usual": usual, "ours": criss_cross_attention}
        if not fits(width):
            tqdm.write(f"not memory enough for the usual form at C = {width}")
            del cases["usual"]
        for case, attention in cases.items():
            memory[case, name, width] = memory_of(attention, width, PASSES[name])
        if compiled:
            cases |= {f"{k}, compiled": torch.compile(f) for k, f in cases.items()}
        found = time_of(cases, PASSES[name], make_input(width), n_rounds)
        seconds |= {(case, name, width): value for case, value in found.items()}
    report(widths, memory, seconds)


def report(widths, memory, seconds):
    print(f"one map of {N_SEGMENTS} x C, D = {N_CHANNELS}, one thread")
    for name in PASSES:
        print(f"\n{name}")
        for width in widths:
            print(f"  C = {width}")
            ours = seconds["ours", name, width]
            for case in ("usual", "usual, compiled", "ours", "ours, compiled"):
                if (case, name, width) not in seconds:
                    continue
                value = seconds[case, name, width]
                line = (
                    f"    {case:16} {1e3 * value:9.1f} ms, {value / ours:6.1f} x ours"
                )
                if (case, name, width) in memory:
                    used = memory[case, name, width]
                    times = used / memory["ours", name, width]
                    line += f"; {used:8.1f} MiB, {times:5.1f} x ours"
                print(line)
        for case in ("usual", "ours"):
            known = [w for w in widths if (case, name, w) in seconds]
            if len(known) > 1:
                slope = exponent(known, [seconds[case, name, w] for w in known])
                print(f"  time of {case} grows as C ** {slope:.2f}")


def train_one_step():
    """Print the time and the memory of a step of the paper's size."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = CrissCrossNet(4096, N_CHANNELS, 2, 1.0, False, "rnn", 64, (512, 32))
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4)
    X = torch.rand(60, N_SEGMENTS, 4096)
    mask = torch.ones(60, N_SEGMENTS, dtype=torch.bool)
    y = torch.arange(60) % 2
    started = time.perf_counter()
    terms = sta_loss_terms(
        module(X, mask),
        y,
        mask,
        mce_weight=0.02,
        mce_margin=0.4,
        margin=1.0,
        smoothness=2e-4,
        sparsity=4e-5,
    )
    sum(terms.values()).backward()
    optimizer.step()
    seconds = time.perf_counter() - started
    print(
        f"a training step of 60 videos of {N_SEGMENTS} x 4096: {seconds:.1f} s,"
        f" {resident('VmHWM') / 1024:.2f} GiB at most in the whole process"
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--widths", default="256,1024,2048,4096")
    parser.add_argument("--eager", action="store_true", help="leave out torch.compile")
    parser.add_argument("--step", action="store_true", help="one training step only")
    args = parser.parse_args()
    if args.step:
        train_one_step()
    else:
        widths = [int(width) for width in args.widths.split(",")]
        compare(widths, args.rounds, compiled=not args.eager)


if __name__ == "__main__":
    main()
