"""What is known of each photo: found out once, and kept for later searches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from pyxai._errors import argument_error
from pyxai.classifier import Classifier, Examined
from pyxai.classifier.batches import Batch, batches_of
from pyxai.classifier.features import pooled_features
from pyxai.curate.duplicates.hashes import hashes, pixel_digest
from pyxai.curate.quality import sharpness
from pyxai.runs import Kind, OpenPhoto, Row

RUN = Kind("a search for duplicates", "duplicates", "pyxai duplicates 3", "store")

_SIDE = 256  # longer side of the picture on which sharpness is measured


@dataclass(frozen=True)
class Record:
    """What is known of a photo without a network.

    Attributes:
        name: its path.
        bytes: size of the file.
        modified: time of its last change in nanoseconds.
        file: digest of the file.
        pixels: digest of the decoded pixels.
        width: in pixels.
        height: in pixels.
        sharpness: variance of the Laplacian at a common size.
        hashes: of each kind that was asked for, in eight orientations; None for a plain picture.
    """

    name: str
    bytes: int
    modified: int
    file: str
    pixels: str
    width: int
    height: int
    sharpness: float
    hashes: dict[str, list[int] | None]


def sharpness_of(photo: Image.Image) -> float:
    """Of the photo, its longer side at most 256 pixels; 0 where it is too small to tell."""
    small = photo.convert("L")
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    measured = sharpness(np.asarray(small))
    return measured if np.isfinite(measured) else 0.0


class Describing:
    """The work of a search for duplicates: digests, hashes, sharpness, and a network's features."""

    def __init__(
        self,
        classifier: Classifier | None,
        chosen: dict[str, Any],
        function: Any,
        batch_size: int | None,
    ) -> None:
        """Takes note.

        Args:
            classifier: describes photos; None describes none.
            chosen: gets the "layer" of the features, unless it has it: one for all photos.
            function: see `hash_function`; None makes no hashes.
            batch_size: of the network.
        """
        self._classifier, self._chosen = classifier, chosen
        self._function, self._batch_size = function, batch_size

    def __call__(self, photos: Iterator[OpenPhoto]) -> Iterator[Row]:
        """See `pyxai.runs.working.Work`.

        Rows say (pixels, width, height, sharpness, hashes, why there are no features or None).
        """
        nothing = {"features": torch.zeros(0, dtype=torch.float32, device="cpu")}
        if (classifier := self._classifier) is None:
            for photo in photos:
                yield Row(photo.name, [*self._about(photo.picture), None], lists=nothing)
            return
        abouts: dict[str, list[Any]] = {}

        def described() -> Iterator[tuple[str, Image.Image]]:
            for photo in photos:
                abouts[photo.name] = self._about(photo.picture)
                yield photo.name, photo.picture

        for batch in batches_of(classifier, described(), self._batch_size):
            if not isinstance(batch, Batch):  # it may be a copy of others nevertheless
                yield Row(batch.name, [*abouts.pop(batch.name), batch.reason], lists=nothing)
                continue
            rows = self._features(classifier, batch)
            for name, row in zip(batch.names, rows, strict=True):
                yield Row(name, [*abouts.pop(name), None], lists={"features": row[None]})

    def _about(self, photo: Image.Image) -> list[Any]:
        values = None if self._function is None else hashes(photo, self._function)
        plain = None if values is None else [int(each) for each in values]
        return [pixel_digest(photo), *photo.size, sharpness_of(photo), plain]

    def _features(self, classifier: Classifier, batch: Batch) -> torch.Tensor:
        examined = Examined(classifier, batch.inputs)
        if self._chosen.get("layer") is None:
            self._chosen["layer"] = examined.layer()
        layer = self._chosen["layer"]
        rows = pooled_features(examined, layer)[layer].float().cpu()
        finite = torch.isfinite(rows).all(dim=1).tolist()
        for name, fine in zip(batch.names, finite, strict=True):
            if not fine:
                got = f"NaN or infinity for {name}"
                raise argument_error("layer", "a layer whose features are finite", got)
        return rows
