"""A ragged batch without its padding: every row of a product is a snippet.

Layers that work on each snippet by itself run on the rows of all bags at once;
attention, which needs bags, runs on groups of bags of similar length.
"""

import torch

_SIMILAR = 0.8  # of the longest bag of a group
_MANY = 8  # bags of one length that go without a mask
_LONG = 64  # snippets
_SHORT = 24  # snippets, below which padding costs less than one more group


class Packing:
    """The snippets of a padded batch, the longest bags first.

    Parameters
    ----------
    mask : bool Tensor of shape (B, T)
        True for snippets, which come before the padding of their bag.
    """

    def __init__(self, mask):
        self.shape = mask.shape
        lengths, order = mask.sum(dim=1).sort(descending=True, stable=True)
        self.lengths = lengths.tolist()
        self.full = self.lengths[-1] == mask.shape[1]
        if not self.full:
            step = torch.arange(mask.shape[1], device=mask.device)
            places = order[:, None] * mask.shape[1] + step
            self.places = places[step < lengths[:, None]]  # (N,), in the batch

    def pack(self, x):
        """Return the snippets of a padded ``(B, T, ...)`` as rows, ``(N, ...)``."""
        rows = x.flatten(0, 1)
        return rows if self.full else rows.index_select(0, self.places)

    def unpack(self, rows):
        """Return rows as the batch that they come from, padded with zeros."""
        if not self.full:
            padded = rows.new_zeros(self.shape.numel(), *rows.shape[1:])
            rows = padded.index_copy_(0, self.places, rows)
        return rows.unflatten(0, self.shape)

    def attend(self, attention, *rows):
        """Run an attention over bags, those of similar length together.

        Parameters
        ----------
        attention : callable
            Of tensors (b, T, n) and a mask (b, T), or None where nothing is padded;
            returns (b, T, m).
        *rows : Tensor of shape (N, n)

        Returns
        -------
        rows : Tensor of shape (N, m)
        """
        groups = list(self._groups())
        sizes = [sum(lengths) for lengths in groups]
        found = []
        for lengths, *parts in zip(
            groups, *[x.split(sizes) for x in rows], strict=True
        ):
            if lengths[0] == lengths[-1]:
                parts = [x.unflatten(0, (len(lengths), -1)) for x in parts]
                found.append(attention(*parts, None).flatten(0, 1))
            else:
                steps = torch.arange(lengths[0], device=rows[0].device)
                real = steps < torch.tensor(lengths, device=steps.device)[:, None]
                inside = Packing(real)
                found.append(inside.pack(attention(*map(inside.unpack, parts), real)))
        return torch.cat(found) if len(found) > 1 else found[0]

    def _groups(self):
        """Yield the lengths of bags that go together."""
        group = []
        for n in self.lengths:
            far = group and n < group[0] * _SIMILAR and group[0] > _SHORT
            alike = len(group) >= _MANY and n < group[0] == group[-1]
            # Without gradients a long bag runs fastest alone.
            alone = group and group[0] >= _LONG and not torch.is_grad_enabled()
            if far or alike or alone:
                yield group
                group = []
            group.append(n)
        yield group
