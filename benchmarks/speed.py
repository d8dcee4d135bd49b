"""How fast everything is: beside the straightforward way, and beside what is possible.

    python benchmarks/speed.py [--data DIR] [--cases ddl_step,metrics] [--quick]
    python benchmarks/speed.py report

Each case runs in a fresh process, its ways in turns, round by round. What it finds
goes to docs/speed.json, where the results of other cases stay; `report` makes
docs/speed.md and docs/images/speed.png of that. DIR holds UCF-Crime's and
XD-Violence's annotations and features, as for study.py; without it, data of the same
sizes are made up.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from speed_rounds import Settings

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PACKAGES = ("torch", "scikit-learn", "numpy")
# Where the function of a case's name is.
MODULES = {
    "speed_training": (
        *("ddl_step", "ddl_epoch", "bfloat16", "compile", "dam_step", "criss_cross"),
    ),
    "speed_scoring": (
        *("score_ddl", "score_mil_ranking", "score_dam", "score_sta"),
        *("score_ddl_busy", "stream", "growth"),
        *("long_ddl", "long_dam", "long_mil_ranking", "long_rtfm", "long_sta"),
    ),
    "speed_others": ("read", "metrics", "grid_search", "import_time", "threads"),
}
CASES = {name: module for module, names in MODULES.items() for name in names}


# --------------------------------------------------------------------------
# The child: one case
# --------------------------------------------------------------------------
def run_case(name, settings, out):
    """Run a case in this process, and leave its record as JSON."""
    record = getattr(importlib.import_module(CASES[name]), name)(settings)
    out.write_text(json.dumps(record, default=float))


# --------------------------------------------------------------------------
# The parent
# --------------------------------------------------------------------------
def record_of(name, settings):
    """Run a case in a child; return its record, and what the machine did meanwhile."""
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(variables, str(settings.threads))}
    # What is measured is the package beside this file, wherever it is installed.
    paths = [str(ROOT), os.environ.get("PYTHONPATH")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "record.json")
        command = [sys.executable, __file__, "run-case", name, str(out)]
        busy, own, started = _busy_seconds(), _own_seconds(), time.perf_counter()
        command.append(json.dumps(settings._asdict()))
        subprocess.run(command, env=environment, check=True)
        taken = time.perf_counter() - started
        others = _busy_seconds() - busy - (_own_seconds() - own)
        record = json.loads(out.read_text(), parse_float=_rounded)
    record["settings"] = {**settings._asdict(), "data": settings.data is not None}
    record["machine"] = machine()
    record["machine"]["cores_busy_elsewhere"] = _rounded(max(others, 0) / taken)
    record["wall_seconds"] = _rounded(taken)
    return record


def _busy_seconds():
    """Return the seconds that all cores together have been busy since the start."""
    user, nice, system, *_ = Path("/proc/stat").read_text().split("\n")[0].split()[1:]
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")


def _own_seconds():
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _rounded(value):
    return float(f"{float(value):.5g}")


def machine():
    """Return what numbers depend on."""
    cpu = Path("/proc/cpuinfo").read_text()
    fields = dict(
        (part.strip() for part in line.split(":", 1))
        for line in cpu.splitlines()
        if ":" in line
    )
    flags = set(fields.get("flags", "").split())
    known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    return {
        "cpu": fields.get("model name", platform.processor()),
        "flags": [flag for flag in known if flag in flags],
        "n_cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def write_whole(path, text):
    """Write a file that appears whole or not at all."""
    partial = path.with_name(f"{os.getpid()}-{path.name}")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def add_record(path, name, record):
    """Put a case's record into the results file, beside those of other cases."""
    results = json.loads(path.read_text()) if path.exists() else {"cases": {}}
    results["cases"][name] = record
    results["cases"] = dict(sorted(results["cases"].items()))
    text = json.dumps(results, separators=(",", ":"))
    write_whole(path, text.replace('{"name"', '\n{"name"') + "\n")


def say(name, record):
    """Print the medians of a case, and what they are beside others."""
    idle = record["machine"]["cores_busy_elsewhere"]
    print(f"{name}: {record['wall_seconds']:.0f} s, {idle:.2f} cores busy elsewhere")
    for row in record["rows"]:
        for way, median in row["medians"].items():
            parts = [f"{median:10.4f} s"]
            if way in row["ratios"]:
                parts.append(f"{row['ratios'][way]:.2f} times as fast")
            if way in row["of_floor"]:
                parts.append(f"{row['of_floor'][way]:.0%} of the floor's speed")
            print(f"  {row['name']:>22}  {way:24} {', '.join(parts)}")
        if not row["medians"]:
            print(f"  {row['name']:>22}  {row['values']}")
    sys.stdout.flush()


def parse_args(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=["run", "report"], default="run")
    parser.add_argument("--data", type=Path, help="folder of real data")
    parser.add_argument("--cases", help="names, with commas; all by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="sizes that take seconds")
    parser.add_argument("--full", action="store_true", help="epochs of all videos")
    parser.add_argument("--out", type=Path, default=DOCS / "speed.json")
    return parser.parse_args(argv)


def main(argv):
    if argv[:1] == ["run-case"]:
        name, out, settings = argv[1:]
        return run_case(name, Settings(**json.loads(settings)), Path(out))
    args = parse_args(argv)
    if args.what == "report":
        import speed_report

        return speed_report.report(args.out)
    names = args.cases.split(",") if args.cases else list(CASES)
    unknown = set(names) - set(CASES)
    if unknown:
        raise SystemExit(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    data = args.data and str(args.data.resolve())
    settings = Settings(data, args.rounds, args.threads, args.quick, args.full)
    failed = []
    for i, name in enumerate(names):
        print(f"[{i + 1}/{len(names)}]", end=" ", flush=True)
        try:
            record = record_of(name, settings)
        except subprocess.CalledProcessError:  # the child has said why
            failed.append(name)
            continue
        add_record(args.out, name, record)
        say(name, record)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main(sys.argv[1:])
