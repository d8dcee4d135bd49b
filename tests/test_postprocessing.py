"""Smoothing, thresholds and events, against plain loops over snippets and frames."""

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_vad import DDLAnomalyDetector, FrameLabels, MILRankingAnomalyDetector
from sklearn_vad.metrics import (
    event_average_precision_score,
    false_alarm_rate,
    frame_roc_auc_scorer,
)
from sklearn_vad.postprocessing import find_events, smooth_scores, tune_threshold

DTYPES = [np.float16, np.float32, np.float64]

# Few distinct values, so that neighbours and videos share them.
SCORES = st.lists(st.integers(0, 10).map(lambda x: x / 10), min_size=1, max_size=25)


# --------------------------------------------------------------------------
# Smoothing
# --------------------------------------------------------------------------
def naive_smooth(scores, width, causal):
    smoothed = []
    for i in range(len(scores)):
        window = range(i - width + 1, i + 1)
        if not causal:
            window = range(i - width // 2, i + width // 2 + 1)
        seen = [scores[j] for j in window if 0 <= j < len(scores)]
        smoothed.append(sum(seen) / len(seen))
    return np.array(smoothed)


@st.composite
def windows(draw):
    """Draw (width, causal)."""
    causal = draw(st.booleans())
    width = draw(st.integers(0, 30))
    return (width + 1, True) if causal else (2 * width + 1, False)


@settings(deadline=None)
@given(st.lists(SCORES, max_size=4), windows())
def test_smooth_scores_is_the_mean_over_the_window(scores, window):
    width, causal = window
    smoothed = smooth_scores(scores, width, causal=causal)
    assert type(smoothed) is list
    assert len(smoothed) == len(scores)
    for own, smooth in zip(scores, smoothed, strict=True):
        expected = naive_smooth(own, width, causal)
        np.testing.assert_allclose(smooth, expected, rtol=0, atol=1e-14)


def test_smooth_scores_by_hand():
    scores = [np.array([0.0, 3.0, 6.0, 0.0, 0.0])]
    (centred,) = smooth_scores(scores, 3)
    np.testing.assert_array_equal(centred, [1.5, 3, 3, 2, 0])
    (causal,) = smooth_scores(scores, 3, causal=True)
    np.testing.assert_array_equal(causal, [0, 1.5, 3, 3, 2])
    (wide,) = smooth_scores(scores, 99)
    np.testing.assert_array_equal(wide, [1.8] * 5)
    np.testing.assert_array_equal(scores[0], [0, 3, 6, 0, 0])  # untouched


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 1, width=16), min_size=1, max_size=25),
    windows(),
    st.sampled_from(DTYPES),
)
def test_smoothed_scores_lie_within_their_window(scores, window, dtype):
    width, causal = window
    scores = np.array(scores, dtype=dtype)
    (smooth,) = smooth_scores([scores], width, causal=causal)
    assert smooth.dtype == dtype
    before, after = (width - 1, 0) if causal else (width // 2, width // 2)
    for i, value in enumerate(smooth):
        seen = scores[max(0, i - before) : i + after + 1]
        assert seen.min() <= value <= seen.max()


@settings(deadline=None)
@given(SCORES, windows(), st.data())
def test_higher_scores_never_give_lower_ones(scores, window, data):
    width, causal = window
    steps = st.lists(st.floats(0, 1), min_size=len(scores), max_size=len(scores))
    higher = np.add(scores, data.draw(steps))
    low, high = smooth_scores([scores, higher], width, causal=causal)
    assert (low <= high).all()


@settings(deadline=None)
@given(SCORES, st.integers(1, 30), st.integers(1, 25))
def test_causal_smoothing_looks_at_nothing_later(scores, width, n_seen):
    whole, seen = smooth_scores([scores, scores[:n_seen]], width, causal=True)
    np.testing.assert_array_equal(whole[:n_seen], seen)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [*DTYPES, np.int64, np.uint8])
def test_width_1_is_the_identity(causal, dtype):
    scores = [np.array([0, 1, 1, 0], dtype=dtype), np.array([1], dtype=dtype)]
    smoothed = smooth_scores(scores, 1, causal=causal)
    for own, smooth in zip(scores, smoothed, strict=True):
        expected = own.dtype if own.dtype.kind == "f" else np.float64
        assert smooth.dtype == expected
        assert not np.shares_memory(own, smooth)
        np.testing.assert_array_equal(own, smooth)


@pytest.mark.parametrize("width", [3, 4, 7])
def test_a_mean_of_equal_scores_is_that_score(width):
    """0.1 + 0.1 + 0.1 divided by 3 is above 0.1."""
    for value in (0.1, 0.7, 1.0):
        (smooth,) = smooth_scores([[value] * 9], width, causal=True)
        np.testing.assert_array_equal(smooth, [value] * 9)


@pytest.mark.parametrize(
    ("scores", "width", "error", "match"),
    [
        ([[0.1]], 4, ValueError, "width must be odd, .* got 4; .* needs causal=True"),
        ([[0.1]], 0, ValueError, "'width' parameter of smooth_scores must be an int"),
        ([[0.1]], 2.5, ValueError, "'width' parameter of smooth_scores must be an int"),
        ([[0.1], []], 3, ValueError, r"scores of video 1 have shape \(0,\)"),
        ([0.1, 0.2], 3, ValueError, r"scores of video 0 have shape \(\)"),
        ([[0.1], [np.nan]], 3, ValueError, "scores of video 1 contain NaN"),
        (None, 3, TypeError, "scores: expected a list with one array per video"),
    ],
)
def test_smooth_scores_refuses(scores, width, error, match):
    with pytest.raises(error, match=match):
        smooth_scores(scores, width)


# --------------------------------------------------------------------------
# Events
# --------------------------------------------------------------------------
def naive_events(scores, n_frames, length, threshold, min_frames, merge_frames):
    """Find the events of one video, frame by frame."""
    snippet = [min(int(np.floor(f / length)), len(scores) - 1) for f in range(n_frames)]
    events = []
    for frame in range(n_frames):
        score = scores[snippet[frame]]
        if score < threshold:
            continue
        if events and frame - events[-1][1] < max(merge_frames, 1):
            first, _, highest = events[-1]
            events[-1] = (first, frame + 1, max(highest, score))
        else:
            events.append((frame, frame + 1, score))
    return [event for event in events if event[1] - event[0] >= min_frames]


@settings(deadline=None)
@given(
    scores=SCORES,
    length=st.sampled_from([0.4, 1, 2.5, 3, 16]),
    off=st.floats(-1.9, 1.9),
    threshold=st.sampled_from([0.0, 0.3, 0.5, 1.0, 1.1]),
    min_frames=st.integers(1, 40),
    merge_frames=st.integers(0, 40),
    dtype=st.sampled_from(DTYPES),
)
# A snippet without frames neither splits an event nor scores in it.
@example([0.5, 0.0, 0.5, 0.9, 0.5], 0.4, 0, 0.5, 1, 0, np.float64)
def test_find_events(scores, length, off, threshold, min_frames, merge_frames, dtype):
    n_frames = max(1, round((len(scores) + off) * length))
    assume(abs(n_frames / length - len(scores)) <= 2)
    scores = np.array(scores, dtype=dtype)
    options = {"min_frames": min_frames, "merge_frames": merge_frames}
    (events,) = find_events(
        [scores], [n_frames], threshold=threshold, snippet_length=length, **options
    )
    threshold = dtype(threshold)
    expected = naive_events(scores, n_frames, length, threshold, *options.values())
    assert events.tolist() == expected


@settings(deadline=None)
@given(st.lists(SCORES, max_size=4), st.sampled_from([0.1, 0.5, 0.8]))
def test_events_cover_the_frames_that_reach_the_threshold(scores, threshold):
    for own, events in zip(
        scores, find_events(scores, threshold=threshold), strict=True
    ):
        covered = np.zeros(16 * len(own), dtype=bool)
        for first, last, score in events:
            assert not covered[max(0, first - 1) : last].any()  # apart, in order
            covered[first:last] = True
            assert score == max(own[first // 16 : last // 16])
        np.testing.assert_array_equal(covered, np.repeat(own, 16) >= threshold)


def test_find_events_by_hand():
    scores = [[0.5, 0.4, 0.5, 0.9, 0.1], [0.1], [0.6]]
    events = find_events(scores)
    assert [e.tolist() for e in events] == [
        [(0, 16, 0.5), (32, 64, 0.9)],
        [],
        [(0, 16, 0.6)],
    ]
    assert events[0].dtype.names == ("first", "last", "score")
    assert events[0]["first"].dtype == events[0]["last"].dtype == np.int64
    assert events[0]["score"].dtype == np.float64
    for number, expected in [(16, 2), (17, 1)]:
        assert len(find_events(scores, merge_frames=number)[0]) == expected
        assert len(find_events(scores, min_frames=number)[0]) == expected
    # Merged first: neither part has 40 frames.
    (merged, *_) = find_events(scores, merge_frames=17, min_frames=40)
    assert merged.tolist() == [(0, 64, 0.9)]
    (cut, *_) = find_events(scores, [60, 16, 20])
    assert cut.tolist() == [(0, 16, 0.5), (32, 60, 0.9)]
    assert find_events(scores, [80, 16, 20])[2].tolist() == [(0, 20, 0.6)]
    fractions = find_events(scores, snippet_length=[2.5, 1, 3])
    assert [e.tolist() for e in fractions] == [
        [(0, 3, 0.5), (5, 10, 0.9)],
        [],
        [(0, 3, 0.6)],
    ]
    assert find_events([]) == []


def test_events_of_true_scores_are_the_true_events():
    mask = np.repeat([0, 1, 1, 0, 0, 1, 0], 16)
    events = find_events([mask[::16]], [len(mask)])
    assert event_average_precision_score([mask], events, iou=1) == 1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"min_frames": 0}, "'min_frames' parameter of find_events must be an int in"),
        ({"min_frames": 1.5}, "'min_frames' parameter of find_events must be an int"),
        ({"merge_frames": -1}, "'merge_frames' parameter of find_events must be an"),
        ({"threshold": np.nan}, "'threshold' parameter of find_events must be a float"),
        ({"threshold": "0.5"}, "'threshold' parameter of find_events must be a float"),
        ({"n_frames": [100, 16]}, "video 0 has 2 snippets, but its 100 frames fill"),
        (
            {"n_frames": [16]},
            r"n_frames has shape \(1,\), expected one number for each",
        ),
        ({"snippet_length": 0}, "snippet_length must be positive, got 0"),
        (
            {"snippet_scores": [[0.1], [[0.2]]]},
            r"scores of video 1 have shape \(1, 1\)",
        ),
        ({"snippet_scores": [[0.1], [np.inf]]}, "scores of video 1 contain NaN or inf"),
    ],
)
def test_find_events_refuses(options, match):
    with pytest.raises(ValueError, match=match):
        find_events(**{"snippet_scores": [[0.1, 0.2], [0.3]], **options})


# --------------------------------------------------------------------------
# Threshold
# --------------------------------------------------------------------------
class FirstFeature(ClassifierMixin, BaseEstimator):
    """A detector whose scores are the first feature of the snippets."""

    def __init__(self, sign=1):
        self.sign = sign

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def score_snippets(self, X):
        return [self.sign * np.asarray(bag)[:, 0] for bag in X]


FITTED = FirstFeature().fit(None, [0, 1])


def as_bags(scores):
    return [np.asarray(own)[:, None] for own in scores]


@st.composite
def scored_videos(draw):
    """Draw (scores, masks): one normal video at least, one frame per snippet."""
    dtype = draw(st.sampled_from(DTYPES))
    scores, masks = [], []
    for i in range(draw(st.integers(1, 5))):
        scores.append(np.array(draw(SCORES), dtype=dtype))
        anomalous = i > 0 and draw(st.booleans())
        masks.append(np.full(len(scores[-1]), anomalous))
    return scores, masks


@settings(deadline=None)
@given(scored_videos(), st.sampled_from([0, 0.01, 0.1, 0.3, 0.5, 0.99]))
@example(([np.float32([0.5])], [[0]]), 0.5)
@example(([np.float32([0.2, 0.4]), np.float32([0.9])], [[0, 0], [1]]), 0)
def test_tuned_threshold_is_the_lowest(case, far):
    scores, masks = case
    threshold = tune_threshold(
        FITTED, as_bags(scores), masks, far=far, snippet_length=1
    )
    assert type(threshold) is float
    assert FITTED.threshold_ == threshold
    every = np.unique(np.concatenate(scores))
    normal = np.concatenate(
        [own for own, mask in zip(scores, masks, strict=True) if not np.any(mask)]
    )
    assert threshold not in every.tolist()
    assert np.mean(normal >= threshold) <= far
    # With the next lower score as threshold, there are too many false alarms.
    below, above = every[every < threshold], every[every > threshold]
    assert np.mean(normal >= below[-1]) > far
    if len(above):
        middle = (below[-1].astype(float) + above[0].astype(float)) / 2
        assert threshold == pytest.approx(middle, rel=float(np.finfo(every.dtype).eps))
    else:
        assert threshold == np.nextafter(every[-1], every.dtype.type(np.inf))


def test_tuned_threshold_by_hand():
    scores = [[0.2, 0.4, 0.6, 0.8], [0.5, 0.9]]  # a normal and an anomalous video
    masks = [[0, 0, 0, 0], [0, 1]]
    for far, expected in [
        (0, 0.85),  # between 0.8 and the anomalous 0.9
        (0.2, 0.85),
        (0.25, 0.7),
        (0.5, 0.45),  # between 0.4 and the 0.5 of the anomalous video
        (0.75, 0.3),
        (0.99, 0.3),
    ]:
        found = tune_threshold(
            FITTED, as_bags(scores), masks, far=far, snippet_length=1
        )
        assert found == pytest.approx(expected)
    default = tune_threshold(FITTED, as_bags(scores), masks, snippet_length=1)
    assert default == pytest.approx(0.85)


@pytest.mark.parametrize("dtype", DTYPES)
def test_threshold_between_scores_that_nothing_lies_between(dtype):
    low = dtype(0.5)
    high = np.nextafter(low, dtype(1))
    scores, masks = [np.array([low] * 9 + [high])], [[0] * 10]
    found = tune_threshold(FITTED, as_bags(scores), masks, far=0.1, snippet_length=1)
    assert found == high
    rate = false_alarm_rate(masks, scores, threshold=found, snippet_length=1)
    assert rate == 0.1


@pytest.mark.parametrize("dtype", DTYPES)
def test_threshold_above_the_highest_score(dtype):
    scores, masks = [np.array([0.3, 0.9, 1], dtype=dtype)], [[0, 0, 0]]
    found = tune_threshold(FITTED, as_bags(scores), masks, snippet_length=1)
    assert found == np.nextafter(dtype(1), dtype(2))
    rate = false_alarm_rate(masks, scores, threshold=found, snippet_length=1)
    assert rate == 0
    assert len(find_events(scores, threshold=found)[0]) == 0


def test_frames_decide_not_snippets():
    """A last snippet of one frame is one frame; one past the labels is none."""
    scores, masks = [[0.1, 0.2, 0.9, 1.0]], [[0] * 21]
    bags, labels = as_bags(scores), FrameLabels(masks, 10)
    found = tune_threshold(FITTED, bags, labels, far=1 / 21)
    assert found == pytest.approx(0.55)
    assert false_alarm_rate(labels, scores, threshold=found) == 1 / 21
    assert tune_threshold(FITTED, bags, labels, far=0.04) == pytest.approx(0.95)


@pytest.fixture(scope="module")
def videos(small):
    """(bags, labels): normal videos with scores -1 to 1 in their first feature."""
    bags, labels = small
    rng = np.random.default_rng(0)
    return [rng.uniform(-1, 1, size=bag.shape) for bag in bags], labels


def _negate(bags):
    return [-bag for bag in bags]


def test_detector_inside_pipelines_and_searches(videos):
    bags, labels = videos
    expected = tune_threshold(FirstFeature(sign=-1).fit(bags, labels), bags, labels)
    pipeline = make_pipeline(FunctionTransformer(_negate), FirstFeature())
    pipeline.fit(bags, labels)
    assert tune_threshold(pipeline, bags, labels) == expected
    assert pipeline[-1].threshold_ == expected
    assert not hasattr(pipeline, "threshold_")
    search = GridSearchCV(
        make_pipeline("passthrough", FirstFeature()),
        {"firstfeature__sign": [-1]},
        scoring=frame_roc_auc_scorer,
        cv=2,
    )
    search.fit(bags, labels)
    assert tune_threshold(search, bags, labels) == expected
    assert search.best_estimator_[-1].threshold_ == expected


class Wrapper(FirstFeature):
    """A detector around another, whose threshold is that of the inner one."""

    def fit(self, X, y):
        self.estimator_ = FirstFeature().fit(X, y)
        return self

    threshold_ = property(lambda self: self.estimator_.threshold_)


def test_detector_around_another(videos):
    bags, labels = videos
    expected = tune_threshold(FirstFeature().fit(bags, labels), bags, labels)
    wrapper = Wrapper().fit(bags, labels)
    assert tune_threshold(wrapper, bags, labels) == expected
    assert wrapper.threshold_ == expected


def test_video_predictions_use_the_threshold(small):
    bags, y = small
    est = MILRankingAnomalyDetector(
        hidden_dims=(8, 4), max_epochs=2, random_state=0, n_jobs=1
    ).fit(bags, y)
    scores = est.score_snippets(bags)
    highest = np.array([own.max() for own in scores], dtype=float)
    threshold = tune_threshold(est, bags, y, far=0.3)
    assert threshold != 0.5
    np.testing.assert_allclose(est.decision_function(bags), highest - threshold)
    np.testing.assert_array_equal(est.predict(bags), highest > threshold)
    normal = np.concatenate(
        [np.repeat(s, 16) for s, label in zip(scores, y, strict=True) if label == 0]
    )
    assert 0.2 < np.mean(normal >= threshold) < 0.35  # a few frames are left over
    assert false_alarm_rate(y, scores, threshold=threshold) <= 0.3
    assert est.fit(bags, y).threshold_ == 0.5


@pytest.mark.parametrize(
    "est",
    [
        FirstFeature(),
        DDLAnomalyDetector(),
        make_pipeline("passthrough", DDLAnomalyDetector()),
        GridSearchCV(DDLAnomalyDetector(), {}),
    ],
    ids=["stub", "detector", "pipeline", "search"],
)
def test_detector_must_be_fitted(est, small):
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        tune_threshold(est, *small)


@pytest.mark.parametrize(
    ("masks", "options", "error", "match"),
    [
        ([[0], [1]], {"far": 1}, ValueError, r"'far' .* in the range \[0.0, 1.0\)"),
        ([[0], [1]], {"far": -0.1}, ValueError, "'far' parameter of tune_threshold"),
        ([[0], [1]], {"far": np.nan}, ValueError, "'far' parameter of tune_threshold"),
        ([[0], [1]], {"far": "0.1"}, ValueError, "'far' parameter of tune_threshold"),
        ([[1], [1]], {}, ValueError, "none of the 2 videos is normal: false alarms"),
        ([[0]], {}, ValueError, "frame labels of 1 videos for 2 bags"),
        ([[0] * 90, [1]], {}, ValueError, "video 0 has 1 snippets, but its 90 frames"),
        ([0, 1], {}, ValueError, r"frame labels of video 0 have shape \(\)"),
        (FrameLabels([[0], [1]], 8), {"snippet_length": 4}, ValueError, "leave it out"),
        (None, {}, TypeError, "frame labels: expected a list with one array per video"),
    ],
)
def test_tune_threshold_refuses(masks, options, error, match):
    est = FirstFeature().fit(None, [0, 1])
    with pytest.raises(error, match=match):
        tune_threshold(est, as_bags([[0.1], [0.2]]), masks, **options)
    assert not hasattr(est, "threshold_")


def test_tune_threshold_needs_a_detector():
    est = FunctionTransformer().fit([[0]])
    with pytest.raises(TypeError, match="FunctionTransformer has no score_snippets"):
        tune_threshold(est, as_bags([[0.1]]), [[0]])
