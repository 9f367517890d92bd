"""The penalty of masks against its plain twin, numerical derivatives, and torch's own checks."""

from __future__ import annotations

import functools
import math

import pytest
import torch

from pyxai.ops import _native, mask_penalty, reference
from pyxai.ops.learn import PENALTY

SHAPES = [
    (3, 7, 17),
    (2, 28, 28),
    (1, 1, 1),
    (2, 1, 40),
    (2, 40, 1),
    (3, 5, 16),
    (2, 5, 15),
    (1, 200, 130),  # more than one band
    (0, 4, 4),
]
EXPONENTS = [(beta, root) for beta in (1.0, 1.5, 2.0, 2.7, 3.0, 8.0) for root in (True, False)]


def both(masks, beta=2.0, root=True, mean=True):
    """Costs and slopes of the public function."""
    leaf = masks.detach().requires_grad_()
    costs = mask_penalty(leaf, tv_weight=1.7, l1_weight=3.0, beta=beta, root=root, mean=mean)
    (slopes,) = torch.autograd.grad(costs.sum(), leaf)
    return costs.detach(), slopes


def expected(masks, beta=2.0, root=True, mean=True):
    return reference.mask_penalty_and_slopes(masks.double(), 1.7, 3.0, beta, root, mean)


def assert_near(found, wanted, tolerance):
    assert found.shape == wanted.shape
    scale = wanted.abs().max().item() if wanted.numel() else 1.0
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize(("beta", "root"), EXPONENTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_penalty(kernels, shape, beta, root):
    masks = torch.rand(shape, device=kernels) * 1.4 - 0.2  # also beyond [0, 1]
    for mean in (True, False):
        costs, slopes = both(masks, beta, root, mean)
        wanted, wanted_slopes = expected(masks, beta, root, mean)
        assert_near(costs, wanted, 1e-6)
        assert_near(slopes, wanted_slopes, 3e-6)
        numbers = {"tv_weight": 1.7, "l1_weight": 3.0, "beta": beta, "root": root, "mean": mean}
        assert torch.equal(mask_penalty(masks, **numbers), costs)  # without the slopes


@pytest.mark.parametrize("beta", [1.5, 2.0, 3.0, 20.0])
def test_small_differences_are_smooth(kernels, beta):
    """Around the size below which differences do not count under the root, and far from it."""
    steps = 10.0 ** torch.arange(-9, 4, dtype=torch.float32, device=kernels)
    masks = 0.5 + torch.zeros(len(steps), 3, 19, device=kernels)
    masks[:, 1, 7] += steps
    masks[:, 2, 12] -= 0.3 * steps
    costs, slopes = both(masks, beta)
    for n in range(len(steps)):
        wanted, wanted_slopes = expected(masks[n : n + 1], beta)
        assert_near(costs[n : n + 1], wanted, 1e-6)
        assert_near(slopes[n : n + 1], wanted_slopes, 1e-5)


@pytest.mark.parametrize(("beta", "root"), EXPONENTS)
def test_flat_masks(kernels, beta, root):
    """No variation and no slope of it; the slope of |1 - M| at 1 is that below."""
    for value, distance, slope in ((1.0, 0.0, -3.0), (0.25, 2.25, -3.0), (1.5, 1.5, 3.0)):
        masks = torch.full((2, 6, 21), value, device=kernels)
        costs, slopes = both(masks, beta, root, mean=False)
        torch.testing.assert_close(
            costs, torch.full_like(costs, 126 * distance), atol=2e-6, rtol=1e-6
        )
        assert torch.equal(slopes, torch.full_like(slopes, slope))


def test_penalty_by_hand(device):
    """Differences down 1 and 0 in the left column, across -1 and 0 in the upper row."""
    masks = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]], device=device)
    numbers = {"tv_weight": 2.0, "l1_weight": 5.0}
    squares = mask_penalty(masks, **numbers, root=False, mean=False)
    assert squares.item() == pytest.approx(2 * 2 + 5 * 3)
    assert mask_penalty(masks, **numbers, root=False).item() == pytest.approx(19 / 4)
    rooted = mask_penalty(masks, **numbers, mean=False).item()
    assert rooted == pytest.approx(2 * (math.sqrt(2 + 1e-8) - 1e-4) + 15, rel=1e-6)


def test_strides_are_of_no_importance(kernels):
    masks = torch.rand(3, 18, 11, device=kernels)
    costs, slopes = both(masks)
    for other in (masks.mT.contiguous().mT, masks.repeat_interleave(2, dim=2)[..., ::2]):
        assert torch.equal(both(other)[0], costs)
        assert torch.equal(both(other)[1], slopes)
    one = masks[:1].expand(4, -1, -1)
    assert torch.equal(both(one)[0], costs[:1].expand(4))


def test_gradient_times_what_comes_in(device):
    """Also from an expanded gradient, and from none for some masks."""
    masks = torch.rand(3, 9, 10, device=device, requires_grad=True)
    slopes = both(masks)[1]
    costs = mask_penalty(masks, tv_weight=1.7, l1_weight=3.0)
    weights = torch.tensor([0.0, 2.0, -1.0], device=device)
    (found,) = torch.autograd.grad((costs * weights).sum(), masks, retain_graph=True)
    assert torch.equal(found, slopes * weights[:, None, None])
    (found,) = torch.autograd.grad(costs.mean(), masks)
    torch.testing.assert_close(found, slopes / 3)


@pytest.mark.parametrize("beta", [2.0, 2.5])
def test_same_bits_for_any_number_of_threads(kernels, threads, beta):
    for shape in ((5, 150, 140), (40, 28, 28), (1, 224, 224)):
        masks = torch.rand(shape, device=kernels)
        results = []
        for count in (1, 2, 3, 7):
            threads(count)
            results.append(both(masks, beta))
        for costs, slopes in results[1:]:
            assert torch.equal(costs, results[0][0])
            assert torch.equal(slopes, results[0][1])


def test_batch_equals_one_by_one(kernels):
    masks = torch.rand(5, 130, 141, device=kernels)
    costs, slopes = both(masks)
    for n in range(5):
        alone = both(masks[n : n + 1])
        assert torch.equal(alone[0][0], costs[n])
        assert torch.equal(alone[1][0], slopes[n])


@pytest.mark.parametrize(("beta", "root"), EXPONENTS)
def test_levels_agree(beta, root):
    masks = torch.rand(3, 30, 31)
    before, results = _native.cpu.simd_level(), []
    try:
        for level in _native.cpu.simd_levels():
            _native.cpu.set_simd_level(level)
            results.append(both(masks, beta, root))
    finally:
        _native.cpu.set_simd_level(before)
    for costs, slopes in results[1:]:
        torch.testing.assert_close(costs, results[0][0], rtol=1e-6, atol=0)
        torch.testing.assert_close(slopes, results[0][1], rtol=0, atol=2e-8)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize(("beta", "root"), EXPONENTS)
def test_not_finite(kernels, beta, root, bad):
    masks = torch.rand(3, 5, 18, device=kernels)
    masks[1, 2, 17] = bad
    costs, slopes = both(masks, beta, root)
    assert not costs[1].isfinite()
    assert costs[::2].isfinite().all()
    assert slopes[::2].isfinite().all()


# ---- torch.library ----


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_opcheck(device):
    masks = torch.rand(2, 4, 5, device=device)
    for numbers in ((1.7, 3.0, 2.0, True, True), (1.0, 0.0, 2.5, False, False)):
        torch.library.opcheck(torch.ops.pyxai.mask_penalty, (masks, *numbers))
        leaf = masks.clone().requires_grad_()
        torch.library.opcheck(torch.ops.pyxai.mask_penalty, (leaf, *numbers))


@pytest.mark.parametrize(("beta", "root"), EXPONENTS)
def test_gradient_of_the_reference(beta, root):
    masks = (torch.rand(2, 4, 5, dtype=torch.float64) * 0.9).requires_grad_()
    function = functools.partial(
        mask_penalty, tv_weight=1.7, l1_weight=3.0, beta=beta, root=root, mean=False
    )
    assert torch.autograd.gradcheck(function, masks)
    plain = reference.mask_penalty(masks, 1.7, 3.0, beta, root, False)
    slopes = reference.mask_penalty_and_slopes(masks, 1.7, 3.0, beta, root, False)[1]
    torch.testing.assert_close(torch.autograd.grad(plain.sum(), masks)[0], slopes)


class Penalty(torch.nn.Module):
    def forward(self, masks):
        return mask_penalty(masks, tv_weight=1.7, l1_weight=3.0) * 2


def test_compile_export_and_transforms(device):
    masks = torch.rand(3, 6, 7, device=device)
    module = Penalty()
    plain, slopes = module(masks), both(masks)[1]
    exported = torch.export.export(module, (masks,)).module()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.equal(exported(masks), plain)
    assert torch.equal(compiled(masks), plain)
    leaf = masks.clone().requires_grad_()
    (found,) = torch.autograd.grad(compiled(leaf).sum(), leaf)
    torch.testing.assert_close(found, 2 * slopes)
    mapped = torch.func.vmap(lambda one: module(one[None])[0])(masks)
    torch.testing.assert_close(mapped, plain)
    gradient = torch.func.grad(lambda some: module(some).sum())(masks)
    torch.testing.assert_close(gradient, 2 * slopes)


def test_onnx_export_sees_standard_operators(monkeypatch):
    def recorded():
        nodes = torch.export.export(Penalty(), (torch.rand(2, 4, 5),)).graph.nodes
        return [str(node.target) for node in nodes if str(node.target).startswith("pyxai")]

    assert recorded() == ["pyxai.mask_penalty.default"]
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    assert not recorded()


def test_float64_and_inference_mode():
    masks = torch.rand(2, 5, 6)
    double, slopes = both(masks.double())
    assert double.dtype == slopes.dtype == torch.float64
    assert_near(both(masks)[0], double, 1e-6)
    with torch.inference_mode():
        costs = mask_penalty(masks.clone(), tv_weight=1.7, l1_weight=3.0)
        again = mask_penalty(masks.double(), tv_weight=1.7, l1_weight=3.0)
    assert torch.equal(again, double)
    assert torch.equal(costs, both(masks)[0])


def test_slopes_only_where_wanted():
    numbers = (1.0, 1.0, 2.0, True, True)
    _, slopes = PENALTY.kernel(torch.rand(2, 3, 3), *numbers, with_slopes=False)
    assert slopes.numel() == 0


@pytest.mark.parametrize(
    ("masks", "numbers", "message"),
    [
        (torch.zeros(4, 5), {}, r"masks: .*\[M, h, w\].*\[4, 5\]"),
        (torch.zeros(2, 0, 5), {}, r"masks: .*h, w >= 1.*\[2, 0, 5\]"),
        (torch.zeros(2, 4, 5).half(), {}, "masks: .*float32.*float16"),
        (torch.zeros(2, 4, 5), {"beta": 0.5}, "beta: .*at least 1.*0.5"),
        (torch.zeros(2, 4, 5), {"beta": math.nan}, "beta: .*at least 1.*nan"),
        (torch.zeros(2, 4, 5), {"beta": math.inf}, "beta: .*at least 1.*inf"),
        (torch.zeros(2, 4, 5), {"tv_weight": -1.0}, "tv_weight: .*at least 0.*-1"),
        (torch.zeros(2, 4, 5), {"l1_weight": math.inf}, "l1_weight: .*at least 0.*inf"),
    ],
)
def test_bad_input(masks, numbers, message):
    with pytest.raises(ValueError, match=message):
        mask_penalty(masks, **{"tv_weight": 1.0, "l1_weight": 1.0, **numbers})
