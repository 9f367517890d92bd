"""Scores that change activations before the last linear layer: energy of the new logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from pyxai._errors import argument_error
from pyxai.novelty.activations import Activations
from pyxai.novelty.moments import Reservoir
from pyxai.novelty.scores.base import SAMPLE, Score, Setting, check_percentile, energy


@dataclass(eq=False)
class _Shaping(Score):
    """log Σ exp(W f(x) + b) with f a change of the activations."""

    percentile: float = 90.0

    needs_logits: ClassVar[bool] = True
    needs_head: ClassVar[bool] = True

    def begin(self, setting: Setting) -> None:
        check_percentile("percentile", self.percentile)
        super().begin(setting)
        head = setting.head
        assert head is not None
        self.state = {
            "weight": head.weight.float().cpu().contiguous(),
            "bias": head.bias.float().cpu().contiguous(),
        }

    def shape(self, rows: torch.Tensor, state: dict[str, torch.Tensor]) -> torch.Tensor:
        """f(x) for rows `[n, d]`."""
        raise NotImplementedError

    def score(self, chunk: Activations, state: dict[str, torch.Tensor]) -> torch.Tensor:
        rows = self.shape(chunk.features.float(), state)
        return energy((rows @ state["weight"].T + state["bias"]).double())

    def _largest(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The values and places of those at or above the percentile of each row."""
        width = rows.shape[1]
        kept = max(1, width - int(np.round(width * self.percentile / 100)))
        return rows.topk(kept, dim=1)


@dataclass(eq=False)
class ReAct(_Shaping):
    """Rectified activations: f(x) = min(x, c), c the percentile of all known activation values.

    c is found on at most 10,000 known rows, a sample decided by the seed.

    Source: Sun, Guo and Li, "ReAct: Out-of-distribution detection with rectified activations"
    (2021).

    Attributes:
        percentile: of the values of all known rows together.
    """

    name: ClassVar[str] = "react"

    def begin(self, setting: Setting) -> None:
        super().begin(setting)
        self._kept = Reservoir(SAMPLE, setting.seed)

    def update(self, chunk: Activations, labels: np.ndarray[Any, Any] | None) -> None:
        self._kept.add(chunk.features.float().cpu())

    def finish(self) -> None:
        cut = float(np.percentile(self._kept.rows().numpy(), self.percentile))
        self.state["cut"] = torch.tensor([cut], dtype=torch.float32, device="cpu")
        del self._kept

    def shape(self, rows: torch.Tensor, state: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.minimum(rows, state["cut"])


@dataclass(eq=False)
class ASH(_Shaping):
    """Activation shaping: all but the largest activations become 0, and these grow.

    With s₁ the sum of an image's activations and s₂ that of the ones kept: variant "s" multiplies
    the ones kept by exp(s₁ / s₂), "b" gives each of them s₁ / (their number), "p" leaves them.
    Meant for activations of at least 0, as a ReLU gives them.

    Source: Djurisic et al., "Extremely simple activation shaping for out-of-distribution detection"
    (2023), ASH-S, ASH-B and ASH-P. OpenOOD's figures are those of "b".

    Attributes:
        percentile: of an image's activations; those below become 0.
        variant: "s", "b" or "p".
    """

    variant: str = "s"

    name: ClassVar[str] = "ash"

    def begin(self, setting: Setting) -> None:
        if self.variant not in ("s", "b", "p"):
            raise argument_error("variant", "'s', 'b' or 'p'", self.variant)
        super().begin(setting)

    def shape(self, rows: torch.Tensor, state: dict[str, torch.Tensor]) -> torch.Tensor:
        values, places = self._largest(rows)
        whole = rows.sum(dim=1, keepdim=True)
        if self.variant == "s":
            values = values * _growth(whole, values)
        elif self.variant == "b":
            values = (whole / values.shape[1]).expand_as(values)
        return torch.zeros_like(rows).scatter_(1, places, values)


@dataclass(eq=False)
class SCALE(_Shaping):
    """Scaling without pruning: f(x) = x · exp(s₁ / s₂), s₁ and s₂ as in ASH.

    Source: Xu et al., "Scaling for training time and post-hoc out-of-distribution detection
    enhancement" (2024), Eq. 4.

    Attributes:
        percentile: of an image's activations; s₂ is the sum of those above.
    """

    percentile: float = 85.0

    name: ClassVar[str] = "scale"

    def shape(self, rows: torch.Tensor, state: dict[str, torch.Tensor]) -> torch.Tensor:
        values, _ = self._largest(rows)
        return rows * _growth(rows.sum(dim=1, keepdim=True), values)


def _growth(whole: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """exp(s₁ / s₂), `[n, 1]`; 1 for an image none of whose activations is above 0."""
    largest = values.sum(dim=1, keepdim=True)
    share = torch.where(largest > 0, whole / largest.clamp_min(1e-30), torch.zeros_like(whole))
    return share.clamp(-50, 50).exp()
