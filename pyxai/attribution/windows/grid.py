"""Where the windows lie: a grid of boxes over a photo, as sparse or as dense as wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from pyxai._errors import check_lengths

USUAL = 160
"""Side of a window in pixels, where nobody says another."""


@dataclass(frozen=True)
class Grid:
    """Windows of one size in rows and columns, and what each becomes before the network.

    Attributes:
        size: (height, width) of the photo.
        window: (height, width) of a window, in pixels of the photo.
        tops: the first row of pixels of each row of windows.
        lefts: the first column of pixels of each column of windows.
        input_size: (height, width) of a window as the network gets it.
    """

    size: tuple[int, int]
    window: tuple[int, int]
    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    input_size: tuple[int, int]

    @property
    def boxes(self) -> torch.Tensor:
        """`[rows * columns, 4]` int64 on the CPU: x0, y0, x1, y1, row by row."""
        y, x = torch.meshgrid(
            torch.tensor(self.tops, dtype=torch.int64, device="cpu"),
            torch.tensor(self.lefts, dtype=torch.int64, device="cpu"),
            indexing="ij",
        )
        y, x = y.flatten(), x.flatten()
        return torch.stack([x, y, x + self.window[1], y + self.window[0]], dim=1)

    @property
    def whole_size(self) -> tuple[int, int]:
        """(height, width) of the whole photo at the scale at which the network gets windows."""
        height, width = (
            max(given, round(whole * given / window))
            for whole, window, given in zip(self.size, self.window, self.input_size, strict=True)
        )
        return height, width


def usual_window(side: int) -> int:
    """The side of windows for photos whose shorter side is this: 160, or half of a small one."""
    return USUAL if side >= 2 * USUAL else max(1, side // 2)


def make_grid(size: tuple[int, int], window: Any, stride: Any, resize: Any, *, cover: bool) -> Grid:
    """The grid that the arguments of `pyxai.sliding_window` describe.

    Args:
        size: (height, width) of the photo.
        window: an int or (height, width); None, one that suits the photo.
        stride: an int or (down, across); None, a quarter of the window.
        resize: an int or (height, width); None, the window's own size.
        cover: whether the last row and column lie flush with the border of the photo.

    Raises:
        ValueError: a length below 1, or a window that is larger than the photo.
    """
    window = usual_window(min(size)) if window is None else window
    rows, columns = check_lengths("window", window, "(height, width)")
    if rows > size[0] or columns > size[1]:
        raise ValueError(
            f"window: expected at most the size of the photo, {size[0]} × {size[1]} "
            f"(height × width), got {rows} × {columns}; None takes one that fits"
        )
    if stride is None:
        down, across = max(1, rows // 4), max(1, columns // 4)
    else:
        down, across = check_lengths("stride", stride, "(down, across)")
    input_size = (
        (rows, columns) if resize is None else check_lengths("resize", resize, "(height, width)")
    )
    tops = _starts(size[0], rows, down, cover)
    return Grid(size, (rows, columns), tops, _starts(size[1], columns, across, cover), input_size)


def _starts(length: int, window: int, stride: int, cover: bool) -> tuple[int, ...]:
    starts = list(range(0, length - window + 1, stride))
    if cover and starts[-1] != length - window:
        starts.append(length - window)
    return tuple(starts)
