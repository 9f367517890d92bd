"""Checks of the mask operators; see `_checks`."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch

from pyxai._errors import argument_error
from pyxai.ops import _native
from pyxai.ops._checks import (
    Arguments,
    check_changeable,
    check_flags,
    check_number,
    check_same_device,
    check_tensors,
    has_memory,
)
from pyxai.ops._memory import check_apart

_LAST_STEP = (1 << 63) - 1


def check_mask_blend(
    images: torch.Tensor,
    masks: torch.Tensor,
    background: torch.Tensor | None,
    channels_last: bool,
) -> Arguments:
    """Raises ValueError unless the arguments fit each other; returns them."""
    check_tensors({"images": images, "masks": masks})
    dtype = images.dtype
    if images.ndim != 4 or 0 in images.shape[2:]:
        raise argument_error("images", "a tensor [M or 1, C, H, W] with H, W >= 1", images)
    if dtype not in _native.DTYPE_CODES and dtype != torch.float64:
        raise argument_error("images", "dtype float32, bfloat16, float16 or float64", images)
    if masks.ndim != 3 or 0 in masks.shape[1:]:
        raise argument_error("masks", "a tensor [M, h, w] with h, w >= 1", masks)
    if masks.dtype != torch.float32 and (masks.dtype != torch.float64 or dtype != torch.float64):
        raise argument_error("masks", "dtype float32 (or float64, like the images)", masks)
    count = masks.shape[0]
    if images.shape[0] not in (1, count):
        expected = f"one for each of {count} masks, or one for all"
        raise argument_error("images", expected, images)
    if masks.device != images.device:
        check_same_device(images=images, masks=masks)
    if background is not None:
        _check_background(images, background, count)
    return images, masks, background, *check_flags(channels_last=channels_last)


def _check_background(images: torch.Tensor, background: torch.Tensor, count: int) -> None:
    check_tensors({"background": background})
    channels, size = images.shape[1], background.shape[2:]
    if (
        background.ndim != 4
        or background.shape[0] not in (1, count)
        or background.shape[1] != channels
        or (size != images.shape[2:] and size != (1, 1))
    ):
        inner = ", ".join(map(str, images.shape[1:]))
        expected = f"a tensor [{count} or 1, {inner}] or [{count} or 1, {channels}, 1, 1]"
        raise argument_error("background", expected, background)
    if background.dtype != images.dtype:
        name = str(images.dtype).removeprefix("torch.")
        raise argument_error("background", f"dtype {name}, that of the images", background)
    if background.device != images.device:
        check_same_device(images=images, background=background)


def check_mask_blend_backward(
    gradients: torch.Tensor,
    images: torch.Tensor,
    masks: torch.Tensor,
    background: torch.Tensor | None,
    channels_last: bool,
    wanted: Sequence[bool],
) -> Arguments:
    """Raises ValueError unless the gradients are those of such a blend; returns the arguments."""
    blended = check_mask_blend(images, masks, background, channels_last)
    check_tensors({"gradients": gradients})
    shape = (masks.shape[0], *images.shape[1:])
    if gradients.shape != shape or gradients.dtype != images.dtype:
        name = str(images.dtype).removeprefix("torch.")
        raise argument_error("gradients", f"a {name} tensor {list(shape)}", gradients)
    if gradients.device != images.device:
        check_same_device(images=images, gradients=gradients)
    if len(wanted) != 3:
        raise argument_error("wanted", "three: of images, masks, background", tuple(wanted))
    by_images, by_masks, by_background = map(bool, wanted)
    return gradients, *blended, (by_images, by_masks, by_background)


def check_mask_penalty(
    masks: torch.Tensor, tv_weight: float, l1_weight: float, beta: float, root: bool, mean: bool
) -> Arguments:
    """Raises ValueError unless masks and numbers fit; returns the arguments."""
    check_tensors({"masks": masks})
    if masks.dtype not in (torch.float32, torch.float64):
        raise argument_error("masks", "dtype float32 or float64", masks)
    return masks, *_penalty_numbers(masks, tv_weight, l1_weight, beta, root, mean)


def check_mask_step_(
    masks: torch.Tensor,
    gradients: torch.Tensor,
    first_moment: torch.Tensor,
    second_moment: torch.Tensor,
    step: int,
    step_tensor: torch.Tensor | None,
    learning_rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    *,
    direct: bool = False,
) -> Arguments:
    """Raises ValueError unless all fit, and what changes has memory of its own.

    Args: those of the operator, and `direct`: whether `is_direct` says so, of all tensors.

    Returns:
        The arguments; the step, where it lies in a tensor on the CPU, as a copy of that.
    """
    state = _check_state(masks, gradients, first_moment, second_moment, step, step_tensor, direct)
    return *state, *_adam_numbers(learning_rate, beta1, beta2, eps)


def check_mask_penalized_step_(
    masks: torch.Tensor,
    gradients: torch.Tensor,
    first_moment: torch.Tensor,
    second_moment: torch.Tensor,
    step: int,
    step_tensor: torch.Tensor | None,
    learning_rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    *penalty_numbers: Any,
    direct: bool = False,
) -> Arguments:
    """The checks of `check_mask_penalty` and `check_mask_step_`."""
    state = _check_state(masks, gradients, first_moment, second_moment, step, step_tensor, direct)
    numbers = _adam_numbers(learning_rate, beta1, beta2, eps)
    return *state, *numbers, *_penalty_numbers(masks, *penalty_numbers)


def _penalty_numbers(
    masks: torch.Tensor, tv_weight: float, l1_weight: float, beta: float, root: bool, mean: bool
) -> Arguments:
    if masks.ndim != 3 or 0 in masks.shape[1:]:
        raise argument_error("masks", "a tensor [M, h, w] with h, w >= 1", masks)
    return (
        check_number("tv_weight", tv_weight, 0),
        check_number("l1_weight", l1_weight, 0),
        check_number("beta", beta, 1),
        *check_flags(root=root, mean=mean),
    )


def _adam_numbers(learning_rate: float, beta1: float, beta2: float, eps: float) -> Arguments:
    return (
        check_number("learning_rate", learning_rate, 0),
        check_number("beta1", beta1, 0, below=1),
        check_number("beta2", beta2, 0, below=1),
        check_number("eps", eps, 0),
    )


def _check_state(
    masks: torch.Tensor,
    gradients: torch.Tensor,
    first_moment: torch.Tensor,
    second_moment: torch.Tensor,
    step: int,
    step_tensor: torch.Tensor | None,
    direct: bool,
) -> Arguments:
    written = {"masks": masks, "first_moment": first_moment, "second_moment": second_moment}
    tensors = {**written, "gradients": gradients}
    check_tensors(tensors)
    if masks.dtype not in (torch.float32, torch.float64):
        raise argument_error("masks", "dtype float32 or float64", masks)
    if not (
        masks.shape == gradients.shape == first_moment.shape == second_moment.shape
        and masks.dtype == gradients.dtype == first_moment.dtype == second_moment.dtype
        and masks.device == gradients.device == first_moment.device == second_moment.device
    ):
        _refuse_state(tensors, masks)
    if step_tensor is None:
        step = _check_step(step)
    else:
        _check_step_tensor(step_tensor, masks)
        tensors["step"] = step_tensor
    if direct or has_memory(*tensors.values()):
        check_apart(tensors, written=3)
        check_changeable(written)
        if step_tensor is not None and step_tensor.is_cpu:
            step_tensor = step_tensor.clone()  # whoever writes into it now changes nothing
            _check_step(int(step_tensor.item()))
    return masks, gradients, first_moment, second_moment, step, step_tensor


def _refuse_state(tensors: dict[str, torch.Tensor], masks: torch.Tensor) -> None:
    for name, other in {"gradients": tensors["gradients"], **tensors}.items():
        if other.shape != masks.shape or other.dtype != masks.dtype:
            dtype = str(masks.dtype).removeprefix("torch.")
            raise argument_error(name, f"a {dtype} tensor {list(masks.shape)}", other)
        check_same_device(**{"masks": masks, name: other})


def _check_step(step: Any) -> int:
    expected = "a count from 1 that int64 holds"
    if type(step) is not int and not isinstance(step, torch.SymInt):
        try:
            step = 0 if isinstance(step, bool) else operator.index(step)
        except TypeError:
            raise argument_error("step", expected, step) from None
    if step < 1 or (type(step) is int and step > _LAST_STEP):
        raise argument_error("step", expected, step)
    number: int = step
    return number


def _check_step_tensor(step: torch.Tensor, masks: torch.Tensor) -> None:
    check_tensors({"step": step})
    if step.dtype != torch.int64 or step.numel() != 1:
        raise argument_error("step", "an int, or an int64 tensor of one element", step)
    if step.device != masks.device:
        check_same_device(masks=masks, step=step)
