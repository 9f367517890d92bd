"""What a learned mask is to achieve: small functions of the logits of the perturbed images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch

from pyxai.classifier.reading import Reading

Terms: TypeAlias = dict[str, torch.Tensor]
"""Named parts of the loss, `[M]` each; their sum is made small."""


@dataclass(frozen=True)
class Outcome:
    """What the model says of the images under the masks.

    Attributes:
        logits: `[M, K]` float32, with a graph.
        original: the logits of the images as they are, `[M, K]`.
        classes: the target of each mask, `[M]`.
        reading: how probabilities are made of logits.
    """

    logits: torch.Tensor
    original: torch.Tensor
    classes: torch.Tensor
    reading: Reading = Reading()  # noqa: RUF009

    def probability(self) -> torch.Tensor:
        """The probability of the target, `[M]`."""
        return self.of_target(self.reading.probabilities(self.logits))

    def target_change(self) -> torch.Tensor:
        """By how much the target's logit rose, `[M]`."""
        return self.of_target(self.logits - self.original)

    def other_changes(self) -> torch.Tensor:
        """By how much the logits of the other classes rose on average, `[M]`."""
        change = self.logits - self.original
        others = max(1, change.shape[1] - 1)  # a single logit has none
        return (change.sum(dim=1) - self.of_target(change)) / others

    def of_target(self, values: torch.Tensor) -> torch.Tensor:
        """The target's column of values `[M, K]`."""
        return values.gather(1, self.classes[:, None])[:, 0]


Objective: TypeAlias = Callable[[Outcome], Terms]


def raise_target(outcome: Outcome) -> Terms:
    """Eq. 3 without the penalty: make the target's probability large."""
    return {"target probability": -outcome.probability()}


def lower_target(outcome: Outcome) -> Terms:
    """Make the target's probability small."""
    return {"target probability": outcome.probability()}


def target_factors(gamma: float) -> Objective:
    """F-TC, Eq. 5: raise the target while the other logits stay, on average, what they are."""

    def objective(outcome: Outcome) -> Terms:
        kept = gamma * outcome.other_changes().abs()
        return {**raise_target(outcome), "other logits": kept}

    return objective


def non_target_factors(gamma: float) -> Objective:
    """F-NTC, Eq. 7: lower the sum of the others while the target's logit stays what it is."""

    def objective(outcome: Outcome) -> Terms:
        kept = gamma * outcome.target_change().abs()
        # The probabilities of the others sum to this.
        return {"other probabilities": 1 - outcome.probability(), "target logit": kept}

    return objective


def target_logit(sign: float) -> Objective:
    """Make the target's logit large (sign 1) or small (sign -1)."""

    def objective(outcome: Outcome) -> Terms:
        return {"target logit": -sign * outcome.of_target(outcome.logits)}

    return objective
