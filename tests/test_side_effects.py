"""Networks that write into buffers or draw random numbers: what they answer next is theirs."""

from __future__ import annotations

import copy

import pytest
import torch
from networks.habits import Net, lively
from torch import nn
from torch.nn import functional as F

import pyxai

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


class Writes(Net):
    """Keeps a running mean, counts its calls, assigns a buffer anew."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("latest", torch.zeros(3))

    def forward(self, x):
        self.calls += 1
        self.latest = x.detach().mean((0, 2, 3))
        self.mean.lerp_(self.latest, 0.1)
        return super().forward(x - self.mean.view(1, 3, 1, 1))


class WritesByFunction(Net):
    """Batch norm by its function, told to train."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(24)

    def body(self, x):
        norm = self.norm
        return F.batch_norm(
            super().body(x), norm.running_mean, norm.running_var, norm.weight, norm.bias, True
        )


class Draws(Net):
    def head(self, x):
        return super().head(F.dropout(x, 0.3))


CALLS = {
    "cam": lambda net: pyxai.cam(net, IMAGES),
    "ablationcam": lambda net: pyxai.cam(net, IMAGES, method="ablationcam"),
    "fullgrad": lambda net: pyxai.cam(net, IMAGES, method="fullgrad"),
    "activations": lambda net: pyxai.Classifier(net).activations(IMAGES, "r3"),
    "windows": lambda net: pyxai.sliding_window(net, IMAGES[0], window=16, stride=8),
    "SHAP": lambda net: pyxai.shap_values(net, IMAGES[:1], method="partition", samples=8),
    "masks": lambda net: pyxai.undesirable_pixels(
        net, IMAGES[:1], settings=pyxai.MaskSettings(mask_size=8, steps=2)
    ),
}


@pytest.mark.filterwarnings("ignore::pyxai.attribution.cam.BlankMapWarning")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", [Writes, WritesByFunction, Draws])
def test_buffers_and_random_state_are_as_before(kind, call):
    net = lively(kind())
    net(IMAGES)
    before = {name: (each, each.clone()) for name, each in net.named_buffers()}
    random = torch.get_rng_state()
    for _ in range(2):  # the first call looks at the network
        try:
            CALLS[call](net)
        except ValueError:  # random answers may be refused
            assert kind is Draws
    for name, each in net.named_buffers():
        assert each is before[name][0], name
        assert torch.equal(each, before[name][1]), name
    assert torch.equal(torch.get_rng_state(), random)


def test_an_error_on_the_way_changes_nothing():
    net = lively(Writes())
    before = [each.clone() for each in net.buffers()]
    with pytest.raises(ValueError, match="images: expected"):
        pyxai.cam(net, torch.randn(1, 5, 32, 32))
    assert all(map(torch.equal, before, net.buffers()))


def test_a_network_that_writes_is_explained_as_it_is_at_that_moment():
    net, twin = lively(Writes()), lively(Net())
    twin.load_state_dict(net.state_dict(), strict=False)
    found = pyxai.cam(net, IMAGES[:1], 1, method="gradcam", size=None)
    mean = net.mean.lerp(IMAGES[:1].mean((0, 2, 3)), 0.1)
    seen = IMAGES[:1] - mean.view(1, 3, 1, 1)
    assert torch.allclose(found, pyxai.cam(twin, seen, 1, method="gradcam", size=None), atol=1e-4)


class Reader(nn.Module):
    def __init__(self, mean):
        super().__init__()
        self.register_buffer("mean", mean)
        self.fc = nn.Linear(24, 4)

    def forward(self, x):
        return self.fc(x - self.mean)


class Shares(Net):
    """Another module reads the buffer that this one writes: the same one, or a view of it."""

    def __init__(self, view=False):
        super().__init__()
        self.register_buffer("mean", torch.zeros(24))
        self.reader = Reader(self.mean[:] if view else self.mean)

    def head(self, x):
        x = x.mean((2, 3))
        if len(x):
            self.mean.copy_(x.detach().mean(0))
        return self.reader(x)


class Lists(Net):
    """Writes into a buffer that it also has in a list."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(24))
        self.all = [self.mean]

    def head(self, x):
        x = x.mean((2, 3))
        if len(x):
            self.all[0].mul_(0.9).add_(x.detach().mean(0), alpha=0.1)
        return self.fc(x - self.mean)


class WritesBatches(Net):
    """Writes only for more than one image."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(24))

    def head(self, x):
        if len(x) > 1:
            self.mean.add_(x.detach().mean((0, 2, 3)))
        return super().head(x)


@pytest.mark.parametrize(
    "make", [Shares, lambda: Shares(view=True), Lists, WritesBatches], ids=range(4)
)
def test_buffers_that_are_reached_in_other_ways(make):
    net = lively(make())
    before = net.mean.clone()
    with torch.no_grad():
        expected = copy.deepcopy(net)(IMAGES)
    for _ in range(2):
        _, logits = pyxai.cam(net, IMAGES, 0, method="gradcam", return_logits=True)
        assert torch.allclose(logits, expected, atol=1e-5)
        assert torch.equal(net.mean, before)
