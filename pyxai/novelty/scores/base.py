"""What every score has in common: parameters, a fit by chunks, tensors as its state."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch

from pyxai._errors import argument_error
from pyxai._precision import full_precision
from pyxai.classifier import LinearHead
from pyxai.novelty.activations import Activations

SAMPLE = 10_000  # rows kept for what needs more than sums: percentiles, scales, estimators


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a score may need to know before the first chunk.

    Attributes:
        width: d.
        logits: K, None without logits.
        classes: how many classes the labels have, None without labels.
        head: the linear head, None where there is none.
        seed: of samples.
    """

    width: int
    logits: int | None
    classes: int | None
    head: LinearHead | None
    seed: int


S = TypeVar("S", bound="Score")


@dataclasses.dataclass(eq=False)
class Score:
    """A number for each image, higher for more familiar ones.

    The fields of the dataclass are its parameters; `fresh` gives an unfitted copy. `begin`, then
    `update` for each chunk of known activations, then `finish`; after that `state` holds all that
    `__call__` needs, and can be saved.
    """

    name: ClassVar[str] = ""
    needs_logits: ClassVar[bool] = False
    needs_head: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    needs_novel: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.state: dict[str, torch.Tensor] = {}
        self._moved: tuple[torch.device, dict[str, torch.Tensor]] | None = None

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters, as scikit-learn asks for them."""
        return {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}

    def set_params(self: S, **params: Any) -> S:
        """Sets parameters by name."""
        for name, value in params.items():
            if name not in self.get_params():
                raise argument_error("params", f"one of {[*self.get_params()]}", name)
            setattr(self, name, value)
        return self

    def fresh(self: S) -> S:
        """An unfitted copy with the same parameters."""
        return type(self)(**self.get_params(deep=False))

    def begin(self, setting: Setting) -> None:
        """Checks that the score is available at all, and makes room for the statistics.

        Raises:
            ValueError: there are no logits, fewer than two classes, or no linear head.
        """
        if self.needs_head and setting.head is None:
            expected = (
                "activations that enter the last linear layer of a network whose logits are that "
                f"layer's output, as {self.name} computes logits anew from changed activations"
            )
            got = "a layer or a network where this is not so; methods without a head: knn, "
            raise argument_error("layer", expected, f"{got}mahalanobis, msp, energy, ...")
        if self.needs_logits and setting.logits is None:
            expected = f"activations with logits, which {self.name} needs"
            raise argument_error("activations", expected, "features alone")
        if self.needs_labels and setting.classes is None:
            expected = f"activations with logits, or labels, which {self.name} needs"
            raise argument_error("activations", expected, "features alone")
        if self.needs_logits and setting.logits is not None and setting.logits < 2:
            expected = f"a network with two logits or more: {self.name} compares classes"
            raise argument_error("model", expected, f"{setting.logits} logit")

    def update(self, chunk: Activations, labels: np.ndarray[Any, Any] | None) -> None:
        """Takes known activations into account; labels `[n]` are their classes."""

    def finish(self) -> None:
        """Turns what was gathered into `state`."""

    def score(self, chunk: Activations, state: dict[str, torch.Tensor]) -> torch.Tensor:
        """`[n]`; `state` lies on the device of the features."""
        raise NotImplementedError

    @full_precision()
    def __call__(self, chunk: Activations) -> torch.Tensor:
        """Scores `[n]` float64 on the CPU, higher for more familiar images."""
        if self.needs_logits and chunk.logits is None:
            expected = f"activations with logits, which {self.name} needs"
            raise argument_error("activations", expected, "features alone")
        found = self.score(chunk, self._on(chunk.features.device))
        return found.detach().to("cpu", torch.float64)

    def _on(self, device: torch.device) -> dict[str, torch.Tensor]:
        if all(tensor.device == device for tensor in self.state.values()):
            return self.state
        moved = self._moved
        if moved is None or moved[0] != device:
            moved = (device, {name: each.to(device) for name, each in self.state.items()})
            self._moved = moved
        return moved[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_moved": None}


def from_numpy(values: Any) -> torch.Tensor:
    """A float64 tensor of its own memory."""
    return torch.from_numpy(np.array(values, np.float64, order="C"))


def energy(logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """T · log Σ exp(logits / T), `[n]`."""
    return temperature * torch.logsumexp(logits / temperature, dim=1)


def check_percentile(argument: str, value: float) -> float:
    """A percentile that leaves something on both sides.

    Raises:
        ValueError: it does not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 100:
        raise argument_error(argument, "a number between 0 and 100", value)
    return float(value)


def check_positive(argument: str, value: float) -> float:
    """A finite number above 0.

    Raises:
        ValueError: it is not.
    """
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not good or not 0 < value < float("inf"):
        raise argument_error(argument, "a finite number above 0", value)
    return float(value)
