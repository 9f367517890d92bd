"""Layers spread over the depth of a network, found by running it."""

from __future__ import annotations

from pyxai.classifier import Examined
from pyxai.classifier.points import find_layer
from pyxai.classifier.readout import find_readout
from pyxai.classifier.survey import Output

COUNT = 8
"""How many layers of a network are taken by default."""


def spread_layers(examined: Examined, count: int = COUNT) -> list[str]:
    """Up to `count` layers, from the first to the last before the head, evenly over the depth.

    The network is run on one image. What a function gives, and each run of a layer that runs
    several times, counts as a layer of its own. Depth is the number of layers with weights
    (convolutions, linear layers) that ran. At each depth the outermost module that ends there
    stands for it: a block with its residual sum, an activation with its convolution, not the
    pieces. Of these, the outer ones count (the stages of a network, then their blocks, then what is
    in the blocks) as soon as there are `count` of them. Left out are the linear layers that make
    the logits at the end, what the logits do not depend on, and what are logits themselves.

    Args:
        examined: the model and images, of which the first are used.
        count: how many at most.

    Returns:
        Their names in order of execution.

    Raises:
        ValueError: no layer has positions or vectors of images.
    """
    found = examined.anatomy
    ends: dict[str, Output] = {}
    for output in examined.reached():
        layout = output.layout
        spatial = layout is not None and layout.positions > 1
        vector = len(output.shape) == 2 and output.shape[0] == 1 and output.has_weights
        vector = vector and output.shape[1] != found.classes  # logits of some head
        if output.mark not in ("moved", "product") and (spatial or vector):
            ends[output.point.name] = output
    depth = max((output.weights for output in found.outputs), default=0)
    readout = find_readout(examined)
    if readout is not None:
        runs = (each.weights for each in found.outputs if each.point.module == readout.layer)
        depth = min(max(runs, default=depth), depth)
    before_head = {name: each for name, each in ends.items() if each.weights < depth}
    outermost: dict[int, str] = {}
    for name, output in (before_head or ends).items():
        at = output.weights
        if at not in outermost or output.level <= ends[outermost[at]].level:
            outermost[at] = name  # of equals the last: the activation and not the norm before it
    names = [outermost[at] for at in sorted(outermost)]
    if not names:
        raise ValueError(
            f"layers: expected a network whose layers have positions or vectors of images, got "
            f"{examined.classifier.name}"
        )
    for level in sorted({ends[name].level for name in names}):
        outer = [name for name in names if ends[name].level <= level]
        if len(outer) >= count:
            names = outer
            break
    if len(names) <= count:
        return names
    return [names[round(place * (len(names) - 1) / max(1, count - 1))] for place in range(count)]


def kind_of(examined: Examined, layer: str) -> str:
    """The class of a layer's module, such as "Conv2d", or the name of the function."""
    point = examined.point(layer)
    if point.function is not None:
        return point.function
    return type(find_layer(examined.network, point.module)).__name__
