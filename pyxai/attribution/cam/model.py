"""A module that answers images with logits and maps, for serving and export."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn

import torch
from torch import nn

from pyxai._errors import REFUSALS, argument_error, passes_through
from pyxai._precision import as_given, full_precision
from pyxai.attribution.cam import output_size
from pyxai.attribution.cam.evidence import gather, linear_gradients
from pyxai.attribution.cam.methods import AUTO, CamMethod, cam_method
from pyxai.classifier import (
    Classifier,
    Examined,
    LinearHead,
    as_classifier,
    typical_input_shape,
)
from pyxai.classifier.calls import FunctionCalls
from pyxai.classifier.nested import first_tensor
from pyxai.classifier.points import (
    Point,
    check_name,
    find_layer,
    function_name,
    made_or_changed,
    version_of,
)
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

    @full_precision()
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
            ValueError: the method is not available for this network in one pass without gradients,
                or an argument does not fit.
        """
        super().__init__()
        classifier = as_classifier(model)
        self.class_names = classifier.class_names
        original, guessed = classifier.network, False
        if layer is not None:
            check_name(original, layer)
        if example is None:
            shape = typical_input_shape(original, classifier.preprocessing)
            guessed = True
            example = torch.zeros(1, *shape, dtype=classifier.dtype, device="cpu")
        images = example.to(classifier.device)
        examined = Examined(classifier, images)
        try:
            known = examined.anatomy  # of a size that nobody told, it may not run at all
            self.layer = examined.layer() if layer is None else layer
        except REFUSALS as error:
            if passes_through(error) or not guessed:
                raise
            raise _of_another_size(images, error) from error
        (evidence,) = gather(examined.on(images[:1]), None, layers=[self.layer], gradients=False)
        head = evidence.linear_head  # which explains the example
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
        self._layout, self._reading = evidence.layout, known.reading
        self._keep = _Keep(examined.point(self.layer))
        if self._keep.point.module:  # the copy is ours, so the hook may stay
            module = find_layer(self.network, self._keep.point.module)
            module.register_forward_hook(self._keep)
        with torch.no_grad(), as_given():
            self(images)  # what does not work shall say so here

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits `[N, K]` and the maps, float32."""
        output, raw = self._keep.run(self.network, images.clone())  # it may work in place
        logits = self._reading.logits(output, images.shape[0])
        if torch.is_autocast_enabled(images.device.type):  # that was for the network
            with torch.autocast(images.device.type, enabled=False):
                return self._explained(images, logits, raw)
        return self._explained(images, logits, raw)

    def _explained(
        self, images: torch.Tensor, logits: torch.Tensor, raw: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        features = raw if self._layout.kind == "nchw" else self._layout.features(raw)
        evidence = _ServedEvidence(self._linear_head(), logits, features, self._classes(logits))
        found = self._method.compute(evidence, **self._method.options)
        maps = found if found.ndim == 4 else cam_project(features, found)
        maps = maps.to(torch.float32)
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
            return torch.arange(logits.shape[1], device=logits.device, dtype=torch.int64)[None]
        if self._class is None:
            return logits.argmax(dim=1, keepdim=True)
        return torch.full((1, 1), self._class, dtype=torch.long, device=logits.device)


def _of_another_size(images: torch.Tensor, error: Exception) -> ValueError:
    return ValueError(
        "example: expected an input of the size that the network takes, as one of "
        f"{[*images.shape]} will not do ({str(error).splitlines()[0][:160]}); pass example=images"
    )


def _thread() -> int:
    """Which thread runs; compiled code sees one, as what it keeps does not outlive the call."""
    return 0 if torch.compiler.is_compiling() else threading.get_ident()


@dataclass(eq=False)
class _Pass(FunctionCalls):
    """One pass of the network, and what it gave at the explained layer."""

    point: Point
    runs: int = 0
    calls: int = 0
    armed: bool = False
    kept: torch.Tensor | None = None

    def __post_init__(self) -> None:
        super().__init__()
        self.armed = not self.point.module

    def module_ran(self, output: Any) -> None:
        self.runs += 1
        if self.point.function is not None:
            self.armed, self.calls = self.runs == self.point.run, 0
        elif self.point.last or self.runs == self.point.run:
            self._keep(first_tensor(output))

    def called(self, function: Any, args: Sequence[Any], named: dict[str, Any]) -> Any:
        if not self.armed or function_name(function) != self.point.function:
            return function(*args, **named)
        given = first_tensor(args)
        before = None if given is None else version_of(given)
        output = function(*args, **named)
        self.calls += 1
        if self.calls == self.point.call:
            self.armed = False
            self._keep(made_or_changed(given, before, output))
        return output

    def _keep(self, tensor: torch.Tensor | None) -> None:
        assert tensor is not None
        self.kept = tensor.clone()  # an operation in place may follow


class _Keep:
    """Runs the network and keeps what it gives at a point; also the hook of the point's module."""

    def __init__(self, point: Point) -> None:
        self.point = point
        self._passes: dict[int, _Pass] = {}

    def __call__(self, module: nn.Module, arguments: Any, output: Any) -> None:
        self._passes[_thread()].module_ran(output)

    def run(self, network: nn.Module, images: torch.Tensor) -> tuple[Any, torch.Tensor]:
        """What the network returns, and the raw output of the layer."""
        one = self._passes[_thread()] = _Pass(self.point)
        if self.point.function is None:
            output = network(images)
        else:
            with one:
                output = network(images)
        del self._passes[_thread()]
        if one.kept is None:
            raise ValueError(f"layer: expected one that runs, got {self.point.name!r}")
        return output, one.kept


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
