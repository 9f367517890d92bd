"""Tensors inside of what modules return: tuples, dictionaries, objects."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import torch

_STATE = "last_hidden_state"


def first_tensor(output: Any) -> torch.Tensor | None:
    """The tensor that a layer's output is about, None if there is none.

    The output itself; the first element of a tuple or list; of a dictionary or an object, what it
    calls `last_hidden_state` (as Hugging Face does), else a dictionary's first value.
    """
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    elif isinstance(output, Mapping) and output:
        output = output[_main_key(output)]
    elif hasattr(output, _STATE):
        output = getattr(output, _STATE)
    return output if isinstance(output, torch.Tensor) else None


def with_first(output: Any, tensor: torch.Tensor) -> Any:
    """The same output with another tensor in the place of `first_tensor`; `output` stays as is."""
    if isinstance(output, torch.Tensor):
        return tensor
    if hasattr(output, "_replace"):  # a named tuple
        return output._replace(**{output._fields[0]: tensor})
    if isinstance(output, (tuple, list)):
        return type(output)((tensor, *output[1:]))
    changed = copy.copy(output)
    if isinstance(changed, MutableMapping):
        changed[_main_key(output)] = tensor
    else:
        setattr(changed, _STATE, tensor)
    return changed


def tensors_in(value: Any, depth: int = 3) -> Iterator[torch.Tensor]:
    """The tensors in arguments or outputs, some levels down."""
    if isinstance(value, torch.Tensor):
        yield value
    elif depth and isinstance(value, (tuple, list)):
        for each in value:
            yield from tensors_in(each, depth - 1)
    elif depth and isinstance(value, Mapping):
        for each in value.values():
            yield from tensors_in(each, depth - 1)


def _main_key(output: Mapping[Any, Any]) -> Any:
    return _STATE if _STATE in output else next(iter(output))
