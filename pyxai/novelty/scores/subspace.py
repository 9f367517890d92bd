"""Scores of what lies outside the subspace in which known activations vary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from pyxai._errors import argument_error, check_count
from pyxai.novelty.activations import Activations
from pyxai.novelty.moments import Moments, Reservoir
from pyxai.novelty.scores.base import SAMPLE, Score, Setting, energy, from_numpy


@dataclass(eq=False)
class ViM(Score):
    """Virtual-logit matching: log Σ exp(l_k) - a |R ᵀ(x - o)|.

    o = -W⁺ b is where the logits vanish. R are the eigenvectors of the mean of (x - o)(x - o)ᵀ over
    known activations but for the `dim` largest. a makes the norm as large as the largest logit on
    average over known images (over at most 10,000 of them, a sample decided by the seed). With no
    more known images than `dim` that norm is rounding error, and the score is the residual's alone.

    Source: Wang et al., "ViM: Out-of-distribution with virtual-logit matching" (2022).

    Attributes:
        dim: of the principal subspace, below d. None: 1,000 from d = 2,048 on, 512 from 768 on,
            else d // 2, as in the paper.
    """

    dim: int | None = None

    name: ClassVar[str] = "vim"
    needs_logits: ClassVar[bool] = True
    needs_head: ClassVar[bool] = True

    def begin(self, setting: Setting) -> None:
        super().begin(setting)
        width, head = setting.width, setting.head
        assert head is not None
        default = 1000 if width >= 2048 else 512 if width >= 768 else width // 2
        self._dim = default if self.dim is None else check_count("dim", self.dim)
        if self._dim >= width:
            raise argument_error("dim", f"fewer than the layer's {width} numbers", self._dim)
        weight, bias = head.weight.double().cpu().numpy(), head.bias.double().cpu().numpy()
        self._origin = -np.linalg.pinv(weight) @ bias
        self._moments = Moments(1, width)
        self._kept = Reservoir(SAMPLE, setting.seed)
        self._largest = Reservoir(SAMPLE, setting.seed)

    def update(self, chunk: Activations, labels: np.ndarray[Any, Any] | None) -> None:
        assert chunk.logits is not None
        self._moments.add(chunk.features)
        self._kept.add(chunk.features.float().cpu())
        self._largest.add(chunk.logits.amax(dim=1, keepdim=True).double().cpu())

    def finish(self) -> None:
        from scipy.linalg import eigh

        residual = len(self._origin) - self._dim
        _, vectors = eigh(self._moments.about(self._origin), subset_by_index=[0, residual - 1])
        state = {"residual": from_numpy(vectors), "origin": from_numpy(self._origin)}
        norms = torch.cat([_residual(part, state) for part in self._kept.parts()])
        largest = self._largest.rows().mean()
        # Known activations that fill no more than the subspace have no residual to scale.
        scale = largest / norms.mean() if float(norms.mean()) > 0 else torch.ones_like(largest)
        self.state = {**state, "scale": scale.double().reshape(1)}
        del self._moments, self._kept, self._largest, self._origin

    def score(self, chunk: Activations, state: dict[str, torch.Tensor]) -> torch.Tensor:
        assert chunk.logits is not None
        virtual = state["scale"] * _residual(chunk.features, state)
        return energy(chunk.logits.double()) - virtual


def _residual(rows: torch.Tensor, state: dict[str, torch.Tensor]) -> torch.Tensor:
    apart = (rows.double() - state["origin"]) @ state["residual"]
    return apart.square().sum(dim=1).sqrt()
