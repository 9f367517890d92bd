"""A convolution that keeps its weights in the order that oneDNN wants, with what follows it fused.

torch reorders the weights of a convolution on the CPU at every call. Here it is done once for a
size of the input. The activation, and the addition of a shortcut, are computed while the output is
still in registers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional


@dataclass(frozen=True)
class Activation:
    """A function after a convolution: as oneDNN names it, and as torch computes it."""

    name: str
    scalars: list[float]
    function: Callable[..., torch.Tensor]


ACTIVATIONS = {
    "relu": Activation("relu", [], functional.relu),
    "relu6": Activation("hardtanh", [0.0, 6.0], functional.relu6),
    "silu": Activation("swish", [], functional.silu),
    "hardswish": Activation("hardswish", [], functional.hardswish),
}


@dataclass(frozen=True)
class _Packed:
    """Reordered weights, and what they were made of and for."""

    source: torch.Tensor
    version: int
    size: tuple[int, ...]
    weight: torch.Tensor


class FastConv2d(nn.Conv2d):
    """An `nn.Conv2d` of frozen weights; made by changing the class of one.

    Where the fast way is not open (gradients wanted, another device, torch.compile, autocast, a
    dtype that this processor has no instructions for, ...) it computes the same plainly.
    """

    # A class attribute, so that `nn.Conv2d` objects become ones of this class as they are.
    _packed: _Packed | None = None

    def forward(
        self,
        input: torch.Tensor,
        add: torch.Tensor | None = None,
        activation: str | None = None,
    ) -> torch.Tensor:
        """activation(convolution(input) + add).

        Args:
            input: `[N, C, H, W]`.
            add: of the shape of the convolution's output, or one that broadcasts to it.
            activation: a key of `ACTIVATIONS`.
        """
        if torch.compiler.is_compiling() or not self._may_pack(input, add):
            return self._plain(input, add, activation)
        layout = torch.contiguous_format
        if self.weight.is_contiguous(memory_format=torch.channels_last):
            layout = torch.channels_last
        input = input.contiguous(memory_format=layout)
        weight = self._packed_for(input)
        known = None if activation is None else ACTIVATIONS[activation]
        name = "none" if known is None else known.name
        scalars: list[float] = [] if known is None else known.scalars
        geometry = (self.padding, self.stride, self.dilation, self.groups)
        operators = torch.ops.mkldnn
        if add is None:
            result: torch.Tensor = operators._convolution_pointwise.default(
                input, weight, self.bias, *geometry, name, scalars, ""
            )
            return result
        add = add.contiguous(memory_format=layout)
        after = None if known is None else name
        result = operators._convolution_pointwise.binary(
            input, add, weight, self.bias, *geometry, "add", None, after, scalars, ""
        )
        return result

    def _plain(
        self, input: torch.Tensor, add: torch.Tensor | None, activation: str | None
    ) -> torch.Tensor:
        output = super().forward(input)
        if add is not None:
            output = output + add
        if activation is None:
            return output
        return ACTIVATIONS[activation].function(output, inplace=not output.requires_grad)

    def _may_pack(self, input: torch.Tensor, add: torch.Tensor | None) -> bool:
        """Whether oneDNN computes exactly what torch would, and nothing has to be recorded."""
        weight = self.weight
        if not _is_ordinary(input, weight) or input.ndim != 4 or 0 in input.shape:
            return False
        if add is not None and not (
            _is_ordinary(add, weight) and add.shape == self._output_shape(input)
        ):
            return False
        if torch.is_grad_enabled() and (
            input.requires_grad or weight.requires_grad or (add is not None and add.requires_grad)
        ):
            return False
        return (
            self.padding_mode == "zeros"
            and not isinstance(self.padding, str)
            and input.shape[1] == self.in_channels
            and is_packable(weight)
            and not _is_observed()
        )

    def _output_shape(self, input: torch.Tensor) -> tuple[int, ...]:
        padding: Any = self.padding  # no text: see the caller
        sides = (
            (side + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for side, pad, dilation, kernel, stride in zip(
                input.shape[2:],
                padding,
                self.dilation,
                self.kernel_size,
                self.stride,
                strict=True,
            )
        )
        return (input.shape[0], self.out_channels, *sides)

    def _packed_for(self, input: torch.Tensor) -> torch.Tensor:
        """The weights in the order that oneDNN prefers for this size, whatever the batch.

        Kept for one size: weights in the order for another one are slower than plain ones (up to
        10 times were seen). Two threads may both make them; both are right.
        """
        weight, size = self.weight, (*input.shape[2:],)
        packed = self._packed
        if (
            packed is None
            or packed.size != size
            or packed.source is not weight
            or packed.version != weight._version
        ):
            ordered = torch.ops.mkldnn._reorder_convolution_weight(
                weight.detach(),
                self.padding,
                self.stride,
                self.dilation,
                self.groups,
                [*input.shape],
            )
            packed = _Packed(weight, weight._version, size, ordered)
            self._packed = packed
        return packed.weight

    def _apply(self, fn: Any, recurse: bool = True) -> FastConv2d:
        self.__dict__.pop("_packed", None)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        # oneDNN's own layout can be neither copied nor pickled; it is made again when needed.
        return {key: value for key, value in self.__dict__.items() if key != "_packed"}


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


def _is_ordinary(tensor: torch.Tensor, weight: torch.Tensor) -> bool:
    """No fake, proxy or wrapped tensor, and such as the weight."""
    return (
        type(tensor) is torch.Tensor
        and tensor.device == weight.device
        and tensor.dtype == weight.dtype
        and tensor.layout == torch.strided
    )


def _is_observed() -> bool:
    """Whether torch does more with operators than compute them; it knows those of oneDNN less."""
    return (
        torch.is_autocast_enabled("cpu")
        or torch._C._is_tracing()
        or bool(torch._C._len_torch_dispatch_stack())
        or bool(torch._C._are_functorch_transforms_active())
        or forward_ad._current_level >= 0
    )
