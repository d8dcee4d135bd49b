"""The published methods, one paper per file."""

from ._dam import DAMAnomalyDetector
from ._ddl import DDLAnomalyDetector
from ._ensemble import EnsembleAnomalyDetector
from ._mil_ranking import MILRankingAnomalyDetector
from ._multi_crop import MultiCropDetector
from ._rtfm import RTFMAnomalyDetector
from ._sta import STAAnomalyDetector

__all__ = [
    "DAMAnomalyDetector",
    "DDLAnomalyDetector",
    "EnsembleAnomalyDetector",
    "MILRankingAnomalyDetector",
    "MultiCropDetector",
    "RTFMAnomalyDetector",
    "STAAnomalyDetector",
]
