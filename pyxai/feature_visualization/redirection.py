"""Gradients through ReLUs that are shut, for units that nothing in the first picture excites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from pyxai.classifier.calls import FunctionCalls

_RELU = (torch.relu, functional.relu, torch.Tensor.relu)
_RELU_IN_PLACE = (torch.relu_, functional.relu_, torch.Tensor.relu_)
_HARDTANH = (functional.hardtanh, functional.hardtanh_, functional.relu6)


class _Redirected(torch.autograd.Function):
    """A ReLU whose gradient, where all of an image's is 0, raises the values that are below 0."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, high: float | None) -> torch.Tensor:
        ctx.save_for_backward(values > 0, values < (torch.inf if high is None else high))
        return values.clamp(min=0, max=high)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (gradient,) = gradients
        above, below = ctx.saved_tensors
        usual = gradient * (above & below)
        # A loss falls where its gradient is below 0 and the value rises.
        raising = gradient.clamp(max=0) * below
        images = usual.flatten(1).ne(0).any(dim=1)
        return torch.where(images.reshape(-1, *[1] * (gradient.ndim - 1)), usual, raising), None


class RedirectedRelus(FunctionCalls):
    """Passes gradients through shut ReLUs where nothing else of an image would come through.

    Values are as always. At each ReLU (or clamp between 0 and a number, as ReLU6), images whose
    gradient by its input is 0 everywhere get the part of the gradient by its output that raises
    inputs below 0. Acts on the thread that enters, and on ReLUs of torch that code in Python
    calls; no network is changed.
    """

    def called(self, function: Any, args: Sequence[Any], named: dict[str, Any]) -> Any:
        values = args[0] if args else named.get("input")
        if not isinstance(values, torch.Tensor) or not values.requires_grad or not values.ndim:
            return function(*args, **named)
        if function in _RELU or function in _RELU_IN_PLACE:
            high = None
            asked = function is functional.relu and _argument(args, named, 1, "inplace", False)
            in_place = bool(asked) or function in _RELU_IN_PLACE
        elif function in _HARDTANH:
            if function is functional.relu6:
                low, high = 0.0, 6.0
                in_place = bool(_argument(args, named, 1, "inplace", False))
            else:
                low = float(_argument(args, named, 1, "min_val", -1.0))
                high = float(_argument(args, named, 2, "max_val", 1.0))
                in_place = function is functional.hardtanh_
                in_place |= bool(_argument(args, named, 3, "inplace", False))
            if low != 0:
                return function(*args, **named)
        else:
            return function(*args, **named)
        redirect: Any = _Redirected.apply
        result = redirect(values.clone() if in_place else values, high)
        return values.copy_(result) if in_place else result


def _argument(
    args: Sequence[Any], named: Mapping[str, Any], place: int, name: str, default: Any
) -> Any:
    return args[place] if len(args) > place else named.get(name, default)
