"""Which part of what a model returns are its logits, and what they mean."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from networks.habits import CLASSES, SIZE, Net, lively
from torch import nn
from torch.nn import functional as F

import pyxai
from pyxai.classifier import OutputWarning

NAMES = ("ant", "bee", "cat", "dog")


@pytest.fixture
def images():
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


class Pair(NamedTuple):
    vectors: torch.Tensor
    scores: torch.Tensor


@dataclass
class Answer:
    vectors: torch.Tensor
    scores: torch.Tensor


class Several(Net):
    """Gives more than its logits, packed as `pack` does."""

    def __init__(self, pack):
        super().__init__()
        self.pack = pack

    def forward(self, x):
        vectors = self.flat(self.pool(self.body(x)))
        return self.pack(vectors, self.fc(vectors))


def plain(model, images):
    vectors = model.flat(model.pool(model.body(images)))
    return model.fc(vectors).detach()


# ---- several outputs ----


@pytest.mark.parametrize(
    ("pack", "output"),
    [
        (lambda v, s: (v, s), 1),
        (lambda v, s: (v, s), -1),
        (lambda v, s: [v, s], 1),
        (lambda v, s: {"a": v, "b": s}, "b"),
        (lambda v, s: {7: v, 8: s}, 8),
        (Pair, "scores"),
        (Pair, 1),
        (Answer, "scores"),
        (lambda v, s: {"deep": (v, s)}, lambda out: out["deep"][1]),
    ],
)
def test_output_says_where_the_logits_are(pack, output, images):
    model = lively(Several(pack))
    classifier = pyxai.Classifier(model, output=output)
    assert torch.equal(classifier(images), plain(model, images))
    twin = lively(Net())
    assert torch.allclose(pyxai.cam(classifier, images), pyxai.cam(twin, images), atol=1e-5)
    assert torch.allclose(
        pyxai.cam(classifier, images, method="gradcam"),
        pyxai.cam(twin, images, method="gradcam"),
        atol=1e-5,
    )
    served = pyxai.CamModel(classifier, example=images[:1])
    assert torch.allclose(served(images)[0], plain(model, images), atol=1e-5)


def test_class_names_tell_the_logits_apart(images):
    """(embedding, logits), without a word."""
    model = lively(Several(lambda vectors, scores: (vectors, scores)))
    classifier = pyxai.Classifier(model, class_names=NAMES)
    assert torch.equal(classifier(images), plain(model, images))


def test_a_guess_is_said_once(images):
    model = lively(Several(lambda vectors, scores: (vectors, scores)))
    with pytest.warns(OutputWarning, match=r"0: \[2, 24\], 1: \[2, 4\].*output=0.*class_names"):
        assert pyxai.Classifier(model)(images).shape == (2, 24)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pyxai.Classifier(model)(images)
        pyxai.cam(model, images)
    fresh = lively(Several(lambda vectors, scores: (vectors, scores)))
    with pytest.warns(OutputWarning):
        pyxai.cam(fresh, images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pyxai.cam(pyxai.Classifier(lively(Several(Pair)), output=1), images)


def test_logits_beside_probabilities(images):
    model = lively(Several(lambda vectors, scores: (scores.softmax(1), scores)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(pyxai.Classifier(model)(images), plain(model, images))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (2, r"output: expected one of the model's outputs \(0: .*1: .*got 2"),
        ("logits", r"output: expected one of the model's outputs"),
        (0.5, r"output: expected an index, a name, or a function"),
        (lambda out: out, r"output: expected the logits \[N, K\] of 2 images as what it returns"),
        (lambda out: out[1][0], r"output: expected the logits"),
    ],
)
def test_outputs_that_are_not_there(output, message, images):
    model = lively(Several(lambda vectors, scores: (vectors, scores)))
    with pytest.raises(ValueError, match=message):
        pyxai.Classifier(model, output=output)(images)


def test_output_of_load_classifier(images, tmp_path):
    model = lively(Several(Pair))
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    classifier = pyxai.load_classifier(
        tmp_path / "weights.pt", architecture=Several(Pair), output="scores"
    )
    assert torch.equal(classifier(images), plain(model, images))


# ---- probabilities ----


def test_probabilities_are_taken_back(images):
    logits = lively(Net())
    for activation in (lambda s: s.softmax(1), lambda s: F.softmax(s, dim=-1)):
        model = lively(Several(lambda vectors, scores, end=activation: end(scores)))
        classifier = pyxai.Classifier(model)
        found = classifier(images)
        assert torch.allclose(classifier.probabilities(found), logits(images).softmax(1), atol=1e-6)
        assert torch.allclose(found, logits(images).log_softmax(1), atol=1e-4)


class Ends(Net):
    """Its logits, of as many outputs as were asked for, end in something."""

    def __init__(self, count, end):
        super().__init__()
        self.fc = nn.Linear(24, count)
        self.end = end

    def forward(self, x):
        return self.end(super().forward(x))


@pytest.mark.parametrize("end", [torch.sigmoid, lambda s: s.sigmoid().squeeze(1), nn.Sigmoid()])
def test_one_sigmoid(end, images):
    model, bare = lively(Ends(1, end)), lively(Ends(1, lambda scores: scores))
    classifier = pyxai.Classifier(model)
    found = classifier(images)
    assert found.shape == (2, 1)
    assert torch.allclose(found, bare(images), atol=1e-4)
    assert torch.allclose(classifier.probabilities(found), bare(images).sigmoid(), atol=1e-6)
    assert torch.allclose(pyxai.cam(model, images), pyxai.cam(bare, images), atol=1e-4)
    named = pyxai.Classifier(model, class_names=("dog", "cat"))
    both = named(images)
    assert both.shape == (2, 2)
    probability = bare(images).sigmoid()
    assert torch.allclose(
        named.probabilities(both), torch.cat([1 - probability, probability], 1), atol=1e-6
    )
    signed = {"size": None, "normalize": None, "relu": False}
    for_cat = pyxai.cam(named, images, "cat", **signed)
    assert torch.allclose(for_cat, -pyxai.cam(named, images, "dog", **signed), atol=1e-5)
    assert torch.allclose(2 * for_cat, pyxai.cam(bare, images, 0, **signed), atol=1e-4)


@pytest.mark.parametrize("shape", ["[N]", "[N, 1]"])
def test_windows_of_one_logit(shape):
    """A softmax of one number is 1 everywhere."""
    end = (lambda scores: scores[:, 0]) if shape == "[N]" else (lambda scores: scores)
    model = lively(Ends(1, end))
    photo = torch.randn(3, 48, 48, generator=torch.Generator().manual_seed(2))
    for mode in ("exhaustive", "shared", "dense"):
        found = pyxai.sliding_window(model, photo, window=SIZE, stride=8, mode=mode)
        assert torch.allclose(found.probabilities, found.logits.sigmoid())
        assert float(found.probabilities.std()) > 0
        assert float(found.probabilities.max()) < 1
    named = pyxai.Classifier(model, class_names=("no", "yes"))
    two = pyxai.sliding_window(named, photo, window=SIZE, stride=8, mode="dense")
    assert two.probabilities.shape[-1] == 2
    assert torch.allclose(two.probabilities[:, 1:], found.logits.sigmoid(), atol=1e-5)


def test_labels_that_do_not_exclude_each_other(images):
    model, bare = lively(Ends(CLASSES, torch.sigmoid)), lively(Net())
    classifier = pyxai.Classifier(model)
    found = classifier(images)
    assert torch.allclose(classifier.probabilities(found), bare(images).sigmoid(), atol=1e-5)
    windows = pyxai.sliding_window(model, images[0], window=16, stride=8)
    assert torch.allclose(windows.probabilities, windows.logits.sigmoid(), atol=1e-6)


def test_logits_between_0_and_1_stay_as_they_are(images):
    """They are no probabilities only because of their range."""
    model = lively(Ends(CLASSES, lambda scores: 0.5 + 0.1 * scores.tanh()))
    assert torch.allclose(pyxai.Classifier(model)(images), model(images))


# ---- what is no logits ----


def test_an_embedding_is_doubted(images):
    model = lively(Ends(CLASSES, lambda vectors: F.normalize(vectors, dim=1)))
    with pytest.warns(OutputWarning, match="rows of length 1, an embedding"):
        pyxai.cam(model, images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pyxai.Classifier(model, class_names=NAMES)(images)

    def likeness(vectors):
        return vectors @ torch.tensor([0.5, 0.5, -0.5, 0.5])

    fresh = lively(Ends(CLASSES, lambda vectors: F.normalize(vectors, dim=1)))
    maps = pyxai.cam(fresh, images, likeness, method="gradcam", normalize=None, relu=False)
    assert float(maps.abs().max()) > 0


def test_class_names_that_are_too_few(images):
    with pytest.raises(ValueError, match=r"class_names: expected 4 names, .* got 3"):
        pyxai.cam(pyxai.Classifier(lively(Net()), class_names=NAMES[:3]), images)


def test_names_that_a_network_carries_may_be_outdated(images):
    model = lively(Net())
    model.config = {"id2label": dict(enumerate(NAMES))}
    classifier = pyxai.Classifier(model)
    assert classifier.class_names == NAMES
    model.fc = nn.Linear(24, 3)
    assert pyxai.cam(classifier, images).shape == (2, SIZE, SIZE)
    assert classifier.class_names is None


# ---- what a model returns changes, or tells little ----


class Switched(Net):
    """Probabilities, or logits, by a flag."""

    ends = True

    def __init__(self, end, classes):
        super().__init__()
        self.fc, self.end = nn.Linear(24, classes), end

    def forward(self, x):
        logits = super().forward(x)
        return self.end(logits) if self.ends else logits


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("end", "classes"), [(lambda z: z.softmax(1), 5), (torch.sigmoid, 1), (torch.sigmoid, 5)]
)
def test_a_flag_that_changes_what_is_returned_is_noticed(images, first, end, classes):
    net = lively(Switched(end, classes))
    for net.ends in (first, not first):
        fresh = Switched(end, classes).eval()
        fresh.load_state_dict(net.state_dict())
        fresh.ends = net.ends
        found = pyxai.cam(net, images, 0, return_logits=True)
        expected = pyxai.cam(fresh, images, 0, return_logits=True)
        assert all(map(torch.equal, found, expected))
        clf, other = pyxai.Classifier(net), pyxai.Classifier(fresh)
        shares = clf.probabilities(clf(images))
        assert torch.equal(shares, other.probabilities(other(images)))
        assert torch.allclose(shares, end(Net.forward(net, images)), atol=1e-6) or not net.ends


def test_biases_that_add_up_to_1_are_logits_for_a_black_image():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).eval()
    nn.init.constant_(net[4].bias, 0.2)
    black, images = torch.zeros(1, 3, 32, 32), torch.randn(2, 3, 32, 32)
    for some in (black, images, black, images[:0], images):
        assert torch.equal(pyxai.Classifier(net)(some), net(some).detach())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a blank map of the black image
            logits = pyxai.cam(net, some, 0, return_logits=True)[1]
        assert torch.equal(logits, net(some).detach())


def test_probabilities_by_hand_are_doubted(images):
    net = lively(Ends(CLASSES, lambda scores: 1 / (1 + torch.exp(-scores))))
    with pytest.warns(OutputWarning, match=r"output=torch.logit"):
        pyxai.cam(net, images)
    clf = pyxai.Classifier(net, output=torch.logit)
    assert torch.allclose(clf(images), torch.logit(net(images)))


def test_one_of_two_softmax_outputs_is_a_probability(images):
    net = lively(Ends(2, lambda scores: scores.softmax(1)[:, 1]))
    clf = pyxai.Classifier(net)
    assert torch.allclose(clf.probabilities(clf(images))[:, 0], net(images), atol=1e-6)


@pytest.mark.parametrize("confidence_first", [True, False])
def test_a_confidence_beside_probabilities_is_not_explained(images, confidence_first):
    def end(scores):
        shares = scores.softmax(1)
        sure = shares.amax(1)
        return (sure, shares) if confidence_first else {"probs": shares, "conf": sure}

    net = lively(Ends(CLASSES, end))
    with pytest.warns(OutputWarning, match="several outputs that could be logits"):
        assert pyxai.Classifier(net)(images).shape == (len(images), CLASSES)


def test_a_loss_beside_logits_is_not_explained(images):
    net = lively(Ends(CLASSES, lambda scores: (scores.square().mean(), scores)))
    for some in (images, images[:1]):
        assert pyxai.Classifier(net)(some).shape == (len(some), CLASSES)


def test_a_sigmoid_stays_one_where_two_labels_add_up_to_1(images):
    net = lively(Ends(2, torch.sigmoid))
    net.fc.bias.data.zero_()
    mixed = torch.cat([torch.zeros_like(images[:1]), images])  # a black image first: 0.5 and 0.5
    for some in (mixed, mixed.flip(0)):
        fresh = lively(Ends(2, torch.sigmoid))
        fresh.load_state_dict(net.state_dict())
        clf = pyxai.Classifier(fresh)
        assert torch.allclose(clf.probabilities(clf(some)), fresh(some), atol=1e-6)
        assert torch.allclose(clf(some), torch.logit(fresh(some)), atol=1e-4)


def test_a_regression_between_0_and_1_is_no_probability(images):
    """What a linear layer gives are logits, wherever they lie."""
    net = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    net = nn.Sequential(net, nn.LayerNorm(8), nn.Linear(8, 1)).eval()
    with torch.no_grad():
        net[2].weight.mul_(0.1)
        net[2].bias.fill_(0.5)
    assert torch.equal(pyxai.Classifier(net)(images), net(images))
