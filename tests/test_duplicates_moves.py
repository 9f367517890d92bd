"""Copies that are moved away and back: nothing is lost or overwritten, whoever stops or meddles."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from duplicate_photos import quick, scene, tree

from pyxai._locks import LOCK, BusyError, locked
from pyxai._sealed import DamagedError
from pyxai.images import PhotoWarning
from pyxai.train.duplicates import NotBackError, move_back, relocate
from pyxai.train.duplicates.journal import JOURNAL

ROOT = Path(__file__).resolve().parent.parent
EXACT = {"methods": ["exact"]}


@pytest.fixture
def photos(tmp_path):
    """Two photos with two copies each; the first by name of each stays."""
    root = tmp_path / "photos"
    (root / "b").mkdir(parents=True)
    for seed in range(2):
        scene(seed).save(root / f"{seed}.png")
        for place in ("b", "."):
            copy = root / place / f"{seed} copy.png"
            shutil.copy(root / f"{seed}.png", copy)
            os.utime(copy, ns=(seed, 10**9 + seed))
    return root


@pytest.fixture
def away(tmp_path):
    return tmp_path / "away"


@pytest.fixture(params=["link", "copy"])
def way(request, monkeypatch):
    """By a second name, or by a copy as across file systems."""
    if request.param == "copy":
        monkeypatch.setattr(os, "link", no_link)
    return request.param


def no_link(*paths, **options):
    raise OSError(errno.EXDEV, "Invalid cross-device link")


def moved_names(away):
    return sorted(str(path.relative_to(away)) for path in away.rglob("*.png"))


COPIES = ["0.png", "1.png", "b/0 copy.png", "b/1 copy.png"]  # "0 copy.png" comes first by name


# ---- there and back ----


def test_there_and_back(photos, away, way):
    before = tree(photos)
    found = quick(photos, **EXACT)
    moved = found.move_copies(away)
    assert [*moved] == [str(away / Path(path).relative_to(photos)) for path in found.copies]
    assert moved.left == ()
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

    monkeypatch.setattr("pyxai.train.duplicates.moving.relocate", watched)
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
    assert moved.left == ((str(photos / "0 link.png"), "is a link; links stay where they are"),)
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
    assert [Path(path).name for path, _ in moved.left] == ["0 copy.png"]
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
    assert [Path(path).name for path, _ in moved.left] == ["0 copy.png"]
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
    assert [Path(path).name for path, _ in moved.left] == ["0.png", "0 copy.png"]


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
        patch.setattr("pyxai.train.duplicates.moving.relocate", deletes)
        with pytest.warns(PhotoWarning, match="2 of 4 .*is no longer there"):
            moved = found.move_copies(away)
    assert [*moved] == [str(away / "1.png"), str(away / "b" / "1 copy.png")]
    assert sorted(Path(path).name for path, _ in moved.left) == ["0 copy.png", "0.png"]
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
        with pytest.raises(ValueError, match="folder: expected no files in the way"):
            found.move_copies(away)
        (away / target).unlink()
    (away / "b").rmdir()
    (away / "b").symlink_to(photos.parent, target_is_directory=True)
    with pytest.raises(ValueError, match="folder: expected no links in the way"):
        found.move_copies(away)
    (away / "b").unlink()
    (away / JOURNAL).write_text("my own list")
    with pytest.raises(ValueError, match=r"folder: expected a folder without moved\.jsonl"):
        found.move_copies(away)
    assert (away / JOURNAL).read_text() == "my own list"
    (photos.parent / "file").touch()
    with pytest.raises(ValueError, match="folder: expected a folder, got 'the file"):
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
        with pytest.raises(ValueError, match="folder: expected a folder outside"):
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
    with pytest.raises(ValueError, match="folder: expected a folder outside"):
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
    assert quick([tmp_path / "0.png", tmp_path / "1.png"]).move_copies(away) == ()
    assert not away.exists()


# ---- the way back ----


def test_what_was_changed_since_is_named_and_the_rest_is_back(photos, away, way):
    before = tree(photos)
    quick(photos, **EXACT).move_copies(away)
    (away / "0.png").write_bytes(b"edited")
    (away / "b" / "0 copy.png").rename(away / "mine.png")
    (photos / "1.png").write_bytes(b"another")
    with pytest.raises(NotBackError, match="3 of 4 photos are not back where they were") as caught:
        move_back(away)
    assert {Path(path).relative_to(away).as_posix(): why for path, why in caught.value.left} == {
        "0.png": "has changed since it was moved",
        "1.png": f"{photos / '1.png'} is in the way",
        "b/0 copy.png": f"is no longer there, nor is {photos / 'b' / '0 copy.png'}",
    }
    assert caught.value.moved == (str(photos / "b" / "1 copy.png"),)
    assert (photos / "1.png").read_bytes() == b"another"
    assert (away / "0.png").read_bytes() == b"edited"
    assert (away / JOURNAL).exists()
    (photos / "1.png").unlink()
    (away / "mine.png").rename(photos / "b" / "0 copy.png")  # back by hand
    shutil.copy(photos / "0 copy.png", away / "0.png")
    os.utime(away / "0.png", ns=(0, before["0.png"][2]))
    (photos / "b" / "1 copy.png").write_bytes(b"edited since it is back")
    assert len(move_back(away)) == 3
    assert not (away / JOURNAL).exists()
    after = tree(photos)
    assert after.pop("b/1 copy.png")[1] == b"edited since it is back"
    before.pop("b/1 copy.png")
    assert after == before


def test_a_way_back_that_fails_halfway(photos, away, way, monkeypatch):
    """A full disk, say."""
    before = tree(photos)
    quick(photos, **EXACT).move_copies(away)
    plain = relocate.sync_folder

    def full(folder):
        if folder == photos:
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(folder)

    with monkeypatch.context() as patch:
        patch.setattr(relocate, "sync_folder", full)
        with pytest.raises(NotBackError, match=r"2 of 4 .*\n.*No space left on device"):
            move_back(away)
    assert {"b/0 copy.png", "b/1 copy.png"} < {*tree(photos)}
    assert len(move_back(away)) == 2
    assert tree(photos) == before


def test_a_move_that_fails_halfway(photos, away, way, monkeypatch):
    before = tree(photos)
    found = quick(photos, **EXACT)
    plain = relocate.sync_folder

    def full(folder):
        if folder == away / "b":
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(folder)

    with monkeypatch.context() as patch:
        patch.setattr(relocate, "sync_folder", full)
        with pytest.warns(PhotoWarning, match="2 of 4 .*No space left on device"):
            found.move_copies(away)
    assert moved_names(away) == ["0.png", "1.png"]
    again = quick(photos, **EXACT)
    assert len(again.move_copies(away)) == 2  # what was left
    assert len(move_back(away)) == 4
    assert tree(photos) == before


def test_folders_without_moved_copies(tmp_path):
    with pytest.raises(ValueError, match=r"folder: expected a folder with moved\.jsonl, of moved"):
        move_back(tmp_path)
    assert [*tmp_path.iterdir()] == []
    (tmp_path / JOURNAL).write_text("mine\n")
    with pytest.raises(ValueError, match=r"folder: expected a folder without moved\.jsonl, or"):
        move_back(tmp_path)
    assert (tmp_path / JOURNAL).read_text() == "mine\n"


# ---- the list of moves ----


def test_a_list_that_is_cut_off_anywhere(photos, away):
    """By a kill while a line was written: that line, and no other, is not there."""
    before = tree(photos)
    found = quick(photos, **EXACT)
    found.move_copies(away)
    data = (away / JOURNAL).read_bytes()
    starts = [place + 1 for place, byte in enumerate(data) if byte == 10]
    for length in (starts[-2], starts[-2] + 1, starts[-2] + 40, len(data) - 1):
        (away / JOURNAL).write_bytes(data[:length])
        assert len(move_back(away)) == 4, length
        assert tree(photos) == before
        assert not (away / JOURNAL).exists()
        found.move_copies(away)
    move_back(away)
    for length in (0, 1, starts[0] - 1, starts[0]):  # before the first move
        (away / JOURNAL).write_bytes(data[:length])
        assert len(found.move_copies(away)) == 4
        assert len(move_back(away)) == 4
    assert tree(photos) == before


def test_a_damaged_list_is_named(photos, away):
    quick(photos, **EXACT).move_copies(away)
    moved = tree(photos), moved_names(away)
    data = (away / JOURNAL).read_bytes()
    second = data.index(b"\n") + 1
    for place in range(second, data.index(b"\n", second), 9):
        (away / JOURNAL).write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(DamagedError, match=r"moved\.jsonl is damaged: line 2 is not as"):
            move_back(away)
    (away / JOURNAL).write_bytes(b"{" + data[2:])
    with pytest.raises(ValueError, match=r"moved\.jsonl"):
        move_back(away)
    assert (tree(photos), moved_names(away)) == moved
    (away / JOURNAL).write_bytes(data)
    assert len(move_back(away)) == 4


def test_one_at_a_time(photos, away):
    found = quick(photos, **EXACT)
    said = f"busy, by process {os.getpid()} since"
    with locked(away, "folder"), pytest.raises(BusyError, match=said):
        found.move_copies(away)
    found.move_copies(away)
    with locked(away, "folder"), pytest.raises(BusyError, match="busy, by process"):
        move_back(away)
    assert len(move_back(away)) == 4


# ---- kills ----


def test_kills(tmp_path):
    """At lines spread over moves, ways back and searches; see `benchmarks/torture/moves.py`."""
    pytest.importorskip("imagehash")
    if sys.platform == "win32" or not (ROOT / "benchmarks").is_dir():
        pytest.skip("needs fork, and the folder benchmarks beside the tests")
    command = ["-m", "benchmarks.torture.moves", "--times", "6", "--step", "23"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, *command, "--folder", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 faults" in result.stdout
