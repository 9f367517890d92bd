"""Ways to do the work of the CAM kernels, and a clock that runs them in turn."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional

import pyxai
from pyxai.ops import _native

# Without these glibc hands large blocks back to the system after every call, and both sides of a
# comparison measure page faults.
_WARM = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
    "MALLOC_TOP_PAD_": str(1 << 28),
}


def is_allocator_warm() -> bool:
    """Whether memory that was freed stays with the process, or that cannot be had."""
    return sys.platform != "linux" or all(name in os.environ for name in _WARM)


def keep_allocator_warm() -> None:
    """Starts the process again if memory that was freed would not stay with it (Linux)."""
    if not is_allocator_warm():
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **_WARM})


def eager_maps(features, weights, relu=True):
    """Low-resolution maps as people write them: batched product, ReLU, min-max."""
    images, channels, height, width = features.shape
    flat = features.reshape(images, channels, -1)
    maps = torch.bmm(weights.expand(images, -1, -1), flat).reshape(images, -1, height, width)
    maps = maps.relu() if relu else maps
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return (maps - low) / (high - low)


def eager_interpolate(features, weights, size):
    """The usual path: then `interpolate`."""
    return functional.interpolate(
        eager_maps(features, weights), size=(size, size), mode="bilinear", align_corners=False
    )


def interpolation_matrix(source, target):
    """Bilinear resizing along one axis as a matrix `[target, source]`."""
    eye = torch.eye(source).reshape(1, source, source, 1)
    resized = functional.interpolate(eye, (target, 1), mode="bilinear", align_corners=False)
    return resized.reshape(source, target).T.contiguous()


def eager_matrix(features, weights, matrix):
    """The best eager form we know: resizing as two matrix products."""
    return matrix @ eager_maps(features, weights) @ matrix.T


def eager_overlay(photos, maps, colors, opacity):
    """Upsample, look the colour up, blend, round."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    scaled = ((maps - low) / (high - low))[:, None]
    size = photos.shape[1:3]
    values = functional.interpolate(scaled, size, mode="bilinear", align_corners=False)[:, 0]
    painted = colors[(values * 255 + 0.5).long()]
    return (photos.float() * (1 - opacity) + painted * opacity).round().to(torch.uint8)


def eager_blend(images, masks, background=None):
    """As people write it: resize the masks, multiply, add."""
    size = images.shape[-2:]
    resized = functional.interpolate(masks[:, None], size, mode="bilinear", align_corners=False)
    resized = resized.to(images.dtype)
    if background is None:
        return images * resized
    return images * resized + background * (1 - resized)


def in_turn(
    sides: dict[str, Callable[[], object]], *, rounds: int, seconds: float = 0.01
) -> dict[str, list[float]]:
    """Times several callables in turn, so that a change of the machine's speed meets all of them.

    Returns:
        For each, one mean time in seconds a round; a round repeats short calls for `seconds`.
    """
    repeats = {}
    for name, call in sides.items():
        call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, int(seconds / max(time.perf_counter() - start, 1e-7)))
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, call in sides.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            times[name].append((time.perf_counter() - start) / repeats[name])
    return times


def ratio(slow: list[float], fast: list[float]) -> float:
    """The median of the ratios of each round."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def compared(work: str, times: dict[str, list[float]], ours: str, other: str) -> dict[str, object]:
    """The row of two sides of `in_turn`, in microseconds; printed as well."""
    row: dict[str, object] = {
        "work": work,
        "threads": torch.get_num_threads(),
        "ours": ours,
        "other": other,
        "ours_us": 1e6 * statistics.median(times[ours]),
        "other_us": 1e6 * statistics.median(times[other]),
        "ratio": ratio(times[other], times[ours]),
    }
    print(
        "{work:52} {threads} thr  {ours:18} {ours_us:10.1f} us  "
        "{other:18} {other_us:11.1f} us  {ratio:6.2f} x".format(**row),
        flush=True,
    )
    return row


def command_line(
    description: str, measure: Callable[[int], list[dict[str, object]]], rounds: int
) -> None:
    """The command line of a benchmark that needs torch alone: `[--json FILE] [--rounds N]`."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--rounds", type=int, default=rounds)
    arguments = parser.parse_args()
    keep_allocator_warm()
    rows = measure(arguments.rounds)
    if arguments.json:
        save(arguments.json, rows, ["torch"])


def save(path: Path, rows: list[dict[str, object]], packages: list[str]) -> None:
    """Writes rows with what is needed to read them later: date, command, versions, machine."""
    record = {
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["python", *sys.argv]),
        "pyxai": pyxai.__version__,
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "simd": _native.cpu.simd_level(),
        "cores": os.cpu_count(),
        "allocator": "warm",
        "rows": rows,
    }
    path.write_text(json.dumps(record, indent=1) + "\n")
