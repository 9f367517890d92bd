"""`pyxai search`, run as users run it."""

from __future__ import annotations

import json
import sys

import pytest
from gallery_photos import folder_of_photos
from PIL import Image

from pyxai._locks import locked
from pyxai.cli import main


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return folder_of_photos(tmp_path_factory.mktemp("photos") / "colours", count=2, size=64)


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs `pyxai search ...` in a folder of its own: (exit code, output, errors)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["pyxai", "search", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return stopped.value.code or 0, captured.out, captured.err

    return call


def test_build_query_and_evaluate(run, photos, tmp_path):
    code, out, _ = run("build", photos, "-o", "index")
    assert code == 0
    assert "stage4" in out
    assert "6 photos in index/" in out
    code, out, _ = run("query", "index", "--photo-id", 0, "-k", 3, "-o", "sheets", "--json")
    assert code == 0
    (found,) = json.loads(out)
    assert found["query"]["id"] == 0
    assert len(found["results"]) == 3
    with Image.open(tmp_path / "sheets" / "0.alike.png") as sheet:
        assert sheet.width > 300
    photo = photos / "red" / "1.png"
    code, out, _ = run("query", "index", photo, "--metric", "minkowski", "--layer", "stem")
    assert code == 0
    assert "minkowski p=3" in out
    assert "100.0 %" in out
    code, out, _ = run("query", "index", photo, "--box", 0, 0, 32, 32)
    assert code == 0
    code, out, _ = run("evaluate", "index", "-k", 1, "--metric", "cosine", "--classes")
    assert code == 0
    assert "R-precision" in out
    assert "green" in out
    code, out, _ = run("evaluate", "index", "--bootstrap", 0, "--json")
    assert json.loads(out)["rows"][0]["measures"]["mAP"]["low"] is None


def test_photos_that_are_gone(run, tmp_path):
    folder = folder_of_photos(tmp_path / "mine", count=2, size=48)
    build = ("build", folder, "--layer", "stem", "-o", "index")
    assert run(*build)[0] == 0
    (folder / "red" / "0.png").unlink()
    code, out, err = run(*build)
    assert code == 0
    assert "5 photos in index/" in out
    assert f"pyxai: removed: {folder}/red/0.png\npyxai: photos removed: 1\n" in err
    code, out, err = run("remove", "index", folder / "red" / "1.png")
    assert (code, out) == (0, "4 photos in index/\n")
    assert f"pyxai: removed: {folder}/red/1.png" in err
    code, _, err = run("remove", "index", folder / "red" / "1.png")
    assert code == 2
    assert "error: paths: expected photos of the index" in err
    (folder / "blue").rename(tmp_path / "blue")
    (folder / "green" / "0.png").unlink()
    code, _, err = run(*build)
    assert code == 2
    assert "got 3 of 4 that are not there any more" in err or "got 3 of 5" in err
    code, out, _ = run(*build, "--allow-removal", "--json")
    assert sorted(json.loads(out)["removed"])[0] == f"{folder}/blue/0.png"


def test_a_folder_that_is_busy(run, photos, tmp_path):
    with locked(tmp_path / "index", "directory"):
        code, _, err = run("build", photos, "--layer", "stem", "-o", "index")
    assert code == 1
    assert "error: directory: expected a folder that no other run works in" in err


def test_photos_that_cannot_be_read(run, photos, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    code, out, err = run("build", photos, "broken.png", "--layer", "stem", "--json")
    assert code == 0
    assert json.loads(out)["failures"][0]["path"] == "broken.png"
    assert "pyxai: not read: broken.png" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("query", "nowhere", "--photo-id", 0), "directory: expected a folder with an index"),
        (("query", "nowhere"), "query: expected photos, or ids"),
        (("evaluate", "nowhere"), "directory: expected a folder with an index"),
        (("build", "nowhere"), "nowhere: no such file"),
        (("build", ".", "--pooling", "mean"), "pooling: expected one of"),
    ],
)
def test_what_a_user_can_mend_is_one_line(run, arguments, message):
    code, _, err = run(*arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_an_index_of_another_network(run, photos):
    run("build", photos, "-o", "index", "--layer", "stem")
    code, _, err = run("query", "index", photos / "red" / "0.png", "--layer", "steem")
    assert code == 2
    assert "closest: 'stem'" in err


def test_sheets_of_photos_of_one_name(run, photos, tmp_path):
    assert run("build", photos, "--layer", "stem", "-o", "index")[0] == 0
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (64, 64), (name == "one" and "red") or "blue").save(
            tmp_path / name / "a.png"
        )
        assert run("query", "index", f"{name}/a.png", "-o", "out")[0] == 0
    names = sorted(path.name for path in (tmp_path / "out").glob("[!.]*"))
    assert names == ["a-2.alike.png", "a.alike.png"]
