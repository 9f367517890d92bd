"""The bar below a picture that says what its colors mean."""

from __future__ import annotations

import torch
from PIL import Image, ImageDraw, ImageFont

from pyxai.draw.cells import cut
from pyxai.draw.colormaps import color_table

HEIGHT = 34
"""Of a scale with its text, in pixels."""

_BAR, _TEXT = 12, 12


def color_scale(
    page: Image.Image,
    corner: tuple[int, int],
    width: int,
    *,
    low: str,
    high: str,
    name: str,
    colormap: str = "ember",
) -> None:
    """Draws the colors from the lowest to the highest value, and below them what they mean.

    Args:
        page: is drawn on.
        corner: left and top of the bar in pixels.
        width: of the bar.
        low: the text of the lowest value.
        high: the text of the highest.
        name: of what has these values.
        colormap: see `pyxai.draw.color_table`.
    """
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(_TEXT)
    colors = color_table(colormap)[:, :3]
    steps = torch.arange(width, dtype=torch.int64, device="cpu") * 256 // max(width, 1)
    bar = colors[steps].expand(_BAR, -1, -1).contiguous().numpy()
    page.paste(Image.fromarray(bar), corner)
    left, y = corner[0], corner[1] + _BAR + 2
    ends = font.getlength(low), font.getlength(high)
    pen.text((left, y), low, "black", font)
    pen.text((left + width - ends[1], y), high, "black", font)
    middle = cut(name, int(width - 2 * max(ends) - 16), font)
    pen.text((left + (width - font.getlength(middle)) / 2, y), middle, "black", font)


def with_scale(
    picture: Image.Image,
    *,
    title: str,
    low: str,
    high: str,
    name: str,
    colormap: str = "ember",
    least: int = 360,
) -> Image.Image:
    """A picture on a white ground, a title above it and the scale of its colors below.

    Args:
        picture: any.
        title: may have several lines; what is too long for the width is cut.
        low: see `color_scale`.
        high: see `color_scale`.
        name: see `color_scale`.
        colormap: see `color_scale`.
        least: width of the page in pixels, at least.
    """
    gap, line = 8, 16
    lines = title.split("\n")
    width = max(picture.width, least)
    top = gap + line * len(lines)
    page = Image.new("RGB", (width + 2 * gap, top + picture.height + HEIGHT + 2 * gap), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(_TEXT)
    for number, each in enumerate(lines):
        pen.text((gap, gap + number * line - 4), cut(each, width, font), "black", font)
    page.paste(picture.convert("RGB"), (gap + (width - picture.width) // 2, top))
    corner = (gap, top + picture.height + gap)
    color_scale(page, corner, width, low=low, high=high, name=name, colormap=colormap)
    return page
