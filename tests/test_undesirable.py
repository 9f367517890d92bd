"""The methods that learn masks, their result, its pictures and the command."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError, replace

import pytest
import torch
import typer
from networks import random_net
from PIL import Image
from torch import nn
from torch.nn import functional
from typer.testing import CliRunner

from pyxai.attribution.masks import (
    extremal_perturbation,
    meaningful_perturbation,
    undesirable_pixels,
)
from pyxai.attribution.masks.extremal import area_penalty, smooth_maximum
from pyxai.attribution.masks.objectives import Outcome, non_target_factors, target_factors
from pyxai.attribution.masks.settings import (
    ExtremalSettings,
    MaskSettings,
    MeaningfulSettings,
)
from pyxai.cli.undesirable import undesirable
from pyxai.draw.masks import mask_figure, to_pictures

BLACK = torch.zeros(1, 3, 1, 1)


class Corners(nn.Module):
    """Class 0 is for brightness at the upper left, class 1 for brightness at the lower right."""

    def __init__(self, scale: float = 6.0, others: int = 1) -> None:
        super().__init__()
        self.scale, self.others = nn.Parameter(torch.tensor(scale)), others

    def forward(self, x):
        half = x.shape[-1] // 2
        first = x[:, :, :half, :half].mean(dim=(1, 2, 3))
        second = x[:, :, half:, half:].mean(dim=(1, 2, 3))
        rest = [torch.zeros_like(first)] * self.others
        return self.scale * torch.stack([first, second, *rest], dim=1)


@pytest.fixture(autouse=True)
def _one_thread(threads):
    threads(1)


@pytest.fixture
def bright():
    """Nothing but light: both classes are equally probable."""
    return torch.ones(1, 3, 32, 32)


def quarters(mask):
    """Means of the upper left, upper right, lower left and lower right quarter of `[h, w]`."""
    return functional.avg_pool2d(mask[None], (mask.shape[0] // 2, mask.shape[1] // 2)).flatten()


# ---- undesirable pixels ----


@pytest.mark.parametrize("factor", ["target", "non_target", None])
@pytest.mark.parametrize("root", [True, False])
def test_what_stands_in_the_way_is_found(bright, factor, root):
    settings = MaskSettings(
        mask_size=8, steps=150, root=root, l1_weight=0.1, tv_weight=0.1, gamma=0.01
    )
    found = undesirable_pixels(
        Corners(), bright, 0, factor=factor, background=BLACK, settings=settings
    )
    shown = quarters(found.mask[0])
    assert shown[3] < 0.25  # the rival's corner
    assert shown[:3].min() > 0.85
    assert found.after > found.before + 0.2
    assert found.losses[-1] < found.losses[0]


def test_factors_hold_what_they_say():
    """Two ways to win: brighten the target by hiding a veil, or darken the rival."""

    class Veiled(nn.Module):
        def forward(self, x):
            half = x.shape[-1] // 2
            veil = x[:, :, :half].mean(dim=(1, 2, 3))  # hiding the upper half helps the target
            rival = x[:, :, half:].mean(dim=(1, 2, 3))  # hiding the lower half hurts the rival
            return 4 * torch.stack([1 - veil, rival], dim=1)

    images = torch.ones(1, 3, 32, 32)
    settings = MaskSettings(mask_size=8, tv_weight=0.1, l1_weight=0.2, gamma=1)
    options = {"background": BLACK, "settings": settings}
    own = undesirable_pixels(Veiled(), images, 0, factor="target", **options)
    rivals = undesirable_pixels(Veiled(), images, 0, factor="non_target", **options)
    assert own.mask[0, :4].mean() < 0.2
    assert own.mask[0, 4:].mean() > 0.8
    assert rivals.mask[0, :4].mean() > 0.8
    assert rivals.mask[0, 4:].mean() < 0.2


def test_regularisers_by_hand():
    outcome = Outcome(
        torch.tensor([[1.0, 2.0, 6.0]]), torch.tensor([[0.0, 0.0, 8.0]]), torch.tensor([2])
    )
    share = torch.tensor([1.0, 2.0, 6.0]).softmax(0)[2]
    terms = target_factors(0.3)(outcome)
    torch.testing.assert_close(sum(terms.values())[0], -share + 0.3 * 1.5)
    terms = non_target_factors(0.3)(outcome)
    torch.testing.assert_close(sum(terms.values())[0], 1 - share + 0.3 * 2)


def test_sums_over_cells_forbid_any_change(bright):
    """The reason why the mean is the default."""
    options = {"background": BLACK, "start": 0.7, "factor": None}
    settings = MaskSettings(mask_size=8, steps=100, l1_weight=0.3, tv_weight=0.1)
    sums = replace(settings, reduction="sum")
    summed = undesirable_pixels(Corners(), bright, 0, settings=sums, **options)
    mean = undesirable_pixels(Corners(), bright, 0, settings=settings, **options)
    assert summed.mask.min() > 0.9
    assert mean.mask.min() < 0.25


# ---- result ----


def test_result(bright):
    images = torch.cat([bright, 0.5 * bright])
    found = undesirable_pixels(
        Corners(),
        images,
        [[0, 1], [1, 2]],
        background=BLACK,
        settings=MaskSettings(mask_size=(8, 6), steps=30),
    )
    assert found.mask.shape == (2, 2, 8, 6)
    assert found.losses.shape == (30, 2, 2)
    assert found.classes.tolist() == [[0, 1], [1, 2]]
    assert (found.mask >= 0).all()
    assert (found.mask <= 1).all()
    resized = functional.interpolate(found.mask, (32, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found.heatmap, 1 - resized)
    torch.testing.assert_close(found.perturbed(images), images[:, None] * resized[:, :, None])
    torch.testing.assert_close(found.area(0.3), (1 - resized > 0.3).float().mean(dim=(2, 3)))
    logits = Corners()(found.perturbed(images).flatten(0, 1)).reshape(2, 2, 3)
    expected = logits.softmax(-1).gather(2, found.classes[..., None])[..., 0].detach()
    torch.testing.assert_close(found.after, expected)
    before, after = found.before.double(), found.after.double()
    change = 100 * (after - before) / (1 - before)
    torch.testing.assert_close(found.improvement(), change, atol=1e-3, rtol=1e-3)
    assert "2 × 2 × 8 × 6" in repr(found)
    with pytest.raises(ValueError, match=r"images: expected a float tensor \[2, C, 32, 32\]"):
        found.perturbed(images[:1])


def test_improvement_of_a_certain_prediction():
    found = undesirable_pixels(
        Corners(200.0),
        torch.ones(1, 3, 32, 32),
        0,
        background=BLACK,
        settings=MaskSettings(steps=1, mask_size=4),
    )
    certain = type(found)(**{**found.__dict__, "left": torch.tensor([[1e-30, 0.0], [5e-31, 0.0]])})
    torch.testing.assert_close(certain.improvement(), torch.tensor([50.0, 0.0]))


def test_starts():
    net, images = random_net(), torch.randn(2, 3, 32, 32)
    settings = MaskSettings(steps=1, mask_size=6, learning_rate=1e-6)
    close = {"atol": 1e-5, "rtol": 0}
    for start, value in (("ones", 1.0), (0.25, 0.25)):
        found = undesirable_pixels(net, images, start=start, settings=settings)
        torch.testing.assert_close(found.mask, torch.full((2, 6, 6), value), **close)
    for shape in ((6, 6), (2, 6, 6)):
        given = torch.rand(shape)
        found = undesirable_pixels(net, images, start=given, settings=settings)
        torch.testing.assert_close(found.mask, given.expand(2, 6, 6), **close)
    drawn = undesirable_pixels(net, images, seed=4, settings=settings).mask
    torch.testing.assert_close(drawn[0], drawn[1], **close)  # one start for all


# ---- bad input ----

BAD_ARGUMENTS = {
    "factor": ("both", r"factor: expected 'target', 'non_target' or None, got 'both'"),
    "background": (torch.zeros(1, 3, 8, 8), r"background: expected a float tensor \[2 or 1, 3, 32"),
    "start": (torch.full((28, 28), 2.0), r"start: expected values in \[0, 1\]"),
    "seed": (-1, "seed: expected an int of at least 0"),
    "batch_size": (0, "batch_size: expected None or an int of at least 1"),
    "target": (7, "target: expected class indices below 7"),
    "settings": (
        ExtremalSettings(),
        r"settings: expected None or MaskSettings\(...\), got an ExtremalSettings",
    ),
}
BAD_SETTINGS = {
    "reduction": ("max", "reduction: expected 'mean' or 'sum'"),
    "steps": (0, "steps: expected an int of at least 1, got 0"),
    "learning_rate": (-0.1, "learning_rate: expected a number greater than 0, got -0.1"),
    "mask_size": (0, "mask_size: expected an int or a pair"),
    "tv_weight": (-1.0, "tv_weight: expected a number of at least 0, got -1.0"),
    "l1_weight": (math.nan, "l1_weight: expected a number of at least 0, got nan"),
    "gamma": (-0.3, "gamma: expected a number of at least 0"),
    "beta": (0.5, "beta: expected a number of at least 1"),
    "blur_kernel": (10, "blur_kernel: expected an odd number of pixels, got 10"),
    "blur_sigma": (0, "blur_sigma: expected a number greater than 0"),
    "tolerance": (-1, "tolerance: expected a number of at least 0"),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments(name):
    value, message = BAD_ARGUMENTS[name]
    with pytest.raises(ValueError, match=message):
        undesirable_pixels(random_net(), torch.randn(2, 3, 32, 32), **{name: value})


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_bad_settings(name):
    value, message = BAD_SETTINGS[name]
    with pytest.raises(ValueError, match=message):
        MaskSettings(**{name: value})


@pytest.mark.parametrize(
    ("kind", "name", "value", "message"),
    [
        (MeaningfulSettings, "jitter", -1, "jitter: expected an int of at least 0"),
        (MeaningfulSettings, "l1_weight", -1, "l1_weight: expected a number of at least 0"),
        (ExtremalSettings, "smoothing", 0, "smoothing: expected a number greater than 0"),
        (ExtremalSettings, "area_weight", -1, "area_weight: expected a number of at least 0"),
    ],
)
def test_bad_settings_of_other_methods(kind, name, value, message):
    with pytest.raises(ValueError, match=message):
        kind(**{name: value})


def test_settings_are_values():
    """They compare, serve as keys and show what they are; there is no positional one to mistake."""
    assert MaskSettings(steps=3) == replace(MaskSettings(), steps=3) != MaskSettings()
    assert len({MaskSettings(), MaskSettings(), MeaningfulSettings()}) == 2
    assert eval(repr(MaskSettings(beta=3.0))) == MaskSettings(beta=3.0)
    with pytest.raises(TypeError):
        MaskSettings(3)
    with pytest.raises(FrozenInstanceError):
        MaskSettings().steps = 3


def test_more_bad_input():
    net, images = random_net(), torch.randn(2, 3, 32, 32)
    with pytest.raises(ValueError, match=r"images: expected pictures that differ .* images \[1\]"):
        undesirable_pixels(net, torch.stack([images[0], torch.full((3, 32, 32), 0.3)]))
    with pytest.raises(ValueError, match=r"blur_kernel: expected less than twice the image's 32"):
        undesirable_pixels(net, images, settings=MaskSettings(blur_kernel=65))
    with pytest.raises(ValueError, match=r"mask_size: .* the image's 32 × 32 pixels, got 33"):
        undesirable_pixels(net, images, settings=MaskSettings(mask_size=33))
    with pytest.raises(ValueError, match=r"target: expected None, classes or 'all'"):
        undesirable_pixels(net, images, lambda outputs: outputs[:, 0])
    four = MaskSettings(mask_size=4)
    with pytest.raises(ValueError, match=r"start: expected a tensor \[4, 4\] or \[2, 4, 4\]"):
        undesirable_pixels(net, images, start=torch.rand(3, 4, 4), settings=four)
    with pytest.raises(ValueError, match="images: expected at least one image"):
        undesirable_pixels(net, images[:0])
    with pytest.raises(ValueError, match="goal: expected 'delete' or 'preserve'"):
        meaningful_perturbation(net, images, goal="hide")
    with pytest.raises(ValueError, match=r"areas: expected a number in \(0, 1\)"):
        extremal_perturbation(net, images, areas=[0.1, 1.5])


# ---- Fong and Vedaldi, Fong et al. ----


@pytest.mark.parametrize("goal", ["delete", "preserve"])
@pytest.mark.parametrize("jitter", [0, 2])
def test_meaningful_perturbation(bright, goal, jitter):
    settings = MeaningfulSettings(jitter=jitter, mask_size=8, steps=150, l1_weight=2e-3)
    found = meaningful_perturbation(
        Corners(), bright, 0, goal=goal, background=BLACK, settings=settings
    )
    shown = quarters(found.mask[0])
    if goal == "delete":
        assert shown[0] < 0.3
        assert shown[1:].min() > 0.8
        assert found.after < found.before / 4
    else:
        assert shown[0] > 0.8
        assert shown[1:].max() < 0.2
        assert found.after > found.before


def test_jitter_is_drawn_from_the_seed():
    net, images = random_net(), torch.randn(2, 3, 32, 32)
    settings = MeaningfulSettings(mask_size=6, steps=6, blur_kernel=11)
    losses = [
        meaningful_perturbation(
            net, images, seed=seed, settings=replace(settings, jitter=jitter)
        ).losses
        for jitter, seed in ((2, 0), (2, 0), (2, 1), (0, 0))
    ]
    torch.testing.assert_close(losses[0][:2], losses[1][:2])
    assert not torch.allclose(losses[0], losses[2], atol=1e-4)
    assert not torch.allclose(losses[0], losses[3], atol=1e-4)


@pytest.mark.parametrize("goal", ["delete", "preserve"])
def test_extremal_perturbation_keeps_to_its_area(bright, goal):
    settings = ExtremalSettings(mask_size=16, steps=120, smoothing=1.0)
    found = extremal_perturbation(
        Corners(), bright, 0, areas=[0.25, 0.1], goal=goal, background=BLACK, settings=settings
    )
    assert list(found) == [0.25, 0.1]
    for area, masks in found.items():
        mask = masks.mask[0] if goal == "preserve" else 1 - masks.mask[0]
        assert (mask > 0.5).float().mean() == pytest.approx(area, abs=0.05)
        inside = mask[:8, :8].sum() / mask.sum()
        assert inside > 0.8


def test_smooth_maximum_keeps_the_ends_and_grows_bumps():
    shown = smooth_maximum(1.0, of_hidden=False)
    cells = torch.zeros(3, 9, 9)
    cells[1, 4, 4] = 1
    cells[2] = 1
    masks = shown(cells)
    torch.testing.assert_close(masks[0], torch.zeros(9, 9))
    assert masks[1, 4, 4] > 0.99
    assert masks[1, 4, 5] == pytest.approx(math.exp(-0.5), abs=0.01)
    assert masks[1, 0, 0] < 1e-3
    assert masks[2].min() > 0.9
    hidden = smooth_maximum(1.0, of_hidden=True)
    torch.testing.assert_close(hidden(1 - cells), 1 - masks)


def test_area_penalty_by_hand():
    penalty = area_penalty(0.5, 300.0)
    masks = torch.tensor([[[1.0, 0.0], [0.5, 1.0]], [[0.0, 0.0], [1.0, 1.0]]])
    assert penalty(masks, 0.0)["area"].tolist() == [0, 0]
    torch.testing.assert_close(penalty(masks, 0.5)["area"], torch.tensor([150 * 0.25 / 4, 0.0]))


# ---- pictures and command ----


def test_pictures():
    inputs = torch.zeros(1, 3, 4, 6)
    inputs[0, 0] = 100.0  # cut off
    (picture,) = to_pictures(inputs, (0.5, 0.25, 0.0), (0.5, 0.5, 0.5))
    assert picture.size == (6, 4)
    assert picture.getpixel((0, 0)) == (255, 64, 0)
    heat = torch.zeros(4, 6)
    row = (picture, [(heat, picture), (heat, picture)])
    page = mask_figure([row], [["a", "b", "c", "d", "e"]], column_titles=list("vwxyz"), cell=40)
    assert page.size == (5 * 48 + 8, 16 + 40 + 16 + 8 + 8)
    centers = [page.getpixel((8 + 48 * column + 20, 16 + 8 + 20)) for column in range(5)]
    # A heat map of zeros leaves the photo as it is.
    assert all(max(map(abs, map(int.__sub__, c, (255, 64, 0)))) < 8 for c in centers)
    with pytest.raises(ValueError, match="captions: expected 5 texts in row 0"):
        mask_figure([row], [["a"]])
    with pytest.raises(ValueError, match="rows: expected at least one photo"):
        mask_figure([], [])


def test_command(tmp_path):
    photo = tmp_path / "photo.png"
    Image.effect_noise((64, 48), 80).convert("RGB").save(photo)
    app = typer.Typer()
    app.command()(undesirable)
    out = tmp_path / "out"
    arguments = ["--target", "sea", "--factor", "non-target", "--steps", "3", "-o", str(out)]
    result = CliRunner().invoke(app, [str(photo), *arguments])
    assert result.exit_code == 0, result.output
    assert "1 figures and JSON files" in result.output
    written = json.loads((out / "photo.json").read_text())
    assert written["target"]["name"] == "sea"
    assert written["factor"] == "non_target"
    assert written["l1_weight"] == 3.0
    assert len(written["mask"]) == 28
    assert 0 <= written["before"] <= 1
    with Image.open(out / "photo.figure.png") as figure:
        page = (3 * 328 + 8, 16 + 320 + 16 + 8 + 8)  # and around it margins, a title, the scale
        assert figure.size == (page[0] + 16, page[1] + 24 + 34 + 16)
    costly = CliRunner().invoke(
        app, [str(photo), *arguments, "--l1-weight", "1e6", "--steps", "20"]
    )
    assert "try a smaller --l1-weight" in costly.output
    bad = CliRunner().invoke(app, [str(photo), "--factor", "both"])
    assert isinstance(bad.exception, ValueError)
    assert "--factor: expected target, non-target or none" in str(bad.exception)
