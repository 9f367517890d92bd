"""A model is wrapped once and examined once in a call, and runs no more often than is said here."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from networks import SmallNet
from PIL import Image

import pyxai
from pyxai.classifier import Classifier, Examined, anatomy

SIDE = 32
PHOTOS = 8  # of two classes
CLASSES = ["cat", "dog"]


class CountedNet(SmallNet):
    """Written by hand; how often it runs is counted, and how often its copies do."""

    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x)


def counted_net(wrap: Callable[[torch.Tensor], Any] = lambda logits: logits) -> CountedNet:
    torch.manual_seed(0)
    return CountedNet(len(CLASSES), wrap=wrap).eval()


def classifier(network: torch.nn.Module) -> Classifier:
    preprocessing = pyxai.Preprocessing(resize=SIDE, crop=SIDE)
    return Classifier(network, class_names=CLASSES, preprocessing=preprocessing)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(PHOTOS):
        home = root / CLASSES[number % 2]
        home.mkdir(exist_ok=True)
        pixels = random.integers(0, 255, (48, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(home / f"{number}.png")
    return root


@pytest.fixture
def counts(monkeypatch) -> Counter[str]:
    """How often a model was wrapped, asked what is known of it, and run to find that out."""
    found: Counter[str] = Counter()

    def count(owner: Any, name: str, label: str) -> None:
        original = getattr(owner, name)

        def counted(*args: Any, **named: Any) -> Any:
            found[label] += 1
            return original(*args, **named)

        monkeypatch.setattr(owner, name, counted)

    count(Classifier, "__init__", "wrapped")
    count(anatomy, "examine", "examined")
    count(anatomy, "look", "surveyed")
    count(CountedNet, "forward", "runs")
    return found


class Case(NamedTuple):
    """A call and what it may cost.

    Attributes:
        call: of a network, images, a folder of photos and a free folder.
        runs: of the network, each time: those that the answer is made of.
        probes: further runs of the first call, which find out what is kept.
        examined: how often what is known of the network is looked up: once for each size, and
            where photos or batches come one after the other, for each of these, as the model may
            change meanwhile.
        surveyed: of the first call, for each size that the network runs differently for.
        wrapped: how often a module becomes a classifier.
    """

    call: Callable[[CountedNet, torch.Tensor, Path, Path], Any]
    runs: int
    probes: int
    examined: int = 1
    surveyed: int = 1
    wrapped: int = 1


def window(**options: Any) -> Callable[..., Any]:
    def call(network: CountedNet, images: torch.Tensor, folder: Path, free: Path) -> Any:
        return pyxai.sliding_window(network, folder / "cat" / "0.png", window=SIDE, **options)

    return call


def known_images() -> torch.Tensor:
    return torch.randn(40, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))


MASK = {"steps": 5, "mask_size": 8}
TRAIN = {"epochs": 1, "augment": "none", "progress": False}
# What the first call finds out beside a survey, in runs: the last layer that matters; the head
# after it, on three images of noise, each time tried before it is believed; the memory format; and
# whether gradients reach the images.
LAYER, HEAD, FORMAT, GRADIENTS = 2, 9, 2, 1

CASES = {
    "cam": Case(lambda net, x, *_: pyxai.cam(net, x), runs=1, probes=1 + LAYER + HEAD),
    "cam, another method": Case(
        lambda net, x, *_: pyxai.cam(net, x, method="gradcam"), runs=1, probes=1 + LAYER + HEAD
    ),
    "cam, several methods, targets, layers": Case(
        lambda net, x, *_: pyxai.cam(
            net, x, "all", method=["gradcam", "layercam"], layer=["stage2", "stage3"]
        ),
        runs=1,
        probes=1 + 5 + HEAD,  # no head after stage2, which its first trial shows
    ),
    "cam, an image a pass": Case(
        lambda net, x, *_: pyxai.cam(net, x, layer="stage3", batch_size=1),
        runs=2,
        probes=1 + HEAD,
    ),
    "windows": Case(window(stride=8), runs=1, probes=1 + FORMAT),
    # The whole photo, one window, and what follows on no image: tried, and for all windows.
    "windows, shared": Case(window(stride=8, mode="shared"), runs=4, probes=1 + FORMAT + 3),
    # Windows and the whole photo are two sizes, of which the network runs alike: that is known.
    "windows, dense": Case(
        window(stride=8, mode="dense"),
        runs=1,
        probes=2 + FORMAT + LAYER - 1 + HEAD,
        examined=2,
        surveyed=2,
    ),
    # The images, five steps, and the end.
    "undesirable pixels": Case(
        lambda net, x, *_: pyxai.undesirable_pixels(net, x, settings=pyxai.MaskSettings(**MASK)),
        runs=7,
        probes=1 + FORMAT + GRADIENTS,
    ),
    "meaningful perturbation": Case(
        lambda net, x, *_: pyxai.meaningful_perturbation(
            net, x, settings=pyxai.MeaningfulSettings(**MASK)
        ),
        runs=7,
        probes=1 + FORMAT + GRADIENTS,
    ),
    "extremal perturbation of two areas": Case(
        lambda net, x, *_: pyxai.extremal_perturbation(
            net, x, areas=[0.1, 0.2], settings=pyxai.ExtremalSettings(**MASK)
        ),
        runs=14,
        probes=1 + FORMAT + GRADIENTS,
    ),
    # The images, all points on the way, and the background.
    "SHAP by gradients": Case(
        lambda net, x, *_: pyxai.shap_values(net, x, samples=8),
        runs=3,
        probes=1 + FORMAT + GRADIENTS,
    ),
    "SHAP by regions": Case(
        lambda net, x, *_: pyxai.shap_values(net, x, samples=8, method="partition"),
        runs=4,
        probes=1 + FORMAT,
    ),
    # Photo by photo as above; the top class comes of the same run as the values.
    "SHAP summary": Case(
        lambda net, x, folder, _: pyxai.shap_summary(
            classifier(net), folder, samples=8, grid=3, progress=False
        ),
        runs=4 * PHOTOS,
        probes=1 + FORMAT,
        examined=PHOTOS,
    ),
    # A copy is trained, and becomes a classifier of its own: one run says where its head is, and
    # the features of the training and the validation photos are read once.
    "fine-tuning": Case(
        lambda net, x, folder, _: pyxai.fine_tune(classifier(net), folder, valid=folder, **TRAIN),
        runs=3,
        probes=0,
        examined=0,
        surveyed=0,
        wrapped=2,
    ),
    # The usual size, so that others need run only as far as the layer; the size of the pictures;
    # and two steps.
    "feature visualization": Case(
        lambda net, *_: pyxai.visualize_features(net, "stage2", [0, 5], size=SIDE, steps=2),
        runs=4,
        probes=2 + FORMAT,
        examined=2,
        surveyed=2,
    ),
    # What makes the logits is found out for each fit, as weights may have changed.
    "novelty": Case(
        lambda net, *_: pyxai.NoveltyDetector(net, method="knn").fit(known_images()),
        runs=2,
        probes=1,
    ),
    "novelty at a layer": Case(
        lambda net, *_: pyxai.NoveltyDetector(net, layer="stage3").fit(known_images()),
        runs=4,
        probes=1,
        examined=2,
    ),
    # The layers, one photo, and then all.
    "index": Case(
        lambda net, x, folder, free: pyxai.ImageIndex.build(
            classifier(net), folder, directory=free, progress=False
        ),
        runs=3,
        probes=2,
        examined=2,
    ),
    "audit": Case(
        lambda net, x, folder, _: pyxai.audit(classifier(net), folder, progress=False),
        runs=1,
        probes=1 + LAYER,
    ),
    "duplicates": Case(
        lambda net, x, folder, _: pyxai.find_duplicates(folder, classifier(net), progress=False),
        runs=1,
        probes=1 + LAYER,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_model_is_examined_once_a_call(name, images, folder, tmp_path, counts):
    case, network = CASES[name], counted_net()
    found = []
    for number in range(2):
        counts.clear()
        case.call(network, images, folder, tmp_path / str(number))
        found.append((counts["runs"], counts["surveyed"], counts["examined"]))
        assert counts["wrapped"] == case.wrapped
    assert found == [
        (case.runs + case.probes, case.surveyed, case.examined),
        (case.runs, 0, case.examined),
    ]


def test_a_gallery_examines_each_photo_once_a_pass(folder, counts):
    network = counted_net()

    def fit() -> None:
        gallery = pyxai.ClassGallery(classifier(network), crop=SIDE, clusters=2)
        gallery.fit(folder, progress=False)

    fit()
    counts.clear()
    fit()
    # A run on each photo, one for the crops, and one that tells whether it takes other sizes.
    assert counts["runs"] == PHOTOS + 2
    # Windows and whole photo for each, the crops, and the usual size.
    assert (counts["examined"], counts["surveyed"]) == (2 * PHOTOS + 2, 0)
    assert counts["wrapped"] == 1


# ---- what was found out is checked at each use ----

USES: dict[str, Callable[[CountedNet, torch.Tensor], torch.Tensor]] = {
    "cam": lambda net, x: pyxai.cam(net, x, normalize=None),
    "gradcam": lambda net, x: pyxai.cam(net, x, method="gradcam", normalize=None),
    "masks": lambda net, x: (
        pyxai.undesirable_pixels(net, x, settings=pyxai.MaskSettings(**MASK)).losses
    ),
    "SHAP": lambda net, x: pyxai.shap_values(net, x, samples=8).values,
    "SHAP by regions": lambda net, x: (
        pyxai.shap_values(net, x, samples=8, method="partition").values
    ),
    "windows": lambda net, x: pyxai.sliding_window(net, x[0], window=24).logits,
    "windows, shared": lambda net, x: (
        pyxai.sliding_window(net, x[0], window=24, mode="shared", shared_layer="stage1").logits
    ),
    "novelty": lambda net, x: torch.from_numpy(
        pyxai.NoveltyDetector(net, method="msp").fit(known_images()).score_samples(x)
    ),
}


def exchange_head(network: CountedNet) -> None:
    network.fc = torch.nn.Sequential(torch.nn.Linear(24, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))


def change_weights(network: CountedNet) -> None:
    network.fc.weight.data.mul_(-2)


def train(network: CountedNet) -> None:
    network.train()


def give_probabilities(network: CountedNet) -> None:
    network.wrap = lambda logits: logits.softmax(1)


def give_logits(network: CountedNet) -> None:
    network.wrap = lambda logits: logits


CHANGES = {
    change.__name__: change
    for change in (exchange_head, change_weights, train, give_probabilities, give_logits)
}


@pytest.mark.parametrize(("use", "change"), [*itertools.product(USES, CHANGES)])
def test_a_model_that_has_changed_is_as_one_that_was_never_seen(use, change, images):
    first = (lambda logits: logits.softmax(1)) if change == "give_logits" else (lambda x: x)
    seen = counted_net(wrap=first)
    USES[use](seen, images)
    torch.manual_seed(3)
    CHANGES[change](seen)
    fresh = copy.deepcopy(seen)
    torch.testing.assert_close(USES[use](seen, images), USES[use](fresh, images))


def test_what_is_known_goes_with_images_of_one_size_alone(images, counts):
    examined = Examined(Classifier(counted_net()), images)
    assert counts["examined"] == 0  # nothing was asked for
    assert examined.on(images[:1]).layer() == examined.layer() == "stage3"
    assert counts["examined"] == 1
    larger = torch.nn.functional.pad(images, (8, 8, 8, 8))
    assert examined.on(larger).layer() == "stage3"
    assert counts["examined"] == 2
    assert examined.on(larger, alike=True).layer() == "stage3"
    assert counts["examined"] == 2
    examined.renew()
    assert examined.on(images[1:]).linear_head("stage3") is not None
    assert counts["examined"] == 3
