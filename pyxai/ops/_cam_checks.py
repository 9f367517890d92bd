"""Checks of the CAM operators; see `_checks`."""

from __future__ import annotations

from typing import Any

import torch

from pyxai._errors import argument_error
from pyxai.ops import _native
from pyxai.ops._checks import Arguments, check_flags, check_same_device, check_size, check_tensors


def check_cam_project(features: torch.Tensor, weights: torch.Tensor) -> Arguments:
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


def check_cam_render(
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


def check_cam_project_render(
    features: torch.Tensor,
    weights: torch.Tensor,
    size: Any,
    relu: bool,
    minmax: bool,
    as_uint8: bool,
) -> Arguments:
    """The checks of both; no operator of its own is registered for them."""
    check_cam_project(features, weights)
    if 0 in features.shape[-2:]:
        raise argument_error("features", "a tensor [N, C, h, w] with h, w >= 1", features)
    return (
        features,
        weights,
        check_size(size),
        *check_flags(relu=relu, minmax=minmax, as_uint8=as_uint8),
    )


def check_cam_overlay(
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
