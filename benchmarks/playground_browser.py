"""What a visitor of a playground waits for: bytes of the first view, and frames while panning.

    python benchmarks/playground_browser.py [--site SITE] [--points 10000] [--json FILE]

Needs the extra `browser` and Chromium on the PATH. Without a site only the map is measured: points
of random places are panned for some seconds, by one movement of the pointer in each frame, and the
time from frame to frame is taken in the page. On a machine without a GPU Chromium draws them by
its software renderer. With a site also counted are the bytes that a browser receives, without
compression, until the first screen stands still.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import shutil
import statistics
import tempfile
import threading
from pathlib import Path

from playwright.sync_api import sync_playwright

import pyxai
from pyxai.playground.static_server import make_server

PAGES = Path(pyxai.__file__).parent / "playground" / "site"
FLAGS = ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]
FLAGS += ["--enable-unsafe-swiftshader"]
SECONDS = 4
PAGE = """<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="style.css">
<main id="main"></main><script src="scripts/elements.js"></script>
<script src="scripts/points.js"></script><script src="bench.js"></script>"""
# Places in clusters, as maps have them; a frame's time is that from one call to the next.
SCRIPT = """
function bench(count, milliseconds) {
  const points = new Points(() => {}, () => {}, () => {});
  document.getElementById("main").append(points.node);
  let state = 7;
  const random = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  const places = Uint16Array.from({ length: 2 * count }, () =>
    65535 * (0.05 + 0.9 * (Math.floor(random() * 5) / 5 + (random() * random()) / 5)));
  const colors = Uint8Array.from({ length: 4 * count }, (_, at) =>
    at % 4 === 3 ? 220 : 256 * random());
  points.show(places, colors);
  return new Promise((resolve) => {
    const times = [];
    const begin = performance.now();
    let last = begin;
    const frame = (now) => {
      times.push(now - last);
      last = now;
      points.move(0.004 * Math.cos(now / 300), 0.004 * Math.sin(now / 300));
      if (now - begin < milliseconds) requestAnimationFrame(frame);
      else resolve({ times: times.slice(10), webgl: Boolean(points._gl) });
    };
    requestAnimationFrame(frame);
  });
}
"""


@contextlib.contextmanager
def served(root):
    server = make_server(root, "127.0.0.1", 0, only_local=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()


def frames(browser, count):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(PAGES, root, dirs_exist_ok=True)
        (root / "index.html").write_text(PAGE)
        (root / "bench.js").write_text(SCRIPT)
        with served(root) as address:
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(address)
            found = page.evaluate("([count, ms]) => bench(count, ms)", [count, 1000 * SECONDS])
            page.close()
    times = sorted(found["times"])
    return {
        "points": count,
        "webgl": found["webgl"],
        "frames": len(times),
        "median_ms": round(statistics.median(times), 2),
        "p95_ms": round(times[int(0.95 * len(times))], 2),
        "frames_per_second": round(1000 * len(times) / sum(times), 1),
    }


def first_view(browser, site):
    with served(site) as address:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        sizes = []
        page.on("response", lambda answer: sizes.append(int(answer.headers["content-length"])))
        page.goto(address)
        page.wait_for_selector(".results li")
        page.wait_for_load_state("networkidle")
        page.close()
    photos = json.loads((site / "data" / "site.js").read_text().partition(", ")[2][:-3])["sets"]
    return {
        "photos": sum(each["photos"] for each in photos),
        "requests": len(sizes),
        "bytes": sum(sizes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--site", type=Path)
    parser.add_argument("--points", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))))
    report = {"date": datetime.date.today().isoformat(), "frames": [], "first_view": None}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        report["chromium"] = browser.version
        for count in arguments.points:
            row = frames(browser, count)
            report["frames"].append(row)
            print(
                "{points:7} points, WebGL {webgl}: {median_ms} ms a frame (95 %: {p95_ms} ms), "
                "{frames_per_second} frames a second".format(**row)
            )
        if arguments.site:
            row = report["first_view"] = first_view(browser, arguments.site)
            print(
                "first view of {photos} photos: {bytes:,} bytes, {requests} requests".format(**row)
            )
        browser.close()
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
