"""What pictures take as a map, which photos it fits, and which part of one it covers."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pyxai._errors import argument_error, describe
from pyxai.images import MAX_PIXELS

Heatmap: TypeAlias = torch.Tensor | NDArray[Any]
"""A map `[h, w]` of floating-point numbers."""

_BORDER = 0.05  # of a side: so far beyond one edge alone no crop of an upright photo reaches


def as_map(heatmap: object) -> torch.Tensor:
    """A map as a float32 tensor `[h, w]` on the CPU.

    Raises:
        ValueError: it is none, or not finite.
    """
    if not isinstance(heatmap, (torch.Tensor, np.ndarray)):
        hint = "; the photo comes first: overlay(photo, heatmap)" * _is_photo(heatmap)
        hint = "; give one of its maps" if isinstance(heatmap, (dict, list, tuple)) else hint
        expected = "expected a float tensor or array [h, w]"
        raise ValueError(f"heatmap: {expected}, got {describe(heatmap)}{hint}")
    if heatmap.ndim != 2 or 0 in heatmap.shape or not is_floating(heatmap):
        kind = "tensor" if isinstance(heatmap, torch.Tensor) else "array"
        got = f"{describe(heatmap)}{_hint(heatmap)}"
        raise ValueError(f"heatmap: expected a float {kind} [h, w], got {got}")
    if isinstance(heatmap, np.ndarray):
        # A copy: torch takes no other byte order, no negative strides, no memory that is read only.
        heatmap = torch.from_numpy(np.array(heatmap, np.float64))
    heatmap = heatmap.detach().to("cpu", torch.float32)
    if not bool(torch.isfinite(heatmap).all()):
        raise ValueError("heatmap: expected finite values, got NaN or infinity")
    return heatmap


def is_floating(value: torch.Tensor | NDArray[Any]) -> bool:
    """Whether a tensor or array holds floating-point numbers."""
    if isinstance(value, torch.Tensor):
        return value.is_floating_point()
    return np.issubdtype(value.dtype, np.floating)


def _hint(heatmap: torch.Tensor | NDArray[Any]) -> str:
    """What to do about a tensor or array that is no map, or ""."""
    if _is_photo(heatmap):
        return "; the photo comes first: overlay(photo, heatmap)"
    if heatmap.ndim > 2 and 0 not in heatmap.shape:
        # `pyxai.cam` gives a map for each image, and for each of several targets.
        return f"; give one of its maps: heatmap[{', '.join(['0'] * (heatmap.ndim - 2))}]"
    if heatmap.ndim == 2 and not is_floating(heatmap):
        return "; make it floating-point, with .float() or .astype(float)"
    return ""


def _is_photo(value: object) -> bool:
    """Whether this can only be a photo, and no map."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return value.ndim == 3 and value.dtype in (torch.uint8, np.uint8)
    return isinstance(value, (str, os.PathLike, Image.Image)) or hasattr(value, "read")


def check_fits(argument: str, heatmap: torch.Tensor, size: tuple[int, int], remedy: str) -> None:
    """Refuses a map whose shape is none that a network gives for all of a photo.

    Args:
        argument: what the map is called.
        heatmap: `[h, w]`.
        size: (width, height) of the photo.
        remedy: what to do about it.

    Raises:
        ValueError: it does not fit.
    """
    shape, (width, height) = (heatmap.shape[0], heatmap.shape[1]), size
    if fits(shape, size):
        return
    got = f"{shape[0]} × {shape[1]}"
    if fits(shape, (height, width)):
        got += ", which fits the photo lying on its side (photos are turned upright)"
    raise ValueError(
        f"{argument}: expected a map of all of the photo, in its proportions, {height} × {width} "
        f"(height × width), got {got}; {remedy}"
    )


def fits(shape: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether one stride and one offset make this map of all of a photo.

    Layers that follow each other, with any strides and paddings, make n pixels
    floor(n / stride - offset) cells, with the same stride and offset for height and width. The
    offset is from -1 (padded, so that n is rounded up) over 0 (rounded down) to 2 (unpadded).

    Args:
        shape: (height, width) of the map.
        size: (width, height) of the photo.
    """
    (height, width), (columns, rows) = shape, size
    # Solved for the stride: both ends of an interval in which offset × longer must lie.
    longer = columns - rows
    low, high = rows * width - columns * (height + 1), rows * (width + 1) - columns * height
    return low < max(-longer, 2 * longer) and min(-longer, 2 * longer) < high


def covered(region: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A region as a box (x0, y0, x1, y1) of whole pixels, at least one of them in the photo.

    Args:
        region: what a person gave.
        size: (width, height) of the photo.

    Raises:
        ValueError: it is none, or lies outside the photo.
    """
    try:
        edges = [float(edge) for edge in region]
    except (TypeError, ValueError):
        edges = []
    if len(edges) != 4 or not all(map(math.isfinite, edges)):
        raise argument_error("region", "(x0, y0, x1, y1), four finite numbers", region)
    x0, y0, x1, y1 = edges
    if x1 <= x0 or y1 <= y0:
        raise argument_error("region", "(x0, y0, x1, y1) with x0 < x1 and y0 < y1", region)
    width, height = size
    inside = f"a part of the photo, {width} × {height} (width × height)"
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        raise argument_error("region", inside, region)
    if _is_turned(edges, width, height):
        expected = f"{inside}, of its size when upright"
        raise argument_error("region", expected, region)
    left, top = min(round(x0), width - 1), min(round(y0), height - 1)
    box = (left, top, max(round(x1), left + 1, 1), max(round(y1), top + 1, 1))
    if (box[2] - box[0]) * (box[3] - box[1]) > MAX_PIXELS:
        raise argument_error("region", f"at most {MAX_PIXELS:,} pixels", region)
    return box


def _is_turned(edges: list[float], width: int, height: int) -> bool:
    """Whether a region is one of the photo as it lies in its file, on its side."""
    x0, y0, x1, y1 = edges
    if min(x0, y0) < 0 or x1 > height or y1 > width:
        return False
    return x1 - width > _BORDER * width or y1 - height > _BORDER * height
