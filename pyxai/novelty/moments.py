"""Statistics of any number of activations that never all exist at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[Any]
_BLOCK = 4096  # rows


class Moments:
    """Counts, means and the scatter within classes, in float64, mergeable.

    Chunks are merged by the update of Chan, Golub and LeVeque, "Updating formulae and a pairwise
    algorithm for computing sample variances" (1979), for each class: exact but for rounding, in any
    order and however the rows are cut.

    Attributes:
        counts: `[K]`, rows of each class.
        means: `[K, d]`, 0 for a class without rows.
        scatter: `[d, d]`, the sum over rows of (x - m)(x - m)ᵀ with m the mean of the row's class;
            None if it was not asked for.
    """

    def __init__(self, classes: int, width: int, *, scatter: bool = True) -> None:
        self.counts = np.zeros(classes)
        self.means = np.zeros((classes, width))
        self.scatter: Array | None = np.zeros((width, width)) if scatter else None

    def add(self, features: torch.Tensor, labels: Array | None = None) -> None:
        """Rows `[n, d]` with the classes `[n]` that they belong to; without, all of class 0."""
        rows = features.detach().cpu().to(torch.float64).numpy()
        if labels is None:
            labels = np.zeros(len(rows), np.int64)
        present, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
        order = np.argsort(places, kind="stable")
        rows = rows[order] if len(present) > 1 else rows
        starts = np.cumsum(counts) - counts
        means = np.add.reduceat(rows, starts, axis=0) / counts[:, None]
        deviations = rows - means[places[order]]
        before = self.counts[present]
        after = before + counts
        shift = means - self.means[present]
        if self.scatter is not None:
            between = shift * np.sqrt(before * counts / after)[:, None]
            self.scatter += deviations.T @ deviations
            if before.any():
                self.scatter += between.T @ between
        self.means[present] += shift * (counts / after)[:, None]
        self.counts[present] = after

    @property
    def count(self) -> int:
        """Rows seen."""
        return int(self.counts.sum())

    @property
    def mean(self) -> Array:
        """`[d]`, of all rows."""
        found: Array = self.counts @ self.means / max(self.count, 1)
        return found

    def within(self) -> Array:
        """`[d, d]`, the covariance about the means of the classes, over n (not n - K)."""
        assert self.scatter is not None
        found: Array = self.scatter / max(self.count, 1)
        return found

    def about(self, origin: Array) -> Array:
        """`[d, d]`, the mean of (x - origin)(x - origin)ᵀ over all rows."""
        shift = self.means - origin
        found: Array = self.within() + (shift.T * (self.counts / max(self.count, 1))) @ shift
        return found


class Reservoir:
    """A uniform sample of a stream of rows, at most `capacity`, decided by a seed.

    Each row draws a number; those with the smallest stay. Row i draws the i-th number, so the
    sample does not depend on how the stream was cut. Rows lie in blocks: nothing is copied when the
    sample grows. Rows stay in no particular order once the capacity is reached.
    """

    def __init__(self, capacity: int, seed: int) -> None:
        self.capacity = capacity
        self.blocks: list[torch.Tensor] = []
        self._random = np.random.default_rng(seed)
        self._draws = np.empty(0)

    def __len__(self) -> int:
        return len(self._draws)

    def add(self, rows: torch.Tensor) -> None:
        """Rows `[n, d]`, kept as they are, on the CPU."""
        draws = self._random.random(len(rows))
        free = min(self.capacity - len(self), len(rows))
        if free > 0:
            self._append(rows[:free], draws[:free])
        rows, draws = rows[max(free, 0) :], draws[max(free, 0) :]
        if not len(rows):
            return
        # The smallest draws of old and new; each new one that stays takes the place of an old one.
        both = np.concatenate([self._draws, draws])
        kept = np.zeros(len(both), bool)
        kept[np.argpartition(both, self.capacity - 1)[: self.capacity]] = True
        places = np.flatnonzero(~kept[: self.capacity])
        entering = np.flatnonzero(kept[self.capacity :])
        for place, row in zip(places.tolist(), entering.tolist(), strict=True):
            self.blocks[place // _BLOCK][place % _BLOCK] = rows[row]
        self._draws[places] = draws[entering]

    def _append(self, rows: torch.Tensor, draws: Array) -> None:
        done = 0
        while done < len(rows):
            place = len(self) + done
            block, start = divmod(place, _BLOCK)
            if block == len(self.blocks):
                size = (min(_BLOCK, self.capacity - place), rows.shape[1])
                self.blocks.append(torch.empty(size, dtype=rows.dtype, device="cpu"))
            some = rows[done : done + len(self.blocks[block]) - start]
            self.blocks[block][start : start + len(some)] = some
            done += len(some)
        self._draws = np.concatenate([self._draws, draws])

    def parts(self) -> list[torch.Tensor]:
        """The rows, block by block, views of at most 4,096."""
        left = len(self)
        found = []
        for block in self.blocks:
            found.append(block[:left])
            left -= len(found[-1])
        return found

    def rows(self) -> torch.Tensor:
        """All rows as one `[n, d]`: a copy."""
        return torch.cat(self.parts())
