"""From the runs of the study to its results file, tables, intervals and pictures.

`collect` reads the runs and computes; `render` turns what `collect` found into
the text of docs/results.md. Nothing measured stands in the text itself.
"""

import json
from pathlib import Path
from string import Template
from typing import NamedTuple

import joblib
import numpy as np
from scipy.stats import rankdata, spearmanr
from study import (
    CONTROLS,
    VIDEO_WEIGHT,
    available,
    key_of,
    make,
    measure,
    runs_of,
    versions,
)
from study_data import DATASETS, match_lengths, split, untouched
from study_settings import LR_FACTORS, TABLES
from tqdm.auto import tqdm

from sklearn_vad.timeline import snippet_bounds

DOCS = Path(__file__).parents[1] / "docs"
N_RESAMPLES = 500
SELECTION_METRIC = "balanced_frame_roc_auc_score"
COLUMNS = {
    "frame_roc_auc_score": "frame AUC",
    "balanced_frame_roc_auc_score": "balanced",
    "matched_frame_roc_auc": "matched",
    "frame_average_precision_score": "AP",
    "false_alarm_rate": "FAR",
    "anomalous_roc_auc_score": "anomalous-only",
    "score_gap": "gap",
    "video_roc_auc": "video AUC",
}
TITLES = {
    "frame_roc_auc_score": "frame AUC",
    "matched_frame_roc_auc": "frame AUC, length-matched videos",
    "anomalous_roc_auc_score": "AUC inside anomalous videos",
}
PARTS = {
    "all": "difference in frame AUC",
    "matched": "the same, length-matched",
    "untouched": "the same, untouched videos",
}
README_ROWS = (
    "DDL",
    "DAM (Dist)",
    "STA",
    "MIL ranking",
    "MIL ranking, as published",
    "DDL + DAM + STA + MIL ranking, video_weight=1",
    "control: MIL ranking, constant per video",
    "control: minus length",
)
ENSEMBLES = {
    "DDL + DAM + STA": ("DDL", "DAM (Dist)", "STA"),
    "DDL + DAM + STA + MIL ranking": ("DDL", "DAM (Dist)", "STA", "MIL ranking"),
    "DAM + MIL ranking": ("DAM (Dist)", "MIL ranking"),
}


# --------------------------------------------------------------------------
# Reading the runs
# --------------------------------------------------------------------------
class Runs:
    """What `study.py run` left, and the truth that it was measured against."""

    def __init__(self, data, work, n_seeds):
        self.data, self.work, self.n_seeds = data, work, n_seeds
        self.drawn, self._parts = {}, {}

    def report_part(self, dataset, seed):
        """Return the report videos of a seed, and which of them are untouched."""
        if (dataset, seed) not in self._parts:
            videos = DATASETS[dataset](self.data, self.work, seed)
            rows = split(videos.labels, videos.groups, seed).report
            fresh = untouched(videos.labels, videos.groups)[rows]
            self._parts[dataset, seed] = (videos[rows], fresh)
        return self._parts[dataset, seed]

    def read(self, setting, seed, lr=None):
        """Return the row and the flat scores of a run."""
        detector = make(setting, lr, seed)
        path = self.work / f"{key_of(setting, detector, seed)}.json"
        row = json.loads(path.read_text())
        with np.load(path.with_suffix(".npz")) as file:
            return row, {name: file[name] for name in file.files}

    def has(self, setting):
        """Tell whether all runs of a setting are there."""
        return all(
            (self.work / f"{key_of(one, make(one, lr, seed), seed)}.json").exists()
            for one, lr, seed in runs_of(setting, self.n_seeds)
        )

    def chosen(self, setting, seed):
        """Return the run of the learning rate that the select videos prefer."""
        if not setting.tuned:
            return self.read(setting, seed)
        own = setting.make(seed).lr
        tried = [self.read(setting, seed)]
        tried += [self.read(setting, seed, own * f) for f in LR_FACTORS]
        return max(tried, key=lambda run: run[0]["select_0"][SELECTION_METRIC])

    def report_scores(self, setting, weight, seed):
        """Return the flat scores of the scored videos, of a run or an ensemble."""
        if not isinstance(setting, Ensemble):
            return self.chosen(setting, seed)[1][f"report_{weight:g}"]
        flat = [self.report_scores(member, 0.0, seed) for member in setting.members]
        flat = np.mean([rankdata(own) / len(own) for own in flat], axis=0)
        scores = separate(flat, self.report_part(setting.dataset, seed)[0].bags)
        leaning = [(s + weight * s.max()) / (1 + weight) for s in scores]
        return np.concatenate(leaning)


class Ensemble(NamedTuple):
    """The mean of the ranks that settings give to the snippets they are scored on."""

    name: str
    dataset: str
    members: tuple


def ensembles_of(settings):
    """Return the ensembles whose members are all among the settings."""
    by_name = {setting.name: setting for setting in settings}
    return [
        Ensemble(name, by_name[members[0]].dataset, tuple(by_name[m] for m in members))
        for name, members in ENSEMBLES.items()
        if set(members) <= set(by_name)
    ]


def separate(flat, bags):
    return np.split(flat, np.cumsum(bags.lengths)[:-1])


# --------------------------------------------------------------------------
# Intervals
# --------------------------------------------------------------------------
def resampled_aucs(videos, scores, draws):
    """Return the frame AUC of every draw of videos, given how often each counts.

    Parameters
    ----------
    videos : Videos
    scores : ndarray of shape (n_snippets,)
    draws : ndarray of shape (n_draws, n_videos)

    Returns
    -------
    aucs : ndarray of shape (n_draws,)
    """
    labels, n_snippets = videos.labels, videos.bags.lengths
    anomalous, normal = count_frames(labels, n_snippets)
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.nan) != 0)
    video = np.repeat(np.arange(len(n_snippets)), n_snippets)[order]
    aucs = []
    for some in np.array_split(draws, max(len(draws) // 100, 1)):
        weight = some[:, video].astype(np.float64)
        true, false = (
            np.add.reduceat(weight * frames[order], starts, axis=1)
            for frames in (anomalous, normal)
        )
        below = np.cumsum(false, axis=1) - false / 2
        aucs.append((true * below).sum(1) / (true.sum(1) * false.sum(1)))
    return np.concatenate(aucs)


def count_frames(labels, n_snippets):
    """Return the anomalous and the normal frames of every snippet, flat."""
    bounds = snippet_bounds(n_snippets, labels.n_frames, labels.snippet_length)
    before = np.append(0, np.cumsum(np.concatenate(labels.masks)))
    bounds = np.rint(bounds).astype(int)
    anomalous = np.diff(before[bounds])
    return anomalous, np.diff(bounds) - anomalous


def draw_videos(labels, among, rng):
    """Draw as many videos as there are, again and again, within each class."""
    y = np.asarray(labels)
    draws = np.zeros((N_RESAMPLES, len(y)), dtype=np.int32)
    for value in (0, 1):
        members = np.flatnonzero((y == value) & among)
        picked = rng.choice(members, (N_RESAMPLES, len(members)))
        np.add.at(draws, (np.arange(N_RESAMPLES)[:, None], picked), 1)
    return draws


def among(runs, dataset, seed, part):
    """Return which of the scored videos count: "all", "matched" or "untouched"."""
    videos, fresh = runs.report_part(dataset, seed)
    if part == "untouched":
        return fresh
    every = np.arange(len(fresh))
    return np.isin(every, match_lengths(videos.labels) if part == "matched" else every)


def auc_draws(runs, setting, weight, seed, part):
    """Return a run's frame AUC, and that of each draw of videos."""
    key = (setting, weight, seed, part)
    if str(key) not in runs.drawn:
        videos, _ = runs.report_part(setting.dataset, seed)
        chosen = among(runs, setting.dataset, seed, part)
        draws = draw_videos(videos.labels, chosen, np.random.default_rng(seed))
        draws = np.concatenate([chosen[None].astype(np.int32), draws])
        scores = runs.report_scores(setting, weight, seed)
        runs.drawn[str(key)] = resampled_aucs(videos, scores, draws)
    return runs.drawn[str(key)]


def difference(runs, ours, theirs, part):
    """Return the mean paired difference of frame AUCs, and its 95 % interval.

    Seeds are drawn with replacement, and within each seed videos, the same for
    both settings. `ours` and `theirs` are pairs of a setting and a weight.
    """
    pairs = np.stack(
        [
            auc_draws(runs, *ours, seed, part) - auc_draws(runs, *theirs, seed, part)
            for seed in range(runs.n_seeds)
        ]
    )
    rng = np.random.default_rng(0)
    seeds = rng.integers(runs.n_seeds, size=(N_RESAMPLES, runs.n_seeds))
    draws = rng.integers(1, N_RESAMPLES + 1, size=seeds.shape)
    low, high = np.quantile(pairs[seeds, draws].mean(axis=1), [0.025, 0.975])
    return {"mean": pairs[:, 0].mean(), "low": low, "high": high}


# --------------------------------------------------------------------------
# Rows
# --------------------------------------------------------------------------
def rows_of(runs, settings):
    """Return a row for every setting, seed and weight of the video's score."""
    rows = []
    for setting in settings:
        for weight in (0.0, VIDEO_WEIGHT):
            for seed in range(runs.n_seeds):
                run, _ = runs.chosen(setting, seed)
                rows.append(
                    {
                        "name": label_of(setting, weight),
                        "seed": seed,
                        "dataset": run["dataset"],
                        "method": run["method"],
                        "metrics": run[f"report_{weight:g}"],
                        "selection": run[f"select_{weight:g}"],
                        "video_weight": weight,
                        "best_epoch": run["best_epoch"],
                        "n_epochs": run["n_epochs"],
                        "seconds": run["seconds"],
                        "parameters": run["parameters"],
                    }
                )
    return rows


def label_of(setting, weight):
    return f"{setting.name}, video_weight={weight:g}" if weight else setting.name


def control_rows(runs, dataset):
    """Return what scores get that look at no feature."""
    rows = []
    for name in CONTROLS:
        for seed in range(runs.n_seeds):
            videos, _ = runs.report_part(dataset, seed)
            values = {
                "minus length": lambda v: 1 / (1 + v.labels.n_frames),
                "perfect video labels": lambda v: np.asarray(v.labels, dtype=float),
            }
            if name == "random":
                rng = np.random.default_rng(seed)
                scores = [rng.random(n) for n in videos.bags.lengths]
            else:
                value = values[name](videos)
                lengths = videos.bags.lengths
                scores = [np.full(n, v) for n, v in zip(lengths, value, strict=True)]
            metrics = measure(videos.labels, scores, [s.max() for s in scores])
            for column in ("false_alarm_rate", "score_gap"):
                metrics.pop(column, None)  # of values that are no probabilities
            rows.append({"name": f"control: {name}", "seed": seed, "metrics": metrics})
    return rows


def flat_rows(runs, setting):
    """Return what a video's score says of its frames, with nothing inside videos."""
    rows = []
    for seed in range(runs.n_seeds):
        videos, _ = runs.report_part(setting.dataset, seed)
        scores = separate(runs.chosen(setting, seed)[1]["report_0"], videos.bags)
        flat = [np.full(len(s), s.max()) for s in scores]
        metrics = measure(videos.labels, flat, [s.max() for s in flat])
        name = f"control: {setting.name}, constant per video"
        rows.append({"name": name, "seed": seed, "metrics": metrics})
    return rows


def ensemble_rows(runs, ensembles):
    """Return rows of ensembles, for both weights of the video's score."""
    rows = []
    for ensemble in ensembles:
        for weight in (0.0, VIDEO_WEIGHT):
            for seed in range(runs.n_seeds):
                videos, _ = runs.report_part(ensemble.dataset, seed)
                flat = runs.report_scores(ensemble, weight, seed)
                scores = separate(flat, videos.bags)
                metrics = measure(videos.labels, scores, [s.max() for s in scores])
                for column in ("false_alarm_rate", "score_gap"):
                    metrics.pop(column, None)  # of ranks
                name = label_of(ensemble, weight)
                rows.append({"name": name, "seed": seed, "metrics": metrics})
    return rows


def agreement(runs, traced):
    """Return how well a metric on the select videos agrees with the report videos.

    For each seed, over all epochs of all traced runs: Spearman's correlation of a
    metric on the select videos and a metric on the report videos; and what the
    latter is in the epoch that the former would choose, mean over the runs.
    """
    names = [*list(COLUMNS)[:3], "anomalous_roc_auc_score", "video_roc_auc"]
    found = {"correlation": {}, "chosen": {}}
    for by in names:
        for target in names[:3]:
            rhos, chosen = [], []
            for seed in range(runs.n_seeds):
                traces = [runs.read(setting, seed)[0]["trace"] for setting in traced]
                pairs = [
                    [(row["select"][by], row["report"][target]) for row in trace]
                    for trace in traces
                ]
                rhos.append(spearmanr(np.concatenate(pairs)).statistic)
                taken = [max(own, key=lambda pair: pair[0])[1] for own in pairs]
                chosen.append(np.mean(taken))
            found["correlation"][f"{by} -> {target}"] = rhos
            found["chosen"][f"{by} -> {target}"] = chosen
    return found


# --------------------------------------------------------------------------
# The results file
# --------------------------------------------------------------------------
def complete(runs, tables):
    """Return the tables with the settings whose runs are all there."""
    found = {}
    for name, settings in tables.items():
        kept = [s for s in settings if runs.has(s)]
        missing = [s.name for s in settings if s not in kept]
        if missing:
            tqdm.write(f"table {name}: no runs, or not all, of {'; '.join(missing)}")
        if len(kept) > 1 and kept[0] == settings[0]:
            found[name] = kept
    return found


def collect(args):
    """Return all that docs/results.json holds."""
    runs = Runs(args.data, args.work, args.seeds)
    tables = complete(runs, available(args.data, args.tables))
    traced = tables.pop("traces", None)
    results = {"versions": versions(), "n_seeds": args.seeds, "tables": {}}
    results["differences"] = {}
    calls = (joblib.delayed(collect_table)(args, *table) for table in tables.items())
    with joblib.parallel_config(backend=args.backend, n_jobs=args.jobs):
        found = joblib.Parallel(return_as="generator")(calls)
        for name in tqdm(tables, unit="table"):
            results["tables"][name], results["differences"][name] = next(found)
    if "c3d" in tables:
        results["defaults"] = default_changes(runs, tables["c3d"])
    if traced:
        results["agreement"] = agreement(runs, traced)
    return results


def collect_table(args, name, settings):
    """Return the rows of one table, and its differences."""
    runs = Runs(args.data, args.work, args.seeds)
    rows = rows_of(runs, settings)
    if name not in ("c3d_tuned", "beyond", "c3d_fixed"):
        rows += control_rows(runs, settings[0].dataset)
    if name == "c3d":
        rows += flat_rows(runs, settings[1])
    ensembles = ensembles_of(settings)
    rows += ensemble_rows(runs, ensembles)
    return rows, differences(runs, [*settings, *ensembles])


def default_changes(runs, settings):
    """Return which parameters differ from the papers, and what that is worth."""
    by_name, parameters, found = {s.name: s for s in settings}, [], []
    for name, ours in by_name.items():
        if ours.published:
            continue
        published = ours._replace(published=True)
        paper, default = (s.make(0).get_params() for s in (published, ours))
        parameters += [
            {"detector": name, "parameter": p, "paper": paper[p], "default": default[p]}
            for p in paper
            if paper[p] != default[p]
        ]
        theirs = by_name.get(f"{name}, as published")
        if theirs is not None:
            pair = ((ours, 0.0), (theirs, 0.0))
            apart = {part: difference(runs, *pair, part) for part in parts_of(ours)}
            found.append({"name": name, **apart})
    return {"parameters": parameters, "differences": found}


def differences(runs, settings):
    """Return the differences to the first setting, as it stands."""
    base, found = (settings[0], 0.0), []
    for setting in settings:
        for weight in (0.0, VIDEO_WEIGHT):
            ours = (setting, weight)
            if ours != base:
                parts = parts_of(setting)
                apart = {part: difference(runs, ours, base, part) for part in parts}
                found.append({"name": label_of(*ours), **apart})
    return found


def parts_of(setting):
    """Return which videos differences are shown of."""
    return ("all", "matched", "untouched") if setting.dataset == "c3d" else ("all",)


def report(args):
    """Write the results file, the page and the pictures.

    Tables whose runs are not in ``--work`` stay as they were.
    """
    results = collect(args)
    results = json.loads(json.dumps(results, default=float), parse_float=_rounded)
    if (DOCS / "results.json").exists():
        results = merge(json.loads((DOCS / "results.json").read_text()), results)
    (DOCS / "results.json").write_text(
        json.dumps(results, indent=None, separators=(",", ":")).replace(
            '{"name"', '\n{"name"'
        )
        + "\n"
    )
    (DOCS / "results.md").write_text(render(results))
    draw_all(results, DOCS / "images")


def merge(old, new):
    """Return the old results of tables that there still are, and all that is new."""
    both = {**old, **new}
    for name in ("tables", "differences"):
        kept = {table: old[name][table] for table in old[name] if table in TABLES}
        both[name] = {**kept, **new[name]}
    return both


def _rounded(text):
    return float(f"{float(text):.5g}")


# --------------------------------------------------------------------------
# Text
# --------------------------------------------------------------------------
def spread(values):
    if len(values) == 0:
        return ""
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def table_text(results, name):
    """Return a table as Markdown: mean ± sd over seeds, and the differences."""
    rows = results["tables"][name]
    apart = {d["name"]: d for d in results["differences"][name]}
    parts = [part for part in PARTS if any(part in d for d in apart.values())]
    heads = [*COLUMNS.values(), "epoch", *(PARTS[part] for part in parts)]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for label in dict.fromkeys(row["name"] for row in rows):
        own = [row for row in rows if row["name"] == label]
        cells = []
        for column in COLUMNS:
            values = [row["metrics"].get(column) for row in own]
            cells.append(spread([v for v in values if v is not None]))
        epochs = [row["best_epoch"] for row in own if "best_epoch" in row]
        cells.append(f"{np.mean(epochs):.1f}" if epochs else "")
        cells += [interval_text(apart.get(label, {}).get(part)) for part in parts]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def interval_text(found):
    if not found:
        return ""
    return f"{found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"


def agreement_text(results, what):
    found = results["agreement"][what]
    by = list(dict.fromkeys(key.split(" -> ")[0] for key in found))
    targets = list(dict.fromkeys(key.split(" -> ")[1] for key in found))
    heads = [COLUMNS[t] for t in targets]
    lines = [f"| chosen by | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name in by:
        cells = [spread(found[f"{name} -> {target}"]) for target in targets]
        lines.append(f"| {COLUMNS[name]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def tuned_text(results):
    """Return which learning rate each seed chose."""
    chosen = {}
    for row in results["tables"]["c3d_tuned"]:
        if row.get("video_weight") == 0:
            rate = f"{row['parameters']['lr']:.1e}"
            chosen.setdefault(row["name"], []).append(rate)
    return "; ".join(f"{name}: {', '.join(own)}" for name, own in chosen.items())


def defaults_text(results):
    lines = ["| detector | parameter | paper | default |", "|---|---|---|---|"]
    for row in results["defaults"]["parameters"]:
        cells = (row["detector"], f"`{row['parameter']}`", row["paper"], row["default"])
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def default_differences_text(results):
    heads = ("all videos", "length-matched", "untouched")
    lines = [f"| detector | {' | '.join(heads)} |", "|---|---|---|---|"]
    for found in results["defaults"]["differences"]:
        cells = [interval_text(found[part]) for part in PARTS]
        lines.append(f"| {found['name']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def readme_text(results):
    """Return the README's table: the methods of the first table, without columns."""
    shown = ("frame_roc_auc_score", "balanced_frame_roc_auc_score")
    shown += (
        "frame_average_precision_score",
        "anomalous_roc_auc_score",
        "video_roc_auc",
    )
    lines = [f"| | {' | '.join(COLUMNS[c] for c in shown)} |", "|---" * 6 + "|"]
    rows = results["tables"]["c3d"]
    for name in README_ROWS:
        own = [row["metrics"] for row in rows if row["name"] == name]
        cells = [spread([m[c] for m in own if c in m]) for c in shown]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def render(results):
    """Return the text of docs/results.md; a section without its table is left out."""
    values = {f"table_{name}": table_text(results, name) for name in results["tables"]}
    values["n_seeds"], values["n_resamples"] = results["n_seeds"], N_RESAMPLES
    values["versions"] = ", ".join(f"{k} {v}" for k, v in results["versions"].items())
    if "agreement" in results:
        values["agreement"] = agreement_text(results, "correlation")
        values["agreement_chosen"] = agreement_text(results, "chosen")
    values["defaults"] = defaults_text(results)
    values["default_differences"] = default_differences_text(results)
    if "c3d_tuned" in results["tables"]:
        values["tuned"] = tuned_text(results)
    text = (DOCS / "results.md.in").read_text(encoding="utf-8")
    head, *sections = text.split("\n## ")
    sections = [Template("\n## " + section) for section in sections]
    kept = [s for s in sections if set(s.get_identifiers()) <= set(values)]
    return "".join(part.substitute(values) for part in [Template(head), *kept])


# --------------------------------------------------------------------------
# Pictures
# --------------------------------------------------------------------------
def draw_all(results, folder):
    import matplotlib

    matplotlib.use("Agg")
    folder.mkdir(exist_ok=True)
    for name, rows in results["tables"].items():
        draw(rows, folder / f"study_{name}.png")


def draw(rows, path):
    """Draw a row of dots, one a seed, for every setting; the bar is the mean."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    rows = [row for row in rows if row["name"] != "control: random"]
    labels = list(dict.fromkeys(row["name"] for row in rows))
    shown = ("frame_roc_auc_score", "matched_frame_roc_auc", "anomalous_roc_auc_score")
    figure, axes = plt.subplots(
        1,
        len(shown),
        figsize=(11, 0.9 + 0.27 * len(labels)),
        sharey=True,
        layout="constrained",
    )
    for ax, column in zip(axes, shown, strict=True):
        for place, label in enumerate(labels):
            values = [r["metrics"].get(column) for r in rows if r["name"] == label]
            values = [v for v in values if v is not None]
            if not values:
                continue
            color = "0.55" if label.startswith("control") else "C0"
            dots = {"ms": 4, "alpha": 0.45, "mew": 0, "color": color}
            ax.plot(values, [place] * len(values), "o", **dots)
            ax.plot(np.mean(values), place, "|", ms=13, mew=2.5, color=color)
        ax.set_xlabel(TITLES[column])
        ax.grid(axis="x", alpha=0.3)
        ax.xaxis.set_major_locator(MaxNLocator(5, prune="both"))
    axes[0].set_yticks(range(len(labels)), labels, fontsize=8)
    axes[0].invert_yaxis()
    figure.savefig(path, dpi=110)
    plt.close(figure)
