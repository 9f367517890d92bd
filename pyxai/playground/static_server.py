"""Hands out the files of a folder to this machine, and nothing else."""

from __future__ import annotations

import os
import socket
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

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
"""What a browser may do with the pages."""

_SUFFIXES = frozenset((".html", ".css", ".js", ".jpg", ".svg"))


def file_of(root: Path, address: str) -> Path | None:
    """The file that an address stands for; None if it is none of the site's.

    Args:
        root: the folder, without links in its path.
        address: the path of a request, percent-encoded.
    """
    path = unquote(urlsplit(address).path)
    if "\0" in path or "\\" in path:
        return None
    try:
        wanted = (root / path.lstrip("/")).resolve()
        if wanted == root:
            wanted = root / "index.html"
        inside = wanted.is_relative_to(root) and wanted.suffix in _SUFFIXES
        return wanted if inside and wanted.is_file() else None
    except OSError:  # a name that no file can have
        return None


def is_local(host: str | None) -> bool:
    """Whether a request was addressed to this machine by its own name.

    A page elsewhere whose name was made to point here (DNS rebinding) is told by this.
    """
    name = (host or "").rpartition(":")[0] if (host or "").count(":") == 1 else host or ""
    return name.partition("]")[0].lstrip("[") in ("localhost", "127.0.0.1", "::1", "")


class _Handler(SimpleHTTPRequestHandler):
    """Answers GET and HEAD with files of the folder."""

    only_local = True
    timeout = 60

    def send_head(self) -> Any:
        """The file, or an error page without anything of the request in it."""
        found = file_of(Path(self.directory), self.path)
        foreign = self.only_local and not is_local(self.headers.get("Host"))
        if found is None or foreign:
            self.send_error(HTTPStatus.NOT_FOUND, "no such file")
            return None
        file: BinaryIO = found.open("rb")
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", self.guess_type(str(found)))
        self.send_header("Content-Length", str(os.fstat(file.fileno()).st_size))
        self.end_headers()
        return file

    def end_headers(self) -> None:
        """Adds what every answer carries."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def version_string(self) -> str:
        """Nobody's business."""
        return "pyxai"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""


class _OpenHandler(_Handler):
    """The same for requests that come by any name."""

    only_local = False


class _Server6(ThreadingHTTPServer):
    address_family = socket.AF_INET6


def make_server(root: Path, host: str, port: int, *, only_local: bool) -> ThreadingHTTPServer:
    """A server that waits for `serve_forever`.

    Args:
        root: folder of the site.
        host: the address to listen at.
        port: 0 for any that is free.
        only_local: whether to answer only requests that address this machine by its own name.

    Raises:
        OSError: the port is taken.
    """
    handler = partial(_Handler if only_local else _OpenHandler, directory=str(root.resolve()))
    return (_Server6 if ":" in host else ThreadingHTTPServer)((host, port), handler)
