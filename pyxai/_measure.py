"""A number with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A number with its interval.

    Attributes:
        value: on the images as they are.
        low: the lower end of the interval, NaN without bootstrap.
        high: the upper end.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.value:.4f}"
        return f"{self.value:.4f} ({self.low:.4f} - {self.high:.4f})"

    def percent(self) -> str:
        """The same in per cent, with one decimal; "–" where there is nothing to measure."""
        if math.isnan(self.value):
            return "–"
        if math.isnan(self.low):
            return f"{100 * self.value:.1f}"
        return f"{100 * self.value:.1f} ({100 * self.low:.1f}-{100 * self.high:.1f})"

    def to_dict(self) -> dict[str, float | None]:
        """For JSON: value, low and high, None where there is no interval."""
        pairs = {"value": self.value, "low": self.low, "high": self.high}
        return {name: None if math.isnan(each) else each for name, each in pairs.items()}
