"""A confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pyxai._errors import argument_error
from pyxai.draw.cells import cut, legible

_GAP, _LINE, _TEXT = 8, 16, 12
_NAMES = 160  # pixels for the names, at most
_NUMBERED = 24  # classes of which each cell has its number
_WIDEST = 2400  # pixels of the cells together
_DARK = (0, 90, 160)


def confusion_figure(counts: Any, names: Sequence[str], *, title: str) -> Image.Image:
    """Rows are the classes that photos are of, columns those that they were taken for.

    The color of a cell is its share of the row; up to 24 classes it has its number too, and names
    stand at both sides.

    Args:
        counts: `[K, K]` integers.
        names: K of them.
        title: above all.

    Raises:
        ValueError: there is no class, or shape and names do not fit.
    """
    table: NDArray[np.int64] = np.asarray(counts, np.int64)
    count = len(names)
    if not count or table.shape != (count, count):
        raise argument_error("counts", f"[{count}, {count}] integers, at least one", table)
    numbered = count <= _NUMBERED
    cell = 44 if numbered else max(1, min(20, _WIDEST // count))
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    pen_font = ImageFont.load_default(_TEXT)
    longest = max(round(pen_font.getlength(each)) for each in map(legible, names)) + 2 * _GAP
    above = min(_NAMES, longest) if numbered else 0
    left, top = _GAP + (above or _LINE), _GAP + 2 * _LINE
    side = count * cell
    width = max(left + side + _GAP, 420)
    page = Image.new("RGB", (width, top + above + side + 2 * _GAP), "white")
    pen = ImageDraw.Draw(page)
    pen.text((_GAP, _GAP - 3), cut(title, width - 2 * _GAP, pen_font), "black", pen_font)
    axes = "rows: the class of the photo; columns: what it was taken for"
    pen.text((_GAP, _GAP + _LINE - 3), axes, "#444444", pen_font)
    for row, column in np.argwhere(table > 0).tolist():
        share = shares[row, column]
        color = tuple(round(255 - share * (255 - dark)) for dark in _DARK)
        x, y = left + column * cell, top + above + row * cell
        pen.rectangle((x, y, x + cell - 1, y + cell - 1), color)
        if numbered:
            word = str(table[row, column])
            ink = "white" if share > 0.5 else "black"
            middle = (x + cell / 2, y + cell / 2)
            pen.text(middle, word, ink, pen_font, anchor="mm")
    if numbered:
        _names(page, names, cell, (left, top + above), above)
    pen.rectangle((left - 1, top + above - 1, left + side, top + above + side), outline="#999999")
    return page


def _names(
    page: Image.Image, names: Sequence[str], cell: int, corner: tuple[int, int], room: int
) -> None:
    """Writes the names left of the rows and, from bottom to top, above the columns."""
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(_TEXT)
    for number, name in enumerate(names):
        shown = cut(name, room - _GAP, font)
        y = corner[1] + number * cell + cell / 2
        pen.text((corner[0] - _GAP, y), shown, "black", font, anchor="rm")
        upright = Image.new("RGB", (room - _GAP, cell), "white")
        ImageDraw.Draw(upright).text((0, cell / 2), shown, "black", font, anchor="lm")
        turned = upright.rotate(90, expand=True)
        page.paste(turned, (corner[0] + number * cell, corner[1] - room + _GAP - 2))
