"""The command line, run as users run it."""

from __future__ import annotations

import json
import os
import warnings

import pytest
import torch
from PIL import Image

import pyxai


def shown(folder):
    return sorted(path.name for path in folder.iterdir() if path.name[0] != ".")


def test_explain_without_arguments(run, tmp_path):
    code, out, _ = run("explain")
    assert code == 0
    assert "china.jpg" in out
    assert "flower.jpg" in out
    assert "pyxai-explain" in out
    folder = tmp_path / "pyxai-explain"
    written = shown(folder)
    assert written == ["china.json", "china.overlay.png", "flower.json", "flower.overlay.png"]
    result = json.loads((folder / "china.json").read_text())
    assert result["target"]["name"] == result["top"][0]["name"] == "buildings"
    assert result["method"] == "cam"
    assert result["evidence"]["gap"] < 1e-4
    assert len(result["top"]) == 5
    probabilities = [each["probability"] for each in result["top"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert len(result["map"]["values"]) == result["map"]["height"]
    with Image.open(folder / "china.overlay.png") as picture:
        assert picture.size == (640, 427)


def test_a_second_run_explains_no_pictures_of_the_first(run, tmp_path):
    from sklearn.datasets import load_sample_image

    picture = Image.fromarray(load_sample_image("china.jpg")).resize((120, 90))
    mine = ("one.png", "more/two.png", "one.json", "two.overlay.png")
    for name in mine:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture.save(tmp_path / name, format="PNG")
    before = {name: (tmp_path / name).read_bytes() for name in mine}
    for photos in (["."], ["."], ["one.png", "more/two.png", "one-2.overlay.png"]):
        code, out, _ = run("explain", *photos, "-o", ".", "--json")
        assert code == 0
        explained = [each["photo"] for each in json.loads(out)["results"]]
        expected = ["more/two.png", "one.png"] + ["two.overlay.png"] * (photos == ["."])
        assert sorted(explained) == expected
        names = {file for each in json.loads(out)["results"] for file in each["files"].values()}
        assert {"one-2.json", "one-2.overlay.png", "two-2.json"} <= names
    assert {name: (tmp_path / name).read_bytes() for name in mine} == before
    code, _, err = run("explain", "one-2.overlay.png", "-o", ".")
    assert code == 2
    assert "photos: expected photos, got pictures that pyxai has written in '.'" in err


def test_links_are_said_once(run, tmp_path):
    from sklearn.datasets import load_sample_image

    (tmp_path / "photos").mkdir()
    Image.fromarray(load_sample_image("china.jpg")).save(tmp_path / "photos" / "a.jpg")
    (tmp_path / "photos" / "loop").symlink_to(tmp_path / "photos")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, _, err = run("explain", "photos")
    assert code == 0
    said = "pyxai: photos: links to folders are not followed: photos/loop; name these folders"
    assert err.count(said) == 1
    assert "PhotoWarning" not in err


def test_explain_own_photos(run, tmp_path):
    from sklearn.datasets import load_sample_image

    for name in ("one/photo.jpg", "two/photo.jpg"):
        path = tmp_path / name
        path.parent.mkdir()
        Image.fromarray(load_sample_image("china.jpg")).resize((200, 150)).save(path)
    (tmp_path / "two" / "broken.jpg").write_bytes(b"not a photo")
    options = ["--target", "forest", "--method", "gradcam", "-o", "out", "--json", "--top", 2]
    code, out, err = run("explain", "one", "two/photo.jpg", "two/broken.jpg", *options)
    assert code == 0  # those that failed are named
    report = json.loads(out)
    assert [each["files"]["overlay"] for each in report["results"]] == [
        "photo.overlay.png",
        "photo-2.overlay.png",
    ]
    assert {each["target"]["name"] for each in report["results"]} == {"forest"}
    assert {each["method"] for each in report["results"]} == {"gradcam"}
    assert report["results"][0]["evidence"]["gap"] is None
    assert len(report["results"][0]["top"]) == 2
    assert [each["path"] for each in report["failures"]] == ["two/broken.jpg"]
    assert "broken.jpg" in err
    assert (tmp_path / "out" / "photo-2.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "forrest"], "closest: 'forest'"),
        (["--target", "17"], "target"),
        (["--method", "gradcan"], "closest: 'gradcam'"),
        (["--layer", "stage44"], "closest: 'stage4'"),
        (["--model", "torchvison:resnet18"], "torchvision"),
        (["--model", "missing.safetensors"], "missing.safetensors"),
        (["--colormap", "embr"], "embr"),
        (["nothing.jpg"], "nothing.jpg"),
        (["--device", "abacus"], "abacus"),
    ],
    ids=str,
)
def test_bad_input_is_one_line_and_code_2(run, arguments, message):
    code, _, err = run("explain", *arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_gallery(run, tmp_path):
    from sklearn.datasets import load_sample_image

    for label, name in (("buildings", "china.jpg"), ("sea", "flower.jpg")):
        path = tmp_path / "photos" / label / name
        path.parent.mkdir(parents=True)
        Image.fromarray(load_sample_image(name)).resize((200, 150)).save(path)
    code, out, _ = run("gallery", "photos", "--per-class", 4, "--clusters", 2, "-o", "out")
    assert code == 0
    assert "crop 75: half of 150" in out
    assert "silhouette" in out
    listed = shown(tmp_path / "out")
    assert [name for name in listed if not name.startswith("features-")] == [
        *("crops", "gallery.json", "index.html", "sheets"),
    ]
    assert (tmp_path / "out" / "sheets" / "glacier.jpg").exists()
    assert pyxai.ClassGallery.load(tmp_path / "out")["buildings"][0].size == (75, 75)
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"nothing")
    Image.new("RGB", (30, 30)).save(tmp_path / "photos" / "small.png")
    options = ["--crop", 100, "--evidence", "sliding_window", "--labels", "folder", "--json"]
    code, out, err = run("gallery", "photos", *options)
    assert code == 0
    report = json.loads(out)
    assert report["crop"] == 100
    assert report["photos"] == 4
    assert report["classes"]["buildings"]["crops"] > 0
    assert report["classes"]["forest"]["crops"] == 0
    assert "broken.jpg: expected an image" in err
    assert "photos smaller than the crop: 1" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such file or folder"),
        (["empty"], "expected a folder with photos"),
        (["photo.png", "--crop", 0], "crop: expected an int of at least 1, got 0"),
        (["photo.png", "--crop", 64], "crop: expected at most the size of the photos, got 64"),
        (["photo.png", "--evidence", "shap"], "evidence: expected 'cam' or 'sliding_window'"),
        (["photo.png", "--labels", "name"], "labels: expected None or 'folder'"),
    ],
    ids=str,
)
def test_gallery_with_bad_input(run, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    Image.new("RGB", (60, 60)).save(tmp_path / "photo.png")
    code, _, err = run("gallery", *arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_windows_without_arguments(run, tmp_path):
    code, out, _ = run("windows", "--stride", 80)
    assert code == 0
    assert "china.jpg" in out
    folder = tmp_path / "pyxai-windows"
    written = shown(folder)
    kinds = ("json", "overlay.png", "windows.png")
    assert written == [f"{name}.{kind}" for name in ("china", "flower") for kind in kinds]
    result = json.loads((folder / "china.json").read_text())
    assert result["target"]["name"] == "buildings"
    windows = result["rows"] * result["columns"]
    assert windows == len(result["boxes"]) == len(result["probabilities"])
    best = result["top"][0]
    assert best["probability"] == max(result["probabilities"]) > 0.8
    assert best["box"][0] < 160  # the temple stands on the left
    assert result["agreement"] is None
    with Image.open(folder / "china.overlay.png") as picture:
        assert picture.size == (640, 427)


def test_windows_of_own_photos(run, tmp_path):
    from sklearn.datasets import load_sample_image

    china = Image.fromarray(load_sample_image("china.jpg"))
    china.resize((200, 150)).save(tmp_path / "photo.jpg")
    china.resize((60, 40)).save(tmp_path / "tiny.jpg")
    options = ["--window", "64x80", "--stride", 30, "--target", "sea", "--resize", 96]
    photos = ("photo.jpg", "tiny.jpg")
    code, out, err = run(
        "windows", *photos, *options, "--mode", "dense", "--top", 2, "-o", "out", "--json"
    )
    assert code == 0
    report = json.loads(out)
    (result,) = report["results"]
    assert result["mode"] == "dense"
    assert result["layer"] == "stage4"
    assert result["target"]["name"] == "sea"
    x0, y0, x1, y1 = result["boxes"][-1]
    assert (x1, y1, x1 - x0, y1 - y0) == (200, 150, 80, 64)
    assert len(result["top"]) <= 2
    assert -1 <= result["agreement"]["rank_correlation"] <= 1
    assert report["failures"][0]["path"] == "tiny.jpg"
    assert "expected at least the window, 64 × 80, found 40 × 60" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--window", "big"], "window: expected pixels such as 160"),
        (["--window", "0"], "window: "),
        (["--stride", "0"], "stride: "),
        (["--mode", "sparse"], "mode: "),
        (["--target", "forrest"], "closest: 'forest'"),
        (["nothing.jpg"], "nothing.jpg"),
    ],
    ids=str,
)
def test_windows_bad_input_is_one_line_and_code_2(run, arguments, message):
    code, _, err = run("windows", *arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_info(run):
    code, out, _ = run("info")
    assert code == 0
    assert pyxai.__version__ in out
    assert torch.__version__ in out
    assert "kernels (available: baseline" in out
    assert "CUDA" in out
    code, out, _ = run("info", "--json")
    facts = json.loads(out)
    assert facts["simd"]["used"] in facts["simd"]["available"]
    cuda = facts["cuda"]
    assert (cuda["problem"] is None) == bool(cuda["devices"])


def test_help(run):
    code, out, _ = run("--help")
    assert code == 0
    for command in ("explain", "gallery", "info"):
        assert command in out


def test_exit_codes(run, tmp_path):
    """0 with failures named, 1 when nothing could be done, 2 for what was asked for wrongly."""
    Image.new("RGB", (64, 64)).save(tmp_path / "good.png")
    (tmp_path / "broken.png").write_bytes(b"nothing")
    (tmp_path / "empty").mkdir()
    for photos, expected in (
        (["good.png", "broken.png"], 0),
        (["broken.png"], 1),
        (["nowhere.png"], 2),
        (["empty"], 2),
    ):
        for command in (["explain"], ["search", "build", "--layer", "stage4"]):
            code, _, err = run(*command, *photos, "-o", command[0])
            assert (code, photos[-1] in err) == (expected, True)


def test_results_of_other_photos_and_commands_stay(run, tmp_path):
    for name, color in (("a", "red"), ("b", "green")):
        (tmp_path / name).mkdir()
        Image.new("RGB", (64, 64), color).save(tmp_path / name / "1.png")
    assert run("explain", "a/1.png", "-o", "out")[0] == 0
    first = {path: path.read_bytes() for path in (tmp_path / "out").glob("[!.]*")}
    for command in ("explain", "windows"):
        assert run(command, "b/1.png", "-o", "out")[0] == 0
    assert {path: path.read_bytes() for path in first} == first
    told = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")]
    assert sorted(each["photo"] for each in told) == ["a/1.png", "b/1.png", "b/1.png"]
    count = len([*(tmp_path / "out").iterdir()])
    for command in ("explain", "windows"):  # once more: each replaces its own
        assert run(command, "b/1.png", "-o", "out")[0] == 0
    assert len([*(tmp_path / "out").iterdir()]) == count
    assert run("audit", "b", "--model", "none", "-o", "out")[0] == 0
    assert {path: path.read_bytes() for path in first} == first


@pytest.mark.parametrize("command", ["train", "fit"])
def test_a_place_that_cannot_be_written_to_is_said_at_once(run, tmp_path, command, monkeypatch):
    (tmp_path / "a").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "a" / "1.png")
    monkeypatch.setattr("os.access", lambda path, mode, **_: mode != os.W_OK)
    arguments = {"train": ("train", ".", "-o"), "fit": ("novelty", "fit", "a", "--head")}
    code, _, err = run(*arguments[command], "a/x.safetensors")
    assert code == 2
    assert "expected a folder to write to, got" in err


def test_version(run):
    assert run("--version") == (0, f"pyxai {pyxai.__version__}\n", "")


def test_ctrl_c(run, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pyxai.cli.info.report", stop)
    code, _, err = run("info")
    assert code == 130
    assert err == "pyxai: stopped; what was written stays\n"


@pytest.mark.parametrize("command", ["explain", "windows", "shap", "undesirable"])
def test_a_file_where_results_should_go(run, tmp_path, command):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "file").write_text("mine")
    code, _, err = run(command, "a.png", "-o", "file/results")
    assert code == 2
    assert err.startswith("pyxai: error: --output: expected a folder, got the file ")
