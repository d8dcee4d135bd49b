"""Pictures of scores, curves, attention and trainings, as scikit-learn's displays."""

from ._attention import AttentionDisplay
from ._gap import ScoreGapDisplay
from ._history import TrainingHistoryDisplay
from ._precision_recall import FramePrecisionRecallDisplay
from ._roc import FrameRocDisplay
from ._timeline import ScoreTimelineDisplay

__all__ = [
    "AttentionDisplay",
    "FramePrecisionRecallDisplay",
    "FrameRocDisplay",
    "ScoreGapDisplay",
    "ScoreTimelineDisplay",
    "TrainingHistoryDisplay",
]
