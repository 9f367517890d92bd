"""Gradients through code that does not mean to be differentiated.

A body under `no_grad` or `inference_mode`, detached features, weights that were made in inference
mode: what the network computes still has derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map


class WithGradients(TorchFunctionMode):
    """Takes gradients through whatever the network does, once armed.

    Attributes:
        armed: whether gradients are taken.
    """

    def __init__(self, *, armed: bool = False) -> None:
        super().__init__()
        self.armed = armed
        self._normal: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if not self.armed or func is torch._C._set_grad_enabled:
            return func(*args, **named)
        if func in (torch.Tensor.detach, torch.detach):
            return args[0]
        args, named = tree_map(self._usable, (list(args), named))
        with torch.inference_mode(False), torch.enable_grad():
            return func(*args, **named)

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
