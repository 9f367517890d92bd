"""Training a head on features that are computed once, against running the network in every epoch.

    python benchmarks/bench_fine_tune.py [--photos N] [--epochs N] [--json FILE]

The network is pyxai's demo classifier, the photos are noise with a tint. Both sides train the same
head on the same photos, and the largest difference of their weights is printed beside the times.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import pyxai
from pyxai.train import frozen


def make_photos(folder, count, side=128):
    random = np.random.default_rng(0)
    for label, tint in (("dark", 0), ("light", 60)):
        (folder / label).mkdir()
        for number in range(count // 2):
            pixels = random.integers(0, 196, (side, side, 3), np.uint8) + np.uint8(tint)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")


def timed(photos, budget, **options):
    before, frozen.FEATURE_BYTES = frozen.FEATURE_BYTES, budget
    try:
        start = time.perf_counter()
        result = pyxai.fine_tune(pyxai.load_classifier("demo"), photos, progress=False, **options)
        return time.perf_counter() - start, result
    finally:
        frozen.FEATURE_BYTES = before


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        make_photos(Path(folder), arguments.photos)
        for augment in ("none", "mirror"):
            options = {"augment": augment, "epochs": arguments.epochs}
            kept, first = timed(folder, 1 << 30, **options)
            anew, second = timed(folder, 0, **options)
            assert first.features_kept
            assert not second.features_kept
            weights = [each.classifier.network.head.weight.detach() for each in (first, second)]
            difference = float((weights[0] - weights[1]).abs().max())
            rows.append({"augment": augment, "kept_s": kept, "anew_s": anew, "ratio": anew / kept})
            print(
                f"{augment}: kept {kept:.2f} s, anew {anew:.2f} s, {anew / kept:.1f} times; "
                f"weights differ by {difference:.1e}"
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
