"""Every CUDA kernel once on small, odd shapes, for NVIDIA's compute-sanitizer to look at.

    compute-sanitizer --tool memcheck python -m benchmarks.gpu_sanitize

Results are compared with the references, so that a run without the tool shows something too.
"""

from __future__ import annotations

import itertools
import sys

import torch

from pyxai.ops import (
    cam_overlay,
    cam_project_render,
    crop_windows,
    mask_blend,
    mask_penalized_step_,
    mask_penalty,
    mask_step_,
    reference,
    window_heatmap,
)

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LAYOUTS = (torch.contiguous_format, torch.channels_last)


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 0.05) -> None:
    """Loose: tight comparisons are the tests' work."""
    gap = (found.float() - expected.float()).abs().max().item() if found.numel() else 0.0
    if not gap <= tolerance * (1 + expected.float().abs().max().item()):
        raise AssertionError(f"kernel and reference differ by {gap}")


def maps(device: str) -> None:
    """Projection, rendering, overlay."""
    for dtype, layout, shape in itertools.product(
        DTYPES, LAYOUTS, [(1, 5, 3, 3), (3, 33, 7, 9), (2, 65, 1, 1)]
    ):
        features = torch.randn(shape, device=device).to(dtype).contiguous(memory_format=layout)
        for targets in (1, 3, 9):
            weights = torch.randn(1, targets, shape[1], device=device)
            for size in ((1, 1), (13, 37), (66, 132)):
                found, _ = cam_project_render(features, weights, size, relu=True)
                low = reference.cam_project(features, weights)
                close(found, reference.cam_render(low, size, True, True, False))
    for images, side in ((40, 3), (260, 2), (1, 33)):  # few blocks an image; a large map
        features, weights = torch.randn(images, 6, side, side), torch.randn(images, 1, 6)
        features, weights = features.to(device), weights.to(device)
        found, low = cam_project_render(features, weights, (5, 8))
        close(found, reference.cam_render(low, (5, 8), False, True, False))
    photos = torch.randint(0, 256, (2, 19, 131, 3), dtype=torch.uint8, device=device)
    colors = torch.randint(0, 256, (256, 4), dtype=torch.uint8, device=device)
    cam_overlay(photos, torch.randn(2, 3, 5, device=device), colors)


def masks(device: str) -> None:
    """Blending, both gradients, penalty, step."""
    for dtype, layout, own, width in itertools.product(DTYPES, LAYOUTS, (1, 3), (131, 132)):
        images, behind = torch.randn(2, own, 3, 17, width, device=device).to(dtype)
        images = images.contiguous(memory_format=layout).requires_grad_()
        cells = torch.rand(3, 5, 7, device=device, requires_grad=True)
        blended = mask_blend(images, cells, behind, memory_format=layout)
        expected = reference.mask_blend(images, cells, behind, False)
        close(blended.detach(), expected.detach())
        torch.autograd.grad(blended.float().square().sum(), (images, cells))
    for side in (1, 7, 65):
        cells = torch.rand(3, side, side, device=device, requires_grad=True)
        numbers = {"tv_weight": 1.7, "l1_weight": 3.0, "beta": 2.5, "root": True, "mean": True}
        cost = mask_penalty(cells, **numbers)
        close(cost.detach(), reference.mask_penalty(cells, **numbers).detach())
        (slopes,) = torch.autograd.grad(cost.sum(), cells)
        number = torch.ones(1, dtype=torch.int64, device=device)
        moments = torch.zeros_like(slopes), torch.zeros_like(slopes)
        again = cells.detach().clone()
        mask_step_(cells.detach(), slopes, *moments, number)
        found = mask_penalized_step_(again, slopes, *moments, number, **numbers)
        close(found, cost.detach())


def windows(device: str) -> None:
    """Crops and heat maps."""
    photo = torch.randint(0, 256, (3, 33, 47), dtype=torch.uint8, device=device)
    boxes = torch.tensor([[0, 0, 47, 33], [5, 6, 6, 7], [40, 30, 47, 33], [1, 2, 20, 31]])
    for dtype, layout, size in itertools.product(DTYPES, LAYOUTS, ((13, 21), (40, 132))):
        numbers = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "dtype": dtype}
        for values in (photo, photo / 255):
            crop_windows(values, boxes, size, memory_format=layout, **numbers)
    corners = (torch.rand(3000, 2) * torch.tensor([500, 6])).long()
    many = torch.cat([corners, corners + 1], dim=1)  # in rows of a tile, more than a block lists
    for some, size in ((boxes, (33, 47)), (many, (7, 516))):
        scores = torch.randn(3, len(some), device=device)
        found = window_heatmap(scores, some, size)
        expected = reference.window_heatmap(scores, some, size)
        close(found.nan_to_num(), expected.nan_to_num())


def main(device: str = "cuda") -> None:
    """Runs all of them, and waits."""
    torch.manual_seed(0)
    for work in (maps, masks, windows):
        work(device)
        if device == "cuda":
            torch.cuda.synchronize()
        print(f"{work.__name__}: as the references")


if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit("gpu_sanitize: expected a CUDA device, got none")
    main()
