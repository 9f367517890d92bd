"""Owen values: Shapley values over a hierarchy of rectangles, as far as the budget goes."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import torch

from pyxai.attribution.shap.coalitions import Game

_AT_ONCE = 8  # rectangles of an image that are split together

Box = tuple[int, int, int, int]
"""top, bottom, left, right in cells."""


@dataclass(order=True)
class _Part:
    """A rectangle in a context: other cells that are shown while it is looked at.

    The one with the most to tell comes first.
    """

    priority: float
    number: int
    box: Box = field(compare=False)
    context: torch.Tensor = field(compare=False)  # [rows, columns] bool, without the rectangle
    hidden: torch.Tensor = field(compare=False)  # outputs [k] of the context
    shown: torch.Tensor = field(compare=False)  # outputs [k] of context and rectangle
    weight: float = field(compare=False)


class _Image:
    """The rectangles of one image that wait to be split, and the values of those that are done."""

    def __init__(self, grid: tuple[int, int], hidden: torch.Tensor, shown: torch.Tensor) -> None:
        self.values = torch.zeros((len(hidden), *grid), dtype=torch.float64, device="cpu")
        self._waiting: list[_Part] = []
        self._number = 0
        context = torch.zeros(grid, dtype=torch.bool, device="cpu")
        self.push((0, grid[0], 0, grid[1]), context, hidden, shown, 1.0)

    def push(
        self,
        box: Box,
        context: torch.Tensor,
        hidden: torch.Tensor,
        shown: torch.Tensor,
        weight: float,
    ) -> None:
        """A rectangle to be split, or a single cell, whose value is known."""
        if (box[1] - box[0]) * (box[3] - box[2]) == 1:
            self._spread(box, weight * (shown - hidden))
            return
        told = weight * float((shown - hidden).abs().max())
        self._number += 1
        part = _Part(
            priority=-told,
            number=self._number,
            box=box,
            context=context,
            hidden=hidden,
            shown=shown,
            weight=weight,
        )
        heapq.heappush(self._waiting, part)

    def pop(self, most: int) -> list[_Part]:
        """The next rectangles to be split."""
        return [heapq.heappop(self._waiting) for _ in range(min(most, len(self._waiting)))]

    def finish(self) -> torch.Tensor:
        """The values `[k, rows, columns]`; rectangles that were not split are even."""
        for part in self._waiting:
            self._spread(part.box, part.weight * (part.shown - part.hidden))
        self._waiting.clear()
        return self.values

    def _spread(self, box: Box, value: torch.Tensor) -> None:
        top, bottom, left, right = box
        count = (bottom - top) * (right - left)
        self.values[:, top:bottom, left:right] += (value / count)[:, None, None]


def owen_values(
    game: Game,
    grid: tuple[int, int],
    outputs: torch.Tensor,
    base: torch.Tensor,
    budget: int,
) -> torch.Tensor:
    """Owen values of the cells, `[N, k, rows, columns]` float64.

    A rectangle is cut in two across its longer side. What the one half adds, without and with the
    other, counts half each, and each of the four is cut further by itself. Every cut takes two
    evaluations. Those with the most to tell are cut first; where the budget ends, a rectangle's
    value is spread evenly. So values always add up to `outputs - base`.

    Args:
        game: the game, whose cells are those of the grid, row by row.
        grid: rows and columns.
        outputs: `[N, k]`, with all shown.
        base: `[N, k]`, with nothing shown.
        budget: evaluations for each image.

    Source: Owen, "Values of games with a priori unions" (1977); the order of the cuts is that of
    Lundberg's PartitionExplainer.
    """
    images = [_Image(grid, base[place], outputs[place]) for place in range(len(outputs))]
    left = [budget] * len(images)
    while True:
        cuts: list[tuple[int, _Part, Box, Box]] = []
        for place, image in enumerate(images):
            parts = image.pop(min(_AT_ONCE, left[place] // 2))
            left[place] -= 2 * len(parts)
            cuts += [(place, part, *_halves(part.box)) for part in parts]
        if not cuts:
            return torch.stack([image.finish() for image in images])
        shown = [_with(part.context, half) for _, part, *halves in cuts for half in halves]
        owner = torch.tensor(
            [place for place, *_ in cuts], dtype=torch.int64, device="cpu"
        ).repeat_interleave(2)
        found = game.play(torch.stack(shown).flatten(1), owner)
        for number, (place, part, first, second) in enumerate(cuts):
            one, two = found[2 * number], found[2 * number + 1]
            with_one, with_two = shown[2 * number], shown[2 * number + 1]
            push, half = images[place].push, part.weight / 2
            push(first, part.context, part.hidden, one, half)
            push(first, with_two, two, part.shown, half)
            push(second, part.context, part.hidden, two, half)
            push(second, with_one, one, part.shown, half)


def _halves(box: Box) -> tuple[Box, Box]:
    top, bottom, left, right = box
    if bottom - top >= right - left:
        middle = (top + bottom) // 2
        return (top, middle, left, right), (middle, bottom, left, right)
    middle = (left + right) // 2
    return (top, bottom, left, middle), (top, bottom, middle, right)


def _with(context: torch.Tensor, box: Box) -> torch.Tensor:
    top, bottom, left, right = box
    found = context.clone()
    found[top:bottom, left:right] = True
    return found
