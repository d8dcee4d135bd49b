"""Pictures: what is drawn, read back from the artists."""

import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Polygon, Rectangle
from sklearn.exceptions import NotFittedError
from sklearn.metrics import precision_recall_curve, roc_curve
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sklearn_vad import (
    DAMAnomalyDetector,
    DDLAnomalyDetector,
    EnsembleAnomalyDetector,
    FrameLabels,
    MILRankingAnomalyDetector,
    MultiCropDetector,
)
from sklearn_vad.display import (
    AttentionDisplay,
    FramePrecisionRecallDisplay,
    FrameRocDisplay,
    ScoreGapDisplay,
    ScoreTimelineDisplay,
    TrainingHistoryDisplay,
)
from sklearn_vad.display._drawing import COLORS
from sklearn_vad.metrics import (
    false_alarm_rate,
    frame_average_precision_score,
    frame_roc_auc_score,
    score_gap,
)
from sklearn_vad.postprocessing import find_events
from sklearn_vad.preprocessing import SnippetNormalizer
from sklearn_vad.timeline import expand_scores


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def ddl(small):
    params = {"hidden_dim": 8, "mlp_dims": (8, 4), "max_epochs": 3, "lr": 1e-3}
    est = DDLAnomalyDetector(**params, random_state=0)
    return est.fit(*small, validation=small)


@pytest.fixture(scope="module")
def dam(small):
    est = DAMAnomalyDetector(n_hidden=8, max_epochs=1, random_state=0)
    return est.fit(*small)


@pytest.fixture(scope="module")
def scored():
    """Labels and scores of videos whose frames fill no whole snippets; some tie."""
    rng = np.random.default_rng(0)
    scores = [np.round(rng.random(n), 2) for n in (7, 30, 12, 25, 9)]
    masks = [np.zeros(16 * len(s) - 5, dtype=int) for s in scores]
    masks[1][40:201] = 1
    masks[3][7:60] = masks[3][300:] = 1
    return FrameLabels(masks), scores


def frames_of(labels, scores):
    spread = expand_scores(scores, labels.n_frames)
    return np.concatenate(labels.masks), np.concatenate(spread)


def shaded(ax):
    """The intervals that axvspan drew, as (first, last) frames."""
    spans = [p for p in ax.patches if isinstance(p, (Rectangle, Polygon))]
    boxes = [p.get_window_extent().transformed(ax.transData.inverted()) for p in spans]
    return [(round(box.x0), round(box.x1)) for box in boxes]


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


# --------------------------------------------------------------------------
# Scores over time
# --------------------------------------------------------------------------
def test_scores_and_intervals_are_where_they_belong():
    scores = [0.25, 0.75, 0.5]
    labels = [1, 0, 0, 0, 1, 1, 0]
    display = ScoreTimelineDisplay.from_predictions(
        scores, labels, snippet_length=2, name="ours"
    )
    values, edges, _ = display.line_.get_data()
    assert values.tolist() == scores
    assert edges.tolist() == [0, 2, 4, 7]
    assert shaded(display.ax_) == [(0, 1), (4, 6)]
    assert display.ax_.get_xlim() == (0, 7)
    assert texts(display.ax_) == ["ours", "anomalous", "threshold"]
    assert display.ax_.lines[0].get_ydata() == [0.5, 0.5]
    assert display.figure_ is display.ax_.figure


def test_second_detector_overlays():
    first = ScoreTimelineDisplay.from_predictions([0.1, 0.2], [0, 1], snippet_length=1)
    second = ScoreTimelineDisplay.from_predictions(
        [0.3, 0.4], [0, 1], snippet_length=1, ax=first.ax_
    )
    assert second.ax_ is first.ax_
    assert len(shaded(first.ax_)) == 1
    assert len(first.ax_.lines) == 1  # one threshold
    assert first.line_.get_edgecolor() != second.line_.get_edgecolor()
    assert first.line_.get_linestyle() != second.line_.get_linestyle()


def test_truth_may_come_with_the_second_detector():
    first = ScoreTimelineDisplay.from_predictions([0.1] * 3, snippet_length=1)
    ScoreTimelineDisplay.from_predictions(
        [0.3, 0.4], [0, 1], snippet_length=1, ax=first.ax_
    )
    assert shaded(first.ax_) == [(1, 2)]
    assert first.ax_.get_xlim() == (0, 3)  # all of the first one still shows


def test_another_threshold_has_the_colour_of_its_detector():
    ax = None
    for threshold in (0.5, 0.7, 0.5):
        display = ScoreTimelineDisplay.from_predictions(
            [0.1, 0.2], threshold=threshold, ax=ax
        )
        ax = display.ax_
    grey, colored = ax.lines
    assert (grey.get_ydata()[0], colored.get_ydata()[0]) == (0.5, 0.7)
    assert to_rgb(grey.get_color()) == (0.5, 0.5, 0.5)
    assert colored.get_color() == COLORS[1]


def test_line_kwargs_reach_the_line():
    display = ScoreTimelineDisplay.from_predictions([0.1, 0.2], c="red", lw=3)
    assert to_rgb(display.line_.get_edgecolor()) == (1, 0, 0)
    assert display.line_.get_linewidth() == 3


def test_from_estimator_scores_one_video(small):
    bags, y = small
    est = MILRankingAnomalyDetector(max_epochs=1, random_state=0).fit(bags, y)
    display = ScoreTimelineDisplay.from_estimator(est, bags[0], y.masks[0])
    np.testing.assert_allclose(
        display.line_.get_data()[0], est.score_snippets([bags[0]])[0], atol=1e-7
    )
    assert texts(display.ax_)[0] == "MILRankingAnomalyDetector"


def test_without_labels_or_threshold():
    display = ScoreTimelineDisplay.from_predictions([0.1, 0.9], threshold=None)
    assert shaded(display.ax_) == []
    assert len(display.ax_.lines) == 0
    assert display.ax_.get_legend() is None
    assert display.ax_.get_xlim() == (0, 32)


def test_frame_labels_of_one_video_bring_their_length():
    labels = FrameLabels([[0, 0, 1], [0, 0, 0]], snippet_length=2)
    display = ScoreTimelineDisplay.from_predictions([0.1, 0.9], labels[:1])
    assert display.line_.get_data()[1].tolist() == [0, 2, 3]


@pytest.mark.parametrize(
    ("scores", "labels", "match"),
    [
        ([], None, "expected"),
        ([[0.1]], None, "expected"),
        ([0.1, np.nan], None, "NaN"),
        ([0.1], [0, 2], "0 or 1"),
        ([0.1] * 50, [0] * 50, "snippet_length must be"),
        ([0.1], FrameLabels([[0], [0]]), r"of 2 videos, expected one.*masks"),
    ],
)
def test_bad_input(scores, labels, match):
    with pytest.raises(ValueError, match=match):
        ScoreTimelineDisplay.from_predictions(scores, labels)


def test_one_video_is_wanted(small, ddl):
    with pytest.raises(TypeError, match=r"expected one video.*bags\[0\]"):
        ScoreTimelineDisplay.from_estimator(ddl, small[0])
    with pytest.raises(TypeError, match="ax is list, expected one matplotlib Axes"):
        ScoreTimelineDisplay.from_predictions([0.1], ax=[])


# Clip_A beneath -----------------------------------------------------------
def test_clip_attention_is_beneath_the_scores(small, dam):
    bags, y = small
    display = ScoreTimelineDisplay.from_estimator(
        dam, bags[1], y.masks[1], clip_attention=True, name="Dist"
    )
    upper, lower = display.ax_, display.attention_ax_
    values, edges, _ = display.attention_line_.get_data()
    expected = dam.attend([bags[1]])["clip_attention"][0]
    np.testing.assert_allclose(values, expected, atol=1e-7)
    assert edges.tolist() == display.line_.get_data()[1].tolist()
    assert lower.get_position().y1 < upper.get_position().y0
    assert lower.get_xlim() == upper.get_xlim()
    assert (upper.get_xlabel(), lower.get_xlabel()) == ("", "frame")


def test_clip_attention_of_a_second_detector_joins_the_first():
    first = ScoreTimelineDisplay.from_predictions([0.1, 0.2], snippet_length=1)
    assert first.attention_ax_ is None
    kwargs = {"snippet_length": 1, "ax": first.ax_}
    second = ScoreTimelineDisplay.from_predictions(
        [0.3, 0.4], clip_attention=[0.5, 0.6], **kwargs
    )
    third = ScoreTimelineDisplay.from_predictions(
        [0.3, 0.4], clip_attention=[0.7, 0.8], **kwargs
    )
    assert third.attention_ax_ is second.attention_ax_
    assert len(first.figure_.axes) == 2
    assert third.attention_line_.get_edgecolor() == third.line_.get_edgecolor()
    fourth = ScoreTimelineDisplay.from_predictions([0.1, 0.1], **kwargs)
    assert fourth.attention_line_ is None
    assert first.ax_.get_xlabel() == ""


def test_clip_attention_that_is_none(small, ddl):
    with pytest.raises(ValueError, match="of 1 snippets, the scores are of 2"):
        ScoreTimelineDisplay.from_predictions([0.1, 0.2], clip_attention=[0.1])
    with pytest.raises(TypeError, match="DDLAnomalyDetector has no Clip_A"):
        ScoreTimelineDisplay.from_estimator(ddl, small[0][0], clip_attention=True)
    ax = plt.figure().add_axes((0, 0, 1, 1))
    with pytest.raises(ValueError, match=r"expected an ax of plt\.subplots"):
        ScoreTimelineDisplay.from_predictions([0.1], clip_attention=[0.1], ax=ax)


# --------------------------------------------------------------------------
# Curves
# --------------------------------------------------------------------------
def test_roc_is_that_of_the_expanded_frames(scored):
    display = FrameRocDisplay.from_predictions(*scored, name="ours")
    expected = roc_curve(*frames_of(*scored), drop_intermediate=False)
    found = (display.x, display.tpr, display.thresholds)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    np.testing.assert_array_equal(display.line_.get_xydata().T, found[:2])
    auc = frame_roc_auc_score(*scored)
    assert display.roc_auc == auc
    assert texts(display.ax_) == [f"ours (AUC = {auc:.3f})", "chance"]


@pytest.mark.parametrize("interpolation", ["step", "trapezoid"])
def test_precision_recall_is_that_of_the_expanded_frames(scored, interpolation):
    display = FramePrecisionRecallDisplay.from_predictions(
        *scored, interpolation=interpolation
    )
    precision, recall, thresholds = precision_recall_curve(*frames_of(*scored))
    np.testing.assert_allclose(display.precision[::-1], precision, rtol=1e-12)
    np.testing.assert_allclose(display.recall[::-1], recall, rtol=1e-12)
    np.testing.assert_array_equal(display.thresholds[:0:-1], thresholds)
    average = frame_average_precision_score(*scored, interpolation=interpolation)
    assert texts(display.ax_) == [f"AP = {average:.3f}", "chance"]
    chance = display.ax_.lines[0].get_ydata()[0]
    assert chance == pytest.approx(frames_of(*scored)[0].mean())
    steps = display.line_.get_drawstyle() == "steps-pre"
    assert steps == (interpolation == "step")


def test_false_alarm_axes(scored):
    """Each point against the metric, and against events counted one by one."""
    labels, scores = scored
    rate = FrameRocDisplay.from_predictions(*scored, x_axis="false_alarm_rate")
    hourly = FrameRocDisplay.from_predictions(
        *scored, x_axis="false_alarms_per_hour", frame_rate=25
    )
    normal = np.flatnonzero(labels.video_labels == 0)
    hours = labels.n_frames[normal].sum() / 25 / 3600
    highest = 0
    for x, per_hour, threshold in zip(
        rate.x[1:], hourly.x[1:], rate.thresholds[1:], strict=True
    ):
        assert x == pytest.approx(false_alarm_rate(*scored, threshold=threshold))
        events = find_events(scores, labels, threshold=threshold)
        highest = max(highest, sum(len(events[i]) for i in normal))
        assert per_hour == pytest.approx(highest / hours)
    assert hourly.ax_.get_xlabel() == "false alarms per hour of normal video"
    np.testing.assert_array_equal(hourly.tpr, rate.tpr)


def test_snippets_past_the_labels_raise_no_alarm():
    labels, scores = [[1, 1], [0, 0, 0]], [[0.5, 0.5], [0.1, 0.9, 0.2, 0.95]]
    display = FrameRocDisplay.from_predictions(
        labels, scores, snippet_length=1, x_axis="false_alarms_per_hour", frame_rate=1
    )
    assert (display.x / 1200).tolist() == [0, 0, 1, 1, 1, 1]


def test_methods_are_overlaid_and_told_apart(scored):
    labels, scores = scored
    ax, looks = None, set()
    for i in range(16):
        display = FrameRocDisplay.from_predictions(labels, scores, name=f"{i}", ax=ax)
        ax = display.ax_
        looks.add((display.line_.get_color(), str(display.line_._dash_pattern)))
    assert len(looks) == 16
    assert len(texts(ax)) == 17  # one chance
    with pytest.raises(ValueError, match="ax has an axis of 'false positive rate"):
        FrameRocDisplay.from_predictions(*scored, x_axis="false_alarm_rate", ax=ax)


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"x_axis": "far"}, "x_axis must be one of"),
        ({"x_axis": "false_alarms_per_hour"}, "frame_rate must be.*None"),
        ({"x_axis": "false_alarms_per_hour", "frame_rate": 0}, "frame_rate must be"),
        ({"x_axis": "false_alarm_rate"}, "is of normal videos, but each"),
    ],
)
def test_bad_x_axis(kwargs, match):
    with pytest.raises(ValueError, match=match):
        FrameRocDisplay.from_predictions(
            [[0, 1]], [[0.1, 0.9]], snippet_length=1, **kwargs
        )


@pytest.mark.parametrize(
    "display", [FrameRocDisplay, FramePrecisionRecallDisplay, ScoreGapDisplay]
)
def test_bad_curves(display, small, ddl):
    with pytest.raises(ValueError, match=r"no anomalous frame among .* of 1 videos"):
        display.from_predictions([[0]], [[0.1]])
    with pytest.raises(ValueError, match="no normal frame"):
        display.from_predictions([[1]], [[0.1]])
    with pytest.raises(ValueError, match="scores of video 0 contain NaN"):
        display.from_predictions([[0, 1]], [[np.nan]])
    with pytest.raises(ValueError, match="24 bags and frame labels of 2 videos"):
        display.from_estimator(ddl, small[0], [[0], [1]])


# --------------------------------------------------------------------------
# Score gap
# --------------------------------------------------------------------------
def test_gap_is_that_of_the_expanded_frames(scored):
    display = ScoreGapDisplay.from_predictions(*scored, n_bins=7)
    frames, scores = frames_of(*scored)
    for kind, histogram, mean in zip(
        (0, 1), display.histograms_, display.means, strict=True
    ):
        own = scores[frames == kind]
        counts, edges = np.histogram(own, 7, (scores.min(), scores.max()))
        values, found, _ = histogram.get_data()
        np.testing.assert_allclose(values, counts / len(own))
        np.testing.assert_allclose(found, edges)
        assert mean == pytest.approx(own.mean())
    assert display.gap == pytest.approx(score_gap(*scored))
    assert texts(display.ax_)[2] == f"gap {display.gap:.3f}"
    with pytest.raises(ValueError, match="n_bins=0, expected a whole number"):
        ScoreGapDisplay.from_predictions(*scored, n_bins=0)


def test_gap_of_equal_scores():
    display = ScoreGapDisplay.from_predictions([[0, 1]], [[0.5]], snippet_length=2)
    assert display.gap == 0
    assert display.normal.sum() == display.anomalous.sum() == 1


# --------------------------------------------------------------------------
# Training
# --------------------------------------------------------------------------
def test_each_term_and_the_best_epoch(ddl):
    display = TrainingHistoryDisplay.from_estimator(ddl)
    assert list(display.lines_) == [
        "loss",
        "mil",
        "dynamics_ranking",
        "dynamics_alignment",
        "validation score",
    ]
    for name, line in display.lines_.items():
        key = "valid_score" if "validation" in name else f"train_{name}"
        assert line.get_xdata().tolist() == [1, 2, 3]
        assert line.get_ydata().tolist() == [epoch[key] for epoch in ddl.history_]
    assert display.score_ax_ is not display.ax_
    (best,) = display.score_ax_.lines[1:]
    assert best.get_xdata() == [ddl.best_epoch_] * 2
    assert f"best epoch, {ddl.best_epoch_}" in texts(display.ax_)


def test_epochs_may_lack_a_term():
    history = [{"train_loss": 2, "train_a": 1.0, "valid_score": 0.5}, {"train_loss": 1}]
    display = TrainingHistoryDisplay.from_history(history)
    np.testing.assert_array_equal(display.lines_["a"].get_ydata(), [1, np.nan])
    assert display.best_epoch == 1
    plain = TrainingHistoryDisplay.from_history(history[1:])
    assert list(plain.lines_) == ["loss"]
    assert plain.score_ax_ is None


@pytest.mark.parametrize(
    ("history", "best_epoch", "match"),
    [
        ([], None, "history is empty"),
        ([{"loss": 1}], None, r'epoch 1 .* no "train_loss", but \[\'loss\'\]'),
        ([{"train_loss": 1}], 2, "best_epoch=2, expected one from 1 to 1"),
        ([3], None, "epoch 1 of the history is int, expected a dict"),
        ([{"train_loss": "1"}], None, "'train_loss' of epoch 1 is '1'"),
    ],
)
def test_bad_history(history, best_epoch, match):
    with pytest.raises((ValueError, TypeError), match=match):
        TrainingHistoryDisplay.from_history(history, best_epoch=best_epoch)


def test_no_history(small):
    mil = MILRankingAnomalyDetector(max_epochs=1)
    for unfitted in (mil, MultiCropDetector(mil)):
        with pytest.raises(NotFittedError):
            TrainingHistoryDisplay.from_estimator(unfitted)
    with pytest.raises(TypeError, match=r"pass one of est\.estimators_"):
        TrainingHistoryDisplay.from_estimator(
            EnsembleAnomalyDetector([mil]).fit(*small)
        )


# --------------------------------------------------------------------------
# Attention
# --------------------------------------------------------------------------
def test_maps_without_and_with_the_prior(small, ddl):
    bags, y = small
    i = int(np.argmax(y == 1))
    display = AttentionDisplay.from_estimator(ddl, bags[i], y.masks[i])
    plain = ddl.attention_map(bags[i], with_prior=False)
    for image, expected in zip(
        display.images_, (plain, ddl.attention_map(bags[i])), strict=True
    ):
        np.testing.assert_allclose(image.get_array(), expected.mean(axis=0), rtol=1e-6)
    assert display.images_[0].norm is display.images_[1].norm
    assert [ax.get_title() for ax in display.axes_] == ["without prior", "with prior"]
    assert display.ax_ is display.axes_[1]
    events = np.flatnonzero(np.diff(np.r_[0, y.masks[i], 0])) / 16
    bars = display.ax_.patches[0].get_window_extent()
    bars = bars.transformed(display.ax_.transData.inverted())
    np.testing.assert_allclose([bars.x0, bars.x1], events[:2], atol=0.01)
    head = AttentionDisplay.from_estimator(ddl, bags[i], head=2)
    np.testing.assert_allclose(head.images_[0].get_array(), plain[2], rtol=1e-6)


def test_one_map_where_there_is_no_prior(small):
    bags, y = small
    est = DDLAnomalyDetector(
        hidden_dim=8, mlp_dims=(8, 4), sigma=None, max_epochs=1, random_state=0
    )
    display = AttentionDisplay.from_estimator(est.fit(bags, y), bags[0], name="LA-Net")
    assert [ax.get_title() for ax in display.axes_] == ["LA-Net"]
    ax = display.ax_
    again = AttentionDisplay.from_estimator(est, bags[0], ax=ax, cmap="magma")
    assert again.ax_ is ax
    assert again.images_[0].get_cmap().name == "magma"


def test_attention_of_snippets_over_time(small, dam):
    bags, y = small
    display = AttentionDisplay.from_estimator(dam, bags[0], y.masks[0], color="red")
    expected = dam.attend([bags[0]])["clip_attention"][0]
    np.testing.assert_allclose(display.line_.get_data()[0], expected, atol=1e-7)
    assert to_rgb(display.line_.get_edgecolor()) == (1, 0, 0)
    other = AttentionDisplay.from_predictions(expected, name="b", ax=display.ax_)
    assert other.line_.get_linestyle() != display.line_.get_linestyle()


@pytest.mark.parametrize(
    ("attention", "kwargs", "match"),
    [
        ([[1, 2]], {}, "expected a square map"),
        ([[[1]]], {}, r"shape \(1, 1, 1\).*of several heads one, or a mean"),
        ([[-1]], {}, "negative"),
        ([[np.nan]], {}, "NaN"),
        ([[1]], {"without_prior": np.ones((2, 2))}, "expected two maps of one video"),
        ([1], {"without_prior": [[1]]}, "expected numbers: a map"),
        ([[1]], {"frame_labels": [0] * 200}, "snippet_length must be"),
    ],
)
def test_bad_attention(attention, kwargs, match):
    with pytest.raises(ValueError, match=match):
        AttentionDisplay.from_predictions(attention, **kwargs)


def test_attention_that_is_not_there(small, ddl, dam):
    bags, _ = small
    mil = MILRankingAnomalyDetector(max_epochs=1, random_state=0).fit(*small)
    with pytest.raises(
        TypeError, match="MILRankingAnomalyDetector has no attention to"
    ):
        AttentionDisplay.from_estimator(mil, bags[0])
    with pytest.raises(ValueError, match="head=9, expected a number from 0 to 3"):
        AttentionDisplay.from_estimator(ddl, bags[0], head=9)
    with pytest.raises(ValueError, match="head=0, but DAMAnomalyDetector has none"):
        AttentionDisplay.from_estimator(dam, bags[0], head=0)
    with pytest.raises(ValueError, match="ax holds 1 axes, expected 2"):
        AttentionDisplay.from_estimator(ddl, bags[0], ax=plt.subplots()[1])


def test_maps_of_zeros_and_of_one_snippet():
    for attention in ([[0, 0], [0, 0]], [[2]]):
        AttentionDisplay.from_predictions(attention).figure_.canvas.draw()


# --------------------------------------------------------------------------
# All displays
# --------------------------------------------------------------------------
def test_pipelines_and_searches(small):
    bags, y = small
    est = DDLAnomalyDetector(hidden_dim=8, mlp_dims=(8, 4), max_epochs=1)
    pipeline = make_pipeline(SnippetNormalizer(), est)
    grid = {"ddlanomalydetector__random_state": [0]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(bags, y)
    detector = search.best_estimator_[-1]
    unit = [bag / np.linalg.norm(bag, axis=1, keepdims=True) for bag in bags]
    scores = detector.score_snippets(unit)

    timeline = ScoreTimelineDisplay.from_estimator(search, bags[0])
    np.testing.assert_allclose(timeline.snippet_scores, scores[0], atol=1e-6)
    roc = FrameRocDisplay.from_estimator(search, bags, y)
    assert roc.roc_auc == pytest.approx(frame_roc_auc_score(y, scores), abs=1e-3)
    curve = FramePrecisionRecallDisplay.from_estimator(search, bags, y)
    assert curve.name == "DDLAnomalyDetector"
    gap = ScoreGapDisplay.from_estimator(search, bags, y.masks)
    assert gap.gap == pytest.approx(score_gap(y, scores), abs=1e-4)
    history = TrainingHistoryDisplay.from_estimator(search)
    assert history.losses["loss"] == [detector.history_[0]["train_loss"]]
    attention = AttentionDisplay.from_estimator(search, bags[0])
    expected = detector.attention_map(unit[0]).mean(axis=0)
    np.testing.assert_allclose(attention.attention, expected, atol=1e-5)


def test_colours_stand_out_from_white_and_from_black():
    """A contrast of 3 or more, as WCAG has it."""
    for color in COLORS:
        rgb = np.array(to_rgb(color))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        luminance = linear @ [0.2126, 0.7152, 0.0722]
        assert 1.05 / (luminance + 0.05) >= 3
        assert (luminance + 0.05) / 0.05 >= 3


def test_texts_follow_the_style(ddl):
    with plt.style.context("dark_background"):
        display = TrainingHistoryDisplay.from_estimator(ddl)
        assert to_rgb(display.lines_["validation score"].get_color()) == (1, 1, 1)


def test_legends_fit_into_small_figures(ddl):
    _, ax = plt.subplots(figsize=(4, 2.5), layout="constrained")
    display = TrainingHistoryDisplay.from_estimator(ddl, ax=ax)
    display.figure_.canvas.draw()
    box = ax.get_legend().get_window_extent()
    figure = display.figure_.bbox
    assert figure.x0 <= box.x0
    assert box.x1 <= figure.x1
    assert box.y1 <= figure.y1
    assert ax.get_window_extent().height > 0.4 * figure.height


def test_matplotlib_is_wanted_by_pictures_only(monkeypatch):
    code = "import sys, sklearn_vad.display; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install 'sklearn_vad\[plot\]'"):
        ScoreTimelineDisplay.from_predictions([0.1])


def test_arrays_alone_are_enough():
    roc = FrameRocDisplay(x=[0, 1], tpr=[0, 1], thresholds=[np.inf, 0.5]).plot()
    assert roc.ax_.get_legend() is None
    named = FramePrecisionRecallDisplay(
        precision=[1, 0.5], recall=[0, 1], thresholds=[np.inf, 0.5], name="ours"
    ).plot()
    assert texts(named.ax_) == ["ours"]
    assert ScoreTimelineDisplay([0.1, 0.2], frame_labels=[0, 1] * 16).plot().ax_
