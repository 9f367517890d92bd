"""How far a photo is from others of its class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SMALLEST = 1e-6  # a distance of unit vectors below which they are the same


def distance_ratios(
    features: NDArray[np.float32], labels: NDArray[np.int64], *, neighbours: int
) -> NDArray[np.float32]:
    """Mean distance to the nearest others of its class, as a multiple of the class's median.

    Distances are Euclidean between vectors scaled to length 1, so they follow the cosine. The
    distance to the k nearest is a measure of outliers that needs neither clusters nor a shape of
    the class (Ramaswamy, Rastogi and Shim 2000; Angiulli and Pizzuti 2002 for the mean). A class is
    searched in blocks, never as an n × n matrix.

    Args:
        features: `[n, F]`, finite.
        labels: `[n]`, the class of each.
        neighbours: how many; all others where a class has fewer.

    Returns:
        `[n]`; 1 is the median of the class, NaN where a class has one photo only.
    """
    from sklearn.neighbors import NearestNeighbors

    found = np.full(len(features), np.nan, np.float32)
    for label in np.unique(labels):
        (members,) = np.nonzero(labels == label)
        if len(members) < 2:
            continue
        rows = features[members]
        unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        search = NearestNeighbors(n_neighbors=min(neighbours, len(members) - 1), algorithm="brute")
        distances, _ = search.fit(unit).kneighbors()  # of each to all others, not to itself
        means = distances.mean(axis=1)
        found[members] = means / max(float(np.median(means)), _SMALLEST)
    return found
