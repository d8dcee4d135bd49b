"""Sizes of the real data sets, and features made up for them."""

import contextlib
import json
import tempfile
from pathlib import Path

import numpy as np

from sklearn_vad import Bags

SNIPPET_LENGTH = 16
WIDTH = 1024


def _frames(settings, of_test):
    """Return the numbers of frames of UCF-Crime's videos, or None without data."""
    if settings.data is None:
        return None
    videos = json.loads(Path(settings.data, "ucf_crime_videos.json").read_text())
    lines = Path(settings.data, "ucf_crime_test_annotations.txt").read_text()
    test = {Path(line.split()[0]).stem for line in lines.splitlines() if line.strip()}
    kept = [v["n_frames"] for name, v in videos.items() if (name in test) == of_test]
    return np.array(kept)


def train_lengths(settings):
    """Return the snippets of UCF-Crime's training videos, of such ones without data."""
    frames = _frames(settings, of_test=False)
    if frames is None:
        rng = np.random.default_rng(0)
        return np.ceil(np.exp(rng.normal(5.0, 1.1, 1610))).astype(int)
    return -(-frames // SNIPPET_LENGTH)


def test_frames(settings):
    """Return the frames of UCF-Crime's test videos, or of such ones."""
    frames = _frames(settings, of_test=True)
    if frames is None:
        rng = np.random.default_rng(0)
        n = np.exp(rng.normal(4.82, 1.0, 288)).astype(int) + 1
        frames = SNIPPET_LENGTH * np.append(n, [6750, 6750])
    return frames


def test_lengths(settings):
    """Return the snippets of UCF-Crime's test videos; the first of them to be quick."""
    lengths = -(-test_frames(settings) // SNIPPET_LENGTH)
    return np.minimum(lengths[:20], 300) if settings.quick else lengths


def make_features(lengths, *tail, seed=0):
    """Return one array per video, of mean 0 and variance 1."""
    rng = np.random.default_rng(seed)
    for n in lengths:
        yield np.float32(12**0.5) * (rng.random((n, *tail), dtype=np.float32) - 0.5)


def halves(n):
    """Return labels of so many videos, both classes in turn."""
    return np.arange(n) % 2


@contextlib.contextmanager
def files_and_store(lengths, *tail):
    """Yield one .npy per video and a store of the same, deleted in the end."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{i:04}.npy") for i in range(len(lengths))]
        for path, bag in zip(paths, make_features(lengths, *tail), strict=True):
            np.save(path, bag)
        store = Path(folder, "store")
        Bags.from_files(paths).save(store)
        yield paths, store


def source(settings):
    """Say where lengths come from."""
    return "made up" if settings.data is None else "UCF-Crime"
