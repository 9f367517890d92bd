"""The errors of this package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_LONGEST_NAME = 300


class ImageError(ValueError):
    """A photo, or an argument that should hold photos, that cannot be used.

    Attributes:
        name: the photo: its path as given, or its place in the argument, such as "images[3]".
        reason: what was expected and what was found, in one line.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{printable(self.name)}: {self.reason}"


class PhotoFailure(NamedTuple):
    """A photo that could not be used, as results list it.

    Attributes:
        path: the photo: its path as given, or its place in the argument, such as "images[3]".
        reason: what was expected and what was found, in one line.
    """

    path: str
    reason: str


class ImageErrors(ImageError):
    """Several photos that cannot be used; the message lists them, one a line.

    Attributes:
        failures: one for each photo that failed, in the order of the photos.
        total: how many photos there were, those that could be read included.
    """

    def __init__(self, failures: Sequence[tuple[str, str]], total: int | None = None) -> None:
        self.failures = tuple(PhotoFailure(*each) for each in failures)
        if not self.failures:
            raise ValueError("failures: expected at least one (name, reason), got none")
        self.total = len(self.failures) if total is None else total
        if len(self.failures) == 1:
            super().__init__(*self.failures[0])
        else:
            lines = "".join(f"\n  {printable(name)}: {reason}" for name, reason in self.failures)
            count = f"{len(self.failures)} of {self.total}"
            super().__init__("images", f"{count} photos cannot be used:{lines}")
        self.args = (self.failures, self.total)  # what pickle hands to __init__


class PhotoWarning(UserWarning):
    """Something about photos that does not stop a call, and that one should know."""


def printable(name: str) -> str:
    """A name that fits in one line of any terminal: odd characters escaped, long names cut."""
    if not name or not name.isprintable():
        name = repr(name).encode("utf-8", "backslashreplace").decode("utf-8")
    if len(name) > _LONGEST_NAME:
        half = _LONGEST_NAME // 2
        name = f"{name[:half]} … {name[-half:]}"
    return name
