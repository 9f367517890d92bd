"""A file is one photo, whatever its names: links, hard links, spellings, odd names."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
from duplicate_photos import quick, scene

from pyxai._files import write_json
from pyxai.curate import duplicates as package
from pyxai.curate.duplicates.names import below, distinct, lies_in, place
from pyxai.images import ImageError, PhotoWarning
from pyxai.runs import working

EXACT = {"methods": ["exact"]}
ODD = [os.fsdecode(b"\xff\xfe.png"), 'a\nb, "c".png', " — é.png"]


@pytest.fixture
def folder(tmp_path):
    """A folder with two photos."""
    root = tmp_path / "photos"
    root.mkdir()
    for seed in range(2):
        scene(seed).save(root / f"{seed}.png")
    return root


# ---- one file, one photo ----


@pytest.mark.parametrize("make", ["link", "relative link", "link to a link", "hard link"])
def test_another_name_is_no_copy(folder, make):
    """Such a group would lose its photo when its copy went."""
    other = folder / "- other.png"
    if make == "link":
        other.symlink_to(folder / "0.png")
    elif make == "relative link":
        other.symlink_to("0.png")
    elif make == "link to a link":
        (folder / "z.png").symlink_to("0.png")
        other.symlink_to("z.png")
    else:
        other.hardlink_to(folder / "0.png")
    found = quick(folder, **EXACT)
    assert found.groups == ()
    assert found.photos == 2
    names = {path: {Path(name).name for name in more} for path, more in found.aliases.items()}
    expected = {other.name, "z.png"} if make == "link to a link" else {other.name}
    first = other if make == "hard link" else folder / "0.png"  # the one that is no link
    expected = {"0.png"} if make == "hard link" else expected
    assert names == {str(first): expected}
    assert "which are no copies" in str(found)
    assert found.to_dict()["aliases"] == {key: [*value] for key, value in found.aliases.items()}


def test_another_spelling_is_no_copy(folder, monkeypatch):
    (folder / "q").mkdir()
    spelled = folder / "q" / ".." / "0.png"
    for paths in ([spelled, folder / "0.png"], [folder / "0.png", spelled]):
        found = quick([*paths, folder / "1.png"], **EXACT)
        assert found.photos == 2
        assert found.groups == ()
        assert found.aliases == {}
    assert [*distinct([spelled, folder / "0.png"])] == [folder / "0.png"]
    monkeypatch.chdir(folder)
    assert quick(["0.png", folder / "0.png", "./0.png", folder], **EXACT).photos == 2
    (folder.parent / "link").symlink_to(folder)
    assert quick([folder, folder.parent / "link"], **EXACT).photos == 2


def test_a_file_and_its_links_alone(tmp_path):
    """Nothing to compare, but an answer."""
    scene(0).save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    for methods in (["exact"], ["exact", "hash"]):
        found = quick(tmp_path, methods=methods)
        assert (found.photos, found.groups) == (1, ())
        assert found.aliases == {str(tmp_path / "a.png"): (str(tmp_path / "b.png"),)}


def test_links_that_lead_to_copies(folder):
    """A copy with a link to it is one copy, and the link is said to be one."""
    shutil.copy(folder / "0.png", folder / "2.png")
    (folder / "3.png").symlink_to("2.png")
    (folder / "nowhere.png").symlink_to("gone.png")
    found = quick(folder, **EXACT)
    (group,) = found.groups
    assert group.paths == (str(folder / "0.png"), str(folder / "2.png"))
    assert group.aliases == (str(folder / "3.png"),)
    assert found.photos == 3
    ((bad, reason),) = found.failures
    assert (Path(bad).name, reason) == ("nowhere.png", "no such file")


@pytest.mark.parametrize("make", [Path.symlink_to, Path.hardlink_to])
def test_a_file_in_two_parts_by_its_names_is_a_leak(tmp_path, make):
    """Without copies, but the classifier sees it in training and validation."""
    for part in ("train/cat", "valid/cat", "valid/dog"):
        (tmp_path / part).mkdir(parents=True)
    scene(0).save(tmp_path / "train/cat/a.png")
    scene(1).save(tmp_path / "train/cat/b.png")
    make(tmp_path / "valid/cat/a.png", tmp_path / "train/cat/a.png")
    found = quick(tmp_path, **EXACT)
    (leak,) = found.leaks
    assert (leak.splits, leak.labels, leak.copies) == (("train", "valid"), ("cat",), ())
    assert {leak.keep, *leak.aliases} == {
        str(tmp_path / f"{p}/cat/a.png") for p in ("train", "valid")
    }
    assert found.copies == ()
    make(tmp_path / "valid/dog/b.png", tmp_path / "train/cat/b.png")
    (conflict,) = quick(tmp_path, **EXACT).conflicts
    assert conflict.labels == ("cat", "dog")
    found.save(tmp_path / "found.csv")
    with (tmp_path / "found.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [(row["keep"], row["stage"], row["leak"]) for row in rows] == [
        ("1", "", "1"),
        ("1", "link", "1"),
    ]
    assert found.figure(cell=40).size[0] > 40


# ---- several folders ----


def test_relative_and_absolute_folders_together(tmp_path, monkeypatch):
    for part in ("train/cat", "valid/cat", "elsewhere"):
        (tmp_path / part).mkdir(parents=True)
        scene(0).save(tmp_path / part / "a.png")
    monkeypatch.chdir(tmp_path / "elsewhere")
    for sources in (
        ["../train", str(tmp_path / "valid")],
        [tmp_path / "train", "../valid"],
        ["../train", "../valid"],
        [tmp_path / "elsewhere" / ".." / "train", tmp_path / "valid"],
    ):
        found = quick(sources, **EXACT)
        assert Path(found.root) == tmp_path
        (group,) = found.groups
        assert group.splits == ("train", "valid")
        assert group.labels == ("cat",)
    moved = found.move_copies(tmp_path / "away")
    assert [*moved] == [str(tmp_path / "away" / "valid" / "cat" / "a.png")]


def test_folders_on_several_drives_are_refused_before_anything_is_read(folder, monkeypatch):
    def fails(paths):
        raise ValueError("Paths don't have the same drive")

    monkeypatch.setattr(os.path, "commonpath", fails)
    monkeypatch.setattr(working, "open_photo", lambda *given, **named: pytest.fail("read"))
    with pytest.raises(ValueError, match="photos: expected folders on one drive"):
        quick([folder / "0.png", folder / "1.png"])


def test_places(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert place(tmp_path / "link" / "a") == tmp_path / "real" / "a"
    assert below("x/train/a.png", "x") == Path("train/a.png")
    assert below(f"{tmp_path}/link/../b/c.png", tmp_path) == Path("b/c.png")
    with pytest.raises(ValueError, match="/c"):
        below("/a/b", "/c")
    assert lies_in(tmp_path / "link" / "new", tmp_path / "real")
    assert lies_in(tmp_path / "real" / "new", tmp_path / "link")
    assert lies_in(tmp_path / "link", tmp_path)
    assert not lies_in(tmp_path, tmp_path / "link")
    assert not lies_in(tmp_path / "real2", tmp_path / "real")


# ---- names that are hard to write ----


def test_odd_names_survive(tmp_path):
    root = tmp_path / ODD[1].replace(".png", "")
    for label in ("a\nb", os.fsdecode(b"\xfe")):
        (root / label).mkdir(parents=True)
        for name in ODD:
            scene(0).save(root / label / name)
    (root / "link.png").symlink_to(root / "a\nb" / ODD[0])
    store = tmp_path / "store"
    found = quick(root, store=store)
    (group,) = found.groups
    assert len(group.copies) == 5
    assert quick(root, store=store).to_dict() == found.to_dict()
    found.save(tmp_path / "a.json")
    written = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert [each["path"] for each in written["groups"][0]["copies"]] == [*found.copies]
    found.save(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = [*csv.DictReader(file)]
    assert {row["path"] for row in rows} == {*group.paths, *group.aliases}
    found.figure(cell=40).save(tmp_path / "sheet.png")
    assert len(str(found).splitlines()) == 5
    with pytest.warns(PhotoWarning, match="1 of 5 copies were not moved: .* has other names"):
        moved = found.move_copies(tmp_path / "away")
    assert len(moved) + len(moved.failures) == 5
    assert all(Path(path).is_file() for path in moved)
    left = {path for path, _ in moved.failures}
    assert {*package.move_back(tmp_path / "away")} == {*found.copies} - left


# ---- reports ----


def test_nothing_but_a_report_is_replaced(folder, tmp_path):
    found = quick(folder, **EXACT)
    for name in ("a.json", "a.csv"):
        path = tmp_path / name
        path.touch()
        found.save(path)
        found.save(path)  # one of ours
        path.write_text("id,label\n1,cat\n")
        with pytest.raises(ValueError, match="or that of a saved Duplicates"):
            found.save(path)
        assert path.read_text() == "id,label\n1,cat\n"
    write_json(tmp_path / "a.json", {"labels": [1]})
    shutil.copy(folder / "0.png", tmp_path / "a.csv")
    for name in ("a.json", "a.csv"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(ValueError, match="which is something else"):
            found.save(tmp_path / name)
        assert (tmp_path / name).read_bytes() == before


def test_a_photo_that_changes_while_it_is_read(folder, tmp_path, monkeypatch):
    """Its record would say what the photo before it was, for good."""
    plain = working.open_photo

    def changes(source, *, name):
        photo = plain(source, name=name)
        if Path(name).name == "0.png":
            scene(7).save(name)
        return photo

    scene(2).save(folder / "2.png")
    store = tmp_path / "store"
    with monkeypatch.context() as patch:
        patch.setattr(working, "open_photo", changes)
        found = quick(folder, store=store)
    assert found.failures == ((str(folder / "0.png"), "changed while it was read"),)
    assert quick(folder, store=store).to_dict() == quick(folder).to_dict()


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ImageError, match="no such file or folder"):
        quick([tmp_path / "nowhere", "elsewhere"])
