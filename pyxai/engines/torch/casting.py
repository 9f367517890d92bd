"""Hooks that let a model of half precision take and give float32."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn


class CastInputs:
    """A forward pre-hook: floating inputs get the model's dtype, images its memory format."""

    def __init__(self, dtype: torch.dtype, channels_last: bool) -> None:
        self.dtype = dtype
        self.channels_last = channels_last

    def __call__(
        self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        cast = map_tensors(arguments, self._cast)
        return cast, {name: map_tensors(value, self._cast) for name, value in named.items()}

    def _cast(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.channels_last and tensor.ndim == 4:
            return tensor.to(self.dtype, memory_format=torch.channels_last)
        return tensor.to(self.dtype)


class CastOutputs:
    """A forward hook: floating outputs become float32."""

    def __call__(self, module: nn.Module, arguments: Any, output: Any) -> Any:
        return map_tensors(output, _to_float32)


def _to_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.float32)


def map_tensors(value: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Applies a function to each floating tensor in containers, dataclasses and `.logits`.

    Returns:
        A new container of the same type; the one given stays as it is.
    """
    if isinstance(value, torch.Tensor):
        return function(value) if value.is_floating_point() else value
    if isinstance(value, (tuple, list)):
        items = [map_tensors(each, function) for each in value]
        return value._make(items) if hasattr(value, "_make") else type(value)(items)
    if isinstance(value, dict):
        result: Any = copy.copy(value)  # of Hugging Face's kind too, whose items are attributes
        for name, each in value.items():
            result[name] = map_tensors(each, function)
        return result
    if isinstance(value, type):
        return value
    if dataclasses.is_dataclass(value) or isinstance(value, SimpleNamespace):
        return _map_fields(value, function)
    if isinstance(getattr(value, "logits", None), torch.Tensor):
        result = copy.copy(value)
        result.logits = map_tensors(value.logits, function)
        return result
    return value


def _map_fields(value: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    result = copy.copy(value)
    names = [*vars(value)] if isinstance(value, SimpleNamespace) else []
    if dataclasses.is_dataclass(value):
        names = [each.name for each in dataclasses.fields(value)]
    for name in names:
        each = getattr(value, name, None)
        mapped = map_tensors(each, function)
        if mapped is not each:
            object.__setattr__(result, name, mapped)  # so that frozen ones take it
    return result


def tensors_in(value: Any) -> list[torch.Tensor]:
    """The floating tensors that `map_tensors` would reach, in order."""
    found: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        found.append(tensor)
        return tensor

    map_tensors(value, keep)
    return found
