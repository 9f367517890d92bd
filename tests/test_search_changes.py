"""An index whose photos change: what is gone is gone, what changed is read, what is there stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from gallery_photos import PLAIN, ColorNet, color_classifier, folder_of_photos
from PIL import Image

from pyxai import Classifier, ImageIndex
from pyxai._locks import BusyError, locked
from pyxai.images import ImageError
from pyxai.runs import going, parts, working
from pyxai.runs import photos as run_photos
from pyxai.search import extraction

LATIN = os.fsdecode(b"caf\xe9.png")


@pytest.fixture(autouse=True)
def old_files(monkeypatch):
    """Files that were just written count as old: their stamps are believed."""
    monkeypatch.setattr(run_photos, "_YOUNG", 0)


@pytest.fixture
def photos(tmp_path):
    return folder_of_photos(tmp_path / "photos", count=4)


@pytest.fixture
def shown(monkeypatch):
    """What is opened, and how many photos the network sees."""
    opened, original, forward = [], working.open_photo, extraction.features_of

    def opening(source, *, name):
        opened.append(name)
        return original(source, name=name)

    seen = []

    def watched(classifier, inputs, *rest):
        seen.extend(inputs)
        return forward(classifier, inputs, *rest)

    monkeypatch.setattr(working, "open_photo", opening)
    monkeypatch.setattr(extraction, "features_of", watched)
    return opened, seen


def build(photos, folder, **options):
    options = {"layers": ["relu"], "progress": False} | options
    return ImageIndex.build(color_classifier(), photos, directory=folder, **options)


def same(index, photos, **options):
    """Whether an index is that of these photos, made anew."""
    fresh = ImageIndex.build(color_classifier(), photos, layers=["relu"], progress=False, **options)
    assert index.photos == fresh.photos
    torch.testing.assert_close(index.features(), fresh.features(), rtol=1e-5, atol=1e-6)
    assert index.failures == fresh.failures
    return True


def bytes_of(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def tree(folder):
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- what is gone ----


def test_photos_that_are_gone_leave_the_index_and_its_files(photos, tmp_path):
    gone = [photos / "red" / "1.png", photos / "blue" / "0.png"]
    before = build(photos, tmp_path / "index")
    rows = [before.features()[at] for at, p in enumerate(before.photos) if p.path == str(gone[0])]
    traces = [rows[0].numpy().tobytes(), str(gone[0]).encode(), str(gone[1]).encode()]
    assert all(each in bytes_of(tmp_path / "index") for each in traces)
    for path in gone:
        path.unlink()
    index = build(photos, tmp_path / "index")
    assert sorted(index.removed) == sorted(map(str, gone))
    assert len(index) == 10
    assert same(index, photos)
    assert same(ImageIndex.load(tmp_path / "index"), photos)
    assert not any(each in bytes_of(tmp_path / "index") for each in traces)
    assert build(photos, tmp_path / "index").removed == ()


def test_only_what_changes_is_written_anew(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_MERGED_BYTES", 100)
    monkeypatch.setattr(working, "_MOST", 3)
    build(photos, tmp_path / "index")
    before = {path.name: path.stat().st_ino for path in (tmp_path / "index").glob("*")}
    (photos / "red" / "3.png").unlink()
    index = build(photos, tmp_path / "index")
    after = {path.name: path.stat().st_ino for path in (tmp_path / "index").glob("*")}
    kept = [
        name for name in after if before.get(name) == after[name] and name.endswith(".safetensors")
    ]
    assert len(kept) == 3
    assert same(index, photos)


def test_remove(photos, tmp_path, monkeypatch):
    index = build(photos, tmp_path / "index")
    monkeypatch.chdir(tmp_path)
    (photos / "red" / "1.png").unlink()
    assert index.remove("photos/red/1.png") is index
    assert index.removed == (str(photos / "red" / "1.png"),)
    assert len(index) == 11
    index.remove([photos / "blue", str(photos / "green" / "0.png")])
    assert len(index.removed) == 5
    loaded = ImageIndex.load(tmp_path / "index")
    assert loaded.photos == index.photos
    assert {photo.label for photo in loaded.photos} == {"red", "green"}
    assert b"blue" not in bytes_of(tmp_path / "index")
    for bad in ("photos/red/1.png", ["nothing.png"], 3 * ["images[0]"]):
        with pytest.raises(ValueError, match="paths: expected photos of the index"):
            index.remove(bad)
    with pytest.raises(ValueError, match="but not all"):
        index.remove(photos)
    assert len(ImageIndex.load(tmp_path / "index")) == 6


def test_remove_without_the_network_and_of_what_could_not_be_read(photos, tmp_path):
    (photos / "broken.png").write_bytes(b"no picture")
    build(photos, tmp_path / "index")
    index = ImageIndex.load(tmp_path / "index").remove(photos / "broken.png")
    assert (len(index), index.failures) == (12, ())
    assert b"broken" not in bytes_of(tmp_path / "index")


def test_remove_in_memory(photos):
    index = build(photos, None)
    features = index.features()[1:].clone()
    index.remove(index.photos[0].path)
    assert torch.equal(index.features(), features)
    pictures = [Image.new("RGB", (96, 96), color) for color in ("red", "blue", "green")]
    index = build(pictures, None)
    assert [photo.path for photo in index.remove("images[1]").photos] == ["images[0]", "images[2]"]


def test_failures_of_photos_that_are_gone_are_forgotten(photos, tmp_path):
    (photos / "broken.png").write_bytes(b"no picture")
    assert [each.path for each in build(photos, tmp_path / "index").failures] == [
        str(photos / "broken.png")
    ]
    (photos / "broken.png").unlink()
    assert build(photos, tmp_path / "index").failures == ()
    assert b"broken" not in bytes_of(tmp_path / "index")


# ---- what changed ----


@pytest.mark.parametrize("keep_time", [True, False])
def test_a_photo_that_was_replaced_is_read_again(photos, tmp_path, shown, keep_time):
    opened, seen = shown
    path = photos / "red" / "2.png"
    build(photos, tmp_path / "index")
    status, size = path.stat(), path.stat().st_size
    noise = np.random.default_rng(9).integers(0, 255, (96, 96, 3), np.uint8)
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    path.write_bytes(data[:size].ljust(size, b"\0") if len(data) <= size else data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns if keep_time else 1))
    opened.clear(), seen.clear()
    index = build(photos, tmp_path / "index")
    assert (opened, len(seen)) == ([str(path)], 1)
    assert index.removed == ()
    assert same(index, photos)


def test_same_size_and_same_time(tmp_path, shown):
    """As `cp -p` of a picture without compression."""
    opened, _ = shown
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, color in enumerate(("red", "green", "blue")):
        Image.new("RGB", (40, 40), color).save(folder / f"{number}.bmp")
    build(folder, tmp_path / "index", labels=None)
    status = (folder / "1.bmp").stat()
    Image.new("RGB", (40, 40), "yellow").save(folder / "1.bmp")
    os.utime(folder / "1.bmp", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (folder / "1.bmp").stat().st_size == status.st_size
    assert (folder / "1.bmp").stat().st_mtime_ns == status.st_mtime_ns
    opened.clear()
    index = build(folder, tmp_path / "index", labels=None)
    assert opened == [str(folder / "1.bmp")]
    assert same(index, folder, labels=None)


def test_nothing_is_looked_at_twice(photos, tmp_path, shown, monkeypatch):
    opened, seen = shown
    build(photos, tmp_path / "index")
    opened.clear(), seen.clear()
    read = []
    monkeypatch.setattr(going, "content_of_file", lambda path: read.append(path) or "")
    build(photos, tmp_path / "index")
    assert (opened, seen, read) == ([], [], [])


def test_a_touched_photo_is_read_but_not_shown_to_the_network(photos, tmp_path, shown):
    opened, seen = shown
    build(photos, tmp_path / "index")
    opened.clear(), seen.clear()
    for path in photos.rglob("*.png"):
        os.utime(path)
    assert same(build(photos, tmp_path / "index"), photos)
    first = len(opened)
    assert first == 12  # by the index that it is compared with
    assert len(seen) == 12


def test_photos_that_moved_are_known_by_their_content(photos, tmp_path, shown, monkeypatch):
    opened, seen = shown
    build(photos, tmp_path / "index")
    opened.clear(), seen.clear()
    moved = tmp_path / "moved"
    photos.rename(moved)
    (moved / "red" / "0.png").rename(moved / "blue" / "new.png")
    shutil.copyfile(moved / "red" / "1.png", moved / "red" / "copy.png")
    index = build(moved, tmp_path / "index")
    assert (opened, seen, index.removed) == ([], [], ())
    assert same(index, moved)
    monkeypatch.chdir(tmp_path)
    opened.clear(), seen.clear()
    index = build("moved", tmp_path / "index")
    assert (opened, seen, index.removed) == ([], [], ())
    assert index.photos[0].path == "moved/blue/1.png".replace("1", "0")
    assert str(photos).encode() not in bytes_of(tmp_path / "index")


def test_a_photo_that_broke_is_no_longer_in_the_index(photos, tmp_path):
    index = build(photos, tmp_path / "index")
    (photos / "red" / "0.png").write_bytes(b"broken")
    again = build(photos, tmp_path / "index")
    ((path, _),) = again.failures
    assert again.removed == (str(photos / "red" / "0.png"),) == (path,)
    assert same(again, photos)
    (photos / "red" / "1.png").write_bytes(b"broken")
    index = ImageIndex.load(tmp_path / "index", color_classifier())
    with pytest.raises(ImageError):
        index.add(photos / "red" / "1.png", progress=False)
    index.add([photos / "red" / "1.png", photos / "red" / "2.png"], progress=False)
    assert index.removed == (str(photos / "red" / "1.png"),)
    assert len(index) == 10


def test_photos_in_memory_are_compared_too(tmp_path):
    first = [Image.new("RGB", (96, 96), color) for color in ("red", "blue", "green")]
    build(first, tmp_path / "index")
    other = [first[0], Image.new("RGB", (96, 96), "yellow"), first[2]]
    index = build(other, tmp_path / "index")
    assert same(index, other)
    assert len(index.add(first, progress=False)) == 3  # known by the same name, as ever


def test_add_leaves_other_photos_alone(photos, tmp_path):
    index = build(photos / "red", tmp_path / "index")
    (photos / "red" / "0.png").unlink()
    index.add(photos / "green", progress=False)
    assert (len(index), index.removed) == (8, ())
    Image.new("RGB", (96, 96), (20, 60, 220)).save(photos / "green" / "1.png")
    before = [photo.path for photo in index.photos]
    index.add(photos / "green", labels=None, progress=False)
    assert [photo.path for photo in index.photos] == before
    index = build(photos / "red", tmp_path / "index", allow_removal=True)
    assert index.removed == (
        str(photos / "red" / "0.png"),
        *(str(photos / "green" / f"{number}.png") for number in range(4)),
    )


def test_a_file_that_changes_while_it_is_read(photos, tmp_path, monkeypatch):
    original = working.open_photo

    def changing(source, *, name):
        picture = original(source, name=name)
        if name.endswith("red/0.png"):
            (photos / "red" / "0.png").write_bytes(b"another")
        return picture

    monkeypatch.setattr(working, "open_photo", changing)
    index = build(photos, tmp_path / "index")
    assert index.failures == ((str(photos / "red" / "0.png"), "changed while it was read"),)


def test_files_of_just_now_are_not_believed(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(run_photos, "_YOUNG", 10**15)
    index = build(photos, tmp_path / "index")
    assert {photo.stamp for photo in index.photos} == {""}
    monkeypatch.setattr(run_photos, "_YOUNG", 0)
    assert "" not in {photo.stamp for photo in build(photos, tmp_path / "index").photos}


def test_other_classes(photos, tmp_path, shown):
    opened, _ = shown
    build(photos, tmp_path / "index")
    opened.clear()
    index = build(photos, tmp_path / "index", labels=lambda path: path[-5])
    assert opened == []
    assert [p.label for p in ImageIndex.load(tmp_path / "index").photos] == 3 * list("0123")
    assert index.photos[0].label == "0"


def test_other_settings_are_told_before_a_photo_is_looked_at(photos, tmp_path, shown):
    opened, _ = shown
    build(photos, tmp_path / "index")
    opened.clear()
    for options in ({"pooling": "max"}, {"dtype": "float16"}, {"layers": ["body"]}):
        with pytest.raises(ValueError, match="directory: expected an index of the same networks"):
            build(photos, tmp_path / "index", **options)
    assert opened == []


# ---- folders that are not there ----


def test_an_empty_source_does_not_empty_the_index(photos, tmp_path):
    build(photos, tmp_path / "index")
    before = tree(tmp_path / "index")
    photos.rename(tmp_path / "elsewhere")
    for make in (None, photos.mkdir):
        if make is not None:
            make()
        for allow in (False, True):
            with pytest.raises(ImageError):
                build(photos, tmp_path / "index", allow_removal=allow)
    del before[str(tmp_path / "index" / ".pyxai-lock")]
    assert before.items() <= tree(tmp_path / "index").items()


def test_one_of_several_sources_is_empty(photos, tmp_path):
    sources = [photos / "red", photos / "green", photos / "blue"]
    build(sources, tmp_path / "index")
    (photos / "blue").rename(tmp_path / "blue")
    (photos / "blue").mkdir()
    with pytest.raises(ValueError, match=r"got 4 of 12 .*--allow-removal"):
        build(sources, tmp_path / "index")
    assert len(ImageIndex.load(tmp_path / "index")) == 12
    index = build(sources, tmp_path / "index", allow_removal=True)
    assert (len(index), len(index.removed)) == (8, 4)


def test_most_photos_are_gone(photos, tmp_path):
    build(photos, tmp_path / "index")
    for path in [*photos.rglob("*.png")][:7]:
        path.unlink()
    with pytest.raises(ValueError, match=r"^photos: .* got 7 of 12 .*is a folder not mounted\?"):
        build(photos, tmp_path / "index")
    assert len(ImageIndex.load(tmp_path / "index")) == 12
    assert same(build(photos, tmp_path / "index", allow_removal=True), photos)


def test_a_photo_that_cannot_be_looked_at_stays(photos, tmp_path, monkeypatch):
    build(photos, tmp_path / "index")
    original, bad = going.stamp_of, str(photos / "red" / "0.png")

    def failing(path):
        if path == bad:
            raise OSError(5, "Input/output error")
        return original(path)

    monkeypatch.setattr(going, "stamp_of", failing)
    index = build(photos, tmp_path / "index")
    assert len(index) == 12
    ((path, reason),) = index.failures
    assert path == bad
    assert "Input/output error" in reason


# ---- names, other files, other processes ----


def test_names_that_are_not_utf8(photos, tmp_path):
    (photos / "red" / "0.png").rename(photos / "red" / LATIN)
    index = build(photos, tmp_path / "index")
    loaded = ImageIndex.load(tmp_path / "index")
    assert loaded.photos == index.photos
    assert str(photos / "red" / LATIN) in [photo.path for photo in loaded.photos]
    assert len(build(photos, tmp_path / "index").remove(photos / "red" / LATIN)) == 11


def test_files_of_others_stay(photos, tmp_path):
    folder = tmp_path / "index"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / "index-mine.safetensors").write_text("mine")
    build(photos, folder)
    for name in ("red", "green"):
        (photos / name / "0.png").unlink()
    build(photos, folder)
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "index-mine.safetensors").read_text() == "mine"
    other = tmp_path / "other"
    other.mkdir()
    (other / "index-000000.json").write_text("mine")
    with pytest.raises(ValueError, match=r"whose 'index-000000\.json' was not written by pyxai"):
        build(photos, other)
    assert (other / "index-000000.json").read_text() == "mine"


def test_what_a_killed_run_has_left_half_written_goes(photos, tmp_path):
    build(photos, tmp_path / "index")
    part = tmp_path / "index" / ".123456789abc.other.1.0.pyxai-part.safetensors"  # of any machine
    part.write_bytes(b"features")
    build(photos, tmp_path / "index")
    assert not part.exists()


def test_one_run_at_a_time(photos, tmp_path):
    index = build(photos, tmp_path / "index")
    with locked(tmp_path / "index", "directory"):
        for work in (
            lambda: build(photos, tmp_path / "index"),
            lambda: index.add(photos, progress=False),
            lambda: index.remove(photos / "red"),
            lambda: build(photos, None).save(tmp_path / "index"),
        ):
            with pytest.raises(BusyError, match=r"directory: .* busy, by process"):
                work()
    assert len(index) == 12


def test_what_another_process_has_changed_is_kept(photos, tmp_path):
    one = build([photos / "red", photos / "green"], tmp_path / "index")
    two = ImageIndex.load(tmp_path / "index", color_classifier())
    two.add(photos / "blue", progress=False)
    one.remove(photos / "red" / "0.png")
    assert len(one) == 11
    assert len(two) == 12  # what it saw then
    two.search(0)
    assert ImageIndex.load(tmp_path / "index").photos == one.photos


def test_a_damaged_index_names_the_file(photos, tmp_path):
    index = build(photos, tmp_path / "index", layers=["body", "relu"])
    (path,) = (tmp_path / "index").glob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.unlink()
    path.write_bytes(data)
    loaded = ImageIndex.load(tmp_path / "index", color_classifier())
    assert index.features("body").shape == loaded.features("body").shape
    for use in (
        lambda: loaded.search(0),
        lambda: loaded.features(),
        lambda: loaded.remove(photos / "red" / "0.png"),
        lambda: loaded.save(tmp_path / "copy"),
    ):
        with pytest.raises(ValueError, match=rf"{path.name} is damaged: '0\.1' is not"):
            use()
    assert len(ImageIndex.load(tmp_path / "index")) == 12
    columns = next((tmp_path / "index").glob("index-*.json"))
    columns.write_text(columns.read_text().replace("red", "rod", 1))
    with pytest.raises(ValueError, match=rf"{columns.name} is damaged"):
        ImageIndex.load(tmp_path / "index")


def test_features_and_photos_of_two_indexes(photos, tmp_path):
    for name in ("one", "two"):
        build(photos, tmp_path / name)
        path = photos / "red" / "0.png"
        Image.new("RGB", (96, 96), "white").save(path)
    shutil.copyfile(tmp_path / "one" / "index-000000.json", tmp_path / "two" / "index-000000.json")
    with pytest.raises(ValueError, match="does not hold the rows of the photos in index-"):
        ImageIndex.load(tmp_path / "two")


def test_a_run_that_was_stopped_after_it_read_photos_again(photos, tmp_path, monkeypatch):
    """The features of before are not shown beside the new ones."""
    build(photos, tmp_path / "index")
    for number, name in enumerate(("red", "green", "blue")):
        Image.new("RGB", (96, 96), (60 * number, 200, 90)).save(photos / name / "0.png")

    def stopped(self, photos, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(parts.Parts, "arrange", stopped)
        with pytest.raises(KeyboardInterrupt):
            build(photos, tmp_path / "index")
    loaded = ImageIndex.load(tmp_path / "index")
    paths = [photo.path for photo in loaded.photos]
    assert len(paths) == len(set(paths)) == 12
    place = {photo.path: at for at, photo in enumerate(loaded.photos)}
    fresh = ImageIndex.build(color_classifier(), photos, layers=["relu"], progress=False)
    order = [place[photo.path] for photo in fresh.photos]
    torch.testing.assert_close(loaded.features()[order], fresh.features())
    assert same(build(photos, tmp_path / "index"), photos)


def test_copies_of_what_the_network_cannot_use(tmp_path):
    class Broken(ColorNet):
        def forward(self, images):
            bright = images.amax((1, 2, 3), True) > 0.8
            return super().forward(images + torch.where(bright, torch.inf, 0.0))

    folder = tmp_path / "photos"
    folder.mkdir()
    for name, color in {"a": "white", "b": "white", "c": "black", "d": "black"}.items():
        Image.new("RGB", (96, 96), color).save(folder / f"{name}.png")
    index = ImageIndex.build(
        Classifier(Broken().eval(), preprocessing=PLAIN), folder, layers="relu", progress=False
    )
    assert [photo.path[-5] for photo in index.photos] == ["c", "d"]
    assert [each.path[-5] for each in index.failures] == ["a", "b"]
    assert torch.equal(index.features()[0], index.features()[1])


# ---- strips ----


@pytest.mark.skipif(sys.platform != "linux", reason="measures peak memory")
def test_a_strip_among_photos_is_named_and_costs_nothing(tmp_path):
    code = """
import resource, sys
import torch
from torch import nn
import pyxai
torch.set_num_threads(1)
net = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1),
    nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3)).eval()
for resize in (64, 160):
    model = pyxai.Classifier(net, preprocessing=pyxai.Preprocessing(resize=resize))
    index = pyxai.ImageIndex.build(model, sys.argv[1], progress=False)
    print(len(index), *(each.path for each in index.failures))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    peaks = []
    folder = folder_of_photos(tmp_path / "photos", count=2)
    strip = folder / "strip.png"
    for _ in range(2):
        ran = subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        *told, peak = ran.stdout.splitlines()
        peaks.append(int(peak))
        expected = f"6 {strip}" if strip.exists() else "6"
        assert told == [expected, expected]
        Image.new("RGB", (3000, 3), "red").save(strip)
    assert peaks[1] < peaks[0] + 100


def test_another_file_called_as_an_index_stays(photos, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.json").write_text('{"mine": 1}')
    with pytest.raises(ValueError, match=r"^directory: .* whose 'index\.json' was not written"):
        build(photos, tmp_path / "site")
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["index.json"]
    assert (tmp_path / "site" / "index.json").read_text() == '{"mine": 1}'
