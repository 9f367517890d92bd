"""Gradients through code that does not mean to be differentiated.

A body under `no_grad` or `inference_mode`, detached features, weights that were made in inference
mode: what the network computes still has derivatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_map

from pyxai.classifier.calls import FunctionCalls


class WithGradients(FunctionCalls):
    """Takes gradients through whatever the network does, once armed.

    Attributes:
        armed: whether gradients are taken.
    """

    def __init__(self, *, armed: bool = False) -> None:
        super().__init__()
        self.armed = armed
        self._normal: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def called(self, function: Any, args: Sequence[Any], named: dict[str, Any]) -> Any:
        if not self.armed or function is torch._C._set_grad_enabled:
            return function(*args, **named)
        if function in (torch.Tensor.detach, torch.detach):
            return args[0]
        args, named = tree_map(self._usable, (list(args), named))
        with torch.inference_mode(False), torch.enable_grad():
            return function(*args, **named)

    def _usable(self, value: Any) -> Any:
        """A tensor that can be kept for a backward pass, which inference tensors cannot."""
        if not isinstance(value, torch.Tensor) or not value.is_inference():
            return value
        known = self._normal.get(id(value))
        if known is None or known[0] is not value:
            with torch.inference_mode(False), torch.no_grad():
                known = self._normal[id(value)] = value, value.clone()
        return known[1]


def is_about_inference(error: RuntimeError) -> bool:
    """Whether torch refused to keep a tensor that was made in inference mode."""
    return "nference tensor" in str(error)
