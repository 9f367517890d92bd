"""Operators of windows over a photo: check, then call the kernel of the tensor's device.

Plain tensors that need no gradient go straight to the kernel; everything else (autograd,
torch.compile, torch.export, fake tensors, devices without a kernel, float64) goes through the
operators that `pyxai.ops._library` registers with torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pyxai.ops import _windows_native
from pyxai.ops._checks import (
    check_memory_format,
    check_out,
    is_direct,
    operators,
)
from pyxai.ops._windows_checks import check_crop_windows, check_window_heatmap


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
    arguments = check_crop_windows(photo, boxes, size, mean, std, dtype, channels_last)
    own, found_size, found_dtype = arguments[1], arguments[2], arguments[5]
    direct = is_direct(photo, own, out)
    if out is not None:
        shape = (boxes.shape[0], photo.shape[0], *found_size)
        inputs = {"photo": photo, "boxes": boxes}
        check_out(out, shape, found_dtype, inputs, direct=direct, or_channels_last=True)
        arguments = (*arguments[:-1], not out.is_contiguous())
    if direct:
        return _windows_native.crop(*arguments, out=out)
    result = operators().crop_windows(*arguments)
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
    arguments = check_window_heatmap(scores, boxes, size)
    direct = is_direct(*arguments[:2], out)
    if out is not None:
        shape = (*scores.shape[:-1], *arguments[2])
        inputs = {"scores": scores, "boxes": boxes}
        check_out(out, shape, scores.dtype, inputs, direct=direct)
    if direct:
        return _windows_native.heatmap(*arguments, out=out)
    result = operators().window_heatmap(*arguments)
    return result if out is None else out.copy_(result)
