"""Operators of windows over a photo: check, then call the kernel of the tensor's device.

Plain tensors that need no gradient go straight to the kernel; everything else (autograd,
torch.compile, torch.export, fake tensors, devices without a kernel, float64) goes through the
operators that `pyxai.ops._library` registers with torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from pyxai._errors import argument_error
from pyxai.ops import _native, _windows_native
from pyxai.ops._checks import check_out, check_same_device, is_direct, operators


def crop_windows(
    photo: torch.Tensor,
    boxes: torch.Tensor,
    size: int | tuple[int, int] | None = None,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.contiguous_format,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cuts windows out of a photo, normalises and resizes them, in one pass.

    Args:
        photo: `[C, H, W]` uint8, float32, bfloat16 or float16 (float64 runs the plain PyTorch
            form), of any strides: a picture `[H, W, C]` is `pixels.permute(2, 0, 1)`, which
            copies nothing. Fastest when laid out like the result.
        boxes: `[n, 4]` int64: x0, y0, x1, y1, the edges in pixels, inside the photo, x0 < x1 and
            y0 < y1. In any order, they may overlap. On the CPU they are checked; on the photo's
            CUDA device they are not read back: those outside the photo are moved into it.
        size: (height, width) of all windows, or one number for both. Boxes of another size are
            resized, each by itself: equal to cutting, then
            `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`, without
            antialiasing. None: all boxes have one size, and windows are cut as they are; needs
            boxes that can be read (on the CPU, and not under torch.compile).
        mean: C numbers to subtract, in units of the photo's values (uint8: of 255); None for 0.
        std: C numbers above 0 to divide by then; None for 1.
        dtype: of the result: float32, bfloat16 or float16 (or float64, like the photo); None for
            the photo's, float32 for uint8.
        memory_format: of the result: torch.contiguous_format or torch.channels_last.
        out: a tensor to write into, of the result's shape, dtype and device, contiguous or
            channels_last, whatever `memory_format` says. Reusing one saves more time than the
            arithmetic takes; a small one that stays in the cache is faster still.

    Returns:
        `[n, C, h, w]`: of uint8 photos `(x / 255 - mean) / std`, of others `(x - mean) / std`.
        Computed in float32 in a fixed order: the same for any number of threads and whatever other
        boxes there are. Differentiable in a photo of floats, once.

    Raises:
        ValueError: a shape, dtype, device, box, number or memory format does not fit; the message
            names it.
    """
    _check_photo(photo)
    channels = photo.shape[0]
    box_size = _check_boxes(boxes, photo.shape[1:], photo=photo)
    height, width = _window_size(size, box_size, boxes.shape[0])
    mean, std = _numbers("mean", mean, channels), _numbers("std", std, channels)
    if any(each <= 0 for each in std):
        raise argument_error("std", "numbers above 0", std)
    dtype = _result_dtype(photo, dtype)
    channels_last = memory_format is torch.channels_last
    if not channels_last and memory_format is not torch.contiguous_format:
        expected = "torch.contiguous_format or torch.channels_last"
        raise ValueError(f"memory_format: expected {expected}, got {memory_format}")
    if out is not None:
        shape = (boxes.shape[0], channels, height, width)
        check_out(out, shape, dtype, photo, or_channels_last=True)
        channels_last = not out.is_contiguous()
        if out.numel() and out.data_ptr() == photo.data_ptr():
            raise ValueError("out: expected memory of its own, got that of the photo")
    if boxes.device != photo.device:
        boxes = boxes.to(photo.device)
    arguments = (photo, boxes, (height, width), mean, std, dtype, channels_last)
    if is_direct(photo, boxes):
        return _windows_native.crop(*arguments, out)
    result: torch.Tensor = operators().crop_windows(*arguments)
    return result if out is None else out.copy_(result)


def window_heatmap(
    scores: torch.Tensor,
    boxes: torch.Tensor,
    size: tuple[int, int],
    *,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Puts scores of windows back on the photo: each pixel gets the mean of those that cover it.

    Takes time in proportion to `n + H * W` for each map, however large the windows are.

    Args:
        scores: `[n]` or `[k, n]` float32, finite (float64 runs the plain PyTorch form). On CUDA
            they are not read back: there a score that is not finite makes the whole map NaN.
        boxes: `[n, 4]` int64: x0, y0, x1, y1, as for `crop_windows`.
        size: (height, width) of the photo in pixels.
        out: a contiguous tensor to write into, of the result's shape, dtype and device.

    Returns:
        `[H, W]` or `[k, H, W]` float32 (float64 of float64); NaN where no window lies. Scores are
        added as integers, rounded to n * 2**-60 of the greatest or less: so the map depends
        neither on the order of the windows nor on threads and device. Differentiable in `scores`,
        once.

    Raises:
        ValueError: a shape, dtype, device, box or score does not fit; the message names it.
    """
    if scores.ndim not in (1, 2):
        raise argument_error("scores", "a tensor [n] or [k, n]", scores)
    if scores.dtype not in (torch.float32, torch.float64):
        raise argument_error("scores", "dtype float32 or float64", scores)
    height, width = _pair("size", size)
    _check_boxes(boxes, (height, width), scores=scores)
    if boxes.shape[0] != scores.shape[-1]:
        raise argument_error("scores", f"one for each of {boxes.shape[0]} boxes", scores)
    if _can_read(boxes) and scores.is_cpu and not torch.isfinite(scores).all():
        raise ValueError("scores: expected finite numbers, got NaN or infinity")
    if out is not None:
        check_out(out, (*scores.shape[:-1], height, width), scores.dtype, scores)
    if boxes.device != scores.device:
        boxes = boxes.to(scores.device)
    if is_direct(scores, boxes):
        return _windows_native.heatmap(scores, boxes, (height, width), out)
    result: torch.Tensor = operators().window_heatmap(scores, boxes, (height, width))
    return result if out is None else out.copy_(result)


def _check_photo(photo: torch.Tensor) -> None:
    if photo.ndim != 3 or 0 in photo.shape:
        raise argument_error("photo", "a tensor [C, H, W] with C, H, W >= 1", photo)
    known = (torch.uint8, *_native.DTYPE_CODES, torch.float64)
    if photo.dtype not in known:
        raise argument_error("photo", "dtype uint8, float32, bfloat16, float16 or float64", photo)


def _result_dtype(photo: torch.Tensor, dtype: torch.dtype | None) -> torch.dtype:
    if dtype is None:
        return torch.float32 if photo.dtype == torch.uint8 else photo.dtype
    if dtype not in _native.DTYPE_CODES and (dtype, photo.dtype) != (torch.float64,) * 2:
        raise argument_error("dtype", "float32, bfloat16 or float16 (float64 of float64)", dtype)
    return dtype


def _numbers(name: str, values: Sequence[float] | None, channels: int) -> list[float]:
    if values is None:
        return []
    numbers = [float(each) for each in values]
    if len(numbers) != channels or not all(map(math.isfinite, numbers)):
        raise argument_error(name, f"{channels} finite numbers, one for each channel", numbers)
    return numbers


def _pair(name: str, size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, (int, torch.SymInt)) else size
    if height < 1 or width < 1:
        raise argument_error(name, "(height, width), both at least 1", size)
    return height, width


def _can_read(boxes: torch.Tensor) -> bool:
    """Whether values may be looked at: they are here, and nobody records what is done to them."""
    return boxes.is_cpu and is_direct(boxes)


def _check_boxes(
    boxes: torch.Tensor, size: Sequence[int], **other: torch.Tensor
) -> tuple[int, int] | None:
    """Raises ValueError unless boxes fit a photo of this size, and the device of the other tensor.

    Returns:
        height and width of all boxes, 0 where they differ; None if that cannot be known.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype != torch.int64:
        raise argument_error("boxes", "an int64 tensor [n, 4] of x0, y0, x1, y1", boxes)
    if not boxes.is_cpu:
        check_same_device(**other, boxes=boxes)
    if not _can_read(boxes):
        return None
    height, width = size
    first_bad, *box_size = _windows_native.survey(boxes, height, width)
    if first_bad >= 0:
        expected = f"0 <= x0 < x1 <= {width} and 0 <= y0 < y1 <= {height}"
        got = f"{boxes[first_bad].tolist()} (box {first_bad})"
        raise ValueError(f"boxes: expected {expected}, got {got}")
    return box_size[0], box_size[1]


def _window_size(
    size: int | tuple[int, int] | None, box_size: tuple[int, int] | None, count: int
) -> tuple[int, int]:
    if size is not None:
        return _pair("size", size)
    if box_size is None:
        expected = "(height, width), as boxes on CUDA or under torch.compile cannot be read"
        raise argument_error("size", expected, None)
    if count and not box_size[0]:
        raise argument_error("size", "(height, width), as the boxes are of several sizes", None)
    return box_size
