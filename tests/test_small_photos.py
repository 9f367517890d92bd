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
from pyxai.classes.crop_size import choose_crop
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
    expected = pyxai.sliding_window(classifier, photo, window)
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
        pyxai.sliding_window(classifier, picture(60, 80), 160)
    with pytest.raises(ValueError, match=message):
        pyxai.sliding_window(classifier, picture(60, 80), [30, 160])


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
    assert code == 1
    assert "100 × 100" in out
    assert "small.png: expected at least the window, 100 × 100, found 60 × 150; without" in err


def test_a_photo_that_is_too_small_for_the_network(run, tmp_path):
    """Its windows are refused: by the mode here, by a layer below. The others go on."""
    Image.fromarray(picture(150, 150)).save(tmp_path / "good.png")
    Image.fromarray(picture(8, 8)).save(tmp_path / "tiny.png")
    code, out, err = run("windows", "tiny.png", "good.png", "--mode", "shared", "--stride", 40)
    assert code == 1
    assert "good.png" in out
    assert "tiny.png: 8 × 8, so small that windows of 4 × 4 pixels were tried (mode: " in err


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
    assert code == 1
    assert "good.png" in out
    assert "tiny.png: 12 × 12, so small that windows of 6 × 6 pixels were tried" in err
    assert "Traceback" not in err
