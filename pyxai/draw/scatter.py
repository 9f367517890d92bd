"""Points on a plane, colored by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pyxai._errors import argument_error
from pyxai.draw.cells import cut

# Of Okabe and Ito, told apart by people who see colors differently.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
_OTHER = "#bbbbbb"
_GAP, _LINE, _TEXT = 10, 18, 12
_LEGEND = 200


def scatter(
    points: Any,
    labels: Sequence[str | None],
    *,
    title: str,
    axes: tuple[str, str],
    side: int = 560,
) -> Image.Image:
    """A dot a point, in the color of its class; the eight largest classes have one.

    Args:
        points: `[n, 2]`, finite.
        labels: n of them, None for no class.
        title: above all.
        axes: what the points' two numbers are.
        side: of the square, in pixels.

    Raises:
        ValueError: points and labels do not fit each other.
    """
    found: NDArray[np.float64] = np.asarray(points, np.float64)
    if found.ndim != 2 or found.shape != (len(labels), 2) or not np.isfinite(found).all():
        raise argument_error("points", f"[{len(labels)}, 2] finite numbers", found)
    sizes = Counter(label for label in labels if label is not None)
    colors = dict(zip((name for name, _ in sizes.most_common()), _COLORS, strict=False))
    width, top = _GAP + side + _GAP + _LEGEND, _GAP + _LINE
    page = Image.new("RGB", (width, top + side + 2 * _LINE + _GAP), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(_TEXT)
    pen.text((_GAP, _GAP - 3), cut(title, width - 2 * _GAP, font), "black", font)
    pen.rectangle((_GAP, top, _GAP + side, top + side), outline="#999999")
    low = found.min(axis=0) if len(found) else np.zeros(2)
    reach = np.maximum(found.max(axis=0) - low, 1e-12) if len(found) else np.ones(2)
    room = side - 2 * _GAP
    radius = 3 if len(found) <= 2000 else 1
    for (x, y), label in zip((found - low) / reach, labels, strict=True):
        at = (2 * _GAP + x * room, top + side - _GAP - y * room)  # up is larger
        box = (at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius)
        pen.ellipse(box, fill=colors.get(label or "", _OTHER))
    pen.text((_GAP, top + side + 4), cut(f"across: {axes[0]}", side, font), "#444444", font)
    pen.text((_GAP, top + side + _LINE + 4), cut(f"up: {axes[1]}", side, font), "#444444", font)
    listed = [(color, f"{name} ({sizes[name]})") for name, color in colors.items()]
    rest = len(found) - sum(sizes[name] for name in colors)
    if rest:
        listed.append((_OTHER, f"others ({rest})" if colors else f"photos ({rest})"))
    for number, (color, name) in enumerate(listed):
        x, y = _GAP + side + _GAP, top + number * _LINE
        pen.ellipse((x, y + 4, x + 8, y + 12), fill=color)
        pen.text((x + 14, y), cut(name, _LEGEND - 14 - _GAP, font), "black", font)
    return page
