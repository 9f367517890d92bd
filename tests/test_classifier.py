"""The borrowed-model contract, what is found out about a model, and its outputs and targets."""

from __future__ import annotations

import copy
import gc
import threading
import tracemalloc
import weakref
from collections import OrderedDict, namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from in_threads import in_threads
from networks import SmallNet, SmallSwin, SmallViT
from torch import nn

import pyxai
from pyxai.attribution.cam import BlankMapWarning
from pyxai.classifier import Classifier, anatomy, as_classifier
from pyxai.classifier.layout import Layout
from pyxai.classifier.nested import first_tensor, with_first
from pyxai.classifier.outputs import class_index, resolve_target
from pyxai.classifier.reading import Reading

Named = namedtuple("Named", ["logits", "auxiliary"])
NAMES = ["cat", "tabby, tabby cat", "Dog", "crane", "crane", "golden retriever", "tench"]


def state_of(model):
    """Everything about a model that a call must leave as it was."""
    return {
        "training": [module.training for module in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grad": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "values": [t.clone() for t in model.state_dict().values()],
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
            for m in model.modules()
        ],
        "attributes": [sorted(vars(module)) for module in model.modules()],
        "rng": torch.get_rng_state(),
        "grad_mode": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
    }


def assert_same_state(before, after):
    for key, value in before.items():
        other = after[key]
        if key in ("grad", "values"):
            pairs = zip(value, other, strict=True)
            assert all((a is b is None) or torch.equal(a, b) for a, b in pairs), key
        elif key == "rng":
            assert torch.equal(value, other)
        else:
            assert value == other, key


@pytest.fixture(params=["training", "evaluation", "mixed"])
def lent(request):
    """A model in each mode, with gradients, a frozen part and a hook of its owner's."""
    model = SmallNet(head="mlp")
    model.train(request.param == "training")
    if request.param == "mixed":
        model.stage2.train()
    model.stem.requires_grad_(False)
    model.fc[0].weight.grad = torch.ones_like(model.fc[0].weight)
    calls = []
    model.stage3.register_forward_hook(lambda module, inputs, output: calls.append(1))
    return model


IMAGES = torch.linspace(-2, 2, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)  # draws no random number


@pytest.mark.parametrize("method", ["gradcam", "auto"])
def test_model_is_as_before(lent, method):
    before = state_of(lent)
    pyxai.cam(lent, IMAGES, [[0, 1], [2, 3]], method=method)
    Classifier(lent).activations(IMAGES, ["stage2", "fc"])
    Classifier(lent)(IMAGES)
    assert_same_state(before, state_of(lent))


def test_model_is_as_before_after_an_error(lent):
    before = state_of(lent)
    for arguments in ({"layer": "nowhere"}, {"target": 99}, {"method": "cam"}, {"layer": "fc"}):
        with pytest.raises(ValueError, match=r"layer|target|method"):
            pyxai.cam(lent, IMAGES, **arguments)
    with pytest.raises(ValueError, match="images"):
        pyxai.cam(lent, torch.ones(2, 5, 32, 32))

    def breaks(outputs):
        raise KeyError("the user's own error")

    with pytest.raises(KeyError, match="the user's own error"):
        pyxai.cam(lent, IMAGES, breaks)
    assert_same_state(before, state_of(lent))


def test_input_is_as_before(small_net):
    images = torch.randn(2, 3, 32, 32, requires_grad=True)
    before = images.detach().clone()
    pyxai.cam(small_net, images)
    assert images.grad is None
    assert torch.equal(images.detach(), before)


def test_under_inference_mode_and_no_grad():
    model = SmallNet(head="mlp").eval()
    images = torch.randn(2, 3, 32, 32)
    expected = pyxai.cam(model, images)
    with torch.inference_mode():
        inside = pyxai.cam(model, torch.as_tensor(images.numpy()))
        assert torch.is_inference_mode_enabled()
    with torch.no_grad():
        assert torch.equal(pyxai.cam(model, images), expected)
    assert torch.equal(inside, expected)


def test_threads_do_not_see_each_other():
    """Eight threads on one model in training mode: right answers, and the mode restored."""
    model = SmallNet(head="mlp").train()
    inputs = [torch.randn(2, 3, 32 + 8 * (n % 3), 40) for n in range(8)]
    expected = [pyxai.cam(model, each, n % 7) for n, each in enumerate(inputs)]
    wrong, start = [], threading.Barrier(8)

    def work(n):
        start.wait()
        for _ in range(25):
            if not torch.equal(pyxai.cam(model, inputs[n], n % 7), expected[n]):
                wrong.append(n)

    before = state_of(model)
    in_threads(work, 8)
    assert not wrong
    assert_same_state(before, state_of(model))


def test_nothing_keeps_the_model_alive():
    model = SmallNet().eval()
    alive = weakref.ref(model)
    pyxai.cam(model, torch.randn(1, 3, 32, 32))
    del model
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_thousand_calls_leave_memory_where_it_was(threads, head):
    def count():
        gc.collect()
        return sum(type(each) is torch.Tensor for each in gc.get_objects())

    threads(1)  # small work, many calls
    model, images = SmallNet(head=head).eval(), torch.randn(1, 3, 16, 16)
    for _ in range(20):
        pyxai.cam(model, images)
    tensors = count()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(1000):
        pyxai.cam(model, images)
    after_tensors = count()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after_tensors <= tensors
    assert after - before < 50_000  # bytes; one leaked small object a call would be more


# ---- layers and heads ----


@pytest.mark.parametrize(("head", "linear"), [("linear", True), ("mlp", False), ("norm", False)])
def test_layer_and_head_are_found(head, linear):
    model = SmallNet(head=head).eval()
    images = torch.randn(2, 3, 40, 32)
    classifier = Classifier(model)
    assert classifier.last_spatial_layer(images) == "stage3"
    found = classifier.linear_head(images, "stage3")
    assert (found is not None) == linear
    if found is not None:
        assert torch.equal(found.weight, model.fc.weight)
        assert torch.equal(found.bias, model.fc.bias)
    assert classifier.linear_head(images, "stage2") is None


def test_head_is_judged_by_numbers():
    """Names and shapes are those of a linear head; max pooling or a scale makes it another."""
    model = SmallNet().eval()
    model.pool = nn.AdaptiveMaxPool2d(1)
    images = torch.randn(1, 3, 32, 32)
    assert Classifier(model).linear_head(images, "stage3") is None
    scaled = SmallNet(wrap=lambda logits: logits * 2 + 1).eval()
    head = Classifier(scaled).linear_head(images, "stage3")
    assert torch.allclose(head.weight, 2 * scaled.fc.weight, atol=1e-5)
    assert torch.allclose(head.bias, 2 * scaled.fc.bias + 1, atol=1e-5)
    cubed = SmallNet(wrap=lambda logits: logits**3).eval()
    assert Classifier(cubed).linear_head(images, "stage3") is None
    dead = SmallNet().eval()
    nn.init.constant_(dead.stage3.bn2.weight, 0)  # features say nothing about the head
    assert Classifier(dead).linear_head(images, "stage3") is not None


def test_heads_that_nearly_pass():
    """As torchvision's DenseNet and ConvNeXt write theirs."""

    class InPlace(SmallNet):
        def forward(self, x):
            x = self.stage3.bn1(self.stage3.conv1(self.stage2(self.stage1(self.stem(x)))))
            features = self.features(x)
            return self.fc(self.pool(torch.relu_(features)).flatten(1))

    images = torch.randn(2, 3, 32, 32)
    model = InPlace().eval()
    model.features = nn.Conv2d(24, 24, 1)
    assert Classifier(model).linear_head(images, "features") is None
    # What the pooling is given: the ReLU's values, for which the head is linear.
    assert Classifier(model).last_spatial_layer(images) == "relu before pool"
    head = Classifier(model).linear_head(images, "relu before pool")
    assert torch.equal(head.weight, model.fc.weight)

    class Normed(SmallNet):
        def forward(self, x):
            x = self.wide(self.stem(x))
            return self.last(nn.functional.layer_norm(self.pool(x).flatten(1), (768,)))

    model = Normed().eval()
    model.wide, model.last = nn.Conv2d(8, 768, 3), nn.Linear(768, 7)
    assert Classifier(model).linear_head(images, "wide") is None


def test_pointwise_convolution_is_a_linear_head():
    class Net(SmallNet):
        def forward(self, x):
            x = self.stage3(self.stage2(self.stage1(self.stem(x))))
            return self.classify(self.pool(x)).flatten(1)

    model = Net()
    model.classify = nn.Conv2d(24, 7, 1)
    images = torch.randn(2, 3, 32, 32)
    maps, logits = pyxai.cam(
        model, images, "all", method="cam", size=None, normalize=None, return_logits=True
    )
    bias = model.classify.bias.detach()
    assert torch.allclose(maps.mean((2, 3)) + bias, logits, atol=1e-5)


def test_a_head_that_changes_is_noticed():
    model = SmallNet().eval()
    images = torch.randn(2, 3, 32, 32)
    pyxai.cam(model, images, method="cam")
    with torch.no_grad():
        model.fc.weight.mul_(3)  # trained on: weights are read afresh
    maps, logits = pyxai.cam(
        model, images, "all", method="cam", size=None, normalize=None, return_logits=True
    )
    assert torch.allclose(maps.mean((2, 3)) + model.fc.bias, logits, atol=1e-4)
    model.wrap = lambda logits: logits**2  # no longer linear
    with pytest.raises(ValueError, match="method"):
        pyxai.cam(model, images, method="cam")
    oracle = SmallNet(wrap=lambda logits: logits**2).eval()
    oracle.load_state_dict(model.state_dict())
    assert torch.equal(pyxai.cam(model, images), pyxai.cam(oracle, images))


def test_larger_input_finds_the_deeper_layer():
    model = SmallNet().eval()
    classifier = Classifier(model)
    assert classifier.last_spatial_layer(torch.randn(1, 3, 8, 8)) == "stage2"
    assert classifier.last_spatial_layer(torch.randn(1, 3, 32, 32)) == "stage3"


def test_pooling_layers_do_not_count():
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2)),
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
        nn.Linear(54, 4),
    )
    assert Classifier(model).last_spatial_layer(torch.randn(1, 3, 20, 20)) == "0.1"


def test_no_spatial_layer_is_explained():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16, 4))
    with pytest.raises(
        ValueError, match=r"layer: expected a network with a layer .*none.*\[1, 4\]"
    ):
        pyxai.cam(flat, torch.randn(1, 3, 4, 4))


def test_activations_stop_early(small_net):
    images = torch.randn(2, 3, 32, 32)
    Classifier(small_net).activations(images[:1], "stem")  # looks at the network once
    ran = []
    small_net.fc.register_forward_hook(lambda *_: ran.append("fc"))
    found = Classifier(small_net).activations(images, ["stage1", "stage2"])
    assert ran == []
    with torch.no_grad():
        expected = small_net.stage1(small_net.stem(images))
    assert torch.equal(found["stage1"], expected)  # not what the in-place ReLU of stage2 made of it
    assert found["stage2"].shape == (2, 16, 8, 8)
    assert not found["stage2"].requires_grad
    assert list(Classifier(small_net).activations(images, "stem")) == ["stem"]


def test_layers_that_cannot_be_observed(small_net):
    images = torch.randn(1, 3, 32, 32)
    small_net.unused = nn.Conv2d(3, 3, 1)
    with pytest.raises(ValueError, match=r"layer: .*unused \(it did not run\)"):
        pyxai.cam(small_net, images, layer="unused")
    with pytest.raises(ValueError, match=r"layer: .*'stage33'; closest: 'stage3'"):
        pyxai.cam(small_net, images, layer="stage33")


def test_wrapped_models(small_net):
    images = torch.randn(2, 3, 32, 32)
    expected = pyxai.cam(small_net, images)
    assert torch.equal(pyxai.cam(nn.DataParallel(small_net), images), expected)
    compiled = torch.compile(small_net, backend="eager")
    assert torch.equal(pyxai.cam(compiled, images), expected)


# ---- networks of tokens ----


class Encoder(nn.Module):
    """torch's own encoder, in either order of axes; it reads its class token, or all tokens."""

    def __init__(self, *, batch_first, read=lambda tokens: tokens[:, 0]):
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 8, 8)
        self.first = nn.Parameter(torch.randn(1, 1, 8))
        layer = nn.TransformerEncoderLayer(
            8, 2, 16, batch_first=batch_first, norm_first=True, dropout=0.1
        )
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(8, 7)
        self.read, self.batch_first = read, batch_first

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], dim=1)
        x = self.encoder(x if self.batch_first else x.transpose(0, 1))
        return self.head(self.read(x if self.batch_first else x.transpose(0, 1)))


class ClassAttention(SmallViT):
    """A class token that alone asks the patches, at the end; keys and values are layers."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(12, 12) for _ in range(3))
        self.keys = nn.Identity()

    def forward(self, x):
        patches = self.blocks(self.patch(x).flatten(2).transpose(1, 2))
        tokens = self.norm(torch.cat([self.before.expand(len(x), -1, -1), patches], dim=1))
        q, k, v = self.q(tokens[:, :1]), self.keys(self.k(tokens)), self.v(tokens)
        return self.head(nn.functional.scaled_dot_product_attention(q, k, v)[:, 0])


TOKEN_NETWORKS = [
    (SmallViT, "blocks.2.norm1", Layout("tokens", 4, 5, 1), False),
    (lambda: SmallViT(registers=4), "blocks.2.norm1", Layout("tokens", 4, 5, 5), False),
    (lambda: SmallViT(pool="mean"), "norm", Layout("tokens", 4, 5), True),
    (lambda: SmallViT(pool="mean", registers=2), "norm", Layout("tokens", 4, 5, 2), True),
    (SmallSwin, "norm", Layout("nhwc", 4, 5), True),
    (
        lambda: Encoder(batch_first=True),
        "encoder.layers.2.norm1",
        Layout("tokens", 4, 5, 1),
        False,
    ),
    (
        lambda: Encoder(batch_first=False),
        "encoder.layers.2.norm1",
        Layout("tokens", 4, 5, 1, batch_first=False),
        False,
    ),
    (
        lambda: Encoder(batch_first=False, read=lambda tokens: tokens[:, 1:].mean(dim=1)),
        "encoder",
        Layout("tokens", 4, 5, 1, batch_first=False),
        True,
    ),
    # The class token counts as much as a patch, so the mean over patches is not all.
    (
        lambda: Encoder(batch_first=True, read=lambda tokens: tokens.mean(dim=1)),
        "encoder",
        Layout("tokens", 4, 5, 1),
        False,
    ),
    (ClassAttention, "norm", Layout("tokens", 4, 5, 1), False),
]


@pytest.mark.parametrize(("make", "layer", "layout", "linear"), TOKEN_NETWORKS)
@pytest.mark.parametrize("frozen", [False, True])
def test_layer_and_head_of_token_networks(make, layer, layout, linear, frozen):
    model, images = make().requires_grad_(not frozen), torch.randn(2, 3, 32, 40)
    if isinstance(model, SmallSwin):
        images, layout = torch.randn(2, 3, 32, 48), Layout("nhwc", 4, 6)
    classifier = Classifier(model)
    before = state_of(model)
    assert classifier.last_spatial_layer(images) == layer
    raw = classifier.activations(images, layer)[layer]
    assert anatomy.examine(Classifier(model), images).layout(images, layer, raw) == layout
    head = classifier.linear_head(images, layer)
    assert (head is not None) == linear
    assert_same_state(before, state_of(model))
    if head is not None:
        means = layout.features(raw).mean(dim=(2, 3))
        expected = means @ head.weight.T + head.bias
        assert torch.allclose(expected, classifier(images), atol=1e-5)


@pytest.mark.parametrize("mode", ["training", "evaluation", "mixed"])
def test_token_network_is_as_before(mode):
    """Looking for the layer takes gradients; nothing of them is left."""
    model = SmallViT(registers=1).train(mode == "training")
    if mode == "mixed":
        model.blocks[1].train()
    model.patch.requires_grad_(False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    reached = []
    model.norm.weight.register_hook(lambda gradient: reached.append("weight"))
    images = IMAGES.clone().requires_grad_()
    before = state_of(model)
    assert Classifier(model).last_spatial_layer(images) == "blocks.2.norm1"
    assert_same_state(before, state_of(model))
    assert images.grad is None
    assert reached == []


def test_maps_of_token_networks():
    images = torch.randn(2, 3, 32, 48)
    for model in (SmallViT(pool="mean", registers=3).eval(), SmallSwin().eval()):
        maps, logits = pyxai.cam(
            model, images, "all", size=None, normalize=None, return_logits=True
        )
        assert maps.shape == (2, 7, 4, 6)
        bias = model.head.bias.detach()
        assert torch.allclose(maps.mean(dim=(2, 3)) + bias, logits, atol=1e-5)
    model = SmallViT().eval()
    assert pyxai.cam(model, images).shape == (2, 32, 48)
    with pytest.raises(ValueError, match="method"):
        pyxai.cam(model, images, method="cam")


def test_maps_of_tokens_are_the_right_way_round():
    """A bright spot in the photo is bright in the same place of the map."""
    rows, columns = 1, 4
    for model in (SmallViT(pool="mean", depth=0, registers=2), SmallSwin()):
        images = torch.zeros(1, 3, 32, 48)
        base = pyxai.cam(model, images, 0, size=None, normalize=None)
        images[:, :, 8 * rows : 8 * rows + 8, 8 * columns : 8 * columns + 8] = 4
        change = (pyxai.cam(model, images, 0, size=None, normalize=None) - base).abs()
        assert int(change[0].argmax()) == rows * 6 + columns


def test_other_sizes_of_token_networks():
    """The prefix found once is believed; the grid follows the size."""
    model = SmallViT(registers=2)
    assert Classifier(model).last_spatial_layer(torch.randn(1, 3, 32, 32)) == "blocks.2.norm1"
    for height, width in ((32, 40), (40, 32), (72, 24), (96, 200), (37, 47), (16, 16)):
        images = torch.randn(3, 3, height, width)
        layer = Classifier(model).last_spatial_layer(images)
        raw = Classifier(model).activations(images, layer)[layer]
        found = anatomy.examine(Classifier(model), images).layout(images, layer, raw)
        assert found == Layout("tokens", height // 8, width // 8, 3)
    small = SmallSwin()
    Classifier(small).last_spatial_layer(torch.randn(1, 3, 32, 32))
    images = torch.randn(2, 3, 48, 64)
    raw = Classifier(small).activations(images, ["patch", "norm"])
    assert anatomy.examine(Classifier(small), images).layout(images, "norm", raw["norm"]) == Layout(
        "nhwc", 6, 8
    )
    assert anatomy.examine(Classifier(small), images).layout(
        images, "patch", raw["patch"]
    ) == Layout("nchw", 12, 16)


def test_models_that_resize_their_input():
    class Resizing(SmallViT):
        def forward(self, x):
            return super().forward(nn.functional.interpolate(x, (32, 32)))

    model = Resizing()
    for size in ((32, 32), (48, 48), (32, 64), (80, 24)):
        images = torch.randn(2, 3, *size)
        raw = Classifier(model).activations(images, "blocks.2.norm1")["blocks.2.norm1"]
        found = anatomy.examine(Classifier(model), images).layout(images, "blocks.2.norm1", raw)
        assert found == Layout("tokens", 4, 4, 1)


def test_layers_without_positions(small_net):
    images = torch.randn(2, 3, 32, 32)
    expected = r"layer: expected a layer whose output is \[N, C, h, w\], \[N, h, w, C\] or tokens "
    expected += r"\[N, T, C\], got a float32 tensor "
    swin = SmallSwin()
    for model, layer, shape in (
        (small_net, "fc", r"\[2, 7\]"),
        (swin, "stage1.windows", r"\[32, 4, 10\]"),
        (swin, "head", r"\[2, 7\]"),
    ):
        raw = Classifier(model).activations(images, layer)[layer]
        with pytest.raises(ValueError, match=expected + shape):
            anatomy.examine(Classifier(model), images).layout(images, layer, raw)
        assert Classifier(model).linear_head(images, layer) is None
    with pytest.raises(ValueError, match=r"layer: .*int64"):
        anatomy.examine(Classifier(swin), images).layout(
            images, "norm", torch.zeros(2, 4, 4, 20).long()
        )


def test_heads_by_attention_and_latents_are_no_tokens():
    """Outputs by attention head, and 64 latents, where the grid is 4 × 4."""

    class Latents(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch, self.head = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, 7)
            self.by_head, self.latents = nn.Identity(), nn.Identity()

        def forward(self, x):
            x = self.patch(x).flatten(2).transpose(1, 2)
            weights = self.by_head(x[:, None].expand(-1, 4, -1, -1))[:, 0]
            x = weights.transpose(1, 2) @ torch.ones(16, 64)
            return self.head(self.latents(x.transpose(1, 2)).mean(dim=1))

    images = torch.randn(2, 3, 32, 32)
    assert Classifier(Latents()).last_spatial_layer(images) == "patch"


def test_gradients_that_cannot_be_had():
    class NoGrad(SmallViT):
        @torch.no_grad()
        def forward(self, x):
            return super().forward(x)

    class Inference(SmallViT):
        @torch.inference_mode()
        def forward(self, x):
            return super().forward(x)

    class Cut(SmallViT):
        def forward(self, x):
            patches = self.patch(x).flatten(2).transpose(1, 2).detach()
            tokens = torch.cat([self.before.expand(len(x), -1, -1), patches], dim=1)
            return self.head(self.norm(self.blocks(tokens))[:, 0])

    images = torch.randn(1, 3, 32, 32)
    # As for a map: the graph begins inside, at the layer.
    assert Classifier(NoGrad()).last_spatial_layer(images) == "blocks.2.norm1"
    assert Classifier(Cut()).last_spatial_layer(images) == "blocks.2.norm1"
    assert Classifier(Inference()).last_spatial_layer(images) == "blocks.2.norm1"
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_a_head_of_zeros_decides_nothing():
    """As torchvision makes its vision transformers: nothing depends on any token yet."""
    model, images = SmallViT(), torch.randn(1, 3, 32, 32)
    nn.init.zeros_(model.head.weight)
    assert Classifier(model).last_spatial_layer(images) == "norm"
    with pytest.warns(BlankMapWarning, match=r"images \[0\] show nothing"):
        assert float(pyxai.cam(model, images).abs().max()) == 0
    nn.init.normal_(model.head.weight)
    assert Classifier(model).last_spatial_layer(images) == "blocks.2.norm1"
    assert float(pyxai.cam(model, images).abs().max()) > 0


def test_what_was_used_before_does_not_count():
    """A model inside the model hands out its tokens beside what a pooler made of them."""

    class Inner(SmallViT):
        def forward(self, x):
            patches = self.patch(x).flatten(2).transpose(1, 2)
            tokens = self.blocks(patches)
            return self.give(tokens, self.norm(tokens.mean(dim=1)))

    class Outer(nn.Module):
        def __init__(self, give, take):
            super().__init__()
            self.inner, self.head, self.take = Inner(pool="mean"), nn.Linear(12, 7), take
            self.inner.give = give

        def forward(self, x):
            return self.head(self.take(self.inner(x)))

    images = torch.randn(2, 3, 32, 32)
    for model in (
        Outer(lambda tokens, pooled: (tokens, pooled), lambda output: output[1]),
        Outer(
            lambda tokens, pooled: {"pooled": pooled, "last_hidden_state": tokens},
            lambda output: output["pooled"],
        ),
        Outer(
            lambda tokens, pooled: SimpleNamespace(last_hidden_state=tokens, pooled=pooled),
            lambda output: output.pooled,
        ),
    ):
        assert Classifier(model).last_spatial_layer(images) == "inner.blocks"
        raw = Classifier(model).activations(images, "inner")["inner"]
        assert anatomy.examine(Classifier(model), images).layout(images, "inner", raw) == Layout(
            "tokens", 4, 4
        )


@pytest.mark.parametrize(
    "output",
    [
        {"last_hidden_state": 1, "pooled": 2},
        {"pooled": 2, "last_hidden_state": 1},
        {"features": 1, "pooled": 2},
        OrderedDict(features=1, pooled=2),
        SimpleNamespace(last_hidden_state=1, pooled=2),
        (1, 2),
        [1, 2],
        Named(1, 2),
    ],
    ids=str,
)
def test_the_tensor_of_an_output(output):
    one, other = torch.zeros(1), torch.ones(1)

    def filled(value):
        """The output with tensors in the places of the numbers."""
        value = copy.deepcopy(value)
        if isinstance(value, dict):
            value.update({key: (one, other)[n - 1] for key, n in value.items()})
        elif isinstance(value, SimpleNamespace):
            value.last_hidden_state, value.pooled = one, other
        elif isinstance(value, Named):
            value = Named(one, other)
        else:
            value = type(value)((one, other))
        return value

    whole = filled(output)
    assert first_tensor(whole) is one
    new = torch.full((1,), 2.0)
    changed = with_first(whole, new)
    assert type(changed) is type(whole)
    assert first_tensor(changed) is new
    assert first_tensor(whole) is one  # as it was


def test_outputs_without_a_tensor():
    for output in (None, (), {}, {"a": 1}, [None], "x", SimpleNamespace(last_hidden_state=None)):
        assert first_tensor(output) is None


def test_wrapped_token_networks():
    model, images = SmallViT().eval(), torch.randn(2, 3, 32, 32)
    expected = pyxai.cam(model, images)
    assert torch.equal(pyxai.cam(nn.DataParallel(model), images), expected)
    compiled = torch.compile(model, backend="eager")
    assert torch.equal(pyxai.cam(compiled, images), expected)


def test_threads_look_for_the_layer_at_once():
    model, images = SmallViT().train(), torch.randn(1, 3, 32, 32)
    found, start = [], threading.Barrier(4)

    def work():
        start.wait()
        for _ in range(5):
            anatomy.forget(model)
            found.append(Classifier(model).last_spatial_layer(images))

    before = state_of(model)
    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == ["blocks.2.norm1"] * 20
    assert_same_state(before, state_of(model))


# ---- outputs and targets ----


@pytest.mark.parametrize(
    "wrap",
    [
        lambda logits: (logits, None),
        lambda logits: [logits],
        lambda logits: {"logits": logits, "loss": None},
        lambda logits: {"out": logits},
        lambda logits: SimpleNamespace(logits=logits, hidden_states=None),
        lambda logits: Named(logits, logits * 2),
    ],
)
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_output_forms(wrap, head):
    model = SmallNet(head=head).eval()
    images = torch.randn(2, 3, 32, 32)
    expected, logits = pyxai.cam(model, images, return_logits=True)
    model.wrap = wrap
    found, wrapped_logits = pyxai.cam(model, images, return_logits=True)
    assert torch.equal(found, expected)
    assert torch.equal(wrapped_logits, logits)


@pytest.mark.parametrize(
    "output", [None, torch.zeros(3), torch.zeros(2, 3, 4, 4), torch.zeros(2, 3).int(), {}, "x", ()]
)
def test_unusable_outputs(output):
    with pytest.raises(ValueError, match="model: expected to return logits"):
        Reading().logits(output, 2)
    with pytest.raises(ValueError, match="model: expected to return logits"):
        pyxai.cam(SmallNet(wrap=lambda logits: output), torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize(
    ("target", "index", "single"),
    [
        (None, [[2], [0]], True),
        (3, [[3]], True),
        (-1, [[6]], True),
        (np.int64(3), [[3]], True),
        (torch.tensor(3), [[3]], True),
        ("Dog", [[2]], True),
        ("dog", [[2]], True),
        ("TABBY CAT", [[1]], True),
        ([1, "Dog"], [[1], [2]], True),
        (("cat", 5), [[0], [5]], True),
        (torch.tensor([4, 5]), [[4], [5]], True),
        (np.array([4, 5]), [[4], [5]], True),
        ([[1, 2, "cat"]], [[1, 2, 0]], False),
        ([[1, 2], [3, 4]], [[1, 2], [3, 4]], False),
        (torch.tensor([[1, 2], [3, 4]]), [[1, 2], [3, 4]], False),
        (torch.tensor([[1, 2]]), [[1, 2]], False),
        ("all", [[0, 1, 2, 3, 4, 5, 6]], False),
    ],
    ids=str,
)
def test_targets(target, index, single):
    logits = torch.tensor([[0.0, 1, 5, 2, 3, 4, 0], [9, 1, 5, 2, 3, 4, 0]])
    found = resolve_target(target, logits, NAMES)
    assert found.index.tolist() == index
    assert found.single == single


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (7, "target: expected class indices below 7, got 7"),
        (-8, "below 7, got -8"),
        ("retriever", "target: .*'retriever'; closest: 'golden retriever'"),
        ("tensh", "closest: 'tench'"),
        ("crane", r"several classes, \[3, 4\]; give the index"),
        ([1, 2, 3], "one entry for each of 2 images, got 3"),
        ([[1], [2], [3]], "one entry for each of 2 images, or one for all, got 3"),
        ([[1, 2], [3]], r"as many classes for each image, got \[1, 2\]"),
        ([1, [2]], "target: expected None, a class"),
        (1.5, "target: .*got 1.5"),
        (torch.tensor([1.0, 2.0]), "target: expected integers"),
        (torch.zeros(1, 1, 1).long(), "target: expected integers"),
        ({"cat"}, "target: .*got a set"),
        (True, "target: .*got True"),
    ],
    ids=str,
)
def test_bad_targets(target, message):
    with pytest.raises(ValueError, match=message):
        resolve_target(target, torch.zeros(2, 7), NAMES)


def test_names_are_needed_for_names():
    with pytest.raises(ValueError, match="no class names, got 'cat'"):
        class_index("cat", None)


def test_class_names_must_fit():
    classifier = Classifier(SmallNet(), class_names=NAMES[:5])
    with pytest.raises(ValueError, match=r"class_names: expected 7 names.*got 5"):
        classifier(torch.randn(1, 3, 32, 32))
    with pytest.raises(ValueError, match="class_names: expected a sequence"):
        Classifier(SmallNet(), class_names="cat")


def test_classifier_of_what():
    for wrong in ("demo", None, SmallNet):
        with pytest.raises(ValueError, match=r"model: expected a torch\.nn\.Module"):
            as_classifier(wrong)
    with pytest.raises(ValueError, match=r"model: expected a torch\.nn\.Module"):
        Classifier("demo")


def test_photos_go_through_preprocessing(small_net):
    photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    preprocessing = pyxai.Preprocessing(resize=40, crop=32)
    classifier = Classifier(small_net, class_names=NAMES, preprocessing=preprocessing)
    expected = small_net(preprocessing(photo)[None]).detach()
    assert torch.equal(classifier(photo), expected)
    assert torch.equal(classifier([photo, photo])[1:], classifier([photo, photo])[:1])
    assert pyxai.cam(classifier, photo, "tench").shape == (1, 32, 32)
    half = Classifier(SmallNet().bfloat16(), preprocessing=preprocessing)
    assert half.to_input(photo).dtype == torch.bfloat16
    assert repr(classifier) == "Classifier(SmallNet, 7 classes)"
