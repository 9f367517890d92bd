"""How launches behave on a device: streams, captured graphs, no hidden synchronisation.

The families of kernels also run here on the CPU, so that what is asked of a device is sound.
"""

from __future__ import annotations

import pytest
import torch
from on_cuda import on_cuda

from pyxai.ops import (
    cam_overlay,
    cam_project,
    cam_project_render,
    cam_render,
    crop_windows,
    mask_blend,
    mask_penalized_step_,
    mask_penalty,
    mask_step_,
    window_heatmap,
)

GIB = 1 << 30
BOXES = torch.tensor([[0, 0, 20, 30], [5, 6, 25, 31], [1, 1, 41, 33]])


def gradient(images, masks, behind):
    leaf = masks.detach().requires_grad_()
    blended = mask_blend(images, leaf, behind)
    return torch.autograd.grad(blended, leaf, images)[0]


def penalty(masks):
    leaf = masks.detach().requires_grad_()
    costs = mask_penalty(leaf, tv_weight=1.7, l1_weight=3.0)
    return torch.cat([costs.detach(), torch.autograd.grad(costs.sum(), leaf)[0].flatten()])


def step(masks, slopes, first, second, number):
    state = masks.clone(), first.clone(), second.clone()
    mask_step_(state[0], slopes, *state[1:], number)
    return torch.stack(state)


def penalized_step(masks, slopes, first, second, number):
    state = masks.clone(), first.clone(), second.clone()
    costs = mask_penalized_step_(state[0], slopes, *state[1:], number, tv_weight=1.7, l1_weight=3.0)
    return torch.cat([costs, *(each.flatten() for each in state)])


def pictures(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8)


# name: (inputs on the CPU, what is computed of them)
FAMILIES = {
    "project": (lambda: (torch.randn(2, 64, 7, 7), torch.randn(1, 3, 64)), cam_project),
    "project and render": (
        lambda: (torch.randn(2, 64, 7, 7), torch.randn(1, 3, 64)),
        lambda features, weights: cam_project_render(features, weights, (50, 60))[0],
    ),
    "project and render one map": (
        lambda: (torch.randn(2, 64, 7, 7), torch.randn(2, 1, 64)),
        lambda features, weights: cam_project_render(features, weights, (56, 60))[0],
    ),
    "project and render many images": (
        lambda: (torch.randn(300, 64, 7, 7), torch.randn(1, 1, 64)),
        lambda features, weights: cam_project_render(features, weights, (56, 60))[0],
    ),
    "render": (lambda: (torch.randn(2, 3, 7, 7),), lambda maps: cam_render(maps, (50, 60))),
    "render large maps": (
        lambda: (torch.randn(2, 3, 40, 41),),
        lambda maps: cam_render(maps, (50, 60)),
    ),
    "overlay": (
        lambda: (pictures(2, 40, 50, 3), torch.randn(2, 5, 6), pictures(256, 4)),
        cam_overlay,
    ),
    "blend": (
        lambda: (torch.randn(2, 3, 40, 50), torch.rand(2, 5, 6), torch.randn(2, 3, 40, 50)),
        mask_blend,
    ),
    "gradient of blending": (
        lambda: (torch.randn(2, 3, 40, 50), torch.rand(2, 5, 6), torch.randn(2, 3, 40, 50)),
        gradient,
    ),
    "penalty": (lambda: (torch.rand(3, 9, 8),), penalty),
    "step": (
        lambda: (*torch.rand(4, 3, 9, 8), torch.randint(1, 9, (1,))),
        step,
    ),
    "penalty and step": (
        lambda: (*torch.rand(4, 3, 9, 8), torch.randint(1, 9, (1,))),
        penalized_step,
    ),
    "penalty and step of large masks": (
        lambda: (*torch.rand(4, 2, 65, 66), torch.randint(1, 9, (1,))),
        penalized_step,
    ),
    "crops": (
        lambda: (pictures(3, 40, 50), BOXES.clone()),
        lambda photo, boxes: crop_windows(photo, boxes, (16, 17)),
    ),
    "heat maps": (
        lambda: (torch.randn(2, len(BOXES)), BOXES.clone()),
        lambda scores, boxes: window_heatmap(scores, boxes, (33, 41)).nan_to_num(),
    ),
}


# On a device of any kind; tests/test_cuda_host.py counts those of one with clusters.
ONE_LAUNCH = ("render", "overlay", "project and render many images", "crops")


def moved(tensors):
    return tuple(each.cuda() for each in tensors)


@pytest.mark.parametrize("name", FAMILIES)
def test_families_depend_on_their_inputs(name):
    make, call = FAMILIES[name]
    given = make()
    first = call(*given)
    assert torch.equal(call(*given), first)
    assert not torch.equal(call(*make()), first)


@pytest.mark.parametrize("name", [pytest.param(each, marks=on_cuda) for each in FAMILIES])
class TestOnADevice:
    def test_runs_on_the_side_stream_of_the_caller(self, name):
        make, call = FAMILIES[name]
        given = moved(make())
        expected = call(*given)
        # In a step the number comes too late as well: 1, so that nothing is divided by 0.
        late = [torch.ones_like(each) for each in given]
        torch.cuda.synchronize()
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            torch.cuda._sleep(20_000_000)  # a kernel on another stream would see the ones
            for each, values in zip(late, given, strict=True):
                each.copy_(values)
            found = call(*late)
        side.synchronize()
        assert torch.equal(found, expected)

    def test_a_captured_graph_is_replayed_on_new_data(self, name):
        make, call = FAMILIES[name]
        given, new = moved(make()), moved(make())
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            call(*given)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = call(*given)
        for each, values in zip(given, new, strict=True):
            each.copy_(values)
        graph.replay()
        assert torch.equal(found, call(*new))

    def test_nothing_waits_for_the_device(self, name):
        make, call = FAMILIES[name]
        given = moved(make())
        call(*given)
        torch.cuda.set_sync_debug_mode("error")
        try:
            call(*given)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def test_no_host_copy_in_the_profile(self, name):
        make, call = FAMILIES[name]
        given = moved(make())
        call(*given)
        torch.cuda.synchronize()
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            call(*given)
        names = [event.name for event in profile.events()]
        assert not [each for each in names if "DtoH" in each or "HtoD" in each]
        if name in ONE_LAUNCH:
            assert len([each for each in names if "_kernel" in each]) == 1

    def test_the_same_twice(self, name):
        make, call = FAMILIES[name]
        given = moved(make())
        first = call(*given)
        for _ in range(20):
            assert torch.equal(call(*given), first)
