"""Features that are computed once: the same result, and only where that holds."""

from __future__ import annotations

import pytest
import torch
from networks import SmallNet
from torch import nn
from train_photos import SQUARE, quick

import pyxai
from pyxai.train import frozen

pytestmark = pytest.mark.usefixtures("one_thread")

HEAD = {"crop": None, "unfreeze": "head", "epochs": 3, "learning_rate": 1e-2, "batch_size": 8}


class Counting(SmallNet):
    """Counts the images that it sees, in all copies."""

    images = 0

    def forward(self, x):
        Counting.images += len(x)
        return super().forward(x)


def classifier(network=None):
    return pyxai.Classifier(network or Counting(), preprocessing=SQUARE)


def dropout_in_front():
    """As in MobileNetV2: the head and a dropout in one module."""
    network = Counting()
    network.drop, network.fc = nn.Identity(), nn.Sequential(nn.Dropout(0.5), nn.Linear(24, 7))
    return network


@pytest.mark.parametrize("make", [Counting, dropout_in_front])
@pytest.mark.parametrize("augment", ["none", "mirror"])
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_kept_features_give_what_the_whole_network_gives(squares, monkeypatch, make, augment, head):
    model, options = classifier(make()), {**HEAD, "augment": augment, "head": head, "hidden": 10}
    kept = quick(model, squares, **options)
    monkeypatch.setattr(frozen, "FEATURE_BYTES", 0)
    plain = quick(model, squares, **options)
    assert (kept.features_kept, plain.features_kept) == (True, False)
    for name, value in plain.classifier.model.state_dict().items():
        torch.testing.assert_close(kept.classifier.model.state_dict()[name], value)
    for first, second in zip(kept.history, plain.history, strict=True):
        assert first.loss == pytest.approx(second.loss, rel=1e-4)
        assert first.valid_loss == pytest.approx(second.valid_loss, rel=1e-4)
    assert kept.confusion.tolist() == plain.confusion.tolist()


def test_every_photo_runs_once_or_once_each_way(squares):
    for augment, expected in (("none", 24 + 12), ("mirror", 48 + 12)):
        Counting.images = 0
        quick(classifier(), squares, **HEAD, augment=augment)
        assert Counting.images == expected + 1  # one image, to find the head


@pytest.mark.parametrize(
    "options",
    [
        {"unfreeze": 2},
        {"unfreeze": "all"},
        {"augment": "affine"},
        {"crop": 24},
        {"epochs": 1},  # with mirroring: two passes instead of one
    ],
    ids=str,
)
def test_features_that_change_or_save_nothing_are_not_kept(squares, options):
    assert not quick(classifier(), squares, **{**HEAD, **options}).features_kept


class Both(SmallNet):
    """Returns its logits among other things."""

    def forward(self, x):
        logits = super().forward(x)
        return {"logits": logits, "doubled": 2 * logits}


class OneToken(nn.Module):
    """Its head sees a list of one vector for each photo."""

    def __init__(self):
        super().__init__()
        self.body, self.fc = nn.Conv2d(3, 6, 3, 2), nn.Linear(6, 3)

    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3))[:, None]).squeeze(1)


@pytest.mark.parametrize(("network", "kept"), [(Both, True), (OneToken, False)])
def test_heads_that_can_be_run_alone(squares, network, kept):
    found = quick(classifier(network()), squares, **HEAD)
    assert found.features_kept == kept
    assert found.head == "fc"
