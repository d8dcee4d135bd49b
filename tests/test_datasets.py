"""Synthetic bags: what the description promises, measured."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from sklearn_vad.datasets import make_bags
from sklearn_vad.datasets._make_bags import _World
from sklearn_vad.metrics import frame_roc_auc_score


def test_shapes_labels_and_ids():
    bags, y = make_bags(
        50,
        n_features=7,
        anomalous_fraction=0.3,
        min_snippets=3,
        max_snippets=9,
        snippet_length=10,
        random_state=0,
    )
    assert len(bags) == 50
    assert bags.n_features == 7
    assert bags.dtype == np.float32
    assert bags.lengths.min() == 3
    assert bags.lengths.max() == 9
    assert np.sum(y) == 15
    assert bags.ids[:2].tolist() == ["video_000", "video_001"]
    assert (y.snippet_length == 10).all()
    # Whole snippets, and up to one more that the features do not cover.
    assert (y.n_frames // 10 == bags.lengths).all()
    assert (y.n_frames % 10 != 0).any()


def test_events_are_of_every_length_and_number():
    _, y = make_bags(400, random_state=0)
    counts, shares, shortest = set(), [], 1e9
    for mask in y.masks:
        edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
        if len(edges):
            counts.add(len(edges) // 2)
            shares.append(mask.mean())
            shortest = min(shortest, np.diff(edges)[::2].min())
    assert counts >= {1, 2, 3}
    assert min(shares) < 0.05
    assert max(shares) > 0.7
    assert 16 <= shortest <= 18


def test_videos_of_one_snippet():
    bags, y = make_bags(20, min_snippets=1, max_snippets=1, random_state=0)
    assert (bags.lengths == 1).all()
    assert [m[:16].all() for m in y.masks] == (y == 1).tolist()


def test_same_seed_same_data_and_nothing_global_moves():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, labels = make_bags(10, random_state=3)
    again, labels_again = make_bags(10, random_state=3)
    other, _ = make_bags(10, random_state=4)
    make_bags(10, random_state=None)
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a, b)
    for a, b in zip(labels.masks, labels_again.masks, strict=True):
        assert np.array_equal(a, b)
    assert not np.array_equal(first[0][:3], other[0][:3])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


@pytest.mark.parametrize("seed", [np.random.RandomState(1), np.random.default_rng(1)])
def test_generators_as_seed(seed):
    first, _ = make_bags(4, random_state=seed)
    second, _ = make_bags(4, random_state=seed)
    assert not np.array_equal(first[0][:3], second[0][:3])


def test_difficulty_makes_it_harder():
    """A linear model that knows the truth of every snippet finds less and less."""
    values = []
    for difficulty in (0.0, 0.5, 1.0):
        bags, y = make_bags(200, difficulty=difficulty, random_state=0)
        truth = [
            m[: 16 * n].reshape(n, 16).mean(axis=1) > 0.5
            for m, n in zip(y.masks, bags.lengths, strict=True)
        ]
        model = LogisticRegression(C=0.1, max_iter=1000)
        model.fit(np.concatenate(list(bags[:120])), np.concatenate(truth[:120]))
        scores = [model.predict_proba(bag)[:, 1] for bag in bags[120:]]
        values.append(frame_roc_auc_score(y[120:], scores))
    assert values[0] > 0.95
    assert values[0] > values[1] + 0.03 > values[2] + 0.1
    assert values[2] > 0.6


def test_normal_videos_change_too():
    """Cuts and harmless events: the largest jump does not tell videos apart."""
    bags, y = make_bags(300, difficulty=0.5, random_state=0)
    jumps = [np.linalg.norm(np.diff(bag, axis=0), axis=1) for bag in bags]
    largest = np.array([jump.max() for jump in jumps])
    assert largest[y == 0].mean() > 0.9 * largest[y == 1].mean()


def test_without_steps_the_data_are_those_of_the_first_version():
    """Measured results hang on them."""
    bags, y = make_bags(5, n_features=3, max_snippets=10, random_state=0)
    assert bags.bag_ndim == 2
    np.testing.assert_allclose(
        bags[0][0], [0.7191439, -1.8242133, -1.1820532], rtol=1e-6
    )
    assert y.n_frames.tolist() == [140, 147, 128, 149, 143]
    assert np.asarray(y).tolist() == [0, 0, 1, 1, 0]


@pytest.mark.parametrize("n_steps", [1, 3, 8])
def test_inner_steps(n_steps):
    options = {"n_features": 7, "min_snippets": 3, "max_snippets": 9, "random_state": 0}
    bags, y = make_bags(50, n_steps=n_steps, **options)
    assert all(
        b.shape == (n, n_steps, 7) for b, n in zip(bags, bags.lengths, strict=True)
    )
    assert bags.dtype == np.float32
    assert bags.n_features == 7
    assert (y.n_frames // 16 == bags.lengths).all()
    again, _ = make_bags(50, n_steps=n_steps, **options)
    assert all(np.array_equal(a, b) for a, b in zip(bags, again, strict=True))


def test_only_anomalies_vary_within_a_snippet():
    """Beyond the noise, whose variance is 1 a feature."""
    bags, y = make_bags(60, n_features=4, n_steps=8, difficulty=0.0, random_state=0)
    truth = [
        m[: 16 * n].reshape(n, 16).mean(axis=1)
        for m, n in zip(y.masks, bags.lengths, strict=True)
    ]
    truth = np.concatenate(truth)
    varied = np.concatenate([bag.var(axis=1, ddof=1).sum(axis=1) for bag in bags])
    assert varied[truth == 0].mean() == pytest.approx(4, rel=0.05)
    # The sine's mean square is 1/2, of an event of size 9 or so.
    assert varied[truth == 1].mean() > 4 + 0.4 * 0.5 * 9**2


def test_events_sway_twice_within_a_snippet_beginning_anywhere():
    """Anomalies are shown as 0.3 + sin, harmless events as 1."""
    world = _World(
        n_features=4, n_steps=8, difficulty=0.0, rng=np.random.default_rng(0)
    )
    direction = np.eye(4)[:1].repeat(4, axis=0)  # all kinds of events the same
    shown = np.zeros((2, 200, 8, 4))
    for video, sway in zip(shown, (0.0, 1.0), strict=True):
        world._show(video, slice(0, 200 * 16), direction, 16, sway)
    assert (shown[..., 1:] == 0).all()
    harmless, anomaly = shown[..., 0]
    size = harmless[0, 0]
    assert 0.7 * 9 <= size <= 1.3 * 9
    np.testing.assert_array_equal(harmless, size)
    # The mean over the steps keeps 0.3 of the event, whatever the phase.
    mean = anomaly.mean(axis=1)
    np.testing.assert_allclose(mean, mean[0], rtol=1e-9)
    size = mean[0] / 0.3
    assert 0.7 * 9 <= size <= 1.3 * 9
    swaying = anomaly / size - 0.3
    np.testing.assert_allclose(swaying[:, :4], swaying[:, 4:], atol=1e-9)  # twice
    np.testing.assert_allclose((swaying**2).mean(axis=1), 0.5, rtol=1e-9)
    assert np.ptp(swaying[:, 0]) > 1.9  # beginning anywhere


@pytest.mark.parametrize(
    "params",
    [
        {"n_bags": 1},
        {"n_features": 1},
        {"n_steps": 0},
        {"n_steps": 2.5},
        {"anomalous_fraction": 0},
        {"difficulty": 1.5},
        {"min_snippets": 9, "max_snippets": 8},
        {"snippet_length": 2.5},
        {"random_state": "x"},
    ],
    ids=str,
)
def test_bad_parameters(params):
    with pytest.raises((ValueError, TypeError), match=next(iter(params))):
        make_bags(**params)


def test_true_is_one_step():
    (bags, _), (other, _) = (
        make_bags(2, n_steps=n_steps, random_state=0) for n_steps in (True, 1)
    )
    assert np.array_equal(bags[0], other[0])
