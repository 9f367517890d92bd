"""The examples run as they stand."""

from __future__ import annotations

import importlib.util
import io
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

import pyxai

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "arguments", "says"),
    [
        ("service.py", ["--check", "24"], "24 requests from 8 clients, each answer as computed"),
        ("inference_loop.py", ["--batches", "2"], "ms an image, explained"),
        ("inference_loop.py", ["--batches", "2", "--dtype", "bfloat16"], "ms an image, explained"),
    ],
)
def test_example(script, arguments, says, tmp_path):
    package = str(Path(pyxai.__file__).parents[1])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert says in result.stdout


@pytest.fixture
def service(monkeypatch):
    """The small service, with two threads."""
    spec = importlib.util.spec_from_file_location("service_example", EXAMPLES / "service.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "WORKERS", 2)
    monkeypatch.setattr(module, "WAITING", 0)
    monkeypatch.setattr(module, "UPLOAD_SECONDS", 0.3)
    running = module.Service(0, module.Explainer("demo"))
    thread = threading.Thread(target=lambda: running.serve_forever(0.02), daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def wait_for_room(service):
    """Until those before are done: a client has its answer a little earlier."""
    while service._room._value < 2:
        time.sleep(0.01)


def connect(service):
    return socket.create_connection(("127.0.0.1", service.server_port), timeout=60)


def answer_to(service, length, body=b""):
    """The first bytes of the answer to a photo."""
    wait_for_room(service)
    with connect(service) as connection:
        connection.sendall(b"POST /explain HTTP/1.1\r\nContent-Length: " + length + b"\r\n\r\n")
        connection.sendall(body)
        return connection.recv(65536)[:12]


def strip():
    file = io.BytesIO()
    Image.new("RGB", (4000, 2)).save(file, "PNG")
    return file.getvalue()


def test_the_service_survives_its_clients(service, capfd):
    for length in (b"many", b"-1", b"0", b"9" * 5000):
        assert answer_to(service, length) == b"HTTP/1.0 400"
    assert answer_to(service, b"%d" % len(strip()), strip()) == b"HTTP/1.0 413"
    assert answer_to(service, b"4", b"nope") == b"HTTP/1.0 422"
    assert answer_to(service, b"4", b"no") == b""  # the rest never comes
    wait_for_room(service)
    with connect(service) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(b"POST /explain HTTP/1.1\r\nContent-Length: 9\r\n\r\n")
    wait_for_room(service)
    with connect(service), connect(service), connect(service) as third:
        assert third.recv(65536).startswith(b"HTTP/1.0 503")
    assert "Traceback" not in capfd.readouterr().err
