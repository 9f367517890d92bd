"""Habits that have no twin: what is explained of them is computed by hand."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pyxai
from networks.habits import CLASSES, SIZE, Mean, Net, SharedConv, SharedReLU, Vector, lively
from pyxai.attribution.cam import BlankMapWarning
from pyxai.classifier import anatomy


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 3, SIZE, SIZE, generator=generator)


def raw(model, images, target=None, **options):
    """The map as the method defines it, at the layer's resolution."""
    return pyxai.cam(model, images, target, size=None, normalize=None, relu=False, **options)


def weighted(features, gradients):
    """Grad-CAM by its formula."""
    return (gradients.mean((2, 3), keepdim=True) * features).sum(1)


# ---- the last run, and only it ----


def test_the_issue_as_it_was_filed(images):
    """fc(relu(c2(relu(c1(x)))).mean((2, 3))) with one relu, 8 then 16 channels."""
    model = lively(SharedReLU())
    features = model.body(images).detach()
    assert torch.allclose(
        raw(model, images, 2),
        torch.einsum("c,nchw->nhw", model.fc.weight[2].detach(), features),
        atol=1e-5,
    )
    classifier = pyxai.Classifier(model)
    assert classifier.last_spatial_layer(images) == "r1"
    assert torch.equal(classifier.activations(images, "r1")["r1"], features)
    first = classifier.activations(images, "r1#1")["r1#1"]
    assert torch.equal(first, F.relu(model.c1(images)).detach())
    with pytest.raises(ValueError, match=r"layer: .*got 'r1#9'.*r1#1"):
        classifier.activations(images, "r1#9")


def test_the_last_run_on_a_vector_says_which_runs_there_are(images):
    class OnVector(Vector):
        body = SharedReLU.body

        def head(self, x):
            return self.fc(self.r1(self.f1(self.flat(self.pool(x)))))

    model = lively(OnVector())
    assert pyxai.Classifier(model).last_spatial_layer(images) == "r1#3"
    with pytest.raises(ValueError, match=r"layer: .*its last run; the others are r1#1, r1#2, r1#3"):
        pyxai.cam(model, images, layer="r1")
    assert torch.equal(pyxai.cam(model, images, layer="r1#3"), pyxai.cam(model, images))


def test_fullgrad_counts_the_bias_of_each_run(images):
    model = lively(SharedConv())
    _, report = pyxai.cam(model, images, 1, method="fullgrad", return_report=True)
    logits = model(images)[:, 1].detach().abs().max()
    assert float(report["fullgrad"]["network"]["gap"].max()) < 1e-4 * float(logits)


class Refining(Net):
    """Its last block runs as often as an image of the batch asks for."""

    def __init__(self):
        super().__init__()
        self.refine = nn.Sequential(nn.Conv2d(24, 24, 3, 1, 1), nn.ReLU())

    def body(self, x):
        features = super().body(x)
        for _ in range(1 + int(x.mean() > 0)):
            features = self.refine(features)
        return features


def test_how_often_a_layer_runs_is_seen_anew(images):
    model = lively(Refining())
    dark, bright = images[:1] - 1, images[:1] + 1
    for order in ((dark, bright), (bright, dark)):
        fresh = copy.deepcopy(model)
        for image in order:
            features = fresh.body(image).detach()
            expected = torch.einsum("c,nchw->nhw", fresh.fc.weight[0].detach(), features)
            assert torch.allclose(raw(fresh, image, 0, method="cam"), expected, atol=1e-4)
            clf = pyxai.Classifier(fresh)
            assert torch.allclose(clf(image), fresh(image))


# ---- what was found out does not depend on history ----


def test_a_small_image_after_a_large_one(images):
    model = lively(Mean())
    small = F.interpolate(images, (4, 4))
    fresh = pyxai.cam(copy.deepcopy(model), small)
    pyxai.cam(model, F.interpolate(images, (64, 64)))
    assert torch.equal(pyxai.cam(model, small), fresh)
    assert pyxai.Classifier(model).last_spatial_layer(small) == "relu before c3"


@pytest.mark.parametrize("sizes", [(64, 8), (8, 64), (8, 64, 32, 8, 48), (32, 16, 8)])
def test_layers_of_sizes_in_any_order(images, sizes):
    """At 8 pixels the last layer has one position."""

    class Deep(Net):
        def __init__(self):
            super().__init__()
            self.c4, self.r4 = nn.Conv2d(24, 24, 3, 2, 1), nn.ReLU()

        def body(self, x):
            return self.r4(self.c4(super().body(x)))

    model = lively(Deep())
    for size in sizes:
        some = F.interpolate(images[:2], (size, size))
        expected = pyxai.cam(copy.deepcopy(model), some)
        assert torch.equal(pyxai.cam(model, some), expected), size
        assert float(expected.amax()) > 0


def test_a_head_for_other_classes(images):
    """What every fine-tuning does: the model was looked at before its head was exchanged."""
    model = lively(Net())
    pyxai.cam(model, images)
    model.fc = nn.Linear(24, 9)
    _, logits = pyxai.cam(model, images, return_logits=True)
    assert logits.shape == (4, 9)
    model.fc = nn.Sequential(nn.Linear(24, 12), nn.Tanh(), nn.Linear(12, 3))
    features = model.body(images).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model.head(features)[:, 1].sum(), features)
    assert torch.allclose(raw(model, images, 1), weighted(features, gradient).detach(), atol=1e-5)


def test_sharing_and_backgrounds_do_not_outlive_a_layer(images):
    model = lively(Net())
    photo = torch.randn(3, 48, 48)
    pyxai.sliding_window(model, photo, window=SIZE, stride=8, mode="shared")
    pyxai.shap_values(model, images[:1], images, samples=8)
    model.r2 = nn.Sequential(nn.Tanh())
    fresh = copy.deepcopy(model)
    for one in (model, fresh):
        one.found = pyxai.sliding_window(one, photo, window=SIZE, stride=8, mode="shared").logits
        one.values = pyxai.shap_values(one, images[:1], images, samples=8).values
    assert torch.equal(model.found, fresh.found)
    assert torch.equal(model.values, fresh.values)


# ---- the input is copied ----


def test_no_call_changes_the_users_images():
    class InPlace(Net):
        def forward(self, x):
            return super().forward(x.sub_(0.5).div_(0.25))

    class Plain(Net):
        def forward(self, x):
            return super().forward((x - 0.5) / 0.25)

    model, twin = lively(InPlace()), lively(Plain())
    images = torch.rand(2, 3, SIZE, SIZE)
    kept = images.clone()
    classifier = pyxai.Classifier(model)
    for first in (True, False):
        assert torch.equal(classifier(images), pyxai.Classifier(twin)(images)), first
        assert torch.equal(images, kept)
        maps, logits = pyxai.cam(model, images, return_logits=True)
        assert torch.equal(images, kept)
        assert torch.allclose(logits, twin(images), atol=1e-5)
        assert torch.allclose(maps, pyxai.cam(twin, images), atol=1e-5)
    assert torch.equal(pyxai.CamModel(model, example=images)(images)[1], maps)
    assert torch.equal(images, kept)


# ---- linear heads, against the evidence ----


class Branches(Net):
    """Bright images go to another head, which is not linear."""

    def __init__(self):
        super().__init__()
        self.other = nn.Sequential(nn.Linear(24, 12), nn.Tanh(), nn.Linear(12, CLASSES))

    def forward(self, x):
        vectors = self.body(x).mean((2, 3))
        bright = x.mean((1, 2, 3)) > 2  # no noise that the network is tried with is
        return torch.where(bright[:, None], self.other(vectors), self.fc(vectors))


def test_branches_are_told_apart_image_by_image(images):
    model = lively(Branches())
    mixed = images + torch.tensor([-1.0, 3, 3, -1])[:, None, None, None]
    together, report = raw(model, mixed, 1, return_report=True)
    alone = torch.cat([raw(model, mixed[row : row + 1], 1) for row in range(4)])
    assert torch.allclose(together, alone, atol=1e-5)
    dark, bright = [0, 3], [1, 2]
    (by_cam,) = report["cam"].values()
    assert by_cam["gap"][dark].max() < 1e-5
    assert bool(by_cam["gap"][bright].isnan().all())
    features = model.body(mixed).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model(mixed)[:, 1].sum(), features, allow_unused=True)
    assert gradient is None  # the features above are not those of this pass
    scores = model.other(features.mean((2, 3)))[:, 1]
    (gradient,) = torch.autograd.grad(scores.sum(), features)
    expected = weighted(features, gradient).detach()
    assert torch.allclose(together[bright], expected[bright], atol=1e-5)
    with pytest.raises(ValueError, match=r"method: .*logits of images \[1, 2\]"):
        raw(model, mixed, 1, method="cam")
    # In parts the images keep their numbers.
    with pytest.raises(ValueError, match=r"method: .*logits of images \[2\]"):
        raw(model, mixed[[0, 3, 1]], 1, method="cam", batch_size=2)


def test_a_mean_over_views_is_not_linear(images):
    class Views(Net):
        def forward(self, x):
            return (super().forward(x.flip(3)) + super().forward(x)) / 2

    model = lively(Views())
    with pytest.raises(ValueError, match="method: expected one that fits"):
        raw(model, images, 1, method="cam")
    features = model.body(images).detach()
    expected = torch.einsum("c,nchw->nhw", model.fc.weight[1].detach(), features) / (2 * 64)
    assert torch.allclose(raw(model, images, 1), expected, atol=1e-6)


# ---- layers that do not matter, maps without evidence ----


class SideDecoder(Net):
    """A decoder runs last, and the logits do not depend on it."""

    def __init__(self):
        super().__init__()
        self.decoder = nn.Sequential(nn.Conv2d(24, 24, 3, 1, 1), nn.ReLU(), nn.Conv2d(24, 3, 3))

    def forward(self, x):
        features = self.body(x)
        return self.head(features), self.decoder(features)


@pytest.mark.parametrize("method", ["eigencam", "fem", "scorecam", "ablationcam", "gradcam"])
def test_a_decoder_is_not_explained(images, method):
    model = lively(SideDecoder())
    twin = lively(Net())
    twin.load_state_dict(model.state_dict(), strict=False)
    found = pyxai.cam(model, images, method=method)
    assert torch.allclose(found, pyxai.cam(twin, images, method=method), atol=1e-5)
    assert pyxai.Classifier(model).last_spatial_layer(images) == "r3"


class Detector(Net):
    """Scores come from the middle; what runs last are the boxes."""

    def __init__(self):
        super().__init__()
        self.cells, self.boxes = nn.Conv2d(16, CLASSES, 1), nn.Conv2d(24, 4, 1)

    def forward(self, x):
        x = self.r2(self.c2(self.r1(self.c1(x))))
        return {"scores": self.cells(x), "boxes": self.boxes(self.r3(self.c3(x)))}


def test_a_target_function_says_which_layer_matters(images):
    model = lively(Detector())

    def score(outputs):
        return outputs["scores"][:, 1].mean((1, 2))

    cells = model(images)["scores"].detach()
    assert torch.allclose(raw(model, images, score), cells[:, 1] / 256, atol=1e-6)
    features = model.r2(model.c2(model.r1(model.c1(images)))).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model.cells(features)[:, 1].mean((1, 2)).sum(), features)
    expected = weighted(features, gradient).detach()
    assert torch.allclose(raw(model, images, score, layer="r2"), expected, atol=1e-6)
    with pytest.raises(ValueError, match="layer: expected one that the scores depend on"):
        raw(model, images, score, layer="boxes")


def test_no_gradient_anywhere_is_an_error(images):
    class Dead(Vector):
        def head(self, x):
            logits = super().head(x)
            return torch.cat([logits[:, :1], F.relu(logits[:, 1:2] - 1e4), logits[:, 2:]], 1)

    model = lively(Dead())
    with pytest.raises(ValueError, match=r"gradient is 0 everywhere for images \[0, 1, 2, 3\]"):
        pyxai.cam(model, images, 1, method="gradcam")


def test_a_map_without_variation_is_said(images):
    model = lively(Net())
    nn.init.zeros_(model.fc.weight)
    with pytest.warns(BlankMapWarning, match=r"images \[0, 1, 2, 3\] show nothing"):
        maps, report = pyxai.cam(model, images, 1, return_report=True)
    assert float(maps.abs().max()) == 0
    ((said,),) = (each.values() for each in report.values())
    assert bool(said["blank"].all())
    # One that a ReLU makes blank is in the report alone: nothing speaks for the class.
    model = lively(Net())
    with torch.no_grad():
        model.fc.weight[1] = -model.fc.weight[1].abs()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, report = pyxai.cam(model, images, 1, method="gradcam", return_report=True)
    assert bool(report["gradcam"]["r3"]["blank"].all())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "method", ["auto", "fullgrad", "eigencam", "eigengradcam", "kpcacam", "scorecam", "layercam"]
)
def test_images_that_are_not_finite_are_named(images, value, method):
    images[2, 1, 5, 5] = value
    for kind in (Net, Vector):
        with pytest.raises(ValueError, match=r"finite .*for images \[2\]"):
            pyxai.cam(lively(kind()), images, 1, method=method)
    with pytest.raises(ValueError, match=r"finite .*for images \[2\]"):
        pyxai.cam(lively(Net()), images, 1, method=method, batch_size=1)


# ---- under no_grad, and in inference mode ----


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_body_without_gradients(images, mode):
    class Frozen(Vector):
        def forward(self, x):
            with mode():
                features = self.body(x)
            return self.head(features.clone())

    model = lively(Frozen())
    features = model.body(images).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model.head(features)[:, 2].sum(), features)
    expected = weighted(features, gradient).detach()
    assert torch.allclose(raw(model, images, 2, method="gradcam"), expected, atol=1e-5)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_a_name_for_what_is_pooled(images):
    """Functions have names that say what they are, and can be given back."""
    model = lively(Mean())
    clf = pyxai.Classifier(model)
    name = clf.last_spatial_layer(images)
    assert name == "relu before mean"
    assert torch.equal(pyxai.cam(model, images, layer=name), pyxai.cam(model, images))
    names = [each.point.name for each in anatomy.examine(clf, images).outputs]
    assert "relu before c2" in names
    with pytest.raises(ValueError, match=r"layer: .*got 'relu before pool'.*'relu before mean'"):
        pyxai.cam(model, images, layer="relu before pool")


class AttentionPooling(Net):
    """Means of the features, weighted by a softmax over positions."""

    def __init__(self, heads):
        super().__init__()
        self.score, self.fc = nn.Conv2d(24, heads, 1), nn.Linear(24 * heads, 4)

    def forward(self, x):
        features = self.body(x)
        weights = self.score(features).flatten(2).softmax(-1)
        return self.fc(torch.bmm(features.flatten(2), weights.transpose(1, 2)).flatten(1))


class Gate(Net):
    def __init__(self):
        super().__init__()
        self.score = nn.Conv2d(24, 1, 1)

    def forward(self, x):
        features = self.body(x)
        return self.fc(torch.einsum("nchw,nohw->nc", features, self.score(features).sigmoid()))


@pytest.mark.parametrize("make", [lambda: AttentionPooling(1), lambda: AttentionPooling(3), Gate])
def test_weights_of_positions_are_not_what_is_explained(make):
    net = lively(make())
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert pyxai.Classifier(net).last_spatial_layer(images) == "r3"
    found = pyxai.cam(net, images, 1, size=None, normalize=None)
    features = net.body(images).detach().requires_grad_()
    net.body = lambda x: features
    (gradient,) = torch.autograd.grad(net(images)[:, 1].sum(), features)
    expected = (gradient.mean((2, 3), keepdim=True) * features).sum(1).relu().detach()
    assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()))


class Experts(Net):
    """Each image goes through one of two branches."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 24, 3, 2, 1), nn.ReLU()) for _ in range(2)
        )

    def forward(self, x):
        chosen, x = x.mean((1, 2, 3)) > 0, self.r1(self.c1(x))
        out = x.new_zeros(len(x), 4)
        for number, expert in enumerate(self.experts):
            rows = (chosen == bool(number)).nonzero()[:, 0]
            if len(rows):
                out[rows] = self.fc(expert(x[rows]).mean((2, 3)))
        return out


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_default_layer_does_not_depend_on_what_was_asked_before(order):
    net = lively(Experts())
    dark = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)) - 1
    for number in order:
        _, report = pyxai.cam(net, dark + 2 * number, 1, return_report=True)
        assert list(report["cam"]) == [f"experts.{number}"]
    with pytest.raises(ValueError, match="which ran on 1 for 2"):
        pyxai.cam(net, torch.cat([dark, dark + 2]), 1)


def test_outputs_beside_much_larger_ones_are_not_taken_for_linear():
    net = lively(Net())
    plain, images = net.head, torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    net.head = lambda x: torch.cat([3e4 * plain(x), (20 * plain(x)).sin()], dim=1)
    found = pyxai.cam(net, images, 5, method="gradcam", size=None, normalize=None)
    expected = pyxai.cam(net, images, lambda outputs: outputs[:, 5], size=None, normalize=None)
    assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_positions_that_count_differently_are_no_average(dtype):
    net = lively(Net())
    weights = torch.rand(64, generator=torch.Generator().manual_seed(1)) + 0.5
    net.head = lambda x: net.fc(x.flatten(2) @ (weights / weights.sum()).to(x))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    _, report = pyxai.cam(net.to(dtype), images.to(dtype), 1, return_report=True)
    assert list(report) == ["gradcam"]


def test_weights_that_change_without_a_trace():
    """A measured head is looked for anew once it explains nothing."""
    net = lively(Net())
    net.scale = 1.0
    net.head = lambda x: torch.nn.functional.linear(x.mean((2, 3)), net.fc.weight) * net.scale
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    before = pyxai.cam(net, images, 1, method="cam", size=None, normalize=None)
    net.scale = 3.0
    after = pyxai.cam(net, images, 1, method="cam", size=None, normalize=None)
    assert torch.allclose(after, 3 * before, atol=1e-5)
    net.scale = 1.0
    net.fc.weight.data.mul_(2)
    after = pyxai.cam(net, images, 1, method="cam", size=None, normalize=None)
    assert torch.allclose(after, 2 * before, atol=1e-5)


def test_the_closest_weights_are_the_head():
    net = lively(Net())
    net.average = nn.Linear(24, 4)
    net.average.load_state_dict(net.fc.state_dict())
    with torch.no_grad():
        net.average.weight.mul_(1.001)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    _, report = pyxai.cam(net, images, 1, method="cam", return_report=True)
    assert float(report["cam"]["r3"]["gap"].max()) < 1e-5
