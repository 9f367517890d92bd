"""uvicorn within limits: how many connections, how long a head, how slow a client."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from pyxai.serve.guards import App
from pyxai.serve.limits import Limits

_FAREWELL_SECONDS = 1.0  # for those that are turned away to read why


def server(app: App, limits: Limits) -> uvicorn.Server:
    """A server for an application; it says nothing but what is a fault of ours.

    uvicorn itself limits the head and the time between requests. What it lacks is done by
    `_Connection`.
    """

    class Connection(_Connection):
        bounds = limits

    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=limits.head_bytes,
        timeout_keep_alive=max(1, round(limits.idle_seconds)),
    )
    return uvicorn.Server(config)


def run(app: App, listening: socket.socket, limits: Limits) -> None:
    """Serves an application until it is interrupted.

    Args:
        app: the application.
        listening: a socket that is bound.
        limits: of connections.
    """
    server(app, limits).run([listening])


class _Connection(H11Protocol):
    """A connection of uvicorn that ends when its client is too slow, or one too many.

    One timer runs all the time: until the head of a request is there, then until it is answered and
    the answer was taken, then until the next head.
    """

    bounds: Limits

    _timer: asyncio.TimerHandle | None = None
    _turned_away = False

    def connection_made(self, transport: Any) -> None:
        """Counts it."""
        super().connection_made(transport)
        self._within(self.bounds.head_seconds)
        if len(self.connections) <= self.bounds.connections:
            return
        self._turned_away = True
        self._within(_FAREWELL_SECONDS)
        if len(self.connections) > 2 * self.bounds.connections:
            self.transport.abort()
        else:
            self._say(503, "too many connections; try again in a moment")

    def data_received(self, data: bytes) -> None:
        """Handles what the client sent, unless it was turned away."""
        if not self._turned_away:
            super().data_received(data)

    def handle_events(self) -> None:
        """Handles requests, and gives each its time."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._within(self.bounds.request_seconds)

    def on_response_complete(self) -> None:
        """Waits for the next request."""
        self._within(self.bounds.head_seconds)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the timer."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP.

        uvicorn answers also in the middle of another answer, which is an error in h11.
        """
        self._turned_away = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # what the application still says goes nowhere
            self.cycle.waiting_for_100_continue = False
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._within(_FAREWELL_SECONDS)
            self._say(400, "no HTTP request")
        else:
            self.transport.close()

    def _within(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        """Ends the connection; who is sending a head is told why."""
        waiting = self.cycle is None or self.cycle.response_complete
        begun = waiting and self.conn.our_state is h11.IDLE and bool(self.conn.trailing_data[0])
        if begun and not self._turned_away and not self.transport.is_closing():
            self._turned_away = True
            self._within(_FAREWELL_SECONDS)
            self._say(408, "the request took too long")
        else:
            self.transport.abort()

    def _say(self, status: int, reason: str) -> None:
        """Answers without a request; the timer ends the connection.

        To close it at once would break it for who is still sending, and lose the answer.
        """
        body = json.dumps({"error": reason}).encode()
        head = (
            f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nRetry-After: {self.bounds.retry_seconds}\r\n"
            "Connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
