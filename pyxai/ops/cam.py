"""Operators of class activation maps; the kernels are in `csrc/cam`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from pyxai._errors import argument_error
from pyxai.ops import _native, reference
from pyxai.ops._checks import (
    Arguments,
    check_flags,
    check_out,
    check_same_device,
    check_size,
    check_tensors,
    is_direct,
)
from pyxai.ops._gradients import Gradients
from pyxai.ops._memory import note_written
from pyxai.ops._operator import Operator, register
from pyxai.ops._workspace import run

# ---- project ----


def _check_project(features: torch.Tensor, weights: torch.Tensor) -> Arguments:
    """Raises ValueError unless the arguments fit each other; returns them."""
    check_tensors({"features": features, "weights": weights})
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
    return features, weights


def _dense_features(features: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """The features as the kernels read them, and whether the channels come last."""
    if features.is_contiguous():
        return features, False
    if features.is_contiguous(memory_format=torch.channels_last):
        return features, True
    return features.contiguous(), False


def _dense_weights(weights: torch.Tensor) -> torch.Tensor:
    # The two tests are cheaper than two calls that do nothing.
    if weights.dtype is torch.float32 and weights.is_contiguous():
        return weights
    return weights.to(torch.float32).contiguous()


def _project_fields(
    features: torch.Tensor, channels_last: bool, weights: torch.Tensor, maps: torch.Tensor
) -> Arguments:
    """Those of ProjectArgs."""
    images, channels, height, width = features.shape
    return (
        features.data_ptr(),
        _native.DTYPE_CODES[features.dtype],
        channels_last,
        weights.data_ptr(),
        weights.shape[0] == images,
        maps.data_ptr(),
        images,
        channels,
        maps.shape[1],
        height * width,
    )


def _empty_maps(features: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    images, _, height, width = features.shape
    dtype = torch.float64 if features.dtype is torch.float64 else torch.float32
    return features.new_empty((images, weights.shape[1], height, width), dtype=dtype)


def _project(features: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    features, channels_last = _dense_features(features)
    weights = _dense_weights(weights)
    maps = _empty_maps(features, weights)
    run("cam_project", features, _project_fields(features, channels_last, weights, maps))
    return maps


def _project_backward(
    gradient: torch.Tensor, wanted: Sequence[bool], arguments: list[Any], _: Any
) -> Gradients:
    features, weights = arguments
    by_features = by_weights = None
    if wanted[0]:
        expanded = weights.to(gradient.dtype).expand(features.shape[0], -1, -1)
        by_features = torch.einsum("nthw,ntc->nchw", gradient, expanded).to(features.dtype)
    if wanted[1]:
        per_image = torch.einsum("nthw,nchw->ntc", gradient, features.to(gradient.dtype))
        by_weights = per_image.sum_to_size(weights.shape).to(weights.dtype)
    return by_features, by_weights


PROJECT = register(
    Operator(
        "cam_project(Tensor features, Tensor weights) -> Tensor",
        check=_check_project,
        kernel=_project,
        reference=reference.cam_project,
        fake=_empty_maps,
        backward=_project_backward,
    )
)


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
    _check_project(features, weights)
    if is_direct(features, weights):
        return _project(features, weights)
    maps: torch.Tensor = PROJECT(features, weights)
    return maps


# ---- render ----


def _check_render(
    maps: torch.Tensor, size: Any, relu: bool, minmax: bool, as_uint8: bool
) -> Arguments:
    """Raises ValueError unless the maps can be rendered; returns the arguments."""
    check_tensors({"maps": maps})
    if maps.ndim < 2 or 0 in maps.shape[-2:]:
        raise argument_error("maps", "a tensor [..., h, w] with h, w >= 1", maps)
    if maps.dtype not in (torch.float32, torch.float64):
        raise argument_error("maps", "dtype float32 or float64", maps)
    return (
        maps,
        check_size(size),
        *check_flags(relu=relu, minmax=minmax, as_uint8=as_uint8),
    )


def _empty_pictures(
    maps: torch.Tensor, size: tuple[int, int], relu: bool, minmax: bool, as_uint8: bool
) -> torch.Tensor:
    *leading, _, _ = maps.shape
    return maps.new_empty((*leading, *size), dtype=torch.uint8 if as_uint8 else maps.dtype)


def _render_fields(
    maps: torch.Tensor, size: Sequence[int], relu: bool, minmax: bool, out: torch.Tensor
) -> Arguments:
    """Those of RenderArgs."""
    *leading, map_height, map_width = maps.shape
    return (
        maps.data_ptr(),
        math.prod(leading),
        map_height,
        map_width,
        *size,
        relu,
        minmax,
        out.data_ptr(),
        out.dtype is torch.uint8,
    )


def _render(
    maps: torch.Tensor,
    size: tuple[int, int],
    relu: bool,
    minmax: bool,
    as_uint8: bool,
    *,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    maps = maps.contiguous()
    if out is None:
        out = _empty_pictures(maps, size, relu, minmax, as_uint8)
    else:
        note_written(out)
    run("cam_render", maps, _render_fields(maps, size, relu, minmax, out))
    return out


RENDER = register(
    Operator(
        "cam_render(Tensor maps, SymInt[2] size, bool relu, bool minmax, bool as_uint8) -> Tensor",
        check=_check_render,
        kernel=_render,
        reference=reference.cam_render,
        fake=_empty_pictures,
        backward="reference",  # the maps are small, so running it again costs little
    )
)


def _is_uint8(dtype: torch.dtype) -> bool:
    if dtype is torch.float32:
        return False
    if dtype is not torch.uint8:
        raise argument_error("dtype", "torch.float32 or torch.uint8", dtype)
    return True


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
    arguments = _check_render(maps, size, relu, minmax, _is_uint8(dtype))
    direct = is_direct(maps, out)
    if out is not None:
        shape = (*maps.shape[:-2], *arguments[1])
        check_out(out, shape, dtype, {"maps": maps}, direct=direct)
    if direct:
        return _render(*arguments, out=out)
    pictures: torch.Tensor = RENDER(*arguments, out=out)
    return pictures


# ---- both in one call; no operator of its own is registered for that ----


def _check_project_render(
    features: torch.Tensor,
    weights: torch.Tensor,
    size: Any,
    relu: bool,
    minmax: bool,
    as_uint8: bool,
) -> Arguments:
    """The checks of both."""
    _check_project(features, weights)
    if 0 in features.shape[-2:]:
        raise argument_error("features", "a tensor [N, C, h, w] with h, w >= 1", features)
    return (
        features,
        weights,
        check_size(size),
        *check_flags(relu=relu, minmax=minmax, as_uint8=as_uint8),
    )


def _project_render(
    features: torch.Tensor,
    weights: torch.Tensor,
    size: tuple[int, int],
    relu: bool,
    minmax: bool,
    as_uint8: bool,
    *,
    out: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    features, channels_last = _dense_features(features)
    weights = _dense_weights(weights)
    maps = _empty_maps(features, weights)
    if out is None:
        out = _empty_pictures(maps, size, relu, minmax, as_uint8)
    else:
        note_written(out)
    projection = _project_fields(features, channels_last, weights, maps)
    rendering = _render_fields(maps, size, relu, minmax, out)
    run("cam_project_render", features, projection + rendering)
    return out, maps


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
    arguments = _check_project_render(features, weights, size, relu, minmax, _is_uint8(dtype))
    direct = is_direct(features, weights, out)
    if out is not None:
        shape = (features.shape[0], weights.shape[1], *arguments[2])
        inputs = {"features": features, "weights": weights}
        check_out(out, shape, dtype, inputs, direct=direct)
    if direct:
        return _project_render(*arguments, out=out)
    maps = PROJECT(features, weights)
    return RENDER(maps, *arguments[2:], out=out), maps


# ---- overlay ----


def _check_overlay(
    photos: torch.Tensor, maps: torch.Tensor, colors: torch.Tensor, relu: bool, minmax: bool
) -> Arguments:
    """Raises ValueError unless the maps can be laid over the photos; returns the arguments."""
    check_tensors({"photos": photos, "maps": maps, "colors": colors})
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
    return photos, maps, colors, *check_flags(relu=relu, minmax=minmax)


def _overlay(
    photos: torch.Tensor,
    maps: torch.Tensor,
    colors: torch.Tensor,
    relu: bool,
    minmax: bool,
    *,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    photos, maps, colors = photos.contiguous(), maps.contiguous(), colors.contiguous()
    if out is None:
        out = torch.empty_like(photos)
    else:
        note_written(out)
    fields = _render_fields(maps, photos.shape[1:3], relu, minmax, out)
    run("cam_overlay", photos, (*fields, photos.data_ptr(), colors.data_ptr()))
    return out


OVERLAY = register(
    Operator(
        "cam_overlay(Tensor photos, Tensor maps, Tensor colors, bool relu, bool minmax) -> Tensor",
        check=_check_overlay,
        kernel=_overlay,
        reference=reference.cam_overlay,
        fake=lambda photos, *_: photos.new_empty(photos.shape),
    )
)


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
    arguments = _check_overlay(photos, maps, colors, relu, minmax)
    if maps.requires_grad:
        maps = maps.detach()  # bytes have no gradient
    direct = is_direct(photos, maps, colors, out)
    if out is not None:
        inputs = {"photos": photos, "maps": maps, "colors": colors}
        check_out(out, photos.shape, torch.uint8, inputs, direct=direct)
    if direct:
        return _overlay(photos, maps, colors, *arguments[3:], out=out)
    overlaid: torch.Tensor = OVERLAY(photos, maps, colors, *arguments[3:], out=out)
    return overlaid
