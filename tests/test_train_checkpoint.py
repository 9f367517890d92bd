"""Interrupted runs: resumed, they end as runs in one go do, to the bit."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
import torch
from killing import each_kill
from networks import SmallNet
from train_photos import COLORS, SQUARE, photo, quick, same_state, state_of

import pyxai
from pyxai._locks import BusyError, locked
from pyxai._sealed import read_record, write_record
from pyxai.train.loop import Training

pytestmark = pytest.mark.usefixtures("one_thread")


class StoppedError(Exception):
    pass


@pytest.fixture
def stop_after(monkeypatch):
    """Lets training break off in the epoch after so many."""
    plain = Training._update

    def after(epochs):
        def update(self, step, inputs, labels):
            if epochs is not None and len(self.history) == epochs and step % 2:
                raise StoppedError
            return plain(self, step, inputs, labels)

        monkeypatch.setattr(Training, "_update", update)

    return after


WAYS = {
    "crops, all": {"unfreeze": "all", "crop": 24},
    "affine": {"unfreeze": "all", "crop": 24, "augment": "affine"},
    "kept features, dropout": {"unfreeze": "head", "crop": None, "head": "mlp", "hidden": 10},
    "early stopping": {"unfreeze": 3, "crop": 24, "early_stopping": 4, "class_weight": "balanced"},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("epochs", [1, 3])
def test_resumed_is_in_one_go_to_the_bit(squares, tmp_path, stop_after, way, epochs):
    model = pyxai.Classifier(SmallNet(), preprocessing=SQUARE)
    options = {**WAYS[way], "epochs": 4, "batch_size": 8, "learning_rate": 3e-3}
    expected = quick(model, squares, **options)
    stop_after(epochs)
    with pytest.raises(StoppedError):
        quick(model, squares, **options, checkpoint=tmp_path)
    stop_after(None)
    torch.rand(5)  # whatever else goes on
    before = torch.get_rng_state()
    found = quick(model, squares, **options, checkpoint=tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert found.history == expected.history
    assert found.epoch == expected.epoch
    assert same_state(state_of(found.classifier.model), state_of(expected.classifier.model))
    files = sorted(each.name for each in tmp_path.iterdir() if not each.name.startswith("."))
    last = len(found.history)
    assert files == [f"training-run-{last}.safetensors", "training-run.json"]


def test_another_network_is_refused(squares, tmp_path):
    first, second = SmallNet(), SmallNet()
    quick(first, squares, checkpoint=tmp_path)
    with pytest.raises(ValueError, match=r"where these differ: weights$"):
        quick(second, squares, checkpoint=tmp_path)


def test_the_same_call_again_gives_the_same(squares, tmp_path, stop_after):
    model = SmallNet()
    first = quick(model, squares, epochs=2, checkpoint=tmp_path)
    stop_after(2)
    second = quick(model, squares, epochs=2, checkpoint=tmp_path)
    assert first.history == second.history
    assert same_state(state_of(first.classifier.model), state_of(second.classifier.model))


@pytest.mark.parametrize(
    ("options", "differ"),
    [
        ({"seed": 1}, "photos|seed"),
        ({"epochs": 3}, "epochs"),
        ({"learning_rate": 1e-5}, "learning_rate"),
        ({"augment": "none"}, "augmentation"),
        ({"unfreeze": ["stage3", "stage2"]}, "unfreeze"),
        ({"head": "mlp"}, "head"),
        ({"crop": 20, "batch_size": 5}, "batch_size, crop"),
        ({"early_stopping": 2}, "early_stopping"),
    ],
    ids=str,
)
def test_another_run_is_refused(squares, tmp_path, options, differ):
    model = SmallNet()
    quick(model, squares, checkpoint=tmp_path)
    message = f"checkpoint: expected a training run of the same model and settings, .*: {differ}$"
    with pytest.raises(ValueError, match=message):
        quick(model, squares, **options, checkpoint=tmp_path)


def test_other_photos_are_refused(squares, tmp_path):
    photos, model = tmp_path / "photos", SmallNet()
    shutil.copytree(squares / "train", photos)
    quick(model, photos, checkpoint=tmp_path / "run")
    photo(COLORS["red"], (40, 40), np.random.default_rng(3)).save(photos / "red" / "new.png")
    with pytest.raises(ValueError, match=r"where these differ: photos$"):
        quick(model, photos, checkpoint=tmp_path / "run")


def test_a_replaced_photo_is_refused(squares, tmp_path):
    photos, model = tmp_path / "photos", SmallNet()
    shutil.copytree(squares / "train", photos)
    quick(model, photos, checkpoint=tmp_path / "run")
    replaced = min(photos.glob("red/*"))
    photo(COLORS["red"], (40, 40), np.random.default_rng(3)).save(replaced)
    with pytest.raises(ValueError, match=r"where these differ: photos$"):
        quick(model, photos, checkpoint=tmp_path / "run")


@pytest.mark.parametrize(
    "damage", ["json", "number", "tensors", "bit", "missing", "lacking", "list"]
)
def test_damaged_checkpoints(squares, tmp_path, damage):
    model = SmallNet()
    quick(model, squares, checkpoint=tmp_path)
    state, tensors = tmp_path / "training-run.json", tmp_path / "training-run-1.safetensors"
    if damage == "json":
        state.write_text("{")
    elif damage == "list":
        state.write_text("[]")
    elif damage == "number":
        state.write_text(re.sub(r"0\.(\d)", r"1.\1", state.read_text(), count=1))
    elif damage == "tensors":
        tensors.write_bytes(tensors.read_bytes()[:-10])
    elif damage == "bit":
        content = bytearray(tensors.read_bytes())
        content[-10] ^= 1
        tensors.write_bytes(content)
    elif damage == "missing":
        tensors.unlink()
    else:
        record = read_record(state)
        del record["history"]
        write_record(state, record)
    with pytest.raises(ValueError, match=r"expected a (training run saved|folder where)"):
        quick(model, squares, checkpoint=tmp_path)


def test_a_stop_while_writing_leaves_the_state_before(squares, tmp_path, monkeypatch):
    model, options = SmallNet(), {"epochs": 3, "checkpoint": tmp_path}
    expected = quick(model, squares, epochs=3)
    plain, calls = pyxai.runs.state.write_record, []

    def breaking(*arguments, **keywords):
        calls.append(1)
        if len(calls) == 2:
            raise StoppedError
        plain(*arguments, **keywords)

    monkeypatch.setattr(pyxai.runs.state, "write_record", breaking)
    with pytest.raises(StoppedError):
        quick(model, squares, **options)
    found = quick(model, squares, **options)
    assert found.history == expected.history
    assert same_state(state_of(found.classifier.model), state_of(expected.classifier.model))


def test_killed_at_any_change_of_a_file(squares, tmp_path, monkeypatch):
    """Whatever a kill leaves is a state to go on from, and no kill leaves files for good."""
    model, options = SmallNet(), {"epochs": 2, "checkpoint": tmp_path / "run"}
    expected = quick(model, squares, epochs=2)
    for count in each_kill(lambda: quick(model, squares, **options), monkeypatch):
        shutil.copytree(tmp_path / "run", tmp_path / f"{count}")
        found = quick(model, squares, epochs=2, checkpoint=tmp_path / f"{count}")
        assert found.history == expected.history
        assert same_state(state_of(found.classifier.model), state_of(expected.classifier.model))
        if found.history:
            shutil.rmtree(tmp_path / "run")


def test_two_runs_in_one_folder(squares, tmp_path):
    message = "checkpoint: expected a folder that no other run works in, got .*, busy, by process"
    with locked(tmp_path, "checkpoint"), pytest.raises(BusyError, match=message):
        quick(SmallNet(), squares, checkpoint=tmp_path)
    quick(SmallNet(), squares, checkpoint=tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("training-run.json", "expected a training run saved by pyxai"),
        ("training-run-1.safetensors", "'training-run-1.safetensors' was not written by pyxai"),
    ],
)
def test_files_of_others_in_the_way(squares, tmp_path, name, message):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=f"checkpoint: .*{message}"):
        quick(SmallNet(), squares, checkpoint=tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_files_of_others_stay(squares, tmp_path):
    names = ["notes.txt", "training-run-notes.safetensors", "training-run-best.json"]
    for name in names:
        (tmp_path / name).write_text("mine")
    quick(SmallNet(), squares, epochs=2, checkpoint=tmp_path)
    assert [(tmp_path / name).read_text() for name in names] == ["mine"] * 3
