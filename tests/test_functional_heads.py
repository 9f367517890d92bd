"""Heads that are computed by a function, or by modules that are no linear layers of torch."""

from __future__ import annotations

import warnings

import pytest
import torch
from networks import SmallNet
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from train_photos import SQUARE, quick

import pyxai
from pyxai.train.layers import anatomy_of, chosen_modules
from pyxai.zoo import load_classifier
from pyxai.zoo.head import PlainHead

pytestmark = pytest.mark.usefixtures("one_thread")


class Own(nn.Module):
    """A linear layer of somebody's own."""

    def __init__(self, classes=7):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(24, classes))

    def forward(self, x):
        return x @ self.matrix


class Cosine(nn.Linear):
    """As of face recognition."""

    def forward(self, x):
        return functional.linear(functional.normalize(x), functional.normalize(self.weight))


class Written(SmallNet):
    """SmallNet with a head that is written otherwise: `how(network, features)`."""

    def __init__(self, how, fc=None, classes=7):
        super().__init__(classes)
        self.how = how
        if fc is not None:
            self.fc = fc

    def forward(self, x):
        x = self.stage3(self.stage2(self.stage1(self.stem(x))))
        return self.how(self, self.drop(self.pool(x).flatten(1)))


def maps_of(y):
    return y[:, :, None, None].expand(-1, -1, 2, 2)


WAYS = {
    "linear": lambda s, y: functional.linear(y, s.fc.weight, s.fc.bias),
    "matmul": lambda s, y: y @ s.fc.weight.t() + s.fc.bias,
    "addmm": lambda s, y: torch.addmm(s.fc.bias, y, s.fc.weight.T),
    "einsum": lambda s, y: torch.einsum("nc,kc->nk", y, s.fc.weight) + s.fc.bias,
    "transposed": lambda s, y: (s.fc.weight @ y.T).T + s.fc.bias,
    "convolution": lambda s, y: functional.conv2d(
        maps_of(y), s.fc.weight[:, :, None, None], s.fc.bias
    ).mean((2, 3)),
    "dictionary": lambda s, y: {"logits": functional.linear(y, s.fc.weight, s.fc.bias)},
}


@pytest.mark.parametrize("way", WAYS)
def test_weights_that_are_read_are_replaced_as_those_of_a_layer(squares, tmp_path, way):
    twin, out = SmallNet(), tmp_path / "tuned.safetensors"
    model = Written(WAYS[way])
    model.load_state_dict(twin.state_dict())
    options = {"crop": None, "unfreeze": "head", "epochs": 2}
    found, expected = (
        quick(pyxai.Classifier(each, preprocessing=SQUARE), squares, **options, out=file)
        for each, file in ((model, out), (twin, None))
    )
    assert (found.head, model.fc.out_features) == ("fc", 7)
    weights = found.classifier.network.state_dict()
    for name, value in expected.classifier.network.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-5)
    assert found.metrics.accuracy == expected.metrics.accuracy
    loaded = load_classifier(out, architecture=Written(WAYS[way], classes=3))
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded(images), found.classifier(images))


def tied():
    model = Written(lambda s, y: functional.linear(s.other(y), s.fc.weight, s.fc.bias))
    model.fc, model.other = nn.Linear(24, 24), nn.Linear(24, 24)
    model.fc.weight = model.other.weight
    return model


def in_sequence():
    layers = nn.Sequential(nn.Dropout(0.5), nn.Linear(24, 7))
    return Written(lambda s, y: functional.linear(y, s.fc[1].weight, s.fc[1].bias), layers)


def called(layer):
    return lambda: Written(lambda s, y: s.fc(y), layer())


def without_bias():
    return Written(lambda s, y: y @ s.fc.weight.T, nn.Linear(24, 7, bias=False))


def normed():
    layer = parametrizations.weight_norm(nn.Linear(24, 7))
    return Written(lambda s, y: functional.linear(y, s.fc.weight, s.fc.bias), layer)


OTHERS = {
    "tied": tied,
    "sequence": in_sequence,
    "no bias": without_bias,
    "normed": normed,
    "unread bias": lambda: Written(lambda s, y: y @ s.fc.weight.T),
    "own": called(Own),
    "cosine": called(lambda: Cosine(24, 7, bias=False)),
    "called normed": called(lambda: parametrizations.weight_norm(nn.Linear(24, 7))),
    "called normed, no bias": called(
        lambda: parametrizations.weight_norm(nn.Linear(24, 7, bias=False))
    ),
    "called, no bias": called(lambda: nn.Linear(24, 7, bias=False)),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_heads_are_replaced_and_files_bring_them_back(squares, tmp_path, kind):
    model, out = OTHERS[kind](), tmp_path / "tuned.safetensors"
    body = model.other.weight.clone() if kind == "tied" else None
    found = quick(model, squares, unfreeze="head", out=out)
    network = found.classifier.network
    assert found.head == ("fc.1" if kind == "sequence" else "fc")
    head = network.get_submodule(found.head)
    assert head.weight.shape == (3, 24)
    if body is not None:
        assert torch.equal(network.other.weight, body)
    if kind in ("no bias", "unread bias"):
        assert not head.bias.any()
    if kind in ("tied", "sequence", "unread bias"):
        return  # their files fit their architecture with three classes
    assert isinstance(head, PlainHead)
    images = torch.rand(2, 3, 24, 24)
    assert torch.equal(
        load_classifier(out, architecture=OTHERS[kind]())(images), found.classifier(images)
    )
    again = quick(found.classifier, squares, unfreeze="head", learning_rate=0.0)
    assert torch.equal(again.classifier(images), found.classifier(images))


def test_own_layers_that_are_called_take_an_mlp(squares):
    found = quick(called(Own)(), squares, unfreeze="head", head="mlp", hidden=5)
    assert (found.head, found.classifier.network.fc.features) == ("fc", 24)


def test_weights_that_are_read_take_no_mlp(squares):
    with pytest.raises(ValueError, match=r"head: expected 'linear', .* call it: self.fc\(x\)"):
        quick(Written(WAYS["linear"]), squares, head="mlp")


def test_layers_with_a_head_that_does_not_run():
    network = Written(WAYS["linear"])
    anatomy = anatomy_of(network, (32, 32))
    assert chosen_modules(network, 2, anatomy) == [network.stage3.shortcut]
    assert chosen_modules(network, "from fc", anatomy) == [network.fc]


def test_looking_for_a_head_changes_nothing():
    network = Written(WAYS["linear"])
    layer, before = network.fc, torch.get_rng_state()
    assert anatomy_of(network, (32, 32)).head == "fc"
    assert network.fc is layer
    assert torch.equal(torch.get_rng_state(), before)


class Decoded(SmallNet):
    """What decodes its features runs after the head."""

    def __init__(self):
        super().__init__()
        self.decoder = nn.Linear(24, 7)  # as many numbers as logits

    def forward(self, x):
        x = self.pool(self.stage3(self.stage2(self.stage1(self.stem(x))))).flatten(1)
        return {"logits": self.fc(x), "decoded": self.decoder(x)}


def test_a_head_need_not_run_last():
    anatomy = anatomy_of(Decoded(), (32, 32))
    assert (anatomy.head, anatomy.features, anatomy.classes) == ("fc", 24, 7)


# ---- what cannot be replaced ----


def bare():
    model = Written(lambda s, y: y @ s.matrix + s.shift, nn.Identity())
    model.matrix, model.shift = nn.Parameter(torch.randn(24, 7)), nn.Parameter(torch.zeros(7))
    return model


def shared():
    """Weights that make features as well: new ones would change these."""
    square = nn.Linear(24, 24)
    return Written(lambda s, y: functional.linear(s.fc(y).relu(), s.fc.weight), square)


STUCK = {
    "bare": (bare, "'matrix'"),
    "shared": (shared, "'fc.weight'"),
    "scaled": (lambda: Written(lambda s, y: 3 * functional.linear(y, s.fc.weight)), "'fc.weight'"),
    "1x1": (
        lambda: Written(
            lambda s, y: functional.conv2d(maps_of(y), s.fc.weight, s.fc.bias).mean((2, 3)),
            nn.Conv2d(24, 7, 1),
        ),
        "conv2d with 'fc.weight'",
    ),
}


@pytest.mark.parametrize("kind", STUCK)
def test_heads_that_cannot_be_replaced_are_said(squares, kind):
    build, said = STUCK[kind]
    model = build()
    with pytest.warns(UserWarning, match=f"no head was found .*{said}.*behind the .*nn.Linear"):
        found = quick(model, squares, unfreeze="head")
    assert found.head == "head"


def test_class_names_say_that_numbers_are_logits(squares):
    model = Written(lambda s, y: (y[:, None] * s.fc.weight).sum(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert anatomy_of(model, (32, 32)).head is None  # features, for all one knows
    named = pyxai.Classifier(model, class_names=[*"abcdefg"])
    with pytest.warns(UserWarning, match="no head was found .*no linear layer comes last"):
        quick(named, squares, unfreeze="head")


def test_functions_that_make_features_are_no_doubt():
    """A body written with functions, and what ends in a norm."""
    maps = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 1))
    assert not anatomy_of(maps, (32, 32)).doubt
    body = Written(lambda s, y: s.norm(functional.linear(y, s.fc.weight)))
    body.norm = nn.LayerNorm(7)
    assert not anatomy_of(body, (32, 32)).doubt


def test_exported_programs(squares):
    example = (torch.rand(2, 3, 24, 24),)
    dynamic = ({0: torch.export.Dim("n", min=1, max=64)},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about itself
        program = torch.export.export(SmallNet().eval(), example, dynamic_shapes=dynamic).module()
        found = quick(program, squares, unfreeze="head")
    assert (found.head, found.classifier.network.fc.weight.shape) == ("fc", (3, 24))


# ---- novelty ----


@pytest.mark.parametrize("build", [lambda: Written(WAYS["matmul"]), bare], ids=["module", "bare"])
def test_scores_that_need_a_head_have_one(build):
    images = torch.rand(12, 3, 32, 32)
    clf = pyxai.Classifier(build().eval(), preprocessing=SQUARE)
    detector = pyxai.NoveltyDetector(clf, method="react").fit(images)
    assert detector.layer_ == "stage3"
    assert detector.score_samples(images).shape == (12,)


def test_the_head_of_a_function_scores_like_that_of_a_layer():
    twin, images = SmallNet().eval(), torch.rand(40, 3, 32, 32)
    model = Written(WAYS["einsum"]).eval()
    model.load_state_dict(twin.state_dict())
    for method in ("vim", "react", "ash"):
        one, other = (
            pyxai.NoveltyDetector(pyxai.Classifier(each, preprocessing=SQUARE), method=method)
            .fit(images)
            .score_samples(images)
            for each in (model, twin)
        )
        torch.testing.assert_close(
            torch.from_numpy(one), torch.from_numpy(other), rtol=1e-3, atol=1e-4
        )
