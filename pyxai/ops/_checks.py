"""What the public operators share: which way a call goes, and checks of their arguments.

The checks of an operator itself are beside it, in a function that takes the arguments of its schema
and returns them as the kernels take them. Every way in calls it: the public function, and what
`_operator` registers.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch._C import (
    _are_functorch_transforms_active,
    _is_tracing,
    _len_torch_dispatch_stack,
)
from torch.compiler import is_compiling

from pyxai._errors import argument_error, describe
from pyxai.ops._memory import check_apart

# Those of an operator, as its kernel and its reference take them.
Arguments = tuple[Any, ...]

# kLongest of csrc/common/check_args.h: the kernels' indices along an axis have 32 bits.
LONGEST = 1 << 30
_LARGEST = torch.finfo(torch.float32).max


def _is_watched() -> bool:
    """Whether somebody records or transforms operators, and so must see them.

    That is torch.compile, torch.jit.trace, ONNX export, vmap and dispatch modes. None of them
    is still there when a kernel of a registered operator runs.
    """
    return (
        is_compiling()
        or _is_tracing()
        or _are_functorch_transforms_active()
        or _len_torch_dispatch_stack() > 0
    )


def is_direct(*tensors: torch.Tensor | None, gradients: bool = False) -> bool:
    """Whether the kernel may be called by address; the first tensor's dtype chooses the kernel.

    Args:
        tensors: all that the kernel is to take; None is none.
        gradients: whether the caller looks after those.
    """
    if _is_watched():
        return False
    untracked = gradients or not torch.is_grad_enabled()
    for tensor in tensors:
        if tensor is None:
            continue
        if type(tensor) is not torch.Tensor and type(tensor) is not torch.nn.Parameter:
            return False
        if not (untracked or not tensor.requires_grad):
            return False
        if not tensor.is_cpu and not tensor.is_cuda:
            return False
    first = tensors[0]
    return first is not None and first.dtype is not torch.float64


def has_memory(*tensors: torch.Tensor) -> bool:
    """Whether addresses and values may be looked at now; for tensors of the CPU and of CUDA."""
    if _is_watched():
        return False
    for tensor in tensors:
        if not tensor.is_cpu and not tensor.is_cuda:
            return False
        # Subclasses that do no more than to be called otherwise have memory, wrappers have none.
        kind = type(tensor)
        if kind is not torch.Tensor and (
            kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__
        ):
            return False
    return True


def check_tensors(tensors: dict[str, Any]) -> None:
    """Raises ValueError unless all, given by their names, are tensors with shapes and strides."""
    can_ask = not is_compiling()
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise argument_error(name, "a tensor", tensor)
        if tensor.layout is not torch.strided:
            raise argument_error(name, "a dense tensor", str(tensor.layout))
        if tensor.is_nested:
            raise ValueError(f"{name}: expected a dense tensor, got a nested one")
        if can_ask and tensor.is_neg():  # what lies in memory has the other sign
            raise ValueError(f"{name}: expected a tensor after resolve_neg(), got one before it")


def check_same_device(**tensors: torch.Tensor) -> None:
    """Raises ValueError if the tensors, given by the names of the arguments, lie apart."""
    devices = {name: tensor.device for name, tensor in tensors.items()}
    if len(set(devices.values())) > 1:
        listed = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise ValueError(f"{', '.join(devices)}: expected one device, got {listed}")


def check_out(
    out: torch.Tensor,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    inputs: Mapping[str, torch.Tensor | None],
    *,
    direct: bool,
    or_channels_last: bool = False,
) -> None:
    """Raises ValueError unless `out` can take a result of this shape and dtype.

    Args:
        out: what to write into.
        shape: that of the result.
        dtype: that of the result.
        inputs: tensors whose memory it may not share, by name; the first says on which device.
        direct: whether `is_direct` says so, of all.
        or_channels_last: whether that layout will do as well.
    """
    check_tensors({"out": out})
    tensors = {name: each for name, each in inputs.items() if each is not None}
    device = next(iter(tensors.values())).device
    dense = out.is_contiguous() or (
        or_channels_last and out.is_contiguous(memory_format=torch.channels_last)
    )
    if not dense or out.shape != shape or out.dtype is not dtype or out.device != device:
        name = str(dtype).removeprefix("torch.")
        layout = "contiguous or channels_last" if or_channels_last else "contiguous"
        expected = f"a {layout} {name} tensor {list(shape)} on {device}"
        suffix = "" if dense else ", not contiguous"
        raise ValueError(f"out: expected {expected}, got {describe(out)}{suffix}")
    needed = torch.is_grad_enabled() and any(each.requires_grad for each in tensors.values())
    if needed or out.requires_grad:
        raise ValueError("out: expected no gradient to be needed, got requires_grad=True")
    if direct or has_memory(out, *tensors.values()):
        check_apart({"out": out, **tensors}, written=1)
        check_changeable({"out": out})


def check_changeable(tensors: dict[str, torch.Tensor]) -> None:
    """Raises ValueError if torch would not let those be changed now."""
    if not torch.is_inference_mode_enabled():
        for name, tensor in tensors.items():
            # Torch says so itself, but not before it has changed some.
            if tensor.is_inference():
                expected = "expected a tensor made outside of inference mode, as this call is"
                raise ValueError(f"{name}: {expected}, got one made inside")


def check_memory_format(memory_format: torch.memory_format) -> bool:
    """Whether it is channels_last; raises ValueError for others than that and contiguous_format."""
    channels_last = memory_format is torch.channels_last
    if not channels_last and memory_format is not torch.contiguous_format:
        expected = "torch.contiguous_format or torch.channels_last"
        raise ValueError(f"memory_format: expected {expected}, got {memory_format}")
    return channels_last


def check_length(argument: str, value: Any, expected: str, given: object) -> int:
    """A number of pixels from 1 to what the kernels can count, as an int; SymInt as it is.

    Args:
        argument: its name.
        value: the number.
        expected: words for the error.
        given: what the error says that it got.

    Raises:
        ValueError: it is something else.
    """
    if type(value) is not int and not isinstance(value, torch.SymInt):
        try:
            value = 0 if isinstance(value, bool) else operator.index(value)
        except TypeError:
            raise argument_error(argument, expected, given) from None
    if value < 1:
        raise argument_error(argument, expected, given)
    # What is not known yet when a graph is recorded would be taken as a condition on it.
    if type(value) is int and not is_compiling() and value >= LONGEST:
        raise argument_error(argument, f"{expected} and below 2^30", given)
    length: int = value
    return length


def check_size(size: Any, expected: str = "(height, width), both at least 1") -> tuple[int, int]:
    """Height and width.

    Raises:
        ValueError: they are not two, not whole, or below 1.
    """
    try:
        height, width = size
    except (TypeError, ValueError):
        raise argument_error("size", expected, size) from None
    return (
        check_length("size", height, expected, size),
        check_length("size", width, expected, size),
    )


def check_flags(**flags: Any) -> tuple[bool, ...]:
    """Whether each, given by its name, is true.

    Raises:
        ValueError: that cannot be said of one.
    """
    try:
        return tuple([bool(flag) for flag in flags.values()])
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{', '.join(flags)}: expected True or False") from None


def _as_float(value: Any) -> float:
    """A number; NaN for what is none."""
    try:
        return math.nan if isinstance(value, (str, bytes)) else float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return math.nan


def check_number(argument: str, value: Any, least: float, below: float = math.inf) -> float:
    """A number from `least` to below `below` and to what float32 holds.

    Raises:
        ValueError: it is something else.
    """
    number = _as_float(value)
    if least <= number <= _LARGEST and number < below:
        return number
    expected = f"of at least {least} that float32 holds"
    if below < math.inf:
        expected = f"from {least} to below {below}"
    raise argument_error(argument, f"a number {expected}", value)


def check_numbers(argument: str, values: Sequence[float] | None, count: int) -> list[float]:
    """So many finite numbers, one for each channel; none for None and for none.

    Raises:
        ValueError: they are something else.
    """
    if values is None:
        return []
    try:
        numbers = [each if type(each) is float else _as_float(each) for each in values]
    except (TypeError, RuntimeError):  # nothing that could be gone through
        numbers = [math.nan]
    if not numbers:
        return []
    if len(numbers) != count or [each for each in numbers if not abs(each) <= _LARGEST]:
        raise argument_error(argument, f"{count} finite numbers, one for each channel", values)
    return numbers
