"""Operators of masks over photos: check, then call the kernel of the tensor's device.

Plain tensors go straight to the kernel, with their gradient by a `torch.autograd.Function`, which
takes half the time of a registered operator; everything else (torch.compile, torch.export, fake
tensors, function transforms, devices without a kernel, float64) goes through the operators that
`pyxai.ops._library` registers with torch.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from pyxai.ops import _mask_native, reference
from pyxai.ops._checks import (
    check_memory_format,
    check_out,
    is_direct,
    operators,
)
from pyxai.ops._gradients import are_differentiated, plain_gradients
from pyxai.ops._mask_checks import (
    check_mask_blend,
    check_mask_blend_backward,
    check_mask_penalized_step_,
    check_mask_penalty,
    check_mask_step_,
)


def mask_blend(
    images: torch.Tensor,
    masks: torch.Tensor,
    background: torch.Tensor | None = None,
    *,
    memory_format: torch.memory_format = torch.contiguous_format,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Shows photos where masks are 1 and a background where they are 0, in one pass.

    With `U` the masks, resized to the photos: `images * U + background * (1 - U)`. The resized
    masks are never stored.

    Args:
        images: `[M, C, H, W]`, or `[1, C, H, W]` for all masks; float32, bfloat16 or float16
            (float64 runs the plain PyTorch form). Read as they are when contiguous or
            channels_last, like the result or not; fastest when like it.
        masks: `[M, h, w]` float32 (float64 for float64 images), of any size; any values, nothing
            is clamped. Resizing equals
            `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`.
        background: None for 0; pictures like `images`, one for each mask or one for all; or
            colours `[M, C, 1, 1]` or `[1, C, 1, 1]`. Of the dtype of `images`.
        memory_format: of the result: torch.contiguous_format or torch.channels_last.
        out: a tensor to write into, of the result's shape, dtype and device, contiguous or
            channels_last, whatever `memory_format` says. Reusing one for large results saves more
            time than the arithmetic takes.

    Returns:
        `[M, C, H, W]` in the dtype of `images`, computed in float32 in a fixed order: the same for
        any number of threads. Differentiable in `images`, `masks` and `background`.

    Raises:
        ValueError: a shape, dtype, device or memory format does not fit; the message names it.
    """
    channels_last = check_memory_format(memory_format)
    check_mask_blend(images, masks, background, channels_last)
    direct = is_direct(images, masks, background, out)
    if out is not None:
        shape = (masks.shape[0], *images.shape[1:])
        inputs = {"images": images, "masks": masks, "background": background}
        check_out(out, shape, images.dtype, inputs, direct=direct, or_channels_last=True)
        channels_last = not out.is_contiguous()
    if direct:
        return _mask_native.blend(images, masks, background, channels_last, out=out)
    if out is None and is_direct(images, masks, background, gradients=True):
        blended: torch.Tensor = _Blend.apply(  # type: ignore[no-untyped-call]
            images, masks, background, channels_last
        )
        return blended
    result = operators().mask_blend(images, masks, background, channels_last)
    return result if out is None else out.copy_(result)


class _Blend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        images: torch.Tensor,
        masks: torch.Tensor,
        background: torch.Tensor | None,
        channels_last: bool,
    ) -> torch.Tensor:
        ctx.save_for_backward(images, masks, background)
        ctx.channels_last = channels_last
        return _mask_native.blend(images, masks, background, channels_last)

    @staticmethod
    def backward(ctx: Any, gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        wanted = ctx.needs_input_grad[:3]
        images, masks, background = ctx.saved_tensors
        if are_differentiated():
            plain = partial(reference.mask_blend, channels_last=ctx.channels_last)
            return *plain_gradients(plain, ctx.saved_tensors, wanted, gradients), None
        # What a graph has saved of leaves is whatever their `data` is by now.
        arguments = check_mask_blend_backward(
            gradients.resolve_neg(), images, masks, background, ctx.channels_last, wanted
        )
        direct = is_direct(images, masks, background, gradients, gradients=True)
        backward = _mask_native.blend_backward if direct else operators().mask_blend_backward
        found = backward(*arguments)
        return *(each if want else None for each, want in zip(found, wanted, strict=True)), None


class _Penalty(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, masks: torch.Tensor, *numbers: Any) -> torch.Tensor:
        costs, slopes = _mask_native.penalty(masks, *numbers)
        ctx.save_for_backward(masks, slopes)
        ctx.numbers = numbers
        return costs

    @staticmethod
    def backward(ctx: Any, gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        masks, slopes = ctx.saved_tensors
        if are_differentiated():

            def plain(masks: torch.Tensor) -> torch.Tensor:
                return reference.mask_penalty(masks, *ctx.numbers)

            return *plain_gradients(plain, [masks], [True], gradients), *(None,) * 5
        return gradients[:, None, None] * slopes, *(None,) * 5


def mask_penalty(
    masks: torch.Tensor,
    *,
    tv_weight: float,
    l1_weight: float,
    beta: float = 2.0,
    root: bool = True,
    mean: bool = True,
) -> torch.Tensor:
    """What rough masks and masks that hide much cost; its gradient is made in the same pass.

    With `dy`, `dx` the differences of a cell to the one below and to the one on the right (0 past
    the border), the sum over the cells of `tv_weight * V + l1_weight * |1 - M|`, where
    `V = |dy|^beta + |dx|^beta` (Fong & Vedaldi 2017, arXiv:1704.03296), or with `root`
    `V = (|dy|^beta + |dx|^beta + e^beta)^(1/beta) - e`. The small `e = 1e-4` makes the root smooth
    where neighbours are equal: its gradient there is 0. Where functions have a corner, the slope
    of `|1 - M|` at M = 1 is -1, that inside [0, 1], and for `beta=1` that of `|dx|` at 0 is 0.

    Args:
        masks: `[M, h, w]` float32 (float64 runs the plain PyTorch form), h, w >= 1.
        tv_weight: of the total variation.
        l1_weight: of the distance from 1.
        beta: the exponent, at least 1; 1, 2 and 3 are fastest.
        root: whether the total variation has the root.
        mean: divide by the number of cells, h * w.

    Returns:
        `[M]` in the dtype of the masks, summed in a fixed order: the same for any number of
        threads and any batch. Not finite for a mask that is not. Differentiable in the masks.

    Raises:
        ValueError: a shape, dtype or number does not fit; the message names it.
    """
    arguments = check_mask_penalty(masks, tv_weight, l1_weight, beta, root, mean)
    if is_direct(masks):
        return _mask_native.penalty(*arguments, with_slopes=False)[0]
    if is_direct(masks, gradients=True):
        tracked: torch.Tensor = _Penalty.apply(*arguments)  # type: ignore[no-untyped-call]
        return tracked
    chosen = operators()
    if chosen is reference:
        return reference.mask_penalty(*arguments)
    costs: torch.Tensor = chosen.mask_penalty(*arguments)[0]
    return costs


def mask_step_(
    masks: torch.Tensor,
    gradients: torch.Tensor,
    first_moment: torch.Tensor,
    second_moment: torch.Tensor,
    step: int | torch.Tensor,
    *,
    learning_rate: float = 0.1,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
) -> None:
    """One step of Adam, then a clamp to [0, 1]; in place, in one pass, without autograd.

    As `torch.optim.Adam` (Kingma & Ba 2015, arXiv:1412.6980) with `clamp_(0, 1)` after it:
    `m += (1 - beta1) (g - m)`, `v = beta2 v + (1 - beta2) g^2` and
    `M -= learning_rate / (1 - beta1^step) * m / (sqrt(v / (1 - beta2^step)) + eps)`.

    Args:
        masks: float32 of any shape (float64 runs the plain PyTorch form); changed. Those of no
            memory gap are fastest, as are moments.
        gradients: of the loss by the masks, like them.
        first_moment: `m`, like the masks, 0 before the first step; changed.
        second_moment: `v`, like the masks, 0 before the first step; changed.
        step: the number of this step, from 1. For CUDA graphs an int64 tensor of one element on
            the device of the masks: it is read when the step runs, and not changed, so add 1 to it
            in the graph as well.
        learning_rate: how far a cell moves at most, or nearly so.
        beta1: how much of `m` is kept.
        beta2: how much of `v` is kept.
        eps: added to the root.

    Raises:
        ValueError: a shape, dtype, device or number does not fit; the message names it.
    """
    at, held = _step_and_tensor(step)
    direct = is_direct(masks, gradients, first_moment, second_moment, held, gradients=True)
    arguments = check_mask_step_(
        *(masks, gradients, first_moment, second_moment),
        *(at, held),
        *(learning_rate, beta1, beta2, eps),
        direct=direct,
    )
    if direct:
        _mask_native.step_(*arguments)
        return
    with torch.no_grad():
        operators().mask_step_(*arguments)


def mask_penalized_step_(
    masks: torch.Tensor,
    gradients: torch.Tensor,
    first_moment: torch.Tensor,
    second_moment: torch.Tensor,
    step: int | torch.Tensor,
    *,
    tv_weight: float,
    l1_weight: float,
    beta: float = 2.0,
    root: bool = True,
    mean: bool = True,
    learning_rate: float = 0.1,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
) -> torch.Tensor:
    """`mask_penalty`, then `mask_step_` with its gradient added; in place, without autograd.

    On CUDA one launch for masks of up to 4096 cells.

    Args:
        masks: `[M, h, w]`, as in `mask_penalty`; changed.
        gradients: of the loss without the penalty, like the masks.
        first_moment: see `mask_step_`; changed.
        second_moment: see `mask_step_`; changed.
        step: see `mask_step_`.
        tv_weight: see `mask_penalty`, as are the next four.
        l1_weight: of the distance from 1.
        beta: the exponent.
        root: whether the total variation has the root.
        mean: divide by the number of cells.
        learning_rate: see `mask_step_`, as are the last three.
        beta1: how much of the first moment is kept.
        beta2: how much of the second moment is kept.
        eps: added to the root.

    Returns:
        What the masks cost before the step, `[M]`.

    Raises:
        ValueError: a shape, dtype, device or number does not fit; the message names it.
    """
    at, held = _step_and_tensor(step)
    direct = is_direct(masks, gradients, first_moment, second_moment, held, gradients=True)
    arguments = check_mask_penalized_step_(
        *(masks, gradients, first_moment, second_moment),
        *(at, held),
        *(learning_rate, beta1, beta2, eps),
        *(tv_weight, l1_weight, beta, root, mean),
        direct=direct,
    )
    if direct:
        return _mask_native.penalized_step_(*arguments)
    with torch.no_grad():
        found: torch.Tensor = operators().mask_penalized_step_(*arguments)
    return found


def _step_and_tensor(step: int | torch.Tensor) -> tuple[int, torch.Tensor | None]:
    """As the operators take it: a number, or, in place of that, a tensor."""
    return (0, step) if isinstance(step, torch.Tensor) else (step, None)
