"""What excites the units of a network: a picture made for each, beside it pieces of photos."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from pyxai._errors import argument_error
from pyxai.draw.cells import cut, fitted

_GAP = 8
_LINE = 15


def feature_sheet(
    pictures: Sequence[Image.Image | Sequence[Image.Image]],
    crops: Sequence[Sequence[Image.Image]] | None = None,
    *,
    captions: Sequence[str] = (),
    columns: int | None = None,
    cell: int = 160,
    title: str = "",
) -> Image.Image:
    """Lays out units in rows: the caption, below it pictures, beside them crops in a square.

    Args:
        pictures: of each unit one, or several variants.
        crops: of each unit any number, the strongest first.
        captions: of each unit; long ones are cut.
        columns: units in a row; by default as many as make about 1,200 pixels.
        cell: side of the pictures, and of the square of crops, in pixels.
        title: above all.

    Returns:
        An RGB picture with a white ground.

    Raises:
        ValueError: there are no pictures, or not as many crops or captions.
    """
    if not pictures:
        raise argument_error("pictures", "at least one", pictures)
    if cell < 8:
        raise argument_error("cell", "at least 8 pixels", cell)
    for name, given in (("crops", crops or ()), ("captions", captions)):
        if given and len(given) != len(pictures):
            raise argument_error(name, f"{len(pictures)}, one for each unit", f"{len(given)}")
    units = [[each] if isinstance(each, Image.Image) else list(each) for each in pictures]
    most = max(len(crops[place]) for place in range(len(units))) if crops else 0
    wide = max(map(len, units)) + bool(most)
    across, down = wide * (cell + 2) + _GAP, cell + _LINE + _GAP
    columns = columns or max(1, 1200 // across)
    columns = min(columns, len(units))
    rows = math.ceil(len(units) / columns)
    above, font = _LINE if title else 0, ImageFont.load_default(11)
    width = max(columns * across + _GAP, round(font.getlength(title)) + 2 * _GAP if title else 0)
    page = Image.new("RGB", (width, above + rows * down + _GAP), "white")
    pen = ImageDraw.Draw(page)
    pen.text((_GAP, 3), cut(title, page.width - 2 * _GAP, font), "#444444", font)
    for place, variants in enumerate(units):
        x, y = _GAP + place % columns * across, above + _GAP + place // columns * down
        if captions:
            pen.text((x, y - 1), cut(captions[place], across - _GAP, font), "black", font)
        y += _LINE
        for picture in variants:
            page.paste(fitted(picture, cell), (x, y))
            x += cell + 2
        if crops:
            _square(page, crops[place], x, y, cell)
    return page


def _square(
    page: Image.Image, crops: Sequence[Image.Image], left: int, top: int, side: int
) -> None:
    """Crops row by row in a square of the page."""
    count = max(1, math.ceil(math.sqrt(len(crops))))
    step = max(2, side // count)
    for place, crop in enumerate(crops):
        row, column = divmod(place, count)
        page.paste(fitted(crop, step - 1), (left + column * step, top + row * step))
