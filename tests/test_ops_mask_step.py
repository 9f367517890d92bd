"""The step of masks against torch's Adam and its plain twin."""

from __future__ import annotations

import pytest
import torch

from pyxai.ops import _native, mask_step_, reference

SHAPES = [(3, 7, 7), (1, 1, 1), (2, 5, 16), (1, 130, 141), (4,), (0, 4, 4)]


def state(shape, device="cpu", dtype=torch.float32):
    """masks, gradients, and moments in the middle of learning."""
    masks, gradients, first, second = torch.rand(4, *shape, dtype=dtype)
    return [each.to(device) for each in (masks, gradients - 0.5, first - 0.5, second * 0.1)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_step(kernels, shape):
    """Within a few roundings of the twin in float64."""
    for step in (1, 2, 1000):
        given = state(shape, kernels)
        double = [each.double() for each in given]
        mask_step_(*given, step, learning_rate=0.05, beta1=0.8, beta2=0.99, eps=1e-6)
        reference.mask_step_(*double, step, None, 0.05, 0.8, 0.99, 1e-6)
        for found, wanted in zip(given, double, strict=True):
            torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=2e-7)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_is_adam_and_a_clamp(kernels, as_tensor):
    start = torch.rand(3, 9, 11, device=kernels)
    mine, theirs = start.clone(), torch.nn.Parameter(start.clone())
    optimizer = torch.optim.Adam([theirs], lr=0.1)
    first, second = torch.zeros_like(mine), torch.zeros_like(mine)
    held = torch.zeros(1, dtype=torch.int64, device=kernels)
    for step in range(1, 40):
        gradients = torch.randn_like(start)
        theirs.grad = gradients.clone()
        optimizer.step()
        with torch.no_grad():
            theirs.clamp_(0, 1)
        held += 1
        mask_step_(mine, gradients, first, second, held if as_tensor else step)
        torch.testing.assert_close(mine, theirs.detach(), rtol=0, atol=2e-6)
        theirs.data.copy_(mine)  # a rounding near 0 or 1 is not to grow
        assert held.item() == step  # only read
    values = optimizer.state[theirs]
    torch.testing.assert_close(first, values["exp_avg"], rtol=0, atol=1e-6)
    torch.testing.assert_close(second, values["exp_avg_sq"], rtol=1e-5, atol=0)
    assert mine.min() == 0
    assert mine.max() == 1


def test_same_bits_for_threads_batches_and_steps_as_tensors(kernels, threads):
    given = state((6, 130, 61), kernels)
    results = []
    for count in (1, 2, 3, 7):
        threads(count)
        copies = [each.clone() for each in given]
        step = 3 if count % 2 else torch.tensor(3, device=kernels)
        mask_step_(*copies, step)
        results.append(copies)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))
    alone = [each[4:5].clone() for each in given]
    mask_step_(*alone, 3)
    for found, whole in zip(alone, results[0], strict=True):
        assert torch.equal(found[0], whole[4])


def test_levels_agree():
    given, results = state((3, 20, 21)), []
    before = _native.cpu.simd_level()
    try:
        for level in _native.cpu.simd_levels():
            _native.cpu.set_simd_level(level)
            results.append([each.clone() for each in given])
            mask_step_(*results[-1], 5)
    finally:
        _native.cpu.set_simd_level(before)
    for other in results[1:]:
        for found, wanted in zip(other, results[0], strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-6, atol=2e-7)


@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_any_strides(device, which):
    given = state((3, 8, 9), device)
    copies = [each.clone() for each in given]
    wide = torch.zeros(3, 8, 18, device=device)
    wide[..., ::2] = given[which]
    given[which] = wide[..., ::2]
    mask_step_(*given, 2)
    mask_step_(*copies, 2)
    for found, wanted in zip(given, copies, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=2e-7)
    assert not wide[..., 1::2].any()
    expanded = torch.ones((), device=device).expand(3, 8, 9)  # a gradient without memory
    mask_step_(copies[0], expanded, *copies[2:], 3)
    assert copies[0].isfinite().all()


def test_nan_stays(kernels):
    masks, gradients, first, second = state((2, 3, 19), kernels)
    gradients[1, 2, 18] = masks[0, 0, 3] = torch.nan
    mask_step_(masks, gradients, first, second, 1)
    wrong = masks.isnan()
    assert wrong[1, 2, 18]
    assert wrong[0, 0, 3]
    assert wrong.sum() == 2


def test_no_gradient_moves_nothing(kernels):
    masks = torch.rand(2, 5, 7, device=kernels)
    before, zeros = masks.clone(), torch.zeros(3, 2, 5, 7, device=kernels)
    mask_step_(masks, *zeros, 1)
    assert torch.equal(masks, before)


def test_autograd_sees_the_change(device):
    """Without recording it: leaves may be stepped as an optimiser does."""
    given = state((2, 4, 4), device)
    leaf = given[0].requires_grad_()
    loss = (leaf**2).sum()
    mask_step_(*given, 1)
    assert leaf.requires_grad
    assert leaf.is_leaf
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    with torch.inference_mode():
        mask_step_(*state((2, 4, 4), device), 1)


# ---- torch.library ----


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_opcheck(device):
    numbers = (0.1, 0.9, 0.999, 1e-8)
    for step in (None, torch.tensor([3], device=device)):
        arguments = (*state((2, 4, 5), device), 3, step, *numbers)
        torch.library.opcheck(torch.ops.pyxai.mask_step_.default, arguments)


def test_compile(device):
    compiled = torch.compile(mask_step_, fullgraph=True, backend="aot_eager")
    given = state((2, 5, 6), device)
    copies = [each.clone() for each in given]
    held = torch.tensor(4, device=device)
    for step in (4, held):
        mask_step_(*given, step)
        compiled(*copies, step)
        for found, wanted in zip(copies, given, strict=True):
            assert torch.equal(found, wanted)


def test_float64():
    given = state((2, 5, 6), dtype=torch.float64)
    single = [each.float() for each in given]
    mask_step_(*given, 4)
    mask_step_(*single, torch.tensor(4))
    for found, wanted in zip(single, given, strict=True):
        assert wanted.dtype == torch.float64
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)


CELLS = torch.zeros(2, 4, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"masks": CELLS.half()}, "masks: .*float32 or float64.*float16"),
        ({"gradients": CELLS[:1]}, r"gradients: .*\[2, 4, 5\].*\[1, 4, 5\]"),
        ({"first_moment": CELLS.double()}, "first_moment: .*float32.*float64"),
        ({"second_moment": CELLS[:, :2]}, r"second_moment: .*\[2, 4, 5\].*\[2, 2, 5\]"),
        ({"gradients": CELLS.to("meta")}, "masks, gradients: .*one device.*meta"),
        ({"step": 0}, "step: .*from 1.*0"),
        ({"step": torch.tensor(1.0)}, "step: .*int64 tensor of one element"),
        ({"step": torch.ones(2, dtype=torch.int64)}, "step: .*int64 tensor of one element"),
        ({"step": torch.ones(1, dtype=torch.int64, device="meta")}, "masks, step: .*one device"),
        ({"learning_rate": -0.1}, "learning_rate: .*at least 0.*-0.1"),
        ({"beta1": 1.0}, "beta1: .*below 1.*1.0"),
        ({"beta2": -0.5}, "beta2: .*below 1.*-0.5"),
        ({"eps": float("nan")}, "eps: .*at least 0.*nan"),
    ],
)
def test_bad_input(changes, message):
    names = ("masks", "gradients", "first_moment", "second_moment")
    arguments = {**{name: CELLS.clone() for name in names}, "step": 1, **changes}
    with pytest.raises(ValueError, match=message):
        mask_step_(**arguments)
