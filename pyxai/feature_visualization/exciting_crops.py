"""The pieces of real photos that excite units of a network most."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pyxai._errors import check_count
from pyxai.classifier import Classifier, Examined, as_classifier
from pyxai.classifier.batches import Batch, iterate_batches
from pyxai.classifier.memory_format import best_format
from pyxai.classifier.points import check_layer
from pyxai.draw import to_pictures
from pyxai.feature_visualization.receptive_field import receptive_side
from pyxai.feature_visualization.result import Box, ExcitingCrop, ExcitingCrops
from pyxai.feature_visualization.units import Channels, Units, features_of, find_units
from pyxai.images import ImageError, ImageErrors, Images, PhotoFailure, open_photo
from pyxai.runs.photos import is_in_memory


def exciting_crops(
    model: nn.Module | Classifier,
    images: Images,
    layer: str | None,
    channels: Channels,
    *,
    per_channel: int = 9,
    crop: int | None = None,
    negative: bool = False,
    batch_size: int | None = None,
) -> ExcitingCrops:
    """Finds the crops of photos that excite units most.

    One crop a photo and unit, around the position with the highest activation. Photos are read one
    after the other, and no more is kept than the best so far; files are read again in the end.
    Equal responses are ordered by name, so the result does not depend on the order of files.

    Args:
        model: an `nn.Module` or a `Classifier`; it is left exactly as it was.
        images: see `Classifier.to_input`; also folders and generators of any length.
        layer: a name as in `model.named_modules()`; None for the logits.
        channels: see `pyxai.visualize_features`.
        per_channel: crops of each unit.
        crop: side of the crops, in pixels of the network's input; None, what a position of this
            layer looks at (`receptive_side`). Crops at the border are moved inwards. A layer
            without positions gives the whole input.
        negative: look for the lowest activations instead.
        batch_size: photos in a forward pass; None, as many as suit cache and memory.

    Returns:
        For each unit its crops, the strongest first; fewer if there are fewer photos. Photos that
        cannot be used are left out and listed in `failures`.

    Raises:
        ValueError: an argument does not fit; the layer or a channel does not exist; there are no
            images.
        pyxai.images.ImageErrors: no photo can be used.
    """
    classifier = as_classifier(model)
    check_count("per_channel", per_channel)
    for name, value in (("crop", crop), ("batch_size", batch_size)):
        if value is not None:
            check_count(name, value, or_none=True)
    if layer is not None:
        check_layer(classifier.network, layer)
    search = _Search(classifier, layer, channels, per_channel, crop, -1.0 if negative else 1.0)
    failures: list[ImageError] = []
    for batch in iterate_batches(classifier, images, batch_size=batch_size, failures=failures):
        search.add(batch)
    if search.units is None:
        if failures:
            raise ImageErrors([(each.name, each.reason) for each in failures])
        raise ValueError("images: expected at least one that can be used, got none")
    return search.finish(failures)


@dataclass(frozen=True, slots=True)
class _Candidate:
    strength: float
    name: str
    position: tuple[int, int]
    box: Box  # in pixels of the input
    size: tuple[int, int]  # of the input
    pixels: bytes | None

    def __lt__(self, other: _Candidate) -> bool:
        """Whether it is worse."""
        if self.strength != other.strength:
            return self.strength < other.strength
        return self.name > other.name


@dataclass
class _Search:
    """The best crops so far: of each unit a heap with the worst at its root."""

    classifier: Classifier
    layer: str | None
    channels: Channels
    per_channel: int
    crop: int | None
    sign: float
    units: Units | None = None
    heaps: list[list[_Candidate]] = field(default_factory=list)
    sides: dict[tuple[int, int], int] = field(default_factory=dict)

    def add(self, batch: Batch) -> None:
        """Looks at some photos."""
        inputs = batch.inputs
        examined = Examined(self.classifier, inputs)
        inputs = inputs.contiguous(memory_format=best_format(examined))
        features, layer = features_of(examined.on(inputs), self.layer)
        if self.units is None:
            self.units = find_units(self.classifier, layer, self.channels)
            self.heaps = [[] for _ in range(len(self.units))]
        images, count = len(inputs), len(self.units)
        strengths, places = [], []
        for unit in range(count):  # one after the other: all maps at once may be too many
            rows = torch.full((images,), unit, device=features.device, dtype=torch.int64)
            maps = self.sign * self.units.maps(features, rows).flatten(1)
            best = maps.max(dim=1)
            strengths.append(best.values)
            places.append(best.indices)
        found = torch.stack(strengths).cpu()  # [units, images]
        where = torch.stack(places).cpu()
        for unit, heap in enumerate(self.heaps):
            enough = torch.isfinite(found[unit])
            if len(heap) == self.per_channel:  # a later one that is as strong may have a lower name
                enough &= found[unit] >= heap[0].strength
            for image in enough.nonzero().flatten().tolist():
                strength = float(found[unit, image])
                position = divmod(int(where[unit, image]), layer.size[1])
                self._offer(heap, batch, image, strength, position, layer.size)

    def _offer(
        self,
        heap: list[_Candidate],
        batch: Batch,
        image: int,
        strength: float,
        position: tuple[int, int],
        grid: tuple[int, int],
    ) -> None:
        name, one = batch.names[image], batch.inputs[image]
        size = (one.shape[1], one.shape[2])
        box = self._box(position, grid, size)
        candidate = _Candidate(strength, name, position, box, size, None)
        full = len(heap) == self.per_channel
        if full and not heap[0] < candidate:
            return
        if is_in_memory(name):
            pixels = self._pixels(one, box)
            candidate = _Candidate(strength, name, position, box, size, pixels)
        if full:
            heapq.heapreplace(heap, candidate)
        else:
            heapq.heappush(heap, candidate)

    def _box(self, position: tuple[int, int], grid: tuple[int, int], size: tuple[int, int]) -> Box:
        """What is cut out around a position, in pixels of the input."""
        if grid == (1, 1):
            return 0, 0, size[1], size[0]
        if self.crop is None and size not in self.sides:
            if len(self.sides) > 64:  # photos of all sizes
                self.sides.clear()
            self.sides[size] = receptive_side(self.classifier, self.layer, size)
        side = self.sides[size] if self.crop is None else self.crop
        edges = []
        for place, count, length in zip(position, grid, size, strict=True):
            extent = min(side, length)
            start = round((place + 0.5) * length / count - extent / 2)
            start = min(max(start, 0), length - extent)
            edges.append((start, start + extent))
        (y0, y1), (x0, x1) = edges
        return x0, y0, x1, y1

    def _pixels(self, one: torch.Tensor, box: Box) -> bytes:
        x0, y0, x1, y1 = box
        preprocessing = self.classifier.preprocessing
        cropped = one[None, :, y0:y1, x0:x1]
        (picture,) = to_pictures(cropped, preprocessing.mean, preprocessing.std)
        return picture.tobytes()

    def finish(self, failures: list[ImageError]) -> ExcitingCrops:
        """The crops, in pixels of their photos; those whose photo has gone since are failures."""
        assert self.units is not None
        sizes: dict[str, tuple[int, int] | None] = {}
        for candidate in sorted((c for heap in self.heaps for c in heap), key=lambda c: c.name):
            if candidate.pixels is None and candidate.name not in sizes:
                sizes[candidate.name] = _size_of(candidate.name, failures)
        results = []
        for heap in self.heaps:
            kept = []
            for each in sorted(heap, reverse=True):
                box: Box | None = each.box
                if each.pixels is None:
                    box = self._in_photo(each, sizes[each.name])
                if box is not None:
                    response = self.sign * each.strength
                    kept.append(ExcitingCrop(each.name, box, response, each.position, each.pixels))
            results.append(tuple(kept))
        told = tuple(PhotoFailure(each.name, each.reason) for each in failures)
        return ExcitingCrops(
            crops=tuple(results), units=self.units.names, layer=self.layer, failures=told
        )

    def _in_photo(self, candidate: _Candidate, photo: tuple[int, int] | None) -> Box | None:
        """The box in pixels of the photo, what lies beyond its edges left out."""
        if photo is None:
            return None
        left, top, right, bottom = self.classifier.preprocessing.region(photo)
        height, width = candidate.size
        x0, y0, x1, y1 = candidate.box
        across, down = (right - left) / width, (bottom - top) / height
        spans: list[Sequence[Any]] = []
        for start, end, first, scale, length in (
            (x0, x1, left, across, photo[0]),
            (y0, y1, top, down, photo[1]),
        ):
            begin = min(max(round(first + start * scale), 0), length - 1)
            spans.append((begin, min(max(round(first + end * scale), begin + 1), length)))
        return spans[0][0], spans[1][0], spans[0][1], spans[1][1]


def _size_of(name: str, failures: list[ImageError]) -> tuple[int, int] | None:
    """(width, height) of a photo's file, None if it has vanished since."""
    try:
        return open_photo(Path(name)).size
    except ImageError as error:
        failures.append(error)
        return None
