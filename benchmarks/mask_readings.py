"""Ways to read the formulas of the paper on undesirable pixels; used by `undesirable.py`."""

from __future__ import annotations

from dataclasses import dataclass, field

from pyxai.attribution.masks.objectives import non_target_factors, raise_target, target_factors
from pyxai.ops import mask_penalty


def norm_of_others(gamma):
    """The norm of Eq. 4 as that of the vector of all changes: their root mean square."""

    def objective(outcome):
        change = outcome.logits - outcome.original
        others = change.square().sum(dim=1) - outcome.target_change() ** 2
        kept = gamma * (others / (change.shape[1] - 1) + 1e-12).sqrt()
        return {**raise_target(outcome), "kept": kept}

    return objective


def squares(factor, gamma):
    """The norms of Eq. 4 and 6 as squares."""

    def objective(outcome):
        change = outcome.other_changes() if factor == "target" else outcome.target_change()
        return {**raise_target(outcome), "kept": gamma * change**2}

    return objective


def in_probabilities(gamma):
    """The change in Eq. 6 after the softmax, not before."""

    def objective(outcome):
        before = outcome.of_target(outcome.original.softmax(dim=1))
        kept = gamma * (outcome.probability() - before).abs()
        return {**raise_target(outcome), "kept": kept}

    return objective


def averaged_over_classes(gamma):
    """Eq. 6 over the number of other classes, as Eq. 4 is."""

    def objective(outcome):
        kept = gamma * outcome.target_change().abs() / (outcome.logits.shape[1] - 1)
        return {**raise_target(outcome), "kept": kept}

    return objective


@dataclass(frozen=True)
class Reading:
    """One way to read the formulas; what is not said is as `undesirable_pixels` has it."""

    objective: object
    tv_weight: float = 1.7
    l1_weight: float = 3.0
    beta: float = 2.0
    root: bool | str = True  # of each cell; "whole": of the mean over the cells
    start: object = "random"
    sums: tuple[str, ...] = field(default=())  # which costs are sums over cells, not means

    def penalty(self, masks, progress):
        """What masks `[M, h, w]` cost: a term for `MaskTask`."""
        cells = masks.shape[1] * masks.shape[2]
        tv_weight = self.tv_weight * (cells if "tv" in self.sums else 1)
        l1_weight = self.l1_weight * (cells if "l1" in self.sums else 1)
        settings = {"beta": self.beta, "root": self.root is True, "mean": True}
        if self.root != "whole":
            cost = mask_penalty(masks, tv_weight=tv_weight, l1_weight=l1_weight, **settings)
            return {"penalty": cost}
        squares = mask_penalty(masks, tv_weight=1.0, l1_weight=0.0, **settings)
        hidden = mask_penalty(masks, tv_weight=0.0, l1_weight=l1_weight, **settings)
        return {"penalty": tv_weight * (squares + 1e-8) ** (1 / self.beta) + hidden}


F_TC, F_NTC = target_factors(0.3), non_target_factors(0.3)
READINGS = {
    "Eq. 3": Reading(raise_target),
    "F-TC": Reading(F_TC),
    "F-NTC": Reading(F_NTC),
    "F-TC, norm of all changes": Reading(norm_of_others(0.3)),
    "F-TC, square": Reading(squares("target", 0.3)),
    "F-NTC, square": Reading(squares("non_target", 0.3)),
    "F-NTC, gamma 0.03": Reading(non_target_factors(0.03)),
    "F-NTC, over K - 1": Reading(averaged_over_classes(0.3)),
    "F-NTC, change of probability": Reading(in_probabilities(0.3)),
    "Eq. 3, no root": Reading(raise_target, root=False),
    "F-TC, no root": Reading(F_TC, root=False),
    "F-NTC, no root": Reading(F_NTC, root=False),
    "Eq. 3, sum of both": Reading(raise_target, sums=("tv", "l1")),
    "Eq. 3, sum of both, no root": Reading(raise_target, sums=("tv", "l1"), root=False),
    "Eq. 3, sum of TV": Reading(raise_target, sums=("tv",)),
    "Eq. 3, sum of L1": Reading(raise_target, sums=("l1",)),
    "Eq. 3, weights / 10": Reading(raise_target, tv_weight=0.17, l1_weight=0.3),
    "Eq. 3, L1 / 10": Reading(raise_target, l1_weight=0.3),
    "Eq. 3, TV x 3, L1 / 10": Reading(raise_target, tv_weight=5.1, l1_weight=0.3),
    "Eq. 3, root of the mean": Reading(raise_target, root="whole"),
    "F-TC, root of the mean": Reading(F_TC, root="whole"),
    "F-NTC, root of the mean": Reading(F_NTC, root="whole"),
    "Eq. 3, start 1": Reading(raise_target, start=1.0),
    "Eq. 3, start 0.5": Reading(raise_target, start=0.5),
    "Eq. 3, start 0": Reading(raise_target, start=0.0),
    "F-TC, start 1": Reading(F_TC, start=1.0),
    "F-TC, start 0.5": Reading(F_TC, start=0.5),
    "F-NTC, start 1": Reading(F_NTC, start=1.0),
    "F-NTC, start 0.5": Reading(F_NTC, start=0.5),
}
MAIN = ["Eq. 3", "F-TC", "F-NTC"]
