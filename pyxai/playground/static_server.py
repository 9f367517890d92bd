"""Hands out the files of a folder, and nothing else, with the standard library alone."""

from __future__ import annotations

import io
import re
import socket
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pyxai.playground.site_files import HEADERS, SiteFile, open_file
from pyxai.serve.hosts import is_local
from pyxai.serve.limits import Limits

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_FAREWELL_SECONDS = 1.0  # for those that are turned away to read why


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD with files of the folder.

    The standard library parses requests. Their heads are read here, as it has no limit for the time
    of all lines together, and takes 6.5 MB of them.
    """

    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # else answers to what is no HTTP have no status
    request_version = default_request_version
    requestline, command = "", ""

    def __init__(self, *arguments: Any, root: Path, only_local: bool, limits: Limits) -> None:
        self._root = root
        self._only_local = only_local
        self._limits = limits
        self._ahead = b""  # of the next request
        self._unread = False  # whether the client is still sending something
        super().__init__(*arguments)

    def handle_one_request(self) -> None:
        """Reads a request and answers it."""
        self.close_connection = True  # until a request says otherwise
        head = self._head()
        if head is None:
            return
        line, _, fields = head.partition(b"\n")
        self.raw_requestline = line + b"\n"
        stream, self.rfile = self.rfile, io.BytesIO(fields)
        try:
            parsed = self.parse_request()
        finally:
            self.rfile = stream
        if self.request_version < "HTTP/1.0":
            parsed, self.request_version = False, "HTTP/1.0"  # else the answer has no status
        if not parsed:
            self.close_connection = True
            if not self._unread:  # and not answered
                self.send_error(HTTPStatus.BAD_REQUEST)
            return
        if self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            self._unread = True  # what is sent is not looked at, and is no next request
        if self._unread or self.request_version != "HTTP/1.1":
            self.close_connection = True
        self._answer()

    def _head(self) -> bytes | None:
        """The bytes of a request up to the empty line; None if none came, which was answered."""
        limits, data = self._limits, self._ahead.lstrip(b"\r\n")
        until = None if not data else time.monotonic() + limits.head_seconds
        while (end := _HEAD_END.search(data)) is None:
            if len(data) > limits.head_bytes:
                self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
                return None
            left = limits.idle_seconds if until is None else until - time.monotonic()
            try:
                self.connection.settimeout(max(left, 1e-3))
                part = self.connection.recv(limits.head_bytes)
            except TimeoutError:
                if data:
                    self.send_error(HTTPStatus.REQUEST_TIMEOUT)
                return None
            if not part:
                return None
            data = (data + part).lstrip(b"\r\n")
            until = until or time.monotonic() + limits.head_seconds
        self._ahead = data[end.end() :]
        return data[: end.end()]

    def _answer(self) -> None:
        hosts = self.headers.get_all("Host", [])
        if not hosts and self.request_version == "HTTP/1.0":
            hosts = ["localhost"]  # it need not be said, and no browser speaks this
        parts = self.requestline.split(" ")
        if len(hosts) != 1 or len(parts) != 3 or not self.path.startswith("/"):
            self.send_error(HTTPStatus.BAD_REQUEST)
        elif self._only_local and not is_local(hosts[0]):
            self.send_error(HTTPStatus.NOT_FOUND)
        elif self.command not in ("GET", "HEAD"):
            self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)
        else:
            path = self.path.partition("?")[0].partition("#")[0]
            found = open_file(self._root, unquote(path))
            if found is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            with found.file:
                self._send(found)

    def _send(self, found: SiteFile) -> None:
        known = found.is_known(self.headers.get("If-None-Match"))
        headers = {"ETag": found.tag} if known else found.headers
        until = time.monotonic() + self._limits.answer_seconds
        self.connection.settimeout(self._limits.answer_seconds)
        self._start(HTTPStatus.NOT_MODIFIED if known else HTTPStatus.OK, headers)
        if known or self.command == "HEAD":
            return
        sent = 0
        for part in found.parts():
            self.connection.settimeout(max(until - time.monotonic(), 1e-3))
            self.wfile.write(part)
            sent += len(part)
        if sent != found.size:  # it shrank, and the client waits for more
            self.close_connection = True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """An answer without anything of the request in it."""
        status = HTTPStatus(code)
        if status not in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
            self.close_connection = self._unread = True
        text = f"{status.value} {status.phrase}\n".encode()
        headers = {"Content-Type": "text/plain", "Content-Length": str(len(text))}
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = "GET, HEAD"
        self.connection.settimeout(self._limits.head_seconds)
        self._start(status, headers)
        if self.command != "HEAD":
            self.wfile.write(text)

    def _start(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        self.send_response(status)
        closing = {"Connection": "close"} if self.close_connection else {}
        for name, value in {**headers, **HEADERS, **closing}.items():
            self.send_header(name, value)
        self.end_headers()

    def handle_expect_100(self) -> bool:
        """Nothing that is sent is wanted."""
        return True

    def finish(self) -> None:
        """Takes what is still being sent, for a moment, before the connection is closed.

        To close at once would break it for who is sending, and lose the answer.
        """
        super().finish()
        if not self._unread:
            return
        until = time.monotonic() + _FAREWELL_SECONDS
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while (left := until - time.monotonic()) > 0:
                self.connection.settimeout(left)
                if not self.connection.recv(65_536):
                    return

    def version_string(self) -> str:
        """Nobody's business."""
        return "pyxai"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""


class _Server(ThreadingHTTPServer):
    """A thread for each connection, up to a limit."""

    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: Any, limits: Limits) -> None:
        self._limits = limits
        self._free = threading.BoundedSemaphore(limits.connections)
        self._refused: deque[tuple[float, socket.socket]] = deque()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answers in a thread, or says that there are too many."""
        if not self._free.acquire(blocking=False):
            self._turn_away(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be started
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Makes room for the next once it is answered."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def _turn_away(self, request: socket.socket) -> None:
        """Answers without reading; the connection is closed when the client has read it."""
        head = (
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n"
            f"Retry-After: {self._limits.retry_seconds}\r\n\r\n"
        )
        with suppress(OSError):
            request.sendall(head.encode())
            request.shutdown(socket.SHUT_WR)
        self._refused.append((time.monotonic() + _FAREWELL_SECONDS, request))
        self._close_refused(self._limits.connections)

    def _close_refused(self, keep: int) -> None:
        now = time.monotonic()
        while self._refused and (len(self._refused) > keep or self._refused[0][0] < now):
            self._refused.popleft()[1].close()

    def service_actions(self) -> None:
        """Is called all the time."""
        self._close_refused(self._limits.connections)

    def server_close(self) -> None:
        """Frees the port."""
        super().server_close()
        self._close_refused(0)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tells of faults of ours; clients that go away, or are too slow, are none."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Server6(_Server):
    address_family = socket.AF_INET6


def make_server(
    root: Path, host: str, port: int, limits: Limits, *, only_local: bool
) -> ThreadingHTTPServer:
    """A server that waits for `serve_forever`.

    Args:
        root: folder of the site.
        host: the address to listen at.
        port: 0 for any that is free.
        limits: of what visitors may ask.
        only_local: whether to answer only requests that address this machine by its own name.

    Raises:
        OSError: the port is taken.
    """
    handler = partial(_Handler, root=root.resolve(), only_local=only_local, limits=limits)
    return (_Server6 if ":" in host else _Server)((host, port), handler, limits)
