"""Calls the compiled window kernels by address: no checks, no autograd.

Every tensor whose address is taken is kept alive by a local name until the call returns (CUDA:
until the launch is queued; torch's allocator keeps the order on the stream).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pyxai.ops import _native, reference
from pyxai.ops._memory import note_written
from pyxai.ops._workspace import current_stream, workspace

_cpu = _native.cpu

# One more than the dtypes that results may have; kBytes of csrc/windows/bind_args.h.
_PHOTO_CODES = {**_native.DTYPE_CODES, torch.uint8: 3}
# kMaxChannels of csrc/windows/windows.h: what CUDA takes along with a launch.
_MAX_CUDA_CHANNELS = 64


def survey(boxes: torch.Tensor, height: int, width: int) -> tuple[int, int, int]:
    """Looks at dense boxes [n, 4] in main memory.

    Returns:
        The first that is empty or not inside a photo of this size, or -1; height and width of all
        boxes, both 0 where they differ.
    """
    first_bad, all_height, all_width = _cpu.survey_boxes(
        boxes.data_ptr(), boxes.shape[0], height, width
    )
    return first_bad, all_height, all_width


def _constants(
    mean: Sequence[float], std: Sequence[float], channels: int, greatest: int
) -> tuple[list[float], list[float]]:
    """scale and shift with (x / greatest - mean) / std = x * scale + shift."""
    divisors = std or [1.0] * channels
    scale = [1 / (greatest * each) for each in divisors]
    shift = [-a / b for a, b in zip(mean, divisors, strict=True)] if mean else [0.0] * channels
    return scale, shift


def crop(
    photo: torch.Tensor,
    boxes: torch.Tensor,
    size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
    channels_last: bool,
    *,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """photo [C, H, W], boxes [n, 4] int64 -> [n, C, h, w].

    `out` is contiguous, or channels_last when that is set.
    """
    channels = len(photo)
    if photo.is_cuda and channels > _MAX_CUDA_CHANNELS:
        result = reference.crop_windows(photo, boxes, size, mean, std, dtype, channels_last)
        return result if out is None else out.copy_(result)
    if out is None:
        out = torch.empty(
            (len(boxes), channels, *size),
            dtype=dtype,
            device=photo.device,
            memory_format=torch.channels_last if channels_last else torch.contiguous_format,
        )
    else:
        note_written(out)
    boxes = boxes.contiguous()
    arguments = (
        photo.data_ptr(),
        _PHOTO_CODES[photo.dtype],
        photo.stride(),
        photo.shape,
        boxes.data_ptr(),
        len(boxes),
        *_constants(mean, std, channels, 255 if photo.dtype == torch.uint8 else 1),
        out.data_ptr(),
        _native.DTYPE_CODES[dtype],
        channels_last,
        *size,
    )
    if photo.is_cuda:
        _native.cuda().crop_windows(*arguments, photo.get_device(), current_stream(photo.device))
        return out
    workspace.run(_cpu.crop_windows, *arguments)
    return out


def heatmap(
    scores: torch.Tensor,
    boxes: torch.Tensor,
    size: tuple[int, int],
    *,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """scores [..., n] float32, boxes [n, 4] int64 -> [..., H, W]."""
    if out is None:
        out = torch.empty((*scores.shape[:-1], *size), dtype=torch.float32, device=scores.device)
    else:
        note_written(out)
    scores, boxes = scores.contiguous(), boxes.contiguous()
    maps, count = scores.shape[:-1].numel(), len(boxes)
    arguments = (scores.data_ptr(), maps, boxes.data_ptr(), count, out.data_ptr(), *size)
    if scores.is_cuda:
        _native.cuda().window_heatmap(
            *arguments, scores.get_device(), current_stream(scores.device)
        )
        return out
    workspace.run(_cpu.window_heatmap, *arguments)
    return out
