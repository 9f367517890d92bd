"""Ward's clustering of many features: agglomerative, from distances by matrix products.

This module imports scikit-learn, so `import pyxai` must not import it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_array
from torch.nn import functional

from pyxai._errors import argument_error, check_count

_BLOCK = 512  # a tile of distances and its copy fit in the cache
_GROUPS = 2000  # of more samples than max_exact


class WardClustering(ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """Agglomerative clustering that merges, again and again, what adds least to the variance.

    The tree and the labels of `sklearn.cluster.AgglomerativeClustering(linkage="ward")`, but for
    their numbers, in a fraction of the time. Samples so close to each other (1e-7 of the largest
    distance from the mean, or less) that only rounding tells them apart count as equal. Equal
    distances may be merged in another order than scikit-learn's.

    It needs 4 · n² bytes (1.6 GB for 20,000 samples). More than `max_exact` samples are first put
    into 2,000 groups or more by k-means, and the means of the groups, weighted by their sizes, are
    merged: no n × n matrix, close to the exact labels but not equal; see docs/clustering.md.

    Attributes:
        labels_: `[n]` int64, clusters numbered in the order of their first samples.
        n_clusters_: how many clusters there are; fewer than asked for only where there are fewer
            groups, because most samples are equal.
        children_: `[n_leaves_ - 1, 2]` int64, what each merge joined, in order of height: leaves
            are 0 … n_leaves_ - 1, merge i makes node n_leaves_ + i.
        distances_: `[n_leaves_ - 1]` float64, the height of each merge, to about six digits: for
            parts of a and b samples √(2ab / (a + b)) times the distance of their means.
        n_leaves_: n, or the number of groups.
        leaves_: `[n]` int64, the leaf that each sample belongs to.
        n_features_in_: C.

    Source: Ward, "Hierarchical grouping to optimize an objective function" (1963); found by chains
    of nearest neighbours, Murtagh, "A survey of recent advances in hierarchical clustering
    algorithms" (1983).
    """

    def __init__(
        self,
        n_clusters: int | None = None,
        *,
        distance_threshold: float | None = None,
        max_exact: int = 20_000,
    ) -> None:
        """Keeps the parameters; `fit` checks them.

        Args:
            n_clusters: how many clusters; or
            distance_threshold: merges of this height or more are not made. Exactly one of both.
            max_exact: with more samples than this, groups of them are clustered.
        """
        self.n_clusters = n_clusters
        self.distance_threshold = distance_threshold
        self.max_exact = max_exact

    def fit(self, X: Any, y: object = None) -> WardClustering:
        """Clusters samples.

        Args:
            X: finite numbers `[n, C]`, taken as float64.
            y: ignored; scikit-learn's convention.

        Returns:
            Itself.

        Raises:
            ValueError: not exactly one of `n_clusters` and `distance_threshold` is set, there are
                more clusters than samples, or X is empty, not of two axes or not finite.
        """
        samples = check_array(X, dtype=[np.float32, np.float64])
        count, self.n_features_in_ = samples.shape
        clusters, threshold = self._clusters_or_threshold(count)
        if count <= self.max_exact:
            self.leaves_, means, sizes = np.arange(count), samples, np.ones(count)
        else:
            groups = min(self.max_exact, max(_GROUPS, 10 * (clusters or 0)))
            self.leaves_, means, sizes = _groups(samples, groups)
        self.children_, self.distances_ = _ward_tree(means, sizes)
        self.n_leaves_ = len(means)
        if clusters is None:
            clusters = int((self.distances_ >= threshold).sum()) + 1
        self.n_clusters_ = min(clusters, self.n_leaves_)
        self.labels_ = _in_order(_cut(self.children_, self.n_clusters_)[self.leaves_])
        return self

    def _clusters_or_threshold(self, count: int) -> tuple[int | None, float]:
        """The number of clusters of so many samples, or None and the threshold; checked."""
        clusters: Any = self.n_clusters
        threshold = self.distance_threshold
        if (clusters is None) == (threshold is None):
            got = f"{clusters} and {threshold}"
            raise ValueError(f"n_clusters, distance_threshold: expected exactly one, got {got}")
        max_exact = check_count("max_exact", self.max_exact)
        if threshold is not None:
            if not threshold >= 0:
                raise argument_error("distance_threshold", "0 or more", threshold)
            return None, threshold
        clusters = check_count("n_clusters", clusters)
        if clusters > count:
            raise argument_error("n_clusters", f"at most the {count} samples", clusters)
        if clusters > max_exact:
            expected = f"at most max_exact, {max_exact}, for {count} samples"
            raise argument_error("n_clusters", expected, clusters)
        return clusters, math.inf


def _groups(samples: NDArray[Any], count: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The group of each sample, and the mean and size of each group, by k-means."""
    from sklearn.cluster import MiniBatchKMeans

    # Samples drawn at random are good enough a start for so many groups; k-means++ takes longer
    # than all the rest.
    means = MiniBatchKMeans(count, init="random", n_init=1, batch_size=4096, random_state=0)
    found, groups = np.unique(means.fit_predict(samples), return_inverse=True)
    sizes = np.bincount(groups)
    sums = np.zeros((len(found), samples.shape[1]))
    np.add.at(sums, groups, samples)
    return groups, sums / sizes[:, None], sizes.astype(np.float64)


def _ward_tree(
    samples: NDArray[Any], sizes: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """All merges of weighted samples, in order of height, as (children, heights)."""
    squares, scale = _squared_heights(samples, sizes)
    first, second, merged = _chain(squares, sizes)
    order = np.argsort(merged, kind="stable")
    children = _numbered(first[order], second[order])
    return children, np.sqrt(merged[order]) * scale


def _squared_heights(
    samples: NDArray[Any], sizes: NDArray[np.float64]
) -> tuple[NDArray[np.float32], float]:
    """The squared heights of merging any two, `[n, n]`, and the unit of the heights.

    Products in float64 about the mean: a small distance is the difference of large numbers.
    """
    about_mean = torch.from_numpy(samples.astype(np.float64))
    about_mean -= about_mean.mean(0)
    unit = float(about_mean.abs().max()) or 1.0
    about_mean /= unit
    norms = about_mean.square().sum(1)
    noise = 1e-14 * float(norms.max())
    weights = torch.from_numpy(sizes)
    weighted = bool((sizes != 1).any())
    # From numpy, which asks for large pages; touching new memory costs as much as the products.
    result = torch.from_numpy(np.empty((len(samples), len(samples)), np.float32))
    starts = range(0, len(samples), _BLOCK)
    for top in starts:
        rows = slice(top, top + _BLOCK)
        for left in starts[top // _BLOCK :]:
            columns = slice(left, left + _BLOCK)
            tile = torch.addmm(norms[columns], about_mean[rows], about_mean[columns].T, alpha=-2)
            tile += norms[rows, None]
            tile = functional.threshold(tile, noise, 0.0, inplace=True)
            if weighted:
                tile *= 2 * weights[rows, None] * weights[columns]
                tile /= weights[rows, None] + weights[columns]
            result[rows, columns] = tile
            result[columns, rows] = tile.T
    return result.numpy(), unit


def _chain(
    squares: NDArray[np.float32], sizes: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The n - 1 merges, each by one sample of both parts and the squared height; in any order.

    Follows nearest neighbours until two are each other's, and merges these: with Ward's heights no
    later merge comes between them. `squares` is used up. Once a third of the parts is gone, those
    that are left move together.
    """
    count = len(squares)
    first, second = np.empty(count - 1, np.int64), np.empty(count - 1, np.int64)
    heights = np.empty(count - 1)
    sizes, sample = sizes.copy(), np.arange(count)  # of the part in each row
    gone = np.zeros(count, np.float32)  # infinite for parts that were merged into another
    np.fill_diagonal(squares, np.inf)
    chain: list[int] = []
    for merge in range(count - 1):
        if not chain:
            chain = [int(gone.argmin())]
        while True:
            row = squares[chain[-1]] + gone
            nearest = int(row.argmin())
            if len(chain) > 1 and row[chain[-2]] <= row[nearest]:
                break
            chain.append(nearest)
        a, b = chain.pop(), chain.pop()
        height, a_size, b_size = float(squares[a, b]), sizes[a], sizes[b]
        first[merge], second[merge], heights[merge] = sample[a], sample[b], height
        # Lance and Williams: the height at which every other part merges with both together.
        joined = (sizes + a_size) * squares[a] + (sizes + b_size) * squares[b] - sizes * height
        joined /= sizes + (a_size + b_size)
        squares[b] = squares[:, b] = joined
        sizes[b] += a_size
        gone[a] = np.inf
        left = count - 1 - merge
        if left < 0.7 * len(squares):
            kept = np.flatnonzero(gone == 0)
            squares = _compacted(squares, kept)
            chain = np.searchsorted(kept, chain).tolist()
            sizes, sample, gone = sizes[kept], sample[kept], gone[kept]
    return first, second, heights


def _compacted(squares: NDArray[np.float32], kept: NDArray[np.int64]) -> NDArray[np.float32]:
    """The kept rows and columns of a square matrix, in its own memory."""
    result = squares.reshape(-1)[: len(kept) ** 2].reshape(len(kept), len(kept))
    for row, source in enumerate(kept):  # a row moves up, or stays: no source is lost
        result[row] = squares[source, kept]
    return result


def _numbered(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Merges of parts given by one sample each as merges of nodes, the smaller number first."""
    count = len(first) + 1
    parent = list(range(2 * count - 1))

    def node_of(sample: int) -> int:
        node = sample
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]  # halves the way for those to come
        return node

    children = np.empty((count - 1, 2), np.int64)
    for merge, pair in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        nodes = sorted(map(node_of, pair))
        children[merge] = nodes
        for node in nodes:
            parent[node] = count + merge
    return children


def _cut(children: NDArray[np.int64], clusters: int) -> NDArray[np.int64]:
    """A cluster for each leaf: the tree without its last `clusters` - 1 merges."""
    leaves = len(children) + 1
    cluster_of = np.arange(2 * leaves - 1)
    for merge in reversed(range(leaves - clusters)):
        cluster_of[children[merge]] = cluster_of[leaves + merge]
    return cluster_of[:leaves]


def _in_order(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same labels, numbered 0, 1, … in the order in which they first occur."""
    _, places, labels = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(places))[labels]
