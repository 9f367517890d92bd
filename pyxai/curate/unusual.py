"""How far a photo is from others of its class."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from pyxai.neighbors.distances import Metric
from pyxai.neighbors.nearest import Matrix, nearest

_SMALLEST = 1e-6  # a distance of unit vectors below which they are the same


def distance_ratios(
    features: NDArray[np.float32], labels: NDArray[np.int64], *, n_neighbors: int
) -> NDArray[np.float32]:
    """Mean distance to the nearest others of its class, as a multiple of the class's median.

    Distances are Euclidean between vectors scaled to length 1, so they follow the cosine. The
    distance to the k nearest is a measure of outliers that needs neither clusters nor a shape of
    the class (Ramaswamy, Rastogi and Shim 2000; Angiulli and Pizzuti 2002 for the mean). A class is
    searched in blocks, never as an n × n matrix.

    Args:
        features: `[n, F]`, finite.
        labels: `[n]`, the class of each.
        n_neighbors: how many; all others where a class has fewer.

    Returns:
        `[n]`; 1 is the median of the class, NaN where a class has one photo only.
    """
    found = np.full(len(features), np.nan, np.float32)
    for label in np.unique(labels):
        (members,) = np.nonzero(labels == label)
        if len(members) < 2:
            continue
        unit = functional.normalize(torch.from_numpy(features[members]), dim=1)
        means = _mean_distances(unit, min(n_neighbors, len(members) - 1))
        found[members] = means / max(float(np.median(means)), _SMALLEST)
    return found


def _mean_distances(rows: torch.Tensor, count: int) -> NDArray[np.float64]:
    """Of each row to so many others that are nearest, itself left out."""
    distances, places = nearest(rows, Matrix([rows]), count + 1, Metric("euclidean"))
    # Among many equal rows the row itself may be beyond the k + 1 found; then the last is one more.
    itself = places == torch.arange(len(rows), dtype=torch.int64, device="cpu")[:, None]
    itself[~itself.any(dim=1), -1] = True
    means: NDArray[np.float64] = (distances.masked_fill(itself, 0).sum(dim=1) / count).numpy()
    return means
