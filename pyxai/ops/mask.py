"""Operators of masks over photos: check, then call the kernel of the tensor's device.

Plain tensors that need no gradient go straight to the kernel; everything else (autograd,
torch.compile, torch.export, fake tensors, devices without a kernel, float64) goes through the
operators that `pyxai.ops._library` registers with torch.
"""

from __future__ import annotations

import torch

from pyxai._errors import argument_error
from pyxai.ops import _mask_native, _native
from pyxai.ops._checks import check_out, check_same_device, is_direct, operators


def mask_blend(
    images: torch.Tensor,
    masks: torch.Tensor,
    background: torch.Tensor | None = None,
    *,
    memory_format: torch.memory_format = torch.contiguous_format,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Shows photos where masks are 1 and a background where they are 0, in one pass.

    With `U` the masks, resized to the photos: `images * U + background * (1 - U)`. The resized
    masks are never stored.

    Args:
        images: `[M, C, H, W]`, or `[1, C, H, W]` for all masks; float32, bfloat16 or float16
            (float64 runs the plain PyTorch form). Read as they are when contiguous or
            channels_last, like the result or not; fastest when like it.
        masks: `[M, h, w]` float32 (float64 for float64 images), of any size; any values, nothing
            is clamped. Resizing equals
            `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`.
        background: None for 0; pictures like `images`, one for each mask or one for all; or
            colours `[M, C, 1, 1]` or `[1, C, 1, 1]`. Of the dtype of `images`.
        memory_format: of the result: torch.contiguous_format or torch.channels_last.
        out: a tensor to write into, of the result's shape, dtype and device, contiguous or
            channels_last, whatever `memory_format` says. Reusing one for large results saves more
            time than the arithmetic takes.

    Returns:
        `[M, C, H, W]` in the dtype of `images`, computed in float32 in a fixed order: the same for
        any number of threads. Differentiable in `images`, `masks` and `background`, once.

    Raises:
        ValueError: a shape, dtype, device or memory format does not fit; the message names it.
    """
    _check_blend(images, masks, background)
    channels_last = memory_format is torch.channels_last
    if not channels_last and memory_format is not torch.contiguous_format:
        expected = "torch.contiguous_format or torch.channels_last"
        raise ValueError(f"memory_format: expected {expected}, got {memory_format}")
    inputs = (images, masks) if background is None else (images, masks, background)
    if out is not None:
        shape = (len(masks), *images.shape[1:])
        check_out(out, shape, images.dtype, *inputs, or_channels_last=True)
        channels_last = not out.is_contiguous()
        if out.numel() and any(out.data_ptr() == each.data_ptr() for each in inputs):
            raise ValueError("out: expected memory of its own, got that of another argument")
    if is_direct(*inputs):
        return _mask_native.blend(images, masks, background, channels_last, out)
    result: torch.Tensor = operators().mask_blend(images, masks, background, channels_last)
    return result if out is None else out.copy_(result)


def _check_blend(
    images: torch.Tensor, masks: torch.Tensor, background: torch.Tensor | None
) -> None:
    dtype = images.dtype
    if images.ndim != 4 or 0 in images.shape[2:]:
        raise argument_error("images", "a tensor [M or 1, C, H, W] with H, W >= 1", images)
    if dtype not in _native.DTYPE_CODES and dtype != torch.float64:
        raise argument_error("images", "dtype float32, bfloat16, float16 or float64", images)
    if masks.ndim != 3 or 0 in masks.shape[1:]:
        raise argument_error("masks", "a tensor [M, h, w] with h, w >= 1", masks)
    if masks.dtype != torch.float32 and (masks.dtype != torch.float64 or dtype != torch.float64):
        raise argument_error("masks", "dtype float32 (or float64, like the images)", masks)
    count, channels = len(masks), images.shape[1]
    if len(images) not in (1, count):
        expected = f"one for each of {count} masks, or one for all"
        raise argument_error("images", expected, images)
    if background is not None:
        size = background.shape[2:]
        if (
            background.ndim != 4
            or background.shape[0] not in (1, count)
            or background.shape[1] != channels
            or (size != images.shape[2:] and size != (1, 1))
        ):
            pictures = [channels, *images.shape[2:]]
            inner = ", ".join(map(str, pictures))
            expected = f"a tensor [{count} or 1, {inner}] or [{count} or 1, {channels}, 1, 1]"
            raise argument_error("background", expected, background)
        if background.dtype != dtype:
            name = str(dtype).removeprefix("torch.")
            raise argument_error("background", f"dtype {name}, that of the images", background)
        if background.device != images.device:
            check_same_device(images=images, background=background)
    if masks.device != images.device:
        check_same_device(images=images, masks=masks)
