"""Plain PyTorch twins of the native kernels.

Each is the oracle of the tests, the baseline of the benchmarks, the gradient of its kernel where
that has one, and what runs on devices without a kernel and on float64.
"""

from __future__ import annotations

import torch
from torch.nn import functional


def _accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def cam_project(features: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """See `pyxai.ops.cam_project`."""
    dtype = _accumulation_dtype(features.dtype)
    images, channels, height, width = features.shape
    flat = features.to(dtype).reshape(images, channels, height * width)
    maps = torch.matmul(weights.to(dtype), flat)
    return maps.reshape(images, weights.shape[1], height, width)


def _scale_maps(maps: torch.Tensor, relu: bool, minmax: bool) -> torch.Tensor:
    finite = torch.isfinite(maps).all(dim=-1, keepdim=True).all(dim=-2, keepdim=True)
    values = maps.relu() if relu else maps
    if minmax:
        low = values.amin(dim=(-2, -1), keepdim=True)
        span = values.amax(dim=(-2, -1), keepdim=True) - low
        # A constant map, or one too flat to divide by, becomes 0 and has no gradient.
        flat = span < torch.finfo(span.dtype).tiny
        values = torch.where(flat, 0.0, (values - low) / torch.where(flat, 1.0, span))
    return torch.where(finite, values, torch.full_like(values, torch.nan))


def cam_render(
    maps: torch.Tensor, size: tuple[int, int], relu: bool, minmax: bool, as_uint8: bool
) -> torch.Tensor:
    """See `pyxai.ops.cam_render`."""
    values = _scale_maps(maps.to(_accumulation_dtype(maps.dtype)), relu, minmax)
    leading = maps.shape[:-2]
    if values.numel() == 0:
        return values.new_zeros((*leading, *size), dtype=torch.uint8 if as_uint8 else None)
    resized = functional.interpolate(
        values.reshape(1, -1, *maps.shape[-2:]), size=size, mode="bilinear", align_corners=False
    ).reshape(*leading, *size)
    if not as_uint8:
        return resized
    return (torch.nan_to_num(resized, nan=0.0).clamp(0, 1) * 255 + 0.5).to(torch.uint8)


def cam_overlay(
    photos: torch.Tensor, maps: torch.Tensor, colors: torch.Tensor, relu: bool, minmax: bool
) -> torch.Tensor:
    """See `pyxai.ops.cam_overlay`."""
    height, width = photos.shape[1:3]
    index = cam_render(maps, (height, width), relu, minmax, as_uint8=True)
    chosen = colors.to(torch.int32)[index.to(torch.int64)]
    color, alpha = chosen[..., :3], chosen[..., 3:]
    blend = alpha + (alpha >> 7)
    return ((photos.to(torch.int32) * (256 - blend) + color * blend + 128) >> 8).to(torch.uint8)


def _resize_masks(masks: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """masks [M, h, w] -> [M, 1, H, W]."""
    return functional.interpolate(masks[:, None], size=size, mode="bilinear", align_corners=False)


def mask_blend(
    images: torch.Tensor,
    masks: torch.Tensor,
    background: torch.Tensor | None,
    channels_last: bool,
) -> torch.Tensor:
    """See `pyxai.ops.mask_blend`."""
    dtype = _accumulation_dtype(images.dtype)
    height, width = images.shape[2:]
    resized = _resize_masks(masks.to(dtype), (height, width))
    blended = images.to(dtype) * resized
    if background is not None:
        blended = blended + background.to(dtype) * (1 - resized)
    blended = blended.to(images.dtype)
    if channels_last:
        return blended.contiguous(memory_format=torch.channels_last)
    return blended.contiguous()
