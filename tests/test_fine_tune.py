"""Fine-tuning: what is trained and on what, what stays as it was, and how it is judged."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from networks import SmallNet
from PIL import Image
from safetensors import safe_open
from torch import nn

import pyxai
from pyxai.images import Preprocessing
from pyxai.train import listing as listings
from pyxai.train import photo_set
from pyxai.train.fine_tune import fine_tune
from pyxai.train.photo_batches import normalised_batch, one_ahead, random_boxes

pytestmark = pytest.mark.usefixtures("one_thread")

COLOURS = {"blue": (30, 40, 220), "green": (40, 200, 50), "red": (220, 40, 30)}


def photo(colour, size, random):
    """Noise with squares of a colour all over it."""
    width, height = size
    pixels = random.integers(0, 256, (height, width, 3), np.uint8)
    for top in range(2, height - 8, 12):
        for left in range(2, width - 8, 12):
            pixels[top : top + 8, left : left + 8] = colour
    return Image.fromarray(pixels)


@pytest.fixture
def one_thread(threads):
    """So small a network is no faster with more."""
    threads(1)


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """`train` and `valid` with photos of coloured squares in two sizes, a folder each colour."""
    root, random = tmp_path_factory.mktemp("squares"), np.random.default_rng(0)
    for part, count in (("train", 8), ("valid", 4)):
        for name, colour in COLOURS.items():
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                size = (40, 36) if number % 2 else (44, 40)
                photo(colour, size, random).save(root / part / name / f"{number}.png")
    return root


class Recording(SmallNet):
    """Remembers the shapes and mode of its calls, in all copies."""

    seen: list[tuple[tuple[int, ...], bool]]

    def __init__(self):
        super().__init__(3)
        Recording.seen = []

    def forward(self, x):
        Recording.seen.append((tuple(x.shape), self.training))
        return super().forward(x)


def state_of(model):
    return {
        name: (tensor.clone(), tensor.requires_grad)
        for name, tensor in model.state_dict(keep_vars=True).items()
    }


def same_state(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(first[name][0], second[name][0]) and first[name][1] == second[name][1]
        for name in first
    )


def quick(model, folder, **options):
    """One epoch on crops of 24, all trained, without bars, unless told otherwise."""
    options = {"crop": 24, "unfreeze": "all", "epochs": 1, "progress": False} | options
    return fine_tune(model, folder, **options)


SQUARE = Preprocessing(resize=(32, 32))


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
    ids=str,
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
    red = photo(COLOURS["red"], (40, 40), np.random.default_rng(9))
    assert found.classifier.class_name(int(found.classifier(red).argmax())) == "red"


# ---- evaluation ----


def test_accuracies_are_those_of_a_plain_loop(squares):
    found = quick(SmallNet(), squares, epochs=2, batch_size=8, learning_rate=3e-3)
    whole, crops, labels = [], [], []
    paths = [path for name in COLOURS for path in sorted((squares / "valid" / name).iterdir())]
    pictures = [Image.open(path) for path in paths]
    sizes = torch.tensor([(picture.height, picture.width) for picture in pictures])
    boxes = random_boxes(sizes, 24, torch.Generator().manual_seed(0))
    for path, picture, box in zip(paths, pictures, boxes.tolist(), strict=True):
        labels.append(list(COLOURS).index(path.parent.name))
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


# ---- the parts ----


def test_random_boxes_reach_every_place_and_stay_inside():
    sizes = torch.tensor([[10, 12], [8, 8]]).repeat(300, 1)
    boxes = random_boxes(sizes, 8, torch.Generator().manual_seed(0))
    assert {tuple(box) for box in boxes[1::2].tolist()} == {(0, 0, 8, 8)}
    assert {tuple(box[:2]) for box in boxes[::2].tolist()} == {
        (x, y) for x in range(5) for y in range(3)
    }
    assert (boxes[:, 2:] - boxes[:, :2] == 8).all()


def test_batches_are_cut_normalised_and_mirrored(squares):
    listing = listings.list_photos(squares / "train")
    photos = photo_set.PhotoSet(listing, listing.classes, lambda picture: picture, progress=False)
    boxes = random_boxes(photos.sizes, 20, torch.Generator().manual_seed(0))
    mirrored = torch.arange(len(photos)) % 2 == 0
    places = torch.tensor([3, 0, 20])
    batch = normalised_batch(photos, places, boxes, Preprocessing(), mirrored)
    for row, place in enumerate(places.tolist()):
        picture = Image.open(listing.paths[place]).crop(boxes[place].tolist())
        if mirrored[place]:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        torch.testing.assert_close(batch[row], Preprocessing()(picture))


def test_jobs_are_done_one_ahead_in_order_and_errors_come_out():
    started = []

    def work(job):
        started.append(job)
        if job == 3:
            raise OSError("disk")
        return -job

    results = one_ahead(work, range(5))
    assert next(results) == 0
    assert [next(results), next(results)] == [-1, -2]
    with pytest.raises(OSError, match="disk"):
        next(results)
    assert 5 not in started


# ---- folders ----


@pytest.fixture
def mixed(tmp_path):
    """Two classes with good photos, a small one, a broken one, and files that are no photos."""
    random = np.random.default_rng(1)
    for name in ("blue", "red"):
        (tmp_path / name).mkdir()
        for number in range(5):
            photo(COLOURS[name], (32, 30), random).save(tmp_path / name / f"{number}.png")
    photo(COLOURS["red"], (40, 20), random).save(tmp_path / "red" / "small.png")
    (tmp_path / "blue" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    (tmp_path / "blue" / "notes.txt").write_text("no photo")
    (tmp_path / ".cache").mkdir()
    return tmp_path


def test_small_and_unreadable_photos_are_left_out_and_listed(mixed):
    found = quick(SmallNet(), mixed)
    assert found.too_small == (str(mixed / "red" / "small.png"),)
    ((path, reason),) = found.unreadable
    assert path == str(mixed / "blue" / "broken.jpg")
    assert reason
    assert int(found.confusion.sum()) in (1, 2)  # a fifth of both classes


@pytest.mark.parametrize("share", [None, 0.5])
def test_a_share_of_each_class_is_held_out(squares, share):
    train, held_out = listings.training_and_validation(squares / "train", share, 0)
    assert not {*train.paths} & {*held_out.paths}
    assert len(train.paths) + len(held_out.paths) == 24
    assert [held_out.names.count(name) for name in COLOURS] == [4 if share else 2] * 3
    again = listings.training_and_validation(squares / "train", share, 0)
    assert again == (train, held_out)
    assert listings.training_and_validation(squares / "train", share, 1) != again


def test_validation_photos_from_another_folder(squares, mixed):
    _, held_out = listings.training_and_validation(squares, mixed, 0)
    assert {path.parent.parent for path in held_out.paths} == {mixed}
    with pytest.raises(ValueError, match=r"valid: expected classes among \['blue', 'red'\], got"):
        listings.training_and_validation(mixed, squares / "valid", 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": 0}, "crop: expected an int of at least 1, got 0"),
        ({"crop": 24.0}, "crop: expected an int of at least 1, got 24.0"),
        ({"crop": 39}, "folder: expected photos that can be used of every class; left out: "),
        ({"crop": None}, "folder: expected photos of one size .* got 20 × 40 and 30 × 32; set"),
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


def test_bad_folders_and_models(mixed, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(ValueError, match=r"each of two or more classes in .* got 'none'"):
        quick(SmallNet(), empty)
    (empty / "one").mkdir()
    with pytest.raises(ValueError, match=r"two or more classes in .* got \['one'\]"):
        quick(SmallNet(), empty)
    (empty / "two").mkdir()
    with pytest.raises(ValueError, match="one: expected a folder with photos, found none"):
        quick(SmallNet(), empty)
    with pytest.raises(ValueError, match="folder: expected a folder with a sub-folder"):
        quick(SmallNet(), mixed / "nowhere")
    with pytest.raises(ValueError, match=r"model: expected a torch\.nn\.Module"):
        quick("resnet18", mixed)


# ---- files ----


def test_saved_weights_are_read_by_load_classifier(squares, tmp_path):
    out = tmp_path / "tuned.safetensors"
    found = quick(SmallNet(), squares, out=out)
    loaded = pyxai.load_classifier(out, architecture=SmallNet(3))
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded(images), found.classifier(images))
    assert loaded.class_names == found.classifier.class_names
    with safe_open(out, "pt") as file:
        stored = json.loads(file.metadata()["preprocessing"])
    assert Preprocessing(**stored) == found.classifier.preprocessing
