"""What does not fit is refused before memory is touched, by every way into the operators.

Each call here once read or wrote memory that was not its own, or gave a wrong answer without a
word. Calls at random are in `test_ops_fuzz.py`.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pyxai import ops
from pyxai.ops import windows
from pyxai.ops._operator import OPERATORS

BOXES = [[0, 0, 4, 4], [2, 1, 6, 5]]


def fitting(name: str) -> dict[str, Any]:
    """Arguments of the registered operator that fit each other, in its order."""
    torch.manual_seed(0)
    masks = torch.rand(2, 5, 4)
    adam = {"learning_rate": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8}
    moments = {"first_moment": torch.zeros(2, 5, 4), "second_moment": torch.zeros(2, 5, 4)}
    state = {"masks": masks, "gradients": torch.rand(2, 5, 4), **moments, "step": 1}
    state |= {"step_tensor": None, **adam}
    penalty = {"tv_weight": 0.1, "l1_weight": 0.1, "beta": 2.0, "root": False, "mean": True}
    blend = {"images": torch.rand(2, 3, 9, 8), "masks": masks, "background": None}
    blend |= {"channels_last": False}
    return {
        "cam_project": lambda: {"features": torch.rand(4, 6, 5, 5), "weights": torch.rand(4, 2, 6)},
        "cam_render": lambda: {
            "maps": torch.rand(2, 5, 5),
            "size": [9, 8],
            "relu": True,
            "minmax": True,
            "as_uint8": False,
        },
        "cam_overlay": lambda: {
            "photos": torch.zeros(2, 9, 8, 3, dtype=torch.uint8),
            "maps": torch.rand(2, 5, 5),
            "colors": torch.zeros(256, 4, dtype=torch.uint8),
            "relu": True,
            "minmax": True,
        },
        "mask_blend": lambda: blend,
        "mask_blend_backward": lambda: {
            "gradients": torch.rand(2, 3, 9, 8),
            **blend,
            "wanted": [True, True, True],
        },
        "mask_penalty": lambda: {"masks": masks, **penalty},
        "mask_step_": lambda: state,
        "mask_penalized_step_": lambda: {**state, **penalty},
        "crop_windows": lambda: {
            "photo": torch.rand(3, 6, 7),
            "boxes": torch.tensor(BOXES),
            "size": [4, 4],
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "dtype": torch.float32,
            "channels_last": False,
        },
        "window_heatmap": lambda: {
            "scores": torch.rand(2),
            "boxes": torch.tensor(BOXES),
            "size": [6, 7],
            "fill": 0.5,
        },
    }[name]()


UNFIT = [
    ("cam_project", {"weights": torch.rand(3, 2, 6)}, "weights"),
    ("cam_project", {"weights": torch.rand(4, 2, 5)}, "weights"),
    ("cam_project", {"features": torch.rand(4, 6, 5)}, "features"),
    ("cam_project", {"features": torch.ones(4, 6, 5, 5, dtype=torch.int32)}, "features"),
    ("cam_render", {"maps": torch.rand(2, 0, 5)}, "maps"),
    ("cam_render", {"maps": torch.rand(5)}, "maps"),
    ("cam_render", {"size": [0, 8]}, "size"),
    ("cam_render", {"size": [1 << 30, 8]}, "size"),
    ("cam_overlay", {"photos": torch.zeros(2, 9, 8, 1, dtype=torch.uint8)}, "photos"),
    ("cam_overlay", {"photos": torch.zeros(2, 9, 8, 3)}, "photos"),
    ("cam_overlay", {"maps": torch.rand(1, 5, 5)}, "maps"),
    ("cam_overlay", {"colors": torch.zeros(255, 4, dtype=torch.uint8)}, "colors"),
    ("cam_overlay", {"colors": torch.zeros(256, 3, dtype=torch.uint8)}, "colors"),
    ("mask_blend", {"images": torch.rand(3, 3, 9, 8)}, "images"),
    ("mask_blend", {"masks": torch.rand(2, 0, 4)}, "masks"),
    ("mask_blend", {"background": torch.rand(2, 3, 9, 7)}, "background"),
    ("mask_blend", {"background": torch.rand(2, 1, 9, 8)}, "background"),
    ("mask_blend_backward", {"gradients": torch.rand(1, 3, 9, 8)}, "gradients"),
    ("mask_blend_backward", {"wanted": [True]}, "wanted"),
    ("mask_penalty", {"masks": torch.rand(5, 4)}, "masks"),
    ("mask_penalty", {"masks": torch.rand(2, 0, 4)}, "masks"),
    ("mask_step_", {"first_moment": torch.zeros(1)}, "first_moment"),
    ("mask_step_", {"second_moment": torch.zeros(2, 5)}, "second_moment"),
    ("mask_step_", {"gradients": torch.rand(2, 5, 3)}, "gradients"),
    ("mask_step_", {"step": 0}, "step"),
    ("mask_step_", {"step_tensor": torch.tensor([], dtype=torch.int64)}, "step"),
    ("mask_penalized_step_", {"first_moment": torch.zeros(2, 1, 4)}, "first_moment"),
    ("mask_penalized_step_", {"second_moment": torch.zeros(1, 5, 4)}, "second_moment"),
    ("mask_penalized_step_", {"gradients": torch.rand(2, 5, 4).double()}, "gradients"),
    ("crop_windows", {"boxes": torch.tensor([[0, 0, 8, 4]])}, "boxes"),
    ("crop_windows", {"boxes": torch.tensor([[-(1 << 40), 0, 4, 4]])}, "boxes"),
    ("crop_windows", {"boxes": torch.tensor([0, 0, 4, 4])}, "boxes"),
    ("crop_windows", {"boxes": torch.tensor(BOXES).int()}, "boxes"),
    ("crop_windows", {"mean": [0.5]}, "mean"),
    ("crop_windows", {"std": [0.5, 0.0, 0.5]}, "std"),
    ("crop_windows", {"dtype": torch.int64}, "dtype"),
    ("crop_windows", {"photo": torch.rand(3, 0, 7)}, "photo"),
    ("window_heatmap", {"scores": torch.rand(1)}, "scores"),
    ("window_heatmap", {"boxes": torch.tensor([[0, 0, 4, 4], [0, 0, 8, 4]])}, "boxes"),
    ("window_heatmap", {"size": [4, 7]}, "boxes"),
    ("window_heatmap", {"fill": 1e39}, "fill"),
]


NAMED = [pytest.param(*row, id=f"{row[0]}-{'-'.join(row[1])}-{n}") for n, row in enumerate(UNFIT)]


@pytest.mark.parametrize(("name", "changes", "argument"), NAMED)
def test_registered_operators_refuse(name, changes, argument):
    given = {**fitting(name), **changes}
    before = {key: value.clone() for key, value in given.items() if torch.is_tensor(value)}
    with pytest.raises(ValueError, match=rf"^{argument}\b.*: expected"):
        getattr(torch.ops.pyxai, name)(*given.values())
    assert all(torch.equal(given[key], value) for key, value in before.items())


@pytest.mark.parametrize(("name", "changes", "argument"), NAMED)
def test_compiled_operators_refuse(name, changes, argument):
    given = {**fitting(name), **changes}
    before = {key: value.clone() for key, value in given.items() if torch.is_tensor(value)}
    call = torch.compile(getattr(torch.ops.pyxai, name), backend="eager")
    with pytest.raises((ValueError, RuntimeError), match=argument):  # torch's, around ours
        call(*given.values())
    assert all(torch.equal(given[key], value) for key, value in before.items())


def looks_at_values(name, changes, argument):
    """Whether it is values that do not fit, which tensors without data do not have."""
    boxes = {**fitting(name), **changes}.get("boxes")
    return argument == "boxes" and boxes.ndim == 2 and boxes.dtype == torch.int64


@pytest.mark.parametrize(
    ("name", "changes", "argument"), [row for row in NAMED if not looks_at_values(*row.values)]
)
def test_operators_without_data_refuse(name, changes, argument):
    given = {**fitting(name), **changes}
    given = {key: each.to("meta") if torch.is_tensor(each) else each for key, each in given.items()}
    with pytest.raises(ValueError, match=rf"^{argument}\b.*: expected"):
        getattr(torch.ops.pyxai, name)(*given.values())


@pytest.mark.parametrize("name", OPERATORS)
def test_what_fits_is_taken(name):
    getattr(torch.ops.pyxai, name)(*fitting(name).values())


# ---- memory that is shared ----


def overlapping(shape, dtype, other):
    """A tensor that begins half an element's row into the memory of another, which is as large."""
    storage = torch.zeros(4096, dtype=torch.uint8)
    own = storage[: other.nbytes].view(other.dtype).view(other.shape)
    own.copy_(other)
    wanted = torch.Size(shape).numel() * dtype.itemsize
    start = other.nbytes - 8  # the last 8 bytes of it
    return own, storage[start : start + wanted].view(dtype).view(shape)


def test_results_over_their_boxes():
    photo, scores = torch.rand(3, 6, 7), torch.rand(2)
    boxes, out = overlapping((2, 3, 4, 4), torch.float32, torch.tensor(BOXES))
    with pytest.raises(ValueError, match=r"^out: expected memory of its own, got that of boxes"):
        ops.crop_windows(photo, boxes, 4, out=out)
    boxes, out = overlapping((6, 7), torch.float32, torch.tensor(BOXES))
    with pytest.raises(ValueError, match=r"^out: expected memory of its own, got that of boxes"):
        ops.window_heatmap(scores, boxes, (6, 7), out=out)
    assert boxes.tolist() == BOXES


def test_results_over_their_maps():
    maps, out = overlapping((2, 9, 8), torch.float32, torch.rand(2, 5, 5))
    with pytest.raises(ValueError, match=r"^out: expected memory of its own, got that of maps"):
        ops.cam_render(maps, (9, 8), out=out)


def test_results_over_images_features_and_photos():
    features, out = overlapping((1, 2, 9, 8), torch.float32, torch.rand(1, 6, 5, 5))
    with pytest.raises(ValueError, match=r"^out: expected memory of its own, got that of features"):
        ops.cam_project_render(features, torch.rand(1, 2, 6), (9, 8), out=out)
    images, out = overlapping((2, 3, 9, 8), torch.float32, torch.rand(1, 3, 9, 8))
    with pytest.raises(ValueError, match=r"^out: expected memory of its own, got that of images"):
        ops.mask_blend(images, torch.rand(2, 5, 4), out=out)
    photos = torch.zeros(1, 9, 8, 3, dtype=torch.uint8)
    photos, out = overlapping((1, 9, 8, 3), torch.uint8, photos)
    colors = torch.zeros(256, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"^out: expected memory of its own, got that of photos"):
        ops.cam_overlay(photos, torch.rand(1, 5, 5), colors, out=out)


def test_columns_between_those_of_another_are_apart():
    """What is compared is memory, not the span from the first byte to the last."""
    wide = torch.rand(5, 8)
    masks, gradients = wide[None, :, ::2], wide[None, :, 1::2]
    kept = gradients.clone()
    first, second = torch.zeros(1, 5, 4), torch.zeros(1, 5, 4)
    ops.mask_step_(masks, gradients, first, second, 1, learning_rate=0.1)
    assert torch.equal(gradients, kept)
    with pytest.raises(ValueError, match=r"^masks: expected memory of its own, got that of grad"):
        ops.mask_step_(masks, masks, first, second, 1, learning_rate=0.1)


def test_masks_whose_elements_share_memory():
    masks = torch.rand(1, 5, 1).expand(1, 5, 4)
    like = [torch.zeros(1, 5, 4) for _ in range(3)]
    for call in (ops.mask_step_, torch.ops.pyxai.mask_step_):
        numbers = {} if call is ops.mask_step_ else {"step_tensor": None, "beta1": 0.9}
        numbers |= {} if call is ops.mask_step_ else {"beta2": 0.99, "eps": 1e-8}
        with pytest.raises(ValueError, match=r"^masks: expected memory of its own for each"):
            call(masks, *like, 1, learning_rate=0.1, **numbers)


# ---- memory that changes or goes away ----


@pytest.mark.parametrize("way", ["public", "torch.ops"])
def test_boxes_that_change_after_they_were_looked_at(way, monkeypatch):
    """As another thread might: what was checked is what is used."""
    photo, scores, boxes = torch.rand(3, 6, 7), torch.rand(2), torch.tensor(BOXES)

    def crop():
        if way == "public":
            return ops.crop_windows(photo, boxes, 4)
        return torch.ops.pyxai.crop_windows(photo, boxes, [4, 4], [], [], torch.float32, False)

    def heatmap():
        if way == "public":
            return ops.window_heatmap(scores, boxes, (6, 7))
        return torch.ops.pyxai.window_heatmap(scores, boxes, [6, 7], torch.nan)

    survey = windows.survey

    def meddled(*arguments):
        found = survey(*arguments)
        boxes.fill_(1 << 40)
        return found

    for call in (crop, heatmap):
        expected = call()
        with monkeypatch.context() as patched:
            patched.setattr(windows, "survey", meddled)
            torch.testing.assert_close(call(), expected, rtol=0, atol=0, equal_nan=True)
        assert boxes.min() == 1 << 40
        boxes.copy_(torch.tensor(BOXES))


def test_results_whose_memory_was_freed():
    out = torch.zeros(2, 3, 4, 4)
    out.untyped_storage().resize_(0)
    with pytest.raises(ValueError, match=r"^out: expected a tensor with memory"):
        ops.crop_windows(torch.rand(3, 6, 7), torch.tensor(BOXES), 4, out=out)


# ---- autograd is told ----


@pytest.mark.parametrize(
    "write",
    [
        lambda out: ops.crop_windows(torch.rand(3, 6, 7), torch.tensor(BOXES), 4, out=out),
        lambda out: ops.mask_blend(torch.rand(2, 3, 4, 4), torch.rand(2, 2, 2), out=out),
        lambda out: ops.cam_render(torch.rand(2, 3, 2, 2), (4, 4), out=out),
    ],
    ids=["crop_windows", "mask_blend", "cam_render"],
)
def test_what_was_written_is_known_to_autograd(write):
    """Torch refuses a gradient of what a tensor held before."""
    out, factor = torch.ones(2, 3, 4, 4), torch.rand(2, 3, 4, 4, requires_grad=True)
    product = (out * factor).sum()
    write(out)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()
