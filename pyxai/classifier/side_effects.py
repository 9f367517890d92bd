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
from torch.autograd.grad_mode import _unsafe_preserve_version_counter
from torch.nn.parameter import is_lazy

_SMALL = 1 << 16  # numbers; buffers of so few are copied for every pass


@dataclass(frozen=True)
class _Kept:
    """A buffer and its copy, which stands in for it or remembers its numbers."""

    module: nn.Module
    name: str
    buffer: torch.Tensor
    copy: torch.Tensor
    version: int


@dataclass
class _Seen:
    """What a first pass has shown of a network.

    Attributes:
        modules: those whose buffers are copied: they wrote, or it costs nothing.
        draws: whether it draws random numbers.
        aliased: whether its buffers are reached by other ways than their names, so that no copy
            can stand in for them.
    """

    modules: list[weakref.ref[nn.Module]]
    draws: bool
    aliased: bool


@dataclass
class _Loan:
    """The user's buffers, while calls that overlap run on copies of them."""

    calls: int = 0
    aliased: bool = False
    kept: list[_Kept] = field(default_factory=list)


_seen: weakref.WeakKeyDictionary[nn.Module, _Seen] = weakref.WeakKeyDictionary()
_loans: weakref.WeakKeyDictionary[nn.Module, _Loan] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


@contextmanager
def undone(network: nn.Module) -> Iterator[None]:
    """Buffers and torch's random state of the CPU are at the end as before one pass.

    The network runs on copies of its buffers, so that gradients may be taken later of what it has
    written. The first pass tells which it writes; after that only those and small ones are copied,
    but the statistics of norms. A network in training mode is meant to write.
    """
    if network.training or isinstance(network, torch.jit.ScriptModule):
        yield
        return
    with _lock:
        seen = _seen.get(network)
        if seen is not None and not seen.draws and not seen.modules:
            loan = None
        else:
            loan = _loans.setdefault(network, _Loan())
            loan.calls += 1
            if loan.calls == 1:
                modules = list(network.modules())
                if seen is not None:
                    modules = [each for ref in seen.modules if (each := ref()) is not None]
                loan.aliased = seen.aliased if seen is not None else _overlap(modules)
                loan.kept = _lend(modules, in_place=loan.aliased)
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
                writers, aliased = _put_back(loan.kept)
                _loans.pop(network, None)
                if seen is None:
                    some = [weakref.ref(each) for each in _watched(network, writers)]
                    _seen[network] = _Seen(some, drew, aliased or loan.aliased)


def forget(network: nn.Module) -> None:
    """The next pass of the network shows anew what it does."""
    with _lock:
        _seen.pop(network, None)


def _watched(network: nn.Module, writers: list[nn.Module]) -> Iterator[nn.Module]:
    """The modules whose buffers are copied for every pass."""
    known = {id(each) for each in writers}
    for module in network.modules():
        buffers = [each for each in module._buffers.values() if each is not None]
        norm = isinstance(module, nn.modules.batchnorm._NormBase)
        small = all(is_lazy(each) or each.numel() <= _SMALL for each in buffers)
        if id(module) in known or (buffers and small and not norm):
            yield module


def _buffers_of(modules: list[nn.Module]) -> Iterator[tuple[nn.Module, str, torch.Tensor]]:
    for module in modules:
        if isinstance(module, torch.jit.ScriptModule):
            continue
        for name, buffer in module._buffers.items():
            if buffer is not None and not is_lazy(buffer) and not buffer.is_inference():
                yield module, name, buffer


def _overlap(modules: list[nn.Module]) -> bool:
    """Whether one buffer is a part of another."""
    buffers = {id(buffer): buffer for _, _, buffer in _buffers_of(modules) if buffer.numel()}
    places = {each.untyped_storage().data_ptr() for each in buffers.values()}
    return len(places) < len(buffers)


def _lend(modules: list[nn.Module], *, in_place: bool) -> list[_Kept]:
    """Puts copies in the place of buffers; or only keeps them, to put their numbers back."""
    kept, copies = [], dict[int, torch.Tensor]()
    for module, name, buffer in list(_buffers_of(modules)):
        copy = copies.get(id(buffer))
        if copy is None:
            with torch.inference_mode(False), torch.no_grad():
                copy = copies[id(buffer)] = buffer.clone()
        if not in_place:
            module._buffers[name] = copy
        kept.append(_Kept(module, name, buffer, copy, buffer._version))
    return kept


def _put_back(kept: list[_Kept]) -> tuple[list[nn.Module], bool]:
    """Puts the buffers back; which modules wrote, and whether past the copies."""
    writers, aliased = [], False
    for each in kept:
        now = each.module._buffers.get(each.name)
        past = each.buffer._version != each.version
        # The numbers are compared, as batch norm by its function writes past the version.
        if (
            past
            or not (now is each.copy or now is each.buffer)
            or not torch.equal(each.copy, each.buffer)
        ):
            writers.append(each.module)
        same = now is each.copy or now is each.buffer
        if past or not same or not torch.equal(each.copy, each.buffer):
            writers.append(each.module)
        if past or now is each.buffer:
            aliased |= past and now is not each.buffer
            with torch.no_grad(), _unsafe_preserve_version_counter(each.buffer):
                each.buffer.copy_(each.copy)
        each.module._buffers[each.name] = each.buffer
    return writers, aliased
