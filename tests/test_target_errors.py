"""What errors about targets and layers list, so that the next try is right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import SmallNet
from torch import nn

import pyxai
from pyxai.classifier.outputs import (
    class_index,
    class_of_folder,
    part_of_target,
    resolve_target,
)
from pyxai.cli._layers import check_layers
from pyxai.images import FolderLabels

FEW = ["tabby cat", "tiger cat", "forest", "street"]
MANY = [
    *("tabby, tabby cat", "tiger cat", "catamaran", "polecat, fitch", "great white shark"),
    *(f"kind {number}" for number in range(40)),
]


@pytest.mark.parametrize(
    ("names", "target", "message"),
    [
        # Few classes: all of them are listed.
        (FEW, "forrest", "got 'forrest'; closest: 'forest'; the classes are 'tabby cat', 'tiger"),
        (FEW, "xyz", "got 'xyz'; the classes are 'tabby cat', 'tiger cat', 'forest', 'street'"),
        (FEW, "", "got ''; the classes are"),
        # A part of several names: which.
        (FEW, "cat", "got 'cat'; it is a part of 'tabby cat' (0), 'tiger cat' (1): give one"),
        (FEW, "CAT ", "got 'CAT '; it is a part of 'tabby cat' (0), 'tiger cat' (1)"),
        (FEW, "st", "it is a part of 'forest' (2), 'street' (3)"),
        (FEW, "stree", "got 'stree'; closest: 'street'"),
        # Many: those that it may mean, and how to see all.
        (MANY, "cat", "a part of 'tabby, tabby cat' (0), 'tiger cat' (1): give one"),  # whole words
        (MANY, "cata", "got 'cata'; closest: 'catamaran'"),
        (MANY, "kind", "'kind 8' (13), 'kind 9' (14) and 30 more: give one"),
        (MANY, "taby cat", "closest: 'tabby cat'"),  # by a synonym, which will do
        (MANY, "great white", "got 'great white'; closest: 'great white shark'"),
        (MANY, "zzz", "got 'zzz'; class_names has all 45"),
        (MANY, "(", "got '('; class_names has all 45"),
        (MANY, "3", "got '3'; an index is a number, 3; class_names has all 45"),
    ],
)
def test_names_that_are_none(names, target, message):
    with pytest.raises(ValueError, match=r"^target: expected a class name, ") as caught:
        class_index(target, names)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 600


def test_what_is_suggested_works():
    assert class_index("tabby cat", MANY) == 0
    assert class_index("great white shark", MANY) == 4


def test_folders_that_are_no_class():
    folders = FolderLabels(None)
    assert class_of_folder(folders, "photos/Tiger cat/1.jpg", FEW) == "tiger cat"
    assert class_of_folder(folders, "photos/cat/1.jpg", FEW) is None
    assert class_of_folder(folders, "/1.jpg", FEW) is None
    assert class_of_folder(folders, "photos/Tiger cat/1.jpg", None) is None


@pytest.mark.parametrize(
    ("images", "target", "message"),
    [
        (1, [3, 7], "each of 1 image, got 2; several classes of each image are [[3, 7]]"),
        (1, (3, 7), "got 2; several classes of each image are [[3, 7]]"),
        (1, torch.tensor([3, 7]), "got 2; several classes of each image are [[3, 7]]"),
        (1, np.array([3, 7]), "got 2; several classes of each image are [[3, 7]]"),
        (1, ["a", "b"], "got 2; several classes of each image are [['a', 'b']]"),
        (5, [3, 7], "each of 5 images, got 2; several classes of each image are [[3, 7]]"),
        (2, [0, 1, 2, 3, 4], "got 5; several classes of each image are [[0, 1, 2, 3, ...]]"),
        (5, [3], "each of 5 images, got 1; one class for all images is 3, without brackets"),
        (2, [[1], [2], [3]], "each of 2 images, or one for all, got 3"),
        (2, [], "each of 2 images, got 0"),
    ],
    ids=str,
)
def test_wrong_numbers_of_targets(images, target, message):
    names = [*"abcdefgh"]
    with pytest.raises(ValueError, match=r"^target: expected one entry for each of ") as caught:
        resolve_target(target, torch.zeros(images, 8), names)
    assert message in str(caught.value)
    with pytest.raises(ValueError, match=r"^target: expected one entry for each of ") as caught:
        part_of_target(target, slice(0, 1), images)
    assert message in str(caught.value)


def test_the_hint_is_right():
    """What a stranger tries, what the error says, and what then works."""
    model, photo = SmallNet().eval(), torch.randn(1, 3, 32, 32)
    calls = [
        lambda target: pyxai.cam(model, photo, target),
        lambda target: pyxai.shap_values(model, photo, "mean", target, samples=4).maps(),
        lambda target: (
            pyxai.undesirable_pixels(
                model, photo, target, settings=pyxai.MaskSettings(steps=1)
            ).heatmap
        ),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"are \[\[3, 6\]\]"):
            call([3, 6])
        assert call([[3, 6]]).shape == (1, 2, 32, 32)


@pytest.mark.parametrize(
    "command",
    ["explain", "features", "audit photos", "novelty fit photos", "search build photos"],
)
def test_layers_on_the_command_line(run, tmp_path, command):
    """Refused before a photo is read; what there is, and how to see all."""
    (tmp_path / "photos").mkdir()
    code, _, err = run(*command.split(), "--layer", "nope")
    assert code == 2
    assert "--layer: expected a layer of demo, got 'nope'; there are 56, such as 'stem'" in err
    assert "'stage4', 'pool', 'head'; all: pyxai layers demo" in err
    assert len(err.splitlines()) == 1
    code, _, err = run(*command.split(), "--layer", "stage44")
    assert code == 2
    assert "got 'stage44'; closest: 'stage4'" in err


def test_layers_of_small_networks_are_all_listed():
    shared = nn.ReLU()
    network = nn.Sequential(nn.Conv2d(3, 4, 3), shared, nn.Conv2d(4, 4, 3), shared)
    classifier = pyxai.Classifier(network, name="net")
    check_layers(classifier, None, "net.pt")
    check_layers(classifier, ["1", None, "3"], "net.pt")  # both names of the shared one will do
    with pytest.raises(ValueError, match=r"got 'conv'; there are '0', '1', '2', '3'$"):
        check_layers(classifier, ["0", "conv"], "net.pt")


def test_on_the_command_line(run):
    code, _, err = run("explain", "--target", "tree")
    assert code == 2
    assert "expected a class name, got 'tree'" in err
    for name in ("buildings", "forest", "glacier", "mountain", "sea", "street"):
        assert f"'{name}'" in err
    assert len(err.splitlines()) == 1
