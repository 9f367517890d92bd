"""Distances between vectors, in the plain form and in the form that ranks fastest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import torch

from pyxai._errors import argument_error, closest
from pyxai.neighbors.products import products

METRICS = (
    "cosine",
    "euclidean",
    "sqeuclidean",
    "minkowski",
    "manhattan",
    "chebyshev",
    "correlation",
)
"""The names of the metrics."""

_OTHER_NAMES = {"squared_euclidean": "sqeuclidean", "l2": "euclidean", "l1": "manhattan"}
_OTHER_NAMES |= {"cityblock": "manhattan", "linf": "chebyshev"}
_CACHED = 1 << 16  # numbers of a block of differences: it should stay in the second-level cache
_PRODUCT_ROWS = 1 << 10  # of a matrix product, for the same reason


@dataclass(frozen=True)
class Metric:
    """A distance; smaller is nearer.

    - cosine: 1 − a·b / (‖a‖ ‖b‖); 1 where a vector is zero.
    - correlation: the cosine distance of a and b, each less the mean of its own numbers.
    - euclidean: (Σ (a − b)²)^½; sqeuclidean without the root, which ranks the same.
    - minkowski: (Σ |a − b|^p)^(1/p), p of 1 or more; manhattan is p = 1, chebyshev p = ∞.

    Attributes:
        name: one of METRICS.
        p: of minkowski, otherwise None.
    """

    name: str
    p: float | None = None

    @property
    def order(self) -> float | None:
        """The p of a Minkowski distance; None for cosine and correlation."""
        orders = {"euclidean": 2.0, "sqeuclidean": 2.0, "manhattan": 1.0, "chebyshev": math.inf}
        return self.p if self.name == "minkowski" else orders.get(self.name)

    @property
    def is_angle(self) -> bool:
        """Whether it is cosine or correlation."""
        return self.order is None

    @property
    def by_products(self) -> bool:
        """Whether matrix products rank by it."""
        return self.order in (None, 2.0)

    def __str__(self) -> str:
        return self.name if self.p is None else f"{self.name} p={self.p:g}"

    def distances(self, queries: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Exact distances in float64, from the differences themselves.

        Args:
            queries: `[q, F]`.
            rows: `[q, m, F]`: other rows for each query.

        Returns:
            `[q, m]`.
        """
        a, b = queries[:, None].double(), rows.double()
        if self.is_angle:
            if self.name == "correlation":
                a, b = a - a.mean(dim=2, keepdim=True), b - b.mean(dim=2, keepdim=True)
            norms = a.norm(dim=2) * b.norm(dim=2)
            products = (a * b).sum(dim=2)
            cosine = torch.where(norms > 0, products / norms, torch.zeros_like(products))
            return (1 - cosine).clamp(0, 2)
        found = torch.linalg.vector_norm(b - a, ord=self.order, dim=2)
        exact: torch.Tensor = found.square() if self.name == "sqeuclidean" else found
        return exact


MetricName: TypeAlias = str | Metric


def as_metric(metric: MetricName, p: float | None = None) -> Metric:
    """A metric by its name.

    Args:
        metric: one of METRICS, or a `Metric`.
        p: the order of "minkowski", 3 by default.

    Raises:
        ValueError: the name is unknown (with the closest), p is below 1, or no Minkowski distance.
    """
    if isinstance(metric, Metric):
        if p is not None:
            raise argument_error("p", "None beside a Metric, which has its own", p)
        return metric
    name = _OTHER_NAMES.get(metric, metric) if isinstance(metric, str) else metric
    if name not in METRICS:
        hint = closest(metric, METRICS) if isinstance(metric, str) else ""
        raise argument_error("metric", f"one of {', '.join(METRICS)}{hint}", metric)
    if name != "minkowski":
        if p is not None:
            raise argument_error("p", f"None for {name}: it belongs to minkowski", p)
        return Metric(name)
    order = 3.0 if p is None else p
    if isinstance(order, bool) or not isinstance(order, (int, float)) or not order >= 1:
        raise argument_error("p", "a number of at least 1", p)
    return Metric(name, float(order))


def prepared(
    queries: torch.Tensor, metric: Metric, origin: torch.Tensor | None = None
) -> torch.Tensor:
    """Queries as `ranks` takes them, `[q, F]` float32.

    They get the length 1 for cosine and correlation, and the mean 0 for correlation. For Euclidean
    distances they are taken from `origin`.
    """
    queries = queries.float()
    if metric.order == 2.0 and origin is not None:
        queries = queries - origin
    if metric.name == "correlation":
        queries = queries - queries.mean(dim=1, keepdim=True)
    if metric.is_angle:
        norms = queries.norm(dim=1, keepdim=True)
        queries = queries / norms.masked_fill(norms == 0, 1)
    return queries.contiguous()


def row_terms(
    rows: torch.Tensor, metric: Metric, origin: torch.Tensor | None = None
) -> torch.Tensor | None:
    """What `ranks` needs to know of each row, `[n]`, or None for nothing.

    ‖b − o‖² with o the origin, or −1 / ‖b‖ (0 for a row of zeros).
    """
    if not metric.by_products:
        return None
    if metric.order == 2.0:
        squares = rows.new_empty(len(rows))
        step = max(1, _CACHED // max(1, rows.shape[1]))
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            some = some if origin is None else some - origin
            squares[start : start + step] = torch.linalg.vector_norm(some, dim=1).square_()
        return squares
    if metric.name == "correlation":
        rows = rows - rows.mean(dim=1, keepdim=True)
    norms = torch.linalg.vector_norm(rows, dim=1)
    return torch.where(norms > 0, -1 / norms, torch.zeros_like(norms))


def ranks(
    queries: torch.Tensor,
    rows: torch.Tensor,
    metric: Metric,
    terms: torch.Tensor | None,
    out: torch.Tensor,
) -> torch.Tensor:
    """Numbers that rank rows as the metric does, for each query.

    Args:
        queries: `[q, F]` from `prepared`.
        rows: `[n, F]` float32.
        metric: the metric.
        terms: `row_terms` of the rows.
        out: float32 memory `[q, n]` or larger.

    Returns:
        `[q, n]`, a view of `out`: minus the cosine, Σ |a − b|^p, or ‖b − o‖² − 2 (a − o)·b, which
        differs from ‖a − b‖² by a constant of each query, and loses little to rounding where rows
        lie close together and far from zero.
    """
    found = out[: len(queries), : len(rows)]
    if terms is None:
        for place in range(len(queries)):
            _powers(queries[place], rows, metric.order or 2.0, found[place])
    else:
        for start in range(0, len(rows), _PRODUCT_ROWS):
            part = slice(start, start + _PRODUCT_ROWS)
            dots = products(queries, rows[part])
            if metric.order == 2.0:
                torch.add(terms[part], dots, alpha=-2, out=found[:, part])
            else:
                torch.mul(dots, terms[part], out=found[:, part])
    return found


def _powers(query: torch.Tensor, rows: torch.Tensor, order: float, out: torch.Tensor) -> None:
    """Σ |a − b|^p, or the largest |a − b| for p = ∞, into `out` `[n]`.

    Whole p by products, and in pieces that stay in the cache: a call of pow costs twenty times a
    multiplication.
    """
    step = max(1, _CACHED // max(1, rows.shape[1]))
    difference = rows.new_empty((min(step, len(rows)), rows.shape[1]))
    power = torch.empty_like(difference)
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        d, e = difference[: len(some)], power[: len(some)]
        torch.sub(some, query, out=d)
        target = out[start : start + len(some)]
        if order == math.inf:
            torch.amax(d.abs_(), dim=1, out=target)
        elif order == 1:
            torch.sum(d.abs_(), dim=1, out=target)
        elif order == int(order) and order <= 8:
            _whole_power(d, e, int(order), target)
        else:
            torch.sum(d.abs_().pow_(order), dim=1, out=target)


def _whole_power(d: torch.Tensor, e: torch.Tensor, order: int, out: torch.Tensor) -> None:
    """Σ |d|^order along rows; d and e are overwritten."""
    torch.mul(d, d, out=e)
    left, odd = divmod(order, 2)
    if odd:
        d.abs_()
    else:
        d.copy_(e)
        left -= 1
    for _ in range(left - 1):
        d.mul_(e)
    if left:
        out.copy_(torch.linalg.vecdot(d, e))
    else:
        torch.sum(d, dim=1, out=out)
