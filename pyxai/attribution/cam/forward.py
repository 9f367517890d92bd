"""One forward pass of the network, and gradients of what it gave."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn

from pyxai._errors import argument_error
from pyxai.classifier import Examined, Target
from pyxai.classifier.borrow import borrowed
from pyxai.classifier.layout import Layout
from pyxai.classifier.odd_models import quantized_hint
from pyxai.classifier.recording import ChangedError


@dataclass(eq=False)
class Forward:
    """One forward pass of some images.

    Attributes:
        examined: the model and the images.
        rows: what the images are called in errors.
        layouts: where positions are in their outputs.
        raw: their outputs, as the network has them.
        target: the target if it is a function, else None.
        logits: `[N, K]` without a graph, or the scores `[N, 1]` of a callable target.
        classes: indices of the targets among these, `[N or 1, k]`.
        single: whether the result has no axis for the targets.
        graph: the same as `logits`, with a graph from the first layer on if there is one.
    """

    examined: Examined
    rows: Sequence[int]
    layouts: dict[str, Layout]
    raw: dict[str, torch.Tensor]
    target: Callable[[Any], torch.Tensor] | None
    logits: torch.Tensor
    classes: torch.Tensor
    single: bool
    graph: torch.Tensor
    _gradients: dict[str, list[torch.Tensor]] = field(default_factory=dict)

    @property
    def network(self) -> nn.Module:
        """The module with the layers."""
        return self.examined.network

    @property
    def inputs(self) -> torch.Tensor:
        """The images, `[N, C, H, W]`."""
        return self.examined.inputs

    @cached_property
    def scores(self) -> torch.Tensor:
        """The scores of the targets, `[N, k]` float32, without a graph."""
        return self.choose(self.logits).to(torch.float32)

    def choose(self, logits: torch.Tensor) -> torch.Tensor:
        """The targets' columns `[N, k]` of logits of the images."""
        return logits.gather(1, self.classes.expand(len(logits), -1))

    def graph_of(self, output: Any, images: int) -> torch.Tensor:
        """The logits of images, or the scores `[N, 1]` of a callable target."""
        return graph_of(self.target, self.examined, output, images)

    def scores_in(self, output: Any) -> torch.Tensor:
        """The targets' scores `[N, k]` in what the network returned for the images."""
        found = self.graph_of(output, len(self.inputs))
        return found if self.target is not None else self.choose(found)

    def row_scores_in(self, output: Any, row: int, count: int) -> torch.Tensor:
        """Scores `[count, k]`, of variants of one image, for that image's targets."""
        found = self.graph_of(output, count)
        if self.target is not None:
            return found
        return found[:, self.classes[row if len(self.classes) > 1 else 0]]

    def named(self, places: Iterable[int]) -> str:
        """Images by their places in the whole call, for messages."""
        bad = [self.rows[place] for place in places]
        return f"images {bad[:8]}{'...' if len(bad) > 8 else ''}"

    def check_finite(self, values: torch.Tensor, what: str) -> None:
        """Refuses values `[N, ...]` that are not finite.

        Raises:
            ValueError: naming the images concerned.
        """
        # One sum tells in most cases; it may overflow where no value does.
        if math.isfinite(float(values.sum(dtype=torch.float32))):
            return
        finite = torch.isfinite(values).flatten(1).all(dim=1)
        if not bool(finite.all()):
            bad = torch.nonzero(~finite).flatten().tolist()
            raise ValueError(
                f"model: expected finite {what}, got NaN or infinity for {self.named(bad)}"
            )

    def gradients_of(self, scores: torch.Tensor, layers: Sequence[str]) -> list[list[torch.Tensor]]:
        """Gradients of scores `[N, k]` with respect to the raw outputs: k of each layer.

        Raises:
            ValueError: the scores do not depend on a layer in a differentiable way.
        """
        if not scores.requires_grad:
            raise ValueError(
                "layer: expected one that the scores depend on through differentiable operations, "
                f"got {layers[0]!r} (does the model itself run under no_grad or inference_mode, "
                "or was it loaded inside inference_mode?)"
            )
        found: list[list[torch.Tensor]] = [[] for _ in layers]
        outputs = [self.raw[name] for name in layers]
        for score in sums_of(scores):
            each = _gradients(score, outputs)
            for name, gradient, kept in zip(layers, each, found, strict=True):
                if gradient is None:
                    expected = f"one that the scores depend on{quantized_hint(self.network)}"
                    raise argument_error("layer", expected, name)
                kept.append(gradient)
        for name, kept in zip(layers, found, strict=True):
            if len(scores) and not any(bool(gradient.any()) for gradient in kept):
                raise ValueError(
                    f"layer: expected one that the scores depend on, got {name!r}, where their "
                    f"gradient is 0 everywhere for {self.named(range(len(self.inputs)))} (is the "
                    "score made elsewhere in the network, the head untrained, or the score cut off "
                    "by an activation?)"
                )
        return found

    def gradients(self, layer: str) -> list[torch.Tensor]:
        """Gradients of the targets' scores: one backward pass of each target for all layers."""
        if layer not in self._gradients:
            names = [name for name, raw in self.raw.items() if raw.requires_grad]
            with torch.enable_grad():
                scores = self.choose(self.graph)
            found = self.gradients_of(scores, names or [layer])
            self._gradients.update(zip(names, found, strict=True))
        return self._gradients[layer]


def _gradients(
    score: torch.Tensor, outputs: Sequence[torch.Tensor]
) -> Sequence[torch.Tensor | None]:
    try:
        return torch.autograd.grad(score, outputs, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
        raise ValueError(
            "method: expected one without gradients, such as 'ablationcam' or 'eigencam', as the "
            "network has none: it changes in place what its gradients need "
            f"({str(error).partition(':')[0]})"
        ) from error


def run_forward(
    examined: Examined,
    target: Target,
    *,
    layers: Sequence[str],
    differentiate: bool,
    rows: Sequence[int] | None = None,
) -> Forward:
    """Runs the model once on some images.

    Args:
        examined: the model and the images.
        target: see `pyxai.cam`.
        layers: whose outputs are kept.
        differentiate: whether to build the graph from the first of these on.
        rows: what the images are called in errors; by default they are counted from 0.

    Raises:
        ValueError: features or logits are not finite, naming the images; a target or a layer does
            not fit.
    """
    classifier, images = examined.classifier, len(examined.inputs)
    function = target if callable(target) else None
    with borrowed(examined.network):
        recording = examined.record(layers, differentiate=differentiate)
        if function is None and not examined.reading.fits(recording.output, images):
            raise ChangedError(
                f"model: expected one kind of outputs, got from {classifier.name} what looks like "
                "probabilities for some images and not for others; say how to read them: "
                "Classifier(model, output=...)"
            )
        layouts = {name: examined.layout(name, raw) for name, raw in recording.layers.items()}
        with torch.enable_grad():
            graph = graph_of(function, examined, recording.output, images)
    logits = graph.detach()
    classes, single = torch.zeros((1, 1), dtype=torch.long, device=logits.device), True
    forward = Forward(
        examined=examined,
        rows=range(images) if rows is None else rows,
        layouts=layouts,
        raw=recording.layers,
        target=function,
        logits=logits,
        classes=classes,
        single=single,
        graph=graph,
    )
    for name, raw in recording.layers.items():
        forward.check_finite(layouts[name].features(raw.detach()), f"features at layer {name!r}")
    forward.check_finite(logits, "logits" if function is None else "scores of the target")
    if function is None:
        classifier.check_logits(logits)
        resolved = classifier.resolve_target(target, logits)
        forward.classes, forward.single = resolved.index, resolved.single
    return forward


def graph_of(target: Any, examined: Examined, output: Any, images: int) -> torch.Tensor:
    """The logits, or the scores `[N, 1]` of a callable target."""
    if target is None:
        return examined.reading.logits(output, images)
    return scores_of_callable(target, output, images)


def scores_of_callable(
    target: Callable[[Any], torch.Tensor], output: Any, images: int
) -> torch.Tensor:
    """The scores `[N, 1]` that a target function gives, with their graph.

    Raises:
        ValueError: it gives something else.
    """
    with torch.enable_grad():
        scores = target(output)
        if not isinstance(scores, torch.Tensor) or scores.shape != (images,):
            expected = f"a function of the model's outputs that returns scores [{images}]"
            raise argument_error("target", expected, scores)
        return scores[:, None]


def sums_of(scores: torch.Tensor) -> list[torch.Tensor]:
    """The scores `[N, k]` of each target as one number to differentiate, k of them.

    The score of one image does not depend on the others, so their sum will do.
    """
    with torch.enable_grad():
        return list(scores.sum(dim=0).unbind())
