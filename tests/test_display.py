"""Pictures: what is drawn, read back from the artists."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.patches import Polygon, Rectangle

from sklearn_vad import MILRankingAnomalyDetector
from sklearn_vad.display import ScoreTimelineDisplay


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def shaded(ax):
    """The intervals that axvspan drew, as (first, last) frames."""
    spans = [p for p in ax.patches if isinstance(p, (Rectangle, Polygon))]
    boxes = [p.get_window_extent().transformed(ax.transData.inverted()) for p in spans]
    return [(round(box.x0), round(box.x1)) for box in boxes]


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
    assert display.ax_.get_legend().get_texts()[0].get_text() == "ours"
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


def test_from_estimator_scores_one_video(small):
    bags, y = small
    est = MILRankingAnomalyDetector(max_epochs=1, random_state=0).fit(bags, y)
    display = ScoreTimelineDisplay.from_estimator(est, bags[0], y.masks[0])
    np.testing.assert_allclose(
        display.line_.get_data()[0], est.score_snippets([bags[0]])[0], atol=1e-7
    )
    label = display.ax_.get_legend().get_texts()[0].get_text()
    assert label == "MILRankingAnomalyDetector"


def test_without_labels_or_threshold():
    display = ScoreTimelineDisplay.from_predictions([0.1, 0.9], threshold=None)
    assert shaded(display.ax_) == []
    assert len(display.ax_.lines) == 0
    assert display.ax_.get_xlim() == (0, 32)


@pytest.mark.parametrize(
    ("scores", "labels", "match"),
    [
        ([], None, "expected"),
        ([[0.1]], None, "expected"),
        ([0.1], [0, 2], "0 or 1"),
        ([0.1] * 50, [0] * 50, "snippet_length must be"),
    ],
)
def test_bad_input(scores, labels, match):
    with pytest.raises(ValueError, match=match):
        ScoreTimelineDisplay.from_predictions(scores, labels)
