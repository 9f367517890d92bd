"""How many pixels a photo may have after the resize, and what that limit must not break."""

from __future__ import annotations

import dataclasses
import json
import pickle

import pytest
import torch
from networks import SmallNet
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import pyxai
from pyxai.classifier import Classifier
from pyxai.classifier.fingerprint import identity
from pyxai.images import ImageError, ImageErrors, Preprocessing, to_batch
from pyxai.novelty.identity import identity_of
from pyxai.train.fine_tune import _identity
from pyxai.zoo import load_classifier, save_classifier


def strip(width=3000, height=1):
    return Image.new("RGB", (width, height), (10, 90, 30))


@pytest.mark.parametrize(
    ("size", "becomes"),
    [
        ((3000, 1), "768000 × 256"),
        ((1, 3000), "256 × 768000"),
        ((3000, 40), "19200 × 256"),
        ((10, 700), "256 × 17920"),
    ],
)
def test_a_strip_is_refused(size, becomes):
    preprocessing = Preprocessing(resize=256, crop=224)
    expected = (
        rf"^image: expected at most 4,194,304 pixels after the resize, got {becomes} from "
        rf"\({size[0]}, {size[1]}\) \(width × height\); .*max_pixels of the Preprocessing$"
    )
    for call in (preprocessing, preprocessing.view):
        with pytest.raises(ImageError, match=expected):
            call(strip(*size))
    with pytest.raises(ValueError, match="after the resize"):
        preprocessing.region(size)  # the network does not see it at all


def test_the_limit_is_an_argument():
    photo = strip(60, 4)
    assert Preprocessing(resize=64, max_pixels=64 * 960)(photo).shape == (3, 64, 960)
    with pytest.raises(ImageError, match=r"expected at most 61,439 pixels .*960 × 64"):
        Preprocessing(resize=64, max_pixels=64 * 960 - 1)(photo)
    assert Preprocessing(resize=256, max_pixels=10**9).region((3000, 1)) == (0, 0, 3000, 1)


@pytest.mark.parametrize(
    ("options", "size", "seen"),
    [
        ({}, (4000, 3000), (4000, 3000)),  # a photo of a telephone as it is
        ({}, (12_000, 9000), (12_000, 9000)),
        ({"resize": 2048}, (4000, 3000), (2730, 2048)),  # it shrinks
        ({"resize": 2048}, (16_000, 4000), (8192, 2048)),  # and is not slender
        ({"resize": 256, "crop": 224}, (40_000, 400), (25_600, 256)),  # little of it is seen
        ({"resize": 3000}, (4000, 3000), (4000, 3000)),
        ({"resize": 256}, (16_384, 256), (16_384, 256)),
        ({"resize": (2500, 2500)}, (10, 10), (2500, 2500)),  # whatever the photo
        ({"resize": 2048}, (100, 100), (2048, 2048)),
        ({"resize": 256}, (1, 64), (256, 16_384)),
    ],
    ids=str,
)
def test_what_is_not_refused(options, size, seen):
    steps = Preprocessing(**options)
    assert steps._plan(size)[0] == seen
    assert steps.seen_size(size) == ((224, 224) if steps.crop else seen)


@pytest.mark.parametrize(
    ("resize", "size", "becomes"),
    [
        (256, (40_000, 400), "25600 × 256"),
        (192, (250_000, 200), "240000 × 192"),  # 150 kB as PNG, 5 GB in a network
        (192, (192, 60_000), "192 × 60000"),
        (2048, (16_020, 4000), "8202 × 2048"),
    ],
)
def test_a_slender_photo_is_refused_though_it_shrinks(resize, size, becomes):
    """What is not cropped goes into the network, whatever the photo had before."""
    with pytest.raises(ImageError, match=rf"at most 4,194,304 pixels .*got {becomes} from"):
        Preprocessing(resize=resize).region(size)
    assert Preprocessing(resize=resize, crop=100).seen_size(size) == (100, 100)
    width, height = Preprocessing(resize=resize, max_pixels=10**8).seen_size(size)
    assert f"{width} × {height}" == becomes


@pytest.mark.parametrize("wrong", [0, -1, 1e7, "all", None, True])
def test_wrong_limits(wrong):
    with pytest.raises(ValueError, match="max_pixels: expected an int of at least 1, got"):
        Preprocessing(max_pixels=wrong)


def test_the_photo_is_named(tmp_path):
    strip().save(tmp_path / "strip.png")
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    preprocessing = Preprocessing(resize=256)
    for call in (preprocessing, preprocessing.view):
        with pytest.raises(ImageError, match=r"strip\.png: expected at most") as caught:
            call(tmp_path / "strip.png")
        assert caught.value.name == str(tmp_path / "strip.png")
    with pytest.raises(ImageErrors, match=r"strip\.png: expected at most") as several:
        to_batch(tmp_path, preprocessing)
    assert [name for name, _ in several.value.failures] == [str(tmp_path / "strip.png")]


def test_a_folder_goes_on(run, tmp_path):
    (tmp_path / "photos").mkdir()
    strip().save(tmp_path / "photos" / "strip.png")
    Image.new("RGB", (80, 60)).save(tmp_path / "photos" / "plain.png")
    code, out, err = run("explain", "photos")
    assert code == 0
    assert "plain.png" in out
    assert "not explained: photos/strip.png: expected at most 4,194,304 pixels" in err
    index = pyxai.ImageIndex.build(pyxai.load_classifier("demo"), "photos", progress=False)
    assert [each.path for each in index.failures] == ["photos/strip.png"]


def test_a_strip_that_shrinks_is_left_out_of_an_index(run, tmp_path):
    """It would take 5 GB in the demo classifier."""
    (tmp_path / "photos").mkdir()
    strip(250_000, 200).save(tmp_path / "photos" / "strip.png")
    Image.new("RGB", (80, 60)).save(tmp_path / "photos" / "plain.png")
    index = pyxai.ImageIndex.build(pyxai.load_classifier("demo"), "photos", progress=False)
    assert [each.path for each in index.failures] == ["photos/strip.png"]
    assert len(index) == 1


# ---- what was saved before, or with another limit, still matches ----


@pytest.fixture
def classifiers():
    """One network with the usual limit and with another."""
    network, usual = SmallNet().eval(), Preprocessing(resize=32, crop=32)
    other = dataclasses.replace(usual, max_pixels=10**8)
    return [Classifier(network, preprocessing=each) for each in (usual, other)]


def test_the_limit_is_no_part_of_the_identity(classifiers):
    usual, other = (each.preprocessing for each in classifiers)
    written = (
        "Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), resize=32, crop=32, "
        "interpolation='bilinear')"  # as it stands in indexes of before
    )
    assert repr(usual) == repr(other) == written
    assert usual.steps == other.steps
    assert [*usual.steps] == ["mean", "std", "resize", "crop", "interpolation"]
    assert usual != other
    assert pickle.loads(pickle.dumps(other)) == other
    assert identity(classifiers[0]) == identity(classifiers[1])
    first, second = (identity_of(each, "layer") for each in classifiers)
    assert first.differences(second) == []
    assert set(first.preprocessing or ()) == set(usual.steps)


def test_checkpoints_of_training_go_on(classifiers, monkeypatch):
    monkeypatch.setattr("pyxai.train.fine_tune.asdict", lambda plan: {})
    monkeypatch.setattr("pyxai.train.fine_tune._digest", lambda listings: "")
    first, second = (_identity(each, None, ("a",), None) for each in classifiers)
    assert first == second
    assert "max_pixels" not in first["preprocessing"]


def test_an_index_takes_a_higher_limit(classifiers, tmp_path):
    Image.new("RGB", (40, 50), (200, 30, 30)).save(tmp_path / "a.png")
    built = pyxai.ImageIndex.build(
        classifiers[0], tmp_path, directory=tmp_path / "index", progress=False
    )
    found = pyxai.ImageIndex.load(tmp_path / "index", classifiers[1])
    assert len(found) == len(built) == 1


def test_files_of_weights_keep_the_limit(classifiers, tmp_path):
    for each in classifiers:
        save_classifier(each, tmp_path / "net.safetensors")
        again = load_classifier(tmp_path / "net.safetensors", architecture=SmallNet())
        assert again.preprocessing == each.preprocessing
    # A file of before says nothing of a limit.
    with safe_open(tmp_path / "net.safetensors", framework="pt") as file:
        metadata = file.metadata()
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    fields = json.loads(metadata["preprocessing"])
    del fields["max_pixels"]
    save_file(state, tmp_path / "old.safetensors", {"preprocessing": json.dumps(fields)})
    old = load_classifier(tmp_path / "old.safetensors", architecture=SmallNet())
    assert old.preprocessing == classifiers[0].preprocessing
    assert torch.equal(old.to_input(strip(40, 32)), classifiers[0].to_input(strip(40, 32)))
