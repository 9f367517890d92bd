"""What the SHAP values of many photos say about one class: numbers with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyxai._measure import Measure
from pyxai.attribution.shap.summary.photos import PhotoEvidence

Array = NDArray[np.float64]

_LISTED = 5  # typical and deviating photos in the report


@dataclass(frozen=True, eq=False)
class ClassSummary:
    """The photos that were explained for one class.

    Attributes:
        index: the class.
        name: its name.
        photos: what was found on each, in order.
        mean: of the values of each cell, `[rows, columns]` float64.
        low: the lower end of its interval (Student's t), NaN for a single photo.
        high: the upper end.
        mean_absolute: of the absolute values.
        speaks_for: the sum of the positive cells of a photo, mean with interval.
        speaks_against: of the negative cells.
        frame: the share of `speaks_for` in the outermost cells; photos without any are left out.
        corners: the same in the four corners, a quarter of rows and columns each.
        agreement: how alike the photos' cells are, the mean of `similarity`: near 1 where positions
            repeat from photo to photo, near 0 where they do not, and the mean map says little.
        similarity: of each photo, the cosine of its cells with the mean of all others; NaN where
            there is no other.
        accuracy: the share of the photos whose top class this is.
    """

    index: int
    name: str
    photos: tuple[PhotoEvidence, ...]
    mean: Array
    low: Array
    high: Array
    mean_absolute: Array
    speaks_for: Measure
    speaks_against: Measure
    frame: Measure
    corners: Measure
    agreement: float
    similarity: Array
    accuracy: float

    def typical(self, count: int) -> list[PhotoEvidence]:
        """Photos that are most like the others, the most alike first."""
        return [self.photos[place] for place in self._order()[:count]]

    def deviating(self, count: int) -> list[PhotoEvidence]:
        """Photos that are least like the others, the least alike first."""
        return [self.photos[place] for place in self._order()[::-1][:count]]

    def _order(self) -> list[int]:
        places = [each for each in range(len(self.photos)) if not np.isnan(self.similarity[each])]
        return sorted(places, key=lambda each: -self.similarity[each])

    def to_dict(self) -> dict[str, Any]:
        """All of it for JSON, but the single photos."""
        names = ("speaks_for", "speaks_against", "frame", "corners")
        arrays = ("mean", "low", "high", "mean_absolute")
        return {
            "index": self.index,
            "photos": len(self.photos),
            "accuracy": self.accuracy,
            **{name: _numbers(getattr(self, name)) for name in names},
            "agreement": None if math.isnan(self.agreement) else self.agreement,
            "relative_gap": relative_gaps(self.photos, "additivity_gap"),
            "relative_sampling_gap": relative_gaps(self.photos, "sampling_gap"),
            **{name: _rows(getattr(self, name)) for name in arrays},
            "typical": [photo.name for photo in self.typical(_LISTED)],
            "deviating": [photo.name for photo in self.deviating(_LISTED)],
        }


def class_summary(
    index: int,
    name: str,
    photos: Sequence[PhotoEvidence],
    grid: tuple[int, int],
    confidence: float,
) -> ClassSummary:
    """Sums up photos that were explained for one class.

    Args:
        index: the class.
        name: its name.
        photos: at least one.
        grid: rows and columns.
        confidence: of the intervals.
    """
    cells = np.array([photo.regions for photo in photos], np.float64).reshape(-1, *grid)
    positive = cells.clip(min=0)
    mean, low, high = mean_of(cells, confidence)
    similarity = _similarity(cells.reshape(len(cells), -1))

    def measure(values: Array) -> Measure:
        return Measure(*(float(each) for each in mean_of(values, confidence)))

    frame, corners = (
        measure(np.array([share_of(each, where) for each in positive]))
        for where in frame_and_corners(grid)
    )
    known = similarity[~np.isnan(similarity)]
    return ClassSummary(
        index=index,
        name=name,
        photos=tuple(photos),
        mean=mean,
        low=low,
        high=high,
        mean_absolute=np.abs(cells).mean(axis=0),
        speaks_for=measure(positive.sum(axis=(1, 2))),
        speaks_against=measure(cells.clip(max=0).sum(axis=(1, 2))),
        frame=frame,
        corners=corners,
        agreement=float(known.mean()) if len(known) else math.nan,
        similarity=similarity,
        accuracy=float(np.mean([photo.predicted == index for photo in photos])),
    )


def share_of(positive: Array, where: NDArray[np.bool_]) -> float:
    """The share of what speaks for a class that lies in some cells; NaN where nothing does."""
    total = positive.sum()
    return float(positive[where].sum() / total) if total > 0 else math.nan


def _similarity(cells: Array) -> Array:
    """The cosine of each row with the mean of the others, `[n]`; NaN where one of them is 0."""
    others = cells.sum(axis=0) - cells
    lengths = np.linalg.norm(cells, axis=1) * np.linalg.norm(others, axis=1)
    products = (cells * others).sum(axis=1)
    found: Array = np.full(len(cells), np.nan)
    if len(cells) > 1:
        np.divide(products, lengths, out=found, where=lengths > 0)
    return found


def frame_and_corners(grid: tuple[int, int]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which cells are outermost, and which are in the corners, `[rows, columns]` each."""
    frame: NDArray[np.bool_] = np.ones(grid, bool)
    frame[1:-1, 1:-1] = False
    ends = []
    for count in grid:
        end: NDArray[np.bool_] = np.zeros(count, bool)
        side = max(1, count // 4)
        end[:side] = end[-side:] = True
        ends.append(end)
    return frame, ends[0][:, None] & ends[1][None]


def mean_of(values: Array, confidence: float) -> tuple[Array, Array, Array]:
    """Means of columns `[n, ...]` without NaN, and the ends of their intervals by Student's t."""
    from scipy.stats import t  # comes with scikit-learn

    count = (~np.isnan(values)).sum(axis=0)
    sums = np.nansum(values, axis=0)
    mean = np.divide(sums, count, out=np.full(sums.shape, np.nan), where=count > 0)
    squares = np.nansum((values - mean) ** 2, axis=0)
    freedom = np.maximum(count - 1, 1)
    reach = t.ppf((1 + confidence) / 2, freedom) * np.sqrt(squares / freedom / np.maximum(count, 1))
    reach = np.where(count > 1, reach, np.nan)
    return mean, mean - reach, mean + reach


def relative_gaps(photos: Sequence[PhotoEvidence], name: str) -> dict[str, float]:
    """Median and largest gap as shares of |output - base value|."""
    changes = np.abs([photo.output - photo.base_value for photo in photos])
    gaps = np.abs([getattr(photo, name) for photo in photos])
    shares = gaps / np.maximum(changes, 1e-12)
    return {"median": float(np.median(shares)), "most": float(shares.max())}


def _numbers(measure: Measure) -> dict[str, float | None] | None:
    return None if math.isnan(measure.value) else measure.to_dict()


def _rows(values: Array) -> list[list[float | None]]:
    return [[None if math.isnan(each) else each for each in row] for row in values.tolist()]
