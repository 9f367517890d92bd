"""Galleries on disk, their pages, and runs that were interrupted."""

from __future__ import annotations

import os
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from gallery_photos import COLORS, CROP, NAMES, color_classifier, facts, folder_of_photos, photo
from killing import each_kill
from PIL import Image
from sklearn.cluster import DBSCAN

from pyxai import ClassGallery, Classifier, Preprocessing
from pyxai._locks import BusyError, locked
from pyxai._sealed import read_record, write_record
from pyxai.classifier.fingerprint import fingerprint
from pyxai.galleries.storage import folder_names
from pyxai.runs import working
from pyxai.runs.parts import Parts

HOSTILE = (
    "<script>alert(1)</script>",
    "../../etc/passwd",
    'x" onerror="alert(1)\x00\n',
    "very long " * 100,
)


def new(model=None, **options):
    options = {"stride": 8, "clusters": 2, **options}
    return ClassGallery(color_classifier() if model is None else model, CROP, **options)


@pytest.fixture
def folder(tmp_path):
    return folder_of_photos(tmp_path / "photos")


@pytest.fixture
def gallery(folder):
    return new().fit(folder)


# ---- saving and loading ----


def test_round_trip(gallery, tmp_path):
    saved = gallery.save(tmp_path / "saved")
    loaded = ClassGallery.load(saved)
    assert facts(loaded) == facts(gallery)
    assert loaded.to_dict() == gallery.to_dict()
    assert loaded.settings == gallery.settings
    assert loaded.class_names == NAMES
    assert loaded.classifier is None
    assert repr(loaded) == repr(gallery)
    for name in COLORS:
        assert np.array_equal(loaded.features(name), gallery.features(name))
        difference = np.array(loaded[name][0].picture(), float) - gallery[name][0].picture()
        assert np.abs(difference).mean() < 20  # JPEG
        assert len(list((saved / "crops" / name).iterdir())) == len(gallery[name])
    assert facts(loaded.recluster(3)) == facts(gallery.recluster(3))
    with pytest.raises(ValueError, match="fit: expected a gallery with a model"):
        loaded.fit([photo(1)])


def test_a_loaded_gallery_is_saved_without_loss(gallery, tmp_path):
    first = gallery.save(tmp_path / "first")
    before = {path.name: path.read_bytes() for path in (first / "crops" / "red").iterdir()}
    second = ClassGallery.load(first).recluster(3).save(tmp_path / "second")
    assert before == {path.name: path.read_bytes() for path in (second / "crops/red").iterdir()}
    ClassGallery.load(first).save(first)  # onto itself
    assert before == {path.name: path.read_bytes() for path in (first / "crops/red").iterdir()}


def test_crops_of_a_larger_gallery_do_not_stay(gallery, folder, tmp_path):
    gallery.save(tmp_path / "saved")
    new(per_class=2).fit(folder).save(tmp_path / "saved")
    left = sorted(path.name for path in (tmp_path / "saved/crops/red").iterdir())
    assert [name[:4] for name in left] == ["000-", "001-"]
    assert len(ClassGallery.load(tmp_path / "saved")["red"]) == 2


def test_pictures_do_not_depend_on_the_working_folder(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    gallery = new().fit("photos")
    saved = gallery.save("saved")
    loaded = ClassGallery.load(saved)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert gallery["red"][0].name == "photos/red/" + Path(gallery["red"][0].name).name
    assert gallery["red"][0].picture().size == (CROP, CROP)
    assert loaded["red"][0].picture().size == (CROP, CROP)


def test_hostile_names(folder, tmp_path):
    gallery = new(color_classifier(names=HOSTILE)).fit(folder)
    place = tmp_path / "deep" / "saved"
    gallery.page(place)
    written = [path.relative_to(tmp_path) for path in (tmp_path / "deep").rglob("*")]
    assert all(path.parts[:2] == ("deep", "saved") or path == Path("deep") for path in written)
    assert len(list((place / "crops").iterdir())) == 4
    assert list(ClassGallery.load(place)) == list(HOSTILE)
    for name in HOSTILE:
        gallery.figure(name, cell=20)


@pytest.mark.parametrize(
    ("names", "folders"),
    [
        (["a b", "a/b", "A B"], ["a_b", "a_b-2", "A_B-3"]),
        (["..", "", "...", "\x00"], ["class", "class-2", "class-3", "class-4"]),
        (["con", "NUL", "com1", "lpt"], ["con_", "NUL_", "com1_", "lpt"]),
        (["Straße", "市場"], ["Straße", "市場"]),
        (["\udc80x"], ["x"]),
        (["x" * 300, "x" * 301], ["x" * 60, "x" * 60 + "-2"]),
    ],
    ids=str,
)
def test_folder_names(names, folders):
    assert folder_names(names) == folders


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "gallery.json").write_text("no JSON"),
        lambda folder: (folder / "gallery.json").write_text("[1]"),
        lambda folder: edit(folder, lambda record: record.update(format="other")),
        lambda folder: edit(folder, lambda record: record.pop("settings")),
        lambda folder: edit(folder, lambda record: record["settings"].update(crop=-1)),
        lambda folder: edit(folder, lambda record: record["classes"].pop()),
        lambda folder: edit(folder, lambda record: record["classes"][0]["crops"].pop()),
        lambda folder: edit(folder, lambda record: record["classes"][0]["crops"][0].pop("box")),
        lambda folder: next(folder.glob("features-*")).write_bytes(b"\x80\x04pickle"),
    ],
)
def test_damaged_galleries(gallery, tmp_path, damage):
    folder = gallery.save(tmp_path / "saved")
    damage(folder)
    with pytest.raises(ValueError, match="directory: expected a gallery saved by pyxai, got"):
        ClassGallery.load(folder)


def edit(folder, change):
    record = read_record(folder / "gallery.json")
    change(record)
    write_record(folder / "gallery.json", record)


def test_a_changed_byte_anywhere_is_found(gallery, tmp_path):
    folder = gallery.save(tmp_path / "saved")
    listed = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
    assert len(listed) == 2 + sum(len(gallery[name]) for name in gallery)
    for path in listed:
        whole = path.read_bytes()
        place = len(whole) // 2
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=f"{path.name} is damaged"):
            [crop.picture() for name in NAMES for crop in ClassGallery.load(folder)[name]]
        path.write_bytes(whole)


def contents(gallery):
    pictures = [crop.picture().tobytes() for name in gallery for crop in gallery[name]]
    return facts(gallery), [gallery.features(name).tolist() for name in gallery], pictures


@pytest.mark.parametrize("page", [False, True])
def test_saving_over_an_older_gallery_is_all_or_nothing(folder, tmp_path, monkeypatch, page):
    gallery, other = new(per_class=4).fit(folder), new(per_class=2).fit(folder)
    older = contents(ClassGallery.load(gallery.save(tmp_path / "older")))
    newer = contents(ClassGallery.load(other.save(tmp_path / "newer")))
    place = tmp_path / "saved"
    seen = set()

    def save():
        other.page(place) if page else other.save(place)

    gallery.page(place)
    for _ in each_kill(save, monkeypatch):
        found = contents(ClassGallery.load(place))
        assert found in (older, newer)
        seen.add(found == newer)
        images = Page(place / "index.html").images if (place / "index.html").exists() else []
        assert all((place / source).exists() for source in images)
        gallery.page(place)
    assert seen == {False, True}
    save()
    crops = sum(len(other[name]) for name in other)
    left = [path for path in place.rglob("*") if path.is_file() and path.name[0] != "."]
    assert len(left) == crops + 2 + page


def test_other_files_stay(gallery, tmp_path):
    (tmp_path / "crops" / "red").mkdir(parents=True)
    mine = tmp_path / "crops" / "red" / "000.jpg"
    mine.write_text("mine")
    with pytest.raises(ValueError, match="whose 'crops' was not written by pyxai"):
        gallery.save(tmp_path)
    assert mine.read_text() == "mine"
    assert not (tmp_path / "gallery.json").exists()
    gallery.page(tmp_path / "saved")
    (tmp_path / "saved" / "crops" / "red" / "mine.txt").write_text("mine")
    gallery.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "crops" / "red" / "mine.txt").read_text() == "mine"


def test_two_runs_on_one_checkpoint(folder, tmp_path):
    place = tmp_path / "run"
    said = rf"^checkpoint: .* busy, by process {os.getpid()} since"
    with locked(place, "checkpoint"), pytest.raises(BusyError, match=said):
        new().fit(folder, checkpoint=place)
    new().fit(folder, checkpoint=place)


def change_rename(folder):
    (folder / "red").rename(folder / "rot")


def change_remove(folder):
    sorted((folder / "red").iterdir())[0].unlink()


def change_replace(folder):
    path = sorted((folder / "red").iterdir())[0]
    photo(901, "red").save(path)


@pytest.mark.parametrize("change", [change_rename, change_remove, change_replace])
def test_a_run_whose_photos_changed_is_as_one_begun_anew(folder, tmp_path, change):
    new().fit(folder, checkpoint=tmp_path / "run")
    before = {str(path) for path in folder.rglob("*.png")}
    change(folder)
    found = new().fit(folder, checkpoint=tmp_path / "run")
    gone = before - {str(path) for path in folder.rglob("*.png")}
    left = b"".join(path.read_bytes() for path in (tmp_path / "run").iterdir())
    assert not any(name.encode() in left for name in gone)
    assert facts(found) == facts(new().fit(folder))
    assert found.to_dict() == new().fit(folder).to_dict()
    assert facts(new().fit(folder, checkpoint=tmp_path / "run")) == facts(found)


def test_a_run_is_of_the_photos_that_are_asked_for(folder, tmp_path):
    some = [folder / "red", folder / "green"]
    new().fit(some, checkpoint=tmp_path / "run")
    more = new().fit([*some, folder / "blue"], checkpoint=tmp_path / "run")  # goes on
    assert facts(more) == facts(new().fit([*some, folder / "blue"]))
    fewer = new().fit(some, checkpoint=tmp_path / "run")
    assert facts(fewer) == facts(new().fit(some))


def test_no_gallery_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        ClassGallery.load(tmp_path)


# ---- the page ----


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.images, self.texts, self.attributes = [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attributes]
        self.images += [value for name, value in attributes if (tag, name) == ("img", "src")]

    def handle_data(self, data):
        self.texts.append(data)


def test_page(gallery, tmp_path):
    path = gallery.page(tmp_path / "out")
    page = Page(path)
    assert path == tmp_path / "out" / "index.html"
    assert "script" not in page.tags
    assert len(page.images) == sum(
        len(gallery[name]) + gallery.to_dict()["classes"][name]["clusters"] for name in gallery
    )
    for source in page.images:
        assert (path.parent / unquote(source)).is_file()
    text = path.read_text()
    assert "http" not in text
    assert "viewport" in text
    assert "color-scheme: light dark" in text


def test_page_with_hostile_names_and_an_empty_class(tmp_path):
    names = tmp_path / '<img src=x onerror="a">'
    folder = folder_of_photos(names, count=1)
    (folder / "<b>broken.jpg").write_bytes(b"")
    gallery = new(color_classifier(names=("<i>none", *HOSTILE[:3]))).fit(folder / "green")
    empty = Page(gallery.page(tmp_path / "empty"))
    assert "No crop speaks for this class." in empty.texts
    path = new(color_classifier(names=HOSTILE)).fit(folder).page(tmp_path / "out")
    page = Page(path)
    assert not {"script", "i", "b"} & {*page.tags}
    assert "onerror" not in page.attributes
    assert "<script>alert(1)</script>" in "".join(page.texts)  # as text
    assert "<b>broken.jpg" in "".join(page.texts)
    assert "\x00" not in path.read_text()
    for source in page.images:
        assert (path.parent / unquote(source)).is_file()


def test_page_shows_what_is_in_no_cluster(gallery, tmp_path):
    noisy = gallery.recluster(clusterer=DBSCAN(eps=1e-7, min_samples=2))
    page = Page(noisy.page(tmp_path / "out"))
    assert "in no cluster" in page.texts


# ---- interrupted runs ----


class Stopped(Exception):
    pass


def stopping(sources, after):
    for number, source in enumerate(sources):
        if number == after:
            raise Stopped
        yield source


@pytest.mark.parametrize("in_memory", [False, True])
def test_an_interrupted_run_gives_the_same(folder, tmp_path, monkeypatch, in_memory):
    monkeypatch.setattr(working, "_MOST", 3)
    (folder / "blue" / "broken.png").write_bytes(b"nothing")
    photo(1, size=20).save(folder / "green" / "small.png")
    sources = sorted(folder.rglob("*.png"))
    if in_memory:
        sources = [path if "bro" in path.name else Image.open(path) for path in sources]
    whole = new(per_class=4).fit(sources)
    place, looks = tmp_path / "run", []
    original = ClassGallery._finish

    def count_looks(self, classifier, selection):
        looks.append(selection.tally.photos)
        return original(self, classifier, selection)

    monkeypatch.setattr(ClassGallery, "_finish", count_looks)
    for after in (4, 5, 11):
        with pytest.raises(Stopped):
            new(per_class=4).fit(stopping(sources, after), checkpoint=place)
    resumed = new(per_class=4).fit(sources, checkpoint=place)
    again = new(per_class=4).fit(sources, checkpoint=place)
    assert looks == [17, 17]  # every photo counted once
    assert facts(resumed) == facts(again) == facts(whole)
    assert resumed.to_dict() == again.to_dict() == whole.to_dict()
    for name in COLORS:
        assert np.array_equal(resumed.features(name), whole.features(name))
        assert [c.picture().tobytes() for c in resumed[name]] == [
            c.picture().tobytes() for c in whole[name]
        ]


def test_photos_of_a_former_run_are_not_looked_at_again(folder, tmp_path, monkeypatch):
    new().fit(folder, checkpoint=tmp_path / "run")
    photo(70, "red").save(folder / "red" / "new.png")
    model = color_classifier()
    seen = []
    forward = model.model.forward

    def watching(images):
        seen.append(tuple(images.shape))
        return forward(images)

    monkeypatch.setattr(model.model, "forward", watching)
    gallery = new(model).fit(folder, checkpoint=tmp_path / "run")
    assert seen.count((1, 3, 96, 96)) <= 2  # the new photo, and a look at the model
    assert gallery.to_dict()["photos"] == 16
    assert any(crop.name.endswith("new.png") for crop in gallery["red"])


def test_a_part_that_is_not_in_the_list_is_written_over(folder, tmp_path, monkeypatch):
    """As a run leaves it that is stopped between a part and the list of parts."""
    place = tmp_path / "run"
    monkeypatch.setattr(working, "_MOST", 3)
    original, saved = Parts.save, []

    def stopping_once(self):
        saved.append(self)
        if len(saved) == 3:
            raise Stopped
        original(self)

    monkeypatch.setattr(Parts, "save", stopping_once)
    with pytest.raises(Stopped):
        new().fit(folder, checkpoint=place)
    assert (place / "gallery-run-000002.json").exists()
    assert facts(new().fit(folder, checkpoint=place)) == facts(new().fit(folder))
    assert {path.name for path in place.iterdir() if path.name[0] != "."} == {
        "gallery-run.json",
        "gallery-run-000005.json",
        "gallery-run-000005.safetensors",
    }


def test_names_that_are_no_text(tmp_path):
    place = os.fsencode(tmp_path) + b"/\xff\xfe.png"
    photo(1, "red").save(os.fsdecode(place), format="PNG")
    gallery = new().fit(tmp_path, checkpoint=tmp_path / "run")
    assert facts(new().fit(tmp_path, checkpoint=tmp_path / "run")) == facts(gallery)
    saved = gallery.page(tmp_path / "out").parent
    assert facts(ClassGallery.load(saved)) == facts(gallery)


@pytest.mark.parametrize("name", [".json", "-000000.json", "-000000.safetensors"])
def test_files_of_others_with_names_that_a_run_needs(folder, tmp_path, name):
    mine = tmp_path / "run" / f"gallery-run{name}"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(ValueError, match=r"^checkpoint: .* was not written by pyxai"):
        new().fit(folder / "red", checkpoint=tmp_path / "run")
    assert mine.read_text() == "mine"


def test_a_checkpoint_of_another_run_is_refused(folder, tmp_path):
    place = tmp_path / "run"
    new().fit(folder / "red", checkpoint=place)
    new(layer="body", seed=3, clusters=4).fit(folder / "red", checkpoint=place)  # all the same
    with pytest.raises(ValueError, match=r"where these differ: per_photo, stride$"):
        new(per_photo=1, stride=16).fit(folder, checkpoint=place)
    other = color_classifier()
    with torch.no_grad():
        other.model.fc.bias += 1e-3
    with pytest.raises(ValueError, match=r"where these differ: weights$"):
        new(other).fit(folder, checkpoint=place)
    shifted = Classifier(
        color_classifier().model, class_names=NAMES, preprocessing=Preprocessing(resize=96)
    )
    with pytest.raises(ValueError, match=r"where these differ: preprocessing$"):
        new(shifted).fit(folder, checkpoint=place)
    (place / "gallery-run.json").write_text("{}")
    with pytest.raises(ValueError, match="checkpoint: expected a gallery's run saved by pyxai"):
        new().fit(folder, checkpoint=place)


def test_fingerprint_sees_every_weight():
    model = color_classifier().model
    before = fingerprint(model)
    assert fingerprint(color_classifier().model) == before
    with torch.no_grad():
        model.fc.weight[0, 0] += 1
    assert fingerprint(model) != before
    assert fingerprint(model.bfloat16()) != before
