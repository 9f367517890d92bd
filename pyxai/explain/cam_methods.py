"""The class-activation methods: how each weighs the channels of the explained layer.

A method is a small pure function of the evidence below. It returns the weights `[N or 1, k, C]`
that the features are projected on. To add one, write the function and decorate it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from pyxai._errors import closest
from pyxai.classifier import LinearHead


class Evidence(Protocol):
    """What a method may use; computed when it is asked for, and only then."""

    @property
    def activations(self) -> torch.Tensor:
        """Output of the layer, `[N, C, h, w]`."""

    @property
    def gradients(self) -> torch.Tensor:
        """Gradients of the target scores with respect to it, `[N or 1, k, C, h, w]`.

        h and w are 1 where the gradient is known to be the same at every position.
        """

    @property
    def head(self) -> LinearHead:
        """The weights of the linear head; an error if the head is of another kind."""

    @property
    def classes(self) -> torch.Tensor:
        """Indices of the targets, `[N or 1, k]`."""


@dataclass(frozen=True)
class CamMethod:
    """One method.

    Attributes:
        name: as users write it.
        weigh: evidence -> weights `[N or 1, k, C]`.
        relu: whether negative values of the map are dropped, by the method's definition.
        exact: whether mean(map) + bias is the logit, so that a gap between them shows an error.
    """

    name: str
    weigh: Callable[[Evidence], torch.Tensor]
    relu: bool
    exact: bool


METHODS: dict[str, CamMethod] = {}


def method(
    name: str, *, relu: bool, exact: bool = False
) -> Callable[[Callable[[Evidence], torch.Tensor]], Callable[[Evidence], torch.Tensor]]:
    """Registers a method under the name that users write."""

    def register(
        weigh: Callable[[Evidence], torch.Tensor],
    ) -> Callable[[Evidence], torch.Tensor]:
        METHODS[name] = CamMethod(name, weigh, relu, exact)
        return weigh

    return register


def find_method(name: str) -> CamMethod:
    """The method of that name.

    Raises:
        ValueError: there is none; the message lists them.
    """
    if name not in METHODS:
        known = ", ".join(map(repr, ["auto", *METHODS]))
        hint = closest(str(name), METHODS)
        raise ValueError(f"method: expected one of {known}, got {name!r}{hint}")
    return METHODS[name]


@method("cam", relu=False, exact=True)
def cam(evidence: Evidence) -> torch.Tensor:
    """CAM: the weights of the linear head (Zhou et al. 2016, arXiv:1512.04150, Eq. 2)."""
    return evidence.head.weight[evidence.classes]


@method("gradcam", relu=True)
def gradcam(evidence: Evidence) -> torch.Tensor:
    """Grad-CAM: mean gradient of each channel (Selvaraju et al. 2017, arXiv:1610.02391, Eq. 1)."""
    return evidence.gradients.mean(dim=(-2, -1))
