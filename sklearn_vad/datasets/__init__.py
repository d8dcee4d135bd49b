"""Data sets: synthetic ones, and the files that people have."""

from ._make_bags import make_bags

__all__ = ["make_bags"]
