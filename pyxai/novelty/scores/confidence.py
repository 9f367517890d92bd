"""Scores of the logits alone: how sure the network is of its answer. Nothing is fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from pyxai._errors import check_count
from pyxai.novelty.activations import Activations
from pyxai.novelty.scores.base import Score, Setting, check_positive, energy


@dataclass(eq=False)
class MSP(Score):
    """Maximum softmax probability: max_k softmax(l)_k, in (1/K, 1].

    Source: Hendrycks and Gimpel, "A baseline for detecting misclassified and out-of-distribution
    examples in neural networks" (2017).
    """

    name: ClassVar[str] = "msp"
    needs_logits: ClassVar[bool] = True

    def score(self, chunk: Activations, state: dict[str, torch.Tensor]) -> torch.Tensor:
        assert chunk.logits is not None
        # In float64: near 1 float32 has ties that were none.
        return torch.softmax(chunk.logits.double(), dim=1).amax(dim=1)


@dataclass(eq=False)
class MaxLogit(Score):
    """The largest logit: max_k l_k.

    Source: Hendrycks et al., "Scaling out-of-distribution detection for real-world settings"
    (2022).
    """

    name: ClassVar[str] = "max_logit"
    needs_logits: ClassVar[bool] = True

    def score(self, chunk: Activations, state: dict[str, torch.Tensor]) -> torch.Tensor:
        assert chunk.logits is not None
        return chunk.logits.amax(dim=1)


@dataclass(eq=False)
class Energy(Score):
    """Negative free energy: T · log Σ_k exp(l_k / T).

    Source: Liu et al., "Energy-based out-of-distribution detection" (2020), Eq. 4.

    Attributes:
        temperature: T, above 0.
    """

    temperature: float = 1.0

    name: ClassVar[str] = "energy"
    needs_logits: ClassVar[bool] = True

    def begin(self, setting: Setting) -> None:
        check_positive("temperature", self.temperature)
        super().begin(setting)

    def score(self, chunk: Activations, state: dict[str, torch.Tensor]) -> torch.Tensor:
        assert chunk.logits is not None
        if len(chunk.logits) > 1 and bool((energy(chunk.logits).abs() <= 1e-4).all()):
            raise ValueError(
                "method: expected one that fits the logits, got 'energy' for a network that ends "
                "in a softmax: log Σ exp of its logits is 0 for every image; use 'msp', 'gen' or "
                "a method of the activations such as 'knn'"
            )
        return energy(chunk.logits, self.temperature)


@dataclass(eq=False)
class GEN(Score):
    """Generalised entropy, negated: -Σ p_k^γ (1 - p_k)^γ over the M largest probabilities.

    Source: Liu, Lochman and Zach, "GEN: Pushing the limits of softmax-based out-of-distribution
    detection" (2023).

    Attributes:
        gamma: γ, between 0 and 1 in the paper.
        top: M; of networks with fewer classes, all.
    """

    gamma: float = 0.1
    top: int = 100

    name: ClassVar[str] = "gen"
    needs_logits: ClassVar[bool] = True

    def begin(self, setting: Setting) -> None:
        check_positive("gamma", self.gamma)
        check_count("top", self.top)
        super().begin(setting)

    def score(self, chunk: Activations, state: dict[str, torch.Tensor]) -> torch.Tensor:
        assert chunk.logits is not None
        # In float64: (1 - p)^0.1 of float32 probabilities close to 1 is coarse.
        logits = chunk.logits.double()
        log_p = torch.log_softmax(logits, dim=1)
        best = log_p.topk(min(self.top, log_p.shape[1]), dim=1).values
        terms = best.exp() * -torch.expm1(best)
        return -(terms.clamp_min(0) ** self.gamma).sum(dim=1)
