"""What users of this field report again and again, caught or made impossible.

Each test quotes the message that a user gets, or shows the right value.
"""

import re

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from sklearn_vad import Bags, FrameLabels, MILRankingAnomalyDetector
from sklearn_vad.datasets import (
    load_features,
    load_ucf_crime_annotations,
    make_bags,
)
from sklearn_vad.display import ScoreTimelineDisplay
from sklearn_vad.metrics import (
    evaluate,
    event_average_precision_score,
    frame_roc_auc_score,
    frame_roc_auc_scorer,
)
from sklearn_vad.postprocessing import find_events, tune_threshold
from sklearn_vad.preprocessing import SnippetNormalizer


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def fitted():
    bags, y = make_bags(30, n_features=8, max_snippets=30, random_state=0)
    est = MILRankingAnomalyDetector(max_epochs=2, random_state=0).fit(bags, y)
    return est, bags, y


def save_all(folder, shapes):
    for name, shape in shapes.items():
        np.save(folder / f"{name}.npy", np.ones(shape, np.float32))


def annotate(folder, *lines):
    (folder / "annotations.txt").write_text("\n".join(lines))
    return load_ucf_crime_annotations(folder / "annotations.txt")


# Features and frames --------------------------------------------------------
def test_crops_concatenated_along_the_snippets():
    labels = FrameLabels([np.arange(1600) > 800])  # 100 snippets
    with pytest.raises(ValueError) as error:
        frame_roc_auc_score(labels, [np.linspace(0, 1, 1000)])
    assert "10.0 times as many" in str(error.value)
    assert "crops" in str(error.value)


def test_120_rows_where_the_frames_give_100():
    labels = FrameLabels([np.arange(1600) > 800])
    with pytest.raises(
        ValueError, match=r"120 snippets, but its 1600 frames fill 100\.0"
    ):
        frame_roc_auc_score(labels, [np.linspace(0, 1, 120)])


def test_features_ceiled_and_ground_truth_floored():
    """One snippet more than the labels: its score counts for no frame."""
    mask = np.arange(16 * 9) >= 16 * 5
    scores = np.r_[np.zeros(5), np.ones(4), 0.0]
    assert frame_roc_auc_score([mask], [scores]) == 1.0


def test_frames_left_over_at_the_end():
    """The other way round: the last score holds for the frames that are left."""
    mask = np.arange(16 * 9 + 11) >= 16 * 5
    assert frame_roc_auc_score([mask], [np.r_[np.zeros(5), np.ones(4)]]) == 1.0


# Crops ----------------------------------------------------------------------
def test_a_crop_count_other_than_ten(tmp_path):
    save_all(tmp_path, {"a": (7, 5, 4), "b": (3, 5, 4)})
    with pytest.raises(ValueError, match=r"bag 0 \(id 'a'\).* 5 crops.* 10"):
        load_features(tmp_path, layout="snippets_crops", n_crops=10)
    bags = load_features(tmp_path, layout="snippets_crops")  # nothing is hard-coded
    assert bags[0].shape == (7, 5, 4)


def test_one_crop_and_ten_crop_files_in_one_folder(tmp_path):
    save_all(tmp_path, {"a": (7, 10, 4), "b": (3, 1, 4)})
    with pytest.raises(ValueError, match=r"bag 1 \(id 'b'\).* 1 crop"):
        load_features(tmp_path, layout="snippets_crops")
    save_all(tmp_path, {"b": (3, 4)})
    with pytest.raises(ValueError, match=r"bag 1 \(id 'b'\).*shape \(3, 4\)"):
        load_features(tmp_path, layout="snippets_crops")


def test_crops_are_never_guessed(tmp_path):
    save_all(tmp_path, {"a": (7, 10, 4)})
    with pytest.raises(ValueError, match=r"snippets_crops.*crops_snippets"):
        load_features(tmp_path)


# Labels ---------------------------------------------------------------------
LINES = [
    "Arson/Arson001.mp4 64 Arson 17 32 -1 -1",
    "Normal/Normal002.mp4 48 Normal -1 -1 -1 -1",
]


def test_labels_in_another_order_than_the_files(tmp_path):
    save_all(tmp_path, {"Normal002": (3, 4), "Arson001": (4, 4)})
    bags = load_features(tmp_path)[[1, 0]]
    for lines in (LINES, LINES[::-1]):
        labels = annotate(tmp_path, *lines).align(bags).frame_labels()
        assert np.asarray(labels).tolist() == [0, 1]
        assert labels.n_frames.tolist() == [48, 64]
        assert np.flatnonzero(labels.masks[1]).tolist() == list(range(16, 32))


def test_labels_never_aligned_with_the_files(tmp_path):
    """Forgetting `align` is noticed by fit, by scorers and by validation."""
    save_all(tmp_path, {"Normal002": (3, 4), "Arson001": (4, 4)})
    bags = load_features(tmp_path)[[1, 0]]
    annotations = annotate(tmp_path, *LINES)
    labels = annotations.frame_labels(n_frames={"Normal002": 48, "Arson001": 64})
    with pytest.raises(ValueError, match=r"'Normal002'.*labels of 'Arson001'.*align"):
        MILRankingAnomalyDetector().fit(bags, labels)
    by_path = annotations.align(["x/Normal002.npy", "x/Arson001.npy"]).frame_labels()
    assert MILRankingAnomalyDetector(max_epochs=1).fit(bags, by_path).n_iter_ == 1
    right = annotations.align(bags).frame_labels()
    est = MILRankingAnomalyDetector(max_epochs=1).fit(bags, right)
    with pytest.raises(ValueError, match=r"'Normal002'.*labels of 'Arson001'.*align"):
        frame_roc_auc_scorer(est, bags, labels)
    with pytest.raises(ValueError, match=r"'Normal002'.*labels of 'Arson001'.*align"):
        est.fit(bags, right, validation=(bags, labels))
    assert frame_roc_auc_scorer(est, bags[::-1], right[::-1]) == frame_roc_auc_scorer(
        est, bags, right
    )


def test_crop_files_read_as_so_many_videos(tmp_path):
    save_all(tmp_path, {f"{name}__{i}": (4, 3) for name in "ab" for i in range(5)})
    with pytest.warns(UserWarning, match="crops of 2 videos.*crop_files"):
        assert len(load_features(tmp_path)) == 10
    assert load_features(tmp_path, layout="crop_files")[0].shape == (4, 5, 3)


def test_a_batch_that_leaves_no_pair_to_rank(fitted):
    """With one video a batch nothing but sparsity would be learnt: backwards."""
    _, bags, y = fitted
    with pytest.raises(ValueError, match=r"'batch_size'.*\[2, inf\)"):
        MILRankingAnomalyDetector(batch_size=1).fit(bags, y)


def test_a_file_without_label_and_bags_without_names(tmp_path, rng):
    annotations = annotate(tmp_path, *LINES)
    named = Bags.from_list([rng.normal(size=(4, 2))], ids=["Arson002"])
    with pytest.raises(ValueError, match=r"Arson002.*Arson001"):
        annotations.align(named)
    with pytest.raises(ValueError, match="never by position"):
        annotations.align(Bags.from_list([rng.normal(size=(4, 2))] * 2))


def test_ground_truth_that_marks_a_whole_category_zero(tmp_path):
    lines = [f"Arson/Arson{i:03}.mp4 64 Arson -1 -1 -1 -1" for i in range(3)]
    annotations = annotate(tmp_path, *lines, *LINES[1:])
    with pytest.raises(ValueError, match=r"Arson000.*no anomalous frame.*categories"):
        annotations.frame_labels()


def test_interval_ends_counted_differently(tmp_path):
    """Frames 17 to 32, from 1 and the last included: 16 of them, not 15."""
    annotations = annotate(tmp_path, *LINES)
    assert annotations.events[0].tolist() == [[16, 32]]
    sliced = load_ucf_crime_annotations(
        tmp_path / "annotations.txt", first_frame=0, end_included=False
    )
    assert sliced.events[0].tolist() == [[17, 32]]


def test_videos_are_told_apart_by_label_never_by_position(rng):
    """The same videos, normal ones first, mixed, or last: the labels decide."""
    bags, y = make_bags(40, n_features=8, max_snippets=30, difficulty=0, random_state=1)
    labels = np.asarray(y)
    for order in (np.argsort(labels), np.argsort(-labels), rng.permutation(40)):
        est = MILRankingAnomalyDetector(dropout=0, max_epochs=10, random_state=0)
        est.fit(bags[order], labels[order])
        scores = est.decision_function(bags)
        assert scores[labels == 1].mean() > scores[labels == 0].mean() + 0.1


# Scoring --------------------------------------------------------------------
def test_a_video_shorter_than_one_snippet(fitted, rng):
    est = fitted[0]
    (frames,) = est.score_frames([rng.normal(size=(1, 8))], n_frames=[5])
    assert frames.shape == (5,)


def test_a_single_video_scored_alone(fitted):
    est, bags, _ = fitted
    alone, together = est.score_snippets([bags[3]])[0], est.score_snippets(bags)[3]
    np.testing.assert_allclose(alone, together, atol=1e-5)
    with pytest.raises(ValueError, match=re.escape("pass [video]")):
        est.score_snippets(bags[3])


def test_a_threshold_that_no_score_reaches(fitted):
    est, bags, y = fitted
    low = [scores * 0.3 for scores in est.score_snippets(bags)]
    with pytest.warns(UserWarning, match=r"no score reaches .* 0\.5.*tune_threshold"):
        assert evaluate(y, low)["false_alarm_rate"] == 0
    threshold = tune_threshold(est, bags, y, far=0.1)
    assert est.threshold_ == threshold
    assert 0 < evaluate(y, est.score_snippets(bags))["frame_roc_auc_score"] <= 1
    alarms = [s >= threshold for s in est.score_frames(bags, y.n_frames)]
    normal = np.concatenate(
        [a for a, label in zip(alarms, y, strict=True) if not label]
    )
    assert 0 < normal.mean() <= 0.1


def test_pictures_and_thresholds_of_a_pipeline(fitted):
    pytest.importorskip("matplotlib").use("Agg")
    _, bags, y = fitted
    detector = MILRankingAnomalyDetector(max_epochs=1, random_state=0)
    est = make_pipeline(SnippetNormalizer(), detector).fit(bags, y)
    display = ScoreTimelineDisplay.from_estimator(est, bags[0], y.masks[0])
    expected = est[-1].score_snippets(est[:-1].transform(bags))[0]
    np.testing.assert_allclose(display.snippet_scores, expected, atol=1e-5)
    assert tune_threshold(est, bags, y, far=0.1) == est[-1].threshold_


def test_events_of_long_snippets():
    mask = np.r_[np.zeros(100), np.ones(40)]
    for labels, length in (([mask], 128), (FrameLabels([mask], 128), 16)):
        events = find_events([[0.1, 0.9]], snippet_length=128)
        value = event_average_precision_score(
            labels, events, iou=0.1, snippet_length=length
        )
        assert value == 1.0
    assert find_events([[0.1, 0.9]], FrameLabels([mask], 128), snippet_length=128)
