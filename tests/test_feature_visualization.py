"""Feature visualisation: what it makes, and what it promises whoever lends it a model."""

from __future__ import annotations

import copy

import pytest
import torch
from in_threads import in_threads
from networks import SmallViT, random_net
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import pyxai
from pyxai.feature_visualization import caricatures
from pyxai.images import Preprocessing

SMALL = {"size": 20, "steps": 12, "learning_rate": 0.3}


@pytest.fixture(autouse=True)
def _one_thread(threads):
    """Small networks are faster so, above all on busy cores."""
    threads(1)


@pytest.fixture
def net():
    return random_net()


def made(net, layer, channels, **settings):
    found = pyxai.visualize_features(net, layer, channels, **SMALL | settings)
    return found.pictures, found


def mean_response(report):
    """First and last response of each picture."""
    return report.responses[0], report.responses[-1]


# ---- what is optimised ----


@pytest.mark.parametrize("layer", ["stem.1", "stage1.bn2", "stage2.bn2", "stage3.bn2"])
def test_responses_of_channels_rise(net, layer):
    pictures, report = made(net, layer, [0, 3, 5], steps=25)
    first, last = mean_response(report)
    assert pictures.shape == (3, 3, 20, 20)
    assert pictures.dtype == torch.float32
    assert 0 <= float(pictures.min()) <= float(pictures.max()) <= 1
    assert bool((last > first).all())
    assert report.units == ("channel 0", "channel 3", "channel 5")
    assert not report.dead.any()


def test_responses_are_those_of_the_pictures(net):
    """Without movements, the last response is that of the picture before the last step."""
    settings = {"robustness": 0.0, "steps": 8, "learning_rate": 1e-6}
    pictures, report = made(net, "stage2.bn2", [1, 4], **settings)
    inputs = (pictures - _MEAN) / _STD
    features = pyxai.Classifier(net).activations(inputs, "stage2.bn2")["stage2.bn2"]
    expected = features[[0, 1], [1, 4]].mean(dim=(1, 2))
    torch.testing.assert_close(report.responses[-1], expected, atol=1e-3, rtol=1e-3)
    assert report.view == report.network_size == 20
    assert report.positions == (5, 5)


_MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
_STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def test_classes_by_index_and_name(net):
    classifier = pyxai.Classifier(net, class_names=[*"abcdefg"])
    by_name, report = made(classifier, None, ["c", "f"])
    by_index, _ = made(classifier, None, [2, 5])
    assert torch.equal(by_name, by_index)
    assert report.units == ("c", "f")
    first, last = mean_response(report)
    assert bool((last > first).all())


def test_a_direction_along_an_axis_is_its_channel(net):
    direction = torch.zeros(1, 16)
    direction[0, 3] = 7.0
    _, along = made(net, "stage2.bn2", direction, robustness=0.0, steps=1)
    _, channel = made(net, "stage2.bn2", 3, robustness=0.0, steps=1)
    # Only the random numbers differ; those are of a hundredth.
    torch.testing.assert_close(along.responses, channel.responses, atol=0.05, rtol=0.05)
    mixed, report = made(net, "stage2.bn2", torch.randn(2, 16), robustness=0.0)
    assert mixed.shape == (2, 3, 20, 20)
    first, last = mean_response(report)
    assert bool((last > first).all())


def test_a_neuron_is_one_position(net):
    """Far from the neuron, the picture does not change for it."""
    pictures, report = made(
        net, "stem", [0], neuron=(2, 2), robustness=0.0, decay=0.0, steps=5, learning_rate=1.0
    )
    assert report.positions == (20, 20)
    flat = (pictures - 0.5).abs().sum(1)[0]
    assert float(flat[:4, :4].mean()) > float(flat[10:, 10:].mean())
    first, last = mean_response(report)
    assert last > first
    center, _ = made(net, "stem", [0], neuron="center")
    same, _ = made(net, "stem", [0], neuron=(11, 11))  # of 22 positions: 20 pixels and a border
    assert torch.equal(center, same)


def test_a_layer_as_a_whole(net):
    pictures, report = made(net, "stage2", None, robustness=0.0, steps=25)
    assert pictures.shape == (1, 3, 20, 20)
    first, last = mean_response(report)
    assert last > 1.5 * first


def test_negative_lowers(net):
    _, report = made(net, "stage2.bn2", [0, 1], negative=True, steps=25)
    first, last = mean_response(report)
    assert bool((last < first).all())


def test_variants_have_an_axis_and_diversity_parts_them(net):
    alike, report = made(net, "stage3", [0, 1], variants=3, diversity=0.0, steps=25)
    apart, _ = made(net, "stage3", [0, 1], variants=3, diversity=5.0, steps=25)
    assert alike.shape == apart.shape == (2, 3, 3, 20, 20)
    assert report.responses.shape == (25, 2, 3)
    assert _likeness(net, apart) < _likeness(net, alike)
    single, _ = made(net, "stage3", [0, 1], steps=25)
    torch.testing.assert_close(alike[:, 0], single, atol=1e-3, rtol=1e-3)


def _likeness(net, pictures):
    from pyxai.feature_visualization.feature_optimization import likeness

    inputs = (pictures.flatten(0, 1) - _MEAN) / _STD
    features = pyxai.Classifier(net).activations(inputs, "stage3")["stage3"]
    return float(likeness(features, pictures.shape[1]).mean())


def test_caricatures_come_near_their_photo(net):
    photos = torch.randn(2, 3, 40, 40)
    report = caricatures(net, photos, "stage2", **SMALL | {"steps": 40})
    pictures = report.pictures
    assert pictures.shape == (2, 3, 20, 20)
    first, last = mean_response(report)
    assert bool((last > first).all())
    other = caricatures(net, photos.flip(0), "stage2", **SMALL | {"steps": 40})
    torch.testing.assert_close(other.pictures.flip(0), pictures, atol=1e-3, rtol=1e-3)


# ---- independence ----


def test_each_picture_is_the_same_whatever_is_made_with_it(net):
    together, _ = made(net, "stage2.bn2", [5, 0, 9, 2, 7])
    for place, channel in ((0, 5), (3, 2)):
        alone, _ = made(net, "stage2.bn2", [channel])
        torch.testing.assert_close(together[place], alone[0], atol=1e-3, rtol=1e-3)
    chunks, _ = made(net, "stage2.bn2", [5, 0, 9, 2, 7], batch_size=2)
    torch.testing.assert_close(chunks, together, atol=1e-3, rtol=1e-3)
    turned, _ = made(net, "stage2.bn2", [7, 2, 9, 0, 5])
    torch.testing.assert_close(turned.flip(0), together, atol=1e-3, rtol=1e-3)


def test_what_else_is_in_a_batch_does_not_change_a_bit(net):
    some, _ = made(net, "stage2.bn2", [5, 0, 9])
    other, _ = made(net, "stage2.bn2", [5, 2, 7])
    assert torch.equal(some[0], other[0])


def test_on_each_device(device):
    net = random_net().to(device)
    pictures, report = made(net, "stage2.bn2", [0, 1], robustness=0.0)
    assert pictures.device.type == device.type
    first, last = mean_response(report)
    assert bool((last > first).all())
    directions = torch.eye(16)[:2]
    assert made(net, "stage2.bn2", directions, variants=2)[0].shape == (2, 2, 3, 20, 20)
    drawn = caricatures(net, torch.randn(1, 3, 32, 32), "stage2", **SMALL)
    assert drawn.pictures.device.type == device.type


def test_pictures_have_random_numbers_of_their_own(net):
    """The same channel by two keys."""
    direction = torch.zeros(2, 16)
    direction[:, 3] = 1.0
    direction[1, 4] = 1e-3
    pictures, _ = made(net, "stage2", direction, steps=1)
    assert not torch.equal(pictures[0], pictures[1])


def test_the_seed_decides_and_nothing_else(net):
    state = torch.random.get_rng_state()
    first, _ = made(net, "stage2.bn2", [1])
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(99)
    second, _ = made(net, "stage2.bn2", [1])
    other, _ = made(net, "stage2.bn2", [1], seed=1)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


# ---- sizes ----


class Fixed(nn.Module):
    """A network of one input size."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, 2, 1)
        self.head = nn.Linear(6 * 16 * 16, 4)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).flatten(1))


def test_networks_of_32_pixels(net):
    classifier = pyxai.Classifier(net, preprocessing=Preprocessing(resize=32, crop=32))
    pictures, report = made(classifier, None, [0, 1], size=32)
    assert pictures.shape[2:] == (32, 32)
    assert report.network_size == report.view == 34


def test_a_network_of_one_size_sees_small_pictures_enlarged():
    model = Fixed().eval()
    classifier = pyxai.Classifier(model, preprocessing=Preprocessing(resize=32, crop=32))
    pictures, report = made(classifier, None, [0, 1], size=16)
    assert pictures.shape[2:] == (16, 16)
    assert (report.network_size, report.view) == (32, 18)
    _, report = made(classifier, "conv", [0, 1], size=16)  # as far as here any size will do
    assert report.network_size == 18
    with pytest.raises(ValueError, match=r"^size: expected at most 32, .* got 64"):
        made(classifier, None, [0], size=64)
    with pytest.raises(ValueError, match=r"^network_size: expected a size .* does not run on 20"):
        made(classifier, None, [0], network_size=20)
    with pytest.raises(ValueError, match=r"^size: expected a size .* does not run on 22.* 224"):
        made(model, None, [0])


def test_network_size_resamples(net):
    _, report = made(net, "stage2.bn2", [0], network_size=48)
    assert report.positions == (12, 12)


def test_vision_transformers():
    model = SmallViT().eval()
    pictures, report = made(model, "blocks.1", [0, 3], size=32, robustness=0.0)
    assert pictures.shape == (2, 3, 32, 32)
    assert report.positions == (4, 4)
    first, last = mean_response(report)
    assert bool((last > first).all())


def test_accelerated_networks(net):
    fast = pyxai.accelerate(net, probe=torch.randn(2, 3, 32, 32))
    plain, _ = made(net, "stage2.bn2", [1, 3], steps=4)
    quick, _ = made(fast, "stage2.bn2", [1, 3], steps=4)
    torch.testing.assert_close(quick, plain, atol=2e-2, rtol=0)
    half = pyxai.accelerate(net, dtype=torch.bfloat16, probe=torch.randn(2, 3, 32, 32))
    _, report = made(half, "stage2.bn2", [1, 3], steps=25, robustness=0.0)
    first, last = mean_response(report)
    assert bool((last > first).all())


# ---- the borrowed model ----


def test_nothing_about_the_model_changes(net):
    net.train()
    net.fc.weight.requires_grad_(False)
    state = copy.deepcopy(net.state_dict())
    made(net, "stage2.bn2", [0])
    with pytest.raises(ValueError, match="channels"):
        made(net, "stage2.bn2", [99])
    assert all(module.training for module in net.modules())
    assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not net.fc.weight.requires_grad
    assert net.stem[0].weight.requires_grad
    assert not any(module._forward_hooks for module in net.modules())
    assert torch.is_grad_enabled()


def test_works_where_gradients_are_off(net):
    expected, _ = made(net, "stage2.bn2", [0])
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            found, _ = made(net, "stage2.bn2", [0])
        assert torch.equal(found, expected)


class _Watching(TorchDispatchMode):
    """Counts the convolutions and what their gradients were asked for."""

    def __init__(self):
        super().__init__()
        self.forward, self.masks = 0, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.forward += func is torch.ops.aten.convolution.default
        if func is torch.ops.aten.convolution_backward.default:
            self.masks.append(list(args[-1]))
        return func(*args, **(kwargs or {}))


def test_the_pass_ends_at_the_layer_and_weights_get_no_gradient(net):
    made(net, "stage1", [6], steps=1)  # finds out about the network
    with _Watching() as watching:
        made(net, "stage1", [6], steps=3)
    # Stem and stage1 are four convolutions: looked at in the usual size and this one, three steps.
    assert watching.forward == 4 * (2 + 3)
    assert watching.masks
    assert all(mask == [True, False, False] for mask in watching.masks)


def test_threads_do_not_see_each_other(net):
    expected = [made(net, "stage2.bn2", [channel])[0] for channel in range(4)]
    found = [None] * 4

    def work(channel):
        torch.set_num_threads(1)
        found[channel] = made(net, "stage2.bn2", [channel])[0]

    in_threads(work, 4)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


# ---- dead units ----


def half_dead(bias):
    """Channel 0 is shut by its bias, channel 1 is not."""
    model = nn.Sequential(
        nn.Conv2d(3, 2, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(2, 2),
    ).eval()  # fmt: skip
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor([bias, 0.0]))
    return model


def test_a_shut_unit_opens():
    _, report = made(half_dead(-1.0), "1", [0, 1], steps=40, learning_rate=0.2)
    assert float(report.responses[0, 0]) == 0
    assert float(report.responses[-1, 0]) > 0
    assert not report.dead.any()


def test_a_unit_that_nothing_excites_is_reported():
    model = half_dead(0.0)
    nn.init.zeros_(model[0].weight.data[0])
    with pytest.warns(UserWarning, match=r"1 of 2 units of layer '1' responded to .*: channel 0"):
        pictures, report = made(model, "1", [0, 1])
    assert report.dead.tolist() == [True, False]
    assert bool(torch.isfinite(pictures).all())


# ---- bad input ----


@pytest.mark.parametrize(
    ("layer", "channels", "settings", "message"),
    [
        ("stage9", [0], {}, r"^layer: expected the name of a submodule.*'stage9'; closest: 'stage"),
        (3, [0], {}, r"^layer: expected the name of a layer, got 3"),
        ("stage2", [16], {}, r"^channels: expected indices from 0 to 15, .*'stage2', got 16"),
        ("stage2", [-1], {}, r"^channels: expected indices from 0 to 15, .* got -1"),
        ("stage2", ["a"], {}, r"^channels: expected indices of .*'a'; for a class, pass layer="),
        ("stage2", [], {}, r"^channels: expected at least one, got"),
        ("stage2", [0.5], {}, r"^channels: expected indices, class names"),
        ("stage2", {}, {}, r"^channels: expected at least one"),
        ("stage2", torch.rand(2, 5), {}, r"^channels: expected directions \[n, 16\]"),
        ("stage2", torch.zeros(1, 16), {}, r"^channels: expected finite directions other than 0"),
        (None, None, {}, r"^channels: expected classes, as no layer was given, got None"),
        (None, [7], {}, r"^channels: expected indices from 0 to 6, the channels of the logits"),
        (None, ["cat"], {}, r"^target: expected a class index, .* no class names"),
        ("flat", [0], {}, r"^layer: expected"),
        ("stage2", [0], {"size": 1}, r"^size: expected an int of at least 2, got 1"),
        ("stage2", [0], {"steps": 0}, r"^steps: expected an int of at least 1, got 0"),
        ("stage2", [0], {"seed": -1}, r"^seed: expected an int of at least 0, got -1"),
        ("stage2", [0], {"variants": 0}, r"^variants: expected None or an int of at least 1"),
        ("stage2", [0], {"batch_size": 0}, r"^batch_size: expected None or an int"),
        ("stage2", [0], {"network_size": 0}, r"^network_size: expected None or an int"),
        ("stage2", [0], {"robustness": -1}, r"^robustness: expected a number of at least 0"),
        ("stage2", [0], {"learning_rate": 0}, r"^learning_rate: expected a number greater than"),
        ("stage2", [0], {"decay": float("nan")}, r"^decay: expected a number of at least 0"),
        ("stage2", [0], {"diversity": -1}, r"^diversity: expected a number of at least 0"),
        ("stage2", [0], {"neuron": (9, 0)}, r"^neuron: expected None, 'center' or \(row, column\)"),
        ("stage2", [0], {"neuron": (-1, 0)}, r"^neuron: expected None, 'center'"),
        ("stage2", [0], {"neuron": "left"}, r"^neuron: expected None, 'center'"),
    ],
)
def test_bad_input(net, layer, channels, settings, message):
    with pytest.raises(ValueError, match=message):
        made(net, layer, channels, **settings)


def test_layers_without_channels_are_refused():
    class Reshaping(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.parts = nn.Conv2d(3, 4, 3, 2, 1), nn.Identity()
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            y = self.parts(self.conv(x).flatten(0, 1))
            return self.head(y.mean(dim=(1, 2)).reshape(len(x), 4))

    with pytest.raises(ValueError, match=r"^layer: expected a layer whose output is"):
        made(Reshaping().eval(), "parts", [0])


def test_networks_of_other_pictures_are_refused():
    gray = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match=r"^model: expected a network of RGB .* one of 1 channels"):
        made(gray.eval(), "0", [0])


def test_models_without_gradients_are_refused(net):
    class Blind(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            with torch.no_grad():
                return self.inner(x)

    with pytest.raises(ValueError, match=r"^model: expected layer 'inner.stage2' to depend on"):
        made(Blind(net), "inner.stage2", [0])


def test_responses_that_are_not_finite_are_refused(net):
    with torch.no_grad():
        net.stage2.bn2.bias[3] = torch.nan
    with pytest.raises(ValueError, match=r"^model: expected finite responses .* step 0, in pic"):
        made(net, "stage2.bn2", [0, 3])
