"""A small playground site with drawn photos, by the file format in docs/playground_files.md.

Nothing here is computed by a network: neighbours, maps and explanations follow from the drawing of
a photo, so that a test knows what a page has to show.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

SITE = Path(__file__).resolve().parents[1] / "pyxai" / "playground" / "site"
METRICS = ["cosine", "euclidean", "sqeuclidean", "manhattan"]
MEASURES = ["P@1", "P@10", "mAP"]
HOSTILE_PHOTO = "<img src=x onerror=alert(1)>.jpg"
HOSTILE_CLASS = "</script><script>alert(2)</script>"
CLASSES = ["circle", "square", "triangle", "cross", HOSTILE_CLASS]
COLORS = [(46, 110, 170), (214, 120, 40), (40, 140, 110), (200, 170, 60), (150, 80, 130)]
CHANNELS = 30


def write(folder: Path, address: str, value: object) -> None:
    """Write one data file: a script that hands JSON over."""
    path = folder / "data" / f"{address}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
    path.write_text(f'playground.receive("{address}", {text});\n', "ascii")


def array(values: np.ndarray) -> dict[str, Any]:
    """An array as a data file holds it."""
    kinds = {"u1": "uint8", "u2": "uint16", "u4": "uint32", "f4": "float32"}
    little = values.astype(values.dtype.newbyteorder("<"))
    data = base64.b64encode(little.tobytes()).decode("ascii")
    return {"type": kinds[values.dtype.str[1:]], "shape": list(values.shape), "data": data}


def draw(label: int, seed: int, size: tuple[int, int]) -> Image.Image:
    """A photo of a class: its shape in its colour on a soft ground."""
    rng = np.random.default_rng(seed)
    width, height = size
    sky, soil = rng.integers(150, 240, (2, 3))
    ramp = np.linspace(0, 1, height)[:, None, None]
    ground = (sky * (1 - ramp) + soil * ramp).repeat(width, 1) + rng.normal(
        0, 4, (height, width, 1)
    )
    photo = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(photo)
    radius = int(min(size) * rng.uniform(0.2, 0.38))
    x, y = (int(rng.uniform(radius, length - radius)) for length in size)
    box = (x - radius, y - radius, x + radius, y + radius)
    color = tuple(
        int(c) for c in np.clip(np.array(COLORS[label]) + rng.integers(-25, 25, 3), 0, 255)
    )
    if label == 0:
        pen.ellipse(box, color)
    elif label == 1:
        pen.rectangle(box, color)
    elif label == 2:
        pen.polygon([(x, y - radius), (x + radius, y + radius), (x - radius, y + radius)], color)
    else:
        bar = radius // (3 if label == 3 else 5)
        pen.rectangle((x - radius, y - bar, x + radius, y + bar), color)
        pen.rectangle((x - bar, y - radius, x + bar, y + radius), color)
    return photo


def save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, quality=80)


def texture(seed: int, side: int = 128) -> Image.Image:
    """A stand-in for the picture that excites a channel."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    waves = [np.sin(2 * np.pi * (a * x + b * y) + c) for a, b, c in rng.uniform(-6, 6, (3, 3))]
    return Image.fromarray(((np.stack(waves, -1) * 0.4 + 0.5) * 255).clip(0, 255).astype(np.uint8))


def make_site(folder: Path, photos: int = 60, *, live: bool = False, links: bool = False) -> Path:
    """Write a site of two sets (the second small, without explanations) and two networks.

    Args:
        folder: Where to; made.
        photos: Of the first set. Photo 3 has a hostile name, the last class too, and the last
            photo no class.
        live: Whether live.js says that a server answers.
        links: Many photos: a handful of pictures, the others hard links to them.
    """
    shutil.copytree(SITE, folder, dirs_exist_ok=True)
    networks = [_network(folder, m, name) for m, name in enumerate(["TinyNet", "WideNet-50"])]
    sets = [
        _photo_set(folder, 0, "Drawn shapes", photos, explained=min(photos, 45), links=links),
        _photo_set(folder, 1, "Few shapes", 12, explained=0, links=False),
    ]
    write(
        folder,
        "site",
        {
            "format": 1,
            "title": "Shapes",
            "made": "2026-11-27",
            "pyxai": "0.1.0",
            "k": 50,
            "metrics": METRICS,
            "measures": MEASURES,
            "sets": sets,
            "networks": networks,
        },
    )
    answers = {"available": True, "max_bytes": 10_000_000, "sets": [0, 1], "networks": [0, 1]}
    write(folder, "live", answers if live else {"available": False})
    return folder


def _network(folder: Path, m: int, name: str) -> dict[str, Any]:
    layers = []
    for depth, (layer, side) in enumerate([("stem.conv", 56), ("blocks.2.conv", 14), ("head", 7)]):
        at = f"networks/{m}/layers/{depth}"
        units = []
        for channel in range(CHANNELS):
            picture = folder / "data" / at / "units" / f"{channel}.jpg"
            save(texture(m * 1000 + depth * 100 + channel), picture)
            crops = []
            for i in range(4):
                photo = (channel * 3 + i * 7) % 45
                save(
                    draw(photo % 5, photo, (96, 96)),
                    folder / "data" / at / "crops" / f"{channel}-{i}.jpg",
                )
                box = [20, 20, 180, 180]
                response = round(9.5 - i * 0.7 - channel * 0.01, 3)
                crops.append({"set": 0, "photo": photo, "box": box, "response": response})
            dead = channel == 5
            units.append(
                {
                    "channel": channel,
                    "dead": dead,
                    "responses": [0.0, 0.0] if dead else [0.12, 8.4 + channel / 10],
                    "crops": [] if dead else crops,
                }
            )
        write(folder, f"{at}/units", {"units": units, "size": 128, "steps": 256, "seed": 0})
        layers.append(
            {
                "name": layer,
                "type": "Conv2d",
                "index": 1 + 4 * depth,
                "channels": 64 * (depth + 1),
                "positions": [side, side],
                "width": 64 * (depth + 1),
                "parameters": 9408 * (depth + 1) ** 2,
                "parameters_so_far": 9408 * (depth + 1) ** 3,
                "units": CHANNELS,
                "thumbnail": depth,
            }
        )
    modules = [
        {
            "name": layers[i // 4]["name"] if i % 4 == 1 else f"blocks.{i}.relu",
            "type": "Conv2d" if i % 4 == 1 else "ReLU",
            "parameters": layers[i // 4]["parameters"] if i % 4 == 1 else 0,
            "shape": [64 * (i // 4 + 1), 28, 28],
            "layer": i // 4 if i % 4 == 1 else None,
        }
        for i in range(12)
    ]
    write(folder, f"networks/{m}/modules", {"modules": modules})
    write(folder, f"networks/{m}/names", {"names": CLASSES})
    for k in range(len(CLASSES)):
        save(texture(7000 + m * 10 + k, 224), folder / "data" / f"networks/{m}/classes/{k}.jpg")
    return {
        "name": name,
        "parameters": 254_016 * (m + 1),
        "classes": len(CLASSES),
        "modules": 12,
        "layers": layers,
    }


def _photo_set(
    folder: Path, s: int, name: str, n: int, *, explained: int, links: bool
) -> dict[str, Any]:
    labels = np.arange(n) % len(CLASSES)
    labels[-1] = 65535
    _pictures(folder / "data" / f"sets/{s}", labels, links)
    folders = [*CLASSES[:4], "plus"]
    names = [f"{folders[i % 5]}/photo_{i:05}.jpg" for i in range(n)]
    names[3] = HOSTILE_PHOTO
    shown = [-1 if label == 65535 else int(label) for label in labels]
    for first in range(0, n, 1000):
        chunk = slice(first, first + 1000)
        sizes = [[640, 480] if i % 3 else [480, 640] for i in range(n)[chunk]]
        value = {"first": first, "names": names[chunk], "labels": shown[chunk], "sizes": sizes}
        write(folder, f"sets/{s}/photos-{first // 1000}", value)
    write(folder, f"sets/{s}/labels", {"labels": array(labels.astype(np.uint16))})
    rng = np.random.default_rng(s)
    for m in range(2):
        for depth in range(3):
            at = f"sets/{s}/networks/{m}/layers/{depth}"
            middle = rng.uniform(-1, 1, (len(CLASSES) + 1, 2))
            at_class = np.where(labels == 65535, len(CLASSES), labels)
            points = middle[at_class] + rng.normal(0, 0.5 / (depth + 1), (n, 2))
            _maps(folder, at, points)
            _neighbors(folder, at, labels, points)
        for first in range(0, n if explained else 0, 20):
            some = range(first, min(first + 20, n))
            here = [_explained(i) if i < explained else None for i in some]
            write(
                folder,
                f"sets/{s}/networks/{m}/explained-{first // 20}",
                {"first": first, "photos": here},
            )
        if s == 0:
            _galleries(folder, m)
    if s == 0:
        _retrieval(folder, n)
    return {
        "name": name,
        "photos": n,
        "classes": CLASSES,
        "sizes": [int((labels == k).sum()) for k in range(len(CLASSES))],
        "unreadable": 1,
        "maps": ["umap", "pca"],
        "explained": explained,
        "retrieval": s == 0,
        "galleries": s == 0,
        "start": {"photo": 2, "network": 0, "layer": 2, "metric": "cosine"},
    }


def _pictures(folder: Path, labels: np.ndarray, links: bool) -> None:
    for i, label in enumerate(labels):
        paths = [folder / kind / str(i // 1000) / f"{i}.jpg" for kind in ("thumbs", "photos")]
        if links and i >= 40:
            for path in paths[: 2 if i < 1000 else 1]:
                if i % 1000 == 0:
                    path.parent.mkdir(parents=True)
                os.link(path.parents[1] / "0" / f"{i % 40}.jpg", path)
            continue
        photo = draw(0 if label == 65535 else int(label), i, (640, 480) if i % 3 else (480, 640))
        thumb = photo.copy()
        thumb.thumbnail((128, 128))
        save(thumb, paths[0])
        save(photo, paths[1])


def _maps(folder: Path, at: str, points: np.ndarray) -> None:
    for method in ("pca", "umap"):
        plane = points if method == "pca" else np.tanh(points * 1.5)
        plane = plane - plane.min(0)
        plane = np.round(plane / plane.max() * 65535).astype(np.uint16)
        explained = [0.41, 0.17] if method == "pca" else None
        write(folder, f"{at}/map-{method}", {"points": array(plane), "explained": explained})


def _neighbors(folder: Path, at: str, labels: np.ndarray, points: np.ndarray) -> None:
    """Exact neighbours on the plane, by each metric; many photos: of the first, by cosine."""
    n = len(points)
    k = min(50, n - 1)
    few = n < 1000
    for number, metric in enumerate(METRICS if few else METRICS[:1]):
        for first in range(0, n if few else 300, 100):
            rows = points[first : first + 100]
            apart = np.abs(rows[:, None] - points[None])
            distances = (
                apart.sum(-1) if metric == "manhattan" else np.hypot(*apart.transpose(2, 0, 1))
            )
            if metric == "sqeuclidean":
                distances = distances**2
            if metric == "cosine":
                distances = np.minimum(distances / 3, 2)
                distances[:, (labels == number) & (np.arange(n) % 2 == 0)] += 0.01
            distances[np.arange(len(rows)), first + np.arange(len(rows))] = np.inf
            ids = np.argpartition(distances, k - 1, axis=1)[:, :k]
            order = np.argsort(np.take_along_axis(distances, ids, 1), axis=1, kind="stable")
            ids = np.take_along_axis(ids, order, 1)
            value = {
                "first": first,
                "ids": array(ids.astype(np.uint16 if n < 65536 else np.uint32)),
                "distances": array(np.take_along_axis(distances, ids, 1).astype(np.float32)),
                "typical": 2.0,
            }
            write(folder, f"{at}/neighbors-{metric}-{first // 100}", value)


def _explained(photo: int) -> dict[str, Any]:
    y, x = np.mgrid[0:14, 0:14]
    rng = np.random.default_rng(photo)
    label = photo % len(CLASSES)
    width, height = (640, 480) if photo % 3 else (480, 640)
    maps = []
    for kind, method, low, high in [
        ("cam", "gradcam", 0.0, 1.0),
        ("cam", "layercam", 0.0, 1.0),
        ("windows", "occlusion", -0.12, 0.43),
        ("undesirable", "background", 0.0, 0.3),
    ]:
        cx, cy = rng.uniform(3, 11, 2)
        blob = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / rng.uniform(8, 30))
        side = max(width, height)
        region = [
            (width - side) // 2,
            (height - side) // 2,
            (width + side) // 2,
            (height + side) // 2,
        ]
        maps.append(
            {
                "kind": kind,
                "method": method,
                "title": {"gradcam": "Grad-CAM", "layercam": "Layer-CAM"}.get(
                    method, method.title()
                ),
                "target": label,
                "region": region,
                "values": array((blob * 255).astype(np.uint8)),
                "low": low,
                "high": high,
                "facts": [["Probability", "0.71"], ["Layer", "head"]],
            }
        )
    top = [[label, 0.71], [(label + 1) % 5, 0.2], [(label + 2) % 5, 0.04]]
    return {"top": top, "maps": maps}


def _retrieval(folder: Path, n: int) -> None:
    rows = []
    for m in range(2):
        for depth in range(3):
            for number, metric in enumerate(METRICS):
                for k in [None, *range(len(CLASSES))]:
                    base = 0.3 + 0.2 * depth + 0.05 * m - 0.03 * number + 0.01 * (k or 0)
                    measures = [
                        [
                            round(base + shift, 3),
                            round(base + shift - 0.04, 3),
                            round(base + shift + 0.05, 3),
                        ]
                        for shift in (0.08, 0.0, -0.07)
                    ]
                    rows.append(
                        {
                            "network": m,
                            "layer": depth,
                            "metric": metric,
                            "class": k,
                            "queries": n if k is None else n // 5,
                            "measures": measures,
                        }
                    )
    value = {"chance": 0.19, "confidence": 0.95, "queries": n - 1, "skipped": 1, "rows": rows}
    write(folder, "sets/0/retrieval", value)


def _galleries(folder: Path, m: int) -> None:
    at = f"sets/0/networks/{m}"
    classes = []
    for k in range(len(CLASSES)):
        for i in range(9):
            path = folder / "data" / at / "crops" / f"{k}-{i}.jpg"
            save(draw(k, 100 + k * 10 + i, (96, 96)), path)
        crops = [
            {
                "i": i,
                "photo": None if i == 8 else k + 5 * i,
                "box": [0, 0, 200, 200],
                "score": 0.95 - i / 40,
            }
            for i in range(9)
        ]
        value = {"class": k, "note": "", "clusters": [crops[:5], crops[5:8]], "noise": crops[8:]}
        write(folder, f"{at}/class-{k}", value)
        classes.append(
            {
                "class": k,
                "crops": 9,
                "photos": 8,
                "clusters": 2,
                "label": k,
                "best": [0, 5],
                "picture": True,
            }
        )
    write(
        folder,
        f"{at}/classes",
        {"crop": 96, "evidence": "probability of the crop", "classes": classes},
    )


class Served:
    """A folder under an address, with what was asked of it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.sent: dict[str, int] = {}
        self.posted: list[tuple[str, bytes]] = []
        self.answer: tuple[int, dict[str, Any]] = (503, {"error": "No answer was set."})


@contextmanager
def served(folder: Path) -> Iterator[Served]:
    """Serve a folder on loopback; POST answers what the test has set."""

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def copyfile(self, source: Any, outputfile: Any) -> None:
            content = source.read()
            state.sent[self.path] = state.sent.get(self.path, 0) + len(content)
            outputfile.write(content)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.posted.append((self.path, body))
            status, value = state.answer
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exc_info()[1], ConnectionError):
                super().handle_error(request, client_address)

    server = Quiet(("127.0.0.1", 0), Handler)
    state = Served(f"http://127.0.0.1:{server.server_address[1]}/")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
