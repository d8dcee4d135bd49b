"""Scores of several detectors on one scale, that of their own training.

The level of a score is the share of the training snippets that its detector
scores below it: the empirical distribution function, kept as a grid of quantiles.
"""

import numpy as np

N_QUANTILES = 1001


def find_quantiles(scores):
    """Return what is kept of the scores of the training snippets, sorted."""
    levels = np.linspace(0, 1, N_QUANTILES)
    return np.quantile(scores.astype(np.float64), levels).astype(np.float32)


def to_levels(scores, quantiles):
    """Map scores to their levels: the share of training snippets below them.

    Piecewise linear and strictly increasing on [0, 1]. The lowest quantile has
    the level 1 / (n + 1), the highest n / (n + 1): what is left goes linearly to
    the scores 0 and 1, so that scores outside those of the training keep their
    order. A score that many snippets share has the mean of their levels; that of
    a detector whose scores are all equal is 0.5.
    """
    knots = np.concatenate([[0.0], quantiles, [1.0]])
    knots, which, n_equal = np.unique(knots, return_inverse=True, return_counts=True)
    levels = np.bincount(which, np.linspace(0, 1, len(quantiles) + 2)) / n_equal
    return np.interp(scores, knots, levels)


def balance_threshold(scores, y):
    """Return where sensitivity and specificity of video scores are nearest.

    It lies half-way between two scores; of equally near ones, where their sum is
    higher.
    """
    values = np.unique(scores)
    if len(values) == 1:
        return float(values[0])
    middles = values[:-1] + np.diff(values) / 2
    missed = np.searchsorted(np.sort(scores[y == 1]), middles) / np.sum(y == 1)
    rejected = np.searchsorted(np.sort(scores[y == 0]), middles) / np.sum(y == 0)
    gaps = np.abs(1 - missed - rejected).round(9)
    return float(middles[np.lexsort((missed - rejected, gaps))[0]])
