"""A module that answers images with logits and maps, for serving and export."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn

import torch
from torch import nn

from pyxai._errors import argument_error
from pyxai.classifier import (
    Classifier,
    LinearHead,
    anatomy,
    as_classifier,
    typical_input_shape,
)
from pyxai.classifier.borrow import borrowed, find_layer, first_tensor
from pyxai.classifier.outputs import logits_of
from pyxai.explain.cam import output_size
from pyxai.explain.cam_engine import linear_gradients
from pyxai.explain.cam_methods import AUTO, CamMethod, cam_method
from pyxai.ops import cam_project, cam_render


class CamModel(nn.Module):
    """images `[N, C, H, W]` -> (logits `[N, K]`, maps), without hooks to set or gradients to ask.

    For inference services: `torch.compile(fullgraph=True)`, `torch.export` (save and load) and ONNX
    export work. The maps are those of `pyxai.cam`. The network is copied and frozen, in evaluation
    mode; later changes of the original are not seen.

    Attributes:
        class_names: of the classifier, or None.
        layer: the explained layer.
        method: the name of the method.
    """

    def __init__(
        self,
        model: nn.Module | Classifier,
        *,
        target: int | str | None = None,
        method: str | CamMethod = "auto",
        layer: str | None = None,
        size: Literal["input"] | int | Sequence[int] | None = "input",
        minmax: bool = True,
        relu: bool | None = None,
        example: torch.Tensor | None = None,
    ) -> None:
        """Copies the network and looks once at what it is made of.

        Args:
            model: an `nn.Module` or a `Classifier`.
            target: None, the top class of each image, maps `[N, H, W]`; a class, the same for all,
                `[N, H, W]`; or "all", `[N, K, H, W]`.
            method: see `pyxai.cam`; one that needs neither gradients through a head that is not
                linear nor further runs of the network.
            layer: the name of the layer; by default the last one with spatial positions.
            size: "input"; an int or (height, width); None for the layer's resolution.
            minmax: whether each map is scaled to [0, 1].
            relu: whether negative values become 0; None does what the method's paper does.
            example: an input `[1, C, H, W]` of the size that will come; by default the size of the
                classifier's preprocessing, or 224.

        Raises:
            ValueError: the method cannot be had of this network in one pass without gradients, or
                an argument does not fit.
        """
        super().__init__()
        classifier = as_classifier(model)
        self.class_names = classifier.class_names
        original = classifier.network
        if example is None:
            shape = typical_input_shape(original, classifier.preprocessing)
            example = torch.zeros(1, *shape, dtype=classifier.dtype)
        images = example.to(classifier.device)
        self.layer = anatomy.last_spatial_layer(original, images) if layer is None else layer
        head = anatomy.linear_head(original, images, self.layer)
        chosen = method if isinstance(method, CamMethod) else cam_method(method)
        if chosen is AUTO:
            chosen = cam_method("cam")
        if chosen.fuses or not chosen.layer:
            raise argument_error("method", "one about a single layer", chosen.name)
        self.method = chosen.name
        self._method = chosen
        self._relu = chosen.relu if relu is None else relu
        self._minmax = minmax
        # "input" stays a word, as the size of what will come is not known yet.
        self._size = "input" if size == "input" else output_size(size, images)
        classifier.resolve_target(target, classifier(images))  # refuses what does not fit
        self._all = target == "all"
        self._class = None if target is None or self._all else classifier.class_index(target)
        self.network = deepcopy(original).eval().requires_grad_(False)
        self._head_weight: torch.Tensor | None
        self._head_bias: torch.Tensor | None
        self.register_buffer("_head_weight", None if head is None else head.weight.clone())
        self.register_buffer("_head_bias", None if head is None else head.bias.clone())
        self._keep = _Keep()
        with borrowed(original):
            raw = classifier.activations(images, self.layer)[self.layer]
        self._layout = anatomy.layout_of(original, images, self.layer, raw)
        # The copy is ours, so the hook may stay.
        find_layer(self.network, self.layer).register_forward_hook(self._keep)
        with torch.no_grad():
            self(images)  # what does not work shall say so here

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits `[N, K]` and the maps, float32."""
        logits = logits_of(self.network(images))
        raw = self._keep.kept.pop(_thread())
        features = raw if self._layout.kind == "nchw" else self._layout.features(raw)
        evidence = _ServedEvidence(self._linear_head(), logits, features, self._classes(logits))
        found = self._method.compute(evidence, **self._method.options)
        maps = found if found.ndim == 4 else cam_project(features, found)
        if self._size is not None or self._relu or self._minmax:
            size: Any = images.shape[-2:] if self._size == "input" else self._size
            size = maps.shape[-2:] if size is None else size
            maps = cam_render(maps, size, relu=self._relu, minmax=self._minmax)
        return logits, maps if self._all else maps[:, 0]

    def _linear_head(self) -> LinearHead | None:
        weight, bias = self._head_weight, self._head_bias
        return None if weight is None or bias is None else LinearHead(weight, bias)

    def _classes(self, logits: torch.Tensor) -> torch.Tensor:
        if self._all:
            return torch.arange(logits.shape[1], device=logits.device)[None]
        if self._class is None:
            return logits.argmax(dim=1, keepdim=True)
        return torch.full((1, 1), self._class, dtype=torch.long, device=logits.device)


def _thread() -> int:
    """Which thread runs; compiled code sees one, as what it keeps does not outlive the call."""
    return 0 if torch.compiler.is_compiling() else threading.get_ident()


class _Keep:
    """A forward hook that leaves the output of its module in a dictionary, for each thread."""

    def __init__(self) -> None:
        self.kept: dict[int, torch.Tensor] = {}

    def __call__(self, module: nn.Module, arguments: Any, output: Any) -> None:
        tensor = first_tensor(output)
        assert tensor is not None
        self.kept[_thread()] = tensor.clone()  # an operation in place may follow


@dataclass(eq=False)
class _ServedEvidence:
    """What methods may use where nothing can be run again; see `cam_methods.Evidence`."""

    linear_head: LinearHead | None
    logits: torch.Tensor
    activations: torch.Tensor
    classes: torch.Tensor
    references: torch.Tensor | None = None
    strength: float = 0.0

    @property
    def features(self) -> torch.Tensor:
        return self.activations.to(torch.float32)

    @property
    def scores(self) -> torch.Tensor:
        return self.logits.gather(1, self.classes.expand(len(self.logits), -1)).to(torch.float32)

    @property
    def head(self) -> LinearHead:
        if self.linear_head is None:
            raise ValueError(
                "method: expected one that uses neither gradients nor the head, such as "
                "'eigencam', as what follows the layer is not global average pooling and one "
                "linear layer; pyxai.cam can explain this model"
            )
        return self.linear_head

    @property
    def gradients(self) -> torch.Tensor:
        positions = self.activations.shape[-2] * self.activations.shape[-1]
        return linear_gradients(self.head, self.classes, positions, self.references, self.strength)

    @property
    def hessian_products(self) -> None:
        return None

    @property
    def report(self) -> dict[str, torch.Tensor]:
        return {}

    def contrast(self, references: torch.Tensor, strength: float) -> _ServedEvidence:
        return replace(self, references=references, strength=strength)

    def __getattr__(self, name: str) -> NoReturn:
        raise ValueError(
            "method: expected one that runs the network once, such as 'cam', 'layercam' or "
            f"'eigencam', got one that needs {name!r}"
        )
