"""What happens to a photo on its way into a network: resize, crop, normalise."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, SupportsIndex, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pyxai._errors import argument_error, check_count
from pyxai.images import reading
from pyxai.images.errors import ImageError
from pyxai.images.reading import (
    PhotoSource,
    is_upright_rgb,
    name_of,
    open_photo,
    upright_size,
)

Interpolation: TypeAlias = Literal["bilinear", "bicubic", "nearest", "lanczos"]

_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
}


_SLENDER = 4
"""A photo whose sides are over this many to one gets no more than `max_pixels` into a network.

Until there, the resize says how large photos get, which is what its author wanted. Beyond, a single
photo decides: a network takes 100 to 1000 bytes for each pixel.
"""


@dataclass(frozen=True)
class Preprocessing:
    """Resize, centre crop and normalisation, to the bit as torchvision does them on PIL images.

    The same as `Compose([Resize(resize, interpolation), CenterCrop(crop), ToTensor(),
    Normalize(mean, std)])`, steps that are None left out. Hashable; safe in several threads.

    Attributes:
        mean: Mean of each channel (R, G, B) of pixels in [0, 1].
        std: Standard deviation of each channel, greater than 0.
        resize: Pixels. An int sets the shorter side and keeps the proportions (the longer side is
            rounded down); a pair is (height, width) exactly. None keeps the size.
        crop: Pixels. An int or a pair (height, width), cut out of the centre. A photo that is
            smaller than the crop gets a black border (before normalisation). None keeps it all.
        interpolation: Of the resize; all but "nearest" are antialiased.
        max_pixels: How many pixels a photo may have after the resize, so that one strip in a folder
            does not take all memory: 3000 × 1 pixels with resize=256 would be 768,000 × 256. Photos
            that shrink or keep their size may have more, but without a crop, as all of them goes
            into the network, only those whose sides are not over 4 : 1. A resize to a pair is not
            limited. As it changes no photo that passes, it is no part of the repr, by which files
            tell preprocessings apart.
    """

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    resize: int | tuple[int, int] | None = None
    crop: int | tuple[int, int] | None = None
    interpolation: Interpolation = "bilinear"
    max_pixels: int = field(default=4_194_304, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", _three_numbers("mean", self.mean))
        object.__setattr__(self, "std", _three_numbers("std", self.std))
        if min(self.std) <= 0:
            raise ValueError(f"std: expected three numbers greater than 0, got {self.std}")
        object.__setattr__(self, "resize", _lengths("resize", self.resize))
        object.__setattr__(self, "crop", _lengths("crop", self.crop))
        if self.interpolation not in _RESAMPLING:
            expected = ", ".join(map(repr, _RESAMPLING))
            raise ValueError(
                f"interpolation: expected one of {expected}, got {self.interpolation!r}"
            )
        object.__setattr__(self, "max_pixels", check_count("max_pixels", self.max_pixels))

    @property
    def steps(self) -> dict[str, Any]:
        """What decides what becomes of a photo, by name: all but `max_pixels`."""
        return {name: value for name, value in asdict(self).items() if name != "max_pixels"}

    def __call__(self, photo: PhotoSource) -> torch.Tensor:
        """Makes a photo what the network takes.

        Args:
            photo: A picture from `open_photo`, or anything that it opens.

        Returns:
            A contiguous float32 tensor `[3, h, w]` on the CPU.

        Raises:
            ImageError: The photo cannot be opened, or would exceed `max_pixels` once resized.
        """
        return normalized(np.asarray(self.view(photo)), self.mean, self.std)

    def view(self, photo: PhotoSource) -> Image.Image:
        """The geometry only: the picture that the network sees, before normalisation.

        Args:
            photo: A picture from `open_photo`, or anything that it opens; it is not changed.

        Returns:
            An RGB picture of its own memory (the photo itself if there is nothing to do).

        Raises:
            ImageError: As for a call.
        """
        picture = cast(Image.Image, photo) if is_upright_rgb(photo) else open_photo(photo)
        size, box = self._plan(picture.size, name_of(photo))
        if size != picture.size:
            picture = picture.resize(size, _RESAMPLING[self.interpolation])
        if box != (0, 0, *size):
            picture = picture.crop(box)  # what lies outside the picture comes out black
        return picture

    def region(self, photo: PhotoSource | tuple[int, int]) -> tuple[float, float, float, float]:
        """The part of the original photo that the network sees, to lay a map over that photo.

        Args:
            photo: The photo, as anything that `open_photo` opens, or (width, height) of the upright
                photo, as `open_photo(...).size` gives it.

        Returns:
            (x0, y0, x1, y1) in pixels of the upright photo, edges and not centres: the whole photo
            is (0, 0, width, height). Where the crop added a border, the region reaches beyond the
            photo: x0 or y0 below 0, x1 or y1 above the width or height.

        Raises:
            ImageError: The photo cannot be opened, or would exceed `max_pixels` or `MAX_PIXELS`
                once resized.
            ValueError: A size that is not a pair of numbers greater than 0.
        """
        width, height = _size_of(photo)
        resized, (x0, y0, x1, y1) = self._plan((width, height))
        across, down = width / resized[0], height / resized[1]
        return x0 * across, y0 * down, x1 * across, y1 * down

    def seen_size(self, photo: PhotoSource | tuple[int, int]) -> tuple[int, int]:
        """How large the network sees a photo, which is the size of `view`; nothing is resized.

        Args:
            photo: As for `region`.

        Returns:
            (width, height) in pixels.

        Raises:
            ImageError: As for `region`.
            ValueError: As for `region`.
        """
        _, (x0, y0, x1, y1) = self._plan(_size_of(photo))
        return x1 - x0, y1 - y0

    def _plan(
        self, size: tuple[int, int], name: str = "image"
    ) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
        """(width, height) after the resize, and the crop's box (x0, y0, x1, y1) in it."""
        width, height = size
        if isinstance(self.resize, tuple):
            height, width = self.resize
        elif self.resize is not None and width <= height:
            width, height = self.resize, int(self.resize * height / width)
        elif self.resize is not None:
            width, height = int(self.resize * width / height), self.resize
        self._check(size, (width, height), name)
        if self.crop is None:
            return (width, height), (0, 0, width, height)
        rows, columns = (self.crop, self.crop) if isinstance(self.crop, int) else self.crop
        x0, y0 = _offset(width, columns), _offset(height, rows)
        return (width, height), (x0, y0, x0 + columns, y0 + rows)

    def _check(self, size: tuple[int, int], resized: tuple[int, int], name: str) -> None:
        """Refuses a photo that the resize would blow up, or leave huge for the network.

        A crop does not help: what it keeps would have to be cut out before the resize, and Pillow
        then gives other pixels than torchvision (it rounds the edges of the cut to 24 bits).
        """
        pixels, held = math.prod(resized), math.prod(size)
        if isinstance(self.resize, tuple):
            most = reading.MAX_PIXELS
        else:
            most = self.max_pixels
            if self.resize is not None and self.crop is None:
                held = min(held, _SLENDER * self.resize**2)
        if pixels <= max(most, held):
            return
        expected = f"expected at most {most:,} pixels after the resize"
        got = f"got {resized[0]} × {resized[1]} from {size} (width × height)"
        is_pair = isinstance(self.resize, tuple)
        hint = "" if is_pair else "; cut the photo, or raise max_pixels of the Preprocessing"
        raise ImageError(name, f"{expected}, {got}{hint}")


def _size_of(photo: PhotoSource | tuple[int, int]) -> tuple[int, int]:
    """(width, height) of a photo, or as given.

    Raises:
        ImageError: The photo cannot be opened.
        ValueError: A size that is not a pair of numbers greater than 0.
    """
    if not isinstance(photo, (tuple, list)):
        return upright_size(photo)
    numbers = all(isinstance(each, (int, float, np.number)) for each in photo)
    if len(photo) != 2 or not numbers or min(photo) < 1:
        expected = "a photo, or its size (width, height) greater than 0"
        raise argument_error("photo", expected, photo)
    return photo[0], photo[1]


def _offset(length: int, crop: int) -> int:
    """Where a centre crop begins; torchvision pads the first side with the smaller half."""
    return round((length - crop) / 2.0) if crop <= length else -((crop - length) // 2)


def _three_numbers(argument: str, value: object) -> tuple[float, ...]:
    try:
        numbers = tuple(float(each) for each in cast(Iterable[float], value))
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{argument}: expected three finite numbers (R, G, B), got {value!r}")
    return numbers


def _lengths(argument: str, value: object) -> int | tuple[int, int] | None:
    if value is None:
        return None
    several = isinstance(value, (tuple, list))
    given = cast("Iterable[SupportsIndex]", value if several else (value,))
    try:
        lengths = [0 if isinstance(each, bool) else operator.index(each) for each in given]
    except TypeError:
        lengths = []
    if len(lengths) != (2 if several else 1) or min(lengths) < 1:
        expected = "expected an int or a pair (height, width) of ints greater than 0, or None"
        raise ValueError(f"{argument}: {expected}, got {value!r}")
    return (lengths[0], lengths[1]) if several else lengths[0]


def normalized(
    pixels: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]
) -> torch.Tensor:
    """(x / 255 − mean) / std: uint8 `[..., h, w, 3]` to float32 `[..., 3, h, w]`.

    In NumPy, as torch starts its threads for so small a tensor already: where several threads
    read photos at once, these threads would only stand in each other's way.
    """
    values = np.moveaxis(pixels, -1, -3).astype(np.float32, order="C")
    values /= np.float32(255)
    values -= np.array(mean, np.float32)[:, None, None]
    values /= np.array(std, np.float32)[:, None, None]
    return torch.from_numpy(values)
