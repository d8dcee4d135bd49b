"""Print what the tests execute: lines of the package, and its `raise` statements.

    python -m pytest --cov=sklearn_vad --cov-branch --cov-report=json
    python .ci/coverage.py coverage.json

A `raise` that no test reaches is an error message that nobody has read. All those
are listed. `make coverage` does both.
"""

import ast
import json
import sys
from pathlib import Path


def raises_of(source):
    """Return the first lines of all raise statements."""
    nodes = ast.walk(ast.parse(source))
    return {node.lineno for node in nodes if isinstance(node, ast.Raise)}


def main(path):
    report = json.loads(Path(path).read_text(encoding="utf-8"))
    n_raises, silent = 0, []
    for name, found in sorted(report["files"].items()):
        raises = raises_of(Path(name).read_text(encoding="utf-8"))
        never = sorted(raises & set(found["missing_lines"]))
        n_raises += len(raises)
        silent += [f"{name}:{line}" for line in never]
        summary = found["summary"]
        print(
            f"{summary['percent_covered']:6.1f} %  {name}: {summary['missing_lines']}"
            f" of {summary['num_statements']} statements never run,"
            f" {len(never)} of {len(raises)} raises"
        )
    totals = report["totals"]
    lines = totals["covered_lines"] / totals["num_statements"]
    print("Never raised:", *(silent or ["none"]), sep="\n  ")
    print(f"{100 * lines:.1f} % of {totals['num_statements']} statements run")
    print(f"{100 - 100 * len(silent) / n_raises:.1f} % of {n_raises} raises executed")


if __name__ == "__main__":
    main(*sys.argv[1:])
