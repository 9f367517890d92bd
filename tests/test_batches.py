"""Batches of model input, and one vector an image of any layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pyxai import Classifier, Preprocessing
from pyxai.classifier import Examined
from pyxai.classifier.batches import iterate_batches
from pyxai.classifier.features import pooled_features
from pyxai.images import ImageError


@pytest.fixture
def classifier(small_net):
    return Classifier(small_net, preprocessing=Preprocessing((0.5,) * 3, (0.5,) * 3))


def picture(width, height, value):
    return Image.fromarray(np.full((height, width, 3), value, np.uint8))


def test_tensors_are_cut_in_order(classifier):
    images = torch.randn(7, 3, 32, 32)
    found = list(iterate_batches(classifier, images, batch_size=3))
    assert [len(each.inputs) for each in found] == [3, 3, 1]
    assert torch.equal(torch.cat([each.inputs for each in found]), images)
    assert found[2].names == ("images[6]",)
    assert not list(iterate_batches(classifier, images[:0]))


def test_photos_of_one_size_run_together(classifier):
    photos = [picture(20, 10, 1), picture(20, 10, 2), picture(10, 20, 3), picture(20, 10, 4)]
    found = list(iterate_batches(classifier, photos, batch_size=8))
    assert [tuple(each.inputs.shape) for each in found] == [
        (2, 3, 10, 20),
        (1, 3, 20, 10),
        (1, 3, 10, 20),
    ]
    values = torch.cat([each.inputs[:, 0, 0, 0] for each in found]) * 127.5 + 127.5
    assert values.round().tolist() == [1, 2, 3, 4]


def test_photos_that_cannot_be_used(classifier, tmp_path):
    picture(8, 8, 0).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"b\.png"):
        list(iterate_batches(classifier, tmp_path))
    failures = []
    (batch,) = iterate_batches(classifier, tmp_path, failures=failures)
    assert batch.names == (str(tmp_path / "a.png"),)
    assert [each.name for each in failures] == [str(tmp_path / "b.png")]


def test_photos_are_shown_before_they_become_input(classifier, tmp_path):
    """As they are, in their order, each once; not those that cannot be read."""
    for value, name in enumerate("ab"):
        picture(8 + value, 8, value).save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes(b"no picture")
    seen = []
    batches = iterate_batches(
        classifier, tmp_path, failures=[], look=lambda *shown: seen.append(shown)
    )
    assert len(list(batches)) == 2
    assert [name for name, _ in seen] == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert [photo.size for _, photo in seen] == [(8, 8), (9, 8)]


def test_features_are_means_over_positions(classifier, small_net):
    images = torch.randn(2, 3, 32, 32)
    names = [name for name, module in small_net.named_modules() if isinstance(module, nn.Conv2d)]
    found = pooled_features(Examined(classifier, images), names[-1])[names[-1]]
    raw = classifier.activations(images, names[-1])[names[-1]]
    torch.testing.assert_close(found, raw.mean(dim=(2, 3)))


def test_vectors_stay_as_they_are():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )
    images = torch.randn(2, 3, 8, 8)
    found = pooled_features(Examined(Classifier(network), images), ["1", "2", "3"])
    assert [tuple(each.shape) for each in found.values()] == [(2, 4), (2, 4), (2, 5)]
    torch.testing.assert_close(found["1"], found["2"])
