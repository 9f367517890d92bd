"""Photos as points on a plane: principal components, or UMAP of our neighbours."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyxai._errors import MissingExtraError, argument_error
from pyxai.neighbors.distances import Metric
from pyxai.neighbors.nearest import Matrix, nearest

_MOST_EXACT = 4096  # width, or number of photos, up to which components are exact
_EXTRA, _PASSES = 10, 4  # of the randomised decomposition
_QUERIES = 256


@dataclass(frozen=True)
class Projection:
    """A map of the photos of an index.

    Attributes:
        points: `[n, 2]` float32, in the order of the ids.
        method: "pca" or "umap".
        layer: whose features.
        explained: for PCA the shares of the variance along the two axes, otherwise None.
    """

    points: NDArray[np.float32]
    method: str
    layer: str
    explained: tuple[float, float] | None


def principal_components(
    matrix: Matrix, count: int = 2, *, seed: int = 0
) -> tuple[NDArray[np.float32], tuple[float, ...]]:
    """Coordinates of the rows along the directions of largest variance.

    Exact, from the covariance (or, with fewer rows than numbers, from the products of the rows) up
    to 4,096 of either; beyond that by a randomised decomposition with four power iterations
    (Halko, Martinsson and Tropp, "Finding structure with randomness", 2011). Rows are read block by
    block. Of the two signs of an axis, that is taken whose largest weight is positive.

    Returns:
        `[n, count]`, and the share of the variance along each.
    """
    n, width = len(matrix), matrix.width
    mean = torch.zeros(width, dtype=torch.float64, device="cpu")
    for _, block in matrix.blocks():
        mean += block.double().sum(dim=0)
    mean /= n
    total = sum(float((b.double() - mean).square().sum()) for _, b in matrix.blocks())
    axes = _axes(matrix, mean, min(count, n, width), seed)
    strongest = axes.abs().argmax(dim=0, keepdim=True)
    signs = axes.gather(0, strongest).sign()
    axes = axes * torch.where(signs == 0, torch.ones_like(signs), signs)
    points = torch.zeros((n, count), dtype=torch.float64, device="cpu")
    for first, block in matrix.blocks():
        points[first : first + len(block), : axes.shape[1]] = (block.double() - mean) @ axes
    squares = points.square().sum(dim=0)
    shares = squares / total if total > 0 else torch.zeros_like(squares)
    found: NDArray[np.float32] = points.float().numpy()
    return found, tuple(shares.tolist())


def _axes(matrix: Matrix, mean: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """Directions of largest variance, `[F, count]` float64 of length 1 (0 without variance)."""
    n, width = len(matrix), matrix.width
    if width <= min(n, _MOST_EXACT):
        covariance = torch.zeros((width, width), dtype=torch.float64, device="cpu")
        for _, block in matrix.blocks():
            centred = block.double() - mean
            covariance.addmm_(centred.T, centred)
        return _largest(covariance, count)
    if n <= _MOST_EXACT:
        return _axes_of_products(matrix, mean, count)
    generator = torch.Generator(device="cpu").manual_seed(seed)
    size = min(count + _EXTRA, n, width)
    found = torch.randn((width, size), generator=generator, dtype=torch.float64, device="cpu")
    for _ in range(_PASSES):
        found = torch.linalg.qr(_covariance_times(matrix, mean, found)).Q
    small = found.T @ _covariance_times(matrix, mean, found)
    return found @ _largest((small + small.T) / 2, count)


def _axes_of_products(matrix: Matrix, mean: torch.Tensor, count: int) -> torch.Tensor:
    """The same from the products of few, wide rows, a slice of their numbers at a time."""
    n, width = len(matrix), matrix.width
    products = torch.zeros((n, n), dtype=torch.float64, device="cpu")
    step = max(1, (1 << 22) // n)

    def slices() -> Any:
        for start in range(0, width, step):
            part = slice(start, min(start + step, width))
            columns = torch.cat([piece[:, part] for piece in matrix.pieces]).double()
            yield part, columns - mean[part]

    for _, columns in slices():
        products.addmm_(columns, columns.T)
    weights = _largest(products, count)
    axes = torch.zeros((width, count), dtype=torch.float64, device="cpu")
    for part, columns in slices():
        axes[part] = columns.T @ weights
    norms: torch.Tensor = torch.linalg.vector_norm(axes, dim=0, keepdim=True)
    return axes / norms.masked_fill(norms == 0, 1)


def _largest(symmetric: torch.Tensor, count: int) -> torch.Tensor:
    """The eigenvectors of the largest eigenvalues, the largest first, as columns."""
    vectors: torch.Tensor = torch.linalg.eigh(symmetric).eigenvectors
    return vectors[:, -count:].flip(1)


def _covariance_times(matrix: Matrix, mean: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    found = torch.zeros_like(vectors)
    for _, block in matrix.blocks():
        centred = block.double() - mean
        found.addmm_(centred.T, centred @ vectors)
    return found


def all_neighbours(matrix: Matrix, k: int, metric: Metric) -> tuple[torch.Tensor, torch.Tensor]:
    """The k nearest rows to every row, itself among them: `[n, k]` distances and numbers."""
    parts = []
    for start in range(0, len(matrix), _QUERIES):
        rows = torch.arange(
            start, min(start + _QUERIES, len(matrix)), dtype=torch.int64, device="cpu"
        )
        parts.append(nearest(matrix.take(rows), matrix, k, metric))
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def umap_points(matrix: Matrix, metric: Metric, neighbours: int, seed: int) -> NDArray[np.float32]:
    """The layout of umap-learn over our exact neighbours; the same for the same seed.

    Raises:
        MissingExtraError: umap-learn is not installed.
        ValueError: there are too few photos.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of packages it imports
            import umap
    except ImportError as error:
        raise MissingExtraError("method 'umap'", "umap-learn", "umap") from error
    n = len(matrix)
    if n < 5:
        raise argument_error("method", "'pca' for fewer than 5 photos", "umap")
    k = min(neighbours, n - 1)
    distances, rows = all_neighbours(matrix, k, metric)
    _put_itself_first(distances, rows)
    data = np.concatenate([block.numpy() for _, block in matrix.blocks()])
    with warnings.catch_warnings():
        # It says that new photos cannot be placed later, and that one thread is used.
        warnings.simplefilter("ignore")
        layout = umap.UMAP(
            n_neighbors=k,
            random_state=seed,
            n_jobs=1,
            init="random" if n < 20 else "spectral",
            force_approximation_algorithm=True,  # else our neighbours are not used for small n
            precomputed_knn=(rows.numpy(), distances.float().numpy()),
        )
        found: NDArray[np.float32] = layout.fit_transform(data).astype(np.float32)
    return found


def _put_itself_first(distances: torch.Tensor, rows: torch.Tensor) -> None:
    """As umap-learn expects it, also where another photo is at distance 0; in place."""
    own = torch.arange(len(rows), dtype=torch.int64, device="cpu")
    place = (rows == own[:, None]).to(torch.int8).argmax(dim=1)
    rows[own, place] = rows[:, 0].clone()
    distances[own, place] = distances[:, 0].clone()
    rows[:, 0], distances[:, 0] = own, 0
