"""The step of masks with the penalty in it: the same as one after the other."""

from __future__ import annotations

import pytest
import torch

from pyxai.ops import mask_penalized_step_, mask_penalty, mask_step_, reference

SHAPES = [(3, 7, 9), (1, 1, 1), (2, 64, 64), (2, 64, 65), (0, 4, 4)]  # the last but one is large
COSTS = [
    {"beta": 2.0, "root": True, "mean": True},
    {"beta": 3.0, "root": False, "mean": False},
    {"beta": 1.0, "root": True, "mean": False},
    {"beta": 2.5, "root": True, "mean": True},
]
WEIGHTS = {"tv_weight": 1.7, "l1_weight": 3.0}
ADAM = {"learning_rate": 0.05, "beta1": 0.8, "beta2": 0.99, "eps": 1e-6}


def state(shape, device="cpu", dtype=torch.float32):
    """masks, gradients, and moments in the middle of learning."""
    masks, gradients, first, second = torch.rand(4, *shape, dtype=dtype)
    return [each.to(device) for each in (masks, gradients - 0.5, first - 0.5, second * 0.1)]


def one_after_the_other(given, step, cost):
    """Costs; the tensors are changed."""
    masks, gradients, first, second = given
    leaf = masks.clone().requires_grad_()
    costs = mask_penalty(leaf, **WEIGHTS, **cost)
    (slopes,) = torch.autograd.grad(costs, leaf, torch.ones_like(costs))
    mask_step_(masks, gradients + slopes, first, second, step, **ADAM)
    return costs.detach()


@pytest.mark.parametrize("cost", COSTS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_is_penalty_and_step(kernels, shape, cost):
    for step in (1, 1000):
        given = state(shape, kernels)
        copies, double = ([each.clone() for each in given] for _ in range(2))
        double = [each.double() for each in double]
        costs = mask_penalized_step_(*given, step, **WEIGHTS, **cost, **ADAM)
        assert torch.equal(costs, one_after_the_other(copies, step, cost))
        assert all(map(torch.equal, given, copies))
        wanted = reference.mask_penalized_step_(
            *double, step, None, *ADAM.values(), *WEIGHTS.values(), *cost.values()
        )
        torch.testing.assert_close(costs.double(), wanted, rtol=1e-5, atol=1e-6)
        for found, exact in zip(given, double, strict=True):
            torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)


def test_same_bits_for_threads_batches_and_steps_as_tensors(kernels, threads):
    given = state((6, 20, 31), kernels)
    results = []
    for count in (1, 2, 3):
        threads(count)
        copies = [each.clone() for each in given]
        step = 3 if count % 2 else torch.tensor(3, device=kernels)
        results.append((mask_penalized_step_(*copies, step, **WEIGHTS), *copies))
    for other in results[1:]:
        assert all(map(torch.equal, other, results[0]))
    alone = [each[4:5].clone() for each in given]
    costs = mask_penalized_step_(*alone, 3, **WEIGHTS)
    for found, whole in zip((costs, *alone), results[0], strict=True):
        assert torch.equal(found[0], whole[4])


@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_any_strides(device, which):
    given = state((3, 8, 9), device)
    copies = [each.clone() for each in given]
    given[which] = given[which].mT.contiguous().mT
    costs = mask_penalized_step_(*given, 2, **WEIGHTS)
    assert torch.equal(costs, mask_penalized_step_(*copies, 2, **WEIGHTS))
    for found, wanted in zip(given, copies, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=2e-7)


def test_autograd_sees_the_change(device):
    given = state((2, 4, 4), device)
    leaf = given[0].requires_grad_()
    loss = (leaf**2).sum()
    assert not mask_penalized_step_(*given, 1, **WEIGHTS).requires_grad
    assert leaf.is_leaf
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    gradients = state((2, 4, 4), device)[1].requires_grad_()
    some = state((2, 4, 4), device)
    mask_penalized_step_(some[0], gradients, *some[2:], 1, **WEIGHTS)
    assert not some[0].requires_grad


def test_what_is_not_finite_stays_so(kernels):
    masks, gradients, first, second = state((2, 3, 19), kernels)
    masks[0, 0, 3] = torch.nan
    costs = mask_penalized_step_(masks, gradients, first, second, 1, **WEIGHTS)
    assert costs.isfinite().tolist() == [False, True]
    assert masks[0, 0, 3].isnan()
    assert masks[1].isfinite().all()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_opcheck(device):
    numbers = (0.1, 0.9, 0.999, 1e-8, 1.7, 3.0, 2.0, True, True)
    for step in (None, torch.tensor([3], device=device)):
        arguments = (*state((2, 4, 5), device), 3, step, *numbers)
        torch.library.opcheck(torch.ops.pyxai.mask_penalized_step_.default, arguments)


def test_compile_and_float64(device):
    compiled = torch.compile(mask_penalized_step_, fullgraph=True, backend="aot_eager")
    for dtype in (torch.float32, torch.float64):
        given = state((2, 5, 6), device, dtype)
        copies = [each.clone() for each in given]
        costs = mask_penalized_step_(*given, 4, **WEIGHTS)
        assert costs.dtype == dtype
        assert torch.equal(compiled(*copies, 4, **WEIGHTS), costs)
        assert all(map(torch.equal, copies, given))


CELLS = torch.zeros(2, 4, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"masks": CELLS[0]}, r"gradients: .*\[4, 5\].*\[2, 4, 5\]"),
        ({"first_moment": CELLS.double()}, "first_moment: .*float32.*float64"),
        ({"step": 0}, "step: .*from 1.*0"),
        ({"beta": 0.5}, "beta: .*at least 1.*0.5"),
        ({"l1_weight": -1.0}, "l1_weight: .*at least 0.*-1"),
        ({"beta2": 1.0}, "beta2: .*below 1.*1.0"),
    ],
)
def test_bad_input(changes, message):
    names = ("masks", "gradients", "first_moment", "second_moment")
    arguments = {**{name: CELLS.clone() for name in names}, "step": 1, **WEIGHTS, **changes}
    with pytest.raises(ValueError, match=message):
        mask_penalized_step_(**arguments)


def test_masks_need_three_axes():
    with pytest.raises(ValueError, match=r"masks: .*\[M, h, w\]"):
        mask_penalized_step_(*(CELLS[0].clone() for _ in range(4)), 1, **WEIGHTS)
