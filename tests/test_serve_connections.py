"""What connections may ask of the static server and of uvicorn, and for how long."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import threading
import time

import pytest

from pyxai.playground import static_server
from pyxai.serve.limits import Limits

SHORT = Limits(
    head_seconds=0.4, idle_seconds=1, upload_seconds=0.2, job_seconds=0.2, answer_seconds=0.2
)
LARGE = 60_000_000  # bytes: more than the buffers of a connection hold


@contextlib.contextmanager
def static(folder, limits):
    server = static_server.make_server(folder, "127.0.0.1", 0, limits, only_local=True)
    thread = threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def uvicorn(folder, limits):
    pytest.importorskip("uvicorn")
    from pyxai.serve import connections

    async def app(scope, receive, send):
        size = LARGE if scope["path"] == "/large.js" else len(b"page")
        headers = [(b"content-length", str(size).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(size // 65536):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        rest = b"page" if size == len(b"page") else b"x" * (size % 65536)
        await send({"type": "http.response.body", "body": rest, "more_body": False})

    server = connections.server(app, limits)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(params=[static, uvicorn])
def start(request, tmp_path):
    """Starts each kind of server with limits: a context with its port."""
    (tmp_path / "index.html").write_text("page")
    with (tmp_path / "large.js").open("wb") as file:
        file.truncate(LARGE)
    return lambda limits=SHORT: request.param(tmp_path, limits)


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def answer_to(connection, sent=b""):
    """All that comes until the server ends the connection."""
    connection.sendall(sent)
    answer = b""
    while part := connection.recv(65536):
        answer += part
    return answer


GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def is_served(connection):
    """Whether a connection gets the page; it stays open."""
    connection.sendall(GET)
    answer = b""
    while not answer.endswith(b"page") and (part := connection.recv(65536)):
        answer += part
    return answer.startswith(b"HTTP/1.1 200 ")


def test_silent_connections_are_ended(start):
    with start() as port, connect(port) as connection:
        assert answer_to(connection) == b""


def test_a_head_has_to_come_in_time(start):
    """However its bytes come: one at a time would keep a time between bytes from running out."""
    with start() as port, connect(port) as connection:
        answer, connection_ended = b"", False
        connection.settimeout(0.05)
        for byte in GET[:-4] + b"\r\nX: " + b"x" * 400:
            try:
                connection.sendall(bytes([byte]))
                answer = connection.recv(65536)
                connection_ended = True
                break
            except TimeoutError:
                continue
        assert connection_ended
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_the_next_head_has_to_come_in_time(start):
    with start() as port, connect(port) as connection:
        answer = answer_to(connection, GET + GET[:10])
        first, second = answer.split(b"page", 1)
        assert first.startswith(b"HTTP/1.1 200 ")
        assert second.startswith(b"HTTP/1.1 408 ")


def test_several_requests_may_be_sent_ahead(start):
    with start() as port, connect(port) as connection:
        answer = answer_to(connection, 3 * GET)
        assert answer.count(b"HTTP/1.1 200 ") == answer.count(b"page") == 3


def test_an_answer_has_to_be_taken_in_time(start):
    with start() as port, connect(port) as connection:
        connection.sendall(GET.replace(b"/", b"/large.js", 1))
        time.sleep(2)  # more than the server waits for all of it
        taken = 0
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(1 << 20):
                taken += len(part)
        assert 0 < taken < LARGE


def test_connections_beyond_the_limit_are_told_to_come_back(start):
    with start(Limits(connections=3)) as port, contextlib.ExitStack() as stack:
        opened = [stack.enter_context(connect(port)) for _ in range(3)]
        assert all(map(is_served, opened))  # so the server knows them
        with connect(port) as connection:
            answer = answer_to(connection, GET)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nRetry-After: " in answer
        assert all(map(is_served, opened))
        for connection in opened:
            connection.close()
        until = time.monotonic() + 20
        while time.monotonic() < until:  # there is room once the server has noticed
            with connect(port) as connection:
                if is_served(connection):
                    return
    pytest.fail("no room though all others went away")


@pytest.mark.parametrize(
    "sent",
    [
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
        GET + b"\x16\x03\x01 no HTTP\r\n\r\n",
        GET.replace(b"/", b"/large.js", 1) + b"nonsense\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n\0",
    ],
)
def test_nonsense_in_the_middle_is_no_fault_of_the_server(start, sent, caplog, capfd):
    with caplog.at_level(logging.ERROR), start() as port:
        with connect(port) as connection, contextlib.suppress(ConnectionError):
            answer_to(connection, sent)
        with connect(port) as connection:
            assert is_served(connection)
    assert not caplog.records
    assert capfd.readouterr().err == ""


def test_who_goes_away_is_no_fault_of_the_server(start, caplog, capfd):
    with caplog.at_level(logging.ERROR), start() as port:
        for sent in (b"", GET[:9], GET, GET.replace(b"/", b"/large.js", 1)):
            with connect(port) as connection:
                connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )  # a reset
                connection.sendall(sent)
                time.sleep(0.05)
        with connect(port) as connection:
            assert is_served(connection)
    assert not caplog.records
    assert capfd.readouterr().err == ""
