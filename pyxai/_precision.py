"""Arithmetic of pyxai in the precision it was written for, whatever autocast the caller is in.

A network is the caller's, and runs under the caller's autocast as it would without pyxai. What is
computed from its outputs is ours: distances, decompositions and sums of bfloat16 mean nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

_DEVICES = ("cpu", "cuda")


class _Given(threading.local):
    """The caller's autocast, of the calls that this thread is in: (device, dtype)."""

    casts: tuple[tuple[str, torch.dtype], ...] = ()


_given = _Given()


@contextmanager
def full_precision() -> Iterator[None]:
    """Turns autocast off until the end; networks get it back by `as_given`."""
    casts = tuple(
        (each, torch.get_autocast_dtype(each))
        for each in _DEVICES
        if torch.is_autocast_enabled(each)
    )
    if not casts:
        yield
        return
    before = _given.casts
    _given.casts = casts
    try:
        with ExitStack() as stack:
            for device, dtype in casts:
                stack.enter_context(torch.autocast(device, dtype, enabled=False))
            yield
    finally:
        _given.casts = before


@contextmanager
def as_given() -> Iterator[None]:
    """The caller's autocast, for the caller's network."""
    casts = _given.casts
    if not casts:
        yield
        return
    _given.casts = ()
    try:
        with ExitStack() as stack:
            for device, dtype in casts:
                stack.enter_context(torch.autocast(device, dtype))
            yield
    finally:
        _given.casts = casts


def is_autocast(device: str) -> bool:
    """Whether a network runs under autocast on a kind of device."""
    return torch.is_autocast_enabled(device) or any(each == device for each, _ in _given.casts)


def is_exact(features: torch.Tensor) -> bool:
    """Whether a network goes on from features with more digits than half precision has."""
    return features.dtype in (torch.float32, torch.float64) and not is_autocast(
        features.device.type
    )
