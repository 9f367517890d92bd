"""Window search: its cost beyond the network, what the cheaper modes save, and memory.

    pytest benchmarks/bench_sliding_window.py --benchmark-json=results.json     # one row a mode
    python benchmarks/bench_sliding_window.py [--rounds N] [--threads 1] [--json FILE]  # the ratios

289 windows of 160 x 160 on a photo of 800 x 800, the ResNet-18 of resnet.py. Bare forwards run on
windows that were cut, normalised and laid out beforehand, in the same chunks. Peak memory is that
of processes of their own, above what they held before the call: the embedded classifier, windows of
64 x 64, 32 a forward pass, 100 of them and 10,000.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import workloads
from resnet import ResNet18

import pyxai
from pyxai.classifier.batches import images_at_once

SIZE, WINDOW, STRIDE = 800, 160, 40
MODES = ("exhaustive", "shared", "dense")


def photo(size=SIZE):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, size, size), dtype=torch.uint8, generator=generator)


def bare_forwards(model, picture, layout=torch.contiguous_format):
    """The network on windows that wait in memory, in the chunks of the search."""
    mean, std = (
        torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    whole = (picture / 255 - mean) / std
    windows = whole.unfold(1, WINDOW, STRIDE).unfold(2, WINDOW, STRIDE)
    windows = windows.permute(1, 2, 0, 3, 4).reshape(-1, 3, WINDOW, WINDOW)
    chunks = windows.contiguous(memory_format=layout).split(images_at_once(windows))

    def call():
        with torch.no_grad():
            return [model(chunk) for chunk in chunks]

    return call


def search(model, picture, mode):
    return lambda: pyxai.sliding_window(model, picture, window=WINDOW, stride=STRIDE, mode=mode)


def sides():
    """What is timed, by name."""
    model, picture = ResNet18().eval(), photo()
    fast = pyxai.accelerate(model, probe=torch.randn(2, 3, WINDOW, WINDOW))
    half = pyxai.accelerate(model, dtype=torch.bfloat16, probe=torch.randn(2, 3, WINDOW, WINDOW))
    calls = {
        "bare forwards": bare_forwards(model, picture),
        "the same, channels last": bare_forwards(model, picture, torch.channels_last),
    }
    for name, network in (("", model), (", accelerated", fast), (", bfloat16", half)):
        for mode in MODES:
            calls[mode + name] = search(network, picture, mode)
    return calls


# ---- pytest-benchmark ----


@pytest.mark.parametrize("side", ["bare forwards", *MODES])
def bench_windows(benchmark, threads, side):
    benchmark.group = f"ResNet-18, 289 windows, threads={threads}"
    model, picture = ResNet18().eval(), photo()
    bare = side == "bare forwards"
    call = bare_forwards(model, picture) if bare else search(model, picture, side)
    benchmark.pedantic(call, warmup_rounds=1, rounds=3)


# ---- ratios ----


def measure(rounds):
    """Rows (side, s, ratio to the bare forwards, its range)."""
    calls = sides()
    times = workloads.in_turn(calls, rounds=rounds)
    rows = []
    for side in calls:
        shares = [a / b for a, b in zip(times[side], times["bare forwards"], strict=True)]
        rows.append(
            {
                "work": "ResNet-18, 800 x 800, 289 windows of 160",
                "threads": torch.get_num_threads(),
                "side": side,
                "s": statistics.median(times[side]),
                "ratio": statistics.median(shares),
                "low": min(shares),
                "high": max(shares),
            }
        )
        print(
            "{side:26} {threads} thr {s:8.3f} s  {ratio:6.3f} x bare forwards "
            "({low:.3f} to {high:.3f})".format(**rows[-1]),
            flush=True,
        )
    return rows


def peak(mode, windows):
    """Prints the peak memory of one search in this process, in MB, above what it held before."""
    classifier, side = pyxai.load_classifier("demo"), round(windows**0.5)
    picture = photo(64 + 7 * 99)
    stride = 7 * 99 // (side - 1)
    options = {"mode": mode, "batch_size": 32}
    pyxai.sliding_window(
        classifier, picture[:, :160, :160], window=64, **options
    )  # imports, first looks
    gc.collect()
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    found = pyxai.sliding_window(classifier, picture, window=64, stride=stride, **options)
    assert len(found.boxes) == windows
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            print(json.dumps(int(line.split()[1]) * 1024 / 1e6 - before / 1e6))


def memory(threads):
    """Rows (mode, windows, MB), each from a process of its own."""
    rows = []
    for mode in MODES:
        for windows in (100, 10_000):
            command = [sys.executable, __file__, "--threads", str(threads)]
            # The system's own allocator settings: the warm ones never give anything back.
            usual = {name: os.environ[name] for name in os.environ if not name.startswith("MALLOC")}
            output = subprocess.run(
                [*command, "--peak", mode, str(windows)],
                capture_output=True,
                text=True,
                check=True,
                env=usual,
            ).stdout
            rows.append(
                {
                    "work": "demo classifier, 757 x 757, windows of 64, peak memory",
                    "threads": threads,
                    "side": mode,
                    "windows": windows,
                    "mb": float(output.splitlines()[-1]),
                }
            )
            print("{side:26} {windows:6} windows {mb:8.0f} MB".format(**rows[-1]), flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak:
        peak(options.peak[0], int(options.peak[1]))
        return
    workloads.keep_allocator_warm()
    rows = measure(options.rounds) + memory(options.threads)
    if options.json:
        workloads.save(options.json, rows, ["torch"])


if __name__ == "__main__":
    main()
