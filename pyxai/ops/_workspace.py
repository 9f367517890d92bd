"""What the kernels need besides their arguments: scratch memory, threads, a stream."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch


class _Workspace(threading.local):
    """Scratch memory of the CPU kernels, one piece a thread, as large as was ever needed."""

    def __init__(self) -> None:
        self._grow(1 << 16)

    def _grow(self, size: int) -> None:
        self._memory = torch.empty(size, dtype=torch.uint8, device="cpu")
        self._address = self._memory.data_ptr()
        self._size = size

    def run(self, kernel: Callable[..., int], *arguments: Any) -> None:
        """Calls a kernel with its arguments, scratch memory and the number of threads."""
        threads = torch.get_num_threads()
        needed = kernel(*arguments, self._address, self._size, threads)
        if needed:
            self._grow(needed)
            kernel(*arguments, self._address, self._size, threads)


workspace = _Workspace()


def current_stream(device: torch.device) -> int:
    """The stream that torch's own operators are queued on, as the CUDA kernels take it."""
    return int(torch.cuda.current_stream(device).cuda_stream)
