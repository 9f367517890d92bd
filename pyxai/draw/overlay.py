"""A map laid over the photo that it explains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from pyxai._errors import argument_error
from pyxai.draw.colormaps import color_table
from pyxai.draw.maps import Heatmap, as_map, check_fits, covered, is_floating
from pyxai.images import PhotoSource, open_photo
from pyxai.ops import cam_overlay

_ROUNDING = 0.01  # of a map of half precision that should lie in [0, 1]


def overlay(
    photo: PhotoSource,
    heatmap: Heatmap,
    *,
    region: Sequence[float] | None = None,
    colormap: str = "ember",
    opacity: float = 0.75,
    relu: bool = False,
    minmax: bool = True,
) -> Image.Image:
    """Draws a map over its photo, at the photo's own resolution.

    A map belongs to what the network saw of the photo. Where that was a crop, or where the photo
    was stretched, say so: `overlay(photo, maps[0], region=clf.preprocessing.region(photo))` is
    right for any classifier.

    Args:
        photo: a path, PIL image, or uint8 array or tensor.
        heatmap: `[h, w]`, a tensor or NumPy array of any floating type; a low-resolution map is
            best, as it is resized (bilinearly) to the photo in the same pass.
        region: (x0, y0, x1, y1), the part of the upright photo that the map covers, in its pixels;
            it may reach beyond the photo. None, all of it: the map must then have the proportions
            of the photo, as far as its cells can tell.
        colormap: see `pyxai.draw.color_table`.
        opacity: of the strongest values, in [0, 1].
        relu: whether negative values count as 0.
        minmax: whether the map is scaled to [0, 1] first; if not, its values must lie there.

    Returns:
        An RGB picture of the photo's size.

    Raises:
        ValueError: the map is not `[h, w]` or not finite, or does not have the shape of the photo
            and no region says why; or the region is empty or outside the photo.
        pyxai.images.ImageError: the photo cannot be opened.
    """
    if isinstance(photo, (torch.Tensor, np.ndarray)) and photo.ndim == 2 and is_floating(photo):
        expected = "a photo, and after it the map, overlay(photo, heatmap)"
        raise argument_error("photo", expected, photo)
    values = as_map(heatmap)
    low, high = (0.0 if relu else float(values.min())), float(values.max())
    if not minmax and (low < -_ROUNDING or high > 1 + _ROUNDING):
        expected = "values in [0, 1], as minmax is False"
        raise ValueError(f"heatmap: expected {expected}, got {low:.4g} to {high:.4g}")
    picture = open_photo(photo)
    whole = (0, 0, *picture.size)
    if region is None:
        remedy = (
            "where the network saw a crop of the photo, or the photo stretched, give the part "
            f"that it saw, region=clf.preprocessing.region(photo); all of it is region={whole}"
        )
        check_fits("heatmap", values, picture.size, remedy)
    box = whole if region is None else covered(region, picture.size)
    part = picture if box == whole else picture.crop(box)
    blended = cam_overlay(
        torch.from_numpy(np.array(part))[None],
        values[None],
        color_table(colormap, opacity=opacity),
        relu=relu,
        minmax=minmax,
    )
    result = picture.copy()
    result.paste(Image.fromarray(blended[0].numpy()), (box[0], box[1]))
    return result
