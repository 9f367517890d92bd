"""PNG files of every depth with transparency: pixels against values computed by hand."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pyxai.images import open_photo

GRAY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6
WHITE = (255, 255, 255)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(values, depth, kind, transparency=None, palette=None, *, orientation=None):
    """A PNG file of these values `[H, W]` or `[H, W, C]`, written without a library."""
    values = np.asarray(values)
    height, width = values.shape[:2]
    rows = b""
    for row in values.reshape(height, -1).tolist():
        bits = "".join(f"{value:0{depth}b}" for value in row)
        bits += "0" * (-len(bits) % 8)
        line = int(bits, 2).to_bytes(len(bits) // 8, "big")
        step = max(1, values.size // (height * width) * depth // 8)
        before = bytes(step) + line
        # Each row as its differences from the pixel on the left, as encoders like it ("sub").
        rows += b"\1" + bytes((a - b) & 255 for a, b in zip(line, before, strict=False))
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))]
    if palette is not None:
        parts.append(chunk(b"PLTE", bytes(palette)))
    if transparency is not None:
        given = transparency
        named = given if isinstance(given, bytes) else struct.pack(f">{len(given)}H", *given)
        parts.append(chunk(b"tRNS", named))
    if orientation is not None:
        exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + struct.pack(
            ">HHI", orientation, 0, 0
        )
        parts.append(chunk(b"eXIf", exif))
    parts += [chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def gray(*values):
    return [WHITE if value is None else (value,) * 3 for value in values]


INKS = [10, 20, 30, 40, 50, 60, 1, 2, 3, 200, 0, 90]
"""A palette of four colours."""

CASES = {
    "grey 1, black": (png([[0, 1]], 1, GRAY, (0,)), gray(None, 255)),
    "grey 1, white": (png([[0, 1]], 1, GRAY, (1,)), gray(0, None)),
    "grey 2": (png([[0, 1, 2, 3]], 2, GRAY, (1,)), gray(0, None, 170, 255)),
    "grey 2, last": (png([[0, 1, 2, 3]], 2, GRAY, (3,)), gray(0, 85, 170, None)),
    "grey 4": (png([[0, 3, 4, 15]], 4, GRAY, (3,)), gray(0, None, 68, 255)),
    "grey 8": (png([[0, 100, 101]], 8, GRAY, (100,)), gray(0, None, 101)),
    # 1000 / 257 and 1001 / 257 are both 4, but only one of them is transparent.
    "grey 16": (
        png([[0, 1000, 1001, 999, 65535]], 16, GRAY, (1000,)),
        gray(0, None, 4, 4, 255),
    ),
    "grey 16, black": (png([[0, 1, 128, 129]], 16, GRAY, (0,)), gray(None, 0, 0, 1)),
    "grey 16, not there": (png([[7, 40000]], 16, GRAY, (8,)), gray(0, 156)),
    "grey 16, none": (png([[0, 128, 129, 65535]], 16, GRAY), gray(0, 0, 1, 255)),
    "colour 8": (
        png([[[1, 2, 3], [1, 2, 4]]], 8, COLOUR, (1, 2, 3)),
        [WHITE, (1, 2, 4)],
    ),
    "colour 16": (
        png(
            [[[1000, 2000, 3000], [1001, 2000, 3000], [65535, 0, 300]]],
            16,
            COLOUR,
            (1000, 2000, 3000),
        ),
        [WHITE, (3, 7, 11), (255, 0, 1)],
    ),
    # In 8 bits all of these are (3, 2, 3) or black.
    "colour 16, dark": (
        png(
            [[[3, 2, 3], [0, 0, 0], [3, 2, 4], [0x300, 0x200, 0x300]]],
            16,
            COLOUR,
            (3, 2, 3),
        ),
        [WHITE, (0, 0, 0), (0, 0, 0), (3, 2, 3)],
    ),
    "colour 16, none": (
        png([[[1000, 2000, 3000], [65535, 0, 65280]]], 16, COLOUR),
        [(3, 7, 11), (255, 0, 255)],
    ),
    # 255 - (255 - 100) * 128 / 255
    "grey and alpha 8": (
        png([[[100, 0], [100, 128], [100, 255]]], 8, GREY_ALPHA),
        gray(None, 177, 100),
    ),
    "grey and alpha 16": (
        png([[[25700, 0], [25700, 32896], [25700, 65535]]], 16, GREY_ALPHA),
        gray(None, 177, 100),
    ),
    "colour and alpha 8": (
        png([[[200, 0, 0, 0], [200, 0, 100, 128], [200, 0, 0, 255]]], 8, COLOUR_ALPHA),
        [WHITE, (227, 127, 177), (200, 0, 0)],
    ),
    "colour and alpha 16": (
        png(
            [[[51400, 0, 0, 0], [51400, 0, 25700, 32896], [51400, 0, 0, 65535]]],
            16,
            COLOUR_ALPHA,
        ),
        [WHITE, (227, 127, 177), (200, 0, 0)],
    ),
    "palette 1": (png([[0, 1]], 1, PALETTE, b"\0", INKS[:6]), [WHITE, (40, 50, 60)]),
    "palette 2": (
        png([[0, 1, 2, 3]], 2, PALETTE, b"\xff\0", INKS),
        [(10, 20, 30), WHITE, (1, 2, 3), (200, 0, 90)],
    ),
    "palette 4": (
        png([[0, 1, 3]], 4, PALETTE, b"\0\xff\xff\x80", INKS),
        [WHITE, (40, 50, 60), (227, 127, 172)],
    ),
    "palette 8": (
        png([[0, 1, 2, 3]], 8, PALETTE, b"\xff\0\x80", INKS),
        [(10, 20, 30), WHITE, (128, 128, 129), (200, 0, 90)],
    ),
}


@pytest.mark.parametrize("source", ["path", "file", "lazy picture", "decoded picture"])
@pytest.mark.parametrize("case", CASES)
def test_right_pixels(case, source, tmp_path):
    data, expected = CASES[case]
    (tmp_path / "a.png").write_bytes(data)
    if source == "path":
        found = open_photo(tmp_path / "a.png")
    elif source == "file":
        file = io.BytesIO(data)
        found = open_photo(file)
        assert not file.closed
        assert open_photo(file).tobytes() == found.tobytes()
    else:
        with Image.open(tmp_path / "a.png") as picture:
            if source == "decoded picture":
                picture.load()
            before = dict(picture.info)
            found = open_photo(picture)
            assert picture.info == before
            assert picture.size == found.size
    if source == "decoded picture" and case in UNKNOWN_DEPTH:
        return  # nothing is left that tells the depth
    assert (found.mode, found.info) == ("RGB", {})
    pixels = np.asarray(found).reshape(-1, 3).astype(int)
    assert abs(pixels - np.array(expected)).max() <= (1 if "alpha" in case or "4" in case else 0)


UNKNOWN_DEPTH = {"grey 2", "grey 2, last", "grey 4", "colour 16", "colour 16, dark"}


def test_a_decoded_picture_of_16_bits_is_compared_at_8():
    with Image.open(io.BytesIO(CASES["colour 16"][0])) as picture:
        picture.load()
        pixels = np.asarray(open_photo(picture)).reshape(-1, 3).tolist()
    assert pixels == [[255, 255, 255], [255, 255, 255], [255, 0, 1]]


def test_large_ones(tmp_path):
    """Noise in 16 bits."""
    values = np.random.default_rng(0).integers(0, 65536, (40, 70))
    values[values % 5 == 0] = 4321
    expected = (values + 128) // 257
    expected[values == 4321] = 255
    (tmp_path / "a.png").write_bytes(png(values, 16, GRAY, (4321,)))
    found = np.asarray(open_photo(tmp_path / "a.png"))
    assert np.array_equal(found, np.repeat(expected[:, :, None], 3, axis=2))
    colors = np.random.default_rng(1).integers(0, 65536, (40, 70, 3))
    colors[::3] = (4321, 17, 65000)
    expected = colors >> 8
    expected[::3] = 255
    (tmp_path / "b.png").write_bytes(png(colors, 16, COLOUR, (4321, 17, 65000)))
    assert np.array_equal(np.asarray(open_photo(tmp_path / "b.png")), expected)


@pytest.mark.parametrize("kind", [GRAY, COLOUR])
def test_turned_and_transparent(kind, tmp_path):
    values = np.arange(6).reshape(2, 3) * 10000
    shaped = values if kind == GRAY else np.stack([values] * 3, axis=2)
    key = (20000,) * (1 if kind == GRAY else 3)
    (tmp_path / "a.png").write_bytes(png(shaped, 16, kind, key, orientation=6))
    found = np.asarray(open_photo(tmp_path / "a.png"))[:, :, 0]
    upright = np.rot90(values, -1)
    grey_levels = upright / 257 if kind == GRAY else upright // 256
    expected = np.where(upright == 20000, 255, grey_levels)
    assert found.shape == (3, 2)
    assert abs(found - expected).max() <= 0.5


def test_a_file_that_was_cut_off(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (40, 70, 3))
    (tmp_path / "a.png").write_bytes(png(values, 16, COLOUR, (1, 2, 3))[:3000])
    with pytest.raises(ValueError, match=r"a\.png: cannot be decoded"):
        open_photo(tmp_path / "a.png")
