"""A learned mask against the straightforward PyTorch loop.

    python benchmarks/bench_learned_mask.py [--json FILE] [--rounds N]

The last rows are the peak memory of learning masks above that of the model and the images, each in
a process of its own where large blocks go back to the system once they are freed.

Both sides learn masks of F-TC for the same images on a network of ResNet-18's size, and both start
from the same masks. The straightforward loop is as people write it: interpolate, multiply, softmax,
`loss.backward()` through a model whose parameters need gradients, torch's Adam, clamp.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import torch
import workloads
from resnet import ResNet18
from torch.nn import functional

import pyxai
from pyxai.attribution.masks import undesirable_pixels
from pyxai.attribution.masks.blur import gaussian_blur

STEPS = 10


def straightforward(model, images, target, start, steps, gamma=0.3):
    """Masks `[N, 28, 28]` of F-TC."""
    background = gaussian_blur(images, 5.0, 11)
    rows = torch.arange(len(images), device=images.device)
    with torch.no_grad():
        original = model(images)
    mask = start.repeat(len(images), 1, 1, 1).requires_grad_()
    optimizer = torch.optim.Adam([mask], lr=0.1)
    for _ in range(steps):
        resized = functional.interpolate(mask, images.shape[2:], mode="bilinear")
        logits = model(images * resized + background * (1 - resized))
        change = logits - original
        others = (change.sum(1) - change[rows, target]) / (change.shape[1] - 1)
        down = functional.pad(mask[:, :, 1:] - mask[:, :, :-1], (0, 0, 0, 1))
        across = functional.pad(mask[:, :, :, 1:] - mask[:, :, :, :-1], (0, 1))
        rough = ((down**2 + across**2 + 1e-8).sqrt() - 1e-4).mean((1, 2, 3))
        penalty = 1.7 * rough + 3.0 * (1 - mask).mean((1, 2, 3))
        kept = gamma * others.abs()
        loss = (-logits.softmax(1)[rows, target] + penalty + kept).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            mask.clamp_(0, 1)
    return mask.detach()[:, 0]


def sides(batch, steps=STEPS):
    """The ways to learn masks of so many images."""
    model = ResNet18().eval()
    images = torch.randn(batch, 3, 224, 224)
    start = torch.rand(28, 28)
    with torch.no_grad():
        target = model(images).argmax(1)
    calls = {"straightforward": lambda: straightforward(model, images, target, start, steps)}
    networks = {
        "pyxai": model,
        "pyxai, accelerated": pyxai.accelerate(model),
        "pyxai, accelerated bfloat16": pyxai.accelerate(model, dtype=torch.bfloat16),
    }
    for name, network in networks.items():
        calls[name] = lambda network=network: undesirable_pixels(
            network, images, target, start=start, settings=pyxai.MaskSettings(steps=steps)
        )
    return calls


def measure(rounds):
    rows = []
    for threads, batch in itertools.product((1, 2), (1, 8)):
        torch.set_num_threads(threads)
        times = workloads.in_turn(sides(batch), rounds=rounds)
        slow = times["straightforward"]
        for name, seconds in times.items():
            row = {
                "threads": threads,
                "batch": batch,
                "side": name,
                "seconds_a_step": statistics.median(seconds) / STEPS / batch,
                "speedup": workloads.ratio(slow, seconds),
            }
            print(
                f"{threads} thr  batch {batch}  {name:28s} "
                f"{1000 * row['seconds_a_step']:7.1f} ms a step and mask  {row['speedup']:.2f} x",
                flush=True,
            )
            rows.append(row)
    return rows


def peak(steps, count):
    """Prints the peak memory of learning so many masks here, in MB, above what was held before."""
    torch.set_num_threads(1)
    model, images = ResNet18().eval(), torch.randn(count, 3, 224, 224)
    # Imports, first looks.
    undesirable_pixels(model, images[:1], settings=pyxai.MaskSettings(steps=1))
    gc.collect()
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    undesirable_pixels(model, images, batch_size=4, settings=pyxai.MaskSettings(steps=steps))
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            print(json.dumps(int(line.split()[1]) * 1024 / 1e6 - before / 1e6))


def memory():
    """Rows (steps, images, MB): four masks at a time."""
    rows = []
    others = {name: os.environ[name] for name in os.environ if not name.startswith("MALLOC")}
    for steps, count in ((5, 4), (50, 4), (5, 40)):
        code = f"import bench_learned_mask as b; b.peak({steps}, {count})"
        output = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**others, "MALLOC_MMAP_THRESHOLD_": "65536"},
            cwd=Path(__file__).parent,
        ).stdout
        row = {"work": "peak memory", "steps": steps, "images": count, "mb": float(output)}
        print("peak memory, {steps:3} steps, {images:3} images: {mb:6.0f} MB".format(**row))
        rows.append(row)
    return rows


if __name__ == "__main__":
    workloads.command_line(__doc__, lambda rounds: measure(rounds) + memory(), rounds=5)
