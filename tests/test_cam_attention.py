"""LeGrad against its paper's formula, however the network computes its attention."""

from __future__ import annotations

import copy

import pytest
import torch
from networks import SmallViT, random_net
from torch import nn
from torch.nn import functional

import pyxai


@pytest.fixture(autouse=True)
def _one_thread(threads):
    threads(1)


class Written(nn.Module):
    """The attention of an `nn.MultiheadAttention`, written out in one of several ways."""

    def __init__(self, other: nn.MultiheadAttention, way: str) -> None:
        super().__init__()
        self.heads, self.way = other.num_heads, way
        self.qkv = nn.Linear(other.embed_dim, 3 * other.embed_dim)
        self.qkv.weight, self.qkv.bias = other.in_proj_weight, other.in_proj_bias
        self.out = other.out_proj

    def forward(self, x, key, value, need_weights=False):
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        scale = q.shape[-1] ** -0.5
        if self.way == "sdpa":
            y = functional.scaled_dot_product_attention(q, k, v)
        elif self.way == "sdpa with options":
            zero = torch.zeros(x.shape[1], x.shape[1])
            y = functional.scaled_dot_product_attention(q, k, v, attn_mask=zero, scale=scale)
        elif self.way == "functional.softmax":
            y = functional.softmax(q @ k.mT * scale, dim=-1) @ v
        elif self.way == "torch.softmax":
            y = torch.softmax(q @ k.mT * scale, -1) @ v
        elif self.way == "nn.Softmax":
            y = nn.Softmax(-1)(q @ k.mT * scale) @ v
        else:
            y = (q @ k.mT * scale).softmax(dim=-1) @ v
        return (self.out(y.transpose(1, 2).flatten(2)),)


WAYS = [
    "sdpa",
    "sdpa with options",
    "functional.softmax",
    "torch.softmax",
    "nn.Softmax",
    "Tensor.softmax",
]


def written(model, way):
    """The same network with another way to compute attention."""
    model = copy.deepcopy(model)
    for block in model.blocks:
        block.attention = Written(block.attention, way)
    return model


def legrad(model, images, target):
    """Eq. 5 to 9 by hand, in float64: every block's own score, through the network's own head."""
    model = written(model, "by hand").double().eval()
    images = images.double()
    tokens = model.patch(images).flatten(2).transpose(1, 2)
    tokens = torch.cat([model.before.expand(len(images), -1, -1), tokens], dim=1)
    maps = 0
    for block in model.blocks:
        y = block.norm1(tokens)
        q, k, v = block.attention.qkv(y).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        attention = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1).detach().requires_grad_()
        tokens = tokens + block.attention.out((attention @ v).transpose(1, 2).flatten(2))
        tokens = tokens + block.mlp(block.norm2(tokens))
        last = model.norm(tokens)
        read = last[:, 0] if model.pool == "class" else last[:, model.prefix :].mean(1)
        score = model.head(read)[:, target].sum()
        (gradient,) = torch.autograd.grad(score, attention, retain_graph=True)
        maps += gradient.relu().mean((1, 2))[:, model.prefix :] / len(model.blocks)
    return maps.reshape(len(images), images.shape[2] // 8, -1).detach()


def explain(model, images, target, **arguments):
    arguments = {"size": None, "normalize": None, **arguments}
    return pyxai.cam(model, images, target, method="legrad", **arguments)


def close(found, expected, share=1e-4):
    assert found.shape == expected.shape
    difference = (found.double() - expected.double()).abs().max().item()
    assert difference <= share * expected.abs().max().item(), difference


KINDS = [
    {},
    {"pool": "mean"},
    {"registers": 3},
    {"pool": "mean", "registers": 2, "depth": 1},
    {"depth": 5},
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(32, 32), (32, 48)])
def test_legrad_equals_its_formula(kind, size):
    model, images = SmallViT(**kind).eval(), torch.randn(2, 3, *size)
    for target in (0, 6):
        expected = legrad(model, images, target)
        assert expected.max() > 2 * expected.min() >= 0
        close(explain(model, images, target), expected)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_write_attention_is_seen(way):
    model, images = SmallViT().eval(), torch.randn(2, 3, 32, 32)
    other = written(model, way)
    assert torch.allclose(other(images), model(images), atol=1e-5)
    close(explain(other, images, [[0, 5]]), explain(model, images, [[0, 5]]))


def test_the_forms_of_multihead_attention():
    """Tokens before images, weights asked for, no bias: what nn.MultiheadAttention can be told."""
    model, images = SmallViT().eval(), torch.randn(2, 3, 32, 32)
    expected = explain(model, images, 1)

    class Turned(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner
            self.inner.batch_first = False

        def forward(self, q, k, v, need_weights=False):
            x = q.transpose(0, 1)
            return (self.inner(x, x, x, need_weights=False)[0].transpose(0, 1),)

    turned = copy.deepcopy(model)
    for block in turned.blocks:
        block.attention = Turned(block.attention)
    close(explain(turned, images, 1), expected)
    plain = copy.deepcopy(model)
    for block in plain.blocks:
        nn.init.zeros_(block.attention.in_proj_bias)
    expected = explain(plain, images, 1)
    for block in plain.blocks:
        block.attention.in_proj_bias = None
    close(explain(plain, images, 1), expected)


def test_encoder_layers_of_torch():
    """nn.TransformerEncoderLayer takes a fused path in evaluation, where nothing could be seen."""

    class Encoder(SmallViT):
        def __init__(self):
            super().__init__()
            layer = nn.TransformerEncoderLayer(12, 2, 24, batch_first=True, norm_first=True)
            self.blocks = nn.Sequential(*(copy.deepcopy(layer) for _ in range(3)))

    model, images = Encoder().eval(), torch.randn(2, 3, 32, 32)
    found = explain(model, images, 3)
    twin = SmallViT().eval()
    for mine, theirs in zip(twin.blocks, model.blocks, strict=True):
        mine.attention, mine.norm1, mine.norm2 = theirs.self_attn, theirs.norm1, theirs.norm2
        mine.mlp = nn.Sequential(theirs.linear1, nn.ReLU(), theirs.linear2)
    for name in ("patch", "norm", "head", "before"):
        setattr(twin, name, getattr(model, name))
    assert torch.allclose(twin(images), model(images), atol=1e-5)
    close(found, legrad(twin, images, 3))


@pytest.mark.parametrize("kind", KINDS[:2])
def test_what_all_methods_have_in_common(kind):
    model, images = SmallViT(**kind).eval(), torch.randn(3, 3, 32, 32)
    found = explain(model, images, [[4, 0, 4]])
    assert found.min() >= 0
    for k, target in enumerate((4, 0, 4)):
        close(found[:, k], explain(model, images, target))
    for n in range(3):
        close(found[n : n + 1, 1], explain(model, images[n : n + 1], 0))
    close(explain(model, images, [[4, 0, 4]], batch_size=2), found)
    close(explain(model, images, [4, 0, 6])[:2], torch.stack([found[0, 0], found[1, 1]]))
    close(explain(model, images, lambda output: output[:, 4]), found[:, 0])
    out = torch.zeros(3, 32, 32)
    picture = pyxai.cam(model, images, 0, method="legrad", out=out)
    assert picture is out
    scaled = explain(model, images, 0, size="input", normalize="minmax")
    assert torch.allclose(picture, scaled, atol=1e-5)
    maps = pyxai.cam(model, images, 0, method=["legrad", "gradcam"], layer=["blocks.1"])
    assert torch.equal(maps["legrad"], picture)
    assert list(maps["gradcam"]) == ["blocks.1"]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_nothing_is_left_behind(mode):
    model = SmallViT()
    model.blocks[1].eval()
    model.head.requires_grad_(False)
    images = torch.randn(2, 3, 32, 32)
    expected = explain(copy.deepcopy(model), images, 2)
    model(images).sum().backward()
    gradients = [p.grad if p.grad is None else p.grad.clone() for p in model.parameters()]
    training = [module.training for module in model.modules()]
    random, numbers = torch.get_rng_state(), [p._version for p in model.parameters()]
    with mode():
        found = explain(model, images, 2)
        assert torch.is_grad_enabled() == (mode is torch.enable_grad)
    close(found, expected)
    assert not found.requires_grad
    assert [module.training for module in model.modules()] == training
    assert [p._version for p in model.parameters()] == numbers
    assert torch.equal(torch.get_rng_state(), random)
    assert torch._C._len_torch_function_stack() == 0
    for module in model.modules():
        assert not any(vars(module)[name] for name in vars(module) if name.endswith("hooks"))
    for before, parameter in zip(gradients, model.parameters(), strict=True):
        assert (before is None) == (parameter.grad is None)
        assert before is None or torch.equal(before, parameter.grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    model, images = SmallViT().eval(), torch.randn(2, 3, 32, 32)
    expected = explain(model, images, 2, normalize="minmax")
    found = explain(copy.deepcopy(model).to(dtype), images.to(dtype), 2, normalize="minmax")
    assert found.dtype == torch.float32
    assert (found - expected).abs().mean() < (0.03 if dtype == torch.bfloat16 else 1e-5)


def masked_attention(model):
    class Masked(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, q, k, v, need_weights=False):
            mask = torch.zeros(q.shape[1], q.shape[1])
            return self.inner(q, k, v, need_weights=False, attn_mask=mask)

    for block in model.blocks:
        block.attention = Masked(block.attention)
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: random_net("mlp"), "got 0 attentions in 0 blocks; use another method"),
        (masked_attention, "got an nn.MultiheadAttention with masks or added tokens"),
    ],
)
def test_networks_that_do_not_fit(change, message):
    model = change(SmallViT().eval())
    with pytest.raises(ValueError, match=f"method: expected a transformer .*'legrad', {message}"):
        explain(model, torch.randn(1, 3, 32, 32), 1)
