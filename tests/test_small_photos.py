"""Photos that are smaller than the windows, and than what networks are used to."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest
import torch
from networks import SmallNet
from PIL import Image
from torch import nn

import pyxai
from pyxai.galleries.crop_size import choose_crop
from pyxai.images import Preprocessing


@pytest.fixture(autouse=True)
def _one_thread(threads):
    threads(1)


def picture(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def classifier():
    return pyxai.Classifier(SmallNet().eval(), preprocessing=Preprocessing(resize=32))


SIZES = [
    (400, 640, 160),
    (320, 320, 160),
    (319, 500, 159),
    (150, 150, 75),
    (100, 60, 30),
    (28, 28, 14),
    (9, 40, 4),
    (1, 30, 1),
    (1, 1, 1),
]


@pytest.mark.parametrize(("height", "width", "window"), SIZES)
def test_windows_suit_the_photo(classifier, height, width, window):
    photo = picture(height, width)
    found = pyxai.sliding_window(classifier, photo)
    expected = pyxai.sliding_window(classifier, photo, window=window)
    assert torch.equal(found.boxes, expected.boxes)
    assert torch.equal(found.logits, expected.logits)
    assert found.heatmap().shape == (height, width)
    assert bool(torch.isfinite(found.heatmap()).all())


@pytest.mark.parametrize(("height", "width", "window"), SIZES)
def test_galleries_cut_as_windows_do(tmp_path, height, width, window):
    Image.fromarray(picture(height, width)).save(tmp_path / "a.png")
    crop, why = choose_crop([tmp_path])
    assert crop == window
    assert (why == "the default") == (window == 160)


@pytest.mark.parametrize("mode", ["shared", "dense"])
def test_the_other_modes(classifier, mode):
    found = pyxai.sliding_window(classifier, picture(200, 150), mode=mode)
    x0, y0, x1, y1 = found.boxes[0].tolist()
    assert (x1 - x0, y1 - y0) == (75, 75)
    assert found.mode == mode
    assert bool(torch.isfinite(found.logits).all())


def test_a_stride_and_a_size_for_the_network(classifier):
    found = pyxai.sliding_window(classifier, picture(60, 80), stride=10, resize=48)
    assert (found.rows, found.columns) == (4, 6)
    assert found.boxes[-1].tolist() == [50, 30, 80, 60]


def test_a_window_that_was_asked_for_is_kept(classifier):
    message = r"window: expected at most the size .*60 × 80 .*got 160 × 160; None takes one"
    with pytest.raises(ValueError, match=message):
        pyxai.sliding_window(classifier, picture(60, 80), window=160)
    with pytest.raises(ValueError, match=message):
        pyxai.sliding_window(classifier, picture(60, 80), window=[30, 160])


class Flat(nn.Module):
    """As tutorials have it."""

    def forward(self, x):
        return x.view(-1, 3 * 32 * 32)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(3, 4, 9), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)],
        [nn.MaxPool2d(2), nn.MaxPool2d(2), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(3)],
        [nn.ReflectionPad2d(7), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3)],
        [nn.Flatten(), nn.Linear(3 * 32 * 32, 3)],
        [Flat(), nn.Linear(3 * 32 * 32, 3)],
    ],
)
def test_networks_that_do_not_take_the_window(layers):
    """Hand-written ones, made for 32 × 32: the error says what to do, and then it works."""
    model = nn.Sequential(*layers).eval()
    model(torch.zeros(1, 3, 32, 32))
    message = r"^window: expected a size that Sequential takes, or resize= to one .* got \(6, 6\)$"
    with pytest.raises(ValueError, match=message):
        pyxai.sliding_window(model, picture(12, 12))
    found = pyxai.sliding_window(model, picture(12, 12), resize=32)
    assert found.boxes[0].tolist() == [0, 0, 6, 6]


def test_other_errors_of_a_network_come_through():
    def broken(images):
        raise RuntimeError("no such file")

    with pytest.raises(RuntimeError, match="no such file"):
        pyxai.sliding_window(broken, picture(12, 12))


def test_on_the_command_line(run, tmp_path):
    for name, size in (("large", (400, 330)), ("small", (150, 60)), ("wide", (200, 3))):
        Image.fromarray(picture(*size[::-1])).save(tmp_path / f"{name}.png")
    code, out, _ = run("windows", "large.png", "small.png", "wide.png", "--stride", 40, "--json")
    assert code == 0
    results = json.loads(out)["results"]
    assert [each["window"] for each in results] == [
        {"height": side, "width": side} for side in (160, 30, 1)
    ]
    with Image.open(tmp_path / "pyxai-windows" / "wide.overlay.png") as overlay:
        assert overlay.size == (200, 3)
    # One that was asked for is kept: a photo that is smaller is named, the others go on.
    code, out, err = run("windows", "large.png", "small.png", "--window", 100, "--stride", 100)
    assert code == 0
    assert "100 × 100" in out
    assert "small.png: expected at least the window, 100 × 100, found 60 × 150; without" in err


def test_a_photo_that_is_too_small_for_the_network(run, tmp_path):
    """Its windows are refused: by the mode here, by a layer below. The others go on."""
    Image.fromarray(picture(150, 150)).save(tmp_path / "good.png")
    Image.fromarray(picture(8, 8)).save(tmp_path / "tiny.png")
    code, out, err = run("windows", "tiny.png", "good.png", "--mode", "shared", "--stride", 40)
    assert code == 0
    assert "good.png" in out
    assert "tiny.png: 8 × 8, so small that windows of 4 × 4 pixels were tried (mode: " in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mode", "sparse"), "mode: expected 'exhaustive', 'shared' or 'dense'"),
        (("--stride", "0"), "stride: expected an int or a pair"),
        (("--target", "17"), "target: expected class indices below 6"),
    ],
)
def test_wrong_arguments_are_not_the_photos_fault(run, tmp_path, options, message):
    Image.fromarray(picture(60, 60)).save(tmp_path / "small.png")
    code, _, err = run("windows", "small.png", *options)
    assert code == 2
    assert err.startswith(f"pyxai: error: {message}")


def test_a_network_that_refuses_small_windows(run, tmp_path, monkeypatch):
    network = nn.Sequential(
        nn.Conv2d(3, 4, 9), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    made = pyxai.Classifier(network.eval())
    command = importlib.import_module("pyxai.cli.windows")  # the name is that of a function, too
    monkeypatch.setattr(command, "load_classifier", lambda *_, **__: made)
    Image.fromarray(picture(60, 60)).save(tmp_path / "good.png")
    Image.fromarray(picture(12, 12)).save(tmp_path / "tiny.png")
    code, out, err = run("windows", "tiny.png", "good.png")
    assert code == 0
    assert "good.png" in out
    assert "tiny.png: 12 × 12, so small that windows of 6 × 6 pixels were tried" in err
    assert "Traceback" not in err


# ---- SHAP values ----


@pytest.mark.parametrize("method", ["gradient", "partition", "kernel"])
@pytest.mark.parametrize(
    ("size", "regions"),
    [
        ((1, 2), 2),
        ((3, 3), 9),
        ((4, 4), 16),
        ((7, 7), 49),
        ((8, 8), 64),
        ((28, 28), 64),
        ((32, 32), 64),
        ((1, 100), 64),
        ((1000, 2), 64),  # strips get no more regions than was asked for
        ((3, 500), 64),
    ],
)
def test_shap_values_of_small_images(method, size, regions):
    """Of a linear model: weight times difference, whatever the method and the size."""
    height, width = size
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * height * width, 2)).double()
    images = torch.randn(2, 3, height, width, dtype=torch.float64)
    background = torch.randn(1, 3, height, width, dtype=torch.float64)
    found = pyxai.shap_values(model, images, background, 1, method=method)
    weights = model[1].weight.detach()[1].reshape(3, height, width)
    expected = (weights * (images - background)).sum(dim=1)
    assert float(found.additivity_gap.abs().max()) < 1e-5
    if method == "gradient":
        torch.testing.assert_close(found.maps().double(), expected, rtol=1e-4, atol=1e-5)
    elif method == "kernel":
        assert found.regions is not None
        assert int(found.regions.max()) + 1 == regions
        told = torch.zeros(2, regions, dtype=torch.float64)
        told.index_add_(1, found.regions.flatten(), expected.flatten(1))
        torch.testing.assert_close(found.region_values, told, rtol=1e-4, atol=1e-5)
    else:
        total = expected.sum(dim=(1, 2))
        torch.testing.assert_close(found.maps().double().sum(dim=(1, 2)), total)


@pytest.mark.parametrize("background", ["blur", "mean"])
@pytest.mark.parametrize("size", [(1, 2), (4, 4), (8, 8), (28, 28), (32, 32)])
def test_backgrounds_of_small_images(size, background):
    model, images = SmallNet().eval(), torch.rand(1, 3, *size)
    for method in ("gradient", "partition", "kernel"):
        found = pyxai.shap_values(model, images, background, method=method)
        assert bool(torch.isfinite(found.values).all())
        assert float(found.additivity_gap.abs().max()) < 1e-4


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        ((1, 1), {}, r"^images: expected two pixels or more for regions, got '1 × 1'"),
        ((4, 4), {"regions": 17}, r"^regions: expected 2 to 16 regions of 4 × 4 pixels, got 17"),
        ((20, 20), {"regions": 144}, "^samples: expected at least 288, twice the 144 regions, or"),
        ((20, 20), {"samples": 100}, "^samples: expected at least 128, twice the 64 regions, or"),
    ],
)
def test_errors_blame_what_was_given(size, options, message):
    with pytest.raises(ValueError, match=message):
        pyxai.shap_values(SmallNet().eval(), torch.rand(1, 3, *size), method="kernel", **options)


# ---- learned masks ----

MASKS = {
    pyxai.undesirable_pixels: pyxai.MaskSettings,
    pyxai.meaningful_perturbation: pyxai.MeaningfulSettings,
    pyxai.extremal_perturbation: pyxai.ExtremalSettings,
}


@pytest.mark.parametrize("learn", MASKS)
@pytest.mark.parametrize("size", [(2, 2), (3, 5), (8, 8), (28, 28), (32, 32), (20, 300)])
def test_masks_of_small_images(learn, size):
    """Cells and blur are as large as the image allows, and as before where it is large enough."""
    model, images = SmallNet().eval(), torch.rand(1, 3, *size)
    settings = MASKS[learn]
    found = learn(model, images, 1, settings=settings(steps=2))
    assert found.mask.shape == (1, min(28, size[0]), min(28, size[1]))
    usual = dict(zip(MASKS, (11, 41, 81), strict=True))[learn]
    kernel = min(usual, 2 * min(size) - 1)
    given = settings(steps=2, mask_size=tuple(found.mask.shape[1:]), blur_kernel=kernel)
    same = learn(model, images, 1, settings=given)
    assert torch.equal(found.mask, same.mask)


@pytest.mark.parametrize("learn", MASKS)
def test_masks_that_were_asked_for_are_kept(learn):
    model, images = SmallNet().eval(), torch.rand(1, 3, 8, 8)
    with pytest.raises(ValueError, match=r"^mask_size: expected cells from 1 to .* got 28"):
        learn(model, images, settings=MASKS[learn](mask_size=28))
    with pytest.raises(ValueError, match=r"^blur_kernel: expected less than twice .* got 17"):
        learn(model, images, settings=MASKS[learn](blur_kernel=17))
