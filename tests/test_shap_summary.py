"""SHAP values of folders: statistics worked out by hand, evidence that is where it was put."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from scipy import stats
from torch import nn
from typer.testing import CliRunner

import pyxai
from pyxai import Classifier, Preprocessing, shap_summary
from pyxai.attribution.shap.summary.photos import PhotoEvidence
from pyxai.attribution.shap.summary.statistics import class_summary, frame_and_corners, mean_of
from pyxai.cli.shap import shap as command
from pyxai.draw.shap_summary import SummaryRow, shap_summary_figure
from pyxai.images import ImageError

SIDE = 16


class Corner(nn.Module):
    """ "left" is how bright the top left quarter is, "right" how bright the bottom right one is."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, x):
        left, right = x[:, :, :8, :8].mean(dim=(1, 2, 3)), x[:, :, 8:, 8:].mean(dim=(1, 2, 3))
        return self.scale * torch.stack([left, right], dim=1)


@pytest.fixture
def classifier():
    preprocessing = Preprocessing((0.0,) * 3, (1.0,) * 3, (SIDE, SIDE))
    names = ("left", "right")
    return Classifier(Corner(), class_names=names, preprocessing=preprocessing)


@pytest.fixture
def folder(tmp_path):
    """Four photos a class; those of one class are bright where the network looks for it."""
    random = np.random.default_rng(0)
    for name, part in (("left", slice(0, 8)), ("right", slice(8, 16))):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            pixels = random.integers(0, 60, (SIDE, SIDE, 3), np.uint8)
            pixels[part, part] += 150
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def quick(classifier, folder, **options):
    options = {"grid": 4, "samples": 40, "progress": False} | options
    return shap_summary(classifier, folder, "mean", **options)


@pytest.mark.parametrize("method", ["gradient", "partition", "kernel"])
def test_evidence_is_where_it_was_put(classifier, folder, method):
    found = quick(classifier, folder, method=method)
    assert [each.name for each in found.classes] == ["left", "right"]
    for name, part in (("left", slice(0, 2)), ("right", slice(2, 4))):
        each = found[name]
        assert len(each.photos) == 4
        assert each.accuracy == 1
        assert (each.low[part, part] > 0).all()  # the cells of its quarter, and no others
        elsewhere = each.mean_absolute.copy()
        elsewhere[part, part] = 0
        assert elsewhere.max() < 1e-5
        change = np.mean([photo.output - photo.base_value for photo in each.photos])
        assert each.mean.sum() == pytest.approx(change, abs=1e-4)
        assert each.speaks_for.value == pytest.approx(change, abs=1e-4)
        # 3 of the quarter's 4 cells are in the frame, 1 in a corner.
        assert each.frame.low <= 0.75 <= each.frame.high
        assert each.corners.low <= 0.25 <= each.corners.high
        assert each.agreement > 0.95
    assert found.frame_area == 12 / 16
    assert found.corner_area == 4 / 16


def test_statistics_by_hand():
    photos = [
        PhotoEvidence(name, 0, top, 1.0, 0.5, gap, 0.0, cells)
        for name, top, gap, cells in (
            ("a", 0, 0.1, (1.0, 0, 0, 0, 3.0, 0, 0, 0, -2.0)),
            ("b", 1, 0.0, (3.0, 0, 0, 0, 1.0, 0, 0, 0, 0.0)),
            ("c", 0, 0.0, (0.0, 0, 0, 0, 0.0, 0, 0, 0, -1.0)),
        )
    ]
    found = class_summary(0, "x", photos, (3, 3), 0.9)
    assert found.mean[[0, 1, 2], [0, 1, 2]].tolist() == pytest.approx([4 / 3, 4 / 3, -1])
    assert found.mean_absolute[2, 2] == pytest.approx(1)
    assert found.speaks_for.value == pytest.approx(8 / 3)
    assert found.speaks_against.value == pytest.approx(-1)
    assert found.frame.value == pytest.approx((0.25 + 0.75) / 2)  # nothing speaks for it in c
    assert found.accuracy == pytest.approx(2 / 3)
    a = (1 * 3 + 3 * 1 + -2 * -1) / math.sqrt((1 + 9 + 4) * (9 + 1 + 1))
    assert found.similarity[0] == pytest.approx(a)
    low, high = stats.t.interval(0.9, 2, 4 / 3, stats.sem([1, 3, 0]))
    assert (found.low[0, 0], found.high[0, 0]) == pytest.approx((low, high))
    assert [each.name for each in found.typical(1)] == [
        found.photos[found.similarity.argmax()].name
    ]
    assert found.to_dict()["relative_gap"] == pytest.approx({"median": 0, "most": 0.2})


def test_one_photo_has_no_interval():
    mean, low, high = mean_of(np.array([[2.0, np.nan]]), 0.95)
    assert mean[0] == 2
    assert np.isnan([mean[1], *low, *high]).all()
    photo = PhotoEvidence("a", 0, 0, 1.0, 1.0, 0.0, 0.0, (-1.0,) * 9)
    found = class_summary(0, "x", [photo], (3, 3), 0.95)
    assert math.isnan(found.agreement)
    assert math.isnan(found.frame.value)
    assert found.typical(3) == []
    json.dumps(found.to_dict(), allow_nan=False)


def test_frame_and_corners():
    frame, corners = frame_and_corners((8, 4))
    assert frame.sum() == 2 * 8 + 2 * 2
    assert corners.sum() == 4 * 2 * 1
    assert corners[:2, 0].all()
    assert not corners[2, 0]


def test_predicted_classes_need_no_names(classifier, folder):
    plain = Classifier(Corner(), preprocessing=classifier.preprocessing)
    found = quick(plain, [folder / "right"], target="predicted")
    assert [(each.name, len(each.photos)) for each in found.classes] == [("class 1", 4)]
    with pytest.raises(ValueError, match="target: expected 'predicted' for a classifier without"):
        quick(plain, folder)


def test_photos_of_a_folder_are_drawn(classifier, folder):
    first, again = (quick(classifier, folder, per_folder=2, seed=3) for _ in range(2))
    names = [photo.name for each in first.classes for photo in each.photos]
    assert len(names) == 4
    assert names == [photo.name for each in again.classes for photo in each.photos]
    drawn = {
        tuple(photo.name for photo in quick(classifier, folder, per_folder=2, seed=seed)[0].photos)
        for seed in range(5)
    }
    assert len(drawn) > 1


def test_photos_that_cannot_be_used_are_counted(classifier, folder):
    (folder / "left" / "torn.png").write_bytes(b"not a picture")
    (folder / "cats").mkdir()
    (folder / "left" / "0.png").rename(folder / "cats" / "0.png")
    found = quick(classifier, folder)
    assert len(found["left"].photos) == 3
    assert found.unnamed == 1
    assert [name for name, _ in found.failures] == [str(folder / "left" / "torn.png")]
    assert found.to_dict()["failures"][0]["reason"]
    with pytest.raises(ImageError):
        quick(classifier, folder / "left" / "torn.png")
    with pytest.raises(ValueError, match="photos: expected photos in folders named after classes"):
        quick(classifier, folder / "cats")


def test_a_stopped_run_goes_on(classifier, folder, tmp_path, monkeypatch):
    whole = quick(classifier, folder)
    run, count = tmp_path / "run", 0
    original = pyxai.attribution.shap.summary.photos.values_of

    def stops(*arguments, **options):
        nonlocal count
        count += 1
        if count == 6:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr("pyxai.attribution.shap.summary.photos.values_of", stops)
    monkeypatch.setattr("pyxai.runs.working._MOST", 1)
    with pytest.raises(KeyboardInterrupt):
        quick(classifier, folder, checkpoint=run)
    found = quick(classifier, folder, checkpoint=run)
    assert count == 6 + 3  # five photos were done
    assert found.to_dict() == whole.to_dict()
    assert quick(classifier, folder, checkpoint=run).to_dict() == whole.to_dict()
    assert count == 9
    with pytest.raises(ValueError, match="where these differ: samples"):
        quick(classifier, folder, checkpoint=run, samples=50)
    with torch.no_grad():
        classifier.network.scale += 1
    with pytest.raises(ValueError, match="where these differ: model"):
        quick(classifier, folder, checkpoint=run)
    (run / "shap-run.json").write_text("[1, 2]\n")
    with pytest.raises(ValueError, match="expected a SHAP summary's run saved"):
        quick(classifier, folder, checkpoint=run)


def test_a_run_follows_its_photos(classifier, folder, tmp_path, monkeypatch):
    """What was replaced is explained anew, what is gone does not count, and the rest is kept."""
    run, explained = tmp_path / "run", []
    original = pyxai.attribution.shap.summary.photos.values_of

    def counting(*arguments, **options):
        explained.append(arguments)
        return original(*arguments, **options)

    quick(classifier, folder, checkpoint=run)
    replaced, gone = sorted((folder / "left").glob("*.png"))[:2]
    with Image.open(replaced) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(replaced)
    gone.unlink()
    monkeypatch.setattr(pyxai.attribution.shap.summary.photos, "values_of", counting)
    found = quick(classifier, folder, checkpoint=run)
    assert found.to_dict() == quick(classifier, folder).to_dict()
    assert len(explained) == 1 + len(found["left"].photos) + len(found["right"].photos)
    assert not any(str(gone).encode() in path.read_bytes() for path in run.iterdir())
    assert str(gone) not in {each.name for each in found["left"].photos}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "both"}, "target: expected 'folder' or 'predicted'"),
        ({"grid": 2}, "grid: expected rows and columns of at least 3"),
        ({"grid": (4, 0)}, "grid: expected rows and columns"),
        ({"grid": 17}, "grid: expected no more rows and columns than the 16 × 16 pixels"),
        ({"per_folder": 0}, "per_folder: expected None or an int of at least 1"),
        ({"confidence": 1.0}, "confidence: expected a number between 0 and 1"),
        ({"method": "lime"}, "method: expected"),
        ({"samples": 1}, "samples: expected an int of at least 2"),
    ],
    ids=str,
)
def test_bad_arguments(classifier, folder, options, message):
    with pytest.raises(ValueError, match=message):
        quick(classifier, folder, **options)


def test_files(classifier, folder, tmp_path):
    found = quick(classifier, folder)
    picture = found.save(tmp_path / "out")
    with Image.open(picture) as page:
        assert page.size[0] > 400
    record = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert np.shape(record["classes"]["left"]["mean"]) == (4, 4)
    with (tmp_path / "out" / "photos.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) == 8
    told = float(rows[0]["base_value"]) + float(rows[0]["speaks_for"])
    told += float(rows[0]["speaks_against"])
    assert told == pytest.approx(float(rows[0]["output"]), abs=1e-3)
    with (tmp_path / "out" / "regions.csv").open(newline="") as file:
        assert len([*csv.DictReader(file)]) == 2 * 16


def test_pictures():
    mean = np.zeros((4, 4))
    mean[0, 0], mean[3, 3] = 2, -2
    unsure = np.zeros((4, 4), bool)
    unsure[1, 1] = True
    photo = Image.new("RGB", (40, 40), "white")
    row = SummaryRow("a class", mean, unsure, [photo], [mean], ["a photo"])
    page = shap_summary_figure([row], scales=("means", "photos"), cell=40)
    left, top = 8, 8 + 16
    assert page.getpixel((left + 5, top + 5)) == (215, 25, 45)
    assert page.getpixel((left + 35, top + 35)) == (30, 90, 220)
    assert page.getpixel((left + 15, top + 15)) == (0x66, 0x66, 0x66)
    assert page.getpixel((left + 48 + 5, top + 5)) == (215, 25, 45)
    with pytest.raises(ValueError, match="rows: expected at least one"):
        shap_summary_figure([], scales=("means", "photos"))


def test_command(tmp_path):
    for name in ("sea", "street"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(2):
            noise = Image.effect_noise((64, 48), 60 + 20 * number).convert("RGB")
            noise.save(tmp_path / "photos" / name / f"{number}.png")
    app = typer.Typer()
    app.command()(command)
    out = tmp_path / "out"
    options = ["--summary", "--samples", "9", "--grid", "4", "-o", str(out)]
    result = CliRunner().invoke(app, [str(tmp_path / "photos"), *options])
    assert result.exit_code == 0, result.output
    assert "in the frame (75% of the area)" in result.output
    assert (out / "summary.png").is_file()
    as_json = CliRunner().invoke(app, [str(tmp_path / "photos"), *options, "--json"])
    assert json.loads(as_json.output)["classes"]["sea"]["photos"] == 2
    for wrong in (["--summary"], [str(tmp_path), "--summary", "--target", "sea"]):
        assert CliRunner().invoke(app, wrong).exit_code == 2
