"""Weights of convolutions in the order that oneDNN wants for a size of input."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TypeAlias

import torch

Lengths: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Geometry:
    """How a convolution moves over its input."""

    padding: Lengths
    stride: Lengths
    dilation: Lengths
    groups: int


@dataclass(frozen=True)
class PackedWeight:
    """Reordered weights, and what they were made of and for.

    Weights in the order for another size are slower than plain ones (up to 10 times were seen);
    the batch does not matter.
    """

    source: torch.Tensor
    version: int
    size: Lengths
    weight: torch.Tensor

    def fits(self, source: torch.Tensor, size: Lengths) -> bool:
        """Whether these are the weights, as they are now, for this size."""
        return self.source is source and self.version == source._version and self.size == size


def pack(
    source: torch.Tensor, weight: torch.Tensor, geometry: Geometry, shape: Lengths
) -> PackedWeight:
    """The weight, made of `source`, for inputs of this shape `[N, C, H, W]`."""
    ordered = torch.ops.mkldnn._reorder_convolution_weight(
        weight.detach(),
        geometry.padding,
        geometry.stride,
        geometry.dilation,
        geometry.groups,
        [*shape],
    )
    return PackedWeight(source, source._version, (*shape[2:],), ordered)


def is_packable(weight: torch.Tensor) -> bool:
    """Whether oneDNN computes convolutions with such weights on this machine, with speed."""
    if weight.device.type != "cpu" or weight.is_inference():
        return False
    if not torch._C._get_mkldnn_enabled() or not torch._C._has_mkldnn:
        return False
    if weight.dtype == torch.float32:
        return True
    return _has_instructions_for(weight.dtype)


@functools.cache
def _has_instructions_for(dtype: torch.dtype) -> bool:
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if dtype == torch.float16:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    return False
