"""Calls the compiled CAM kernels by address: no checks, no autograd.

Every tensor whose address is taken is made dense first and kept alive by a local name until the
call returns (CUDA: until the launch is queued; torch's allocator keeps the order on the stream).
"""

from __future__ import annotations

import torch

from pyxai.ops import _native
from pyxai.ops._memory import note_written
from pyxai.ops._workspace import current_stream, workspace

_cpu = _native.cpu


def _dense_features(features: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """The features as the kernels read them, and whether the channels come last."""
    if features.is_contiguous():
        return features, False
    if features.is_contiguous(memory_format=torch.channels_last):
        return features, True
    return features.contiguous(), False


def _float_weights(weights: torch.Tensor) -> torch.Tensor:
    # The two tests are cheaper than two calls that do nothing.
    if weights.dtype is torch.float32 and weights.is_contiguous():
        return weights
    return weights.to(torch.float32).contiguous()


def _output(
    leading: torch.Size, size: tuple[int, int], maps: torch.Tensor, as_uint8: bool
) -> torch.Tensor:
    dtype = torch.uint8 if as_uint8 else torch.float32
    return torch.empty((*leading, *size), dtype=dtype, device=maps.device)


def _scaling(maps: torch.Tensor) -> torch.Tensor:
    """Scratch memory of the CUDA kernels for the scaling of maps [..., h, w]; small ones need none.

    The caller keeps it alive until the launch is queued.
    """
    small = maps.shape[-2] * maps.shape[-1] <= _native.cuda().SMALL_MAP
    count = 0 if small else maps.shape[:-2].numel()
    return torch.empty((count, 2), dtype=torch.float32, device=maps.device)


def project(features: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """features [N, C, h, w] on weights [N or 1, T, C] -> maps [N, T, h, w] float32."""
    features, channels_last = _dense_features(features)
    weights = _float_weights(weights)
    images, channels, height, width = features.shape
    targets = weights.shape[1]
    shape = (images, targets, height, width)
    maps = torch.empty(shape, dtype=torch.float32, device=features.device)
    arguments = (
        features.data_ptr(),
        _native.DTYPE_CODES[features.dtype],
        channels_last,
        weights.data_ptr(),
        weights.shape[0] == images,
        maps.data_ptr(),
        images,
        channels,
        targets,
        height * width,
    )
    if features.is_cuda:
        device = features.get_device()
        _native.cuda().cam_project(*arguments, device, current_stream(features.device))
        return maps
    workspace.run(_cpu.cam_project, *arguments)
    return maps


def render(
    maps: torch.Tensor,
    size: tuple[int, int],
    relu: bool,
    minmax: bool,
    as_uint8: bool,
    *,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """maps [..., h, w] float32 -> [..., H, W] float32 or uint8."""
    maps = maps.contiguous()
    if out is None:
        out = _output(maps.shape[:-2], size, maps, as_uint8)
    else:
        note_written(out)
    count = maps.shape[:-2].numel()
    map_height, map_width = maps.shape[-2:]
    arguments = (
        maps.data_ptr(),
        count,
        map_height,
        map_width,
        *size,
        relu,
        minmax,
        out.data_ptr(),
        as_uint8,
    )
    if maps.is_cuda:
        scaling = _scaling(maps)
        _native.cuda().cam_render(
            *arguments, scaling.data_ptr(), maps.get_device(), current_stream(maps.device)
        )
        return out
    workspace.run(_cpu.cam_render, *arguments)
    return out


def project_render(
    features: torch.Tensor,
    weights: torch.Tensor,
    size: tuple[int, int],
    relu: bool,
    minmax: bool,
    as_uint8: bool,
    *,
    out: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both of the above in one call -> pictures [N, T, H, W] and maps [N, T, h, w]."""
    features, channels_last = _dense_features(features)
    weights = _float_weights(weights)
    images, channels, height, width = features.shape
    targets = weights.shape[1]
    shape = (images, targets, height, width)
    maps = torch.empty(shape, dtype=torch.float32, device=features.device)
    if out is None:
        out = _output(maps.shape[:2], size, maps, as_uint8)
    else:
        note_written(out)
    arguments = (
        features.data_ptr(),
        _native.DTYPE_CODES[features.dtype],
        channels_last,
        weights.data_ptr(),
        weights.shape[0] == images,
        maps.data_ptr(),
        images,
        channels,
        targets,
        height,
        width,
        *size,
        relu,
        minmax,
        out.data_ptr(),
        as_uint8,
    )
    if features.is_cuda:
        scaling = _scaling(maps)
        _native.cuda().cam_project_render(
            *arguments, scaling.data_ptr(), maps.get_device(), current_stream(maps.device)
        )
        return out, maps
    workspace.run(_cpu.cam_project_render, *arguments)
    return out, maps


def overlay(
    photos: torch.Tensor,
    maps: torch.Tensor,
    colors: torch.Tensor,
    relu: bool,
    minmax: bool,
    *,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """photos [N, H, W, 3] uint8 and maps [N, h, w] -> [N, H, W, 3] uint8."""
    photos, maps, colors = photos.contiguous(), maps.contiguous(), colors.contiguous()
    if out is None:
        out = torch.empty_like(photos)
    else:
        note_written(out)
    count, height, width, _ = photos.shape
    arguments = (
        photos.data_ptr(),
        colors.data_ptr(),
        maps.data_ptr(),
        count,
        maps.shape[1],
        maps.shape[2],
        height,
        width,
        relu,
        minmax,
        out.data_ptr(),
    )
    if photos.is_cuda:
        scaling = torch.empty((count, 2), dtype=torch.float32, device=photos.device)
        _native.cuda().cam_overlay(
            *arguments, scaling.data_ptr(), photos.get_device(), current_stream(photos.device)
        )
        return out
    workspace.run(_cpu.cam_overlay, *arguments)
    return out
