"""Small random movements: what is seen must not hang on a pixel, a scale or an angle."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from pyxai.feature_visualization.fourier import nearest_even

_USUAL_SIZE = 128  # of pictures that the lengths below are meant for; smaller ones move less
_GRAY = 0.5
_DRAWS = 6


@dataclass(frozen=True)
class Movements:
    """How far the picture moves before each look at it, in its own pixels.

    In this order: a grey border, a shift, a change of scale, a turn, another shift. All of them
    are one resampling.

    Attributes:
        size: side of the picture.
        view: side of the part of the plane that the network sees.
        shift: pixels; the first shift is up to half of it each way.
        scale: relative.
        turn: degrees.
        last_shift: pixels.
    """

    size: int
    view: int
    shift: int
    scale: float
    turn: float
    last_shift: int

    @property
    def any(self) -> bool:
        """Whether anything moves."""
        return bool(self.shift or self.scale or self.turn or self.last_shift)


def make_movements(size: int, robustness: float) -> Movements:
    """The usual movements of lucid, times `robustness`.

    Border 12, shift 8, scale 0.1, turn 10 degrees, last shift 4.
    The view is what these leave of picture and border: 140 pixels for a picture of 128.
    """
    pixels = robustness * min(1.0, size / _USUAL_SIZE)
    shift, last = nearest_even(8 * pixels), nearest_even(4 * pixels)
    view = size + 2 * round(12 * pixels) - shift - last
    scale = min(0.1 * robustness, 0.5)
    return Movements(size, max(view, 1), shift, scale, 10 * robustness, last)


def draw_movements(steps: int, generator: torch.Generator) -> torch.Tensor:
    """The random numbers of one picture, `[steps, 6]` in [0, 1)."""
    return torch.rand(steps, _DRAWS, generator=generator, dtype=torch.float32, device="cpu")


def placements(movements: Movements, draws: torch.Tensor) -> torch.Tensor:
    """Where each view looks: affine maps from view to picture, both from -1 to 1; `[n, 2, 3]`.

    Args:
        movements: how far.
        draws: `[n, 6]`, see `draw_movements`; 0.5 everywhere is no movement.
    """
    shifts = [
        (draws[:, 2 * axis : 2 * axis + 2] * (most + 1)).floor() - most / 2
        for axis, most in ((0, movements.shift), (1, movements.last_shift))
    ]
    scale = 1 + movements.scale * (2 * draws[:, 4] - 1)
    angle = math.radians(movements.turn) * (2 * draws[:, 5] - 1)
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    turn = torch.stack((cosine, -sine, sine, cosine), dim=1).reshape(-1, 2, 2)
    half = movements.size / 2
    offset = (shifts[0] + (turn @ shifts[1][..., None])[..., 0]) / half
    return torch.cat((turn * (movements.view / movements.size), offset[..., None]), dim=2)


def look(pictures: torch.Tensor, places: torch.Tensor, side: int) -> torch.Tensor:
    """What is seen at these places, on a grey ground.

    Args:
        pictures: `[n, C, size, size]` in [0, 1].
        places: `[n, 2, 3]`, see `placements`.
        side: of the result, which the view is resampled to.
    """
    shape = [*pictures.shape[:2], side, side]
    grid = functional.affine_grid(places, shape, align_corners=False)
    # Outside the picture `grid_sample` gives 0.
    seen = functional.grid_sample(
        pictures - _GRAY, grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return seen + _GRAY
