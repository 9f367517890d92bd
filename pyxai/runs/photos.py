"""What tells photos apart: a digest of their content, and a stamp that spares reading it."""

from __future__ import annotations

import os
import re
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from pyxai._sealed import digest, file_digest
from pyxai.images import ImageError

_IN_MEMORY = re.compile(r"images\[\d+\]")
_YOUNG = 2_000_000_000  # nanoseconds in which a file may change again and have the same times


@dataclass(frozen=True, slots=True)
class PhotoState:
    """A photo of a run, as it was when it was read.

    Attributes:
        path: as it was found, or "images[i]" for one that came from memory.
        content: a digest of the bytes of its file, or of the pixels of one from memory; "" in a
            run that keeps nothing.
        stamp: of the file; see `stamp_of`.
        key: what else the row of a photo depends on, such as the class of its folder.
        about: JSON values of the row, which are held in memory.
    """

    path: str
    content: str
    stamp: str = field(default="", compare=False)
    key: str = ""
    about: Any = None


@dataclass(frozen=True, slots=True)
class OpenPhoto:
    """A photo that is looked at: upright RGB pixels.

    Attributes:
        name: its path, or "images[i]".
        key: see `PhotoState`.
        picture: its pixels.
        is_file: whether it can be read again by its name.
    """

    name: str
    key: str
    picture: Image.Image
    is_file: bool


def is_in_memory(name: str) -> bool:
    """Whether a photo of this name was no file, so that it cannot be read again."""
    return _IN_MEMORY.fullmatch(name) is not None


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


def check_content(path: str, content: str, stamp: str) -> None:
    """Raises ImageError if the file of a photo is gone, or no longer what it was."""
    try:
        if stamp and stamp_of(path) == stamp:
            return
    except (OSError, ValueError) as error:
        raise ImageError(path, "gone since its features were computed") from error
    if content_of_file(path) != content:
        raise ImageError(path, "changed since its features were computed")
