"""Looks at a network while it runs one image: which tensors arise where, and what they hold."""

from __future__ import annotations

import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from pyxai.classifier.calls import FunctionCalls
from pyxai.classifier.layout import Layout, find_layout, find_layout_on
from pyxai.classifier.nested import first_tensor, tensors_in
from pyxai.classifier.points import (
    Point,
    function_name,
    made_or_changed,
    name_of_call,
    version_of,
)

_POOLING = (
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.AvgPool2d,
    nn.MaxPool2d,
    nn.LPPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveMaxPool1d,
    nn.AvgPool1d,
    nn.MaxPool1d,
)
# These make the grids that tokens lie on, and are channels first whatever their shape looks like.
_GRIDDED = (nn.Conv2d, *_POOLING)
_GRIDDED_FUNCTIONS = ("conv2d", "convolution_pointwise", "pixel_shuffle", "pixel_unshuffle")
# What these give are no features of positions: attention, and what it is made of; class scores.
_PRODUCTS = (
    *("matmul", "rmatmul", "mm", "bmm", "einsum", "addmm", "baddbmm", "tensordot"),
    *("softmax", "scaled_dot_product_attention", "multi_head_attention_forward"),
)
# These move numbers and do not make any: the tensor before holds the same features.
_MOVING = (
    *("contiguous", "clone", "reshape", "flatten", "to", "type", "float", "double", "half"),
    *("bfloat16", "cpu", "cuda", "permute", "transpose", "movedim", "view", "view_as", "squeeze"),
    *("unsqueeze", "expand", "getitem", "narrow", "select", "roll", "flip", "channel_shuffle"),
)
# Of probabilities these give probabilities.
_KEEPING = ("cat", "stack", "clamp", "clip")
# Pooling and resampling: the layer before sees as much or more.
_RESAMPLING = ("interpolate", "upsample")


WITH_WEIGHTS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.MultiheadAttention)


@dataclass(eq=False)
class Output:
    """A tensor that arose in the pass.

    Attributes:
        point: where; its name is that of the outermost module that gives it unchanged.
        shape: of the tensor, for one image.
        layout: where positions are in it; None if it has none.
        mark: what it is beside features: "pooled", "projected" (by a linear layer), "product",
            "moved" (the numbers of an earlier tensor in another shape); else "".
        module: the module whose output it is; None for functions.
        level: how many modules lie around it, 0 for what the network itself calls.
        weights: how many layers with weights had run when it was there.
        image: whether it may be a map `[N, C, h, w]`, if nothing speaks against it.
        function: the name of the function that made its numbers, "" if not known.
        weighted: whether that function took weights.
        consumers: what it was given to: names of modules and functions.
    """

    point: Point
    shape: tuple[int, ...]
    layout: Layout | None = None
    mark: str = ""
    module: nn.Module | None = None
    level: int = 0
    weights: int = 0
    image: bool = False
    function: str = ""
    weighted: bool = False
    consumers: list[str] = field(default_factory=list)

    @property
    def has_weights(self) -> bool:
        """Whether a layer with weights gave it."""
        return self.weighted if self.module is None else isinstance(self.module, WITH_WEIGHTS)


_KEPT = ("pooled", "projected", "moved")  # whatever module hands it on
_MARKED = (nn.Linear, *_POOLING, nn.Upsample)
_WEIGHTED_FUNCTIONS = ("conv1d", "conv2d", "conv3d", "convolution_pointwise", "linear")


@contextmanager
def watching(model: nn.Module, watch: Callable[[str, nn.Module, Any], Any]) -> Iterator[None]:
    """Shows `watch` the output of every layer; what it returns replaces the output."""
    owner = threading.get_ident()

    def hook_for(name: str) -> Any:
        def hook(module: nn.Module, arguments: Any, output: Any) -> Any:
            return watch(name, module, output) if threading.get_ident() == owner else None

        return hook

    handles = []
    try:
        for name, module in model.named_modules():
            if isinstance(module, torch.jit.ScriptModule) or not name:
                continue
            handles.append(module.register_forward_hook(hook_for(name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


class Survey:
    """What one image makes of a network; use it as a context around one pass.

    Attributes:
        outputs: the tensors that arose, in order; each once, however many modules hand it on.
        runs: how often each module ran.
        tokens: whether there are tokens or maps with the channels last.
        layouts: of the last output of every module, by its name.
        last: the last few outputs, in words.
    """

    def __init__(self, network: nn.Module, size: tuple[int, int]) -> None:
        """Takes note of the network; `size` is (height, width) of the image."""
        self.outputs: list[Output] = []
        self.runs: Counter[str] = Counter()
        self.tokens = False
        self.layouts: dict[str, Layout | None] = {}
        self.last: deque[str] = deque(maxlen=3)
        self._network = network
        self._size = size
        self._grids: list[tuple[int, int]] = []  # the latest first
        self._weights = 0
        self._stack: list[tuple[str, dict[int, int]]] = []
        self._ended: tuple[str, int] = ("", 0)
        self._calls: Counter[str] = Counter()  # of functions since then
        self._unclear: dict[str, Layout] = {}
        self._products: set[tuple[int, ...]] = set()  # shapes
        self._lengths: set[int] = set()  # of sequences
        self._storages = {_storage(each) for each in network.parameters()} - {0}
        # Tensors that are alive: what they were when they were seen.
        self._known: dict[int, tuple[weakref.ref[torch.Tensor], int, Output]] = {}

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Looks at the pass that this thread makes in the block."""
        owner, handles = threading.get_ident(), []

        def hooks_for(name: str) -> tuple[Any, Any]:
            # torch may leave `named` out where another thread just took its own hook away.
            def before(module: nn.Module, arguments: Any, named: Any = None) -> None:
                if threading.get_ident() == owner:
                    self._begin(name, (arguments, named))

            def after(module: nn.Module, arguments: Any, output: Any) -> None:
                if threading.get_ident() == owner:
                    self._end(name, module, output)

            return before, after

        try:
            for name, module in self._network.named_modules():
                if isinstance(module, torch.jit.ScriptModule) or not name:
                    continue
                if ".parametrizations." in f".{name}.":
                    continue  # these make weights
                before, after = hooks_for(name)
                handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
                handles.append(module.register_forward_hook(after))
            with _Functions(self):
                yield
        finally:
            for handle in handles:
                handle.remove()
            self._finish()

    def _finish(self) -> None:
        if not self.tokens:
            self.layouts.update(self._unclear)
            for output in self.outputs:
                if output.image:
                    output.layout = Layout("nchw", output.shape[2], output.shape[3])
        self._name_points()

    # ---- what happens in the pass ----

    def _begin(self, name: str, arguments: Any) -> None:
        counts = {}
        for output in self.seen_in(arguments):
            counts[id(output)] = len(output.consumers)
            output.consumers.append(name)
        self._stack.append((name, counts))

    def _end(self, name: str, module: nn.Module, result: Any) -> None:
        counts: dict[int, int] = {}
        while self._stack:  # what raised inside has left its entry
            top, counts = self._stack.pop()
            if top == name:
                break
        self.runs[name] += 1
        self._ended, self._calls = (name, self.runs[name]), Counter()
        self._weights += isinstance(module, WITH_WEIGHTS)
        tensor = first_tensor(result)
        if tensor is None or not tensor.is_floating_point():
            return
        self.last.append(f"{name} {[*tensor.shape]}")
        layout = self.layouts[name] = self._layout(name, module, tensor)
        # What is handed out in a dictionary may have been used before: by a pooler, for one.
        if not isinstance(result, (torch.Tensor, tuple, list)):
            return
        output = self._recall(tensor)
        if output is None:
            mark = "moved" if tensor.ndim == 3 and self._is_view(tensor) else ""
            output = self._add(tensor, Output(Point(name, name), (*tensor.shape,), mark=mark))
        elif output.consumers[: counts.get(id(output), len(output.consumers))]:
            return  # what used it before does not see it here
        if output.mark not in _KEPT or (output.mark == "moved" and tensor.ndim == 4 and layout):
            output.mark = ""
        if isinstance(module, _MARKED):
            output.mark = "projected" if isinstance(module, nn.Linear) else "pooled"
        # Whatever module inside gave it, it goes by the name of the module outside.
        del output.consumers[:]
        self.outputs.remove(output)
        self.outputs.append(output)
        output.point, output.module = Point(name, name, self.runs[name]), module
        output.level, output.weights = name.count("."), self._weights
        output.layout = layout
        output.image = tensor.ndim == 4 and len(tensor) == 1 and not self._is_attention(tensor)
        if output.mark != "moved":
            self.tokens |= tensor.ndim == 3 and tensor.shape[1] > 1
            self.tokens |= layout is not None and layout.kind != "nchw"

    def function_called(
        self,
        name: str,
        arguments: Any,
        result: Any,
        tensor: torch.Tensor | None,
        given: list[Output],
    ) -> None:
        """The network called a function of torch.

        Args:
            name: of the function.
            arguments: its arguments.
            result: what it returned.
            tensor: what it gave or changed.
            given: the outputs among its arguments.
        """
        self._calls[name] += 1
        weighted = name in _WEIGHTED_FUNCTIONS or (
            name in _PRODUCTS and any(map(self._is_weight, tensors_in(arguments)))
        )
        self._weights += weighted and not self._in_layer_with_weights()
        known = None if tensor is None else self._recall(tensor)
        for output in given:
            if output is not known and (
                tensor is not None or any(True for _ in tensors_in(result))
            ):
                output.consumers.append(name)
        if tensor is None or known is not None or not tensor.is_floating_point():
            return
        if name in _PRODUCTS:
            self._products.add((*tensor.shape,))
        in_place = tensor is not first_tensor(result) or any(
            tensor is each for each in tensors_in(arguments)
        )
        mark = "projected" if name == "linear" else "product" if name in _PRODUCTS else ""
        if "pool" in name or name in _RESAMPLING:
            mark = "pooled"
        elif not mark and not in_place and (name in _MOVING or self._is_view(tensor)):
            mark = "moved"
        layout = self._layout_of_function(name, tensor)
        ended, run = self._ended
        scope = self._stack[-1][0] if self._stack else ""
        output = Output(Point(name, ended, run, False, name, self._calls[name]), (*tensor.shape,))
        output.layout, output.mark, output.weights = layout, mark, self._weights
        output.function = "sigmoid" if name == "special_expit" else name
        output.weighted = weighted
        if mark == "moved" and given:
            output.function, output.weighted = given[0].function, given[0].weighted
        elif name in _KEEPING and len({each.function for each in given}) == 1:
            output.function = given[0].function
        output.level = scope.count(".") + 1 if scope else 0
        output.image = tensor.ndim == 4 and layout is not None and layout.kind == "nchw"
        self.tokens |= not mark and layout is not None and layout.kind == "nhwc"
        self._add(tensor, output)

    def _is_attention(self, tensor: torch.Tensor) -> bool:
        """Whether it says what each token takes from each: square as a map, but a table."""
        rows, columns = tensor.shape[-2:]
        same = rows == columns and (*tensor.shape,) in self._products
        return same and rows in self._lengths

    def _add(self, tensor: torch.Tensor, output: Output) -> Output:
        if tensor.ndim == 3:
            self._lengths.update(tensor.shape[:2])
        self.outputs.append(output)
        self._known[id(tensor)] = weakref.ref(tensor), version_of(tensor), output
        return output

    def _recall(self, tensor: torch.Tensor) -> Output | None:
        """The output that this tensor is, if it was seen with the numbers that it has now."""
        reference, version, output = self._known.get(id(tensor), (None, 0, None))
        alive = reference is not None and reference() is tensor
        return output if alive and version == version_of(tensor) else None

    def seen_in(self, arguments: Any) -> Iterator[Output]:
        """The outputs among the arguments of a module or function."""
        for tensor in tensors_in(arguments):
            output = self._recall(tensor)
            if output is not None:
                yield output

    def made_by(self, tensor: torch.Tensor) -> str:
        """The function that made the numbers of a tensor that is still alive, "" if not known."""
        output = self._recall(tensor)
        if output is None and self._is_view(tensor):
            output = self._recall(tensor._base)  # type: ignore[arg-type]
        return "" if output is None else output.function

    def _is_weight(self, tensor: torch.Tensor) -> bool:
        """Whether its numbers are those of a parameter, in whatever shape."""
        return isinstance(tensor, nn.Parameter) or _storage(tensor) in self._storages

    def _is_view(self, tensor: torch.Tensor) -> bool:
        """Whether its numbers are those of an earlier tensor, in another shape or in part."""
        return not tensor.is_inference() and tensor._base is not None

    def _in_layer_with_weights(self) -> bool:
        name = self._stack[-1][0] if self._stack else ""
        return bool(name) and isinstance(self._network.get_submodule(name), WITH_WEIGHTS)

    # ---- where positions are ----

    def _layout(self, name: str, module: nn.Module, tensor: torch.Tensor) -> Layout | None:
        shape, batch_first = tensor.shape, True
        if tensor.ndim >= 2 and self._is_attention(tensor):
            return None
        if tensor.ndim == 4:
            rows, columns = shape[2:]
            self._unclear[name] = Layout("nchw", rows, columns)
            if isinstance(module, _GRIDDED) and shape[0] == 1:
                self._note_grid(rows, columns)
                return self._unclear[name]
        if tensor.ndim == 3 and shape[1] == 1 and shape[0] > 1:  # not windows: one image
            shape, batch_first = torch.Size((1, shape[0], shape[2])), False
        if len(shape) < 3 or shape[0] != 1:
            return None
        # Once there are grids, tokens lie on one of these: latents and channels do not.
        found = (
            find_layout_on(shape, self._grids) if self._grids else find_layout(shape, self._size)
        )
        return None if found is None else replace(found, batch_first=batch_first)

    def _layout_of_function(self, name: str, tensor: torch.Tensor) -> Layout | None:
        """As of a module, but only on grids that are known: code computes much that is no map."""
        if tensor.ndim == 4 and len(tensor) == 1 and (name in _GRIDDED_FUNCTIONS or "pool" in name):
            self._note_grid(*tensor.shape[2:])
            return Layout("nchw", *tensor.shape[2:])
        if tensor.ndim not in (3, 4) or not self._grids or name in _PRODUCTS:
            return None
        if self._is_attention(tensor):
            return None
        if tensor.ndim == 4:
            found = find_layout_on(tensor.shape, self._grids) if len(tensor) == 1 else None
            return found
        like = [each for each in self.layouts.values() if each is not None]
        for layout in like:
            tokens = tensor if layout.batch_first else tensor.transpose(0, 1)
            if layout.kind == "tokens" and tokens.shape[:2] == (
                1,
                layout.prefix + layout.positions,
            ):
                return layout
        return None

    def _note_grid(self, rows: int, columns: int) -> None:
        if (rows, columns) not in self._grids and rows * columns > 1:
            self._grids.insert(0, (rows, columns))

    # ---- names ----

    def _name_points(self) -> None:
        """Gives runs and calls of functions names; the last of several is called like one."""
        named: dict[str, list[Output]] = {}
        for output in self.outputs:
            point = output.point
            if point.function is None:
                if self.runs[point.module] > 1:
                    last = point.run == self.runs[point.module]
                    name = point.module if last else f"{point.module}#{point.run}"
                    output.point = replace(point, name=name, last=last)
            else:
                consumer = next(iter(output.consumers), "the output")
                named.setdefault(name_of_call(point.function, consumer), []).append(output)
        for name, several in named.items():
            for number, output in enumerate(several, 1):
                last = number == len(several)
                output.point = replace(output.point, name=name if last else f"{name}#{number}")


class _Functions(FunctionCalls):
    """Tells a survey of the functions that the code of the network calls."""

    def __init__(self, survey: Survey) -> None:
        super().__init__()
        self._survey = survey

    def called(self, function: Any, args: Sequence[Any], named: dict[str, Any]) -> Any:
        arguments = (args, list(named.values()))
        given = list(self._survey.seen_in(arguments))  # before it works in place
        first = first_tensor(args)
        before = None if first is None else version_of(first)
        result = function(*args, **named)
        tensor = made_or_changed(first, before, result)
        self._survey.function_called(function_name(function), arguments, result, tensor, given)
        return result


def _storage(tensor: torch.Tensor) -> int:
    """Where its numbers lie, 0 if that cannot be told."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, ValueError):  # it has none of its own: sparse, wrapped, not made yet
        return 0
