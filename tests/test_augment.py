"""Rotation, shear, zoom and mirroring against transforms worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from networks import SmallNet
from train_photos import SQUARE, quick, same_state, state_of

import pyxai
from pyxai.train.augment import NAMED, Augmentation, augmentation_of, moved, random_moves


def counted(height=4, width=4):
    return torch.arange(float(height * width)).view(1, 1, height, width)


def matrix(*rows):
    return torch.tensor([rows])


def test_the_identity_changes_nothing():
    images = torch.rand(2, 3, 5, 7)
    torch.testing.assert_close(moved(images, torch.eye(2).expand(2, 2, 2)), images)


def test_a_quarter_turn():
    """A point (x, y) of the result lies at (−y, x) in the photo, y downwards: turned left."""
    images = counted()
    turned = moved(images, matrix([0.0, -1.0], [1.0, 0.0]))
    torch.testing.assert_close(turned, images.rot90(1, (2, 3)))


def test_half_a_turn_of_what_is_not_square():
    images = counted(3, 6)
    torch.testing.assert_close(moved(images, -torch.eye(2)[None]), images.flip(2, 3))


def test_zoom_shows_the_middle():
    """Twice as wide: the columns from -2 to 2 are seen from -1 to 1, at -.75, -.25, .25, .75."""
    columns = torch.tensor([0.0, 1.0, 2.0, 3.0]).expand(1, 1, 2, 4)
    seen = moved(columns, matrix([0.5, 0.0], [0.0, 1.0]))
    torch.testing.assert_close(seen[0, 0, 0], torch.tensor([0.75, 1.25, 1.75, 2.25]))


def test_shear_moves_rows_and_edges_go_on():
    """Rows lie at y = −1, 0, 1 from the middle; with a shear of 1 they move by as many pixels."""
    images = torch.tensor([1.0, 2.0, 3.0]).expand(1, 1, 3, 3)
    seen = moved(images, matrix([1.0, 1.0], [0.0, 1.0]))[0, 0]
    torch.testing.assert_close(seen, torch.tensor([[1.0, 1, 2], [1, 2, 3], [2, 3, 3]]))


def test_rotation_keeps_proportions_of_what_is_not_square():
    """A bar of 6 × 2 in the middle of 12 × 16 stands upright after a quarter turn."""
    images = torch.zeros(1, 1, 12, 16)
    images[0, 0, 5:7, 5:11] = 1
    expected = torch.zeros(1, 1, 12, 16)
    expected[0, 0, 3:9, 7:9] = 1
    torch.testing.assert_close(moved(images, matrix([0.0, -1.0], [1.0, 0.0])), expected)


@pytest.mark.parametrize(
    ("options", "determinant", "first"),
    [({"rotation": 30}, (1, 1), (0.866, 1)), ({"shear": 0.2}, (1, 1), (1, 1)),
     ({"zoom": 0.2}, (1 / 1.44, 1 / 0.64), (1 / 1.2, 1 / 0.8))],
)  # fmt: skip
def test_draws_stay_within_their_limits_and_reach_them(options, determinant, first):
    moves = random_moves(4000, Augmentation(**options), torch.Generator().manual_seed(0))
    for values, (low, high) in ((torch.linalg.det(moves), determinant), (moves[:, 0, 0], first)):
        assert low - 1e-3 <= float(values.min()) <= low + 0.03
        assert high - 0.05 <= float(values.max()) <= high + 1e-3
    if "shear" in options:
        assert float(moves[:, 0, 1].abs().max()) == pytest.approx(math.tan(0.2), abs=1e-3)
        assert not moves[:, 1, 0].any()


def test_draws_repeat_by_seed():
    first, second = (
        random_moves(5, NAMED["affine"], torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert torch.equal(first, second)
    assert len(torch.unique(first, dim=0)) == 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: augmentation_of("wild"), "augment: expected 'none', 'mirror', 'affine' or an"),
        (lambda: augmentation_of(None), "augment: expected"),
        (lambda: Augmentation(rotation=-1), r"augment.rotation: expected a number from 0 to 180"),
        (lambda: Augmentation(shear=1.6), r"augment.shear: expected .* below 1.57, got 1.6"),
        (lambda: Augmentation(zoom=1), r"augment.zoom: expected .* below 1, got 1"),
        (lambda: Augmentation(zoom="much"), r"augment.zoom: expected"),
    ],
)
def test_bad_augmentation(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- in training ----


class Seeing(SmallNet):
    """Remembers what it is trained on, in all copies."""

    def forward(self, x):
        if self.training:
            Seeing.seen.append(x.detach().clone())
        return super().forward(x)


@pytest.fixture
def seen(squares, one_thread):
    """What a network sees in one epoch, by augmentation."""

    def by(augment):
        Seeing.seen = []
        model = pyxai.Classifier(Seeing(3), preprocessing=SQUARE)
        quick(model, squares, augment=augment, crop=None)
        return torch.cat(Seeing.seen)

    return by


def test_what_the_network_sees(seen):
    plain, mirrored, affine = (seen(name) for name in ("none", "mirror", "affine"))
    turned = [not torch.equal(each, other) for each, other in zip(plain, mirrored, strict=True)]
    assert 4 < sum(turned) < 20
    for each, other, flip in zip(plain, mirrored, turned, strict=True):
        assert torch.equal(each.flip(2) if flip else each, other)
    assert torch.equal(seen(Augmentation()), mirrored)
    assert affine.shape == plain.shape
    assert (affine - mirrored).abs().mean() > 0.1


def test_affine_training_repeats_to_the_bit(squares, one_thread):
    model = SmallNet()
    first, second = (quick(model, squares, augment="affine") for _ in range(2))
    assert same_state(state_of(first.classifier.model), state_of(second.classifier.model))
