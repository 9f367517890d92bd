"""A crop that suits the photos."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable

from pyxai.attribution.windows.grid import USUAL, usual_window
from pyxai.images import ImageError, find_photos, open_photo

_LOOKED_AT = 32  # photos


def choose_crop(
    photos: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
) -> tuple[int, str]:
    """A crop for a gallery, and why: 160 pixels, or half a side of small photos.

    Args:
        photos: folders and files; the first photos are looked at.

    Raises:
        pyxai.images.ImageError: there are no photos.
    """
    sides = []
    for path in find_photos(photos)[:_LOOKED_AT]:
        try:
            sides.append(min(open_photo(path).size))
        except ImageError:  # reported when all are read
            continue
    side = int(statistics.median(sides)) if sides else 2 * USUAL
    crop = usual_window(side)
    if crop == USUAL:
        return crop, "the default"
    return crop, f"half of {side}, the shorter side of the first photos (median)"
