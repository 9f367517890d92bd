"""Colour tables and overlays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pyxai._errors import MissingExtraError
from pyxai.draw import color_table, overlay, sheet


def photo(width=60, height=40, value=100):
    return Image.new("RGB", (width, height), (value, value, value))


def test_color_tables():
    for name in ("ember", "jet", "hot", "gray"):
        table = color_table(name)
        assert table.shape == (256, 4)
        assert table.dtype == torch.uint8
        opacity = table[:, 3].int()
        assert opacity[0] == 0
        assert opacity[-1] == 191
        assert (opacity.diff() >= 0).all()
    assert color_table("gray", opacity=1, fade=0)[:, 3].unique().tolist() == [255]
    assert color_table("gray")[:, 0].tolist() == list(range(256))
    # "ember" grows lighter all the way, so that it can be read without colours.
    rgb = color_table("ember")[:, :3].double()
    lightness = rgb @ torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    assert (lightness.diff() > -0.8).all()
    assert lightness[-1] > lightness[0] + 200


def test_unknown_colors():
    with pytest.raises((ValueError, MissingExtraError), match="'embr'"):
        color_table("embr")
    for arguments in ({"opacity": 2}, {"fade": -1}):
        with pytest.raises(ValueError, match=r"expected a number in \[0, 1\]"):
            color_table("ember", **arguments)


def test_matplotlib_names():
    pytest.importorskip("matplotlib")
    table = color_table("viridis", opacity=1, fade=0)
    assert table[0].tolist() == [68, 1, 84, 255]
    with pytest.raises(ValueError, match="closest: 'viridis'"):
        color_table("viridiss")


def test_overlay_marks_the_high_values():
    heatmap = torch.zeros(4, 6)
    heatmap[0, 0] = 1
    picture = overlay(photo(), heatmap, colormap="hot", opacity=1.0)
    pixels = np.asarray(picture)
    assert picture.size == (60, 40)
    assert pixels[0, 0].tolist() == [255, 255, 255]  # the top of the table
    assert pixels[-1, -1].tolist() == [100, 100, 100]  # transparent at 0


def test_overlay_covers_only_the_region():
    heatmap = torch.linspace(0, 1, 4)[None]
    picture = overlay(photo(), heatmap, region=(20.4, 9.6, 50.2, 30), colormap="jet")
    changed = (np.asarray(picture) != 100).any(2)
    rows, columns = np.nonzero(changed)
    assert rows.min() >= 10
    assert rows.max() < 30
    assert columns.min() >= 20
    assert columns.max() < 50
    beyond = overlay(photo(), heatmap, region=(-10, -10, 70, 50))
    assert beyond.size == (60, 40)


def test_relu_hides_negative_values():
    heatmap = torch.tensor([[-5.0, -4.0], [-3.0, 2.0]])
    pixels = np.asarray(overlay(photo(), heatmap, relu=True))
    assert pixels[0, 0].tolist() == [100, 100, 100]
    assert pixels[-1, -1].tolist() != [100, 100, 100]


def test_dtypes_and_gradients():
    heatmap = torch.rand(5, 5, dtype=torch.float64, requires_grad=True)
    assert overlay(np.zeros((9, 9, 3), np.uint8), heatmap).size == (9, 9)
    assert overlay(photo(), torch.rand(5, 5).bfloat16()).size == (60, 40)


@pytest.mark.parametrize(
    ("heatmap", "arguments", "message"),
    [
        (torch.zeros(1, 4, 4), {}, r"heatmap: expected a float tensor \[h, w\], got .*\[1, 4, 4\]"),
        (torch.zeros(4, 4).int(), {}, "heatmap: .*int32"),
        (torch.zeros(0, 4), {}, "heatmap: "),
        (torch.full((2, 2), torch.nan), {}, "heatmap: expected finite values"),
        (torch.zeros(4, 4), {"region": (5, 5, 5, 9)}, "region: "),
        (torch.zeros(4, 4), {"region": (5, 5, 9)}, "region: "),
    ],
)
def test_bad_input(heatmap, arguments, message):
    with pytest.raises(ValueError, match=message):
        overlay(photo(), heatmap, **arguments)


def test_sheet():
    red, wide = Image.new("RGB", (50, 50), "red"), Image.new("RGB", (80, 20), "blue")
    page = sheet([[red, wide], [wide, None]], cell=40)
    assert page.size == (2 * 46 + 6, 2 * 46 + 6)
    assert page.getpixel((26, 26)) == (255, 0, 0)
    assert page.getpixel((46 + 26, 26)) == (0, 0, 255)
    assert page.getpixel((46 + 26, 8)) == (255, 255, 255)  # a wide picture lies in the middle
    assert page.getpixel((46 + 26, 46 + 26)) == (255, 255, 255)
    titled = sheet([[red], [red]], column_titles=["one"], row_titles=["a", "b"], cell=40)
    assert titled.size == (46 + 6, 16 + 2 * (46 + 16) + 6)
    assert min(titled.crop((0, 0, 46, 16)).convert("L").getextrema()) < 100  # the title is there
    words = [["name", ""], ["a long name, cut to the picture's width", "x"]]
    named = sheet([[red, None], [wide, wide]], captions=words, cell=40)
    assert named.size == (2 * 46 + 6, 2 * (46 + 16) + 6)
    below = [named.crop((6, top, 46, top + 16)).convert("L") for top in (46, 108)]
    assert all(min(each.getextrema()) < 100 for each in below)
    assert named.crop((46, 108, 52, 124)).getextrema() == ((255, 255),) * 3  # the gap is free
    assert named.crop((52, 46, 98, 62)).getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize(
    ("rows", "arguments", "message"),
    [
        ([], {}, "rows: expected rows with at least one picture"),
        ([[photo()]], {"column_titles": ["a", "b"]}, "column_titles: expected 1 titles"),
        ([[photo()]], {"row_titles": ["a", "b"]}, "row_titles: expected 1 titles"),
        ([[photo()]], {"captions": [["a", "b"]]}, "captions: expected one for each picture"),
        ([[photo()]], {"cell": 0}, "cell: expected at least 1 pixel"),
    ],
)
def test_sheet_refusals(rows, arguments, message):
    with pytest.raises(ValueError, match=message):
        sheet(rows, **arguments)
