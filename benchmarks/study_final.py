"""The best single configuration of the study, on all training videos, saved."""

from pathlib import Path

from study_data import c3d_full
from tqdm.auto import tqdm

import sklearn_vad
from sklearn_vad import (
    DAMAnomalyDetector,
    EnsembleAnomalyDetector,
    MILRankingAnomalyDetector,
)

N_COMPONENTS = 256


def make_best(n_seeds=3):
    """Return the configuration, unfitted; it takes C3D segments as they are."""
    members = [
        ("dam", DAMAnomalyDetector(n_components=N_COMPONENTS)),
        ("mil_ranking", MILRankingAnomalyDetector(n_components=N_COMPONENTS)),
    ]
    return EnsembleAnomalyDetector(
        members, n_seeds=n_seeds, video_weight=1.0, random_state=0, verbose=1
    )


def final(args):
    """Train on every training video, save, and read what was saved."""
    if args.out is None:
        raise SystemExit("final needs --out FILE, where to save the detector")
    videos = c3d_full(args.data, args.work, seed=0)
    detector = make_best().set_params(n_jobs=args.jobs)
    detector.fit(videos.bags, videos.labels)
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    detector.save(args.out)
    loaded = sklearn_vad.load(args.out)
    few = videos.bags[:3]
    same = all(
        (a == b).all()
        for a, b in zip(
            detector.score_snippets(few), loaded.score_snippets(few), strict=True
        )
    )
    tqdm.write(f"saved {args.out}; it scores as before saving: {same}")
