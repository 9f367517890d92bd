"""An audit of a folder of photos: what is listed, in what order, and what is said of bad input."""

from __future__ import annotations

import csv
import json
import os
import sys

import numpy as np
import pytest
import torch
from gallery_photos import color_classifier, folder_of_photos, photo
from PIL import Image, ImageFilter
from torch import nn

import pyxai
from pyxai.curate import photo_pass
from pyxai.curate.audit_result import ISSUES
from pyxai.curate.label_errors import confident_learning, out_of_fold_probabilities
from pyxai.curate.quality import CHECKS, Quality, measure
from pyxai.curate.unusual import distance_ratios
from pyxai.images import ImageError
from pyxai.runs import working


def names(found, issue):
    return [found.short(each.path) for each in found[issue]]


@pytest.fixture
def folder(tmp_path):
    """Photos of red, green and blue squares, eight each."""
    return folder_of_photos(tmp_path / "photos", count=8)


# ---- measures of one photo ----


def test_measures_by_hand():
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, 4:] = (200, 100, 100)
    found = measure(Image.fromarray(pixels))
    assert (found.width, found.height, found.aspect) == (8, 4, 2)
    assert found.information == pytest.approx(1)  # two grey values, half each
    assert (found.dark_tone, found.color) == (0, 100)
    assert found.bright_tone == pytest.approx(130, abs=1)  # 0.299 · 200 + 0.701 · 100
    # The Laplacian is +g beside the edge and -g behind it, in 2 of 6 columns; grey is 0 or g.
    assert found.detail == pytest.approx((2 / 6) / (1 / 4), rel=1e-5)


def issues_of(picture):
    values = measure(picture)
    return {
        check.issue
        for check in CHECKS
        if check.failed(np.float32([getattr(values, check.measure)]))[0]
    }


@pytest.fixture(scope="module")
def sample():
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(pixels) for pixels in load_sample_images().images]


def test_defects_are_found_and_originals_left_alone(sample):
    for picture in sample:
        assert issues_of(picture) == set()
        side = max(picture.size)
        assert issues_of(picture.filter(ImageFilter.GaussianBlur(0.02 * side))) == {"blurred"}
        assert "dark" in issues_of(picture.point([tone // 8 for tone in range(256)] * 3))
        assert "bright" in issues_of(picture.point([224 + tone // 8 for tone in range(256)] * 3))
        assert issues_of(picture.convert("L").convert("RGB")) == {"gray"}
        assert "odd_aspect" in issues_of(picture.crop((0, 0, 400, 100)))


def test_exposure_and_contrast_are_not_taken_for_blur(sample):
    """Detail is relative to contrast."""
    for picture in sample:
        pale = picture.point([100 + tone // 4 for tone in range(256)] * 3)
        assert measure(pale).detail == pytest.approx(measure(picture).detail, rel=0.1)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 300), (3000, 1)])
def test_the_smallest_photos_can_be_measured(size):
    found = measure(Image.new("RGB", size, (9, 9, 9)))
    assert np.isnan(found.detail)
    assert found.information == 0
    assert (found.width, found.height) == size
    assert found._fields == Quality._fields


# ---- unusual photos ----


def test_distances_by_hand():
    angles = np.array([0.0, 0.1, 0.2, 1.0])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    rows *= [[1], [5], [2], [3]]  # lengths do not matter
    found = distance_ratios(rows, np.zeros(4, np.int64), n_neighbors=1)
    chord = 2 * np.sin(np.array([0.1, 0.1, 0.1, 0.8]) / 2)
    np.testing.assert_allclose(found, chord / np.median(chord), rtol=1e-4)


def test_distances_stay_within_the_class():
    random = np.random.default_rng(0)
    rows = random.normal(size=(40, 6)).astype(np.float32)
    labels = np.repeat([0, 1], 20)
    both = distance_ratios(rows, labels, n_neighbors=3)
    for label in (0, 1):
        alone = distance_ratios(rows[labels == label], np.zeros(20, np.int64), n_neighbors=3)
        np.testing.assert_allclose(both[labels == label], alone, rtol=1e-5)


def test_copies_and_single_photos_have_a_defined_distance():
    same = distance_ratios(np.ones((5, 3), np.float32), np.zeros(5, np.int64), n_neighbors=10)
    assert np.isfinite(same).all()
    assert np.isnan(distance_ratios(np.ones((1, 3), np.float32), np.zeros(1, int), n_neighbors=1))


# ---- label errors ----


def test_confident_learning_by_hand():
    probabilities = np.float32([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.4, 0.6], [0.1, 0.9]])
    labels = np.array([0, 0, 0, 1, 1])
    # Thresholds: (0.9 + 0.7 + 0.2) / 3 = 0.6 and (0.6 + 0.9) / 2 = 0.75.
    found = confident_learning(probabilities, labels)
    assert found.suggested.tolist() == [0, 0, 1, 1, 1]
    np.testing.assert_allclose(found.margins, [0.9, 0.7, 0.2, 0.6, 0.9], rtol=1e-6)


@pytest.mark.parametrize("classes", [2, 5])
def test_confident_learning_is_that_of_cleanlab(classes):
    find = pytest.importorskip("cleanlab.filter").find_label_issues
    ranking = pytest.importorskip("cleanlab.rank").get_normalized_margin_for_each_label
    random = np.random.default_rng(classes)
    labels = np.arange(300) % classes
    probabilities = random.dirichlet(np.ones(classes), 300) + np.eye(classes)[labels]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    wrong = random.permutation(300)[:40]
    labels[wrong] = (labels[wrong] + 1) % classes
    found = confident_learning(probabilities.astype(np.float32), labels)
    listed = find(labels, probabilities, filter_by="confident_learning", n_jobs=1)
    assert 10 < listed.sum() < 100
    np.testing.assert_array_equal(found.suggested != labels, listed)
    np.testing.assert_allclose(found.margins, ranking(labels, probabilities), atol=1e-6)


def test_wrong_labels_come_first():
    random = np.random.default_rng(0)
    labels = np.arange(200) % 2
    rows = random.normal(size=(200, 8)).astype(np.float32)
    rows[:, 0] += 6 * labels
    wrong = np.array([3, 50, 120, 177])
    labels[wrong] = 1 - labels[wrong]
    probabilities = out_of_fold_probabilities(rows, labels, folds=5, seed=0)
    found = confident_learning(probabilities, labels)
    assert set(np.argsort(found.margins)[:4]) == set(wrong)
    assert (found.suggested != labels)[wrong].sum() >= 2
    assert not (found.suggested != labels)[np.delete(np.arange(200), wrong)].any()
    again = out_of_fold_probabilities(rows, labels, folds=5, seed=0)
    np.testing.assert_array_equal(probabilities, again)


# ---- the whole ----


def test_a_clean_folder(folder):
    found = pyxai.audit(color_classifier(), folder)
    assert [*found.findings] == [*ISSUES]
    assert found.classes == {"blue": 8, "green": 8, "red": 8}
    assert len(found.paths) == len(found.labels) == 24
    assert all(value.shape == (24,) for value in found.measures.values())
    for issue in ("unreadable", "no_photo", "no_class", "odd_size", "odd_aspect", "label_error"):
        assert found[issue] == ()
    assert found.model == "colours"
    assert found.layer == "relu"
    assert found.notes == ()


def test_what_is_wrong_is_listed(folder):
    photo(500, "green").save(folder / "red" / "wrong.png")
    photo(501, size=640).save(folder / "blue" / "large.png")
    Image.new("RGB", (96, 96), "white").save(folder / "green" / "blank.png")
    photo(502, "red").save(folder / "loose.png")
    (folder / "blue" / "broken.jpg").write_bytes(b"no picture")
    (folder / "blue" / "empty.png").touch()
    (folder / "notes.txt").write_text("hello")
    (folder / ".hidden.txt").write_text("hello")
    found = pyxai.audit(color_classifier(), folder)
    assert names(found, "unreadable") == ["blue/broken.jpg", "blue/empty.png"]
    assert [each.label for each in found["unreadable"]] == ["blue", "blue"]
    assert "empty file" in found["unreadable"][1].reason
    assert names(found, "no_photo") == ["notes.txt"]
    assert names(found, "no_class") == ["loose.png"]
    assert names(found, "odd_size") == ["blue/large.png"]
    assert "green/blank.png" in names(found, "low_information")
    assert "green/blank.png" in names(found, "bright")
    (worst,) = (each for each in found["label_error"] if each.path.endswith("wrong.png"))
    assert (worst.label, worst.suggested) == ("red", "green")
    assert "looks like green" in worst.reason
    margins = [each.score for each in found["label_error"]]
    assert margins == sorted(margins)
    by_class = {}
    for each in found["unusual"]:
        by_class.setdefault(each.label, []).append(each)
    assert by_class["red"][0].path.endswith("wrong.png")
    assert by_class["green"][0].path.endswith("blank.png")
    assert "loose.png" not in names(found, "unusual")  # it is in no class
    place = found.paths.index(str(folder / "loose.png"))
    assert np.isnan(found.measures["distance_ratio"][place])
    assert found.classes == {"blue": 9, "green": 9, "red": 9}
    summary = str(found)
    for text in ("label_error", "blue/broken.jpg", "33.3%", "28 photos in"):
        assert text in summary


def test_pictures_alone(folder):
    found = pyxai.audit(None, folder)
    assert (found.model, found.layer, found["unusual"], found["label_error"]) == (
        None,
        None,
        (),
        (),
    )
    assert "without a model" in found.notes[0]
    assert set(found.measures) == set(Quality._fields)
    with_model = pyxai.audit(color_classifier(), folder)
    for name in Quality._fields:
        np.testing.assert_array_equal(found.measures[name], with_model.measures[name])


def test_train_and_valid_are_one(tmp_path):
    folder_of_photos(tmp_path / "train", count=3)
    folder_of_photos(tmp_path / "valid", count=2)
    found = pyxai.audit(None, tmp_path)
    assert found.classes == {"blue": 5, "green": 5, "red": 5}
    assert found["no_class"] == ()


def test_photos_without_classes(tmp_path):
    for seed in range(6):
        photo(seed, "red").save(tmp_path / f"{seed}.png")
    photo(9, "blue", side=90, corner=(0, 0)).save(tmp_path / "other.png")
    found = pyxai.audit(color_classifier(), tmp_path, unusual=2)
    assert found.classes == {}
    assert names(found, "unusual")[0] == "other.png"
    assert len(found["unusual"]) == 2
    assert found["no_class"] == ()
    assert "two classes" in found.notes[0]


def test_each_photo_is_decoded_once(folder, monkeypatch):
    opened = []
    real = working.open_photo
    monkeypatch.setattr(
        working,
        "open_photo",
        lambda source, **options: opened.append(source) or real(source, **options),
    )
    pyxai.audit(color_classifier(), folder)
    files = [source for source in opened if isinstance(source, str)]  # others are pixels already
    assert len(files) == len(set(files)) == 24


def test_features_fit_a_budget(folder, monkeypatch):
    """With too many photos they are projected; what is unusual stays so."""
    Image.new("RGB", (96, 96), "white").save(folder / "green" / "blank.png")
    monkeypatch.setattr(photo_pass, "MAX_BYTES", 4 * 25 * 3)
    monkeypatch.setattr(photo_pass, "_FEWEST", 3)
    seen = photo_pass.look_at(
        [str(path) for path in pyxai.images.find_photos(folder)], color_classifier()
    )
    rows, described = seen.features.of(seen.paths)
    assert rows.shape == (25, 3)
    assert described.all()
    found = pyxai.audit(color_classifier(), folder)
    greens = [name for name in names(found, "unusual") if name.startswith("green")]
    assert greens[0] == "green/blank.png"


def test_the_model_stays_as_it_was_and_results_repeat(folder):
    classifier = color_classifier()
    network = classifier.network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    first = pyxai.audit(classifier, folder)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(each.grad is None and each.requires_grad for each in network.parameters())
    assert torch.equal(state, torch.get_rng_state())
    again = pyxai.audit(network and classifier, folder, batch_size=5)
    assert [each.path for each in first["unusual"]] == [each.path for each in again["unusual"]]


# ---- bad input ----


def test_small_classes_are_left_out_of_label_errors(folder):
    (folder / "grey").mkdir()
    photo(1).save(folder / "grey" / "one.png")
    found = pyxai.audit(color_classifier(), folder)
    assert found.classes["grey"] == 1
    assert "grey" in found.notes[0]
    assert "fewer than 5" in found.notes[0]
    place = found.paths.index(str(folder / "grey" / "one.png"))
    assert np.isnan(found.measures["label_margin"][place])
    assert np.isfinite(np.delete(found.measures["label_margin"], place)).all()
    assert "grey" not in {each.label for each in found["unusual"]}


@pytest.mark.parametrize("kind", ["one class", "one photo"])
def test_one_class_and_one_photo(tmp_path, kind):
    (tmp_path / "red").mkdir()
    for seed in range(6 if kind == "one class" else 1):
        photo(seed, "red").save(tmp_path / "red" / f"{seed}.png")
    found = pyxai.audit(color_classifier(), tmp_path)
    assert found["label_error"] == ()
    assert any("two classes" in note for note in found.notes)
    assert len(found["unusual"]) == (6 if kind == "one class" else 0)
    assert found.save(tmp_path / "out").is_file()


class NanNet(nn.Module):
    """Features that are not finite for photos with a white corner."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 4, 1)
        self.fc = nn.Linear(4, 2)

    def forward(self, images):
        bad = (images[:, :, 0, 0].amin(1) >= 1)[:, None, None, None]
        return self.fc(self.body(images.masked_fill(bad, float("nan"))).mean(dim=(2, 3)))


def test_features_that_are_not_finite(folder):
    Image.new("RGB", (96, 96), "white").save(folder / "green" / "blank.png")
    plain = color_classifier().preprocessing
    classifier = pyxai.Classifier(NanNet().eval(), preprocessing=plain)
    found = pyxai.audit(classifier, folder, layer="body")
    assert names(found, "no_features") == ["green/blank.png"]
    assert "green/blank.png" not in names(found, "unusual")
    assert np.isfinite(found.measures["label_margin"]).sum() == 24
    only = folder.parent / "white"
    only.mkdir()
    Image.new("RGB", (96, 96), "white").save(only / "blank.png")
    with pytest.raises(ValueError, match="layer: expected a layer with finite features"):
        pyxai.audit(classifier, only, layer="body")


def test_folders_that_cannot_be_audited(tmp_path):
    with pytest.raises(ValueError, match="photos: expected a folder of photos, got"):
        pyxai.audit(None, tmp_path / "missing")
    with pytest.raises(ImageError, match="expected a folder with photos"):
        pyxai.audit(None, tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    message = r"expected a photo that can be read, found 1, the first .*a\.jpg: .* no known format"
    with pytest.raises(ImageError, match=message):
        pyxai.audit(None, tmp_path)
    with pytest.raises(ImageError, match=message):
        pyxai.audit(color_classifier(), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, "folds: expected an int of at least 2"),
        ({"unusual": -1}, "unusual: expected an int of at least 0"),
        ({"n_neighbors": 0}, "n_neighbors: expected"),
        ({"seed": -1}, "seed: expected"),
        ({"batch_size": 1.5}, "batch_size: expected"),
        ({"layer": "nowhere"}, "nowhere"),
    ],
)
def test_arguments_that_do_not_fit(folder, options, message):
    with pytest.raises(ValueError, match=message):
        pyxai.audit(color_classifier(), folder, **options)


# ---- sheets and files ----


def test_sheets_of_many_classes_stay_small(tmp_path):
    for index in range(70):
        (tmp_path / f"{index:02d}").mkdir()
        for number in range(2):
            photo(index, "red", size=32, side=8 + number, corner=(0, 0)).save(
                tmp_path / f"{index:02d}" / f"{number}.png"
            )
    found = pyxai.audit(color_classifier(), tmp_path)
    assert len(found["unusual"]) == 140
    assert found.sheet("unusual", cell=8).height < 61 * (8 + 6 + 16)


def test_sheets(folder):
    found = pyxai.audit(color_classifier(), folder)
    sheet = found.sheet("unusual", cell=64)
    assert sheet.height > 3 * 64  # a row for each class
    assert np.asarray(sheet).std() > 10
    one = found.sheet("unusual", label="red", cell=64)
    assert 64 < one.height < sheet.height
    with pytest.raises(ValueError, match=r"label: expected one of .*, got 'purple'"):
        found.sheet("unusual", label="purple")
    ratios = [each.score for each in found["unusual"]]
    assert ratios[0] == max(ratios)
    with pytest.raises(ValueError, match=r"issue: expected one of .*closest: 'unusual'"):
        found.sheet("unusal")
    with pytest.raises(ValueError, match=r"at least one photo, got .*odd_size.*empty"):
        found.sheet("odd_size")
    with pytest.raises(ValueError, match="can be shown"):
        found.sheet("unreadable")
    with pytest.raises(ValueError, match="count: expected"):
        found.sheet("unusual", count=0)
    for path in found.paths:  # gone since
        (folder / path).unlink()
    assert found.sheet("unusual", cell=64).size == sheet.size


def test_files(folder, tmp_path):
    odd = folder / "red & <b>bold"
    (folder / "red").rename(odd)
    photo(500, "green").save(odd / "<img src=x onerror=alert(1)>.png")
    (folder / "blue" / "broken<script>.jpg").write_bytes(b"no picture")
    found = pyxai.audit(color_classifier(), folder)
    page = found.save(tmp_path / "out")
    html = page.read_text(encoding="utf-8")
    assert "<script" not in html
    assert "<b>" not in html
    assert "<img src=x" not in html
    assert "red &amp; &lt;b&gt;" in html
    assert all((page.parent / name).is_file() for name in ("findings.csv", "audit.json"))
    with (page.parent / "findings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(map(len, found.findings.values()))
    assert next(row["rank"] for row in rows if row["issue"] == "label_error") == "1"
    with (page.parent / "photos.csv").open(newline="") as file:
        photos = list(csv.DictReader(file))
    assert len(photos) == 25
    assert float(photos[0]["width"]) == 96
    record = json.loads((page.parent / "audit.json").read_text())
    assert record == json.loads(json.dumps(found.to_dict()))
    assert record["findings"]["label_error"][0]["suggested"] == "green"
    sheets = {path.stem for path in (page.parent / "sheets").iterdir()}
    shown = {issue for issue, listed in found.findings.items() if listed} - {"unreadable"}
    assert sheets == shown
    assert list((page.parent / "pictures").iterdir())
    found.save(tmp_path / "out")  # again, over itself
    assert len(list(folder.rglob("*.png"))) == 25  # nothing was moved


@pytest.mark.skipif(sys.platform != "linux", reason="names there are text")
def test_names_that_are_no_text(folder, tmp_path):
    strange = os.fsdecode(b"r\xffd")
    (folder / "red").rename(folder / strange)
    (folder / strange / os.fsdecode(b"\xfe.jpg")).write_bytes(b"no picture")
    found = pyxai.audit(color_classifier(), folder)
    assert strange in found.classes
    str(found).encode()
    page = found.save(tmp_path / "out")
    page.read_text(encoding="utf-8")
    record = json.loads((page.parent / "audit.json").read_text())
    assert record["findings"]["unreadable"][0]["path"] == found["unreadable"][0].path


# ---- the command ----


@pytest.mark.parametrize("as_json", [False, True])
def test_command(folder, tmp_path, monkeypatch, capsys, as_json):
    from pyxai.cli import main

    monkeypatch.chdir(tmp_path)
    arguments = ["pyxai", "audit", str(folder), "--model", "none", "-o", "out"]
    monkeypatch.setattr("sys.argv", arguments + ["--json"] * as_json)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    printed = capsys.readouterr().out
    assert (tmp_path / "out" / "index.html").is_file()
    if as_json:
        assert json.loads(printed)["photos"] == 24
    else:
        assert "24 photos" in printed
        assert "out/index.html" in printed


def test_command_with_the_demo_classifier(folder, tmp_path, monkeypatch, capsys):
    from pyxai.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["pyxai", "audit", str(folder), "--unusual", "1"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    record = json.loads((tmp_path / "pyxai-audit" / "audit.json").read_text())
    assert len(record["findings"]["unusual"]) == 3
    assert capsys.readouterr().err == ""


def test_command_refuses(tmp_path, monkeypatch, capsys):
    from pyxai.cli import main

    monkeypatch.setattr(
        "sys.argv", ["pyxai", "audit", str(tmp_path / "missing"), "--model", "none"]
    )
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("pyxai: error: photos: expected a folder of photos")


# ---- checkpoints ----


def test_a_stopped_audit_goes_on(folder, tmp_path, monkeypatch):
    run = tmp_path / "run"
    monkeypatch.setattr(working, "_MOST", 4)  # also for the whole: digits depend on batches
    whole = pyxai.audit(color_classifier(), folder, progress=False)
    opened, plain = [], working.open_photo

    def opening(source, *, name):
        if len(opened) == 10:
            raise KeyboardInterrupt
        opened.append(name)
        return plain(source, name=name)

    monkeypatch.setattr(working, "open_photo", opening)
    with pytest.raises(KeyboardInterrupt):
        pyxai.audit(color_classifier(), folder, checkpoint=run, progress=False)
    opened[:] = [None] * 11
    found = pyxai.audit(color_classifier(), folder, checkpoint=run, progress=False)
    assert len(opened) == 11 + 24 - 8  # two parts were whole
    assert found.to_dict() == whole.to_dict()
    opened.clear()
    assert pyxai.audit(color_classifier(), folder, checkpoint=run).to_dict() == whole.to_dict()
    assert opened == []
    with pytest.raises(ValueError, match=r"where these differ: layer$"):
        pyxai.audit(color_classifier(), folder, layer="body", checkpoint=run)
    with pytest.raises(ValueError, match=r"where these differ: network, preprocessing$"):
        pyxai.audit(None, folder, checkpoint=run)


def test_a_checkpoint_without_a_network(folder, tmp_path):
    whole = pyxai.audit(None, folder, progress=False)
    for _ in range(2):
        found = pyxai.audit(None, folder, checkpoint=tmp_path / "run", progress=False)
        assert found.to_dict() == whole.to_dict()


def test_photos_that_the_network_cannot_take(folder, tmp_path):
    """They are measured, and described by nothing; also if they are the first of all."""
    Image.new("RGB", (4000, 1), "white").save(folder / "blue" / "0-strip.png")
    resizing = color_classifier()
    resizing.preprocessing = pyxai.Preprocessing(resize=96, max_pixels=50_000)
    whole = pyxai.audit(resizing, folder, progress=False)
    for _ in range(2):
        found = pyxai.audit(resizing, folder, checkpoint=tmp_path / "run", progress=False)
        assert found.to_dict() == whole.to_dict()
    assert len(whole.paths) == 25
