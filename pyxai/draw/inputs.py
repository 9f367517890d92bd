"""What a network was shown, as pictures, whatever its number of channels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from pyxai.draw.masks import to_pictures


def shown_pictures(
    inputs: torch.Tensor, mean: Sequence[float], std: Sequence[float]
) -> list[Image.Image]:
    """A model's input as RGB pictures; see `to_pictures`.

    Input of another number of channels than 3 becomes grey: the mean over the channels, each image
    from its least value to its largest.
    """
    if inputs.shape[1] == len(mean) == 3:
        return to_pictures(inputs, mean, std)
    values = inputs.detach().to("cpu", torch.float32).mean(dim=1).nan_to_num()
    low, high = values.amin(dim=(1, 2), keepdim=True), values.amax(dim=(1, 2), keepdim=True)
    gray = ((values - low) / (high - low).clamp(min=1e-12) * 255).round()
    return [Image.fromarray(each.astype(np.uint8)).convert("RGB") for each in gray.numpy()]
