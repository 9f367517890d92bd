"""How errors are worded: argument, expected, got; and the closest names to a wrong one."""

from __future__ import annotations

import difflib
import operator
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

Settings = TypeVar("Settings")


class MissingExtraError(ImportError):
    """An optional package is needed; the message names the extra that brings it."""

    def __init__(self, purpose: str, package: str, extra: str) -> None:
        super().__init__(
            f"{purpose} needs {package}, which is not installed or does not import; "
            f"install it with: pip install 'pyxai-vision[{extra}]'"
        )


REFUSALS = (
    *(RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, AssertionError),
    *(ArithmeticError, NotImplementedError),
)
"""What code of others raises at an input that it does not take; see `passes_through`."""


def passes_through(error: BaseException) -> bool:
    """Whether an error is about the moment (no memory left) and says nothing about the input."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    said = str(error).lower() if isinstance(error, RuntimeError) else ""
    return any(words in said for words in ("out of memory", "not enough memory", "allocate memory"))


def argument_error(argument: str, expected: str, got: object) -> ValueError:
    """The error for a bad argument; `got` may be a tensor, which is described, not printed."""
    return ValueError(f"{argument}: expected {expected}, got {describe(got)}")


def folder_of(argument: str, value: object) -> Path | None:
    """The folder that an argument names; None stays None.

    Raises:
        ValueError: it is no path, or an empty one, which would be the folder that one is in.
    """
    if value is None:
        return None
    if not isinstance(value, (str, os.PathLike)):
        raise argument_error(argument, "the path of a folder", value)
    text = os.fsdecode(value)
    if not text or "\0" in text:
        raise argument_error(argument, "the path of a folder ('.' is this one)", text)
    return Path(text)


def check_count(argument: str, value: object, *, least: int = 1, or_none: bool = False) -> int:
    """A number of things, at least `least`, as an int; integers of NumPy and torch will do.

    Args:
        argument: its name.
        value: the number.
        least: what it may be at least, 0 or more.
        or_none: whether the error is to say that None would have been fine.

    Raises:
        ValueError: it is something else.
    """
    try:
        count = -1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        count = -1
    if count < least:
        expected = f"an int of at least {least}"
        raise argument_error(argument, f"None or {expected}" if or_none else expected, value)
    return int(count)


def check_lengths(argument: str, value: object, meaning: str) -> tuple[int, int]:
    """Two lengths, given as one for both or as a pair.

    Raises:
        ValueError: they are something else, or below 1.
    """
    given = value if isinstance(value, (tuple, list)) else (value, value)
    try:
        lengths = [0 if isinstance(each, bool) else operator.index(each) for each in given]
    except TypeError:
        lengths = []
    if len(lengths) != 2 or min(lengths) < 1:
        raise argument_error(argument, f"an int or a pair {meaning} of at least 1", value)
    return lengths[0], lengths[1]


def settings_or(default: Settings, given: object) -> Settings:
    """The settings given to a call; where there are none, the default ones.

    Raises:
        ValueError: they are settings of something else.
    """
    if given is None:
        return default
    if not isinstance(given, type(default)):
        raise argument_error("settings", f"None or {type(default).__name__}(...)", given)
    return given


def describe(value: object) -> str:
    """What a value is, in a few words: "a float32 tensor [3, 224, 224]", "-3", "a dict"."""
    if isinstance(value, torch.Tensor):
        where = "" if value.device.type == "cpu" else f" on {value.device}"
        dtype = str(value.dtype).removeprefix("torch.")
        return _with_article(f"{dtype} tensor {[*value.shape]}") + where
    if isinstance(value, np.ndarray):
        return _with_article(f"{value.dtype} array {[*value.shape]}")
    plain = (str, int, float, torch.dtype, torch.device, type(None))
    if isinstance(value, plain) or (
        isinstance(value, (tuple, list))
        and value
        and all(isinstance(each, plain) for each in value)
    ):
        text = repr(value)
        return text if len(text) <= 200 else text[:197] + "..."
    return _with_article(type(value).__name__)


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeioAEIO' else 'a'} {words}"


def closest(name: str, names: Iterable[str]) -> str:
    """A hint such as "; closest: 'layer4', 'layer3'", or "" when nothing is close."""
    by_folded = {candidate.casefold(): candidate for candidate in names}
    folded = name.casefold()
    # A name that contains the wrong one ("retriever") is closer than any misspelling.
    found = [key for key in by_folded if folded and folded in key][:3]
    found += [
        key
        for key in difflib.get_close_matches(folded, by_folded, n=3, cutoff=0.5)
        if key not in found
    ]
    if not found:
        return ""
    return "; closest: " + ", ".join(repr(by_folded[key]) for key in found[:3])
