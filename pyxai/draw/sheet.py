"""Pictures side by side, with titles: to compare methods, layers or photos at a glance."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from pyxai._errors import argument_error
from pyxai.draw.cells import cut, fitted

_GAP = 6
_LINE = 16


def sheet(
    rows: Sequence[Sequence[Image.Image | None]],
    *,
    column_titles: Sequence[str] = (),
    row_titles: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    cell: int = 160,
) -> Image.Image:
    """Lays pictures out in rows and columns.

    Args:
        rows: rows of pictures, each scaled to fit its cell; None leaves a cell empty.
        column_titles: one above each column, or none; long ones are cut.
        row_titles: one above each row, or none; long ones are cut.
        captions: one below each picture, cut to its width, in rows as the pictures; or none.
        cell: side of the square cells, in pixels.

    Returns:
        An RGB picture with a white ground.

    Raises:
        ValueError: there is no picture, or the number of titles does not fit.
    """
    columns = max((len(row) for row in rows), default=0)
    if not columns:
        raise argument_error("rows", "rows with at least one picture", rows)
    if column_titles and len(column_titles) != columns:
        raise argument_error("column_titles", f"{columns} titles", column_titles)
    if row_titles and len(row_titles) != len(rows):
        raise argument_error("row_titles", f"{len(rows)} titles", row_titles)
    if captions and [len(row) for row in captions] != [len(row) for row in rows]:
        raise argument_error("captions", "one for each picture, in rows as these", captions)
    if cell < 1:
        raise argument_error("cell", "at least 1 pixel", cell)
    top = _LINE if column_titles else 0
    above = _LINE if row_titles else 0
    step = cell + _GAP
    height_of_row = step + above + (_LINE if captions else 0)
    size = (columns * step + _GAP, top + len(rows) * height_of_row + _GAP)
    page = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(page)
    font = ImageFont.load_default(11)
    for column, title in enumerate(column_titles):
        pen.text((_GAP + column * step, 2), cut(title, cell, font), "black", font)
    for index, row in enumerate(rows):
        y = top + index * height_of_row + _GAP
        if row_titles:
            title = cut(row_titles[index], page.width - 2 * _GAP, font)
            pen.text((_GAP, y), title, "black", font)
        for column, picture in enumerate(row):
            if captions:
                caption = cut(captions[index][column], cell, font)
                pen.text((_GAP + column * step, y + above + cell + 2), caption, "black", font)
            if picture is None:
                continue
            page.paste(fitted(picture, cell), (_GAP + column * step, y + above))
    return page
