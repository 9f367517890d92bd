"""A network whose calls are recorded as CUDA graphs by the shape of the images."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pyxai.classifier.cuda_graphs import Replays


class Graphed(nn.Module):
    """Replays the network inside; `pyxai.classifier.cuda_graphs.Replays` says what is not.

    Like torch.compile's wrapper it holds the network as `_orig_mod`, where layers are found.
    The recordings lie with the network, so that `pyxai.cam`, which runs it, finds them too.
    """

    def __init__(self, network: nn.Module, replays: Replays | None = None) -> None:
        super().__init__()
        self._orig_mod = network
        network.__dict__["_replays"] = Replays(network) if replays is None else replays
        self.training = network.training

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """What the network computes."""
        network = self._orig_mod
        alone = len(arguments) == 1 and not named and isinstance(arguments[0], torch.Tensor)
        if not alone or network.training:
            return network(*arguments, **named)
        return network.__dict__["_replays"](network, "forward", network, arguments[0])
