"""Checks of the window operators; see `_checks`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pyxai._errors import argument_error
from pyxai.ops import _native
from pyxai.ops._checks import (
    LONGEST,
    Arguments,
    check_flags,
    check_length,
    check_numbers,
    check_same_device,
    check_size,
    check_tensors,
    has_memory,
)
from pyxai.ops._windows_native import survey

_SMALLEST = torch.finfo(torch.float32).tiny


def check_crop_windows(
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
    if stds and min(stds) < _SMALLEST:
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


def check_window_heatmap(scores: torch.Tensor, boxes: torch.Tensor, size: Any) -> Arguments:
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
    return scores, boxes, (height, width)


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


def _pair(size: Any) -> tuple[int, int]:
    expected = "(height, width), both at least 1"
    if isinstance(size, (int, torch.SymInt)):
        side = check_length("size", size, expected, size)
        return side, side
    return check_size(size, expected)


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
