"""Gradients of the operators: what a graph keeps, and what is made of it.

What an operator returns after its first result is there for its backward pass alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

Gradients = tuple[torch.Tensor | None, ...]


def save(ctx: Any, tensors: Sequence[int], inputs: tuple[Any, ...], output: Any) -> None:
    """Keeps in a graph the arguments of an operator, and its results after the first.

    Args:
        ctx: of the graph.
        tensors: which of the arguments are tensors, or None.
        inputs: the arguments.
        output: the results.
    """
    first, *kept = output if isinstance(output, tuple) else (output,)
    ctx.mark_non_differentiable(*kept, *(() if first.is_floating_point() else (first,)))
    ctx.set_materialize_grads(False)  # of those there would be zeros
    ctx.save_for_backward(*[inputs[place] for place in tensors], *kept)
    ctx.others = [*inputs]
    for place in tensors:
        ctx.others[place] = None


def saved(ctx: Any, tensors: Sequence[int]) -> tuple[list[Any], tuple[torch.Tensor, ...]]:
    """The arguments that `save` has kept, and the results."""
    arguments, kept = [*ctx.others], ctx.saved_tensors
    for place, tensor in zip(tensors, kept, strict=False):
        arguments[place] = tensor
    return arguments, kept[len(tensors) :]


def are_differentiated() -> bool:
    """Whether the gradients that a backward pass makes get a graph (`create_graph=True`).

    Those of kernels would have none, and torch would leave out their part of second derivatives
    without a word.
    """
    return torch.is_grad_enabled()


def plain_gradients(
    plain: Callable[..., Any],
    arguments: Sequence[Any],
    wanted: Sequence[bool],
    gradient: torch.Tensor,
) -> Gradients:
    """The gradients by the arguments of a plain function, with a graph of their own if asked for.

    Args:
        plain: of the arguments.
        arguments: as they were saved for the backward pass.
        wanted: for each, whether its gradient is needed; without it None is returned.
        gradient: by the first result.
    """
    again = are_differentiated()

    def seen(argument: Any) -> Any:
        if not isinstance(argument, torch.Tensor):
            return argument
        # One may have come from another: a view is where the graph of this function ends.
        return argument.view_as(argument) if again else argument.detach()

    with torch.enable_grad():
        inputs = [seen(each) for each in arguments]
        sources = [
            each if again else each.requires_grad_()
            for each, want in zip(inputs, wanted, strict=True)
            if want
        ]
        result = plain(*inputs)
        result = result[0] if isinstance(result, tuple) else result
        gradients = iter(torch.autograd.grad(result, sources, gradient, create_graph=again))
    return tuple(next(gradients) if want else None for want in wanted)
