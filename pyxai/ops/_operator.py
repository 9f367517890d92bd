"""One record an operator, from which torch, autograd and the tests know it.

Registered with torch, an operator works under autograd, torch.compile and torch.export. Its
arguments are checked first, by whatever way they come: nobody reaches memory that is not theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch

from pyxai.ops._checks import Arguments, is_direct
from pyxai.ops._gradients import Gradients, are_differentiated, plain_gradients, save, saved

Backward = Callable[[torch.Tensor, Sequence[bool], list[Any], tuple[torch.Tensor, ...]], Gradients]


@dataclass(frozen=True, eq=False)
class Operator:
    """A native operator. All its functions take the arguments of the schema, in their order.

    Attributes:
        schema: name, arguments and results, as torch writes them.
        check: raises ValueError unless the arguments fit; returns them as the others take them.
        kernel: calls what is compiled for the CPU or CUDA. It may take `out=` as well.
        reference: the plain PyTorch twin, for devices without a kernel, float64, function
            transforms and second derivatives.
        fake: the result without data.
        backward: of the gradient by the first result, for each argument whether its gradient is
            needed, the arguments, and the results after the first: the gradients by the arguments,
            None for those left out at the end. "reference": its derivatives; None: there are none.
        tensors: which of the arguments are tensors, or None.
    """

    schema: str
    check: Callable[..., Arguments]
    kernel: Callable[..., Any]
    reference: Callable[..., Any]
    fake: Callable[..., Any]
    backward: Backward | Literal["reference"] | None = None
    tensors: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Finds the tensors in the schema."""
        arguments = self.schema.partition(" -> ")[0].split(", ")
        places = [place for place, each in enumerate(arguments) if "Tensor" in each]
        object.__setattr__(self, "tensors", tuple(places))

    @property
    def name(self) -> str:
        """That of the operator in `torch.ops.pyxai`."""
        return self.schema.partition("(")[0]

    def __call__(self, *arguments: Any, out: torch.Tensor | None = None) -> Any:
        """Runs it on checked arguments that may not go straight to the kernel (`is_direct`).

        Plain tensors that need a gradient get it by a `torch.autograd.Function`, which takes half
        the time of a registered operator; everything else goes through what is registered.
        """
        if out is not None:
            return out.copy_(self._registered()(*arguments))
        if self.backward is not None:
            tensors = [arguments[place] for place in self.tensors]
            if is_direct(*tensors, gradients=True):
                return _Direct.apply(self, *arguments)  # type: ignore[no-untyped-call]
        return self._registered()(*arguments)

    def _registered(self) -> Any:
        return self.reference if _needs_reference() else getattr(torch.ops.pyxai, self.name)

    def gradients(
        self, ctx: Any, gradient: torch.Tensor | None, wanted: Sequence[bool]
    ) -> Gradients:
        """Those by all arguments, of a graph that `save` has kept them in."""
        if gradient is None:
            return (None,) * len(ctx.others)
        arguments, kept = saved(ctx, self.tensors)
        if callable(self.backward) and not are_differentiated():
            gradients = self.backward(gradient, wanted, arguments, kept)
            return *gradients, *(None,) * (len(arguments) - len(gradients))
        return plain_gradients(self.reference, arguments, wanted, gradient)


def _needs_reference() -> bool:
    """Whether what is registered with torch would not do.

    Torch can neither batch an operator from Python nor differentiate it in function transforms
    (vmap, grad), and ONNX has no such operators.
    """
    if torch._C._are_functorch_transforms_active():
        return True
    # ONNX export either compiles or traces. Asking it first would cost more than all else here.
    may_export = torch.compiler.is_compiling() or torch._C._is_tracing()
    return may_export and torch.onnx.is_in_onnx_export()


class _Direct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, operator: Operator, *arguments: Any) -> Any:
        ctx.operator = operator
        output = operator.kernel(*arguments)
        save(ctx, operator.tensors, arguments, output)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, *_: Any) -> Gradients:
        return None, *ctx.operator.gradients(ctx, gradient, ctx.needs_input_grad[1:])


OPERATORS: dict[str, Operator] = {}
_library: Any = torch.library.Library("pyxai", "DEF")  # type: ignore[no-untyped-call]


def register(operator: Operator) -> Operator:
    """Makes the operator known to torch, and returns it."""
    name = operator.name
    _library.define(operator.schema, tags=(torch.Tag.pt2_compliant_tag,))

    def on_device(*arguments: Any) -> Any:
        has_kernel = arguments[0].dtype != torch.float64
        return (operator.kernel if has_kernel else operator.reference)(*arguments)

    for key in ("CPU", "CUDA"):
        _library.impl(name, _checked(operator.check, on_device), key)
    anywhere = _checked(operator.check, operator.reference)
    _library.impl(name, anywhere, "CompositeExplicitAutograd")
    # What torch would do for views with the other sign in memory, it does badly where tensors
    # change or are None. So they come to the checks.
    _library.impl(name, torch.library.fallthrough_kernel, "Negative")
    fake = _checked(operator.check, operator.fake)
    torch.library.register_fake(f"pyxai::{name}", fake, lib=_library)
    if operator.backward is not None:
        backward, keep = partial(_backward, operator), partial(_keep, operator)
        torch.library.register_autograd(
            f"pyxai::{name}", backward, setup_context=keep, lib=_library
        )
    OPERATORS[name] = operator
    return operator


def _checked(check: Callable[..., Arguments], function: Callable[..., Any]) -> Callable[..., Any]:
    def implementation(*arguments: Any) -> Any:
        return function(*check(*arguments))

    return implementation


def _keep(operator: Operator, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    save(ctx, operator.tensors, inputs, output)


def _backward(operator: Operator, ctx: Any, gradient: torch.Tensor, *_: Any) -> Gradients:
    return operator.gradients(ctx, gradient, ctx.needs_input_grad[: len(ctx.others)])
