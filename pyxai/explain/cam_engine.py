"""What class-activation methods may ask of a forward pass, computed when it is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from pyxai.classifier import Classifier, LinearHead, Target, anatomy
from pyxai.classifier.batches import images_at_once
from pyxai.classifier.borrow import borrowed, call, record
from pyxai.classifier.layout import Layout
from pyxai.classifier.rest import RestOfNetwork
from pyxai.explain.cam_forward import Forward, graph_of, sums_of
from pyxai.explain.cam_methods import CamMethod
from pyxai.ops import cam_project


@dataclass(eq=False)
class CamEvidence:
    """What methods may use of one layer of one forward pass; see `cam_methods.Evidence`."""

    forward: Forward
    layer: str
    layout: Layout
    linear_head: LinearHead | None
    report: dict[str, torch.Tensor] = field(default_factory=dict)
    references: torch.Tensor | None = None  # classes to subtract, [N, k, r]
    strength: float = 0.0

    def reporting_anew(self) -> CamEvidence:
        """The same evidence, gradients and all, with an empty report."""
        twin = copy(self)
        twin.report = {}
        return twin

    @property
    def single(self) -> bool:
        """Whether the result has no axis for the targets."""
        return self.forward.single

    @property
    def network(self) -> nn.Module:
        """The module that is explained."""
        return self.forward.network

    @property
    def inputs(self) -> torch.Tensor:
        """The images, `[N, C, H, W]`."""
        return self.forward.inputs

    @property
    def logits(self) -> torch.Tensor:
        """`[N, K]`, or the scores `[N, 1]` of a callable target."""
        return self.forward.logits

    @property
    def classes(self) -> torch.Tensor:
        """Indices of the targets, `[N or 1, k]`."""
        return self.forward.classes

    @property
    def scores(self) -> torch.Tensor:
        """The scores of the targets, `[N, k]` float32."""
        return self.forward.scores

    @property
    def images_at_once(self) -> int:
        """How many images suit one forward pass."""
        return images_at_once(self.inputs)

    @cached_property
    def activations(self) -> torch.Tensor:
        """The output of the layer, `[N, C, h, w]`, without a graph.

        In the network's dtype, which the kernels read as it is; but float64 becomes float32.
        """
        found = self.layout.features(self.forward.raw[self.layer].detach())
        return found.to(torch.float32) if found.dtype == torch.float64 else found

    @cached_property
    def features(self) -> torch.Tensor:
        """The activations as float32."""
        return self.activations.to(torch.float32)

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
        """Gradients of the scores, `[N or 1, k, C, h, w]` float32; h = w = 1 for a linear head."""
        if self.linear_head is not None:
            positions = self.activations.shape[-2:].numel()
            return linear_gradients(
                self.linear_head, self.classes, positions, self.references, self.strength
            )
        if self.references is None:
            raw = self.forward.gradients(self.layer)
        else:
            (raw,) = self.forward.gradients_of(self._graph_scores(), [self.layer])
        return self._as_features(raw)

    @cached_property
    def hessian_products(self) -> torch.Tensor | None:
        """Second derivatives of the scores times the features, `[N, k, C, h, w]`; None if zero."""
        if self.linear_head is not None:
            return None
        raw, scores = self.forward.raw[self.layer], self._graph_scores()
        if not scores.requires_grad:
            return None  # `gradients` says what is wrong
        found = []
        for score in sums_of(scores):
            (first,) = torch.autograd.grad(score, raw, create_graph=True)
            product: torch.Tensor | None = None
            if first.requires_grad:
                (product,) = torch.autograd.grad(
                    first, raw, raw.detach(), retain_graph=True, allow_unused=True
                )
            found.append(torch.zeros_like(raw) if product is None else product)
        return self._as_features(found)

    def _graph_scores(self) -> torch.Tensor:
        """The scores with a graph, `[N, k]`."""
        logits = self.forward.graph
        with torch.enable_grad():
            scores = self.forward.choose(logits)
            if self.references is None:
                return scores
            flat = logits.gather(1, self.references.flatten(1))
            return scores - self.strength * flat.reshape(self.references.shape).mean(dim=2)

    def _as_features(self, raw: list[torch.Tensor]) -> torch.Tensor:
        """k tensors in the form of the layer's output as `[N, k, C, h, w]` float32."""
        return torch.stack([self.layout.features(each).float() for each in raw], dim=1)

    def contrast(self, references: torch.Tensor, strength: float) -> CamEvidence:
        """The same evidence for scores minus `strength` × the mean logit of `[N, k, r]` classes."""
        return replace(self, references=references, strength=strength)

    def on(self, images: torch.Tensor) -> CamEvidence:
        """The same layer and targets on other images, one in place of each."""
        old = self.forward
        with borrowed(old.network):
            recording = record(old.network, images, [self.layer], differentiate=True)
            with torch.enable_grad():
                graph = graph_of(old.target, recording.output, len(images))
        forward = Forward(
            old.classifier,
            images,
            recording.layers,
            old.target,
            graph.detach(),
            old.classes,
            old.single,
            graph,
        )
        return replace(self, forward=forward)

    def scores_in(self, output: Any) -> torch.Tensor:
        """The scores `[N, k]` of the targets in what the network returned, with their graph."""
        return self.forward.scores_in(output)

    def scores_of(self, images: torch.Tensor, row: int) -> torch.Tensor:
        """Scores `[m, k]` of other inputs `[m, C, H, W]` for the targets of one of the images."""
        with borrowed(self.network):
            output = call(self.network, images)
            return self.forward.row_scores_in(output, row, len(images)).detach().float()

    @cached_property
    def _rest(self) -> RestOfNetwork:
        return RestOfNetwork(self.network, self.layer)

    def scores_from(self, features: torch.Tensor, row: int) -> torch.Tensor:
        """Scores `[m, k]` of other features `[m, C, h, w]`: only what follows the layer runs."""
        like = self.forward.raw[self.layer][row : row + 1].detach()
        raw = self.layout.restore(features.to(like.dtype), like)
        with borrowed(self.network):
            output = self._rest(raw, self.inputs[row : row + 1])
            return self.forward.row_scores_in(output, row, len(features)).detach().float()

    def probabilities(self) -> torch.Tensor:
        """The class probabilities in each region, `[N, k, h, w]` (linear head only)."""
        head = self.head
        maps = cam_project(self.activations, head.weight[None])
        self.check(maps)
        shares = (maps + head.bias[:, None, None]).softmax(dim=1)
        index = self.classes.expand(len(shares), -1)[..., None, None]
        return shares.gather(1, index.expand(-1, -1, *shares.shape[-2:]))

    def gap(self, method: CamMethod, maps: torch.Tensor) -> torch.Tensor | None:
        """|sum or mean of the signed maps + bias - logit|, `[N, k]`; None where none is claimed."""
        if method.exact is None or self.linear_head is None:
            return None
        index = self.classes.expand(len(self.logits), -1)
        added = maps.mean(dim=(-2, -1)) if method.exact == "mean" else maps.sum(dim=(-2, -1))
        return (added + self.linear_head.bias[index] - self.scores).abs()

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
    layers: Sequence[str] = (),
    gradients: bool = True,
    known: bool = True,
) -> list[CamEvidence]:
    """Runs the model once and gathers what methods need of some layers.

    Args:
        classifier: the model.
        inputs: `[N, C, H, W]`.
        target: see `pyxai.cam`.
        layers: names of the layers; without any, the evidence is about the whole network.
        gradients: whether gradients will be asked for.
        known: believe a head that was found to be linear before; it is looked at again if it does
            not explain the logits.
    """
    network = classifier.network
    heads: dict[str, LinearHead | None] = dict.fromkeys(layers)
    if not callable(target):
        heads = {name: anatomy.linear_head(network, inputs, name) for name in layers}
    differentiate = gradients and not all(heads.values())
    with borrowed(network):
        recording = record(network, inputs, list(layers), differentiate=differentiate)
        layouts = {
            name: anatomy.layout_of(network, inputs, name, raw)
            for name, raw in recording.layers.items()
        }
        graph = graph_of(target if callable(target) else None, recording.output, len(inputs))
    logits = graph.detach()
    if callable(target):
        classes = torch.zeros((1, 1), dtype=torch.long, device=logits.device)
        single = True
    else:
        classifier.check_logits(logits)
        resolved = classifier.resolve_target(target, logits)
        classes, single = resolved.index, resolved.single
    forward = Forward(
        classifier,
        inputs,
        recording.layers,
        target if callable(target) else None,
        logits,
        classes,
        single,
        graph,
    )
    if not layers:
        return [CamEvidence(forward, "", Layout("nchw", 1, 1), None)]
    found = [CamEvidence(forward, name, layouts[name], heads[name]) for name in layers]
    for each in found:
        head = each.linear_head
        if known and head and not anatomy.is_still_linear(head, each.activations, logits):
            anatomy.forget(network)
            return gather(
                classifier, inputs, target, layers=layers, gradients=gradients, known=False
            )
    return found


def linear_gradients(
    head: LinearHead,
    classes: torch.Tensor,
    positions: int,
    references: torch.Tensor | None = None,
    strength: float = 0.0,
) -> torch.Tensor:
    """d logit / d A[c, y, x] = W[c] / (h * w), without a backward pass: `[N or 1, k, C, 1, 1]`."""
    chosen = head.weight[classes]
    if references is not None:
        chosen = chosen - strength * head.weight[references].mean(dim=2)
    return chosen[..., None, None] / positions
