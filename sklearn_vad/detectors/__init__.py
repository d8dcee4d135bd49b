"""The published methods, one paper per file."""

from ._ddl import DDLAnomalyDetector
from ._mil_ranking import MILRankingAnomalyDetector

__all__ = ["DDLAnomalyDetector", "MILRankingAnomalyDetector"]
