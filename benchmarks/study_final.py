"""The best single configuration of the study, on all training videos, saved."""

import numpy as np
from study import measure
from study_data import c3d_full, load_ucf_crime
from study_report import draw_videos, resampled_aucs
from study_settings import CLASSES
from tqdm.auto import tqdm

import sklearn_vad
from sklearn_vad import EnsembleAnomalyDetector

MEMBERS = ("DDL", "DAM", "STA", "MIL ranking")
N_COMPONENTS = 256


def make_best():
    """Return the configuration, unfitted; it takes C3D segments as they are."""
    members = [CLASSES[name](n_components=N_COMPONENTS) for name in MEMBERS]
    return EnsembleAnomalyDetector(members, video_weight=1.0, random_state=0, verbose=1)


def final(args):
    """Train on every training video and save; score a held-out file if there is one."""
    if args.out is None:
        raise SystemExit("final needs --out FILE, where to save the detector")
    videos = c3d_full(args.data, args.work, seed=0)
    detector = make_best().set_params(n_jobs=args.jobs)
    detector.fit(videos.bags, videos.labels)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    detector.save(args.out)
    tqdm.write(f"saved {args.out}, trained on {len(videos.bags)} videos")
    if args.test is not None:
        show(sklearn_vad.load(args.out), load_ucf_crime(args.test))


def show(detector, videos):
    """Print all metrics, and the frame AUC's interval over videos."""
    scores = detector.score_snippets(videos.bags)
    tops = [own.max() for own in scores]
    for name, value in measure(videos.labels, scores, tops).items():
        tqdm.write(f"{name}: {value:.4f}")
    every = np.ones(len(tops), dtype=bool)
    draws = draw_videos(videos.labels, every, np.random.default_rng(0))
    aucs = resampled_aucs(videos, np.concatenate(scores), draws)
    low, high = np.quantile(aucs, [0.025, 0.975])
    tqdm.write(f"frame AUC, 95 % interval over videos: {low:.4f} to {high:.4f}")
