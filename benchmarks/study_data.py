"""The data sets of the study, and how their videos are split."""

import functools
import hashlib
import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.model_selection import StratifiedGroupKFold

from sklearn_vad import Bags, FrameLabels
from sklearn_vad.bags import stack_snippets
from sklearn_vad.datasets import make_bags

N_FOLDS = 5
PCA_COMPONENTS = 256
WINDOW_STEPS, WINDOW_SNIPPETS = 16, 32  # of telemetry: 512 steps a bag


class Videos(NamedTuple):
    """`groups` are videos that must stay on one side of a split."""

    bags: Bags
    labels: FrameLabels
    groups: np.ndarray

    def __getitem__(self, rows):
        return Videos(*(part[rows] for part in tuple(self)))


class Parts(NamedTuple):
    """Positions of the videos that train, that choose, and that are reported."""

    train: np.ndarray
    select: np.ndarray
    report: np.ndarray


def split(labels, groups, seed):
    """Split videos, stratified: 64 % train, 16 % choose, 20 % are reported.

    The reported parts of seeds 0 to 4 are the folds of one partition: together
    they are all videos, each once.
    """
    y = np.asarray(labels)
    folds = StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=seed // N_FOLDS)
    rest, report = list(folds.split(y, y, groups))[seed % N_FOLDS]
    inner = StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=seed)
    train, select = next(inner.split(rest, y[rest], groups[rest]))
    return Parts(rest[train], rest[select], report)


def match_lengths(labels, ratio=1.25):
    """Return positions of anomalous videos and normal ones of about their length.

    Longest first, every anomalous video takes the normal one that is nearest in
    length and still free; pairs whose lengths differ by more than `ratio` are left
    out. Among these videos, length says next to nothing about the label.
    """
    y, logs = np.asarray(labels), np.log(labels.n_frames)
    free = list(np.flatnonzero(y == 0))
    kept = []
    for i in sorted(np.flatnonzero(y == 1), key=lambda i: -logs[i]):
        if not free:
            break
        j = min(free, key=lambda j: abs(logs[j] - logs[i]))
        if abs(logs[j] - logs[i]) <= np.log(ratio):
            free.remove(j)
            kept += [i, j]
    return np.sort(kept)


# --------------------------------------------------------------------------
# UCF-Crime
# --------------------------------------------------------------------------
def load_ucf_crime(path):
    """Return the videos of a feature file; byte-identical ones share a group."""
    with np.load(path, allow_pickle=False) as file:
        data = {name: file[name] for name in file.files}
    if "codes" in data:
        scale = data["scale"][..., None] / np.float32(255)
        arrays = [c * s for c, s in zip(data["codes"], scale, strict=True)]
        frames_per_snippet = data["n_frames"] / data["codes"].shape[1]
    else:
        arrays = np.split(data["features"], data["offsets"][1:-1])
        frames_per_snippet = data["frames_per_snippet"]
    masks = [np.zeros(n, dtype=bool) for n in data["n_frames"]]
    for video, first, last in data["events"]:
        masks[video][first:last] = True
    digests = [hashlib.sha256(np.ascontiguousarray(a)).hexdigest() for a in arrays]
    groups = np.unique(digests, return_inverse=True)[1]
    bags = Bags.from_list(arrays, ids=data["video"])
    labels = FrameLabels(masks, frames_per_snippet)
    # A few annotated events lie past a video's end: its label is the file's.
    fine = np.flatnonzero(labels.video_labels == data["y"])
    return Videos(bags, labels, groups)[fine]


@functools.lru_cache(1)
def _c3d(data):
    return load_ucf_crime(Path(data) / "ucf_crime_c3d_train.npz")


def c3d_full(data, cache, seed):
    return _c3d(data)


def c3d(data, cache, seed):
    """C3D in the principal components of the training part of this seed."""
    videos = _c3d(data)
    path = Path(cache) / f"c3d-pca{PCA_COMPONENTS}-seed{seed}"
    if not path.exists():
        train = split(videos.labels, videos.groups, seed).train
        pca = PCA(PCA_COMPONENTS, svd_solver="covariance_eigh")
        pca.fit(stack_snippets(videos.bags, train))
        reduced = [np.float32(pca.transform(bag)) for bag in videos.bags]
        Bags.from_list(reduced, ids=videos.bags.ids).save(path)
    return videos._replace(bags=Bags.open(path))


@functools.lru_cache(1)
def _x3d(data):
    return load_ucf_crime(Path(data) / "ucf_crime_x3d_train.npz")


def x3d(data, cache, seed):
    return _x3d(data)


# --------------------------------------------------------------------------
# Telemetry, and synthetic videos
# --------------------------------------------------------------------------
@functools.lru_cache(2)
def _telemetry(data, name):
    """Cut channels into bags of 32 snippets of 16 steps; a channel is a group."""
    with np.load(Path(data) / f"{name}_test.npz", allow_pickle=False) as file:
        values, truth, offsets = file["X"], file["gt"].astype(bool), file["offsets"]
    size = WINDOW_STEPS * WINDOW_SNIPPETS
    arrays, masks, groups = [], [], []
    for channel, (start, end) in enumerate(itertools.pairwise(offsets)):
        for first in range(start, end - size + 1, size):
            window = values[first : first + size]
            arrays.append(window.reshape(WINDOW_SNIPPETS, WINDOW_STEPS, -1))
            masks.append(truth[first : first + size])
            groups.append(channel)
    return Videos(
        Bags.from_list(arrays), FrameLabels(masks, WINDOW_STEPS), np.array(groups)
    )


def telemetry(data, cache, seed, name, steps):
    """Return telemetry with the steps of a snippet kept apart, or as features."""
    videos = _telemetry(data, name)
    if steps:
        return videos
    flat = [bag.reshape(len(bag), -1) for bag in videos.bags]
    return videos._replace(bags=Bags.from_list(flat))


def synthetic(data, cache, seed, difficulty, n_steps=None, **params):
    bags, y = make_bags(
        200, difficulty=difficulty, n_steps=n_steps, random_state=seed, **params
    )
    return Videos(bags, y, np.arange(len(bags)))


def mean_over_steps(data, cache, seed, **params):
    videos = synthetic(data, cache, seed, **params)
    means = [bag.mean(axis=1) for bag in videos.bags]
    return videos._replace(bags=Bags.from_list(means))


SWAYING = {"difficulty": 0.25, "n_steps": 7, "n_features": 16, "max_snippets": 60}

# Name -> function of (data, cache, seed) that returns Videos.
DATASETS = {
    "c3d": c3d,
    "c3d_full": c3d_full,
    "x3d": x3d,
    "msl": functools.partial(telemetry, name="msl", steps=False),
    "msl_steps": functools.partial(telemetry, name="msl", steps=True),
    "smap": functools.partial(telemetry, name="smap", steps=False),
    "smap_steps": functools.partial(telemetry, name="smap", steps=True),
    "synthetic_easy": functools.partial(synthetic, difficulty=0.25),
    "synthetic_medium": functools.partial(synthetic, difficulty=0.5),
    "synthetic_hard": functools.partial(synthetic, difficulty=0.75),
    "swaying_steps": functools.partial(synthetic, **SWAYING),
    "swaying_means": functools.partial(mean_over_steps, **SWAYING),
}


def same_videos(dataset):
    """Return the name under which data sets of the same videos are compared."""
    return dataset.removesuffix("_steps").removesuffix("_means").removesuffix("_full")


def untouched(labels, groups):
    """Return which videos of a data set had no part in choosing our defaults.

    On C3D, the other 60 % did: the defaults of the detectors were chosen on
    validation videos among them.
    """
    y = np.asarray(labels)
    folds = StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=1234)
    folds = [fold for _, fold in folds.split(y, y, groups)]
    return np.isin(np.arange(len(y)), np.concatenate(folds[:2]))
