"""The files of a site that are handed out, and what is said about them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
"""What a browser may do with the pages; it asks each time whether a file is still the same."""

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript",
    ".jpg": "image/jpeg",
    ".svg": "image/svg+xml",
}
_PART = 65_536


@dataclass(frozen=True)
class SiteFile:
    """A file that is handed out.

    Attributes:
        file: it, open; whoever has this closes it.
        size: in bytes.
        kind: the header Content-Type.
        tag: the header ETag: another one when the file is another.
    """

    file: BinaryIO
    size: int
    kind: str
    tag: str

    @property
    def headers(self) -> dict[str, str]:
        """What an answer with this file says of it."""
        return {"Content-Type": self.kind, "Content-Length": str(self.size), "ETag": self.tag}

    def is_known(self, tags: str | None) -> bool:
        """Whether a client has it already.

        Args:
            tags: the header If-None-Match of its request.
        """
        given = [each.strip().removeprefix("W/") for each in (tags or "").split(",")]
        return self.tag in given or given == ["*"]

    def parts(self) -> Iterator[bytes]:
        """The content, as long as it was when the file was opened, if it did not shrink."""
        left = self.size
        while left > 0 and (part := self.file.read(min(left, _PART))):
            left -= len(part)
            yield part


def open_file(root: Path, path: str) -> SiteFile | None:
    """The file that a path stands for; None if it is none of the site's.

    Args:
        root: the folder, without links in its path.
        path: the path of a request, without its percent signs.
    """
    if "\0" in path or "\\" in path:
        return None
    try:
        # realpath and not resolve, which raises RuntimeError where links go round in circles.
        wanted = Path(os.path.realpath(root / path.lstrip("/")))
        if wanted == root:
            wanted = root / "index.html"
        if not wanted.is_relative_to(root) or wanted.suffix not in _TYPES or not wanted.is_file():
            return None
        if any(part.startswith(".") for part in wanted.relative_to(root).parts):
            return None  # an edition that is not finished
        file = wanted.open("rb")
    except (OSError, ValueError):  # a name that no file can have, a file that we may not read
        return None
    about = os.fstat(file.fileno())
    if not stat.S_ISREG(about.st_mode):
        file.close()
        return None
    tag = f'"{about.st_mtime_ns:x}-{about.st_size:x}-{about.st_ino:x}"'
    return SiteFile(file, about.st_size, _TYPES[wanted.suffix], tag)
