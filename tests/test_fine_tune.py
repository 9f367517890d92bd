"""Fine-tuning: what is trained and on what, what stays as it was, and how it is judged."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from networks import SmallNet
from PIL import Image
from torch import nn
from train_photos import COLORS, SQUARE, photo, quick, same_state, state_of

import pyxai
from pyxai.images import Preprocessing
from pyxai.train import photo_set
from pyxai.train.fine_tune import fine_tune
from pyxai.train.photo_batches import random_boxes

pytestmark = pytest.mark.usefixtures("one_thread")


class Recording(SmallNet):
    """Remembers the shapes and mode of its calls, in all copies."""

    seen: list[tuple[tuple[int, ...], bool]]

    def __init__(self):
        super().__init__(3)
        Recording.seen = []

    def forward(self, x):
        Recording.seen.append((tuple(x.shape), self.training))
        return super().forward(x)


# ---- learning ----


@pytest.mark.parametrize("crop", [24, None])
def test_it_learns_colours(squares, crop):
    model = pyxai.Classifier(SmallNet(), preprocessing=SQUARE)
    found = quick(model, squares, crop=crop, epochs=8, batch_size=8, learning_rate=3e-3)
    assert found.accuracy > 0.9
    assert found.classifier.class_names == ("blue", "green", "red")
    assert [each.number for each in found.history] == [*range(1, 9)]
    assert found.history[-1].loss < found.history[0].loss / 2
    if crop is None:
        assert found.crop_accuracy is None
        assert found.history[-1].valid_accuracy == found.accuracy
    else:
        assert found.crop_accuracy > 0.9
        assert found.history[-1].valid_accuracy == found.crop_accuracy


def test_it_is_public():
    assert pyxai.fine_tune is fine_tune


def test_repeatable_to_the_bit(squares):
    model = SmallNet()
    before = torch.get_rng_state()
    first, second = (quick(model, squares, epochs=2) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert same_state(state_of(first.classifier.model), state_of(second.classifier.model))
    assert first.history == second.history
    other = quick(model, squares, epochs=2, seed=1)
    assert not same_state(state_of(first.classifier.model), state_of(other.classifier.model))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_trains_wherever_it_is_called(squares, mode):
    model = SmallNet()
    expected = quick(model, squares)
    with mode():
        found = quick(model, squares)
    assert same_state(state_of(found.classifier.model), state_of(expected.classifier.model))


def test_photos_read_again_give_the_same(squares, monkeypatch):
    kept = quick(SmallNet.from_other(model := SmallNet()), squares)
    monkeypatch.setattr(photo_set, "CACHE_BYTES", 20_000)
    read_again = quick(model, squares)
    assert same_state(state_of(kept.classifier.model), state_of(read_again.classifier.model))


def test_the_network_sees_crops_of_that_size_and_no_others(squares):
    quick(Recording(), squares, batch_size=5)
    trained = [shape for shape, training in Recording.seen if training]
    assert sum(shape[0] for shape in trained) == 24
    assert {shape[1:] for shape in trained} == {(3, 24, 24)}
    judged = {shape[1:] for shape, training in Recording.seen if not training}
    assert judged == {(3, 24, 24), (3, 36, 40), (3, 40, 44)}


def test_a_single_photo_left_over_is_skipped(squares):
    quick(Recording(), squares, batch_size=23)
    assert [shape[0] for shape, training in Recording.seen if training] == [23]


# ---- the model is borrowed ----


@pytest.mark.parametrize("rate", [1e-3, 1e30])
def test_the_model_stays_as_it_was(squares, rate):
    model = SmallNet().train()
    model.stage1.eval()
    model.stem[0].weight.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    before = state_of(model)
    if rate > 1:
        random = torch.get_rng_state()
        with pytest.raises(ValueError, match="learning_rate: expected one at which the loss stays"):
            quick(model, squares, learning_rate=rate, epochs=3)
        assert torch.equal(torch.get_rng_state(), random)
    else:
        quick(model, squares, learning_rate=rate)
    assert same_state(state_of(model), before)
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_the_result_is_an_ordinary_classifier(squares):
    result = quick(SmallNet().half(), squares, unfreeze="head").classifier
    assert result.dtype == torch.float32
    assert not any(module.training for module in result.model.modules())
    assert all(each.requires_grad and each.grad is None for each in result.model.parameters())
    assert not any(module._forward_hooks for module in result.model.modules())


# ---- which layers are trained ----


def changed(before, after):
    """The modules at the top of which a weight or a statistic differs."""
    old, new = before.state_dict(), after.state_dict()
    same_shape = {name for name in new if old[name].shape == new[name].shape}
    return {
        name.split(".")[0]
        for name in new
        if name not in same_shape or not torch.equal(old[name], new[name])
    }


@pytest.mark.parametrize(
    ("unfreeze", "expected"),
    [
        ("head", {"fc"}),
        (1, {"fc"}),
        (2, {"fc", "stage3"}),
        ("stage2", {"fc", "stage2"}),
        (["stem", "stage3.conv1"], {"fc", "stem", "stage3"}),
        ("all", {"fc", "stem", "stage1", "stage2", "stage3"}),
    ],
)
def test_only_what_is_unfrozen_changes(squares, unfreeze, expected):
    model = SmallNet()
    result = quick(model, squares, unfreeze=unfreeze, learning_rate=1e-2)
    assert changed(model, result.classifier.model) == expected


def test_dropout_is_off_where_it_is_frozen(squares):
    """SmallNet drops half of the features before its head."""
    model = SmallNet(3)
    without = copy.deepcopy(model)
    without.drop = nn.Identity()
    for unfreeze, same in (("head", True), ("all", False)):
        histories = [quick(each, squares, unfreeze=unfreeze).history for each in (model, without)]
        assert (histories[0] == histories[1]) == same


def logits_by_name(classifier, images):
    order = sorted(range(3), key=classifier.class_names.__getitem__)
    return classifier(images)[:, order]


@pytest.mark.parametrize(
    ("names", "classes", "kept"),
    [
        (None, 3, True),
        (("red", "blue", "green"), 3, True),
        (("ant", "bee", "cat"), 3, False),
        (None, 7, False),
    ],
)
def test_the_head_is_replaced_unless_it_fits(squares, names, classes, kept):
    model = pyxai.Classifier(SmallNet(classes).eval(), class_names=names)
    result = quick(model, squares, learning_rate=0.0, unfreeze="head").classifier
    assert result.class_names == (names if kept and names else ("blue", "green", "red"))
    images = torch.rand(2, 3, 24, 24)
    assert result(images).shape == (2, 3)
    assert torch.equal(result(images), model(images)[:, :3]) == kept


def test_names_in_another_order_keep_their_labels(squares):
    options = {"epochs": 8, "batch_size": 8, "learning_rate": 3e-3}
    model = pyxai.Classifier(SmallNet(3), class_names=["red", "blue", "green"])
    found = quick(model, squares, **options)
    assert found.accuracy > 0.9
    red = photo(COLORS["red"], (40, 40), np.random.default_rng(9))
    assert found.classifier.class_name(int(found.classifier(red).argmax())) == "red"


# ---- evaluation ----


def test_accuracies_are_those_of_a_plain_loop(squares):
    found = quick(SmallNet(), squares, epochs=2, batch_size=8, learning_rate=3e-3)
    whole, crops, labels = [], [], []
    paths = [path for name in COLORS for path in sorted((squares / "valid" / name).iterdir())]
    pictures = [Image.open(path) for path in paths]
    sizes = torch.tensor([(picture.height, picture.width) for picture in pictures])
    boxes = random_boxes(sizes, 24, torch.Generator().manual_seed(0))
    for path, picture, box in zip(paths, pictures, boxes.tolist(), strict=True):
        labels.append(list(COLORS).index(path.parent.name))
        whole.append(int(found.classifier(picture).argmax()))
        crops.append(int(found.classifier(picture.crop(box)).argmax()))
    assert found.accuracy == np.mean(np.equal(whole, labels))
    assert found.crop_accuracy == np.mean(np.equal(crops, labels))
    expected = np.zeros((3, 3), int)
    np.add.at(expected, (labels, whole), 1)
    assert found.confusion.tolist() == expected.tolist()
    assert found.classifier.preprocessing == Preprocessing()


def test_a_network_of_one_size_is_judged_on_crops(squares):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 22 * 22, 3))
    found = quick(model, squares)
    assert found.accuracy is None
    assert found.crop_accuracy == found.confusion.trace() / 12
    with pytest.raises(ValueError, match=r"crop: expected a size that the network takes \("):
        quick(model, squares, crop=20)


# ---- bad input ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": 0}, "crop: expected an int of at least 1, got 0"),
        ({"crop": 24.0}, "crop: expected an int of at least 1, got 24.0"),
        ({"crop": 39}, "photos: expected photos that can be used of every class; left out: "),
        ({"crop": None}, "photos: expected photos of one size .* got 20 × 40 and 30 × 32; set"),
        ({"epochs": 0}, "epochs: expected an int of at least 1, got 0"),
        ({"batch_size": 2.0}, "batch_size: expected an int of at least 1, got 2.0"),
        ({"learning_rate": -1.0}, "learning_rate: expected a finite number of at least 0"),
        ({"weight_decay": float("nan")}, "weight_decay: expected a finite number of at least 0"),
        ({"seed": 0.5}, "seed: expected an int, got 0.5"),
        ({"learning_rate": "fast"}, "learning_rate: expected a finite number of at least 0, got"),
        ({"valid": 1.0}, "valid: expected a folder, a table, or a share between 0 and 1, got 1.0"),
        ({"valid": 0.95}, "valid: expected a share that leaves photos of 'blue'"),
        (
            {"valid": "nowhere"},
            "valid: expected a folder with a sub-folder for each class, or a CSV",
        ),
        ({"unfreeze": 0}, "unfreeze: expected 'head', 'all', a number of layers"),
        ({"unfreeze": "stag3"}, "layer: expected the name of a submodule .* closest: 'stage3'"),
        ({"unfreeze": [1]}, "unfreeze: expected 'head', 'all', a number of layers"),
        ({"out": "no/such/folder/x"}, "out: expected a file in a folder that exists"),
    ],
)
def test_bad_arguments(mixed, options, message):
    with pytest.raises(ValueError, match=message):
        quick(SmallNet(), mixed, **options)


# ---- files ----


def test_saved_weights_are_read_by_load_classifier(squares, tmp_path):
    out = tmp_path / "tuned.safetensors"
    found = quick(SmallNet(), squares, out=out)
    loaded = pyxai.load_classifier(out, architecture=SmallNet(3))
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded(images), found.classifier(images))
    assert loaded.class_names == found.classifier.class_names
    assert loaded.preprocessing == found.classifier.preprocessing
