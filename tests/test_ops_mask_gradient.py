"""The gradient of blending against its plain twin and numerical derivatives."""

from __future__ import annotations

import functools

import pytest
import torch

from pyxai.ops import _native, mask_blend, reference

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
DTYPES = [torch.float32, torch.bfloat16, torch.float16]

SHAPES = [  # masks, channels, h, w, H, W
    (4, 3, 7, 7, 37, 50),
    (2, 3, 28, 28, 100, 224),
    (2, 1, 1, 1, 5, 3),
    (3, 5, 20, 3, 9, 33),  # fewer rows than the mask has
    (2, 3, 50, 2, 11, 1),
    (2, 4, 9, 40, 16, 21),  # fewer columns
    (1, 70, 3, 3, 7, 16),
    (2, 3, 14, 33, 14, 33),  # as they are
    (2, 3, 6, 6, 8, 2),  # as wide as the rows of all channels, but not as they are
    (2, 3, 2, 3, 180, 190),  # several bands
    (2, 3, 3, 150, 10, 300),  # more cells a row than a block has threads
    (0, 3, 7, 7, 8, 8),
    (2, 0, 4, 4, 8, 8),
]


def layout(tensor, kind):
    if kind == "sliced":  # every second column of a wider tensor
        return tensor.repeat_interleave(2, dim=-1)[..., ::2]
    if kind == "expanded":  # channels without memory of their own
        return tensor[:, :1].expand(tensor.shape)
    if kind == "shifted":  # not aligned to vectors
        return torch.cat([tensor.new_zeros(1), tensor.flatten()])[1:].view(tensor.shape)
    return tensor.contiguous(memory_format=FORMATS[kind])


def make(shape, own=None, background=None, dtype=torch.float32, device="cpu"):
    """gradients, images, masks and background; `own` photos, backgrounds of them as many."""
    count, channels, *low, height, width = shape
    own = count if own is None else own
    gradients, images, behind = (
        torch.randn(each, channels, height, width, device=device).to(dtype)
        for each in (count, own, own)
    )
    if background == "colour":
        behind = torch.randn(own, channels, 1, 1, device=device).to(dtype)
    masks = torch.rand(count, *low, device=device) * 1.4 - 0.2
    return gradients, images, masks, behind if background else None


def found_gradients(gradients, images, masks, background, result="contiguous"):
    """By images, masks and background, through autograd."""
    inputs = [
        each.detach().requires_grad_() for each in (images, masks, background) if each is not None
    ]
    blended = mask_blend(*inputs, memory_format=FORMATS[result])
    return torch.autograd.grad(blended, inputs, gradients)


def expected_gradients(gradients, images, masks, background):
    wide = [None if each is None else each.double() for each in (images, masks, background)]
    return reference.mask_blend_backward(
        gradients.double(), *wide, False, [True, True, background is not None]
    )


def assert_gradients(found, wanted, images, masks, background):
    inputs = [each for each in (images, masks, background) if each is not None]
    for one, like, other in zip(found, inputs, wanted, strict=False):
        assert one.dtype == like.dtype
        assert one.shape == like.shape == other.shape
        if not one.numel():
            continue
        # Terms of both signs cancel, so errors are relative to the greatest sum; and a rounding.
        most = other.abs().max() + 1e-3
        error = (one.double() - other).abs()
        assert (error <= 5e-6 * most + 0.51 * torch.finfo(one.dtype).eps * other.abs()).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("background", [None, "picture", "colour"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients(kernels, shape, background, dtype):
    for own in {1, shape[0]}:
        given = make(shape, own, background, dtype, kernels)
        wanted = expected_gradients(*given)
        for result in FORMATS:
            found = found_gradients(layout(given[0], result), *given[1:], result)
            assert_gradients(found, wanted, *given[1:])


@pytest.mark.parametrize("result", FORMATS)
@pytest.mark.parametrize("kind", ["contiguous", "channels_last", "sliced", "expanded", "shifted"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [21, 24])  # 24: whole vectors
def test_layouts(kernels, width, dtype, kind, result):
    """Of the gradient, the photos and the background, each in turn."""
    given = make((2, 3, 4, 5, 13, width), 2, "picture", dtype, kernels)
    for which in (0, 1, 3):
        some = list(given)
        some[which] = layout(some[which], kind)
        assert_gradients(found_gradients(*some, result), expected_gradients(*some), *some[1:])


def test_gradient_by_hand(device):
    """A mask of two cells over four pixels: they take 1, 0.75, 0.25, 0 of the first."""
    masks = torch.tensor([[[0.0, 1.0]]], device=device, requires_grad=True)
    images = torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]], device=device, requires_grad=True)
    mask_blend(images, masks).sum().backward()
    assert masks.grad.tolist() == [[[1 + 1.5 + 0.75, 0.5 + 2.25 + 4]]]
    assert images.grad.tolist() == [[[[0, 0.25, 0.75, 1]]]]
    behind = torch.tensor([[[[1.0]]]], device=device, requires_grad=True)
    mask_blend(images, masks, behind).sum().backward()
    assert behind.grad.item() == pytest.approx(2)


def test_only_what_is_asked_for(device):
    gradients, images, masks, behind = make((2, 3, 4, 5, 12, 14), 1, "picture", device=device)
    operator = torch.ops.pyxai.mask_blend_backward
    everything = operator(gradients, images, masks, behind, False, [True, True, True])
    for which in range(3):
        wanted = [index == which for index in range(3)]
        found = operator(gradients, images, masks, behind, False, wanted)
        assert [each.numel() > 0 for each in found] == wanted
        assert torch.equal(found[which], everything[which])
    leaf = masks.clone().requires_grad_()
    blended = mask_blend(images, leaf, behind)
    (alone,) = torch.autograd.grad(blended, leaf, gradients)
    assert torch.equal(alone, everything[1])


@pytest.mark.parametrize("result", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_bits_for_any_number_of_threads(kernels, threads, dtype, result):
    for own, background in ((1, "colour"), (5, "picture"), (1, "picture")):
        given = make((5, 3, 7, 9, 190, 201), own, background, dtype, kernels)
        gradients = layout(given[0], result)
        results = []
        for count in (1, 2, 3, 7):
            threads(count)
            results.append(found_gradients(gradients, *given[1:], result))
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))


def test_batch_equals_one_by_one(kernels):
    given = make((4, 3, 6, 8, 150, 170), 4, "picture", device=kernels)
    together = found_gradients(*given)
    for n in range(4):
        alone = found_gradients(*(each[n : n + 1] for each in given))
        assert torch.equal(together[0][n], alone[0][0])
        assert torch.equal(together[1][n], alone[1][0])
        torch.testing.assert_close(together[2][n], alone[2][0])


def test_levels_agree():
    given, results = make((3, 3, 7, 7, 99, 101), 1, "colour"), []
    before = _native.cpu.simd_level()
    try:
        for level in _native.cpu.simd_levels():
            _native.cpu.set_simd_level(level)
            results.append(found_gradients(*given))
    finally:
        _native.cpu.set_simd_level(before)
    for other in results[1:]:
        for found, wanted in zip(other, results[0], strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=5e-6 * wanted.abs().max().item())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_not_finite_stays_where_it_reaches(kernels, bad):
    """A pixel spoils the cells around it, and only these."""
    gradients, images, masks, _ = make((2, 3, 4, 5, 40, 50), device=kernels)
    images[1, 2, 5, 6] = bad  # between the rows 0 and 1, the columns 0 and 1
    found = found_gradients(gradients, images, masks, None)[1]
    wrong = torch.zeros_like(found, dtype=torch.bool)
    wrong[1, :2, :2] = True
    assert torch.equal(~found.isfinite(), wrong)


@pytest.mark.parametrize("shape", [(0, 3, 4, 5, 8, 9), (2, 0, 4, 5, 8, 9)], ids=str)
def test_empty(device, shape):
    gradients, images, masks, behind = make(shape, 1, "colour", device=device)
    found = found_gradients(gradients, images, masks, behind)
    for one, like in zip(found, (images, masks, behind), strict=True):
        assert one.shape == like.shape
        assert not one.any()


# ---- torch.library ----


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("own", [1, 2])
def test_opcheck(device, own, channels_last):
    operator = torch.ops.pyxai.mask_blend_backward
    for background in (None, "picture", "colour"):
        given = make((2, 3, 4, 5, 9, 8), own, background, device=device)
        for wanted in ([True, True, background is not None], [False, True, False]):
            torch.library.opcheck(operator, (*given, channels_last, wanted))


def test_gradients_of_the_reference():
    double = functools.partial(torch.randn, dtype=torch.float64, requires_grad=True)
    masks = double(2, 2, 3)
    for own in (1, 2):
        for size in ((3, 4), (1, 1)):
            inputs = (double(own, 2, 3, 4), masks, double(own, 2, *size))
            assert torch.autograd.gradcheck(mask_blend, inputs)


def test_registered_operator_and_function_agree(device):
    """What compiled code and what plain calls go through."""
    gradients, images, masks, behind = make((2, 3, 4, 5, 12, 14), 1, "picture", device=device)
    plain = found_gradients(gradients, images, masks, behind)
    compiled = torch.compile(mask_blend, fullgraph=True, backend="aot_eager")
    inputs = [each.clone().requires_grad_() for each in (images, masks, behind)]
    found = torch.autograd.grad(compiled(*inputs), inputs, gradients)
    for one, other in zip(found, plain, strict=True):
        assert torch.equal(one, other)
