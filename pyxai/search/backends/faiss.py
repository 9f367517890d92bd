"""Approximate search with faiss: in memory, on one machine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from pyxai._errors import MissingExtraError, argument_error
from pyxai.neighbors.distances import Metric, prepared
from pyxai.neighbors.nearest import Matrix, check_queries
from pyxai.search.backends import Candidates, Collection, Finder, with_exact_distances

_TRAINED_ON = 64  # vectors for each cell
_LEAST_IN_CELL = 39  # on average: with fewer faiss says that it cannot find centres


@dataclass(frozen=True)
class Faiss:
    """An index of faiss over a layer, built when it is first searched and kept in memory.

    Cosine and correlation are inner products of vectors of length 1 (and mean 0). The vectors are
    copied into the index: memory grows with the number of photos.

    Attributes:
        factory: a string for `faiss.index_factory`; None, cells around 4·√n centres ("IVF...,Flat")
            where the metric ranks by products, else a graph ("HNSW32").
        probes: cells looked at, or the breadth of the search in a graph; None, 1/8 of the cells,
            or 4 · k. More find more and take longer.
        seed: of the choice of vectors that centres are found on.
    """

    factory: str | None = None
    probes: int | None = None
    seed: int = 0

    def finder(self, collection: Collection, metric: Metric) -> Finder:
        """See `Backend`."""
        try:
            import faiss
        except ImportError as error:
            raise MissingExtraError("the back end 'faiss'", "faiss-cpu", "faiss") from error
        matrix = collection.matrix
        most = len(matrix) // _LEAST_IN_CELL
        cells = max(1, min(round(4 * math.sqrt(len(matrix))), most))
        text = self.factory or (f"IVF{cells},Flat" if metric.by_products else "HNSW32")
        kind = _metric_of(faiss, metric)
        try:
            index = faiss.index_factory(matrix.width, text, kind)
        except RuntimeError as error:
            raise argument_error("factory", "a string that faiss knows", text) from error
        if metric.name == "minkowski":
            _set_order(faiss, index, float(metric.p or 2))
        if not index.is_trained:
            index.train(_sample(matrix, metric, self.seed, cells * _TRAINED_ON).numpy())
        for _, block in matrix.blocks():
            index.add(prepared(block, metric).numpy() if metric.is_angle else block.numpy())
        return _Finder(faiss, index, matrix, metric, self.probes)


class _Finder:
    def __init__(
        self, faiss: Any, index: Any, matrix: Matrix, metric: Metric, probes: int | None
    ) -> None:
        self._index, self._matrix, self._metric = index, matrix, metric
        self._faiss = faiss
        self._probes = probes

    def __call__(self, queries: torch.Tensor, k: int) -> Candidates:
        check_queries(queries, self._matrix)
        ready = prepared(queries, self._metric) if self._metric.is_angle else queries.float()
        parameters = self._parameters(k)
        _, ids = self._index.search(ready.contiguous().numpy(), k, params=parameters)
        found = torch.from_numpy(ids).to(torch.int64)
        return with_exact_distances(queries, self._matrix, found, self._metric, k)

    def _parameters(self, k: int) -> Any:
        """How much to look at; of this search alone, as several threads may search at once."""
        faiss, index = self._faiss, faiss_downcast(self._faiss, self._index)
        if hasattr(index, "nprobe"):
            return faiss.SearchParametersIVF(nprobe=self._probes or max(8, index.nlist // 8))
        if hasattr(index, "hnsw"):
            return faiss.SearchParametersHNSW(efSearch=self._probes or 4 * k)
        return None


def faiss_downcast(faiss: Any, index: Any) -> Any:
    """The index as what it is."""
    return faiss.downcast_index(index)


def _metric_of(faiss: Any, metric: Metric) -> int:
    if metric.is_angle:
        return int(faiss.METRIC_INNER_PRODUCT)
    kinds = {1.0: faiss.METRIC_L1, 2.0: faiss.METRIC_L2, math.inf: faiss.METRIC_Linf}
    return int(kinds.get(metric.order or 2.0, faiss.METRIC_Lp))


def _set_order(faiss: Any, index: Any, order: float) -> None:
    """The p of Minkowski distances, also of the vectors that a graph holds."""
    index = faiss_downcast(faiss, index)
    index.metric_arg = order
    if hasattr(index, "storage"):
        faiss_downcast(faiss, index.storage).metric_arg = order


def _sample(matrix: Matrix, metric: Metric, seed: int, count: int) -> torch.Tensor:
    generator = torch.Generator(device="cpu").manual_seed(seed)
    rows = torch.randperm(len(matrix), generator=generator, device="cpu")[:count].sort().values
    found = matrix.take(rows)
    return prepared(found, metric) if metric.is_angle else found
