"""The engine of learned masks: its steps, and what it promises whoever lends it a model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from in_threads import in_threads
from networks import SmallViT, random_net
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

import pyxai
from pyxai.attribution.masks import undesirable_pixels
from pyxai.attribution.masks.blur import gaussian_blur
from pyxai.attribution.masks.learning import MaskTask, learn_masks
from pyxai.attribution.masks.objectives import Outcome, raise_target
from pyxai.attribution.masks.plan import LearningPlan
from pyxai.attribution.masks.result import Background, chances
from pyxai.attribution.masks.settings import MaskSettings
from pyxai.classifier import Examined
from pyxai.ops import mask_penalty, mask_step_

SMALL = MaskSettings(steps=12, mask_size=6)


@pytest.fixture(autouse=True)
def _one_thread(threads):
    """Small networks are faster so, above all on busy cores."""
    threads(1)


@pytest.fixture
def net():
    return random_net()


@pytest.fixture
def images():
    return torch.randn(3, 3, 32, 32)


# ---- penalty ----


def test_penalty_by_hand():
    """Differences down 1 and 0 in the left column, across -1 and 0 in the upper row."""
    mask = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]], dtype=torch.float64)
    settings = {"tv_weight": 2.0, "l1_weight": 5.0, "beta": 2.0}
    squares = mask_penalty(mask, **settings, root=False, mean=False)
    assert squares.item() == pytest.approx(2 * (1 + 1) + 5 * 3)
    rooted = mask_penalty(mask, **settings, root=True, mean=False)
    assert rooted.item() == pytest.approx(2 * 2**0.5 + 5 * 3, abs=1e-3)
    mean = mask_penalty(mask, **settings, root=False, mean=True)
    assert mean.item() == pytest.approx(squares.item() / 4)


def test_penalty_does_not_depend_on_turning_the_mask():
    mask = torch.rand(2, 5, 5, dtype=torch.float64)
    settings = {"tv_weight": 1.0, "l1_weight": 0.5, "beta": 3.0, "mean": True}
    plain = mask_penalty(mask, **settings, root=False)
    torch.testing.assert_close(mask_penalty(mask.flip(1, 2), **settings, root=False), plain)
    torch.testing.assert_close(mask_penalty(mask.mT, **settings, root=True), _rooted(mask, 3.0))


def _rooted(mask, beta):
    cost = torch.zeros(len(mask), dtype=mask.dtype)
    for index, one in enumerate(mask):
        for y in range(5):
            for x in range(5):
                down = abs(one[y + 1, x] - one[y, x]) if y < 4 else 0.0
                across = abs(one[y, x + 1] - one[y, x]) if x < 4 else 0.0
                cost[index] += (down**beta + across**beta + 1e-4**beta) ** (1 / beta) - 1e-4
                cost[index] += 0.5 * (1 - one[y, x])
    return cost / 25


@pytest.mark.parametrize("root", [True, False])
@pytest.mark.parametrize("beta", [1.5, 2.0, 3.0])
def test_penalty_has_the_gradient_it_says(root, beta):
    masks = (torch.rand(2, 4, 5, dtype=torch.float64) * 0.9).requires_grad_()
    settings = {"tv_weight": 1.7, "l1_weight": 3.0, "beta": beta, "root": root}
    assert torch.autograd.gradcheck(lambda m: mask_penalty(m, **settings, mean=True), masks)


def test_penalty_of_a_flat_mask_is_smooth():
    masks = torch.ones(1, 4, 4, requires_grad=True)
    cost = mask_penalty(masks, tv_weight=1.7, l1_weight=3.0, beta=2.0, root=True, mean=False)
    (gradient,) = torch.autograd.grad(cost.sum(), masks)
    assert cost.item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(gradient, torch.full_like(gradient, -3.0))


# ---- update and blur ----


def test_step_is_adam_and_a_clamp():
    start = torch.rand(3, 4, 4)
    mine, theirs = start.clone(), nn.Parameter(start.clone())
    optimizer = torch.optim.Adam([theirs], lr=0.1)
    first, second = torch.zeros_like(mine), torch.zeros_like(mine)
    for step in range(1, 30):
        gradients = torch.randn(3, 4, 4)
        theirs.grad = gradients.clone()
        optimizer.step()
        with torch.no_grad():
            theirs.clamp_(0, 1)
        mask_step_(mine, gradients, first, second, step, learning_rate=0.1)
    torch.testing.assert_close(mine, theirs.detach(), atol=1e-5, rtol=1e-5)
    assert mine.min() == 0
    assert mine.max() == 1


def test_blur_is_a_separable_gaussian_with_reflected_edges():
    images = torch.randn(2, 3, 15, 17, dtype=torch.float64)
    places = torch.arange(-5, 6, dtype=torch.float64)
    line = torch.exp(-(places**2) / 50)
    weights = torch.outer(line, line) / line.sum() ** 2
    padded = functional.pad(images, (5, 5, 5, 5), mode="reflect")
    expected = functional.conv2d(padded, weights.expand(3, 1, 11, 11), groups=3)
    torch.testing.assert_close(gaussian_blur(images, 5.0, 11), expected)
    half = images.to(torch.bfloat16)
    assert gaussian_blur(half, 5.0, 11).dtype == torch.bfloat16


def test_chances_are_exact_where_probabilities_round_to_one():
    logits = torch.tensor([[60.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    probability, left = chances(logits, torch.tensor([0, 1]))
    assert probability[0] == 1
    assert left[0].item() == pytest.approx((1 + torch.e) * 8.75651e-27, rel=1e-5)
    torch.testing.assert_close(probability[1] + left[1], torch.tensor(1.0, dtype=torch.float64))


# ---- independence ----


def test_batch_equals_one_by_one(net, images):
    together = undesirable_pixels(net.double(), images.double(), seed=3, settings=SMALL)
    for index in range(3):
        alone = undesirable_pixels(net, images[index : index + 1].double(), seed=3, settings=SMALL)
        torch.testing.assert_close(alone.mask[0], together.mask[index], atol=1e-4, rtol=0)
        torch.testing.assert_close(alone.losses[:, 0], together.losses[:, index])


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_chunks_do_not_matter(net, images, batch_size):
    targets = [[0, 1], [2, 3], [4, 5]]
    net, images = net.double(), images.double()
    whole = undesirable_pixels(net, images, targets, settings=SMALL)
    parts = undesirable_pixels(net, images, targets, batch_size=batch_size, settings=SMALL)
    assert whole.mask.shape == (3, 2, 6, 6)
    torch.testing.assert_close(parts.mask, whole.mask, atol=1e-4, rtol=0)
    torch.testing.assert_close(parts.after, whole.after, atol=1e-4, rtol=0)
    one = undesirable_pixels(net, images, [1, 3, 5], settings=SMALL)
    torch.testing.assert_close(one.mask, whole.mask[:, 1], atol=1e-4, rtol=0)


def test_masks_that_stop_early_leave_the_others_alone(net, images):
    net, images = net.double(), images.double()
    settings = MaskSettings(steps=60, mask_size=6)
    stopping = replace(settings, tolerance=2e-3)
    full = undesirable_pixels(net, images, seed=1, settings=settings)
    early = undesirable_pixels(net, images, seed=1, settings=stopping)
    assert (early.steps < 60).any()
    assert full.steps.tolist() == [60, 60, 60]
    for index, steps in enumerate(early.steps.tolist()):
        assert torch.isfinite(early.losses[:steps, index]).all()
        assert torch.isnan(early.losses[steps:, index]).all()
        torch.testing.assert_close(early.losses[:steps, index], full.losses[:steps, index])
        alone = undesirable_pixels(
            net, images[index : index + 1], seed=1, settings=replace(settings, steps=steps)
        )
        torch.testing.assert_close(alone.mask[0], early.mask[index], atol=1e-4, rtol=0)


def test_seeds_and_the_global_random_state(net, images):
    before = torch.get_rng_state()
    first = undesirable_pixels(net, images, seed=5, settings=SMALL)
    again = undesirable_pixels(net, images, seed=5, settings=SMALL)
    other = undesirable_pixels(net, images, seed=6, settings=SMALL)
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(first.mask, again.mask, atol=1e-3, rtol=0)
    assert (first.losses[0] - other.losses[0]).abs().min() > 1e-3


# ---- the model is borrowed ----


class Breaks(nn.Module):
    """Fails, or gives NaN, from the n-th call on."""

    def __init__(self, inner, calls, nan=False):
        super().__init__()
        self.inner, self.calls, self.nan = inner, calls, nan

    def forward(self, x):
        self.calls -= 1
        if self.calls < 0 and not self.nan:
            raise RuntimeError("broken")
        logits = self.inner(x)
        return logits * torch.nan if self.calls < 0 else logits


@pytest.mark.parametrize("breaks", [False, True])
def test_nothing_about_the_model_changes(images, breaks):
    net = Breaks(random_net(), calls=5 if breaks else 10**6).train()
    net.inner.stage1.eval()
    net.inner.fc.weight.requires_grad_(False)
    net.inner.fc.bias.grad = torch.ones_like(net.inner.fc.bias)
    modes = [module.training for module in net.modules()]
    state = {name: value.clone() for name, value in net.state_dict().items()}
    if breaks:
        with pytest.raises(RuntimeError, match="broken"):
            undesirable_pixels(net, images, settings=SMALL)
    else:
        undesirable_pixels(net, images, settings=SMALL)
    assert [module.training for module in net.modules()] == modes
    assert not net.inner.fc.weight.requires_grad
    assert net.inner.fc.bias.requires_grad
    grads = {name for name, each in net.named_parameters() if each.grad is not None}
    assert grads == {"inner.fc.bias"}
    assert torch.equal(net.inner.fc.bias.grad, torch.ones(7))
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name])
    assert not any(module._forward_hooks for module in net.modules())


def test_no_gradient_of_a_parameter_is_computed(net, images):
    """Not even one that is thrown away."""
    asked = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), named=None):
            if function is torch.ops.aten.convolution_backward.default:
                asked.append(tuple(arguments[-1]))
            return function(*arguments, **(named or {}))

    assert all(parameter.requires_grad for parameter in net.parameters())
    with Watch():
        undesirable_pixels(net, images, settings=replace(SMALL, steps=2))
    assert set(asked) == {(True, False, False)}


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_any_gradient_mode_of_the_caller(net, images, context):
    expected = undesirable_pixels(net, images, settings=SMALL)
    with context():
        inside = undesirable_pixels(net, images.clone(), settings=SMALL)
    torch.testing.assert_close(inside.losses[:3], expected.losses[:3])
    assert not inside.mask.requires_grad
    assert not inside.mask.is_inference()


def test_threads_do_not_see_each_other(images):
    net = random_net().train().double()
    images = images.double()
    expected = [undesirable_pixels(net, images[i : i + 1], settings=SMALL).mask for i in range(3)]
    found = [None] * 3

    def work(index):
        found[index] = undesirable_pixels(net, images[index : index + 1], settings=SMALL).mask

    in_threads(work, 3)
    assert net.training
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=0)


# ---- other models ----


def test_transformers_dicts_and_half_precision(images):
    vit = SmallViT().eval()
    assert undesirable_pixels(vit, images, settings=SMALL).mask.shape == (3, 6, 6)
    net = random_net()
    plain = undesirable_pixels(net, images, settings=SMALL)
    net.wrap = lambda logits: {"logits": logits}
    wrapped = undesirable_pixels(net, images, settings=SMALL)
    torch.testing.assert_close(wrapped.losses[:3], plain.losses[:3])
    net.wrap = lambda logits: logits
    half = undesirable_pixels(net.bfloat16(), images.bfloat16(), settings=SMALL)
    assert half.mask.dtype == torch.float32
    torch.testing.assert_close(half.losses[:2], plain.losses[:2], atol=0.1, rtol=0.1)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_accelerated_models(net, images, dtype):
    plain = undesirable_pixels(net, images, settings=SMALL)
    fast = pyxai.accelerate(net, dtype=dtype, probe=images, tolerance=0.2)
    found = undesirable_pixels(fast, images, settings=SMALL)
    close = 1e-4 if dtype is None else 0.1
    torch.testing.assert_close(found.losses[:2], plain.losses[:2], atol=close, rtol=close)


def test_a_task_of_ones_own(net, images):
    """The engine takes any objective and penalty; here the wish to hide half of each image."""

    def half(masks, progress):
        return {"half": 10 * (masks.mean(dim=(1, 2)) - 0.5) ** 2}

    plan = LearningPlan(
        steps=80,
        learning_rate=0.1,
        mask_size=(5, 5),
        start=torch.ones(5, 5),
        background=Background(),
    )
    task = MaskTask(lambda outcome: {}, penalty=half)
    found = learn_masks(Examined(pyxai.Classifier(net), images), None, task, plan)
    torch.testing.assert_close(
        found.mask.mean(dim=(1, 2)), torch.full((3,), 0.5), atol=0.05, rtol=0
    )


def test_nan_names_step_and_term(images):
    net = Breaks(random_net(), calls=8, nan=True)  # some look at the network first
    with pytest.raises(ValueError, match=r"losses: .*'target probability' at step 4, in masks \[0"):
        undesirable_pixels(net, images, settings=SMALL)


def test_a_model_without_a_graph(net, images):
    """Under no_grad the network still has derivatives; a rounded one has none."""

    class Frozen(nn.Module):
        def forward(self, x):
            with torch.no_grad():
                return net(x)

    class Rounded(nn.Module):
        def forward(self, x):
            return (net(x) * 64).to(torch.int32).to(torch.float32)

    expected = undesirable_pixels(net, images, settings=SMALL)
    assert torch.equal(undesirable_pixels(Frozen(), images, settings=SMALL).mask, expected.mask)
    with pytest.raises(ValueError, match="model: expected logits that depend on the images"):
        undesirable_pixels(Rounded(), images, settings=SMALL)


def test_a_network_with_one_output(images):
    """Its probability is the sigmoid of its logit, and rises."""
    net = random_net(classes=1)
    free = replace(SMALL, steps=30, l1_weight=0.0, tv_weight=0.0)
    found = undesirable_pixels(net, images, settings=free)
    assert torch.allclose(found.before, net(images).detach().sigmoid()[:, 0], atol=1e-5)
    assert bool((found.after > found.before - 1e-4).all())
    two = pyxai.Classifier(net, class_names=["other", "thing"])
    both = undesirable_pixels(two, images, "thing", settings=SMALL)
    assert torch.allclose(both.before, found.before, atol=1e-5)


def test_outcome_by_hand():
    outcome = Outcome(
        torch.tensor([[1.0, 2.0, 6.0]]), torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([2])
    )
    assert outcome.target_change().item() == 5
    assert outcome.other_changes().item() == 1.5
    expected = torch.tensor([1.0, 2.0, 6.0]).softmax(0)[2]
    torch.testing.assert_close(outcome.probability()[0], expected)
    torch.testing.assert_close(raise_target(outcome)["target probability"][0], -expected)
