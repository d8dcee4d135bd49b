"""Data sets: synthetic ones, and the files that people have."""

from ._annotation_files import (
    load_concatenated_frame_labels,
    load_csv_annotations,
    load_shanghaitech_annotations,
    load_split,
    load_ucf_crime_annotations,
    load_xd_violence_annotations,
)
from ._annotations import Annotations
from ._duplicates import find_duplicates, merge_groups, source_groups
from ._make_bags import make_bags
from ._readers import load_features

__all__ = [
    "Annotations",
    "find_duplicates",
    "load_concatenated_frame_labels",
    "load_csv_annotations",
    "load_features",
    "load_shanghaitech_annotations",
    "load_split",
    "load_ucf_crime_annotations",
    "load_xd_violence_annotations",
    "make_bags",
    "merge_groups",
    "source_groups",
]
