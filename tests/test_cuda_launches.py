"""How launches behave on a device: streams, captured graphs, no hidden synchronisation."""

from __future__ import annotations

import pytest
import torch

from pyxai.ops import _native, cam_project_render, mask_blend

_PROBLEM = _native.cuda_status()["problem"]
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(_PROBLEM is not None, reason=f"CUDA: {_PROBLEM}"),
]


def inputs():
    features = torch.randn(2, 64, 7, 7, device="cuda")
    weights = torch.randn(1, 3, 64, device="cuda")
    return features, weights


def test_runs_on_the_side_stream_of_the_caller():
    features, weights = inputs()
    expected, _ = cam_project_render(features, weights, (50, 60))
    torch.cuda.synchronize()
    late = torch.zeros_like(features)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(20_000_000)  # a kernel on another stream would see the zeros
        late.copy_(features)
        found, _ = cam_project_render(late, weights, (50, 60))
    side.synchronize()
    assert torch.equal(found, expected)


def test_a_captured_graph_is_replayed_on_new_data():
    features, weights = inputs()
    cam_project_render(features, weights, (50, 60))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found, _ = cam_project_render(features, weights, (50, 60))
    features.copy_(torch.randn_like(features))
    graph.replay()
    expected, _ = cam_project_render(features, weights, (50, 60))
    assert torch.equal(found, expected)


def test_nothing_waits_for_the_device():
    features, weights = inputs()
    images, masks = torch.randn(2, 3, 40, 50, device="cuda"), torch.rand(2, 5, 6, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        cam_project_render(features, weights, (50, 60))
        mask_blend(images, masks)
    finally:
        torch.cuda.set_sync_debug_mode("default")
