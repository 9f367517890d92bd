"""Class activation maps: where in the image the evidence for a class lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, overload

import torch
from torch import nn

from pyxai._errors import argument_error, check_count
from pyxai._precision import full_precision
from pyxai.attribution.cam.evidence import gather_groups
from pyxai.attribution.cam.methods import CamMethod, cam_method
from pyxai.attribution.cam.pictures import BlankMapWarning, Collected, Style
from pyxai.classifier import Classifier, Examined, Target, as_classifier
from pyxai.classifier.batches import images_at_once
from pyxai.classifier.outputs import part_of_target
from pyxai.classifier.points import check_name
from pyxai.classifier.recording import ChangedError
from pyxai.images import Images

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["BlankMapWarning", "cam", "output_size"]

Normalization: TypeAlias = Literal["minmax", "softmax"]


Method: TypeAlias = "str | CamMethod"
Methods: TypeAlias = "list[str] | list[CamMethod] | list[str | CamMethod] | tuple[Method, ...]"
Layers: TypeAlias = "list[str] | tuple[str, ...]"
Model: TypeAlias = "nn.Module | Classifier"
Exactness: TypeAlias = "dict[str, dict[str, dict[str, torch.Tensor]]]"
"""What maps say about their own accuracy: by method, by layer, by name."""


class _Options(TypedDict, total=False):
    size: Literal["input"] | int | Sequence[int] | None
    normalize: Normalization | None
    relu: bool | None
    batch_size: int | None
    out: torch.Tensor | None


@overload
def cam(
    model: Model,
    images: Images,
    target: Target = None,
    *,
    method: Method = "auto",
    layer: str | None = None,
    return_logits: Literal[False] = False,
    return_report: Literal[False] = False,
    **options: Unpack[_Options],
) -> torch.Tensor: ...


@overload
def cam(
    model: Model,
    images: Images,
    target: Target = None,
    *,
    method: Method = "auto",
    layer: str | None = None,
    return_logits: Literal[True],
    return_report: Literal[False] = False,
    **options: Unpack[_Options],
) -> tuple[torch.Tensor, torch.Tensor]: ...


@overload
def cam(
    model: Model,
    images: Images,
    target: Target = None,
    *,
    method: Methods,
    layer: str | None = None,
    return_logits: Literal[False] = False,
    return_report: Literal[False] = False,
    **options: Unpack[_Options],
) -> dict[str, torch.Tensor]: ...


@overload
def cam(
    model: Model,
    images: Images,
    target: Target = None,
    *,
    method: Method = "auto",
    layer: Layers,
    return_logits: Literal[False] = False,
    return_report: Literal[False] = False,
    **options: Unpack[_Options],
) -> dict[str, torch.Tensor]: ...


@overload
def cam(
    model: Model,
    images: Images,
    target: Target = None,
    *,
    method: Methods,
    layer: Layers,
    return_logits: Literal[False] = False,
    return_report: Literal[False] = False,
    **options: Unpack[_Options],
) -> dict[str, dict[str, torch.Tensor]]: ...


@overload
def cam(
    model: Model,
    images: Images,
    target: Target = None,
    *,
    method: Method | Methods = "auto",
    layer: str | Layers | None = None,
    return_logits: Literal[True],
    return_report: Literal[False] = False,
    **options: Unpack[_Options],
) -> tuple[dict[str, Any], torch.Tensor]: ...


@overload
def cam(
    model: Model,
    images: Images,
    target: Target = None,
    *,
    method: Method = "auto",
    layer: str | None = None,
    return_logits: Literal[False] = False,
    return_report: Literal[True],
    **options: Unpack[_Options],
) -> tuple[torch.Tensor, Exactness]: ...


@overload
def cam(
    model: Model,
    images: Images,
    target: Target = None,
    *,
    method: Method = "auto",
    layer: str | None = None,
    return_logits: Literal[True],
    return_report: Literal[True],
    **options: Unpack[_Options],
) -> tuple[torch.Tensor, torch.Tensor, Exactness]: ...


@overload
def cam(
    model: Model,
    images: Images,
    target: Target = None,
    *,
    method: Method | Methods = "auto",
    layer: str | Layers | None = None,
    return_logits: Literal[False] = False,
    return_report: Literal[True],
    **options: Unpack[_Options],
) -> tuple[dict[str, Any], Exactness]: ...


@overload
def cam(
    model: Model,
    images: Images,
    target: Target = None,
    *,
    method: Method | Methods = "auto",
    layer: str | Layers | None = None,
    return_logits: Literal[True],
    return_report: Literal[True],
    **options: Unpack[_Options],
) -> tuple[dict[str, Any], torch.Tensor, Exactness]: ...


def cam(
    model: Model,
    images: Images,
    target: Target = None,
    *,
    method: Method | Methods = "auto",
    layer: str | Layers | None = None,
    size: Literal["input"] | int | Sequence[int] | None = "input",
    normalize: Normalization | None = "minmax",
    relu: bool | None = None,
    return_logits: bool = False,
    return_report: bool = False,
    batch_size: int | None = None,
    out: torch.Tensor | None = None,
) -> Any:
    """Class activation maps of a batch of images, at the price of its forward pass.

    The body of the network runs without a graph and once for all targets, layers and methods. For a
    head that is global average pooling and one linear layer, nothing is differentiated; else what
    follows the layer alone is.

    Args:
        model: any classifying `nn.Module`, or a `Classifier`. It is left exactly as it was.
        images: a float tensor `[N, C, H, W]`, taken as the model's input; or photos (paths, PIL
            images, uint8 arrays or tensors), which go through the classifier's preprocessing.
        target: None, the top class of each image; an int or class name, for all images; a sequence
            or tensor of N of these, one an image; a nested sequence or tensor `[N or 1, k]`, k for
            each; "all", every class; or a function outputs -> scores `[N]`.
        method: "cam" (needs a linear head), "gradcam", "layercam", ... ; "auto" is "cam" where it
            is exact, else "gradcam". docs/cam.md says what each computes and when to trust it.
            `pyxai.cam_method(name, ...)` sets options. A list of methods gives a dict of maps.
        layer: the name of the layer to explain; by default the last one with spatial positions
            (feature maps, or tokens on a grid). A list of layers gives a dict of maps.
        size: "input", the model's input size; an int or (height, width); None, the layer's own
            resolution. Maps are resized bilinearly, after normalisation.
        normalize: "minmax" scales each map to [0, 1] (a constant map becomes 0); "softmax" gives
            the probability of the class in each region (linear head, method "cam" only); None
            leaves the map as it is, for "cam" so that its mean plus the bias is the logit.
        relu: whether negative values become 0 first; None does what the method's paper does.
        return_logits: also return the logits (of a target that is a function, its scores `[N]`).
        return_report: also return what the maps say about their own accuracy:
            `report[method][layer]` has "gap" `[N, k]`, how far sums that should be exact are off,
            and what docs/cam.md lists for a method.
        batch_size: images of one forward pass; by default as many as suit cache and memory. The
            maps do not depend on it.
        out: a contiguous float32 tensor for the maps (of one method and layer), for services that
            reuse their memory.

    Returns:
        Maps `[N, H, W]`, or `[N, k, H, W]` for k targets an image, float32 on the model's device,
        without a graph. For lists of methods and layers, dicts of these: `maps[method]`,
        `maps[layer]` or `maps[method][layer]`. With `return_logits`, (maps, logits `[N, K]`); with
        `return_report` the report comes last.

    Raises:
        ValueError: an argument does not fit (its name, what was expected, what was got), the
            network has no such layer or head, or its features or logits are not finite.
        pyxai.images.ImageError: photos that cannot be used, all of them named.
    """
    classifier = as_classifier(model)
    inputs = classifier.to_input(images)
    if inputs.ndim != 4 or 0 in inputs.shape[1:]:
        raise argument_error("images", "a float tensor [N, C, H, W] with no empty axis", inputs)
    methods, many_methods = _methods(method)
    style = Style(output_size(size, inputs), normalize, relu, return_report)
    style.check(methods)
    per_layer = _several(layer) and not all(each.fuses for each in methods.values())
    if out is not None and (many_methods or per_layer):
        raise argument_error("out", "None for lists of methods or layers", out)
    step = images_at_once(inputs)
    if batch_size is not None:
        step = check_count("batch_size", batch_size, or_none=True)
    examined = Examined(classifier, inputs)
    call = _Call(
        examined=examined,
        target=target,
        methods=methods,
        layer=layer,
        style=style,
        step=step,
        out=out,
    )
    try:
        collected = call.run()
    except ChangedError:
        examined.renew()  # what is known of it holds no more
        collected = call.run()
    collected.warn_of_blank_maps()
    maps = collected.nested(many_methods, _several(layer))
    logits = (collected.logits(target),) if return_logits else ()
    report = (collected.reports(),) if return_report else ()
    return (maps, *logits, *report) if return_logits or return_report else maps


@dataclass(frozen=True)
class _Call:
    """What is explained, of what, by what."""

    examined: Examined
    target: Target
    methods: dict[str, CamMethod]
    layer: str | Sequence[str] | None
    style: Style
    step: int  # images of one pass
    out: torch.Tensor | None

    def run(self) -> Collected:
        """Explains all images, some at a time.

        Raises:
            ChangedError: what is known of the network does not hold for them.
        """
        inputs, step = self.examined.inputs, self.step
        layers = self._layers()
        gradients = any(each.gradients for each in self.methods.values())
        collected = Collected(len(inputs), self.out)
        # Whatever mode the caller is in: inference tensors could not be differentiated in the head.
        with torch.inference_mode(False), torch.no_grad(), full_precision():
            for start in range(0, max(len(inputs), 1), step):
                rows = range(start, min(start + step, len(inputs)))
                some = part_of_target(self.target, slice(start, start + step), len(inputs))
                groups = gather_groups(
                    self.examined.on(inputs[start : start + step]),
                    some,
                    layers=layers,
                    gradients=gradients,
                    rows=rows,
                )
                for places, evidence in groups:
                    where = [rows[at] for at in places]
                    for label, each in self.methods.items():
                        collected.add(label, each, evidence, self.style, where)
        return collected

    def _layers(self) -> list[str]:
        """The layers to look at."""
        layer = self.layer
        names = [] if layer is None else [layer] if isinstance(layer, (str, nn.Module)) else layer
        if layer is not None and (not isinstance(names, Sequence) or not names):
            raise argument_error("layer", "the name of a layer, or a list of at least one", layer)
        for each in names:
            check_name(self.examined.network, each)
        if not any(each.layer for each in self.methods.values()):
            return []
        return [self.examined.layer(self.target)] if layer is None else list(dict.fromkeys(names))


def _methods(method: Method | Methods) -> tuple[dict[str, CamMethod], bool]:
    """The methods by label, and whether a list was asked for."""
    many = not isinstance(method, (str, CamMethod))
    if many and (not isinstance(method, Sequence) or not method):
        raise argument_error("method", "a method or a list of at least one", method)
    chosen = [each if isinstance(each, CamMethod) else cam_method(each) for each in _listed(method)]
    return {str(each): each for each in chosen}, many


def _several(layer: str | Sequence[str] | None) -> bool:
    """Whether a list of layers was asked for."""
    return layer is not None and not isinstance(layer, str)


def _listed(one_or_more: Any) -> list[Any]:
    return [one_or_more] if isinstance(one_or_more, (str, CamMethod)) else list(one_or_more)


def output_size(
    size: Literal["input"] | int | Sequence[int] | None, inputs: torch.Tensor
) -> tuple[int, int] | None:
    """The (height, width) that `size` means for these inputs; None for the layer's resolution.

    Raises:
        ValueError: it is something else.
    """
    if size is None:
        return None
    if isinstance(size, str):
        if size != "input":
            raise argument_error("size", "'input', an int, (height, width) or None", size)
        return inputs.shape[-2], inputs.shape[-1]
    lengths = [size, size] if isinstance(size, int) else list(size)
    if len(lengths) != 2 or not all(isinstance(each, int) and each >= 1 for each in lengths):
        raise argument_error("size", "'input', None, or lengths of at least 1", size)
    return lengths[0], lengths[1]
