"""Class names in every form that people have them in, and those that a network carries."""

from __future__ import annotations

import enum
import io
import json
import warnings
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest
import torch
from networks import SmallNet
from torch import nn

from pyxai.classifier import Classifier
from pyxai.classifier.names import as_class_names
from pyxai.zoo import load_classifier

PETS = ("cat", "dog", "fox")
ANIMALS = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu")  # one for each class of SmallNet


class Kind(str, enum.Enum):
    CAT = "cat"
    DOG = "dog"
    FOX = "fox"


FOLDERS = sorted(map(str, range(12)))  # 0, 1, 10, 11, 2, ...: as ImageFolder sorts them


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["cat", "dog", "fox"], PETS),
        (PETS, PETS),
        (np.array(PETS), PETS),
        (np.array(PETS, object), PETS),
        (list(Kind), PETS),
        ((name for name in PETS), PETS),
        (dict(enumerate(PETS)).values(), PETS),
        ({0: "cat", 1: "dog", 2: "fox"}, PETS),
        ({2: "fox", 0: "cat", 1: "dog"}, PETS),
        (MappingProxyType({2: "fox", 0: "cat", 1: "dog"}), PETS),
        (json.loads(json.dumps({2: "fox", 0: "cat", 1: "dog"})), PETS),
        ({np.int64(1): "dog", np.int64(0): "cat", np.uint8(2): "fox"}, PETS),
        ({"cat": 0, "dog": 1, "fox": 2}, PETS),
        ({"fox": 2, "cat": np.int64(0), "dog": 1}, PETS),
        ({name: index for index, name in enumerate(FOLDERS)}, tuple(FOLDERS)),
        ({str(index): name for index, name in enumerate(FOLDERS)}, tuple(FOLDERS)),
        (range(3), ("0", "1", "2")),
        (np.unique([7, 3, 3]), ("3", "7")),
        ({0: 0, 1: 1}, ("0", "1")),
        ({3: 0, 7: 1}, ("3", "7")),
        (["crane", "crane"], ("crane", "crane")),
        (["one"], ("one",)),
    ],
)
def test_forms(names, expected):
    found = as_class_names(names)
    assert found == expected
    assert all(type(name) is str for name in found)


SEQUENCE = "class_names: expected a sequence of names in the order of the classes, or a dict"
INDICES = "name -> index, with each index from 0 to"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("cat", f"{SEQUENCE} index -> name, got 'cat'"),
        (b"cat", f"{SEQUENCE} .* got a bytes"),
        ({"cat", "dog"}, f"{SEQUENCE} .* got a set"),
        (frozenset(PETS), f"{SEQUENCE} .* got a frozenset"),
        (3, f"{SEQUENCE} .* got 3"),
        (io.StringIO("cat\ndog\n"), f"{SEQUENCE} .* got a StringIO"),
        (np.array("cat"), f"{SEQUENCE} .* array"),
        ([], r"expected at least one name, got none \(a list\)"),
        (iter([]), "expected at least one name, got none"),
        ({}, "expected at least one name, got an empty dict"),
        (["cat", None], "expected names that are strings, got None for class 1"),
        ([True, False], "expected names that are strings, got True for class 0"),
        (["cat", 1.5], "got 1.5 for class 1"),
        ([b"cat"], "got a bytes for class 0"),
        (torch.tensor([1, 2]), "got an int64 tensor"),
        (np.zeros((2, 2)), "got a float64 array"),
        ({0: "cat", 1: None}, "got None for class 1"),
        ({"0": "cat", "1": None}, "got None for class 1"),
        ({"0": ["n02123045", "tabby"]}, r"got \['n02123045', 'tabby'\] for class 0"),
        ({0: "cat", 2: "dog"}, f"{INDICES} 1 once, got 2 instead of 1"),
        ({1: "cat", 2: "dog"}, f"{INDICES} 1 once, got 2 instead of 0"),
        ({-1: "cat", 0: "dog"}, f"{INDICES} 1 once, got -1 instead of 1"),
        ({"0": "cat", "00": "dog"}, f"{INDICES} 1 once, got 0 instead of 1"),
        ({"cat": 0, "dog": 0}, f"{INDICES} 1 once, got 0 instead of 1"),
        ({"cat": 0, "dog": 5}, f"{INDICES} 1 once, got 5 instead of 1"),
        ({"cat": "0", "dog": "1"}, f"{INDICES} 1 once, got 'cat', 'dog' instead of 0, 1"),
        ({"cat": 0, "dog": True}, "instead of 0, 1"),
        ({False: "no", True: "yes"}, "got False, True instead of 0, 1"),
        ({0.0: "cat"}, "got 0.0 instead of 0"),
        ({i: str(i) for i in range(1, 1001)}, f"{INDICES} 999 once, got 1000 instead of 0"),
        ({0: 1, 1: 2, 2: 0}, "names and indices cannot be told apart"),
    ],
)
def test_what_is_refused(names, words):
    with pytest.raises(ValueError, match=words) as caught:
        as_class_names(names)
    assert str(caught.value).startswith("class_names: ")
    assert len(str(caught.value)) < 300
    with pytest.raises(ValueError, match=words):
        Classifier(SmallNet(), class_names=names)
    with pytest.raises(ValueError, match=words):
        load_classifier("no_such_file.pt", class_names=names)  # before anything is loaded


def test_a_classifier_with_a_dict():
    classifier = Classifier(SmallNet(), class_names=dict(enumerate(ANIMALS)))
    assert classifier.class_names == ANIMALS
    assert classifier.class_index("cat") == 2
    names = load_classifier("demo").class_names
    upper = {name.upper(): index for index, name in enumerate(names)}
    assert load_classifier("demo", class_names=upper).class_names == tuple(upper)


# ---- what a network carries ----


def config(**values):
    return SimpleNamespace(**values)


def carrying(**attributes):
    """A network of 7 classes with these attributes."""
    net = SmallNet()
    for name, value in attributes.items():
        setattr(net, name, value)
    return net


@pytest.mark.parametrize(
    "attributes",
    [
        {"config": config(id2label=dict(enumerate(ANIMALS)))},
        {"config": config(id2label={str(i): name for i, name in enumerate(ANIMALS)})},
        {"config": {"id2label": dict(enumerate(ANIMALS))}},
        {"pretrained_cfg": {"label_names": list(ANIMALS), "num_classes": 7}},
        {"pretrained_cfg": {"label_names": ANIMALS}, "config": config(id2label={0: "LABEL_0"})},
    ],
)
def test_names_of_the_network(attributes):
    net = carrying(**attributes)
    assert Classifier(net).class_names == ANIMALS
    assert Classifier(torch.compile(net, backend="eager")).class_names == ANIMALS
    assert Classifier(nn.DataParallel(net)).class_names == ANIMALS
    assert Classifier(net, class_names=[*"abcdefg"]).class_names == tuple("abcdefg")
    assert Classifier(nn.Sequential(net)).class_names is None  # another network


class Lazy:
    """A configuration that must not be asked."""

    def __getattr__(self, name):
        raise RuntimeError("loads a file")


class Asks(SmallNet):
    @property
    def config(self):
        raise RuntimeError("loads a file")

    pretrained_cfg = config


@pytest.mark.parametrize(
    "net",
    [
        SmallNet(),
        Asks(),
        carrying(config=None),
        carrying(config="resnet.yaml"),
        carrying(config=Lazy()),
        carrying(config=nn.Linear(2, 2)),
        carrying(config=config(id2label=None)),
        carrying(config=config(id2label=7)),
        carrying(config=config(id2label={})),
        carrying(config=config(id2label="abcdefg")),
        carrying(config=config(id2label={i: f"LABEL_{i}" for i in range(7)})),
        carrying(config=config(id2label=dict(enumerate(ANIMALS, 1)))),
        carrying(config=config(id2label=dict.fromkeys(range(7)))),
        carrying(config=config(id2label=dict(enumerate(ANIMALS[:5])))),
        carrying(pretrained_cfg={"label_names": ANIMALS[:5]}),
        carrying(pretrained_cfg={"label_names": None}),
        carrying(pretrained_cfg="resnet50.a1_in1k"),
        carrying(pretrained_cfg=Lazy()),
        nn.Sequential(nn.Flatten()),
    ],
)
def test_what_does_not_fit_is_not_believed(net):
    classifier = Classifier(net)
    assert classifier.class_names is None
    assert classifier.preprocessing == Classifier(SmallNet()).preprocessing


def test_a_head_that_was_exchanged():
    net = carrying(config=config(id2label=dict(enumerate(ANIMALS))))
    net.fc = nn.Linear(24, 3)
    assert Classifier(net).class_names is None
    net.fc = nn.Sequential(nn.Linear(24, 7), nn.ReLU(), nn.Linear(7, 3))
    assert Classifier(net).class_names is None
    assert Classifier(net)(torch.randn(1, 3, 32, 32)).shape == (1, 3)
    net.fc = nn.Sequential(nn.Linear(24, 7), nn.Dropout())
    assert Classifier(net).class_names == ANIMALS


def test_torchscript_carries_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated
        net = torch.jit.trace(SmallNet().eval(), torch.randn(1, 3, 32, 32))
    assert Classifier(net).class_names is None


def test_networks_of_transformers():
    hf = pytest.importorskip("transformers", reason="needs transformers", exc_type=ImportError)
    small = {"embedding_size": 8, "hidden_sizes": [8] * 4, "depths": [1] * 4}
    net = hf.ResNetForImageClassification(
        hf.ResNetConfig(layer_type="basic", id2label=dict(enumerate(PETS)), **small)
    )
    assert Classifier(net).class_names == PETS
    assert Classifier(net)(torch.randn(1, 3, 64, 64)).shape == (1, 3)
    unnamed = hf.ResNetForImageClassification(hf.ResNetConfig(num_labels=3, **small))
    assert Classifier(unnamed).class_names is None
    assert Classifier(net.resnet).class_names is None  # no classifier


def test_networks_of_timm():
    timm = pytest.importorskip("timm", reason="needs timm", exc_type=ImportError)
    overlay = {"label_names": list(PETS), "num_classes": 3}
    net = timm.create_model("test_resnet", num_classes=3, pretrained_cfg_overlay=overlay)
    assert Classifier(net).class_names == PETS
    net = timm.create_model("test_resnet", num_classes=4, pretrained_cfg_overlay=overlay)
    assert Classifier(net).class_names is None
