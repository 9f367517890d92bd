"""Blurred images, as the background of masks."""

from __future__ import annotations

import torch
from torch.nn import functional


def gaussian_blur(images: torch.Tensor, sigma: float, kernel: int) -> torch.Tensor:
    """Images without their detail: a Gaussian of `kernel` pixels a side, edges reflected.

    Args:
        images: `[N, C, H, W]` floating, H and W greater than half the kernel.
        sigma: standard deviation in pixels.
        kernel: pixels a side, odd.

    Returns:
        `[N, C, H, W]` in the dtype of the images, computed in float32 or float64.
    """
    dtype = torch.float64 if images.dtype == torch.float64 else torch.float32
    places = torch.arange(kernel, dtype=dtype, device=images.device) - kernel // 2
    weights = torch.exp(-(places**2) / (2 * sigma**2))
    weights = weights / weights.sum()
    edge = kernel // 2
    padded = functional.pad(images.to(dtype), (edge, edge, edge, edge), mode="reflect")
    planes = padded.flatten(0, 1)[:, None]
    planes = functional.conv2d(planes, weights.reshape(1, 1, 1, kernel))
    planes = functional.conv2d(planes, weights.reshape(1, 1, kernel, 1))
    return planes.reshape(images.shape).to(images.dtype)
