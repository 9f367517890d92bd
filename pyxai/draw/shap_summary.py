"""SHAP values of many photos as one picture: a mean map for each class, and photos beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pyxai._errors import argument_error
from pyxai.draw.cells import cut, fitted
from pyxai.draw.shap import Palette, shap_panel, shap_scale

_GAP, _LINE, _TEXT = 8, 16, 11
_SCALE = 34  # height of a scale with its text
_PERCENTILE = 99.0  # of the photos' cells, which has the full colour


@dataclass(frozen=True)
class SummaryRow:
    """One class.

    Attributes:
        title: above its pictures.
        mean: `[rows, columns]`, the mean values of the cells.
        unsure: `[rows, columns]` bool, which of them get a dot.
        photos: pictures of what the network sees.
        values: of each photo `[rows, columns]`.
        captions: below each photo.
    """

    title: str
    mean: Any
    unsure: Any
    photos: Sequence[Image.Image]
    values: Sequence[Any]
    captions: Sequence[str]


def shap_summary_figure(
    rows: Sequence[SummaryRow],
    *,
    scales: tuple[str, str],
    palette: Palette = "red_blue",
    cell: int = 180,
) -> Image.Image:
    """Mean maps on one common scale, photos on another, both below.

    Args:
        rows: one a class.
        scales: what the two are called.
        palette: see `shap_panel`.
        cell: side of the pictures in pixels.

    Raises:
        ValueError: there is no row.
    """
    if not rows:
        raise argument_error("rows", "at least one", rows)
    means = np.abs([np.asarray(row.mean, np.float64) for row in rows])
    singles = [np.abs(np.asarray(each, np.float64)).ravel() for row in rows for each in row.values]
    limits = [max(float(means.max()), 1e-12), 1e-12]
    if singles:
        limits[1] = max(float(np.percentile(np.concatenate(singles), _PERCENTILE)), 1e-12)
    columns = 1 + max(len(row.photos) for row in rows)
    across, down = cell + _GAP, cell + 2 * _LINE + _GAP
    height = len(rows) * down + 2 * _SCALE + 2 * _GAP
    page = Image.new("RGB", (max(columns * across, 420) + _GAP, height), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(_TEXT)
    for number, row in enumerate(rows):
        y = _GAP + number * down
        pen.text((_GAP, y), cut(row.title, page.width - 2 * _GAP, font), "black", font)
        page.paste(_mean_map(row, limits[0], palette, cell), (_GAP, y + _LINE))
        pairs = zip(row.photos, row.values, row.captions, strict=True)
        for column, (photo, values, caption) in enumerate(pairs):
            x = _GAP + (column + 1) * across
            shown = fitted(
                shap_panel(photo, _enlarged(values, photo.size), limits[1], palette), cell
            )
            page.paste(shown, (x, y + _LINE))
            pen.text((x, y + _LINE + cell + 1), cut(caption, cell, font), "#444", font)
    for number, (limit, name) in enumerate(zip(limits, scales, strict=True)):
        top = len(rows) * down + _GAP + number * (_SCALE + _GAP // 2)
        shap_scale(page, (_GAP, top), page.width - 2 * _GAP, limit, palette, name=name)
    return page


def _enlarged(values: Any, size: tuple[int, int]) -> NDArray[np.float64]:
    """Cells as large as the picture, cut as `grid_of` cuts them."""
    found: NDArray[np.float64] = np.asarray(values, np.float64)
    down = np.arange(size[1]) * found.shape[0] // size[1]
    across = np.arange(size[0]) * found.shape[1] // size[0]
    enlarged: NDArray[np.float64] = found[down][:, across]
    return enlarged


def _mean_map(row: SummaryRow, limit: float, palette: Palette, cell: int) -> Image.Image:
    picture = shap_panel(
        Image.new("RGB", (cell, cell), "white"), _enlarged(row.mean, (cell, cell)), limit, palette
    )
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 0, cell - 1, cell - 1), outline="#999")
    unsure: NDArray[np.bool_] = np.asarray(row.unsure, bool)
    rows, columns = unsure.shape
    for place in np.argwhere(unsure):
        x, y = (place[1] + 0.5) * cell / columns, (place[0] + 0.5) * cell / rows
        pen.ellipse((x - 1, y - 1, x + 1, y + 1), fill="#666")
    return picture
