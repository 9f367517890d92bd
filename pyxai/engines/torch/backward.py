"""The gradient by the input of a convolution, as a convolution itself.

So it can use packed weights, which torch's own backward pass cannot.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from pyxai.engines.torch.packing import Geometry, Lengths

# So few input channels do not fill the vectors that oneDNN computes with; with the positions of a
# stride as channels they do.
_FEW_CHANNELS = 4


@dataclass(frozen=True)
class BackwardConvolution:
    """What is done with the gradient by the output.

    Attributes:
        weight: of the convolution.
        geometry: of the convolution.
        stride: its result holds `stride` x `stride` positions of the input as channels.
        padding: rows and columns of the shuffled result before the first one of the input.
    """

    weight: torch.Tensor
    geometry: Geometry
    stride: int
    padding: Lengths

    def finish(self, result: torch.Tensor, size: Lengths) -> torch.Tensor:
        """The gradient by an input of this size, of the convolution's result."""
        if self.stride == 1:
            return result
        whole = functional.pixel_shuffle(result, self.stride)
        edges = []
        for axis in (1, 0):  # `pad` wants the last axis first
            before = self.padding[axis]
            edges += [-before, size[axis] + before - whole.shape[2 + axis]]
        return functional.pad(whole, edges)


def backward_convolution(weight: torch.Tensor, geometry: Geometry) -> BackwardConvolution | None:
    """How gradients go back through a convolution with such weights, or None if not so."""
    if all(stride == 1 for stride in geometry.stride):
        return _turned(weight, geometry)
    return _in_phases(weight, geometry)


def _turned(weight: torch.Tensor, geometry: Geometry) -> BackwardConvolution | None:
    """For stride 1: kernels turned by 180 degrees, and the two axes of channels exchanged."""
    padding = tuple(
        dilation * (length - 1) - pad
        for dilation, length, pad in zip(
            geometry.dilation, weight.shape[2:], geometry.padding, strict=True
        )
    )
    if min(padding) < 0:
        return None
    outputs, inputs, *kernel = weight.shape
    groups = geometry.groups
    parts = weight.reshape(groups, outputs // groups, inputs, *kernel).transpose(1, 2)
    turned = parts.flip(3, 4).reshape(groups * inputs, outputs // groups, *kernel)
    moves = Geometry(padding, geometry.stride, geometry.dilation, groups)
    return BackwardConvolution(turned, moves, 1, (0, 0))


def _in_phases(weight: torch.Tensor, geometry: Geometry) -> BackwardConvolution | None:
    """For a stride s: s x s convolutions of stride 1, one for each phase of the input's positions.

    Position u of the padded input gets `W[k] g[i]` where u = s i + k. With u = s q + r and
    k = s t + r this is a convolution over q for each phase r: the sum over t of
    `W[s t + r] g[q - t]`.
    """
    stride = geometry.stride[0]
    outputs, inputs, *kernel = weight.shape
    alike = geometry.stride == (stride, stride) and geometry.dilation == (1, 1)
    if not alike or geometry.groups != 1 or inputs > _FEW_CHANNELS:
        return None
    taps = tuple(-(-length // stride) for length in kernel)
    missing = [taps[axis] * stride - kernel[axis] for axis in (0, 1)]
    full = functional.pad(weight, (0, missing[1], 0, missing[0]))
    parts = full.reshape(outputs, inputs, taps[0], stride, taps[1], stride).flip(2, 4)
    phases = parts.permute(1, 3, 5, 0, 2, 4).reshape(-1, outputs, *taps)
    moves = Geometry((taps[0] - 1, taps[1] - 1), (1, 1), (1, 1), 1)
    return BackwardConvolution(phases, moves, stride, geometry.padding)
