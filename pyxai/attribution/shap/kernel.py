"""Shapley values of a few regions: all coalitions, or a weighted regression on some."""

from __future__ import annotations

import math

import torch

from pyxai._errors import argument_error
from pyxai.attribution.shap.coalitions import Game

EXACT = 12
"""Up to so many regions all coalitions are tried."""


def exact(game: Game, images: int, regions: int) -> torch.Tensor:
    """Shapley values `[N, k, R]` float64, from all 2^R coalitions."""
    numbers = torch.arange(1 << regions, dtype=torch.int64, device="cpu")
    shown = (numbers[:, None] >> torch.arange(regions, dtype=torch.int64, device="cpu")) & 1 == 1
    size = shown.sum(dim=1)
    # A coalition of s regions without r is weighed by s! (R - s - 1)! / R!.
    weight = torch.tensor(
        [
            math.factorial(s) * math.factorial(regions - s - 1) / math.factorial(regions)
            for s in range(regions)
        ],
        dtype=torch.float64,
        device="cpu",
    )
    found = []
    for image in range(images):
        outputs = game.play(
            shown, torch.full((len(shown),), image, dtype=torch.int64, device="cpu")
        )
        values = []
        for region in range(regions):
            without = numbers[~shown[:, region]]
            gain = outputs[without | (1 << region)] - outputs[without]
            values.append((weight[size[without]][:, None] * gain).sum(dim=0))
        found.append(torch.stack(values, dim=1))
    return torch.stack(found)


def regression(
    game: Game,
    images: int,
    regions: int,
    samples: int,
    seed: int,
    outputs: torch.Tensor,
    base: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Shapley values and their standard errors, `[N, k, R]` float64, by weighted least squares.

    Coalitions are drawn by the Shapley kernel, each with its complement (Covert and Lee 2021), the
    same for all images; that the values add up to `outputs - base` is a constraint. The error is
    that of least squares: what a sum of regions cannot say counts as noise.

    Args:
        game: the game.
        images: N.
        regions: R, more than 2.
        samples: coalitions, for each image; even.
        seed: of the draw.
        outputs: `[N, k]`, with all shown.
        base: `[N, k]`, with nothing shown.

    Raises:
        ValueError: too few samples to tell the regions apart.
    """
    shown = _coalitions(regions, samples, seed)
    design = shown.double()
    # phi_R = total - the others: one unknown less.
    reduced = design[:, :-1] - design[:, -1:]
    gram = reduced.T @ reduced
    if int(torch.linalg.matrix_rank(gram)) < regions - 1:
        expected = f"enough samples to tell {regions} regions apart (twice as many or more)"
        raise argument_error("samples", expected, samples)
    inverse = torch.linalg.inv(gram)
    values, errors = [], []
    for image in range(images):
        found = game.play(
            shown, torch.full((len(shown),), image, dtype=torch.int64, device="cpu")
        )  # [S, k]
        total = outputs[image] - base[image]  # [k]
        wanted = found - base[image] - design[:, -1:] * total
        solution = inverse @ (reduced.T @ wanted)  # [R - 1, k]
        rest = wanted - reduced @ solution
        noise = (rest**2).sum(dim=0) / max(len(shown) - (regions - 1), 1)
        spread = torch.cat([inverse.diagonal(), inverse.sum()[None]])  # the last: of their sum
        values.append(torch.cat([solution, (total - solution.sum(dim=0))[None]]).T)
        errors.append((noise[:, None] * spread).sqrt())
    return torch.stack(values), torch.stack(errors)


def _coalitions(regions: int, samples: int, seed: int) -> torch.Tensor:
    """`[samples, R]` bool, every other one the complement of the one before."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    sizes = torch.arange(1, regions, dtype=torch.float64, device="cpu")
    weights = (regions - 1) / (sizes * (regions - sizes))
    drawn = 1 + torch.multinomial(weights, samples // 2, replacement=True, generator=generator)
    order = (
        torch.rand(samples // 2, regions, generator=generator, dtype=torch.float32, device="cpu")
        .argsort(dim=1)
        .argsort(dim=1)
    )
    half = order < drawn[:, None]
    return torch.stack([half, ~half], dim=1).reshape(-1, regions)
