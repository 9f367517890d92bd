"""The part of a network that follows a layer, run on its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pyxai.classifier.borrow import record


class RestOfNetwork:
    """Calls a network from one of its layers on; use it inside `borrowed`.

    A module cannot be entered in the middle. So the network is called with an empty batch, which
    costs its body next to nothing, and the layer's output is replaced on the way. Networks that
    reject empty batches, or that carry something past the layer, get the images instead and pay for
    the body.
    """

    def __init__(self, network: nn.Module, layer: str) -> None:
        self._network = network
        self._layer = layer
        self._accepts_empty = True

    def __call__(self, raw: torch.Tensor, images: torch.Tensor) -> Any:
        """What the network returns for other outputs of the layer.

        Args:
            raw: `[m, ...]`, shaped as the layer gives them; gradients flow to it.
            images: the m inputs they stand for.
        """
        if self._accepts_empty:
            try:
                output = self._run(raw, images[:0])
                if _fits(output, len(raw)):
                    return output
            except Exception:  # whatever it is, it comes again if it is not about the empty batch
                pass
            self._accepts_empty = False
        return self._run(raw, images)

    def _run(self, raw: torch.Tensor, images: torch.Tensor) -> Any:
        replace = {self._layer: raw}
        return record(self._network, images, [self._layer], replace=replace).output


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
