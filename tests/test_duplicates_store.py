"""What a search keeps for later ones: whole or named as damaged, whoever stopped or meddled."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from duplicate_photos import quick, scene
from torch import nn

from pyxai import Classifier, Preprocessing
from pyxai._locks import LOCK, BusyError, locked
from pyxai.curate.duplicates.lines import Lines
from pyxai.runs import working

pytest.importorskip("imagehash")
RECORDS = "duplicates.json"


@pytest.fixture
def photos(tmp_path):
    """Six photos, two of them equal."""
    root = tmp_path / "photos"
    root.mkdir()
    for seed in range(5):
        scene(seed, (48, 36)).save(root / f"{seed}.png")
    shutil.copy(root / "0.png", root / "5.png")
    return root


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def opened(monkeypatch):
    """The photos that are opened, in order; an exception of `stop_at` comes at the n-th."""
    plain = working.open_photo
    names = Opened()

    def watched(source, *, name):
        if len(names) == names.stop_at:
            raise KeyboardInterrupt
        names.append(Path(name).name)
        return plain(source, name=name)

    monkeypatch.setattr(working, "open_photo", watched)
    monkeypatch.setattr(working, "_MOST", 3)
    return names


def describing():
    """A classifier that describes photos; equal at each call."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    how = Preprocessing((0.5,) * 3, (0.5,) * 3, (24, 32))
    return Classifier(nn.Sequential(*layers), preprocessing=how)


class Opened(list):
    stop_at = None


# ---- stops ----


def test_a_run_that_was_stopped_goes_on(photos, store, opened):
    opened.stop_at = 4
    with pytest.raises(KeyboardInterrupt):
        quick(photos, store=store)
    opened.stop_at = None
    found = quick(photos, store=store)
    assert opened == ["0.png", "1.png", "2.png", "3.png", "3.png", "4.png"]  # 5 is a copy of 0
    assert found.to_dict() == quick(photos).to_dict()
    del opened[:]
    assert quick(photos, store=store).to_dict() == found.to_dict()
    assert opened == []


def test_a_write_that_fails_leaves_no_half_line(tmp_path, monkeypatch):
    path = tmp_path / "lines"

    def lines():
        return Lines(path, "kind", argument="store", expected="lines")

    first = lines()
    first.append({"a": 1})
    plain = type(path).open

    def fails(self, *arguments):
        file = plain(self, *arguments)
        write = file.write

        class Full:
            def __enter__(self):
                return self

            def __exit__(self, *error):
                file.close()

            def __getattr__(self, name):
                return getattr(file, name)

            def write(self, data):
                write(data[:10])
                raise OSError("No space left on device")

        return Full()

    with monkeypatch.context() as patch:
        patch.setattr(type(path), "open", fails)
        with pytest.raises(OSError, match="No space left"):
            first.append({"b": 2})
    first.append({"c": 3}, {"d": 4})
    assert lines().records == [{"a": 1}, {"c": 3}, {"d": 4}]


# ---- damage ----


@pytest.mark.parametrize("name", ["duplicates.json", "duplicates-000000.json"])
def test_a_damaged_record_is_named(photos, store, name):
    quick(photos, store=store)
    path = max(store.glob(name.replace("000000", "*")))
    data = path.read_bytes()
    for place in range(0, len(data) - 1, 97):
        damaged = bytearray(data)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        said = rf"^store: expected a search for duplicates saved by pyxai, .*{path.name} is damaged"
        with pytest.raises(ValueError, match=said):
            quick(photos, store=store)
    path.write_bytes(data)
    quick(photos, store=store)


def test_damaged_features_are_named(photos, store):
    expected = quick(photos, describing(), store=store).to_dict()
    (shard,) = store.glob("*.safetensors")
    data = shard.read_bytes()
    for place in range(0, len(data), 61):
        damaged = bytearray(data)
        damaged[place] ^= 4
        shard.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{shard.name} is damaged"):
            quick(photos, describing(), store=store)
    for length in (0, 10, len(data) - 1):
        shard.write_bytes(data[:length])
        with pytest.raises(ValueError, match=rf"{shard.name} is damaged"):
            quick(photos, describing(), store=store)
    shard.write_bytes(data)
    assert quick(photos, describing(), store=store).to_dict() == expected


def test_a_store_of_another_network_or_hash_is_refused(photos, store):
    quick(photos, describing(), store=store)
    before = {path.name: path.read_bytes() for path in store.iterdir() if path.name != LOCK}
    other = describing()
    with torch.no_grad():
        next(other.network.parameters()).add_(1)
    for model, options, said in (
        (other, {}, "network"),
        (None, {}, "network, preprocessing"),
        (describing(), {"layer": "0"}, "layer"),
        (describing(), {"hash": "dhash"}, "hash"),
    ):
        with pytest.raises(ValueError, match=rf"^store: .* where these differ: {said}$"):
            quick(photos, model, store=store, **options)
    after = {path.name: path.read_bytes() for path in store.iterdir() if path.name != LOCK}
    assert after == before


def test_what_is_gone_leaves_the_store(photos, store):
    quick(photos, describing(), store=store)
    (photos / "3.png").unlink()
    (photos / "4.png").rename(photos / "renamed.png")
    found = quick(photos, describing(), store=store)
    assert found.to_dict() == quick(photos, describing()).to_dict()
    left = b"".join(path.read_bytes() for path in store.iterdir())
    assert b"3.png" not in left
    assert b"4.png" not in left
    assert b"renamed.png" in left


# ---- what is not ours ----


@pytest.mark.parametrize(
    "content", [b'{"format": "another"}\n', b"my notes", b'{"format": "pyxai audit 1"}\n']
)
def test_a_store_of_something_else(photos, store, content):
    store.mkdir()
    (store / RECORDS).write_bytes(content)
    with pytest.raises(ValueError, match="store: expected a folder for a search for duplicates"):
        quick(photos, store=store)
    assert (store / RECORDS).read_bytes() == content


def test_a_store_that_is_a_file(photos, store):
    store.write_bytes(b"mine")
    with pytest.raises(ValueError, match="store: expected a folder, got the file"):
        quick(photos, store=store)
    assert store.read_bytes() == b"mine"


def test_other_files_in_the_store_stay(photos, store):
    store.mkdir()
    (store / "notes.txt").write_text("mine")
    quick(photos, describing(), store=store)
    assert (store / "notes.txt").read_text() == "mine"
    kinds = sorted(path.suffix or path.name for path in store.iterdir())
    assert kinds == [".json", ".json", ".jsonl", LOCK, ".safetensors", ".txt"]


def test_one_run_at_a_time(photos, store, opened):
    with locked(store, "store"):
        with pytest.raises(BusyError, match=f"^store: .* busy, by process {os.getpid()} since"):
            quick(photos, store=store)
        assert opened == []
    assert len(quick(photos, store=store).groups) == 1


# ---- settings ----


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"methods": "exact"},
        {"methods": ["hash"], "hash": "dhash", "max_bits": 3, "orientations": True},
        {"methods": ["features"]},
        {"layer": "2"},
        {"min_cosine": 0.9},
    ],
    ids=str,
)
def test_settings_do_not_depend_on_the_store(photos, store, opened, options):
    """Nothing kept, half of it kept, all of it kept: the same is said."""
    model = describing()
    expected = quick(photos, model, **options).to_dict()
    settings = expected["settings"]
    asked = "features" in settings["methods"]
    assert (settings["layer"] is not None) == asked
    assert (settings["min_cosine"] is not None) == asked
    opened.stop_at = len(opened) + 3
    with pytest.raises(KeyboardInterrupt):
        quick(photos, model, store=store, batch_size=1, **options)
    opened.stop_at = None
    for batch_size in (2, None, 1):
        found = quick(photos, model, store=store, batch_size=batch_size, **options)
        assert found.to_dict() == expected
    count = len(opened)
    assert quick(photos, model, store=store, **options).to_dict() == expected
    assert len(opened) == count


def test_the_layer_of_kept_features_is_the_layer(photos, store, monkeypatch):
    """Where a later run would find another, features of both would be compared."""
    model = describing()
    first = quick(photos, model, store=store).settings["layer"]
    scene(9, (48, 36)).save(photos / "9.png")
    monkeypatch.setattr(type(model), "last_spatial_layer", lambda *inputs: pytest.fail("asked"))
    found = quick(photos, model, store=store)
    assert found.photos == 7
    assert found.settings["layer"] == first
