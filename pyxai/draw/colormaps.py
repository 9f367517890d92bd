"""Colours for values in [0, 1], as tables of 256 entries."""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray

from pyxai._errors import MissingExtraError, closest

# Red, green, blue at equal steps, interpolated linearly. "ember" grows lighter all the way, so that
# it reads without colour vision and in print; "jet" is what older papers show.
_STOPS = {
    "ember": [
        (24, 12, 60),
        (104, 24, 112),
        (188, 44, 88),
        (240, 110, 40),
        (252, 196, 60),
        (255, 250, 190),
    ],
    "jet": [(0, 0, 128), (0, 0, 255), (0, 255, 255), (255, 255, 0), (255, 0, 0), (128, 0, 0)],
    "hot": [(0, 0, 0), (230, 0, 0), (255, 210, 0), (255, 255, 255)],
    "gray": [(0, 0, 0), (255, 255, 255)],
}


@functools.lru_cache(maxsize=64)
def color_table(name: str = "ember", *, opacity: float = 0.75, fade: float = 0.6) -> torch.Tensor:
    """A table for `pyxai.ops.cam_overlay`.

    Args:
        name: "ember", "jet", "hot", "gray", or any colour map of Matplotlib (the extra "plot").
        opacity: of the colours over the photo, in [0, 1].
        fade: values below this grow transparent, so that the photo shows where there is little to
            say; 0 gives all values the same opacity.

    Returns:
        `[256, 4]` uint8: red, green, blue, opacity. Shared between calls: do not write to it.

    Raises:
        ValueError: an unknown name (with the closest ones), or a number out of range.
        MissingExtraError: the name is none of ours and Matplotlib is not installed.
    """
    for argument, value in (("opacity", opacity), ("fade", fade)):
        if not 0 <= value <= 1:
            raise ValueError(f"{argument}: expected a number in [0, 1], got {value}")
    values = np.linspace(0, 1, 256)
    alpha = opacity * (np.minimum(values / fade, 1) if fade else np.ones_like(values))
    table = np.column_stack([_colors(name, values), alpha * 255])
    return torch.from_numpy(np.rint(table).astype(np.uint8))


def _colors(name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    if name in _STOPS:
        stops = np.array(_STOPS[name], dtype=np.float64)
        positions = np.linspace(0, 1, len(stops))
        return np.column_stack([np.interp(values, positions, stops[:, k]) for k in range(3)])
    try:
        import matplotlib
    except ImportError:
        known = ", ".join(map(repr, _STOPS))
        raise MissingExtraError(
            f"colormap {name!r} (built in: {known}{closest(name, _STOPS)})", "matplotlib", "plot"
        ) from None
    if name not in matplotlib.colormaps:
        hint = closest(name, [*_STOPS, *matplotlib.colormaps])
        raise ValueError(f"colormap: expected a known name, got {name!r}{hint}")
    colors: NDArray[np.float64] = matplotlib.colormaps[name](values)[:, :3] * 255
    return colors
