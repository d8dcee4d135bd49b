"""video_weight: snippets lean on their video, videos stay where they are."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone

from sklearn_vad import (
    DAMAnomalyDetector,
    DDLAnomalyDetector,
    MILRankingAnomalyDetector,
    MultiCropDetector,
    RTFMAnomalyDetector,
    STAAnomalyDetector,
)
from sklearn_vad.metrics import balanced_frame_roc_auc_score, frame_roc_auc_score

SMALL = {"max_epochs": 1, "random_state": 0, "n_jobs": 1}
DAM = DAMAnomalyDetector(n_hidden=8, mlp_dims=(8,), **SMALL)
DDL = DDLAnomalyDetector(hidden_dim=8, mlp_dims=(8, 4), **SMALL)
MIL = MILRankingAnomalyDetector(hidden_dims=(8, 4), **SMALL)
RTFM = RTFMAnomalyDetector(hidden_dims=(8, 4), **SMALL)
STA = STAAnomalyDetector(hidden_dim=4, **SMALL)
weights = pytest.mark.parametrize("w", [0.3, 1.0, 20.0])


@pytest.fixture(
    params=[DAM, DDL, MIL, RTFM, STA],
    ids=["dam", "ddl", "mil_ranking", "rtfm", "sta"],
)
def est(request):
    return clone(request.param)


def test_values_by_hand():
    scores = [np.float32([0.25, 0.5, 1.0]), np.float32([0.5])]
    leaned = clone(MIL).set_params(video_weight=1.0)._lean(scores)
    assert [x.tolist() for x in leaned] == [[0.625, 0.75, 1.0], [0.5]]
    leaned = clone(MIL).set_params(video_weight=3)._lean(scores)
    assert [x.tolist() for x in leaned] == [[0.8125, 0.875, 1.0], [0.5]]
    # DDL's video score is the mean of the 17 // 16 + 1 highest, 0.75.
    (leaned,) = (
        clone(DDL)
        .set_params(video_weight=1.0)
        ._lean([np.float32([0.5] * 15 + [1.0, 0.0])])
    )
    assert leaned.tolist() == [0.625] * 15 + [0.875, 0.375]
    assert leaned.dtype == np.float32


@weights
def test_scores_of_a_fitted_detector(est, small, w):
    bags, y = small
    plain = est.fit(bags, y).score_snippets(bags)
    videos = est.predict_proba(bags)[:, 1]
    decisions, labels = est.decision_function(bags), est.predict(bags)
    est.set_params(video_weight=w)  # scoring alone knows it
    found = est.score_snippets(bags)
    for s, v, leaned in zip(plain, videos, found, strict=True):
        expected = [(float(x) + w * v) / (1 + w) for x in s]
        np.testing.assert_allclose(leaned, expected, rtol=0, atol=1e-6)
        assert leaned.dtype == np.float32
        assert leaned.min() >= 0
        assert leaned.max() <= 1
    np.testing.assert_allclose(est.decision_function(bags), decisions, atol=1e-6)
    np.testing.assert_allclose(est.predict_proba(bags)[:, 1], videos, atol=1e-6)
    sure = np.abs(decisions) > 1e-6
    np.testing.assert_array_equal(est.predict(bags)[sure], labels[sure])
    (alone,) = est.score_snippets(bags[:1])
    assert np.array_equal(est.score_frames(bags[:1])[0], np.repeat(alone, 16))
    refitted = clone(est).fit(bags, y).score_snippets(bags)
    assert all(np.array_equal(*pair) for pair in zip(refitted, found, strict=True))
    copy = pickle.loads(pickle.dumps(est))
    assert np.array_equal(copy.score_snippets(bags)[0], found[0])


@pytest.mark.parametrize("detector", [MIL, DDL], ids=["mil_ranking", "ddl"])
@weights
def test_scores_stay_in_0_1(detector, w):
    est = clone(detector).set_params(video_weight=w)
    ends = [np.float32([1] * 40), np.float32([0] * 40), np.float32([0, 1] * 20)]
    for s, leaned in zip(ends, est._lean(ends), strict=True):
        assert leaned.min() >= s.min()
        assert leaned.max() <= s.max()


@pytest.mark.parametrize("name", ["frame_roc_auc", "balanced_frame_roc_auc", "roc_auc"])
def test_validation_scores_what_users_get(est, small, name):
    bags, y = small
    values = []
    for w in (0, 5.0):
        params = {"video_weight": w, "validation_score": name}
        est = clone(est).set_params(**params).fit(bags, y, validation=(bags, y))
        values.append(est.history_[-1]["valid_score"])
        if name != "roc_auc":
            metrics = frame_roc_auc_score, balanced_frame_roc_auc_score
            metric = metrics[name.startswith("balanced")]
            expected = metric(y, est.score_snippets(bags))
            assert values[-1] == pytest.approx(expected, rel=1e-12)
    if name == "roc_auc":  # of videos, up to ties by rounding
        assert values[1] == pytest.approx(values[0], abs=0.02)
    else:
        assert values[1] != values[0]


def test_balanced_score_needs_frame_labels(est, small):
    bags, y = small
    est.set_params(validation_score="balanced_frame_roc_auc")
    match = "validation_score='balanced_frame_roc_auc' needs validation="
    with pytest.raises(ValueError, match=match):
        est.fit(bags, y, validation=(bags, np.asarray(y)))


@pytest.mark.parametrize("detector", [DAM, MIL], ids=["dam", "mil_ranking"])
def test_streams_refuse_it(detector, small):
    est = clone(detector).set_params(video_weight=0.5).fit(*small)
    with pytest.raises(
        TypeError, match=r"video_weight=0.5.*streams need video_weight=0"
    ):
        est.stream()
    crops = [np.stack([bag, bag], axis=1) for bag in small[0]]
    with pytest.raises(TypeError, match=r"streams need video_weight=0"):
        MultiCropDetector(est).fit(crops, small[1]).stream()
    est.set_params(video_weight=0).stream()


@weights
def test_videos_of_crops_stay_where_they_are_too(est, small, w):
    """Snippets lean on the score of the video, not of each crop."""
    bags, y = small
    crops = [np.stack([bag, bag[::-1], -bag], axis=1) for bag in bags]
    detector = MultiCropDetector(est).fit(crops, y)
    plain, videos = detector.score_snippets(crops), detector.predict_proba(crops)[:, 1]
    detector.estimator_.set_params(video_weight=w)
    found = detector.score_snippets(crops)
    for s, v, leaned in zip(plain, videos, found, strict=True):
        np.testing.assert_allclose(leaned, (s + w * v) / (1 + w), rtol=0, atol=1e-6)
    np.testing.assert_allclose(detector.predict_proba(crops)[:, 1], videos, atol=1e-6)


@pytest.mark.parametrize("w", [-0.1, np.nan, np.inf, None, "1"])
def test_bad_weights(est, small, w):
    with pytest.raises(ValueError, match="'video_weight' parameter of"):
        est.set_params(video_weight=w).fit(*small)
