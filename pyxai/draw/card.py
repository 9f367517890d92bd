"""A few lines of text as a picture: for results that have nothing to show."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from pyxai.draw.cells import cut

_MARGIN, _LINE, _TEXT, _WIDEST = 16, 20, 14, 900


def card(lines: Sequence[str]) -> Image.Image:
    """The lines on a white ground; what is wider than 900 pixels is cut."""
    font = ImageFont.load_default(_TEXT)
    shown = [cut(each, _WIDEST, font) for each in lines]
    width = round(max((font.getlength(each) for each in shown), default=0))
    page = Image.new("RGB", (width + 2 * _MARGIN, len(shown) * _LINE + 2 * _MARGIN), "white")
    pen = ImageDraw.Draw(page)
    for number, each in enumerate(shown):
        pen.text((_MARGIN, _MARGIN + number * _LINE), each, "black", font)
    return page
