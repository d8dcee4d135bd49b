"""Bags into padded batches: ``{"X": (B, T, ...), "mask": (B, T)}``."""

import numpy as np
import torch


def collate(bags):
    """Pad bags to one length with zeros, in float32.

    Parameters
    ----------
    bags : list of ndarray of shape (n_snippets_i, ...)

    Returns
    -------
    batch : dict
        "X", float32 of shape ``(B, T, ...)``, and "mask", bool ``(B, T)``,
        True for real snippets.
    """
    lengths = np.array([len(bag) for bag in bags])
    X = np.zeros((len(bags), lengths.max(), *bags[0].shape[1:]), dtype=np.float32)
    for row, bag in zip(X, bags, strict=True):
        row[: len(bag)] = bag
    mask = np.arange(lengths.max()) < lengths[:, None]
    return {"X": torch.from_numpy(X), "mask": torch.from_numpy(mask)}


def balanced_order(y, generator):
    """Order one epoch so that every run of it holds both classes equally.

    Classes alternate. Each video of the larger class comes once; the smaller
    class is gone through as often as needed, shuffled anew each time.

    Parameters
    ----------
    y : ndarray of shape (n_bags,)
        0/1 labels. One class alone gives a plain shuffle.
    generator : torch.Generator

    Returns
    -------
    order : ndarray of int
    """
    classes = [np.flatnonzero(y == label) for label in (1, 0)]
    classes = [members for members in classes if len(members)]
    size = max(len(members) for members in classes)
    rows = []
    for members in classes:
        rounds = -(-size // len(members))
        drawn = [members[_permutation(len(members), generator)] for _ in range(rounds)]
        rows.append(np.concatenate(drawn)[:size])
    return np.stack(rows, axis=1).ravel()


def _permutation(n, generator):
    return torch.randperm(n, generator=generator).numpy()


class TrainingBatches:
    """One epoch of training batches per pass, in an order drawn anew.

    Parameters
    ----------
    bags : Bags
    y : ndarray of shape (n_bags,)
        0/1 labels.
    view : callable
        Bag to the bag that training sees (sampled, or pooled into segments).
    batch_size : int
    balanced : bool
        Draw both classes equally, see `balanced_order`.
    generator : torch.Generator
    """

    def __init__(self, bags, y, view, batch_size, balanced, generator):
        self.bags = bags
        self.y = y
        self.view = view
        self.batch_size = batch_size
        self.balanced = balanced
        self.generator = generator

    def __len__(self):
        n = (
            2 * np.bincount(self.y, minlength=2).max()
            if self._two_draws
            else len(self.y)
        )
        return int(-(-n // self.batch_size))

    @property
    def _two_draws(self):
        return self.balanced and 0 < self.y.sum() < len(self.y)

    def __iter__(self):
        if self.balanced:
            order = balanced_order(self.y, self.generator)
        else:
            order = _permutation(len(self.y), self.generator)
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            batch = collate([self.view(self.bags[i]) for i in rows])
            yield batch, torch.from_numpy(self.y[rows].astype(np.float32))


def scoring_groups(bags, most, view=None):
    """Yield bags of similar length together, the longest first.

    Parameters
    ----------
    bags : Bags
    most : int
        Snippets in a group, padding included; a longer bag goes alone.
    view : callable, default=None
        From a bag to what scoring sees of it; None for whole bags.

    Yields
    ------
    positions : list of int
    seen : list of ndarray
        Those bags, or their views.
    """
    lengths = bags.lengths
    positions = []
    for i in np.argsort(-lengths, kind="stable").tolist():
        longest = lengths[positions[0]] if positions else 0
        if positions and (len(positions) + 1) * longest > most:
            yield _group(bags, positions, view)
            positions = []
        positions.append(i)
    yield _group(bags, positions, view)


def _group(bags, positions, view):
    return positions, [bags[i] if view is None else view(bags[i]) for i in positions]
