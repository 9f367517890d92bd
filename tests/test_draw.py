"""Colour tables and overlays."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from pyxai._errors import MissingExtraError
from pyxai.draw import color_table, mask_figure, overlay, shap_figure, sheet
from pyxai.draw.maps import fits
from pyxai.images import Preprocessing


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
    assert overlay(photo(), torch.rand(4, 6).bfloat16()).size == (60, 40)


@pytest.mark.parametrize(
    "array",
    [
        lambda values: values,
        lambda values: values.astype(">f4"),
        lambda values: values.astype(np.float16),
        lambda values: np.flipud(np.flipud(values).copy()),
        lambda values: np.broadcast_to(values, values.shape),  # read only
        lambda values: values.astype(np.longdouble),
    ],
)
def test_numpy_maps(array):
    values = np.linspace(0, 1, 24, dtype=np.float16).reshape(4, 6).astype(np.float64)
    before = values.copy()
    expected = np.asarray(overlay(photo(), torch.from_numpy(values)))
    assert np.array_equal(np.asarray(overlay(photo(), array(values))), expected)
    assert np.array_equal(values, before)


FITTING = [
    (640, 427, (427, 640)),  # its own size: windows, maps of a network that takes any size
    (640, 427, (5, 8)),  # every 80 pixels
    (640, 427, (8, 12)),  # resized to 383 × 256, then every 32 pixels, rounded up or down
    (640, 427, (7, 11)),
    (640, 427, (256, 383)),  # what it was resized to
    (640, 427, (256, 384)),  # by a library that rounds
    (640, 427, (12, 18)),  # inception_v3, whose layers are not padded
    (640, 427, (51, 77)),
    (640, 427, (1, 1)),
    (640, 427, (1, 2)),
    (427, 640, (8, 5)),
    (500, 500, (7, 7)),
    (10, 7, (256, 365)),  # enlarged
    (3000, 1, (1, 94)),
    (1, 3000, (94, 1)),
    (1, 1, (7, 7)),
]


@pytest.mark.parametrize(("width", "height", "shape"), FITTING, ids=str)
def test_maps_of_all_of_a_photo(width, height, shape):
    picture = overlay(photo(width, height), torch.rand(shape))
    assert picture.size == (width, height)


@pytest.mark.parametrize(
    ("width", "height", "shape"),
    [
        (640, 427, (7, 7)),  # a centre crop
        (640, 427, (224, 224)),
        (640, 480, (7, 7)),
        (480, 640, (14, 14)),
        (1280, 1024, (7, 7)),
        (640, 427, (8, 5)),  # of the photo before it was turned upright
        (427, 640, (5, 8)),
        (500, 500, (7, 8)),
        (3000, 1, (7, 7)),
        (640, 427, (427, 700)),
        (640, 427, (5, 20)),
    ],
    ids=str,
)
def test_maps_of_another_shape_are_refused(width, height, shape):
    expected = (
        rf"^heatmap: .*{height} × {width} \(height × width\), got {shape[0]} × {shape[1]}.*"
        rf"region=clf\.preprocessing\.region\(photo\).* region=\(0, 0, {width}, {height}\)$"
    )
    with pytest.raises(ValueError, match=expected) as caught:
        overlay(photo(width, height), torch.rand(shape))
    turned = (width, height, shape) in [(640, 427, (8, 5)), (427, 640, (5, 8))]
    assert ("lying on its side" in str(caught.value)) == turned
    # Where the region is known, any map will do: photos may be stretched.
    picture = overlay(photo(width, height), torch.rand(shape), region=(0, 0, width, height))
    assert picture.size == (width, height)


@pytest.mark.parametrize("seed", range(5))
def test_what_layers_make_of_a_photo_fits(seed):
    """Any strides, kernels that are padded or none, after any resize that keeps proportions."""
    draw = np.random.default_rng(seed)
    for _ in range(300):
        width, height = draw.integers(20, 3000, 2).tolist()
        shape = [height, width]
        if draw.random() < 0.5:
            shorter, wanted = min(shape), int(draw.integers(32, 500))
            shape = [wanted * each // shorter for each in shape]
        for _ in range(draw.integers(0, 6)):
            kernel, stride = int(draw.choice([1, 3, 5, 7])), int(draw.integers(1, 4))
            padding = (kernel - 1) // 2
            if stride > kernel or draw.random() < 0.3:
                kernel, padding = stride, 0  # patches
            shape = [(each + 2 * padding - kernel) // stride + 1 for each in shape]
        if min(shape) >= 1:
            assert fits((shape[0], shape[1]), (width, height)), (width, height, shape)


def test_the_map_of_a_crop_lies_where_the_crop_was():
    """A bright square in the photo's middle: its crop's map must mark it, and nothing beside."""
    picture = photo(640, 427, value=0)
    picture.paste((255, 255, 255), (310, 203, 330, 223))
    preprocessing = Preprocessing(mean=(0, 0, 0), std=(1, 1, 1), resize=256, crop=224)
    heatmap = preprocessing(picture)[0]
    region = preprocessing.region(picture.size)
    drawn = np.asarray(overlay(picture, heatmap, region=region, colormap="hot", opacity=1.0))
    marked = np.argwhere((drawn != np.asarray(picture)).any(2))
    assert marked.min(0).tolist() >= [200, 306]
    assert marked.max(0).tolist() <= [226, 334]
    with pytest.raises(ValueError, match="heatmap: expected a map of all of the photo"):
        overlay(picture, heatmap)


def test_a_photo_that_its_file_turns():
    """Written lying on its side, as cameras do: map and region are of the upright photo."""
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(60, 40).save(file, "PNG", exif=exif)
    heatmap = torch.zeros(6, 4)
    heatmap[0] = 1
    drawn = np.asarray(overlay(file, heatmap, colormap="hot", opacity=1.0))
    assert drawn.shape == (60, 40, 3)
    assert (drawn[:5] == 255).all()
    assert (drawn[20:] == 100).all()
    with pytest.raises(ValueError, match=r"heatmap: .*lying on its side"):
        overlay(file, torch.zeros(4, 6))
    # The region of the file as it lies, 60 × 40.
    with pytest.raises(ValueError, match=r"region: .*40 × 60 .*when upright"):
        overlay(file, torch.zeros(7, 7), region=Preprocessing(crop=40).region((60, 40)))


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ((60, 0, 80, 40), r"region: expected a part of the photo, 60 × 40 \(width × height\)"),
        ((0, -9, 60, 0), "region: expected a part of the photo"),
        ((0, 0, 40, 60), "region: .*when upright"),
        ((30, 10, 20, 20), "region: expected .* with x0 < x1 and y0 < y1"),
        ((10, 30, 20, 20), "region: expected .* with x0 < x1 and y0 < y1"),
        ((0, 0, torch.nan, 40), "region: .*four finite numbers"),
        ((0, 0, torch.inf, 40), "region: .*four finite numbers"),
        ((0, 0, 60), "region: .*four finite numbers"),
        ("none", "region: .*four finite numbers"),
        (60, "region: .*four finite numbers"),
        ((-1e5, -1e5, 1e5, 1e5), "region: expected at most 178,956,970 pixels"),
    ],
    ids=str,
)
def test_regions_that_are_none(region, message):
    with pytest.raises(ValueError, match=message):
        overlay(photo(), torch.rand(4, 4), region=region)


@pytest.mark.parametrize(
    ("region", "box"),
    [
        ((0.2, 0.4, 0.3, 0.45), (0, 0, 1, 1)),  # less than a pixel
        ((59.9, 39.8, 60, 40), (59, 39, 60, 40)),
        ((-20, -20, 0.2, 0.3), (0, 0, 1, 1)),
        (np.array([10.0, 20.0, 30.0, 40.0]), (10, 20, 30, 40)),
        (torch.tensor([10, 20, 30, 40]), (10, 20, 30, 40)),
        ((0, -10, 60, 50), (0, 0, 60, 40)),  # a border above and below
        ((0, 5, 61, 36), (0, 5, 60, 36)),  # a border of one pixel lies on one side
    ],
    ids=str,
)
def test_regions_at_the_edges(region, box):
    table = {"minmax": False, "colormap": "hot", "opacity": 1.0}
    drawn = np.asarray(overlay(photo(), torch.ones(2, 2), region=region, **table))
    rows, columns = np.nonzero((drawn == 255).all(2))
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == box
    assert ((drawn == 255).all(2) | (drawn == 100).all(2)).all()


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (torch.rand(7, 7), photo(), "photo: expected a photo, and after it the map"),
        (np.ones((7, 7)), "photo.jpg", "photo: expected a photo, and after it the map"),
        (np.ones((9, 9), np.uint8), photo(), "heatmap: .*the photo comes first"),
        (photo(), "photo.jpg", "heatmap: .*'photo.jpg'; the photo comes first"),
        (photo(), np.zeros((9, 9, 3), np.uint8), "heatmap: .*the photo comes first"),
        (photo(), torch.zeros(3, 9, 9, dtype=torch.uint8), "heatmap: .*the photo comes first"),
        (photo(), io.BytesIO(), "heatmap: .*the photo comes first"),
        (photo(), {"cam": torch.rand(7, 7)}, "heatmap: .*a dict; give one of its maps"),
        (photo(), [torch.rand(7, 7)], "heatmap: .*a list; give one of its maps"),
        (photo(), None, "heatmap: expected a float tensor or array .*got None"),
    ],
)
def test_swapped_and_other_arguments(first, second, message):
    with pytest.raises(ValueError, match=message):
        overlay(first, second)


@pytest.mark.parametrize(
    ("heatmap", "arguments", "message"),
    [
        (torch.zeros(1, 4, 4), {}, r"; give one of its maps: heatmap\[0\]$"),
        (torch.zeros(1, 3, 4, 4), {}, r"; give one of its maps: heatmap\[0, 0\]$"),
        (np.zeros((4, 6), bool), {}, r"heatmap: expected a float array .*bool.*\.astype\(float\)"),
        (np.zeros((1, 4, 6)), {}, r"heatmap: expected a float array .*heatmap\[0\]"),
        (torch.full((4, 6), 1e300, dtype=torch.float64), {}, "heatmap: expected finite values"),
        (torch.full((4, 6), 2.0), {"minmax": False}, r"heatmap: .*\[0, 1\].* got 2 to 2"),
        (-torch.ones(4, 6), {"minmax": False}, r"heatmap: expected values in \[0, 1\]"),
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


def test_values_that_are_not_scaled():
    heatmap = torch.tensor([[-1.0, 0.0], [0.5, 1.004]])  # as half precision rounds
    drawn, expected = (
        np.asarray(overlay(photo(), each, minmax=False, relu=True), np.int64)
        for each in (heatmap, heatmap.clamp(0, 1))
    )
    assert abs(drawn - expected).max() <= 3
    assert drawn[-1, -1].tolist() == expected[-1, -1].tolist()


def test_figures_want_what_the_network_saw():
    """Other pictures that lay maps over photos refuse a photo that was cropped, too."""
    square, maps = photo(224, 224), torch.rand(224, 224)
    assert mask_figure([(square, [(maps, square)])], [["", "", ""]]).width > 0
    assert shap_figure([square], [[maps]], [["a"]]).width > 0
    view = r"give .*clf\.preprocessing\.view\(photo\)"
    with pytest.raises(ValueError, match=rf"rows: .*427 × 640.*224 × 224; .*{view}"):
        mask_figure([(photo(640, 427), [(maps, square)])], [["", "", ""]])
    with pytest.raises(ValueError, match=rf"values: expected \[427, 640\].*{view}"):
        shap_figure([photo(640, 427)], [[maps]], [["a"]])


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
