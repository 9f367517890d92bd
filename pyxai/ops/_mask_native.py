"""Calls the compiled mask kernels by address: no checks, no autograd.

Every tensor whose address is taken is kept alive by a local name until the call returns (CUDA:
until the launch is queued; torch's allocator keeps the order on the stream).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pyxai.ops import _native, reference
from pyxai.ops._memory import note_written
from pyxai.ops._workspace import current_stream, workspace

_cpu = _native.cpu


def _strides(source: torch.Tensor) -> tuple[int, ...]:
    """Between images, channels, rows, columns; 0 along axes of one element, which are shared."""
    return tuple(
        0 if length == 1 else stride
        for length, stride in zip(source.shape, source.stride(), strict=True)
    )


def _address(name: str, tensor: torch.Tensor | None) -> int:
    """Where a tensor lies, or 0 for none: which that of a tensor without memory is not to be."""
    if tensor is None:
        return 0
    address = tensor.data_ptr()
    if not address and tensor.numel():
        raise ValueError(f"{name}: expected a tensor with memory, got one whose storage was freed")
    return address


def _source(source: torch.Tensor, layout: torch.memory_format) -> torch.Tensor:
    # The kernels read any strides, but only rows laid out like the result's fast. An image that
    # all masks share is read many times.
    if len(source) == 1 and source.shape[-1] > 1:
        return source.contiguous(memory_format=layout)
    return source


def blend(
    images: torch.Tensor,
    masks: torch.Tensor,
    background: torch.Tensor | None,
    channels_last: bool,
    *,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """images [M or 1, C, H, W], masks [M, h, w] float32 -> [M, C, H, W].

    `out` is contiguous, or channels_last when that is set.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    _, channels, height, width = images.shape
    count, mask_height, mask_width = masks.shape
    if out is None:
        shape = (count, channels, height, width)
        out = torch.empty(shape, dtype=images.dtype, device=images.device, memory_format=layout)
    else:
        note_written(out)
    images = _source(images, layout)
    background = None if background is None else _source(background, layout)
    masks = masks.contiguous()
    arguments = (
        images.data_ptr(),
        _strides(images),
        _address("background", background),
        (0, 0, 0, 0) if background is None else _strides(background),
        _native.DTYPE_CODES[images.dtype],
        masks.data_ptr(),
        out.data_ptr(),
        channels_last,
        count,
        channels,
        mask_height,
        mask_width,
        height,
        width,
    )
    if images.is_cuda:
        _native.cuda().mask_blend(*arguments, images.get_device(), current_stream(images.device))
        return out
    workspace.run(_cpu.mask_blend, *arguments)
    return out


def blend_backward(
    gradients: torch.Tensor,
    images: torch.Tensor,
    masks: torch.Tensor,
    background: torch.Tensor | None,
    channels_last: bool,
    wanted: Sequence[bool],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients [M, C, H, W] of a blend -> those of images, masks, background; empty if unwanted.

    Pictures are contiguous, or channels_last when that is set.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    gradients = gradients.contiguous(memory_format=layout)
    grad_images, grad_masks, grad_background = (images.new_empty(0) for _ in range(3))
    if wanted[0]:
        grad_images = _shown(gradients, masks, len(images) == 1, channels_last)
    if wanted[1]:
        grad_masks = _slopes(gradients, images, masks.shape, background, channels_last)
    if wanted[2] and background is not None:
        if background.shape[2:] == images.shape[2:]:
            grad_background = _shown(gradients, 1 - masks, len(background) == 1, channels_last)
        else:
            grad_background = _colours(gradients, masks, background)
    return grad_images, grad_masks, grad_background


def _slopes(
    gradients: torch.Tensor,
    images: torch.Tensor,
    mask_shape: Sequence[int],
    background: torch.Tensor | None,
    channels_last: bool,
) -> torch.Tensor:
    """Dense gradients [M, C, H, W] of a blend -> those of the masks, [M, h, w] float32."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    count, channels, height, width = gradients.shape
    slopes = torch.empty(tuple(mask_shape), dtype=torch.float32, device=gradients.device)
    images = _source(images, layout)
    background = None if background is None else _source(background, layout)
    arguments = (
        gradients.data_ptr(),
        images.data_ptr(),
        _strides(images),
        _address("background", background),
        (0, 0, 0, 0) if background is None else _strides(background),
        _native.DTYPE_CODES[gradients.dtype],
        slopes.data_ptr(),
        channels_last,
        count,
        channels,
        *mask_shape[1:],
        height,
        width,
    )
    if gradients.is_cuda:
        device = gradients.device
        _native.cuda().mask_blend_slopes(*arguments, device.index, current_stream(device))
    else:
        workspace.run(_cpu.mask_blend_slopes, *arguments)
    return slopes


def _shown(
    gradients: torch.Tensor, masks: torch.Tensor, shared: bool, channels_last: bool
) -> torch.Tensor:
    """Dense gradients times the resized masks, summed over the masks if shared."""
    count, channels, height, width = gradients.shape
    if not shared or count == 1:
        return blend(gradients, masks, None, channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    out = torch.empty(
        (1, channels, height, width),
        dtype=gradients.dtype,
        device=gradients.device,
        memory_format=layout,
    )
    masks = masks.contiguous()
    arguments = (
        gradients.data_ptr(),
        _native.DTYPE_CODES[gradients.dtype],
        masks.data_ptr(),
        out.data_ptr(),
        channels_last,
        count,
        channels,
        *masks.shape[1:],
        height,
        width,
    )
    if gradients.is_cuda:
        device = gradients.device
        _native.cuda().mask_sum_shown(*arguments, device.index, current_stream(device))
    else:
        workspace.run(_cpu.mask_sum_shown, *arguments)
    return out


def _colours(
    gradients: torch.Tensor, masks: torch.Tensor, background: torch.Tensor
) -> torch.Tensor:
    """Dense gradients times 1 - U, summed over pixels, and over masks if the colours are shared."""
    count, channels = gradients.shape[:2]
    # The weights of the resizing add up to 1, so the sum over pixels is one over cells: of what
    # each channel alone hands back to the masks.
    planes = gradients.contiguous().flatten(0, 1)[:, None]
    ones = gradients.new_ones(()).expand(1, 1, *planes.shape[2:])
    shape = (count * channels, *masks.shape[1:])
    cells = _slopes(planes, ones, shape, None, False).view(count, channels, *shape[1:])
    hidden = 1 - masks.double()[:, None]
    sums = (cells * hidden).sum((2, 3), keepdim=True)
    return sums.sum_to_size(background.shape).to(background.dtype)


def _is_small(masks: torch.Tensor) -> bool:
    """Whether each mask on a CUDA device is the work of one block."""
    return bool(masks.shape[1:].numel() <= _native.cuda().SMALL_MASK)


def _partials(masks: torch.Tensor) -> torch.Tensor:
    """Scratch memory of the CUDA kernels for the costs of parts of masks; small ones need none."""
    parts = 0 if _is_small(masks) else _native.cuda().PENALTY_PARTS
    return torch.empty(len(masks), parts, dtype=torch.float32, device=masks.device)


def penalty(
    masks: torch.Tensor,
    tv_weight: float,
    l1_weight: float,
    beta: float,
    root: bool,
    mean: bool,
    *,
    with_slopes: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """masks [M, h, w] float32 -> costs [M], and slopes [M, h, w], empty if not wanted."""
    masks = masks.contiguous()
    costs = torch.empty(len(masks), dtype=torch.float32, device=masks.device)
    slopes = torch.empty_like(masks) if with_slopes else masks.new_empty(0)
    arguments = (
        masks.data_ptr(),
        costs.data_ptr(),
        slopes.data_ptr(),  # 0 for an empty tensor
        *masks.shape,
        tv_weight,
        l1_weight,
        beta,
        root,
        mean,
    )
    if masks.is_cuda:
        partials, stream = _partials(masks), current_stream(masks.device)
        _native.cuda().mask_penalty(*arguments, partials.data_ptr(), masks.get_device(), stream)
    else:
        workspace.run(_cpu.mask_penalty, *arguments)
    return costs, slopes


def step_(
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
) -> None:
    """In place on masks and moments, float32; any strides, fast where all are contiguous."""
    numbers = (learning_rate, beta1, beta2, eps)
    if not all(each.is_contiguous() for each in (masks, first_moment, second_moment)):
        reference.mask_step_(
            masks, gradients, first_moment, second_moment, step, step_tensor, *numbers
        )
        return
    gradients = gradients.contiguous()
    arguments = (
        masks.data_ptr(),
        gradients.data_ptr(),
        first_moment.data_ptr(),
        second_moment.data_ptr(),
        masks.numel(),
        _address("step", step_tensor),
        step,
        *numbers,
    )
    if masks.is_cuda:
        _native.cuda().mask_step(*arguments, masks.get_device(), current_stream(masks.device))
    else:
        _cpu.mask_step(*arguments, torch.get_num_threads())
    note_written(masks, first_moment, second_moment)


def penalized_step_(
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
) -> torch.Tensor:
    """`penalty` and `step_` on masks [M, h, w], any strides as there; their costs [M] before it."""
    numbers = (learning_rate, beta1, beta2, eps)
    if not all(each.is_contiguous() for each in (masks, first_moment, second_moment)):
        costs, slopes = penalty(masks, *penalty_numbers)
        slopes.add_(gradients.detach())
        step_(masks, slopes, first_moment, second_moment, step, step_tensor, *numbers)
        return costs
    gradients = gradients.contiguous()
    costs = torch.empty(len(masks), dtype=torch.float32, device=masks.device)
    small = masks.is_cuda and _is_small(masks)
    slopes = torch.empty(0 if small else masks.shape, dtype=torch.float32, device=masks.device)
    arguments = (
        masks.data_ptr(),
        gradients.data_ptr(),
        first_moment.data_ptr(),
        second_moment.data_ptr(),
        costs.data_ptr(),
        slopes.data_ptr(),
        *masks.shape,
        _address("step", step_tensor),
        step,
        *numbers,
        *penalty_numbers,
    )
    if masks.is_cuda:
        partials = _partials(masks)
        stream = current_stream(masks.device)
        _native.cuda().mask_penalized_step(
            *arguments, partials.data_ptr(), masks.get_device(), stream
        )
    else:
        workspace.run(_cpu.mask_penalized_step, *arguments)
    note_written(masks, first_moment, second_moment)
    return costs
