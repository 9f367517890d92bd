"""Photos as points on a plane: principal components, or UMAP of our neighbours."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pyxai._errors import MissingExtraError, argument_error
from pyxai._results import Rows, Table, plain
from pyxai.draw.scatter import scatter
from pyxai.neighbors.distances import Metric
from pyxai.neighbors.nearest import Matrix, nearest

_AT_ONCE = 1 << 26  # numbers that are decomposed at once, in float64: 512 MiB
_BATCH, _FEWEST, _KEPT = 1 << 22, 64, 256  # beyond: numbers of a batch, rows, directions kept
_QUERIES = 256


@dataclass(frozen=True, eq=False, repr=False)
class Projection(Table):
    """A map of the photos of an index.

    Attributes:
        points: `[n, 2]` float32, in the order of the ids.
        method: "pca" or "umap".
        layer: whose features.
        explained: for PCA the shares of the variance along the two axes, otherwise None.
        paths: of the photos.
        labels: their classes, or None.
    """

    points: NDArray[np.float32]
    method: str
    layer: str
    explained: tuple[float, float] | None
    paths: tuple[str, ...]
    labels: tuple[str | None, ...]

    def _facts(self) -> str:
        return f"{len(self)} photos by {self.method} of {self.layer}"

    def __len__(self) -> int:
        return len(self.points)

    def to_dict(self) -> dict[str, Any]:
        """How the map was made, and each photo's place on it."""
        columns, rows = self._table()
        return {
            "method": self.method,
            "layer": self.layer,
            "explained": plain(self.explained),
            "photos": [dict(zip(columns, plain(row), strict=True)) for row in rows],
        }

    def figure(self) -> Image.Image:
        """The photos as dots in the colors of their classes."""
        names = ["UMAP 1, without a unit", "UMAP 2, without a unit"]
        if self.explained is not None:
            names = [
                f"principal component {number}, {share:.1%} of the variance"
                for number, share in enumerate(self.explained, 1)
            ]
        title = f"{len(self)} photos by {self.method} of the features of {self.layer}"
        return scatter(self.points, self.labels, title=title, axes=(names[0], names[1]))

    def _table(self) -> Rows:
        places = self.points.tolist()
        rows = [
            (number, path, label, *place)
            for number, (path, label, place) in enumerate(
                zip(self.paths, self.labels, places, strict=True)
            )
        ]
        return ("id", "path", "label", "x", "y"), rows


def principal_components(
    matrix: Matrix, count: int = 2, *, seed: int = 0
) -> tuple[NDArray[np.float32], tuple[float, ...]]:
    """Coordinates of the rows along the directions of largest variance, by scikit-learn.

    Up to 2^26 numbers `PCA` takes all rows at once. More are read in batches by `IncrementalPCA`,
    which keeps up to 256 directions on the way, so that the first ones come out nearly exact. Of
    the two signs of an axis, that is taken whose largest weight is positive.

    Returns:
        `[n, count]`, and the share of the variance along each.
    """
    n, width = len(matrix), matrix.width
    points, shares = np.zeros((n, count), np.float32), np.zeros(count)
    few = min(count, n, width)
    if n > 1:
        with np.errstate(invalid="ignore"):  # shares of no variance at all are 0 / 0
            found = _decomposed(matrix, few, seed)
        axes = found.components_[:few].T
        for first, block in matrix.blocks():
            centered = block.double().numpy() - found.mean_
            points[first : first + len(block), :few] = centered @ axes
        shares[:few] = np.nan_to_num(found.explained_variance_ratio_[:few])
    return points, tuple(shares.tolist())


def _decomposed(matrix: Matrix, count: int, seed: int) -> Any:
    """scikit-learn's decomposition of the rows, with `count` components or more."""
    from sklearn.decomposition import PCA, IncrementalPCA
    from sklearn.utils import gen_batches

    n, width = len(matrix), matrix.width
    if n * width <= _AT_ONCE:
        rows = torch.cat([block.double() for _, block in matrix.blocks()])
        return PCA(count, copy=False, random_state=seed).fit(rows.numpy())
    size = max(_FEWEST, _BATCH // width)
    kept = max(count, min(_KEPT, size // 2, n, width))
    found = IncrementalPCA(kept, copy=False)
    for part in gen_batches(n, size, min_batch_size=kept):
        rows = matrix.take(torch.arange(part.start, part.stop, dtype=torch.int64, device="cpu"))
        found.partial_fit(rows.numpy(), check_input=False)
    return found


def all_neighbors(matrix: Matrix, k: int, metric: Metric) -> tuple[torch.Tensor, torch.Tensor]:
    """The k nearest rows to every row, itself among them: `[n, k]` distances and numbers."""
    parts = []
    for start in range(0, len(matrix), _QUERIES):
        rows = torch.arange(
            start, min(start + _QUERIES, len(matrix)), dtype=torch.int64, device="cpu"
        )
        parts.append(nearest(matrix.take(rows), matrix, k, metric))
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def umap_points(matrix: Matrix, metric: Metric, neighbors: int, seed: int) -> NDArray[np.float32]:
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
    k = min(neighbors, n - 1)
    distances, rows = all_neighbors(matrix, k, metric)
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
