"""Going through many photos: what is known is kept, nothing is kept of what is gone."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import torch
from killing import each_kill
from PIL import Image

import pyxai
from pyxai._locks import BusyError, locked
from pyxai.runs import Kind, PhotoFailure, Row, open_run, photos, working

KIND = Kind("a test's run", "test-run", "pyxai test run 1")


def picture(shade, size=(6, 4)):
    return Image.new("RGB", size, (shade, shade, shade))


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    """Files that were just written are known by size and time, as old ones are."""
    monkeypatch.setattr(photos, "_YOUNG", 0)


@pytest.fixture
def folder(tmp_path):
    """Seven photos; two have the same content, one is no photo."""
    root = tmp_path / "photos"
    root.mkdir()
    for shade in range(5):
        picture(10 * shade).save(root / f"{shade}.png")
    shutil.copy(root / "1.png", root / "copy.png")
    (root / "torn.png").write_bytes(b"no photo")
    return root


class Shades:
    """Counts what it is asked for; a row has the shade, and as many numbers as its tens."""

    def __init__(self, refuses=()):
        self.seen = []
        self.refuses = refuses

    def __call__(self, opened):
        for photo in opened:
            shade = photo.picture.getpixel((0, 0))[0]
            self.seen.append(os.path.split(photo.name)[1])
            if shade in self.refuses:
                yield PhotoFailure(photo.name, f"{shade} is refused")
                continue
            rows = {"shade": torch.tensor([shade])}
            yield Row(photo.name, [shade], rows, {"tens": torch.arange(shade // 10)[:, None]})


def go(source, directory, work=None, identity=None, **options):
    """The rows by name, the failures, and the photos that were worked on."""
    work = work or Shades()
    rows = {}
    keep = options.pop("keep", False)
    with open_run(KIND, directory, identity or {"a": 1}, keep=keep) as run:
        for part in run.parts_of(source, work, desc="test", progress=False, **options):
            shades = part.tensor("shade").flatten().tolist()
            for photo, shade, tens in zip(part.photos, shades, part.lists("tens"), strict=True):
                assert photo.about == [shade]
                assert tens.flatten().tolist() == [*range(shade // 10)]
                rows[os.path.split(photo.path)[1]] = shade
    return rows, [os.path.split(path)[1] for path, _ in run.failures], work.seen


ALL = {"0.png": 0, "1.png": 10, "2.png": 20, "3.png": 30, "4.png": 40, "copy.png": 10}


@pytest.mark.parametrize("keep", [False, True])
def test_in_memory(folder, keep):
    rows, failures, seen = go(folder, None, keep=keep)
    assert rows == ALL
    assert failures == ["torn.png"]
    assert len(seen) == (5 if keep else 6)  # a copy is known by its content


@pytest.mark.parametrize("most", [1, 2, 3, 100])
def test_in_a_folder(folder, tmp_path, monkeypatch, most):
    monkeypatch.setattr(working, "_MOST", most)
    assert go(folder, tmp_path / "run") == (ALL, ["torn.png"], [f"{i}.png" for i in range(5)])
    assert go(folder, tmp_path / "run") == (ALL, ["torn.png"], [])


def test_what_changes(folder, tmp_path):
    go(folder, tmp_path / "run")
    picture(70).save(folder / "2.png")
    picture(80).save(folder / "new.png")
    (folder / "3.png").unlink()
    (folder / "4.png").rename(folder / "four.png")
    rows, _, seen = go(folder, tmp_path / "run")
    assert rows == {
        "0.png": 0,
        "1.png": 10,
        "2.png": 70,
        "copy.png": 10,
        "four.png": 40,
        "new.png": 80,
    }
    assert seen == ["2.png", "new.png"]
    left = b"".join(path.read_bytes() for path in (tmp_path / "run").iterdir())
    assert b"3.png" not in left
    assert b"4.png" not in left
    assert go(folder, tmp_path / "run")[2] == []


def test_the_same_size_and_time(folder, tmp_path):
    """The time of the last change of a file's entry cannot be set."""
    go(folder, tmp_path / "run")
    before = (folder / "2.png").stat()
    picture(60).save(folder / "2.png")
    data = (folder / "2.png").read_bytes()
    assert len(data) == before.st_size
    os.utime(folder / "2.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert go(folder, tmp_path / "run")[0]["2.png"] == 60


def test_nothing_that_can_be_used_leaves_what_is_known(folder, tmp_path):
    go(folder, tmp_path / "run")
    assert go([folder / "gone.png"], tmp_path / "run")[0] == {}
    assert go(folder, tmp_path / "run") == (ALL, ["torn.png"], [])


def test_a_disk_that_is_not_mounted(folder, tmp_path):
    """Most photos are gone: nothing is forgotten, and it is said."""
    go(folder, tmp_path / "run")
    for name in ("0.png", "2.png", "3.png", "4.png"):
        (folder / name).rename(tmp_path / name)
    with pytest.raises(ValueError, match=r"photos: expected most .* got 4 of 6 .*not mounted"):
        go(folder, tmp_path / "run")
    for name in ("0.png", "2.png", "3.png", "4.png"):
        (tmp_path / name).rename(folder / name)
    assert go(folder, tmp_path / "run") == (ALL, ["torn.png"], [])


def test_copies_that_are_moved_away(folder, tmp_path):
    for number in range(9):
        shutil.copy(folder / "1.png", folder / f"copy-{number}.png")
    go(folder, tmp_path / "run")
    for path in folder.glob("copy*"):
        path.unlink()
    assert go(folder, tmp_path / "run")[2] == []


@pytest.mark.parametrize("wrong", ["", "a\0b", 3])
@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("checkpoint", lambda folder, wrong: pyxai.audit(None, folder, checkpoint=wrong)),
        ("store", lambda folder, wrong: pyxai.find_duplicates(folder, store=wrong)),
        (
            "checkpoint",
            lambda folder, wrong: pyxai.ClassGallery(net(), 2).fit(folder, checkpoint=wrong),
        ),
        (
            "directory",
            lambda folder, wrong: pyxai.ImageIndex.build(net(), folder, directory=wrong),
        ),
        (
            "checkpoint",
            lambda folder, wrong: pyxai.shap_summary(
                net(), folder, target="predicted", grid=3, checkpoint=wrong
            ),
        ),
    ],
)
def test_what_is_no_folder(folder, tmp_path, monkeypatch, argument, call, wrong):
    """An empty text would be the folder that one is in."""
    monkeypatch.chdir(tmp_path)
    before = {*tmp_path.iterdir()}
    with pytest.raises(ValueError, match=f"^{argument}: expected the path of a folder"):
        call(folder, wrong)
    assert {*tmp_path.iterdir()} == before


def net():
    body = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.AdaptiveAvgPool2d(1))
    return torch.nn.Sequential(body, torch.nn.Flatten(), torch.nn.Linear(4, 2))


def test_pictures_from_memory(tmp_path):
    source = [picture(10), np.zeros((4, 6, 3), np.uint8), picture(10)]
    expected = {"images[0]": 10, "images[1]": 0, "images[2]": 10}
    assert go(source, tmp_path / "run") == (expected, [], ["images[0]", "images[1]"])
    assert go(iter(source), tmp_path / "run") == (expected, [], [])
    again = {"images[0]": 0, "images[1]": 10}
    assert go([source[1], source[0]], tmp_path / "run") == (again, [], [])
    rows, failures, _ = go(source, None, Shades(refuses=[10]), keep=True)
    assert rows == {"images[1]": 0}
    assert failures == ["images[0]", "images[2]"]


def test_one_photo_at_a_time_of_a_generator(tmp_path):
    given = []

    def source():
        for shade in range(40):
            given.append(shade)
            yield picture(shade)

    class Watching(Shades):
        def __call__(self, opened):
            for row in super().__call__(opened):
                assert len(given) == len(self.seen)
                yield row

    rows, _, _ = go(source(), None, Watching())
    assert len(rows) == 40


def test_copies_of_what_is_refused(folder, tmp_path):
    work = Shades(refuses=[10])
    rows, failures, seen = go(folder, tmp_path / "run", work)
    assert rows == {name: shade for name, shade in ALL.items() if shade != 10}
    assert failures == ["1.png", "copy.png", "torn.png"]
    assert seen.count("copy.png") == 1
    assert go(folder, tmp_path / "run")[0] == ALL  # refused photos are tried again


def test_a_copy_of_a_photo_that_vanishes(folder, tmp_path, monkeypatch):
    plain = working.open_photo

    def vanishing(source, *, name):
        if name.endswith("1.png"):
            (folder / "1.png").unlink(missing_ok=True)
        return plain(source, name=name)

    monkeypatch.setattr(working, "open_photo", vanishing)
    rows, failures, _ = go(folder, tmp_path / "run")
    assert rows["copy.png"] == 10
    assert failures == ["1.png", "torn.png"]


def test_rows_that_depend_on_more_than_the_content(folder, tmp_path):
    def key_of(name):
        return "copy" if "copy" in name else "other"

    seen = go(folder, tmp_path / "run", key_of=key_of)[2]
    assert "copy.png" in seen
    assert go(folder, tmp_path / "run", key_of=key_of)[2] == []
    assert len(go(folder, tmp_path / "run", key_of=lambda name: "")[2]) == 5


def test_another_run_is_refused_and_what_differs_is_said(folder, tmp_path):
    go(folder, tmp_path / "run", identity={"a": 1, "b": [1, (2, 3)], "c": {"d": None}})
    go(folder, tmp_path / "run", identity={"a": 1, "b": (1, [2, 3]), "c": {"d": None}})
    with pytest.raises(ValueError, match=r"^checkpoint: expected a test's run .*: b, c, e$"):
        go(folder, tmp_path / "run", identity={"a": 1, "b": [1], "e": 0})


@pytest.mark.parametrize("name", ["test-run.json", "test-run-000000.json"])
def test_files_of_others(folder, tmp_path, name):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("mine")
    with pytest.raises(ValueError, match="was not written by pyxai"):
        go(folder, tmp_path / "run")
    assert (tmp_path / "run" / name).read_text() == "mine"


def test_one_run_at_a_time(folder, tmp_path):
    with locked(tmp_path / "run", "checkpoint"), pytest.raises(BusyError, match=r"^checkpoint: "):
        go(folder, tmp_path / "run")


def test_an_executor_that_is_none(folder):
    with pytest.raises(ValueError, match=r"^executor: expected one of local, got 'ray'"):
        go(folder, None, executor="ray")


def test_parts_grow_as_long_as_they_are_quick(tmp_path, monkeypatch):
    clock = iter(range(0, 100_000, 5))
    monkeypatch.setattr(working.time, "monotonic", lambda: next(clock))
    sizes = []

    class Counting(Shades):
        def __call__(self, opened):
            rows = [*super().__call__(opened)]
            sizes.append(len(rows))
            yield from rows

    source = [np.full((2, 2, 3), shade, np.uint8) for shade in range(64)]
    go(source, None, Counting(), first=1)
    assert sizes == [1, 2, 4, 8, 16, 32, 1]
    monkeypatch.setattr(working, "_SECONDS", 5)
    sizes.clear()
    go(source[:4], None, Counting(), first=2)
    assert sizes == [2, 2]


def test_killed_at_any_change_of_a_file(folder, tmp_path, monkeypatch):
    """Whatever a kill leaves is a run to go on with; photos come and go in between."""
    monkeypatch.setattr(working, "_MOST", 2)
    go(folder, tmp_path / "first")
    (folder / "0.png").unlink()
    picture(90).save(folder / "9.png")
    expected = go(folder, None, keep=True)[0]
    for count in each_kill(lambda: go(folder, tmp_path / "run"), monkeypatch):
        shutil.copytree(tmp_path / "run", tmp_path / f"{count}")
        rows, failures, seen = go(folder, tmp_path / f"{count}")
        assert rows == expected
        assert failures == ["torn.png"]
        assert not [path for path in (tmp_path / f"{count}").iterdir() if "part" in path.name]
        shutil.rmtree(tmp_path / "run")
        if seen:
            shutil.copytree(tmp_path / "first", tmp_path / "run")
