"""Layouts: found from shapes, and there and back between raw outputs and features."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyxai.classifier.layout import Layout, find_layout, find_layout_on

SQUARE = (224, 224)


def tokens(height, width, prefix=0):
    return Layout("tokens", height, width, prefix)


@pytest.mark.parametrize(
    ("shape", "image", "expected"),
    [
        # plain vision transformers: class, distillation and register tokens before the patches
        ((1, 196, 192), SQUARE, tokens(14, 14)),
        ((1, 197, 768), SQUARE, tokens(14, 14, 1)),
        ((8, 198, 768), SQUARE, tokens(14, 14, 2)),
        ((1, 50, 768), SQUARE, tokens(7, 7, 1)),
        ((1, 257, 1280), SQUARE, tokens(16, 16, 1)),
        ((1, 261, 384), SQUARE, tokens(16, 16, 5)),
        ((1, 201, 384), SQUARE, tokens(14, 14, 5)),
        ((1, 577, 384), (384, 384), tokens(24, 24, 1)),
        ((0, 197, 768), SQUARE, tokens(14, 14, 1)),
        ((1, 1, 768), SQUARE, tokens(1, 1)),
        # other aspects; sizes that no patch divides, rounded down and up
        ((1, 281, 768), (224, 320), tokens(14, 20, 1)),
        ((1, 285, 768), (224, 320), tokens(14, 20, 5)),
        ((1, 281, 768), (320, 224), tokens(20, 14, 1)),
        ((1, 8 * 32 + 1, 64), (64, 256), tokens(8, 32, 1)),
        ((1, 196, 64), (225, 225), tokens(14, 14)),
        ((1, 225, 64), (225, 225), tokens(15, 15)),
        ((1, 9 * 13, 64), (130, 200), tokens(9, 13)),
        ((1, 8 * 12, 64), (130, 200), tokens(8, 12)),
        # patches merged: each stage halves
        ((1, 3136, 96), SQUARE, tokens(56, 56)),
        ((1, 784, 192), SQUARE, tokens(28, 28)),
        ((1, 49, 768), SQUARE, tokens(7, 7)),
        ((1, 70, 768), (224, 320), tokens(7, 10)),
        # maps, channels first or last
        ((2, 512, 7, 7), SQUARE, Layout("nchw", 7, 7)),
        ((2, 7, 7, 768), SQUARE, Layout("nhwc", 7, 7)),
        ((2, 56, 56, 96), SQUARE, Layout("nhwc", 56, 56)),
        ((2, 7, 10, 768), (224, 320), Layout("nhwc", 7, 10)),
        ((2, 768, 7, 10), (224, 320), Layout("nchw", 7, 10)),
        ((2, 768, 10, 7), (299, 224), Layout("nchw", 10, 7)),
        ((2, 64, 1, 1), SQUARE, Layout("nchw", 1, 1)),
        ((2, 8, 8, 8), (32, 32), Layout("nchw", 8, 8)),  # both fit
        ((1, 2048, 8, 11), (299, 400), Layout("nchw", 8, 11)),
        # nothing fits
        ((2, 1000), SQUARE, None),
        ((2, 12, 197, 64), SQUARE, None),  # attention, by heads
        ((1, 64, 49, 96), SQUARE, None),  # windows
        ((1, 8, 7, 8, 7, 96), SQUARE, None),
        ((1, 98, 512), SQUARE, None),  # 81 + 17
        ((1, 196 + 17, 64), SQUARE, None),  # more before the patches than is plausible
        ((1, 768, 196), SQUARE, None),  # channels first
        ((1, 768, 0, 7), SQUARE, None),
        ((1, 0, 768), SQUARE, None),
        ((1, 300 * 300, 8), SQUARE, None),  # finer than the pixels
        ((), SQUARE, None),
    ],
    ids=str,
)
def test_layout_of_a_shape(shape, image, expected):
    assert find_layout(shape, image) == expected


@pytest.mark.parametrize(
    ("shape", "grid", "expected"),
    [
        ((1, 197, 8), (14, 14), tokens(14, 14, 1)),
        ((1, 212, 8), (14, 14), tokens(14, 14, 16)),
        ((1, 50, 8), (14, 14), tokens(7, 7, 1)),
        ((1, 285, 8), (15, 19), tokens(15, 19)),
        ((1, 285, 8), (14, 20), tokens(14, 20, 5)),
        ((1, 16, 8), (15, 13), tokens(4, 4)),  # 15 -> 8 -> 4, 13 -> 7 -> 4
        ((1, 9, 8), (15, 13), tokens(3, 3)),  # rounded down
        ((1, 3 * 50, 8), (6, 100), tokens(3, 50)),  # the aspect is not that of the image
        ((1, 3, 50, 8), (6, 100), Layout("nhwc", 3, 50)),
        ((1, 8, 3, 50), (6, 100), Layout("nchw", 3, 50)),
        ((1, 64, 8), (14, 14), None),  # not on the grid
        ((1, 12, 196, 64), (14, 14), None),
    ],
    ids=str,
)
def test_a_grid_seen_before(shape, grid, expected):
    assert find_layout_on(shape, [grid]) == expected


def test_of_several_grids():
    """The keys of attention may be coarser than the tokens: the fewest prefix tokens win."""
    assert find_layout_on((1, 16, 8), [(2, 2), (4, 4)]) == tokens(4, 4)
    assert find_layout_on((1, 20, 8), [(2, 2), (4, 4)]) == tokens(4, 4, 4)
    assert find_layout_on((1, 64, 8), [(14, 14)]) is None  # 64 latents are no 7 × 7 patches + 15
    assert find_layout_on((1, 1024, 8), [(14, 14), (56, 56)]) is None
    assert find_layout_on((1, 9, 8), []) is None


def test_a_known_prefix():
    assert find_layout((1, 197, 8), SQUARE, prefix=1) == tokens(14, 14, 1)
    assert find_layout((1, 197, 8), SQUARE, prefix=0) is None
    assert find_layout((1, 285, 8), (230, 310), prefix=5) == tokens(14, 20, 5)
    assert find_layout_on((1, 285, 8), [(14, 20)], prefix=0) is None
    assert find_layout((1, 285, 8), (230, 310), prefix=0) == tokens(15, 19)


@pytest.mark.parametrize("prefix", range(17))
@pytest.mark.parametrize(
    ("image", "patch"),
    [
        *(((224, 224), patch) for patch in (8, 14, 16, 32)),
        *(((224, 320), patch) for patch in (8, 16, 32)),
        *(((480, 160), patch) for patch in (8, 16, 32)),
        ((518, 518), 14),
    ],
)
def test_every_prefix(image, patch, prefix):
    rows, columns = image[0] // patch, image[1] // patch
    shape = (1, prefix + rows * columns, 8)
    assert find_layout_on(shape, [(rows, columns)]) == tokens(rows, columns, prefix)
    if prefix <= 8:  # without the grid, 7 × 7 + 15 is 8 × 8
        assert find_layout(shape, image) == tokens(rows, columns, prefix)


LAYOUTS = st.one_of(
    st.builds(Layout, st.sampled_from(["nchw", "nhwc"]), st.integers(1, 5), st.integers(1, 5)),
    st.builds(
        Layout,
        st.just("tokens"),
        st.integers(1, 5),
        st.integers(1, 5),
        st.integers(0, 3),
        st.booleans(),
    ),
)


def raw_like(layout, images, channels):
    """A raw output whose patches are numbered, and the same as features."""
    shape = (images, channels, layout.height, layout.width)
    features = torch.randn(shape, dtype=torch.float64)
    if layout.kind == "nchw":
        return features.clone(), features
    if layout.kind == "nhwc":
        return features.permute(0, 2, 3, 1).clone(), features
    rows = [features[:, :, y, x] for y in range(layout.height) for x in range(layout.width)]
    before = [torch.randn(images, channels, dtype=torch.float64) for _ in range(layout.prefix)]
    return torch.stack(before + rows, dim=1 if layout.batch_first else 0), features


@settings(deadline=None)
@given(layout=LAYOUTS, images=st.integers(0, 3), channels=st.integers(1, 4))
def test_there_and_back(layout, images, channels):
    raw, expected = raw_like(layout, images, channels)
    kept = raw.clone()
    features = layout.features(raw)
    assert torch.equal(features, expected)
    if raw.numel():
        assert features.untyped_storage().data_ptr() == raw.untyped_storage().data_ptr()  # a view
    assert torch.equal(layout.restore(features, raw), raw)
    other = torch.randn_like(features)
    changed = layout.restore(other, raw)
    assert changed.shape == raw.shape
    assert torch.equal(layout.features(changed), other)
    assert torch.equal(raw, kept)
    if layout.kind == "tokens" and layout.prefix:
        both = [t if layout.batch_first else t.transpose(0, 1) for t in (changed, raw)]
        assert torch.equal(both[0][:, : layout.prefix], both[1][:, : layout.prefix])


@settings(deadline=None, max_examples=25)
@given(layout=LAYOUTS)
def test_gradients_pass(layout):
    raw, features = raw_like(layout, 2, 3)
    for tensor in (raw, features):
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(layout.features, raw)
    assert torch.autograd.gradcheck(layout.restore, (features, raw))
    # The gradient of a raw output has its layout.
    (gradient,) = torch.autograd.grad((layout.features(raw) * features).sum(), raw)
    assert torch.equal(layout.features(gradient), features)


def test_prefix_of_one_image_for_all():
    layout = tokens(2, 3, prefix=2)
    for first in (True, False):
        layout = dataclasses.replace(layout, batch_first=first)
        like = torch.randn(1, 8, 4) if first else torch.randn(8, 1, 4)
        found = layout.restore(torch.randn(5, 4, 2, 3), like)
        prefix = found[:, :2] if first else found[:2].transpose(0, 1)
        assert torch.equal(prefix, layout_prefix(like, first).expand(5, -1, -1))


def layout_prefix(raw, batch_first):
    return raw[:, :2] if batch_first else raw[:2].transpose(0, 1)


@pytest.mark.parametrize(
    ("layout", "shape", "message"),
    [
        (tokens(2, 3, 1), (1, 6, 4), r"tensor: .*\[N, 7, C\], got a float32 tensor \[1, 6, 4\]"),
        (Layout("tokens", 2, 3, 1, False), (6, 1, 4), r"tensor: .*\[7, N, C\], got"),
        (tokens(2, 3), (1, 4, 2, 3), r"tensor: .*\[N, 6, C\]"),
        (Layout("nhwc", 2, 3), (1, 4, 2, 3), r"tensor: .*\[N, 2, 3, C\]"),
        (Layout("nhwc", 2, 3), (6, 4), r"tensor: .*\[N, 2, 3, C\]"),
        (Layout("nchw", 2, 3), (1, 2, 3, 4), r"tensor: .*\[N, C, 2, 3\]"),
    ],
    ids=str,
)
def test_tensors_of_another_layout(layout, shape, message):
    with pytest.raises(ValueError, match=message):
        layout.features(torch.zeros(shape))


def test_features_that_do_not_fit():
    with pytest.raises(ValueError, match=r"features: expected \[N, C, 2, 3\], got a float32"):
        tokens(2, 3).restore(torch.zeros(1, 4, 3, 2), torch.zeros(1, 6, 4))
    with pytest.raises(ValueError, match=r"like: expected \[N, 7, C\] for 1 or 4 images, got"):
        tokens(2, 3, 1).restore(torch.zeros(4, 4, 2, 3), torch.zeros(2, 7, 4))
