"""Steps of learning masks that are recorded once and replayed, so that the host costs nothing.

Everything that changes from step to step lies on the device: the number of the step, from which
come its share and how far the images move. A replay therefore needs no copy and no argument.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch

from pyxai.attribution.masks.objectives import Terms
from pyxai.classifier import cuda_graphs as _graphs

Moved: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""Moves pictures `[M, C, H, W]` as a step does."""


@dataclass
class Learning:
    """The cells of some masks `[M, h, w]` and Adam's moments; steps change them in place."""

    cells: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor

    @classmethod
    def start(cls, cells: torch.Tensor) -> Learning:
        """Before the first step."""
        return cls(cells, torch.zeros_like(cells), torch.zeros_like(cells))

    def __getitem__(self, some: torch.Tensor) -> Learning:
        return Learning(self.cells[some], self.first[some], self.second[some])


Step: TypeAlias = "Callable[[Learning, torch.Tensor, torch.Tensor, Moved], Terms]"
"""(state, number from 1 as int64 `[1]`, share of the steps done as float64 `[]`, movement)."""


class RecordedSteps:
    """Does steps by replaying one of them.

    Args:
        step: one step; its launches must not depend on the numbers in the tensors.
        state: changed by the steps, and only by them.
        moves: down and right of each step, `[steps, 2]` int64 on the CPU; None, no movement.
        steps: how many there are.
        begin: the number of the next one, from 1.

    Raises:
        CannotRecord: the step cannot be replayed; the state is what it was.
        Exception: what the step raises.
    """

    def __init__(
        self,
        step: Step,
        state: Learning,
        moves: torch.Tensor | None,
        steps: int,
        begin: int,
    ) -> None:
        device = state.cells.device
        self._number = torch.full((1,), begin, dtype=torch.int64, device=device)
        schedule = None if moves is None else moves.to(device)
        self._names: list[str] = []

        def work() -> torch.Tensor:
            progress = self._number[0].double().sub(1).div(steps)
            terms = step(state, self._number, progress, _movement(schedule, self._number))
            self._names = list(terms)
            self._number.add_(1)
            return torch.stack(list(terms.values()))

        changed = (state.cells, state.first, state.second, self._number)
        before = [each.clone() for each in changed]
        try:
            self._recorded = _graphs.record(work, device)
        finally:  # recording does a few steps
            for each, kept in zip(changed, before, strict=True):
                each.copy_(kept)

    def __call__(self) -> Terms:
        """Does the next step; returns its terms, of their own memory."""
        self._recorded.replay()
        return dict(zip(self._names, self._recorded.output.clone().unbind(), strict=True))

    def close(self) -> None:
        """Waits for the last step, so that the memory may go."""
        self._recorded.used()
        self._recorded.close()


def _movement(schedule: torch.Tensor | None, number: torch.Tensor) -> Moved:
    """What `torch.roll` does, by distances that only the device knows."""
    if schedule is None:
        return lambda pictures: pictures
    move = schedule.index_select(0, number - 1)[0]

    def moved(pictures: torch.Tensor) -> torch.Tensor:
        for axis, distance in zip((2, 3), move.unbind(), strict=True):
            length = pictures.shape[axis]
            if length > 1:  # colours stay
                places = (
                    torch.arange(length, device=pictures.device, dtype=torch.int64) - distance
                ) % length
                pictures = pictures.index_select(axis, places)
        return pictures

    return moved
