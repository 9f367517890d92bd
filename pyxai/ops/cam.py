"""Operators of class activation maps: check, then call the kernel of the tensor's device.

Plain tensors that need no gradient go straight to the kernel; everything else (autograd,
torch.compile, torch.export, fake tensors, devices without a kernel, float64) goes through the
operators that `pyxai.ops._library` registers with torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pyxai._errors import argument_error
from pyxai.ops import _cam_native
from pyxai.ops._cam_checks import (
    check_cam_overlay,
    check_cam_project,
    check_cam_project_render,
    check_cam_render,
)
from pyxai.ops._checks import check_out, is_direct, operators


def cam_project(features: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Projects features on class weights: `maps[n, t] = sum_c weights[n, t, c] * features[n, c]`.

    Args:
        features: `[N, C, h, w]`, float32, bfloat16 or float16 (float64 runs the plain PyTorch
            form); contiguous and channels_last layouts are read as they are, others are copied.
        weights: `[N, T, C]`, or `[1, T, C]` for all images; any floating dtype, same device.

    Returns:
        `[N, T, h, w]` float32 (float64 for float64), summed in float32 in a fixed order: the same
        for any number of threads. Differentiable in both arguments.

    Raises:
        ValueError: a shape, dtype or device does not fit; the message names it.
    """
    check_cam_project(features, weights)
    if is_direct(features, weights):
        return _cam_native.project(features, weights)
    maps: torch.Tensor = operators().cam_project(features, weights)
    return maps


def cam_render(
    maps: torch.Tensor,
    size: Sequence[int],
    *,
    relu: bool = False,
    minmax: bool = True,
    dtype: torch.dtype = torch.float32,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Turns low-resolution maps into pictures: ReLU, min-max, bilinear resize, in one pass.

    Args:
        maps: `[..., h, w]` float32 (float64 runs the plain PyTorch form).
        size: (height, width) of the result. Resizing equals
            `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`.
        relu: whether negative values become 0 first.
        minmax: whether each map is then scaled to [0, 1] over its own values; a constant map
            becomes 0.
        dtype: torch.float32, or torch.uint8 for `round(255 * value)`, values clamped to [0, 1].
        out: a contiguous tensor to write into, of the result's shape, dtype and device. Reusing one
            for large results saves more time than the arithmetic takes.

    Returns:
        `[..., H, W]`. A map that holds a NaN or an infinity is NaN throughout (uint8: 0).
        Differentiable in `maps` for float32 results.

    Raises:
        ValueError: a shape, dtype or device does not fit; the message names it.
    """
    arguments = check_cam_render(maps, size, relu, minmax, _is_uint8(dtype))
    direct = is_direct(maps, out)
    if out is not None:
        shape = (*maps.shape[:-2], *arguments[1])
        check_out(out, shape, dtype, {"maps": maps}, direct=direct)
    if direct:
        return _cam_native.render(*arguments, out=out)
    result = operators().cam_render(*arguments)
    return result if out is None else out.copy_(result)


def cam_project_render(
    features: torch.Tensor,
    weights: torch.Tensor,
    size: Sequence[int],
    *,
    relu: bool = False,
    minmax: bool = True,
    dtype: torch.dtype = torch.float32,
    out: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`cam_project`, then `cam_render`, in one call: see there for the arguments.

    Returns:
        The pictures `[N, T, H, W]` and the low-resolution maps `[N, T, h, w]` they were made from.

    Raises:
        ValueError: a shape, dtype or device does not fit; the message names it.
    """
    arguments = check_cam_project_render(features, weights, size, relu, minmax, _is_uint8(dtype))
    direct = is_direct(features, weights, out)
    if out is not None:
        shape = (features.shape[0], weights.shape[1], *arguments[2])
        inputs = {"features": features, "weights": weights}
        check_out(out, shape, dtype, inputs, direct=direct)
    if direct:
        return _cam_native.project_render(*arguments, out=out)
    maps = operators().cam_project(features, weights)
    pictures = operators().cam_render(maps, *arguments[2:])
    return (pictures if out is None else out.copy_(pictures)), maps


def cam_overlay(
    photos: torch.Tensor,
    maps: torch.Tensor,
    colors: torch.Tensor,
    *,
    relu: bool = False,
    minmax: bool = True,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Lays maps over photos: resize, colour and blend, in one pass.

    With `i` the uint8 rendering of the map at a pixel (see `cam_render`), `(r, g, b, a) =
    colors[i]` and `s = a + (a >> 7)`, the result is `(photo * (256 - s) + color * s + 128) >> 8`.

    Args:
        photos: `[N, H, W, 3]` uint8.
        maps: `[N, h, w]` float32.
        colors: `[256, 4]` uint8: red, green, blue, opacity of each value.
        relu: whether negative values become 0 first.
        minmax: whether each map is scaled to [0, 1] over its own values.
        out: a contiguous tensor like `photos` to write into.

    Returns:
        `[N, H, W, 3]` uint8.

    Raises:
        ValueError: a shape, dtype or device does not fit; the message names it.
    """
    arguments = check_cam_overlay(photos, maps, colors, relu, minmax)
    if maps.requires_grad:
        maps = maps.detach()  # bytes have no gradient
    direct = is_direct(photos, maps, colors, out)
    if out is not None:
        inputs = {"photos": photos, "maps": maps, "colors": colors}
        check_out(out, photos.shape, torch.uint8, inputs, direct=direct)
    if direct:
        return _cam_native.overlay(photos, maps, colors, *arguments[3:], out=out)
    result = operators().cam_overlay(photos, maps, colors, *arguments[3:])
    return result if out is None else out.copy_(result)


def _is_uint8(dtype: torch.dtype) -> bool:
    if dtype is torch.float32:
        return False
    if dtype is not torch.uint8:
        raise argument_error("dtype", "torch.float32 or torch.uint8", dtype)
    return True
