"""Batch norms computed in the weights of the layer before them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

_NORM_AFTER: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: nn.BatchNorm1d,
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
    nn.Conv3d: nn.BatchNorm3d,
    nn.ConvTranspose1d: nn.BatchNorm1d,
    nn.ConvTranspose2d: nn.BatchNorm2d,
    nn.ConvTranspose3d: nn.BatchNorm3d,
}


class FoldedNorm(nn.Module):
    """What is left of timm's `BatchNormAct2d` once its norm is in the convolution before it."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.drop = norm.drop
        self.act = norm.act

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.act(self.drop(input))
        return result


@dataclass
class Usage:
    """How a model uses its modules, seen in one call.

    Attributes:
        calls: how often each module ran.
        flat: linear layers whose outputs were `[N, K]` every time.
        places: under how many names each module is registered.
    """

    calls: Counter[nn.Module] = field(default_factory=Counter)
    flat: dict[nn.Module, bool] = field(default_factory=dict)
    places: Counter[nn.Module] = field(default_factory=Counter)


def observe(model: nn.Module, images: torch.Tensor) -> tuple[Any, Usage]:
    """Calls a model of our own; returns its output and how its modules were used."""
    usage = Usage()

    def note(module: nn.Module, arguments: Any, output: Any) -> None:
        usage.calls[module] += 1
        if isinstance(module, nn.Linear):
            flat = isinstance(output, torch.Tensor) and output.ndim == 2
            usage.flat[module] = flat and usage.flat.get(module, True)

    handles = [module.register_forward_hook(note) for module in model.modules()]
    for parent in model.modules():
        usage.places.update(child for child in parent._modules.values() if child is not None)
    try:
        return model(images), usage
    finally:
        for handle in handles:
            handle.remove()


def fold_norms(container: nn.Module, graph: fx.Graph, usage: Usage) -> None:
    """Folds each batch norm whose input is nothing but the output of one layer of the container.

    The layer's weights change in place, the norm is replaced by an identity of the same name.
    """
    times = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for node in graph.nodes:
        if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
            continue
        source = node.args[0]
        if not (isinstance(source, fx.Node) and source.op == "call_module"):
            continue
        layer = container.get_submodule(str(source.target))
        norm = container.get_submodule(str(node.target))
        once = times[source.target] == times[node.target] == len(source.users) == 1
        used = usage.calls[container] == usage.calls[layer] == usage.calls[norm] > 0
        own = usage.places[layer] == usage.places[norm] == 1
        if once and used and own and _fits(layer, norm, usage):
            _fold(layer, norm)
            path, _, name = str(node.target).rpartition(".")
            left = FoldedNorm(norm) if _has_activation(norm) else nn.Identity()
            setattr(container.get_submodule(path), name, left.train(norm.training))


def _fits(layer: nn.Module, norm: nn.Module, usage: Usage) -> bool:
    expected = _NORM_AFTER.get(type(layer))
    plain = type(norm) in (expected, nn.SyncBatchNorm) or (
        expected is nn.BatchNorm2d and _has_activation(norm)
    )
    if not plain or layer._forward_pre_hooks or norm._forward_pre_hooks:
        return False  # hooks may compute weights, as pruning and old weight norms do
    weight = layer._parameters.get("weight")
    mean = norm._buffers.get("running_mean")
    return (
        weight is not None
        and mean is not None
        and mean.dtype == weight.dtype
        and mean.device == weight.device
        and (not isinstance(layer, nn.Linear) or usage.flat.get(layer, False))
    )


def _has_activation(norm: nn.Module) -> bool:
    """Whether this is timm's norm with an activation inside; pyxai does not import timm."""
    return (
        type(norm).__name__ == "BatchNormAct2d"
        and isinstance(norm, nn.BatchNorm2d)
        and {"drop", "act"} <= norm._modules.keys()
    )


def _fold(layer: Any, norm: Any) -> None:
    if isinstance(layer, nn.Linear):
        folded: Any = fuse_linear_bn_eval(layer, norm)
    else:
        folded = fuse_conv_bn_eval(layer, norm, isinstance(layer, nn.modules.conv._ConvTransposeNd))
    layer.weight = nn.Parameter(folded.weight.detach(), requires_grad=False)
    layer.bias = nn.Parameter(folded.bias.detach(), requires_grad=False)
