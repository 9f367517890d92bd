"""Requests that no browser sends, and what a server may say to each."""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path

SECONDS = 60.0  # for an answer; servers are expected to give up long before


@dataclass(frozen=True)
class Case:
    """Bytes that are sent to a server.

    Attributes:
        name: of the case, for reports.
        sent: the bytes.
        statuses: with which it may be answered; empty if the connection may also just end.
        more: whether the client goes on as if it had something more to send.
    """

    name: str
    sent: bytes
    statuses: frozenset[int]
    more: bool = False


def ask(port: int, sent: bytes, *, more: bool = False) -> tuple[int | None, bytes]:
    """(status, whole answer) to bytes; no status if the server only closed the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(sent)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65536):
                answer += part
                if not more and _is_whole(answer, sent):
                    break
    return status_of(answer), answer


def status_of(answer: bytes) -> int | None:
    """The status of an answer; None of an empty one, 0 of what is no answer of a web server."""
    if not answer:
        return None
    version, _, rest = answer.partition(b" ")
    return int(rest[:3]) if version.startswith(b"HTTP/1.") and rest[:3].isdigit() else 0


def _is_whole(answer: bytes, sent: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return False
    if sent.startswith(b"HEAD ") or b" 304 " in head[:20]:
        return True
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.partition(b":")[2])
    return False


def make_traps(site: Path) -> None:
    """Puts into a folder what must not be handed out, and links that lead out or in circles."""
    (site.parent / "secret.js").write_text("nobody's business")
    (site / "out.js").symlink_to(site.parent / "secret.js")
    (site / "a.js").symlink_to(site / "b.js")
    (site / "b.js").symlink_to(site / "a.js")
    (site / "self.js").symlink_to("self.js")
    os.mkfifo(site / "pipe.js")


def cases() -> list[Case]:
    """All of them, for any server of a site."""
    return [*_lines(), *_heads(), *_hosts(), *_paths(), *_bodies(), *_conditions()]


def _case(name: str, sent: bytes, *statuses: int, more: bool = False) -> Case:
    return Case(name, sent, frozenset(statuses), more)


def _get(target: bytes, *headers: bytes, host: bytes | None = b"localhost") -> bytes:
    given = [b"Host: " + host] if host is not None else []
    return b"\r\n".join([b"GET " + target + b" HTTP/1.1", *given, *headers, b"", b""])


def _lines() -> list[Case]:
    host = b"\r\nHost: localhost\r\n\r\n"
    lines = [
        (b"", 400),
        (b" ", 400),
        (b"GET", 400),
        (b"GET /", 400),
        (b"GET / HTTP/0.9", 200),
        (b"GET / HTTP/1.x", 400),
        (b"GET / HTTP/11", 400),
        (b"GET / FTP/1.1", 400),
        (b"GET  / HTTP/1.1", 400),
        (b"GET / / HTTP/1.1", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
        (b"PRI * HTTP/2.0", 400),
        (b"G\x00T / HTTP/1.1", 400),
        (b"\xff\xfe / HTTP/1.1", 400),
        (b"DELETE / HTTP/1.1", 405),
        (b"TRACE / HTTP/1.1", 405),
        (b"BREW / HTTP/1.1", 405),
        (b"CONNECT evil.example:443 HTTP/1.1", 400),
        (b"OPTIONS * HTTP/1.1", 400),
        (b"GET http://[/x.js HTTP/1.1", 400),
        (b"GET http://localhost/index.html HTTP/1.1", 400),
        (b"GET http://evil.example/index.html HTTP/1.1", 400),
        (b"GET index.html HTTP/1.1", 400),
        (b"GET ? HTTP/1.1", 400),
    ]
    also = {200: (200, 400), 400: (400, 404, 405, 501, 505), 405: (405, 501, 400, 415)}
    return [_case(repr(line), line + host, *also[status]) for line, status in lines]


def _heads() -> list[Case]:
    too_large = (400, 414, 431)
    ranges = b"Range: bytes=" + b",".join(b"%d-" % start for start in range(1000))
    many = _get(b"/", *[b"X%d: 1" % each for each in range(50_000)])
    return [
        _case("huge line", _get(b"/" + b"a" * 1_000_000), *too_large),
        _case("long line", _get(b"/" + b"a" * 10_000 + b".js"), 404, *too_large),
        _case("huge header", _get(b"/", b"X: " + b"a" * 1_000_000), *too_large),
        _case("endless head", _get(b"/", b"X: " + b"a" * 20_000)[:-4], *too_large),
        _case("many headers", many, *too_large),
        _case("no colon", _get(b"/", b"nonsense"), 200, 400),
        _case("no name", _get(b"/", b": x"), 200, 400),
        _case("folded", _get(b"/", b"X: 1\r\n and more"), 200, 400),
        _case("NUL in a header", _get(b"/", b"X: a\x00b"), 200, 400),
        _case("bytes in a header", _get(b"/", b"X: \xff\xfe"), 200, 400),
        _case("line feeds only", b"GET / HTTP/1.1\nHost: localhost\n\n", 200, 400),
        _case("many ranges", _get(b"/", ranges), 200, 206, 416),
        _case("upgrade", _get(b"/", b"Connection: Upgrade", b"Upgrade: websocket"), 200, 400, 426),
        _case("half a head", b"GET / HTTP/1.1\r\nHost: loc", 408, more=True),
        _case("half a line", b"GE", 408, more=True),
        _case("nothing at all", b"", more=True),
    ]


def _hosts() -> list[Case]:
    foreign = [
        *(b"evil.example", b"evil.example:80", b"[::1]evil.com", b"localhost:80@evil.com"),
        *(b"localhost.evil.com", b"127.0.0.1.evil.com", b"evil.com#localhost", b"localhost:80:80"),
        *(b"[::1", b"::1", b"[127.0.0.1]", b"localhost/", b"localhost:x", b"2130706433", b" "),
        *(b"localhost\xc2\xa0", b"localhost,evil.com", b"128.0.0.1", b"[::2]", b"[fe80::1%25lo]"),
    ]
    own = [b"LOCALHOST", b"localhost:8000", b"127.0.0.1", b"127.0.0.1:80", b"[::1]:8000", b"[::1]"]
    twice = _get(b"/", b"Host: evil.example")
    return [
        *(_case(f"host {each!r}", _get(b"/", host=each), 400, 404, 421) for each in foreign),
        *(_case(f"host {each!r}", _get(b"/", host=each), 200) for each in own),
        _case("no host", _get(b"/", host=None), 400),
        _case("two hosts", twice, 400),
        _case("HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n", 200),
    ]


def _paths() -> list[Case]:
    paths = [
        *(b"/../secret.js", b"/%2e%2e/secret.js", b"/..%2fsecret.js", b"/%252e%252e/secret.js"),
        *(b"/data/../../secret.js", b"//etc/passwd", b"/..\\secret.js", b"/..%5csecret.js"),
        *(b"/out.js", b"/a.js", b"/b.js", b"/self.js", b"/self.js/x.js", b"/pipe.js"),
        *(b"/data/", b"/data/build.json", b"/nothing.js", b"/index.html/x.js", b"/.js"),
        *(b"/x%00.js", b"/%00", b"/data%00/site.js", b"/%ff%fe.js", b"/%c0%ae%c0%ae/secret.js"),
        *(b"/%", b"/%zz.js", b"/%e2%80%ae.js", b"/%ed%a0%80.js", b"/a" * 2000 + b".js"),
        *(b"/\xff\xfe.js", b"/\x00.js", b"/\xe2\x82\xac.js"),
    ]
    return [_case(f"path {each[:30]!r}", _get(each), 400, 404, 414, 431) for each in paths]


def _bodies() -> list[Case]:
    kind = b"Content-Type: application/octet-stream"

    def post(*headers: bytes, body: bytes = b"", path: bytes = b"/api/search") -> bytes:
        return _get(path, kind, *headers).replace(b"GET", b"POST", 1) + body

    chunked, close = b"Transfer-Encoding: chunked", b"Connection: close"
    refused = (400, 405, 411, 413, 415, 422, 501, 503)
    lengthy, kind_too = b"Content-Length: 20000000000", b"Content-Type: text/plain"
    both = post(chunked, b"Content-Length: 3", body=b"0\r\n\r\n")
    huge = post(chunked, body=b"fffffffffffffff\r\nx")
    half = post(b"Content-Length: 1000", body=b"half of it")
    return [
        _case("no length", post(), *refused),
        _case("no number", post(b"Content-Length: many"), *refused),
        _case("negative", post(b"Content-Length: -1"), *refused),
        _case("two lengths", post(b"Content-Length: 1", b"Content-Length: 2", body=b"x"), *refused),
        _case("20 GB", post(lengthy, body=b"x"), *refused),
        _case("digits", post(b"Content-Length: " + b"9" * 5000), *refused),
        _case("20 GB on demand", post(lengthy, b"Expect: 100-continue"), 417, *refused),
        _case("another type", post(kind_too, close, body=b"x"), *refused),
        _case("no chunks", post(chunked, body=b"zzz\r\n"), *refused),
        _case("a bad second chunk", post(chunked, body=b"1\r\nx\r\nzzz\r\n"), *refused),
        _case("a huge chunk", huge, 408, *refused, more=True),
        _case("length and chunks", both, *refused),
        _case("no photo", post(b"Content-Length: 4", body=b"nope"), *refused),
        _case("elsewhere", post(b"Content-Length: 4", body=b"nope", path=b"/index.html"), *refused),
        _case("a body with GET", _get(b"/", b"Content-Length: 5") + b"hello", 200, 400),
        _case("half a body", half, 408, *refused, more=True),
    ]


def _conditions() -> list[Case]:
    return [
        _case("a file", _get(b"/index.html"), 200),
        _case("its head", _get(b"/index.html").replace(b"GET", b"HEAD", 1), 200),
        _case("no file's head", _get(b"/none.js").replace(b"GET", b"HEAD", 1), 404),
        _case("any tag", _get(b"/index.html", b"If-None-Match: *"), 304),
        _case("another tag", _get(b"/index.html", b'If-None-Match: "x"'), 200),
        _case("no tag", _get(b"/index.html", b"If-None-Match: \xff,,,"), 200, 400),
        _case("a part", _get(b"/index.html", b"Range: bytes=0-10"), 200, 206),
        _case("no part", _get(b"/index.html", b"Range: bytes=99999999-"), 200, 416),
        _case("no range", _get(b"/index.html", b"Range: x"), 200, 400),
    ]
