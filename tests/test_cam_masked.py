"""Methods that change something and look again: the Score-CAM family and Ablation-CAM."""

from __future__ import annotations

import copy

import pytest
import torch
from networks import SmallNet, SmallViT, full_pass, random_net
from torch import nn
from torch.nn import functional

import pyxai
from pyxai.attribution.cam.evidence import gather
from pyxai.attribution.cam.methods import METHODS, cam_method
from pyxai.classifier import Examined, as_classifier


@pytest.fixture(autouse=True)
def _one_thread(threads):
    threads(1)


def explain(model, images, target, method, **arguments):
    arguments = {"size": None, "normalize": None, "relu": False, **arguments}
    return pyxai.cam(model, images, target, method=method, **arguments)


def weights_of(model, images, target, name, layer="stage3", **options):
    """The weights of the channels, before they meet the features."""
    (evidence,) = gather(Examined(as_classifier(model), images), target, layers=[layer])
    with torch.no_grad():
        return METHODS[name].compute(evidence, **options)[:, 0]


def close(found, expected, share=1e-4):
    assert found.shape == expected.shape
    difference = (found.double() - expected.double()).abs().max().item()
    assert difference <= share * expected.abs().max().item(), difference


# ---- the formulas, in float64 ----


def scored(model, images, target, layer, variants):
    """Weights and maps of the Score-CAM family.

    `variants` takes a mask [H, W] and its channel and gives the masks whose mean score counts.
    """
    features, _ = full_pass(model, images, lambda o: o[:, target], layer)
    model = copy.deepcopy(model).double().eval()
    weights = torch.zeros(features.shape[:2]).double()
    for n, image in enumerate(images.double()):
        for c, channel in enumerate(features[n]):
            span = channel.max() - channel.min()
            mask = (channel - channel.min()) / span if span > 0 else torch.zeros_like(channel)
            size = image.shape[-2:]
            mask = functional.interpolate(mask[None, None], size, mode="bilinear")[0, 0]
            masks = torch.stack(variants(mask, c))
            with torch.no_grad():
                weights[n, c] = model(image * masks[:, None])[:, target].mean()
    weights = weights.softmax(1)
    return weights, (weights[..., None, None] * features).sum(1)


def noisy(samples, std, seed):
    def variants(mask, channel):
        stream = torch.Generator().manual_seed((seed << 32) + channel)  # one for each channel
        return [mask + std * torch.randn(mask.shape, generator=stream) for _ in range(samples)]

    return variants


SCORED = {
    "scorecam": ({}, lambda mask, channel: [mask]),
    "sscam": ({"samples": 3, "std": 0.5, "seed": 4}, noisy(3, 0.5, 4)),
    "iscam": ({"samples": 4}, lambda mask, channel: [mask * i / 4 for i in (1, 2, 3, 4)]),
}


@pytest.mark.parametrize("name", list(SCORED))
@pytest.mark.parametrize(("head", "layer"), [("linear", "stage3"), ("norm", "stage2")])
def test_the_score_family_equals_its_formulas(name, head, layer):
    model, images = random_net(head), torch.randn(2, 3, 32, 40)
    options, variants = SCORED[name]
    weights, maps = scored(model, images, 3, layer, variants)
    assert weights.max() > 1.1 * weights.min()  # or every map would be the mean of the features
    close(weights_of(model, images, 3, name, layer, **options), weights)
    close(explain(model, images, 3, cam_method(name, **options), layer=layer), maps)


def ablated(model, images, target, layer):
    """Ablation-CAM with whole forward passes."""
    features, _ = full_pass(model, images, lambda o: o[:, target], layer)
    model = copy.deepcopy(model).double().eval()
    weights = torch.zeros(features.shape[:2]).double()
    with torch.no_grad():
        scores = model(images.double())[:, target]
        for channel in range(features.shape[1]):

            def without(module, arguments, output, channel=channel):
                output = output.clone()
                output[:, channel] = 0
                return output

            hook = model.get_submodule(layer).register_forward_hook(without)
            weights[:, channel] = (scores - model(images.double())[:, target]) / scores.abs()
            hook.remove()
    return weights, (weights[..., None, None] * features).sum(1), scores


@pytest.mark.parametrize("head", ["linear", "mlp", "norm"])
@pytest.mark.parametrize("layer", ["stage3", "stage2", "stage2.bn2"])
def test_ablationcam_equals_whole_forward_passes(head, layer):
    model, images = random_net(head), torch.randn(2, 3, 32, 40)
    signs = set()
    for target in range(7):
        weights, maps, scores = ablated(model, images, target, layer)
        signs |= set(scores.sign().tolist())
        if scores.abs().min() > 0.5:  # else the division makes rounding visible
            close(weights_of(model, images, target, "ablationcam", layer), weights)
            close(explain(model, images, target, "ablationcam", layer=layer), maps)
    assert signs == {1.0, -1.0}  # a negative score must not turn the map around


def test_ablationcam_of_a_score_of_zero():
    """What the drops are divided by is the same for all channels, and a picture has no unit."""
    model, images = random_net("mlp"), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        offset = model(images)[0, 2]

    def score(output):
        return 1000 * (output[:, 2] - offset)

    def shifted(output):
        return 1000 * (output[:, 2] + 100)

    found = pyxai.cam(model, images, score, method="ablationcam")
    expected = pyxai.cam(model, images, shifted, method="ablationcam")
    assert torch.isfinite(found).all()
    assert torch.allclose(found, expected, atol=1e-3)


# ---- what they run ----


def watched(model):
    """The number of images in each pass through the stem."""
    seen = []
    model.stem.register_forward_hook(lambda module, arguments, output: seen.append(len(output)))
    return seen


@pytest.mark.parametrize("head", ["mlp", "norm"])
def test_ablationcam_runs_the_body_on_no_images(head):
    model, images = random_net(head), torch.randn(3, 3, 32, 32)
    explain(model, images, 0, "ablationcam")
    seen = watched(model)
    explain(model, images, [[0, 1, 2]], "ablationcam")
    assert seen[0] == 3
    assert len(seen) > 1
    assert set(seen[1:]) == {0}


class Strict(SmallNet):
    """Rejects empty batches, as networks do that reshape with -1."""

    def forward(self, x):
        return super().forward(x.reshape(len(x), -1).reshape(len(x), *x.shape[1:]))


class Skip(SmallNet):
    """Carries features of stage 1 around stage 3 to the head."""

    def forward(self, x):
        early = self.stage1(self.stem(x))
        late = self.pool(self.stage3(self.stage2(early))).flatten(1)
        early = self.pool(early).flatten(1)
        return self.fc(late + functional.pad(early, (0, 12)))


class Joined(Skip):
    """The same with a concatenation."""

    def forward(self, x):
        early = self.stage1(self.stem(x))
        late = self.pool(self.stage3(self.stage2(early))).flatten(1)
        return self.fc(torch.cat([self.pool(early).flatten(1), late[:, 12:]], dim=1))


class AddsItsSize(SmallNet):
    """Uses the number of images that came in."""

    def forward(self, x):
        images = x.shape[0]
        x = self.stage3(self.stage2(self.stage1(self.stem(x))))
        return self.fc(self.pool(x).view(images, 24))


@pytest.mark.parametrize("kind", [Strict, Skip, Joined, AddsItsSize])
@pytest.mark.parametrize("channels_at_once", [None, 1])
def test_ablationcam_of_networks_that_need_their_images(kind, channels_at_once, monkeypatch):
    other = random_net("mlp")
    model = kind(head="mlp").eval()
    model.load_state_dict(other.state_dict())
    images = torch.randn(2, 3, 32, 32)
    weights, maps, scores = ablated(model, images, 4, "stage3")
    assert scores.abs().min() > 0.5
    if channels_at_once:
        pixels = {"cpu": 32 * 32 // 4, "other": 32 * 32 // 4}
        monkeypatch.setattr("pyxai.classifier.batches._PIXELS_AT_ONCE", pixels)
    seen = watched(model)
    close(weights_of(model, images, 4, "ablationcam"), weights)
    close(explain(model, images, 4, "ablationcam"), maps)
    assert max(seen) >= 2


def test_ablationcam_in_a_residual_branch_runs_the_body_on_one_image():
    """A shortcut bypasses the norm that is explained in a transformer."""
    model = SmallViT().eval()
    images = torch.randn(2, 3, 32, 32)
    layer = pyxai.Classifier(model).last_spatial_layer(images)
    explain(model, images, 1, "ablationcam", layer=layer)  # the first call looks at the network
    seen = []
    patches = next(each for each in model.modules() if isinstance(each, nn.Conv2d))
    handle = patches.register_forward_hook(lambda m, i, o: seen.append(len(i[0])))
    found = explain(model, images, 1, "ablationcam", layer=layer, relu=False)
    handle.remove()
    assert seen[0] == 2
    assert set(seen[1:]) == {0, 1}
    raw = pyxai.Classifier(model).activations(images, layer)[layer]
    prefix = raw.shape[1] - found.shape[1] * found.shape[2]
    with torch.no_grad():
        scores = model(images)[:, 1]
    expected = torch.zeros_like(found)
    for channel in range(raw.shape[2]):

        def ablate(module, inputs, output, channel=channel):
            output = output.clone()
            output[:, prefix:, channel] = 0
            return output

        handle = model.get_submodule(layer).register_forward_hook(ablate)
        with torch.no_grad():
            drop = (scores - model(images)[:, 1]) / scores.abs()
        handle.remove()
        features = raw[:, prefix:, channel].reshape(found.shape)
        expected += drop[:, None, None] * features
    close(found, expected)


def test_the_score_family_holds_few_masked_images(monkeypatch):
    model, images = random_net("linear"), torch.randn(3, 3, 32, 32)
    methods = [cam_method(name, **options) for name, (options, _) in SCORED.items()]
    methods.append(cam_method("scorecam", channels=6))
    expected = explain(model, images, [[3, 4]], methods)
    pixels = {"cpu": 5 * 32 * 32, "other": 5 * 32 * 32}
    monkeypatch.setattr("pyxai.classifier.batches._PIXELS_AT_ONCE", pixels)
    seen = watched(model)
    found = explain(model, images, [[3, 4]], methods)
    assert max(seen) == 5
    # 24 channels, 3 and 4 times for the noise and the steps, 6 + 16 with the screening; one pass.
    assert sum(seen) == 3 * (1 + 24 + 3 * 24 + 4 * 24 + 22)
    for label, maps in expected.items():
        close(found[label], maps)


# ---- screening: channels=n ----


def screened(model, images, channels, target=3):
    method = cam_method("scorecam", channels=channels)
    maps, report = explain(model, images, target, method, return_report=True)
    return maps, report[f"scorecam(channels={channels})"]["stage3"]["screening_error"]


def test_screening_scores_the_strongest_channels_and_a_sample():
    model, images = random_net("linear"), torch.randn(1, 3, 32, 32)
    features, _ = full_pass(model, images, lambda o: o[:, 3], "stage3")
    every = weights_of(model, images, 3, "scorecam")[0]
    few = weights_of(model, images, 3, "scorecam", channels=6)[0]
    strongest = features[0].sum((1, 2)).argsort(descending=True)
    ratio = few / every  # the same for all that were scored, as softmax divides by one sum
    same = (ratio / ratio[strongest[0]] - 1).abs() < 1e-4
    assert same[strongest[:6]].all()
    assert same.sum() == 6 + 16
    guessed = few[~same]
    assert torch.allclose(guessed, guessed[:1].expand_as(guessed))


@pytest.mark.parametrize("channels", [24, 100])
def test_screening_nothing_costs_nothing(channels):
    model, images = random_net("linear"), torch.randn(2, 3, 32, 32)
    maps, error = screened(model, images, channels)
    assert error.shape == (2, 1)
    assert torch.count_nonzero(error) == 0
    assert torch.equal(maps, explain(model, images, 3, "scorecam"))


def wide_net(channels=72):
    """Enough channels that most of them are guessed."""
    model = random_net("linear")
    model.stage3 = nn.Sequential(nn.Conv2d(16, channels, 3, 2, 1), nn.ReLU())
    model.fc = nn.Linear(channels, 7)
    nn.init.normal_(model.fc.weight, std=8)
    return model


@pytest.mark.parametrize("channels", [1, 6, 20])
def test_screening_states_its_error(channels):
    ratios = []
    for seed in range(6):
        torch.manual_seed(seed)
        model, images = wide_net(), torch.randn(2, 3, 32, 32)
        maps, stated = screened(model, images, channels)
        assert stated.shape == (2, 1)
        assert torch.isfinite(stated).all()
        assert (stated > 0).all()
        exact = explain(model, images, 3, "scorecam")
        span = exact.amax((1, 2)) - exact.amin((1, 2))
        ratios.append((maps - exact).abs().amax((1, 2)) / span / stated[:, 0])
    ratios = torch.cat(ratios)
    assert ratios.max() < 4
    assert ratios.median() > 0.05  # stated errors are not just large


def test_the_error_is_in_the_report_only_where_there_was_a_screening():
    model, images = random_net("linear"), torch.randn(3, 3, 32, 32)
    methods = ["scorecam", *(cam_method(n, samples=1, channels=2) for n in ("sscam", "iscam"))]
    _, report = pyxai.cam(model, images, [[1, 2]], method=methods, return_report=True, batch_size=2)
    assert report["scorecam"]["stage3"] == {}
    for name in ("sscam", "iscam"):
        error = report[f"{name}(samples=1, channels=2)"]["stage3"]["screening_error"]
        assert error.shape == (3, 2)
        assert torch.isfinite(error).all()
