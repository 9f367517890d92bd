"""Gradients by the input of convolutions with packed weights, against torch's own."""

from __future__ import annotations

import copy
import itertools
import pickle

import pytest
import torch
from torch import nn

from pyxai import accelerate
from pyxai.engines.torch.backward import backward_convolution
from pyxai.engines.torch.convolution import FastConv2d
from pyxai.engines.torch.packing import Geometry, is_packable

# channels in and out, kernel, stride, padding, dilation, groups
CONVOLUTIONS = [
    (3, 8, 7, 2, 3, 1, 1),
    (3, 8, 3, 2, 1, 1, 1),
    (3, 8, 3, 2, 0, 1, 1),
    (1, 4, 5, 3, 2, 1, 1),
    (4, 6, 2, 2, 0, 1, 1),
    (4, 6, 1, 2, 0, 1, 1),
    (3, 8, 4, 4, 0, 1, 1),
    (3, 8, (3, 5), 2, (0, 2), 1, 1),
    (3, 8, 3, (2, 1), 1, 1, 1),
    (3, 8, 3, 2, 1, 2, 1),
    (8, 8, 3, 1, 1, 1, 1),
    (8, 8, 3, 1, 0, 1, 1),
    (8, 6, 3, 1, 2, 2, 1),
    (8, 8, 1, 1, 0, 1, 1),
    (8, 8, 1, 1, 1, 1, 1),
    (8, 8, (1, 5), 1, (0, 2), 1, 1),
    (8, 12, 3, 1, 1, 1, 4),
    (8, 8, 3, 1, 1, 1, 8),
    (8, 8, 3, 2, 1, 1, 8),
    (8, 8, 3, 2, 1, 1, 1),
]


def pair(numbers, channels_last=True, bias=True, dtype=torch.float32):
    """The same frozen convolution, plain and fast."""
    plain = nn.Conv2d(*numbers[:6], groups=numbers[6], bias=bias).requires_grad_(False).to(dtype)
    if channels_last:
        plain = plain.to(memory_format=torch.channels_last)
    fast = copy.deepcopy(plain)
    fast.__class__ = FastConv2d
    return plain, fast


@pytest.mark.parametrize("numbers", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("size", [(16, 16), (15, 18), (9, 11)])
@pytest.mark.parametrize("channels_last", [True, False])
def test_gradients_are_those_of_torch(numbers, size, channels_last):
    plain, fast = pair(numbers, channels_last)
    images = torch.randn(2, numbers[0], *size)
    inputs = [images.clone().requires_grad_() for _ in range(2)]
    outputs = [layer(each) for layer, each in zip((plain, fast), inputs, strict=True)]
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=1e-5)
    weights = torch.randn_like(outputs[0])
    expected, found = (
        torch.autograd.grad(output, each, weights)[0]
        for output, each in zip(outputs, inputs, strict=True)
    )
    assert found.shape == images.shape
    torch.testing.assert_close(expected, found, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("stride", [2, 3, 4])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("padding", [0, 1, 3])
def test_every_phase_of_a_stride(stride, kernel, padding):
    """Sizes that leave positions behind the last window, which get no gradient, are among these."""
    plain, fast = pair((3, 4, kernel, stride, padding, 1, 1), bias=False)
    assert backward_convolution(fast.weight, fast._geometry()) is not None
    for size in itertools.product((11, 12, 13), (14, 15)):
        image = torch.randn(1, 3, *size, requires_grad=True)
        weights = torch.randn_like(plain(image))
        (expected,) = torch.autograd.grad(plain(image), image, weights)
        (found,) = torch.autograd.grad(fast(image), image, weights)
        torch.testing.assert_close(expected, found, atol=1e-5, rtol=1e-5)


def test_where_there_is_no_such_convolution():
    one, two = (1, 1), (2, 2)
    weight = torch.randn(8, 8, 3, 3)
    assert backward_convolution(weight, Geometry((3, 3), one, one, 1)) is None  # padded further
    assert backward_convolution(weight, Geometry(one, two, one, 1)) is None  # many channels
    few = weight[:, :3]
    assert backward_convolution(few, Geometry(one, (2, 1), one, 1)) is None
    assert backward_convolution(few, Geometry(one, two, two, 1)) is None


def test_gradients_of_gradients():
    plain, fast = pair((3, 8, 3, 2, 1, 1, 1))
    image = torch.randn(1, 3, 9, 9, requires_grad=True)
    found = []
    for layer in (plain, fast):
        output = layer(image).relu()
        (first,) = torch.autograd.grad((output**3).sum(), image, create_graph=True)
        found.append(torch.autograd.grad((first**2).sum(), image)[0])
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    plain, fast = pair((3, 16, 7, 2, 3, 1, 1), dtype=dtype)
    if not is_packable(fast.weight):
        pytest.skip(f"this processor has no instructions for {dtype}")
    image = torch.randn(1, 3, 20, 20).to(dtype).requires_grad_()
    weights = torch.randn_like(plain(image))
    (expected,) = torch.autograd.grad(plain.float()(image.float()), image, weights.float())
    (found,) = torch.autograd.grad(fast(image), image, weights)
    assert found.dtype == dtype
    torch.testing.assert_close(expected.float(), found.float(), atol=0.1, rtol=0.05)


def test_weights_that_learn_get_their_gradients():
    _, fast = pair((3, 4, 3, 1, 1, 1, 1))
    fast.requires_grad_(True)
    fast(torch.randn(1, 3, 6, 6)).sum().backward()
    assert fast.weight.grad is not None
    assert fast.bias.grad is not None


def test_packed_weights_follow_the_weights():
    plain, fast = pair((8, 8, 3, 1, 1, 1, 1))
    for _ in range(2):
        image = torch.randn(1, 8, 6, 6, requires_grad=True)
        (expected,) = torch.autograd.grad(plain(image).sum(), image)
        (found,) = torch.autograd.grad(fast(image).sum(), image)
        torch.testing.assert_close(expected, found, atol=1e-5, rtol=1e-5)
        for layer in (plain, fast):
            layer.weight.mul_(2)
    again = pickle.loads(pickle.dumps(fast))
    torch.testing.assert_close(again(image), plain(image), atol=1e-5, rtol=1e-5)


def test_what_is_kept_for_the_backward_pass():
    """No input of a convolution, and no output."""
    _, fast = pair((8, 8, 3, 1, 1, 1, 1))
    kept = []

    def pack(tensor):
        kept.append(tuple(tensor.shape))
        return tensor

    image = torch.randn(1, 8, 6, 6, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        fast(image)
    assert kept == []


def test_the_way_back_is_the_packed_one(small_net):
    """Else the tests above would compare torch's way with itself."""
    probe = torch.randn(2, 3, 32, 32)
    fast = accelerate(small_net, probe=probe)
    image = probe.clone().requires_grad_()
    (found,) = torch.autograd.grad(fast(image)[:, 2].sum(), image)
    (expected,) = torch.autograd.grad(small_net(image)[:, 2].sum(), image)
    torch.testing.assert_close(expected, found, atol=1e-5, rtol=1e-4)
    layers = [each for each in fast.modules() if isinstance(each, FastConv2d)]
    packed = [each._backward is not None for each in layers]
    assert packed == [each.stride == (1, 1) or each.in_channels == 3 for each in layers]
    assert sum(packed) >= 4
