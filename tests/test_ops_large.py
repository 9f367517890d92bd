"""Tensors of more than 2^31 elements: on a device, and by the CUDA kernels on the host.

On the host only the last blocks of a launch run, and memory that they do not touch is not there.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os

import pytest
import torch
from on_cuda import on_cuda

from pyxai.ops import (
    cam_overlay,
    cam_project,
    cam_project_render,
    crop_windows,
    mask_blend,
    mask_penalized_step_,
    mask_penalty,
    mask_step_,
    window_heatmap,
)

pytestmark = pytest.mark.slow
LARGE = 2**31 + 2**20
SIDE = 1024
COUNT = LARGE // SIDE**2 + 1  # of pictures
PARTS = 16  # kPenaltyParts of csrc/mask/mask.h


class OnDevice:
    device = torch.device("cuda")

    def zeros(self, *shape, dtype=torch.float32):
        return torch.zeros(*shape, dtype=dtype, device="cuda")

    def last_blocks(self, count):
        return contextlib.nullcontext()

    def room(self, gib):
        """Skips unless so much memory is free."""
        torch.cuda.empty_cache()
        if torch.cuda.mem_get_info()[0] < gib << 30:
            pytest.skip(f"needs {gib} GiB on the device")


class OnHost:
    device = torch.device("cpu")

    def __init__(self, kernels):
        self.last_blocks = kernels.last_blocks

    def zeros(self, *shape, dtype=torch.float32):
        """Takes memory only for what is written to."""
        memory = mmap.mmap(-1, math.prod(shape) * dtype.itemsize)
        return torch.frombuffer(memory, dtype=dtype).view(shape)

    def room(self, gib):
        pass


@pytest.fixture(params=["cuda-on-host", pytest.param("cuda", marks=on_cuda)])
def place(request):
    if request.param == "cuda":
        yield OnDevice()
        torch.cuda.empty_cache()
    else:
        if os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < 18 << 30:
            pytest.skip("the system refuses tensors larger than its memory, 18 GiB here")
        yield OnHost(request.getfixturevalue("cuda_host"))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("targets", [1, 2])
def test_maps(place, targets, dtype):
    place.room(4 * dtype.itemsize)
    count = COUNT // targets + 1
    features = torch.randn(count, 4, 2, 2, device=place.device)
    weights = torch.randn(1, targets, 4, device=place.device)
    with place.last_blocks(targets * 256):
        maps, _ = cam_project_render(features, weights, (SIDE, SIDE), dtype=dtype)
    assert maps.numel() > 2**31
    last, _ = cam_project_render(features[-1:], weights, (SIDE, SIDE), dtype=dtype)
    assert torch.equal(maps[-1:], last)


@pytest.mark.parametrize("targets", [1, 70])  # of each kernel
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_features(place, targets, layout):
    place.room(10)
    count, channels, height, width = 60_000, 40, 32, 28
    if layout == torch.channels_last:
        features = place.zeros(count, height, width, channels, dtype=torch.bfloat16)
        features = features.permute(0, 3, 1, 2)
    else:
        features = place.zeros(count, channels, height, width, dtype=torch.bfloat16)
    assert features.numel() > 2**31
    features[-1].normal_()
    weights = torch.randn(1, targets, channels, device=place.device)
    with place.last_blocks(128):
        maps = cam_project(features, weights)
    assert torch.equal(maps[-1:], cam_project(features[-1:], weights))


def test_overlay(place):
    place.room(10)
    count = LARGE // (3 * SIDE**2) + 1
    photos = place.zeros(count, SIDE, SIDE, 3, dtype=torch.uint8)
    photos[-1] = torch.randint(0, 256, (SIDE, SIDE, 3))
    maps = torch.rand(count, 7, 7, device=place.device)
    colors = torch.randint(0, 256, (256, 4), dtype=torch.uint8, device=place.device)
    with place.last_blocks(512):
        found = cam_overlay(photos, maps, colors)
    assert found.numel() > 2**31
    assert torch.equal(found[-1:], cam_overlay(photos[-1:], maps[-1:], colors))


@pytest.mark.parametrize("size", [4, 100])
def test_blend_and_its_gradient(place, size):
    place.room(18)
    count = LARGE // (3 * 512 * 512) + 1
    image = torch.randn(1, 3, 512, 512, device=place.device).to(torch.bfloat16)
    masks = torch.rand(count, size, size, device=place.device, requires_grad=True)
    last = masks.detach()[-1:].requires_grad_()
    expected = mask_blend(image, last)
    (expected_slopes,) = torch.autograd.grad(expected, last, expected.detach())
    with place.last_blocks(max(512, size * size)):
        blended = mask_blend(image, masks)
        assert blended.numel() > 2**31
        assert torch.equal(blended[-1:], expected)
        (slopes,) = torch.autograd.grad(blended, masks, blended.detach())
    assert torch.equal(slopes[-1:], expected_slopes)


def test_gradient_of_an_image_under_many_masks(place):
    place.room(18)
    count = LARGE // (3 * 512 * 512) + 1
    image = torch.randn(1, 3, 512, 512, device=place.device).to(torch.bfloat16).requires_grad_()
    masks = torch.rand(count, 4, 4, device=place.device)
    slopes = place.zeros(count, 3, 512, 512, dtype=torch.bfloat16)
    slopes[-1].normal_()
    (expected,) = torch.autograd.grad(mask_blend(image, masks[-1:]), image, slopes[-1:])
    with place.last_blocks(1):
        (found,) = torch.autograd.grad(mask_blend(image, masks), image, slopes)
    assert torch.equal(found[0, -1, -1, -100:], expected[0, -1, -1, -100:])  # of the last block


@pytest.mark.parametrize("penalized", [False, True])
def test_penalty_and_step(place, penalized):
    place.room(48)
    masks, slopes, first, second = (place.zeros(COUNT, SIDE, SIDE) for _ in range(4))
    masks[-1].uniform_()
    slopes[-1].normal_()
    some = [each[-1:].clone() for each in (masks, slopes, first, second)]
    numbers = {"tv_weight": 1.0, "l1_weight": 1.0}
    if penalized:
        with place.last_blocks(PARTS):
            found = mask_penalized_step_(masks, slopes, first, second, 1, **numbers)
        expected = mask_penalized_step_(*some, 1, **numbers)
    else:
        with place.last_blocks(PARTS):
            found = mask_penalty(masks, **numbers)
            mask_step_(masks, slopes, first, second, 1)
        expected = mask_penalty(some[0], **numbers)
        mask_step_(*some, 1)
    assert torch.equal(found[-1:], expected)
    for each, stepped in zip((masks, first, second), (some[0], *some[2:]), strict=True):
        rows = PARTS * 256 // SIDE  # of these blocks
        assert torch.equal(each[-1, -rows:], stepped[0, -rows:])


@pytest.mark.parametrize("photo_dtype", [torch.uint8, torch.float32])
def test_crops(place, photo_dtype):
    place.room(12)
    photo = torch.randint(0, 256, (3, 512, 512), device=place.device).to(photo_dtype)
    count = LARGE // photo.numel() + 1
    boxes = torch.tensor([[0, 0, 512, 512]]).expand(count, 4).contiguous()
    with place.last_blocks(512):
        windows = crop_windows(photo, boxes, (512, 512), dtype=torch.bfloat16)
    assert windows.numel() > 2**31
    last = crop_windows(photo, boxes[-1:], (512, 512), dtype=torch.bfloat16)
    assert torch.equal(windows[-1:], last)


def test_crops_of_a_large_photo(place):
    place.room(4)
    photo = place.zeros(3, 23_000, 32_000, dtype=torch.uint8)
    assert photo.numel() > 2**31
    corner = torch.randint(0, 256, (3, 200, 300), dtype=torch.uint8, device=place.device)
    photo[:, -200:, -300:] = corner
    boxes = torch.tensor([[31_700, 22_800, 32_000, 23_000]])
    expected = crop_windows(corner, torch.tensor([[0, 0, 300, 200]]), (90, 80))
    assert torch.equal(crop_windows(photo, boxes, (90, 80)), expected)


def test_heat_maps(place):
    place.room(45)
    scores = torch.randn(COUNT, 1, device=place.device)
    with place.last_blocks(256):
        found = window_heatmap(scores, torch.tensor([[0, 0, SIDE, SIDE]]), (SIDE, SIDE))
    assert torch.equal(found[-1], scores[-1].expand(SIDE, SIDE))
