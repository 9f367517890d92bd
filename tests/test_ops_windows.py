"""The window kernels against their plain twins, torch's own checks, and each other."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from pyxai.ops import _native, crop_windows, reference, window_heatmap
from pyxai.ops.windows import HEATMAP

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
PHOTO_DTYPES = [torch.uint8, *DTYPES]


def make_photo(channels, height, width, dtype, layout="planar", device="cpu"):
    """Values of 0 to 255 in bytes, of about -2 to 2 in floats."""
    pixels = torch.randint(0, 256, (height, width, channels), device=device)
    pixels = pixels.to(torch.uint8) if dtype == torch.uint8 else (pixels / 64 - 2).to(dtype)
    photo = pixels.permute(2, 0, 1)
    if layout == "interleaved":  # [H, W, C] in memory
        return photo
    if layout == "sliced":  # every second column of a wider photo
        wide = photo.new_zeros(channels, height, 2 * width)
        wide[..., ::2] = photo
        return wide[..., ::2]
    if layout == "transposed":  # columns lie one after the other
        return photo.transpose(1, 2).contiguous().transpose(1, 2)
    return photo.contiguous()


def random_boxes(count, height, width, size=None, device="cpu"):
    """Boxes anywhere in a photo; of all sizes, or of one."""
    edges = []
    for length, side in zip((width, height), size or (None, None), strict=True):
        first = torch.randint(0, length, (count,)) if side is None else None
        if side is None:
            second = (first + 1 + torch.randint(0, length, (count,))).clamp(max=length)
        else:
            first = torch.randint(0, length - side + 1, (count,))
            second = first + side
        edges.append((first, second))
    (x0, x1), (y0, y1) = edges
    return torch.stack((x0, y0, x1, y1), dim=1).to(device)


def numbers(channels):
    """mean and std for that many channels."""
    return [0.1 * c + 0.3 for c in range(channels)], [0.5 + 0.1 * c for c in range(channels)]


def assert_cropped(found, photo, boxes, mean, std):
    """Close to the reference: within a rounding of the dtype, and what float32 positions cost."""
    expected = reference.crop_windows(
        photo if photo.dtype == torch.uint8 else photo.float(),
        boxes.to(photo.device),
        found.shape[2:],
        mean or [],
        std or [],
        torch.float32,
        False,
    )
    assert found.shape == expected.shape
    half_step = 0.51 * torch.finfo(found.dtype).eps * expected.abs() + 2**-25
    assert ((found.float() - expected).abs() <= 3e-7 * max(photo.shape[1:]) + half_step).all()


SIZES = [  # channels, photo, windows
    (3, (37, 50), (20, 33)),
    (3, (50, 41), (1, 1)),
    (1, (30, 130), (64, 16)),
    (5, (9, 20), (9, 20)),
    (4, (1, 60), (3, 130)),
    (3, (60, 1), (70, 2)),
    (3, (8, 400), (3, 5)),  # shrunk so far that sources of neighbours lie far apart
    (40, (7, 6), (10, 11)),
]


@pytest.mark.parametrize("dtype", PHOTO_DTYPES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_crop(kernels, sizes, dtype):
    channels, size, window = sizes
    mean, std = numbers(channels)
    for layout in ("planar", "interleaved", "sliced", "transposed"):
        photo = make_photo(channels, *size, dtype, layout, kernels)
        for count in (1, 7):  # few and many: the photo is rearranged piece by piece, or at once
            boxes = random_boxes(count, *size, device=kernels)
            boxes[-1] = torch.tensor((0, 0, size[1], size[0]))
            for result in FORMATS.values():
                found = crop_windows(photo, boxes, window, mean=mean, std=std, memory_format=result)
                assert found.dtype == (torch.float32 if dtype == torch.uint8 else dtype)
                assert found.is_contiguous(memory_format=result)
                assert_cropped(found, photo, boxes, mean, std)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("photo_dtype", PHOTO_DTYPES)
def test_cut_as_they_are(kernels, photo_dtype, dtype):
    """Boxes of one size, without resizing: slices of the photo, normalised or not."""
    divisor = 255 if photo_dtype == torch.uint8 else 1
    for channels, side, layout in ((3, 17, "planar"), (1, 16, "sliced"), (2, 48, "interleaved")):
        mean, std = numbers(channels)
        photo = make_photo(channels, 60, 70, photo_dtype, layout, kernels)
        boxes = random_boxes(9, 60, 70, (side, side + 3))
        cut = torch.stack([photo[:, y0:y1, x0:x1] for x0, y0, x1, y1 in boxes.tolist()])
        for result in FORMATS.values():
            options = {"dtype": dtype, "memory_format": result}
            found = crop_windows(photo, boxes, mean=mean, std=std, **options)
            assert found.shape == (9, channels, side + 3, side)
            assert found.dtype == dtype
            assert_cropped(found, photo, boxes, mean, std)
            plain = crop_windows(photo, boxes, **options)
            exact = divisor == 1  # of bytes, x * (1 / 255) may differ from x / 255 in the last bit
            step = 0 if exact else torch.finfo(dtype).eps
            expected = (cut.float() / divisor).to(dtype)
            torch.testing.assert_close(plain, expected, rtol=step, atol=0)


@pytest.mark.parametrize("result", FORMATS)
@pytest.mark.parametrize("window", [(224, 224), (160, 99), (31, 77), (1, 5), 13], ids=str)
def test_resizing_equals_interpolate(kernels, window, result):
    photo = make_photo(3, 200, 180, torch.uint8, "interleaved", kernels)
    boxes = random_boxes(6, 200, 180, device=kernels)
    mean, std = numbers(3)
    found = crop_windows(photo, boxes, window, mean=mean, std=std, memory_format=FORMATS[result])
    mean, std = (torch.tensor(each, device=kernels)[:, None, None] for each in (mean, std))
    whole = (photo.float() / 255 - mean) / std
    for one, (x0, y0, x1, y1) in zip(found, boxes.tolist(), strict=True):
        cut = whole[None, :, y0:y1, x0:x1]
        wanted = functional.interpolate(cut, window, mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(one, wanted, rtol=0, atol=5e-5)


def test_exact_small_case(device):
    """Worked out by hand: four pixels become two, and eight."""
    photo = torch.tensor([[[10, 20, 40, 80]]], dtype=torch.uint8, device=device)
    boxes = torch.tensor([[0, 0, 4, 1]])
    halved = crop_windows(photo, boxes, (1, 2), std=[1 / 255])
    assert halved.flatten().tolist() == pytest.approx([15, 60])
    doubled = crop_windows(photo.float(), boxes, (1, 8), mean=[10.0], std=[2.0])
    assert doubled.flatten().tolist() == [0, 1.25, 3.75, 7.5, 12.5, 20, 30, 35]
    assert crop_windows(photo.float(), torch.tensor([[2, 0, 3, 1]])).tolist() == [[[[40]]]]


@pytest.mark.parametrize("dtype", PHOTO_DTYPES)
def test_same_bits_for_any_number_of_threads(kernels, threads, dtype):
    photo = make_photo(3, 130, 150, dtype, "interleaved", kernels)
    for count, window in ((1, (200, 170)), (23, (64, 64))):
        boxes = random_boxes(count, 130, 150, device=kernels)
        for result in FORMATS.values():
            results = []
            for number in (1, 2, 3, 7):
                threads(number)
                results.append(crop_windows(photo, boxes, window, memory_format=result))
            assert all(torch.equal(results[0], other) for other in results[1:])


def test_each_window_is_independent_of_the_others(kernels):
    photo = make_photo(3, 90, 80, torch.uint8, "interleaved", kernels)
    boxes = random_boxes(8, 90, 80, device=kernels)
    boxes[3] = torch.tensor((5, 6, 5 + 33, 6 + 40))
    for result in FORMATS.values():
        together = crop_windows(photo, boxes, (40, 33), memory_format=result)
        for n in range(8):
            alone = crop_windows(photo, boxes[n : n + 1], (40, 33), memory_format=result)
            assert torch.equal(together[n], alone[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("result", FORMATS)
def test_large_output_is_streamed_correctly(kernels, threads, dtype, result):
    """Beyond the size of the cache other stores are used, where rows are aligned."""
    threads(2)
    photo = make_photo(3, 150, 140, torch.uint8, "planar", kernels)
    boxes = random_boxes(110, 150, 140, (128, 128), kernels)
    for window in (128, (128, 96), (128, 97)):
        found = crop_windows(photo, boxes, window, dtype=dtype, memory_format=FORMATS[result])
        for n in (0, 13, 109):
            alone = crop_windows(
                photo, boxes[n : n + 1], window, dtype=dtype, memory_format=FORMATS[result]
            )
            assert torch.equal(found[n], alone[0])


def at_each_level(call):
    """What the call returns with each instruction set."""
    before, results = _native.cpu.simd_level(), []
    try:
        for level in _native.cpu.simd_levels():
            _native.cpu.set_simd_level(level)
            results.append(call())
    finally:
        _native.cpu.set_simd_level(before)
    return results


def test_levels_agree():
    photo, boxes = make_photo(3, 99, 101, torch.uint8), random_boxes(9, 99, 101)
    results = at_each_level(lambda: crop_windows(photo, boxes, (50, 70)))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=0, atol=2e-6)


def test_not_finite_values_stay_where_they_are(kernels):
    photo = make_photo(3, 30, 40, torch.float32, device=kernels)
    photo[0, 5, 6], photo[1, 20, 30] = torch.nan, torch.inf
    boxes = torch.tensor([[0, 0, 20, 15], [20, 15, 40, 30]])
    cut = crop_windows(photo, boxes)
    assert torch.equal(cut[1], photo[:, 15:, 20:])
    assert cut[0].isnan().sum() == 1
    resized = crop_windows(photo, boxes, (22, 31))
    expected = reference.crop_windows(
        photo, boxes.to(kernels), (22, 31), [], [], torch.float32, False
    )
    assert torch.equal(resized.isfinite(), expected.isfinite())
    assert 0 < resized.isnan().sum() < 40


def test_channels_that_share_memory(kernels):
    """A grey photo as three channels, and one of a single colour."""
    gray = make_photo(1, 30, 40, torch.uint8, device=kernels)
    boxes = random_boxes(5, 30, 40)
    for photo in (gray.expand(3, -1, -1), gray[:, :1, :1].expand(3, 30, 40)):
        for result in FORMATS.values():
            found = crop_windows(photo, boxes, (17, 20), memory_format=result)
            assert torch.equal(found, crop_windows(photo.clone(), boxes, (17, 20)))


def test_out(device):
    photo = make_photo(3, 40, 50, torch.uint8, device=device)
    boxes = random_boxes(4, 40, 50)
    expected = crop_windows(photo, boxes, 24)
    for result in FORMATS.values():
        out = torch.full((4, 3, 24, 24), -1.0, device=device).contiguous(memory_format=result)
        before = out.stride()
        assert crop_windows(photo, boxes, 24, out=out) is out
        assert out.stride() == before
        torch.testing.assert_close(out, expected)
        ring = torch.zeros(8, 3, 24, 24, device=device).contiguous(memory_format=result)
        crop_windows(photo, boxes, 24, out=ring[:4])
        assert torch.equal(ring[:4], out)
        assert not ring[4:].any()
    double = torch.empty(4, 3, 24, 24, dtype=torch.float64, device=device)
    assert crop_windows(photo.double() / 255, boxes, 24, out=double) is double
    torch.testing.assert_close(double.float(), expected)


def test_no_boxes(kernels):
    photo, none = make_photo(3, 8, 9, torch.uint8, device=kernels), torch.empty(0, 4).long()
    assert crop_windows(photo, none, (5, 6)).shape == (0, 3, 5, 6)
    assert crop_windows(photo, none).shape == (0, 3, 0, 0)
    out = torch.empty(0, 3, 5, 6, device=kernels)
    assert crop_windows(photo, none, (5, 6), out=out) is out
    maps = window_heatmap(torch.empty(2, 0, device=kernels), none, (3, 4))
    assert maps.shape == (2, 3, 4)
    assert maps.isnan().all()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA: no device")
def test_boxes_on_cuda_are_moved_into_the_photo():
    photo = make_photo(3, 20, 30, torch.uint8, device="cuda")
    boxes = torch.tensor([[-5, -5, 10, 10], [25, 15, 99, 99], [7, 7, 7, 7], [99, 99, 0, 0]])
    inside = torch.tensor([[0, 0, 10, 10], [25, 15, 30, 20], [7, 7, 8, 8], [29, 19, 30, 20]])
    moved = crop_windows(photo, boxes.cuda(), (6, 7))
    assert torch.equal(moved, crop_windows(photo, inside, (6, 7)))
    scores = torch.randn(4, device="cuda")
    moved = window_heatmap(scores, boxes.cuda(), (20, 30))
    assert torch.equal(moved.cpu(), window_heatmap(scores.cpu(), inside, (20, 30)))


# ---- heat maps ----


def naive_heatmap(scores, boxes, size):
    """Every window paints every one of its pixels."""
    sums = torch.zeros(len(scores), *size, dtype=torch.float64)
    count = torch.zeros(size)
    for n, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        sums[:, y0:y1, x0:x1] += scores[:, n, None, None].double()
        count[y0:y1, x0:x1] += 1
    return sums / count


@pytest.mark.parametrize("maps", [1, 5])
@pytest.mark.parametrize(
    "size", [(37, 50), (1, 1), (1, 90), (80, 1), (6, 520), (70, 1030)], ids=str
)
@pytest.mark.parametrize("count", [1, 2, 300, 3000])
def test_heatmap(kernels, count, size, maps):
    scores = 1e3 * torch.randn(maps, count, device=kernels)
    boxes = random_boxes(count, *size)
    found = window_heatmap(scores, boxes, size)
    expected = naive_heatmap(scores.cpu(), boxes, size)
    assert torch.equal(found.isnan().cpu(), expected.isnan())
    torch.testing.assert_close(found.cpu().double(), expected, rtol=1e-6, atol=1e-9, equal_nan=True)
    plain = reference.window_heatmap(scores, boxes.to(kernels), size)
    torch.testing.assert_close(found, plain, equal_nan=True)
    assert torch.equal(window_heatmap(scores[0], boxes, size).nan_to_num(), found[0].nan_to_num())


def test_exact_small_heatmap(kernels):
    """Worked out by hand: two windows that overlap in one pixel, and a corner without any."""
    boxes = torch.tensor([[0, 0, 2, 2], [1, 1, 3, 3]])
    found = window_heatmap(torch.tensor([1.0, 4.0], device=kernels), boxes, (3, 3))
    expected = torch.tensor([[1, 1, torch.nan], [1, 2.5, 4], [torch.nan, 4, 4]])
    assert torch.equal(found.isnan().cpu(), expected.isnan())
    assert torch.equal(found.nan_to_num().cpu(), expected.nan_to_num())


@pytest.mark.parametrize("fill", [0.0, -2.5, 3.0e38])
def test_heatmap_with_fill(kernels, fill):
    scores, boxes = torch.randn(2, 3, device=kernels), random_boxes(3, 40, 600)
    found = window_heatmap(scores, boxes, (40, 600), fill=fill)
    expected = window_heatmap(scores, boxes, (40, 600))
    assert expected.isnan().any()
    assert torch.equal(found, torch.where(expected.isnan(), fill, expected))
    double = window_heatmap(scores.double(), boxes, (40, 600), fill=fill)
    torch.testing.assert_close(found.double(), double, rtol=1e-6, atol=1e-9)


def test_heatmap_depends_on_neither_order_nor_threads(kernels, threads):
    scores, boxes = torch.randn(40, 500, device=kernels), random_boxes(500, 60, 70)
    results = []
    for count in (1, 2, 3, 7):
        threads(count)
        order = torch.randperm(500)
        results.append(window_heatmap(scores[:, order.to(kernels)], boxes[order], (60, 70)))
    assert all(torch.equal(results[0].nan_to_num(), other.nan_to_num()) for other in results[1:])


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1.0, 1e38])
def test_heatmap_of_any_magnitude(kernels, scale):
    """Also of subnormal scores and of those whose sum would overflow."""
    scores = torch.tensor([1.0, 3.0, -2.0], device=kernels) * scale
    boxes = torch.tensor([[0, 0, 2, 1], [0, 0, 2, 1], [1, 0, 2, 1]])
    found = window_heatmap(scores, boxes, (1, 2)).double().cpu()
    values = scores.double().cpu()
    expected = torch.stack((values[:2].mean(), values.mean()))[None]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=2e-45)


def test_heatmap_of_zeros_and_out(kernels):
    boxes = torch.tensor([[0, 0, 2, 2]])
    out = torch.full((3, 2, 3), 7.0, device=kernels)
    found = window_heatmap(torch.zeros(3, 1, device=kernels), boxes, (2, 3), out=out)
    assert found is out
    assert not out[..., :2].any()
    assert out[..., 2].isnan().all()


# ---- torch.library ----


# torch 2.15's own opcheck looks at the gradients of copies it has made.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_opcheck(device):
    boxes = random_boxes(3, 9, 8, device=device)
    boxes[0] = torch.tensor((0, 0, 8, 9))  # a map without NaN, which opcheck would not compare
    for dtype, channels_last in ((torch.uint8, False), (torch.float32, True)):
        photo = make_photo(2, 9, 8, dtype, "interleaved", device)
        if dtype == torch.float32:
            photo = photo.detach().requires_grad_()
        options = ((4, 5), [0.5, 0.4], [0.2, 0.3], torch.float32, channels_last)
        torch.library.opcheck(torch.ops.pyxai.crop_windows, (photo, boxes, *options))
    for shape in ((3,), (2, 3)):
        scores = torch.randn(shape, device=device, requires_grad=True)
        torch.library.opcheck(torch.ops.pyxai.window_heatmap, (scores, boxes, (9, 8), 0.0))


def test_gradients_of_the_reference_formulas():
    photo = torch.randn(2, 6, 7, dtype=torch.float64, requires_grad=True)
    boxes = random_boxes(3, 6, 7)
    for size in ((2, 3), (8, 9), (6, 7)):
        assert torch.autograd.gradcheck(
            lambda given, size=size: crop_windows(given, boxes, size, std=[0.5, 2]), photo
        )
    scores = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda given: window_heatmap(given, boxes, (6, 7)).nan_to_num(), scores
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_of_the_kernels(device, dtype):
    """Windows overlap, so gradients add up; also that of sum(), without memory of its own."""
    photo = make_photo(3, 14, 15, dtype, "interleaved", device).detach().requires_grad_()
    boxes = random_boxes(6, 14, 15)
    options = ((8, 9), [0.1, 0.2, 0.3], [2.0, 3.0, 4.0], dtype, True)
    found = crop_windows(
        photo, boxes, (8, 9), mean=options[1], std=options[2], memory_format=torch.channels_last
    )
    expected = reference.crop_windows(photo, boxes.to(device), *options)
    for loss in (torch.sum, lambda each: (each.float() ** 2).sum()):
        one, other = (
            torch.autograd.grad(loss(each), photo, retain_graph=True)[0]
            for each in (found, expected)
        )
        assert one.dtype == dtype
        tolerance = 1e-5 if dtype == torch.float32 else 2e-2
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * other.abs().max().item())


def test_gradient_of_the_heatmap_is_spread_over_each_window():
    """Worked out by hand: a pixel under two windows gives half of its gradient to each."""
    scores = torch.tensor([5.0, 7.0], requires_grad=True)
    boxes = torch.tensor([[0, 0, 2, 2], [1, 1, 3, 3]])
    window_heatmap(scores, boxes, (3, 3)).nan_to_num().sum().backward()
    assert scores.grad.tolist() == [3.5, 3.5]


class Windows(torch.nn.Module):
    def forward(self, photo, boxes, scores):
        cut = crop_windows(photo, boxes, (6, 7), mean=[0.5] * 3, memory_format=torch.channels_last)
        return cut * 2, window_heatmap(scores, boxes, (12, 10))


def test_compile_and_export(device):
    photo = make_photo(3, 12, 10, torch.uint8, device=device)
    boxes = random_boxes(4, 12, 10, device=device)
    scores = torch.randn(2, 4, device=device)
    module = Windows()
    expected = module(photo, boxes, scores)
    exported = torch.export.export(module, (photo, boxes, scores)).module()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for one in (exported, compiled):
        for found, wanted in zip(one(photo, boxes, scores), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)
            assert found.stride() == wanted.stride()
    count = torch.export.Dim("count")
    shapes = (None, {0: count}, {1: count})
    dynamic = torch.export.export(module, (photo, boxes, scores), dynamic_shapes=shapes).module()
    more, scored = random_boxes(7, 12, 10, device=device), torch.randn(2, 7, device=device)
    wanted = module(photo, more, scored)[0]
    assert torch.equal(dynamic(photo, more, scored)[0], wanted)
    scores.requires_grad_()
    plain = torch.autograd.grad(module(photo, boxes, scores)[1].nansum(), scores)[0]
    again = torch.autograd.grad(compiled(photo, boxes, scores)[1].nansum(), scores)[0]
    torch.testing.assert_close(again, plain)


def test_compiled_windows_need_a_size():
    compiled = torch.compile(crop_windows, backend="eager", fullgraph=True)
    with pytest.raises(Exception, match=r"size: expected \(height, width\), as boxes"):
        compiled(torch.zeros(3, 8, 9), torch.tensor([[0, 0, 4, 4]]))


def test_function_transforms_inference_mode_and_float64():
    photos = torch.rand(2, 3, 12, 10)
    boxes, scores = random_boxes(4, 12, 10), torch.randn(3, 4)
    expected = torch.stack([crop_windows(each, boxes, (5, 6)) for each in photos])
    mapped = torch.func.vmap(lambda each: crop_windows(each, boxes, (5, 6)))(photos)
    torch.testing.assert_close(mapped, expected)
    maps = window_heatmap(scores, boxes, (12, 10))
    mapped = torch.func.vmap(lambda each: window_heatmap(each, boxes, (12, 10)))(scores)
    torch.testing.assert_close(mapped, maps, equal_nan=True)
    with torch.inference_mode():
        assert torch.equal(crop_windows(photos[0], boxes, (5, 6)), expected[0])
    double = crop_windows(photos[0].double(), boxes, (5, 6), memory_format=torch.channels_last)
    assert double.dtype == torch.float64
    assert double.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(double.float(), expected[0])
    double = window_heatmap(scores.double(), boxes, (12, 10))
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), maps, equal_nan=True)


# ---- bad input ----

PHOTO, BOXES = torch.zeros(3, 8, 9), torch.tensor([[0, 0, 4, 5], [1, 2, 9, 8]])


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((PHOTO[0], BOXES, 4), {}, r"photo: .*\[C, H, W\].*\[8, 9\]"),
        ((PHOTO[:, :0], BOXES, 4), {}, r"photo: .*H, W >= 1.*\[3, 0, 9\]"),
        ((PHOTO.int(), BOXES, 4), {}, "photo: .*uint8.*int32"),
        ((PHOTO, BOXES.int(), 4), {}, r"boxes: .*int64 tensor \[n, 4\].*int32"),
        ((PHOTO, BOXES[0], 4), {}, r"boxes: .*\[n, 4\].*\[4\]"),
        ((PHOTO, BOXES + 1, 4), {}, r"boxes: .*x1 <= 9 .*y1 <= 8, got \[2, 3, 10, 9\] \(box 1\)"),
        ((PHOTO, BOXES - 1, 4), {}, r"boxes: .*got \[-1, -1, 3, 4\] \(box 0\)"),
        ((PHOTO, BOXES[:, [2, 1, 0, 3]], 4), {}, r"boxes: .*got \[4, 0, 0, 5\] \(box 0\)"),
        ((PHOTO, BOXES[:, [0, 1, 2, 1]], 4), {}, r"boxes: .*got \[0, 0, 4, 0\] \(box 0\)"),
        ((PHOTO, BOXES.to("meta"), 4), {}, "photo, boxes: .*one device.*cpu.*meta"),
        ((PHOTO, BOXES), {}, "size: .*several sizes, got None"),
        ((PHOTO, BOXES, (4, 0)), {}, r"size: .*at least 1, got \(4, 0\)"),
        ((PHOTO, BOXES, 0), {}, "size: .*at least 1, got 0"),
        ((PHOTO, BOXES, 4), {"mean": [1.0]}, r"mean: .*3 finite numbers.*\[1.0\]"),
        ((PHOTO, BOXES, 4), {"std": [1, 2, torch.nan]}, "std: .*3 finite numbers"),
        ((PHOTO, BOXES, 4), {"std": [1, 2, 0]}, r"std: .*above 0, got \[1.0, 2.0, 0.0\]"),
        ((PHOTO, BOXES, 4), {"dtype": torch.int32}, "dtype: .*bfloat16.*int32"),
        ((PHOTO, BOXES, 4), {"dtype": torch.float64}, "dtype: .*of float64.*float64"),
        ((PHOTO, BOXES, 4), {"memory_format": torch.preserve_format}, "memory_format: .*preserve"),
    ],
)
def test_bad_windows(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        crop_windows(*arguments, **options)


def test_bad_out():
    for out in (
        torch.zeros(2, 3, 4, 5),
        torch.zeros(2, 3, 4, 4, dtype=torch.bfloat16),
        torch.zeros(2, 3, 4, 8)[..., ::2],
        torch.zeros(2, 3, 4, 4, device="meta"),
    ):
        with pytest.raises(ValueError, match="out: expected a contiguous or channels_last float32"):
            crop_windows(PHOTO, BOXES, 4, out=out)
    whole = torch.tensor([[0, 0, 9, 8]])
    with pytest.raises(ValueError, match="out: expected memory of its own"):
        crop_windows(PHOTO, whole, out=PHOTO[None])
    with pytest.raises(ValueError, match="out: expected no gradient"):
        crop_windows(PHOTO.clone().requires_grad_(), BOXES, 4, out=torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"out: expected a contiguous float32 tensor \[8, 9\]"):
        window_heatmap(torch.zeros(2), BOXES, (8, 9), out=torch.zeros(9, 8))


@pytest.mark.parametrize(
    ("scores", "boxes", "size", "message"),
    [
        (torch.zeros(2, 2, 2), BOXES, (8, 9), r"scores: .*\[n\] or \[k, n\].*\[2, 2, 2\]"),
        (torch.zeros(2).half(), BOXES, (8, 9), "scores: .*float32 or float64.*float16"),
        (torch.zeros(3), BOXES, (8, 9), r"scores: .*each of 2 boxes.*\[3\]"),
        (torch.tensor([0, torch.nan]), BOXES, (8, 9), "scores: .*finite"),
        (torch.tensor([-torch.inf, 0]).double(), BOXES, (8, 9), "scores: .*finite"),
        (torch.zeros(2), BOXES, (8, 0), "size: .*at least 1"),
        (torch.zeros(2), BOXES, (7, 9), r"boxes: .*y1 <= 7, got \[1, 2, 9, 8\] \(box 1\)"),
        (torch.zeros(2), BOXES.float(), (8, 9), "boxes: .*int64"),
        (torch.zeros(2), BOXES.to("meta"), (8, 9), "scores, boxes: .*one device"),
    ],
)
def test_bad_heatmap(scores, boxes, size, message):
    with pytest.raises(ValueError, match=message):
        window_heatmap(scores, boxes, size)


def test_scores_that_nobody_could_read(kernels):
    """As they come to the kernels of a CUDA device, where they are not read back."""
    scores = torch.tensor([[1, torch.nan], [torch.inf, 1], [1, 2]], device=kernels)
    found = HEATMAP.kernel(scores, BOXES.to(kernels), (8, 9), 0.0)
    assert found[:2].isnan().all()
    assert not found[2].isnan().all()
