"""A folder that can be written to, and that one process at a time works in."""

from __future__ import annotations

import datetime
import errno
import json
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

LOCK = ".pyxai-lock"
"""The file that is locked; it stays, as removing it would let two in at once."""


class BusyError(RuntimeError):
    """Another run works in the folder; the message says which and since when."""


def check_folder(argument: str, directory: Path) -> None:
    """Raises ValueError unless there is a folder to write to, or one can be made.

    Args:
        argument: what it is called in errors.
        directory: the folder.
    """
    there = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ValueError(f"{argument}: expected a folder, got the file {str(there)!r}")
    if not os.access(there, os.W_OK):
        raise ValueError(f"{argument}: expected a folder to write to, got {str(there)!r}")


@contextmanager
def locked(directory: Path, argument: str) -> Iterator[None]:
    """Keeps other runs out of a folder, which is made if need be.

    The system lets go when the process ends, however it ends, so that no lock is left behind.

    Args:
        directory: the folder.
        argument: what it is called in errors.

    Raises:
        BusyError: another run is in it, of this process or another.
        ValueError: it is no folder, or cannot be written to.
    """
    check_folder(argument, directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        expected = f"{argument}: expected a folder to write to, got {str(directory)!r}"
        raise ValueError(f"{expected} ({error.strerror})") from error
    with (directory / LOCK).open("a+b") as file:
        if not _lock(file):
            raise BusyError(
                f"{argument}: expected a folder that no other run works in, got "
                f"{str(directory)!r}, busy, by {_holder(file)}"
            )
        about = {
            "process": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        file.truncate(0)
        file.write(json.dumps(about).encode() + b"\n")
        file.flush()
        try:
            yield
        finally:
            with suppress(OSError):
                file.truncate(0)
            _unlock(file)


def _holder(file: BinaryIO) -> str:
    """Who has the lock, in words."""
    try:
        file.seek(0)
        about = json.loads(file.read())
        here = "" if about["host"] == socket.gethostname() else f" on {about['host']}"
        return f"process {int(about['process'])}{here} since {about['since']}"
    except (OSError, ValueError, LookupError, TypeError):
        return "another process"


_TAKEN = (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK)

if sys.platform == "win32":
    import msvcrt

    _FAR = 1 << 30  # the byte that is locked: what others read of the file is not

    def _lock(file: BinaryIO) -> bool:
        file.seek(_FAR)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(file: BinaryIO) -> None:
        file.seek(_FAR)
        with suppress(OSError):
            msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(file: BinaryIO) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            warnings.warn(
                f"this file system has no locks ({error.strerror}); nothing keeps a second run out",
                stacklevel=4,
            )
        return True

    def _unlock(file: BinaryIO) -> None:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)
