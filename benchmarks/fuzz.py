"""What damaged files end in, and calls with any arguments.

    python benchmarks/fuzz.py --files 10000 --cases 10000 --seed 0

What is damaged and called how, and which outcomes are right, say
`tests/fuzz_files.py` and `tests/fuzz_cases.py`. Files are read in child processes,
which are watched: one that crashes, takes more than `SECONDS` for a file, or far more
memory than it had, is an offender. Prints how often each outcome occurred, and the
first offenders, each with the call that makes it again:

    python benchmarks/fuzz.py --files 5018 --first 5017 --seed 0
    python benchmarks/fuzz.py --cases 300 --seed 0 --only metrics

Needs the extras "test" and "hdf5". Ends with status 1 when there were offenders.
"""

import argparse
import faulthandler
import json
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

SECONDS = 30
MOST_ADDRESSES = 4 * 2**30  # beyond what a process has when it begins
SHOWN = 12


# --------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------
def read_files(first, last, seed, only):
    """Be the child: print one line for each damaged file."""
    import fuzz_files

    faulthandler.enable()
    with tempfile.TemporaryDirectory() as folder:
        fuzz = fuzz_files.FileFuzz(folder, seed, only)
        limit_memory()
        for number in range(first, last):
            fuzz.prepare(number)
            before, start = fuzz_files.peak_memory(reset=True), time.perf_counter()
            subject, outcome, wrong = fuzz.read()
            seconds = time.perf_counter() - start
            taken = fuzz_files.peak_memory() - before
            if taken > fuzz_files.MOST_BYTES:
                outcome, wrong = "memory", f"took {taken / 2**20:.0f} MiB: {wrong}"
            row = [number, subject, outcome, wrong, seconds, taken]
            print(json.dumps(row), flush=True)


def limit_memory():
    """Let this process have no more than `MOST_ADDRESSES` beyond what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MOST_ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def watch_files(first, last, seed, only):
    """Yield the child's lines; start another one after a crash or a hang."""
    while first < last:
        command = [sys.executable, __file__, "--child", "--first", str(first)]
        command += ["--files", str(last), "--seed", str(seed)]
        command += ["--only", only] if only else []
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1)
        patience = 10 * SECONDS  # while it imports torch
        while select.select([child.stdout], [], [], patience)[0]:
            line = child.stdout.readline()
            if not line:
                break
            yield json.loads(line)
            first, patience = first + 1, SECONDS
        hangs = child.poll() is None and first < last and not line_ended(child)
        if hangs:
            child.kill()
        code = child.wait()
        if first < last:
            what = f"no answer in {SECONDS} s" if hangs else f"died with status {code}"
            yield [first, "?", "hang" if hangs else "crash", what, SECONDS, 0]
            first += 1


def line_ended(child):
    """Tell whether a child is at its end, and gives it a moment for that."""
    try:
        child.wait(5)
    except subprocess.TimeoutExpired:
        return False
    return True


def fuzz_files_in_children(args):
    counts, offenders, slowest, most = Counter(), [], 0, 0
    start = time.perf_counter()
    rows = watch_files(args.first, args.files, args.seed, args.only)
    for number, subject, outcome, wrong, seconds, taken in rows:
        counts[subject, outcome] += 1
        slowest, most = max(slowest, seconds), max(most, taken)
        if wrong:
            offenders.append(
                f"{subject}, {outcome}: {wrong}\n    --files {number + 1} --first"
                f" {number} --seed {args.seed}"
                + (f" --only '{args.only}'" if args.only else "")
            )
    print(
        f"files: {sum(counts.values())} in {time.perf_counter() - start:.0f} s; the"
        f" slowest took {slowest:.1f} s, the largest {most / 2**20:.0f} MiB",
        flush=True,
    )
    return counts, offenders


# --------------------------------------------------------------------------
# Cases
# --------------------------------------------------------------------------
def fuzz_kind(kind, n, seed_, counts, offenders):
    import fuzz_cases
    from hypothesis import HealthCheck, Phase, given, seed, settings

    @seed(seed_)
    @settings(
        max_examples=n,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(fuzz_cases.KINDS[kind])
    def judge(case):
        outcome, wrong = fuzz_cases.judge(case)
        counts[kind, outcome] += 1
        if wrong:  # one of a sort
            again = f"--cases {n} --seed {seed_} --only '{kind}'"
            offender = f"{kind}: {wrong}\n    {repr(case)[:600]}\n    {again}"
            offenders.setdefault(wrong[-80:], offender)

    judge()


def fuzz_calls(args):
    import fuzz_cases

    limit_memory()
    counts, offenders, start = Counter(), {}, time.perf_counter()
    kinds = [kind for kind in fuzz_cases.KINDS if args.only in (None, kind)]
    for i, kind in enumerate(kinds):
        n = (args.cases + i) // len(kinds)
        fuzz_kind(kind, n, args.seed, counts, offenders)
    print(
        f"cases: {sum(counts.values())} in {time.perf_counter() - start:.0f} s;"
        f" {len(offenders)} sorts of offenders"
    )
    return counts, list(offenders.values())


def report(counts, offenders):
    outcomes = sorted({outcome for _, outcome in counts})
    print(" " * 16 + "".join(f"{outcome:>14}" for outcome in outcomes))
    for subject in dict.fromkeys(subject for subject, _ in counts):
        row = "".join(f"{counts[subject, outcome]:14}" for outcome in outcomes)
        print(f"{subject:16}{row}")
    total = "".join(
        f"{sum(n for (_, o), n in counts.items() if o == outcome):14}"
        for outcome in outcomes
    )
    print(f"{'all':16}{total}")
    for offender in offenders[:SHOWN]:
        print("-", offender)
    if len(offenders) > SHOWN:
        print(f"- and {len(offenders) - SHOWN} more")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--cases", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one sort of files, or of cases")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return read_files(args.first, args.files, args.seed, args.only)
    found = []
    for wanted, fuzz in (
        (args.files, fuzz_files_in_children),
        (args.cases, fuzz_calls),
    ):
        if wanted:
            counts, offenders = fuzz(args)
            report(counts, offenders)
            found += offenders
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
