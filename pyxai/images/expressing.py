"""How it is said that somebody's preprocessing is more than a `Preprocessing` can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyxai.images.preprocessing import Preprocessing

INSTEAD = "pass one that comes close"


def inexpressible(spec: str, what: str, instead: str = INSTEAD) -> ValueError:
    """The error for a preprocessing that has no equal.

    Args:
        spec: whose it is.
        what: the part that cannot be expressed.
        instead: what to do.
    """
    return ValueError(
        f"preprocessing: that of {spec} ({what}) cannot be expressed as pyxai.Preprocessing; "
        f"{instead}"
    )


def express(spec: str, **values: Any) -> Preprocessing:
    """A `Preprocessing` of these fields.

    Raises:
        ValueError: there is none with such values; the message says whose they are.
    """
    try:
        return Preprocessing(**values)
    except ValueError as error:
        raise inexpressible(spec, str(error)) from error


def length(size: int | Sequence[int]) -> int | tuple[int, ...]:
    """A size as `Preprocessing` has it; libraries also put one length into a list."""
    if isinstance(size, int):
        return size
    return size[0] if len(size) == 1 else tuple(size)


_PIL = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


def interpolation_name(mode: Any) -> str:
    """What `Preprocessing` calls an interpolation: an enumeration's, its number in PIL, a name."""
    value = getattr(mode, "value", mode)
    return _PIL.get(value, str(value)) if isinstance(value, int) else str(value)
