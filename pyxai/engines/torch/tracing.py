"""The graph of one module's own forward: its children are single steps in it.

`torch.fx.symbolic_trace` replaces `nn.Module.__call__` for the whole process while it works, and so
breaks models that run in other threads. Here the forward runs on a stand-in of the module, whose
children note that they were called.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from pyxai._errors import passes_through
from pyxai.classifier.calls import FunctionCalls
from pyxai.engines.torch.keeping import NOT_STATE, Belongings, holds_same, rebuilt


class TraceError(Exception):
    """The forward cannot be written down as a graph."""


def trace(module: nn.Module) -> fx.Graph:
    """The graph of a module's own forward, for calls with its required arguments only.

    Args:
        module: in evaluation mode; nothing about it is changed.

    Raises:
        TraceError: the forward depends on data, keeps something in the module, computes with
            tensors that are neither parameters nor buffers, or takes a number of arguments that
            is not known.
    """
    kind, tracer = type(module), _Tracer()
    tracer.graph = fx.Graph()
    tracer.root = module
    tracer.tensor_attrs = {}
    shadows: list[_Shadow] = []
    belongings = Belongings(module)
    try:
        shadow = _stand_in(module, kind, tracer, shadows)
        # Optional arguments keep their defaults: `if labels is not None` would be frozen as true
        # for the stand-in of an argument.
        inputs = [tracer.create_proxy("placeholder", name, (), {}) for name in _required(kind)]
        with torch.no_grad(), _Untouched():
            output = kind.forward(shadow, *inputs)
        tracer.create_node("output", "output", (tracer.create_arg(output),), {}, type_expr=None)
    except Exception as error:  # whatever a forward may raise on inputs that are no tensors
        if passes_through(error):
            raise
        raise TraceError(str(error)) from error
    finally:
        changed = belongings.put_back()
    if changed or any(each.was_changed() for each in shadows):
        raise TraceError("forward keeps something in the module")
    return tracer.graph


class _Tracer(fx.Tracer):
    """Refuses tensors and objects that torch.fx would keep as new attributes of the module.

    They are made once, here: they would neither follow the module to another device, nor change
    with the weights that they were computed of.
    """

    def create_arg(self, a: Any) -> Any:
        if isinstance(a, torch.Tensor):
            # A stand-in of the root shares them, so they are found by identity.
            own = (*self.root.parameters(), *self.root.buffers())
            if not any(a is each for each in own):
                raise TraceError("computes with a tensor that is neither parameter nor buffer")
        return super().create_arg(a)

    def get_fresh_qualname(self, prefix: str) -> str:
        raise TraceError(f"computes with an object of its own ({prefix.strip('_')})")


class _Untouched(FunctionCalls):
    """Stops before a tensor of the module is changed: only what is done to stand-ins is noted."""

    def called(self, function: Any, args: Sequence[Any], named: dict[str, Any]) -> Any:
        name = getattr(function, "__name__", "")
        in_place = (name.endswith("_") and not name.endswith("__")) or (
            name in ("__setitem__", "__set__") or name.startswith("__i") or "out" in named
        )
        if in_place and name not in _NO_CHANGE and args and isinstance(args[0], torch.Tensor):
            raise TraceError(f"forward changes a tensor of the module ({name})")
        return function(*args, **named)


_NO_CHANGE = ("__index__", "__int__", "__invert__", "requires_grad_")


_TENSORS = ("_parameters", "_buffers")


class _Shadow:
    """A stand-in, and what it was given."""

    def __init__(self, stand_in: Any, module: nn.Module) -> None:
        own = {
            name: rebuilt(value) if name not in NOT_STATE else value
            for name, value in module.__dict__.items()
        }
        for name in _TENSORS:  # which assigning to a buffer changes
            own[name] = dict(own[name])
        stand_in.__dict__.update(own)
        self._stand_in = stand_in
        # Once more: the first one is what the forward may change.
        self._before = {
            name: rebuilt(value) if name not in NOT_STATE or name in _TENSORS else value
            for name, value in own.items()
            if name != "_modules"
        }

    def was_changed(self) -> bool:
        """Whether the forward left anything in it, or took anything out."""
        now = {k: v for k, v in self._stand_in.__dict__.items() if k != "_modules"}
        return not holds_same(self._before, now)


def _required(kind: type[nn.Module]) -> list[str]:
    names = []
    for name, parameter in [*inspect.signature(kind.forward).parameters.items()][1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue  # called without any
        if parameter.default is parameter.empty:
            if parameter.kind == parameter.KEYWORD_ONLY:
                raise TraceError("a required keyword argument")
            names.append(name)
    return names


def _stand_in(
    module: nn.Module,
    kind: type[nn.Module],
    tracer: fx.Tracer,
    shadows: list[_Shadow],
    path: str = "",
) -> Any:
    """The module with the same attributes, but with children that note their calls."""
    stand_in = object.__new__(kind)
    shadows.append(_Shadow(stand_in, module))
    children = {}
    for name, child in module._modules.items():
        if child is not None:
            inner = f"{path}.{name}" if path else name
            noting = _noting(type(child), tracer, inner)
            children[name] = _stand_in(child, noting, tracer, shadows, inner)
        else:
            children[name] = None
    stand_in.__dict__["_modules"] = children
    return stand_in


def _noting(kind: type[nn.Module], tracer: fx.Tracer, path: str) -> type[nn.Module]:
    """A class that is one of this kind, but whose call becomes a step of the graph."""

    def note(self: Any, *arguments: Any, **named: Any) -> Any:
        return tracer.create_proxy("call_module", path, arguments, named)

    return type(kind.__name__, (kind,), {"__call__": note, "__module__": kind.__module__})
