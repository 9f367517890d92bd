"""SHAP values as pictures: what speaks for a class in one colour, what against it in another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pyxai._errors import argument_error, describe
from pyxai.draw.cells import cut, fitted

Palette: TypeAlias = Literal["red_blue", "orange_purple"]

# For a class, against it. The second pair is told apart by people who see no red or no green.
_COLORS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "red_blue": ((215, 25, 45), (30, 90, 220)),
    "orange_purple": ((230, 97, 1), (94, 60, 153)),
}
_GAP, _LINE, _TEXT, _BAR = 8, 18, 12, 12
_PHOTO = 0.22  # how much of the grey photo shows


def shap_panel(
    photo: Image.Image, values: Any, limit: float, palette: Palette = "red_blue"
) -> Image.Image:
    """One panel: the photo in pale grey, and on it what speaks for and against a class.

    Args:
        photo: what the network saw of the photo (`preprocessing.view(photo)`), as large as the
            values.
        values: `[H, W]`, positive where a pixel speaks for the class.
        limit: the absolute value that has the full colour.
        palette: "red_blue", red for and blue against; "orange_purple".

    Returns:
        An RGB picture of W × H pixels.

    Raises:
        ValueError: sizes differ, the limit is not above 0, or there is no such palette.
    """
    found = _numbers(values)
    if found.ndim != 2 or (photo.height, photo.width) != found.shape:
        wanted = f"[{photo.height}, {photo.width}], as the photo"
        remedy = "; as the photo give what the network saw, clf.preprocessing.view(photo)"
        raise ValueError(f"values: expected {wanted}, got {describe(found)}{remedy}")
    if not limit > 0:
        raise argument_error("limit", "a number above 0", limit)
    speaks_for, against = (np.array(each, np.float32) for each in _pair(palette))
    gray = np.asarray(photo.convert("L"), np.float32)[:, :, None]
    ground = 255 - _PHOTO * (255 - gray)
    strength = np.clip(np.abs(found) / limit, 0, 1)[:, :, None].astype(np.float32)
    color = np.where(found[:, :, None] > 0, speaks_for, against)
    mixed = ground * (1 - strength) + color * strength
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def shap_figure(
    photos: Sequence[Image.Image],
    values: Sequence[Sequence[Any]],
    titles: Sequence[Sequence[str]],
    *,
    palette: Palette = "red_blue",
    percentile: float = 99.9,
    cell: int = 260,
    unit: str = "",
) -> Image.Image:
    """Photos with a panel for each class, all on one scale, and the scale below.

    Red in the panel of one class is not red in that of another: it speaks for *that* class.

    Args:
        photos: one a row, each what the network saw of it (`preprocessing.view(photo)`).
        values: of each photo one map `[H, W]` a class.
        titles: of each photo one text a class.
        palette: see `shap_panel`.
        percentile: of all absolute values, which has the full colour.
        cell: side of the square cells in pixels.
        unit: what the values are, below the scale.

    Raises:
        ValueError: there is no photo, or numbers of maps, titles and photos differ.
    """
    if not photos or len(values) != len(photos) or len(titles) != len(photos):
        raise argument_error("values", "maps and titles for one photo or more", len(values))
    maps = [[_numbers(each) for each in row] for row in values]
    if any(len(row) != len(texts) or not row for row, texts in zip(maps, titles, strict=True)):
        raise argument_error("titles", "one for each map", [len(texts) for texts in titles])
    together = np.concatenate([np.abs(each).ravel() for row in maps for each in row])
    limit = max(float(np.percentile(together, percentile)), 1e-12)
    columns = 1 + max(map(len, maps))
    across, down = cell + _GAP, cell + _LINE + _GAP
    size = (columns * across + _GAP, len(photos) * down + 2 * _LINE + _BAR + 2 * _GAP)
    page = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(_TEXT)
    for row, (photo, some, texts) in enumerate(zip(photos, maps, titles, strict=True)):
        y = _GAP + row * down
        panels = [photo, *(shap_panel(photo, each, limit, palette) for each in some)]
        for column, (panel, text) in enumerate(zip(panels, ("", *texts), strict=True)):
            x = _GAP + column * across
            pen.text((x, y), cut(text, cell, font), "black", font)
            page.paste(fitted(panel, cell), (x, y + _LINE))
    corner = (_GAP, len(photos) * down + _GAP)
    shap_scale(page, corner, page.width - 2 * _GAP, limit, palette, name=unit)
    return page


def _numbers(values: Any) -> NDArray[np.float64]:
    """A map as an array, from any device."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    found: NDArray[np.float64] = np.asarray(values, np.float64)
    if not np.isfinite(found).all():
        raise argument_error("values", "finite numbers", "NaN or infinity")
    return found


def _pair(palette: str) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    if palette not in _COLORS:
        raise argument_error("palette", f"one of {', '.join(map(repr, _COLORS))}", palette)
    return _COLORS[palette]


def shap_scale(
    page: Image.Image,
    corner: tuple[int, int],
    width: int,
    limit: float,
    palette: Palette,
    *,
    name: str = "",
) -> None:
    """Draws the bar of colours from -limit to limit, with what they mean below it.

    Args:
        page: is drawn on.
        corner: left and top of the bar in pixels.
        width: of the bar.
        limit: the absolute value that has the full colour.
        palette: see `shap_panel`.
        name: of what has this scale.
    """
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(_TEXT)
    steps: NDArray[np.float64] = np.linspace(-limit, limit, width)[None].repeat(_BAR, axis=0)
    white = Image.new("RGB", (width, _BAR), "white")
    page.paste(shap_panel(white, steps, limit, palette), corner)
    left, y = corner[0], corner[1] + _BAR + 2
    pen.text((left, y), f"{-limit:.2g} against the class", "black", font)
    right = f"for the class {limit:.2g}"
    pen.text((left + width - font.getlength(right), y), right, "black", font)
    middle = f"0 ({name})" if name else "0"
    pen.text((left + (width - font.getlength(middle)) / 2, y), middle, "black", font)
