"""CAM kernels against eager PyTorch, and `pyxai.cam` against the bare forward pass.

    pytest benchmarks/bench_cam.py --benchmark-json=results.json   # every row, pytest-benchmark
    python benchmarks/bench_cam.py [--json FILE]                   # the ratios, both sides in turn

Rows of one group do the same work; "pyxai" is the public call, "pyxai kernel" the kernel by
address, without the Python around it. Results of former runs: benchmarks/results/.
"""

from __future__ import annotations

import pytest
import torch
import workloads
from resnet import ResNet18

import pyxai
from pyxai.ops import _native, cam_overlay, cam_project, cam_project_render

# images, channels, targets, side of the map, side of the picture
ONE_MAP = [(1, 512, 1, 7, 224), (1, 2048, 1, 7, 224), (32, 512, 1, 7, 224), (1, 512, 1, 25, 800)]
ALL_MAPS = [(1, 512, 60, 25, 800), (1, 2048, 1000, 7, 224)]


def by_address(name, *arguments):
    """A kernel without the Python around it: what is left when a call is compiled or amortised."""
    workspace = torch.empty(1 << 23, dtype=torch.uint8)
    kernel = getattr(_native.cpu, name)
    fixed = [each.data_ptr() if isinstance(each, torch.Tensor) else each for each in arguments]
    fixed += [workspace.data_ptr(), workspace.numel(), torch.get_num_threads()]

    def call(keep=(workspace, arguments)):
        if kernel(*fixed):
            raise RuntimeError("workspace too small")

    return call


def kernel_sides(shape):
    """The ways to render the maps of one shape."""
    images, channels, targets, low, size = shape
    features = torch.randn(images, channels, low, low)
    weights = torch.randn(images, targets, channels)
    matrix = workloads.interpolation_matrix(low, size)
    out = torch.empty(images, targets, size, size)
    out_bytes = torch.empty(images, targets, size, size, dtype=torch.uint8)
    maps = torch.empty(images, targets, low, low)
    square = (size, size)

    def eager_bytes():
        return (workloads.eager_interpolate(features, weights, size) * 255 + 0.5).to(torch.uint8)

    return {
        "pyxai": lambda: cam_project_render(features, weights, square, relu=True, out=out),
        "pyxai uint8": lambda: cam_project_render(
            features, weights, square, relu=True, dtype=torch.uint8, out=out_bytes
        ),
        "pyxai kernel": by_address(
            *("cam_project_render", features, 0, False, weights, True, maps),
            *(images, channels, targets, low * low),
            *(maps, images * targets, low, low, size, size, True, True, out, False),
        ),
        "eager interpolate": lambda: workloads.eager_interpolate(features, weights, size),
        "eager matrix": lambda: workloads.eager_matrix(features, weights, matrix),
        "eager uint8": eager_bytes,
    }


def projection_sides(shape, dtype=torch.float32):
    images, channels, targets, low, _ = shape
    features = torch.randn(images, channels, low, low).to(dtype)
    weights = torch.randn(images, targets, channels)
    typed, flat = weights.to(dtype), features.reshape(images, channels, -1)
    maps = torch.empty(images, targets, low, low)
    sizes = (images, channels, targets, low * low)
    code = _native.DTYPE_CODES[dtype]
    return {
        "pyxai": lambda: cam_project(features, weights),
        "pyxai kernel": by_address(
            "cam_project", features, code, False, weights, True, maps, *sizes
        ),
        "torch.bmm": lambda: torch.bmm(typed, flat),
    }


def overlay_sides(images, low, size):
    maps = torch.randn(images, low, low)
    photos = torch.randint(0, 256, (images, size, size, 3), dtype=torch.uint8)
    colors = torch.randint(0, 256, (256, 4), dtype=torch.uint8)
    table, out = colors[:, :3].float(), torch.empty_like(photos)
    rendering = (maps, images, low, low, size, size, False, True, out, True)
    return {
        "pyxai": lambda: cam_overlay(photos, maps, colors, out=out),
        "pyxai kernel": by_address("cam_overlay", *rendering, photos, colors),
        "eager": lambda: workloads.eager_overlay(photos, maps, table, 0.5),
    }


def call_sides(batch, size=224):
    model = ResNet18().eval()
    images = torch.randn(batch, 3, size, size)

    def forward():
        with torch.no_grad():
            return model(images)

    return {
        "pyxai.cam": lambda: pyxai.cam(model, images, method="cam"),
        "pyxai.cam, gradcam": lambda: pyxai.cam(model, images, method="gradcam"),
        "forward": forward,
    }


# ---- pytest-benchmark ----


@pytest.mark.parametrize("shape", ONE_MAP + ALL_MAPS, ids=str)
@pytest.mark.parametrize("side", ["pyxai", "pyxai uint8", "eager interpolate", "eager matrix"])
def bench_render(benchmark, threads, shape, side):
    benchmark.group = f"render {shape} threads={threads}"
    benchmark(kernel_sides(shape)[side])


@pytest.mark.parametrize("shape", ONE_MAP + ALL_MAPS, ids=str)
@pytest.mark.parametrize("side", ["pyxai", "torch.bmm"])
def bench_project(benchmark, threads, shape, side):
    benchmark.group = f"project {shape} threads={threads}"
    benchmark(projection_sides(shape)[side])


@pytest.mark.parametrize("size", [224, 800])
@pytest.mark.parametrize("side", ["pyxai", "eager"])
def bench_overlay(benchmark, threads, size, side):
    benchmark.group = f"overlay {size} threads={threads}"
    benchmark(overlay_sides(1, size // 32, size)[side])


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("side", ["pyxai.cam", "pyxai.cam, gradcam", "forward"])
def bench_call(benchmark, threads, batch, side):
    benchmark.group = f"whole call, ResNet-18, batch {batch}, threads={threads}"
    benchmark(call_sides(batch)[side])


# ---- ratios ----


def measure(rounds):
    """Rows (work, threads, ours, other, ours in s, other in s, ratio)."""
    rows = []

    def both(other):
        return [("pyxai", other), ("pyxai kernel", other)]

    def add(work, sides, pairs, count=rounds):
        times = workloads.in_turn(sides, rounds=count)
        for ours, other in pairs:
            rows.append(workloads.compared(work, times, ours, other))

    for count in (1, 2):
        torch.set_num_threads(count)
        for shape in ONE_MAP:
            floats = [
                (ours, other)
                for other in ("eager interpolate", "eager matrix")
                for ours in ("pyxai", "pyxai kernel")
            ]
            work = "one map N{} C{} {}->{}".format(*shape[:2], *shape[3:])
            add(work, kernel_sides(shape), [*floats, ("pyxai uint8", "eager uint8")])
        for shape in ALL_MAPS:
            work = "{} maps C{} {}->{}".format(shape[2], shape[1], *shape[3:])
            add(work, kernel_sides(shape), floats, max(rounds // 4, 5))
        for size in (224, 800):
            add(f"overlay {size}", overlay_sides(1, size // 32, size), both("eager"))
        for dtype in (torch.float32, torch.bfloat16):
            for shape in ONE_MAP + ALL_MAPS:
                name = str(dtype).removeprefix("torch.")
                work = "projection {} N{} C{} T{} {}x{}".format(name, *shape[:4], shape[3])
                add(work, projection_sides(shape, dtype), both("torch.bmm"))
        for batch in (1, 16):
            sides = call_sides(batch)
            pairs = [("pyxai.cam", "forward"), ("pyxai.cam, gradcam", "forward")]
            add(f"ResNet-18 call, batch {batch}", sides, pairs, rounds)
    return rows


if __name__ == "__main__":
    workloads.command_line(__doc__, measure, rounds=41)
