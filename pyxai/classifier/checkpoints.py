"""Activation checkpoints, left out while pyxai runs a network.

`torch.utils.checkpoint` in its older form runs a part of the network without a graph and has one
for `loss.backward()` alone. What an explanation asks for, gradients of single tensors, it refuses.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.checkpoint import CheckpointFunction

_here = threading.local()
_lock = threading.Lock()
_users = 0


@contextmanager
def without_checkpoints() -> Iterator[None]:
    """Parts of networks that this thread runs in the block run as if they were not checkpointed.

    They give the same numbers and keep what a backward pass needs, which takes more memory.
    """
    global _users
    with _lock:
        if _users == 0:
            CheckpointFunction.apply = staticmethod(_apply)  # type: ignore[method-assign]
        _users += 1
    depth = getattr(_here, "depth", 0)
    _here.depth = depth + 1
    try:
        yield
    finally:
        _here.depth = depth
        with _lock:
            _users -= 1
            if _users == 0:
                del CheckpointFunction.apply  # what it inherits is found again


def _apply(function: Callable[..., Any], preserve: bool, *arguments: Any) -> Any:
    if getattr(_here, "depth", 0):
        return function(*arguments)
    plain: Any = super(CheckpointFunction, CheckpointFunction)
    return plain.apply(function, preserve, *arguments)
