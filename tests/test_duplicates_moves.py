"""Copies that are moved away and back: nothing is lost or overwritten, whoever stops or meddles."""

from __future__ import annotations

import json
import os
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from duplicate_photos import COPIES, make_copies, moved_names, no_link, quick, scene, tree

from pyxai._locks import LOCK
from pyxai.curate.duplicates import move_back, relocate
from pyxai.curate.duplicates.journal import JOURNAL
from pyxai.images import PhotoWarning

ROOT = Path(__file__).resolve().parent.parent
EXACT = {"methods": ["exact"]}


@pytest.fixture
def photos(tmp_path):
    return make_copies(tmp_path / "photos")


@pytest.fixture
def away(tmp_path):
    return tmp_path / "away"


@pytest.fixture(params=["link", "copy"])
def way(request, monkeypatch):
    """By a second name, or by a copy as across file systems."""
    if request.param == "copy":
        monkeypatch.setattr(os, "link", no_link)


# ---- there and back ----


def test_there_and_back(photos, away, way):
    before = tree(photos)
    found = quick(photos, **EXACT)
    moved = found.move_copies(away)
    assert [*moved] == [str(away / Path(path).relative_to(photos)) for path in found.copies]
    assert moved.failures == ()
    assert moved_names(away) == COPIES
    assert {**tree(photos), **{name: tree(away)[name] for name in COPIES}} == before
    assert quick(photos, **EXACT).groups == ()
    assert sorted(move_back(away)) == sorted(found.copies)
    assert tree(photos) == before
    assert [path.name for path in away.iterdir() if path.is_file()] == [LOCK]
    assert move_back(away) == ()


def test_every_move_is_written_down_before(photos, away, monkeypatch):
    """And on the disk: what was written is synced before the first name changes."""
    found = quick(photos, **EXACT)
    plain, synced, seen = relocate.relocate, [], []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_ino))

    def watched(here, there, *more):
        journal = away / JOURNAL
        assert synced[-1 if seen else -2] == journal.stat().st_ino
        last = json.loads(journal.read_text().splitlines()[-1])
        assert (last["home"], last["name"]) == (str(here), str(there.relative_to(away)))
        seen.append(len(journal.read_bytes()))
        plain(here, there, *more)

    monkeypatch.setattr("pyxai.curate.duplicates.moving.relocate", watched)
    found.move_copies(away)
    assert len(seen) == 4
    steps = {after - before for before, after in pairwise(seen)}
    assert max(steps) < 700  # it grows by lines, and is not written anew


def test_a_folder_that_was_moved_itself(photos, away, tmp_path):
    before = tree(photos)
    quick(photos, **EXACT).move_copies(away)
    away.rename(tmp_path / "elsewhere")
    shutil.rmtree(photos / "b")
    assert len(move_back(tmp_path / "elsewhere")) == 4
    assert tree(photos) == before


def test_from_another_working_directory(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = quick("photos", **EXACT)
    monkeypatch.chdir(photos)
    assert len(found.move_copies("../away")) == 4
    assert moved_names(tmp_path / "away") == COPIES
    monkeypatch.chdir("/")
    assert len(move_back(tmp_path / "away")) == 4


# ---- links ----


def test_links_are_never_moved(photos, away, tmp_path):
    outside = tmp_path / "outside.png"
    shutil.copy(photos / "0.png", outside)
    (photos / "0 link.png").symlink_to(outside)
    before = tree(photos)
    found = quick(photos, **EXACT)
    with pytest.warns(PhotoWarning, match=r"1 of 5 copies .* link\.png is a link"):
        moved = found.move_copies(away)
    assert moved.failures == ((str(photos / "0 link.png"), "is a link; links stay where they are"),)
    assert len(moved) == 4
    move_back(away)
    assert tree(photos) == before


@pytest.mark.parametrize("make", [Path.symlink_to, Path.hardlink_to])
def test_no_link_is_left_that_leads_nowhere(photos, away, make):
    make(photos / "z.png", photos / "b" / "0 copy.png")
    before = tree(photos)
    found = quick(photos, **EXACT)
    with pytest.warns(PhotoWarning, match="has other names, which would stay: .*png"):
        moved = found.move_copies(away)
    assert [Path(path).name for path, _ in moved.failures] == ["0 copy.png"]
    assert all(path.exists() for path in photos.rglob("*.png"))
    move_back(away)
    assert tree(photos) == before


@pytest.mark.parametrize("make", [Path.symlink_to, Path.hardlink_to])
def test_a_copy_that_became_a_name_of_the_photo_to_keep(photos, away, make):
    for path in photos.rglob("*.png"):
        os.utime(path, ns=(0, 10**9))
    found = quick(photos, **EXACT)
    (photos / "0.png").unlink()
    make(photos / "0.png", photos / "0 copy.png")
    before = tree(photos)
    with pytest.warns(PhotoWarning, match=r"1 of 4 .*0\.png is (a link|the same file as)"):
        assert len(found.move_copies(away)) == 3
    move_back(away)
    assert tree(photos) == before


def test_hard_links_out_of_the_search(photos, away, tmp_path, monkeypatch):
    """They stay hard links on the same file system; another would part them."""
    (tmp_path / "backup.png").hardlink_to(photos / "0.png")
    found = quick(photos, **EXACT)
    assert len(found.move_copies(away)) == 4
    assert (tmp_path / "backup.png").samefile(away / "0.png")
    move_back(away)
    assert (tmp_path / "backup.png").samefile(photos / "0.png")
    plain = Path.stat

    def elsewhere(path, **options):
        status = plain(path, **options)
        if path != away:
            return status
        return os.stat_result((*status[:2], status.st_dev + 1, *status[3:]))

    monkeypatch.setattr(Path, "stat", elsewhere)
    with pytest.warns(PhotoWarning, match=r"0\.png has hard links, which another file system"):
        assert len(found.move_copies(away)) == 3


# ---- what has changed since the search ----


def same_size_and_time(path):
    """Changed so that only its contents tell."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


CHANGES = {
    "is no longer there": Path.unlink,
    "has changed since it was looked at": same_size_and_time,
    "has changed": lambda path: path.write_bytes(b"another photo"),
    "has changed since": lambda path: path.touch(),
}


@pytest.mark.parametrize("said", CHANGES)
def test_a_copy_that_is_not_what_it_was(photos, away, said):
    found = quick(photos, **EXACT)
    CHANGES[said](photos / "b" / "0 copy.png")
    before = tree(photos)
    with pytest.warns(PhotoWarning, match=f"1 of 4 copies were not moved: .*0 copy.png {said}"):
        moved = found.move_copies(away)
    assert [Path(path).name for path, _ in moved.failures] == ["0 copy.png"]
    assert moved_names(away) == ["0.png", "1.png", "b/1 copy.png"]
    move_back(away)
    assert tree(photos) == before


@pytest.mark.parametrize("said", CHANGES)
def test_a_photo_to_keep_that_is_not_what_it_was(photos, away, said):
    """The copies may be all that is left of it."""
    found = quick(photos, **EXACT)
    CHANGES[said](photos / "0 copy.png")
    with pytest.warns(PhotoWarning, match=f"2 of 4 .*0 copy.png, which was to be kept, {said}"):
        moved = found.move_copies(away)
    assert moved_names(away) == ["1.png", "b/1 copy.png"]
    assert [Path(path).name for path, _ in moved.failures] == ["0.png", "0 copy.png"]


@pytest.mark.parametrize("after", [1, 2, 4])
def test_a_photo_to_keep_that_goes_meanwhile(photos, away, way, monkeypatch, after):
    """After the first of its copies was moved, or the last: they are the last of it."""
    before = tree(photos)
    found = quick(photos, **EXACT)
    plain, moves = relocate.relocate, []

    def deletes(here, *more):
        plain(here, *more)
        moves.append(here)
        if len(moves) == after:
            (photos / "0 copy.png").unlink()

    with monkeypatch.context() as patch:
        patch.setattr("pyxai.curate.duplicates.moving.relocate", deletes)
        with pytest.warns(PhotoWarning, match="2 of 4 .*is no longer there"):
            moved = found.move_copies(away)
    assert [*moved] == [str(away / "1.png"), str(away / "b" / "1 copy.png")]
    assert sorted(Path(path).name for path, _ in moved.failures) == ["0 copy.png", "0.png"]
    assert tree(photos)["0.png"] == before["0.png"]
    assert len(move_back(away)) == 2
    del before["0 copy.png"]
    assert tree(photos) == before


@pytest.mark.parametrize("when", ["before the new name", "before the old one goes"])
def test_a_photo_that_is_replaced_meanwhile(photos, away, way, monkeypatch, when):
    """What someone saves over a photo while it is moved is not removed as the old one."""
    found = quick(photos, **EXACT)
    victim = photos / "b" / "0 copy.png"
    new = photos / "new"
    new.write_bytes(b"an edited photo")
    name = "make_folder" if when == "before the new name" else "sync_folder"
    plain = getattr(relocate, name)

    def replaces(folder):
        plain(folder)
        if folder == away / "b" and new.exists():
            new.replace(victim)

    monkeypatch.setattr(relocate, name, replaces)
    with pytest.warns(PhotoWarning, match="changed while it was moved"):
        moved = found.move_copies(away)
    assert victim.read_bytes() == b"an edited photo"
    assert len(moved) == 3
    assert len(move_back(away)) == 3
    assert victim.read_bytes() == b"an edited photo"


# ---- what is in the way ----


def test_nothing_is_moved_where_something_is_in_the_way(photos, away, tmp_path):
    found = quick(photos, **EXACT)
    before = tree(photos)
    (away / "b").mkdir(parents=True)
    for target in ("1.png", "b/1 copy.png"):
        (away / target).symlink_to(tmp_path / "nowhere")
        with pytest.raises(ValueError, match="directory: expected no files in the way"):
            found.move_copies(away)
        (away / target).unlink()
    (away / "b").rmdir()
    (away / "b").symlink_to(photos.parent, target_is_directory=True)
    with pytest.raises(ValueError, match="directory: expected no links in the way"):
        found.move_copies(away)
    (away / "b").unlink()
    (away / JOURNAL).write_text("my own list")
    with pytest.raises(ValueError, match=r"directory: expected a folder without moved\.jsonl"):
        found.move_copies(away)
    assert (away / JOURNAL).read_text() == "my own list"
    (photos.parent / "file").touch()
    with pytest.raises(ValueError, match="directory: expected a folder, got 'the file"):
        found.move_copies(photos.parent / "file")
    assert tree(photos) == before


def test_what_appears_in_the_target_meanwhile(photos, away, way, monkeypatch):
    """Between the look and the move."""
    found = quick(photos, **EXACT)
    before = tree(photos)
    plain = relocate.make_folder

    def appears(folder):
        plain(folder)
        if folder == away / "b":
            (folder / "0 copy.png").write_bytes(b"somebody's")

    monkeypatch.setattr(relocate, "make_folder", appears)
    with pytest.warns(PhotoWarning, match=r"1 of 4 .*0 copy\.png is in the way"):
        found.move_copies(away)
    assert (away / "b" / "0 copy.png").read_bytes() == b"somebody's"
    assert (photos / "b" / "0 copy.png").exists()
    move_back(away)
    assert tree(photos) == before
    assert (away / "b" / "0 copy.png").read_bytes() == b"somebody's"


def test_folders_that_were_searched_are_refused(photos, tmp_path):
    before = tree(photos)
    found = quick(photos, **EXACT)
    (tmp_path / "in").symlink_to(photos / "b", target_is_directory=True)
    (tmp_path / "out").mkdir()
    (photos / "out").symlink_to(tmp_path / "out", target_is_directory=True)
    for folder in (
        photos,
        photos / "away",
        photos / "b" / ".." / "away",
        tmp_path / "in" / "away",
        tmp_path / "out" / ".." / "photos" / "new",
        photos / "out" / "away",
    ):
        with pytest.raises(ValueError, match="directory: expected a folder outside"):
            found.move_copies(folder)
    (photos / "out").unlink()
    assert tree(photos) == before
    assert not any((tmp_path / "out").iterdir())


def test_a_folder_from_which_names_lead_into_the_search(tmp_path):
    """`photos/photos/a.png`, moved to the folder above, would lie in `photos`."""
    inner = tmp_path / "photos" / "photos"
    inner.mkdir(parents=True)
    scene(0).save(tmp_path / "photos" / "b.png")
    scene(0).save(inner / "c.png")
    found = quick(tmp_path / "photos", **EXACT)
    with pytest.raises(ValueError, match="directory: expected a folder outside"):
        found.move_copies(tmp_path)


def test_beside_the_folders_that_were_searched(tmp_path):
    for part in ("a", "b"):
        (tmp_path / part).mkdir()
        scene(0).save(tmp_path / part / "1.png")
    found = quick([tmp_path / "a", tmp_path / "b"], **EXACT)
    assert [*found.move_copies(tmp_path / "away")] == [str(tmp_path / "away" / "b" / "1.png")]


def test_without_copies_nothing_is_made(tmp_path, away):
    for seed in range(2):
        scene(seed).save(tmp_path / f"{seed}.png")
    assert quick([tmp_path / "0.png", tmp_path / "1.png"]).move_copies(away).paths == ()
    assert not away.exists()
