"""`pyxai.cam`: its numbers against other ways to get them, every argument, every refusal."""

from __future__ import annotations

import pytest
import torch
from networks import SmallNet
from torch import nn
from torch.nn import functional

import pyxai
from pyxai.attribution.cam.methods import METHODS, method
from pyxai.classifier import as_classifier


def gradcam_by_full_backward(model, images, score):
    """Grad-CAM as the paper writes it: the whole network in one graph."""
    kept = {}
    handle = model.stage3.register_forward_hook(lambda m, i, o: kept.update(features=o))
    output = model(images)
    handle.remove()
    (gradient,) = torch.autograd.grad(score(output).sum(), kept["features"])
    weights = gradient.mean((2, 3), keepdim=True)
    return (weights * kept["features"]).sum(1).relu().detach()


@pytest.mark.parametrize("head", ["linear", "mlp", "norm"])
def test_gradcam_equals_the_full_backward_pass(device, head):
    model = SmallNet(head=head).eval().to(device)
    images = torch.randn(3, 3, 40, 48, device=device)
    for target in (0, 5):
        expected = gradcam_by_full_backward(model, images, lambda o, k=target: o[:, k])
        found = pyxai.cam(model, images, target, method="gradcam", size=None, normalize=None)
        assert torch.allclose(found, expected, atol=1e-6 + 1e-5 * expected.max().item())


def test_published_small_example():
    """The network of Captum's Grad-CAM test and the numbers published with it."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.relu1, self.fc1 = nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Linear(8, 4)
            nn.init.ones_(self.conv1.weight)
            self.conv1.bias.data = torch.tensor([-50.0, -75.0])
            self.fc1.weight.data = torch.tensor([[1.0] * 5 + [-1.0] * 3] * 4)
            nn.init.zeros_(self.fc1.bias)

        def forward(self, x):
            return self.fc1(self.relu1(self.conv1(x)).flatten(1)).relu()

    images = torch.arange(16.0).reshape(1, 1, 4, 4)
    for frozen in (False, True):
        model = Net().requires_grad_(not frozen)
        for layer, expected in {
            "conv1": [[11.25, 13.5], [20.25, 22.5]],
            "relu1": [[0.0, 4.0], [28.0, 32.5]],
        }.items():
            found = pyxai.cam(
                model, images, 0, method="gradcam", layer=layer, size=None, normalize=None
            )
            assert found[0].tolist() == expected


def test_cam_explains_the_logits(device, small_net):
    images = torch.randn(4, 3, 56, 40, device=device)
    model = small_net.to(device)
    maps, logits = pyxai.cam(model, images, "all", size=None, normalize=None, return_logits=True)
    assert maps.shape == (4, 7, 7, 5)
    assert torch.allclose(logits, model(images).detach(), atol=1e-5)
    assert torch.allclose(maps.mean((2, 3)) + model.fc.bias.detach(), logits, atol=1e-5)
    names = ["cam", "gradcam", "hirescam"]
    _, report = pyxai.cam(model, images, [[1, 2]], method=names, return_report=True)
    for name in ("cam", "hirescam"):
        assert report[name]["stage3"]["gap"].shape == (4, 2)
        assert report[name]["stage3"]["gap"].max() < 1e-5
    assert "gap" not in report["gradcam"]["stage3"]


def test_softmax_is_the_probability_in_each_region(small_net):
    images = torch.randn(2, 3, 48, 48)
    maps = pyxai.cam(small_net, images, "all", size=None, normalize="softmax")
    with torch.no_grad():
        stages = small_net.stage3(small_net.stage2(small_net.stage1(small_net.stem(images))))
        cells = small_net.fc(stages.permute(0, 2, 3, 1)).softmax(-1).permute(0, 3, 1, 2)
    assert torch.allclose(maps, cells, atol=1e-6)
    one = pyxai.cam(small_net, images, [3, 4], size=None, normalize="softmax")
    assert torch.allclose(one, torch.stack([cells[0, 3], cells[1, 4]]), atol=1e-6)
    big = pyxai.cam(small_net, images, 3, normalize="softmax")
    expected = functional.interpolate(cells[:, 3:4], (48, 48), mode="bilinear")[:, 0]
    assert torch.allclose(big, expected, atol=1e-6)


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_every_form_of_target(head):
    model = SmallNet(head=head).eval()
    images = torch.randn(3, 3, 32, 32)
    everything, logits = pyxai.cam(model, images, "all", method="gradcam", return_logits=True)
    assert everything.shape == (3, 7, 32, 32)
    top = logits.argmax(1)

    def explain(target):
        return pyxai.cam(model, images, target, method="gradcam")

    rows = torch.arange(3)
    close = {"atol": 2e-6, "rtol": 1e-5}
    assert torch.allclose(explain(None), everything[rows, top], **close)
    assert torch.allclose(explain(4), everything[:, 4], **close)
    assert torch.allclose(explain([1, 6, 0]), everything[rows, [1, 6, 0]], **close)
    assert torch.allclose(explain([[5, 2]]), everything[:, [5, 2]], **close)
    nested = explain(torch.tensor([[5, 2], [0, 0], [1, 3]]))
    assert torch.allclose(nested[2], everything[2, [1, 3]], **close)
    assert torch.allclose(explain(lambda out: out[:, 4]), everything[:, 4], **close)
    named = pyxai.Classifier(model, class_names=list("abcdefg"))
    assert torch.equal(pyxai.cam(named, images, "e", method="gradcam"), explain(4))


def test_scores_of_a_callable_see_the_whole_output():
    model = SmallNet(wrap=lambda logits: {"scores": logits, "other": logits.sum(1)}).eval()
    images = torch.randn(2, 3, 32, 32)
    maps, scores = pyxai.cam(model, images, lambda out: out["other"], return_logits=True)
    assert maps.shape == (2, 32, 32)
    assert scores.shape == (2,)
    with pytest.raises(ValueError, match=r"target: .*scores \[2\], got a float32 tensor \[2, 7\]"):
        pyxai.cam(model, images, lambda out: out["scores"])
    with pytest.raises(ValueError, match="differentiable"):
        pyxai.cam(model, images, lambda out: out["other"].detach())


def test_sizes_and_normalisations(small_net):
    images = torch.randn(2, 3, 32, 40)
    low = pyxai.cam(small_net, images, 3, size=None, normalize=None)
    assert low.shape == (2, 4, 5)
    assert low.min() < 0 < low.max()  # signed
    scaled = pyxai.cam(small_net, images, 3, size=None)
    flat = low.flatten(1)
    span = (flat.amax(1) - flat.amin(1))[:, None, None]
    assert torch.allclose(scaled, (low - flat.amin(1)[:, None, None]) / span, atol=1e-6)
    for size, shape in (("input", (32, 40)), (50, (50, 50)), ((20, 30), (20, 30))):
        found = pyxai.cam(small_net, images, 3, size=size)
        expected = functional.interpolate(scaled[:, None], shape, mode="bilinear")[:, 0]
        assert torch.allclose(found, expected, atol=1e-6)
    raw = pyxai.cam(small_net, images, 3, size=(20, 30), normalize=None)
    expected = functional.interpolate(low[:, None], (20, 30), mode="bilinear")[:, 0]
    assert torch.allclose(raw, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_models(dtype):
    model = SmallNet().eval()
    images = torch.randn(2, 3, 32, 32)
    expected = pyxai.cam(model, images, 3)
    found = pyxai.cam(SmallNet.from_other(model).to(dtype), images.to(dtype), 3)
    assert found.dtype == torch.float32
    assert (found - expected).abs().mean() < 0.05


def test_channels_last_autocast_and_inputs_of_any_layout():
    model = SmallNet(head="mlp").eval()
    images = torch.randn(2, 3, 32, 32)
    expected = pyxai.cam(model, images, 3)
    last = model.to(memory_format=torch.channels_last)
    found = pyxai.cam(last, images.to(memory_format=torch.channels_last), 3)
    assert torch.allclose(found, expected, atol=1e-4)
    wide = torch.zeros(2, 3, 32, 64)
    wide[..., ::2] = images
    assert torch.allclose(pyxai.cam(model, wide[..., ::2], 3), expected, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = pyxai.cam(model, images, 3)
    assert (mixed - expected).abs().mean() < 0.05


def test_empty_batch(small_net):
    for target, shape in ((None, (0, 32, 32)), ("all", (0, 7, 32, 32))):
        maps, logits = pyxai.cam(small_net, torch.zeros(0, 3, 32, 32), target, return_logits=True)
        assert maps.shape == shape
        assert logits.shape == (0, 7)


def test_batch_equals_one_by_one(small_net):
    images = torch.randn(4, 3, 40, 40)
    together = pyxai.cam(small_net, images, 2)
    for n in range(4):
        assert torch.allclose(
            together[n : n + 1], pyxai.cam(small_net, images[n : n + 1], 2), atol=1e-5
        )


def test_layers_in_the_middle_and_reused_layers():
    class Reused(SmallNet):
        def forward(self, x):
            x = self.stage3(self.stage2(self.stage1(self.stem(x))))
            x = self.again(self.again(x))
            return self.fc(self.pool(x).flatten(1))

    model = Reused(head="mlp").eval()
    model.again = nn.Sequential(nn.Conv2d(24, 24, 3, 1, 1), nn.ReLU(inplace=True))
    images = torch.randn(2, 3, 32, 32)
    kept = []
    handle = model.again.register_forward_hook(lambda m, i, o: kept.append(o))
    output = model(images)
    handle.remove()
    (gradient,) = torch.autograd.grad(output[:, 1].sum(), kept[-1])
    expected = (gradient.mean((2, 3), keepdim=True) * kept[-1]).sum(1).relu().detach()
    found = pyxai.cam(model, images, 1, method="gradcam", layer="again", size=None, normalize=None)
    assert torch.allclose(found, expected, atol=1e-6)
    # Before an in-place addition and ReLU: what was kept is the layer's own output.
    block = pyxai.cam(model, images, 1, method="gradcam", layer="stage2.bn2", normalize=None)
    assert torch.isfinite(block).all()


def test_the_body_has_no_graph():
    """Memory and time of a backward pass are spent on the head alone."""
    model = SmallNet(head="mlp").eval()
    seen = []
    model.stage1.register_forward_hook(lambda m, i, o: seen.append(o.requires_grad))
    model.fc[0].register_forward_hook(lambda m, i, o: seen.append(o.requires_grad))
    model.stage2.conv1.weight.register_hook(lambda gradient: seen.append("backward"))
    pyxai.cam(model, torch.randn(1, 3, 32, 32))
    assert seen[-2:] == [False, True]
    assert "backward" not in seen


def test_a_method_is_a_small_function(small_net, monkeypatch):
    monkeypatch.setattr(
        "pyxai.attribution.cam.methods.registry.METHODS", dict(METHODS)
    )  # put back afterwards
    images = torch.randn(1, 3, 32, 32)

    @method("strongest", gradients=True)
    def strongest(evidence):
        weights = evidence.gradients.mean((-2, -1))
        return weights * (weights == weights.amax(-1, keepdim=True))

    found = pyxai.cam(small_net, images, 2, method="strongest", size=None)
    channel = small_net.fc.weight[2].argmax()
    features = as_classifier(small_net).activations(images, "stage3")["stage3"][:, channel]
    expected = (features - features.min()) / (features.max() - features.min())
    assert "strongest" not in METHODS
    assert torch.allclose(found, expected, atol=1e-6)


# ---- refusals ----


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 32, 32), r"images: .*\[3, 32, 32\]; add the batch axis"),
        (torch.zeros(1, 1, 32, 32), r"images: expected a tensor \[N, 3, H, W\], got .*\[1, 1, 32"),
        (torch.zeros(1, 3, 32, 32).half(), "images: expected dtype float32, the model's"),
        (torch.zeros(1, 3, 0, 32), r"images: .*\[1, 3, 0, 32\]"),
        (torch.zeros(1, 3, 32, 32).long(), "images: .*int64"),
        ([], "images: .*got none"),
    ],
)
def test_bad_images(small_net, images, message):
    with pytest.raises(ValueError, match=message):
        pyxai.cam(small_net, images)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"method": "grad-map"},
            r"method: expected one of 'auto', .*'gradcam'.*, got 'grad-map'",
        ),
        ({"layer": "fc"}, r"layer: .*tokens \[N, T, C\], got a float32 tensor \[2, 7\]"),
        ({"size": "half"}, "size: .*'half'"),
        ({"size": 0}, "size: .*at least 1"),
        ({"size": (3,)}, "size: .*at least 1"),
        ({"size": (3, 2.5)}, "size: .*at least 1"),
        ({"normalize": "sum"}, "normalize: .*'sum'"),
        ({"target": 7}, "target: .*below 7"),
    ],
)
def test_bad_arguments(small_net, arguments, message):
    with pytest.raises(ValueError, match=message):
        pyxai.cam(small_net, torch.randn(2, 3, 32, 32), **arguments)


def test_methods_that_need_a_linear_head_say_so():
    images = torch.randn(1, 3, 32, 32)
    for arguments in ({"method": "cam"}, {"normalize": "softmax"}):
        with pytest.raises(ValueError, match=r"method: .*linear\s+layer.*use method='gradcam'"):
            pyxai.cam(SmallNet(head="mlp"), images, **arguments)
    with pytest.raises(ValueError, match="method"):
        pyxai.cam(SmallNet(), images, lambda out: out[:, 0], method="cam")


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_features_that_are_not_finite(head, bad):
    images = torch.randn(3, 3, 32, 32)
    images[1, 0, 5, 5] = bad
    with pytest.raises(ValueError, match=r"finite"):
        pyxai.cam(SmallNet(head=head), images)
    for normalize in ("minmax", None):
        for size in ("input", None):
            with pytest.raises(ValueError, match=r"finite features at layer 'stage3'.*\[1\]"):
                pyxai.cam(SmallNet(head=head), images, 2, size=size, normalize=normalize)


def test_models_that_run_without_gradients():
    class NoGrad(SmallNet):
        @torch.no_grad()
        def forward(self, x):
            return super().forward(x)

    images = torch.randn(1, 3, 32, 32)
    assert pyxai.cam(NoGrad(), images).shape == (1, 32, 32)  # CAM needs none
    model = NoGrad(head="mlp").eval()
    found = pyxai.cam(model, images, 1)  # the graph begins inside, at the layer
    expected = SmallNet(head="mlp").eval()
    expected.load_state_dict(model.state_dict())
    assert torch.equal(found, pyxai.cam(expected, images, 1))
