"""Points of a forward pass: what a layer gives at one of its runs, or a function that is called.

A module may run several times, and what a network pools may come from a function. So a place in
the pass is not a module alone: it is a run of a module, or a call of a function after such a run.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.autograd.grad_mode import _unsafe_preserve_version_counter

from pyxai._errors import argument_error, closest, describe
from pyxai.classifier.calls import FunctionCalls
from pyxai.classifier.nested import first_tensor, with_first


@dataclass(frozen=True)
class Point:
    """Where in a forward pass a tensor arises.

    Attributes:
        name: what users call it: "layer4", "relu#2" (its second run), "relu before pool".
        module: the submodule whose output it is; for a function, the one that ended last before
            it, "" for none.
        run: which run of the module, from 1; 0 for "".
        last: whether the last run is meant, whichever it is; `run` is what was seen before.
        function: the name of a function of torch, None for the module's own output.
        call: which call of that function after the module's run, from 1.
    """

    name: str
    module: str
    run: int = 1
    last: bool = True
    function: str | None = None
    call: int = 1


_BEFORE = " before "  # "relu before pool"
Act: TypeAlias = Callable[[Point, torch.Tensor], "torch.Tensor | None"]
"""Is shown the tensor at a point; what it returns goes on in the tensor's place."""


def find_layer(model: nn.Module, name: str, others: Sequence[str] = ()) -> nn.Module:
    """The submodule of that dotted name.

    Args:
        model: the network.
        name: of the submodule.
        others: more names that could have been meant, for the message.

    Raises:
        ValueError: there is none; the message has the closest names.
    """
    try:
        if name:
            return model.get_submodule(name)
    except AttributeError:
        pass
    names = [*(known for known, _ in model.named_modules() if known), *others]
    hint = closest(name, names) or (f"; it has {', '.join(names)}" if len(names) <= 12 else "")
    raise ValueError(
        f"layer: expected the name of a submodule of {type(model).__name__}, got {name!r}{hint}"
    )


def check_name(model: nn.Module, layer: object) -> str:
    """A layer's name; the habit of other libraries is the module itself.

    Raises:
        ValueError: it is something else; of a module, the message has the name.
    """
    if isinstance(layer, str):
        return layer
    own = next((name for name, each in model.named_modules() if each is layer), "")
    hint = f"; that one is called {own!r}" if own else ""
    raise ValueError(f"layer: expected the name of a layer, got {describe(layer)}{hint}")


def check_layer(model: nn.Module, name: str) -> None:
    """Refuses a layer that cannot exist, before the model was run.

    Raises:
        ValueError: it is neither a submodule nor a run of one, nor what a function might give.
    """
    module, mark, run = name.rpartition("#")
    if _BEFORE not in name:
        find_layer(model, module if mark and run.isdigit() else name)


@contextmanager
def at_points(network: nn.Module, points: Sequence[Point], act: Act) -> Iterator[Counter[str]]:
    """Shows `act` the tensors at points of the passes that this thread makes in the block.

    Of a point that means the last run, each run from the one seen before on is shown, as a pass
    may have more of them.

    Yields:
        How often the points' modules have run.

    Raises:
        ValueError: a module does not exist, is TorchScript, or gives no tensor.
    """
    watch = _Watch(points, act)
    handles: list[Any] = []
    try:
        with _lock:
            for name in watch.by_module:
                if not name:
                    continue
                module = find_layer(network, name)
                if isinstance(module, torch.jit.ScriptModule):
                    expected = "a layer outside TorchScript, which hides its own"
                    raise argument_error("layer", expected, name)
                if getattr(module, "inplace", False):
                    handles.append(module.register_forward_pre_hook(watch.before, with_kwargs=True))
                handles.append(module.register_forward_hook(partial(watch.after, name)))
        with watch.calls if watch.calls.points else nullcontext():
            yield watch.runs
    finally:
        with _lock:
            for handle in handles:
                handle.remove()


_lock = threading.Lock()


class _Watch:
    """The hooks of the modules of some points, for the thread that makes it.

    Attributes:
        by_module: the points of each module, by its name.
        runs: how often each has run.
        calls: watches for the points that functions give.
    """

    def __init__(self, points: Sequence[Point], act: Act) -> None:
        self.by_module: dict[str, list[Point]] = {}
        for point in points:
            self.by_module.setdefault(point.module, []).append(point)
        self.runs = Counter[str]()
        self.calls = _Calls([point for point in points if point.function is not None], act)
        self._act = act
        self._owner = threading.get_ident()
        self._versions: dict[int, tuple[Any, Any]] = {}

    # torch may leave `named` out where another thread just took its own hook away.
    def before(self, module: nn.Module, arguments: Any, named: Any = None) -> None:
        # Whoever works in place changes what others hold; they must see what goes on from here.
        if threading.get_ident() == self._owner:
            given = first_tensor(arguments or named)
            self._versions[id(module)] = (given, None if given is None else version_of(given))

    def after(self, name: str, module: nn.Module, arguments: Any, output: Any) -> Any:
        if threading.get_ident() != self._owner:
            return None
        self.runs[name] += 1
        given, version = self._versions.pop(id(module), (None, None))
        for point in self.by_module[name]:
            if point.function is None and _is_run(point, self.runs[name]):
                tensor = first_tensor(output)
                if tensor is None:
                    expected = "a module whose output is a tensor"
                    got = describe(output)
                    raise ValueError(f"layer {point.name!r}: expected {expected}, got {got}")
                in_place = tensor is given and version_of(tensor) != version
                output = _passed_on(self._act, point, output, tensor, in_place)
        self.calls.module_ended(name, self.runs[name])
        return output


def _is_run(point: Point, run: int) -> bool:
    return run == point.run or (point.last and run > point.run)


def _passed_on(act: Act, point: Point, output: Any, tensor: torch.Tensor, in_place: bool) -> Any:
    """The output with what `act` puts in the place of its tensor.

    What works in place may be called for that alone: `relu_(x)`, and `x` goes on. So there the
    values are put into the same tensor, where they fit.
    """
    in_place = in_place and not tensor._is_view()
    new = act(point, tensor.clone() if in_place else tensor)
    if new is None:
        return output
    if in_place and new.shape == tensor.shape:
        # To autograd it stays what it was, as the values it needs for that are the same.
        with _unsafe_preserve_version_counter(tensor):
            tensor.detach_().copy_(new)
        return output
    return with_first(output, new)


def version_of(tensor: torch.Tensor) -> int:
    """How often a tensor was changed in place; -1 of inference tensors, which do not count."""
    return -1 if tensor.is_inference() else tensor._version


def made_or_changed(
    given: torch.Tensor | None, before: int | None, output: Any
) -> torch.Tensor | None:
    """The tensor that a call of a function gave, or changed in place: of a part, the whole.

    Args:
        given: its first argument.
        before: the version of that before the call.
        output: what it returned; `y[y < 0] = 0` returns nothing.
    """
    tensor = first_tensor(output)
    if given is None or version_of(given) == before or not (tensor is None or tensor is given):
        return tensor
    return given._base if given._is_view() else given


def name_of_call(function: str, consumer: str) -> str:
    """What the output of a function is called, by what takes it."""
    return f"{function}{_BEFORE}{consumer}"


def function_name(function: Any) -> str:
    """The name of a function of torch, without the underscores of operators and in-place forms."""
    name = getattr(function, "__name__", type(function).__name__)  # "relu.default" in exports
    return str(name).partition(".")[0].strip("_")


class _Calls(FunctionCalls):
    """Watches for calls of functions, from the end of the module's run on that they follow."""

    def __init__(self, points: Sequence[Point], act: Act) -> None:
        super().__init__()
        self.points = points
        self._act = act
        self._armed: list[Point] = [point for point in points if not point.module]
        self._counts: Counter[str] = Counter()

    def module_ended(self, name: str, run: int) -> None:
        due = [point for point in self.points if point.module == name and point.run == run]
        if due:
            self._armed, self._counts = due, Counter()

    def called(self, function: Any, args: Sequence[Any], named: dict[str, Any]) -> Any:
        if not self._armed:
            return function(*args, **named)
        name = function_name(function)
        if all(point.function != name for point in self._armed):
            return function(*args, **named)
        self._counts[name] += 1
        given = first_tensor(args)
        before = None if given is None else version_of(given)
        output = function(*args, **named)
        tensor = made_or_changed(given, before, output)
        for point in self._armed:
            if point.function == name and point.call == self._counts[name] and tensor is not None:
                self._armed = [each for each in self._armed if each is not point]
                in_place = tensor is not first_tensor(output) or (
                    tensor is given and version_of(tensor) != before
                )
                return _passed_on(self._act, point, output, tensor, in_place)
        return output
