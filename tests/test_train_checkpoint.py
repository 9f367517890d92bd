"""Interrupted runs: resumed, they end as runs in one go do, to the bit."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from networks import SmallNet
from train_photos import COLOURS, SQUARE, photo, quick, same_state, state_of

import pyxai
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
    files = sorted(each.name for each in tmp_path.iterdir())
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
    message = f"checkpoint: expected a run of the same model, photos and settings, .*: {differ}$"
    with pytest.raises(ValueError, match=message):
        quick(model, squares, **options, checkpoint=tmp_path)


def test_other_photos_are_refused(squares, tmp_path):
    photos, model = tmp_path / "photos", SmallNet()
    shutil.copytree(squares / "train", photos)
    quick(model, photos, checkpoint=tmp_path / "run")
    photo(COLOURS["red"], (40, 40), np.random.default_rng(3)).save(photos / "red" / "new.png")
    with pytest.raises(ValueError, match=r"where these differ: photos$"):
        quick(model, photos, checkpoint=tmp_path / "run")


@pytest.mark.parametrize("damage", ["json", "tensors", "missing", "lacking", "list"])
def test_damaged_checkpoints(squares, tmp_path, damage):
    model = SmallNet()
    quick(model, squares, checkpoint=tmp_path)
    state, tensors = tmp_path / "training-run.json", tmp_path / "training-run-1.safetensors"
    if damage == "json":
        state.write_text("{")
    elif damage == "list":
        state.write_text("[]")
    elif damage == "tensors":
        tensors.write_bytes(tensors.read_bytes()[:-10])
    elif damage == "missing":
        tensors.unlink()
    else:
        record = json.loads(state.read_text())
        del record["history"]
        state.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="checkpoint: expected a folder that a run of fine_tune"):
        quick(model, squares, checkpoint=tmp_path)


def test_a_stop_while_writing_leaves_the_state_before(squares, tmp_path, monkeypatch):
    model, options = SmallNet(), {"epochs": 3, "checkpoint": tmp_path}
    expected = quick(model, squares, epochs=3)
    plain, calls = pyxai.train.checkpoint.write_json, []

    def breaking(*arguments, **keywords):
        calls.append(1)
        if len(calls) == 2:
            raise StoppedError
        plain(*arguments, **keywords)

    monkeypatch.setattr(pyxai.train.checkpoint, "write_json", breaking)
    with pytest.raises(StoppedError):
        quick(model, squares, **options)
    found = quick(model, squares, **options)
    assert found.history == expected.history
    assert same_state(state_of(found.classifier.model), state_of(expected.classifier.model))
