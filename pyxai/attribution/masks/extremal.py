"""Smooth masks of a given area (Fong, Patrick and Vedaldi 2019, arXiv:1910.08485)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn import functional

from pyxai.attribution.masks.objectives import Terms

_TEMPERATURE = 1 / 20  # of the smooth maximum


@torch.inference_mode(False)
def smooth_maximum(sigma: float, *, of_hidden: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    """Makes masks of bumps: each cell becomes the smooth maximum of the bumps around it.

    With `f(v) = k(u - v) m(v)` and a Gaussian `k` with `k(0) = 1`, cell u becomes
    `Σ f exp(f / T) / Σ exp(f / T)`, T = 1/20. Unlike an average it keeps the values 0 and 1.

    Args:
        sigma: standard deviation of a bump, in cells.
        of_hidden: whether what is hidden is made of bumps, not what is shown.

    Returns:
        A function of cells `[M, h, w]` in [0, 1] that gives masks of the same shape.
    """
    reach = math.ceil(2.5 * sigma)
    places = torch.arange(-reach, reach + 1, dtype=torch.int64, device="cpu")
    line = torch.exp(-(places.float() ** 2) / (2 * sigma**2))
    bump = torch.outer(line, line).flatten()

    def shown(cells: torch.Tensor) -> torch.Tensor:
        nonlocal bump
        bump = bump.to(cells)  # moved once: a copy from the host would make a device wait
        values = 1 - cells if of_hidden else cells
        around = functional.unfold(values[:, None], 2 * reach + 1, padding=reach)
        bumps = around * bump[:, None]
        shares = (bumps / _TEMPERATURE).softmax(dim=1)
        smooth = (bumps * shares).sum(dim=1).reshape(cells.shape)
        return 1 - smooth if of_hidden else smooth

    return shown


def area_penalty(
    area: float, weight: float
) -> Callable[[torch.Tensor, float | torch.Tensor], Terms]:
    """What it costs a mask not to be 1 on a share of the cells and 0 on the others.

    The mean squared distance between the sorted cells and a step of that area, times a factor that
    grows from 0 to the weight: cells that start alike have no order that means anything.
    """

    def penalty(masks: torch.Tensor, progress: float | torch.Tensor) -> Terms:
        cells = masks.flatten(1)
        wanted = torch.zeros_like(cells[0])
        wanted[cells.shape[1] - round(area * cells.shape[1]) :] = 1
        distance = (cells.sort(dim=1).values - wanted).square().mean(dim=1)
        return {"area": weight * progress * distance}

    return penalty
