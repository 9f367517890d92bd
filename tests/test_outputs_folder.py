"""Folders that results are written to: nothing of the user's is changed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from train_photos import photo

import pyxai
from pyxai._files import _HOST
from pyxai._locks import locked
from pyxai._outputs import OutputFolder, written_in
from pyxai._sealed import file_digest


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write(folder, *names):
    out = OutputFolder(folder, by="a test")
    for name in names:
        with out.writing(name) as path:
            path.write_text(name)
    out.finish()


def stop_writing(out, name):
    with out.writing(name) as path:
        path.write_text("half")
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["", "found.png", "found.csv", "found.JSON"])
def test_a_folder_that_is_called_as_a_file(tmp_path, name):
    with pytest.raises(ValueError, match="directory: expected a folder"):
        OutputFolder(tmp_path / name if name else "", by="a test")
    (tmp_path / "found.png").mkdir()
    OutputFolder(tmp_path / "found.png", by="a test")  # somebody calls folders like this


def test_files_of_others_stay(tmp_path):
    (tmp_path / "sheets").mkdir()
    (tmp_path / "sheets" / "mine.jpg").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(ValueError, match=r"^directory: .* whose 'notes\.txt' was not"):
        write(tmp_path, "notes.txt")
    with pytest.raises(ValueError, match="whose 'sheets' was not written by pyxai"):
        write(tmp_path, "sheets/a.jpg")
    found = tree(tmp_path)
    found.pop(".pyxai-files.jsonl", None)
    assert found == before


def test_a_second_run_replaces_what_the_first_has_written(tmp_path):
    write(tmp_path, "index.html", "pictures/0.jpg", "pictures/1.jpg", "old/a.txt")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "pictures" / "mine.jpg").write_text("mine")
    write(tmp_path, "index.html", "pictures/0.jpg")
    assert set(tree(tmp_path)) == {
        ".pyxai-files.jsonl",
        "index.html",
        "pictures/0.jpg",
        "pictures/mine.jpg",
        "notes.txt",
    }
    assert not (tmp_path / "old").exists()


def test_a_folder_in_which_a_run_was_killed_with_its_first_file(tmp_path):
    """Before the list named anything there, so all that it has is the start of a file of ours."""
    (tmp_path / "sheets").mkdir()
    part = f".0123456789ab.{_HOST}.999999999.0.pyxai-part.jpg"
    (tmp_path / "sheets" / part).write_text("half")
    write(tmp_path, "sheets/a.jpg")
    assert set(tree(tmp_path)) == {".pyxai-files.jsonl", "sheets/a.jpg"}


@pytest.mark.parametrize("whole", [False, True])
def test_folders_that_a_killed_run_made_for_its_first_file(tmp_path, whole):
    """A kill between the folders of a file and the line in the list."""
    out = OutputFolder(tmp_path / "out", whole=whole, by="a test")
    out.claim()
    deep = tmp_path / "out" / "sets" / "0" / "networks" / "0"
    deep.mkdir(parents=True)
    again = OutputFolder(tmp_path / "out", whole=whole, by="a test")
    with again.writing("sets/0/networks/0/layers/0/a.js") as path:
        path.write_text("new")
    (deep / "layers" / "1").mkdir()  # once more
    last = OutputFolder(tmp_path / "out", whole=whole, by="a test")
    last.remove("sets/0/networks/0/layers/0/a.js")
    assert not tree(tmp_path / "out").keys() - {".pyxai-files.jsonl"}
    last.discard()
    assert (tmp_path / "out").exists() != whole  # empty folders may be the user's elsewhere


def test_a_folder_of_others_below_empty_ones(tmp_path):
    (tmp_path / "sets" / "0").mkdir(parents=True)
    (tmp_path / "sets" / "0" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="whose 'sets' was not written by pyxai"):
        write(tmp_path, "sets/a.js")
    (tmp_path / "sets" / "0" / "mine.txt").unlink()
    (tmp_path / "sets" / "0" / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="whose 'sets' was not written by pyxai"):
        write(tmp_path, "sets/a.js")


def test_results_of_another_command_stay(tmp_path):
    write(tmp_path, "index.html", "old.txt")
    other = OutputFolder(tmp_path, by="another")
    with pytest.raises(ValueError, match=r"whose 'index\.html' was written by a test; choose"):
        other.check("index.html")
    assert not other.is_free("old.txt")
    with other.writing("new.txt") as path:
        path.write_text("new")
    other.remove("old.txt")
    other.finish()
    assert set(tree(tmp_path)) == {".pyxai-files.jsonl", "index.html", "new.txt", "old.txt"}
    OutputFolder(tmp_path, by="another").discard()
    assert set(tree(tmp_path)) == {".pyxai-files.jsonl", "index.html", "old.txt"}
    OutputFolder(tmp_path, by="a test").discard()
    assert not tmp_path.exists()


def test_results_of_another_photo_stay(tmp_path):
    first = OutputFolder(tmp_path, by="a test")
    with first.writing("1.json", of="/a/1.jpg") as path:
        path.write_text("a")
    second = OutputFolder(tmp_path, by="a test")
    assert second.is_free("1.json", of="/a/1.jpg")
    assert not second.is_free("1.json", of="/b/1.jpg")
    first.tidy()
    assert not OutputFolder(tmp_path, by="a test").is_free("1.json", of="/b/1.jpg")


def test_what_another_run_writes_meanwhile_is_known(tmp_path):
    first, second = OutputFolder(tmp_path, by="a test"), OutputFolder(tmp_path, by="a test")
    with first.writing("1.json", of="/a/1.jpg") as path:
        path.write_text("a")
    assert second.is_free("1.json", of="/a/1.jpg")


@pytest.mark.parametrize("way", ["file", "file/below"])
def test_a_file_on_the_way(tmp_path, way):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"^directory: expected a folder, got the file '.*file'"):
        write(tmp_path / way, "a.txt")
    with (
        pytest.raises(ValueError, match=r"^checkpoint: expected a folder, got the file '.*file'"),
        locked(tmp_path / way, "checkpoint"),
    ):
        pass


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ValueError, match=r"^directory: expected a folder to write to, got '/"):
        write(tmp_path / "new", "a.txt")
    with pytest.raises(ValueError, match=r"^directory: expected a folder to write to"):
        OutputFolder(tmp_path / "new", by="a test").is_free("a.txt")  # nor is any other name
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(30, "x", "it")])
def test_a_full_disk_is_said_with_the_name_of_the_file(tmp_path, error):
    out = OutputFolder(tmp_path, by="a test")
    with pytest.raises(OSError, match=r"\[Errno") as caught, out.writing("a.txt") as path:
        raise OSError(error.errno, error.strerror, str(path)) if error.filename else error
    assert caught.value.filename == str(tmp_path / "a.txt")


def test_what_was_put_in_the_place_of_a_file_of_ours_stays(tmp_path):
    write(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "a.jpg").write_text("mine")
    (tmp_path / "b.jpg").write_text("mine")
    with pytest.raises(ValueError, match=r"whose 'a\.jpg' was not written"):
        write(tmp_path, "a.jpg")
    write(tmp_path, "c.jpg")
    assert tree(tmp_path)["b.jpg"] == b"mine"


def test_a_run_that_was_killed_is_replaced(tmp_path):
    out = OutputFolder(tmp_path, by="a test")
    with out.writing("a.jpg") as path:
        path.write_text("whole")
    with (tmp_path / ".pyxai-files.jsonl").open("a") as file:
        file.write('{"file": "b.j')  # cut off
    with pytest.raises(KeyboardInterrupt):
        stop_writing(out, "a.jpg")
    assert tree(tmp_path)["a.jpg"] == b"whole"
    write(tmp_path, "b.jpg")
    assert set(tree(tmp_path)) == {".pyxai-files.jsonl", "b.jpg"}


def test_links_and_lists_that_lead_elsewhere(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine.txt").write_text("mine")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "sheets").symlink_to(outside)
    (folder / "a.txt").symlink_to(outside / "mine.txt")
    digest = file_digest(outside / "mine.txt")
    listed = ("../outside/mine.txt", "sheets/mine.txt", "a.txt", str(outside / "mine.txt"))
    lines = [json.dumps({"file": name, "digest": digest}) for name in listed]
    (folder / ".pyxai-files.jsonl").write_text("\n".join(lines))
    for name in ("sheets/x.jpg", "a.txt"):
        with pytest.raises(ValueError, match="was not written by pyxai"):
            write(folder, name)
    write(folder, "b.txt")
    assert (outside / "mine.txt").read_text() == "mine"


def test_an_audit_beside_a_folder_called_pictures(tmp_path):
    """`pyxai audit pictures -o .` once removed the photos."""
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(3):
            drawn = photo((200, 30, 30), (40, 36), np.random.default_rng(number))
            drawn.save(tmp_path / "pictures" / name / f"{number}.png")
    before = tree(tmp_path)
    found = pyxai.audit(None, tmp_path / "pictures", progress=False)
    with pytest.raises(ValueError, match=r"^directory: expected a folder .* whose 'pictures' was"):
        found.save(tmp_path)
    assert tree(tmp_path) == before
    found.save(tmp_path / "audit")
    found.save(tmp_path / "audit")
    assert (tmp_path / "audit" / "index.html").is_file()


def test_several_writers_share_a_folder(tmp_path):
    """`pyxai explain a.jpg -o out & pyxai explain b.jpg -o out`."""
    first, second = OutputFolder(tmp_path, by="a test"), OutputFolder(tmp_path, by="a test")
    for out, name in ((first, "a.png"), (second, "b.png"), (first, "c.png")):
        with out.writing(name) as path:
            path.write_text(name)
    found = written_in(tmp_path)
    assert set(found.files) == {"a.png", "b.png", "c.png"}
    assert all(found.wrote(name, tmp_path / name) for name in found.files)
    write(tmp_path, "a.png", "b.png", "c.png")


def test_a_whole_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"^out: expected a new or empty folder"):
        OutputFolder(tmp_path, "out", whole=True, by="a test")
    for _ in range(2):
        out = OutputFolder(tmp_path / "new", "out", whole=True, by="a test")
        with out.writing("a/b.txt") as path:
            path.write_text("ours")
        out.finish()
        assert written_in(tmp_path / "new").whole
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"^out: expected a folder, got the file"):
        OutputFolder(tmp_path / "file", "out", by="a test")
    assert not (tmp_path / "other").exists()
    OutputFolder(tmp_path / "other", by="a test")  # made when something is written
    assert not (tmp_path / "other").exists()


def test_files_of_another_folder_are_taken_over(tmp_path, monkeypatch):
    def refused(self, other):
        raise OSError(95, "Operation not supported")

    write(tmp_path / "old", "a/b.txt", "c.txt")
    old = OutputFolder(tmp_path / "old", by="a test")
    assert old.is_intact("c.txt")
    (tmp_path / "old" / "c.txt").write_text("another")
    assert not old.is_intact("c.txt")
    assert not old.is_intact("d.txt")
    for number, links in enumerate((True, False)):
        if not links:
            monkeypatch.setattr("pathlib.Path.hardlink_to", refused)
        new = OutputFolder(tmp_path / f"new{number}", by="a test")
        for name, expected in (("a/b.txt", True), ("c.txt", False)):
            source = tmp_path / "old" / name
            assert new.take(name, source, old.digest_of(name)) is expected
            assert (new.path / name).exists() is expected
        assert not new.take("d.txt", tmp_path / "old" / "d.txt", "")
        same = [(each / "a" / "b.txt").stat().st_ino for each in (new.path, old.path)]
        assert (same[0] == same[1]) is links
        assert new.files == {"a/b.txt": old.digest_of("a/b.txt")}
        new.keep("a/b.txt")
        new.finish()
        assert (new.path / "a" / "b.txt").read_text() == "a/b.txt"
        OutputFolder(new.path, by="a test").finish()
        assert not (new.path / "a").exists()


def test_a_folder_is_discarded_with_what_a_killed_run_left(tmp_path):
    for whole in (True, False):
        folder = tmp_path / str(whole)
        out = OutputFolder(folder, whole=whole, by="a test")
        out.claim()
        for name in ("a/b/c.txt", "d.txt"):
            with out.writing(name) as path:
                path.write_text("ours")
        (folder / "a" / "mine.txt").write_text("mine")
        (folder / "d.txt").write_text("changed")
        part = folder / "a" / ".1234.abcdef.1.0.pyxai-part.txt"
        part.write_text("half")
        OutputFolder(folder, whole=whole, by="a test").discard()
        left = {"a/mine.txt": b"mine"}
        if not whole:  # what others changed is theirs there, and other runs may write
            left |= {"d.txt": b"changed", "a/.1234.abcdef.1.0.pyxai-part.txt": b"half"}
        assert tree(folder) == left


def test_a_whole_folder_whose_first_file_was_never_finished(tmp_path):
    """The list comes before the file; a part may come before the list."""
    (tmp_path / ".1234.abcdef.1.0.pyxai-part.txt").write_text("half")
    (tmp_path / ".pyxai-lock").write_text("")
    (tmp_path / ".pyxai-files.jsonl").write_text("")
    out = OutputFolder(tmp_path, whole=True, by="a test")
    with out.writing("a.txt") as path:
        path.write_text("ours")
    assert written_in(tmp_path).whole
