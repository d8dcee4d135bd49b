"""What a fitted network consists of, as a short text."""

import math
from collections import Counter

_TITLES = ("layer", "kind", "parameters", "number")


def describe_network(module):
    """Return a table of the layers that have parameters, and how many there are.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    lines : list of str
        One per layer, between titles and a total.
    n_parameters : int
    """
    rows, total = [], 0
    for name, layer in module.named_modules():
        trained = [tuple(each.shape) for each in layer.parameters(recurse=False)]
        fixed = [tuple(each.shape) for each in layer.buffers(recurse=False)]
        shapes = [_spell(trained)] if trained else []
        shapes += [f"[{_spell(fixed)}]"] if fixed else []
        if shapes:
            number = sum(map(math.prod, trained))
            total += number
            rows.append((name, type(layer).__name__, " ".join(shapes), f"{number:,}"))
    table = [_TITLES, *rows, ("total", "", "", f"{total:,}")]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for *texts, number in table:
        cells = [f"{text:{width}}" for text, width in zip(texts, widths, strict=False)]
        lines.append("  ".join([*cells, f"{number:>{widths[-1]}}"]))
    return lines, total


def _spell(shapes):
    """Return shapes as a sum: the same ones together, "8 x 6 + 8", "2 (8 x 6) + 8"."""
    terms = []
    for shape, n in Counter(shapes).items():
        term = " x ".join(map(str, shape)) or "1"
        terms.append(term if n == 1 else f"{n} ({term})")
    return " + ".join(terms)
