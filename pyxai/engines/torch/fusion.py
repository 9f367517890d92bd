"""Modules whose forward is replaced by a shorter one, as long as nobody looks inside."""

from __future__ import annotations

import copyreg
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional
from torch.nn.modules import module as torch_module

from pyxai._errors import REFUSALS, passes_through
from pyxai.engines.torch.casting import map_tensors, tensors_in
from pyxai.engines.torch.convolution import FastConv2d
from pyxai.engines.torch.folding import FoldedNorm
from pyxai.engines.torch.tracing import TraceError, arguments_of, trace

_ADDITIONS = (operator.add, operator.iadd, torch.add)
_MODULES = {nn.ReLU: "relu", nn.ReLU6: "relu6", nn.SiLU: "silu", nn.Hardswish: "hardswish"}
_FUNCTIONS: dict[Any, str] = {
    functional.relu: "relu",
    torch.relu: "relu",
    torch.relu_: "relu",
    functional.relu6: "relu6",
    functional.silu: "silu",
    functional.hardswish: "hardswish",
}
_METHODS = {"relu": "relu", "relu_": "relu"}
# In evaluation mode these return their input.
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
_NOTHING_BY_NAME = ("DropPath", "StochasticDepth")


class Plan:
    """The shorter forward of one module.

    Attributes:
        watched: names of the children that it skips or whose outputs it changes.
        kinds: types of the arguments that it was checked with; None before that.
        checking: whether calls compare it with the module's own forward.
    """

    def __init__(self, run: Callable[..., Any], watched: tuple[str, ...]) -> None:
        self._run: Callable[..., Any] | None = run
        self.watched = tuple(tuple(name.split(".")) for name in watched)
        self.kinds: tuple[type, ...] | None = None
        self.checking = False

    def fits(self, module: nn.Module, arguments: tuple[Any, ...]) -> bool:
        """Whether a call may take the shorter way: the hooks of skipped layers must not miss it."""
        if module.training or tuple(map(type, arguments)) != self.kinds:
            return False
        if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
            return False
        if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
            return False  # the forward may turn it off for a part, which a graph does not tell
        for path in self.watched:
            child: Any = module
            for name in path:
                child = child._modules[name]
            if child._forward_hooks or child._forward_pre_hooks or child._backward_hooks:
                return False
        return True

    def run(self, module: nn.Module, arguments: tuple[Any, ...], own: Callable[..., Any]) -> Any:
        """The output of the shorter forward; of the module's own where there is none just now."""
        run = self._run
        if run is None:  # after unpickling; several threads may do it, to the same end
            found = shorten(module, _base_of(type(module)))
            if found is None or found._run is None:  # changed, or another thread looks at it
                return own(*arguments)
            run = self._run = found._run
        return run(module, *arguments)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_run": None}

    def __deepcopy__(self, memo: Any) -> Plan:
        other = Plan.__new__(Plan)
        other.__dict__.update(self.__dict__)  # the function takes the module as an argument
        return other


class Shortened:
    """Mixed into the class of a module that has a plan; whatever it is not for goes the old way."""

    __dict__: dict[str, Any]

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """What the class below computes."""
        own: Any = super()
        plan: Plan | None = self.__dict__.get("_plan")
        if plan is None or named or torch.compiler.is_compiling():
            return own.forward(*arguments, **named)
        module: Any = self
        if plan.checking:
            return _check(plan, module, arguments, own.forward)
        if not plan.fits(module, arguments):
            return own.forward(*arguments)
        return plan.run(module, arguments, own.forward)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The class has no name that pickle could look up; it is made again from the one below.
        reduced = super().__reduce_ex__(protocol)
        if reduced[0] is not getattr(copyreg, "__newobj__"):  # noqa: B009
            return reduced
        return (_revive, (_base_of(type(self)),), *reduced[2:])


def _shortened_class(base: type) -> type:
    known: type
    for known in type.__subclasses__(base):
        if known.__bases__ == (Shortened, base):
            return known
    return type(base.__name__, (Shortened, base), {"__module__": base.__module__})


def _base_of(kind: type) -> type:
    return kind.__bases__[1] if kind.__bases__[0] is Shortened else kind


def _revive(base: type) -> Any:
    return object.__new__(_shortened_class(base))


def _check(
    plan: Plan, module: nn.Module, arguments: tuple[Any, ...], own: Callable[..., Any]
) -> Any:
    """Both ways; a plan that fails or differs loses its kinds, and so is never taken."""
    kinds = tuple(map(type, arguments))
    expected = own(*map_tensors(arguments, torch.clone))
    try:
        found = plan.run(module, arguments, own)
        pairs = zip(tensors_in(expected), tensors_in(found), strict=True)
        close = all(_is_close(a, b) for a, b in pairs)
    except REFUSALS as error:  # as the module does not fit, it stays as it was
        if passes_through(error):
            raise
        close = False
    plan.kinds = kinds if close and plan.kinds in (None, kinds) else ()
    return expected


def _is_close(expected: torch.Tensor, found: torch.Tensor) -> bool:
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return False
    tolerance = 1e-4 if expected.dtype in (torch.float32, torch.float64) else 3e-2
    gap = (expected - found).abs().max() if expected.numel() else 0
    return bool(gap <= tolerance * (1e-6 + expected.abs().max()))


def fuse(module: nn.Module) -> bool:
    """Gives a module a plan to be checked, if its forward has something to fuse."""
    kind = type(module)
    plan = None if "__reduce_ex__" in vars(kind) else shorten(module, kind)
    if plan is None:
        return False
    try:
        module.__class__ = _shortened_class(kind)
    except REFUSALS:  # a class that does not let itself be derived from
        return False
    module.__dict__["_plan"] = plan
    return True


def settle(model: nn.Module) -> None:
    """Ends the check: takes back the plans that failed it or were never called."""
    for module in model.modules():
        plan = module.__dict__.get("_plan")
        if isinstance(plan, Plan):
            plan.checking = False
            if not plan.kinds:
                del module.__dict__["_plan"]
                module.__class__ = _base_of(type(module))


def shorten(module: nn.Module, kind: type[nn.Module]) -> Plan | None:
    """The plan of a module of this class, None if nothing can be fused."""
    try:
        graph = trace(module, kind)
    except TraceError:
        return None
    watched: list[str] = []
    if not arguments_of(graph):
        return None
    for node in list(graph.nodes):
        if node.op == "call_module" and isinstance(_module_of(module, node), FastConv2d):
            watched += _fuse_after(module, graph, node)
    if not watched:
        return None
    graph.lint()
    # The class's forward takes the module as its first argument, so it serves every copy.
    forward: Callable[..., Any] = type(fx.GraphModule(module, graph)).forward
    return Plan(forward, tuple(dict.fromkeys(watched)))


def _module_of(container: nn.Module, node: fx.Node) -> nn.Module | None:
    return container.get_submodule(str(node.target)) if node.op == "call_module" else None


def _fuse_after(container: nn.Module, graph: fx.Graph, start: fx.Node) -> list[str]:
    """Fuses what follows a convolution into it; returns the names of the layers concerned."""
    if len(start.args) != 1 or start.kwargs:
        return []
    chain, other, activation = [start], None, None
    last, other_at_last = start, None  # the chain up to the last thing that is worth fusing
    while activation is None and len(chain[-1].users) == 1:
        node, current = next(iter(chain[-1].users)), chain[-1]
        found = _addend(node, current) if other is None else None
        if found is not None:
            if not _may_move(start, node, chain, found):
                break
            other = other_at_last = found
            last = node
        else:
            kind = _step(container, node, current)
            if kind is None:
                break
            if kind:
                activation, last = kind, node
        chain.append(node)
    if last is start:
        return []
    chain = chain[: chain.index(last) + 1]
    named = {"add": other_at_last, "activation": activation}
    with graph.inserting_before(last):
        fused = graph.call_module(
            str(start.target), start.args, {k: v for k, v in named.items() if v is not None}
        )
    last.replace_all_uses_with(fused)
    for node in reversed(chain):
        graph.erase_node(node)
    names = [str(node.target) for node in chain if node.op == "call_module"]
    inner = [f"{name}.{child}" for name in names for child in _children(container, name)]
    return names + inner


def _children(container: nn.Module, name: str) -> list[str]:
    return [child for child, _ in container.get_submodule(name).named_modules() if child]


def _step(container: nn.Module, node: fx.Node, current: fx.Node) -> str | None:
    """The activation that a node computes of another one, "" if it does nothing, else None."""
    if not node.args or node.args[0] is not current or len(node.args) != 1:
        return None
    if node.op == "call_function" and set(node.kwargs) <= {"inplace"}:
        return _FUNCTIONS.get(node.target)
    if node.op == "call_method" and not node.kwargs:
        return _METHODS.get(str(node.target))
    module = _module_of(container, node)
    if module is None or node.kwargs or module._forward_pre_hooks:
        return None
    if isinstance(module, FoldedNorm):
        if not isinstance(module.drop, _NOTHING):
            return None
        return _activation_of(module.act)
    return _activation_of(module)


def _activation_of(module: nn.Module) -> str | None:
    if isinstance(module, _NOTHING) or type(module).__name__ in _NOTHING_BY_NAME:
        return ""
    return _MODULES.get(type(module))


def _addend(node: fx.Node, current: fx.Node) -> fx.Node | None:
    """What a node adds to another one, None if it is no such addition."""
    method = node.op == "call_method" and node.target in ("add", "add_")
    if not method and not (node.op == "call_function" and node.target in _ADDITIONS):
        return None
    if len(node.args) != 2 or node.kwargs or node.args[0] is node.args[1]:
        return None
    first, second = node.args
    if first is current and isinstance(second, fx.Node):
        return second
    # `other += current` changes the other one, which may be in use elsewhere.
    in_place = node.target is operator.iadd or node.target == "add_"
    if second is current and isinstance(first, fx.Node) and not in_place:
        return first
    return None


def _may_move(start: fx.Node, end: fx.Node, chain: list[fx.Node], other: fx.Node) -> bool:
    """Whether the convolution may run as late as where its output is added.

    What runs between might change the convolution's input in place, unless nothing else has it.
    """
    between, node = [], start.next
    while node is not end:
        between.append(node)
        node = node.next
    if all(each in chain for each in between):
        return True
    source = start.args[0]
    return isinstance(source, fx.Node) and source.op != "placeholder" and len(source.users) == 1
