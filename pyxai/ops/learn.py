"""Steps of learned masks: their penalty, Adam, and both; the kernels are in `csrc/mask`."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch

from pyxai._errors import argument_error
from pyxai.ops import reference
from pyxai.ops._checks import (
    Arguments,
    check_changeable,
    check_flags,
    check_number,
    check_same_device,
    check_tensors,
    has_memory,
    is_direct,
)
from pyxai.ops._gradients import Gradients
from pyxai.ops._memory import address_of, check_apart, note_written
from pyxai.ops._operator import Operator, register
from pyxai.ops._workspace import run

_LAST_STEP = (1 << 63) - 1


# ---- penalty ----


def _check_penalty(
    masks: torch.Tensor, tv_weight: float, l1_weight: float, beta: float, root: bool, mean: bool
) -> Arguments:
    """Raises ValueError unless masks and numbers fit; returns the arguments."""
    check_tensors({"masks": masks})
    if masks.dtype not in (torch.float32, torch.float64):
        raise argument_error("masks", "dtype float32 or float64", masks)
    return masks, *_penalty_numbers(masks, tv_weight, l1_weight, beta, root, mean)


def _penalty_numbers(
    masks: torch.Tensor, tv_weight: float, l1_weight: float, beta: float, root: bool, mean: bool
) -> Arguments:
    if masks.ndim != 3 or 0 in masks.shape[1:]:
        raise argument_error("masks", "a tensor [M, h, w] with h, w >= 1", masks)
    return (
        check_number("tv_weight", tv_weight, 0),
        check_number("l1_weight", l1_weight, 0),
        check_number("beta", beta, 1),
        *check_flags(root=root, mean=mean),
    )


def _penalty_fields(
    masks: torch.Tensor, costs: torch.Tensor, slopes: int, numbers: Sequence[Any]
) -> Arguments:
    """Those of PenaltyArgs."""
    return masks.data_ptr(), costs.data_ptr(), slopes, *masks.shape, *numbers


def _penalty(
    masks: torch.Tensor, *numbers: Any, with_slopes: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """The costs [M], and the slopes [M, h, w], empty if not wanted."""
    masks = masks.contiguous()
    costs = masks.new_empty(masks.shape[0])
    slopes = torch.empty_like(masks) if with_slopes else masks.new_empty(0)
    # The address of an empty tensor is 0.
    run("mask_penalty", masks, _penalty_fields(masks, costs, slopes.data_ptr(), numbers))
    return costs, slopes


def _empty_penalty(masks: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
    slopes = torch.empty_like(masks, memory_format=torch.contiguous_format)
    return masks.new_empty(masks.shape[0]), slopes


def _penalty_gradients(
    gradient: torch.Tensor, _: Any, __: Any, kept: tuple[torch.Tensor, ...]
) -> Gradients:
    return (gradient[:, None, None] * kept[0],)


PENALTY = register(
    Operator(
        "mask_penalty(Tensor masks, float tv_weight, float l1_weight, float beta, bool root, "
        "bool mean) -> (Tensor, Tensor)",
        check=_check_penalty,
        kernel=_penalty,
        reference=reference.mask_penalty_and_slopes,
        fake=_empty_penalty,
        backward=_penalty_gradients,
    )
)


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
    arguments = _check_penalty(masks, tv_weight, l1_weight, beta, root, mean)
    if is_direct(masks):
        return _penalty(*arguments, with_slopes=False)[0]
    costs: torch.Tensor = PENALTY(*arguments)[0]
    return costs


# ---- step ----


def _check_step_operator(
    masks: torch.Tensor,
    gradients: torch.Tensor,
    first_moment: torch.Tensor,
    second_moment: torch.Tensor,
    step: int,
    step_tensor: torch.Tensor | None,
    learning_rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    *,
    direct: bool = False,
) -> Arguments:
    """Raises ValueError unless all fit, and what changes has memory of its own.

    Args: those of the operator, and `direct`: whether `is_direct` says so, of all tensors.

    Returns:
        The arguments; the step, where it lies in a tensor on the CPU, as a copy of that.
    """
    state = _check_state(masks, gradients, first_moment, second_moment, step, step_tensor, direct)
    return *state, *_adam_numbers(learning_rate, beta1, beta2, eps)


def _adam_numbers(learning_rate: float, beta1: float, beta2: float, eps: float) -> Arguments:
    return (
        check_number("learning_rate", learning_rate, 0),
        check_number("beta1", beta1, 0, below=1),
        check_number("beta2", beta2, 0, below=1),
        check_number("eps", eps, 0),
    )


def _check_state(
    masks: torch.Tensor,
    gradients: torch.Tensor,
    first_moment: torch.Tensor,
    second_moment: torch.Tensor,
    step: int,
    step_tensor: torch.Tensor | None,
    direct: bool,
) -> Arguments:
    written = {"masks": masks, "first_moment": first_moment, "second_moment": second_moment}
    tensors = {**written, "gradients": gradients}
    check_tensors(tensors)
    if masks.dtype not in (torch.float32, torch.float64):
        raise argument_error("masks", "dtype float32 or float64", masks)
    if not (
        masks.shape == gradients.shape == first_moment.shape == second_moment.shape
        and masks.dtype == gradients.dtype == first_moment.dtype == second_moment.dtype
        and masks.device == gradients.device == first_moment.device == second_moment.device
    ):
        _refuse_state(tensors, masks)
    if step_tensor is None:
        step = _check_step(step)
    else:
        _check_step_tensor(step_tensor, masks)
        tensors["step"] = step_tensor
    if direct or has_memory(*tensors.values()):
        check_apart(tensors, written=3)
        check_changeable(written)
        if step_tensor is not None and step_tensor.is_cpu:
            step_tensor = step_tensor.clone()  # whoever writes into it now changes nothing
            _check_step(int(step_tensor.item()))
    return masks, gradients, first_moment, second_moment, step, step_tensor


def _refuse_state(tensors: dict[str, torch.Tensor], masks: torch.Tensor) -> None:
    for name, other in {"gradients": tensors["gradients"], **tensors}.items():
        if other.shape != masks.shape or other.dtype != masks.dtype:
            dtype = str(masks.dtype).removeprefix("torch.")
            raise argument_error(name, f"a {dtype} tensor {list(masks.shape)}", other)
        check_same_device(**{"masks": masks, name: other})


def _check_step(step: Any) -> int:
    expected = "a count from 1 that int64 holds"
    if type(step) is not int and not isinstance(step, torch.SymInt):
        try:
            step = 0 if isinstance(step, bool) else operator.index(step)
        except TypeError:
            raise argument_error("step", expected, step) from None
    if step < 1 or (type(step) is int and step > _LAST_STEP):
        raise argument_error("step", expected, step)
    number: int = step
    return number


def _check_step_tensor(step: torch.Tensor, masks: torch.Tensor) -> None:
    check_tensors({"step": step})
    if step.dtype != torch.int64 or step.numel() != 1:
        raise argument_error("step", "an int, or an int64 tensor of one element", step)
    if step.device != masks.device:
        check_same_device(masks=masks, step=step)


def _are_dense(*tensors: torch.Tensor) -> bool:
    return all(each.is_contiguous() for each in tensors)


def _step_fields(
    masks: torch.Tensor,
    gradients: torch.Tensor,
    first_moment: torch.Tensor,
    second_moment: torch.Tensor,
    step: int,
    step_tensor: torch.Tensor | None,
    numbers: Sequence[float],
) -> Arguments:
    """Those of StepArgs."""
    return (
        masks.data_ptr(),
        gradients.data_ptr(),
        first_moment.data_ptr(),
        second_moment.data_ptr(),
        masks.numel(),
        0 if step_tensor is None else address_of("step", step_tensor),
        step,
        *numbers,
    )


def _step(
    masks: torch.Tensor,
    gradients: torch.Tensor,
    first_moment: torch.Tensor,
    second_moment: torch.Tensor,
    step: int,
    step_tensor: torch.Tensor | None,
    *numbers: float,
) -> None:
    """Any strides, fast where all are contiguous."""
    state = masks, gradients, first_moment, second_moment
    if not _are_dense(masks, first_moment, second_moment):
        return reference.mask_step_(*state, step, step_tensor, *numbers)
    gradients = gradients.contiguous()
    fields = _step_fields(masks, gradients, first_moment, second_moment, step, step_tensor, numbers)
    run("mask_step", masks, fields)
    note_written(masks, first_moment, second_moment)
    return None


_STATE = (
    "(Tensor(a!) masks, Tensor gradients, Tensor(b!) first_moment, Tensor(c!) second_moment, "
    "SymInt step, Tensor? step_tensor, float learning_rate, float beta1, float beta2, float eps"
)

STEP = register(
    Operator(
        f"mask_step_{_STATE}) -> ()",
        check=_check_step_operator,
        kernel=_step,
        reference=reference.mask_step_,
        fake=lambda *_: None,
    )
)


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
    arguments = _check_step_operator(
        *(masks, gradients, first_moment, second_moment),
        *(at, held),
        *(learning_rate, beta1, beta2, eps),
        direct=direct,
    )
    if direct:
        return _step(*arguments)
    with torch.no_grad():
        STEP(*arguments)
    return None


def _step_and_tensor(step: int | torch.Tensor) -> tuple[int, torch.Tensor | None]:
    """As the operators take it: a number, or, in place of that, a tensor."""
    return (0, step) if isinstance(step, torch.Tensor) else (step, None)


# ---- both ----


def _check_penalized_step(
    masks: torch.Tensor,
    gradients: torch.Tensor,
    first_moment: torch.Tensor,
    second_moment: torch.Tensor,
    step: int,
    step_tensor: torch.Tensor | None,
    learning_rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    *penalty_numbers: Any,
    direct: bool = False,
) -> Arguments:
    """The checks of both."""
    state = _check_state(masks, gradients, first_moment, second_moment, step, step_tensor, direct)
    numbers = _adam_numbers(learning_rate, beta1, beta2, eps)
    return *state, *numbers, *_penalty_numbers(masks, *penalty_numbers)


def _penalized_step(
    masks: torch.Tensor,
    gradients: torch.Tensor,
    first_moment: torch.Tensor,
    second_moment: torch.Tensor,
    step: int,
    step_tensor: torch.Tensor | None,
    learning_rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    *penalty_numbers: Any,
) -> torch.Tensor:
    """`_penalty` and `_step` on masks [M, h, w], any strides as there; their costs before it."""
    numbers = (learning_rate, beta1, beta2, eps)
    if not _are_dense(masks, first_moment, second_moment):
        costs, slopes = _penalty(masks, *penalty_numbers)
        slopes.add_(gradients.detach())
        _step(masks, slopes, first_moment, second_moment, step, step_tensor, *numbers)
        return costs
    gradients = gradients.contiguous()
    costs = masks.new_empty(masks.shape[0])
    fields = _penalty_fields(masks, costs, 0, penalty_numbers)
    fields += _step_fields(
        masks, gradients, first_moment, second_moment, step, step_tensor, numbers
    )
    run("mask_penalized_step", masks, fields)
    note_written(masks, first_moment, second_moment)
    return costs


PENALIZED_STEP = register(
    Operator(
        f"mask_penalized_step_{_STATE}, float tv_weight, float l1_weight, float beta, bool root, "
        "bool mean) -> Tensor",
        check=_check_penalized_step,
        kernel=_penalized_step,
        reference=reference.mask_penalized_step_,
        fake=lambda masks, *_: masks.new_empty(masks.shape[0]),
    )
)


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
    arguments = _check_penalized_step(
        *(masks, gradients, first_moment, second_moment),
        *(at, held),
        *(learning_rate, beta1, beta2, eps),
        *(tv_weight, l1_weight, beta, root, mean),
        direct=direct,
    )
    if direct:
        return _penalized_step(*arguments)
    with torch.no_grad():
        costs: torch.Tensor = PENALIZED_STEP(*arguments)
    return costs
