"""Plain PyTorch twins of the native kernels.

Each is the oracle of the tests, the baseline of the benchmarks, the gradient of its kernel where
that has one, and what runs on devices without a kernel and on float64.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    if not photos.numel():
        return photos.clone()
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


def mask_blend_backward(
    gradients: torch.Tensor,
    images: torch.Tensor,
    masks: torch.Tensor,
    background: torch.Tensor | None,
    channels_last: bool,
    wanted: Sequence[bool],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of a blend by images, masks and background; empty where not wanted."""
    dtype = _accumulation_dtype(images.dtype)
    gradients = gradients.to(dtype)
    with torch.inference_mode(False), torch.enable_grad():
        leaf = masks.detach().to(dtype, copy=True).requires_grad_()
        tracked = _resize_masks(leaf, (images.shape[2], images.shape[3]))
    resized = tracked.detach()
    grad_images, grad_masks, grad_background = (images.new_empty(0) for _ in range(3))
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def gathered(shown: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return shown.sum_to_size(like.shape).to(like.dtype).contiguous(memory_format=layout)

    if wanted[0]:
        grad_images = gathered(gradients * resized, images)
    if wanted[1]:
        change = images.to(dtype)
        if background is not None:
            change = change - background.to(dtype)
        pixels = (gradients * change).sum(1, keepdim=True)
        grad_masks = torch.autograd.grad(tracked, leaf, pixels)[0].to(masks.dtype)
    if wanted[2] and background is not None:
        grad_background = gathered(gradients * (1 - resized), background)
    return grad_images, grad_masks, grad_background


# Differences between neighbouring cells that are small beside this count as none: there the root
# of their powers is smooth. kPenaltySmooth of csrc/mask/mask.h.
PENALTY_SMOOTH = 1e-4


def _differences(masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """From each cell to the one below and to the one on the right; 0 past the border."""
    down = functional.pad(masks[:, 1:] - masks[:, :-1], (0, 0, 0, 1))
    return down, functional.pad(masks[:, :, 1:] - masks[:, :, :-1], (0, 1))


def mask_penalty(
    masks: torch.Tensor, tv_weight: float, l1_weight: float, beta: float, root: bool, mean: bool
) -> torch.Tensor:
    """See `pyxai.ops.mask_penalty`."""
    down, across = _differences(masks)
    variation = down.abs() ** beta + across.abs() ** beta
    if root:
        variation = (variation + PENALTY_SMOOTH**beta) ** (1 / beta) - PENALTY_SMOOTH
    hidden = torch.where(masks > 1, masks - 1, 1 - masks)
    cost = (tv_weight * variation + l1_weight * hidden).flatten(1)
    return cost.mean(dim=1) if mean else cost.sum(dim=1)


def mask_penalty_and_slopes(
    masks: torch.Tensor, tv_weight: float, l1_weight: float, beta: float, root: bool, mean: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The penalty, and its derivatives by the cells."""
    down, across = _differences(masks)
    by_down, by_across = (beta * d.sign() * d.abs() ** (beta - 1) for d in (down, across))
    if root:
        sums = down.abs() ** beta + across.abs() ** beta + PENALTY_SMOOTH**beta
        inner = sums ** (1 / beta - 1) / beta
        by_down, by_across = by_down * inner, by_across * inner
    # A cell is the end of two differences and the start of two others.
    ends = functional.pad(by_down[:, :-1], (0, 0, 1, 0))
    ends = ends + functional.pad(by_across[:, :, :-1], (1, 0))
    distance = torch.ones_like(masks).where(masks > 1, -1)
    slopes = tv_weight * (ends - by_down - by_across) + l1_weight * distance
    costs = mask_penalty(masks, tv_weight, l1_weight, beta, root, mean)
    return costs, slopes / masks.shape[1:].numel() if mean else slopes


@torch.no_grad()
def mask_step_(
    masks: torch.Tensor,
    gradients: torch.Tensor,
    first_moment: torch.Tensor,
    second_moment: torch.Tensor,
    step: int,
    step_tensor: torch.Tensor | None,
    learning_rate: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    """See `pyxai.ops.mask_step_`; `step_tensor`, where there is one, is the step."""
    if step_tensor is None:
        number = torch.tensor(step, dtype=torch.float64, device=masks.device)
    else:
        number = step_tensor.to(torch.float64).reshape(())
    rate = (learning_rate / (1 - beta1**number)).to(masks.dtype)
    correction = (1 - beta2**number).to(masks.dtype)
    first_moment.lerp_(gradients, 1 - beta1)
    second_moment.mul_(beta2).addcmul_(gradients, gradients, value=1 - beta2)
    scale = (second_moment / correction).sqrt_().add_(eps)
    masks.sub_(rate * first_moment / scale).clamp_(0, 1)


@torch.no_grad()
def mask_penalized_step_(
    masks: torch.Tensor,
    gradients: torch.Tensor,
    first_moment: torch.Tensor,
    second_moment: torch.Tensor,
    step: int,
    step_tensor: torch.Tensor | None,
    learning_rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    tv_weight: float,
    l1_weight: float,
    beta: float,
    root: bool,
    mean: bool,
) -> torch.Tensor:
    """See `pyxai.ops.mask_penalized_step_`; the step as in `mask_step_`."""
    costs, slopes = mask_penalty_and_slopes(masks, tv_weight, l1_weight, beta, root, mean)
    mask_step_(
        masks,
        gradients + slopes,
        first_moment,
        second_moment,
        step,
        step_tensor,
        learning_rate,
        beta1,
        beta2,
        eps,
    )
    return costs


def _edges(
    boxes: torch.Tensor, height: int, width: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """x0, y0, x1, y1 of each box, moved into the photo; those inside stay as they are."""
    x0, y0 = boxes[:, 0].clamp(0, width - 1), boxes[:, 1].clamp(0, height - 1)
    x1 = boxes[:, 2].clamp(max=width).maximum(x0 + 1)
    y1 = boxes[:, 3].clamp(max=height).maximum(y0 + 1)
    return x0, y0, x1, y1


def _taps(
    start: torch.Tensor, length: torch.Tensor, target: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pixels `[n, target]` to mix along one axis of each box, and the weight of the second."""
    places = torch.arange(target, dtype=dtype, device=start.device) + 0.5
    position = ((length.to(dtype) / target)[:, None] * places - 0.5).clamp(min=0)
    low = position.to(torch.int64).minimum(length[:, None] - 1)
    high = (low + 1).minimum(length[:, None] - 1)
    return start[:, None] + low, start[:, None] + high, (position - low).clamp(max=1)


def crop_windows(
    photo: torch.Tensor,
    boxes: torch.Tensor,
    size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
    channels_last: bool,
) -> torch.Tensor:
    """See `pyxai.ops.crop_windows`; an empty `mean` is 0, an empty `std` is 1."""
    working = _accumulation_dtype(photo.dtype)
    values = photo.to(working)
    if photo.dtype == torch.uint8:
        values = values / 255
    if mean:
        values = values - torch.tensor(mean, dtype=working, device=photo.device)[:, None, None]
    if std:
        values = values / torch.tensor(std, dtype=working, device=photo.device)[:, None, None]
    x0, y0, x1, y1 = _edges(boxes.to(photo.device), *photo.shape[1:])
    top, bottom, down = _taps(y0, y1 - y0, size[0], working)
    left, right, across = _taps(x0, x1 - x0, size[1], working)
    down, across = down[:, :, None], across[:, None, :]

    def row(y: torch.Tensor) -> torch.Tensor:
        first = values[:, y[:, :, None], left[:, None, :]]
        return first + across * (values[:, y[:, :, None], right[:, None, :]] - first)

    upper = row(top)
    resized = upper + down * (row(bottom) - upper)
    # Windows that keep their size are cut as they are, whatever an infinite neighbour times 0 is.
    kept = ((y1 - y0 == size[0]) & (x1 - x0 == size[1]))[:, None, None]
    cut = torch.where(kept, values[:, top[:, :, None], left[:, None, :]], resized)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return cut.transpose(0, 1).to(dtype).contiguous(memory_format=layout)


def window_heatmap(
    scores: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int], fill: float = torch.nan
) -> torch.Tensor:
    """See `pyxai.ops.window_heatmap`."""
    height, width = size
    x0, y0, x1, y1 = _edges(boxes.to(scores.device), height, width)
    corners = torch.cat([y * (width + 1) + x for y, x in ((y0, x0), (y1, x1), (y0, x1), (y1, x0))])

    def sums(values: torch.Tensor) -> torch.Tensor:
        """The sum over the windows on each pixel: what the corners add, from there to the end."""
        signed = torch.cat((values, values, -values, -values), dim=1)
        changes = values.new_zeros(values.shape[0], (height + 1) * (width + 1))
        changes = changes.index_add(1, corners, signed).reshape(-1, height + 1, width + 1)
        return changes.cumsum(1).cumsum(2)[:, :height, :width]

    flat = scores.reshape(scores.shape[:-1].numel(), scores.shape[-1]).to(torch.float64)
    count = sums(flat.new_ones(1, flat.shape[1])).round()
    mean = torch.where(count > 0, sums(flat) / count.clamp(min=1), fill)
    return mean.reshape(*scores.shape[:-1], height, width).to(_accumulation_dtype(scores.dtype))
