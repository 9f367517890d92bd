"""What the settings of learned masks come to for the images that are there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch

from pyxai._errors import argument_error, check_count, check_lengths
from pyxai.attribution.masks.result import Background
from pyxai.attribution.masks.settings import LearningSettings

_CELLS = 28  # a side of the mask, where nobody says how many

Start: TypeAlias = "Literal['random', 'ones'] | float | torch.Tensor"


@dataclass(frozen=True, kw_only=True)
class LearningPlan:
    """How masks are learned over certain images; all of it fits them.

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


def learning_plan(
    inputs: torch.Tensor,
    settings: LearningSettings,
    *,
    background: torch.Tensor | None,
    start: Start,
    seed: int,
    batch_size: int | None,
    graphs: bool,
    tolerance: float | None = None,
    jitter: int = 0,
) -> LearningPlan:
    """The plan for these inputs.

    Raises:
        ValueError: naming what does not fit them.
    """
    if inputs.ndim != 4 or 0 in inputs.shape[1:]:
        raise argument_error("images", "a float tensor [N, C, H, W] with no empty axis", inputs)
    if batch_size is not None:
        check_count("batch_size", batch_size, or_none=True)
    check_count("seed", seed, least=0)
    size = _mask_size(settings.mask_size, inputs)
    return LearningPlan(
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        mask_size=size,
        start=_first(start, size, seed),
        background=_background(background, settings, inputs),
        tolerance=tolerance,
        batch_size=batch_size,
        jitter=jitter,
        seed=seed,
        graphs=graphs,
    )


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


def _background(
    picture: torch.Tensor | None, settings: LearningSettings, inputs: torch.Tensor
) -> Background:
    count, channels, height, width = inputs.shape
    widest = 2 * min(height, width) - 1  # a reflected edge has one pixel less than the image
    kernel = settings.blur_kernel or min(settings.paper_kernel, widest)
    background = Background(sigma=settings.blur_sigma, kernel=kernel)
    if picture is not None:
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
        return replace(background, picture=picture.detach())
    if kernel > widest:
        expected = f"less than twice the image's {min(height, width)} pixels"
        raise argument_error("blur_kernel", expected, kernel)
    return background
