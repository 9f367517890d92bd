"""Learned masks as in papers: photo, what is hidden, what the model sees then, captions beneath."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from pyxai._errors import argument_error
from pyxai.draw.cells import cut, fitted
from pyxai.draw.maps import as_map, check_fits
from pyxai.draw.overlay import overlay

_GAP = 8
_TEXT = 12  # pixels
_LINE = 16
_REMEDY = "in place of a photo that was cropped or stretched give clf.preprocessing.view(photo)"


def to_pictures(
    inputs: torch.Tensor, mean: Sequence[float], std: Sequence[float]
) -> list[Image.Image]:
    """A model's input as pictures: normalisation undone, values outside [0, 1] cut off.

    Args:
        inputs: `[N, 3, H, W]` floating, any device.
        mean: of each channel, as it was subtracted.
        std: of each channel, by which it was divided.

    Returns:
        N RGB pictures of H × W pixels.

    Raises:
        ValueError: the input is not `[N, 3, H, W]`.
    """
    if inputs.ndim != 4 or inputs.shape[1] != 3 or not inputs.is_floating_point():
        raise argument_error("inputs", "a float tensor [N, 3, H, W]", inputs)
    values = inputs.detach().to("cpu", torch.float32).permute(0, 2, 3, 1).numpy()
    pixels = values * np.array(std, np.float32) + np.array(mean, np.float32)
    rounded = np.rint(np.clip(np.nan_to_num(pixels), 0, 1) * 255).astype(np.uint8)
    return [Image.fromarray(each) for each in rounded]


def mask_figure(
    rows: Sequence[tuple[Image.Image, Sequence[tuple[torch.Tensor, Image.Image]]]],
    captions: Sequence[Sequence[str]],
    *,
    column_titles: Sequence[str] = (),
    cell: int = 200,
    colormap: str = "ember",
) -> Image.Image:
    """Photos with one or more masks each: photo, then heat map and perturbed photo of each mask.

    Args:
        rows: of each photo: what the network saw of it (`preprocessing.view(photo)`), and for each
            mask its heat map `[H, W]` in [0, 1] (how much of each pixel is hidden) and the
            perturbed photo.
        captions: of each row, one text beneath each picture; texts that are too long are cut.
        column_titles: one above each column, or none.
        cell: side of the square cells, in pixels.
        colormap: see `pyxai.draw.color_table`.

    Returns:
        An RGB picture with a white ground.

    Raises:
        ValueError: there are no rows, or captions or titles do not fit, or a heat map has another
            shape than its photo.
    """
    if not rows:
        raise argument_error("rows", "at least one photo", rows)
    if cell < 1:
        raise argument_error("cell", "at least 1 pixel", cell)
    columns = 1 + 2 * max(len(masks) for _, masks in rows)
    if column_titles and len(column_titles) != columns:
        raise argument_error("column_titles", f"{columns} titles", column_titles)
    if len(captions) != len(rows):
        raise argument_error("captions", f"{len(rows)} rows of texts", captions)
    top = _LINE if column_titles else 0
    across, down = cell + _GAP, cell + _LINE + _GAP
    page = Image.new("RGB", (columns * across + _GAP, top + len(rows) * down + _GAP), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(_TEXT)
    for column, title in enumerate(column_titles):
        pen.text((_GAP + column * across, 2), cut(title, cell, font), "black", font)
    for index, ((photo, masks), texts) in enumerate(zip(rows, captions, strict=True)):
        pictures = [photo]
        for heatmap, perturbed in masks:
            check_fits("rows", as_map(heatmap), photo.size, _REMEDY)
            pictures += [overlay(photo, heatmap, minmax=False, colormap=colormap), perturbed]
        if len(texts) != len(pictures):
            raise argument_error("captions", f"{len(pictures)} texts in row {index}", texts)
        y = top + index * down + _GAP
        for column, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
            x = _GAP + column * across
            page.paste(fitted(picture, cell), (x, y))
            pen.text((x, y + cell + 1), cut(text, cell, font), "black", font)
    return page
