"""Histograms of several groups over each other, without a plotting library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pyxai._errors import argument_error, check_count
from pyxai.draw.cells import cut

# Told apart by people who see colours differently (Okabe and Ito), and by their order.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARGIN, _LINE = 12, 16


def histogram(
    groups: Mapping[str, Any],
    *,
    bins: int = 40,
    title: str = "",
    percent: bool = False,
    line: float | None = None,
    size: tuple[int, int] = (640, 90),
) -> Image.Image:
    """One histogram for each group, below each other on the same axis.

    Heights are shares of the group, so that groups of different sizes compare.

    Args:
        groups: numbers `[n]` by name.
        bins: how many bars over the range of all numbers together.
        title: above all.
        percent: write numbers of the axis as percentages.
        line: a number to be marked, such as a threshold.
        size: width and height of each histogram in pixels, without names and axis.

    Returns:
        An RGB picture.

    Raises:
        ValueError: there is no number, one is not finite, or `bins` is below 1.
    """
    check_count("bins", bins)
    values = {name: np.asarray(each, np.float64).ravel() for name, each in groups.items()}
    together = np.concatenate(list(values.values())) if values else np.empty(0)
    if not len(together) or not np.isfinite(together).all():
        raise argument_error("groups", "groups of finite numbers", groups)
    if line is not None and not np.isfinite(line):
        line = None
    axis = _Axis(*_range(together, line, 0.02 if percent else 0.5), size[0], percent)
    edges = np.linspace(axis.low, axis.high, bins + 1)
    shares = {
        name: np.histogram(each, edges)[0] / max(len(each), 1) for name, each in values.items()
    }
    tallest = max(float(each.max()) for each in shares.values())
    width, height = size
    top = _MARGIN + (_LINE if title else 0)
    step = height + _LINE + 8
    page = Image.new("RGB", (width + 2 * _MARGIN, top + step * len(values) + 2 * _LINE), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    if title:
        pen.text((_MARGIN, 6), cut(title, width, font), "black", font)
    for row, (name, each) in enumerate(values.items()):
        base = top + row * step + _LINE + height
        color = _COLORS[row % len(_COLORS)]
        what = cut(_caption(name, each, axis), width, font)
        pen.text((_MARGIN, base - height - _LINE), what, color, font)
        for place, share in enumerate(shares[name]):
            if share > 0:
                left, right = round(axis.x(edges[place])), round(axis.x(edges[place + 1])) - 1
                tall = max(1, round(share / tallest * (height - 2)))
                pen.rectangle((left, base - tall, max(left, right), base), color)
        pen.line((_MARGIN, base, _MARGIN + width, base), "#888888")
        if line is not None:
            pen.line((axis.x(line), base - height, axis.x(line), base), "black")
    axis.draw(pen, top + step * len(values))
    return page


@dataclass(frozen=True)
class _Axis:
    """The numbers from `low` to `high` on `width` pixels right of the margin."""

    low: float
    high: float
    width: int
    percent: bool

    def x(self, value: float) -> float:
        return _MARGIN + (value - self.low) / (self.high - self.low) * self.width

    def text(self, value: float) -> str:
        return f"{value:.1%}" if self.percent else f"{value:.4g}"

    def draw(self, pen: ImageDraw.ImageDraw, y: float) -> None:
        """Writes five numbers below the bars."""
        font = ImageFont.load_default(11)
        for place in range(5):
            value = self.low + place / 4 * (self.high - self.low)
            word = self.text(value)
            length = font.getlength(word)
            last = self.width + 2 * _MARGIN - length - 2
            pen.text((min(max(self.x(value) - length / 2, 2), last), y), word, "black", font)


def _range(together: NDArray[np.float64], line: float | None, margin: float) -> tuple[float, float]:
    """From the smallest number to the largest, with the line; with margins where all are equal."""
    low, high = float(together.min()), float(together.max())
    if line is not None:
        low, high = min(low, line), max(high, line)
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        low, high = low - margin, high + margin
    return low, high


def _caption(name: str, numbers: NDArray[np.float64], axis: _Axis) -> str:
    what = f"{name}: {len(numbers)}"
    if len(numbers):
        what += f", {axis.text(float(numbers.min()))} to {axis.text(float(numbers.max()))}"
        what += f", median {axis.text(float(np.median(numbers)))}"
    return what
