"""Packing: every snippet once, no padding, and attention as on each bag alone."""

import pytest
import torch
from torch.testing import assert_close

from sklearn_vad._packing import Packing

LENGTHS = [[3], [4, 4], [1, 5, 2], [40, 40, 39, 9, 1, 40, 33, 30], [7] * 9 + [6, 2]]
LENGTHS += [[40] * 9 + [39, 38], [200, 150, 100, 50, 30, 24, 23, 1]]
each_lengths = pytest.mark.parametrize("lengths", LENGTHS, ids=str)


def make_batch(lengths, width=2):
    """A padded batch with NaN as padding, and its mask."""
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    x = torch.randn(*mask.shape, width, generator=torch.Generator().manual_seed(0))
    return x.where(mask[..., None], torch.nan), mask


def mean_of_bag(x, mask):
    """An "attention" to all snippets of the bag alike."""
    real = torch.ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
    assert not x[~real].any()
    total = x.sum(dim=1, keepdim=True) / real.sum(dim=1)[:, None, None]
    return total.expand_as(x)


@each_lengths
def test_rows_are_the_snippets_and_find_back(lengths):
    x, mask = make_batch(lengths)
    packing = Packing(mask)
    rows = packing.pack(x)
    assert rows.shape == (sum(lengths), 2)
    longest = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    if len(set(lengths)) > 1:
        assert_close(rows, torch.cat([x[i, : lengths[i]] for i in longest]))
    assert_close(packing.unpack(rows), x.nan_to_num(0), rtol=0, atol=0)


@each_lengths
def test_attention_is_that_of_each_bag_alone(lengths):
    x, mask = make_batch(lengths)
    packing = Packing(mask)
    found = packing.unpack(packing.attend(mean_of_bag, packing.pack(x)))
    for row, bag, n in zip(found, x, lengths, strict=True):
        assert_close(row[:n], bag[:n].mean(dim=0).expand(n, 2))


@each_lengths
def test_groups_hold_little_padding_and_bags_of_one_length_none(lengths):
    padded, groups = 0, 0

    def attention(x, mask):
        nonlocal padded, groups
        groups += 1
        assert (mask is None) == (not x.eq(0).all(dim=2).any())
        padded += x.shape[0] * x.shape[1]
        return x

    x, mask = make_batch(lengths)
    packing = Packing(mask)
    packing.attend(attention, packing.pack(x))
    assert padded <= sum(lengths) * 1.25 + 24 * len(lengths)
    if len(set(lengths)) == 1:
        assert groups == 1


@each_lengths
def test_gradients_pass_to_snippets_alone(lengths):
    x, mask = make_batch(lengths)
    x.requires_grad_()
    packing = Packing(mask)
    out = packing.unpack(packing.attend(mean_of_bag, packing.pack(x)))
    (out * torch.arange(1.0, 3)).sum().backward()
    expected = torch.tensor([1.0, 2]) * mask[..., None]
    assert_close(x.grad, expected)
