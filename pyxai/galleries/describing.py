"""The kept crops as a layer of the network describes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pyxai._errors import argument_error
from pyxai.attribution.windows.pixels import open_pixels
from pyxai.classifier import Classifier, Examined
from pyxai.classifier.batches import images_at_once
from pyxai.classifier.features import pooled_features
from pyxai.galleries.contents import ClassCrops, GalleryCrop, cut
from pyxai.galleries.selection import Candidate, Selection
from pyxai.images import ImageError, open_photo


def describe_crops(
    classifier: Classifier, selection: Selection, class_names: tuple[str, ...]
) -> tuple[list[ClassCrops], str]:
    """The best crops of each class with their features, not yet clustered; and the layer.

    Each photo is read once more, for its pixels; those that have vanished since are counted as
    unreadable and their crops left out.
    """
    best = [selection.best(index) for index in range(len(class_names))]
    places = {
        (index, rank): each
        for index, (chosen, _) in enumerate(best)
        for rank, each in enumerate(chosen)
    }
    describe = _Describer(classifier, selection.settings.layer, selection.settings.resize)
    for place, picture in _pictures(places, selection):
        describe.add(place, picture)
    found = describe.finish()
    classes = []
    for index, (chosen, dropped) in enumerate(best):
        kept = [rank for rank in range(len(chosen)) if (index, rank) in found]
        crops = tuple(_crop(chosen[rank], selection.label(chosen[rank].name)) for rank in kept)
        rows = [found[index, rank] for rank in kept]
        features = np.stack(rows) if rows else np.zeros((0, describe.channels), np.float32)
        classes.append(ClassCrops(crops, features, dropped))
    return classes, describe.layer or ""


def _crop(candidate: Candidate, label: str | None = None) -> GalleryCrop:
    return GalleryCrop(
        candidate.name,
        candidate.box,
        float(np.exp(candidate.score)),
        label,
        _pixels=candidate.pixels,
        _photo=None if candidate.pixels else Path(candidate.name).absolute(),
    )


def _pictures(
    places: dict[tuple[int, int], Candidate], selection: Selection
) -> Iterator[tuple[tuple[int, int], Image.Image]]:
    """The pixels of each crop, photo by photo."""
    by_name: dict[str, list[tuple[int, int]]] = {}
    for place in sorted(places, key=lambda place: (places[place].name, place)):
        by_name.setdefault(places[place].name, []).append(place)
    for name, group in by_name.items():
        try:
            photo = None
            for place in group:
                each = places[place]
                if each.pixels is not None:
                    yield place, _crop(each).picture()
                    continue
                photo = open_photo(name) if photo is None else photo
                yield place, cut(photo, name, each.box)
        except ImageError as error:
            selection.tally.fail(name, error.reason)


class _Describer:
    """Runs crops through the network in chunks."""

    def __init__(self, classifier: Classifier, layer: str | None, resize: int | None) -> None:
        self.layer = layer
        self.channels = 0
        self._classifier = classifier
        self._resize = resize
        self._waiting: list[tuple[tuple[int, int], torch.Tensor]] = []
        self._found: dict[tuple[int, int], NDArray[np.float32]] = {}

    def add(self, place: tuple[int, int], picture: Image.Image) -> None:
        pixels = open_pixels(self._classifier, picture)
        size = pixels.size if self._resize is None else (self._resize, self._resize)
        self._waiting.append((place, pixels.whole(size)))
        if len(self._waiting) >= images_at_once(self._waiting[0][1]):
            self._run()

    def finish(self) -> dict[tuple[int, int], NDArray[np.float32]]:
        """The unit vectors of all crops."""
        if self._waiting:
            self._run()
        return self._found

    def _run(self) -> None:
        inputs = torch.cat([window for _, window in self._waiting])
        features = self._features(inputs)
        self.channels = features.shape[1]
        for (place, _), row in zip(self._waiting, features, strict=True):
            self._found[place] = row
        self._waiting.clear()

    def _features(self, inputs: torch.Tensor) -> NDArray[np.float32]:
        """`[n, C]`: means over the positions of the layer, of length 1.

        The length says how strongly the network responds, the direction to what.

        Raises:
            ValueError: the layer has no features of images, or they are not finite.
        """
        examined = Examined(self._classifier, inputs)
        if self.layer is None:
            self.layer = examined.layer()
        raw = pooled_features(examined, self.layer)[self.layer]
        if not bool(torch.isfinite(raw).all()):
            raise argument_error("layer", "a layer whose features are finite", self.layer)
        unit = torch.nn.functional.normalize(raw, dim=1)
        found: NDArray[np.float32] = unit.cpu().numpy()
        return found
