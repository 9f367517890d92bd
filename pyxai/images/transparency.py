"""PNG files that name one colour as transparent, in depths at which Pillow does not compare it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

_LEVELS = {"L;2": 85, "L;4": 17}
"""What a step of grey of so many bits becomes at 8."""


def transparent_pixels(image: Image.Image) -> NDArray[np.bool_] | None:
    """Where a picture has the one colour that its file calls transparent; it gets decoded.

    The file names that colour in its own depth, and Pillow compares it with pixels of 8 bits. To be
    asked before the picture is decoded, as Pillow then forgets what depth it had.

    Returns:
        `[H, W]`; None where there is no such colour, or Pillow gets it right: at 1 and 8 bits.
    """
    key = image.info.get("transparency")
    if not isinstance(key, (int, tuple)):
        return None
    packed = _packing(image)
    low = _low_bytes(image) if packed == "RGB;16B" else None
    image.load()
    clear: NDArray[np.bool_] | None = None
    if isinstance(key, int) and image.mode.startswith("I"):
        clear = np.asarray(image.convert("I")) == key
    elif isinstance(key, int) and packed in _LEVELS:
        clear = np.asarray(image) == key * _LEVELS[packed]
    # Of a picture that was decoded before, the colour tells the depth, if it is not too dark.
    elif isinstance(key, tuple) and image.mode == "RGB" and (low is not None or max(key) > 255):
        clear = (np.asarray(image) == np.array(key) // 256).all(axis=2)
        if low is not None:
            clear &= (low == np.array(key) % 256).all(axis=2)
    return clear


def _packing(image: Image.Image) -> str:
    """How the pixels lie in the file, such as "L;4"; "" once they are decoded."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    return str(tiles[0][3]) if tiles else ""


def _low_bytes(image: Image.Image) -> NDArray[np.uint8] | None:
    """The lower halves of 16-bit colours, which Pillow drops; None of the frames of an animation.

    Read from the same file, as if it had the other byte order.
    """
    file = getattr(image, "fp", None)
    if file is None or image.tell():
        return None
    place = file.tell()
    other = Image.open(file, formats=["PNG"])
    assert isinstance(other, ImageFile.ImageFile)
    other.tile = [tile._replace(args="RGB;16L") for tile in other.tile]
    low = np.array(other)
    file.seek(place)
    return low
