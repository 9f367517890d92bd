"""Layers spread over the depth of a network, found by running it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import nn

from pyxai.classifier import Classifier
from pyxai.classifier.borrow import borrowed, call, find_layer, first_tensor
from pyxai.classifier.survey import Survey, watching

COUNT = 8
"""How many layers of a network are taken by default."""

_WITH_WEIGHTS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.MultiheadAttention)


def spread_layers(classifier: Classifier, inputs: torch.Tensor, count: int = COUNT) -> list[str]:
    """Up to `count` layers, from the first to the last before the head, evenly over the depth.

    The network is run on one image. Depth is the number of layers with weights (convolutions,
    linear layers) that ran. At each depth the outermost module that ends there stands for it: a
    block with its residual sum, an activation with its convolution, not the pieces. Of these, the
    outer ones count (the stages of a network, then their blocks, then what is in the blocks) as
    soon as there are `count` of them. The last layer with weights makes the logits and is left out.

    Args:
        classifier: the model.
        inputs: its input, `[N, C, H, W]`; the first image is used.
        count: how many at most.

    Returns:
        Their names in order of execution.

    Raises:
        ValueError: no layer has positions or vectors of images.
    """
    network = classifier.network
    survey = Survey((inputs.shape[-2], inputs.shape[-1]))
    runs: Counter[str] = Counter()
    ends: dict[str, int] = {}
    depth = 0

    def look(name: str, module: nn.Module, output: Any) -> None:
        nonlocal depth
        survey.look(name, module, output)
        if isinstance(module, _WITH_WEIGHTS):
            depth += 1
        runs[name] += 1
        layout, tensor = survey.layouts.get(name), first_tensor(output)
        spatial = layout is not None and layout.positions > 1
        vector = tensor is not None and tensor.ndim == 2 and len(tensor) == 1
        if (spatial or vector) and (spatial or isinstance(module, _WITH_WEIGHTS)):
            ends[name] = depth

    with borrowed(network), watching(network, look):
        call(network, inputs[:1])
    found = {name: at for name, at in ends.items() if runs[name] == 1}
    before_head = {name: at for name, at in found.items() if at < depth}
    outermost: dict[int, str] = {}
    for name, at in (before_head or found).items():
        if at not in outermost or name.count(".") <= outermost[at].count("."):
            outermost[at] = name  # of equals the last: the activation and not the norm before it
    names = [outermost[at] for at in sorted(outermost)]
    if not names:
        raise ValueError(
            f"layers: expected a network whose layers have positions or vectors of images, got "
            f"{classifier.name}"
        )
    for dots in sorted({name.count(".") for name in names}):
        outer = [name for name in names if name.count(".") <= dots]
        if len(outer) >= count:
            names = outer
            break
    if len(names) <= count:
        return names
    return [names[round(place * (len(names) - 1) / max(1, count - 1))] for place in range(count)]


def kind_of(classifier: Classifier, layer: str) -> str:
    """The class of a layer's module, such as "Conv2d"."""
    return type(find_layer(classifier.network, layer)).__name__
