"""Runs a model that belongs to someone else: seen from outside, nothing about it changes.

Evaluation mode, hooks and gradient mode are put back after every call, also after one that raised.
Calls from several threads do not see each other: a hook acts for the thread that set it only, and
the training mode is restored by the last of the calls that overlap.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from pyxai._errors import argument_error


@dataclass
class _Loan:
    """The modules of one model that were in training mode when the first call borrowed it."""

    calls: int = 0
    training: list[nn.Module] = field(default_factory=list)


_loans: weakref.WeakKeyDictionary[nn.Module, _Loan] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def _in_training(model: nn.Module) -> list[nn.Module]:
    """The modules that are in training mode; some several times, if they are used several times.

    For each call, so without `model.modules()`, which takes five times as long.
    """
    if isinstance(model, torch.jit.ScriptModule):
        return [module for module in model.modules() if module.training]
    found, left = [], [model]
    while left:
        module = left.pop()
        if module.training:
            found.append(module)
        left.extend(child for child in module._modules.values() if child is not None)
    return found


@contextmanager
def borrowed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, no inference tensors; all of it restored at the end."""
    with _lock:
        loan = _loans.setdefault(model, _Loan())
        loan.calls += 1
        if loan.calls == 1:
            loan.training = _in_training(model)
            for module in loan.training:
                module.training = False
    try:
        # Inference tensors could not be differentiated later, in the head.
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        with _lock:
            loan.calls -= 1
            if loan.calls == 0:
                for module in loan.training:
                    module.training = True
                del _loans[model]


def unwrap(model: nn.Module) -> nn.Module:
    """The network inside torch.compile and DataParallel, whose own layers can be observed."""
    while not isinstance(model, torch.jit.ScriptModule):
        parallel = isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel))
        inner = model._modules.get("module" if parallel else "_orig_mod")
        if inner is None:
            break
        model = inner
    return model


def call(model: nn.Module, images: torch.Tensor, *, ours: bool = False) -> Any:
    """Calls the model; where torch rejects the input, says what the model expects.

    Args:
        model: the network.
        images: its input. Models that normalize in place change what they are given, so they get
            a copy; gradients reach the images.
        ours: whether they may be changed, as nobody needs them afterwards.

    Raises:
        ValueError: the input has another number of channels or another dtype than the model.
    """
    try:
        return model(images if ours else images.clone())
    except RuntimeError as error:
        parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
        if (
            parameter is not None
            and parameter.dtype != images.dtype
            and not torch.is_autocast_enabled(images.device.type)
        ):
            name = str(parameter.dtype).removeprefix("torch.")
            raise argument_error("images", f"dtype {name}, the model's", images) from error
        first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
        if first is not None and images.ndim == 4 and images.shape[1] != first.in_channels:
            expected = f"a tensor [N, {first.in_channels}, H, W]"
            raise argument_error("images", expected, images) from error
        raise
