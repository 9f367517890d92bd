"""An inference loop that explains every prediction, in memory that it reuses.

    python examples/inference_loop.py [--batches 20] [--dtype bfloat16]

One accelerated classifier, one output tensor for the maps, batches of 16 random images in place of
a camera or a data loader.
"""

from __future__ import annotations

import argparse
import time

import torch

import pyxai


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    arguments = parser.parse_args()
    dtype = None if arguments.dtype == "float32" else getattr(torch, arguments.dtype)
    classifier = pyxai.accelerate(pyxai.load_classifier("demo"), dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    images = torch.empty(16, 3, 224, 224)  # filled anew for each batch
    maps = torch.empty(16, 224, 224)
    seconds = []
    for _ in range(arguments.batches):
        images.normal_(generator=generator)
        start = time.perf_counter()
        _, logits = pyxai.cam(classifier, images, out=maps, return_logits=True)
        seconds.append(time.perf_counter() - start)
    probability, classes = logits.softmax(1).max(1)
    for row in range(3):
        y, x = divmod(int(maps[row].argmax()), maps.shape[2])
        name = classifier.class_name(int(classes[row]))
        print(f"image {row}: {name} {float(probability[row]):.2f}, strongest at x={x} y={y}")
    print(f"{1e3 * min(seconds) / 16:.1f} ms an image, explained")


if __name__ == "__main__":
    main()
