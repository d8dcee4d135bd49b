"""Running a trained net on whole bags: together, in pieces, or snippet by snippet.

A module is ``module(X, mask) -> dict`` of (B, T). What it may say besides decides how
videos are run that don't fit the memory, see `_run_long`.
"""

import numpy as np
import torch

from ._batching import collate, scoring_groups
from ._progress import tqdm
from ._storage import bag_name
from .layers import values_per_snippet

# Numbers that a scoring batch needs at once, all layers' included, for speed: 64 MiB of
# float32. Beyond, they are gone from the caches before they are used again.
_SCORING_VALUES = 2**24


@torch.inference_mode()
def run_bags(
    net, bags, names, progress=False, view=None, memory_limit=2.0, window=None
):
    """Return outputs of the network for every bag, unpadded.

    Bags of similar length go through the network together, the longest first; a
    bag that is too long for the memory goes in pieces.

    Parameters
    ----------
    net : Net
    bags : Bags
    names : sequence of str
        Of outputs of shape (B, T).
    progress : bool
    view : callable, default=None
        From a bag to what the network sees of it; None for whole bags.
    memory_limit : float, default=2.0
        GiB.
    window : int, default=None
        Of the attention, for modules that take one.

    Returns
    -------
    outputs : dict of list of float32 ndarray of shape (n_snippets_i,)
        As many snippets as the view has.

    Raises
    ------
    ValueError
        For a bag that needs more memory, of a network that can't be run in pieces.
    """
    net.module_.eval()
    options = {} if window is None else {"window": window}
    found = {name: [None] * len(bags) for name in names}
    free = memory_limit * 2**30
    most = _snippets_at_once(net.module_, bags.snippet_shape, free)
    bar = tqdm(
        total=len(bags), desc="scoring", unit="bag", leave=False, disable=not progress
    )
    with bar:
        for positions, seen in scoring_groups(bags, most, view):
            if len(seen[0]) > most:
                what = bag_name(positions[0], bags.ids)
                rows = [_run_long(net, seen[0], names, memory_limit, what, options)]
            else:
                rows = _run_together(net, seen, names, options)
            for i, outputs in zip(positions, rows, strict=True):
                for name in names:
                    found[name][i] = outputs[name]
            bar.update(len(positions))
    return found


def _run_together(net, bags, names, options):
    """Return the outputs of each bag, by name."""
    output = net.infer(collate(bags), **options)
    padded = {name: output[name].float().cpu().numpy() for name in names}
    return [
        {name: padded[name][i, : len(bag)].copy() for name in names}
        for i, bag in enumerate(bags)
    ]


# --------------------------------------------------------------------------
# Long videos
# --------------------------------------------------------------------------
def _snippets_at_once(module, snippet_shape, n_bytes):
    """Return how many snippets may go through the network together, 1 at least."""
    n_values = min(n_bytes // 4, _SCORING_VALUES)
    return max(int(n_values // values_per_snippet(module, snippet_shape)), 1)


def _run_long(net, bag, names, memory_limit, what, options):
    """Return the outputs of a bag that is too long to go at once, by name.

    A module says how it runs in pieces: by ``reach``, how many snippets before a
    snippet its outputs depend on, or by ``run_in_pieces`` with what that holds of
    every snippet. One that says neither goes whole or not at all.
    """
    module, free = net.module_, memory_limit * 2**30
    if hasattr(module, "reach"):
        n = _snippets_at_once(module, bag.shape[1:], free)
        return _run_with_reach(net, bag, names, n)
    whole = 4 * len(bag) * values_per_snippet(module, bag.shape[1:])
    n_held = len(bag)
    if "window" in options:  # and the blocks beside a piece
        n = _snippets_at_once(module, bag.shape[1:], free)
        n_held = min(n_held, n + 3 * options["window"])
    held = 4 * n_held * getattr(module, "held_per_snippet", 0) or whole
    if held > free:
        raise ValueError(
            f"{what} of {len(bag)} snippets needs about {held / 2**30:.3g} GiB, since"
            f" the attention of {type(module).__name__} sees the whole video; raise"
            f" memory_limit, which is {memory_limit:.3g} GiB"
        )
    if whole <= free:
        return _run_together(net, [bag], names, options)[0]
    n = _snippets_at_once(module, bag.shape[1:], free - held)
    with net.autocast():
        output = module.run_in_pieces(bag, n, **options)
    return {name: output[name].float().cpu().numpy() for name in names}


def _run_with_reach(net, bag, names, n):
    """Run a bag in pieces of n snippets, each after the ones it depends on."""
    pieces = []
    for start in range(0, len(bag), n):
        before = min(start, net.module_.reach)
        output = _run_together(net, [bag[start - before : start + n]], names, {})[0]
        pieces.append({name: output[name][before:] for name in names})
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in names}


@torch.inference_mode()
def score_pairs(net, current, previous):
    """Return the scores of snippets, given the ones before them.

    Parameters
    ----------
    net : Net
        Of a module with ``score(current, previous)``.
    current, previous : Tensor of shape (M, ...)

    Returns
    -------
    scores : list of float
    """
    net.module_.eval()
    with net.autocast():
        scores = net.module_.score(current.to(net.device), previous.to(net.device))[0]
    return scores.float().tolist()
