"""Numbers with intervals as horizontal bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from pyxai._errors import argument_error
from pyxai.draw.cells import cut

_GAP, _ROW, _TEXT, _TITLE = 8, 22, 12, 20
_NAMES, _BARS, _NUMBERS = 260, 420, 190  # pixels of the three columns
_COLOR, _GROUND = "#56B4E9", "#eeeeee"


class Bar(NamedTuple):
    """One bar.

    Attributes:
        name: left of it.
        value: its length; NaN draws none.
        low: the lower end of the interval, NaN without one.
        high: the upper end.
    """

    name: str
    value: float
    low: float = math.nan
    high: float = math.nan


def bars(
    rows: Sequence[Bar],
    *,
    title: str,
    most: float = 1.0,
    form: str = ".3f",
    notes: Sequence[str] = (),
) -> Image.Image:
    """One bar a row: the name, the bar with its interval, the numbers.

    Args:
        rows: at least one; values from 0 on.
        title: above all.
        most: the value of a bar over the whole width.
        form: of the numbers, as in `format`.
        notes: lines below.

    Raises:
        ValueError: there is no row, or `most` is not above 0.
    """
    if not rows:
        raise argument_error("rows", "at least one bar", rows)
    if not most > 0:
        raise argument_error("most", "a number above 0", most)
    width = _NAMES + _BARS + _NUMBERS + 3 * _GAP
    height = _TITLE + len(rows) * _ROW + len(notes) * _TITLE + 3 * _GAP
    page = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(_TEXT)
    pen.text((_GAP, _GAP - 2), cut(title, width - 2 * _GAP, font), "black", font)
    left = _NAMES + 2 * _GAP

    def across(value: float) -> float:
        return left + min(max(value / most, 0), 1) * _BARS

    for number, row in enumerate(rows):
        y = _GAP + _TITLE + number * _ROW
        middle = y + _ROW / 2 - 2
        pen.text((_GAP, y), cut(row.name, _NAMES, font), "black", font)
        pen.rectangle((left, y, left + _BARS, y + _ROW - 5), _GROUND)
        if math.isnan(row.value):
            continue
        pen.rectangle((left, y, across(row.value), y + _ROW - 5), _COLOR)
        numbers = format(row.value, form)
        if not math.isnan(row.low):
            pen.line((across(row.low), middle, across(row.high), middle), "black", 2)
            numbers += f" ({format(row.low, form)} to {format(row.high, form)})"
        pen.text((left + _BARS + _GAP, y), numbers, "black", font)
    for number, note in enumerate(notes):
        y = 2 * _GAP + _TITLE + len(rows) * _ROW + number * _TITLE
        pen.text((_GAP, y), cut(note, width - 2 * _GAP, font), "#444444", font)
    return page
