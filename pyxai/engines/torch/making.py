"""Makes the copy: folds, packs, casts and lays out; checks it; does less where that fails."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pyxai._errors import REFUSALS, describe, passes_through
from pyxai.classifier.calls import FunctionCalls
from pyxai.engines.torch.casting import CastInputs, CastOutputs, tensors_in
from pyxai.engines.torch.convolution import FastConv2d
from pyxai.engines.torch.folding import Usage, fold_norms, observe
from pyxai.engines.torch.keeping import unchanged
from pyxai.engines.torch.probing import are_close, compare, expected_of, same_draws
from pyxai.engines.torch.tracing import TraceError, trace


@dataclass(frozen=True)
class Wishes:
    """What `accelerate` was asked for."""

    dtype: torch.dtype | None
    channels_last: bool
    tolerance: float | None


def make(network: nn.Module, images: torch.Tensor, wishes: Wishes) -> nn.Module:
    """The fastest copy that gives on the images what the network gives.

    A forward may do what nobody thinks of: look for its norms by their type, keep a weight
    elsewhere, draw random numbers. Where folding makes another function of it the norms stay, and
    where that does not help either, the copy runs as the network does.

    Raises:
        ValueError: the network cannot be copied or does not run on the images; or in this dtype it
            does not run, or gives something too far from what it gave.
    """
    expected = expected_of(network, images)
    for fold in (True, False):
        try:
            return _made(network, images, expected, wishes, fold)
        except REFUSALS as error:
            if passes_through(error):
                raise
    with same_draws(images.device):
        expected = expected_of(network, images)
    try:
        return _plain(network, images, expected, wishes)
    except REFUSALS as error:
        if passes_through(error) or isinstance(error, ValueError):
            raise
        wrong = (
            "model: expected one whose copy runs"
            if wishes.dtype is None
            else (f"dtype: expected one that the model runs in, got {describe(wishes.dtype)}")
        )
        raise ValueError(f"{wrong}: {type(error).__name__}: {error}") from error


def _made(
    network: nn.Module,
    images: torch.Tensor,
    expected: list[torch.Tensor],
    wishes: Wishes,
    fold: bool,
) -> nn.Module:
    fast = frozen_copy(network)
    found, usage = _observe(fast, images)
    if not are_close(expected, found):  # a hook makes what the network returns
        fast = frozen_copy(network, hooks=True)
        _, usage = _observe(fast, images)
    _rebuild(fast, usage, fold)
    _cast(fast, wishes.dtype, wishes.channels_last)
    _settle(fast, images, wishes.channels_last)
    compare(expected, _output(fast, images), wishes.dtype or images.dtype, wishes.tolerance)
    return fast


def _plain(
    network: nn.Module, images: torch.Tensor, expected: list[torch.Tensor], wishes: Wishes
) -> nn.Module:
    """A copy that runs as the network does, but for the dtype."""

    def output() -> Any:
        with same_draws(images.device):
            return _output(fast, images)

    fast = frozen_copy(network)
    if not are_close(expected, tensors_in(output())):
        fast = frozen_copy(network, hooks=True)
    _cast(fast, wishes.dtype, channels_last=False)
    compare(expected, output(), wishes.dtype or images.dtype, wishes.tolerance)
    return fast


def _output(fast: nn.Module, images: torch.Tensor) -> Any:
    with unchanged(fast):
        return fast(images.clone())


def _observe(network: nn.Module, images: torch.Tensor) -> tuple[list[torch.Tensor], Usage]:
    """The outputs of the copy for the probe, and how the modules were used."""
    with unchanged(network):
        output, usage = observe(network, images.clone())
    return [tensor.clone() for tensor in tensors_in(output)], usage


def _cast(fast: nn.Module, dtype: torch.dtype | None, channels_last: bool) -> None:
    if dtype is not None:
        fast.to(dtype)
        fast.register_forward_pre_hook(CastInputs(dtype, channels_last), with_kwargs=True)
        fast.register_forward_hook(CastOutputs())


class _Detaching(FunctionCalls):
    """Copies results of computations too, without their history: a forward may have kept one."""

    def called(self, function: Any, args: Sequence[Any], named: dict[str, Any]) -> Any:
        if function is torch.Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            memo[id(tensor)] = tensor.detach().clone()
            return memo[id(tensor)]
        return function(*args, **named)


def frozen_copy(network: nn.Module, *, hooks: bool = False) -> nn.Module:
    """A deep copy in evaluation mode, without gradients; hooks that look on only if asked for."""
    try:
        with _Detaching():
            fast = copy.deepcopy(network)
    except REFUSALS as error:
        if passes_through(error):
            raise
        raise ValueError(
            f"model: expected a module that copy.deepcopy can copy, got {describe(network)}: "
            f"{type(error).__name__}: {error}"
        ) from error
    fast.__dict__.pop("_replays", None)  # of a copy made with graphs=True
    fast.eval().requires_grad_(False)
    for parameter in fast.parameters():
        parameter.grad = None
    for module in () if hooks else fast.modules():
        # They belong to those who watch the model. Pre-hooks stay: some compute weights.
        module._forward_hooks.clear()
        module._forward_hooks_with_kwargs.clear()
        module._forward_hooks_always_called.clear()
        module._backward_hooks.clear()
        module._backward_pre_hooks.clear()
    return fast


def _settle(fast: nn.Module, images: torch.Tensor, channels_last: bool) -> None:
    """Lays out the weights, and tries them by a call.

    Networks that flatten by `view` do not take channels last; then layers give what they gave.
    """
    if channels_last:
        _lay_out(fast, torch.channels_last)
    try:
        _output(fast, images)
    except RuntimeError as error:
        if passes_through(error):
            raise
        _lay_out(fast, torch.contiguous_format)
        for module in fast.modules():
            if isinstance(module, FastConv2d):
                module.contiguous_output = True
        _output(fast, images)


def _rebuild(network: nn.Module, usage: Usage, fold: bool) -> None:
    """Folds, from the inside out, and replaces the convolutions."""
    containers = [m for m in network.modules() if m._modules and usage.calls[m]]
    containers = [m for m in containers if "forward" not in vars(m)]
    for container in reversed(containers) if fold else ():
        try:
            graph = trace(container)
        except TraceError:
            continue
        fold_norms(container, graph, usage)
    for module in network.modules():
        # Derived classes compute something else; hooks before may compute the weights.
        plain = type(module) is nn.Conv2d and not module._forward_pre_hooks
        if plain and module._parameters.get("weight") is not None:
            module.__class__ = FastConv2d


def _lay_out(network: nn.Module, layout: torch.memory_format) -> None:
    for module in network.modules():
        if isinstance(module, FastConv2d):
            module.forget_packed()
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=layout)
