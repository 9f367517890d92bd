"""A small service: POST a photo, get the prediction and an overlay of where the model looked.

    python examples/service.py                        # then: curl --data-binary @photo.jpg \
                                                      #   localhost:8000/explain -o overlay.jpg -D -
    python examples/service.py --check 200            # starts it, sends 200 requests, checks all

Eight threads share one model. The answer is a JPEG; class, probability, and how far the map is
from adding up to the logit are in its headers. Bound to this machine only; put a real web server in
front.
"""

from __future__ import annotations

import argparse
import http.client
import io
import os
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch
from PIL import Image
from sklearn.datasets import load_sample_images

import pyxai
from pyxai.draw import overlay
from pyxai.serve.guards import Refused
from pyxai.serve.photos import photo_of

WORKERS = 8
WAITING = 64  # connections that wait for one of them
LARGEST_BODY = 20_000_000  # bytes
UPLOAD_SECONDS = 30


class Explainer:
    """Prediction and overlay of one photo; may be called from several threads at once."""

    def __init__(self, model: str) -> None:
        self.classifier = pyxai.load_classifier(model)
        self.fast = pyxai.accelerate(self.classifier)

    def __call__(self, body: bytes) -> tuple[bytes, dict[str, str]]:
        photo = photo_of(body, [self.classifier.preprocessing])
        maps, logits, report = pyxai.cam(
            self.fast, photo, size=None, relu=True, return_logits=True, return_report=True
        )
        region = self.classifier.preprocessing.region(photo.size)
        picture = io.BytesIO()
        overlay(photo, maps[0], region=region).save(picture, "JPEG", quality=85)
        probability, index = logits[0].softmax(0).max(0)
        (method, by_layer), *_ = report.items()
        headers = {
            "X-Class": quote(self.classifier.class_name(int(index))),
            "X-Probability": f"{float(probability):.4f}",
            "X-Method": method,
        }
        for told in by_layer.values():
            if "gap" in told:
                headers["X-Gap"] = f"{float(told['gap'][0, 0]):.1e}"
        return picture.getvalue(), headers


class Handler(BaseHTTPRequestHandler):
    """Answers POST /explain."""

    explain: Explainer
    timeout = 30

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        is_number = length.isdecimal() and len(length) <= 8
        if self.path != "/explain" or not is_number or not 0 < int(length) <= LARGEST_BODY:
            self.send_error(400, "expected a photo of at most 20 MB, sent to /explain")
            return
        body = self._body(int(length))
        try:
            picture, headers = self.explain(body)
        except Refused as error:  # what is wrong with the photo; never a traceback
            self.send_error(error.status, error.reason.splitlines()[0][:200])
            return
        except ValueError as error:
            self.send_error(422, str(error).splitlines()[0][:200])
            return
        self.send_response(200)
        self.send_header("Content-Type", "image/jpeg")
        self.send_header("Content-Length", str(len(picture)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(picture)

    def _body(self, length: int) -> bytes:
        """What is sent; the time is for all of it, not for each part."""
        until, parts = time.monotonic() + UPLOAD_SECONDS, []
        while length > 0:
            self.connection.settimeout(max(0.001, until - time.monotonic()))
            part = self.rfile.read1(min(length, 65_536))
            if not part:
                raise ConnectionError("the client went away")
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def log_message(self, *arguments: Any) -> None:
        """Says nothing."""


class Service(HTTPServer):
    """A fixed number of threads, so that load cannot multiply memory."""

    request_queue_size = 64

    def __init__(self, port: int, explain: Explainer) -> None:
        super().__init__(("127.0.0.1", port), type("Bound", (Handler,), {"explain": explain}))
        self._pool = ThreadPoolExecutor(WORKERS)
        self._room = threading.BoundedSemaphore(WORKERS + WAITING)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            self._pool.submit(self._answer, request, client_address)
        else:
            request.sendall(b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 2\r\n\r\n")
            self.shutdown_request(request)

    def _answer(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except OSError:  # the client went away, or was too slow
            pass
        except Exception:
            self.handle_error(request, client_address)
        finally:
            self.shutdown_request(request)
            self._room.release()


def resident_megabytes() -> float:
    """Memory of this process (Linux; 0 elsewhere)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return 0.0


def check(service: Service, explain: Explainer, requests: int) -> None:
    """Sends photos from as many clients as there are threads; each answer must be the right one."""
    bodies = []
    for pixels in load_sample_images().images:
        for size in (320, 200, 260):
            file = io.BytesIO()
            Image.fromarray(pixels).resize((size, size * 2 // 3)).save(file, "JPEG")
            bodies.append(file.getvalue())
    expected = [explain(body) for body in bodies]
    threading.Thread(target=service.serve_forever, daemon=True).start()

    def send(index: int) -> float:
        body = bodies[index % len(bodies)]
        start = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", service.server_port, timeout=60)
        connection.request("POST", "/explain", body)
        answer = connection.getresponse()
        picture = answer.read()
        connection.close()
        if answer.status != 200:
            raise RuntimeError(f"request {index}: {answer.status} {answer.reason}")
        wanted, headers = expected[index % len(bodies)]
        if picture != wanted or any(answer.headers[name] != headers[name] for name in headers):
            raise RuntimeError(f"request {index}: another answer than the photo has alone")
        return time.perf_counter() - start

    with ThreadPoolExecutor(WORKERS) as clients:
        list(clients.map(send, range(min(requests, 50))))  # memory settles
        before = resident_megabytes()
        start = time.perf_counter()
        seconds = sorted(clients.map(send, range(requests)))
    wall = time.perf_counter() - start
    print(
        f"{requests} requests from {WORKERS} clients, each answer as computed alone: "
        f"{requests / wall:.0f} a second, median {1e3 * statistics.median(seconds):.0f} ms, "
        f"99 % within {1e3 * seconds[int(0.99 * (requests - 1))]:.0f} ms, "
        f"memory {before:.0f} -> {resident_megabytes():.0f} MB"
    )
    service.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument("--check", type=int, metavar="N", help="send N requests, then stop")
    arguments = parser.parse_args()
    # Threads of requests keep the cores busy; threads within a request would only compete.
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // WORKERS))
    explain = Explainer(arguments.model)
    service = Service(0 if arguments.check else arguments.port, explain)
    if arguments.check:
        check(service, explain, arguments.check)
        return
    print(f"POST photos to http://127.0.0.1:{service.server_port}/explain")
    service.serve_forever()


if __name__ == "__main__":
    main()
