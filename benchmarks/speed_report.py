"""From docs/speed.json to docs/speed.md and its picture; nothing is measured here."""

import json
import re
from pathlib import Path
from string import Template

DOCS = Path(__file__).parents[1] / "docs"
# Numbers that have a column of their own; the others are written below the table.
COLUMNS = {
    "peak_mib": "peak memory, MiB",
    "slower_than_idle": "times slower than beside an idle core",
    "argsorts": "in argsorts of the snippets",
    "share_read_from_disk": "share read from the disk",
    "loads_torch": "loads torch",
    "p99_ms": "99th percentile, ms",
    "frames_per_second": "frames a second",
    "added_mib": "memory added, MiB",
    "most_mib": "whole process at most, MiB",
    "features_mib": "of it, features at most, MiB",
    "float32": "float32",
    "bfloat16": "bfloat16",
    "change": "change",
    "sd_of_change": "sd of the change",
}
NAMES = {
    "loss_differs_by": "losses differ by",
    "gradient_differs_by": "gradients, over the largest of all, differ by",
    "scores_differ_by": "scores differ at most by",
    "bfloat16_differs_by": "bfloat16 scores differ at most by",
    "bfloat16_differs_on_average_by": "and on average by",
    "differ_by": "values differ by",
    "refused": "refused",
    "first_batch": "seconds of the first batch, compiling",
    "batch_of_another_length": "of the first one of another length",
    "n_snippets": "snippets",
    "n_padded": "snippets with padding",
    "n_videos": "videos",
    "n_frames": "frames",
    "gflop": "GFLOP at least",
    "largest": "largest error of a score",
    "mean": "mean error",
    "sd_of_scores": "standard deviation of the scores",
    "gib": "GiB",
    "starting": "seconds that two workers take to start, not counted below",
    "wall": "seconds by the clock, two workers",
    "sum_of_fits": "sum of their fits and scorings",
    "wall_over_half_the_sum": "the clock over half that sum",
    "wall_alone": "seconds by the clock, one worker",
    "sum_of_fits_alone": "sum of its fits and scorings",
    "wall_alone_over_sum": "the clock over that sum",
    "wall_over_half_the_fits_alone": "two workers' clock over half of one's fits",
    "bytes_sent_per_fit": "bytes sent to a worker with a fit",
    "bytes_of_features": "bytes of features",
}
SKIPPED = {"width", "size"}  # they stand in the row's name


# --------------------------------------------------------------------------
# Text
# --------------------------------------------------------------------------
def time_text(seconds):
    """Return three digits of a time, in a unit that fits."""
    for unit, factor in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1 or unit == "µs":
            return f"{number_text(seconds * factor)} {unit}"
    raise AssertionError


def number_text(value):
    """Return a number with three digits that count, or whole."""
    if value is None or isinstance(value, (str, bool)):
        return {None: "", True: "yes", False: "no"}.get(value, value)
    if isinstance(value, int) or abs(value) >= 100:
        return f"{round(value):,}"
    if value == 0 or abs(value) >= 1e-3:
        return f"{value:.3g}"
    return f"{value:.1e}"


def table_text(record):
    """Return a case's table as Markdown, and what else was found, below it."""
    heads, lines = _lines(record["rows"])
    used = [i for i, _ in enumerate(heads) if any(line[i] for line in lines)]
    rows = [heads, *lines]
    table = ["| " + " | ".join(row[i] for i in used) + " |" for row in rows]
    table.insert(1, "|---" * len(used) + "|")
    notes = [*_notes(record), _conditions(record)]
    return "\n".join(table) + "\n\n" + "\n".join(f"- {note}" for note in notes)


def _lines(rows):
    """Return the heads, and the cells of all ways of the rows that have some."""
    heads = ["", "way", "median", "times as fast", "floor", "of the floor's speed"]
    heads += COLUMNS.values()
    lines = []
    for row in rows:
        for i, way in enumerate(row["medians"] or [""]):
            line = [row["name"] if i == 0 else "", way, *_speed_cells(row, way)]
            for key in COLUMNS:
                value = row["values"].get(key)
                if isinstance(value, dict):
                    value = value.get(way)
                elif way not in ("", "ours"):
                    value = None
                line.append(number_text(value))
            lines.append(line)
    return heads, [line for line in lines if any(line[1:])]


def _speed_cells(row, way):
    if not row["medians"]:
        return [""] * 4
    ratio, floor = row["ratios"].get(way), row["floor_medians"].get(way)
    return [
        time_text(row["medians"][way]),
        "" if ratio is None else f"{ratio:.2f}",
        "" if floor is None else time_text(floor),
        "" if floor is None else f"{row['of_floor'][way]:.0%}".replace("%", " %"),
    ]


def _notes(record):
    """Return what the table does not show, a line for each row."""
    for row in record["rows"]:
        known = {k: v for k, v in row["values"].items() if k in NAMES}
        if "added_mib" in row["values"]:
            continue
        if known:
            parts = [f"{NAMES[k]} {number_text(v)}" for k, v in known.items()]
            yield f"{row['name']}: {'; '.join(parts)}."
    for what, value in record.get("exponents", {}).items():
        yield f"Time grows as {what} to the power of {value:.2f} (last two sizes)."
    if record.get("whole_and_pieces_differ_by") is not None:
        value = number_text(record["whole_and_pieces_differ_by"])
        yield f"Scores of a video, whole and in pieces, differ at most by {value}."


def _conditions(record):
    """Say how a case was measured."""
    said, machine = record["settings"], record["machine"]
    rounds = {len(s) for row in record["rows"] for s in row["seconds"].values()}
    rounds = sorted(rounds - {0})
    times = {0: "", 1: f"{rounds[0]} round{'s' * (rounds[0] > 1)}, "} if rounds else {}
    text = times.get(len(rounds), "") if rounds else ""
    if len(rounds) > 1:
        text = f"{rounds[0]} to {rounds[-1]} rounds, "
    text += f"{said['threads']} thread{'s' * (said['threads'] > 1)}"
    if "lengths" in record:
        text += f", data: {record['lengths']}"
    if said["quick"]:
        text += ", **sizes of `--quick`, which say nothing**"
    elsewhere = machine["cores_busy_elsewhere"]
    return f"{text[0].upper()}{text[1:]}; {elsewhere:.2f} cores were busy with others."


def machine_text(results):
    """Return what the cases ran on; several, where they did."""
    found = []
    for record in results["cases"].values():
        m = record["machine"]
        flags = ", ".join(flag.replace("_", " ") for flag in m["flags"])
        text = f"{m['cpu']} ({flags}), {m['n_cores']} cores, Python {m['python']}"
        text += f", torch {m['torch']}, scikit-learn {m['scikit-learn']}"
        text += f", numpy {m['numpy']}"
        found.append(text)
    return "; ".join(dict.fromkeys(found))


def render(results):
    """Return the text of docs/speed.md; a section without its case is left out."""
    cases = results["cases"]
    values = {name: table_text(record) for name, record in cases.items()}
    values["machine"] = machine_text(results)
    text = (DOCS / "speed.md.in").read_text(encoding="utf-8")
    head, *sections = re.split(r"(?=\n##+ )", text)
    kept = [s for s in map(Template, sections) if set(s.get_identifiers()) <= {*values}]
    return "".join(part.substitute(values) for part in [Template(head), *kept])


# --------------------------------------------------------------------------
# Claims elsewhere
# --------------------------------------------------------------------------
SPEED = re.compile(r"([\d.,]*\d) (times|%)")
LINK = re.compile(r"docs/speed\.md#(\w+)")


def unfounded(text, results):
    """Return the claims about speed in a text that no case bears out.

    A paragraph with a link to ``docs/speed.md#case`` makes claims: every "n times"
    and "n %" in it. Each must be a ratio or a fraction in one of those cases, rounded
    as it stands there. A paragraph that says "times as fast" must have a link.
    """
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        names = LINK.findall(paragraph)
        known = [results["cases"][n] for n in names if n in results["cases"]]
        found += [name for name in names if name not in results["cases"]]
        if not names:
            found += re.findall(r"[\d.,]+\stimes\sas\sfast", paragraph)
            continue
        for number, unit in SPEED.findall(" ".join(paragraph.split())):
            numbers = [n for record in known for n in numbers_of(record, unit)]
            digits = len(number.partition(".")[2])
            wanted = float(number.replace(",", ""))
            if not any(round(n, digits) == wanted for n in numbers):
                found.append(f"{number} {unit}")
    return found


def numbers_of(record, unit):
    """Return a case's ratios and other values, or its fractions in per cent."""
    for row in record["rows"]:
        if unit == "%":
            yield from (100 * value for value in row["of_floor"].values())
        else:
            yield from row["ratios"].values()
            for value in row["values"].values():
                values = value.values() if isinstance(value, dict) else [value]
                yield from (v for v in values if isinstance(v, (int, float)))


# --------------------------------------------------------------------------
# The picture
# --------------------------------------------------------------------------
MARKS = {
    "straightforward": {"marker": "o", "color": "0.45"},
    "ours": {"marker": "o", "color": "C0"},
    "ours, bfloat16": {"marker": "D", "color": "C1"},
}
LONG = {
    "long_ddl": "DDL",
    "long_dam": "DAM",
    "long_sta": "STA",
    "long_rtfm": "RTFM",
    "long_mil_ranking": "MIL ranking",
}


NOT_SHOWN = ("compile", "long", "grid", "threads", "score_ddl_busy")


def shown_rows(results):
    """Return the rows of the picture by their labels: those of two ways or more."""
    shown = {}
    for name, record in results["cases"].items():
        rows = [
            row
            for row in record["rows"]
            if {"straightforward", "ours"} <= set(row["medians"])
        ]
        for row in [] if name.startswith(NOT_SHOWN) else rows:
            shown[f"{name}\n{row['name']}" if len(rows) > 1 else name] = row
    return shown


def draw(results, path):
    """Draw seconds of all ways beside their floors, and growth with T."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = shown_rows(results)
    height = 1.6 + 0.42 * max(len(rows), 6)
    figure, axes = plt.subplots(
        1, 3, figsize=(13, height), layout="constrained", width_ratios=(2, 1.2, 1.2)
    )
    _draw_ways(axes[0], rows)
    _draw_growth(axes[1], results, "seconds", "seconds to score a video")
    _draw_growth(axes[2], results, "added_mib", "MiB beside its features")
    curves = axes[1].get_legend_handles_labels()
    figure.legend(*curves, loc="outside lower right", ncols=3)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_ways(ax, rows):
    from matplotlib.lines import Line2D

    for i, row in enumerate(rows.values()):
        known = [row["medians"][way] for way in MARKS if way in row["medians"]]
        ax.plot([min(known), max(known)], [i, i], color="0.8", zorder=1)
        for way, mark in MARKS.items():
            if way in row["medians"]:
                ax.plot(row["medians"][way], i, ls="", ms=7, **mark)
        for way, floor in row["floor_medians"].items():
            color = MARKS[way]["color"]
            ax.plot(floor, i, "|", ms=15, mew=2, color=color)
    empty = {"xdata": [], "ydata": [], "ls": ""}
    handles = [Line2D(label=way, ms=7, **empty, **mark) for way, mark in MARKS.items()]
    bar = {"marker": "|", "ms": 13, "mew": 2, "color": "k"}
    handles.append(Line2D(label="its floor", **bar, **empty))
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_xscale("log")
    ax.set_xlabel("seconds, median")
    ax.invert_yaxis()
    ax.grid(axis="x", alpha=0.3)
    ax.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.4, 1), ncols=4)


def _draw_growth(ax, results, what, label):
    """Draw one of the numbers of long videos over their length."""
    from matplotlib.ticker import NullFormatter

    curves = {}
    for name, title in LONG.items():
        for row in results["cases"].get(name, {"rows": []})["rows"]:
            if "added_mib" not in row["values"]:
                continue
            variant = re.sub(r"^T = [\d,]*\d(, )?", "", row["name"])
            value = row["medians"]["ours"] if what == "seconds" else row["values"][what]
            key = f"{title}, {variant}" if variant else title
            curves.setdefault(key, []).append((row["values"]["n_snippets"], value))
    for key, points in curves.items():
        style = "--" if "," in key else "-"
        color = f"C{list(LONG.values()).index(key.split(',')[0])}"
        sizes, values = zip(*points, strict=True)
        ax.plot(sizes, values, f"o{style}", label=key, color=color, ms=5)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("snippets")
    ax.set_title(label, fontsize=11)
    ax.grid(alpha=0.3)
    ax.xaxis.set_minor_formatter(NullFormatter())


def report(path):
    """Write the page and the picture of a results file."""
    results = json.loads(Path(path).read_text(encoding="utf-8"))
    (DOCS / "speed.md").write_text(render(results), encoding="utf-8")
    draw(results, DOCS / "images" / "speed.png")
