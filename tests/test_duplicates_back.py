"""The way back of copies that were moved: also after a kill, around what was changed meanwhile."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from duplicate_photos import make_copies, moved_names, no_link, quick, tree

from pyxai._locks import BusyError, locked
from pyxai._sealed import DamagedError
from pyxai.curate.duplicates import NotBackError, move_back, relocate
from pyxai.curate.duplicates.journal import JOURNAL
from pyxai.images import PhotoWarning

sys.path.append(str(Path(__file__).parents[1]))  # last, so that what is installed comes first

from benchmarks.torture import moves

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


# ---- changes and errors ----


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
    with pytest.raises(ValueError, match=r"directory: expected a folder with moved\.jsonl, of"):
        move_back(tmp_path)
    assert [*tmp_path.iterdir()] == []
    (tmp_path / JOURNAL).write_text("mine\n")
    with pytest.raises(ValueError, match=r"directory: expected a folder without moved\.jsonl, or"):
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


# ---- stops and kills ----


def half(source, target, length):
    target.write(source.read(100))
    target.flush()
    raise KeyboardInterrupt


def stops(*arguments):
    raise KeyboardInterrupt


STOPS = [
    ("copy", shutil, "copyfileobj", half),
    ("copy", shutil, "copystat", stops),
    ("copy", relocate, "file_digest", stops),
    ("copy", relocate, "_refuse_change", stops),
    ("link", relocate, "sync_folder", stops),
    ("link", Path, "unlink", stops),
]


@pytest.mark.parametrize(("how", "owner", "name", "stop"), STOPS)
@pytest.mark.parametrize("when", ["on the way there", "on the way back"])
def test_stops(photos, away, monkeypatch, how, owner, name, stop, when):
    """At the places where a photo has both names, or one and a half."""
    if how == "copy":
        monkeypatch.setattr(os, "link", no_link)
    before = tree(photos)
    found = quick(photos, **EXACT)
    if when == "on the way back":
        found.move_copies(away)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stop)
        with pytest.raises(KeyboardInterrupt):
            found.move_copies(away) if when == "on the way there" else move_back(away)
    if when == "on the way there":
        found.move_copies(away)
    assert len(move_back(away)) >= 4  # one of them may never have gone
    assert tree(photos) == before
    assert moved_names(away) == []


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_kills(tmp_path, capsys):
    """At lines spread over moves, ways back and searches; hundreds by hand."""
    pytest.importorskip("imagehash")
    failed = moves.main(["--times", "6", "--step", "23", "--folder", str(tmp_path)])
    assert not failed, capsys.readouterr().out
    kills = [*map(int, re.findall(r"(\d+) of ", capsys.readouterr().out))]
    assert len(kills) == 3
    assert min(kills) >= 5
