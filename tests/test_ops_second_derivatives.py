"""Derivatives of derivatives: those of the plain functions, by every way into the operators."""

from __future__ import annotations

import pytest
import torch

from pyxai import ops
from pyxai.ops import reference

BOXES = torch.tensor([[0, 0, 4, 4], [2, 1, 6, 5]])
SIZE = (7, 6)
registered = torch.ops.pyxai


# By operator: shapes of what is differentiated, the plain function, and the ways to the kernels.
CASES = {
    "cam_project": (
        [(2, 3, 4, 4), (2, 2, 3)],
        reference.cam_project,
        {"public": ops.cam_project, "torch.ops": registered.cam_project},
    ),
    "cam_render": (
        [(2, 3, 3)],
        lambda maps: reference.cam_render(maps, SIZE, True, True, as_uint8=False),
        {
            "public": lambda maps: ops.cam_render(maps, SIZE, relu=True),
            "torch.ops": lambda maps: registered.cam_render(maps, SIZE, True, True, False),
        },
    ),
    "cam_project_render": (
        [(2, 3, 4, 4), (2, 2, 3)],
        lambda features, weights: reference.cam_render(
            reference.cam_project(features, weights), SIZE, False, True, as_uint8=False
        ),
        {"public": lambda features, weights: ops.cam_project_render(features, weights, SIZE)[0]},
    ),
    "mask_blend": (
        [(2, 3, 6, 6), (2, 3, 3), (1, 3, 1, 1)],
        lambda *blended: reference.mask_blend(*blended, channels_last=False),
        {
            "public": ops.mask_blend,
            "torch.ops": lambda *blended: registered.mask_blend(*blended, False),
        },
    ),
    "mask_penalty": (
        [(2, 4, 4)],
        lambda masks: reference.mask_penalty(masks, 0.3, 0.2, 3.0, True, False),
        {
            "public": lambda masks: ops.mask_penalty(
                masks, tv_weight=0.3, l1_weight=0.2, beta=3.0, mean=False
            ),
            "torch.ops": lambda masks: registered.mask_penalty(masks, 0.3, 0.2, 3.0, True, False)[
                0
            ],
        },
    ),
    "crop_windows": (
        [(3, 6, 7)],
        lambda photo: reference.crop_windows(photo, BOXES, (3, 3), [], [], photo.dtype, False),
        {
            "public": lambda photo: ops.crop_windows(photo, BOXES, 3),
            "torch.ops": lambda photo: registered.crop_windows(
                photo, BOXES, (3, 3), [], [], photo.dtype, False
            ),
        },
    ),
    "window_heatmap": (
        [(2,)],
        lambda scores: reference.window_heatmap(scores, BOXES, SIZE, 0.5),
        {
            "public": lambda scores: ops.window_heatmap(scores, BOXES, SIZE, fill=0.5),
            "torch.ops": lambda scores: registered.window_heatmap(scores, BOXES, SIZE, 0.5),
        },
    ),
}


def second(function, tensors):
    """A gradient through a gradient, of which the operator is only a part.

    So nothing would be said if torch left that part out. Later inputs depend on the first.
    """
    leaves = [each.clone().requires_grad_() for each in tensors]
    inputs = [leaves[0], *(each * leaves[0].mean() for each in leaves[1:])]
    value = (function(*inputs) ** 2).sum() + sum((each**3).sum() for each in leaves)
    slopes = torch.autograd.grad(value, leaves, create_graph=True)
    return torch.autograd.grad(sum((each**2).sum() for each in slopes), leaves)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("name", "way"), [(name, way) for name, (*_, ways) in CASES.items() for way in ways]
)
def test_second_derivatives(name, way, dtype):
    torch.manual_seed(0)
    shapes, plain, ways = CASES[name]
    tensors = [torch.rand(shape, dtype=dtype) for shape in shapes]
    found, expected = second(ways[way], tensors), second(plain, tensors)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_only_what_is_asked_for():
    images, masks = torch.rand(2, 3, 6, 6, requires_grad=True), torch.rand(2, 3, 3)
    (slopes,) = torch.autograd.grad(
        (ops.mask_blend(images, masks) ** 2).sum(), images, create_graph=True
    )
    slopes.sum().backward()
    assert images.grad is not None
    assert masks.grad is None


def test_gradients_of_gradients_of_every_step():
    """As a library that learns step sizes would: through the penalty of what a step has changed."""
    masks = torch.rand(1, 4, 4, dtype=torch.float64, requires_grad=True)

    def cost(masks):
        return ops.mask_penalty(masks, tv_weight=0.3, l1_weight=0.2, beta=3.0).sum()

    def after_a_step(masks):
        (slopes,) = torch.autograd.grad(cost(masks), masks, create_graph=True)
        return cost(masks - 0.1 * slopes)

    assert torch.autograd.gradcheck(after_a_step, (masks,))
