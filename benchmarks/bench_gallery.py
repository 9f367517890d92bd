"""Memory and speed of `pyxai.ClassGallery`: does either depend on the number of photos?

    python benchmarks/bench_gallery.py [--photos 100 10000] [--json FILE]

Each row is a process of its own. The network is tiny, so that what is measured is the gallery:
photos of 256 × 256 pixels made up on the fly (their crops are kept in memory) or read from JPEG
files, windows of 96, both kinds of evidence. Memory is the peak of the run above what the process
held before, with the system's own allocator settings.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import workloads
from PIL import Image
from torch import nn

import pyxai

SOURCES = ("generator", "files")
EVIDENCE = ("cam", "sliding_window")
_SIDE, _CROP, _CLASSES, _PER_CLASS = 256, 96, 4, 10
_FILES = 200  # different ones; the others are links to them


def network():
    """Strided convolutions, pooling and a head, with random weights."""
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 8, 7, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU()]
    model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, _CLASSES))
    nn.init.normal_(model[-1].weight, std=20)
    return model.eval()


def pixels(number):
    """A made-up photo: blobs of colour."""
    small = np.random.default_rng(number).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    side = (_SIDE, _SIDE)
    return np.asarray(Image.fromarray(small).resize(side, Image.Resampling.BICUBIC))


def folder_of_files(folder, count):
    """`count` names of a few JPEG files."""
    for number in range(count):
        path = folder / f"{number:06d}.jpg"
        if number < _FILES:
            data = io.BytesIO()
            Image.fromarray(pixels(number)).save(data, "JPEG", quality=90)
            path.write_bytes(data.getvalue())
        else:
            os.link(folder / f"{number % _FILES:06d}.jpg", path)


def gallery(evidence):
    return pyxai.ClassGallery(network(), _CROP, evidence=evidence, per_class=_PER_CLASS)


def run(evidence, source, photos):
    """One run in this process: prints its peak in MB and its speed."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if source == "files":
            folder_of_files(folder, photos)
        gallery(evidence).fit((pixels(number) for number in range(20)), progress=False)  # imports
        gc.collect()
        before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        start = time.perf_counter()
        made = (pixels(number) for number in range(photos))
        gallery(evidence).fit(folder if source == "files" else made, progress=False)
        seconds = time.perf_counter() - start
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            peak = int(line.split()[1]) * 1024
            print(json.dumps({"mb": (peak - before) / 1e6, "photos_per_second": photos / seconds}))


def measure(counts):
    rows = []
    # The system's own allocator settings: the warm ones never give anything back.
    usual = {name: os.environ[name] for name in os.environ if not name.startswith("MALLOC")}
    for evidence in EVIDENCE:
        for source in SOURCES:
            for photos in counts:
                command = [sys.executable, __file__, "--run", evidence, source, str(photos)]
                output = subprocess.run(
                    command, capture_output=True, text=True, check=True, env=usual
                ).stdout
                row = {"evidence": evidence, "source": source, "photos": photos}
                rows.append({**row, **json.loads(output.splitlines()[-1])})
                print(
                    "{evidence:16} {source:10} {photos:7} photos {mb:8.1f} MB "
                    "{photos_per_second:8.1f} photos/s".format(**rows[-1]),
                    flush=True,
                )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, nargs="+", default=[100, 10_000])
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        evidence, source, photos = options.run
        run(evidence, source, int(photos))
        return
    rows = measure(options.photos)
    if options.json:
        workloads.save(options.json, rows, ["torch", "scikit-learn", "pillow"])


if __name__ == "__main__":
    main()
