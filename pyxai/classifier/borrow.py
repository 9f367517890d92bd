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

from pyxai._errors import REFUSALS, passes_through
from pyxai._precision import as_given, full_precision
from pyxai.classifier import odd_models
from pyxai.classifier.checkpoints import without_checkpoints
from pyxai.classifier.side_effects import undone


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
    """Evaluation mode, no gradients, inference tensors or autocast; restored at the end."""
    with _lock:
        loan = _loans.setdefault(model, _Loan())
        loan.calls += 1
        if loan.calls == 1:
            loan.training = _in_training(model)
            for module in loan.training:
                module.training = False
    try:
        # Inference tensors could not be differentiated later, in the head.
        with torch.inference_mode(False), torch.no_grad(), without_checkpoints(), full_precision():
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
        ValueError: the input has another number of channels or another dtype than the model, or
            the model is of a kind that needs a wrap (`pyxai.classifier.odd_models`).
    """
    try:
        with as_given(), undone(model):
            return model(images if ours else images.clone())
    except REFUSALS as error:
        words = None if passes_through(error) else odd_models.in_words(model, images, error)
        if words is None:
            raise
        raise words from error
