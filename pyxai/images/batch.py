"""What every method of pyxai takes as `images`, as the tensor that a model takes."""

from __future__ import annotations

from typing import Any, TypeAlias, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray

from pyxai._errors import describe
from pyxai.images.errors import ImageError, ImageErrors
from pyxai.images.preprocessing import Preprocessing, normalized
from pyxai.images.recipes import PreprocessingLike, as_preprocessing
from pyxai.images.sources import PhotoSources, iterate_photos

Images: TypeAlias = PhotoSources | torch.Tensor | NDArray[Any]
"""Model input (a floating-point tensor) or photos (all else)."""

_EXPECTED = "expected a float tensor [N, 3, H, W] or photos"


def is_model_input(images: object) -> TypeGuard[torch.Tensor]:
    """Whether these are what a model takes as they are: a floating-point tensor `[N, C, H, W]`.

    An empty batch (N of 0) counts, an empty picture (C, H or W of 0) does not.
    """
    return (
        isinstance(images, torch.Tensor)
        and images.is_floating_point()
        and images.ndim == 4
        and 0 not in images.shape[1:]
    )


def to_batch(
    images: Images,
    preprocessing: PreprocessingLike,
    *,
    device: torch.device | str | int | None = None,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Makes `images` what a model takes.

    Args:
        images: A floating-point tensor `[N, C, H, W]` is model input and is not preprocessed:
            without a change of device or dtype the same object comes back. All else is photos, as
            `iterate_photos` takes them.
        preprocessing: What is done to photos, as `as_preprocessing` takes it.
        device: Where the result lies; where the tensor lies, or the CPU for photos, if None.
        dtype: Floating-point type of the result; that of the tensor, or float32 for photos, if
            None. Photos are normalised in float32 on the CPU and converted last.

    Returns:
        A tensor `[N, C, H, W]`; C is 3 for photos, which come in the order of the sources (of a
        folder: in the order of `find_photos`).

    Raises:
        ImageErrors: Photos that cannot be used; all are tried first and all that fail are listed.
        ImageError: No photos, photos of different sizes after preprocessing, or an argument of the
            wrong type or shape.
        ValueError: A preprocessing that cannot be understood.
    """
    steps = as_preprocessing(preprocessing)
    if dtype is not None and not dtype.is_floating_point:
        raise ImageError("dtype", f"expected a floating-point type, got {dtype}")
    if isinstance(images, torch.Tensor) and images.dtype != torch.uint8:
        if not is_model_input(images):
            raise ImageError("images", f"{_EXPECTED}, got {describe(images)}{_hint(images)}")
        batch = images
    else:
        batch = _batch_of_photos(images, steps)
    device = batch.device if device is None else device
    return batch.to(device=device, dtype=batch.dtype if dtype is None else dtype)


def _hint(images: torch.Tensor) -> str:
    if not images.is_floating_point():
        return "; photos are uint8, model input is floating-point"
    if images.ndim == 3:
        return "; add the batch axis with images[None]"
    if images.ndim == 5:
        return "; video and volumes are not images (docs/your_model.md says what can be done)"
    return ""


def _batch_of_photos(images: PhotoSources, preprocessing: Preprocessing) -> torch.Tensor:
    names: list[str] = []
    pixels: list[NDArray[np.uint8]] = []  # uint8, a quarter of what the batch will take
    failures: list[tuple[str, str]] = []
    for name, photo in iterate_photos(images):
        names.append(name)
        try:
            if isinstance(photo, ImageError):
                raise photo
            view = preprocessing.view(photo)
            if not failures:
                pixels.append(np.asarray(view))
        except ImageError as error:
            failures.append((name, error.reason))
            pixels.clear()
    if failures:
        raise ImageErrors(failures, total=len(names))
    if not names:
        raise ImageError("images", f"{_EXPECTED}, got none ({describe(images)})")
    for name, each in zip(names, pixels, strict=True):
        if each.shape != pixels[0].shape:
            sizes = (
                f"{which}: {height} × {width}"
                for which, (height, width, _) in ((names[0], pixels[0].shape), (name, each.shape))
            )
            raise ImageError(
                "images",
                "expected photos of one size (height × width) after preprocessing, got "
                f"{' and '.join(sizes)}; set resize and crop, or pass the photos one at a time",
            )
    return normalized(np.stack(pixels), preprocessing.mean, preprocessing.std)
