"""Sheets of windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pyxai.draw import color_table, window_sheet


def grid(rows, columns, size=20, stride=20):
    """Boxes `[rows * columns, 4]`."""
    starts = [(x * stride, y * stride) for y in range(rows) for x in range(columns)]
    return torch.tensor([[x, y, x + size, y + size] for x, y in starts])


def photo(rows, columns, size=20):
    """One colour for each window, told by the row and the column."""
    pixels = np.zeros((rows * size, columns * size, 3), np.uint8)
    for row in range(rows):
        for column in range(columns):
            part = pixels[row * size : (row + 1) * size, column * size : (column + 1) * size]
            part[:] = (20 * row + 5, 20 * column + 5, 77)
    return pixels


def places(page, rows, columns):
    """The middle of each window on a sheet."""
    return [
        [
            page.getpixel(
                (
                    round((column + 0.5) * page.width / columns),
                    round((row + 0.6) * page.height / rows),
                )
            )
            for column in range(columns)
        ]
        for row in range(rows)
    ]


def test_windows_lie_as_on_the_photo():
    page = window_sheet(photo(2, 3), grid(2, 3), torch.rand(2, 3), cell=40)
    assert page.mode == "RGB"
    assert places(page, 2, 3) == [
        [(20 * row + 5, 20 * column + 5, 77) for column in range(3)] for row in range(2)
    ]


def test_frames_show_the_probability():
    scores = torch.tensor([[0.0, 0.5, 1.0]])
    page = np.asarray(window_sheet(photo(1, 3), grid(1, 3), scores, cell=40, colormap="jet"))
    colors = color_table("jet")[:, :3]
    for index in (0, 128, 255):
        assert (page == colors[index].numpy()).all(axis=2).sum() >= 40 * 3
    again = window_sheet(photo(1, 3), grid(1, 3), scores / 2, cell=40, colormap="jet")
    assert not (np.asarray(again) == colors[255].numpy()).all(axis=2)[16:].any()


def test_the_probability_is_written():
    low, high = (
        np.asarray(window_sheet(photo(1, 1), grid(1, 1), torch.tensor([[score]]), cell=60))
        for score in (0.11, 0.12)
    )
    difference = (low != high).any(axis=2)
    assert difference[:17].any()  # the text above
    assert low[:15].min() < 120


def test_of_many_windows_every_second_or_third_is_shown():
    boxes, scores = grid(4, 20, stride=4), torch.rand(4, 20)
    page = window_sheet(Image.new("RGB", (100, 40)), boxes, scores, cell=30, most=9)
    alone = window_sheet(Image.new("RGB", (100, 40)), boxes[:1], scores[:1, :1], cell=30)
    assert round((page.width - 4) / (alone.width - 4)) == 7  # every third of 20
    assert round((page.height - 4) / (alone.height - 4)) == 2
    every = window_sheet(photo(2, 9), grid(2, 9), torch.rand(2, 9), cell=30)
    assert places(every, 2, 9)[1][8] == (25, 165, 77)


def test_windows_that_are_not_square():
    boxes = torch.tensor([[0, 0, 40, 20]])
    page = window_sheet(photo(2, 2), boxes, torch.tensor([[0.3]]).bfloat16(), cell=80)
    assert page.width - 80 == page.height - 40 - 13


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scores": torch.rand(6)}, r"scores: expected a float tensor \[rows, columns\]"),
        ({"scores": torch.rand(0, 3)}, "scores: expected a float tensor"),
        ({"scores": torch.ones(2, 3, dtype=torch.long)}, "scores: .*int64"),
        ({"scores": torch.full((2, 3), 1.5)}, "scores: expected probabilities"),
        ({"scores": torch.full((2, 3), torch.nan)}, "scores: expected probabilities"),
        ({"boxes": grid(2, 2)}, r"boxes: expected a tensor \[6, 4\], got .*\[4, 4\]"),
        ({"boxes": grid(2, 3) + 1}, r"boxes: expected boxes in the photo, 60 × 40 .*61"),
        ({"boxes": grid(2, 3) - 1}, r"boxes: expected boxes in the photo"),
        ({"cell": 0}, "cell: expected at least 1"),
        ({"most": 0}, "most: expected at least 1"),
    ],
)
def test_refusals(arguments, message):
    arguments = {"boxes": grid(2, 3), "scores": torch.rand(2, 3)} | arguments
    boxes, scores = arguments.pop("boxes"), arguments.pop("scores")
    with pytest.raises(ValueError, match=message):
        window_sheet(photo(2, 3), boxes, scores, **arguments)
