"""A site whose photos change: what is gone is gone, and until the end visitors see the old one."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import random_net
from PIL import Image
from train_photos import COLORS, SQUARE, photo

import pyxai
from pyxai._locks import BusyError, locked
from pyxai.feature_visualization.receptive_field import receptive_side
from pyxai.playground import SiteSettings, build, editions, explanations
from pyxai.playground.editions import data_folder
from pyxai.playground.explanations import Explainer
from pyxai.playground.server import load_indexes, read_site
from pyxai.playground.writing import read_data
from pyxai.runs import photos as run_photos
from pyxai.search import extraction

LATIN = os.fsdecode(b"caf\xe9.png")
QUICK = SiteSettings(
    units=1,
    unit_steps=1,
    crops=1,
    undesirable=0,
    windows=False,
    maps=("pca",),
    metrics=("cosine",),
    layers=["stage3"],
)


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    """Stamps of files of just now are believed; features do not depend on other photos at all."""
    monkeypatch.setattr(run_photos, "_YOUNG", 0)
    monkeypatch.setattr(extraction, "images_at_once", lambda inputs: 1)


def network():
    torch.manual_seed(0)
    names = ["blue", "green", "red", "other"]
    net = random_net(classes=4)
    return pyxai.Classifier(net, class_names=names, preprocessing=SQUARE, name="small")


def make_photos(root):
    random = np.random.default_rng(0)
    for name, color in COLORS.items():
        (root / name).mkdir(parents=True)
        for number in range(4):
            photo(color, (48, 40), random).save(root / name / f"{number}.png")
    return root


@pytest.fixture
def photos(tmp_path):
    return make_photos(tmp_path / "photos")


def make(photos, tmp_path, name="site", **options):
    given = {"index": tmp_path / f"{name}.index", "settings": QUICK, "progress": False}
    return build(network(), photos, tmp_path / name, **given | options)


def content(site):
    """All that visitors can see, without the name of the edition."""
    folder = data_folder(site)
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name[0] != "." and path.name != "build.json"
    }
    found["index.html"] = (site / "index.html").read_bytes().replace(folder.name.encode(), b"")
    return found


def tree(folder):
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def names(site):
    return read_data(data_folder(site) / "sets" / "0" / "photos-0.js")["names"]


def thumb(site, number):
    return (data_folder(site) / "sets" / "0" / "thumbs" / "0" / f"{number}.jpg").read_bytes()


# ---- what is gone, what is new, what is another ----


def test_a_photo_that_is_gone_leaves_no_trace(photos, tmp_path, monkeypatch):
    first = make(photos, tmp_path)
    assert first.removed == ()
    number = names(tmp_path / "site").index("red/1.png")
    traces = [b"red/1.png", thumb(tmp_path / "site", number)]
    kept = {"CNAME": "example.org", "robots.txt": "", ".git/HEAD": "ref", "data/mine.csv": "1"}
    for name, text in kept.items():
        (tmp_path / "site" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "site" / name).write_text(text)
    gone = photos / "red" / "1.png"
    gone.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Explainer, "__call__", None)  # what is said of the others is taken over
        again = make(photos, tmp_path)
    assert again.removed == (str(gone),)
    assert again.photos == 11
    for folder in ("site", "site.index"):
        for data in tree(tmp_path / folder).values():
            assert not any(each in data for each in traces)
    assert len([*(tmp_path / "site" / "data").glob("[!m.]*")]) == 1
    assert {n: (tmp_path / "site" / n).read_text() for n in kept} == kept
    make(photos, tmp_path, "fresh")
    assert content(tmp_path / "site") == content(tmp_path / "fresh")


@pytest.mark.parametrize("has_index", [True, False])
def test_edits_of_every_kind_give_what_a_fresh_build_gives(photos, tmp_path, has_index):
    options = {} if has_index else {"index": None}
    make(photos, tmp_path, **options)
    random = np.random.default_rng(5)
    (photos / "blue" / "0.png").unlink()
    photo((200, 180, 20), (48, 40), random).save(photos / "blue" / "01.png")
    (photos / "green" / "2.png").rename(photos / "red" / "moved.png")
    replaced = photos / "red" / "3.png"
    before = replaced.stat()
    data = (photos / "green" / "3.png").read_bytes()
    replaced.write_bytes(data[: before.st_size].ljust(before.st_size, b"\0"))
    os.utime(replaced, ns=(before.st_atime_ns, before.st_mtime_ns))
    (photos / "red" / "broken.jpg").write_bytes(b"no photo")
    photo((10, 10, 10), (48, 40), random).save(photos / "red" / LATIN)
    built = make(photos, tmp_path, **options)
    assert {os.path.basename(each.path) for each in built.failures} >= {"broken.jpg"}  # noqa: PTH119
    make(photos, tmp_path, "fresh", **options)
    assert content(tmp_path / "site") == content(tmp_path / "fresh")
    assert "red/caf\N{REPLACEMENT CHARACTER}.png" in names(tmp_path / "site")


def test_a_photo_that_was_replaced(photos, tmp_path):
    make(photos, tmp_path)
    old = thumb(tmp_path / "site", 0)
    photo((250, 250, 0), (48, 40), np.random.default_rng(8)).save(photos / "blue" / "0.png")
    assert make(photos, tmp_path).removed == ()
    assert thumb(tmp_path / "site", 0) != old
    about = read_site(tmp_path / "site")
    load_indexes(about, network(), tmp_path / "site.index")


def test_nothing_changed(photos, tmp_path, monkeypatch):
    make(photos, tmp_path)
    before = {p: p.stat().st_ino for p in data_folder(tmp_path / "site").rglob("*.*")}
    monkeypatch.setattr(Explainer, "__call__", None)
    moved = tmp_path / "elsewhere" / "photos"
    moved.parent.mkdir()
    photos.rename(moved)
    assert make(moved, tmp_path).removed == ()
    folder = data_folder(tmp_path / "site")
    assert {p: p.stat().st_ino for p in folder.rglob("*.*")} == before
    assert [path.name for path in (tmp_path / "site" / "data").iterdir()] == [folder.name]


def test_fewer_data_sets(photos, tmp_path):
    sets = {"warm": photos / "red", "cold": photos / "blue"}
    make(sets, tmp_path)
    built = make({"warm": photos / "red"}, tmp_path)
    assert sorted(built.removed) == sorted(str(path) for path in photos.glob("blue/*.png"))
    assert not any(b"blue" in data for data in tree(tmp_path / "site.index").values())


def test_most_photos_are_gone(photos, tmp_path):
    make(photos, tmp_path)
    before = content(tmp_path / "site")
    (photos / "red").rename(tmp_path / "red")
    (photos / "blue").rename(tmp_path / "blue")
    with pytest.raises(ValueError, match=r"got 8 of 12 .*allow_removal=True"):
        make(photos, tmp_path)
    assert content(tmp_path / "site") == before
    assert len(make(photos, tmp_path, allow_removal=True).removed) == 8


# ---- photos that vanish or change while a site is built ----


def test_a_photo_that_vanishes_meanwhile_is_named_and_left_out(photos, tmp_path, monkeypatch):
    original, gone = Explainer.__call__, photos / "red" / "0.png"

    def vanishing(self, *arguments, **options):
        gone.unlink(missing_ok=True)
        return original(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Explainer, "__call__", vanishing)
        built = make(photos, tmp_path)
    assert (built.photos, built.removed) == (11, (str(gone),))
    assert [each.path for each in built.failures] == [str(gone)]
    assert read_site(tmp_path / "site")["sets"][0]["unreadable"] == 1
    make(photos, tmp_path, "fresh")
    one, two = content(tmp_path / "site"), content(tmp_path / "fresh")
    one["site.js"] = one["site.js"].replace(b'"unreadable":1', b'"unreadable":0')
    assert one == two
    assert make(photos, tmp_path).failures == ()


@pytest.mark.parametrize("where", ["units", "galleries", "end"])
def test_a_photo_that_changes_meanwhile(photos, tmp_path, monkeypatch, where):
    """Its features are of another picture: it comes in with the next build."""
    module = pyxai.playground.builder
    name = {"units": "write_units", "galleries": "write_galleries", "end": "check_photos"}[where]
    original, changed = getattr(module, name), photos / "blue" / "3.png"

    def changing(*arguments, **options):
        if where == "end":
            Image.new("RGB", (48, 40), "white").save(changed)
        else:
            changed.write_bytes(b"broken")
        monkeypatch.setattr(module, name, original)
        return original(*arguments, **options)

    monkeypatch.setattr(module, name, changing)
    built = make(photos, tmp_path)
    assert [each.path for each in built.failures] == [str(changed)]
    assert "blue/3.png" not in names(tmp_path / "site")
    Image.new("RGB", (48, 40), "white").save(changed)
    assert make(photos, tmp_path).failures == ()
    make(photos, tmp_path, "fresh")
    assert content(tmp_path / "site") == content(tmp_path / "fresh")


def test_errors_that_no_photo_is_to_blame_for(photos, tmp_path, monkeypatch):
    def failing(self, *arguments, **options):
        raise pyxai.images.ImageError("nobody.png", "no such file")

    monkeypatch.setattr(pyxai.playground.builder, "write_maps", failing)
    with pytest.raises(pyxai.images.ImageError, match=r"nobody\.png"):
        make(photos, tmp_path)


# ---- builds that fail or are stopped ----


@pytest.mark.parametrize("step", ["write_photos", "write_neighbors", "write_galleries"])
def test_a_build_that_fails_leaves_the_site_as_it_was(photos, tmp_path, monkeypatch, step):
    make(photos, tmp_path)
    before = {name: data for name, data in tree(tmp_path / "site").items() if "/.next/" not in name}
    (photos / "red" / "0.png").unlink()

    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pyxai.playground.builder, step, stopped)
        with pytest.raises(KeyboardInterrupt):
            make(photos, tmp_path)
    lock = str(tmp_path / "site" / ".pyxai-lock")
    after = {name: d for name, d in tree(tmp_path / "site").items() if "/.next/" not in name}
    assert {**after, lock: b""} == {**before, lock: b""}
    make(photos, tmp_path)
    make(photos, tmp_path, "fresh")
    assert content(tmp_path / "site") == content(tmp_path / "fresh")


@pytest.mark.parametrize("at", ["_show", "discard"])
def test_a_build_that_stops_while_it_exchanges_the_site(photos, tmp_path, monkeypatch, at):
    make(photos, tmp_path)
    old = content(tmp_path / "site")
    (photos / "red" / "0.png").unlink()
    place = editions.SiteHome if at == "_show" else editions.OutputFolder

    def stopped(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(place, at, stopped)
        with pytest.raises(KeyboardInterrupt):
            make(photos, tmp_path)
    make(photos, tmp_path, "fresh")
    new = content(tmp_path / "fresh")
    assert content(tmp_path / "site") == (old if at == "_show" else new)
    read_site(tmp_path / "site")
    monkeypatch.setattr(Explainer, "__call__", None)  # all is there
    (tmp_path / "site" / "data" / "0123456789ab").mkdir()  # killed before it was removed itself
    (tmp_path / "site" / "data" / "mine").mkdir()
    make(photos, tmp_path)
    assert content(tmp_path / "site") == new
    (tmp_path / "site" / "data" / "mine").rmdir()
    assert len([*(tmp_path / "site" / "data").iterdir()]) == 1


def test_what_a_stopped_build_has_made_is_not_made_again(photos, tmp_path, monkeypatch):
    calls, original = [], Explainer.__call__
    monkeypatch.setattr(explanations, "PHOTOS_PER_FILE", 2)

    def counting(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return original(self, *arguments, **options)

    monkeypatch.setattr(Explainer, "__call__", counting)
    with pytest.raises(KeyboardInterrupt):
        make(photos, tmp_path)
    thumbs = tmp_path / "site" / "data" / ".next" / "sets" / "0" / "thumbs" / "0"
    before = {path.name: path.stat().st_mtime_ns for path in thumbs.iterdir()}
    assert len(before) == 12
    make(photos, tmp_path)
    assert len(calls) == 8 + 6
    after = data_folder(tmp_path / "site") / "sets" / "0" / "thumbs" / "0"
    assert {path.name: path.stat().st_mtime_ns for path in after.iterdir()} == before


def test_damaged_and_lost_files_are_not_taken_over(photos, tmp_path):
    make(photos, tmp_path)
    whole = content(tmp_path / "site")
    folder = data_folder(tmp_path / "site")
    damaged = ("thumbs/0/3.jpg", "layers/0/crops/", "explained-0.js", "pages/style.css")
    lost = ("thumbs/0/4.jpg", "sets/0/networks/0/crops/", "photos-0.js")
    for each in (*damaged, *lost):
        path = next(path for path in sorted(folder.rglob("*.*")) if each in path.as_posix())
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.unlink() if each in lost else path.write_bytes(data)
    make(photos, tmp_path)
    assert content(tmp_path / "site") == whole


def test_a_photo_of_one_colour(photos, tmp_path):
    """There is no mask to learn for it, which once stopped the whole build."""
    Image.new("RGB", (48, 40), "red").save(photos / "blue" / "0.png")
    make(photos, tmp_path, settings=replace(QUICK, undesirable=1, undesirable_steps=1))
    first = read_data(data_folder(tmp_path / "site") / "sets/0/networks/0/explained-0.js")
    assert {each["kind"] for each in first["photos"][0]["maps"]} == {"cam"}


@pytest.mark.parametrize("name", ["build.json", ".pyxai-files.jsonl"])
def test_damaged_lists(photos, tmp_path, name):
    make(photos, tmp_path)
    whole = content(tmp_path / "site")
    path = data_folder(tmp_path / "site") / name
    data = path.read_bytes()
    middle = data.index(b"crops/") if b"crops/" in data else len(data) // 2
    path.write_bytes(data[:middle] + b"x" + data[middle + 1 :])
    make(photos, tmp_path)
    assert content(tmp_path / "site") == whole


def test_another_build_works_in_the_folder(photos, tmp_path):
    make(photos, tmp_path)
    before = content(tmp_path / "site")
    with (
        locked(tmp_path / "site", "directory"),
        pytest.raises(BusyError, match=r"^directory: .* busy, by process"),
    ):
        make(photos, tmp_path)
    assert content(tmp_path / "site") == before


def test_a_page_of_somebody_else(photos, tmp_path):
    make(photos, tmp_path)
    page = tmp_path / "site" / "index.html"
    page.write_text(page.read_text().replace("<title>", "<title>My "))
    with pytest.raises(ValueError, match=r"whose 'index\.html' was not written by pyxai"):
        make(photos, tmp_path)
    assert "<title>My " in page.read_text()


def test_copies_where_there_are_no_links(photos, tmp_path, monkeypatch):
    def refused(self, other):
        raise OSError(95, "Operation not supported")

    make(photos, tmp_path)
    monkeypatch.setattr("pathlib.Path.hardlink_to", refused)
    (photos / "red" / "0.png").unlink()
    make(photos, tmp_path)
    make(photos, tmp_path, "fresh")
    assert content(tmp_path / "site") == content(tmp_path / "fresh")


def test_a_site_among_the_photos_is_none_of_them(photos, tmp_path):
    for _ in range(2):
        built = make(photos, photos)
        assert built.photos == 12


# ---- strips ----


def test_the_receptive_field_of_a_strip_is_measured_on_a_piece():
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    clf = pyxai.Classifier(torch.nn.Sequential(net, torch.nn.Linear(4, 2)).eval())
    assert receptive_side(clf, "0.0", (3, 60_000)) == receptive_side(clf, "0.0", (3, 300)) == 3


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="measures peak memory")
def test_a_strip_among_photos(photos, tmp_path):
    """Where the resize makes it huge it is left out and named, else it is no more than small."""
    code = """
import resource, sys
import torch
from networks import random_net
import pyxai
from pyxai.playground import SiteSettings, build
torch.set_num_threads(1)
torch.manual_seed(0)
for resize in (64, None):
    steps = pyxai.Preprocessing(resize=resize)
    net = pyxai.Classifier(random_net(classes=4), preprocessing=steps, name="small")
    settings = SiteSettings(units=1, unit_steps=1, crops=1, explained=1, undesirable=1,
        undesirable_steps=1, maps=("pca",), metrics=("cosine",), layers=["stage1", "stage3"])
    site = build(net, sys.argv[1], f"{sys.argv[2]}{resize}", settings=settings, progress=False)
    print(site.photos, *(each.path for each in site.failures))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    peaks, strip = [], photos / "blue" / "0.png"  # one of those that are explained
    for name in ("one", "two"):
        ran = subprocess.run(
            [sys.executable, "-c", code, str(photos), str(tmp_path / name)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        *told, peak = ran.stdout.splitlines()
        peaks.append(int(peak))
        assert told == (["12", "12"] if name == "one" else [f"11 {strip}", "12"])
        noise = np.random.default_rng(0).integers(0, 256, (3, 3000, 3), np.uint8)
        Image.fromarray(noise).save(strip)
    assert peaks[1] < peaks[0] + 300
