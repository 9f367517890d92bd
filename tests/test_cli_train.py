"""`pyxai train`, run as users run it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from train_photos import SQUARE, photo

import pyxai
from pyxai.zoo import load_classifier, save_classifier
from pyxai.zoo.hubs import demo

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def weights(tmp_path):
    """The demo network with preprocessing that makes small squares of photos, as a file."""
    file = tmp_path / "body.safetensors"
    save_classifier(pyxai.Classifier(demo().model, preprocessing=SQUARE), file)
    return ["--model", file, "--architecture", "demo"]


def test_it_trains_reports_and_saves(run, squares, weights, tmp_path):
    options = [
        "--head",
        "mlp",
        "--hidden",
        12,
        "--epochs",
        2,
        "--checkpoint",
        "run",
        "-o",
        "o/t.st",
    ]
    code, out, err = run("train", squares, *weights, *options)
    assert (code, err) == (0, "")
    assert "taken for" in out
    assert "o/t.st and o/t.json" in out
    report = json.loads((tmp_path / "o" / "t.json").read_text())
    assert len(report["history"]) == 2
    assert report["class_names"] == ["blue", "green", "red"]
    loaded = load_classifier(tmp_path / "o" / "t.st", architecture="demo")
    assert loaded.class_names == ("blue", "green", "red")
    assert loaded(torch.rand(1, 3, 32, 32)).shape == (1, 3)
    first = load_file(tmp_path / "o" / "t.st")
    code, out, _ = run("train", squares, *weights, *options, "--json")
    assert json.loads(out) == report
    second = load_file(tmp_path / "o" / "t.st")
    assert all(torch.equal(second[name], first[name]) for name in first)
    code, _, err = run("train", squares, *weights, *options, "--seed", 3)
    assert code == 2
    assert "where these differ: seed" in err


@pytest.mark.parametrize("unfreeze", ["2", "stage4", "stage3,stage4", "from stage4"])
def test_layers_by_number_and_name(run, squares, weights, unfreeze):
    options = ["--unfreeze", unfreeze, "--epochs", 1, "--early-stopping", 1, "--balanced"]
    code, out, _ = run("train", squares, *weights, *options, "--crop", 24, "--json")
    assert code == 0
    assert not json.loads(out)["features_kept"]


def test_photos_that_were_left_out_are_named(run, mixed, weights):
    code, _, err = run("train", mixed, *weights, "--epochs", 1, "--crop", 24, "--valid", "0.4")
    assert code == 0
    assert "broken.jpg" in err
    assert "photos smaller than the crop: 1" in err
    assert "photos not readable: 1" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--head", "tree"], "head: expected 'linear' or 'mlp', got 'tree'"),
        (["--augment", "wild"], "augment: expected"),
        (["--valid", "nowhere"], "valid: expected a folder with a sub-folder"),
        (["--unfreeze", "0"], "unfreeze: expected"),
        (["--early-stopping", "0"], "early_stopping: expected an int of at least 1, got 0"),
        (["--hidden", "0"], "hidden: expected an int of at least 1, got 0"),
        (["-o", "t.json"], "--output: expected a name for a safetensors file"),
    ],
)
def test_bad_input_is_one_line(run, squares, weights, options, message):
    code, _, err = run("train", squares, *weights, *options)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_one_class_only(run, tmp_path, weights):
    (tmp_path / "photos" / "red").mkdir(parents=True)
    picture = photo((200, 0, 0), (30, 30), np.random.default_rng(0))
    picture.save(tmp_path / "photos" / "red" / "1.png")
    code, _, err = run("train", "photos", *weights)
    assert code == 2
    assert "two or more classes" in err


def test_another_record_beside_the_classifier_stays(run, squares, weights, tmp_path):
    (tmp_path / "labels.json").write_text('{"mine": 1}')
    code, _, err = run("train", squares, *weights, "-o", "labels.st")
    assert code == 2
    assert "--output: expected a new path, or that of the figures of a classifier" in err
    assert "labels.json" in err
    assert (tmp_path / "labels.json").read_text() == '{"mine": 1}'
    assert not (tmp_path / "labels.st").exists()
    for _ in range(2):
        code, _, err = run("train", squares, *weights, "--epochs", 1, "-o", "t.st")
        assert (code, err) == (0, "")


@pytest.mark.parametrize("output", [".", "folder", "/"])
def test_a_folder_is_no_name_for_the_classifier(run, squares, weights, tmp_path, output):
    (tmp_path / "folder").mkdir()
    code, _, err = run("train", squares, *weights, "-o", output)
    assert code == 2
    assert err.startswith("pyxai: error: --output: expected a name for a safetensors file, got")
