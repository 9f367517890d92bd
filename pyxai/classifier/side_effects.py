"""What a network does beside its answer: it writes into its buffers, it draws random numbers.

Both belong to the user. And passes that explain, on nothing, on noise, on parts of images, would
change what the network answers next: a running mean over an empty batch is NaN for good.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.parameter import is_lazy


@dataclass(frozen=True)
class _Kept:
    """A buffer, and the copy that stands in for it."""

    module: nn.Module
    name: str
    buffer: torch.Tensor
    copy: torch.Tensor


@dataclass
class _Seen:
    """What a first pass has shown of a network."""

    writers: weakref.WeakSet[nn.Module] = field(default_factory=weakref.WeakSet)
    draws: bool = False


@dataclass
class _Loan:
    """The user's buffers, while calls that overlap run on copies of them."""

    calls: int = 0
    kept: list[_Kept] = field(default_factory=list)


_seen: weakref.WeakKeyDictionary[nn.Module, _Seen] = weakref.WeakKeyDictionary()
_loans: weakref.WeakKeyDictionary[nn.Module, _Loan] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


@contextmanager
def undone(network: nn.Module) -> Iterator[None]:
    """Buffers and the random state of the CPU are at the end as they were before one pass.

    The first pass of a network tells which of its modules write; only theirs are copied later. A
    network in training mode is meant to write.
    """
    if network.training or isinstance(network, torch.jit.ScriptModule):
        yield
        return
    with _lock:
        seen = _seen.get(network)
        if seen is not None and not seen.draws and not seen.writers:
            loan = None
        else:
            loan = _loans.setdefault(network, _Loan())
            loan.calls += 1
            if loan.calls == 1:
                loan.kept = _exchange(list(network.modules() if seen is None else seen.writers))
    if loan is None:
        yield
        return
    before = torch.get_rng_state() if seen is None or seen.draws else None
    try:
        yield
    finally:
        drew = before is not None and not torch.equal(before, torch.get_rng_state())
        if drew:
            assert before is not None
            torch.set_rng_state(before)
        with _lock:
            loan.calls -= 1
            if loan.calls == 0:
                writers = _put_back(loan.kept)
                _loans.pop(network, None)
                if seen is None:
                    _seen[network] = _Seen(weakref.WeakSet(writers), drew)


def forget(network: nn.Module) -> None:
    """The next pass of the network shows anew what it does."""
    with _lock:
        _seen.pop(network, None)


def _exchange(modules: list[nn.Module]) -> list[_Kept]:
    """Puts copies in the place of buffers."""
    kept = []
    for module in modules:
        if isinstance(module, torch.jit.ScriptModule):
            continue
        for name, buffer in module._buffers.items():
            if buffer is None or is_lazy(buffer) or buffer.is_inference():
                continue
            with torch.inference_mode(False), torch.no_grad():
                copy = buffer.clone()
            module._buffers[name] = copy
            kept.append(_Kept(module, name, buffer, copy))
    return kept


def _put_back(kept: list[_Kept]) -> list[nn.Module]:
    """Puts the buffers back; the modules that wrote into their copies, or put others there."""
    writers = []
    for each in kept:
        now = each.module._buffers.get(each.name)
        # The numbers are compared, as batch norm by its function writes past the version.
        if now is not each.copy or not torch.equal(each.copy, each.buffer):
            writers.append(each.module)
        each.module._buffers[each.name] = each.buffer
    return writers
