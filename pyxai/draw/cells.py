"""Pictures and texts that fit the cells of a page."""

from __future__ import annotations

import unicodedata

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


# What the font that comes with Pillow does not have; letters with accents become plain ones.
_SPELLED = str.maketrans({"×": "x", "–": "-", "—": "-", "−": "-", "→": "->", "≤": "<=", "ß": "ss"})
_HAS = "…·±°“”"  # beyond ASCII, of what names and captions are made


def legible(text: str) -> str:
    """A text in letters that the font of the pictures has, as far as there are such."""
    if text.isascii():
        return text
    spelled = text.translate(_SPELLED)
    parts = (each if each in _HAS else unicodedata.normalize("NFKD", each) for each in spelled)
    return "".join(each for each in "".join(parts) if not unicodedata.combining(each))


def cut(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """A text, or as much of it as fits into so many pixels, with an ellipsis."""
    text = legible(text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…" if text else ""
