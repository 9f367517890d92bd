"""Methods side by side, repeated hold-outs, active neurons, the histogram and the commands."""

from __future__ import annotations

import csv
import json
import sys

import numpy as np
import pytest
import torch
from networks import SmallNet
from PIL import Image
from torch import nn

import pyxai
from pyxai import Classifier, Preprocessing, active_share
from pyxai.cli import main
from pyxai.draw import histogram
from pyxai.novelty import KNN, METHODS, Logistic, NoveltyDetector, compare, holdout


@pytest.fixture
def clf():
    return Classifier(SmallNet().eval(), preprocessing=Preprocessing((0.5,) * 3, (0.5,) * 3))


@pytest.fixture
def sets():
    known = torch.randn(100, 3, 16, 16)
    novel = torch.randn(25, 3, 16, 16) * 2 + 1
    return known[:70], known[70:], novel, torch.randn(15, 3, 16, 16) + 1


# ---- compare ----


def test_all_methods_from_one_forward_pass(clf, sets):
    fit_on, known, novel, novel_fit = sets
    passed = []
    handle = clf.network.register_forward_hook(lambda *given: passed.append(len(given[1][0])))
    labels = np.arange(70) % 7  # untrained, it takes all for one class
    found = compare(clf, fit_on, known, novel, novel_fit=novel_fit, labels=labels, bootstrap=20)
    handle.remove()
    assert set(found.results) == set(METHODS)
    assert not found.skipped
    assert sum(passed) == 70 + 30 + 25 + 15 + 5  # five find the last linear layer
    aurocs = [each.auroc.value for each in found.results.values()]
    assert aurocs == sorted(aurocs, reverse=True)
    # The same numbers as one detector by itself.
    for method in ("knn", "vim", "lof", "logistic"):
        detector = NoveltyDetector(clf, method=method, holdout=0)
        detector.fit(fit_on, novel_fit if method == "logistic" else None)
        np.testing.assert_allclose(
            found.scores[method][1], detector.score_samples(novel), rtol=1e-3, atol=1e-3
        )
    text = str(found)
    assert text.splitlines()[0].split()[:2] == ["method", "AUROC"]
    assert len(text.splitlines()) == 1 + len(METHODS)
    json.dumps(found.to_dict())


def test_what_cannot_be_had_is_skipped(clf, sets):
    fit_on, known, novel, _ = sets
    found = compare(
        clf,
        fit_on,
        known,
        novel,
        layer="stage2",
        methods=["knn", KNN(), KNN(k=1), "vim", "energy", "logistic"],
        bootstrap=0,
    )
    assert {*found.results} == {"knn", "knn-1", "knn(k=1)", "energy"}
    assert {*found.skipped} == {"vim", "logistic"}
    assert "novel_fit" in found.skipped["logistic"]
    assert "vim: not available: layer: expected" in str(found)
    with pytest.raises(ValueError, match="fit_on"):
        compare(clf, fit_on[:0], known, novel)
    with pytest.raises(ValueError, match="method"):
        compare(clf, fit_on, known, novel, methods=["nonsense"])


# ---- hold-outs ----


def test_holdout():
    random = np.random.default_rng(0)
    known, novel = random.normal(size=(80, 6)), random.normal(size=(40, 6)) + 2
    head = Logistic(C=(1,), tol=(1e-4,))
    found = holdout(None, known, novel, method=head, splits=6, seed=1)
    assert found.accuracies.shape == (6,)
    assert found.accuracies.min() > 0.9
    low, high = found.interval
    assert low <= found.mean <= high
    again = holdout(None, known, novel, method=head, splits=6, seed=1)
    np.testing.assert_array_equal(found.accuracies, again.accuracies)
    assert len(found.reports) == 6
    assert f"accuracy {found.mean:.4f}" in str(found)
    assert "6 splits that hold 30% of 80 known and 40 novel images out" in str(found)
    json.dumps(found.to_dict())
    for options, words in (
        ({"splits": 0}, "splits"),
        ({"share": 1.0}, "share"),
        ({"share": 2}, "share"),
    ):
        with pytest.raises(ValueError, match=words):
            holdout(None, known, novel, **options)
    with pytest.raises(ValueError, match="novel: expected at least 5 images for 3 folds"):
        holdout(None, known, novel[:4])


# ---- shares of active neurons ----


def test_active_share_by_hand():
    rows = np.array([[1.0, -1.0, 0.0, 2.0], [1.0, 1.0, 1.0, -3.0]], np.float32)
    found = active_share(None, {"one": rows[:1], "both": rows})
    assert found.shares["one"].tolist() == [0.5]
    assert found.shares["both"].tolist() == [0.5, 0.75]
    facts = found.to_dict()["groups"]["both"]
    assert (facts["images"], facts["smallest"], facts["largest"]) == (2, 0.5, 0.75)
    assert facts["median"] == facts["mean"] == 0.625
    assert "62.5%" in str(found)
    assert found.figure().size[0] == 664


def test_active_share_of_layers(clf, sets):
    images = sets[0]
    by_default = active_share(clf, images, batch_size=7)
    assert by_default.layer == "fc (input)"
    named = active_share(clf, images, "stage1", batch_size=30)
    expected = (clf.activations(images, "stage1")["stage1"] > 0).double().mean(dim=(1, 2, 3))
    np.testing.assert_allclose(named.shares["images"], expected.numpy())
    # A linear layer is not averaged, and neither is a map of positions.
    scores = active_share(clf, images, "fc").shares["images"]
    np.testing.assert_allclose(scores, (clf(images) > 0).double().mean(dim=1).numpy())


def test_active_share_of_nothing(clf):
    with pytest.raises(ValueError, match="at least one image"):
        active_share(clf, {})
    with pytest.raises(ValueError, match="closest"):
        active_share(clf, torch.randn(1, 3, 32, 32), "stage")
    with pytest.raises(ValueError, match="layer"):
        active_share(clf, torch.randn(4, 3, 32, 32), "absent")

    class Scalar(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Identity()
            self.fc = nn.Linear(3, 2)

        def forward(self, x):
            self.inner(x.mean())
            return self.fc(x.mean(dim=(2, 3)))

    with pytest.raises(ValueError, match="numbers for each image"):
        active_share(Scalar(), torch.randn(4, 3, 8, 8), "inner")


# ---- the picture ----


def test_histogram():
    page = histogram({"a": [0.0, 0.0, 1.0], "b": np.array([1.0])}, bins=2, size=(200, 50))
    pixels = np.asarray(page).astype(int)
    blue = (pixels == (0, 0x72, 0xB2)).all(axis=2)
    orange = (pixels == (0xD5, 0x5E, 0)).all(axis=2)
    # Bars of the left and the right half; the right one is half as high as the left.
    bars = [blue[:, 30:40].all(axis=1).sum(), blue[:, 150:160].all(axis=1).sum()]
    assert 0.45 < bars[1] / bars[0] < 0.55
    assert orange[:, 150:160].all(axis=1).sum() == bars[0] * 3 // 2  # all of b
    assert not orange[:, 30:40].all(axis=1).any()
    assert histogram({"same": [3.0, 3.0]}, line=7.0).size == (664, 158)
    for bad in ({}, {"a": []}, {"a": [np.nan]}):
        with pytest.raises(ValueError, match="groups"):
            histogram(bad)
    with pytest.raises(ValueError, match="bins"):
        histogram({"a": [1]}, bins=0)


# ---- the commands ----


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["pyxai", "novelty", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return stopped.value.code or 0, captured.out, captured.err

    random = np.random.default_rng(0)
    for number in range(12):
        pixels = random.integers(0, 256, (40, 40, 3))
        for name, shift in (("known", 0), ("novel", 1)):
            place = tmp_path / name / ("sea" if number % 2 else "street")
            place.mkdir(parents=True, exist_ok=True)
            image = pixels // 4 + 90 if shift else pixels
            Image.fromarray(image.astype(np.uint8)).save(place / f"{number:02d}.png")
    return call


def test_fit_score_evaluate(run, tmp_path):
    code, out, err = run("fit", "known", "--method", "mahalanobis", "--labels", "folder")
    assert (code, err) == (0, "")
    assert "mahalanobis" in out
    assert (tmp_path / "novelty.safetensors").is_file()
    (tmp_path / "known" / "sea" / "broken.png").write_bytes(b"")
    code, out, err = run("score", "known/sea", "novel/sea", "-o", "out", "--shown", "4")
    assert code == 0
    assert "broken.png" in err
    assert "12 photos" in out
    with (tmp_path / "out" / "scores.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    record = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert [row["photo"] for row in rows] == [each["photo"] for each in record["results"]]
    assert [float(row["score"]) for row in rows] == [each["score"] for each in record["results"]]
    assert all(
        (row["known"] == "1") == (float(row["score"]) >= record["threshold"]) for row in rows
    )
    assert [each["path"] for each in record["failures"]] == ["known/sea/broken.png"]
    with Image.open(tmp_path / "out" / "sheet.png") as picture:
        assert picture.size == (4 * 166 + 6, 2 * 182 + 6)
    (tmp_path / "known" / "sea" / "broken.png").unlink()
    code, out, _ = run("evaluate", "--known", "known", "--novel", "novel", "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["known"], found["novel"]) == (12, 12)
    assert found["auroc"]["low"] <= found["auroc"]["value"]
    code, out, _ = run("evaluate", "--known", "known", "--novel", "novel", "--bootstrap", "0")
    assert "novel accepted when 95 % of known are accepted" in out


def test_logistic_on_the_command_line(run):
    code, out, _ = run("fit", "known", "--novel", "novel", "--head", "head.st", "--json")
    facts = json.loads(out)
    assert (code, facts["method"], facts["threshold"]) == (0, "logistic", 0.0)
    code, out, _ = run("score", "novel", "--head", "head.st", "--json")
    results = json.loads(out)["results"]
    assert not any(each["known"] for each in results)


def test_bad_input_on_the_command_line(run, tmp_path):
    for arguments, words in (
        (("fit", "known", "--method", "knnn"), "closest: 'knn'"),
        (("fit", "known", "--head", "no/such/folder"), "--head"),
        (("fit", "known", "--method", "logistic"), "novel examples"),
        (("fit", "nowhere"), "no such file"),
        (("score", "known"), "path: expected a file saved by NoveltyDetector.save"),
        (("score", "known", "--head", "known/sea/01.png"), "path: expected a file"),
    ):
        code, _, err = run(*arguments)
        assert code == 2, arguments
        assert words in err
        assert "Traceback" not in err
    (tmp_path / "known" / "street").rename(tmp_path / "known" / "harbour")
    code, _, err = run("fit", "known", "--method", "mahalanobis", "--labels", "folder")
    assert code == 2
    assert "labels: expected a class name, got 'harbour'" in err
    assert pyxai.novelty is not None
