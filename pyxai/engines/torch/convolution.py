"""A convolution that keeps its weights in the order that oneDNN wants.

torch reorders the weights of a convolution on the CPU at every call. Here it is done once for a
size of the input. Gradients by the input go the same way.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd import forward_ad

from pyxai.engines.torch.backward import BackwardConvolution, backward_convolution
from pyxai.engines.torch.packing import Geometry, PackedWeight, is_packable, pack


class FastConv2d(nn.Conv2d):
    """An `nn.Conv2d` of frozen weights; made by changing the class of one.

    Where the fast way is not open (gradients by the weights wanted, another device, torch.compile,
    autocast, a dtype that this processor has no instructions for, ...) it computes the same
    plainly.
    """

    # Class attributes, so that `nn.Conv2d` objects become ones of this class as they are.
    contiguous_output: bool = False  # oneDNN's have the channels last, which `view` may refuse
    _packed: PackedWeight | None = None
    _backward: tuple[PackedWeight, BackwardConvolution] | None = None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The convolution of an input `[N, C, H, W]`."""
        if torch.compiler.is_compiling() or not self._may_pack(input):
            return super().forward(input)
        wanted = input.requires_grad and torch.is_grad_enabled()
        output = _differentiable(self, input) if wanted else self.compute(input)
        return output.contiguous() if self.contiguous_output else output

    def compute(self, input: torch.Tensor) -> torch.Tensor:
        """The same by oneDNN with packed weights, without a graph."""
        input = input.contiguous(memory_format=self._layout())
        # Two threads may both pack the weights; both are right.
        if self._packed is None or not self._packed.fits(self.weight, (*input.shape[2:],)):
            self._packed = pack(self.weight, self.weight, self._geometry(), input.shape)
        return _convolve(input, self._packed.weight, self.bias, self._geometry())

    def gradient_by_input(self, gradient: torch.Tensor, input: torch.Tensor) -> torch.Tensor:
        """The gradient by the input `[N, C, H, W]`, of that by the convolution's output.

        Args:
            gradient: of the shape of the output.
            input: of the shape of the input; its values do not matter.
        """
        found = None
        if not torch.is_grad_enabled():  # else it is to be differentiated once more
            found = self._backward_for((*gradient.shape,))
        if found is None:
            by_input: torch.Tensor = torch.ops.aten.convolution_backward(
                gradient,
                input,
                self.weight,
                None,
                self.stride,
                self.padding,
                self.dilation,
                False,
                [0, 0],
                self.groups,
                [True, False, False],
            )[0]
            return by_input
        packed, back = found
        gradient = gradient.contiguous(memory_format=self._layout())
        result = _convolve(gradient, packed.weight, None, back.geometry)
        return back.finish(result, (*input.shape[2:],))

    def _backward_for(
        self, shape: tuple[int, ...]
    ) -> tuple[PackedWeight, BackwardConvolution] | None:
        """The convolution that takes gradients of this shape back, with packed weights."""
        if self._backward is not None and self._backward[0].fits(self.weight, shape[2:]):
            return self._backward
        back = backward_convolution(self.weight.detach(), self._geometry())
        if back is None:
            return None
        weight = back.weight.contiguous(memory_format=self._layout())
        self._backward = pack(self.weight, weight, back.geometry, shape), back
        return self._backward

    def _may_pack(self, input: torch.Tensor) -> bool:
        """Whether oneDNN computes exactly what torch would, and nothing else has to be recorded."""
        weight = self.weight
        if not _is_ordinary(input, weight) or input.ndim != 4 or 0 in input.shape:
            return False
        if self.padding_mode != "zeros" or isinstance(self.padding, str):
            return False
        if torch.is_grad_enabled() and (
            weight.requires_grad or (self.bias is not None and self.bias.requires_grad)
        ):
            return False
        return input.shape[1] == self.in_channels and is_packable(weight) and not _is_observed()

    def _geometry(self) -> Geometry:
        padding: Any = self.padding  # no text: see `_may_pack`
        return Geometry((*padding,), (*self.stride,), (*self.dilation,), self.groups)

    def _layout(self) -> torch.memory_format:
        if self.weight.is_contiguous(memory_format=torch.channels_last):
            return torch.channels_last
        return torch.contiguous_format

    def forget_packed(self) -> None:
        """Drops what was made of the weights, before these are laid out anew."""
        for name in _PACKED:
            self.__dict__.pop(name, None)

    def _apply(self, fn: Any, recurse: bool = True) -> FastConv2d:
        self.forget_packed()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        # oneDNN's own layout can be neither copied nor pickled; it is made again when needed.
        return {key: value for key, value in self.__dict__.items() if key not in _PACKED}


_PACKED = ("_packed", "_backward")


class _Differentiable(torch.autograd.Function):
    """A convolution of frozen weights that can be differentiated by its input, any number of times.

    Nothing is kept for the way back: the weights do not learn.
    """

    @staticmethod
    def forward(ctx: Any, input: torch.Tensor, module: FastConv2d) -> torch.Tensor:
        ctx.module, ctx.shape = module, input.shape
        return module.compute(input)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        like = gradient.new_empty(1).expand(ctx.shape)
        return ctx.module.gradient_by_input(gradient, like), None


def _differentiable(module: FastConv2d, input: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = _Differentiable.apply(  # type: ignore[no-untyped-call]
        input, module
    )
    return result


def _convolve(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, moves: Geometry
) -> torch.Tensor:
    """By oneDNN, with a packed weight."""
    result: torch.Tensor = torch.ops.mkldnn._convolution_pointwise.default(
        input,
        weight,
        bias,
        moves.padding,
        moves.stride,
        moves.dilation,
        moves.groups,
        "none",
        [],
        "",
    )
    return result


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
