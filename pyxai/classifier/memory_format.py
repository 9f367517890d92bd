"""In which memory layout a network is given its input: the one that it computes faster in."""

from __future__ import annotations

import torch
from torch import nn

from pyxai._errors import REFUSALS, passes_through
from pyxai.classifier import Examined
from pyxai.classifier.borrow import borrowed

_KEY = "runs with the channels last"


def best_format(examined: Examined) -> torch.memory_format:
    """Channels last where the weights are laid out so, and on the CPU where the network takes it.

    Plain networks run faster on the CPU with their input in channels_last, ResNet-18 1.2 times
    (docs/sliding_window.md). One that reshapes feature maps with `view` refuses it; so each network
    is tried on one image, and must give the same logits.

    Args:
        examined: the model, for images of the size that will come.
    """
    modules = examined.network.modules()
    first = next((m for m in modules if isinstance(m, nn.Conv2d)), None)
    if first is None:
        return torch.contiguous_format
    weight = first.weight
    if weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous():
        return torch.channels_last
    if examined.image.device.type != "cpu":
        return torch.contiguous_format
    try:
        memo = examined.anatomy.memo
    except REFUSALS as error:  # if it is not about the layout, it comes again
        if passes_through(error):
            raise
        return torch.contiguous_format
    if _KEY not in memo:
        memo[_KEY] = _runs_channels_last(examined)
    return torch.channels_last if memo[_KEY] else torch.contiguous_format


def _runs_channels_last(examined: Examined) -> bool:
    image = examined.image
    try:
        with borrowed(examined.network):
            expected, found = (
                examined.on(image.clone(memory_format=layout)).logits(ours=True).to(torch.float32)
                for layout in (torch.contiguous_format, torch.channels_last)
            )
    except REFUSALS as error:  # if it is not about the layout, it comes again
        if passes_through(error):
            raise
        return False
    tolerance = 1e-3 if image.dtype in (torch.float32, torch.float64) else 5e-2
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max())
