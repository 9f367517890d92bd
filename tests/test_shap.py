"""SHAP values against what is known: games worked out by hand, exact integrals, other libraries."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from in_threads import in_threads
from networks import SmallNet
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import pyxai
from pyxai import Classifier, Preprocessing
from pyxai.attribution.shap import shap_values
from pyxai.attribution.shap.gradients import drawn
from pyxai.attribution.shap.regions import grid_of, regions_of
from pyxai.cli.shap import shap as command
from pyxai.draw.shap import shap_figure, shap_panel

METHODS = ["gradient", "partition", "kernel"]


def linear(pixels=16, classes=3):
    """Logits are sums of pixels times weights `[K, 3, h, w]`, which are returned too."""
    side = math.isqrt(pixels)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * pixels, classes))
    return model, model[1].weight.detach().reshape(classes, 3, side, side)


class Product(nn.Module):
    """One logit is the product of the means of the four quarters, another one nothing."""

    def forward(self, x):
        parts = nn.functional.adaptive_avg_pool2d(x.mean(dim=1, keepdim=True), 2).flatten(1)
        # The last quarter plays no part.
        value = parts[:, 0] * parts[:, 1] + 2 * parts[:, 2]
        return torch.stack([value, 0 * value], dim=1)


def smooth():
    """A small network without kinks."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.Softplus(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


@pytest.fixture
def images():
    return torch.randn(3, 3, 12, 12)


def quick(model, *arguments, **options):
    """Few samples unless told otherwise."""
    return shap_values(model, *arguments, **{"samples": 40, **options})


# ---- values that are known ----


@pytest.mark.parametrize("method", METHODS)
def test_of_a_linear_model(method):
    model, weights = linear()
    images, background = torch.randn(2, 3, 4, 4), torch.randn(1, 3, 4, 4)
    options = {"regions": 16} if method == "kernel" else {}
    found = quick(model, images, background, [[0, 2]], method=method, samples=400, **options)
    expected = (images - background)[:, None] * weights[[0, 2]]
    if method != "gradient":
        expected = expected.sum(dim=2, keepdim=True)
    torch.testing.assert_close(found.values, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        found.base_values, model(background)[:, [0, 2]].expand(2, 2).double()
    )
    assert float(found.additivity_gap.abs().max()) < 1e-5
    assert float(found.standard_error.max()) < 1e-3


def test_many_backgrounds_count_alike():
    model, weights = linear()
    images, background = torch.randn(2, 3, 4, 4), torch.randn(5, 3, 4, 4)
    found = quick(model, images, background, 1)
    expected = (images - background.mean(dim=0)) * weights[1]
    torch.testing.assert_close(found.values, expected, atol=1e-5, rtol=1e-4)


def test_a_game_by_hand():
    """v = ab + 2c of four quarters against 0: a and b share the product, c has its own, d none."""
    quarters = torch.tensor([[3.0, 5.0], [7.0, 11.0]])
    image = quarters.repeat_interleave(2, 0).repeat_interleave(2, 1).expand(1, 3, 4, 4)
    found = quick(Product(), image, torch.zeros(1, 3, 1, 1), 0, method="kernel", regions=4)
    expected = torch.tensor([[7.5, 7.5, 14.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(found.region_values, expected, atol=1e-5, rtol=1e-5)
    assert found.evaluations == 17
    spread = found.values[0, 0]
    assert torch.allclose(spread[:2, :2], torch.full((2, 2), 7.5 / 4))
    assert float(spread.sum()) == pytest.approx(29.0, abs=1e-4)


@pytest.mark.parametrize("regions", [2, 5, 6])
def test_exact_values_are_means_over_orders(images, regions):
    """Against the definition: what a region adds, over all orders in which regions come."""
    model, labels = smooth(), torch.arange(144).reshape(12, 12) % regions
    image, background = images[:1], torch.zeros(1, 3, 1, 1)
    found = quick(model, image, background, 1, method="kernel", regions=labels)

    def value(shown):
        mask = torch.zeros(regions)
        mask[list(shown)] = 1
        return float(model(image * mask[labels])[0, 1].detach())

    expected = torch.zeros(regions, dtype=torch.float64)
    orders = [*itertools.permutations(range(regions))]
    for order in orders:
        for place, region in enumerate(order):
            expected[region] += value(order[: place + 1]) - value(order[:place])
    expected /= len(orders)
    torch.testing.assert_close(found.region_values[0], expected, atol=1e-5, rtol=1e-4)


def test_the_regression_comes_near_the_exact_values(images):
    model, labels = smooth(), grid_of((12, 12), 2, 6)
    exact = quick(model, images, "mean", [[0, 2]], method="kernel", regions=labels)
    halves = torch.cat([labels[:, :6], labels[:, 6:] + 12], dim=1)  # 24 labels, of which 18 occur
    found = quick(model, images, "mean", [[0, 2]], method="kernel", regions=halves, samples=4000)
    assert exact.region_values.shape == (3, 2, 12)
    sums = torch.zeros(3, 2, 12, dtype=torch.float64)
    count = int(regions_of(halves, (12, 12)).max()) + 1
    for region in range(count):
        (where,) = {int(each) for each in labels[found.regions == region]}
        sums[:, :, where] += found.region_values[:, :, region]
    torch.testing.assert_close(sums, exact.region_values, atol=5e-3, rtol=0.05)


def test_gradients_integrate_the_way(images):
    """Against the integral by 2,000 points in float64."""
    model = smooth().double()
    image, background = images.double(), torch.zeros(1, 3, 12, 12, dtype=torch.float64)
    way, total = image - background, torch.zeros(3, 3, 12, 12, dtype=torch.float64)
    for step in range(2000):
        point = (background + (step + 0.5) / 2000 * way).requires_grad_()
        total += torch.autograd.grad(model(point)[:, 1].sum(), point)[0]
    expected = way * total / 2000
    found = quick(model.float(), images, background.float(), 1, samples=200)
    error = (found.values.double() - expected).abs()
    assert float(error.max()) < 1e-3 * float(expected.abs().max())
    assert float(found.relative_gap().max()) < 0.01


def test_owen_values_of_two_halves(images):
    """One cut: each half's gain without and with the other, half each."""
    model = smooth()
    found = quick(model, images, "mean", 0, method="partition", samples=3)
    assert found.evaluations == 3
    background = images.mean(dim=(2, 3), keepdim=True)
    top = torch.zeros(12, 12)
    top[:6] = 1

    def value(mask):
        return model(images * mask + background * (1 - mask))[:, 0].double().detach()

    gain = (value(top) - value(0 * top) + value(top * 0 + 1) - value(1 - top)) / 2
    sums = found.values[:, 0].double()
    torch.testing.assert_close(sums[:, :6].sum(dim=(1, 2)), gain, atol=1e-5, rtol=1e-4)
    assert torch.allclose(found.values[:, 0, :6].std(dim=(1, 2)), torch.zeros(3), atol=1e-7)


# ---- properties ----


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), method=st.sampled_from(METHODS))
def test_values_add_up(seed, method):
    torch.manual_seed(seed)
    model, images = smooth(), torch.randn(2, 3, 12, 12)
    options = {"regions": 9} if method == "kernel" else {}
    found = quick(model, images, "blur", [[0, 1]], method=method, samples=60, **options)
    sums = found.base_values + found.values.double().sum(dim=(2, 3, 4))
    torch.testing.assert_close(sums - found.outputs, found.additivity_gap, atol=1e-4, rtol=0)
    limit = 0.02 if method == "gradient" else 1e-4
    assert float(found.additivity_gap.abs().max()) < limit
    torch.testing.assert_close(found.outputs, model(images)[:, [0, 1]].double())


@pytest.mark.parametrize("method", METHODS)
def test_batch_equals_one_by_one(images, method):
    model = smooth()
    options = {"regions": 16} if method == "kernel" else {}
    together = quick(model, images, "blur", [[0, 2]], method=method, seed=3, **options)
    chunks = quick(model, images, "blur", [[0, 2]], method=method, seed=3, batch_size=7, **options)
    torch.testing.assert_close(together.values, chunks.values, atol=1e-5, rtol=1e-4)
    for place in range(3):
        one = images[place : place + 1]
        alone = quick(model, one, "blur", [[0, 2]], method=method, seed=3, **options)
        torch.testing.assert_close(alone.values[0], together.values[place], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_several_targets_are_those_of_one(images, method):
    model = smooth()
    options = {"regions": 16} if method == "kernel" else {}
    many = quick(model, images, "mean", "all", method=method, **options)
    assert many.values.shape[:2] == (3, 3)
    one = quick(model, images, "mean", 2, method=method, **options)
    assert one.values.ndim == 4
    if method != "partition":  # which looks first where any target has most to tell
        torch.testing.assert_close(many.values[:, 2], one.values, atol=1e-5, rtol=1e-4)
    top = quick(model, images, "mean", method=method, **options)
    assert top.classes.tolist() == model(images).argmax(1).tolist()


def test_seeds_and_the_global_random_state(images):
    model, background = smooth(), torch.randn(4, 3, 12, 12)
    before = torch.get_rng_state()
    first, again = (quick(model, images, background, 0, seed=5) for _ in range(2))
    other = quick(model, images, background, 0, seed=6)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.values, again.values)
    assert not torch.equal(first.values, other.values)


@pytest.mark.parametrize("samples", [5, 12, 16, 37, 64])
@pytest.mark.parametrize("correct_gap", [False, True])
def test_the_error_says_how_far_samples_scatter(images, samples, correct_gap):
    """Against 60 runs with other seeds: samples with equal steps scatter less, never more."""
    model, background = smooth(), 2 * torch.randn(8, 3, 12, 12)
    options = {"samples": samples, "correct_gap": correct_gap}
    runs = [quick(model, images[:1], background, 0, seed=seed, **options) for seed in range(60)]
    scatter = torch.stack([run.values for run in runs]).var(dim=0).mean().sqrt()
    told = torch.stack([run.standard_error for run in runs]).square().mean().sqrt()
    assert 0.005 < float(scatter / told) < 1.3


@pytest.mark.parametrize("correct_gap", [False, True])
def test_draws_are_right_on_average(images, correct_gap):
    """The mean of many runs with few samples is the integral."""
    model, background = smooth(), 2 * torch.randn(5, 3, 12, 12)
    exact = quick(model, images[:1], background, 0, samples=5000).values
    options = {"samples": 13, "correct_gap": correct_gap}
    runs = [quick(model, images[:1], background, 0, seed=seed, **options) for seed in range(200)]
    values = torch.stack([run.values for run in runs])
    off = (values.mean(dim=0) - exact).norm() / exact.norm()
    one = ((values - exact).flatten(1).norm(dim=1) / exact.norm()).mean()
    assert float(off) < 0.25 * float(one)  # of 200 independent runs it would be 0.07


def test_the_control_variate_takes_the_gap_out(images):
    """The sum is right, values are no worse, and the gap of the samples is still told."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(800, 3))
    background = torch.randn(6, 3, 12, 12)
    exact = quick(model, images, background, 1, samples=3000, correct_gap=False).values
    errors = {True: 0.0, False: 0.0}
    for seed in range(10):
        for correct_gap in errors:
            found = quick(
                model, images, background, 1, samples=24, seed=seed, correct_gap=correct_gap
            )
            errors[correct_gap] += float((found.values - exact).norm())
            sums = found.base_values + found.values.double().sum(dim=(1, 2, 3))
            torch.testing.assert_close(sums - found.outputs, found.additivity_gap)
            assert float(found.sampling_gap.abs().min()) > 1e-4
            if correct_gap:
                assert float(found.additivity_gap.abs().max()) < 1e-5
            else:
                torch.testing.assert_close(found.additivity_gap, found.sampling_gap)
    assert errors[True] < 1.05 * errors[False]


def test_a_gap_that_is_not_of_sampling_stays(images):
    """Gradients see no jump, so no number of samples finds what it is worth."""

    class Stairs(nn.Module):
        def forward(self, x):
            mean = x.mean(dim=(1, 2, 3))
            jump = mean + (mean > 0.5).to(x.dtype)
            return torch.stack([jump + 0.01 * mean**2, mean], dim=1)

    found = quick(Stairs(), images.abs() + 0.1, torch.zeros(1, 3, 12, 12), 0)
    torch.testing.assert_close(
        found.additivity_gap, torch.full((3,), -1.0).double(), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(found.additivity_gap, found.sampling_gap)


def test_two_samples_are_no_regression(images):
    found = quick(smooth(), images, 2 * torch.randn(5, 3, 12, 12), 0, samples=2)
    torch.testing.assert_close(found.additivity_gap, found.sampling_gap)


def test_draws_have_equal_steps():
    draw = drawn(20, 5, 0)
    assert draw.which.tolist() == [each for each in range(5) for _ in range(4)]
    assert draw.weights.tolist() == pytest.approx([1 / 20] * 20)
    assert sorted((draw.places * 20).floor().tolist()) == [*range(20)]
    assert torch.allclose(draw.places.reshape(5, 4).diff(dim=1), torch.tensor(0.25).double())
    assert (draw.pairs.reshape(5, 4) > 0).tolist() == [[False, True, True, True]] * 5
    one = drawn(8, 1, 3)
    assert one.places.tolist() == [(step + 0.5) / 8 for step in range(8)]
    uneven = drawn(23, 5, 0)  # each background counts alike, however many samples it has
    counts = uneven.which.bincount()
    assert sorted(counts.tolist()) == [4, 4, 5, 5, 5]
    sums = torch.zeros(5).double().index_add_(0, uneven.which, uneven.weights)
    assert sums.tolist() == pytest.approx([0.2] * 5)
    few = drawn(7, 10, 0)
    assert len(few.which.unique()) == 7
    assert few.places.tolist() == pytest.approx([(step + 0.5) / 7 for step in range(7)])
    assert not torch.equal(drawn(20, 5, 1).places, draw.places)


def test_probabilities(images):
    model = smooth()
    found = quick(model, images, "mean", 1, output="probability", samples=100)
    torch.testing.assert_close(found.outputs, model(images).softmax(1)[:, 1].double())
    assert float(found.relative_gap().max()) < 0.05


class Counted(nn.Module):
    """A model that counts the images it has seen, with a setting that is no weight."""

    def __init__(self):
        super().__init__()
        self.inner, self.scale, self.seen = smooth(), 1.0, 0

    def forward(self, x):
        self.seen += len(x)
        return self.scale * self.inner(x)


def test_backgrounds_are_looked_at_once(images):
    model, background = Counted(), torch.randn(20, 3, 12, 12)

    def run(background=background, **options):
        model.seen = 0
        found = quick(model, images[:1], background, 0, samples=2, **options)
        with torch.no_grad():
            outputs = model.scale * model.inner(background)
        if "output" in options:
            outputs = outputs.softmax(dim=1)
        expected = outputs[:, 0].mean().double()
        torch.testing.assert_close(found.base_values[0], expected, atol=1e-5, rtol=0)
        return found, model.seen - len(background)

    first, seen = run()
    again, less = run(background.clone())
    assert torch.equal(first.values, again.values)
    assert torch.equal(first.base_values, again.base_values)
    assert less < 0 < seen
    assert run(output="probability")[1] < 0
    background[7, 0, 3, 3] += 1
    assert run()[1] > 0
    model.scale = 1.5
    assert run()[1] > 0
    with torch.no_grad():
        model.inner[0].weight.mul_(1 + 1e-4)
    assert run()[1] > 0
    assert run()[1] < 0
    for seed in range(4):  # only the last ones are kept
        run(torch.randn(20, 3, 12, 12, generator=torch.Generator().manual_seed(seed)))
    assert run()[1] > 0


# ---- the model is borrowed ----


@pytest.mark.parametrize("method", METHODS)
def test_nothing_about_the_model_changes(method):
    model = SmallNet().train()
    model.fc.weight.grad = torch.ones_like(model.fc.weight)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    needs = [each.requires_grad for each in model.parameters()]
    images = torch.randn(2, 3, 32, 32)
    quick(model, images, method=method, samples=140)
    assert model.training
    assert all(torch.equal(before[name], each) for name, each in model.state_dict().items())
    assert [each.requires_grad for each in model.parameters()] == needs
    assert torch.equal(model.fc.weight.grad, torch.ones_like(model.fc.weight))
    assert not any(module._forward_hooks for module in model.modules())
    assert not images.requires_grad


def test_threads_do_not_see_each_other(images):
    model = smooth()
    expected = quick(model, images, "mean", 0).values
    found = [None] * 4

    def work(place):
        found[place] = quick(model, images, "mean", 0).values

    in_threads(work, 4)
    assert all(torch.allclose(each, expected, atol=1e-6) for each in found)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_any_gradient_mode_of_the_caller(images, context):
    model = smooth()
    expected = quick(model, images, "mean", 0).values
    with context():
        assert torch.allclose(quick(model, images.clone(), "mean", 0).values, expected, atol=1e-6)


def test_accelerated(small_net):
    images = torch.randn(2, 3, 32, 32)
    fast = pyxai.accelerate(small_net, probe=images)
    expected, found = (quick(each, images, "mean", 0) for each in (small_net, fast))
    torch.testing.assert_close(found.values, expected.values, atol=1e-4, rtol=1e-2)


# ---- other libraries ----


def test_against_captum(images):
    captum = pytest.importorskip("captum.attr")
    model, background = smooth(), torch.randn(1, 3, 12, 12)
    theirs = captum.IntegratedGradients(model)
    expected = theirs.attribute(images, background.expand_as(images), target=1, n_steps=300)
    found = quick(model, images, background, 1, samples=300)
    torch.testing.assert_close(found.values, expected.float(), atol=1e-4, rtol=1e-2)


@pytest.mark.parametrize("samples", [4, 25])
def test_against_captum_with_the_same_samples(images, monkeypatch, samples):
    """Captum gets our draw in place of its random numbers: a background and a place each."""
    captum = pytest.importorskip("captum.attr")
    model, background = smooth(), torch.randn(5, 3, 12, 12)
    draw = drawn(samples, 5, 4)
    which, places = (each.repeat(len(images)).numpy() for each in (draw.which, draw.places))
    with monkeypatch.context() as patch:
        patch.setattr("numpy.random.choice", lambda *_: which)
        patch.setattr("numpy.random.uniform", lambda *_: places)
        expected = captum.GradientShap(model).attribute(
            images, background, n_samples=samples, stdevs=0.0, target=1
        )
    options = {"samples": samples, "seed": 4, "correct_gap": False}
    found = quick(model, images, background, 1, **options)
    torch.testing.assert_close(found.values, expected.float(), atol=1e-6, rtol=1e-4)


def test_against_shap(images):
    shap = pytest.importorskip("shap")
    model, background = smooth(), torch.randn(6, 3, 12, 12)
    explainer = shap.GradientExplainer(model, background, batch_size=64)
    expected = torch.from_numpy(explainer.shap_values(images, nsamples=4000)[..., 1])
    found = quick(model, images, background, 1, samples=600)
    error = (found.values - expected).abs().max() / expected.abs().max()
    assert float(error) < 0.05


# ---- bad input ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "lime"}, "method: expected 'gradient', 'partition' or 'kernel'"),
        ({"samples": 1}, "samples: expected an int of at least 2"),
        ({"seed": -1}, "seed: expected an int of at least 0"),
        ({"batch_size": 0}, "batch_size: expected None or an int of at least 1"),
        ({"output": "loss"}, "output: expected 'logits' or 'probability'"),
        ({"target": 9}, "target"),
        ({"target": lambda outputs: outputs}, "target: expected None, classes or 'all'"),
        ({"background": "noise"}, "background: expected 'blur', 'mean' or images"),
        ({"background": torch.zeros(0, 3, 12, 12)}, "background: expected at least one image"),
        ({"background": torch.zeros(2, 3, 8, 8)}, r"background: expected images \[B, 3, 12, 12\]"),
        ({"background": torch.full((1, 3, 12, 12), torch.nan)}, "background: expected finite pixe"),
        ({"regions": 4}, "regions: expected None for the method 'gradient'"),
        ({"method": "kernel", "regions": 145}, "regions: expected 2 to 144 regions of 12 × 12"),
        ({"method": "kernel", "regions": 1}, "regions: expected 2 to 144"),
        ({"method": "kernel", "regions": torch.zeros(12, 12).long()}, "two different labels"),
        ({"method": "kernel", "regions": torch.zeros(4, 4).long()}, r"integer labels \[12, 12\]"),
        ({"method": "kernel", "regions": 36, "samples": 50}, "samples: expected at least 72"),
        (
            {"method": "kernel", "background": torch.zeros(2, 3, 12, 12)},
            r"background: expected one image for all or for each, \[3 or 1, 3, 12, 12\]",
        ),
    ],
)
def test_bad_arguments(images, options, message):
    options = {"background": "mean", **options}
    with pytest.raises(ValueError, match=message):
        quick(smooth(), images, **options)


def test_more_bad_input(images):
    with pytest.raises(ValueError, match="images: expected at least one image"):
        quick(smooth(), images[:0])
    with pytest.raises(ValueError, match="images on which the model's logits are finite"):
        quick(smooth(), images * torch.nan)
    with pytest.raises(ValueError, match="model: expected"):
        quick("resnet", images)


# ---- regions, pictures, the command ----


def test_regions_cover_every_pixel_evenly():
    labels = regions_of(16, (10, 31))
    assert labels.shape == (10, 31)
    assert labels.unique().tolist() == [*range(int(labels.max()) + 1)]
    sizes = labels.flatten().bincount()
    assert int(sizes.max()) <= 2 * int(sizes.min())
    superpixels = np.array([[5, 5], [-3, 8]])
    assert regions_of(superpixels, (2, 2)).tolist() == [[1, 1], [0, 2]]


def test_panels_and_figures():
    photo = Image.new("RGB", (4, 2), (255, 255, 255))
    values = torch.tensor([[2.0, -2.0, 0.0, 1.0], [0.0, 0.0, 0.0, 9.0]])
    panel = shap_panel(photo, values, 2.0)
    assert panel.getpixel((0, 0)) == (215, 25, 45)
    assert panel.getpixel((1, 0)) == (30, 90, 220)
    assert panel.getpixel((2, 0)) == (255, 255, 255)
    assert panel.getpixel((3, 1)) == (215, 25, 45)
    assert panel.getpixel((3, 0))[1] == pytest.approx(140, abs=1)
    other = shap_panel(photo, values, 2.0, "orange_purple")
    assert other.getpixel((0, 0)) == (230, 97, 1)
    page = shap_figure([photo], [[values, values]], [["a", "b"]], cell=40)
    assert page.size[0] == 3 * 48 + 8
    for bad, message in (
        ((photo, values[:1], 1.0), "values: expected"),
        ((photo, values, 0.0), "limit: expected a number above 0"),
        ((photo, values, 1.0, "green"), "palette: expected one of 'red_blue', 'orange_purple'"),
        ((photo, values * torch.nan, 1.0), "values: expected finite numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            shap_panel(*bad)
    with pytest.raises(ValueError, match="titles: expected one for each map"):
        shap_figure([photo], [[values]], [["a", "b"]])


def test_command(tmp_path):
    photo = tmp_path / "photo.png"
    Image.effect_noise((64, 48), 80).convert("RGB").save(photo)
    app = typer.Typer()
    app.command()(command)
    out = tmp_path / "out"
    arguments = ["--target", "sea", "--target", "street", "--samples", "9", "-o", str(out)]
    result = CliRunner().invoke(app, [str(photo), *arguments])
    assert result.exit_code == 0, result.output
    written = json.loads((out / "photo.json").read_text())
    assert [row["target"]["name"] for row in written["classes"]] == ["sea", "street"]
    for row in written["classes"]:
        told = row["base_value"] + row["speaks_for"] + row["speaks_against"]
        assert told == pytest.approx(row["output"], abs=1e-3)
    known = tmp_path / "known"
    known.mkdir()
    Image.effect_noise((64, 48), 40).convert("RGB").save(known / "other.png")
    folder = ["--method", "gradient", "--background", str(known), "--json"]
    again = CliRunner().invoke(app, [str(photo), *arguments, *folder])
    assert len(json.loads(again.output)["results"][0]["classes"]) == 2


def test_photos_and_preprocessing():
    model, _ = linear()
    clf = Classifier(model, preprocessing=Preprocessing((0.5,) * 3, (0.5,) * 3, (4, 4)))
    photo = Image.effect_noise((20, 20), 80).convert("RGB")
    found = quick(clf, photo, [photo.rotate(90), photo])
    assert found.values.shape == (1, 3, 4, 4)
    assert pyxai.shap_values is shap_values
