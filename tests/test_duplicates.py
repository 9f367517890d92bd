"""Photos that show the same: how they are found, grouped, kept, stored and moved."""

from __future__ import annotations

import csv
import json
import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from duplicate_photos import describing, quick, scene, tree
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from torch import nn
from typer.testing import CliRunner

import pyxai
from pyxai._outputs import MANIFEST
from pyxai.cli.duplicates import duplicates as command
from pyxai.curate.duplicates import find_duplicates
from pyxai.curate.duplicates.grouping import Match, group_photos
from pyxai.curate.duplicates.hashes import hash_function, hashes
from pyxai.curate.duplicates.nearby import least_cosine, near_features, near_hashes
from pyxai.curate.duplicates.records import Record
from pyxai.images import ImageError
from pyxai.runs import working

pytest.importorskip("imagehash")


@pytest.fixture
def photos(tmp_path):
    """Five photos; of the first an equal file, equal pixels, a blurred copy and a mirrored one."""
    root = tmp_path / "photos"
    root.mkdir()
    for seed in range(5):
        scene(seed).save(root / f"{seed}.png")
    shutil.copy(root / "0.png", root / "0 again.png")
    scene(0).save(root / "0 stored otherwise.bmp")
    scene(0).filter(ImageFilter.GaussianBlur(1)).save(root / "0 blurred.png")
    scene(1).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / "1 mirrored.png")
    return root


def names(found):
    """The groups as sorted names, the one to keep first."""
    return [[Path(path).name for path in group.paths] for group in found.groups]


# ---- what is found ----


def test_stages(photos):
    assert names(quick(photos, methods=["exact"])) == [
        ["0 again.png", "0.png", "0 stored otherwise.bmp"]
    ] or names(quick(photos, methods="exact")) == [
        ["0 stored otherwise.bmp", "0 again.png", "0.png"]
    ]
    (group,) = quick(photos).groups
    stages = {Path(copy.path).name: copy.match.stage for copy in group.copies}
    assert stages["0 blurred.png"] == "hash"
    assert sorted(stages.values()) in (
        ["exact", "hash", "pixels"],
        ["hash", "pixels", "pixels"],
    )
    assert {Path(path).name for path in group.paths} == {
        "0.png",
        "0 again.png",
        "0 stored otherwise.bmp",
        "0 blurred.png",
    }


def test_orientations(photos):
    plain, turned = quick(photos), quick(photos, orientations=True)
    assert len(plain.groups) == 1
    assert ["1 mirrored.png", "1.png"] in [sorted(group) for group in names(turned)]


@pytest.mark.parametrize("kind", ["phash", "dhash"])
@pytest.mark.parametrize("turn", [*Image.Transpose])
def test_any_of_the_eight_ways_to_lay_a_photo(tmp_path, kind, turn):
    scene(7, (80, 80)).save(tmp_path / "a.png")
    scene(7, (80, 80)).transpose(turn).save(tmp_path / "b.png")
    assert len(quick(tmp_path, hash=kind, orientations=True, max_bits=4).groups) == 1


def test_hashes_are_those_of_the_library():
    import imagehash

    small = scene(3).convert("L").resize((64, 64), Image.Resampling.LANCZOS)
    for kind in ("phash", "dhash"):
        found = hashes(scene(3), hash_function(kind))
        assert f"{int(found[0]):016x}" == str(getattr(imagehash, kind)(small))
        mirrored = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        assert f"{int(found[1]):016x}" == str(getattr(imagehash, kind)(mirrored))


def test_plain_pictures_are_no_copies_of_each_other(tmp_path):
    """Their hashes would be equal."""
    for value in (10, 20, 200):
        Image.new("RGB", (50, 40), (value, value, value)).save(tmp_path / f"{value}.png")
    assert quick(tmp_path).groups == ()
    Image.new("RGB", (50, 40), (10, 10, 10)).save(tmp_path / "again.bmp")
    (group,) = quick(tmp_path).groups
    assert [copy.match.stage for copy in group.copies] == ["pixels"]


@pytest.fixture(name="describing")
def describing_fixture():
    return describing()


def test_features_find_what_hashes_do_not(tmp_path, describing):
    for seed in range(4):
        scene(seed).save(tmp_path / f"{seed}.png")
    scene(0).transpose(Image.Transpose.ROTATE_180).save(tmp_path / "0 turned.png")
    assert quick(tmp_path).groups == ()
    options = {"min_cosine": 0.9999, "layer": "flat"}
    (group,) = quick(tmp_path, describing, methods=["features"], **options).groups
    assert {Path(path).name for path in group.paths} == {"0.png", "0 turned.png"}
    assert group.copies[0].match.stage == "features"
    assert group.copies[0].match.distance <= 0.0001
    assert quick(tmp_path, describing, **options).groups == (group,)


def test_the_model_stays_as_it_was(photos, describing):
    describing.model.train()
    before = {name: each.clone() for name, each in describing.model.state_dict().items()}
    random = torch.get_rng_state()
    quick(photos, describing, layer="flat")
    assert describing.model.training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[n], each) for n, each in describing.model.state_dict().items())


# ---- near pairs, against all pairs ----


def pairs_of(found):
    return {
        tuple(sorted((one, other)))
        for ones, others, _ in found
        for one, other in zip(ones.tolist(), others.tolist(), strict=True)
        if one != other
    }


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), most=st.sampled_from([0, 1, 3, 4, 7, 8, 11, 13]))
def test_near_hashes_are_all_that_are_near(seed, most):
    random = np.random.default_rng(seed)
    base = random.integers(0, 2**63, 40, np.uint64)
    flips = np.zeros(40, np.uint64)
    for _ in range(most + 1):
        flips |= np.uint64(1) << random.integers(0, 64, 40).astype(np.uint64)
    values = np.unique(np.concatenate([base, base ^ flips]))
    expected = {
        (one, other)
        for one, other in combinations(range(len(values)), 2)
        if int(values[one] ^ values[other]).bit_count() <= most
    }
    assert pairs_of(near_hashes(values, values, most)) == expected


def test_near_hashes_say_how_many_bits():
    values = np.array([0, 0b111, 2**63], np.uint64)
    found = {
        (one, other): bits
        for ones, others, distances in near_hashes(values, values, 4)
        for one, other, bits in zip(ones, others, distances, strict=True)
    }
    assert found[0, 1] == 3
    assert found[0, 2] == 1
    assert found[2, 1] == 4


def test_near_features_are_all_that_are_near(monkeypatch):
    from pyxai.curate.duplicates import nearby

    monkeypatch.setattr(nearby, "_BLOCK", 7)
    rows = nn.functional.normalize(torch.randn(40, 3), dim=1)
    cosines = rows @ rows.T
    expected = {
        (one, other)
        for one, other in combinations(range(40), 2)
        if float(cosines[one, other]) >= 0.9
    }
    assert pairs_of(near_features(rows, 0.9)) == expected


def test_the_least_cosine_lies_above_chance():
    random = np.random.default_rng(0)
    for shift in (0.0, 1.0, 3.0):  # the larger, the more alike are all rows
        rows = random.normal(size=(300, 64)).astype(np.float32) + np.float32(shift)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        least = least_cosine(rows)
        cosines = (rows @ rows.T)[np.triu_indices(300, 1)]
        assert least >= 0.88
        assert float(cosines.max()) < least < 1
    assert least_cosine(rows[:10]) == 0.95


# ---- groups, and which copy stays ----


def record(name, width=100, sharpness=50.0, size=1000, digest=None):
    return Record(name, size, 0, digest or name, digest or name, width, 100, sharpness, {})


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (record("/r/b", width=99), "smaller: 99 × 100, not 100 × 100"),
        (record("/r/b", sharpness=20.0), "less sharp: 0.40 of the detail"),
        (record("/r/b", size=900), "more compressed: 900 bytes, not 1000"),
        (record("/r/b", sharpness=51.0), "as good; the kept one comes first by name"),
        (record("/r/b", digest="same"), "the same file; the kept one comes first by name"),
    ],
)
def test_the_best_copy_stays_and_the_reason_is_given(other, reason):
    best = record("/r/a", digest="same" if other.file == "same" else None)
    for records in ([best, other], [other, best]):
        (group,) = group_photos(records, [(0, 1, Match("hash", 2.0))], Path("/r"))
        assert group.keep == "/r/a"
        assert group.copies[0].why_not_kept == reason


def test_chains_do_not_become_one_group():
    """Each is near the next; all of a group are near the one that stays."""
    records = [record(f"/r/{place}", width=100 - place) for place in range(5)]
    chain = [(place, place + 1, Match("hash", 8.0)) for place in range(4)]
    found = group_photos(records, chain, Path("/r"))
    assert [group.paths for group in found] == [("/r/0", "/r/1"), ("/r/2", "/r/3")]


def test_the_surest_match_counts():
    records = [record("/r/a"), record("/r/b", width=90)]
    matches = [(0, 1, Match("features", 0.01)), (1, 0, Match("hash", 3.0))]
    (group,) = group_photos(records, matches, Path("/r"))
    assert group.copies[0].match == Match("hash", 3.0)


def test_leaks_and_conflicts(tmp_path):
    for place in ("train/cat", "valid/cat", "train/dog", "test/dog"):
        (tmp_path / place).mkdir(parents=True)
    scene(0).save(tmp_path / "train/cat/a.png")
    scene(0).save(tmp_path / "valid/cat/a.png")
    scene(1).save(tmp_path / "train/cat/b.png")
    scene(1).save(tmp_path / "train/dog/b.png")
    scene(2).save(tmp_path / "train/dog/c.png")
    scene(2).save(tmp_path / "train/dog/d.png")
    found = quick(tmp_path)
    assert len(found.groups) == 3
    (leak,) = found.leaks
    assert leak.splits == ("train", "valid")
    assert leak.labels == ("cat",)
    (conflict,) = found.conflicts
    assert conflict.labels == ("cat", "dog")
    assert "leaks" in str(found)


# ---- stores ----


def test_photos_are_not_read_twice(photos, tmp_path, monkeypatch, describing):
    store = tmp_path / "store"
    options = {"store": store, "layer": "flat", "min_cosine": 0.99}
    first = quick(photos, describing, **options)
    opened = []
    plain = working.open_photo

    def opening(source, *, name):
        opened.append(Path(name).name)
        return plain(source, name=name)

    monkeypatch.setattr(working, "open_photo", opening)
    assert quick(photos, describing, **options).groups == first.groups
    assert opened == []
    scene(9).save(photos / "9.png")
    scene(8).save(photos / "4.png")  # another photo of the same name
    quick(photos, describing, **options)
    assert opened == ["4.png", "9.png"]


# ---- results ----


def test_files_and_sheet(photos, tmp_path):
    found = quick(photos)
    found.save(tmp_path / "found.json")
    written = json.loads((tmp_path / "found.json").read_text())
    assert written["photos"] == 9
    assert written["groups"][0]["keep"] == found.groups[0].keep
    found.save(tmp_path / "found.csv")
    with (tmp_path / "found.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [row["keep"] for row in rows] == ["1", "0", "0", "0"]
    assert [row["path"] for row in rows] == [*found.groups[0].paths]
    assert found.figure(cell=40).size[0] > 4 * 40
    with pytest.raises(ValueError, match=r"path: expected a file of \.png or \.json or \.csv"):
        found.save(tmp_path / "found.txt")


# ---- bad input ----


def test_photos_that_cannot_be_read_are_listed(photos):
    (photos / "broken.jpg").write_bytes(b"no picture")
    found = quick(photos)
    ((path, reason),) = found.failures
    assert Path(path).name == "broken.jpg"
    assert reason
    assert found.photos == 9


def test_too_few_photos(tmp_path):
    with pytest.raises(ImageError, match="expected a folder with photos, found none"):
        quick(tmp_path)
    with pytest.raises(ImageError, match="no such file or folder"):
        quick(tmp_path / "nowhere")
    scene(0).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="photos: expected two or more photos that can be read"):
        quick(tmp_path)
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"two or more photos that can be read; .*b\.png"):
        quick(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ["looks"]}, "methods: expected some of 'exact', 'hash', 'features'"),
        ({"methods": []}, "methods: expected some of"),
        ({"methods": ["features"]}, "model: expected a classifier, for the method 'features'"),
        ({"hash": "ahash"}, "hash: expected one of 'dhash', 'phash'"),
        ({"max_bits": -1}, "max_bits: expected an int of at least 0"),
        ({"max_bits": 40}, "max_bits: expected at most 31 of 64 bits"),
        ({"min_cosine": 1.5}, "min_cosine: expected a number above 0 and at most 1"),
    ],
)
def test_bad_arguments(photos, options, message):
    with pytest.raises(ValueError, match=message):
        quick(photos, **options)


def test_features_that_are_not_finite(photos, describing):
    with torch.no_grad():
        describing.model.fc.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="layer: expected a layer whose features are finite"):
        quick(photos, describing, layer="fc")


def test_without_the_library(photos, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "imagehash", None)
    with pytest.raises(ImportError, match=r"pyxai-vision\[duplicates\]"):
        quick(photos)
    assert len(quick(photos, methods=["exact"]).groups) == 1


# ---- the command ----


def invoke(*arguments):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_command(photos, tmp_path):
    before = tree(photos)
    out, away = tmp_path / "out", tmp_path / "away"
    result = invoke(photos, "-o", out)
    assert result.exit_code == 0, result.output
    assert "1 groups, 3 copies that could go" in result.output
    written = ["duplicates.csv", "duplicates.json", "sheet.png"]
    assert sorted(each.name for each in out.iterdir()) == [MANIFEST, *written]
    result = invoke(photos, "--methods", "exact", "--json", "--move-to", away, "-o", out)
    said = json.loads(result.output)
    assert len(said["moved"]) == 2
    assert said["not_moved"] == []
    assert all(Path(path).exists() for path in said["moved"])
    result = invoke("--move-back", away)
    assert result.output == "2 photos are back where they came from\n"
    assert tree(photos) == before
    assert json.loads(invoke("--move-back", away, "--json").output) == {"back": []}
    assert invoke().exit_code == 2
    with pytest.raises(ValueError, match="--move-back: expected no photos beside it"):
        raise invoke("--move-back", away, photos).exception


def test_command_leaves_what_is_not_its_own(photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "duplicates.csv").write_text("mine")
    monkeypatch.setattr(working, "open_photo", lambda *given, **named: pytest.fail("read"))
    with pytest.raises(ValueError, match=r"--output: expected a folder where 'duplicates\.csv'"):
        raise invoke(photos, "-o", out).exception
    with pytest.raises(ValueError, match="directory: expected a folder outside"):
        raise invoke(photos, "-o", tmp_path / "new", "--move-to", photos / "away").exception
    monkeypatch.undo()
    (out / "duplicates.csv").unlink()
    assert invoke(photos, "-o", out).exit_code == 0
    for path in photos.glob("0*"):
        path.unlink()
    assert invoke(photos, "-o", out).exit_code == 0
    left = sorted(each.name for each in out.iterdir())  # no sheet of an earlier search
    assert left == [MANIFEST, "duplicates.csv", "duplicates.json", "notes.txt"]
    assert (out / "notes.txt").read_text() == "mine"


def test_it_is_public():
    assert pyxai.find_duplicates is find_duplicates


def test_data_sets_that_are_searched_together(tmp_path):
    """The class is the first folder below each of them, not the name of the data set."""
    for name in ("one/train/cat", "two/valid/cat", "two/valid/dog"):
        (tmp_path / name).mkdir(parents=True)
        Image.effect_mandelbrot((90, 80), (-3, -2.5, 2, 2.5), 60).save(tmp_path / name / "1.png")
    sources = [tmp_path / "one" / "train", tmp_path / "two" / "valid"]
    (group,) = find_duplicates(sources, methods="exact", progress=False).groups
    assert (group.labels, group.splits) == (("cat", "dog"), ("train", "valid"))


def test_photos_that_the_network_cannot_take_are_compared_in_all_other_ways(tmp_path, describing):
    """Their copies are copies; that features are missing is said."""
    for name in ("one.png", "two.png"):
        Image.new("RGB", (3000, 2), "white").save(tmp_path / name)
    for seed in range(3):
        scene(seed).save(tmp_path / f"{seed}.png")
    describing.preprocessing = pyxai.Preprocessing(resize=96, max_pixels=50_000)
    plain = quick(tmp_path)
    for _ in range(2):
        found = quick(tmp_path, describing, store=tmp_path / "store", layer="flat")
        assert found.photos == plain.photos == 5
        assert [group.paths for group in found.groups] == [group.paths for group in plain.groups]
        assert [Path(path).name for path, _ in found.failures] == ["one.png", "two.png"]
        assert all("compared without features: " in reason for _, reason in found.failures)
