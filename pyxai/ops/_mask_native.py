"""Calls the compiled mask kernels by address: no checks, no autograd.

Every tensor whose address is taken is kept alive by a local name until the call returns (CUDA:
until the launch is queued; torch's allocator keeps the order on the stream).
"""

from __future__ import annotations

import torch

from pyxai.ops import _native
from pyxai.ops._workspace import current_stream, workspace

_cpu = _native.cpu


def _strides(source: torch.Tensor) -> tuple[int, ...]:
    """Between images, channels, rows, columns; 0 along axes of one element, which are shared."""
    return tuple(
        0 if length == 1 else stride
        for length, stride in zip(source.shape, source.stride(), strict=True)
    )


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
    images = _source(images, layout)
    background = None if background is None else _source(background, layout)
    masks = masks.contiguous()
    arguments = (
        images.data_ptr(),
        _strides(images),
        0 if background is None else background.data_ptr(),
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
