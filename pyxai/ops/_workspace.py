"""Calls the compiled kernels by address, with scratch memory and a place to run."""

from __future__ import annotations

import threading
from typing import Any

import torch

from pyxai.ops import _native

_KEPT = 1 << 24  # bytes; what needs more, as whole masks do, is lent for one call


class _Workspace(threading.local):
    """Scratch memory of the CPU kernels, one piece a thread, as large as was ever needed."""

    def __init__(self) -> None:
        self.grow(1 << 16)

    def grow(self, size: int) -> None:
        self.memory = torch.empty(size, dtype=torch.uint8, device="cpu")
        self.place = (self.memory.data_ptr(), size)


_workspace = _Workspace()


def run(name: str, tensor: torch.Tensor, arguments: tuple[Any, ...]) -> None:
    """Calls the kernel of that name for the tensor's device.

    Args:
        name: that of a function of `_cpu` and `_cuda`.
        tensor: one of those it works on, which are all on one device.
        arguments: the fields of its struct in `csrc`, in their order. The caller keeps what they
            point to until the call returns, when a launch on CUDA is queued: torch's allocator
            keeps the order on the stream.
    """
    if tensor.is_cuda:
        return _launch(name, tensor.device, arguments)
    kernel, threads = getattr(_native.cpu, name), torch.get_num_threads()
    needed = kernel(*arguments, *_workspace.place, threads)
    if needed > _KEPT:
        memory = torch.empty(needed, dtype=torch.uint8, device="cpu")
        kernel(*arguments, memory.data_ptr(), needed, threads)
    elif needed:
        _workspace.grow(needed)
        kernel(*arguments, *_workspace.place, threads)
    return None


def _launch(name: str, device: torch.device, arguments: tuple[Any, ...]) -> None:
    kernel = getattr(_native.cuda(), name)
    # The stream that torch's own operators are queued on.
    place = device.index, torch.cuda.current_stream(device).cuda_stream
    needed = kernel(*arguments, 0, 0, *place)
    if needed:
        memory = torch.empty(needed, dtype=torch.uint8, device=device)
        kernel(*arguments, memory.data_ptr(), needed, *place)
