"""Frame metrics against scikit-learn, and plain sums, on expanded frames."""

import pickle
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import (
    auc,
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
)
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_vad import FrameLabels, MILRankingAnomalyDetector
from sklearn_vad.metrics import (
    anomalous_roc_auc_score,
    balanced_frame_roc_auc_score,
    category_roc_auc_score,
    evaluate,
    event_average_precision_score,
    false_alarm_rate,
    frame_average_precision_score,
    frame_average_precision_scorer,
    frame_roc_auc_score,
    frame_roc_auc_scorer,
    frame_scorers,
    mean_event_average_precision,
    score_gap,
)
from sklearn_vad.postprocessing import find_events

EVALUATED = [
    frame_roc_auc_score,
    frame_average_precision_score,
    false_alarm_rate,
    score_gap,
    anomalous_roc_auc_score,
]
METRICS = [*EVALUATED, balanced_frame_roc_auc_score]
each_metric = pytest.mark.parametrize("metric", METRICS)


# --------------------------------------------------------------------------
# The slow way
# --------------------------------------------------------------------------
def expand(masks, snippet_scores, snippet_length):
    """Return (labels, scores) of each video, one entry per frame."""
    lengths = np.broadcast_to(snippet_length, len(masks))
    videos = []
    for mask, scores, length in zip(masks, snippet_scores, lengths, strict=True):
        snippet = np.floor(np.arange(len(mask)) / length).astype(int)
        snippet = np.minimum(snippet, len(scores) - 1)
        videos.append((np.asarray(mask), np.asarray(scores)[snippet]))
    return videos


def join(videos):
    return tuple(np.concatenate(part) for part in zip(*videos, strict=True))


def slow_metrics(masks, snippet_scores, snippet_length, threshold):
    """Compute every metric on expanded frames; NaN where it is undefined."""
    videos = expand(masks, snippet_scores, snippet_length)
    anomalous = [video for video in videos if video[0].any()]
    normal = [video for video in videos if not video[0].any()]
    values = dict.fromkeys([m.__name__ for m in METRICS] + ["trapezoid"], np.nan)

    labels, scores = join(videos)
    if 0 < labels.sum() < len(labels):
        precision, recall, _ = precision_recall_curve(labels, scores)
        wide = scores.astype(float)
        values["frame_roc_auc_score"] = roc_auc_score(labels, scores)
        values["balanced_frame_roc_auc_score"] = roc_auc_score(
            labels,
            scores,
            sample_weight=np.concatenate([[1 / len(m)] * len(m) for m in masks]),
        )
        values["frame_average_precision_score"] = average_precision_score(
            labels, scores
        )
        values["trapezoid"] = auc(recall, precision)
        values["score_gap"] = wide[labels == 1].mean() - wide[labels == 0].mean()
    if anomalous:
        labels, scores = join(anomalous)
        if not labels.all():
            values["anomalous_roc_auc_score"] = roc_auc_score(labels, scores)
    if normal:
        _, scores = join(normal)
        values["false_alarm_rate"] = np.mean(scores >= threshold)
    return values


def fast_metrics(frame_labels, snippet_scores, snippet_length, threshold):
    """Compute the same by the package."""
    arguments = (frame_labels, snippet_scores)
    options = {"snippet_length": snippet_length}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        warnings.filterwarnings("ignore", "no score reaches the threshold")
        values = {m.__name__: m(*arguments, **options) for m in METRICS}
        values["false_alarm_rate"] = false_alarm_rate(
            *arguments, threshold=threshold, **options
        )
        values["trapezoid"] = frame_average_precision_score(
            *arguments, interpolation="trapezoid", **options
        )
    return values


def assert_equal(fast, slow):
    assert fast.keys() == slow.keys()
    for name, value in fast.items():
        assert type(value) is float
        assert value == pytest.approx(slow[name], rel=0, abs=1e-12, nan_ok=True), name


# --------------------------------------------------------------------------
# Values
# --------------------------------------------------------------------------
@st.composite
def cases(draw):
    """Draw (masks, scores, snippet_length, threshold), ragged and full of ties."""
    lengths, masks, scores = [], [], []
    levels = draw(st.sampled_from([1, 2, 3, 10]))
    dtype = draw(st.sampled_from([np.float64, np.float32, np.int64, np.uint8]))
    for _ in range(draw(st.integers(1, 5))):
        if draw(st.booleans()):  # 32 equal parts of a video of any length
            n_snippets, n_frames = 32, draw(st.integers(1, 300))
            length = n_frames / 32
        else:
            n_snippets = draw(st.integers(1, 30))
            length = draw(st.sampled_from([1, 2, 3.7, 16]))
            low = max(1, int(np.ceil((n_snippets - 2) * length)))
            n_frames = draw(st.integers(low, int((n_snippets + 2) * length)))
        mask = np.zeros(n_frames, dtype=int)
        for _ in range(draw(st.integers(0, 3))):
            start = draw(st.integers(0, n_frames - 1))
            mask[start : start + draw(st.integers(1, n_frames))] = 1
        values = st.lists(
            st.integers(0, levels), min_size=n_snippets, max_size=n_snippets
        )
        values = np.array(draw(values))
        is_float = np.issubdtype(dtype, np.floating)
        scores.append((values / levels if is_float else values).astype(dtype))
        lengths.append(length)
        masks.append(mask)
    threshold = scores[0][0] if draw(st.booleans()) else 0.5
    return masks, scores, lengths, threshold


@settings(deadline=None)
@given(cases())
# Labels end before the snippet of the highest score: it counts nowhere.
@example(([np.array([1, 0])], [np.array([0.5, 0.1, 0.9])], [1], 0.5))
# Frames past the last snippet take its score.
@example(([np.array([0, 0, 0, 1])], [np.array([0.5, 0.9])], [1], 0.5))
# No frame reaches the threshold.
@example(([np.array([0]), np.array([1])], [np.array([0.1])] * 2, [1, 1], 0.5))
def test_values_equal_the_slow_way(case):
    masks, scores, lengths, threshold = case
    slow = slow_metrics(*case)
    assert_equal(fast_metrics(*case), slow)
    labels = FrameLabels(masks, lengths)
    assert_equal(fast_metrics(labels, scores, 16, threshold), slow)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("snippet_length", [16, 7.3])
def test_values_on_many_videos(dtype, snippet_length):
    rng = np.random.default_rng(0)
    masks, scores = [], []
    for i in range(60):
        n_snippets = int(rng.integers(1, 200))
        off = max(2, 0.1 * n_snippets) * rng.uniform(-0.99, 0.99)
        n_frames = max(1, round((n_snippets + off) * snippet_length))
        share = 0 if i % 2 else rng.random()
        masks.append(rng.random(n_frames) < share)
        scores.append(rng.random(n_snippets).astype(dtype))
    case = masks, scores, snippet_length, dtype(0.7)
    assert_equal(fast_metrics(*case), slow_metrics(*case))


def test_values_on_xd_violence(data_dir):
    path = data_dir / "xd_violence_test_gt.npz"
    if not path.exists():
        pytest.skip(f"{path.name} is not in the data folder")
    with np.load(path) as file:
        masks = np.split(file["gt"], file["offsets"][1:-1])
    rng = np.random.default_rng(0)
    scores = []
    for mask in masks:
        share = np.add.reduceat(mask, np.arange(0, len(mask), 16), dtype=float) / 16
        values = share + rng.normal(size=len(share))
        scores.append(np.round(1 / (1 + np.exp(-values)), 3).astype(np.float32))
    case = masks, scores, 16, 0.5
    slow = slow_metrics(*case)
    assert 0.7 < slow["frame_roc_auc_score"] < 0.9
    assert_equal(fast_metrics(*case), slow)
    assert_equal(fast_metrics(FrameLabels(masks), *case[1:]), slow)
    subset = rng.permutation(len(masks))[:300]
    part = FrameLabels(masks)[subset], [scores[i] for i in subset]
    slow = slow_metrics(
        [masks[i] for i in subset], *([scores[i] for i in subset], 16, 0.5)
    )
    assert_equal(fast_metrics(*part, 16, 0.5), slow)


def test_values_by_hand():
    labels = [[0, 0, 1, 1, 1, 1], [0, 0, 0, 0]]
    scores = [[0.2, 0.6, 0.9], [0.6, 0.4]]
    by_length_2 = {"snippet_length": 2}
    # Frames: anomalous .6 .6 .9 .9; normal .2 .2 | .6 .6 .4 .4
    auc = (2 * 6 + 2 * (4 + 0.5 * 2)) / 24
    assert frame_roc_auc_score(labels, scores, **by_length_2) == pytest.approx(auc)
    step = 0.5 * 1 + 0.5 * 4 / 6
    assert frame_average_precision_score(
        labels, scores, **by_length_2
    ) == pytest.approx(step)
    trapezoid = 0.5 * 1 + 0.5 * (1 + 4 / 6) / 2
    assert frame_average_precision_score(
        labels, scores, interpolation="trapezoid", **by_length_2
    ) == pytest.approx(trapezoid)
    assert false_alarm_rate(labels, scores, **by_length_2) == 0.5
    assert false_alarm_rate(labels, scores, threshold=0.6, **by_length_2) == 0.5
    assert false_alarm_rate(labels, scores, threshold=0.61, **by_length_2) == 0
    assert false_alarm_rate(labels, scores, threshold=0.4, **by_length_2) == 1
    # Every frame of the first video counts 1 / 6, of the second 1 / 4.
    auc = (2 * (2 / 6 + 4 / 4) + 2 * (2 / 6 + 0.5 + 0.5 * 0.5)) / 4 / (2 / 6 + 4 / 4)
    assert balanced_frame_roc_auc_score(labels, scores, **by_length_2) == (
        pytest.approx(auc)
    )
    gap = 0.75 - 2.4 / 6
    assert score_gap(labels, scores, **by_length_2) == pytest.approx(gap)
    assert anomalous_roc_auc_score(labels, scores, **by_length_2) == 1


def test_a_long_video_weighs_as_much_as_a_short_one():
    """A video repeated k times longer changes the plain AUC, not the balanced one."""
    rng = np.random.default_rng(0)
    masks = [rng.random(n) < share for n, share in [(5, 0), (9, 0.5), (7, 0), (3, 1)]]
    scores = [rng.random(len(mask)) for mask in masks]
    scores[2] += 1  # the video to be longest is a false alarm
    longer = [np.repeat(mask, k) for mask, k in zip(masks, (1, 8, 50, 3), strict=True)]
    case, stretched = (masks, scores), (longer, scores)
    options = {"snippet_length": 1}, {"snippet_length": [1, 8, 50, 3]}
    value = balanced_frame_roc_auc_score(*case, **options[0])
    found = balanced_frame_roc_auc_score(*stretched, **options[1])
    assert found == pytest.approx(value, abs=1e-12)
    plain = frame_roc_auc_score(*case, **options[0])
    assert abs(frame_roc_auc_score(*stretched, **options[1]) - plain) > 0.05


def test_evaluate_equals_the_single_functions():
    rng = np.random.default_rng(0)
    scores = [np.round(rng.random(n), 1) for n in (5, 9, 7)]
    labels = FrameLabels([rng.random(16 * 5) < 0.3, [0] * 150, [1] * 60 + [0] * 50])
    values = evaluate(labels, scores)
    assert values == {metric.__name__: metric(labels, scores) for metric in EVALUATED}
    assert values == evaluate(labels.masks, scores, snippet_length=[16, 16, 16])


@each_metric
def test_order_of_videos_and_kind_of_container_do_not_matter(metric):
    rng = np.random.default_rng(1)
    scores = [rng.random(n) for n in (5, 9, 7, 3)]
    masks = [
        rng.random(2 * n) < share for n, share in [(5, 0), (9, 0.5), (7, 0), (3, 1)]
    ]
    labels = FrameLabels(masks, snippet_length=2)
    value = metric(labels, scores)
    order = np.array([2, 0, 3, 1])
    assert metric(labels[order], [scores[i] for i in order]) == pytest.approx(value)
    scores_as_objects = np.empty(4, dtype=object)
    scores_as_objects[:] = scores
    assert metric(labels, scores_as_objects) == value
    assert metric(labels, [s.tolist() for s in scores], snippet_length=2) == value
    masks_as_lists = [mask.astype(float).tolist() for mask in masks]
    assert metric(masks_as_lists, tuple(scores), snippet_length=2) == value


def test_tensors_are_scores_too():
    torch = pytest.importorskip("torch")
    scores = [torch.tensor([0.2, 0.8], requires_grad=True), torch.tensor([0.1])]
    assert frame_roc_auc_score([[0, 1], [0]], scores, snippet_length=1) == 1


def test_perfect_separation_is_exactly_one():
    rng = np.random.default_rng(0)
    masks = [np.repeat(rng.random(997) < 0.4, 7) for _ in range(30)]
    scores = [mask[::7] + rng.random(997) / 2 for mask in masks]
    assert frame_roc_auc_score(masks, scores, snippet_length=7) == 1
    assert frame_roc_auc_score(masks, [-s for s in scores], snippet_length=7) == 0
    # Weights are fractions: 1 but for rounding, and not above.
    for n in range(1, 30):
        part = masks[:n] + [[0] * k for k in (1, 3, 49, n)]
        own = scores[:n] + [np.zeros(-(-k // 7)) for k in (1, 3, 49, n)]
        value = balanced_frame_roc_auc_score(part, own, snippet_length=7)
        assert 1 - 1e-12 < value <= 1


# --------------------------------------------------------------------------
# Where metrics are undefined
# --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("metric", "masks", "match"),
    [
        (frame_roc_auc_score, [[0, 0]], "no anomalous frame, so frame_roc_auc_score"),
        (frame_roc_auc_score, [[1, 1]], "no normal frame, so frame_roc_auc_score"),
        (
            balanced_frame_roc_auc_score,
            [[0, 0]],
            "no anomalous frame, so balanced_frame_roc_auc_score",
        ),
        (balanced_frame_roc_auc_score, [[1, 1]], "no normal frame, so balanced_frame"),
        (frame_average_precision_score, [[0, 0]], "no anomalous frame, so frame_ave"),
        (frame_average_precision_score, [[1, 1]], "no normal frame, so frame_average"),
        (score_gap, [[0, 0]], "no anomalous frame, so score_gap"),
        (score_gap, [[1, 1]], "no normal frame, so score_gap"),
        (false_alarm_rate, [[0, 1]], "no normal video, so false_alarm_rate"),
        (anomalous_roc_auc_score, [[0, 0]], "no anomalous frame, so anomalous_roc_"),
        (
            anomalous_roc_auc_score,
            [[1, 1], [0, 0]],
            "no normal frame in an anomalous video, so anomalous_roc_auc_score",
        ),
    ],
)
def test_one_class_warns_and_gives_nan(metric, masks, match):
    with pytest.warns(UndefinedMetricWarning, match=match) as record:
        value = metric(masks, [[0.1, 0.9]] * len(masks), snippet_length=1)
    assert np.isnan(value)
    assert len(record) == 1
    assert record[0].filename == __file__  # the line that called the metric


def test_evaluate_warns_of_each_undefined_metric():
    with pytest.warns(UndefinedMetricWarning) as record:
        values = evaluate([[0, 0]], [[0.5, 0.1]], snippet_length=1)
    assert values.pop("false_alarm_rate") == 0.5
    assert np.isnan(list(values.values())).all()
    assert len(record) == 4
    assert {warning.filename for warning in record} == {__file__}


# --------------------------------------------------------------------------
# Where a false-alarm rate says nothing
# --------------------------------------------------------------------------
@pytest.mark.parametrize("scores", [[[0.1, 0.31], [0.2]], [[0.1], [0.31]]])
def test_silence_is_no_low_false_alarm_rate(scores):
    labels = FrameLabels([[0, 1], [0]], snippet_length=1)
    match = re.escape(
        "no score reaches the threshold 0.5 (the highest is 0.31): a false-alarm rate"
        " of 0 says nothing here; choose a threshold with"
        " sklearn_vad.postprocessing.tune_threshold"
    )
    with pytest.warns(UserWarning, match=match) as record:
        values = false_alarm_rate(labels, scores), evaluate(labels, scores)
    assert (values[0], values[1]["false_alarm_rate"]) == (0, 0)
    assert [warning.category for warning in record] == [UserWarning] * 2
    assert {warning.filename for warning in record} == {__file__}


def test_scores_without_frames_reach_no_threshold():
    with pytest.warns(UserWarning, match=r"threshold 0\.4 \(the highest is 0\.31\)"):
        false_alarm_rate(
            [[0, 1], [0]], [[0.31, 0.2, 0.9], [0.1]], threshold=0.4, snippet_length=1
        )


@pytest.mark.parametrize(
    ("labels", "scores", "threshold"),
    [
        ([[0, 0], [0]], [[0.1, 0.2], [0.3]], 0.5),  # silence is right here
        ([[0, 1], [0]], [[0.1, 0.5], [0.3]], 0.5),
        ([[0, 1], [0]], [[0.1, 0.4], [0.3]], 0.4),
    ],
)
def test_a_true_low_false_alarm_rate(labels, scores, threshold):
    rate = false_alarm_rate(labels, scores, threshold=threshold, snippet_length=1)
    assert rate == 0


# --------------------------------------------------------------------------
# Categories
# --------------------------------------------------------------------------
def slow_category_aucs(masks, snippet_scores, lengths, categories, negatives):
    """Compute the AUC of each category by scikit-learn, on expanded frames."""
    videos = expand(masks, snippet_scores, lengths)
    kept = {}
    for (labels, _), own in zip(videos, categories, strict=True):
        for category in own if labels.any() else ():
            kept[category] = []
    for category, chosen in kept.items():
        for video, own in zip(videos, categories, strict=True):
            is_anomalous = video[0].any()
            if category in own if is_anomalous else negatives == "all_normal":
                chosen.append(video)
    aucs = {}
    for category, chosen in kept.items():
        labels, scores = join(chosen)
        aucs[category] = np.nan if labels.all() else roc_auc_score(labels, scores)
    return aucs


@settings(deadline=None)
@given(cases(), st.sampled_from(["own", "all_normal"]), st.data())
def test_category_aucs_equal_the_slow_way(case, negatives, data):
    masks, scores, lengths, _ = case
    names = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(tuple)
    categories = [data.draw(names) for _ in masks]
    slow = slow_category_aucs(masks, scores, lengths, categories, negatives)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        fast = category_roc_auc_score(
            FrameLabels(masks, lengths), scores, categories, negatives=negatives
        )
    assert list(fast) == sorted(slow)
    assert_equal(fast, {name: slow[name] for name in fast})


def test_category_aucs_by_hand():
    labels = FrameLabels([[0, 1], [1, 0], [0, 1, 1], [0, 0]], snippet_length=1)
    scores = [[0.1, 0.9], [0.3, 0.2], [0.5, 0.6, 0.4], [0.35, 0.1]]
    # XD-Violence: the third video is both; the normal one is of no category.
    categories = ["arson", "theft", ("theft", "arson", "theft"), "normal"]
    aucs = category_roc_auc_score(labels, scores, categories)
    # arson: .9 .6 .4 against .1 .5; theft: .3 .6 .4 against .2 .5
    assert aucs == {"arson": 5 / 6, "theft": 4 / 6}
    aucs = category_roc_auc_score(labels, scores, categories, negatives="all_normal")
    assert aucs == {
        "arson": pytest.approx((4 + 4 + 3) / 12),  # and against .35 .1
        "theft": pytest.approx((4 + 3 + 2) / 12),
    }
    options = {"snippet_length": 1}
    for kind in (tuple, np.array):
        same = category_roc_auc_score(
            labels.masks[:2], scores[:2], kind(categories[:2]), **options
        )
        assert same == {"arson": 1, "theft": 1}
        assert {type(name) for name in same} == {str}


def test_one_category_of_all_is_the_metric_of_all():
    rng = np.random.default_rng(0)
    masks = [rng.random(160) < share for share in (0.3, 0, 0.6, 0, 0.1)]
    scores = [rng.random(10) for _ in masks]
    case = masks, scores, ["any"] * 5
    assert category_roc_auc_score(*case) == {
        "any": anomalous_roc_auc_score(masks, scores)
    }
    assert category_roc_auc_score(*case, negatives="all_normal") == {
        "any": frame_roc_auc_score(masks, scores)
    }


def test_normal_videos_form_no_category():
    labels = [[0, 1], [0, 0], [0, 0]]
    scores = [[0.1, 0.9]] * 3
    for category in ("normal", "theft", ("a", "b"), None, np.nan, ""):
        categories = ["theft", category, category]
        aucs = category_roc_auc_score(labels, scores, categories, snippet_length=1)
        assert aucs == {"theft": 1}


def test_undefined_categories_are_named():
    labels, scores = [[1, 1], [0, 1], [1, 1]], [[0.1, 0.9]] * 3
    with pytest.warns(UndefinedMetricWarning) as record:
        aucs = category_roc_auc_score(labels, scores, ["b", "a", "c"], snippet_length=1)
    assert aucs == {"a": 1, "b": pytest.approx(np.nan, nan_ok=True), "c": aucs["c"]}
    assert np.isnan(aucs["c"])
    assert [str(warning.message) for warning in record] == [
        f"There is no normal frame, so category_roc_auc_score of {name!r} is not"
        " defined."
        for name in "bc"
    ]
    assert {warning.filename for warning in record} == {__file__}
    with pytest.warns(UndefinedMetricWarning, match="no anomalous video") as record:
        assert category_roc_auc_score([[0]], [[0.1]], ["a"]) == {}
    assert record[0].filename == __file__


@pytest.mark.parametrize(
    ("categories", "error", "match"),
    [
        (["a"], ValueError, "categories of 1 videos and frame labels of 2"),
        ("ab", TypeError, "categories: expected a list with one text per video"),
        (["a", 1], TypeError, "categories of video 1: expected a text or a tuple of"),
        (["a", None], TypeError, "video 1: expected a text .* got NoneType"),
        (["a", ("b", 1)], TypeError, "video 1: expected a text .*, got 1 among them"),
        (["a", ()], ValueError, r"video 1 has anomalous frames but no category: \(\)"),
        (["a", ""], ValueError, "video 1 has anomalous frames but no category: ''"),
    ],
)
def test_bad_categories(categories, error, match):
    with pytest.raises(error, match=match):
        category_roc_auc_score([[0, 1], [0, 1]], [[0.1], [0.2]], categories)


@pytest.mark.parametrize("negatives", ["all", None])
def test_bad_negatives(negatives):
    with pytest.raises(ValueError, match="'own' or 'all_normal', got"):
        category_roc_auc_score([[0, 1]], [[0.1]], ["a"], negatives=negatives)


# --------------------------------------------------------------------------
# Events
# --------------------------------------------------------------------------
def slow_true_events(mask):
    events, frame = [], 0
    while frame < len(mask):
        if mask[frame]:
            first = frame
            while frame < len(mask) and mask[frame]:
                frame += 1
            events.append(set(range(first, frame)))
        frame += 1
    return events


def slow_hits(mask, events, iou):
    """Return (score, is it true?) of each event of one video, on sets of frames."""
    free, hits = slow_true_events(mask), []
    for first, last, score in sorted(events, key=lambda e: (-e[2], e[0], e[1])):
        frames = set(range(first, min(last, len(mask))))
        ious = [len(frames & true) / len(frames | true) for true in free]
        is_true = bool(ious) and max(ious) >= iou
        if is_true:
            free.pop(int(np.argmax(ious)))
        hits.append((score, is_true))
    return hits


def slow_event_ap(masks, events, iou, interpolated=False):
    """Average precision, from a list of points of the curve."""
    n_true = sum(len(slow_true_events(mask)) for mask in masks)
    pairs = zip(masks, events, strict=True)
    hits = [hit for mask, own in pairs for hit in slow_hits(mask, own, iou)]
    points = []
    for threshold in sorted({score for score, _ in hits}, reverse=True):
        reached = [is_true for score, is_true in hits if score >= threshold]
        points.append((sum(reached) / n_true, sum(reached) / len(reached)))
    total, recall_before = 0.0, 0.0
    for i, (recall, precision) in enumerate(points):
        if interpolated:
            precision = max(p for _, p in points[i:])
        total += (recall - recall_before) * precision
        recall_before = recall
    return total


@st.composite
def videos_with_events(draw):
    """Draw (masks, events), an event of truth at least, with ties of all kinds."""
    masks, events = [], []
    for i in range(draw(st.integers(1, 4))):
        n_frames = draw(st.integers(2, 30))
        mask = np.zeros(n_frames, dtype=int)
        for _ in range(draw(st.integers(0 if i else 1, 3))):
            start = draw(st.integers(0, n_frames - 1))
            mask[start : start + draw(st.integers(1, 10))] = 1
        own = []
        for _ in range(draw(st.integers(0, 5))):
            first = draw(st.integers(0, n_frames - 1))
            last = first + draw(st.integers(1, 12))
            own.append((first, last, draw(st.integers(0, 3)) / 3))
        masks.append(mask)
        events.append(own)
    return masks, events


IOUS = st.sampled_from([0.1, 0.3, 0.5, 0.75, 1])


@settings(deadline=None)
@given(videos_with_events(), IOUS)
def test_event_ap_equals_the_slow_way(case, iou):
    value = event_average_precision_score(*case, iou=iou)
    assert type(value) is float
    assert value == pytest.approx(slow_event_ap(*case, iou), rel=0, abs=1e-12)
    assert value <= slow_event_ap(*case, iou, interpolated=True) + 1e-12


@settings(deadline=None)
@given(videos_with_events(), IOUS)
def test_event_ap_is_that_of_scikit_learn_times_recall(case, iou):
    masks, events = case
    pairs = zip(masks, events, strict=True)
    hits = [hit for mask, own in pairs for hit in slow_hits(mask, own, iou)]
    scores, is_true = zip(*hits, strict=True) if hits else ((), ())
    expected = 0.0
    if any(is_true):
        n_true = sum(len(slow_true_events(mask)) for mask in masks)
        expected = average_precision_score(is_true, scores) * sum(is_true) / n_true
    value = event_average_precision_score(masks, events, iou=iou)
    assert value == pytest.approx(expected, rel=0, abs=1e-12)


@settings(deadline=None)
@given(videos_with_events(), IOUS, st.randoms(use_true_random=False))
def test_event_ap_does_not_depend_on_order(case, iou, random):
    masks, events = case
    value = event_average_precision_score(masks, events, iou=iou)
    pairs = list(zip(masks, events, strict=True))
    pairs = [(mask, random.sample(own, len(own))) for mask, own in pairs]
    random.shuffle(pairs)
    shuffled = tuple(map(list, zip(*pairs, strict=True)))
    assert event_average_precision_score(*shuffled, iou=iou) == value


def test_of_equal_scores_the_first_event_is_matched_first():
    mask = [1, 1, 0, 0, 1, 1, 0]
    # The long one overlaps both true events alike: alone it takes the first.
    for events in ([(0, 6, 0.5), (0, 3, 0.5)], [(0, 6, 0.5), (1, 3, 0.5)]):
        long, short = events
        found = slow_event_ap([mask], [events], 0.3)
        assert found == (1 if long[0] == short[0] else 0.25)
        for own in (events, events[::-1]):
            assert event_average_precision_score([mask], [own], iou=0.3) == found


def test_event_ap_by_hand():
    masks = [[0, 1, 1, 0, 0, 1, 1, 1, 1, 0], [0] * 10]
    both = (1, 3, 0.9), (5, 9, 0.8)
    ap = event_average_precision_score
    assert ap(masks, [both, []]) == 1
    assert ap(masks, [both[:1], []]) == 0.5
    assert ap(masks, [[], []]) == 0
    # A false event above, between, beside and below the two.
    for score, expected in [
        (1.0, (1 / 2 + 2 / 3) / 2),
        (0.85, (1 + 2 / 3) / 2),
        (0.8, (1 + 2 / 3) / 2),
        (0.1, 1),
    ]:
        assert ap(masks, [both, [(0, 10, score)]]) == pytest.approx(expected)
    # A true event is found once.
    twice = [(5, 9, 0.9), (5, 9, 0.8), (1, 3, 0.7)]
    assert ap(masks, [twice, []]) == pytest.approx((1 + 2 / 3) / 2)
    # 3 of 5 frames are shared.
    for iou, expected in [(0.6, 0.5), (0.61, 0)]:
        assert ap(masks, [[(6, 10, 0.9)], []], iou=iou) == expected
    # Of two true ones, the event takes that which it overlaps most, and a second
    # event the other one; alone, it takes nothing that it overlaps too little.
    wide = [(1, 9, 0.9), (1, 4, 0.8)]
    assert ap(masks, [wide, []], iou=0.5) == 1
    assert ap(masks, [[wide[0], (5, 9, 0.8)], []], iou=0.5) == 0.5


def test_event_ap_takes_what_find_events_returns():
    rng = np.random.default_rng(0)
    masks = [np.repeat(rng.random(20) < 0.3, 8)[:157] for _ in range(5)]
    scores = [mask[::8] * 0.5 + rng.random(20) / 2 for mask in masks]
    labels = FrameLabels(masks, snippet_length=8)
    events = find_events(scores, labels.n_frames, snippet_length=8, threshold=0.4)
    value = event_average_precision_score(labels, events)
    assert 0 < value < 1
    slow = slow_event_ap(masks, [e.tolist() for e in events], 0.5)
    assert value == pytest.approx(slow)
    for same in (
        [e.tolist() for e in events],
        [np.array(e.tolist()) for e in events],
        tuple([tuple(event) for event in e] for e in events),
        [e[["score", "last", "first"]] for e in events],
    ):
        assert event_average_precision_score(masks, same) == value
    # Without frame counts, the last event ends where the last snippet does.
    events = find_events(scores, snippet_length=8, threshold=0.4)
    assert max(e["last"].max() for e in events) == 160
    assert event_average_precision_score(labels, events) == value


def test_frames_past_the_labels_count_nowhere():
    mask = [0] * 80 + [1] * 20
    for last in (100, 110, 132):  # up to two snippets
        assert event_average_precision_score([mask], [[(80, last, 0.9)]], iou=1) == 1
    with_more = [[(80, 100, 0.4), (100, 116, 0.9)]]
    assert event_average_precision_score([mask], with_more) == 1
    match = "an event of video 1 ends at frame 133, but the video has 100 frames"
    with pytest.raises(ValueError, match=match):
        event_average_precision_score([mask, mask], [[], [(80, 133, 0.9)]])
    labels = FrameLabels([mask], snippet_length=20)
    assert event_average_precision_score(labels, [[(80, 140, 0.9)]], iou=1) == 1
    long = [[0] * 800 + [1] * 200]  # up to 10 %
    assert event_average_precision_score(long, [[(800, 1100, 0.9)]], iou=1) == 1
    with pytest.raises(ValueError, match="ends at frame 1101"):
        event_average_precision_score(long, [[(800, 1101, 0.9)]])


@settings(deadline=None)
@given(videos_with_events(), st.lists(IOUS, min_size=1, max_size=4))
def test_mean_event_ap_is_the_mean(case, ious):
    values = [event_average_precision_score(*case, iou=iou) for iou in ious]
    value = mean_event_average_precision(*case, ious=ious)
    assert type(value) is float
    assert value == pytest.approx(np.mean(values))
    assert mean_event_average_precision(*case, ious=np.array(ious)) == value


def test_mean_event_ap_by_default():
    # Half of the event is true: it is found at 0.1 to 0.5, and at 0.55 no more.
    case = [[1, 1, 0, 0]], [[(0, 4, 0.9)]]
    assert mean_event_average_precision(*case) == 1
    case = [[1, 1, 0, 0, 0]], [[(0, 5, 0.9)]]
    assert mean_event_average_precision(*case) == pytest.approx(0.8)


@pytest.mark.parametrize(
    "metric", [event_average_precision_score, mean_event_average_precision]
)
def test_no_true_event_warns_once_and_gives_nan(metric):
    for events in ([[], []], [[(0, 1, 0.5)], []]):
        match = f"There is no true event, so {metric.__name__} is not defined"
        with pytest.warns(UndefinedMetricWarning, match=match) as record:
            assert np.isnan(metric([[0, 0], [0]], events))
        assert len(record) == 1
        assert record[0].filename == __file__


@pytest.mark.parametrize(
    "metric", [event_average_precision_score, mean_event_average_precision]
)
@pytest.mark.parametrize(
    ("events", "error", "match"),
    [
        ([[]], ValueError, "events of 1 videos and frame labels of 2"),
        (None, TypeError, "events: expected a list with one array per video"),
        ([[], [(0, 1)]], ValueError, r"video 1 have shape \(1, 2\) .* \(n_events, 3\)"),
        ([(0, 1, 0.5), []], ValueError, r"events of video 0 have shape \(3,\)"),
        ([[], [("0", "1", "2")]], ValueError, "events of video 1 have .* dtype <U1"),
        (
            [[], [(1, 1, 0.5)]],
            ValueError,
            r"video 1: .* first < last.* \(1.0, 1.0, 0.5",
        ),
        ([[], [(-1, 1, 0.5)]], ValueError, "video 1: expected 0 <= first < last"),
        ([[(0, 1, np.nan)], []], ValueError, "video 0: .* a finite score, got"),
        (
            [[(0, np.inf, 0.5)], []],
            ValueError,
            "events of video 0: expected 0 <= first",
        ),
        ([[], [(0, 1, 0.5), (0, 99, 0.5)]], ValueError, "of video 1 ends at frame 99"),
    ],
)
def test_bad_events(metric, events, error, match):
    with pytest.raises(error, match=match):
        metric([[0, 1], [0, 0, 1]], events)


@pytest.mark.parametrize("iou", [0, -0.5, 1.1, np.nan, "0.5", None, [0.5]])
def test_bad_iou(iou):
    match = re.escape(f"iou must be a number in (0, 1], got {iou!r}")
    with pytest.raises(ValueError, match=match):
        event_average_precision_score([[0, 1]], [[]], iou=iou)
    with pytest.raises(ValueError, match=match):
        mean_event_average_precision([[0, 1]], [[]], ious=[0.5, iou])


def test_bad_ious():
    with pytest.raises(ValueError, match=r"ious are empty: expected .* in \(0, 1\]"):
        mean_event_average_precision([[0, 1]], [[]], ious=[])
    with pytest.raises(TypeError, match="ious: expected a list of numbers, got float"):
        mean_event_average_precision([[0, 1]], [[]], ious=0.5)


# --------------------------------------------------------------------------
# Errors
# --------------------------------------------------------------------------
@pytest.mark.parametrize("metric", [*METRICS, evaluate])
@pytest.mark.parametrize(
    ("labels", "scores", "error", "match"),
    [
        ([[0, 1]], [[0.1], [0.2]], ValueError, "scores of 2 videos and .* labels of 1"),
        ([[0, 1], [0]], [[0.1]], ValueError, "scores of 1 videos and .* labels of 2"),
        ([], [], ValueError, "no frame labels: expected"),
        (FrameLabels([[0]])[:0], [], ValueError, "no frame labels: expected"),
        ([[0], [0]], [[0.1], []], ValueError, r"video 1 have shape \(0,\)"),
        ([[0], []], [[0.1], [0.1]], ValueError, r"labels of video 1 have shape \(0,\)"),
        ([[0, 1]], [[[0.1], [0.2]]], ValueError, r"video 0 have shape \(2, 1\)"),
        ([[0, 1]], [0.1], ValueError, r"scores of video 0 have shape \(\)"),
        ([[0, 1]], [[0.1, np.nan]], ValueError, "scores of video 0 contain NaN"),
        ([[0], [1]], [[0.1], [np.inf]], ValueError, "scores of video 1 contain NaN or"),
        ([[0, 1]], [["a", "b"]], ValueError, "video 0 have .* dtype <U1, expected"),
        ([[0, 1]], [[None, 1]], ValueError, "video 0 have .* dtype object, expected"),
        ([[0, 1]], [[0.1, [0.2]]], ValueError, "video 0: not a rectangular array"),
        ([[0, 1]], None, TypeError, "scores: expected a list with one array per video"),
        (None, [[0.1]], TypeError, "labels: expected a list with one array per video"),
        ([[0, 2]], [[0.1]], ValueError, "video 0 must be 0 or 1, got 2"),
        ([0, 1], [[0.1], [0.2]], ValueError, r"labels of video 0 have shape \(\)"),
    ],
)
def test_bad_input(metric, labels, scores, error, match):
    with pytest.raises(error, match=match):
        metric(labels, scores)


@pytest.mark.parametrize("metric", [*METRICS, evaluate])
@pytest.mark.parametrize("n_snippets", [15, 29])
def test_wrong_snippet_length(metric, n_snippets):
    masks = [[0, 1] * 8, [0, 1] * 176]  # 1 and 22 snippets of 16 frames
    scores = [[0.5], [0.5] * n_snippets]
    match = (
        rf"video 1 has {n_snippets} snippets, but its 352 frames fill 22.0"
        " snippets of 16 frames"
    )
    with pytest.raises(ValueError, match=match):
        metric(masks, scores)
    with pytest.raises(ValueError, match=match):
        metric(FrameLabels(masks), scores)


@each_metric
@pytest.mark.parametrize("snippet_length", [3, [2, 3], [16, 16]])
def test_snippet_length_beside_frame_labels(metric, snippet_length):
    labels = FrameLabels([[0, 1], [0, 0]], snippet_length=2)
    with pytest.raises(ValueError, match="differs from the one that FrameLabels carry"):
        metric(labels, [[0.5], [0.5]], snippet_length=snippet_length)


@pytest.mark.parametrize(
    ("snippet_length", "error", "match"),
    [
        ([2, 2, 2], ValueError, "got 3 snippet lengths for 2 videos"),
        (0, ValueError, "snippet_length.* must be positive, got 0"),
        ([2, -1], ValueError, "snippet_length.* must be positive, got"),
        (np.nan, ValueError, "snippet_length.* must be positive, got nan"),
        ("16", TypeError, "snippet_length must be a number or one number per video"),
        (None, TypeError, "snippet_length must be a number or one number per video"),
    ],
)
@pytest.mark.parametrize("wrap", [list, lambda masks: FrameLabels(masks, 2)])
def test_bad_snippet_length(snippet_length, error, match, wrap):
    labels = wrap([[0, 1], [0, 0]])
    with pytest.raises(error, match=match):
        frame_roc_auc_score(labels, [[0.5], [0.5]], snippet_length=snippet_length)


@pytest.mark.parametrize("interpolation", ["linear", None])
def test_bad_interpolation(interpolation):
    with pytest.raises(ValueError, match="'step' or 'trapezoid', got"):
        frame_average_precision_score([[0]], [[0.5]], interpolation=interpolation)


def test_bad_threshold():
    with pytest.raises(ValueError, match="threshold must be a number, got NaN"):
        false_alarm_rate([[0]], [[0.5]], threshold=np.nan)
    assert false_alarm_rate([[0]], [[0.5]], threshold=10**30) == 0
    with pytest.raises(TypeError, match=r"threshold must be a number, got '0\.5'"):
        false_alarm_rate([[0]], [[0.5]], threshold="0.5")


def test_importing_metrics_loads_no_torch():
    code = "import sys, sklearn_vad.metrics; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --------------------------------------------------------------------------
# Scorers
# --------------------------------------------------------------------------
class FirstFeature(ClassifierMixin, BaseEstimator):
    """A detector whose scores are the first feature of the snippets."""

    def __init__(self, sign=1):
        self.sign = sign

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.n_calls_ = 0
        return self

    def predict(self, X):
        return np.array([int(scores.max() > 0.5) for scores in self.score_snippets(X)])

    def score_snippets(self, X):
        self.n_calls_ += 1
        return [self.sign * np.asarray(bag)[:, 0] for bag in X]


@pytest.fixture
def problem():
    """(bags, masks) of four videos with three frames per snippet."""
    rng = np.random.default_rng(0)
    bags = [rng.random((n, 2)) for n in (4, 9, 6, 7)]
    masks = [rng.random(12) < 0, rng.random(27) < 0.4, rng.random(18) < 0.6, [0] * 21]
    return bags, masks


SCORERS = {
    frame_roc_auc_scorer: frame_roc_auc_score,
    frame_average_precision_scorer: frame_average_precision_score,
}


@pytest.mark.parametrize(("scorer", "metric"), SCORERS.items())
def test_scorer_equals_its_metric(problem, scorer, metric):
    bags, masks = problem
    labels = FrameLabels(masks, snippet_length=3)
    detector = FirstFeature().fit(bags, labels)
    scores = [bag[:, 0] for bag in bags]
    expected = metric(masks, scores, snippet_length=3)
    assert scorer(detector, bags, labels) == expected
    y = np.asarray(labels)
    assert scorer(detector, bags, y, frame_labels=labels) == expected
    options = {"frame_labels": masks, "snippet_length": 3}
    assert scorer(detector, bags, y, **options) == expected
    options["snippet_length"] = [3] * 4
    assert scorer(detector, bags, **options) == expected
    # FrameLabels know their length; another one beside them is not used.
    assert scorer(detector, bags, labels, snippet_length=16) == expected
    assert pickle.loads(pickle.dumps(scorer))(detector, bags, labels) == expected


@pytest.mark.parametrize(("scorer", "metric"), SCORERS.items())
def test_masks_alone_have_snippets_of_16_frames(problem, scorer, metric):
    bags, _ = problem
    masks = [np.arange(16 * len(bag)) % 40 < 10 for bag in bags]
    detector = FirstFeature().fit(bags, [1, 1, 1, 1])
    expected = metric(masks, [bag[:, 0] for bag in bags], snippet_length=16)
    assert scorer(detector, bags, masks) == expected
    assert scorer(detector, bags, frame_labels=masks) == expected


def test_frame_scorers_give_both_from_one_inference(problem):
    bags, masks = problem
    labels = FrameLabels(masks, snippet_length=3)
    detector = FirstFeature().fit(bags, labels)
    assert frame_scorers(detector, bags, labels) == {
        "frame_roc_auc": frame_roc_auc_scorer(detector, bags, labels),
        "frame_average_precision": frame_average_precision_scorer(
            detector, bags, labels
        ),
    }
    assert detector.n_calls_ == 3


def test_scorer_names_the_video_as_the_bags_do(small):
    bags, y = small
    masks = [mask.copy() for mask in y.masks]
    masks[3] = masks[3][: len(masks[3]) // 2]
    masks[3][0] = True
    est = MILRankingAnomalyDetector(max_epochs=1, random_state=0).fit(bags, y)
    match = rf"video 3 \(id '{bags.ids[3]}'\) has {len(bags[3])} snippets"
    with pytest.raises(ValueError, match=match):
        frame_roc_auc_scorer(est, bags, FrameLabels(masks))
    with pytest.raises(ValueError, match=match):
        est.fit(bags, y, validation=(bags, FrameLabels(masks)))


@pytest.mark.parametrize("scorer", [*SCORERS, frame_scorers])
def test_scorer_asks_for_its_metadata(scorer):
    requests = scorer.get_metadata_routing().score.requests
    assert requests == {"frame_labels": True, "snippet_length": True}


def _negate(bags):
    return [-bag for bag in bags]


def test_scorer_finds_the_detector_in_pipelines_and_searches(problem):
    bags, masks = problem
    labels = FrameLabels(masks, snippet_length=3)
    expected = frame_roc_auc_score(labels, [-bag[:, 0] for bag in bags])
    pipeline = make_pipeline(FunctionTransformer(_negate), FirstFeature())
    pipeline.fit(bags, labels)
    assert frame_roc_auc_scorer(pipeline, bags, labels) == expected
    nested = make_pipeline(make_pipeline("passthrough", FirstFeature(sign=-1)))
    nested.fit(bags, labels)
    assert frame_roc_auc_scorer(nested, bags, labels) == expected
    search = GridSearchCV(
        FirstFeature(), {"sign": [-1]}, scoring=frame_roc_auc_scorer, cv=2
    )
    search.fit(bags, labels)
    assert frame_roc_auc_scorer(search, bags, labels) == expected


@pytest.mark.parametrize("scorer", [*SCORERS, frame_scorers])
def test_scorer_errors(problem, scorer):
    bags, masks = problem
    y = [int(np.any(mask)) for mask in masks]
    detector = FirstFeature().fit(bags, y)
    for labels in (y, np.array(y), None):
        with pytest.raises(ValueError, match=r"needs frame labels: pass y=FrameLabels"):
            scorer(detector, bags, labels)
    with pytest.raises(ValueError, match="of 3 videos for 4 bags; routed frame labels"):
        scorer(detector, bags, y, frame_labels=masks[:3])
    with pytest.raises(ValueError, match="of 3 videos for 4 bags"):
        scorer(detector, bags, FrameLabels(masks[:3]))
    with pytest.raises(ValueError, match=r"video 0 has 4 snippets.* of 30 frames"):
        scorer(detector, bags, y, frame_labels=masks, snippet_length=30)
    with pytest.raises(TypeError, match="FunctionTransformer has no score_snippets"):
        scorer(FunctionTransformer(), bags, FrameLabels(masks))
