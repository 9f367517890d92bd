"""What modules keep between calls: buffers and attributes, put back after a call on trial."""

from __future__ import annotations

import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

# The attributes that torch itself keeps in each module, and those that acceleration does.
NOT_STATE = frozenset(nn.Module().__dict__) | {"_packed", "_backward", "_replays"}
_CONTAINERS = (list, dict, set, tuple, OrderedDict, defaultdict, deque)
_SHARED = (torch.Tensor, nn.Module, type, types.FunctionType, types.MethodType, types.ModuleType)


def rebuilt(value: Any, depth: int = 4) -> Any:
    """The same things in new containers, so that who adds to these changes no others."""
    kind = type(value)
    if depth == 0 or kind not in _CONTAINERS:
        return value
    if isinstance(value, dict):
        result = value.copy()  # with the default of a defaultdict
        for name, each in value.items():
            result[name] = rebuilt(each, depth - 1)
        return result
    if isinstance(value, deque):
        return value.copy()
    if isinstance(value, set):
        return set(value)
    return kind(rebuilt(each, depth - 1) for each in value)


def holds_same(one: Any, other: Any) -> bool:
    """Whether two containers hold the very same things."""
    if one is other:
        return True
    if type(one) is not type(other) or type(one) not in _CONTAINERS or len(one) != len(other):
        return False
    if isinstance(one, dict):
        return all(key in other and holds_same(one[key], other[key]) for key in one)
    if isinstance(one, set):
        return {*map(id, one)} == {*map(id, other)}
    return all(map(holds_same, one, other))


class _Attributes:
    """A dict of attributes, to be put back as it was: with the same containers, filled as before.

    Args:
        own: of a module or another object.
        besides: names that are left alone.
    """

    def __init__(self, own: dict[str, Any], besides: frozenset[str] = frozenset()) -> None:
        self._own, self._besides = own, besides
        self._kept = {
            name: (value, rebuilt(value)) for name, value in own.items() if name not in besides
        }

    def put_back(self) -> bool:
        """Whether there was anything to put back."""
        own, changed = self._own, False
        for name in [*own]:
            if name not in self._besides and name not in self._kept:
                del own[name]
                changed = True
        for name, (value, before) in self._kept.items():
            if name not in own or own[name] is not value:
                own[name] = value
                changed = True
            if not holds_same(value, before):
                _refill(value, before)
                changed = True
        return changed


def _refill(container: Any, before: Any) -> None:
    if isinstance(container, tuple):
        for each, kept in zip(container, before, strict=True):
            if not holds_same(each, kept):
                _refill(each, kept)
        return
    container.clear()
    if isinstance(container, (list, deque)):
        container.extend(before)
    else:
        container.update(before)


class Belongings:
    """The attributes of plain objects that modules hold, such as a store of features."""

    def __init__(self, model: nn.Module) -> None:
        found: dict[int, Any] = {}
        for module in model.modules():
            for name, value in module.__dict__.items():
                if name in NOT_STATE or isinstance(value, _SHARED):
                    continue
                if isinstance(getattr(value, "__dict__", None), dict):
                    found[id(value)] = value
        self._kept = [_Attributes(vars(each)) for each in found.values()]

    def put_back(self) -> bool:
        """Whether there was anything to put back."""
        changed = [each.put_back() for each in self._kept]  # all of them, so no `any` here
        return True in changed


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Puts back what calls in the block leave in the modules.

    So that a call on trial is no step of a running mean, and adds nothing to a list of features.
    Only what has changed is touched.
    """
    tensors = (*model.parameters(), *model.buffers())
    if any(isinstance(each, (UninitializedParameter, UninitializedBuffer)) for each in tensors):
        yield  # the first call decides how large they are; that is no trial
        return
    modules = [*model.modules()]
    attributes = [_Attributes(module.__dict__, NOT_STATE) for module in modules]
    attributes += [_Attributes(module._buffers) for module in modules]
    values = [
        (buffer, buffer.clone())
        for buffer in model.buffers()
        if buffer.layout == torch.strided and buffer.device.type != "meta"
    ]
    belongings = Belongings(model)
    try:
        yield
    finally:
        belongings.put_back()
        for each in attributes:
            each.put_back()
        for buffer, before in values:
            if not torch.equal(buffer, before):
                buffer.detach().copy_(before)
