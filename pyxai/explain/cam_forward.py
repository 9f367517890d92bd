"""One forward pass of the network, and gradients of what it gave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn

from pyxai._errors import argument_error
from pyxai.classifier import Classifier
from pyxai.classifier.outputs import logits_of


@dataclass(eq=False)
class Forward:
    """One forward pass of some images.

    Attributes:
        classifier: the model.
        inputs: its input, `[N, C, H, W]`.
        raw: the outputs of the explained layers, as the network has them.
        target: the target if it is a function, else None.
        logits: `[N, K]` without a graph, or the scores `[N, 1]` of a callable target.
        classes: indices of the targets among these, `[N or 1, k]`.
        single: whether the result has no axis for the targets.
        graph: the same as `logits`, with a graph from the first layer on if there is one.
    """

    classifier: Classifier
    inputs: torch.Tensor
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
        return self.classifier.network

    @cached_property
    def scores(self) -> torch.Tensor:
        """The scores of the targets, `[N, k]` float32, without a graph."""
        return self.choose(self.logits).to(torch.float32)

    def choose(self, logits: torch.Tensor) -> torch.Tensor:
        """The targets' columns `[N, k]` of logits of the images."""
        return logits.gather(1, self.classes.expand(len(logits), -1))

    def scores_in(self, output: Any) -> torch.Tensor:
        """The targets' scores `[N, k]` in what the network returned for the images."""
        if self.target is not None:
            return scores_of_callable(self.target, output, len(self.inputs))
        return self.choose(logits_of(output))

    def row_scores_in(self, output: Any, row: int, count: int) -> torch.Tensor:
        """Scores `[count, k]`, of variants of one image, for that image's targets."""
        if self.target is not None:
            return scores_of_callable(self.target, output, count)
        logits = logits_of(output)
        return logits[:, self.classes[row if len(self.classes) > 1 else 0]]

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
            each = torch.autograd.grad(score, outputs, retain_graph=True, allow_unused=True)
            for name, gradient, kept in zip(layers, each, found, strict=True):
                if gradient is None:
                    raise argument_error("layer", "one that the scores depend on", name)
                kept.append(gradient)
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


def graph_of(target: Any, output: Any, images: int) -> torch.Tensor:
    """The logits, or the scores `[N, 1]` of a callable target."""
    return logits_of(output) if target is None else scores_of_callable(target, output, images)


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
