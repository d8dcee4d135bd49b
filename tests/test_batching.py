"""Padding, class-balanced order and scoring batches."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_vad import Bags
from sklearn_vad._batching import (
    TrainingBatches,
    balanced_order,
    collate,
    scoring_groups,
)

labels = st.lists(st.integers(0, 1), min_size=1, max_size=40)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def numbered_bags(lengths, tail=(2,)):
    """Bags whose entries all hold 1 + the bag's position."""
    return [np.full((n, *tail), 1.0 + i) for i, n in enumerate(lengths)]


def whole(bag):
    return bag


# --------------------------------------------------------------------------
# collate
# --------------------------------------------------------------------------
def test_collate_by_hand():
    batch = collate([np.array([[1, 2], [3, 4]]), np.array([[5.5, 6]])])
    assert batch["X"].tolist() == [[[1, 2], [3, 4]], [[5.5, 6], [0, 0]]]
    assert batch["mask"].tolist() == [[True, True], [True, False]]
    assert (batch["X"].dtype, batch["mask"].dtype) == (torch.float32, torch.bool)


@settings(max_examples=30, deadline=None, database=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    tail=st.sampled_from([(3,), (2, 3)]),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    seed=st.integers(0, 1000),
)
def test_collate_keeps_every_snippet(lengths, tail, dtype, seed):
    rng = np.random.default_rng(seed)
    bags = [rng.normal(size=(n, *tail)).astype(dtype) for n in lengths]
    batch = collate(bags)
    assert batch["X"].shape == (len(bags), max(lengths), *tail)
    for row, mask, bag in zip(batch["X"], batch["mask"], bags, strict=True):
        assert np.array_equal(row[mask].numpy(), bag.astype(np.float32))
        assert mask.tolist() == [t < len(bag) for t in range(max(lengths))]
        assert not row[~mask].any()


# --------------------------------------------------------------------------
# balanced_order
# --------------------------------------------------------------------------
@settings(max_examples=100, deadline=None, database=None)
@given(y=labels, seed=st.integers(0, 1000))
def test_balanced_order(y, seed):
    y = np.array(y)
    order = balanced_order(y, generator(seed))
    drawn = Counter(order.tolist())
    sizes = np.bincount(y, minlength=2)
    if 0 in sizes:
        assert sorted(order) == list(range(len(y)))
        return
    assert len(order) == 2 * max(sizes)
    assert y[order].tolist() == [1, 0] * max(sizes)  # classes alternate
    for label in (0, 1):
        members = np.flatnonzero(y == label)
        times = {drawn[i] for i in members}
        rounds, rest = divmod(max(sizes), len(members))
        # As evenly as can be; of the larger class, each once.
        assert times <= {rounds, rounds + bool(rest)}
        assert sum(drawn[i] for i in members) == max(sizes)


def test_balanced_order_is_drawn_anew():
    y = np.array([0] * 30 + [1] * 10)
    draws = generator()
    first, second = balanced_order(y, draws), balanced_order(y, draws)
    assert np.array_equal(balanced_order(y, generator()), first)
    assert not np.array_equal(first, second)
    # The smaller class is shuffled in each of its three rounds, too.
    rounds = first[::2].reshape(3, 10)
    assert all(sorted(r) == list(range(30, 40)) for r in rounds)
    assert len({tuple(r) for r in rounds}) == 3


@pytest.mark.parametrize("label", [0, 1])
def test_balanced_order_of_one_video(label):
    assert balanced_order(np.array([label]), generator()).tolist() == [0]


# --------------------------------------------------------------------------
# TrainingBatches
# --------------------------------------------------------------------------
@settings(max_examples=60, deadline=None, database=None)
@given(y=labels, batch_size=st.integers(1, 20), balanced=st.booleans())
def test_training_batches(y, batch_size, balanced):
    y = np.array(y)
    bags = Bags.from_list(numbered_bags(np.arange(len(y)) % 4 + 1))
    batches = TrainingBatches(bags, y, whole, batch_size, balanced, generator())
    drawn = []
    sizes = []
    for batch, labels in batches:
        positions = batch["X"][:, 0, 0].long().numpy() - 1
        assert labels.dtype == torch.float32
        assert np.array_equal(labels.numpy(), y[positions])
        assert batch["mask"].sum(dim=1).tolist() == bags.lengths[positions].tolist()
        drawn.extend(positions.tolist())
        sizes.append(len(positions))
    assert len(batches) == len(sizes)
    assert set(sizes[:-1]) <= {batch_size}
    assert 1 <= sizes[-1] <= batch_size
    if balanced:
        assert drawn == balanced_order(y, generator()).tolist()
    else:
        assert sorted(drawn) == list(range(len(y)))


def test_even_batches_hold_as_many_of_each_class():
    y = np.array([1] * 3 + [0] * 17)
    bags = Bags.from_list(numbered_bags([2] * 20))
    batches = TrainingBatches(bags, y, whole, 8, True, generator())
    assert [labels.mean().item() for _, labels in batches] == [0.5] * 5


def test_training_sees_the_view_of_each_bag():
    bags = Bags.from_list(numbered_bags([5, 7, 3]))
    batches = TrainingBatches(
        bags, np.array([0, 1, 0]), lambda bag: bag[:2] * 10, 3, False, generator()
    )
    ((batch, _),) = list(batches)
    assert batch["X"].shape == (3, 2, 2)
    assert sorted(batch["X"][:, 1, 0].tolist()) == [10, 20, 30]


def test_each_pass_has_an_order_of_its_own():
    bags = Bags.from_list(numbered_bags([1] * 30))
    y = np.arange(30) % 2
    for balanced in (True, False):
        batches = TrainingBatches(bags, y, whole, 30, balanced, generator())
        first, second = (next(iter(batches))[0]["X"][:, 0, 0] for _ in range(2))
        assert not torch.equal(first, second)


# --------------------------------------------------------------------------
# scoring_groups
# --------------------------------------------------------------------------
@settings(max_examples=60, deadline=None, database=None)
@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=20),
    most=st.integers(1, 700),
    tail=st.sampled_from([(3,), (2, 3)]),
)
def test_scoring_groups_cover_each_bag_once(lengths, most, tail):
    bags = Bags.from_list(numbered_bags(lengths, tail))
    covered = []
    for positions, seen in scoring_groups(bags, most):
        longest = max(len(bag) for bag in seen)
        assert len(positions) == 1 or len(positions) * longest <= most
        for i, bag in zip(positions, seen, strict=True):
            assert np.array_equal(bag, bags[i])
        covered.extend(positions)
    assert sorted(covered) == list(range(len(lengths)))


def test_scoring_groups_join_bags_of_similar_length():
    bags = Bags.from_list(numbered_bags([2, 10, 3, 9, 1]))
    groups = [positions for positions, _ in scoring_groups(bags, most=2 * 10)]
    assert groups == [[1, 3], [2, 0, 4]]
