"""Limits around an ASGI application, whatever it is made with."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from pyxai.serve.hosts import is_local
from pyxai.serve.limits import Limits

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_WITHOUT_BODY = ("GET", "HEAD", "OPTIONS")


class Refused(Exception):
    """A request that is not answered as it wants, with the status and the reason."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = dict(headers or {})


class Headers:
    """Adds headers to every answer."""

    def __init__(self, app: App, headers: Mapping[str, str]) -> None:
        self._app = app
        self._headers = _encoded(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as the application does."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self._headers]
            await send(message)

        await self._app(scope, receive, sending)


class Addressed:
    """Answers requests that address this machine by its own name, and have a plain path."""

    def __init__(self, app: App, *, only_local: bool) -> None:
        """Puts this before an application.

        Args:
            app: the application.
            only_local: whether names of other machines are refused.
        """
        self._app = app
        self._only_local = only_local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as the application does, or 400 or 404."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        hosts = _values(scope, b"host")
        if len(hosts) > 1 or not scope["path"].startswith("/"):
            return await _refuse(Refused(400, "expected one host and a path"), send)
        # No host at all is HTTP/1.0, which no browser speaks.
        if self._only_local and hosts and not is_local(hosts[0]):
            return await _refuse(Refused(404, "no such host"), send)
        return await self._app(scope, receive, send)


class Uploads:
    """Reads what is sent with requests before the application sees it, within limits.

    Whether there is room is asked first: an upload that has to come back costs no memory, finished
    or not.
    """

    def __init__(self, app: App, limits: Limits, *, types: Sequence[str] = ()) -> None:
        """Puts this before an application.

        Args:
            app: the application; it gets the whole body in one message.
            limits: of the body, and of how many at a time.
            types: what the header Content-Type may say; anything if empty.
        """
        self._app = app
        self._limits = limits
        self._types = tuple(types)
        self._free = limits.uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as the application does, or 408, 413, 415 or 503."""
        if scope["type"] != "http" or scope["method"] in _WITHOUT_BODY:
            return await self._app(scope, receive, send)
        # A client that asks before it sends would be sending only if it was told to.
        rest = None if _values(scope, b"expect") else lambda: self._rest(receive)
        try:
            self._admit(scope)
        except Refused as error:
            return await _refuse(error, send, rest)
        self._free -= 1
        try:
            body = await self._within_time(receive)
            if body is not None:  # the client is still there
                await self._app(scope, _given(body, receive), send)
        except Refused as error:
            await _refuse(error, send, rest)
        finally:
            self._free += 1
        return None

    def _admit(self, scope: Scope) -> None:
        """Looks at the headers.

        Raises:
            Refused: what is sent is of another type or too long, or there is no room for it.
        """
        if self._types and _values(scope, b"content-type") not in [[each] for each in self._types]:
            raise Refused(415, f"expected the header Content-Type: {' or '.join(self._types)}")
        for length in _values(scope, b"content-length"):
            digits = length.lstrip("0")  # Python refuses to read thousands of them
            if len(digits) > 18 or int(digits or 0) > self._limits.body_bytes:
                raise self._too_long()
        if not self._free:
            after = {"Retry-After": str(self._limits.retry_seconds)}
            raise Refused(503, "busy with other photos; try again in a moment", after)

    def _too_long(self) -> Refused:
        return Refused(413, f"expected at most {self._limits.body_bytes:,} bytes")

    async def _within_time(self, receive: Receive) -> bytes | None:
        """The body; None if the client went away.

        Raises:
            Refused: it is too long, or too slow.
        """
        try:
            return await asyncio.wait_for(self._body(receive), self._limits.upload_seconds)
        except asyncio.TimeoutError:
            raise Refused(408, "the upload took too long", {"Connection": "close"}) from None

    async def _body(self, receive: Receive) -> bytes | None:
        """The body, of which never more than the limit is held."""
        parts, length, more = io.BytesIO(), 0, True  # its value is no copy
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            length += len(part)
            if length > self._limits.body_bytes:
                raise self._too_long()
            parts.write(part)
            more = message.get("more_body", False)
        return parts.getvalue()

    async def _rest(self, receive: Receive) -> None:
        """Takes the rest of an upload and forgets it.

        Who is still sending would else see a broken connection, and not the answer.
        """

        async def take() -> None:
            length, more = 0, True
            while more and length <= 2 * self._limits.body_bytes:
                message = await receive()
                length += len(message.get("body", b""))
                more = message.get("more_body", False)

        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(take(), self._limits.upload_seconds)


class Deadline:
    """Answers 503 where the application has not begun to answer in time, and gives it up."""

    def __init__(self, app: App, limits: Limits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as the application does, or 503."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        task, late = asyncio.current_task(), False
        assert task is not None

        def give_up() -> None:
            nonlocal late
            late = True
            task.cancel()

        timer = asyncio.get_running_loop().call_later(self._limits.job_seconds, give_up)

        async def sending(message: Message) -> None:
            timer.cancel()
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except asyncio.CancelledError:
            if not late:
                raise
            after = {"Retry-After": str(self._limits.retry_seconds)}
            await _refuse(Refused(503, "this took too long", after), send)
        finally:
            timer.cancel()
        return None


async def _refuse(
    error: Refused, send: Send, rest: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Sends the reason, as pages read it, and only then takes the rest of the request."""
    body = json.dumps({"error": error.reason}).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    headers.update(error.headers)
    start = {"type": "http.response.start", "status": error.status, "headers": _encoded(headers)}
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": True})
    if rest is not None and "Connection" not in error.headers:
        await rest()
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _given(body: bytes, receive: Receive) -> Receive:
    """What an application receives once its body has been read: the body, then what comes."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receiving() -> Message:
        return first.pop() if first else await receive()

    return receiving


def _values(scope: Scope, name: bytes) -> list[str]:
    """The values of a header."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
