"""Kernels and whole calls on a CUDA device against eager PyTorch and torch.compile.

    python -m benchmarks.gpu_kernels [kernels] [calls] [--json FILE] [--rounds N] [--small]

All sides of a row run in turn in one process, timed by CUDA events; `benchmarks.gpu` calls this.
`--small` takes shapes that are done in no time, to see that everything runs.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

import pyxai
from pyxai.ops import (
    cam_overlay,
    cam_project_render,
    crop_windows,
    mask_blend,
    mask_penalized_step_,
    reference,
    window_heatmap,
)

sys.path.insert(0, str(Path(__file__).parent))  # the neighbours are scripts

import workloads
from bench_learned_mask import straightforward
from bench_windows import CROPS, MEAN, STD, eager_windows, grid_boxes
from gpu_timing import graphed, in_turn, roofs
from resnet import ResNet18, ResNet50

DEVICE = "cuda"
Sides = dict[str, Callable[[], object]]


def compiled(function):
    """torch.compile with static shapes; each row compiles anew."""
    torch._dynamo.reset()
    return torch.compile(function, dynamic=False)


def map_sides(images, channels, targets, low, size):
    features = torch.randn(images, channels, low, low, device=DEVICE)
    weights = torch.randn(images, targets, channels, device=DEVICE)
    out = torch.empty(images, targets, size, size, device=DEVICE)
    fast = compiled(workloads.eager_interpolate)

    def ours():
        return cam_project_render(features, weights, (size, size), relu=True, out=out)

    return {
        "pyxai": ours,
        "pyxai in a graph": graphed(ours),
        "eager": lambda: workloads.eager_interpolate(features, weights, size),
        "torch.compile": lambda: fast(features, weights, size),
    }, out.nbytes + features.nbytes


def map_bfloat16_sides(images, channels, targets, low, size):
    """Features in bfloat16, maps as bytes: less to move."""
    features = torch.randn(images, channels, low, low, device=DEVICE, dtype=torch.bfloat16)
    weights = torch.randn(images, targets, channels, device=DEVICE)
    out = torch.empty(images, targets, size, size, device=DEVICE, dtype=torch.uint8)

    def eager(features, weights):
        maps = workloads.eager_interpolate(features.float(), weights, size)
        return (maps * 255 + 0.5).to(torch.uint8)

    fast = compiled(eager)
    return {
        "pyxai": lambda: cam_project_render(
            features, weights, (size, size), relu=True, dtype=torch.uint8, out=out
        ),
        "eager": lambda: eager(features, weights),
        "torch.compile": lambda: fast(features, weights),
    }, out.nbytes + features.nbytes


def overlay_sides(images, low, size):
    maps = torch.randn(images, low, low, device=DEVICE)
    photos = torch.randint(0, 256, (images, size, size, 3), dtype=torch.uint8, device=DEVICE)
    ramp = torch.arange(256, dtype=torch.uint8, device=DEVICE)
    colors = torch.stack((ramp, 255 - ramp, ramp, torch.full_like(ramp, 128)), dim=1)
    table, out = colors[:, :3].float(), torch.empty_like(photos)
    fast = compiled(workloads.eager_overlay)
    return {
        "pyxai": lambda: cam_overlay(photos, maps, colors, relu=False, out=out),
        "eager": lambda: workloads.eager_overlay(photos, maps, table, 0.5),
        "torch.compile": lambda: fast(photos, maps, table, 0.5),
    }, 2 * photos.nbytes


def crop_sides(stride, case, side=800, photo_dtype=torch.uint8):
    photo = torch.randint(0, 256, (side, side, 3), dtype=torch.uint8, device=DEVICE)
    photo = photo.permute(2, 0, 1)
    if photo_dtype != torch.uint8:  # planes in [0, 1]
        photo = (photo / 255).to(photo_dtype).contiguous()
    dtype, layout, size = CROPS[case]
    boxes = grid_boxes(stride).to(DEVICE)
    mean, std = (torch.tensor(each, device=DEVICE)[:, None, None] for each in (MEAN, STD))
    out = torch.empty((len(boxes), 3, size, size), dtype=dtype, device=DEVICE, memory_format=layout)

    def eager(photo):
        values = photo if photo_dtype == torch.uint8 else photo * 255
        return eager_windows(values, stride, case, mean, std)

    fast = compiled(eager)
    return {
        "pyxai": lambda: crop_windows(photo, boxes, size, mean=MEAN, std=STD, dtype=dtype, out=out),
        "eager": lambda: eager(photo),
        "torch.compile": lambda: fast(photo),
    }, out.nbytes + photo.nbytes


def heatmap_sides(maps, stride, side=800):
    boxes = grid_boxes(stride).to(DEVICE)
    scores = torch.randn(maps, len(boxes), device=DEVICE)
    out = torch.empty(maps, side, side, device=DEVICE)
    fast = compiled(reference.window_heatmap)
    return {
        "pyxai": lambda: window_heatmap(scores, boxes, (side, side), out=out),
        "eager": lambda: reference.window_heatmap(scores, boxes, (side, side)),
        "torch.compile": lambda: fast(scores, boxes, (side, side)),
    }, out.nbytes


def blend_sides(count, low, size, dtype=torch.float32):
    masks = torch.rand(count, low, low, device=DEVICE)
    images, behind = torch.randn(2, count, 3, size, size, device=DEVICE).to(dtype)
    out = torch.empty_like(images)
    fast = compiled(workloads.eager_blend)
    return {
        "pyxai": lambda: mask_blend(images, masks, behind, out=out),
        "eager": lambda: workloads.eager_blend(images, masks, behind),
        "torch.compile": lambda: fast(images, masks, behind),
    }, 3 * images.nbytes


def gradient_of(blend, images, masks, behind, slopes):
    leaf = masks.detach().requires_grad_()
    return torch.autograd.grad(blend(images, leaf, behind), leaf, slopes)[0]


def blend_gradient_sides(count, low, size):
    """Blending and its gradient by the masks."""
    images, behind, slopes = torch.randn(3, count, 3, size, size, device=DEVICE)
    masks = torch.rand(count, low, low, device=DEVICE)
    fast = compiled(workloads.eager_blend)
    return {
        "pyxai": lambda: gradient_of(mask_blend, images, masks, behind, slopes),
        "eager": lambda: gradient_of(workloads.eager_blend, images, masks, behind, slopes),
        "torch.compile": lambda: gradient_of(fast, images, masks, behind, slopes),
    }, 6 * images.nbytes


def mask_step_sides(count, low, size):
    """A step of learning without the model: blend, its gradient, penalty, Adam, clamp."""
    images, behind, slopes = torch.randn(3, count, 3, size, size, device=DEVICE)
    start = torch.rand(count, low, low, device=DEVICE)
    numbers = {"tv_weight": 1.7, "l1_weight": 3.0, "beta": 2.0, "root": True, "mean": True}
    ours, first, second = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    number = torch.ones(1, dtype=torch.int64, device=DEVICE)

    def step():
        found = gradient_of(mask_blend, images, ours, behind, slopes)
        mask_penalized_step_(ours, found, first, second, number, learning_rate=0.1, **numbers)
        number.add_(1)

    def learner(blend, penalty):
        theirs = torch.nn.Parameter(start.clone())
        adam = torch.optim.Adam([theirs], lr=0.1, fused=True)

        def call():
            outputs = (blend(images, theirs, behind), penalty(theirs, **numbers).sum())
            (theirs.grad,) = torch.autograd.grad(
                outputs, theirs, (slopes, torch.ones_like(outputs[1]))
            )
            adam.step()
            with torch.no_grad():
                theirs.clamp_(0, 1)

        return call

    torch._dynamo.reset()
    fast = [
        torch.compile(each, dynamic=False)
        for each in (workloads.eager_blend, reference.mask_penalty)
    ]
    return {
        "pyxai": step,
        "pyxai in a graph": graphed(step),
        "eager": learner(workloads.eager_blend, reference.mask_penalty),
        "torch.compile": learner(*fast),
    }, 6 * images.nbytes


def bare_forward(model, images):
    """The pass that every explanation contains, as a call."""

    def forward():
        with torch.no_grad():
            return model(images)

    return forward


def cam_sides(batch, size):
    """Explanations against predictions alone."""
    model = ResNet50().eval().to(DEVICE)
    images = torch.randn(batch, 3, size, size, device=DEVICE)
    half = pyxai.accelerate(model, dtype=torch.bfloat16)

    return {
        "pyxai": lambda: pyxai.cam(model, images),
        "pyxai, bfloat16": lambda: pyxai.cam(half, images),
        "eager": bare_forward(model, images),
        "torch.compile": bare_forward(compiled(model), images),
        "torch.compile, bfloat16": bare_forward(
            compiled(copy.deepcopy(model).to(torch.bfloat16)), images.to(torch.bfloat16)
        ),
    }, None


def small_batch_sides(batch, size):
    """Where the host is slower than the device: with graphs and without."""
    model = ResNet50().eval().to(DEVICE)
    images = torch.randn(batch, 3, size, size, device=DEVICE)
    half = pyxai.accelerate(model, dtype=torch.bfloat16)
    graphs = pyxai.accelerate(model, dtype=torch.bfloat16, graphs=True)

    return {
        "pyxai": lambda: pyxai.cam(graphs, images),
        "pyxai without graphs": lambda: pyxai.cam(half, images),
        "eager": bare_forward(model, images),
        "torch.compile": bare_forward(compiled(model), images),
    }, None


def learned_mask_sides(batch, size, steps):
    """All at once in a graph, without it, and the straightforward loop image by image."""
    model = ResNet18().eval().to(DEVICE)
    images = torch.randn(batch, 3, size, size, device=DEVICE)
    start = torch.rand(28, 28)
    on_device = start.to(DEVICE)
    with torch.no_grad():
        target = model(images).argmax(1)

    def learn(graphs):
        return pyxai.undesirable_pixels(
            model,
            images,
            target,
            start=start,
            batch_size=batch,
            graphs=graphs,
            settings=pyxai.MaskSettings(steps=steps),
        )

    def one_by_one():
        for row in range(batch):
            some = slice(row, row + 1)
            straightforward(model, images[some], target[some], on_device, steps)

    fast = compiled(model)
    return {
        "pyxai": lambda: learn(True),
        "pyxai without graphs": lambda: learn(False),
        "eager": one_by_one,
        "eager, all at once": lambda: straightforward(model, images, target, on_device, steps),
        "torch.compile, all at once": lambda: straightforward(
            fast, images, target, on_device, steps
        ),
    }, None


def cases(group: str, small: bool) -> Iterator[tuple[str, Callable[[], tuple[Sides, int | None]]]]:
    """(name of the row, what makes its sides and says how many bytes must move)."""
    if group == "kernels":
        yield "one map, batch 32", lambda: map_sides(32, 512, 1, 7, 224)
        yield "60 class maps, 800 px", lambda: map_sides(1, 512, 60, 25, 64 if small else 800)
        yield (
            "60 class maps, 800 px, bytes of bfloat16",
            lambda: map_bfloat16_sides(1, 512, 60, 25, 64 if small else 800),
        )
        yield "overlay, 16 photos, 800 px", lambda: overlay_sides(1 if small else 16, 25, 800)
        for case in ("float32", "bfloat16", "resized"):
            stride = 320 if small else 40
            yield f"289 crops, {case}", lambda case=case, at=stride: crop_sides(at, case)
            yield (
                f"289 crops, {case}, of a float32 photo",
                lambda case=case, at=stride: crop_sides(at, case, photo_dtype=torch.float32),
            )
        yield "heat maps of 60 classes", lambda: heatmap_sides(60, 320 if small else 40)
        yield "blend, 32 masks, 224 px", lambda: blend_sides(32, 28, 64 if small else 224)
        yield (
            "blend, 32 masks, 224 px, bfloat16",
            lambda: blend_sides(32, 28, 64 if small else 224, torch.bfloat16),
        )
        yield (
            "blend and gradient, 32 masks, 224 px",
            lambda: blend_gradient_sides(32, 28, 64 if small else 224),
        )
        yield "mask step, batch 32", lambda: mask_step_sides(32, 28, 64 if small else 224)
    if group == "calls":
        batch, size = (2, 64) if small else (64, 224)
        yield "pyxai.cam, ResNet-50, batch 64", lambda: cam_sides(batch, size)
        yield "pyxai.cam, ResNet-50, batch 1", lambda: small_batch_sides(1, size)
        yield (
            "learned masks, batch 32",
            lambda: learned_mask_sides(2 if small else 32, size, 12 if small else 30),
        )


def measure(groups: list[str], rounds: int, small: bool, path: Path | None) -> list[dict]:
    """Rows; one that fails says why, and the file is written after each."""
    record = {"roofs": roofs(), "rows": (rows := [])}
    for group in groups:
        for name, make in cases(group, small):
            row: dict[str, object] = {"group": group, "work": name}
            try:
                sides, moved = make()
                # Whole calls take seconds.
                times = in_turn(sides, rounds=rounds if group == "kernels" else min(rounds, 5))
                row["seconds"] = {side: statistics.median(each) for side, each in times.items()}
                row["bytes"] = moved
                for side, each in times.items():
                    ratio = workloads.ratio(each, times["pyxai"])
                    print(f"{name:44} {side:24} {1e6 * row['seconds'][side]:12.1f} us {ratio:7.2f}")
            except Exception as error:  # the other rows are still worth having
                row["error"] = f"{type(error).__name__}: {error}"[:2000]
                traceback.print_exc()
            rows.append(row)
            torch.cuda.empty_cache()
            if path is not None:
                path.write_text(json.dumps(record, indent=1) + "\n")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("groups", nargs="*", default=["kernels", "calls"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("gpu_kernels: expected a CUDA device, got none")
    rows = measure(arguments.groups, arguments.rounds, arguments.small, arguments.json)
    sys.exit(any("error" in row for row in rows))


if __name__ == "__main__":
    main()
