"""How a mask is learned, and what is wrong with arguments that say so."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch

from pyxai._errors import argument_error, check_count, check_lengths
from pyxai.attribution.masks.result import Background

_CELLS = 28  # a side of the mask, where nobody says how many

Start: TypeAlias = "Literal['random', 'ones'] | float | torch.Tensor"


@dataclass(frozen=True)
class MaskSettings:
    """How it is learned; see `pyxai.undesirable_pixels`.

    Attributes:
        steps: at most so many.
        learning_rate: of Adam.
        mask_size: (height, width) of the learned cells.
        start: the first masks: `[h, w]`, or one for each mask in the shape of the result.
        background: what is shown where masks are 0.
        tolerance: a mask stops when its mean loss over ten steps falls by less; None, never.
        batch_size: masks at once; None, as many as suit cache and memory.
        jitter: the images move by up to so many pixels in each step, all alike.
        seed: of the jitter.
        graphs: record a step as a CUDA graph and replay it.
    """

    steps: int
    learning_rate: float
    mask_size: tuple[int, int]
    start: torch.Tensor
    background: Background
    tolerance: float | None = None
    batch_size: int | None = None
    jitter: int = 0
    seed: int = 0
    graphs: bool = False


def mask_settings(
    inputs: torch.Tensor,
    background: Background,
    *,
    steps: int,
    learning_rate: float,
    mask_size: int | tuple[int, int] | None,
    start: Start,
    seed: int,
    tolerance: float | None = None,
    batch_size: int | None = None,
    jitter: int = 0,
    graphs: bool = False,
) -> MaskSettings:
    """The settings, once they fit.

    Raises:
        ValueError: naming the one that does not.
    """
    if inputs.ndim != 4 or 0 in inputs.shape[1:]:
        raise argument_error("images", "a float tensor [N, C, H, W] with no empty axis", inputs)
    check_count("steps", steps)
    check_count("jitter", jitter, least=0)
    if batch_size is not None:
        check_count("batch_size", batch_size, or_none=True)
    if not (isinstance(learning_rate, (int, float)) and 0 < learning_rate < math.inf):
        raise argument_error("learning_rate", "a number greater than 0", learning_rate)
    if tolerance is not None:
        at_least_zero("tolerance", tolerance)
    background = _checked_background(background, inputs)
    size = _mask_size(mask_size, inputs)
    first = _first(start, size, seed)
    return MaskSettings(
        steps, learning_rate, size, first, background, tolerance, batch_size, jitter, seed, graphs
    )


def kernel_for(inputs: torch.Tensor, kernel: int | None, usual: int) -> int:
    """The pixels a side of a blur: as given, else the usual number or what fits the images."""
    if kernel is not None or inputs.ndim != 4 or 0 in inputs.shape:
        return usual if kernel is None else kernel
    return min(usual, 2 * min(inputs.shape[2:]) - 1)


def _mask_size(mask_size: Any, inputs: torch.Tensor) -> tuple[int, int]:
    height, width = inputs.shape[2:]
    if mask_size is None:
        return min(_CELLS, height), min(_CELLS, width)
    rows, columns = check_lengths("mask_size", mask_size, "(height, width)")
    if rows > height or columns > width:
        expected = f"cells from 1 to the image's {height} × {width} pixels"
        raise argument_error("mask_size", expected, mask_size)
    return rows, columns


def _first(start: Any, size: tuple[int, int], seed: int) -> torch.Tensor:
    """The first mask: `[h, w]`, or the tensor given, on the CPU or where it lies."""
    if isinstance(start, torch.Tensor):
        inside = start.is_floating_point() and bool(((start >= 0) & (start <= 1)).all())
        if not inside or start.ndim not in (2, 3, 4) or start.shape[-2:] != size:
            expected = f"values in [0, 1], shape [..., {size[0]}, {size[1]}]"
            raise argument_error("start", expected, start)
        return start.detach().to("cpu", torch.float32)
    if isinstance(start, str) and start == "random":
        check_count("seed", seed, least=0)
        return torch.rand(
            size,
            generator=torch.Generator(device="cpu").manual_seed(seed),
            dtype=torch.float32,
            device="cpu",
        )
    value = 1.0 if isinstance(start, str) and start == "ones" else start
    if not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise argument_error("start", "'random', 'ones', a number in [0, 1] or a tensor", start)
    return torch.full(size, float(value), dtype=torch.float32, device="cpu")


def _checked_background(background: Background, inputs: torch.Tensor) -> Background:
    picture, kernel, sigma = background.picture, background.kernel, background.sigma
    if picture is not None:
        count, channels, height, width = inputs.shape
        fits = isinstance(picture, torch.Tensor) and picture.is_floating_point()
        if (
            not fits
            or picture.ndim != 4
            or picture.shape[0] not in (1, count)
            or picture.shape[1] != channels
            or picture.shape[2:] not in ((height, width), (1, 1))
        ):
            inner = f"{channels}, {height}, {width}"
            expected = f"a float tensor [{count} or 1, {inner}], or colours [..., 1, 1]"
            raise argument_error("background", expected, picture)
        return Background(picture.detach(), sigma, kernel)
    if not isinstance(kernel, int) or kernel < 1 or kernel % 2 == 0:
        raise argument_error("blur_kernel", "an odd number of pixels", kernel)
    if kernel // 2 >= min(inputs.shape[2:]):
        expected = f"less than twice the image's {min(inputs.shape[2:])} pixels"
        raise argument_error("blur_kernel", expected, kernel)
    if not (isinstance(sigma, (int, float)) and 0 < sigma < math.inf):
        raise argument_error("blur_sigma", "a number greater than 0", sigma)
    return background


def at_least_zero(name: str, value: Any) -> float:
    if not (isinstance(value, (int, float)) and 0 <= value < math.inf):
        raise argument_error(name, "a number of at least 0", value)
    return float(value)
