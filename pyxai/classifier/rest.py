"""The part of a network that follows a layer, run on its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pyxai.classifier.borrow import record


class RestOfNetwork:
    """Calls a network from one of its layers on; use it inside `borrowed`.

    A module cannot be entered in the middle. So the network is called with an empty batch, which
    costs its body next to nothing, and the layer's output is replaced on the way. Where something
    else bypasses the layer, as a shortcut does, one image is given, whose part of the sum spreads
    over all rows. Networks that take neither get all images and pay for the body.
    """

    def __init__(self, network: nn.Module, layer: str) -> None:
        self._network = network
        self._layer = layer
        self._ways = [_no_image, _one_image]

    def __call__(self, raw: torch.Tensor, images: torch.Tensor) -> Any:
        """What the network returns for other outputs of the layer.

        Args:
            raw: `[m, ...]`, shaped as the layer gives them; gradients flow to it.
            images: the m inputs they stand for, or the one that all of them do.
        """
        while self._ways:
            some = self._ways[0](images)
            if some is not None:
                try:
                    output = self._run(raw, some)
                    if _fits(output, len(raw)):
                        return output
                except Exception:  # if it is not about the batch, it comes again below
                    pass
            self._ways.pop(0)
        return self._run(raw, images.expand(len(raw), -1, -1, -1))

    def _run(self, raw: torch.Tensor, images: torch.Tensor) -> Any:
        replace = {self._layer: raw}
        return record(self._network, images, [self._layer], replace=replace).output


def _no_image(images: torch.Tensor) -> torch.Tensor:
    return images[:0]


def _one_image(images: torch.Tensor) -> torch.Tensor | None:
    return images if len(images) == 1 else None


def _fits(output: Any, count: int) -> bool:
    """Whether an output has so many rows, and no NaN from statistics over an empty batch."""
    if isinstance(output, dict):
        output = next(iter(output.values()), None)
    elif hasattr(output, "logits"):
        output = output.logits
    elif isinstance(output, (tuple, list)) and output:
        output = output[0]
    if not isinstance(output, torch.Tensor) or not output.ndim or len(output) != count:
        return False
    return bool(torch.isfinite(output).all())
