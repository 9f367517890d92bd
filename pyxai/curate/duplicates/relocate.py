"""Moves one file so that it is never lost and nothing is overwritten, whenever a kill comes."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pyxai._sealed import file_digest

_PART = 1 << 20  # bytes that are compared together
# What systems say where a file cannot have a second name: another device, or no links at all.
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_NOT_THROUGH = {"follow_symlinks": False} if os.link in os.supports_follow_symlinks else {}


@dataclass(frozen=True)
class FileState:
    """What a file was when it was read.

    Attributes:
        place: where it lies, absolute.
        inner: the way to it from the folder that was searched, by its name.
        bytes: its size.
        modified: time of its last change in nanoseconds.
        digest: of its bytes.
        others: absolute, where links and hard links to it lie.
    """

    place: str
    inner: str
    bytes: int
    modified: int
    digest: str
    others: tuple[str, ...] = ()

    def change(self, *, contents: bool = True) -> str | None:
        """What has become of it since, in words; None if it is as it was.

        Args:
            contents: whether it is read, or only size and time are looked at.
        """
        path = Path(self.place)
        try:
            status = path.stat()
            same = stat.S_ISREG(status.st_mode) and (self.bytes, self.modified) == (
                status.st_size,
                status.st_mtime_ns,
            )
            if same and (not contents or file_digest(path) == self.digest):
                return None
        except FileNotFoundError:
            return "is no longer there"
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        return "has changed since it was looked at"


class ChangedError(OSError):
    """A file was changed while it was moved."""


def relocate(here: Path, there: Path, digest: str, copying: Callable[[], None]) -> None:
    """Moves a file that is no link to a name that nothing has.

    It has the new name before it loses the old one. After an error or a kill it has the old one,
    the new one or both; what was copied across file systems may be cut off at the new name then.

    Args:
        here: the file.
        there: its new name; folders on the way are made.
        digest: of its bytes.
        copying: called before bytes are copied, where the file cannot have a second name.

    Raises:
        FileExistsError: something has that name.
        ChangedError: it is not the file that it was.
        OSError: anything else.
    """
    before = here.lstat()
    make_folder(there.parent)
    try:
        os.link(here, there, **_NOT_THROUGH)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        copying()
        _copy(here, there, digest)
    else:
        _refuse_change(before, there)
    sync_folder(there.parent)
    _refuse_change(before, here)
    here.unlink()


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, so that they are still there after a power cut."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Comes back when the names in a folder are on the disk, where the system can tell."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_there(path: Path) -> bool:
    """Whether anything has this name, if only a link that leads nowhere."""
    return path.exists() or path.is_symlink()


def is_plain(path: Path) -> bool:
    """Whether it is a file, and no link."""
    return not path.is_symlink() and path.is_file()


def is_same_file(one: Path, other: Path) -> bool:
    """Whether both are names of one file, and neither is a link."""
    return is_plain(one) and is_plain(other) and one.samefile(other)


def is_start_of(part: Path, whole: Path) -> bool:
    """Whether a file holds nothing but the first bytes of another, or all of them."""
    if not (is_plain(part) and is_plain(whole)) or part.stat().st_size > whole.stat().st_size:
        return False
    with part.open("rb") as one, whole.open("rb") as other:
        while data := one.read(_PART):
            if other.read(len(data)) != data:
                return False
    return True


def _copy(here: Path, there: Path, digest: str) -> None:
    with here.open("rb") as source, there.open("xb") as target:
        shutil.copyfileobj(source, target, _PART)
        target.flush()
        os.fsync(target.fileno())
    shutil.copystat(here, there)
    if file_digest(there) != digest:
        raise ChangedError(errno.EAGAIN, "changed while it was moved", str(here))


def _refuse_change(before: os.stat_result, path: Path) -> None:
    now = path.lstat()
    if _identity(before) != _identity(now):
        raise ChangedError(errno.EAGAIN, "changed while it was moved", str(path))


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
