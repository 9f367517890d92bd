"""Gradients of the logits by the images, also of networks that are not meant to have any."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from pyxai._errors import passes_through
from pyxai.classifier import anatomy
from pyxai.classifier.borrow import borrowed, call
from pyxai.classifier.dependence import noise_like
from pyxai.classifier.forcing import WithGradients

if TYPE_CHECKING:
    from pyxai.classifier import Classifier

_KEY = "gradients by the images"


def through(classifier: Classifier, images: torch.Tensor) -> AbstractContextManager[Any]:
    """In which gradients of the logits reach the images, whatever the network does on the way.

    Tried on one image of noise, once for a network, by plain means first.

    Args:
        classifier: the model.
        images: `[N, C, H, W]`, of which the size counts.
    """
    memo = anatomy.examine(classifier, images).memo
    if _KEY not in memo:
        plain = _reached(classifier, images, nullcontext())
        memo[_KEY] = not plain and _reached(classifier, images, WithGradients(armed=True))
    return WithGradients(armed=True) if memo[_KEY] else nullcontext()


def _reached(
    classifier: Classifier, images: torch.Tensor, context: AbstractContextManager[Any]
) -> bool:
    noise = noise_like(images)
    try:
        with borrowed(classifier.network), torch.enable_grad(), context:
            noise.requires_grad_()
            reading = classifier.settled_reading(images)
            total = reading.logits(call(classifier.network, noise), 1).sum()
        if not total.requires_grad:
            return False
        (gradient,) = torch.autograd.grad(total, noise, allow_unused=True)
    except RuntimeError as error:  # operations without gradients
        if passes_through(error):
            raise
        return False
    return gradient is not None
