"""Snippets, segments and frames, against their definitions frame by frame."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_vad.timeline import (
    check_frame_counts,
    expand_scores,
    pool_segments,
    snippet_bounds,
    spread_segments,
    uniform_rows,
)

SNIPPET_LENGTHS = st.one_of(
    st.sampled_from([0.1, 0.3, 1, 1.1, 2, 3.7, 16, 29.97]),
    st.integers(1, 3000).map(lambda n_frames: n_frames / 32),
    st.floats(0.05, 40),
)


def naive_snippet_of_frames(n_snippets, n_frames, snippet_length):
    """Return the snippet of every frame, by the definition."""
    snippet = np.floor(np.arange(n_frames) / snippet_length)
    return np.minimum(snippet, n_snippets - 1).astype(int)


@st.composite
def videos(draw):
    """Draw (n_snippets, n_frames, snippet_length) whose lengths fit."""
    length = draw(SNIPPET_LENGTHS)
    n_snippets = draw(st.integers(1, 60))
    low = max(1, int(np.ceil((n_snippets - 2) * length)))
    high = max(low, int((n_snippets + 2) * length))
    return n_snippets, draw(st.integers(low, high)), length


# --------------------------------------------------------------------------
# Snippets and frames
# --------------------------------------------------------------------------
@settings(deadline=None)
@given(videos())
def test_snippet_bounds_follow_the_definition(video):
    n_snippets, n_frames, _ = video
    bounds = snippet_bounds(*video)
    assert bounds.dtype == np.int64
    assert bounds[0] == 0
    assert bounds[-1] == n_frames
    snippet = np.repeat(np.arange(n_snippets), np.diff(bounds))
    np.testing.assert_array_equal(snippet, naive_snippet_of_frames(*video))


@settings(deadline=None)
@given(st.lists(videos(), min_size=1, max_size=6))
def test_snippet_bounds_of_many_videos_are_those_of_each_in_turn(several):
    n_snippets, n_frames, lengths = map(np.array, zip(*several, strict=True))
    expected, offset = [], 0
    for video in several:
        expected.extend(snippet_bounds(*video)[:-1] + offset)
        offset += video[1]
    bounds = snippet_bounds(n_snippets, n_frames, lengths)
    np.testing.assert_array_equal(bounds, [*expected, offset])


@pytest.mark.parametrize(
    ("video", "expected"),
    [
        ((3, 50, 16), [0, 16, 32, 50]),  # the last snippet takes what is left
        ((3, 40, 16), [0, 16, 32, 40]),  # labels end within the last snippet,
        ((3, 20, 16), [0, 16, 20, 20]),  # or before it
        ((2, 100, 1e300), [0, 100, 100]),
        ((4, 2, 0.5), [0, 1, 1, 2, 2]),  # frames 0 and 1 are of snippets 0 and 2
        ((4, 10, 2.5), [0, 3, 5, 8, 10]),
    ],
)
def test_snippet_bounds(video, expected):
    np.testing.assert_array_equal(snippet_bounds(*video), expected)


def test_snippet_bounds_follow_the_rounding_of_the_division():
    assert np.ceil(30 * 1.1) == 33  # and yet
    assert np.floor(33 / 1.1) == 29
    assert snippet_bounds(32, 35, 1.1)[30] == 34
    assert np.ceil(85 * 2.2) == 188  # and yet
    assert np.floor(187 / 2.2) == 85
    assert snippet_bounds(86, 190, 2.2)[85] == 187


def fits(video):
    n_snippets, n_frames, length = video
    return abs(n_frames / length - n_snippets) <= 2


@settings(deadline=None)
@given(st.lists(videos().filter(fits), min_size=1, max_size=4), st.integers(0, 10))
def test_expand_scores_gives_each_frame_the_score_of_its_snippet(several, seed):
    rng = np.random.default_rng(seed)
    n_snippets, n_frames, lengths = map(np.array, zip(*several, strict=True))
    scores = [rng.random(n) for n in n_snippets]
    expanded = expand_scores(scores, n_frames, snippet_length=lengths)
    assert len(expanded) == len(several)
    for own, video, frames in zip(scores, several, expanded, strict=True):
        np.testing.assert_array_equal(frames, own[naive_snippet_of_frames(*video)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_expand_scores_keeps_the_dtype(dtype):
    (frames,) = expand_scores([np.array([0, 1], dtype=dtype)], snippet_length=2)
    assert frames.dtype == dtype
    np.testing.assert_array_equal(frames, [0, 0, 1, 1])


def test_expand_scores_without_frame_counts():
    frames = expand_scores([[0.1, 0.2, 0.3], [0.4]], snippet_length=[2.5, 0.3])
    expected = [0.1, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.3]  # round(7.5) is 8
    np.testing.assert_array_equal(frames[0], expected)
    np.testing.assert_array_equal(frames[1], [0.4])  # one frame at least
    assert [len(f) for f in expand_scores([[0.1, 0.2, 0.3], [0.4]])] == [48, 16]
    assert expand_scores([]) == []


@pytest.mark.parametrize(
    ("scores", "n_frames", "match"),
    [
        ([[0.1], [0.2]], [16], r"shape \(1,\), expected one number for each of 2"),
        ([[0.1]], 16, r"shape \(\), expected one number for each of 1"),
        ([[0.1]], [16.5], "whole numbers >= 1, got"),
        ([[0.1], [0.2]], [[16, 16], [16]], "n_frames: not a rectangular array"),
        ([[0.1], [0.2]], [16, 0], "whole numbers >= 1, got"),
        ([[0.1], []], [16, 16], r"video 1 have shape \(0,\)"),
        ([[[0.1]]], [16], r"video 0 have shape \(1, 1\)"),
        ([[0.1], [0.2] * 40], [16, 64], "video 1 has 40 snippets.* fill 4.0"),
    ],
)
def test_expand_scores_refuses(scores, n_frames, match):
    with pytest.raises(ValueError, match=match):
        expand_scores(scores, n_frames)


@pytest.mark.parametrize(
    ("n_snippets", "n_frames", "length"),
    [
        (1, 48, 16),  # 2 snippets more, though 200 %
        (10, 128, 16),  # 2 snippets less, 20 %
        (100, 1760, 16),  # 10 snippets more, 10 %
        (100, 1440, 16),
        (70, 1232, 16),  # 7 more: 0.1 * 70 rounds to just above 7
        (32, 1001, 1001 / 32),
    ],
)
def test_frame_counts_that_fit(n_snippets, n_frames, length):
    check_frame_counts(np.array([n_snippets]), np.array([n_frames]), np.array([length]))


@pytest.mark.parametrize(
    ("n_snippets", "n_frames", "length"),
    [(1, 49, 16), (10, 127, 16), (100, 1761, 16), (100, 1439, 16), (32, 992, 16)],
)
def test_frame_counts_that_do_not_fit(n_snippets, n_frames, length):
    arrays = np.array([5, n_snippets]), np.array([80, n_frames]), np.array([16, length])
    match = (
        rf"video 1 has {n_snippets} snippets, but its {n_frames} frames fill"
        rf" {n_frames / 16:.1f} snippets of 16 frames: .*"
        rf"\(about {n_frames / n_snippets:.1f} here\)"
    )
    with pytest.raises(ValueError, match=match):
        check_frame_counts(*arrays)


# --------------------------------------------------------------------------
# Snippets and segments
# --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("n_snippets", "n_max", "expected"),
    [
        (3, None, [0, 1, 2]),
        (3, 3, [0, 1, 2]),
        (3, 5, [0, 1, 2]),
        (10, 4, [0, 3, 6, 9]),
        (7, 3, [0, 3, 6]),
        (8, 3, [0, 3, 7]),
        (9, 1, [0]),
    ],
)
def test_uniform_rows(n_snippets, n_max, expected):
    rows = uniform_rows(n_snippets, n_max)
    assert rows.dtype == np.int64
    np.testing.assert_array_equal(rows, expected)


def naive_segments(bag, n_segments, pool):
    segments = []
    for i in range(n_segments):
        start, end = i * len(bag) // n_segments, (i + 1) * len(bag) // n_segments
        rows = bag[start : max(end, start + 1)]
        segments.append(rows.max(axis=0) if pool == "max" else rows.mean(axis=0))
    return np.array(segments)


@settings(deadline=None)
@given(
    n_snippets=st.integers(1, 100),
    n_segments=st.integers(1, 40),
    tail=st.sampled_from([(3,), (2, 3)]),
    pool=st.sampled_from(["mean", "max"]),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_pool_segments(n_snippets, n_segments, tail, pool, dtype):
    rng = np.random.default_rng(n_snippets)
    bag = rng.normal(size=(n_snippets, *tail)).astype(dtype)
    segments = pool_segments(bag, n_segments, pool)
    assert segments.dtype == dtype
    expected = naive_segments(bag.astype(float), n_segments, pool)
    tolerance = 8 * np.finfo(dtype).eps
    np.testing.assert_allclose(segments, expected, rtol=tolerance, atol=tolerance)


def test_float16_is_summed_in_float32():
    bag = np.full((4000, 1), 60, dtype=np.float16)  # a sum beyond float16
    np.testing.assert_array_equal(pool_segments(bag, 2), [[60], [60]])


def test_pool_segments_refuses_an_unknown_pool():
    with pytest.raises(ValueError, match="'mean' or 'max', got 'median'"):
        pool_segments(np.ones((3, 2)), 2, "median")


def naive_spread(scores, n_snippets):
    """Mean over the segments that show a snippet, as a part or as the whole."""
    shown = [[] for _ in range(n_snippets)]
    for i, score in enumerate(scores):
        start = i * n_snippets // len(scores)
        end = (i + 1) * n_snippets // len(scores)
        for t in range(start, max(end, start + 1)):
            shown[t].append(float(score))
    return np.array([sum(of_one) / len(of_one) for of_one in shown])


@settings(deadline=None)
@given(
    n_snippets=st.integers(1, 100),
    n_segments=st.integers(1, 40),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_spread_segments(n_snippets, n_segments, dtype):
    scores = np.random.default_rng(n_snippets).random(n_segments).astype(dtype)
    spread = spread_segments(scores, n_snippets)
    assert spread.dtype == dtype
    assert spread.shape == (n_snippets,)
    expected = naive_spread(scores, n_snippets)
    if n_snippets >= n_segments:  # copies, to the bit
        np.testing.assert_array_equal(spread, expected.astype(dtype))
    np.testing.assert_allclose(spread, expected, rtol=np.finfo(dtype).eps)


@pytest.mark.parametrize(
    ("n_segments", "n_snippets", "expected"),
    [
        (4, 4, [1, 2, 4, 8]),
        (4, 8, [1, 1, 2, 2, 4, 4, 8, 8]),
        (4, 5, [1, 2, 4, 8, 8]),  # bounds 0, 1, 2, 3, 5
        (4, 7, [1, 2, 2, 4, 4, 8, 8]),
        (4, 3, [1.5, 4, 8]),  # segments begin at snippets 0, 0, 1, 2
        (4, 2, [1.5, 6]),
        (4, 1, [3.75]),
        (1, 3, [1, 1, 1]),
        (1, 1, [1]),
    ],
)
def test_spread_segments_by_hand(n_segments, n_snippets, expected):
    scores = np.array([1.0, 2.0, 4.0, 8.0])[:n_segments]
    np.testing.assert_array_equal(spread_segments(scores, n_snippets), expected)


@settings(deadline=None)
@given(n_snippets=st.integers(1, 100), n_segments=st.integers(1, 40))
def test_pooling_and_spreading_undo_each_other(n_snippets, n_segments):
    """What is lost is lost on the way to fewer."""
    rng = np.random.default_rng(n_snippets)
    if n_snippets >= n_segments:
        scores = rng.random(n_segments)
        found = pool_segments(spread_segments(scores, n_snippets), n_segments)
        np.testing.assert_allclose(found, scores, rtol=1e-14)
    if n_snippets <= n_segments:
        scores = rng.random(n_snippets)
        found = spread_segments(pool_segments(scores, n_segments), n_snippets)
        np.testing.assert_allclose(found, scores, rtol=1e-14)


@pytest.mark.parametrize(
    ("n_frames", "length"), [(None, 1e30), (None, 2**32), ([2**62], 2**61)]
)
def test_more_frames_than_fit(n_frames, length):
    match = r"e\+.* frames of 1 videos .*expected at most 4294967296; snippet_length"
    with pytest.raises(ValueError, match=match):
        expand_scores([[0.1, 0.2]], n_frames, snippet_length=length)


@pytest.mark.parametrize(
    ("scores", "error", "match"),
    [
        (3, TypeError, "scores: expected a list with one array per video, got int"),
        ([[1, [2]]], ValueError, "scores of video 0: not a rectangular array"),
    ],
)
def test_scores_that_are_none(scores, error, match):
    with pytest.raises(error, match=match):
        expand_scores(scores)
