"""Memory that kernels write: nothing that they read or write elsewhere, and known to autograd."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import torch

_EFFORT = 10_000  # what NumPy may try to find out whether two views meet; then they are said to


def check_apart(tensors: dict[str, torch.Tensor], *, written: int) -> None:
    """Raises ValueError if what is written shares memory with itself or with another argument.

    Args:
        tensors: all that have memory, by the names of the arguments.
        written: how many of them are written, the first ones; the others may share among
            themselves what they like.
    """
    spans, dense = [], True
    for tensor in tensors.values():
        start, size = tensor.data_ptr(), tensor.nbytes
        if not size:
            continue
        if not start:  # its storage was freed, or it is one of torch's zeros that lie nowhere
            _check_held(dict(itertools.islice(tensors.items(), written)))
            continue
        if not tensor.is_contiguous():
            size, dense = _reach(tensor) * tensor.itemsize, False
        spans.append((start, start + size))
    spans.sort()
    before = 0
    for start, end in spans:
        if start < before:
            _check_pairs(tensors, written)  # takes longer, and is seldom needed
            break
        before = end
    if not dense:
        _check_each(dict(itertools.islice(tensors.items(), written)))


def note_written(*tensors: torch.Tensor) -> None:
    """Tells autograd that what it may have saved of tensors is no longer so."""
    known = [each for each in tensors if not each.is_inference()]
    if known:
        torch.autograd.graph.increment_version(known)


def address_of(name: str, tensor: torch.Tensor) -> int:
    """Where a tensor lies; 0, which kernels take for none, only if it has no elements."""
    address = tensor.data_ptr()
    if not address and tensor.numel():
        raise ValueError(f"{name}: expected a tensor with memory, got one whose storage was freed")
    return address


def _check_pairs(tensors: dict[str, torch.Tensor], written: int) -> None:
    for name, tensor in itertools.islice(tensors.items(), written):
        for other_name, other in tensors.items():
            if other_name != name and _share(tensor, other):
                raise ValueError(f"{name}: expected memory of its own, got that of {other_name}")


def _check_held(tensors: dict[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.numel() and not tensor.data_ptr():
            raise ValueError(f"{name}: expected a tensor with memory, got one without")


def _check_each(tensors: dict[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if not tensor.is_contiguous() and _meets_itself(tensor):
            got = f"strides {list(tensor.stride())}"
            raise ValueError(f"{name}: expected memory of its own for each element, got {got}")


def _reach(tensor: torch.Tensor) -> int:
    """How many elements lie from the first to the last, those between the tensor's included."""
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return 1 + sum((length - 1) * stride for length, stride in steps)


def _share(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have a byte in common: columns of one may lie between the other's."""
    if not one.data_ptr() or not other.data_ptr():
        return False
    arrays = _as_array(one), _as_array(other)
    try:
        return np.shares_memory(*arrays, max_work=_EFFORT)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def _as_array(tensor: torch.Tensor) -> np.ndarray:
    """An array at the same addresses, of whatever device, whose values are not to be read."""
    described = {
        "version": 3,
        "data": (tensor.data_ptr(), True),
        "shape": tuple(tensor.shape),
        "strides": tuple(stride * tensor.itemsize for stride in tensor.stride()),
        "typestr": f"|V{tensor.itemsize}",
    }
    return np.asarray(SimpleNamespace(__array_interface__=described))


def _meets_itself(tensor: torch.Tensor) -> bool:
    """Whether a step along an axis leads no further than the finer axes reach."""
    axes = zip(tensor.stride(), tensor.shape, strict=True)
    reach = 1
    for stride, length in sorted((stride, length) for stride, length in axes if length > 1):
        if stride < reach:
            return True
        reach += (length - 1) * stride
    return False
