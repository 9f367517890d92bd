"""The command line, run as users run it."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from PIL import Image

import pyxai
from pyxai.cli import main


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs `pyxai ...` in a folder of its own: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["pyxai", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        code = stopped.value.code
        captured = capsys.readouterr()
        return code or 0, captured.out, captured.err

    return call


def test_explain_without_arguments(run, tmp_path):
    code, out, _ = run("explain")
    assert code == 0
    assert "china.jpg" in out
    assert "flower.jpg" in out
    assert "pyxai-explain" in out
    folder = tmp_path / "pyxai-explain"
    written = sorted(path.name for path in folder.iterdir())
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


def test_explain_own_photos(run, tmp_path):
    from sklearn.datasets import load_sample_image

    for name in ("one/photo.jpg", "two/photo.jpg"):
        path = tmp_path / name
        path.parent.mkdir()
        Image.fromarray(load_sample_image("china.jpg")).resize((200, 150)).save(path)
    (tmp_path / "two" / "broken.jpg").write_bytes(b"not a photo")
    options = ["--target", "forest", "--method", "gradcam", "-o", "out", "--json", "--top", 2]
    code, out, err = run("explain", "one", "two/photo.jpg", "two/broken.jpg", *options)
    assert code == 1  # some failed
    report = json.loads(out)
    assert [each["files"]["overlay"] for each in report["results"]] == [
        "photo.overlay.png",
        "photo-2.overlay.png",
    ]
    assert {each["target"]["name"] for each in report["results"]} == {"forest"}
    assert {each["method"] for each in report["results"]} == {"gradcam"}
    assert report["results"][0]["evidence"]["gap"] is None
    assert len(report["results"][0]["top"]) == 2
    assert [each["photo"] for each in report["failures"]] == ["two/broken.jpg"]
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
    assert "explain" in out
    assert "info" in out
