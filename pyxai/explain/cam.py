"""Class activation maps: where in the image the evidence for a class lies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, overload

import torch
from torch import nn

from pyxai._errors import argument_error
from pyxai.classifier import Classifier, LinearHead, Target, anatomy, as_classifier
from pyxai.classifier.borrow import borrowed, record
from pyxai.classifier.outputs import logits_of
from pyxai.explain.cam_methods import CamMethod, find_method
from pyxai.images import Images
from pyxai.ops import cam_project, cam_project_render, cam_render

Normalization = Literal["minmax", "softmax"]


@overload
def cam(
    model: nn.Module | Classifier,
    images: Images,
    target: Target = None,
    *,
    method: str = "auto",
    layer: str | None = None,
    size: Literal["input"] | int | Sequence[int] | None = "input",
    normalize: Normalization | None = "minmax",
    return_logits: Literal[False] = False,
) -> torch.Tensor: ...


@overload
def cam(
    model: nn.Module | Classifier,
    images: Images,
    target: Target = None,
    *,
    method: str = "auto",
    layer: str | None = None,
    size: Literal["input"] | int | Sequence[int] | None = "input",
    normalize: Normalization | None = "minmax",
    return_logits: Literal[True],
) -> tuple[torch.Tensor, torch.Tensor]: ...


def cam(
    model: nn.Module | Classifier,
    images: Images,
    target: Target = None,
    *,
    method: str = "auto",
    layer: str | None = None,
    size: Literal["input"] | int | Sequence[int] | None = "input",
    normalize: Normalization | None = "minmax",
    return_logits: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Class activation maps of a batch of images, at the price of its forward pass.

    The body of the network runs without a graph and once for all targets. For a head that is global
    average pooling and one linear layer, nothing is differentiated; else the head alone is.

    Args:
        model: any classifying `nn.Module`, or a `Classifier`. It is left exactly as it was.
        images: a float tensor `[N, C, H, W]`, taken as the model's input; or photos (paths, PIL
            images, uint8 arrays or tensors), which go through the classifier's preprocessing.
        target: None, the top class of each image; an int or class name, for all images; a sequence
            or tensor of N of these, one an image; a nested sequence or tensor `[N or 1, k]`, k for
            each; "all", every class; or a function outputs -> scores `[N]`.
        method: "cam" (needs a linear head), "gradcam", or "auto": "cam" where it is exact, else
            "gradcam". docs/cam.md says what each computes and when to trust it.
        layer: the name of the layer to explain; by default the last one with spatial positions.
        size: "input", the model's input size; an int or (height, width); None, the layer's own
            resolution. Maps are resized bilinearly, after normalisation.
        normalize: "minmax" scales each map to [0, 1] (a constant map becomes 0); "softmax" gives
            the probability of the class in each region (linear head only); None leaves the map as
            it is, for "cam" so that its mean plus the bias is the logit.
        return_logits: also return the logits (of a target that is a function, its scores `[N]`).

    Returns:
        Maps `[N, H, W]`, or `[N, k, H, W]` for k targets an image, float32 on the model's device,
        without a graph; with `return_logits`, (maps, logits `[N, K]`).

    Raises:
        ValueError: an argument does not fit (its name, what was expected, what was got), the
            network has no such layer or head, or its features or logits are not finite.
        pyxai.images.ImageError: photos that cannot be used, all of them named.
    """
    classifier = as_classifier(model)
    inputs = classifier.to_input(images)
    shape = _output_size(size, inputs)
    if normalize not in ("minmax", "softmax", None):
        raise argument_error("normalize", "'minmax', 'softmax' or None", normalize)
    evidence = gather(classifier, inputs, target, method=method, layer=layer)
    if normalize == "softmax":
        maps = evidence.probabilities()
        maps = maps if shape is None else cam_render(maps, shape, minmax=False)
    elif shape is None or normalize is None:
        maps = evidence.maps
        if evidence.method.relu or normalize is not None or shape is not None:
            relu, minmax = evidence.method.relu, normalize is not None
            maps = cam_render(maps, shape or maps.shape[-2:], relu=relu, minmax=minmax)
    else:
        maps, low = cam_project_render(
            evidence.activations.detach(), evidence.weights, shape, relu=evidence.method.relu
        )
        evidence.check(low)
    if evidence.single:
        maps = maps[:, 0]
    return (maps, evidence.logits) if return_logits else maps


@dataclass
class CamEvidence:
    """All that the methods need of one forward pass; gradients and maps are made when asked for.

    Attributes:
        classifier: the model.
        method: how channels are weighted.
        layer: the explained layer.
        activations: its output `[N, C, h, w]`.
        logits: `[N, K]`, or the scores `[N]` of a callable target.
        classes: indices of the targets, `[N or 1, k]`.
        single: whether the result has no axis for the targets.
        linear_head: the head, if it is linear and the target is not a callable.
        scores: `[N, k]` with a graph, for heads of another kind.
    """

    classifier: Classifier
    method: CamMethod
    layer: str
    activations: torch.Tensor
    logits: torch.Tensor
    classes: torch.Tensor
    single: bool
    linear_head: LinearHead | None
    scores: torch.Tensor | None

    @property
    def head(self) -> LinearHead:
        """The linear head.

        Raises:
            ValueError: the head is of another kind.
        """
        if self.linear_head is None:
            raise ValueError(
                "method: expected one that fits this network and target, got 'cam' (or 'softmax'), "
                "which needs class targets and a head of global average pooling and one linear "
                f"layer after {self.layer!r}; use method='gradcam'"
            )
        return self.linear_head

    @cached_property
    def gradients(self) -> torch.Tensor:
        """Gradients of the scores with respect to the activations, `[N or 1, k, C, h, w]`.

        h and w are 1 for a linear head, whose gradient is the same at every position.

        Raises:
            ValueError: the scores do not depend on the layer in a differentiable way.
        """
        if self.linear_head is not None:
            # d logit / d A[c, y, x] = W[c] / (h * w): no backward pass.
            positions = self.activations.shape[-2:].numel()
            return self.linear_head.weight[self.classes][..., None, None] / positions
        scores = self.scores
        if scores is None or not scores.requires_grad:
            raise ValueError(
                "layer: expected one that the scores depend on through differentiable operations, "
                f"got {self.layer!r} (does the model itself run under no_grad or inference_mode, "
                "or was it loaded inside inference_mode?)"
            )
        found = []
        for k in range(scores.shape[1]):
            chosen = torch.zeros_like(scores)
            chosen[:, k] = 1  # the score of one image does not depend on the others
            last = k + 1 == scores.shape[1]
            (gradient,) = torch.autograd.grad(
                scores, self.activations, chosen, retain_graph=not last, allow_unused=True
            )
            if gradient is None:
                raise argument_error("layer", "one that the scores depend on", self.layer)
            found.append(gradient)
        return torch.stack(found, dim=1)

    @cached_property
    def weights(self) -> torch.Tensor:
        """Weights of the channels for each target, `[N or 1, k, C]`."""
        return self.method.weigh(self)

    @cached_property
    def maps(self) -> torch.Tensor:
        """Signed low-resolution maps, `[N, k, h, w]` float32.

        Raises:
            ValueError: they are not finite.
        """
        maps = cam_project(self.activations.detach(), self.weights)
        self.check(maps)
        return maps

    def probabilities(self) -> torch.Tensor:
        """The class probabilities in each region, `[N, k, h, w]`."""
        head = self.head
        maps = cam_project(self.activations.detach(), head.weight[None])
        self.check(maps)
        shares = (maps + head.bias[:, None, None]).softmax(dim=1)
        index = self.classes.expand(len(shares), -1)[..., None, None]
        return shares.gather(1, index.expand(-1, -1, *shares.shape[-2:]))

    def gap(self) -> torch.Tensor | None:
        """|mean(map) + bias - logit| of each image and target, `[N, k]`: how exact the maps are.

        None where the method makes no such claim.
        """
        if not self.method.exact:
            return None
        index = self.classes.expand(len(self.logits), -1)
        expected = self.maps.mean(dim=(-2, -1)) + self.head.bias[index]
        return (expected - self.logits.to(torch.float32).gather(1, index)).abs()

    def check(self, maps: torch.Tensor) -> None:
        """Refuses maps that are not finite.

        Raises:
            ValueError: naming the images concerned.
        """
        # One sum tells in most cases; it may overflow where no value does.
        if math.isfinite(float(maps.sum())):
            return
        finite = torch.isfinite(maps)
        if not bool(finite.all()):
            bad = torch.nonzero(~finite.flatten(1).all(dim=1)).flatten().tolist()
            raise ValueError(
                f"model: expected finite features at layer {self.layer!r}, got NaN or infinity for "
                f"images {bad[:8]}{'...' if len(bad) > 8 else ''}"
            )


def gather(
    classifier: Classifier,
    inputs: torch.Tensor,
    target: Target,
    *,
    method: str = "auto",
    layer: str | None = None,
    known: bool = True,
) -> CamEvidence:
    """Runs the model once and gathers what the maps of a method need; see `cam`.

    With `known`, a head that was found to be linear before is believed, and looked at again if it
    does not explain the logits.
    """
    if inputs.ndim != 4 or 0 in inputs.shape[1:]:
        raise argument_error("images", "a float tensor [N, C, H, W] with no empty axis", inputs)
    network = classifier.network
    if method != "auto":
        find_method(method)
    name = anatomy.last_spatial_layer(network, inputs) if layer is None else layer
    head = None if callable(target) else anatomy.linear_head(network, inputs, name)
    with borrowed(network):
        recording = record(network, inputs, [name], differentiate=head is None)
        activations = recording.layers[name]
        if activations.ndim != 4 or activations.shape[0] != inputs.shape[0]:
            raise argument_error("layer", "a layer whose output is [N, C, h, w]", activations)
        if callable(target):
            scores = _scores_of(target, recording.output, len(inputs))
            classes = torch.zeros((1, 1), dtype=torch.long, device=scores.device)
            logits, single = scores[:, 0], True
        else:
            logits = classifier.check_logits(logits_of(recording.output))
            resolved = classifier.resolve_target(target, logits.detach())
            classes, single = resolved.index, resolved.single
            scores = None
            if head is None:
                with torch.enable_grad():
                    scores = logits.gather(1, classes.expand(len(logits), -1))
            elif known and not anatomy.is_still_linear(head, activations, logits):
                anatomy.forget(network)
                return gather(classifier, inputs, target, method=method, layer=layer, known=False)
    chosen = find_method(("gradcam" if head is None else "cam") if method == "auto" else method)
    return CamEvidence(
        classifier, chosen, name, activations, logits.detach(), classes, single, head, scores
    )


def _scores_of(target: Callable[[Any], torch.Tensor], output: Any, images: int) -> torch.Tensor:
    with torch.enable_grad():
        scores = target(output)
        if not isinstance(scores, torch.Tensor) or scores.shape != (images,):
            expected = f"a function of the model's outputs that returns scores [{images}]"
            raise argument_error("target", expected, scores)
        return scores[:, None]


def _output_size(
    size: Literal["input"] | int | Sequence[int] | None, inputs: torch.Tensor
) -> tuple[int, int] | None:
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
