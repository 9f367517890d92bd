"""`pyxai.serve`: whom servers answer, how much they take, and for how long."""

from __future__ import annotations

import asyncio
import io
import struct
import threading
import time
import zlib

import pytest
from PIL import Image

from pyxai.images import Preprocessing
from pyxai.serve import photos
from pyxai.serve.guards import Addressed, Deadline, Headers, Refused, Uploads
from pyxai.serve.hosts import is_local, is_loopback
from pyxai.serve.jobs import Jobs
from pyxai.serve.limits import Limits
from pyxai.serve.photos import photo_of

# ---- hosts ----


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST", "LocalHost:8000", "localhost.", "localhost.:80"),
        *("127.0.0.1", "127.0.0.1:80", "127.1.2.3", "[::1]", "[::1]:65535", "[0:0::1]"),
    ],
)
def test_local_hosts(host):
    assert is_local(host)


@pytest.mark.parametrize(
    "host",
    [
        *(
            "[::1]evil.com",
            "localhost:80@evil.com",
            "localhost@evil.com",
            "evil.com",
            "localhost,x",
        ),
        *("localhost.evil.com", "127.0.0.1.evil.com", "evil.com/localhost", "localhost:80:80"),
        *("localhost:", "localhost:x", "localhost:-1", "localhost:123456", "", " ", ":80", "::1"),
        *("[::1", "::1]", "[127.0.0.1]", "[localhost]", "[::2]", "[::1%lo]", "[]", "128.0.0.1"),
        *(
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "0.0.0.0",
            "localhost\n",
            "localhost\0",
            "łocalhost",
        ),
        *("localhost..", "127.0.0.1.", "١٢٧.0.0.1", "[::ffff:8.8.8.8]", "łocalhost"),
    ],
)
def test_foreign_hosts(host):
    assert not is_local(host)


def test_where_only_this_machine_comes_in():
    assert all(map(is_loopback, ("127.0.0.1", "127.0.0.2", "::1", "localhost", "LOCALHOST")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "", "192.168.0.1", "example.com")))


# ---- guards ----


def call(app, *parts, method="POST", path="/", wait=0.0, gone=False, **headers):
    """What an application sends to a request, and what it had received when its answer began."""
    taken, sent = [], []

    async def receive():
        await asyncio.sleep(wait)
        taken.append(None)
        if len(taken) > len(parts):
            if not gone:
                await asyncio.sleep(60)
            return {"type": "http.disconnect"}
        more = gone or len(taken) < len(parts)
        return {"type": "http.request", "body": parts[len(taken) - 1], "more_body": more}

    async def send(message):
        sent.append({**message, "taken": len(taken)})

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [
            (name.lower().replace("_", "-").encode(), value.encode())
            for name, value in headers.items()
        ],
    }
    asyncio.run(app(scope, receive, send))
    return sent


def header(message, name):
    return dict(message["headers"]).get(name.encode())


class Echo:
    """Answers with the body, and counts."""

    def __init__(self):
        self.bodies = []

    async def __call__(self, scope, receive, send):
        message = await receive()
        assert not message["more_body"]
        self.bodies.append(message["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": message["body"]})


def test_uploads_come_whole():
    echo = Echo()
    uploads = Uploads(echo, Limits(body_bytes=10))
    assert call(uploads, b"one", b" two ", b"in", Content_Length="10")[1]["body"] == b"one two in"
    assert call(uploads, b"")[0]["status"] == 200
    assert call(uploads, b"", method="GET")[0]["status"] == 200
    assert echo.bodies == [b"one two in", b"", b""]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content_Length": "11"}, 413),
        ({"Content_Length": "9" * 5000}, 413),
        ({"Content_Type": "text/plain"}, 415),
        ({}, 415),
    ],
)
def test_the_headers_say_enough(headers, status):
    """It is answered before anything is read; the rest is then taken, and forgotten."""
    echo = Echo()
    uploads = Uploads(echo, Limits(body_bytes=10), types=["image/png"])
    start, *_, last = call(uploads, b"x" * 5, b"y" * 5, **{"Content_Type": "image/png", **headers})
    assert (start["status"], start["taken"]) == (status if headers else 200, 0 if headers else 2)
    if headers:
        assert (last["more_body"], last["taken"]) == (False, 2)
        assert not echo.bodies


def test_uploads_of_unknown_length_are_not_held_beyond_the_limit():
    echo = Echo()
    start, *_ = call(Uploads(echo, Limits(body_bytes=10)), b"x" * 6, b"x" * 6, b"x" * 6)
    assert (start["status"], start["taken"]) == (413, 2)
    assert not echo.bodies


def test_slow_uploads_are_given_up():
    uploads = Uploads(Echo(), Limits(upload_seconds=0.1))
    start, *_ = call(uploads, *[b"x"] * 1000, wait=0.02)
    assert start["status"] == 408
    assert start["taken"] < 20
    assert call(uploads, b"x")[0]["status"] == 200  # there is room again


def test_who_goes_away_is_forgotten():
    echo = Echo()
    uploads = Uploads(echo, Limits(uploads=1))
    assert call(uploads, b"half", gone=True) == []
    assert not echo.bodies
    assert call(uploads, b"x")[0]["status"] == 200


def test_uploads_beyond_the_room_are_not_read():
    room = 2

    async def all_of_them():
        go_on, inside, sent = asyncio.Event(), [], []

        async def app(scope, receive, send):
            inside.append(None)
            await go_on.wait()

        async def first():
            return {"type": "http.request", "body": b"x", "more_body": False}

        async def never():
            raise AssertionError("it is read")

        async def send(message):
            sent.append(message)

        uploads = Uploads(app, Limits(uploads=room))
        scope = {"type": "http", "method": "POST", "headers": []}
        # The client waits until it is told to send, as curl does for large files.
        asks = {**scope, "headers": [(b"expect", b"100-continue")]}
        admitted = [asyncio.create_task(uploads(scope, first, send)) for _ in range(room)]
        while len(inside) < room:
            await asyncio.sleep(0)
        await uploads(asks, never, send)
        go_on.set()
        await asyncio.gather(*admitted)
        return sent

    start, body, end = asyncio.run(all_of_them())
    assert start["status"] == 503
    assert int(header(start, "retry-after")) >= 1
    assert b"busy" in body["body"]
    assert end == {"type": "http.response.body", "body": b"", "more_body": False}


def test_room_is_free_again_after_a_fault():
    async def fails(scope, receive, send):
        raise ZeroDivisionError

    uploads = Uploads(fails, Limits(uploads=1))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            call(uploads, b"x")


def test_an_answer_has_to_begin_in_time():
    ended = []

    async def hangs(scope, receive, send):
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    start, body, _ = call(Deadline(hangs, Limits(job_seconds=0.05)))
    assert (start["status"], ended) == (503, [True])
    assert header(start, "retry-after")
    assert b"too long" in body["body"]


def test_an_answer_that_has_begun_may_take_its_time():
    async def slow(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(0.1)
        await send({"type": "http.response.body", "body": b"done"})

    sent = call(Deadline(slow, Limits(job_seconds=0.05)))
    assert sent[-1]["body"] == b"done"


def test_a_cancelled_request_is_not_answered():
    async def hangs(scope, receive, send):
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        call(Deadline(hangs, Limits()))


@pytest.mark.parametrize(
    ("path", "hosts", "status"),
    [
        ("/", ["localhost"], 200),
        ("/", [], 200),  # HTTP/1.0
        ("/", ["evil.com"], 404),
        ("/", ["localhost", "evil.com"], 400),
        ("*", ["localhost"], 400),
        ("http://[/x.js", ["localhost"], 400),
    ],
)
def test_requests_have_to_be_addressed_here(path, hosts, status):
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    named = [(b"host", host.encode()) for host in hosts]
    scope = {"type": "http", "method": "GET", "path": path, "headers": named}
    app = Headers(Addressed(Echo(), only_local=True), {"X-Extra": "1"})
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == status
    assert header(sent[0], "x-extra") == b"1"
    if status == 404:
        asyncio.run(Addressed(Echo(), only_local=False)(scope, receive, send))
        assert sent[3]["status"] == 200


# ---- jobs ----


def test_jobs_wait_for_each_other():
    running, most = [], []

    def job():
        running.append(None)
        most.append(len(running))
        time.sleep(0.02)
        running.pop()
        return "done"

    async def several():
        jobs = Jobs(2)
        return await asyncio.gather(*[jobs.run(job) for _ in range(8)])

    assert asyncio.run(several()) == ["done"] * 8
    assert max(most) == 2


def test_a_job_that_was_given_up_counts_until_it_is_done():
    go_on, begun = threading.Event(), threading.Event()

    def slow():
        begun.set()
        go_on.wait(10)

    async def given_up():
        jobs, ran = Jobs(1), []
        first = asyncio.create_task(jobs.run(slow))
        await asyncio.to_thread(begun.wait, 10)
        first.cancel()
        second = asyncio.create_task(jobs.run(lambda: ran.append("second")))
        third = asyncio.create_task(jobs.run(lambda: ran.append("third")))
        await asyncio.sleep(0.05)
        assert ran == []
        second.cancel()  # it never begins
        go_on.set()
        await third
        return ran

    assert asyncio.run(given_up()) == ["third"]


def test_what_a_job_raises_is_raised():
    async def fails():
        return await Jobs(1).run(lambda: 1 // 0)

    with pytest.raises(ZeroDivisionError):
        asyncio.run(fails())


# ---- photos ----


def png(width, height, **options):
    file = io.BytesIO()
    Image.new("RGB", (width, height), (10, 90, 30)).save(file, "PNG", **options)
    return file.getvalue()


def test_a_photo_is_opened():
    assert photo_of(png(40, 30)).size == (40, 30)
    assert photo_of(png(40, 30), [Preprocessing(), Preprocessing(resize=8)]).size == (40, 30)


@pytest.mark.parametrize(
    ("size", "preprocessing"),
    [
        ((4000, 2), Preprocessing(resize=256)),
        ((4000, 2), Preprocessing(resize=256, crop=224)),  # on the way there
        ((50_000, 220), Preprocessing(resize=192)),
        ((1200, 900), Preprocessing()),
    ],
    ids=str,
)
def test_what_would_be_huge_in_the_network_is_refused(size, preprocessing):
    with pytest.raises(Refused, match=r"at most [\d,]+ pixels.*got") as caught:
        photo_of(png(*size), [preprocessing])
    assert caught.value.status == 413


def test_a_photo_that_only_says_it_is_huge_is_not_decoded():
    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    for side in (8000, 12_000, 100_000):
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        with pytest.raises(Refused, match="at most 50,000,000 pixels") as caught:
            photo_of(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b""))
        assert caught.value.status == 413


@pytest.mark.parametrize("body", [b"", b"GIF89a", b"<svg>", png(40, 30)[:60], b"\0" * 1000])
def test_what_is_no_photo_is_refused(body):
    with pytest.raises(Refused) as caught:
        photo_of(body)
    assert caught.value.status == 422


def test_one_photo_is_decoded_at_a_time(monkeypatch):
    inside, most = [], []

    def decoded(body):
        inside.append(None)
        most.append(len(inside))
        time.sleep(0.01)
        inside.pop()
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr(photos, "_decoded", decoded)
    threads = [threading.Thread(target=photo_of, args=(b"",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
