"""Levels of scores: quantiles of the training, order, squashed scores."""

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sklearn_vad._levels import balance_threshold, find_quantiles, to_levels


def test_levels_by_hand():
    quantiles = np.array([0.25, 0.5, 0.5, 0.75])  # at levels 0.2, 0.4, 0.6, 0.8
    scores = [0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0]
    levels = [0.0, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0]
    np.testing.assert_allclose(to_levels(scores, quantiles), levels, atol=1e-15)


def test_quantiles_of_a_thousand_scores():
    scores = np.random.default_rng(0).permutation(np.arange(1001) / 2000)
    quantiles = find_quantiles(scores)
    assert quantiles.dtype == np.float32
    assert np.array_equal(quantiles, (np.arange(1001) / 2000).astype(np.float32))
    assert to_levels(0.25, quantiles) == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize("constant", [0.0, 0.02, 1.0])
def test_a_constant_member_says_nothing(constant):
    quantiles = find_quantiles(np.full(7, constant, dtype=np.float32))
    found = to_levels(np.float32([constant, 0, 0.01, 0.5, 1]), quantiles)
    assert found[0] == pytest.approx(0.5, abs=1e-3)  # knots at 0 and 1 count, too
    assert (np.diff(found[1:]) > 0).all()


def test_saturated_members_keep_what_they_distinguish():
    scores = np.float32([0] * 500 + [0.5, 0.6] + [1] * 500)
    low, half, more, high = to_levels([0, 0.5, 0.6, 1], find_quantiles(scores))
    assert 0.24 < low < 0.26
    assert low < half < more < high
    assert 0.74 < high < 0.76


unit = st.floats(0, 1, width=32)


@given(
    training=hnp.arrays(np.float32, st.integers(1, 60), elements=unit),
    new=hnp.arrays(np.float32, st.integers(1, 20), elements=unit),
)
def test_levels_keep_the_order_and_stay_in_range(training, new):
    quantiles = find_quantiles(training)
    scores = np.sort(np.concatenate([training, new]))
    levels = to_levels(scores, quantiles)
    assert ((levels >= 0) & (levels <= 1)).all()
    assert (np.diff(levels) >= 0).all()
    apart = np.diff(scores.astype(np.float64)) > 1e-9
    assert (np.diff(levels)[apart] > 0).all()
    for score in scores[:5]:
        assert naive.level(float(score), quantiles) == pytest.approx(
            to_levels(score, quantiles), abs=1e-9
        )


@given(power=st.floats(0.2, 5), scale=st.floats(0.01, 1))
def test_squashed_scores_have_nearly_the_same_levels(power, scale):
    scores = np.random.default_rng(0).uniform(0.05, 0.95, size=4000)
    train, new = scores[:3000], scores[3000:]
    levels = to_levels(new, find_quantiles(train))
    squashed = to_levels(scale * new**power, find_quantiles(scale * train**power))
    np.testing.assert_allclose(squashed, levels, atol=3e-3)


@pytest.mark.parametrize(
    ("scores", "y", "threshold"),
    [
        ([0.1, 0.2, 0.6, 0.8], [0, 0, 1, 1], 0.4),
        ([0.1, 0.5, 0.3, 0.8], [0, 0, 1, 1], 0.4),  # one error on each side
        (
            [0.1, 0.2, 0.3, 0.4, 0.35, 0.9],
            [0, 0, 0, 0, 1, 1],
            0.325,
        ),  # the better of two
        ([0.1, 0.4, 0.3, 0.5, 0.6, 0.7], [0, 0, 1, 1, 1, 1], 0.45),
        ([0.3, 0.3], [0, 1], 0.3),
    ],
)
def test_balanced_threshold(scores, y, threshold):
    found = balance_threshold(np.array(scores), np.array(y))
    assert found == pytest.approx(threshold)
