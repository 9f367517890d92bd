"""What a visitor of a playground waits for: frames of the map, and bytes of the first screen.

Opens a site of many drawn photos in a Chromium that is already there, drags the map for some
seconds, and prints how long the frames took. A machine without a GPU draws in software. With a
site of your own: how many bytes a browser gets, uncompressed, until its first screen stands still.

    python benchmarks/playground_frames.py --points 10000
    python benchmarks/playground_frames.py --site SITE
"""

from __future__ import annotations

import argparse
import math
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from playground_site import make_site, served

RECORD = """() => {
  globalThis.frames = [];
  let last = performance.now();
  const note = (now) => {
    frames.push(now - last);
    last = now;
    requestAnimationFrame(note);
  };
  requestAnimationFrame(note);
}"""


def first_screen(chromium, options) -> None:
    page, sizes = chromium.new_page(viewport={"width": 1280, "height": 800}), []
    page.on("response", lambda answer: sizes.append(len(answer.body())))
    with served(options.site) as server:
        page.goto(server.address)
        page.locator(".results li").first.wait_for()
        page.wait_for_load_state("networkidle")
    chromium.close()
    print(f"{options.site.name}: first screen {sum(sizes):,} bytes in {len(sizes)} requests")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    parser.add_argument("--site", type=Path, help="measure its first screen, and no frames")
    parser.add_argument("--canvas", action="store_true", help="without WebGL")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-background-networking", "--enable-unsafe-swiftshader"]
    if options.site:
        with sync_playwright() as driver:
            first_screen(
                driver.chromium.launch(executable_path=options.chromium, args=flags), options
            )
        return
    if options.canvas:
        flags += ["--disable-3d-apis"]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        site = make_site(Path(folder) / "site", options.points, links=True)
        chromium = driver.chromium.launch(executable_path=options.chromium, args=flags)
        page = chromium.new_page(viewport={"width": 1280, "height": 800})
        with served(site) as server:
            page.goto(f"{server.address}#/map")
            page.locator(".scatter").wait_for()
            page.wait_for_timeout(1500)
            renderer = page.locator(".scatter").get_attribute("data-renderer")
            page.mouse.move(500, 400)
            page.mouse.down()
            page.evaluate(RECORD)
            began = time.perf_counter()
            while (passed := time.perf_counter() - began) < options.seconds:
                page.mouse.move(500 + 200 * math.sin(3 * passed), 400 + 120 * math.sin(2 * passed))
            frames = page.evaluate("frames")[5:]
        chromium.close()
    frames.sort()
    print(
        f"{options.points} points by {renderer}: {len(frames)} frames, "
        f"median {statistics.median(frames):.1f} ms, "
        f"95th percentile {frames[int(0.95 * len(frames))]:.1f} ms, worst {frames[-1]:.1f} ms"
    )


if __name__ == "__main__":
    main()
