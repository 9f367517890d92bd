"""What class-activation methods may ask of a forward pass, computed when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pyxai.attribution.cam.forward import Forward, run_forward, sums_of
from pyxai.attribution.cam.methods import CamMethod
from pyxai.classifier import Examined, LinearHead, Target
from pyxai.classifier.batches import images_at_once
from pyxai.classifier.borrow import borrowed, call
from pyxai.classifier.gradients import through
from pyxai.classifier.heads import explains
from pyxai.classifier.layout import Layout
from pyxai.classifier.outputs import rows_of_target
from pyxai.classifier.recording import ChangedError
from pyxai.classifier.rest import RestOfNetwork
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
    constant: torch.Tensor | None = None  # which maps have no variation, [N, k]

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
            concerned = self.forward.named(range(len(self.inputs)))
            raise ChangedError(  # perhaps; it is looked at once more
                "method: expected one that fits this network and target, got 'cam' (or 'softmax'), "
                "which needs class targets and a head of global average pooling and linear layers "
                f"after {self.layer!r}, and that is not what makes the logits of {concerned}; use "
                "method='gradcam'"
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
        if not self._graph_scores().requires_grad:
            return None  # `gradients` says what is wrong
        try:
            return self._hessian_products()
        except RuntimeError as error:
            if "not implemented" not in str(error):
                raise
        # Fused attention has no second derivative; the same by single operations has.
        with sdpa_kernel(SDPBackend.MATH):
            return self.on(self.inputs)._hessian_products()

    def _hessian_products(self) -> torch.Tensor:
        raw, scores = self.forward.raw[self.layer], self._graph_scores()
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

    def gradients_through(self) -> AbstractContextManager[Any]:
        """In which gradients reach the images, whatever the network does on the way."""
        if self.forward.target is not None:
            return nullcontext()
        return through(self.forward.examined)

    def contrast(self, references: torch.Tensor, strength: float) -> CamEvidence:
        """The same evidence for scores minus `strength` × the mean logit of `[N, k, r]` classes."""
        return replace(self, references=references, strength=strength)

    def on(self, images: torch.Tensor) -> CamEvidence:
        """The same layer and targets on other images, one in place of each."""
        old = self.forward
        with borrowed(old.network):
            examined = old.examined.on(images)
            recording = examined.record([self.layer], differentiate=True)
            with torch.enable_grad():
                graph = old.graph_of(recording.output, len(images))
        forward = replace(
            old,
            examined=examined,
            raw=recording.layers,
            logits=graph.detach(),
            graph=graph,
            _gradients={},
        )
        return replace(self, forward=forward)

    def rest_after(self, layer: str, raw: torch.Tensor) -> tuple[Layout, RestOfNetwork]:
        """Where positions are in a layer's raw output for the images, and what follows it."""
        layout = self.forward.examined.layout(layer, raw)
        known = raw.detach().narrow(0 if layout.batch_first else 1, 0, 1)
        return layout, self._rest(layer, layout, known)

    def scores_in(self, output: Any) -> torch.Tensor:
        """The scores `[N, k]` of the targets in what the network returned, with their graph."""
        return self.forward.scores_in(output)

    def scores_of(self, images: torch.Tensor, row: int) -> torch.Tensor:
        """Scores `[m, k]` of other inputs `[m, C, H, W]` for the targets of one of the images."""
        with borrowed(self.network):
            output = call(self.network, images)
            return self.forward.row_scores_in(output, row, len(images)).detach().float()

    @cached_property
    def _rest_of_layer(self) -> RestOfNetwork:
        return self._rest(self.layer, self.layout, self._raw_of(0))

    def _rest(self, layer: str, layout: Layout, raw: torch.Tensor) -> RestOfNetwork:
        """What follows a layer that gave `raw` for the first image."""

        forward = self.forward  # and not this evidence, which would hold itself

        def read(output: Any, count: int) -> torch.Tensor:
            return forward.row_scores_in(output, 0, count)

        known, point = (self.inputs[:1], raw, self.scores[:1]), forward.examined.point(layer)
        return RestOfNetwork(self.network, point, layout, read, known)

    def _raw_of(self, row: int) -> torch.Tensor:
        """The layer's raw output for one of the images."""
        axis = 0 if self.layout.batch_first else 1
        return self.forward.raw[self.layer].detach().narrow(axis, row, 1)

    def scores_from(self, features: torch.Tensor, row: int) -> torch.Tensor:
        """Scores `[m, k]` of other features `[m, C, h, w]`: only what follows the layer runs."""
        like = self._raw_of(row)
        raw = self.layout.restore(features.to(like.dtype), like)
        with borrowed(self.network):
            output = self._rest_of_layer(raw, self.inputs[row : row + 1])
            return self.forward.row_scores_in(output, row, len(features)).detach().float()

    def probabilities(self) -> torch.Tensor:
        """The class probabilities in each region, `[N, k, h, w]` (linear head only)."""
        head = self.head
        maps = cam_project(self.activations, head.weight[None])
        self.check(maps)
        logits = maps + head.bias[:, None, None]
        flat, reading = logits.movedim(1, -1).flatten(0, 2), self.forward.examined.reading
        shares = reading.probabilities(flat).reshape(*logits.movedim(1, -1).shape)
        shares = shares.movedim(-1, 1)
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
        self.forward.check_finite(maps, f"features at layer {self.layer!r}")


def gather(
    examined: Examined,
    target: Target,
    *,
    layers: Sequence[str] = (),
    gradients: bool = True,
) -> list[CamEvidence]:
    """Runs the model once and gathers what methods need of each layer; see `gather_groups`.

    A linear head that does not explain all of the images is not used for any.
    """
    options: dict[str, Any] = {"layers": layers, "gradients": gradients}
    groups = gather_groups(examined, target, **options)
    if len(groups) == 1:
        return groups[0][1]
    rows = range(len(examined.inputs))
    return _evidence(examined, target, layers=layers, heads={}, gradients=gradients, rows=rows)


def gather_groups(
    examined: Examined,
    target: Target,
    *,
    layers: Sequence[str] = (),
    gradients: bool = True,
    rows: Sequence[int] | None = None,
) -> list[tuple[list[int], list[CamEvidence]]]:
    """Runs the model once and gathers what methods need of some layers.

    What a linear head claims is checked on every image. A network may take another branch for some
    of them: these are a group of their own, without that head, as what an image gets must not
    depend on those beside it.

    Args:
        examined: the model and the images.
        target: see `pyxai.cam`.
        layers: names of the layers; without any, the evidence is about the whole network.
        gradients: whether gradients will be asked for.
        rows: the places of these images in the whole call, for errors; by default 0, 1, ...

    Returns:
        (places in the batch, evidence of each layer) of each group; nearly always one.
    """
    rows = range(len(examined.inputs)) if rows is None else rows
    heads = _heads(examined, target, layers)
    evidence = _evidence(
        examined, target, layers=layers, heads=heads, gradients=gradients, rows=rows
    )
    everything = list(range(len(examined.inputs)))
    explained = _explained(evidence, heads)
    if everything and not bool(explained.any()):  # what was found may hold no more
        examined.anatomy.forget_heads(layers)
        heads = _heads(examined, target, layers)
        evidence = _evidence(
            examined, target, layers=layers, heads=heads, gradients=gradients, rows=rows
        )
        explained = _explained(evidence, heads)
    if bool(explained.all()):
        return [(everything, evidence)]
    groups = []
    for holds in (True, False):
        some = torch.nonzero(explained == holds).flatten().tolist()
        if some:
            part = examined if some == everything else examined.on(examined.inputs[some])
            wanted = rows_of_target(target, some, len(examined.inputs))
            known = heads if holds else dict.fromkeys(layers)
            names = [rows[place] for place in some]
            found = _evidence(
                part, wanted, layers=layers, heads=known, gradients=gradients, rows=names
            )
            groups.append((some, found))
    return groups


def _heads(
    examined: Examined, target: Target, layers: Sequence[str]
) -> dict[str, LinearHead | None]:
    """What is known of the heads after layers."""
    if callable(target):
        return dict.fromkeys(layers)
    return {name: examined.linear_head(name) for name in layers}


def _explained(
    evidence: Sequence[CamEvidence], heads: Mapping[str, LinearHead | None]
) -> torch.Tensor:
    """Of which images all linear heads explain the logits, `[N]` bool on the CPU."""
    explained = torch.ones(len(evidence[0].logits), dtype=torch.bool, device="cpu")
    for each in evidence:
        head = heads.get(each.layer)
        if head is not None:
            explained &= explains(head, each.activations, each.logits).cpu()
    return explained


def _evidence(
    examined: Examined,
    target: Target,
    *,
    layers: Sequence[str],
    heads: Mapping[str, LinearHead | None],
    gradients: bool,
    rows: Sequence[int],
) -> list[CamEvidence]:
    """The evidence of one pass, given the heads after the layers."""
    forward = run_forward(
        examined,
        target,
        layers=layers,
        differentiate=gradients and not all(heads.get(name) for name in layers),
        rows=rows,
    )
    if not layers:
        return [CamEvidence(forward, "", Layout("nchw", 1, 1), None)]
    return [CamEvidence(forward, name, forward.layouts[name], heads.get(name)) for name in layers]


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
