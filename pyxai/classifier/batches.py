"""Photos and tensors as batches of model input, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from PIL import Image

from pyxai.classifier import Classifier
from pyxai.images import ImageError, Images, is_model_input, iterate_photos, to_batch

# Pixels of the images of one forward pass. More do not fit the cache on a CPU, and larger blocks of
# memory go back to the system after each layer; on a GPU it bounds the memory.
_PIXELS_AT_ONCE = {"cpu": 16 * 224 * 224, "other": 256 * 224 * 224}


def pixels_at_once(device: torch.device) -> int:
    """How many pixels suit one forward pass."""
    return _PIXELS_AT_ONCE["cpu" if device.type == "cpu" else "other"]


def images_at_once(images: torch.Tensor) -> int:
    """How many images `[N, C, H, W]` suit one forward pass."""
    return max(1, pixels_at_once(images.device) // max(1, images.shape[-2] * images.shape[-1]))


@dataclass(frozen=True)
class Batch:
    """Some images in the order in which they came.

    Attributes:
        names: of each, its path or "images[i]".
        inputs: the model's input, `[n, C, H, W]`.
    """

    names: tuple[str, ...]
    inputs: torch.Tensor


def iterate_batches(
    classifier: Classifier,
    images: Images,
    *,
    batch_size: int | None = None,
    failures: list[ImageError] | None = None,
    look: Callable[[str, Image.Image], None] | None = None,
) -> Iterator[Batch]:
    """Batches of any number of images; no more than one batch is held.

    Images keep their order. Those of one size that follow each other run together.

    Args:
        classifier: gives preprocessing, device and dtype.
        images: see `Classifier.to_input`; also folders and generators.
        batch_size: images in a batch; None, as many as suit cache and memory.
        failures: gets the error of each photo that cannot be used; None raises the first.
        look: is called with the name of each photo and its upright RGB pixels, before they become
            input, so that nobody has to decode it again; not for tensors that are input already.

    Raises:
        ImageError: a photo cannot be used, and `failures` is None.
    """
    if is_model_input(images):
        step = batch_size or images_at_once(images)
        for start in range(0, len(images), step):
            some = images[start : start + step].to(classifier.device)
            yield Batch(tuple(f"images[{start + row}]" for row in range(len(some))), some)
        return
    for batch in batches_of(classifier, _looked_at(iterate_photos(images), look), batch_size):
        if isinstance(batch, Batch):
            yield batch
        elif failures is None:
            raise batch
        else:
            failures.append(batch)


def batches_of(
    classifier: Classifier,
    photos: Iterable[tuple[str, Image.Image | ImageError]],
    batch_size: int | None = None,
) -> Iterator[Batch | ImageError]:
    """Batches of photos that are open, or what is wrong with one.

    Args:
        classifier: gives preprocessing, device and dtype.
        photos: names and upright RGB pixels; no more than a batch of them is held.
        batch_size: see `iterate_batches`.
    """
    names: list[str] = []
    waiting: list[torch.Tensor] = []
    for name, photo in photos:
        try:
            if isinstance(photo, ImageError):
                raise photo
            (one,) = to_batch([photo], classifier.preprocessing)
        except ImageError as error:
            yield ImageError(name, error.reason)
            continue
        full = batch_size or images_at_once(one)
        if waiting and (waiting[0].shape != one.shape or len(waiting) >= full):
            yield _batch(classifier, names, waiting)
            names, waiting = [], []
        names.append(name)
        waiting.append(one)
    if waiting:
        yield _batch(classifier, names, waiting)


def _looked_at(
    photos: Iterator[tuple[str, Image.Image | ImageError]],
    look: Callable[[str, Image.Image], None] | None,
) -> Iterator[tuple[str, Image.Image | ImageError]]:
    for name, photo in photos:
        if look is not None and not isinstance(photo, ImageError):
            look(name, photo)
        yield name, photo


def _batch(classifier: Classifier, names: list[str], waiting: list[torch.Tensor]) -> Batch:
    inputs = torch.stack(waiting).to(classifier.device, classifier.dtype)
    return Batch(tuple(names), inputs)
