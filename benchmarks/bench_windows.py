"""Windows over a photo against eager PyTorch: cut, normalised, resized; and put back as a heat map.

    pytest benchmarks/bench_windows.py --benchmark-json=results.json   # every row, pytest-benchmark
    python benchmarks/bench_windows.py [--json FILE]                   # the ratios, in turn

Rows of one group do the same work: from a decoded photo, `[800, 800, 3]` bytes, to the windows of
160 x 160 that a network takes, normalisation included; the ring makes the same windows, a few at a
time in the same memory.
"""

from __future__ import annotations

import pytest
import torch
import workloads
from torch.nn import functional

from pyxai.ops import crop_windows, reference, window_heatmap

SIDE, WINDOW = 800, 160
STRIDES = {81: 80, 289: 40}  # windows: stride
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# dtype, memory format, size of the windows
CROPS = {
    "float32": (torch.float32, torch.contiguous_format, WINDOW),
    "bfloat16": (torch.bfloat16, torch.contiguous_format, WINDOW),
    "channels_last": (torch.float32, torch.channels_last, WINDOW),
    "resized": (torch.float32, torch.contiguous_format, 224),
    "resized channels_last": (torch.float32, torch.channels_last, 224),
}
RINGS = [8, 16]
# boxes, maps; the boxes of a grid, or anywhere
HEATMAPS = {"grid": (289, 1), "grid, all classes": (289, 60), "anywhere": (10_000, 1)}


def grid_boxes(stride):
    starts = torch.arange(0, SIDE - WINDOW + 1, stride)
    y, x = torch.meshgrid(starts, starts, indexing="ij")
    return torch.stack((x, y, x + WINDOW, y + WINDOW), dim=-1).reshape(-1, 4)


def eager_windows(photo, stride, case, mean=None, std=None):
    """As people write it: normalise, unfold, resize."""
    dtype, layout, size = CROPS[case]
    if mean is None:
        mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    values = ((photo.float() / 255 - mean) / std).to(dtype)
    windows = values.unfold(1, WINDOW, stride).unfold(2, WINDOW, stride)
    windows = windows.permute(1, 2, 0, 3, 4).contiguous().reshape(-1, 3, WINDOW, WINDOW)
    if size != WINDOW:
        windows = functional.interpolate(
            windows, (size, size), mode="bilinear", align_corners=False
        )
    return windows.contiguous(memory_format=layout)


def crop(photo, boxes, case, out=None):
    dtype, layout, size = CROPS[case]
    return crop_windows(
        photo, boxes, size, mean=MEAN, std=STD, dtype=dtype, memory_format=layout, out=out
    )


def crop_sides(count, case):
    photo = torch.randint(0, 256, (SIDE, SIDE, 3), dtype=torch.uint8).permute(2, 0, 1)
    boxes = grid_boxes(STRIDES[count])
    return {
        "pyxai": lambda: crop(photo, boxes, case),
        "eager": lambda: eager_windows(photo, STRIDES[count], case),
    }


def ring_sides(count, case, ring):
    """All windows one after the other in the same memory, or all at once."""
    photo = torch.randint(0, 256, (SIDE, SIDE, 3), dtype=torch.uint8).permute(2, 0, 1)
    boxes = grid_boxes(STRIDES[count])
    dtype, layout, size = CROPS[case]
    out = torch.empty((ring, 3, size, size), dtype=dtype).contiguous(memory_format=layout)

    def in_parts():
        for some in boxes.split(ring):
            crop(photo, some, case, out[: len(some)])

    return {f"ring of {ring}": in_parts, "at once": lambda: crop(photo, boxes, case)}


def heatmap_sides(case):
    count, maps = HEATMAPS[case]
    boxes = grid_boxes(STRIDES[289])
    if case == "anywhere":
        first = torch.randint(0, SIDE - 1, (count, 2))
        boxes = torch.cat((first, (first + torch.randint(1, 400, (count, 2))).clamp(max=SIDE)), 1)
    scores = torch.randn(maps, len(boxes))
    out = torch.empty(maps, SIDE, SIDE)
    return {
        "pyxai": lambda: window_heatmap(scores, boxes, (SIDE, SIDE), out=out),
        "reference": lambda: reference.window_heatmap(scores, boxes, (SIDE, SIDE)),
    }


# ---- pytest-benchmark ----


@pytest.mark.parametrize("case", CROPS)
@pytest.mark.parametrize("count", STRIDES)
@pytest.mark.parametrize("side", ["pyxai", "eager"])
def bench_crop(benchmark, threads, count, case, side):
    benchmark.group = f"{count} windows {case} threads={threads}"
    benchmark(crop_sides(count, case)[side])


@pytest.mark.parametrize("case", CROPS)
@pytest.mark.parametrize("count", STRIDES)
@pytest.mark.parametrize("ring", RINGS)
def bench_ring(benchmark, threads, count, case, ring):
    benchmark.group = f"{count} windows {case} threads={threads}"
    benchmark(ring_sides(count, case, ring)[f"ring of {ring}"])


@pytest.mark.parametrize("case", HEATMAPS)
@pytest.mark.parametrize("side", ["pyxai", "reference"])
def bench_heatmap(benchmark, threads, case, side):
    benchmark.group = f"heat map {case} threads={threads}"
    benchmark(heatmap_sides(case)[side])


# ---- ratios ----


def comparisons():
    """(work, both sides, ours first) for each row."""
    for count in STRIDES:
        for case in CROPS:
            yield f"{count} windows {case}", crop_sides(count, case)
        for case in ("float32", "channels_last", "resized"):
            for ring in RINGS:
                yield f"{count} windows {case}", ring_sides(count, case, ring)
    for case in HEATMAPS:
        yield f"heat map {case}", heatmap_sides(case)


def measure(rounds):
    """Rows (work, threads, ours in us, the other in us, ratio)."""
    rows = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for work, sides in comparisons():
            times = workloads.in_turn(sides, rounds=rounds)
            ours, other = sides
            rows.append(workloads.compared(work, times, ours, other))
    return rows


if __name__ == "__main__":
    workloads.command_line(__doc__, measure, rounds=15)
