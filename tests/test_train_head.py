"""Heads: where they are found, what takes their place, and how files bring them back."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from networks import SmallNet
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from train_photos import SQUARE, quick

import pyxai
from pyxai.train.layers import anatomy_of, chosen_modules
from pyxai.zoo import load_classifier, save_classifier
from pyxai.zoo.demo import DemoNet
from pyxai.zoo.head import MlpHead, WithHead
from pyxai.zoo.model_file import ModelFileError

pytestmark = pytest.mark.usefixtures("one_thread")


class Squeeze(nn.Module):
    """Ends as SqueezeNet does: a 1 × 1 convolution for the classes, ReLU, pooling."""

    def __init__(self, classes=7):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU())
        self.classifier = nn.Sequential(
            nn.Dropout(0.5), nn.Conv2d(8, classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )

    def forward(self, x):
        return self.classifier(self.features(x)).flatten(1)


def without_head():
    network = SmallNet()
    network.fc = nn.Identity()
    return network


def maps_only():
    network = SmallNet()
    return nn.Sequential(network.stem, network.stage1, network.stage2, network.stage3)


# ---- where the head is ----


@pytest.mark.parametrize(
    ("network", "head", "features", "classes"),
    [
        (SmallNet(), "fc", 24, 7),
        (SmallNet(head="mlp"), "fc.2", 16, 7),
        (SmallNet(wrap=lambda logits: {"logits": logits}), "fc", 24, 7),
        (DemoNet(), "head", 160, 6),
        (Squeeze(), "classifier.1", 8, 7),
        (without_head(), None, 24, 0),
        (maps_only(), None, 24, 0),
        (nn.Sequential(nn.Conv2d(3, 5, 1)), None, 5, 0),  # maps: no pooled logits
    ],
    ids=["linear", "own mlp", "dict", "demo", "convolution", "no head", "maps", "1x1 maps"],
)
def test_the_head_is_found(network, head, features, classes):
    found = anatomy_of(network, (32, 32))
    assert (found.head, found.features, found.classes) == (head, features, classes)


def test_networks_without_any_use():
    with pytest.raises(ValueError, match=r"model: expected .* what its last layer 'fc' gives, got"):
        anatomy_of(SmallNet(wrap=lambda logits: logits.softmax(1)), (32, 32))
    tokens = SmallNet(wrap=lambda logits: logits[:, None])
    with pytest.raises(ValueError, match=r"model: expected a classifier, or a network that"):
        anatomy_of(tokens, (32, 32))


def test_networks_without_weights(squares):
    with pytest.raises(ValueError, match="model: expected a network with weights"):
        quick(nn.Identity(), squares)


# ---- which layers are trained ----


@pytest.mark.parametrize(
    ("unfreeze", "expected"),
    [
        ("head", []),
        (1, []),
        (2, ["stage3.shortcut"]),
        (3, ["stage3.bn2", "stage3.shortcut"]),
        ("from stage3.bn2", ["stage3.bn2", "stage3.shortcut", "fc"]),
        ("from fc", ["fc"]),
        (["stem"], ["stem"]),
        ("stage2", ["stage2"]),
    ],
    ids=str,
)
def test_layers_are_chosen(unfreeze, expected):
    network = SmallNet()
    modules = chosen_modules(network, unfreeze, anatomy_of(network, (32, 32)))
    assert [dict(network.named_modules())[name] for name in expected] == modules


def test_more_layers_than_there_are_is_all_of_them():
    network = SmallNet()
    anatomy = anatomy_of(network, (32, 32))
    modules = chosen_modules(network, 100, anatomy)
    assert len(modules) == len(anatomy.layers) - 1
    assert chosen_modules(network, "all", anatomy) is None


def test_from_a_layer_on():
    network = SmallNet()
    anatomy = anatomy_of(network, (32, 32))
    modules = chosen_modules(network, "from stage2", anatomy)
    first = anatomy.layers.index("stage2.conv1")
    assert modules == [network.get_submodule(name) for name in anatomy.layers[first:]]
    with pytest.raises(ValueError, match=r"layer: expected .* closest: 'stage2'"):
        chosen_modules(network, "from stag2", anatomy)
    with pytest.raises(ValueError, match="unfreeze: expected a layer with weights that runs"):
        chosen_modules(network, "from pool", anatomy)


# ---- new heads ----


MODELS = {
    "linear": SmallNet,
    "own mlp": lambda: SmallNet(head="mlp"),
    "convolution": Squeeze,
    "no head": without_head,
    "maps": maps_only,
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_every_network_gets_either_head_and_files_bring_it_back(squares, tmp_path, kind, head):
    model, out = MODELS[kind](), tmp_path / "tuned.safetensors"
    before = copy.deepcopy(model.state_dict())
    classifier = pyxai.Classifier(model, preprocessing=SQUARE)
    found = quick(classifier, squares, crop=None, head=head, hidden=10, unfreeze="head", out=out)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    network = found.classifier.network
    place = network.get_submodule(found.head)
    assert isinstance(place, MlpHead if head == "mlp" else nn.Linear)
    assert isinstance(network, WithHead) == (kind in ("convolution", "no head", "maps"))
    images = torch.rand(2, 3, 32, 32)
    assert found.classifier(images).shape == (2, 3)
    architecture = MODELS[kind]()
    if head == "linear" and kind in ("linear", "own mlp"):  # as many classes, as ever
        architecture = SmallNet(3, head="mlp" if kind == "own mlp" else "linear")
    loaded = load_classifier(out, architecture=architecture)
    assert torch.equal(loaded(images), found.classifier(images))
    assert loaded.class_names == ("blue", "green", "red")
    assert loaded.preprocessing == SQUARE


def test_the_hidden_layer_has_a_name(squares):
    found = quick(SmallNet(), squares, head="mlp", hidden=10)
    assert found.head == "fc"
    photos = torch.rand(2, 3, 24, 24)
    activations = found.classifier.activations(photos, ["fc.hidden", "fc.output"])
    hidden = activations["fc.hidden"]
    assert hidden.shape == (2, 10)
    assert hidden.min() >= -1  # an ELU gives no less
    output = found.classifier.network.fc.output
    torch.testing.assert_close(hidden @ output.weight.T + output.bias, activations["fc.output"])
    drops = [each.p for each in found.classifier.network.fc if isinstance(each, nn.Dropout)]
    assert drops == [0.5, 0.5]


def test_dropout_of_a_new_head_is_on(squares):
    options = {"head": "mlp", "hidden": 10, "unfreeze": "head", "crop": None}
    model = pyxai.Classifier(SmallNet(), preprocessing=SQUARE)
    first, second = (
        quick(model, squares, **options, epochs=2, augment=augment) for augment in ("none", "none")
    )
    assert first.history == second.history
    images = torch.rand(4, 3, 32, 32)
    network = first.classifier.network.train()
    network.apply(lambda each: each.eval() if isinstance(each, nn.BatchNorm2d) else None)
    assert not torch.equal(network(images), network(images))


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"head": "mlp", "hidden": 10}, True),
        ({"head": "mlp", "hidden": 11}, False),
        ({"head": "linear"}, False),
    ],
)
def test_a_head_that_fits_is_trained_on(squares, options, kept):
    first = quick(SmallNet(), squares, head="mlp", hidden=10, unfreeze="head").classifier
    again = quick(first, squares, **options, unfreeze="head", learning_rate=0.0)
    assert again.head == "fc"
    images = torch.rand(2, 3, 24, 24)
    assert torch.equal(again.classifier(images), first(images)) == kept


def test_a_head_behind_a_network_is_replaced_and_not_followed(squares, tmp_path):
    first = quick(maps_only(), squares, unfreeze="head").classifier
    out = tmp_path / "again.safetensors"
    again = quick(first, squares, head="mlp", hidden=5, unfreeze="head", out=out)
    assert again.head == "head"
    assert type(again.classifier.network.body) is nn.Sequential
    loaded = load_classifier(out, architecture=maps_only())
    images = torch.rand(2, 3, 24, 24)
    assert torch.equal(loaded(images), again.classifier(images))


# ---- files ----


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_tuned_demo_classifier_is_loaded_by_name(squares, tmp_path, head):
    out = tmp_path / "tuned.safetensors"
    demo = load_classifier("demo")
    options = {"crop": None, "unfreeze": "head", "head": head, "hidden": 10, "out": out}
    small = pyxai.Classifier(demo.model, class_names=demo.class_names, preprocessing=SQUARE)
    found = quick(small, squares, **options)
    before = torch.get_rng_state()
    loaded = load_classifier(out, architecture="demo")
    assert torch.equal(torch.get_rng_state(), before)
    assert (loaded.class_names, loaded.preprocessing) == (("blue", "green", "red"), SQUARE)
    images = torch.rand(2, 3, 48, 48)
    assert torch.equal(loaded(images), found.classifier(images))
    with safe_open(out, "pt") as file:
        assert ("head" in file.metadata()) == (head == "mlp")
    own = pyxai.Preprocessing()
    assert load_classifier(out, architecture="demo", preprocessing=own).preprocessing == own


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"head": "mlp"}, "its head cannot be used"),
        ({"head": "[]"}, "its head cannot be used"),
        ({"head": json.dumps({"kind": "linear", "place": "fc"})}, "its head cannot be used"),
        (
            {"head": json.dumps({"kind": "tree", "place": "fc", "features": 1, "classes": 2})},
            "its head cannot be used .*expected 'linear' or 'mlp'",
        ),
        (
            {"head": json.dumps({"kind": "mlp", "place": "fc", "features": 1, "classes": 2})},
            "its head cannot be used .*sizes of at least 1",
        ),
        (
            {"head": json.dumps({"kind": "linear", "place": 1, "features": 1, "classes": 2})},
            "its head cannot be used .*its place is no name",
        ),
        (
            {"head": json.dumps({"kind": "linear", "place": "top", "features": 24, "classes": 7})},
            "its head does not fit the architecture .*'top'",
        ),
        (
            {"head": json.dumps({"kind": "linear", "place": "fc", "features": 5, "classes": 7})},
            "the weights do not fit the architecture",
        ),
        (
            {"head": json.dumps({"kind": "linear", "place": "fc", "features": 9**9, "classes": 9})},
            "its head is larger than all that the file holds",
        ),
        ({"preprocessing": "{"}, "its preprocessing cannot be used"),
        ({"preprocessing": '{"std": [0, 1, 1]}'}, "its preprocessing cannot be used .*std"),
        ({"preprocessing": '{"blur": 3}'}, "its preprocessing cannot be used .*blur"),
    ],
)
def test_files_that_say_nonsense(tmp_path, said, message):
    file = tmp_path / "odd.safetensors"
    save_classifier(pyxai.Classifier(SmallNet()), file)
    save_file(load_file(file), file, metadata=said)
    with pytest.raises(ModelFileError, match=message):
        load_classifier(file, architecture=SmallNet())


def test_any_classifier_can_be_saved(tmp_path):
    model = SmallNet().eval()
    classifier = pyxai.Classifier(model, preprocessing=SQUARE, class_names=[*"abcdefg"])
    save_classifier(classifier, tmp_path / "net.safetensors")
    assert [each.name for each in tmp_path.iterdir()] == ["net.safetensors"]
    loaded = load_classifier(tmp_path / "net.safetensors", architecture=SmallNet())
    assert (loaded.class_names, loaded.preprocessing) == (tuple("abcdefg"), SQUARE)
    images = torch.rand(2, 3, 24, 24)
    assert torch.equal(loaded(images), classifier(images))
