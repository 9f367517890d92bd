"""The smallest of many values, which come in blocks."""

from __future__ import annotations

import torch

_GROUP = 32


class Smallest:
    """The w smallest values of each query, and their columns, of all blocks so far.

    Which of equal values at the edge are kept is left open.

    Attributes:
        values: `[q, w]` float32, in no order; infinite while fewer were seen.
        columns: their numbers `[q, w]` int64.
    """

    def __init__(self, queries: int, count: int, device: torch.device | str = "cpu") -> None:
        self.values = torch.full((queries, count), torch.inf, device=device, dtype=torch.float32)
        self.columns = torch.zeros((queries, count), dtype=torch.int64, device=device)

    def add(self, values: torch.Tensor, first: int, queries: slice = slice(None)) -> None:
        """Looks at a block.

        The w smallest lie in the w groups of columns with the smallest minima, and only in groups
        with a minimum below the worst that is kept: a pass of minima in place of a selection.

        Args:
            values: `[q, n]`, no NaN.
            first: the number of its first column.
            queries: which queries the block is of.
        """
        best, columns = self.values[queries], self.columns[queries]
        wanted, groups = best.shape[1], values.shape[1] // _GROUP
        if not len(values) or not wanted:
            return
        numbers = torch.arange(
            first, first + values.shape[1], device=values.device, dtype=torch.int64
        )
        if groups <= 2 * wanted:
            _merge(best, columns, values, numbers)
            return
        # Columns g, g + groups, g + 2 * groups, ... form a group: minima run along memory.
        grouped = groups * _GROUP
        minima = values[:, :grouped].view(-1, _GROUP, groups).amin(dim=1)
        worst = best.amax(dim=1, keepdim=True)
        count = min(wanted, int((minima < worst).sum(dim=1).max()))
        if count:
            chosen = minima.topk(count, dim=1, largest=False, sorted=False).indices
            inside = groups * torch.arange(_GROUP, device=values.device, dtype=torch.int64)[:, None]
            places = (chosen[:, None] + inside).flatten(1)
            _merge(best, columns, values.gather(1, places), first + places)
        if grouped < values.shape[1]:
            _merge(best, columns, values[:, grouped:], numbers[grouped:])


def _merge(
    best: torch.Tensor, columns: torch.Tensor, values: torch.Tensor, numbers: torch.Tensor
) -> None:
    """Takes values `[q, m]` with their numbers `[q, m]` or `[m]` in, in place."""
    wanted = best.shape[1]
    found, places = torch.cat([best, values], dim=1).topk(
        wanted, dim=1, largest=False, sorted=False
    )
    kept = columns.gather(1, places.clamp_max(wanted - 1))
    new = numbers.expand(values.shape).gather(1, (places - wanted).clamp_min_(0))
    columns.copy_(torch.where(places < wanted, kept, new))
    best.copy_(found)
