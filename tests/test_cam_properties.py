"""What follows from the methods' formulas: batches, targets, layers, precisions, `out`."""

from __future__ import annotations

import copy

import pytest
import torch
from networks import random_net
from test_cam_methods import GRADIENT, ON_A_CNN, close, explain, methods_for
from torch import nn

import pyxai
from pyxai.attribution.cam.methods import METHODS, cam_method


@pytest.fixture(autouse=True)
def _one_thread(threads):
    threads(1)


def test_exactness_of_linear_heads():
    model, images = random_net("linear"), torch.randn(3, 3, 40, 48)
    names = ["cam", "gradcam", "hirescam", "xgradcam"]
    arguments = {"size": None, "normalize": None, "relu": False}
    arguments |= {"return_logits": True, "return_report": True}
    maps, logits, report = pyxai.cam(model, images, "all", method=names, **arguments)
    close(maps["gradcam"] * (5 * 6), maps["cam"])
    close(maps["hirescam"], maps["gradcam"])
    close(maps["xgradcam"], maps["gradcam"])
    bias = model.fc.bias.detach()
    assert torch.allclose(maps["hirescam"].sum((2, 3)) + bias, logits, atol=1e-5)
    assert sorted(report) == sorted(names)
    for name in names:
        assert list(report[name]) == ["stage3"]
        assert list(report[name]["stage3"]) == (["gap"] if name in ("cam", "hirescam") else [])
    gap = report["hirescam"]["stage3"]["gap"]
    assert gap.shape == (3, 7)
    close(gap, (maps["hirescam"].sum((2, 3)) + bias - logits).abs(), 1)
    assert gap.max() < 1e-5


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_batch_is_its_images_one_by_one(head):
    model, images = random_net(head), torch.randn(3, 3, 32, 32)
    for method in methods_for(head).values():
        together = explain(model, images, 3, method, relu=False)
        alone = [explain(model, image[None], 3, method, relu=False)[0] for image in images]
        close(together, torch.stack(alone), 1e-4)
        close(explain(model, images, 3, method, relu=False, batch_size=2), together, 1e-4)
        each = explain(model, images, [3, 0, 6], method, relu=False, batch_size=2)
        close(each[0], alone[0], 1e-4)
        close(each[2], explain(model, images[2:], 6, method, relu=False)[0], 1e-4)


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_several_targets_are_each_alone(head):
    model, images = random_net(head), torch.randn(2, 3, 32, 32)
    for method in methods_for(head).values():
        found = explain(model, images, [[4, 0, 4]], method, relu=False)
        assert found.shape[:2] == (2, 3)
        for k, target in enumerate((4, 0, 4)):
            close(found[:, k], explain(model, images, target, method, relu=False), 1e-4)
        nested = explain(model, images, [[4, 1], [2, 0]], method, relu=False)
        close(nested[1, 1], found[1, 1], 1e-4)


def test_lists_of_methods_and_layers_are_each_alone():
    model, images = random_net("mlp"), torch.randn(2, 3, 32, 32)
    methods, layers = list(methods_for("mlp").values()), ["stage2", "stage3"]
    found, report = pyxai.cam(model, images, 1, method=methods, layer=layers, return_report=True)
    assert list(found) == list(map(str, methods))
    assert "sscam(samples=2)" in found
    for method in methods:
        if method.fuses or not method.layer:
            assert list(report[str(method)]) == ["network"]
            alone = pyxai.cam(
                model, images, 1, method=method, layer=layers if method.fuses else None
            )
            close(found[str(method)], alone)
            continue
        assert list(found[str(method)]) == list(report[str(method)]) == layers
        for layer in layers:
            alone = pyxai.cam(model, images, 1, method=method, layer=layer)
            close(found[str(method)][layer], alone, 1e-4)
    by_layer = pyxai.cam(model, images, 1, method="layercam", layer=layers)
    assert list(by_layer) == layers
    close(by_layer["stage2"], found["layercam"]["stage2"])


def permuted(model, order):
    """The same function, with the channels of stage3 in another order."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for module in (model.stage3.conv2, model.stage3.bn2, model.stage3.shortcut):
            for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
                if "num" not in name:
                    tensor.copy_(tensor[order].clone())
        first = model.fc if isinstance(model.fc, nn.Linear) else model.fc[0]
        first.weight.copy_(first.weight[:, order].clone())
    return model


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_the_order_of_the_channels_does_not_matter(head):
    model, images = random_net(head), torch.randn(2, 3, 32, 32)
    other = permuted(model, torch.randperm(24))
    assert torch.allclose(model(images), other(images), atol=1e-5)
    methods = methods_for(head)
    # The noise belongs to the number of a channel.
    methods["sscam"] = cam_method("sscam", samples=1, std=0.0)
    changed = []
    for name, method in methods.items():
        found = explain(other, images, 3, method, relu=False)
        expected = explain(model, images, 3, method, relu=False)
        if (found - expected).abs().max() > 1e-4 * expected.abs().max():
            changed.append(name)
    assert changed == ["random"]


def test_random_is_the_same_for_each_image():
    model = random_net("linear")
    images = torch.randn(1, 3, 32, 32).expand(3, -1, -1, -1)
    before = torch.get_rng_state()
    maps = {
        seed: explain(model, images, [[0, 5]], cam_method("random", seed=seed), relu=False)
        for seed in (0, 1)
    }
    assert torch.equal(torch.get_rng_state(), before)
    close(maps[0], maps[0][:1, :1].expand(3, 2, -1, -1))
    assert (maps[0] - maps[1]).abs().max() > 0.1 * maps[0].abs().max()


@pytest.mark.parametrize("name", [*GRADIENT, "scorecam", "ablationcam", "fullgrad"])
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_targets_that_are_functions(name, head):
    model, images, method = random_net(head), torch.randn(3, 3, 32, 32), ON_A_CNN[name]
    if name == "finercam":
        with pytest.raises(ValueError, match="'finercam' expected targets that are classes"):
            explain(model, images, lambda output: output[:, 4], method)
        return
    found = explain(model, images, lambda output: output[:, 4], method, relu=False)
    close(found, explain(model, images, 4, method, relu=False), 1e-4)
    other = explain(model, images, lambda output: output[:, 4] - output[:, 1], method, relu=False)
    assert (other - found).abs().max() > 0.01 * found.abs().max()


def test_the_argument_relu_goes_before_the_method():
    model, images = random_net("mlp"), torch.randn(2, 3, 32, 32)
    for name, method in methods_for("mlp").items():
        signed = explain(model, images, 1, method, relu=False)
        close(explain(model, images, 1, method, relu=True), signed.relu())
        default = explain(model, images, 1, method)
        close(default, signed.relu() if METHODS[name].relu else signed)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_half_precision(dtype, head):
    """Normalised maps are off by a few units of the last place of features: 2 ** -10, 2 ** -7."""
    model, images = random_net(head), torch.randn(4, 3, 32, 32)
    names = [name for name in GRADIENT if "++" not in name and name != "eigengradcam"]
    arguments = {"method": names, "size": None, "relu": False}
    expected = pyxai.cam(model, images, 3, **arguments)
    half = copy.deepcopy(model).to(dtype)
    found = pyxai.cam(half, images.to(dtype), 3, **arguments)
    for name in names:
        assert found[name].dtype == torch.float32
        error = (found[name] - expected[name]).abs().mean()
        assert 0 < error < (0.005 if dtype == torch.float16 else 0.04), (name, error)


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_channels_last(head):
    model, images = random_net(head), torch.randn(2, 3, 32, 40)
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    striped = images.to(memory_format=torch.channels_last)
    for method in methods_for(head).values():
        expected = explain(model, images, 3, method, relu=False)
        close(explain(last, striped, 3, method, relu=False), expected, 1e-4)


@pytest.mark.parametrize("name", list(ON_A_CNN))
def test_float64(name):
    model, images = random_net("linear" if name == "cam" else "mlp"), torch.randn(2, 3, 32, 40)
    double = copy.deepcopy(model).double()
    for arguments in ({}, {"size": 50, "normalize": "minmax"}):
        expected = explain(model, images, 3, ON_A_CNN[name], relu=False, **arguments)
        found = explain(double, images.double(), 3, ON_A_CNN[name], relu=False, **arguments)
        assert found.dtype == torch.float32
        close(found, expected, 1e-4)


def test_the_memory_of_the_caller_is_used():
    model, images = random_net("mlp"), torch.randn(3, 3, 32, 40)
    for method in methods_for("mlp").values():
        layer = ["stage2", "stage3"] if method.fuses else None
        expected = pyxai.cam(model, images, 3, method=method, layer=layer)
        out = torch.full((3, 32, 40), torch.nan)
        found = pyxai.cam(model, images, 3, method=method, layer=layer, out=out, batch_size=2)
        assert found is out
        assert torch.allclose(out, expected, atol=1e-4)
    out = torch.zeros(3, 7, 4, 5)
    pyxai.cam(model, images, "all", method="layercam", size=None, normalize=None, out=out)
    close(out, explain(model, images, "all", "layercam"))


@pytest.mark.parametrize("normalize", ["minmax", None])
@pytest.mark.parametrize(
    "out",
    [
        torch.zeros(3, 4, 5, dtype=torch.float64),
        torch.zeros(3, 1, 5),
        torch.zeros(3, 5, 4),
        torch.zeros(2, 4, 5),
        torch.zeros(3, 1, 4, 5),
        torch.zeros(3, 4, 10)[..., ::2],
    ],
)
def test_memory_that_does_not_fit(out, normalize):
    model, images = random_net("mlp"), torch.randn(3, 3, 32, 40)
    arguments = {"size": None, "normalize": normalize, "relu": False, "out": out}
    with pytest.raises(ValueError, match="out: expected"):
        pyxai.cam(model, images, 3, method="gradcam", **arguments)


def test_reports_of_methods_that_are_the_same():
    model, images = random_net("linear"), torch.randn(2, 3, 32, 32)
    _, report = pyxai.cam(model, images, 3, method=["auto", "cam"], return_report=True)
    assert report["cam"]["stage3"]["gap"].shape == (2, 1)


def test_no_images():
    model, none = random_net("mlp"), torch.zeros(0, 3, 32, 32)
    for method in methods_for("mlp").values():
        assert explain(model, none, 3, method).shape[0] == 0
    assert pyxai.cam(model, none, [], method="gradcam").shape == (0, 32, 32)
    nested = torch.zeros((0, 2), dtype=torch.long)
    assert pyxai.cam(model, none, nested, method="gradcam").shape == (0, 2, 32, 32)
