"""Operators of windows over a photo; the kernels are in `csrc/windows`."""

from __future__ import annotations

import functools
import math
from array import array
from collections.abc import Sequence
from typing import Any

import torch

from pyxai._errors import argument_error
from pyxai.ops import _native, reference
from pyxai.ops._checks import (
    LONGEST,
    Arguments,
    check_flags,
    check_length,
    check_memory_format,
    check_number,
    check_numbers,
    check_out,
    check_same_device,
    check_size,
    check_tensors,
    has_memory,
    is_direct,
)
from pyxai.ops._memory import note_written
from pyxai.ops._operator import Operator, register
from pyxai.ops._workspace import run

_FLOAT32 = torch.finfo(torch.float32)
# kMaxChannels of csrc/windows/windows.h: what CUDA takes along with a launch.
_MAX_CUDA_CHANNELS = 64


# ---- boxes and sizes ----


def survey(boxes: torch.Tensor, height: int, width: int) -> tuple[int, int, int]:
    """Looks at dense boxes [n, 4] in main memory.

    Returns:
        The first that is empty or not inside a photo of this size, or -1; height and width of all
        boxes, both 0 where they differ.
    """
    first_bad, all_height, all_width = _native.cpu.survey_boxes(
        boxes.data_ptr(), boxes.shape[0], height, width
    )
    return first_bad, all_height, all_width


def _own_boxes(
    boxes: torch.Tensor, height: int, width: int, name: str, other: torch.Tensor
) -> tuple[torch.Tensor, tuple[int, int] | None]:
    """Boxes that fit a photo of this size, and the device of the other tensor.

    What another thread does to the caller's, once these have been looked at, is of no importance.
    Those on a CUDA device are neither copied nor read back: the kernels move them into the photo.

    Returns:
        The boxes on that device; height and width of all of them, 0 where they differ, or None if
        that cannot be known.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype != torch.int64:
        raise argument_error("boxes", "an int64 tensor [n, 4] of x0, y0, x1, y1", boxes)
    if not boxes.is_cpu:
        check_same_device(**{name: other, "boxes": boxes})
    box_size = None
    if boxes.is_cpu and has_memory(boxes):
        boxes = boxes.clone(memory_format=torch.contiguous_format)
        first_bad, *found = survey(boxes, height, width)
        if first_bad >= 0:
            expected = f"0 <= x0 < x1 <= {width} and 0 <= y0 < y1 <= {height}"
            got = f"{boxes[first_bad].tolist()} (box {first_bad})"
            raise ValueError(f"boxes: expected {expected}, got {got}")
        box_size = found[0], found[1]
    return (boxes if boxes.device == other.device else boxes.to(other.device)), box_size


def _pair(size: Any) -> tuple[int, int]:
    expected = "(height, width), both at least 1"
    if isinstance(size, (int, torch.SymInt)):
        side = check_length("size", size, expected, size)
        return side, side
    return check_size(size, expected)


# ---- crop ----


def _check_crop(
    photo: torch.Tensor,
    boxes: torch.Tensor,
    size: Any,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    dtype: torch.dtype | None,
    channels_last: bool,
) -> Arguments:
    """Raises ValueError unless the arguments fit each other.

    Returns:
        The arguments: what is None filled in, boxes on the CPU copied before they were looked at.
    """
    check_tensors({"photo": photo, "boxes": boxes})
    _check_photo(photo)
    channels, height, width = photo.shape
    boxes, box_size = _own_boxes(boxes, height, width, "photo", photo)
    size = _window_size(size, box_size, boxes.shape[0])
    if type(size[1]) is int and not torch.compiler.is_compiling() and size[1] * channels >= LONGEST:
        raise argument_error("size", f"a width below 2^30 / {channels} channels", size)
    means = check_numbers("mean", mean, channels)
    stds = check_numbers("std", std, channels)
    if stds and min(stds) < _FLOAT32.tiny:
        raise argument_error("std", "numbers that float32 holds, above 0", stds)
    return (
        photo,
        boxes,
        size,
        means,
        stds,
        _result_dtype(photo, dtype),
        *check_flags(channels_last=channels_last),
    )


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


def _window_size(size: Any, box_size: tuple[int, int] | None, count: int) -> tuple[int, int]:
    if size is not None:
        # Windows of no size, as they are found when no box says which, are as good as none.
        nothing = type(count) is int and count == 0 and size in ((0, 0), [0, 0])
        return (0, 0) if nothing else _pair(size)
    if box_size is None:
        expected = "(height, width), as boxes on CUDA or under torch.compile cannot be read"
        raise argument_error("size", expected, None)
    if count and not box_size[0]:
        raise argument_error("size", "(height, width), as the boxes are of several sizes", None)
    return box_size


@functools.lru_cache(maxsize=64)
def _constants(
    mean: tuple[float, ...], std: tuple[float, ...], channels: int, greatest: int
) -> array[float]:
    """scale, then shift, with (x / greatest - mean) / std = x * scale + shift."""
    divisors = std or (1.0,) * channels
    scale = [1 / (greatest * each) for each in divisors]
    shift = [-a / b for a, b in zip(mean, divisors, strict=True)] if mean else [0.0] * channels
    return array("f", scale + shift)


def _empty_windows(
    photo: torch.Tensor,
    boxes: torch.Tensor,
    size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
    channels_last: bool,
) -> torch.Tensor:
    return torch.empty(
        (boxes.shape[0], photo.shape[0], *size),
        dtype=dtype,
        device=photo.device,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
    )


def _crop(
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
    """`out` is contiguous, or channels_last when that is set."""
    channels, bytes_ = photo.shape[0], photo.dtype is torch.uint8
    if photo.is_cuda and channels > _MAX_CUDA_CHANNELS:
        result = reference.crop_windows(photo, boxes, size, mean, std, dtype, channels_last)
        return result if out is None else out.copy_(result)
    if out is None:
        out = _empty_windows(photo, boxes, size, mean, std, dtype, channels_last)
    else:
        note_written(out)
    boxes = boxes.contiguous()
    constants = _constants(tuple(mean), tuple(std), channels, 255 if bytes_ else 1)
    scale, _ = constants.buffer_info()
    fields = (
        photo.data_ptr(),
        bytes_,
        0 if bytes_ else _native.DTYPE_CODES[photo.dtype],
        *photo.stride(),
        *photo.shape,
        boxes.data_ptr(),
        boxes.shape[0],
        scale,
        scale + channels * constants.itemsize,
        out.data_ptr(),
        _native.DTYPE_CODES[dtype],
        channels_last,
        *size,
    )
    run("crop_windows", photo, fields)
    return out


CROP = register(
    Operator(
        "crop_windows(Tensor photo, Tensor boxes, SymInt[2] size, float[] mean, float[] std, "
        "ScalarType dtype, bool channels_last) -> Tensor",
        check=_check_crop,
        kernel=_crop,
        reference=reference.crop_windows,
        fake=_empty_windows,
        backward="reference",
    )
)


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
        boxes there are. Differentiable in a photo of floats.

    Raises:
        ValueError: a shape, dtype, device, box, number or memory format does not fit; the message
            names it.
    """
    channels_last = check_memory_format(memory_format)
    arguments = _check_crop(photo, boxes, size, mean, std, dtype, channels_last)
    own, found_size, found_dtype = arguments[1], arguments[2], arguments[5]
    direct = is_direct(photo, own, out)
    if out is not None:
        shape = (boxes.shape[0], photo.shape[0], *found_size)
        inputs = {"photo": photo, "boxes": boxes}
        check_out(out, shape, found_dtype, inputs, direct=direct, or_channels_last=True)
        arguments = (*arguments[:-1], not out.is_contiguous())
    if direct:
        return _crop(*arguments, out=out)
    windows: torch.Tensor = CROP(*arguments, out=out)
    return windows


# ---- heat map ----


def _check_heatmap(scores: torch.Tensor, boxes: torch.Tensor, size: Any, fill: float) -> Arguments:
    """Raises ValueError unless the arguments fit each other.

    Returns:
        The arguments: boxes on the CPU copied before they were looked at.
    """
    check_tensors({"scores": scores, "boxes": boxes})
    if scores.ndim not in (1, 2):
        raise argument_error("scores", "a tensor [n] or [k, n]", scores)
    if scores.dtype not in (torch.float32, torch.float64):
        raise argument_error("scores", "dtype float32 or float64", scores)
    height, width = _pair(size)
    boxes, _ = _own_boxes(boxes, height, width, "scores", scores)
    if boxes.shape[0] != scores.shape[-1]:
        raise argument_error("scores", f"one for each of {boxes.shape[0]} boxes", scores)
    if scores.is_cpu and has_memory(scores) and not torch.isfinite(scores).all():
        raise ValueError("scores: expected finite numbers, got NaN or infinity")
    if not (isinstance(fill, float) and math.isnan(fill)):
        fill = check_number("fill", fill, -_FLOAT32.max)
    return scores, boxes, (height, width), fill


def _empty_heatmap(
    scores: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int], fill: float
) -> torch.Tensor:
    return scores.new_empty((*scores.shape[:-1], *size))


def _heatmap(
    scores: torch.Tensor,
    boxes: torch.Tensor,
    size: tuple[int, int],
    fill: float,
    *,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    if out is None:
        out = _empty_heatmap(scores, boxes, size, fill)
    else:
        note_written(out)
    scores, boxes = scores.contiguous(), boxes.contiguous()
    fields = (
        scores.data_ptr(),
        scores.shape[:-1].numel(),
        boxes.data_ptr(),
        boxes.shape[0],
        out.data_ptr(),
        *size,
        fill,
    )
    run("window_heatmap", scores, fields)
    return out


HEATMAP = register(
    Operator(
        "window_heatmap(Tensor scores, Tensor boxes, SymInt[2] size, float fill) -> Tensor",
        check=_check_heatmap,
        kernel=_heatmap,
        reference=reference.window_heatmap,
        fake=_empty_heatmap,
        backward="reference",
    )
)


def window_heatmap(
    scores: torch.Tensor,
    boxes: torch.Tensor,
    size: tuple[int, int],
    *,
    fill: float = math.nan,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Puts scores of windows back on the photo: each pixel gets the mean of those that cover it.

    Takes time in proportion to `n + H * W` for each map, however large the windows are.

    Args:
        scores: `[n]` or `[k, n]` float32, finite (float64 runs the plain PyTorch form). On CUDA
            they are not read back: there a score that is not finite makes the whole map NaN.
        boxes: `[n, 4]` int64: x0, y0, x1, y1, as for `crop_windows`.
        size: (height, width) of the photo in pixels.
        fill: where no window lies.
        out: a contiguous tensor to write into, of the result's shape, dtype and device.

    Returns:
        `[H, W]` or `[k, H, W]` float32 (float64 of float64). Scores are added as integers, rounded
        to n * 2**-60 of the greatest or less: so the map depends neither on the order of the
        windows nor on threads and device. Differentiable in `scores`.

    Raises:
        ValueError: a shape, dtype, device, box, score or fill does not fit; the message names it.
    """
    arguments = _check_heatmap(scores, boxes, size, fill)
    direct = is_direct(*arguments[:2], out)
    if out is not None:
        shape = (*scores.shape[:-1], *arguments[2])
        inputs = {"scores": scores, "boxes": boxes}
        check_out(out, shape, scores.dtype, inputs, direct=direct)
    if direct:
        return _heatmap(*arguments, out=out)
    maps: torch.Tensor = HEATMAP(*arguments, out=out)
    return maps
