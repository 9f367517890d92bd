"""Crops of photos that excite units, the sheet, and the command `pyxai features`."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from networks import SmallViT, random_net
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import pyxai
from pyxai.cli import app
from pyxai.cli.features import parse_channels
from pyxai.draw import feature_sheet
from pyxai.feature_visualization import exciting_crops
from pyxai.feature_visualization.receptive_field import receptive_side
from pyxai.images import ImageError, Preprocessing, open_photo


class Colours(nn.Module):
    """Channels red, green, blue of cells of 4 × 4 pixels; logits are their means."""

    def __init__(self):
        super().__init__()
        self.cells = nn.Conv2d(3, 3, 4, 4, bias=False)
        self.cells.weight.data.copy_(torch.eye(3)[:, :, None, None].expand(3, 3, 4, 4) / 16)

    def forward(self, x):
        return self.cells(x).mean(dim=(2, 3))


@pytest.fixture
def colors():
    plain = Preprocessing(mean=(0, 0, 0), std=(1, 1, 1))
    return pyxai.Classifier(Colours().eval(), preprocessing=plain, class_names=[*"rgb"])


def spot(color, row, column, value, size=16):
    """A black photo with a cell of a colour."""
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[4 * row : 4 * row + 4, 4 * column : 4 * column + 4, color] = value
    return Image.fromarray(pixels)


@pytest.fixture
def folder(tmp_path):
    for index, (color, row, column, value) in enumerate(
        [(0, 0, 0, 250), (0, 1, 2, 200), (0, 3, 3, 150), (2, 2, 1, 240), (2, 0, 3, 140)]
    ):
        spot(color, row, column, value).save(tmp_path / f"{index}.png")
    return tmp_path


def test_crops_by_hand(colors, folder):
    red, blue = exciting_crops(colors, folder, "cells", [0, 2], per_channel=2, crop=4)
    assert [crop.name for crop in red] == [str(folder / "0.png"), str(folder / "1.png")]
    assert [crop.box for crop in red] == [(0, 0, 4, 4), (8, 4, 12, 8)]
    assert [crop.position for crop in red] == [(0, 0), (1, 2)]
    assert [crop.response for crop in red] == pytest.approx([250 / 255, 200 / 255])
    assert [crop.box for crop in blue] == [(4, 8, 8, 12), (12, 0, 16, 4)]
    pixels = np.asarray(blue[0].picture())
    assert pixels.shape == (4, 4, 3)
    assert (pixels == (0, 0, 240)).all()


def test_crops_at_the_border_are_moved_inwards(colors, folder):
    (red,) = exciting_crops(colors, folder, "cells", 0, per_channel=3, crop=8)
    assert [crop.box for crop in red] == [(0, 0, 8, 8), (6, 2, 14, 10), (8, 8, 16, 16)]
    (whole,) = exciting_crops(colors, folder, "cells", 0, per_channel=1, crop=99)
    assert whole[0].box == (0, 0, 16, 16)


def test_classes_give_whole_photos(colors, folder):
    (red,) = exciting_crops(colors, folder, None, ["r"], per_channel=1)
    assert red[0].box == (0, 0, 16, 16)
    assert red[0].name.endswith("0.png")


def test_negative_looks_for_the_least(colors, folder):
    pale = Image.new("RGB", (16, 16), (90, 90, 90))
    pale.putpixel((9, 9), (0, 0, 0))
    pale.save(folder / "pale.png")
    (red,) = exciting_crops(colors, folder, "cells", [0], per_channel=6, negative=True, crop=4)
    assert red[-1].name.endswith("pale.png")
    assert red[-1].response == pytest.approx(90 / 255 * 15 / 16)
    assert red[-1].box == (8, 8, 12, 12)


def test_boxes_are_those_of_the_photo(colors, folder):
    """Photos of 16 pixels, seen at 32, and of these the middle 24."""
    model, seen = colors.model, Preprocessing((0, 0, 0), (1, 1, 1), resize=32, crop=24)
    (red,) = exciting_crops(
        pyxai.Classifier(model, preprocessing=seen), folder, "cells", [0], per_channel=1, crop=4
    )
    # The cell from 0 to 4 lies from 0 to 8, and 4 of these are left.
    assert red[0].name.endswith("0.png")
    assert red[0].position == (0, 0)
    assert red[0].box == (2, 2, 4, 4)


@pytest.mark.parametrize("batch_size", [1, 2, None])
def test_the_order_of_files_does_not_matter(colors, folder, batch_size):
    spot(0, 2, 2, 250).save(folder / "00.png")  # as strong as another
    files = sorted(folder.glob("*.png"))
    expected = exciting_crops(colors, files, "cells", [0, 2], per_channel=2)
    for order in (files[::-1], files[2:] + files[:2]):
        found = exciting_crops(colors, order, "cells", [0, 2], per_channel=2, batch_size=batch_size)
        assert found.crops == expected.crops
    assert [crop.name[-6:] for crop in expected[0]] == ["/0.png", "00.png"]


def test_photos_without_a_file_keep_their_pixels(colors):
    photos = (spot(2, row, 1, 100 + row) for row in range(4))
    (blue,) = exciting_crops(colors, photos, "cells", [2], per_channel=2, crop=4)
    assert [crop.name for crop in blue] == ["images[3]", "images[2]"]
    assert (np.asarray(blue[0].picture()) == (0, 0, 103)).all()


def test_tensors_and_directions(colors):
    images = torch.rand(5, 3, 16, 16)
    (red,) = exciting_crops(colors, images, "cells", torch.tensor([[2.0, 0, 0]]), per_channel=9)
    assert len(red) == 5
    cells = colors.activations(images, "cells")["cells"][:, 0].flatten(1).amax(1)
    expected = cells.sort(descending=True).values.tolist()
    assert [crop.response for crop in red] == pytest.approx(expected)


def test_on_each_device(colors, device):
    colors.model.to(device)
    (red,) = exciting_crops(colors, torch.rand(3, 3, 16, 16), "cells", [0])
    assert len(red) == 3
    colors.model.to("cpu")


def test_bad_photos_are_listed(colors, folder):
    (folder / "broken.png").write_bytes(b"no picture")
    found = exciting_crops(colors, folder, "cells", [0])
    assert len(found[0]) == 5
    assert [failure.path for failure in found.failures] == [str(folder / "broken.png")]
    with pytest.raises(ImageError, match=r"broken\.png"):
        exciting_crops(colors, [folder / "broken.png"], "cells", [0])


@pytest.mark.parametrize(
    ("layer", "channels", "settings", "message"),
    [
        ("sells", [0], {}, r"^layer: expected .*'sells'; closest: 'cells'"),
        ("cells", [3], {}, r"^channels: expected indices from 0 to 2, .* got 3"),
        ("cells", [0], {"per_channel": 0}, r"^per_channel: expected an int of at least 1"),
        ("cells", [0], {"crop": 0}, r"^crop: expected None or an int of at least 1"),
    ],
)
def test_bad_input(colors, folder, layer, channels, settings, message):
    with pytest.raises(ValueError, match=message):
        exciting_crops(colors, folder, layer, channels, **settings)


def test_no_images(colors):
    with pytest.raises(ValueError, match="expected at least one that can be used"):
        exciting_crops(colors, torch.rand(0, 3, 16, 16), "cells", [0])


# ---- receptive fields ----


def test_receptive_side_of_a_convolution(colors):
    assert receptive_side(colors, "cells", (32, 32)) == 4
    stack = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ).eval()  # fmt: skip
    assert receptive_side(pyxai.Classifier(stack), "0", (24, 40)) == 3
    assert 4 <= receptive_side(pyxai.Classifier(stack), "1", (24, 40)) <= 5


def test_receptive_side_grows_with_depth():
    classifier = pyxai.Classifier(random_net())
    sides = [
        receptive_side(classifier, layer, (48, 48))
        for layer in ("stem", "stage1", "stage2", "stage3")
    ]
    assert sides == sorted(sides)
    assert sides[0] == 3
    assert sides[-1] <= 48
    vit = pyxai.Classifier(SmallViT().eval())
    assert receptive_side(vit, "patch", (32, 32)) == 8


# ---- sheet and command ----


def test_sheet_lays_out_pictures_and_crops():
    red, blue = Image.new("RGB", (40, 40), "red"), Image.new("RGB", (10, 20), "blue")
    page = feature_sheet([red, red], [[blue] * 4, []], captions=["a", "b"], columns=1, cell=80)
    assert page.size == (2 * 82 + 8 + 8, 2 * (80 + 15 + 8) + 8)
    assert page.getpixel((8 + 40, 8 + 15 + 40)) == (255, 0, 0)
    assert page.getpixel((8 + 82 + 20, 8 + 15 + 20)) == (0, 0, 255)
    assert feature_sheet([[red, blue]]).size[0] > feature_sheet([red]).size[0]
    with pytest.raises(ValueError, match="pictures: expected at least one"):
        feature_sheet([])
    with pytest.raises(ValueError, match="captions: expected 1, one for each unit"):
        feature_sheet([red], captions=["a", "b"])
    with pytest.raises(ValueError, match="cell: expected at least 8 pixels"):
        feature_sheet([red], cell=1)


def test_channels_on_the_command_line():
    assert parse_channels("0,5, 10-12,5") == [0, 5, 10, 11, 12]
    for wrong in ("", "a", "3-1", "-1", "1,,2"):
        with pytest.raises(ValueError, match="--channels: expected indices"):
            parse_channels(wrong)


def run(*arguments):
    return CliRunner().invoke(app, ["features", *map(str, arguments)])


def test_command_makes_pictures_crops_and_a_sheet(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(3):
        Image.effect_noise((150, 150), 60 + index).convert("RGB").save(photos / f"{index}.png")
    output = tmp_path / "out"
    common = ("--size", 16, "--steps", 2, "--output", output)
    result = run(photos, "--layer", "stage1", "--channels", "0,3", "--crops", 2, *common)
    assert result.exit_code == 0, result.output
    facts = json.loads((output / "features.json").read_text())
    assert [unit["index"] for unit in facts["units"]] == [0, 3]
    for unit in facts["units"]:
        assert open_photo(output / unit["files"][0]).size == (16, 16)
        assert len(unit["crops"]) == 2
        assert (output / unit["crops"][0]["file"]).is_file()
    assert (output / "sheet.png").is_file()
    assert "channel 3" in result.output


def test_command_with_classes_and_json(tmp_path):
    result = run(
        "--class", "street", "--class", "sea", "--variants", 2, "--size", 16, "--steps", 2,
        "--output", tmp_path, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert [unit["name"] for unit in facts["units"]] == ["street", "sea"]
    assert [len(unit["files"]) for unit in facts["units"]] == [2, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--layer", "stage9"), "stage9"),
        (("--layer", "stage1", "--channels", "9999"), "channels: expected indices from 0"),
        (("--class", "street", "--layer", "stage1"), "--class: expected without --layer"),
        (("--class", "stret"), "closest: 'street'"),
    ],
)
def test_command_refuses(tmp_path, arguments, message):
    result = run(*arguments, "--output", tmp_path / "out")
    assert isinstance(result.exception, ValueError)
    assert message in str(result.exception)
    assert not (tmp_path / "out").exists()
