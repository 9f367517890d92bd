"""One photo at its own resolution, from which windows are cut as the network wants them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pyxai._errors import argument_error
from pyxai.classifier import Classifier
from pyxai.images import PhotoSource, open_photo
from pyxai.ops import crop_windows

_EXPECTED = "one photo (path, PIL image, uint8 array or tensor) or a float tensor [C, H, W]"


@dataclass(frozen=True)
class Pixels:
    """A photo and how its pixels become the network's input.

    Attributes:
        values: `[C, H, W]`, uint8, or floating where they are the network's input already.
        mean: of each channel of pixels in [0, 1]; None for the network's input.
        std: the standard deviation likewise.
        dtype: of windows.
        memory_format: of windows.
    """

    values: torch.Tensor
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    dtype: torch.dtype
    memory_format: torch.memory_format = torch.contiguous_format

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.values.shape[1], self.values.shape[2]

    def buffer(self, count: int, size: tuple[int, int]) -> torch.Tensor:
        """Memory for so many windows of this size, for `cut`."""
        return torch.empty(
            (count, len(self.values), *size),
            dtype=self.dtype,
            device=self.values.device,
            memory_format=self.memory_format,
        )

    def cut(self, boxes: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """Windows `[n, C, h, w]` of boxes `[n, 4]`, normalised, resized to what `out` takes."""
        size = (out.shape[2], out.shape[3])
        return crop_windows(
            self.values, boxes, size, mean=self.mean, std=self.std, dtype=self.dtype, out=out
        )

    def whole(self, size: tuple[int, int]) -> torch.Tensor:
        """All of the photo as one window `[1, C, h, w]` of this size."""
        height, width = self.size
        return self.cut(
            torch.tensor([[0, 0, width, height]], dtype=torch.int64, device="cpu"),
            self.buffer(1, size),
        )


def open_pixels(classifier: Classifier, photo: PhotoSource, *, move: bool = True) -> Pixels:
    """Reads one photo, or takes a float tensor as it is, for the windows of a classifier.

    Args:
        classifier: its preprocessing gives mean and deviation, its network the dtype.
        photo: see `pyxai.sliding_window`.
        move: whether pixels go to the device of the classifier.

    Raises:
        ValueError: it is no single photo.
        pyxai.images.ImageError: the photo cannot be read.
    """
    device = classifier.device if move else None
    if isinstance(photo, torch.Tensor) and photo.is_floating_point():
        values = photo[0] if photo.ndim == 4 and len(photo) == 1 else photo
        if values.ndim != 3 or 0 in values.shape:
            raise argument_error("photo", _EXPECTED, photo)
        values = values.detach().to(device)
        return Pixels(values, None, None, values.dtype)
    values = _photo_values(photo).to(device)
    if classifier.dtype == torch.float64:  # bytes become any other type while they are cut
        values = values.to(torch.float64) / 255
    mean, std = classifier.preprocessing.mean, classifier.preprocessing.std
    return Pixels(values, mean, std, classifier.dtype)


def _photo_values(photo: Any) -> torch.Tensor:
    """`[3, H, W]` uint8."""
    if isinstance(photo, (list, tuple)):
        raise argument_error("photo", _EXPECTED, photo)
    if isinstance(photo, (torch.Tensor, np.ndarray)) and photo.ndim == 4:
        if len(photo) != 1:
            raise argument_error("photo", _EXPECTED, photo)
        photo = photo[0]
    # What `open_photo` would give, but left where it is and not copied.
    if (
        isinstance(photo, torch.Tensor)
        and (photo.dtype, photo.ndim) == (torch.uint8, 3)
        and photo.shape[0] == 3
        and photo.numel()
    ):
        return photo
    return torch.from_numpy(np.array(open_photo(photo))).permute(2, 0, 1)
