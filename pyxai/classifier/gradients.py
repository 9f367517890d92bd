"""Gradients of the logits by the images, also of networks that are not meant to have any."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from pyxai._errors import passes_through
from pyxai.classifier import Examined
from pyxai.classifier.borrow import borrowed, call
from pyxai.classifier.dependence import noise_like
from pyxai.classifier.forcing import WithGradients

_KEY = "gradients by the images"


def through(examined: Examined) -> AbstractContextManager[Any]:
    """In which gradients of the logits reach the images, whatever the network does on the way.

    Tried on one image of noise, once for a network, by plain means first.

    Args:
        examined: the model, for images of their size.
    """
    memo = examined.anatomy.memo
    if _KEY not in memo:
        plain = _reached(examined, nullcontext())
        memo[_KEY] = not plain and _reached(examined, WithGradients(armed=True))
    return WithGradients(armed=True) if memo[_KEY] else nullcontext()


def _reached(examined: Examined, context: AbstractContextManager[Any]) -> bool:
    noise = noise_like(examined.image)
    try:
        with borrowed(examined.network), torch.enable_grad(), context:
            noise.requires_grad_()
            total = examined.reading.logits(call(examined.network, noise), 1).sum()
        if not total.requires_grad:
            return False
        (gradient,) = torch.autograd.grad(total, noise, allow_unused=True)
    except RuntimeError as error:  # operations without gradients
        if passes_through(error):
            raise
        return False
    return gradient is not None
