"""The CAM kernels against their plain twins, torch's own checks, and each other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from pyxai.ops import (
    cam_overlay,
    cam_project,
    cam_project_render,
    cam_render,
    reference,
)

# How far float32 sums may lie apart, relative to the largest value.
TOLERANCE = 3e-6

SHAPES = [  # images, channels, targets, h, w
    (1, 512, 1, 7, 7),
    (2, 5, 1, 3, 5),
    (3, 64, 7, 7, 7),
    (2, 130, 70, 14, 9),
    (2, 20, 3, 25, 25),
    (1, 1, 5, 1, 1),
    (1, 9, 4, 1, 33),
    (1, 33, 2, 40, 41),
    (0, 8, 2, 4, 4),
    (2, 8, 0, 4, 4),
    (2, 0, 2, 4, 4),
]
SIZES = [(224, 224), (37, 50), (1, 1), (5, 3)]


def assert_close(found, expected, tolerance=TOLERANCE):
    assert found.shape == expected.shape
    scale = expected.abs().max().clamp_min(1e-30) if expected.numel() else 1.0
    error = (found.to(expected.dtype) - expected).abs().max() / scale if expected.numel() else 0.0
    assert error <= tolerance


def layout(tensor, kind):
    if kind == "channels_last":
        return tensor.to(memory_format=torch.channels_last)
    if kind == "sliced":  # every second column of a wider tensor
        wide = torch.zeros(*tensor.shape[:-1], 2 * tensor.shape[-1], dtype=tensor.dtype)
        wide = wide.to(tensor.device)
        wide[..., ::2] = tensor
        return wide[..., ::2]
    return tensor


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["contiguous", "channels_last", "sliced"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_projection(kernels, shape, kind, dtype):
    images, channels, targets, height, width = shape
    features = torch.randn(images, channels, height, width).to(kernels, dtype)
    for count in {1, images}:
        weights = torch.randn(count, targets, channels, device=kernels)
        found = cam_project(layout(features, kind), weights)
        assert found.dtype == torch.float32
        assert_close(found, reference.cam_project(features.double(), weights.double()))


@pytest.mark.parametrize("minmax", [False, True])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("low", [(7, 7), (1, 1), (3, 40), (33, 2), (25, 25)], ids=str)
def test_rendering(kernels, low, size, relu, minmax):
    maps = torch.randn(2, 3, *low, device=kernels)
    found = cam_render(maps, size, relu=relu, minmax=minmax)
    assert_close(found, reference.cam_render(maps, size, relu, minmax, as_uint8=False))
    as_bytes = cam_render(maps, size, relu=relu, minmax=minmax, dtype=torch.uint8)
    exact = reference.cam_render(maps.double(), size, relu, minmax, as_uint8=False)
    # Rounded to the nearest byte, but for values on the border between two.
    assert (as_bytes - exact.clamp(0, 1) * 255).abs().max() <= 0.5 + 1e-3


def test_rendering_equals_interpolate(device):
    maps = torch.randn(1, 2, 7, 9, device=device)
    expected = functional.interpolate(maps, (224, 300), mode="bilinear", align_corners=False)
    assert_close(cam_render(maps, (224, 300), minmax=False), expected)


def test_exact_small_case(device):
    """Worked out by hand: 2x2 features of two channels on one target."""
    features = torch.tensor([[[[1.0, 2], [3, 4]], [[1, 0], [0, 1]]]], device=device)
    weights = torch.tensor([[[1.0, -2]]], device=device)
    maps = cam_project(features, weights)
    assert maps.tolist() == [[[[-1, 2], [3, 2]]]]
    assert cam_render(maps, (2, 2)).tolist() == [[[[0, 0.75], [1, 0.75]]]]
    halves = cam_render(maps, (1, 4), relu=True, minmax=False)
    # Rows meet half way: (1.5, 2); columns at -0.25, 0.25, 0.75, 1.25 of them.
    assert halves.tolist() == [[[[1.5, 1.625, 1.875, 2.0]]]]
    as_bytes = cam_render(maps, (2, 2), dtype=torch.uint8)
    assert as_bytes.tolist() == [[[[0, 191], [255, 191]]]]


@pytest.mark.parametrize("size", [(224, 224), (50, 41)], ids=str)
@pytest.mark.parametrize("shape", [(1, 64, 1, 7, 7), (5, 33, 1, 9, 6), (2, 33, 9, 9, 6)], ids=str)
def test_fused_equals_separate(kernels, threads, shape, size):
    images, channels, targets, height, width = shape
    features = torch.randn(images, channels, height, width, device=kernels)
    weights = torch.randn(1, targets, channels, device=kernels)
    for count in (1, 2):
        threads(count)
        pictures, maps = cam_project_render(features, weights, size, relu=True)
        assert torch.equal(maps, cam_project(features, weights))
        assert torch.equal(pictures, cam_render(maps, size, relu=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("kind", ["contiguous", "channels_last"])
def test_many_targets_of_one_image_and_of_many(kernels, kind, dtype):
    """On CUDA the tiles of few images are narrow."""
    features = layout(torch.randn(32, 70, 9, 15, device=kernels), kind).to(dtype)
    weights = torch.randn(1, 40, 70, device=kernels)
    found = cam_project(features, weights)
    assert torch.equal(found[-1:], cam_project(features[-1:], weights))
    expected = torch.einsum("tc,nchw->nthw", weights[0].double(), features.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


# On CUDA these are clusters of 8, 4, 2 blocks, and single blocks; maps of a tile and of several,
# as large as one launch takes, and larger.
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["contiguous", "channels_last"])
@pytest.mark.parametrize(
    "shape",
    [(2, 64, 7, 7), (40, 33, 7, 7), (100, 8, 3, 2), (256, 5, 7, 6), (1, 9, 32, 32), (1, 7, 32, 33)],
    ids=str,
)
@pytest.mark.parametrize("count", [1, 2])
def test_one_target_fused_equals_separate(kernels, shape, kind, dtype, count, threads):
    threads(count)
    features = layout(torch.randn(*shape, device=kernels), kind).to(dtype)
    weights = torch.randn(shape[0], 1, shape[1], device=kernels)
    for size, options in (
        ((20, 24), {"relu": True}),
        ((7, 132), {"minmax": False, "dtype": torch.uint8}),
    ):
        pictures, maps = cam_project_render(features, weights, size, **options)
        assert torch.equal(maps, cam_project(features, weights))
        assert torch.equal(pictures, cam_render(maps, size, **options))


@pytest.mark.parametrize("size", [(64, 64), (37, 53), (5, 100)], ids=str)
@pytest.mark.parametrize("minmax", [False, True])
def test_overlay(kernels, size, minmax):
    photos = torch.randint(0, 256, (3, *size, 3), dtype=torch.uint8, device=kernels)
    colors = torch.randint(0, 256, (256, 4), dtype=torch.uint8, device=kernels)
    colors[0, 3], colors[255, 3] = 0, 255
    maps = torch.rand(3, 7, 6, device=kernels) * 1.4 - 0.2
    found = cam_overlay(photos, maps, colors, minmax=minmax)
    # Given the same index, the blend is integer arithmetic and must agree to the bit.
    index = cam_render(maps, size, minmax=minmax, dtype=torch.uint8).long()
    chosen = colors.int()[index]
    blend = chosen[..., 3:] + (chosen[..., 3:] >> 7)
    expected = (photos.int() * (256 - blend) + chosen[..., :3] * blend + 128) >> 8
    assert torch.equal(found.int(), expected)
    plain = reference.cam_overlay(photos, maps, colors, False, minmax)
    assert (found != plain).float().mean() <= 1e-3


def test_overlay_opacity_ends(device):
    photos = torch.randint(0, 256, (1, 20, 20, 3), dtype=torch.uint8, device=device)
    colors = torch.zeros(256, 4, dtype=torch.uint8, device=device)
    maps = torch.rand(1, 5, 5, device=device)
    assert torch.equal(cam_overlay(photos, maps, colors), photos)  # transparent
    colors[:, 3] = 255
    assert not cam_overlay(photos, maps, colors).any()  # opaque black


@pytest.mark.parametrize("shape", SHAPES[:5], ids=str)
def test_same_bits_for_any_number_of_threads(kernels, threads, shape):
    images, channels, targets, height, width = shape
    features = torch.randn(4 * images, channels, height, width)
    weights = torch.randn(1, targets, channels)
    photos = torch.randint(0, 256, (4 * images, 300, 200, 3), dtype=torch.uint8)
    colors = torch.randint(0, 256, (256, 4), dtype=torch.uint8)
    results = []
    for count in (1, 2, 3, 7):
        threads(count)
        pictures, maps = cam_project_render(features, weights, (300, 200))
        painted = cam_overlay(photos, maps[:, 0].contiguous(), colors)
        results.append((pictures, maps, painted))
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


def test_batch_equals_one_by_one(kernels):
    features = torch.randn(5, 48, 9, 11, device=kernels)
    weights = torch.randn(5, 6, 48, device=kernels)
    together, _ = cam_project_render(features, weights, (70, 90))
    for n in range(5):
        alone, _ = cam_project_render(features[n : n + 1], weights[n : n + 1], (70, 90))
        assert torch.equal(together[n : n + 1], alone)


def test_levels_agree():
    from pyxai.ops import _native

    features, weights = torch.randn(2, 100, 13, 17), torch.randn(1, 11, 100)
    before, results = _native.cpu.simd_level(), []
    try:
        for level in _native.cpu.simd_levels():
            _native.cpu.set_simd_level(level)
            results.append(cam_project_render(features, weights, (99, 101))[0])
    finally:
        _native.cpu.set_simd_level(before)
    for other in results[1:]:
        assert_close(other, results[0])


@settings(max_examples=60, deadline=None)
@given(
    images=st.integers(1, 3),
    channels=st.integers(1, 40),
    targets=st.integers(1, 12),
    low=st.tuples(st.integers(1, 20), st.integers(1, 40)),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    factor=st.sampled_from([1e-3, 1.0, 1e4]),
)
def test_linear_and_scale_free(images, channels, targets, low, size, factor):
    features = torch.randn(images, channels, *low)
    weights = torch.randn(1, targets, channels)
    pictures, maps = cam_project_render(features, weights, size)
    again, scaled = cam_project_render(features * factor, weights, size)
    # Rounding is relative to the terms of the sums, which may cancel.
    terms = cam_project(features.abs(), weights.abs()).amax((2, 3), keepdim=True)
    assert ((scaled / factor - maps).abs() <= 1e-6 * terms).all()
    span = maps.amax((2, 3), keepdim=True) - maps.amin((2, 3), keepdim=True)
    assert ((pictures - again).abs() * span <= 1e-5 * terms).all()
    assert pictures.min() >= -1e-6
    assert pictures.max() <= 1 + 1e-6


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("where", [0, 17, 34])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("minmax", [False, True])
def test_not_finite_is_nan_throughout(kernels, bad, where, relu, minmax):
    maps = torch.randn(2, 5, 7, device=kernels)
    maps[1].view(-1)[where] = bad
    found = cam_render(maps, (30, 40), relu=relu, minmax=minmax)
    assert torch.isfinite(found[0]).all()
    assert found[1].isnan().all()
    as_bytes = cam_render(maps, (30, 40), relu=relu, minmax=minmax, dtype=torch.uint8)
    assert not as_bytes[1].any()
    expected = reference.cam_render(maps, (30, 40), relu, minmax, as_uint8=False)
    assert torch.equal(found.isnan(), expected.isnan())


@pytest.mark.parametrize("value", [0.0, -3.0, 5.0, 1e-40])
def test_constant_map_is_zero(kernels, value):
    maps = torch.full((1, 4, 4), value, device=kernels)
    assert not cam_render(maps, (9, 9)).any()
    assert not reference.cam_render(maps, (9, 9), False, True, False).any()


def test_negative_map_with_relu_is_zero(kernels):
    maps = -torch.rand(1, 4, 4, device=kernels) - 0.1
    assert not cam_render(maps, (9, 9), relu=True).any()


def test_large_output_is_streamed_correctly(kernels, threads):
    """Beyond the size of the cache other stores are used, also where rows are not aligned."""
    threads(2)
    maps = torch.randn(40, 6, 6)
    for size in ((512, 512), (511, 513)):
        found = cam_render(maps, size)
        for n in (0, 13, 39):
            assert torch.equal(found[n], cam_render(maps[n : n + 1], size)[0])


def test_out(device):
    features, weights = torch.randn(2, 8, 5, 5, device=device), torch.randn(1, 3, 8, device=device)
    out = torch.full((2, 3, 20, 30), -1.0, device=device)
    pictures, maps = cam_project_render(features, weights, (20, 30), out=out)
    assert pictures is out
    assert torch.equal(out, cam_render(maps, (20, 30)))
    again = torch.zeros(2, 3, 20, 30, dtype=torch.uint8, device=device)
    assert cam_render(maps, (20, 30), dtype=torch.uint8, out=again) is again
    photos = torch.zeros(2, 20, 30, 3, dtype=torch.uint8, device=device)
    colors = torch.full((256, 4), 200, dtype=torch.uint8, device=device)
    painted = torch.empty_like(photos)
    assert cam_overlay(photos, maps[:, 0], colors, out=painted) is painted
    assert torch.equal(painted, cam_overlay(photos, maps[:, 0], colors))


# ---- torch.library ----


# torch 2.15's own opcheck looks at the gradients of copies it has made.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_opcheck(device):
    features = torch.randn(2, 6, 4, 5, device=device)
    weights = torch.randn(1, 3, 6, device=device)
    maps = torch.randn(2, 3, 4, 5, device=device)
    photos = torch.randint(0, 256, (2, 9, 8, 3), dtype=torch.uint8, device=device)
    colors = torch.randint(0, 256, (256, 4), dtype=torch.uint8, device=device)
    ops = torch.ops.pyxai
    for first in (features, layout(features, "channels_last"), layout(features, "sliced")):
        torch.library.opcheck(ops.cam_project, (first, weights))
        torch.library.opcheck(
            ops.cam_project, (first.detach().requires_grad_(), weights.clone().requires_grad_())
        )
    for first in (maps, maps[:, 1:], maps.clone().requires_grad_()):
        torch.library.opcheck(ops.cam_render, (first, (9, 7), True, True, False))
    torch.library.opcheck(ops.cam_render, (maps, (9, 7), False, True, True))
    torch.library.opcheck(ops.cam_overlay, (photos, maps[:, 0], colors, True, True))


def test_gradients_of_the_reference_formulas():
    features = torch.randn(2, 5, 3, 4, dtype=torch.float64, requires_grad=True)
    for count in (1, 2):
        weights = torch.randn(count, 3, 5, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(cam_project, (features, weights))
    maps = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    for relu in (False, True):
        for minmax in (False, True):
            assert torch.autograd.gradcheck(
                lambda maps, relu=relu, minmax=minmax: cam_render(
                    maps, (7, 6), relu=relu, minmax=minmax
                ),
                (maps,),
            )


@pytest.mark.parametrize("kind", ["contiguous", "channels_last", "sliced"])
def test_gradients_of_the_kernels(device, kind):
    """Also for the expanded gradient, without memory of its own, that sum() hands back."""
    features = layout(torch.randn(2, 6, 4, 5, device=device), kind).detach().requires_grad_()
    weights = torch.randn(1, 3, 6, device=device, requires_grad=True)
    pictures, _ = cam_project_render(features, weights, (9, 8), relu=True)
    found = torch.autograd.grad((pictures**2).sum(), (features, weights))
    maps = reference.cam_project(features, weights)
    plain = reference.cam_render(maps, (9, 8), True, True, False)
    expected = torch.autograd.grad((plain**2).sum(), (features, weights))
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, 1e-5)
    total = torch.autograd.grad(cam_project(features, weights).sum(), features)[0]
    assert_close(total, weights.detach().sum(1)[..., None, None].expand_as(total), 1e-5)


def test_compile_and_export(device):
    class Rendered(torch.nn.Module):
        def forward(self, features, weights):
            pictures, maps = cam_project_render(features, weights, (12, 10), relu=True)
            return pictures * 2, maps

    features, weights = torch.randn(2, 8, 4, 4, device=device), torch.randn(1, 3, 8, device=device)
    expected = Rendered()(features, weights)
    exported = torch.export.export(Rendered(), (features, weights)).module()
    compiled = torch.compile(Rendered(), fullgraph=True, backend="aot_eager")
    for one in (exported, compiled):
        assert all(map(torch.equal, one(features, weights), expected))


def test_function_transforms_and_modes_see_the_operators():
    from torch.utils.flop_counter import FlopCounterMode

    features, weights = torch.randn(3, 8, 4, 4), torch.randn(1, 2, 8)
    mapped = torch.func.vmap(lambda one: cam_project(one[None], weights)[0])(features)
    assert_close(mapped, cam_project(features, weights))
    gradient = torch.func.grad(lambda one: cam_project(one, weights).sum())(features)
    assert_close(gradient, weights.sum(1)[..., None, None].expand_as(gradient), 1e-5)
    with FlopCounterMode(display=False):
        cam_project(features, weights)


def test_inference_mode_and_float64():
    features, weights = torch.randn(2, 8, 4, 4), torch.randn(1, 3, 8)
    with torch.inference_mode():
        inside = cam_project(features, weights)
    assert torch.equal(inside, cam_project(features, weights))
    double = cam_project(features.double(), weights.double())
    assert double.dtype == torch.float64
    assert cam_render(double, (9, 9)).dtype == torch.float64


# ---- bad input ----


@pytest.mark.parametrize(
    ("features", "weights", "message"),
    [
        (torch.zeros(3, 4, 4), torch.zeros(1, 2, 3), r"features: .*\[N, C, h, w\].*\[3, 4, 4\]"),
        (torch.zeros(1, 3, 4, 4).int(), torch.zeros(1, 2, 3), "features: .*float32.*int32"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 3), r"weights: .*\[2 or 1, T, 3\].*\[2, 3\]"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(3, 2, 3), r"weights: .*\[2 or 1, T, 3\]"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(1, 2, 4), r"weights: .*\[1, 2, 4\]"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(1, 2, 3).int(), "weights: .*floating"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(1, 2, 3, device="meta"), "one device.*cpu.*meta"),
    ],
)
def test_bad_projection(features, weights, message):
    with pytest.raises(ValueError, match=message):
        cam_project(features, weights)


def test_bad_rendering():
    maps = torch.zeros(2, 4, 4)
    for arguments, message in [
        ((torch.zeros(4), (2, 2)), "maps: "),
        ((torch.zeros(2, 0, 4), (2, 2)), "maps: "),
        ((maps.half(), (2, 2)), "maps: .*float32"),
        ((maps, (0, 2)), "size: "),
        ((maps, (2, 2, 2)), "size: "),
    ]:
        with pytest.raises(ValueError, match=message):
            cam_render(*arguments)
    with pytest.raises(ValueError, match=r"dtype: .*uint8.*torch.int64"):
        cam_render(maps, (2, 2), dtype=torch.int64)
    for out in (
        torch.zeros(2, 2, 3),
        torch.zeros(2, 2, 2, dtype=torch.uint8),
        torch.zeros(2, 2, 4)[..., ::2],
        torch.zeros(2, 2, 2, device="meta"),
    ):
        with pytest.raises(ValueError, match="out: expected a contiguous float32 tensor"):
            cam_render(maps, (2, 2), out=out)


def test_bad_overlay():
    photos = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    maps, colors = torch.zeros(2, 4, 4), torch.zeros(256, 4, dtype=torch.uint8)
    for arguments, message in [
        ((photos.float(), maps, colors), "photos: "),
        ((photos.permute(0, 3, 1, 2), maps, colors), "photos: "),
        ((photos, maps[:1], colors), "maps: .*2 photos"),
        ((photos, maps.double(), colors), "maps: "),
        ((photos, maps, colors[:, :3]), "colors: "),
    ]:
        with pytest.raises(ValueError, match=message):
            cam_overlay(*arguments)
    with pytest.raises(ValueError, match="out: expected memory of its own"):
        cam_overlay(photos, maps, colors, out=photos)
