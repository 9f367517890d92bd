"""What is done to the arguments of a fit call, and whether the call is then still fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fuzz_operators.operators import Arguments, Operator, boxes_in
from fuzz_operators.source import SPECIAL, Source

FIT, UNFIT, UNCLEAR = "fit", "unfit", "unclear"
Spoiled = tuple[Any, str]  # the argument, and which of the three


class Named(torch.Tensor):
    """A tensor that is only called otherwise."""


# ---- tensors that are as good ----


def moved(source: Source, tensor: torch.Tensor) -> Spoiled:
    """Not at the start of its memory."""
    buffer = source.like((tensor.numel() + 9,), tensor.dtype)
    start = source.choices.randint(1, 8)
    return _filled(buffer[start : start + tensor.numel()].view(tensor.shape), tensor), FIT


def stepped(source: Source, tensor: torch.Tensor) -> Spoiled:
    """Every second or third along an axis of something larger."""
    axis, step = source.choices.randrange(tensor.ndim), source.one_of((2, 3))
    shape = [*tensor.shape]
    shape[axis] = max(1, step * shape[axis])
    buffer = source.like(shape, tensor.dtype)
    index = [slice(None)] * tensor.ndim
    index[axis] = slice(0, step * tensor.shape[axis], step)
    return _filled(buffer[tuple(index)], tensor), FIT


def permuted(source: Source, tensor: torch.Tensor) -> Spoiled:
    """Axes in another order in memory."""
    order = source.choices.sample(range(tensor.ndim), tensor.ndim)
    back = [order.index(axis) for axis in range(tensor.ndim)]
    return tensor.permute(order).contiguous().permute(back), FIT


def expanded(source: Source, tensor: torch.Tensor) -> Spoiled:
    """One index of an axis for all."""
    axis = source.choices.randrange(tensor.ndim)
    if not tensor.shape[axis]:
        return tensor, FIT
    return tensor.narrow(axis, 0, 1).expand(tensor.shape), FIT


def special(source: Source, tensor: torch.Tensor) -> Spoiled:
    """Some values that are not finite, or too large or small for sums."""
    if not tensor.is_floating_point() or not tensor.numel():
        return tensor, FIT
    changed = tensor.clone()
    flat = changed.view(-1)
    for place in source.integers(0, tensor.numel(), source.one_of((1, 3))).tolist():
        flat[place] = source.one_of(SPECIAL)
    return changed, UNCLEAR


def leaf(source: Source, tensor: torch.Tensor) -> Spoiled:
    """One that wants a gradient."""
    return (tensor.clone().requires_grad_() if tensor.is_floating_point() else tensor), FIT


def parameter(source: Source, tensor: torch.Tensor) -> Spoiled:
    """A parameter."""
    return torch.nn.Parameter(tensor, requires_grad=False), FIT


def named(source: Source, tensor: torch.Tensor) -> Spoiled:
    """A subclass."""
    return tensor.as_subclass(Named), FIT


def inference(source: Source, tensor: torch.Tensor) -> Spoiled:
    """One made in inference mode."""
    with torch.inference_mode():
        return tensor.clone(), FIT


# ---- tensors of which nobody knows ----


def longer(source: Source, tensor: torch.Tensor) -> Spoiled:
    """An axis of another length, 0 among them."""
    if not tensor.ndim:
        return tensor, FIT
    axis = source.choices.randrange(tensor.ndim)
    shape = [*tensor.shape]
    shape[axis] = source.one_of((0, 1, shape[axis] + 1, max(0, shape[axis] - 1), 2 * shape[axis]))
    return source.like(shape, tensor.dtype), UNCLEAR


def reshaped(source: Source, tensor: torch.Tensor) -> Spoiled:
    """More axes or fewer."""
    if source.happens(0.5):
        return tensor.unsqueeze(source.choices.randint(0, tensor.ndim)), UNCLEAR
    return (tensor.flatten() if source.happens(0.5) or not len(tensor) else tensor[0]), UNCLEAR


def of_other_dtype(source: Source, tensor: torch.Tensor) -> Spoiled:
    """Another dtype."""
    kinds = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int8)
    others = (torch.int32, torch.int64, torch.bool, torch.complex64, torch.uint16)
    with torch.no_grad():
        return tensor.abs().to(source.one_of((*kinds, *others))), UNCLEAR


def vast(source: Source, tensor: torch.Tensor) -> Spoiled:
    """More elements than there is memory, all at one place."""
    if not tensor.ndim:
        return tensor, FIT
    axis = source.choices.randrange(tensor.ndim)
    shape = [1] * tensor.ndim
    one = source.like(shape, tensor.dtype)
    shape = [*tensor.shape]
    shape[axis] = source.one_of((1 << 40, 1 << 44))
    return one.expand(shape), UNCLEAR


def vast_and_empty(source: Source, tensor: torch.Tensor) -> Spoiled:
    """No elements, along an axis as long as can be."""
    if tensor.ndim < 2:
        return tensor, FIT
    none, long = source.choices.sample(range(tensor.ndim), 2)
    shape = [*tensor.shape]
    shape[none], shape[long] = 0, source.one_of((1 << 31, 1 << 40, 1 << 55))
    try:
        return torch.empty(shape, dtype=tensor.dtype), UNCLEAR
    except RuntimeError:  # torch cannot count those
        return tensor, FIT


def elsewhere(source: Source, tensor: torch.Tensor) -> Spoiled:
    """On a device without memory."""
    return tensor.to("meta"), UNCLEAR


def negated(source: Source, tensor: torch.Tensor) -> Spoiled:
    """A view whose values lie in memory with the other sign."""
    if tensor.dtype not in (torch.float32, torch.float64):
        return tensor, FIT
    return torch.complex(tensor, tensor).conj().imag, UNCLEAR


def misaligned(source: Source, tensor: torch.Tensor) -> Spoiled:
    """At an address that no allocator gives."""
    if tensor.itemsize == 1 or not tensor.numel():
        return tensor, FIT
    buffer = bytearray(tensor.nbytes + 8)
    count, offset = tensor.numel(), source.choices.randint(1, tensor.itemsize - 1)
    flat = torch.frombuffer(buffer, dtype=tensor.dtype, count=count, offset=offset)
    return _filled(flat.view(tensor.shape), tensor), UNCLEAR


def without_storage(source: Source, tensor: torch.Tensor) -> Spoiled:
    """Zeros that lie nowhere."""
    return torch._efficientzerotensor(tuple(tensor.shape), dtype=tensor.dtype), UNCLEAR


# ---- what is no such tensor ----


def sparse(source: Source, tensor: torch.Tensor) -> Spoiled:
    """Another layout."""
    kind = source.choices.randrange(3)
    if kind == 0 and tensor.dtype == torch.float32 and tensor.numel() and tensor.ndim > 1:
        return tensor.to_mkldnn(), UNFIT
    if kind == 1 and tensor.ndim > 0:
        return torch.nested.nested_tensor([tensor.clone()]), UNFIT
    return tensor.to_sparse(), UNFIT


def other_thing(source: Source, tensor: torch.Tensor) -> Spoiled:
    """No tensor at all."""
    array = np.zeros(tuple(tensor.shape), np.float32)
    things = (array, [1.0, 2.0], "a tensor", 1.5, {}, object(), torch.float32)
    return source.one_of(things), UNFIT


READ = (moved, stepped, permuted, expanded, special, leaf, parameter, named, inference)
ODD = (longer, reshaped, of_other_dtype, vast, vast_and_empty, elsewhere, negated, misaligned)
WORSE = (without_storage, sparse, other_thing)


def _filled(to: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return to.copy_(values)


# ---- other arguments ----

NUMBERS = (
    -1.0,
    -0.0,
    0.0,
    0.5,
    1,
    1e-45,
    1e30,
    1e38,
    1e39,
    1e300,
    torch.nan,
    torch.inf,
    -torch.inf,
)
NO_NUMBERS = ("1", "much", None, [1.0], object(), 1j, 10**400)
SIDES = (0, -1, 1, 2, 7, True, 2.0, "7", None, 1 << 62, 1 << 63, 1 << 70, -(1 << 63), np.int64(3))
SIZES = ((), (3,), (3, 4, 5), 5, "ab", None, [3, 4], torch.Size((3, 4)), (1 << 29, 1 << 30), {})
STEPS = (0, -1, 1, (1 << 63) - 1, 1 << 63, 1 << 70, 1.5, True, "1", None, np.int64(2))
DTYPES = (*(torch.float32, torch.float64, torch.float16, torch.bfloat16), torch.uint8, torch.int32)
CHANNELS = ([], [1.0], [0.5] * 3, [torch.nan] * 3, [0.0] * 5, [-1.0] * 2, [1e39] * 3, [1e-320] * 3)
FORMATS = (torch.preserve_format, torch.channels_last_3d, None, "channels_last")


def other_value(source: Source, name: str, arguments: Arguments) -> Spoiled:
    """Something else in place of what is no tensor."""
    if name == "size":
        if source.happens(0.5):
            return source.one_of(SIZES), UNCLEAR
        pair = list(arguments[name])
        pair[source.choices.randrange(2)] = source.one_of(SIDES)
        return tuple(pair), UNCLEAR
    if name == "step":
        return source.one_of(STEPS), UNCLEAR
    if name == "dtype":
        return source.one_of((*DTYPES, torch.complex64, None, "float32", 3)), UNCLEAR
    if isinstance(arguments[name], bool):
        return source.one_of((0, 1, None, "yes", torch.tensor(True), torch.ones(3))), UNCLEAR
    if name in ("mean", "std"):
        return source.one_of((*CHANNELS, None, "abc", 0.5, torch.ones(3), [None] * 3)), UNCLEAR
    if name == "memory_format":
        return source.one_of(FORMATS), UNFIT
    if name == "wanted":
        return source.one_of(([], [True], [True] * 2, [False] * 4, None, "abc")), UNCLEAR
    return source.one_of((*NUMBERS, *NO_NUMBERS, torch.tensor(0.5), np.float32(0.5))), UNCLEAR


def other_boxes(source: Source, boxes: torch.Tensor) -> Spoiled:
    """Boxes that are empty or reach out of the photo."""
    if not len(boxes):
        return boxes_in(source, 2, 5, 5), UNCLEAR
    changed, most = boxes.clone(), (1 << 63) - 1
    box, edge = source.choices.randrange(len(boxes)), source.choices.randrange(4)
    values = (-1, 0, 1, 41, 91, 1 << 31, 1 << 32, most, -most - 1)
    changed[box, edge] = source.one_of((*values, int(boxes[box, (edge + 2) % 4])))
    return changed, UNCLEAR


# ---- memory that arguments share ----


def shared(source: Source, arguments: Arguments, name: str, other: str) -> str:
    """Puts two arguments into one buffer, one behind or within the other; says what that is."""
    one, two = arguments[name], arguments[other]
    start = 8 * source.choices.randint(0, max(0, two.nbytes // 8 + 1))
    buffer = torch.zeros(start + one.nbytes + two.nbytes + 16, dtype=torch.uint8)
    # The second is filled last: of an output the values are of no importance.
    for key, tensor, at in ((name, one, start), (other, two, 0)):
        part = buffer[at : at + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        arguments[key] = _filled(part, tensor)
    return UNFIT if start < two.nbytes and one.numel() and two.numel() else FIT


def interleaved(source: Source, arguments: Arguments, names: tuple[str, ...]) -> None:
    """Tensors of one shape and dtype as columns beside each other."""
    tensors = [arguments[name] for name in names]
    axis = source.choices.randint(0, tensors[0].ndim)
    buffer = torch.stack(tensors, axis)
    for index, name in enumerate(names):
        arguments[name] = buffer.select(axis, index)


def make_out(source: Source, operator: Operator, given: Arguments) -> torch.Tensor:
    """Memory for the result, inside of more."""
    shape, dtype = operator.out_shape(given), operator.out_dtype(given)
    numel = torch.Size(shape).numel()
    start = source.one_of((0, 0, 1, 8))
    buffer = torch.full((numel + start + 16,), 7, dtype=dtype)
    out = buffer[start : start + numel].view(shape)
    if "channels_last" in given and source.happens(0.5):
        out = out.view(shape[0], *shape[2:], shape[1]).permute(0, 3, 1, 2)
    return out
