"""The order of the gallery: from the first steps to the methods."""

from pathlib import Path

FIRST = (
    "first_detector",
    "own_features",
    "compare_detectors",
    "report",
    "choose_threshold",
    "training_history",
    "grid_search",
    "online_stream",
    "metrics_traps",
)


class Order:
    """Sort files as in FIRST, and those that are not there after them, by name."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, name):
        stem = Path(name).stem.removeprefix("plot_")
        place = FIRST.index(stem) if stem in FIRST else len(FIRST)
        return f"{place:03d} {stem}"

    def __repr__(self):
        return "Order"  # the same in every build: a part of the settings' hash
