"""The graph of one module's own forward: its children are single steps in it.

`torch.fx.symbolic_trace` replaces `nn.Module.__call__` for the whole process while it works, and so
breaks models that run in other threads. Here the forward runs on a stand-in of the module, whose
children note that they were called.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import fx, nn

from pyxai._errors import passes_through


class TraceError(Exception):
    """The forward cannot be written down as a graph."""


def trace(module: nn.Module, kind: type[nn.Module]) -> fx.Graph:
    """The graph of a module's own forward, for calls with its required arguments only.

    Args:
        module: in evaluation mode; nothing about it is changed.
        kind: the class whose forward is meant, usually `type(module)`.

    Raises:
        TraceError: the forward depends on data, keeps something in the module, or takes a
            number of arguments that is not known.
    """
    tracer = fx.Tracer()
    tracer.graph = fx.Graph()
    tracer.root = module
    tracer.tensor_attrs = {}
    try:
        shadow = _stand_in(module, kind, tracer)
        before = dict(shadow.__dict__)
        # Optional arguments keep their defaults: `if labels is not None` would be frozen as true
        # for the stand-in of an argument.
        inputs = [tracer.create_proxy("placeholder", name, (), {}) for name in _required(kind)]
        with torch.no_grad():
            output = kind.forward(shadow, *inputs)
        tracer.create_node("output", "output", (tracer.create_arg(output),), {}, type_expr=None)
    except Exception as error:  # whatever a forward may raise on inputs that are no tensors
        if passes_through(error):
            raise
        raise TraceError(str(error)) from error
    after = shadow.__dict__
    if before.keys() != after.keys() or any(before[key] is not after[key] for key in before):
        raise TraceError("forward keeps something in the module")
    return tracer.graph


def arguments_of(graph: fx.Graph) -> int:
    """How many arguments the graph takes."""
    return sum(node.op == "placeholder" for node in graph.nodes)


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


def _stand_in(module: nn.Module, kind: type[nn.Module], tracer: fx.Tracer, path: str = "") -> Any:
    """The module with the same attributes, but with children that note their calls."""
    stand_in = object.__new__(kind)
    stand_in.__dict__.update(module.__dict__)
    children = {}
    for name, child in module._modules.items():
        if child is not None:
            inner = f"{path}.{name}" if path else name
            children[name] = _stand_in(child, _noting(type(child), tracer, inner), tracer, inner)
        else:
            children[name] = None
    stand_in.__dict__["_modules"] = children
    return stand_in


def _noting(kind: type[nn.Module], tracer: fx.Tracer, path: str) -> type[nn.Module]:
    """A class that is one of this kind, but whose call becomes a step of the graph."""

    def note(self: Any, *arguments: Any, **named: Any) -> Any:
        return tracer.create_proxy("call_module", path, arguments, named)

    return type(kind.__name__, (kind,), {"__call__": note, "__module__": kind.__module__})
