"""What does the playground's server do with requests that mean it no good, and how much memory?

    python -m benchmarks.torture server                       # a static server and a live one
    python -m benchmarks.torture server --uploads 100 --megabytes 19 --idle 1000

Each server is a process of its own, with its usual limits. It gets: every request of `_hostile.py`;
clients that send a byte a second, that go away in the middle, that say nothing, that read nothing;
and, the live one, uploads that are all there, slow or never finished, all at once. Prints how often
each status was answered, what the server wrote to its standard error, and its memory above idle.
Exit code 1 if a request was answered with another status than it may be, if anything was written,
if the server does not answer afterwards, or if memory grew by over 200 MB. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from benchmarks.torture._hostile import Case, ask, cases, make_traps, status_of
from benchmarks.torture._process import python

MOST_MB = 200.0
_NAMES = {None: "closed", 0: "no answer of a web server"}

_SERVE = """
import json, sys, torch, pyxai
from pyxai.serve.limits import Limits
torch.set_num_threads(1)
site, index, limits = json.loads(sys.argv[1])
live = {"models": pyxai.load_classifier("demo"), "index": index} if index else {}
ready = lambda address: print(address, flush=True)
pyxai.playground.serve(site, port=0, limits=Limits(**limits), ready=ready, **live)
"""


@dataclass
class Served:
    """A server in a process of its own.

    Attributes:
        process: it.
        port: where it listens.
        errors: a file with what it wrote to its standard error.
    """

    process: subprocess.Popen[str]
    port: int
    errors: IO[str]

    def output(self) -> str:
        """What it wrote to its standard error until now."""
        self.errors.seek(0)
        return self.errors.read()

    def is_alive(self) -> bool:
        """Whether it still hands out the site."""
        return ask(self.port, b"GET / HTTP/1.0\r\n\r\n")[0] == 200

    def forget_peak(self) -> None:
        """Measures the peak of memory from now on."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def memory(self, name: str) -> float:
        """Megabytes: VmRSS now, VmHWM at most."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024 / 1e6
        raise ValueError(f"no {name}")


@dataclass
class Report:
    """What came of it.

    Attributes:
        statuses: how often each was answered; None is a connection that only ended.
        wrong: requests that were answered with another status than they may be.
        peak: of memory, above idle, in megabytes.
        written: to standard error.
        alive: whether the server answers afterwards.
    """

    statuses: Counter[int | None] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    peak: float = 0.0
    written: str = ""
    alive: bool = False

    def faults(self) -> list[str]:
        """All that is not as it should be."""
        found = list(self.wrong)
        if self.written:
            found.append(f"written: {self.written}")
        if not self.alive:
            found.append("the server does not answer any more")
        if self.peak > MOST_MB:
            found.append(f"{self.peak:.0f} MB above idle")
        return found


def make_site(folder: Path) -> tuple[Path, Path]:
    """A small site with traps in it, and the folder of its features."""
    import pyxai

    random = np.random.default_rng(0)
    for number in range(4):
        path = folder / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (96, 128, 3), np.uint8)).save(path)
    site, index = folder / "site", folder / "index"
    pyxai.playground.build(
        pyxai.load_classifier("demo"),
        folder / "photos",
        site,
        settings=pyxai.playground.SiteSettings(
            units=0, explained=0, undesirable=0, galleries=False, maps=("pca",)
        ),
        index=index,
        progress=False,
    )
    make_traps(site)
    return site, index


@contextlib.contextmanager
def served(site: Path, index: Path | None = None, **limits: float) -> Iterator[Served]:
    """A server of a site; with the features a live one.

    Args:
        site: the folder.
        index: the folder of features.
        **limits: other than the usual ones.
    """
    told = json.dumps([str(site.resolve()), str(index.resolve()) if index else None, limits])
    with tempfile.TemporaryFile("w+") as errors:
        process = python("-c", _SERVE, told, stderr=errors)
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            if not address:
                errors.seek(0)
                raise RuntimeError(f"the server did not start: {errors.read()}")
            yield Served(process, int(address.rstrip("/").rpartition(":")[2]), errors)
        finally:
            process.terminate()
            process.wait()
            process.stdout.close()


def hostile(port: int, report: Report, *, at_once: int = 8) -> None:
    """Sends every request of `_hostile.py`."""

    def send(case: Case) -> None:
        status, answer = ask(port, case.sent, more=case.more)
        report.statuses[status] += 1
        if b"nobody's business" in answer:
            report.wrong.append(f"{case.name}: handed out what is none of the site")
        if status not in (case.statuses or {None}):
            report.wrong.append(f"{case.name}: {status}, not {sorted(case.statuses)}")

    with ThreadPoolExecutor(at_once) as threads:
        list(threads.map(send, cases()))


def go_away(port: int, count: int) -> None:
    """Clients that end the connection in the middle of a request or an answer."""
    post = b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
    post += b"Content-Type: application/octet-stream\r\n\r\n"
    get = b"GET /index.html HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for number in range(count):
        sent = (get, get[:20], post, post + b"x" * 1000, post + b"x" * 100_000, b"")[number % 6]
        with socket.create_connection(("127.0.0.1", port)) as connection:
            if number % 2:  # a reset, not an orderly end
                linger = (1).to_bytes(4, sys.byteorder) + (0).to_bytes(4, sys.byteorder)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.sendall(sent)
            if number % 3 == 0:
                time.sleep(0.01)


def drip(port: int, data: bytes, seconds: float) -> int | None:
    """The status that a client gets which sends a byte now and then, until it is answered."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(seconds)
        answer, left = b"", data
        with contextlib.suppress(ConnectionError):
            while True:
                connection.sendall(left[:1] or b"x")
                left = left[1:]
                try:
                    answer = connection.recv(65536)
                    break
                except TimeoutError:
                    continue
    return status_of(answer)


def upload(port: int, body: bytes, kind: str, wait: float) -> int | None:
    """The status of an upload that is "whole", "slow" or "unfinished"."""
    head = (
        "POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    sent = {"whole": len(body), "slow": len(body) // 2, "unfinished": len(body) - 1}[kind]
    view = memoryview(body)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        answer = b""
        with contextlib.suppress(ConnectionError):
            connection.settimeout(wait)
            connection.sendall(head.encode())
            connection.sendall(view[:sent])
            while not answer and kind == "slow" and sent < len(body):
                connection.sendall(view[sent : sent + 1])
                sent += 1
                connection.settimeout(0.2)
                with contextlib.suppress(TimeoutError):
                    answer = connection.recv(65536)
                connection.settimeout(wait)
            answer = answer or connection.recv(65536)
    return status_of(answer)


def uploads(port: int, report: Report, count: int, body: bytes, wait: float) -> None:
    """Sends a photo many times at once: a third whole, a third slowly, a third not to its end."""
    allowed = {"whole": {200, 503}, "slow": {408, 503}, "unfinished": {408, 503}}

    def send(number: int) -> None:
        kind = ("whole", "slow", "unfinished")[number % 3]
        status = upload(port, body, kind, wait)
        report.statuses[status] += 1
        if status not in allowed[kind]:
            report.wrong.append(f"upload {number}, {kind}: {status}")

    with ThreadPoolExecutor(count) as threads:
        list(threads.map(send, range(count)))


def hold_open(port: int, count: int, seconds: float) -> int:
    """How many of so many connections that say nothing the server has left after a time."""
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.setblocking(False)
            opened.append(connection)
        time.sleep(seconds)
        left = 0
        for connection in opened:
            try:
                while connection.recv(65536):
                    pass
            except BlockingIOError:
                left += 1
            except ConnectionError:
                pass
    return left


def photo_of_size(megabytes: float) -> bytes:
    """A PNG of noise that is a little smaller."""
    side = int((megabytes * 1e6 / 3) ** 0.5) - 2
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    return file.getvalue()


def watched(server: Served, work: Callable[[Report], None]) -> Report:
    """What came of some work, and how far memory went above what it was before."""
    report = Report()
    server.forget_peak()
    idle = server.memory("VmRSS")
    work(report)
    report.peak = server.memory("VmHWM") - idle
    report.alive = server.is_alive()
    report.written = server.output()
    return report


def torment(server: Served, report: Report, *, clients: int, idle: int, seconds: float) -> None:
    """All that needs no live server: hostile requests, slow and vanishing clients, silent ones.

    Args:
        server: it.
        report: gets what came of it.
        clients: how many send a byte a second, and how many go away.
        idle: connections that say nothing.
        seconds: after which the server should have given up a client.
    """
    line = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 1000
    with ThreadPoolExecutor(clients + 3) as threads:
        slow = [threads.submit(drip, server.port, line, seconds / 20) for _ in range(clients)]
        threads.submit(go_away, server.port, clients).result()
        threads.submit(hostile, server.port, report).result()
        for each in slow:
            status = each.result()
            report.statuses[status] += 1
            if status != 408:
                report.wrong.append(f"a byte now and then: {status}, not 408")
    left = hold_open(server.port, idle, seconds + 2)
    if left:
        report.wrong.append(f"{left} of {idle} silent connections are still open")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs it and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--uploads", type=int, default=100, help="at once")
    parser.add_argument("--megabytes", type=float, default=19, help="of each")
    parser.add_argument("--clients", type=int, default=60, help="that are slow, or go away")
    parser.add_argument("--idle", type=int, default=500, help="connections that say nothing")
    options = parser.parse_args(argv)
    faults = 0

    def tell(name: str, work: Callable[[Report], None], server: Served) -> None:
        nonlocal faults
        start = time.perf_counter()
        report = watched(server, work)
        found = report.faults()
        faults += len(found)
        by_status = sorted(report.statuses.items(), key=lambda item: item[0] or 0)
        told = ", ".join(f"{number} × {_NAMES.get(status, status)}" for status, number in by_status)
        seconds = time.perf_counter() - start
        print(f"{name}: {told}; {report.peak:.0f} MB above idle, {seconds:.0f} s")
        for each in found:
            print(f"  FAULT {each}")

    def attack(server: Served) -> Callable[[Report], None]:
        numbers: dict[str, Any] = {"clients": options.clients, "idle": options.idle}
        return lambda report: torment(server, report, seconds=10, **numbers)

    with tempfile.TemporaryDirectory() as folder:
        site, index = make_site(Path(folder))
        with served(site) as server:
            tell("static, hostile requests", attack(server), server)
        with served(site, index) as server:
            upload(server.port, photo_of_size(1), "whole", 60)  # the network has run once
            tell("live, hostile requests", attack(server), server)
            body = photo_of_size(options.megabytes)
            name = f"live, {options.uploads} uploads of {len(body) / 1e6:.1f} MB at once"
            tell(name, lambda it: uploads(server.port, it, options.uploads, body, 100), server)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
