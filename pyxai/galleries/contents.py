"""What a gallery holds: its settings, its crops, and what was counted on the way."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pyxai._errors import argument_error, check_count
from pyxai._sealed import DamagedError, digest
from pyxai.classifier.outputs import class_index
from pyxai.images import ImageError, PhotoFailure, open_photo

_LISTED = 1000  # unreadable photos that are listed; beyond that they are counted only


@dataclass(frozen=True)
class Settings:
    """How crops are chosen and described; see `pyxai.ClassGallery`."""

    crop: int
    evidence: str
    stride: int | None
    resize: int | None
    per_class: int
    per_photo: int
    max_overlap: float
    layer: str | None
    labels: str | None
    mode: str
    seed: int

    def __post_init__(self) -> None:
        for name in ("crop", "per_class", "per_photo", "stride", "resize"):
            value = getattr(self, name)
            if value is None and name in ("stride", "resize"):
                continue
            object.__setattr__(self, name, check_count(name, value))
        if self.evidence not in ("cam", "sliding_window"):
            raise argument_error("evidence", "'cam' or 'sliding_window'", self.evidence)
        modes = ("exhaustive", "shared") if self.evidence == "sliding_window" else ("exhaustive",)
        if self.mode not in modes:
            expected = f"{' or '.join(map(repr, modes))} with evidence={self.evidence!r}"
            raise argument_error("mode", expected, self.mode)
        overlap = self.max_overlap
        if not isinstance(overlap, (int, float)) or not 0 <= overlap <= 1:
            raise argument_error("max_overlap", "a number in [0, 1]", overlap)
        if self.labels not in (None, "folder"):
            raise argument_error("labels", "None or 'folder'", self.labels)
        if self.layer is not None and not isinstance(self.layer, str):
            raise argument_error("layer", "None or the name of a layer", self.layer)

    @property
    def of_selection(self) -> dict[str, Any]:
        """Those that decide which crops are kept."""
        return {name: value for name, value in asdict(self).items() if name not in _LATER}


_LATER = ("layer", "seed")


@dataclass(frozen=True)
class StoredPicture:
    """A picture in a saved gallery: its file, and the digest of what is in it."""

    path: Path
    digest: str

    def read(self) -> bytes:
        """The bytes of the file.

        Raises:
            DamagedError: it is not as it was written.
            OSError: it cannot be read.
        """
        data = self.path.read_bytes()
        if digest([data]) != self.digest:
            raise DamagedError(self.path, "the picture")
        return data

    def open(self) -> Image.Image:
        """The picture.

        Raises:
            DamagedError: the file is not as it was written.
            ImageError: it cannot be read.
        """
        try:
            return open_photo(io.BytesIO(self.read()), name=str(self.path))
        except OSError as error:
            reason = f"the file cannot be read: {error.strerror}"
            raise ImageError(str(self.path), reason) from error


@dataclass(frozen=True)
class GalleryCrop:
    """One crop of a gallery.

    Attributes:
        name: the photo it was cut from: its path, or its place in the argument, "images[3]".
        box: (x0, y0, x1, y1), edges in pixels of the upright photo.
        score: the probability of the class in this crop, in [0, 1]; for networks whose head is not
            linear and evidence="cam", the mean of the map times the photo's probability.
        label: the class that the photo's folder is named after, or None.
        cluster: 0 is the largest of its class; -1 where a clusterer calls it noise.
        representative: whether it has the highest score of its cluster.
    """

    name: str
    box: tuple[int, int, int, int]
    score: float
    label: str | None = None
    cluster: int = 0
    representative: bool = False
    # Where its pixels are: in memory (RGB), in a file of its own, or in the photo's file.
    _pixels: bytes | None = field(default=None, repr=False, compare=False)
    _stored: StoredPicture | None = field(default=None, repr=False, compare=False)
    _photo: Path | None = field(default=None, repr=False, compare=False)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        x0, y0, x1, y1 = self.box
        return x1 - x0, y1 - y0

    def picture(self) -> Image.Image:
        """The crop as an RGB picture, read from the photo's file or the saved gallery.

        Raises:
            pyxai.images.ImageError: the file is gone, or no longer what it was.
            ValueError: the file of a saved gallery is damaged.
        """
        if self._pixels is not None:
            return Image.frombytes("RGB", self.size, self._pixels)
        if self._stored is not None:
            return self._stored.open()
        assert self._photo is not None
        return cut(open_photo(self._photo), self.name, self.box)

    def jpeg(self, quality: int) -> bytes:
        """The picture as a JPEG file; one that was saved before is not compressed a second time."""
        if self._stored is not None:
            return self._stored.read()
        file = io.BytesIO()
        self.picture().save(file, "JPEG", quality=quality)
        return file.getvalue()


def cut(photo: Image.Image, name: str, box: tuple[int, int, int, int]) -> Image.Image:
    """A box of a photo.

    Raises:
        ImageError: it reaches beyond the photo, which is not the one that was searched.
    """
    if box[2] > photo.width or box[3] > photo.height:
        size = f"{photo.width} × {photo.height} pixels"
        raise ImageError(name, f"expected the photo that was searched, found another of {size}")
    return photo.crop(box)


@dataclass
class Tally:
    """What became of the photos.

    Attributes:
        photos: how many there were.
        smaller: how many were skipped, as they are smaller than the crop.
        unnamed: how many were skipped with labels="folder", as their folder is no class.
        unreadable: how many could not be read.
        failures: the first 1,000 of these.
    """

    photos: int = 0
    smaller: int = 0
    unnamed: int = 0
    unreadable: int = 0
    failures: list[PhotoFailure] = field(default_factory=list)

    def fail(self, name: str, reason: str) -> None:
        """Counts a photo that could not be read, and lists it."""
        self.unreadable += 1
        if len(self.failures) < _LISTED:
            self.failures.append(PhotoFailure(name, reason))


@dataclass(frozen=True, eq=False)
class ClassCrops:
    """The crops of one class, the best first.

    Attributes:
        crops: with their clusters.
        features: `[n, C]` float32, a unit vector a crop.
        near_duplicates: how many crops were left out, as they look like one that was taken.
        note: what a reader of the report should know, or "".
    """

    crops: tuple[GalleryCrop, ...]
    features: NDArray[np.float32]
    near_duplicates: int = 0
    note: str = ""

    @property
    def clusters(self) -> list[list[GalleryCrop]]:
        """The crops by cluster, the best of each first; noise is left out."""
        count = max((crop.cluster for crop in self.crops), default=-1) + 1
        found: list[list[GalleryCrop]] = [[] for _ in range(count)]
        for crop in self.crops:
            if crop.cluster >= 0:
                found[crop.cluster].append(crop)
        return found

    @property
    def noise(self) -> list[GalleryCrop]:
        """The crops that a clusterer put into no cluster."""
        return [crop for crop in self.crops if crop.cluster < 0]


def purity(classes: Iterable[tuple[str, ClassCrops]]) -> float | None:
    """The share of crops that are labelled with the name of their class.

    Crops without a label do not count; None where no crop has one.
    """
    right = [
        crop.label == name
        for name, found in classes
        for crop in found.crops
        if crop.label is not None
    ]
    return sum(right) / len(right) if right else None


@dataclass(frozen=True, eq=False)
class Contents:
    """A gallery that was fitted.

    Attributes:
        model: the name of the network.
        layer: the layer whose features describe the crops.
        clustering: by what they were clustered.
        class_names: one a class.
        classes: the crops of each.
        tally: what became of the photos.
    """

    model: str
    layer: str
    clustering: str
    class_names: tuple[str, ...]
    classes: tuple[ClassCrops, ...]
    tally: Tally

    def index(self, target: int | str) -> int:
        """The index of a class given by index or name.

        Raises:
            ValueError: there is none, with the closest names.
        """
        index, count = class_index(target, self.class_names), len(self.class_names)
        if not -count <= index < count:
            raise argument_error("target", f"a class index below {count}", index)
        return index % count
