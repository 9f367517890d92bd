"""Operators of class activation maps: check, then call the kernel of the tensor's device.

Plain tensors that need no gradient go straight to the kernel; everything else (autograd,
torch.compile, torch.export, fake tensors, devices without a kernel, float64) goes through the
operators that `pyxai.ops._library` registers with torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pyxai._errors import argument_error
from pyxai.ops import _cam_native, _native
from pyxai.ops._checks import check_out, check_same_device, is_direct, operators


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
    _check_projection(features, weights)
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
    if maps.ndim < 2 or 0 in maps.shape[-2:]:
        raise argument_error("maps", "a tensor [..., h, w] with h, w >= 1", maps)
    if maps.dtype not in (torch.float32, torch.float64):
        raise argument_error("maps", "dtype float32 or float64", maps)
    height, width = _check_size(size)
    as_uint8 = _check_output_dtype(dtype)
    if out is not None:
        check_out(out, (*maps.shape[:-2], height, width), dtype, maps)
    if is_direct(maps):
        return _cam_native.render(maps, (height, width), relu, minmax, as_uint8, out)
    result: torch.Tensor = operators().cam_render(maps, (height, width), relu, minmax, as_uint8)
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
    _check_projection(features, weights)
    if 0 in features.shape[-2:]:
        raise argument_error("features", "a tensor [N, C, h, w] with h, w >= 1", features)
    height, width = _check_size(size)
    as_uint8 = _check_output_dtype(dtype)
    if out is not None:
        shape = (len(features), weights.shape[1], height, width)
        check_out(out, shape, dtype, features, weights)
    if is_direct(features, weights):
        return _cam_native.project_render(
            features, weights, (height, width), relu, minmax, as_uint8, out
        )
    maps = operators().cam_project(features, weights)
    pictures = operators().cam_render(maps, (height, width), relu, minmax, as_uint8)
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
        out: a contiguous tensor like `photos` to write into; must not be `photos` itself.

    Returns:
        `[N, H, W, 3]` uint8.

    Raises:
        ValueError: a shape, dtype or device does not fit; the message names it.
    """
    if photos.ndim != 4 or photos.shape[-1] != 3 or photos.dtype != torch.uint8:
        raise argument_error("photos", "a uint8 tensor [N, H, W, 3]", photos)
    if maps.ndim != 3 or maps.dtype != torch.float32 or 0 in maps.shape[1:]:
        raise argument_error("maps", "a float32 tensor [N, h, w] with h, w >= 1", maps)
    if maps.shape[0] != photos.shape[0]:
        raise argument_error("maps", f"one map for each of {photos.shape[0]} photos", maps)
    if colors.shape != (256, 4) or colors.dtype != torch.uint8:
        raise argument_error("colors", "a uint8 tensor [256, 4]", colors)
    if not photos.device == maps.device == colors.device:
        check_same_device(photos=photos, maps=maps, colors=colors)
    if out is not None:
        check_out(out, photos.shape, torch.uint8, photos)
        if out.data_ptr() == photos.data_ptr() and out.numel():
            raise ValueError("out: expected memory of its own, got the photos themselves")
    if maps.requires_grad:
        maps = maps.detach()  # bytes have no gradient
    if is_direct(photos, maps, colors):
        return _cam_native.overlay(photos, maps, colors, relu, minmax, out)
    result: torch.Tensor = operators().cam_overlay(photos, maps, colors, relu, minmax)
    return result if out is None else out.copy_(result)


def _check_projection(features: torch.Tensor, weights: torch.Tensor) -> None:
    if features.ndim != 4:
        raise argument_error("features", "a tensor [N, C, h, w]", features)
    if features.dtype not in _native.DTYPE_CODES and features.dtype != torch.float64:
        raise argument_error("features", "dtype float32, bfloat16, float16 or float64", features)
    images, channels, _, _ = features.shape
    shape = weights.shape
    if len(shape) != 3 or shape[2] != channels or (shape[0] != 1 and shape[0] != images):
        raise argument_error(
            "weights", f"a tensor [{images} or 1, T, {channels}] to fit the features", weights
        )
    if not weights.is_floating_point():
        raise argument_error("weights", "a floating dtype", weights)
    if features.device != weights.device:
        check_same_device(features=features, weights=weights)


def _check_size(size: Sequence[int]) -> tuple[int, int]:
    if len(size) != 2 or size[0] < 1 or size[1] < 1:
        raise argument_error("size", "(height, width), both >= 1", tuple(size))
    return size[0], size[1]


def _check_output_dtype(dtype: torch.dtype) -> bool:
    if dtype is torch.float32:
        return False
    if dtype is not torch.uint8:
        raise argument_error("dtype", "torch.float32 or torch.uint8", dtype)
    return True
