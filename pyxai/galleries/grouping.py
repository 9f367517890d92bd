"""Crops of a class that look alike to the network, put into clusters."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyxai._errors import argument_error, check_count
from pyxai.galleries.contents import ClassCrops


@dataclass(frozen=True)
class Grouping:
    """By what crops are clustered: a number, a threshold or a clusterer.

    Attributes:
        clusters: of Ward's clustering; fewer where there are fewer crops.
        distance_threshold: of Ward's clustering, in place of a number.
        clusterer: any clusterer in scikit-learn's conventions, in place of both.
        seed: for a clusterer whose random_state is None.
    """

    clusters: int = 9
    distance_threshold: float | None = None
    clusterer: Any = None
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "clusters", check_count("clusters", self.clusters))
        threshold = self.distance_threshold
        if self.clusterer is not None:
            if threshold is not None:
                raise argument_error("distance_threshold", "None beside a clusterer", threshold)
            if not callable(getattr(self.clusterer, "fit_predict", None)):
                expected = "a clusterer of scikit-learn, with fit_predict"
                raise argument_error("clusterer", expected, self.clusterer)
        elif threshold is not None and not (isinstance(threshold, (int, float)) and threshold > 0):
            raise argument_error("distance_threshold", "None or a number above 0", threshold)

    def __str__(self) -> str:
        if self.clusterer is not None:
            return " ".join(str(self.clusterer).split())[:80]
        if self.distance_threshold is not None:
            return f"Ward up to {self.distance_threshold:g}"
        return f"Ward, {self.clusters} clusters"

    def __call__(self, found: ClassCrops) -> ClassCrops:
        """The same crops with new clusters, the largest first, and a representative of each."""
        count = len(found.crops)
        labels, note = self._labels(found.features)
        numbers, sizes = np.unique(labels[labels >= 0], return_counts=True)
        first = {each: int(np.argmax(labels == each)) for each in numbers.tolist()}
        order = sorted(first, key=lambda each: (-sizes[numbers == each][0], first[each]))
        rank = {each: place for place, each in enumerate(order)}
        crops = tuple(
            replace(
                found.crops[place],
                cluster=rank.get(int(labels[place]), -1),
                representative=first.get(int(labels[place])) == place,
            )
            for place in range(count)
        )
        return replace(found, crops=crops, note=note)

    def _labels(self, features: NDArray[np.float32]) -> tuple[NDArray[np.int64], str]:
        """A label for each crop, and what is to be said about them."""
        count = len(features)
        if count < 2:  # clusterers want two
            return np.zeros(count, np.int64), "no crops" if count == 0 else "a single crop"
        clusterer, wanted = self._clusterer(count)
        labels = np.asarray(clusterer.fit_predict(features))
        if labels.shape != (count,) or labels.dtype.kind not in "iu":
            raise argument_error("clusterer", f"integer labels [{count}]", labels)
        note = f"{count} crops for {wanted} clusters" if wanted and wanted > count else ""
        return labels.astype(np.int64), note

    def _clusterer(self, count: int) -> tuple[Any, int | None]:
        """A clusterer that can deal with so many crops, and how many clusters were wanted."""
        if self.clusterer is None:
            from sklearn.cluster import AgglomerativeClustering

            if self.distance_threshold is not None:
                threshold = self.distance_threshold
                return AgglomerativeClustering(None, distance_threshold=threshold), None
            return AgglomerativeClustering(min(self.clusters, count)), self.clusters
        from sklearn.base import clone

        clusterer = clone(self.clusterer)
        parameters = clusterer.get_params()
        changes: dict[str, Any] = {}
        if parameters.get("random_state", 0) is None:
            changes["random_state"] = self.seed
        wanted = _whole(parameters.get("n_clusters"))
        if wanted is not None and wanted > count:
            changes["n_clusters"] = count
        return clusterer.set_params(**changes), wanted


def _whole(value: object) -> int | None:
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def silhouette(found: ClassCrops) -> float | None:
    """How well the clusters are apart, in [-1, 1]; None where it is not defined.

    The mean over crops of (b - a) / max(a, b): a is the mean distance to the crops of the same
    cluster, b to those of the nearest other one. Needs two clusters, and fewer than crops.
    """
    labels = np.array([crop.cluster for crop in found.crops], np.int64)
    clustered = labels >= 0
    count = len(np.unique(labels[clustered]))
    if not 2 <= count < clustered.sum():
        return None
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(found.features[clustered], labels[clustered]))
