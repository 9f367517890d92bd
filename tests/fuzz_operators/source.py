"""Where the numbers come from: everything of a call follows from its seed and its number."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

SPECIAL = (torch.nan, torch.inf, -torch.inf, 3e38, -3e38, 1e-45, 0.0, -0.0)


class Source:
    """Random choices, lengths and tensors."""

    def __init__(self, seed: int, number: int) -> None:
        self.choices = random.Random(f"{seed}/{number}")
        self._values = torch.Generator().manual_seed(self.choices.getrandbits(60))

    def one_of(self, values: Sequence):
        """One of them."""
        return self.choices.choice(values)

    def happens(self, probability: float) -> bool:
        """Whether something happens that does so this often."""
        return self.choices.random() < probability

    def length(self, most: int = 40) -> int:
        """Mostly small, at times on both sides of what vectors and tiles are long."""
        if self.happens(0.5):
            return self.choices.randint(1, 5)
        if self.happens(0.5):
            return min(most, self.one_of((7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65)))
        return self.choices.randint(1, most)

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Numbers from 0 to 1."""
        return torch.rand(shape, generator=self._values, dtype=torch.float32).to(dtype)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Numbers of either sign, about 1."""
        return torch.randn(shape, generator=self._values, dtype=torch.float32).to(dtype)

    def integers(self, low: int, high: int, *shape: int) -> torch.Tensor:
        """Whole numbers from `low` to below `high`."""
        return torch.randint(low, high, shape, generator=self._values)

    def like(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Values of any dtype."""
        if dtype.is_floating_point or dtype.is_complex:
            return self.normal(*shape).to(dtype)
        return self.integers(0, 2 if dtype == torch.bool else 9, *shape).to(dtype)
