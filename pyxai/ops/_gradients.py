"""Gradients by the plain functions, which can be differentiated again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch


def are_differentiated() -> bool:
    """Whether the gradients that a backward pass makes get a graph (`create_graph=True`).

    Those of kernels would have none, and torch would leave out their part of second derivatives
    without a word.
    """
    return torch.is_grad_enabled()


def plain_gradients(
    plain: Callable[..., torch.Tensor],
    inputs: Sequence[torch.Tensor | None],
    wanted: Sequence[bool],
    gradient: torch.Tensor,
) -> tuple[torch.Tensor | None, ...]:
    """The gradients by some inputs of a plain function, with a graph of their own where asked for.

    Args:
        plain: of the inputs.
        inputs: as they were saved for the backward pass.
        wanted: for each, whether its gradient is needed; without it None is returned.
        gradient: by the result.
    """
    again = are_differentiated()
    with torch.enable_grad():
        # One input may have come from another: a view is where the graph of this function ends.
        seen = [
            each if each is None else each.view_as(each) if again else each.detach()
            for each in inputs
        ]
        sources = [
            each if again else each.requires_grad_()
            for each, want in zip(seen, wanted, strict=True)
            if each is not None and want
        ]
        found = iter(torch.autograd.grad(plain(*seen), sources, gradient, create_graph=again))
    return tuple(
        next(found) if want and each is not None else None
        for each, want in zip(seen, wanted, strict=True)
    )
