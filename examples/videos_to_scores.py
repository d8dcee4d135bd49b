"""From video files to frame scores: features are extracted here.

Makes small .mp4 files: in all of them a square moves slowly; in the anomalous
ones a second one flashes and jumps for a while. An image network that was trained
on photographs, EfficientNet-Lite0, turns them into bags of snippet features, and
the MIL ranking baseline learns from one label per video which snippets are
anomalous. Prints frame AUC and AP of videos that it has not seen, and draws the
timeline of one of them into ``videos_to_scores.png``. It takes about half a minute
on two cores, and needs the extras: ``pip install 'sklearn_vad[video,plot]'``.

With ``--folder DIR`` the videos and their features stay, and a second run starts
from the features.
"""

import argparse
import tempfile
import time
from pathlib import Path

import av
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import normalize

from sklearn_vad import Bags, FrameLabels, MILRankingAnomalyDetector
from sklearn_vad.display import ScoreTimelineDisplay
from sklearn_vad.extraction import SnippetExtractor
from sklearn_vad.metrics import evaluate

N_VIDEOS = 24
SIDE = 64  # of the pictures


def draw_frames(rng, anomalous):
    """Return the frames of a video, and which of them are anomalous."""
    n_frames = int(rng.integers(160, 260))
    labels = np.zeros(n_frames, dtype=bool)
    if anomalous:
        length = int(rng.integers(40, 80))
        start = int(rng.integers(0, n_frames - length))
        labels[start : start + length] = True
    frames = np.full((n_frames, SIDE, SIDE, 3), rng.integers(60, 120), np.uint8)
    frames += rng.integers(0, 12, frames.shape, dtype=np.uint8)
    x, y = rng.integers(0, SIDE - 14, 2)
    for i, frame in enumerate(frames):
        left = int(x + i / 4) % (SIDE - 14)
        frame[y : y + 14, left : left + 14] = (180, 160, 60)
        if labels[i] and rng.random() < 0.6:
            top, left = rng.integers(0, SIDE - 16, 2)
            frame[top : top + 16, left : left + 16] = (250, 250, 250)
    return frames, labels


def write_video(path, frames):
    """Encode frames as an .mp4 file."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=25, width=SIDE, height=SIDE)
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 1_000_000
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        file.mux(stream.encode())


def make_videos(folder):
    """Write the videos; return their paths and the labels of their frames."""
    rng = np.random.default_rng(0)
    paths, masks = [], []
    for i in range(N_VIDEOS):
        frames, labels = draw_frames(rng, anomalous=i % 2 == 1)
        paths.append(folder / f"{'anomalous' if i % 2 else 'normal'}_{i:02}.mp4")
        masks.append(labels)
        if not paths[-1].exists():
            write_video(paths[-1], frames)
    return paths, FrameLabels(masks)


def draw(detector, bags, y, path):
    """Draw the timeline of the anomalous video with the most anomalous frames."""
    i = int(np.argmax([mask.sum() for mask in y.masks]))
    display = ScoreTimelineDisplay.from_estimator(
        detector, bags[i], y.masks[i], name="MIL ranking"
    )
    display.ax_.set_title(f"{bags.ids[i]}, not seen in training", loc="left")
    display.figure_.savefig(path, dpi=110)
    plt.close(display.figure_)


def run(folder, out):
    paths, y = make_videos(folder)
    print(f"{len(paths)} videos in {folder}, {y.n_frames.sum()} frames")
    extractor = SnippetExtractor(
        size=SIDE, frames_per_snippet=4, folder=folder / "features", verbose=1
    )
    bags = extractor.transform(paths)
    assert list(extractor.n_frames_.values()) == y.n_frames.tolist()
    print(bags)
    train, test = train_test_split(
        np.arange(len(y)), test_size=1 / 3, stratify=y, random_state=0
    )
    bags = Bags.from_list([normalize(bag) for bag in bags], bags.ids)  # unit length
    detector = MILRankingAnomalyDetector(random_state=0).fit(bags[train], y[train])
    found = evaluate(y[test], detector.score_snippets(bags[test]))
    print(f"\n{len(test)} held-out videos")
    for name in ("frame_roc_auc_score", "frame_average_precision_score"):
        print(f"  {name:32}{found[name]:.3f}")
    draw(detector, bags[test], y[test], out)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", help="where to keep the videos and features")
    parser.add_argument("--out", default="videos_to_scores.png", help="the picture")
    args = parser.parse_args()
    started = time.perf_counter()
    if args.folder:
        Path(args.folder).mkdir(parents=True, exist_ok=True)
        run(Path(args.folder), args.out)
    else:
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder), args.out)
    print(f"\n{args.out} written; {time.perf_counter() - started:.0f} s in all")


if __name__ == "__main__":
    main()
