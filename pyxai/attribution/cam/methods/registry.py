"""The list of class-activation methods, and what a method may use.

A method is a small pure function of the evidence below. It returns the weights of the channels
`[N or 1, k, C]`, which the features are then projected on, or, where its map is no weighted sum of
channels, the maps `[N or 1, k, h, w]`. To add one, write the function and decorate it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import nn

from pyxai._errors import closest
from pyxai.classifier import LinearHead
from pyxai.classifier.layout import Layout


class Evidence(Protocol):
    """What a method may use; computed when it is asked for, and only then."""

    @property
    def network(self) -> nn.Module:
        """The module that is explained."""

    @property
    def inputs(self) -> torch.Tensor:
        """The images as the network saw them, `[N, C, H, W]`."""

    @property
    def logits(self) -> torch.Tensor:
        """`[N, K]`; of a target that is a function, its scores `[N, 1]`."""

    @property
    def classes(self) -> torch.Tensor:
        """Indices of the targets among the logits, `[N or 1, k]`."""

    @property
    def scores(self) -> torch.Tensor:
        """The scores of the targets, `[N, k]` float32."""

    @property
    def features(self) -> torch.Tensor:
        """The output of the explained layer, `[N, C, h, w]` float32."""

    @property
    def gradients(self) -> torch.Tensor:
        """Gradients of the scores with respect to the features, `[N or 1, k, C, h, w]` float32.

        h and w are 1 where the gradient is known to be the same at every position.
        """

    @property
    def hessian_products(self) -> torch.Tensor | None:
        """Second derivatives of the scores times the features, `[N, k, C, h, w]`; None if zero."""

    @property
    def linear_head(self) -> LinearHead | None:
        """The head, if it is global average pooling and one linear layer and targets are classes.

        Asked for by methods that have a closed form there.
        """

    @property
    def head(self) -> LinearHead:
        """The linear head; an error if the head is of another kind."""

    @property
    def report(self) -> dict[str, torch.Tensor]:
        """Where a method states its own accuracy; tensors that begin with the axis N."""

    @property
    def images_at_once(self) -> int:
        """How many images suit one forward pass."""

    def gradients_through(self) -> AbstractContextManager[Any]:
        """In which gradients reach the images, whatever the network does on the way."""

    def contrast(self, references: torch.Tensor, strength: float) -> Evidence:
        """The same evidence for scores minus `strength` × the mean logit of `[N, k, r]` classes."""

    def scores_in(self, output: Any) -> torch.Tensor:
        """The scores `[N, k]` of the targets in what the network returned, with their graph."""

    def rest_after(
        self, layer: str, raw: torch.Tensor
    ) -> tuple[Layout, Callable[[torch.Tensor, torch.Tensor], Any]]:
        """Where positions are in a layer's raw output for the images, and what follows it.

        The latter takes raw outputs and images, and gives what the network returns.
        """

    def on(self, images: torch.Tensor) -> Evidence:
        """The same layer and targets on other images, one in place of each."""

    def scores_of(self, images: torch.Tensor, row: int) -> torch.Tensor:
        """Scores `[m, k]` of other inputs `[m, C, H, W]` for the targets of one of the images."""

    def scores_from(self, features: torch.Tensor, row: int) -> torch.Tensor:
        """Scores `[m, k]` of other features `[m, C, h, w]`: only what follows the layer runs."""


@dataclass(frozen=True)
class CamMethod:
    """One method, with the options it is to run with.

    Attributes:
        name: as users write it.
        compute: evidence -> channel weights or maps; of a method that fuses layers, a list of
            these, one a layer.
        relu: whether negative values of the map are dropped, by the method's definition.
        gradients: whether it uses gradients of a head that is not linear.
        layer: whether it is about a layer; else about the whole network.
        fuses: whether it makes one map of several layers.
        exact: how the signed maps of a linear head add up to logit - bias, if they do.
        options: keyword arguments of `compute`.
    """

    name: str
    compute: Callable[..., torch.Tensor]
    relu: bool = True
    gradients: bool = False
    layer: bool = True
    fuses: bool = False
    exact: Literal["mean", "sum"] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{self.name}({options})" if options else self.name


def _resolved_by_layer(evidence: Evidence) -> torch.Tensor:
    raise AssertionError("'auto' stands for 'cam' or 'gradcam', chosen for each layer")


METHODS: dict[str, CamMethod] = {}
AUTO = CamMethod("auto", _resolved_by_layer, gradients=True)

_Compute = TypeVar("_Compute", bound=Callable[..., torch.Tensor])


def method(name: str, **properties: Any) -> Callable[[_Compute], _Compute]:
    """Registers a function as a method; see `CamMethod` for the properties."""

    def register(compute: _Compute) -> _Compute:
        METHODS[name] = CamMethod(name, compute, **properties)
        return compute

    return register


def cam_method(name: str, **options: Any) -> CamMethod:
    """A class-activation method with options, to be given as `method` to `pyxai.cam`.

    `pyxai.cam(model, images, method=pyxai.cam_method("scorecam", channels=64))`

    Args:
        name: the method, in any spelling: "gradcam++", "Grad-CAM++" and "GradCAMPlusPlus" are
            one; docs/cam.md lists them with their options. Results are called by the first.
        **options: keyword arguments of that method.

    Raises:
        ValueError: no such method or option; the message lists those that there are.
    """
    known = canonical(name)
    if known == AUTO.name and not options:
        return AUTO
    if known == AUTO.name:
        raise ValueError(f"options: expected none of 'auto', got {next(iter(options))!r}")
    if known is None:
        names = ", ".join(map(repr, [AUTO.name, *METHODS]))
        hint = closest(str(name), METHODS)
        raise ValueError(f"method: expected one of {names}, got {name!r}{hint}")
    found = METHODS[known]
    if not options:
        return found
    known_options = [
        parameter.name
        for parameter in inspect.signature(found.compute).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    for option in options:
        if option not in known_options:
            expected = ", ".join(known_options) or "none"
            raise ValueError(f"options: expected those of {name!r} ({expected}), got {option!r}")
    return replace(found, options=options)


def canonical(name: object) -> str | None:
    """The name of a method, or "auto", as it stands in the list; None if there is none."""
    if not isinstance(name, str) or name in METHODS:
        return name if isinstance(name, str) else None
    wanted = _spelling(name)
    return next((each for each in (AUTO.name, *METHODS) if _spelling(each) == wanted), None)


def _spelling(name: str) -> str:
    """A name as it compares with others: "Grad-CAM++" and "GradCAMpp" are "gradcam++"."""
    plain = re.sub(r"[\s_\-\u2010-\u2015\u2212]", "", name.casefold())
    return re.sub(r"(plusplus|pp)$", "++", plain)


def weighted_sum(evidence: Evidence, gradients: torch.Tensor) -> torch.Tensor:
    """Sum over channels of gradient × feature: weights if the gradient is uniform, else maps."""
    if gradients.shape[-2:].numel() == 1:
        return gradients[..., 0, 0]
    features = evidence.features
    return per_target(gradients, lambda gradient: (gradient * features).sum(dim=1))


def per_target(
    gradients: torch.Tensor, compute: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Applies a function to the gradients of one target after the other, to hold one product."""
    return torch.stack([compute(gradient) for gradient in gradients.unbind(dim=1)], dim=1)
