"""The k nearest rows of a matrix of any size, exactly, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from pyxai._errors import argument_error, check_count
from pyxai.neighbors.distances import Metric, prepared, ranks, row_terms
from pyxai.neighbors.smallest import Smallest

_BLOCK_BYTES = 1 << 25  # of rows that are looked at together
_MOST_ROWS = 1 << 14
_QUERIES = 256  # with as many rows: ranks that are held together
_FIRST = 32  # rows whose mean is the origin, and the fewest of a block
_MARGIN = 16  # candidates more than asked for, whose exact distances are then taken
_GATHERED = 1 << 18  # numbers of candidates that are held together, in float64


@dataclass
class Matrix:
    """Rows `[n, F]` in one or several pieces, which may be files mapped into memory.

    Attributes:
        pieces: tensors `[n_i, F]`, float32 or float16, of one width.
    """

    pieces: Sequence[torch.Tensor]
    _terms: dict[Metric, torch.Tensor] = field(default_factory=dict, repr=False)
    _origin: torch.Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.pieces or any(each.ndim != 2 for each in self.pieces):
            raise argument_error("matrix", "tensors [n, F]", list(self.pieces))
        if len({each.shape[1] for each in self.pieces}) != 1:
            widths = [each.shape[1] for each in self.pieces]
            raise argument_error("matrix", "pieces of one width", widths)

    def __len__(self) -> int:
        return sum(len(each) for each in self.pieces)

    @property
    def width(self) -> int:
        """F."""
        return self.pieces[0].shape[1]

    def blocks(self, size: int | None = None) -> Iterator[tuple[int, torch.Tensor]]:
        """Rows in order, as (number of the first, float32 `[m, F]`); no more is held."""
        size = size or max(_FIRST, min(_MOST_ROWS, _BLOCK_BYTES // (4 * max(1, self.width))))
        first = 0
        for piece in self.pieces:
            for start in range(0, len(piece), size):
                some = piece[start : start + size]
                yield first + start, some.float()
            first += len(piece)

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        """Some rows `[m]` in the order asked for, float32 `[m, F]`."""
        if len(self.pieces) == 1:
            return self.pieces[0].index_select(0, rows).float()
        found = torch.empty((len(rows), self.width), dtype=torch.float32, device="cpu")
        first = 0
        for piece in self.pieces:
            inside = ((rows >= first) & (rows < first + len(piece))).nonzero()[:, 0]
            if len(inside):
                found[inside] = piece.index_select(0, rows[inside] - first).float()
            first += len(piece)
        return found

    @property
    def origin(self) -> torch.Tensor:
        """A point amidst the rows, `[F]`: the mean of the first ones."""
        if self._origin is None:
            self._origin = self.pieces[0][:_FIRST].float().mean(dim=0)
        return self._origin

    def terms(self, metric: Metric) -> torch.Tensor | None:
        """`row_terms` of all rows, kept: 4 bytes a row."""
        if not metric.by_products:
            return None
        key = Metric("euclidean") if metric.order == 2.0 else metric
        if key not in self._terms:
            parts = [row_terms(block, metric, self.origin) for _, block in self.blocks()]
            self._terms[key] = torch.cat([part for part in parts if part is not None])
        return self._terms[key]


def nearest(
    queries: torch.Tensor, matrix: Matrix, k: int, metric: Metric
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k nearest rows to each query.

    Every row is looked at, in blocks; memory is that of a block and of the result, whatever the
    number of rows. Candidates are found in float32; the exact distances of the k + 16 best are
    then taken from their differences in float64, so that a row has the distance 0 from itself.

    Args:
        queries: `[q, F]`, finite.
        matrix: the rows.
        k: how many; no more than there are rows.
        metric: the distance.

    Returns:
        Distances `[q, k]` float64, the smallest first, and row numbers `[q, k]` int64. Rows at the
        same distance are in the order of their numbers; which of them are found if not all are
        among the k + 16 is left open.

    Raises:
        ValueError: the widths differ, a query is not finite, or there are fewer than k rows.
    """
    check_queries(queries, matrix)
    if check_count("k", k) > len(matrix):
        raise argument_error("k", f"at most {len(matrix)}, the number of rows", k)
    ready, wanted = prepared(queries, metric, matrix.origin), min(k + _MARGIN, len(matrix))
    terms = matrix.terms(metric)
    best = Smallest(len(queries), wanted)
    memory = torch.empty(0, dtype=torch.float32, device="cpu")
    for first, block in matrix.blocks():
        if memory.shape[-1] < len(block):
            memory = torch.empty(
                (min(_QUERIES, len(queries)), len(block)), dtype=torch.float32, device="cpu"
            )
        of_block = None if terms is None else terms[first : first + len(block)]
        for start in range(0, len(queries), _QUERIES):
            part = slice(start, start + _QUERIES)
            values = ranks(ready[part], block, metric, of_block, memory)
            best.add(values, first, part)
    return _refined(queries, matrix, best.columns, metric, k)


def check_queries(queries: torch.Tensor, matrix: Matrix) -> None:
    """Raises ValueError if these are no finite vectors of the matrix's width."""
    if queries.ndim != 2 or queries.shape[1] != matrix.width:
        raise argument_error("queries", f"vectors [q, {matrix.width}]", queries)
    if not bool(torch.isfinite(queries).all()):
        raise ValueError("queries: expected finite numbers, got some that are not")


def _refined(
    queries: torch.Tensor, matrix: Matrix, rows: torch.Tensor, metric: Metric, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Exact distances of candidates `[q, w]`, the k smallest in order; ties by number."""
    rows = rows.sort(dim=1).values
    distances = torch.empty(rows.shape, dtype=torch.float64, device="cpu")
    step = max(1, _GATHERED // max(1, rows.shape[1] * matrix.width))
    for start in range(0, len(queries), step):
        some = rows[start : start + step]
        taken = matrix.take(some.flatten()).reshape(*some.shape, matrix.width)
        distances[start : start + step] = metric.distances(queries[start : start + step], taken)
    found, places = distances.sort(dim=1, stable=True)
    return found[:, :k], rows.gather(1, places)[:, :k]
