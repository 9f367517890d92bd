"""The call of a seed and a number, and what is to be said of what came of it."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch

from fuzz_operators import spoilers
from fuzz_operators.expected import EXPECTED, difference
from fuzz_operators.operators import OPERATORS, Arguments, Operator
from fuzz_operators.source import Source
from fuzz_operators.spoilers import FIT, UNCLEAR, UNFIT
from pyxai._errors import passes_through
from pyxai.ops import _native

# How torch itself refuses what does not even come to an operator; it names no argument then.
TORCH_REFUSES = (
    "Could not run 'pyxai::",  # a layout or device that no operator has a kernel for
    "ZeroTensors are immutable",
    "Inference tensors cannot be saved for backward",
    "Stride calculation overflowed",  # a result whose shape no tensor can have
    "integer multiplication overflow",
)


@dataclass
class Call:
    """One call.

    Attributes:
        operator: what is called.
        way: "public" or "torch.ops".
        arguments: by name.
        verdict: "fit", "unfit" or "unclear".
        notes: what was done to the arguments.
    """

    operator: Operator
    way: str
    arguments: Arguments
    verdict: str = FIT
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        given = ", ".join(f"{name}={_words(each)}" for name, each in self.arguments.items())
        notes = f" [{'; '.join(self.notes)}]" if self.notes else ""
        return f"{self.way} {self.operator.name}({given}){notes}"


def _words(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return repr(value)[:80]
    if value.is_nested or value.layout != torch.strided:
        return f"<{value.layout}, nested {value.is_nested}>"
    dtype = str(value.dtype).removeprefix("torch.")
    return f"<{dtype} {list(value.shape)} strides {list(value.stride())} {value.device}>"


# ---- making it ----


def make_call(seed: int, number: int) -> Call:
    """The call, always the same."""
    source = Source(seed, number)
    operator = source.one_of(list(OPERATORS.values()))
    ways = ["public"] * (operator.to_public is not None) + ["torch.ops"] * operator.registered
    way = source.one_of(ways)
    fit = operator.fit(source)
    arguments = operator.to_public(fit) if way == "public" else dict(fit)
    call = Call(operator, way, arguments)
    if way == "public" and operator.out_shape is not None and source.happens(0.4):
        arguments["out"] = spoilers.make_out(source, operator, fit)
    for _ in range(source.one_of((0, 1, 1, 1, 2, 3))):
        _spoil(source, call)
    return call


def _is_touched(call: Call, *names: str) -> bool:
    return any(name in note.split() for note in call.notes for name in names)


def _written(call: Call) -> list[str]:
    return [name for name in (*call.operator.written, "out") if name in call.arguments]


def _spoil(source: Source, call: Call) -> None:
    arguments, written = call.arguments, _written(call)
    if written and source.happens(0.25):
        return _share(source, call)
    name = source.one_of(list(arguments))
    value = arguments[name]
    if _is_touched(call, name):
        return None
    if not isinstance(value, torch.Tensor):
        after, verdict = spoilers.other_value(source, name, arguments)
        done = "other_value"
    elif value.device.type != "cpu" or value.layout != torch.strided or value.is_nested:
        return None
    elif name == "boxes" and source.happens(0.4):
        after, verdict = spoilers.other_boxes(source, value)
        done = "other_boxes"
    else:
        kinds = source.one_of((spoilers.READ, spoilers.READ, spoilers.ODD, spoilers.WORSE))
        spoiler = source.one_of(kinds)
        if not value.ndim and spoiler in (spoilers.stepped, spoilers.expanded):
            return None
        try:
            after, verdict = spoiler(source, value)
        except RuntimeError:  # it is of a kind already that this cannot be done to
            return None
        done = spoiler.__name__
        verdict = _known(call, name, done, verdict)
    arguments[name] = after
    call.notes.append(f"{done} {name}")
    order = (FIT, UNCLEAR, UNFIT)
    if len(call.notes) > 1 and verdict == UNFIT:
        verdict = UNCLEAR  # the other change may have made it fit, as None in its place would
    call.verdict = max(call.verdict, verdict, key=order.index)
    return None


def _known(call: Call, name: str, done: str, verdict: str) -> str:
    """What is as good for tensors that are read may not be for those that are written."""
    if done == "special" and name not in ("scores", "second_moment", "step_tensor"):
        return FIT
    if done == "leaf" and "out" in call.arguments:
        return UNCLEAR
    if done == "inference" or (name, done) == ("boxes", "expanded"):
        return UNCLEAR
    if name in _written(call) and (name == "out" or done == "expanded"):
        return verdict if done == "moved" else UNCLEAR
    if call.way == "torch.ops" and done == "other_thing":
        return UNCLEAR
    return verdict


def _share(source: Source, call: Call) -> None:
    arguments = call.arguments
    name = source.one_of(_written(call))
    others = [
        other
        for other, value in arguments.items()
        if other != name
        and isinstance(value, torch.Tensor)
        and _is_dense(value)
        and not _is_touched(call, name, other, "interleaved")
    ]
    if not others or not isinstance(arguments[name], torch.Tensor):
        return
    other, one = source.one_of(others), arguments[name]
    state = ("masks", "gradients", "first_moment", "second_moment")
    if name != "out" and source.happens(0.3):
        alike = all(_is_alike(arguments[each], one) for each in state)
        if alike and not _is_touched(call, *state):
            spoilers.interleaved(source, arguments, state)
            call.notes.append("interleaved")
    elif _is_alike(one, arguments[other]) and source.happens(0.3):
        arguments[name] = arguments[other]
        call.notes.append(f"{name} is {other}")
        call.verdict = UNFIT if one.numel() and call.verdict == FIT else UNCLEAR
    elif _is_dense(one):
        verdict = spoilers.shared(source, arguments, name, other)
        call.notes.append(f"{name} beside {other} {verdict}")
        if call.verdict == FIT or verdict == UNFIT:
            call.verdict = verdict if call.verdict == FIT else UNCLEAR


def _is_alike(one: Any, other: Any) -> bool:
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return False
    return (
        _is_dense(one)
        and _is_dense(other)
        and other.shape == one.shape
        and other.dtype == one.dtype
    )


def _is_dense(tensor: torch.Tensor) -> bool:
    known = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not known or tensor.is_nested or tensor.is_neg() or tensor.requires_grad:
        return False
    if tensor.is_inference() or type(tensor) is not torch.Tensor or tensor._is_zerotensor():
        return False
    return tensor.is_contiguous() and tensor.numel() > 0 and tensor.data_ptr() % 8 == 0


# ---- running it ----


class _Memory:
    """All memory of the arguments before the call, to see afterwards what was written."""

    def __init__(self, arguments: Arguments) -> None:
        self._before = []
        for name, tensor in arguments.items():
            if isinstance(tensor, torch.Tensor) and _has_storage(tensor):
                whole = _bytes(tensor)
                self._before.append((name, whole, whole.clone(), tensor))
        self._versions = {
            name: tensor._version
            for name, _, _, tensor in self._before
            if not tensor.is_inference()
        }

    def changed(self, written: list[str]) -> str | None:
        """Where what is not of the written arguments has changed, in words."""
        for name, whole, before, _ in self._before:
            touched = whole != before
            for other, other_whole, _, tensor in self._before:
                if other in written and other_whole.data_ptr() == whole.data_ptr():
                    touched &= ~_footprint(tensor, len(whole))
            if touched.any():
                return f"{int(touched.sum())} bytes changed in the memory of {name}"
        return None

    def unnoted(self, written: list[str]) -> str | None:
        """What was written without autograd knowing."""
        for name, _, _, tensor in self._before:
            known = self._versions.get(name)
            if name in written and known is not None and tensor._version <= known:
                return f"autograd does not know that {name} was written"
        return None


def _has_storage(tensor: torch.Tensor) -> bool:
    strided = tensor.layout == torch.strided and tensor.device.type == "cpu"
    return strided and not tensor.is_nested and not tensor._is_zerotensor()


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())


def _footprint(tensor: torch.Tensor, size: int) -> torch.Tensor:
    """Which bytes of its storage a tensor is made of."""
    first = tensor.storage_offset() * tensor.itemsize
    shape, strides = (*tensor.shape, tensor.itemsize), [*tensor.stride()]
    steps = [stride * tensor.itemsize for stride in strides] + [1]
    inside = torch.zeros(size, dtype=torch.bool)
    if tensor.numel():
        inside.as_strided(shape, steps, first).fill_(True)
    return inside


def run_call(seed: int, number: int) -> str | None:
    """Makes the call; what is wrong with what came of it, in words."""
    source = Source(seed, -1 - number)
    call = make_call(seed, number)
    torch.set_num_threads(source.one_of((1, 1, 2, 3)))
    _native.cpu.set_simd_level(source.one_of(_native.cpu.simd_levels()))
    memory, copies = (
        _Memory(call.arguments),
        {name: _copy(each) for name, each in call.arguments.items()},
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = call.operator.call(call.way, call.arguments)
    except Exception as error:
        wrong = _judge_refusal(call, error) or memory.changed([])
    else:
        wrong = _judge_result(source, call, copies, result)
        if not _is_meta(result):
            wrong = wrong or memory.changed(_written(call)) or memory.unnoted(_written(call))
    return wrong and f"{wrong}\n    {call}"


def _copy(value: Any) -> Any:
    if not isinstance(value, torch.Tensor) or not _has_storage(value):
        return value
    if not value.untyped_storage().nbytes() or value.numel() > 1 << 26:
        return value
    return torch.empty(value.shape, dtype=value.dtype).copy_(value.detach())


def _is_meta(result: Any) -> bool:
    tensors = result if isinstance(result, (tuple, list)) else (result,)
    return any(isinstance(each, torch.Tensor) and each.is_meta for each in tensors)


def _judge_refusal(call: Call, error: Exception) -> str | None:
    said = f"{type(error).__name__}: {error}"
    if not isinstance(error, (ValueError, RuntimeError, TypeError)):
        return f"refused by a {said[:500]}"
    if call.verdict == FIT:
        return f"fit, and refused: {said[:500]}"
    names = [re.escape(name) for name in call.arguments]
    named = re.search(rf"\b({'|'.join(names)})\b", str(error))
    if named or passes_through(error) or any(each in str(error) for each in TORCH_REFUSES):
        return None
    return f"refused by an error that names no argument: {said[:500]}"


def _judge_result(source: Source, call: Call, copies: Arguments, result: Any) -> str | None:
    if call.verdict == UNFIT:
        return "unfit, and accepted"
    if _is_meta(result):
        return None
    try:
        given = call.operator.to_schema(copies) if call.way == "public" else dict(copies)
        if "size" in given:
            size = given["size"]
            given["size"] = (size, size) if isinstance(size, int) else tuple(map(int, size))
        held = call.arguments
        if call.operator.written:
            result = {name: held[name] for name in call.operator.written} | {"result": result}
        judged = EXPECTED[call.operator.name](given, result)
    except Exception as error:
        if passes_through(error):
            return None
        return f"accepted, and the reference says {type(error).__name__}: {str(error)[:500]}"
    for found, wanted, allowed in judged:
        wrong = difference(found.as_subclass(torch.Tensor), wanted, allowed)
        if wrong:
            return f"accepted, and {wrong}"
    return _judge_shapes(call, result) or _judge_gradient(source, call, given, result)


def _judge_shapes(call: Call, result: Any) -> str | None:
    """Whether the operator says the same of a result without data."""
    if call.way != "torch.ops" or call.operator.written:
        return None
    empty = [
        each.to("meta") if isinstance(each, torch.Tensor) and each.ndim else each
        for each in call.arguments.values()
    ]
    said = getattr(torch.ops.pyxai, call.operator.name)(*empty)
    pairs = zip(said, result, strict=True) if isinstance(result, tuple) else [(said, result)]
    for one, other in pairs:
        shapes = (one.shape, one.dtype) == (other.shape, other.dtype)
        steps = [
            each.stride(axis)
            for each in (one, other)
            for axis in range(each.ndim)
            if each.shape[axis] > 1 and each.numel()
        ]
        if not shapes or steps[: len(steps) // 2] != steps[len(steps) // 2 :]:
            return f"{_words(other)}, and without data {_words(one)}"
    return None


def _judge_gradient(source: Source, call: Call, given: Arguments, result: Any) -> str | None:
    leaves = [
        (name, each)
        for name, each in call.arguments.items()
        if isinstance(each, torch.Tensor) and each.requires_grad
    ]
    outputs = result if isinstance(result, tuple) else (result,)
    output = outputs[0]
    once = (*call.operator.written, "gradients")  # those have no gradient of their own
    if not leaves or any(name in call.arguments for name in once):
        return None
    if not output.requires_grad or not output.numel():
        return None
    slopes = source.normal(*output.shape, dtype=output.dtype)
    if source.happens(0.3):
        slopes = slopes.flatten()[0].expand(output.shape)
    found = torch.autograd.grad(output, [leaf for _, leaf in leaves], slopes)
    for gradient, (name, leaf) in zip(found, leaves, strict=True):
        if (gradient.shape, gradient.dtype) != (leaf.shape, leaf.dtype):
            return f"the gradient of {name} is {_words(gradient)}"
    if call.operator.name != "mask_blend":
        return None
    names = ("images", "masks", "background")
    wanted = [name in dict(leaves) for name in names]
    by_name = dict(zip((name for name, _ in leaves), found, strict=True))
    order = [by_name.get(name, output.new_empty(0)) for name in names]
    for one in EXPECTED["mask_blend_backward"](
        {"gradients": slopes, **given, "wanted": wanted}, tuple(order)
    ):
        wrong = difference(*one)
        if wrong:
            return f"a gradient has {wrong}"
    return None
