"""The linear layer that makes the logits, and what enters it: the penultimate features."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from pyxai.classifier import Classifier
from pyxai.classifier.anatomy import LinearHead
from pyxai.classifier.borrow import borrowed, call, find_layer, first_tensor, record
from pyxai.classifier.features import pooled
from pyxai.classifier.outputs import logits_of

_TOLERANCE = 1e-3  # of the largest logit: half precision rounds differently in another order


@dataclass(frozen=True)
class Readout:
    """The last linear layer of a network, known by its numbers: logits = weight · a + bias.

    Attributes:
        layer: its name.
        head: its weights; read when the network was examined.
    """

    layer: str
    head: LinearHead


def find_readout(classifier: Classifier, inputs: torch.Tensor) -> Readout | None:
    """The linear layer (or 1 × 1 convolution) whose output, averaged over positions, is the logits.

    Found by running up to two images, not by names; None where nothing but more layers makes the
    logits, as in SqueezeNet, where a ReLU follows the last convolution.
    """
    network = classifier.network
    names = [name for name, module in network.named_modules() if _is_linear(module)]
    seen = _Seen()
    with borrowed(network), _watched(network, names, seen):
        logits = logits_of(call(network, inputs[:2])).float()
    scale = float(logits.abs().max()) if logits.numel() else 0.0
    for name in reversed(seen.order):
        module = find_layer(network, name)
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        features = seen.inputs[name]
        if not isinstance(weight, torch.Tensor) or features is None:
            continue
        weight = weight.detach().float().flatten(1)
        if weight.shape != (logits.shape[1], features.shape[1]):
            continue
        offset = weight.new_zeros(len(weight)) if bias is None else bias.detach().float()
        again = features @ weight.T + offset
        if bool((again - logits).abs().max() <= _TOLERANCE * scale + 1e-6):
            return Readout(name, LinearHead(weight.clone(), offset.clone()))
    return None


def read_penultimate(
    classifier: Classifier, inputs: torch.Tensor, readout: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """What enters the readout and the logits, from one forward pass.

    Args:
        classifier: the model; it is left exactly as it was.
        inputs: its input, `[N, C, H, W]`.
        readout: `Readout.layer`.

    Returns:
        `[N, d]` and `[N, K]`, float32, on the model's device.

    Raises:
        ValueError: the layer does not run, or the model does not return logits.
    """
    network, seen = classifier.network, _Seen()
    with borrowed(network), _watched(network, [readout], seen):
        logits = classifier.check_logits(logits_of(call(network, inputs)))
    features = seen.inputs.get(readout)
    if features is None or len(features) != len(inputs):
        raise ValueError(f"layer: expected {readout!r} to run once for all images, and it did not")
    return features, logits.float()


def read_layer(
    classifier: Classifier, inputs: torch.Tensor, layer: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """The pooled output of any layer and the logits, from one forward pass; as `read_penultimate`.

    Raises:
        ValueError: the layer does not exist, does not run or has no vectors of these images.
    """
    with borrowed(classifier.network):
        found = record(classifier.network, inputs, [layer])
        logits = classifier.check_logits(logits_of(found.output))
    return pooled(classifier, inputs, layer, found.layers[layer]), logits.float()


@dataclass
class _Seen:
    order: list[str] = field(default_factory=list)
    inputs: dict[str, torch.Tensor | None] = field(default_factory=dict)


@contextmanager
def _watched(network: nn.Module, names: list[str], seen: _Seen) -> Iterator[None]:
    """Keeps what enters these layers as vectors, for calls of this thread only."""
    owner = threading.get_ident()

    def hook_for(name: str) -> Any:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            if threading.get_ident() == owner:
                seen.order.append(name)
                # A layer that runs several times is not the one that makes the logits.
                seen.inputs[name] = None if name in seen.inputs else _vectors(arguments)

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


def _is_linear(module: nn.Module) -> bool:
    if isinstance(module, torch.jit.ScriptModule):
        return False
    if isinstance(module, nn.Conv2d):
        return module.kernel_size == (1, 1) and module.groups == 1 and module.padding == (0, 0)
    return isinstance(module, nn.Linear)
