"""Batch norms computed in the weights of the layer before them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from pyxai._errors import REFUSALS
from pyxai.classifier.calls import FunctionCalls

_NORM_AFTER: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: nn.BatchNorm1d,
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
    nn.Conv3d: nn.BatchNorm3d,
    nn.ConvTranspose1d: nn.BatchNorm1d,
    nn.ConvTranspose2d: nn.BatchNorm2d,
    nn.ConvTranspose3d: nn.BatchNorm3d,
}


# What may be asked of a weight without its values: folding does not change it.
_ASKED = ("shape", "dtype", "device", "ndim", "layout", "is_cuda", "requires_grad")
_HARMLESS: frozenset[Any] = frozenset(
    [getattr(torch.Tensor, name).__get__ for name in _ASKED]
    + [torch.Tensor.size, torch.Tensor.dim, torch.Tensor.numel, torch.Tensor.stride]
    + [torch.Tensor.is_floating_point, torch.is_floating_point, torch.Tensor.__len__]
    + [torch.Tensor.is_contiguous, torch.Tensor.element_size, torch.numel]
)


class FoldedNorm(nn.Module):
    """What is left of timm's `BatchNormAct2d` once its norm is in the convolution before it.

    Made by changing the class of one.
    """

    drop: nn.Module
    act: nn.Module

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
        used_by_others: modules whose parameters or buffers something else computed with.
    """

    calls: Counter[nn.Module] = field(default_factory=Counter)
    flat: dict[nn.Module, bool] = field(default_factory=dict)
    places: Counter[nn.Module] = field(default_factory=Counter)
    used_by_others: set[nn.Module] = field(default_factory=set)


class _Watch(FunctionCalls):
    """Notes whose tensors are used while another module runs: a forward may borrow a weight."""

    def __init__(self, model: nn.Module, usage: Usage) -> None:
        super().__init__()
        self._usage = usage
        self.running: list[nn.Module] = []
        self._owners: dict[int, set[nn.Module]] = {}
        for module in model.modules():
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                if tensor is not None:
                    self._owners.setdefault(_storage(tensor), set()).add(module)
        self._owners.pop(0, None)

    def called(self, function: Any, args: Sequence[Any], named: dict[str, Any]) -> Any:
        if function not in _HARMLESS:
            for tensor in tensors_within((args, named)):
                for owner in self._owners.get(_storage(tensor), ()):
                    if not self.running or self.running[-1] is not owner:
                        self._usage.used_by_others.add(owner)
        return function(*args, **named)


def tensors_within(value: Any) -> Iterator[torch.Tensor]:
    """The tensors among arguments of an operator."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from tensors_within(each)
    elif isinstance(value, dict):
        yield from tensors_within([*value.values()])


def _storage(tensor: torch.Tensor) -> int:
    """Where its numbers lie, so that views are known too; 0 where that cannot be said."""
    try:
        return tensor.untyped_storage().data_ptr()
    except REFUSALS:  # sparse, fake, wrapped
        return 0


def observe(model: nn.Module, images: torch.Tensor) -> tuple[Any, Usage]:
    """Calls a model of our own; returns its output and how its modules were used."""
    usage = Usage()
    watch = _Watch(model, usage)

    def start(module: nn.Module, arguments: Any) -> None:
        watch.running.append(module)

    def note(module: nn.Module, arguments: Any, output: Any) -> None:
        watch.running.pop()
        usage.calls[module] += 1
        if isinstance(module, nn.Linear):
            flat = isinstance(output, torch.Tensor) and output.ndim == 2
            usage.flat[module] = flat and usage.flat.get(module, True)

    modules = [*model.modules()]
    handles = [module.register_forward_hook(note) for module in modules]
    handles += [module.register_forward_pre_hook(start, prepend=True) for module in modules]
    for parent in modules:
        usage.places.update(child for child in parent._modules.values() if child is not None)
    try:
        with watch:
            return model(images), usage
    finally:
        for handle in handles:
            handle.remove()


def fold_norms(container: nn.Module, graph: fx.Graph, usage: Usage) -> None:
    """Folds each batch norm whose input is nothing but the output of one layer of the container.

    The layer's weights change in place. The norm becomes an identity, but the same object: it has
    the attributes it had, and whoever holds it under another name holds an identity too.
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
        alone = own and not {layer, norm} & usage.used_by_others
        if once and used and alone and _fits(layer, norm, usage):
            _fold(layer, norm)
            norm.__class__ = FoldedNorm if _has_activation(norm) else nn.Identity


def _fits(layer: nn.Module, norm: nn.Module, usage: Usage) -> bool:
    expected = _NORM_AFTER.get(type(layer))
    plain = type(norm) in (expected, nn.SyncBatchNorm) or (
        expected is nn.BatchNorm2d and _has_activation(norm)
    )
    if not plain or layer._forward_pre_hooks or norm._forward_pre_hooks or layer._forward_hooks:
        return False  # hooks may compute weights, as pruning and old weight norms do
    if "forward" in vars(layer) or "forward" in vars(norm):
        return False
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
