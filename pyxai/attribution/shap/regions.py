"""Which pixels are shown and hidden together."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from pyxai._errors import argument_error

_REGIONS = 64  # where nobody says how many


def grid_of(size: tuple[int, int], rows: int, columns: int) -> torch.Tensor:
    """`[H, W]` int64: the cell of each pixel, row by row; cells are as equal as can be."""
    down = (torch.arange(size[0], dtype=torch.int64, device="cpu") * rows).div(
        size[0], rounding_mode="floor"
    )
    across = (torch.arange(size[1], dtype=torch.int64, device="cpu") * columns).div(
        size[1], rounding_mode="floor"
    )
    return down[:, None] * columns + across


def regions_of(regions: Any, size: tuple[int, int]) -> torch.Tensor:
    """`[H, W]` int64 labels from 0 on, without a gap.

    Args:
        regions: about how many cells of a grid, or labels `[H, W]` of any integers (superpixels);
            None, 64 cells, or one for each pixel of images that have fewer.
        size: (height, width) of the images.

    Raises:
        ValueError: fewer than two regions, more than pixels, or labels of another size.
    """
    height, width = size
    if regions is None:
        regions = min(_REGIONS, height * width)
        if regions < 2:
            raise argument_error("images", "two pixels or more for regions", f"{height} × {width}")
    if isinstance(regions, int) and not isinstance(regions, bool):
        if not 2 <= regions <= height * width:
            expected = f"2 to {height * width} regions of {height} × {width} pixels"
            raise argument_error("regions", expected, regions)
        # Of a strip no more rows than regions, as there is at least one column.
        rows = min(height, regions, max(1, round(math.sqrt(regions * height / width))))
        columns = min(width, max(1, round(regions / rows)))
        return grid_of(size, rows, columns)
    array = regions.cpu() if isinstance(regions, torch.Tensor) else np.asarray(regions)
    labels: torch.Tensor = array if isinstance(array, torch.Tensor) else torch.from_numpy(array)
    if labels.is_floating_point() or labels.shape != size:
        raise argument_error("regions", f"a number, or integer labels [{height}, {width}]", labels)
    places: torch.Tensor
    found, places = torch.unique(labels, return_inverse=True)
    if len(found) < 2:
        raise argument_error("regions", "two different labels or more", found.tolist())
    return places
