"""Stops a call at its k-th change of the file system, as a kill would: no clean-up runs."""

from __future__ import annotations

import contextlib
import os

CHANGES = ("rename", "replace", "unlink", "remove", "rmdir", "link")


class Killed(BaseException):
    """In the place of the end of the process."""


@contextlib.contextmanager
def killed_at(count, monkeypatch):
    """The changes before the k-th are made, that one and all after it are not."""
    made = 0

    def counted(real):
        def change(*arguments, **options):
            nonlocal made
            made += 1
            if made >= count:
                raise Killed
            return real(*arguments, **options)

        return change

    with monkeypatch.context() as patch:
        for name in CHANGES:  # pathlib and shutil call these
            patch.setattr(os, name, counted(getattr(os, name)))
        with contextlib.suppress(Killed):
            yield


def each_kill(call, monkeypatch, *, limit=500):
    """Runs a call again and again, killed one change later each time, until it gets through."""
    for count in range(1, limit):
        done = False
        with killed_at(count, monkeypatch):
            call()
            done = True
        yield count
        if done:
            return
    raise AssertionError(f"not done after {limit} changes")
