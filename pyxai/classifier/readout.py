"""The linear layer that makes the logits, and what enters it: the penultimate features."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from pyxai._precision import full_precision, is_exact
from pyxai.classifier import Examined
from pyxai.classifier.borrow import borrowed, call
from pyxai.classifier.dependence import noise_like
from pyxai.classifier.features import pooled
from pyxai.classifier.heads import LinearHead, Rest, find_head, head_of, is_linear, tolerance
from pyxai.classifier.layout import Layout
from pyxai.classifier.nested import first_tensor
from pyxai.classifier.points import find_layer
from pyxai.classifier.rest import CannotRunRestError, RestOfNetwork

_TOLERANCE = 1e-3  # of the largest logit: other orders round differently
_VECTORS = Layout("nchw", 1, 1)


@dataclass(frozen=True)
class Readout:
    """A linear layer that the logits are made by: logits = weight · a + bias, with a its input.

    Attributes:
        layer: its name.
        head: the weights, of all that follows `a`; read when the network was examined.
    """

    layer: str
    head: LinearHead


@full_precision()
def find_readout(examined: Examined) -> Readout | None:
    """The linear layer (or 1 × 1 convolution) whose output, averaged over positions, is the logits.

    Or becomes the logits by a scale, a temperature or more linear layers: then it is the first of
    these. Found by running up to two images, not by names; None where nothing but more layers makes
    the logits, as in SqueezeNet, where a ReLU follows the last convolution.
    """
    network, inputs = examined.network, examined.inputs
    names = [name for name, module in network.named_modules() if is_linear(module)]
    # Noise too, as a network may take another way for it.
    noise = noise_like(inputs)
    seen, some = _Seen(), torch.cat([inputs[:2], noise + 1, noise - 1])
    with borrowed(network), _watched(network, names, seen):
        returned = call(network, some)
    reading = examined.on(some).reading_for(returned)
    logits = reading.logits(returned, len(some)).float()
    order = [name for name in seen.order if seen.inputs[name] is not None]
    found: Readout | None = None
    for place, name in reversed(list(enumerate(order))):
        found = _exact(network, name, seen, logits)
        if found is not None:
            order = order[:place]
            break
    # What comes before may be linear as well, and what comes after a scale.
    while order:
        earlier = _affine(examined, some, order.pop(), seen)
        if earlier is None:
            break
        found = earlier
    return found


def _exact(network: nn.Module, name: str, seen: _Seen, logits: torch.Tensor) -> Readout | None:
    """The layer, if its output is the logits."""
    head, features = head_of(find_layer(network, name)), seen.inputs[name]
    if head is None or features is None or len(features) != len(logits):
        return None
    if head.weight.shape != (logits.shape[1], features.shape[1]):
        return None
    share = _TOLERANCE if is_exact(features) else tolerance(features)
    allowed = share * float(logits.abs().max()) + 1e-6 if logits.numel() else 0.0
    again = features.float() @ head.weight.T + head.bias
    if not bool((again - logits).abs().max() <= allowed):
        return None
    return Readout(name, LinearHead(head.weight.clone(), head.bias.clone()))


def _affine(examined: Examined, images: torch.Tensor, name: str, seen: _Seen) -> Readout | None:
    """The layer, if the logits are an affine function of its output."""
    network, raw = examined.network, seen.outputs[name]
    head, read = head_of(find_layer(network, name)), examined.reading.logits
    if head is None or raw.ndim != 2 or len(raw) < len(images):
        return None

    def rest_of(row: int) -> Rest:
        image, given = images[row : row + 1], raw[row : row + 1]
        known = (image, given, read(call(network, image), 1))
        rest = RestOfNetwork(network, point, _VECTORS, read, known)

        def run(features: torch.Tensor) -> torch.Tensor:
            return read(rest(features[:, :, 0, 0], image), len(features))

        return Rest(run, given[:, :, None, None], float(known[2].abs().max()))

    with borrowed(network):
        point = examined.point(name)
        try:
            after = find_head(network, rest_of(0), [rest_of(n) for n in range(1, len(images))])
        except CannotRunRestError:
            return None
        if after is None:
            return None
        outer = head_of(find_layer(network, after.module)) if after.module else None
        outer = after.read[0] if outer is None and after.read is not None else outer
    if outer is None:
        return None
    weight = outer.weight @ head.weight
    return Readout(name, LinearHead(weight, outer.weight @ head.bias + outer.bias))


def read_penultimate(examined: Examined, readout: str) -> tuple[torch.Tensor, torch.Tensor]:
    """What enters the readout and the logits, from one forward pass.

    Args:
        examined: the model and images; it is left exactly as it was.
        readout: `Readout.layer`.

    Returns:
        `[N, d]` and `[N, K]`, float32, on the model's device.

    Raises:
        ValueError: the layer does not run, or the model does not return logits.
    """
    network, seen = examined.network, _Seen()
    with borrowed(network), _watched(network, [readout], seen):
        logits = examined.read(call(network, examined.inputs))
    features = seen.inputs.get(readout)
    if features is None or len(features) != len(examined.inputs):
        raise ValueError(f"layer: expected {readout!r} to run for all images, and it did not")
    return features, logits.float()


def read_layer(examined: Examined, layer: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The pooled output of any layer and the logits, from one forward pass; as `read_penultimate`.

    Raises:
        ValueError: the layer does not exist, does not run or has no vectors of these images.
    """
    with borrowed(examined.network):
        found = examined.record([layer])
        logits = examined.read(found.output)
    return pooled(examined, layer, found.layers[layer]), logits.float()


@dataclass
class _Seen:
    """What entered and left layers at their last run, and the order of these."""

    order: list[str] = field(default_factory=list)
    inputs: dict[str, torch.Tensor | None] = field(default_factory=dict)
    outputs: dict[str, torch.Tensor] = field(default_factory=dict)


@contextmanager
def _watched(network: nn.Module, names: list[str], seen: _Seen) -> Iterator[None]:
    """Keeps what enters these layers as vectors, for calls of this thread only."""
    owner = threading.get_ident()

    def hook_for(name: str) -> Any:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            if threading.get_ident() == owner:
                seen.order = [*(each for each in seen.order if each != name), name]
                seen.inputs[name] = _vectors(arguments)
                seen.outputs[name] = output.clone() if output.ndim == 2 else output[:0]

        return hook

    handles = []
    try:
        for name in names:
            handles.append(find_layer(network, name).register_forward_hook(hook_for(name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _vectors(arguments: Any) -> torch.Tensor | None:
    tensor = first_tensor(arguments)
    if tensor is None or not tensor.is_floating_point():
        return None
    if tensor.ndim == 4:
        return tensor.float().mean(dim=(2, 3))
    # A copy: the model may go on in place.
    return tensor.float().clone() if tensor.ndim == 2 else None
