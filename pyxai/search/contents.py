"""What tells photos apart: a digest of their content, and a stamp that spares reading it."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from pyxai._sealed import digest, file_digest
from pyxai.images import ImageError

_YOUNG = 2_000_000_000  # nanoseconds in which a file may change again and have the same times


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo in an index.

    Attributes:
        path: as it was found, or "images[i]" for one that came from memory.
        width: of the upright photo, in pixels.
        height: the same.
        label: its class, or None.
        content: a digest of the bytes of its file, or of the pixels of one from memory.
        stamp: of the file; see `stamp_of`.
    """

    path: str
    width: int
    height: int
    label: str | None
    content: str
    stamp: str = field(default="", compare=False)


def stamp_of(path: str) -> str:
    """Size and times of a file: while they are the same, so is its content.

    The time of the last change of the file's entry is one of them, as everything else can be set:
    `cp -p` makes another content of the same size and the same time. "" for what is no file, and
    for a file that was written just now: it may change again within the grain of the clock.

    Raises:
        OSError, ValueError: there is no such file, or it cannot be looked at.
    """
    status = os.stat(path)  # noqa: PTH116
    last = max(status.st_mtime_ns, status.st_ctime_ns)
    if not stat.S_ISREG(status.st_mode) or time.time_ns() - last < _YOUNG:
        return ""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def content_of_file(path: str) -> str:
    """The digest of a file's bytes; "" if it cannot be read, which `open_photo` then explains."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - a pipe would never end
            return ""
        return file_digest(Path(path))
    except (OSError, ValueError):
        return ""


def content_of_picture(picture: Image.Image) -> str:
    """The digest of an upright RGB picture."""
    return digest([b"%d %d " % picture.size, picture.tobytes()])


def check_content(photo: Photo) -> None:
    """Raises ImageError if the file of a photo is gone, or no longer what it was."""
    try:
        if photo.stamp and stamp_of(photo.path) == photo.stamp:
            return
    except (OSError, ValueError) as error:
        raise ImageError(photo.path, "gone since its features were computed") from error
    if content_of_file(photo.path) != photo.content:
        raise ImageError(photo.path, "changed since its features were computed")
