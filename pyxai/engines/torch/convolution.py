"""A convolution that keeps its weights in the order that oneDNN wants, with what follows it fused.

torch reorders the weights of a convolution on the CPU at every call. Here it is done once for a
size of the input. The activation, and the addition of a shortcut, are computed while the output is
still in registers. Gradients by the input go the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional

from pyxai.engines.torch.backward import BackwardConvolution, backward_convolution
from pyxai.engines.torch.packing import Geometry, PackedWeight, is_packable, pack


@dataclass(frozen=True)
class Activation:
    """A function after a convolution: as oneDNN names it, and as torch computes it.

    Attributes:
        name: oneDNN's.
        scalars: its arguments there.
        function: the same in torch.
        slope: (gradient, output) -> gradient by the input; None where the output does not tell.
    """

    name: str
    scalars: list[float]
    function: Callable[..., torch.Tensor]
    slope: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None


ACTIVATIONS = {
    "relu": Activation(
        "relu",
        [],
        functional.relu,
        lambda gradient, output: torch.ops.aten.threshold_backward(gradient, output, 0),
    ),
    "relu6": Activation(
        "hardtanh",
        [0.0, 6.0],
        functional.relu6,
        lambda gradient, output: torch.ops.aten.hardtanh_backward(gradient, output, 0.0, 6.0),
    ),
    "silu": Activation("swish", [], functional.silu),
    "hardswish": Activation("hardswish", [], functional.hardswish),
}


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
        known = None if activation is None else ACTIVATIONS[activation]
        graph = _needs_gradient(input, add)
        # oneDNN knows no other activation than ReLU after an addition.
        fused = activation if add is None or activation == "relu" else None
        if graph and known is not None and known.slope is None:
            fused = None
        compute = _differentiable if graph else FastConv2d.compute
        output = compute(self, input, add, fused)
        if self.contiguous_output:
            output = output.contiguous()
        if known is None or fused is not None:
            return output
        return known.function(output, inplace=not graph)

    def compute(
        self, input: torch.Tensor, add: torch.Tensor | None, activation: str | None
    ) -> torch.Tensor:
        """The same by oneDNN with packed weights, without a graph; after an addition only ReLU."""
        layout = self._layout()
        input = input.contiguous(memory_format=layout)
        # Two threads may both pack the weights; both are right.
        if self._packed is None or not self._packed.fits(self.weight, (*input.shape[2:],)):
            self._packed = pack(self.weight, self.weight, self._geometry(), input.shape)
        known = None if activation is None else ACTIVATIONS[activation]
        name = "none" if known is None else known.name
        scalars: list[float] = [] if known is None else known.scalars
        moves = (self.padding, self.stride, self.dilation, self.groups)
        operators, weight = torch.ops.mkldnn, self._packed.weight
        if add is None:
            result: torch.Tensor = operators._convolution_pointwise.default(
                input, weight, self.bias, *moves, name, scalars, ""
            )
            return result
        add = add.contiguous(memory_format=layout)
        after = None if known is None else name
        result = operators._convolution_pointwise.binary(
            input, add, weight, self.bias, *moves, "add", None, after, scalars, ""
        )
        return result

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
        moves = back.geometry
        result = torch.ops.mkldnn._convolution_pointwise.default(
            gradient.contiguous(memory_format=self._layout()),
            packed.weight,
            None,
            moves.padding,
            moves.stride,
            moves.dilation,
            moves.groups,
            "none",
            [],
            "",
        )
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
        """Whether oneDNN computes exactly what torch would, and nothing else has to be recorded."""
        weight = self.weight
        if not _is_ordinary(input, weight) or input.ndim != 4 or 0 in input.shape:
            return False
        if self.padding_mode != "zeros" or isinstance(self.padding, str):
            return False
        if add is not None and not (
            _is_ordinary(add, weight) and add.shape == self._output_shape(input)
        ):
            return False
        if torch.is_grad_enabled() and (
            weight.requires_grad or (self.bias is not None and self.bias.requires_grad)
        ):
            return False
        return input.shape[1] == self.in_channels and is_packable(weight) and not _is_observed()

    def _geometry(self) -> Geometry:
        padding: Any = self.padding  # no text: see `_may_pack`
        return Geometry((*padding,), (*self.stride,), (*self.dilation,), self.groups)

    def _output_shape(self, input: torch.Tensor) -> tuple[int, ...]:
        size = self._geometry().output_size((*input.shape[2:],), (*self.weight.shape[2:],))
        return (input.shape[0], self.out_channels, *size)

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

    Only the output of an activation is kept, no input: the weights do not learn.
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: torch.Tensor,
        add: torch.Tensor | None,
        module: FastConv2d,
        activation: str | None,
    ) -> torch.Tensor:
        output = module.compute(input, add, activation)
        ctx.module, ctx.slope, ctx.shape = module, None, input.shape
        if activation is not None:
            ctx.slope = ACTIVATIONS[activation].slope
            ctx.save_for_backward(output)
        return output

    @staticmethod
    def backward(
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        if ctx.slope is not None:
            (output,) = ctx.saved_tensors
            gradient = ctx.slope(gradient, output)
        by_input = None
        if ctx.needs_input_grad[0]:
            like = gradient.new_empty(1).expand(ctx.shape)
            by_input = ctx.module.gradient_by_input(gradient, like)
        return by_input, gradient if ctx.needs_input_grad[1] else None, None, None


def _differentiable(
    module: FastConv2d, input: torch.Tensor, add: torch.Tensor | None, activation: str | None
) -> torch.Tensor:
    result: torch.Tensor = _Differentiable.apply(  # type: ignore[no-untyped-call]
        input, add, module, activation
    )
    return result


def _needs_gradient(input: torch.Tensor, add: torch.Tensor | None) -> bool:
    wanted = input.requires_grad or (add is not None and add.requires_grad)
    return wanted and torch.is_grad_enabled()


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
