"""A photo cut into the windows that a classifier was shown, with what it said of each."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont

from pyxai._errors import argument_error
from pyxai.draw.colormaps import color_table
from pyxai.draw.overlay import overlay
from pyxai.images import PhotoSource, open_photo

_GAP = 4
_FRAME = 3
_LINE = 13
_LEAST, _MOST = 320, 640  # longer side of the photo below a heat map


def window_sheet(
    photo: PhotoSource,
    boxes: torch.Tensor,
    scores: torch.Tensor,
    *,
    cell: int = 96,
    most: int = 9,
    colormap: str = "ember",
) -> Image.Image:
    """Lays windows out as they lie on the photo, the probability above each.

    A frame shows the probability as a colour: always the same one for the same probability.

    Args:
        photo: a path, PIL image, or uint8 array or tensor.
        boxes: `[rows * columns, 4]`, x0, y0, x1, y1 in pixels of the photo, row by row.
        scores: `[rows, columns]`, probabilities.
        cell: longer side of a window in the picture, in pixels.
        most: how many rows and columns are shown; of more, every second, third, ... one, so that
            windows do not get tiny.
        colormap: see `pyxai.draw.color_table`.

    Returns:
        An RGB picture with a white ground.

    Raises:
        ValueError: boxes and scores do not fit each other, boxes reach beyond the photo, scores are
            no probabilities, or a size is below 1.
        pyxai.images.ImageError: the photo cannot be opened.
    """
    if scores.ndim != 2 or not scores.numel() or not scores.is_floating_point():
        raise argument_error("scores", "a float tensor [rows, columns]", scores)
    if boxes.shape != (scores.numel(), 4):
        raise argument_error("boxes", f"a tensor [{scores.numel()}, 4]", boxes)
    scores = scores.detach().to("cpu", torch.float32)
    if not bool(((scores >= 0) & (scores <= 1)).all()):
        raise ValueError("scores: expected probabilities in [0, 1], got others")
    for argument, value in (("cell", cell), ("most", most)):
        if value < 1:
            raise argument_error(argument, "at least 1", value)
    picture = open_photo(photo)
    x0, y0, x1, y1 = *boxes[:, :2].amin(dim=0).tolist(), *boxes[:, 2:].amax(dim=0).tolist()
    if min(x0, y0) < 0 or x1 > picture.width or y1 > picture.height:
        expected = f"boxes in the photo, {picture.width} × {picture.height} (width × height)"
        raise argument_error("boxes", expected, (x0, y0, x1, y1))
    colors = color_table(colormap)[:, :3].tolist()
    step = max(math.ceil(length / most) for length in scores.shape)
    shown = scores[::step, ::step]
    corners = boxes.reshape(*scores.shape, 4)[::step, ::step].tolist()
    x0, y0, x1, y1 = corners[0][0]
    scale = cell / max(x1 - x0, y1 - y0)
    width, height = (max(1, round(length * scale)) for length in (x1 - x0, y1 - y0))
    across, down = width + 2 * _FRAME + _GAP, height + 2 * _FRAME + _GAP + _LINE
    rows, columns = shown.shape
    page = Image.new("RGB", (columns * across + _GAP, rows * down + _GAP), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(10)
    for row in range(rows):
        for column in range(columns):
            score = float(shown[row, column])
            left, top = _GAP + column * across, _GAP + row * down
            pen.text((left, top), f"{score:.2f}" if width >= 24 else f"{score:.1f}", "black", font)
            frame = (
                left,
                top + _LINE,
                left + width + 2 * _FRAME,
                top + _LINE + height + 2 * _FRAME,
            )
            page.paste(tuple(colors[round(255 * score)]), frame)
            window = picture.crop(corners[row][column])
            window = window.resize((width, height), Image.Resampling.LANCZOS)
            page.paste(window, (left + _FRAME, top + _LINE + _FRAME))
    return page


def window_map(
    photo: Image.Image,
    heatmap: torch.Tensor,
    boxes: Sequence[Sequence[int]],
    *,
    colormap: str = "ember",
) -> Image.Image:
    """A heat map of probabilities over its photo, and numbered frames around windows.

    Args:
        photo: all of it, or a smaller copy.
        heatmap: `[H, W]` in [0, 1], of the photo's size.
        boxes: x0, y0, x1, y1 in pixels of the heat map.
        colormap: see `pyxai.draw.color_table`.

    Returns:
        An RGB picture whose longer side has 320 to 640 pixels.
    """
    height, width = heatmap.shape
    scale = min(max(1.0, _LEAST / max(height, width)), _MOST / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = photo.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    region = (0, 0, *size)
    page = overlay(small, heatmap, region=region, minmax=False, colormap=colormap)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for number, box in reversed([*enumerate(boxes, 1)]):  # the best lies on top
        left, top, right, bottom = (round(each * scale) for each in box)
        frame = (left, top, max(left, right - 1), max(top, bottom - 1))
        pen.rectangle(frame, outline="white", width=3)
        pen.rectangle(frame, outline="black")
        pen.text((left + 6, top + 4), str(number), "white", font, stroke_width=2, stroke_fill=0)
    return page
