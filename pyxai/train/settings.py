"""The settings of a training run, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pyxai._errors import argument_error, check_count
from pyxai.train.augment import Augmentation
from pyxai.train.layers import Unfreeze
from pyxai.zoo.head import HeadKind


@dataclass(frozen=True)
class Plan:
    """How a network is trained; see `pyxai.fine_tune`."""

    head: HeadKind
    hidden: int
    unfreeze: Unfreeze
    crop: int | None
    augmentation: Augmentation
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    class_weight: Literal["balanced"] | None
    early_stopping: int | None
    seed: int

    def __post_init__(self) -> None:
        if self.head not in ("linear", "mlp"):
            raise argument_error("head", "'linear' or 'mlp'", self.head)
        if self.class_weight not in (None, "balanced"):
            raise argument_error("class_weight", "None or 'balanced'", self.class_weight)
        for argument, value in (
            ("hidden", self.hidden),
            ("epochs", self.epochs),
            ("batch_size", self.batch_size),
            ("crop", self.crop),
            ("early_stopping", self.early_stopping),
        ):
            if value is not None:
                check_count(argument, value)
        if not isinstance(self.seed, int):
            raise argument_error("seed", "an int", self.seed)
        for argument, rate in (
            ("learning_rate", self.learning_rate),
            ("weight_decay", self.weight_decay),
        ):
            if not isinstance(rate, (int, float)) or not 0 <= rate < math.inf:
                raise argument_error(argument, "a finite number of at least 0", rate)

    @property
    def only_head(self) -> bool:
        """Whether nothing but the head is trained."""
        return self.unfreeze == "head" or (self.unfreeze == 1 and self.unfreeze is not True)
