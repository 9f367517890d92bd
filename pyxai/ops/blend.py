"""Photos shown under masks, and the gradient of that; the kernels are in `csrc/mask`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pyxai._errors import argument_error
from pyxai.ops import _native, reference
from pyxai.ops._checks import (
    Arguments,
    check_flags,
    check_memory_format,
    check_out,
    check_same_device,
    check_tensors,
    is_direct,
)
from pyxai.ops._gradients import Gradients
from pyxai.ops._memory import address_of, note_written
from pyxai.ops._operator import Operator, register
from pyxai.ops._workspace import run

_NO_SOURCE = (0, 0, 0, 0, 0)


def _layout(channels_last: bool) -> torch.memory_format:
    return torch.channels_last if channels_last else torch.contiguous_format


# ---- blend ----


def _check_blend(
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


def _source(source: torch.Tensor, layout: torch.memory_format) -> torch.Tensor:
    # The kernels read any strides, but only rows laid out like the result's fast. An image that
    # all masks share is read many times.
    if source.shape[0] == 1 and source.shape[-1] > 1:
        return source.contiguous(memory_format=layout)
    return source


def _source_fields(name: str, source: torch.Tensor | None) -> Arguments:
    """Those of BlendSource: strides are 0 along axes of one element, which are shared."""
    if source is None:
        return _NO_SOURCE
    strides = [
        0 if length == 1 else stride
        for length, stride in zip(source.shape, source.stride(), strict=True)
    ]
    return address_of(name, source), *strides


def _blend_fields(
    images: Arguments,
    background: Arguments,
    like: torch.Tensor,
    masks: int,
    out: int,
    channels_last: bool,
    mask_shape: Sequence[int],
) -> Arguments:
    """Those of BlendArgs, of images and background those of BlendSource; as large as `like`."""
    return (
        *images,
        *background,
        _native.DTYPE_CODES[like.dtype],
        masks,
        out,
        channels_last,
        mask_shape[0],
        like.shape[1],
        *mask_shape[1:],
        *like.shape[2:],
    )


def _empty_blend(
    images: torch.Tensor, masks: torch.Tensor, background: torch.Tensor | None, channels_last: bool
) -> torch.Tensor:
    return torch.empty(
        (masks.shape[0], *images.shape[1:]),
        dtype=images.dtype,
        device=images.device,
        memory_format=_layout(channels_last),
    )


def _blend(
    images: torch.Tensor,
    masks: torch.Tensor,
    background: torch.Tensor | None,
    channels_last: bool,
    *,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """`out` is contiguous, or channels_last when that is set."""
    if out is None:
        out = _empty_blend(images, masks, background, channels_last)
    else:
        note_written(out)
    images = _source(images, _layout(channels_last))
    background = None if background is None else _source(background, _layout(channels_last))
    masks = masks.contiguous()
    fields = _blend_fields(
        _source_fields("images", images),
        _source_fields("background", background),
        out,
        masks.data_ptr(),
        out.data_ptr(),
        channels_last,
        masks.shape,
    )
    run("mask_blend", images, fields)
    return out


def _blend_gradients(
    gradient: torch.Tensor, wanted: Sequence[bool], arguments: list[Any], _: Any
) -> Gradients:
    images, masks, background, channels_last = arguments
    # What a graph has saved of leaves is whatever their `data` is by now.
    checked = _check_blend_backward(
        gradient.resolve_neg(), images, masks, background, channels_last, wanted[:3]
    )
    direct = is_direct(*checked[:4], gradients=True)
    gradients = (_blend_backward if direct else BLEND_BACKWARD)(*checked)
    return tuple(each if want else None for each, want in zip(gradients, wanted, strict=False))


BLEND = register(
    Operator(
        "mask_blend(Tensor images, Tensor masks, Tensor? background, bool channels_last) -> Tensor",
        check=_check_blend,
        kernel=_blend,
        reference=reference.mask_blend,
        fake=_empty_blend,
        backward=_blend_gradients,
    )
)


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
        any number of threads. Differentiable in `images`, `masks` and `background`.

    Raises:
        ValueError: a shape, dtype, device or memory format does not fit; the message names it.
    """
    channels_last = check_memory_format(memory_format)
    _check_blend(images, masks, background, channels_last)
    direct = is_direct(images, masks, background, out)
    if out is not None:
        shape = (masks.shape[0], *images.shape[1:])
        inputs = {"images": images, "masks": masks, "background": background}
        check_out(out, shape, images.dtype, inputs, direct=direct, or_channels_last=True)
        channels_last = not out.is_contiguous()
    if direct:
        return _blend(images, masks, background, channels_last, out=out)
    blended: torch.Tensor = BLEND(images, masks, background, channels_last, out=out)
    return blended


# ---- its gradient ----


def _check_blend_backward(
    gradients: torch.Tensor,
    images: torch.Tensor,
    masks: torch.Tensor,
    background: torch.Tensor | None,
    channels_last: bool,
    wanted: Sequence[bool],
) -> Arguments:
    """Raises ValueError unless the gradients are those of such a blend; returns the arguments."""
    blended = _check_blend(images, masks, background, channels_last)
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


def _blend_backward(
    gradients: torch.Tensor,
    images: torch.Tensor,
    masks: torch.Tensor,
    background: torch.Tensor | None,
    channels_last: bool,
    wanted: Sequence[bool],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients by images, masks and background, empty if unwanted; pictures in the layout."""
    gradients = gradients.contiguous(memory_format=_layout(channels_last))
    by_images, by_masks, by_background = (images.new_empty(0) for _ in range(3))
    if wanted[0]:
        by_images = _shown(gradients, masks, len(images) == 1, channels_last)
    if wanted[1]:
        by_masks = _slopes(gradients, images, masks.shape, background, channels_last)
    if wanted[2] and background is not None:
        if background.shape[2:] == images.shape[2:]:
            by_background = _shown(gradients, 1 - masks, len(background) == 1, channels_last)
        else:
            by_background = _colors(gradients, masks, background)
    return by_images, by_masks, by_background


def _slopes(
    gradients: torch.Tensor,
    images: torch.Tensor,
    mask_shape: Sequence[int],
    background: torch.Tensor | None,
    channels_last: bool,
) -> torch.Tensor:
    """Dense gradients [M, C, H, W] of a blend -> those of the masks, [M, h, w] float32."""
    slopes = torch.empty(tuple(mask_shape), dtype=torch.float32, device=gradients.device)
    images = _source(images, _layout(channels_last))
    background = None if background is None else _source(background, _layout(channels_last))
    fields = _blend_fields(
        _source_fields("images", images),
        _source_fields("background", background),
        gradients,
        0,
        0,
        channels_last,
        mask_shape,
    )
    run("mask_blend_slopes", gradients, (*fields, gradients.data_ptr(), slopes.data_ptr()))
    return slopes


def _shown(
    gradients: torch.Tensor, masks: torch.Tensor, shared: bool, channels_last: bool
) -> torch.Tensor:
    """Dense gradients times the resized masks, summed over the masks if shared."""
    if not shared or len(masks) == 1:
        return _blend(gradients, masks, None, channels_last)
    out = torch.empty(
        (1, *gradients.shape[1:]),
        dtype=gradients.dtype,
        device=gradients.device,
        memory_format=_layout(channels_last),
    )
    masks = masks.contiguous()
    fields = _blend_fields(
        _NO_SOURCE,
        _NO_SOURCE,
        gradients,
        masks.data_ptr(),
        out.data_ptr(),
        channels_last,
        masks.shape,
    )
    run("mask_sum_shown", gradients, (*fields, gradients.data_ptr()))
    return out


def _colors(gradients: torch.Tensor, masks: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    """Dense gradients times 1 - U, summed over pixels, and over masks if the colors are shared."""
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


def _empty_gradients(
    gradients: torch.Tensor,
    images: torch.Tensor,
    masks: torch.Tensor,
    background: torch.Tensor | None,
    channels_last: bool,
    wanted: Sequence[bool],
) -> tuple[torch.Tensor, ...]:
    layouts = (_layout(channels_last), torch.contiguous_format, _layout(channels_last))
    return tuple(
        torch.empty_like(each, memory_format=layout)
        if want and each is not None
        else images.new_empty(0)
        for each, layout, want in zip((images, masks, background), layouts, wanted, strict=True)
    )


BLEND_BACKWARD = register(
    Operator(
        "mask_blend_backward(Tensor gradients, Tensor images, Tensor masks, Tensor? background, "
        "bool channels_last, bool[3] wanted) -> (Tensor, Tensor, Tensor)",
        check=_check_blend_backward,
        kernel=_blend_backward,
        reference=reference.mask_blend_backward,
        fake=_empty_gradients,
    )
)
