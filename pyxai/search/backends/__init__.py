"""Who looks for the neighbours: ourselves, exactly; faiss; or a vector database."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import torch

from pyxai._errors import argument_error
from pyxai.neighbors.distances import Metric
from pyxai.neighbors.nearest import Matrix, check_queries, nearest

NAMES = ("exact", "faiss", "lancedb")
"""The back ends that a name chooses."""

Candidates: TypeAlias = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Collection:
    """The features of one layer, as a back end gets them.

    Attributes:
        matrix: the vectors; their row numbers are the ids.
        name: tells it from the other layers of the index; a file name.
        version: changes when photos are added.
        directory: the folder of the index, None in memory.
    """

    matrix: Matrix
    name: str
    version: str
    directory: Path | None


class Finder(Protocol):
    """Finds neighbours in one collection by one metric."""

    def __call__(self, queries: torch.Tensor, k: int) -> Candidates:
        """Distances `[q, k]` float64 and ids `[q, k]` int64 of the rows nearest to `[q, F]`.

        An approximate finder that finds fewer than k has ids of -1 at the end.
        """
        ...


class Backend(Protocol):
    """Makes a finder; the same call for every back end, so that a search can move to another."""

    def finder(self, collection: Collection, metric: Metric) -> Finder:
        """Builds or opens what it needs to search.

        Raises:
            ValueError: it cannot search by this metric.
            MissingExtraError: its package is not installed.
        """
        ...


@dataclass(frozen=True)
class Exact:
    """All rows, in blocks; see `pyxai.neighbors.nearest`."""

    def finder(self, collection: Collection, metric: Metric) -> Finder:
        """See `Backend`."""
        return lambda queries, k: nearest(queries, collection.matrix, k, metric)


def as_backend(backend: str | Backend) -> Backend:
    """A back end by its name, with its defaults.

    Raises:
        ValueError: there is none of that name.
    """
    if backend == "exact":
        return Exact()
    if backend == "faiss":
        from pyxai.search.backends.faiss import Faiss

        return Faiss()
    if backend == "lancedb":
        from pyxai.search.backends.lancedb import LanceDB

        return LanceDB()
    if isinstance(backend, str) or not hasattr(backend, "finder"):
        raise argument_error("backend", f"one of {', '.join(NAMES)}, or a Backend", backend)
    return backend


def with_exact_distances(
    queries: torch.Tensor, matrix: Matrix, ids: torch.Tensor, metric: Metric, k: int
) -> Candidates:
    """Candidates `[q, w]` of another finder, in the order of their exact distances; -1 comes last.

    Reads their rows only, and makes distances comparable between back ends to the last digit.
    """
    ids = ids.sort(dim=1).values
    distances = torch.full(ids.shape, torch.inf, dtype=torch.float64, device="cpu")
    for place in range(len(ids)):
        known = ids[place] >= 0
        taken = matrix.take(ids[place][known])[None]
        distances[place, known] = metric.distances(queries[place : place + 1], taken)[0]
    found, places = distances.sort(dim=1, stable=True)
    return found[:, :k], ids.gather(1, places)[:, :k]


__all__ = [
    "NAMES",
    "Backend",
    "Candidates",
    "Collection",
    "Exact",
    "Finder",
    "as_backend",
    "check_queries",
    "with_exact_distances",
]
