"""Every method of `pyxai.cam` against its paper's formula.

The formulas are written down here once more, on features and gradients from one graph through the
whole network in float64. The methods that run the network again are in test_cam_masked.py, LeGrad
in test_cam_attention.py; what all methods have in common in test_cam_properties.py and
test_cam_contracts.py.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from networks import full_pass, random_net
from sklearn.decomposition import KernelPCA
from torch import nn
from torch.nn import functional

import pyxai
from pyxai.attribution.cam.evidence import gather
from pyxai.attribution.cam.methods import METHODS, cam_method
from pyxai.classifier import Examined, as_classifier

# Few samples are enough to see whether they are drawn and averaged as they should.
OPTIONS = {"smoothgradcam++": {"samples": 2}, "sscam": {"samples": 2}, "iscam": {"samples": 2}}
ON_A_CNN = {name: cam_method(name, **OPTIONS.get(name, {})) for name in METHODS}
del ON_A_CNN["legrad"]
GRADIENT = [name for name, each in METHODS.items() if each.gradients and not each.fuses]


@pytest.fixture(autouse=True)
def _one_thread(threads):
    threads(1)  # of work this small, more only wait for each other


def methods_for(head):
    """All methods that fit a network of this head."""
    return {name: each for name, each in ON_A_CNN.items() if head == "linear" or name != "cam"}


def explain(model, images, target, method, **arguments):
    """Plain maps: the layer's size, not normalised."""
    layer = ["stage2", "stage3"] if str(method).startswith("refinecam") else None
    arguments = {"layer": layer, "size": None, "normalize": None, **arguments}
    return pyxai.cam(model, images, target, method=method, **arguments)


def close(found, expected, share=1e-5):
    """Equal up to a share of the largest value."""
    assert found.shape == expected.shape
    difference = (found.double() - expected.double()).abs().max().item()
    assert difference <= share * expected.abs().max().item(), difference


# ---- the papers' formulas: features and gradients [N, C, h, w] -> maps [N, h, w] ----


def by_weights(weights, features):
    return (weights[..., None, None] * features).sum(1)


def plus_plus(features, first, second=None, third=None):
    second = first**2 if second is None else second
    third = first**3 if third is None else third
    total = features.sum((2, 3), keepdim=True)
    alpha = torch.nan_to_num(second / (2 * second + total * third), 0, 0, 0)
    return by_weights((alpha * first.relu()).sum((2, 3)), features)


def xgradcam(features, gradients):
    total = features.sum((2, 3))
    weights = (gradients * features).sum((2, 3)) / total
    return by_weights(torch.where(total == 0, 0, weights), features)


def oriented(component, features):
    """The sign that correlates with the sum of the features."""
    component = torch.from_numpy(component).reshape(features.shape[-2:])
    total = features.sum(0)
    sign = torch.sign(((total - total.mean()) * (component - component.mean())).sum())
    return component * sign


def eigen(products, features):
    maps = []
    for product, feature in zip(products, features, strict=True):
        rows = product.flatten(1).T.numpy()
        rows = rows - rows.mean(0)
        _, _, axes = np.linalg.svd(rows, full_matrices=False)
        maps.append(oriented(rows @ axes[0], feature))
    return torch.stack(maps)


def kpcacam(features, gradients):
    maps = []
    for feature in features:
        rows = feature.flatten(1).T.numpy()
        kernel = KernelPCA(n_components=1, kernel="sigmoid")
        maps.append(oriented(kernel.fit_transform(rows - rows.mean(0))[:, 0], feature))
    return torch.stack(maps)


def fem(features, gradients):
    deviation = features.flatten(2).std(2, correction=0)
    limit = features.flatten(2).mean(2) + 2 * deviation
    share = (features > limit[..., None, None]).double().mean((2, 3))
    return by_weights(share, features)


def random(features, gradients):
    weights = 2 * torch.rand(features.shape[1], generator=torch.Generator().manual_seed(0)) - 1
    return by_weights(weights.double()[None], features)


PLAIN = {
    "gradcam": lambda a, g: by_weights(g.mean((2, 3)), a),
    "gradcam++": plus_plus,
    "xgradcam": xgradcam,
    "hirescam": lambda a, g: (g * a).sum(1),
    "gradcam_elementwise": lambda a, g: (g * a).relu().sum(1),
    "layercam": lambda a, g: (g.relu() * a).sum(1),
    "eigencam": lambda a, g: eigen(a, a),
    "eigengradcam": lambda a, g: eigen(g * a, a),
    "kpcacam": kpcacam,
    "fem": fem,
    "random": random,
}


@pytest.mark.parametrize("head", ["linear", "mlp", "norm"])
@pytest.mark.parametrize("layer", ["stage3", "stage2", "stage2.bn2"])  # the last has both signs
def test_methods_equal_their_formulas(head, layer):
    model, images = random_net(head), torch.randn(2, 3, 40, 48)
    for target in (0, 5):
        features, gradients = full_pass(model, images, lambda o, k=target: o[:, k], layer)
        arguments = {"layer": layer, "size": None, "normalize": None}
        found = pyxai.cam(model, images, target, method=list(PLAIN), relu=False, **arguments)
        papers = pyxai.cam(model, images, target, method=list(PLAIN), **arguments)
        for name, formula in PLAIN.items():
            expected = formula(features, gradients)
            close(found[name], expected, 1e-4)
            close(papers[name], expected.relu(), 1e-4)


def test_cam_is_the_mean_of_the_heads_weights():
    model, images = random_net("linear"), torch.randn(2, 3, 40, 48)
    features, _ = full_pass(model, images, lambda o: o[:, 3], "stage3")
    expected = by_weights(model.fc.weight[3].detach().double()[None], features)
    close(explain(model, images, 3, "cam"), expected)


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("layer", ["stage3", "stage2"])
def test_smooth_gradcam_plus_plus(head, layer):
    model, images = random_net(head), torch.randn(2, 3, 32, 32)
    features, _ = full_pass(model, images, lambda o: o[:, 2], layer)
    generator, powers = torch.Generator().manual_seed(7), [0, 0, 0]
    for _ in range(3):
        noise = 0.2 * torch.randn(1, 3, 32, 32, generator=generator)  # one for all images
        _, gradients = full_pass(model, images + noise, lambda o: o[:, 2], layer)
        powers = [total + gradients**k / 3 for k, total in enumerate(powers, start=1)]
    expected = plus_plus(features, *powers)
    method = cam_method("smoothgradcam++", samples=3, std=0.2, seed=7)
    close(explain(model, images, 2, method, layer=layer), expected.relu(), 1e-4)
    quiet = cam_method("smoothgradcam++", samples=1, std=0.0)
    expected = explain(model, images, 2, "gradcam++", layer=layer)
    close(explain(model, images, 2, quiet, layer=layer), expected, 1e-4)


@pytest.mark.parametrize("base", ["gradcam", "gradcam++", "layercam"])
@pytest.mark.parametrize(
    ("head", "layer"), [("linear", "stage3"), ("mlp", "stage3"), ("mlp", "stage2")]
)
def test_finercam(base, head, layer):
    model, images = random_net(head), torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        logits = model(images)
    for target, references, strength in ((1, 2, 0.6), (4, 50, 1.0)):
        rows = []
        for row in logits.tolist():
            others = [k for k in range(7) if k != target]
            rows.append(
                sorted(others, key=lambda k, row=row: abs(row[k] - row[target]))[:references]
            )

        def score(output, target=target, rows=rows, strength=strength):
            similar = torch.stack([output[n, row].mean() for n, row in enumerate(rows)])
            return output[:, target] - strength * similar

        expected = PLAIN[base](*full_pass(model, images, score, layer))
        method = cam_method("finercam", base=base, references=references, strength=strength)
        found = explain(model, images, target, method, layer=layer, relu=False)
        close(found, expected, 1e-4)
        none = cam_method("finercam", base=base, strength=0)
        plain = explain(model, images, target, base, layer=layer)
        close(explain(model, images, target, none, layer=layer), plain)


@pytest.mark.parametrize("base", ["gradcam++", "layercam", "hirescam"])
def test_refinecam(base):
    model, images = random_net("mlp"), torch.randn(2, 3, 40, 48)
    layers = ["stage3", "stage1", "stage2"]
    product = torch.ones(2, 20, 24)
    for layer in layers:
        maps = explain(model, images, 5, base, layer=layer).relu()
        low = maps.amin((1, 2), keepdim=True)
        maps = (maps - low) / (maps.amax((1, 2), keepdim=True) - low)
        product *= functional.interpolate(maps[:, None], (20, 24), mode="bilinear")[:, 0]
    assert product.max() > 0
    found = explain(model, images, 5, cam_method("refinecam", base=base), layer=layers)
    close(found, product)


@pytest.mark.parametrize("layer", ["stage3", "stage2"])
def test_shapleycam_by_finite_differences(layer):
    model, images = random_net("smooth"), torch.randn(2, 3, 32, 32)
    double = copy.deepcopy(model).double()
    features, gradients = full_pass(model, images, lambda o: o[:, 2], layer)

    def gradient_at(values):
        values = values.clone().requires_grad_()
        hook = double.get_submodule(layer).register_forward_hook(lambda m, i, o: values.clone())
        score = double(images.double())[:, 2].sum()
        hook.remove()
        return torch.autograd.grad(score, values)[0]

    step = 1e-6
    ahead, behind = gradient_at(features * (1 + step)), gradient_at(features * (1 - step))
    products = (ahead - behind) / (2 * step)
    expected = by_weights((gradients - products / 2).mean((2, 3)), features)
    found = explain(model, images, 2, "shapleycam", layer=layer, relu=False)
    close(found, expected, 1e-4)
    gradcam = explain(model, images, 2, "gradcam", layer=layer, relu=False)
    assert (found - gradcam).abs().max() > 0.05 * gradcam.abs().max()


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_shapleycam_is_gradcam_where_nothing_bends(head):
    model, images = random_net(head), torch.randn(2, 3, 32, 32)
    found = explain(model, images, 2, "shapleycam", relu=False)
    close(found, explain(model, images, 2, "gradcam", relu=False))


def fullgrad(model, images, target):
    """Biases as what a layer makes of zeros, and their gradients by adding zeros behind it."""
    model, images = copy.deepcopy(model).double(), images.double().requires_grad_()
    biases, added = {}, {}

    def add(module, arguments, output):
        zeros = torch.zeros_like(output, requires_grad=True)
        added[module] = zeros
        return output + zeros

    for module in list(model.modules()):
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d, nn.Linear)) and (module.bias is not None):
            inputs = getattr(module, "in_channels", getattr(module, "num_features", None))
            shape = (1, inputs, 3, 3) if inputs else (1, module.in_features)
            bias = module(torch.zeros(shape).double()).detach()
            biases[module] = bias[..., 1:2, 1:2] if inputs else bias
            module.register_forward_hook(add)
    score = model(images)[:, target]
    gradients = torch.autograd.grad(score.sum(), [images, *added.values()])
    parts = [images.detach() * gradients[0]]
    parts += [biases[m] * g for m, g in zip(added, gradients[1:], strict=True)]
    maps = 0
    for part in parts:
        if part.ndim == 4:
            low, high = (f(part.abs(), (1, 2, 3), True) for f in (torch.amin, torch.amax))
            scaled = (part.abs() - low) / (high - low)
            maps += functional.interpolate(scaled, images.shape[-2:], mode="bilinear").sum(1)
    return maps, (sum(part.flatten(1).sum(1) for part in parts) - score).abs().detach()


@pytest.mark.parametrize("head", ["linear", "mlp", "norm", "smooth"])
def test_fullgrad(head):
    model, images = random_net(head), torch.randn(2, 3, 40, 32)
    found, report = explain(model, images, [[0, 5]], "fullgrad", return_report=True)
    gap = report["fullgrad"]["network"]["gap"]
    for k, target in enumerate((0, 5)):
        expected, gaps = fullgrad(model, images, target)
        close(found[:, k], expected)
        assert torch.allclose(gap[:, k].double(), gaps, atol=1e-4)
    if head in ("linear", "mlp"):  # nothing but ReLUs and biases: complete
        assert gap.max() < 1e-4
    else:
        assert gap.max() > 1e-2


def test_published_numbers():
    """Captum's Grad-CAM test: convolutions of ones, and signed sums of what they give."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.input = nn.Identity()
            self.conv1, self.relu1, self.fc1 = nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Linear(8, 4)
            nn.init.ones_(self.conv1.weight)
            self.conv1.bias.data = torch.tensor([-50.0, -75.0])
            self.fc1.weight.data = torch.tensor([[1.0] * 5 + [-1.0] * 3] * 4)
            nn.init.zeros_(self.fc1.bias)

        def forward(self, x):
            return self.fc1(self.relu1(self.conv1(self.input(x))).flatten(1)).relu()

    model, images = Net(), torch.arange(16.0).reshape(1, 1, 4, 4)

    def maps(name, layer):
        return explain(model, images, 0, name, layer=layer, relu=False)[0].tolist()

    assert maps("gradcam", "input") == (0.5625 * images[0, 0]).tolist()
    assert maps("gradcam", "conv1") == [[11.25, 13.5], [20.25, 22.5]]
    assert maps("gradcam", "relu1") == [[0, 4], [28, 32.5]]
    (evidence,) = gather(Examined(as_classifier(model), images), 0, layers=["conv1"])
    channels = METHODS["gradcam"].compute(evidence)[0, 0][:, None, None] * evidence.features[0]
    assert channels.tolist() == [[[-3.75, 3], [23.25, 30]], [[15, 10.5], [-3, -7.5]]]
    # The gradient is 1 and -1 where a ReLU is open: [[0, 1], [1, 1]] and [[0, 0], [-1, -1]].
    assert maps("hirescam", "conv1") == [[0, 4], [25, 25]]
    assert maps("gradcam_elementwise", "conv1") == maps("layercam", "conv1") == [[0, 4], [31, 40]]
    assert maps("layercam", "relu1") == [[0, 4], [31, 40]]
    # Without the first channel the score falls from 75 - 21 to 0, without the second it rises.
    drops = METHODS["ablationcam"].compute(evidence)[0, 0]
    assert torch.allclose(drops, torch.tensor([1, -21 / 54]))


@pytest.mark.parametrize("method", ["eigencam", "kpcacam", "eigengradcam"])
def test_signs_after_a_fresh_layer_norm_do_not_depend_on_the_batch(method):
    """There the features add up to 0 at every position, but for rounding."""

    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch, self.norm, self.fc = (
                nn.Conv2d(3, 16, 4, 4),
                nn.LayerNorm(16),
                nn.Linear(16, 5),
            )

        def forward(self, x):
            return self.fc(self.norm(self.patch(x).permute(0, 2, 3, 1)).mean((1, 2)))

    net, images = Norm().eval(), torch.randn(8, 3, 32, 32)
    together = pyxai.cam(net, images, 0, method=method)
    alone = torch.cat([pyxai.cam(net, one[None], 0, method=method) for one in images])
    nearly = pyxai.cam(net, images * (1 + 1e-6), 0, method=method)
    assert torch.allclose(together, alone, atol=1e-3)
    assert torch.allclose(together, nearly, atol=1e-3)
