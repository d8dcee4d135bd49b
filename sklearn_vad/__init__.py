"""Weakly supervised video anomaly detection with scikit-learn estimators.

A video is a *bag* of snippet features; training knows one label per video;
the detectors say which snippets, and which frames, are anomalous.
"""

from importlib import import_module

__version__ = "0.1.0.dev0"

# Name -> module. Loaded on first use, so that `import sklearn_vad.metrics`
# never pays for torch.
_EXPORTS = {
    "Bags": "sklearn_vad.bags",
    "FrameLabels": "sklearn_vad.bags",
    "DAMAnomalyDetector": "sklearn_vad.detectors",
    "DDLAnomalyDetector": "sklearn_vad.detectors",
    "EnsembleAnomalyDetector": "sklearn_vad.detectors",
    "MILRankingAnomalyDetector": "sklearn_vad.detectors",
    "MultiCropDetector": "sklearn_vad.detectors",
    "RTFMAnomalyDetector": "sklearn_vad.detectors",
    "STAAnomalyDetector": "sklearn_vad.detectors",
    "load": "sklearn_vad.persistence",
    "report": "sklearn_vad.reporting",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name):
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'sklearn_vad' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_EXPORTS])
