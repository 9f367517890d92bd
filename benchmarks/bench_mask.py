"""Blending of photos under masks against eager PyTorch.

    pytest benchmarks/bench_mask.py --benchmark-json=results.json   # every row, pytest-benchmark
    python benchmarks/bench_mask.py [--json FILE]                   # the ratios, both sides in turn

Rows of one group do the same work: masks over one photo, into a tensor that is used again.
"""

from __future__ import annotations

import statistics

import pytest
import torch
import workloads

from pyxai.ops import mask_blend

# masks, side of the masks, side of the photo
SHAPES = [(1, 7, 224), (32, 7, 224), (32, 14, 224), (16, 25, 800)]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
BACKGROUNDS = ["none", "colour", "picture"]


def blend_sides(shape, dtype, layout, background):
    """The ways to blend one photo under several masks."""
    count, low, size = shape
    masks = torch.rand(count, low, low)
    photo = torch.randn(1, 3, size, size).to(dtype).contiguous(memory_format=layout)
    behind = {
        "none": None,
        "colour": torch.randn(1, 3, 1, 1).to(dtype),
        "picture": torch.randn_like(photo),
    }[background]
    out = torch.empty((count, 3, size, size), dtype=dtype, memory_format=layout)
    return {
        "pyxai": lambda: mask_blend(photo, masks, behind, out=out),
        "eager": lambda: workloads.eager_blend(photo, masks, behind),
    }


# ---- pytest-benchmark ----


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("side", ["pyxai", "eager"])
def bench_blend(benchmark, threads, shape, dtype, layout, background, side):
    benchmark.group = f"blend {shape} {dtype} {layout} {background} threads={threads}"
    benchmark(blend_sides(shape, DTYPES[dtype], FORMATS[layout], background)[side])


# ---- ratios ----


def measure(rounds):
    """Rows (work, threads, ours in us, eager in us, ratio)."""
    rows = []
    cases = [
        (shape, dtype, layout, background)
        for shape in SHAPES
        for dtype in DTYPES
        for layout in FORMATS
        for background in BACKGROUNDS
    ]
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for shape, dtype, layout, background in cases:
            sides = blend_sides(shape, DTYPES[dtype], FORMATS[layout], background)
            times = workloads.in_turn(sides, rounds=rounds)
            rows.append(
                {
                    "work": "blend M{} {}->{}".format(*shape) + f" {dtype} {layout} {background}",
                    "threads": threads,
                    "ours": "pyxai",
                    "other": "eager",
                    "ours_us": 1e6 * statistics.median(times["pyxai"]),
                    "other_us": 1e6 * statistics.median(times["eager"]),
                    "ratio": workloads.ratio(times["eager"], times["pyxai"]),
                }
            )
            print(
                "{work:52} {threads} thr  {ours:6} {ours_us:9.1f} us  "
                "{other:6} {other_us:10.1f} us  {ratio:6.2f} x".format(**rows[-1]),
                flush=True,
            )
    return rows


if __name__ == "__main__":
    workloads.command_line(__doc__, measure, rounds=15)
