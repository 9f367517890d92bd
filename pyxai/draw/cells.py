"""Pictures and texts that fit the cells of a page."""

from __future__ import annotations

from PIL import Image, ImageFont


def fitted(picture: Image.Image, width: int, height: int | None = None) -> Image.Image:
    """The picture as large as fits, in the middle of a white RGB cell; square without a height."""
    height = width if height is None else height
    scale = min(width / picture.width, height / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    cell = Image.new("RGB", (width, height), "white")
    inner = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    cell.paste(inner, ((width - size[0]) // 2, (height - size[1]) // 2))
    return cell


def cut(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """As much of a text as fits into so many pixels."""
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text
