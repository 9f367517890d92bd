"""What runs the CUDA kernels on the host, and those kernels under sanitizers."""

from __future__ import annotations

import concurrent.futures
import ctypes
import os
import subprocess
import sys
from pathlib import Path

import cuda_on_host
import pytest
import torch

from pyxai.ops import (
    cam_overlay,
    cam_project,
    cam_project_render,
    cam_render,
    crop_windows,
    mask_blend,
    mask_penalized_step_,
    mask_penalty,
    window_heatmap,
)

TESTS = Path(__file__).parent


def launches(kernels, call, *arguments, **options):
    before = kernels.launches
    call(*arguments, **options)
    return kernels.launches - before


def test_the_kernels_run_and_not_those_of_the_cpu(cuda_host):
    weights = torch.randn(1, 2, 8)
    assert launches(cuda_host, cam_project, torch.randn(1, 8, 3, 3), weights) == 1
    assert launches(cuda_host, mask_blend, torch.randn(1, 3, 8, 8), torch.rand(1, 2, 2)) == 1


@pytest.mark.parametrize("images", [1, 32, 300])
def test_one_map_of_each_image_is_one_launch(cuda_host, images):
    features, weights = torch.randn(images, 64, 7, 7), torch.randn(1, 1, 64)
    for dtype in (torch.float32, torch.uint8):
        options = {"dtype": dtype}
        assert launches(cuda_host, cam_project_render, features, weights, (28, 28), **options) == 1


def test_launches_of_other_maps(cuda_host):
    features, weights = torch.randn(1, 8, 7, 7), torch.randn(1, 5, 8)
    assert launches(cuda_host, cam_project_render, features, weights, (28, 28)) == 2
    assert launches(cuda_host, cam_project_render, features, weights[:, :1], (28, 27)) == 2
    assert launches(cuda_host, cam_render, torch.randn(3, 32, 32), (40, 40)) == 1
    assert launches(cuda_host, cam_render, torch.randn(3, 32, 33), (40, 40)) == 2
    photos = torch.zeros(1, 40, 40, 3, dtype=torch.uint8)
    colors = torch.zeros(256, 4, dtype=torch.uint8)
    assert launches(cuda_host, cam_overlay, photos, torch.randn(1, 7, 7), colors) == 1


def test_windows_and_heat_maps_are_one_launch_each(cuda_host):
    photo, boxes = torch.rand(3, 40, 50), torch.tensor([[0, 0, 20, 30], [5, 6, 25, 31]])
    assert launches(cuda_host, crop_windows, photo, boxes, (16, 17)) == 1
    assert launches(cuda_host, window_heatmap, torch.randn(7, 2), boxes, (40, 50)) == 1


def test_conversions_round_as_torch_does(cuda_host):
    values = torch.cat(
        [
            torch.randn(4000) * 10.0 ** torch.randint(-9, 6, (4000,)),
            torch.arange(-300, 300) * 2.0**-26,  # halves of the smallest steps: ties
            1 + torch.arange(0, 64) * 2.0**-12,
            torch.tensor([65504.0, 65519.0, 65520.0, 1e6, torch.inf, -torch.inf, -0.0]),
        ]
    )
    for dtype in (torch.float16, torch.bfloat16):
        # A photo of ones under a mask of one cell is the mask.
        ones = torch.ones(1, 1, 1, 1, dtype=dtype)
        found = mask_blend(ones, values[:, None, None]).flatten()
        finite = values.isfinite()
        assert torch.equal(found[finite], values[finite].to(dtype))


def test_a_step_of_masks_is_three_launches(cuda_host):
    images, behind, slopes = torch.randn(3, 2, 3, 16, 16)
    cells, first, second = torch.rand(3, 2, 8, 8)

    def step():
        leaf = cells.detach().requires_grad_()
        (found,) = torch.autograd.grad(mask_blend(images, leaf, behind), leaf, slopes)
        mask_penalized_step_(cells, found, first, second, 1, tv_weight=1.7, l1_weight=3.0)

    assert launches(cuda_host, step) == 3
    large = torch.rand(4, 1, 65, 65)  # penalty, its sum, step
    numbers = {"tv_weight": 1.7, "l1_weight": 3.0}
    assert launches(cuda_host, mask_penalized_step_, *large, 1, **numbers) == 3
    assert launches(cuda_host, mask_penalty, cells, **numbers) == 1


RACES = {  # of tests/cuda_host/racy_kernels.cpp, in its order
    "neighbours": "shared",
    "again": "shared",
    "one_place": "global",
    "exchange": "global",
}


@pytest.mark.parametrize(("number", "memory"), list(enumerate(RACES.values())), ids=RACES)
def test_races_are_found_and_nothing_else(watched_module, number, memory):
    call = ctypes.CDLL(watched_module.__spec__.origin).cuda_host_try
    call.argtypes = [ctypes.c_int, ctypes.c_bool, ctypes.c_char_p, ctypes.c_size_t]
    said = ctypes.create_string_buffer(1000)
    call(number, True, said, len(said))
    assert said.value == b""
    call(number, False, said, len(said))
    assert f"a race in {memory} memory" in said.value.decode()


@pytest.mark.slow
@pytest.mark.skipif(
    "PYXAI_SANITIZE" not in os.environ, reason="minutes long: runs when PYXAI_SANITIZE is set"
)
@pytest.mark.parametrize("checks", ["addresses", "races"])
def test_kernels_under_sanitizers(checks):
    """Each test that runs CUDA kernels on the host, in a build that looks at what they touch."""
    environment, chosen = dict(os.environ, OMP_NUM_THREADS="1"), "cuda-on-host"
    paths = sorted(TESTS.glob("test_ops_*.py"))
    if checks == "addresses":  # and undefined behaviour
        environment |= {
            "LD_PRELOAD": cuda_on_host.address_sanitizer(),
            "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }
        module = cuda_on_host.build(sanitize=True)
    else:
        chosen += " and not large and not same_bits"
        paths.remove(TESTS / "test_ops_large.py")
        module = cuda_on_host.build(watch="races")
    environment["PYXAI_CUDA_HOST_MODULE"] = str(module)
    # Without capturing, what a sanitizer says before it ends the process is kept.
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-s", "-p", "no:cacheprovider"]

    def run(path):
        return subprocess.run(
            [*command, "-k", chosen, path],
            cwd=TESTS,  # not the root, whose `pyxai` may not be what was installed
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        found = [*pool.map(run, paths)]
    nothing_to_run = pytest.ExitCode.NO_TESTS_COLLECTED  # in files about no kernel of its own
    for done in found:
        said = done.stdout[-4000:] + done.stderr[-4000:]
        assert done.returncode in (0, nothing_to_run), said
    assert [done.returncode for done in found].count(0) >= 6
