"""The mask kernels against their plain twins, torch's own checks, and each other."""

from __future__ import annotations

import functools

import pytest
import torch
from torch.nn import functional

from pyxai.ops import _native, cam_render, mask_blend, reference

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

SHAPES = [  # masks, channels, h, w, H, W
    (4, 3, 7, 7, 37, 50),
    (2, 3, 7, 7, 100, 224),
    (2, 1, 1, 1, 5, 3),
    (3, 5, 20, 3, 9, 33),  # fewer rows than the mask has
    (2, 3, 50, 2, 11, 1),
    (2, 4, 9, 40, 16, 21),  # fewer columns
    (1, 70, 3, 3, 7, 16),
    (2, 3, 14, 33, 14, 33),  # as they are
    (1, 3, 2, 2, 1, 1),
    (0, 3, 7, 7, 8, 8),
    (2, 0, 4, 4, 8, 8),
]


def assert_blended(found, images, masks, background):
    """Close to the reference: within a rounding of the dtype, and what float32 positions cost."""
    expected = reference.mask_blend(
        images.float(), masks, None if background is None else background.float(), False
    )
    assert found.shape == expected.shape
    if not found.numel():
        return
    terms = images.float().abs().max() + (0 if background is None else background.abs().max())
    exact = terms * (1 + masks.abs().max()) * (1e-6 + 2e-7 * max(masks.shape[1:]))
    error = (found.float() - expected).abs()
    half_step = 0.51 * torch.finfo(found.dtype).eps * expected.abs() + 2**-25
    assert (error <= exact + half_step).all()


def layout(tensor, kind):
    if kind == "sliced":  # every second column of a wider tensor
        wide = tensor.new_zeros(*tensor.shape[:-1], 2 * tensor.shape[-1])
        wide[..., ::2] = tensor
        return wide[..., ::2]
    if kind == "expanded":  # channels without memory of their own
        return tensor[:, :1].expand(tensor.shape)
    return tensor.contiguous(memory_format=FORMATS[kind])


def make_background(kind, count, like):
    """None, a picture or a colour: one for each mask or one for all."""
    if kind is None:
        return None
    size = like.shape[2:] if kind == "picture" else (1, 1)
    return torch.randn(count, like.shape[1], *size, device=like.device).to(like.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("background", [None, "picture", "colour"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_blend(kernels, shape, background, dtype):
    count, channels, *low, height, width = shape
    masks = torch.rand(count, *low, device=kernels) * 1.4 - 0.2  # they are not clamped
    for own in {1, count}:
        images = torch.randn(own, channels, height, width, device=kernels).to(dtype)
        for other in {1, count} if background else {1}:
            behind = make_background(background, other, images)
            for kind in ("contiguous", "channels_last", "sliced"):
                for result in FORMATS.values():
                    found = mask_blend(layout(images, kind), masks, behind, memory_format=result)
                    assert found.dtype == dtype
                    assert found.is_contiguous(memory_format=result)
                    assert_blended(found, images, masks, behind)


@pytest.mark.parametrize("result", FORMATS)
@pytest.mark.parametrize("kind", ["contiguous", "channels_last", "sliced", "expanded"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_layouts_of_the_background(kernels, dtype, kind, result):
    images = torch.randn(2, 3, 13, 21, device=kernels).to(dtype)
    masks = torch.rand(2, 4, 5, device=kernels)
    for size in ((13, 21), (1, 1)):
        behind = layout(torch.randn(2, 3, *size, device=kernels).to(dtype), kind)
        found = mask_blend(images, masks, behind, memory_format=FORMATS[result])
        assert_blended(found, images, masks, behind)
        photos = layout(images, kind)
        found = mask_blend(photos, masks, behind, memory_format=FORMATS[result])
        assert_blended(found, photos, masks, behind)


def test_exact_small_case(device):
    """Worked out by hand: a mask of two values over one row of four pixels."""
    masks = torch.tensor([[[0.0, 1.0]]], device=device)  # 0, 0.25, 0.75, 1 over the row
    images = torch.tensor([[[[4.0, 4, 4, 4]]]], device=device)
    assert mask_blend(images, masks).tolist() == [[[[0, 1, 3, 4]]]]
    behind = torch.tensor([[[[8.0]]]], device=device)
    assert mask_blend(images, masks, behind).tolist() == [[[[8, 7, 5, 4]]]]
    behind = torch.tensor([[[[8.0, 0, 8, 0]]]], device=device)
    assert mask_blend(images, masks, behind).tolist() == [[[[8, 1, 5, 4]]]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_ends_are_exact(kernels, dtype):
    """A mask of ones shows the photo, one of zeros the background, bit for bit."""
    images, behind = torch.randn(2, 1, 3, 19, 35, device=kernels).to(dtype)
    ones = torch.ones(1, 5, 4, device=kernels)
    assert torch.equal(mask_blend(images, ones, behind), images)
    assert torch.equal(mask_blend(images, 0 * ones, behind), behind)
    assert torch.equal(mask_blend(images, ones), images)
    assert not mask_blend(images, 0 * ones).any()


def test_resizing_equals_that_of_maps(kernels):
    """Photos of ones show the resized masks themselves."""
    masks = torch.rand(3, 7, 9, device=kernels)
    found = mask_blend(torch.ones(1, 1, 50, 61, device=kernels), masks)[:, 0]
    torch.testing.assert_close(found, cam_render(masks, (50, 61), minmax=False))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounds_like_torch(kernels, dtype):
    """To nearest, ties to even; subnormal, too large and not a number."""
    limit = torch.finfo(dtype).max
    step = torch.finfo(dtype).smallest_normal
    values = [1 + k * 2.0**-12 for k in range(64)] + [limit, limit * (1 + 2.0**-12), 1e38, -1e38]
    values += [step * k / 64 for k in range(130)] + [torch.nan, 0.0, -0.0]
    # A photo of ones under masks of one value each: the result is the mask, rounded.
    masks = torch.tensor(values, device=kernels)[:, None, None]
    found = mask_blend(torch.ones(1, 1, 2, 17, dtype=dtype, device=kernels), masks)
    expected = masks.to(dtype)[:, None].expand_as(found)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_not_finite_follows_the_formula(kernels, bad):
    images, behind = torch.randn(2, 2, 3, 12, 18, device=kernels)
    masks = torch.rand(2, 3, 4, device=kernels)
    images[0, 1, 5, 6] = behind[1, 2, 0, 17] = bad
    masks[1, 1, 2] = torch.nan
    found = mask_blend(images, masks, behind)
    expected = reference.mask_blend(images, masks, behind, False)
    assert torch.equal(found.isnan(), expected.isnan())
    assert found.isnan().any()
    assert not found[0, 0].isnan().any()


@pytest.mark.parametrize("result", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_bits_for_any_number_of_threads(kernels, threads, dtype, result):
    for own, size in ((1, (224, 224)), (6, (61, 67))):
        images, behind = torch.randn(2, own, 3, *size, device=kernels).to(dtype)
        masks = torch.rand(6, 7, 7, device=kernels)
        results = []
        for count in (1, 2, 3, 7):
            threads(count)
            results.append(mask_blend(images, masks, behind, memory_format=FORMATS[result]))
        assert all(torch.equal(results[0], other) for other in results[1:])


def test_batch_equals_one_by_one(kernels):
    images, behind = torch.randn(2, 5, 3, 40, 70, device=kernels)
    masks = torch.rand(5, 6, 8, device=kernels)
    together = mask_blend(images, masks, behind)
    for n in range(5):
        one = slice(n, n + 1)
        assert torch.equal(together[one], mask_blend(images[one], masks[one], behind[one]))


@pytest.mark.parametrize("result", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_output_is_streamed_correctly(kernels, threads, dtype, result):
    """Beyond the size of the cache other stores are used, where rows are aligned."""
    threads(2)
    masks = torch.rand(70, 5, 6, device=kernels)
    for width in (128, 131):
        images, behind = torch.randn(2, 1, 3, 160, width, device=kernels).to(dtype)
        found = mask_blend(images, masks, behind, memory_format=FORMATS[result])
        for n in (0, 13, 69):
            alone = mask_blend(images, masks[n : n + 1], behind, memory_format=FORMATS[result])
            assert torch.equal(found[n], alone[0])


def test_levels_agree():
    images, behind, masks = *torch.randn(2, 1, 3, 99, 101), torch.rand(3, 7, 7)
    before, results = _native.cpu.simd_level(), []
    try:
        for level in _native.cpu.simd_levels():
            _native.cpu.set_simd_level(level)
            results.append(mask_blend(images, masks, behind))
    finally:
        _native.cpu.set_simd_level(before)
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=0, atol=2e-6)


@pytest.mark.parametrize("shape", [(4, 3, 20, 30), (1, 1, 5, 6)], ids=str)
def test_out(device, shape):
    images, behind = torch.randn(2, 1, *shape[1:], device=device)
    masks = torch.rand(shape[0], 4, 4, device=device)
    expected = mask_blend(images, masks, behind)
    for result in FORMATS.values():
        out = torch.full(shape, -1.0, device=device).contiguous(memory_format=result)
        before = out.stride()
        assert mask_blend(images, masks, behind, out=out) is out
        assert out.stride() == before
        assert torch.equal(out, expected)
        chunk = torch.zeros(2 * shape[0], *shape[1:], device=device)
        chunk = chunk.contiguous(memory_format=result)
        mask_blend(images, masks, behind, out=chunk[: shape[0]])
        assert torch.equal(chunk[: shape[0]], expected)
        assert not chunk[shape[0] :].any()
    double = torch.empty(shape, dtype=torch.float64, device=device)
    mask_blend(images.double(), masks, behind.double(), out=double)
    torch.testing.assert_close(double.float(), expected)


# ---- torch.library ----


# torch 2.15's own opcheck looks at the gradients of copies it has made.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_opcheck(device):
    masks = torch.rand(2, 4, 5, device=device)
    operator = torch.ops.pyxai.mask_blend
    for count in (1, 2):
        images = torch.randn(count, 3, 9, 8, device=device)
        for behind in (None, torch.randn(2, 3, 9, 8, device=device)):
            for channels_last in (False, True):
                torch.library.opcheck(operator, (images, masks, behind, channels_last))
    photos = layout(torch.randn(2, 3, 9, 8, device=device), "sliced").detach().requires_grad_()
    colors = torch.randn(1, 3, 1, 1, device=device, requires_grad=True)
    torch.library.opcheck(operator, (photos, masks.clone().requires_grad_(), colors, True))


def test_gradients_of_the_reference_formulas():
    double = functools.partial(torch.randn, dtype=torch.float64, requires_grad=True)
    masks = double(2, 2, 3)
    for count in (1, 2):
        images = double(count, 2, 3, 4)
        assert torch.autograd.gradcheck(mask_blend, (images, masks))
        for behind in (double(1, 2, 3, 4), double(2, 2, 1, 1)):
            assert torch.autograd.gradcheck(mask_blend, (images, masks, behind))
    small = double(1, 2, 1, 2)  # smaller than the masks
    assert torch.autograd.gradcheck(mask_blend, (small, masks))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["contiguous", "channels_last", "sliced"])
def test_gradients_of_the_kernels(device, kind, dtype):
    """Also for the expanded gradient, without memory of its own, that sum() hands back."""
    images = layout(torch.randn(1, 3, 14, 15, device=device).to(dtype), kind)
    behind = torch.randn(2, 3, 1, 1, device=device).to(dtype)
    masks = torch.rand(2, 4, 5, device=device)
    inputs = [each.detach().requires_grad_() for each in (images, masks, behind)]
    for square in (False, True):
        losses = []
        for function in (mask_blend, lambda *given: reference.mask_blend(*given, False)):
            blended = function(*inputs)
            losses.append((blended**2 if square else blended).sum())
        found = torch.autograd.grad(losses[0], inputs)
        expected = torch.autograd.grad(losses[1], inputs)
        tolerance = 1e-5 if dtype == torch.float32 else 1e-2
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == other.dtype
            scale = other.abs().max().item()
            torch.testing.assert_close(one, other, rtol=0, atol=tolerance * scale)


def test_gradients_of_an_empty_batch(device):
    masks = torch.rand(0, 4, 5, device=device, requires_grad=True)
    images = torch.randn(1, 3, 8, 8, device=device, requires_grad=True)
    mask_blend(images, masks).sum().backward()
    assert masks.grad.shape == masks.shape
    assert not images.grad.any()


class Blended(torch.nn.Module):
    def __init__(self, memory_format=torch.contiguous_format):
        super().__init__()
        self.memory_format = memory_format

    def forward(self, images, masks, background):
        first = mask_blend(images, masks, background, memory_format=self.memory_format)
        return first * 2, mask_blend(images, masks)


@pytest.mark.parametrize("result", FORMATS)
def test_compile_and_export(device, result):
    images = torch.randn(1, 3, 12, 10, device=device)
    masks, behind = torch.rand(2, 4, 4, device=device), torch.randn(1, 3, 1, 1, device=device)
    module = Blended(FORMATS[result])
    expected = module(images, masks, behind)
    exported = torch.export.export(module, (images, masks, behind)).module()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for one in (exported, compiled):
        for found, wanted in zip(one(images, masks, behind), expected, strict=True):
            assert torch.equal(found, wanted)
            assert found.stride() == wanted.stride()
    masks.requires_grad_()
    plain = torch.autograd.grad(module(images, masks, behind)[0].sum(), masks)[0]
    again = torch.autograd.grad(compiled(images, masks, behind)[0].sum(), masks)[0]
    torch.testing.assert_close(again, plain)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")  # the same, from 2.14 on
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_onnx_export_sees_standard_operators(monkeypatch):
    """Both exporters record the reference; elsewhere the operator itself is recorded."""
    inputs = (torch.randn(1, 3, 12, 10), torch.rand(2, 4, 4), torch.randn(1, 3, 1, 1))

    def recorded():
        exported = torch.export.export(Blended(), inputs).graph.nodes
        traced = torch.jit.trace(Blended(), inputs).inlined_graph.nodes()
        names = [str(node.target) for node in exported] + [node.kind() for node in traced]
        return [name for name in names if name.startswith("pyxai")]

    assert recorded() == 2 * ["pyxai.mask_blend.default"] + 2 * ["pyxai::mask_blend"]
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    assert not recorded()


def test_function_transforms_and_modes_see_the_operators():
    from torch.utils.flop_counter import FlopCounterMode

    images, behind, masks = *torch.randn(2, 1, 3, 10, 12), torch.rand(3, 4, 5)
    expected = mask_blend(images, masks, behind)
    mapped = torch.func.vmap(lambda one: mask_blend(images, one[None], behind)[0])(masks)
    torch.testing.assert_close(mapped, expected)
    gradient = torch.func.grad(lambda one: mask_blend(images, one, behind).sum())(masks)
    leaf = masks.clone().requires_grad_()
    mask_blend(images, leaf, behind).sum().backward()
    torch.testing.assert_close(gradient, leaf.grad)
    with FlopCounterMode(display=False):
        mask_blend(images, masks)


def test_inference_mode_and_float64():
    images, masks = torch.randn(2, 3, 8, 8), torch.rand(2, 4, 4)
    with torch.inference_mode():
        assert torch.equal(mask_blend(images, masks), mask_blend(images, masks.clone()))
    double = mask_blend(images.double(), masks, memory_format=torch.channels_last)
    assert double.dtype == torch.float64
    assert double.is_contiguous(memory_format=torch.channels_last)
    resized = functional.interpolate(masks.double()[:, None], (8, 8), mode="bilinear")
    torch.testing.assert_close(double, images.double() * resized)


# ---- bad input ----

IMAGES, MASKS = torch.zeros(2, 3, 8, 9), torch.zeros(2, 4, 5)


@pytest.mark.parametrize(
    ("images", "masks", "background", "message"),
    [
        (IMAGES[0], MASKS, None, r"images: .*\[M or 1, C, H, W\].*\[3, 8, 9\]"),
        (IMAGES[:, :, :0], MASKS, None, r"images: .*H, W >= 1.*\[2, 3, 0, 9\]"),
        (IMAGES.int(), MASKS, None, "images: .*float16.*int32"),
        (IMAGES, MASKS[:1], None, r"images: .*each of 1 masks.*\[2, 3, 8, 9\]"),
        (IMAGES, torch.zeros(3, 4, 5), None, "images: .*each of 3 masks"),
        (IMAGES, MASKS[0], None, r"masks: .*\[M, h, w\].*\[4, 5\]"),
        (IMAGES, MASKS[:, :0], None, r"masks: .*h, w >= 1.*\[2, 0, 5\]"),
        (IMAGES, MASKS.half(), None, "masks: .*float32.*float16"),
        (IMAGES, MASKS.double(), None, "masks: .*float32.*float64"),
        (IMAGES, MASKS, IMAGES[0], r"background: .*\[2 or 1, 3, 8, 9\].*\[3, 8, 9\]"),
        (IMAGES, MASKS, IMAGES[:, :2], r"background: .*\[2 or 1, 3, 1, 1\].*\[2, 2, 8, 9\]"),
        (IMAGES, MASKS, IMAGES[:, :, :1], r"background: .*\[2, 3, 1, 9\]"),
        (IMAGES[:1], MASKS, torch.zeros(3, 3, 8, 9), r"background: .*\[3, 3, 8, 9\]"),
        (IMAGES, MASKS, IMAGES.half(), "background: .*float32, that of the images.*float16"),
        (IMAGES, MASKS.to("meta"), None, "images, masks: .*one device.*cpu.*meta"),
        (IMAGES, MASKS, IMAGES.to("meta"), "images, background: .*one device.*cpu.*meta"),
    ],
)
def test_bad_input(images, masks, background, message):
    with pytest.raises(ValueError, match=message):
        mask_blend(images, masks, background)


def test_bad_memory_format_and_out():
    with pytest.raises(ValueError, match=r"memory_format: .*channels_last, got .*preserve"):
        mask_blend(IMAGES, MASKS, memory_format=torch.preserve_format)
    for out in (
        torch.zeros(2, 3, 8, 8),
        torch.zeros(1, 3, 8, 9),
        torch.zeros(2, 3, 8, 9, dtype=torch.bfloat16),
        torch.zeros(2, 3, 8, 18)[..., ::2],
        torch.zeros(2, 3, 8, 9, device="meta"),
    ):
        with pytest.raises(ValueError, match="out: expected a contiguous or channels_last float32"):
            mask_blend(IMAGES, MASKS, out=out)
    for out, behind in ((IMAGES, None), (other := torch.zeros(2, 3, 8, 9), other)):
        with pytest.raises(ValueError, match="out: expected memory of its own"):
            mask_blend(IMAGES, MASKS, behind, out=out)
    with pytest.raises(ValueError, match="out: expected no gradient"):
        mask_blend(IMAGES, MASKS.clone().requires_grad_(), out=torch.zeros(2, 3, 8, 9))
