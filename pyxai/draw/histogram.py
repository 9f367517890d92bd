"""Histograms of several groups over each other, without a plotting library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pyxai._errors import argument_error, check_count

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
    low, high = float(together.min()), float(together.max())
    if line is not None and np.isfinite(line):
        low, high = min(low, line), max(high, line)
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, bins + 1)
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
        pen.text((_MARGIN, 6), title, "black", font)

    def across(value: float) -> float:
        return _MARGIN + (value - low) / (high - low) * width

    def text(value: float) -> str:
        return f"{value:.1%}" if percent else f"{value:.4g}"

    for row, (name, each) in enumerate(values.items()):
        base = top + row * step + _LINE + height
        color = _COLORS[row % len(_COLORS)]
        what = f"{name}: {len(each)}"
        if len(each):
            what += f", {text(float(each.min()))} to {text(float(each.max()))}"
            what += f", median {text(float(np.median(each)))}"
        pen.text((_MARGIN, base - height - _LINE), what, color, font)
        for place, share in enumerate(shares[name]):
            if share > 0:
                left, right = round(across(edges[place])), round(across(edges[place + 1])) - 1
                tall = max(1, round(share / tallest * (height - 2)))
                pen.rectangle((left, base - tall, max(left, right), base), color)
        pen.line((_MARGIN, base, _MARGIN + width, base), "#888888")
        if line is not None and np.isfinite(line):
            pen.line((across(line), base - height, across(line), base), "black")
    axis = top + step * len(values)
    for place in range(5):
        value = low + place / 4 * (high - low)
        word = text(value)
        length = font.getlength(word)
        x = min(max(across(value) - length / 2, 2), page.width - length - 2)
        pen.text((x, axis), word, "black", font)
    return page
