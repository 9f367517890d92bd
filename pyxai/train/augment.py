"""What changes a photo from epoch to epoch: mirroring, rotation, shear and zoom."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch.nn import functional

from pyxai._errors import argument_error


@dataclass(frozen=True)
class Augmentation:
    """How far photos are changed at random; each draw is even between its limits.

    Attributes:
        mirror: whether half of the photos are turned left to right.
        rotation: degrees, to either side.
        shear: radians by which upright lines lean, to either side.
        zoom: width and height are each scaled by 1 − zoom to 1 + zoom; 0 up to below 1.
    """

    mirror: bool = True
    rotation: float = 0.0
    shear: float = 0.0
    zoom: float = 0.0

    def __post_init__(self) -> None:
        for name, below in (("rotation", 180.1), ("shear", math.pi / 2), ("zoom", 1.0)):
            value = getattr(self, name)
            plain = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not plain or not 0 <= value < below:
                limit = "to 180" if name == "rotation" else f"and below {below:.3g}"
                raise argument_error(f"augment.{name}", f"a number from 0 {limit}", value)

    @property
    def moves(self) -> bool:
        """Whether more than mirroring is done."""
        return self.rotation > 0 or self.shear > 0 or self.zoom > 0


Augment: TypeAlias = str | Augmentation
"""One of the names in `NAMED`, or an `Augmentation`."""

NAMED = {
    "none": Augmentation(mirror=False),
    "mirror": Augmentation(),
    "affine": Augmentation(rotation=30.0, shear=0.2, zoom=0.2),
}


def augmentation_of(augment: Augment) -> Augmentation:
    """The augmentation of a name, or the one given.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(augment, Augmentation):
        return augment
    if isinstance(augment, str) and augment in NAMED:
        return NAMED[augment]
    expected = f"{', '.join(map(repr, NAMED))} or an Augmentation"
    raise argument_error("augment", expected, augment)


def random_moves(
    count: int, augmentation: Augmentation, generator: torch.Generator
) -> torch.Tensor:
    """A rotation, shear and zoom for each photo, as a matrix.

    Returns:
        `[count, 2, 2]` float32: where a point (x, y) of the result, in pixels from the centre, lies
        in the photo.
    """
    drawn = torch.rand(count, 4, generator=generator, dtype=torch.float64, device="cpu") * 2 - 1
    angle = drawn[:, 0] * math.radians(augmentation.rotation)
    lean = drawn[:, 1] * augmentation.shear
    across, down = (1 / (1 + drawn[:, 2:] * augmentation.zoom)).unbind(1)
    cosine, sine = angle.cos(), angle.sin()
    zero = torch.zeros_like(angle)
    rotated = torch.stack([cosine, -sine, sine, cosine], 1).view(-1, 2, 2)
    sheared = torch.stack([zero + 1, lean.tan(), zero, zero + 1], 1).view(-1, 2, 2)
    zoomed = torch.stack([across, zero, zero, down], 1).view(-1, 2, 2)
    return (rotated @ sheared @ zoomed).float()


def moved(images: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
    """Images `[b, C, h, w]` seen through matrices `[b, 2, 2]` of `random_moves`.

    Bilinear; beyond its edges a photo goes on as it is at the edge.
    """
    height, width = images.shape[2:]
    # Of torch's grids, in which the image reaches from -1 to 1 along both axes.
    scale = torch.tensor([width / 2, height / 2], device=images.device, dtype=torch.float32)
    matrices = moves.to(images) * scale / scale[:, None]
    theta = functional.pad(matrices, (0, 1))
    grid = functional.affine_grid(theta, [*images.shape], align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
