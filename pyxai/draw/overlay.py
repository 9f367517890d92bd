"""A map laid over the photo that it explains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from pyxai._errors import argument_error
from pyxai.draw.colormaps import color_table
from pyxai.images import PhotoSource, open_photo
from pyxai.ops import cam_overlay


def overlay(
    photo: PhotoSource,
    heatmap: torch.Tensor,
    *,
    region: Sequence[float] | None = None,
    colormap: str = "ember",
    opacity: float = 0.75,
    relu: bool = False,
    minmax: bool = True,
) -> Image.Image:
    """Draws a map over its photo, at the photo's own resolution.

    Args:
        photo: a path, PIL image, or uint8 array or tensor.
        heatmap: `[h, w]`, any floating dtype and device; a low-resolution map is best, as it is
            resized (bilinearly) to the photo in the same pass.
        region: (x0, y0, x1, y1), the part of the photo that the map covers, in its pixels: what
            `Preprocessing.region` gives where the network saw a crop. By default all of it.
        colormap: see `pyxai.draw.color_table`.
        opacity: of the strongest values, in [0, 1].
        relu: whether negative values count as 0.
        minmax: whether the map is scaled to [0, 1] first; if not, its values must lie there.

    Returns:
        An RGB picture of the photo's size.

    Raises:
        ValueError: the map is not `[h, w]` or not finite, or the region is empty.
        pyxai.images.ImageError: the photo cannot be opened.
    """
    if heatmap.ndim != 2 or heatmap.numel() == 0 or not heatmap.is_floating_point():
        raise argument_error("heatmap", "a float tensor [h, w]", heatmap)
    heatmap = heatmap.detach().to("cpu", torch.float32)
    if not bool(torch.isfinite(heatmap).all()):
        raise ValueError("heatmap: expected finite values, got NaN or infinity")
    picture = open_photo(photo)
    box = (0, 0, *picture.size) if region is None else tuple(round(edge) for edge in region)
    if len(box) != 4 or box[2] <= box[0] or box[3] <= box[1]:
        raise argument_error("region", "(x0, y0, x1, y1) with x0 < x1 and y0 < y1", region)
    covered = picture if box == (0, 0, *picture.size) else picture.crop(box)
    pixels = torch.from_numpy(np.array(covered))
    blended = cam_overlay(
        pixels[None],
        heatmap[None],
        color_table(colormap, opacity=opacity),
        relu=relu,
        minmax=minmax,
    )
    result = picture.copy()
    result.paste(Image.fromarray(blended[0].numpy()), (box[0], box[1]))
    return result
