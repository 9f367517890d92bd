"""How masks are learned: the numbers of each method, checked where they are given."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pyxai._errors import argument_error, check_count, check_lengths


@dataclass(frozen=True, kw_only=True)
class LearningSettings:
    """What all methods that learn masks have in common; `MaskSettings` says what it means."""

    paper_kernel: ClassVar[int]

    steps: int
    learning_rate: float
    mask_size: int | tuple[int, int] | None = None
    blur_sigma: float
    blur_kernel: int | None = None

    def __post_init__(self) -> None:
        check_count("steps", self.steps)
        _check_above_zero("learning_rate", self.learning_rate)
        if self.mask_size is not None:
            check_lengths("mask_size", self.mask_size, "(height, width)")
        _check_above_zero("blur_sigma", self.blur_sigma)
        kernel = self.blur_kernel
        if kernel is not None and (not isinstance(kernel, int) or kernel < 1 or kernel % 2 == 0):
            raise argument_error("blur_kernel", "an odd number of pixels", kernel)


@dataclass(frozen=True, kw_only=True)
class MaskSettings(LearningSettings):
    """How `pyxai.undesirable_pixels` learns a mask; the defaults are the paper's numbers.

    Made small is, with probabilities f, logits f', the target k and the perturbed image Q,

        λ1 TV(M) + λ2 |1 - M| - f_k(Q) + γ |mean over i ≠ k of (f'_i(Q) - f'_i(X))|

    for `factor="target"` (Eq. 5; docs/undesirable_pixels.md has the others), where TV is of a cell
    (|dy|^β + |dx|^β)^(1/β), and both costs are means over the cells.

    Attributes:
        steps: of the optimization, at most; at least 1.
        learning_rate: of Adam, above 0.
        mask_size: cells of the mask, an int or (height, width), at most the image's size; None, 28,
            or that size where it is less.
        tv_weight: λ1, what a rough mask costs; at least 0.
        l1_weight: λ2, what it costs to hide; at least 0.
        beta: β, the exponent of the total variation, at least 1.
        gamma: γ, what it costs to change the logits that should stay; at least 0.
        root: whether the total variation has the root 1/β, as in the paper.
        reduction: whether the costs are a "mean" over cells or, as the paper writes it, a "sum".
        blur_sigma: standard deviation of the background's blur in pixels, above 0.
        blur_kernel: pixels a side of that blur, odd, less than twice the image's side; None, 11, or
            what fits a smaller image.
        tolerance: a mask stops when its mean loss over ten steps falls by less, at least 0; None,
            never.

    Raises:
        ValueError: a value does not fit; it is named.
    """

    paper_kernel: ClassVar[int] = 11

    steps: int = 200
    learning_rate: float = 0.1
    tv_weight: float = 1.7
    l1_weight: float = 3.0
    beta: float = 2.0
    gamma: float = 0.3
    root: bool = True
    reduction: Literal["mean", "sum"] = "mean"
    blur_sigma: float = 5.0
    tolerance: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_cost(self)
        _check_at_least_zero("gamma", self.gamma)
        if self.reduction not in ("mean", "sum"):
            raise argument_error("reduction", "'mean' or 'sum'", self.reduction)

    @property
    def cost(self) -> dict[str, Any]:
        """What cells cost, as arguments of `pyxai.ops.mask_penalty`."""
        return {**_weights(self), "root": self.root, "mean": self.reduction == "mean"}


@dataclass(frozen=True, kw_only=True)
class MeaningfulSettings(LearningSettings):
    """How `pyxai.meaningful_perturbation` learns a mask; the defaults are the paper's numbers.

    Made small is, to delete (Fong and Vedaldi 2017),

        λ1 Σ |1 - M| + λ2 Σ (|dy|^β + |dx|^β) + f_k(Q)

    and to preserve, the same with |M| and -f_k(Q). What is not listed is as in `MaskSettings`.

    Attributes:
        tv_weight: λ2, what a rough mask costs; at least 0.
        l1_weight: λ1, what it costs to hide (delete) or to show (preserve) a cell; at least 0.
        beta: β, the exponent of the total variation, at least 1.
        jitter: the image moves under the mask by up to so many pixels, differently in each step,
            drawn from the seed; at least 0.
        blur_kernel: None is 41 pixels, or what fits a smaller image.
        tolerance: as there, but it compares losses under different moves of the image.

    Raises:
        ValueError: a value does not fit; it is named.
    """

    paper_kernel: ClassVar[int] = 41

    steps: int = 300
    learning_rate: float = 0.1
    tv_weight: float = 1e-2
    l1_weight: float = 1e-4
    beta: float = 3.0
    jitter: int = 4
    blur_sigma: float = 10.0
    tolerance: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_cost(self)
        check_count("jitter", self.jitter, least=0)

    @property
    def cost(self) -> dict[str, Any]:
        """What cells cost, as arguments of `pyxai.ops.mask_penalty`."""
        return {**_weights(self), "root": False, "mean": False}


@dataclass(frozen=True, kw_only=True)
class ExtremalSettings(LearningSettings):
    """How `pyxai.extremal_perturbation` learns a mask.

    Made large is, to preserve a share a (Fong, Patrick and Vedaldi 2019), with logits f',

        f'_k(Q) - w mean (sort(M) - r_a)²

    where M is made of smooth bumps, r_a is 1 on a share a of the cells and 0 on the others, and w
    grows evenly from 0 to `area_weight`. What is not listed is as in `MaskSettings`.

    Attributes:
        smoothing: standard deviation, in cells, of the bumps that masks are made of; above 0.
        area_weight: w at the last step; at least 0.
        blur_kernel: None is 81 pixels, or what fits a smaller image.

    Raises:
        ValueError: a value does not fit; it is named.
    """

    paper_kernel: ClassVar[int] = 81

    steps: int = 200
    learning_rate: float = 0.05
    smoothing: float = 2.0
    area_weight: float = 1000.0
    blur_sigma: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_above_zero("smoothing", self.smoothing)
        _check_at_least_zero("area_weight", self.area_weight)


def _weights(settings: MaskSettings | MeaningfulSettings) -> dict[str, float]:
    return {
        "tv_weight": float(settings.tv_weight),
        "l1_weight": float(settings.l1_weight),
        "beta": float(settings.beta),
    }


def _check_cost(settings: MaskSettings | MeaningfulSettings) -> None:
    _check_at_least_zero("tv_weight", settings.tv_weight)
    _check_at_least_zero("l1_weight", settings.l1_weight)
    if not (isinstance(settings.beta, (int, float)) and 1 <= settings.beta < math.inf):
        raise argument_error("beta", "a number of at least 1", settings.beta)
    if settings.tolerance is not None:
        _check_at_least_zero("tolerance", settings.tolerance)


def _check_at_least_zero(name: str, value: object) -> None:
    if not (isinstance(value, (int, float)) and 0 <= value < math.inf):
        raise argument_error(name, "a number of at least 0", value)


def _check_above_zero(name: str, value: object) -> None:
    if not (isinstance(value, (int, float)) and 0 < value < math.inf):
        raise argument_error(name, "a number greater than 0", value)
