"""The photos of a set: their names, classes and small copies."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from pyxai._sealed import digest
from pyxai.images import ImageError, ImageErrors, open_photo
from pyxai.playground.writing import SiteFolder, packed
from pyxai.search.contents import Photo, check_content

PHOTOS_PER_FILE = 1000
CROP = 160  # pixels of a piece of a photo, the longer side at most
_LARGE, _THUMB = (640, 85), (128, 75)  # pixels, the longer side at most; JPEG quality
_NO_CLASS = 65535


@dataclass(frozen=True)
class PhotoSet:
    """Photos that are searched together.

    Attributes:
        number: place among the sets of the site.
        name: what visitors read.
        photos: in the order of their ids.
        roots: folders and files that were given; names are shown without these.
    """

    number: int
    name: str
    photos: tuple[Photo, ...]
    roots: tuple[Path, ...]

    @property
    def classes(self) -> list[str]:
        """The classes in order of their names."""
        return sorted({photo.label for photo in self.photos if photo.label is not None})

    @property
    def labels(self) -> list[int]:
        """The place of each photo's class, or -1."""
        places = {name: place for place, name in enumerate(self.classes)}
        return [-1 if photo.label is None else places[photo.label] for photo in self.photos]

    @property
    def sizes(self) -> list[int]:
        """How many photos each class has."""
        labels = self.labels
        return [labels.count(place) for place in range(len(self.classes))]

    @property
    def address(self) -> str:
        """Where its files are."""
        return f"sets/{self.number}"

    @cached_property
    def key(self) -> str:
        """Tells these photos from others, by their contents and classes in their order."""
        return digest(f"{each.content} {each.label!r}\n".encode() for each in self.photos)

    def shown_name(self, photo: Photo) -> str:
        """The path of a photo within the set; paths of this machine are nobody's business."""
        path = Path(photo.path)
        for root in self.roots:
            if path != root and path.is_relative_to(root):
                return _text(path.relative_to(root))
        return _text(Path(path.name))


def _text(path: Path) -> str:
    """A path as text; bytes that are none become question marks."""
    return os.fsencode(path.as_posix()).decode("utf-8", "replace")


def write_photos(site: SiteFolder, photos: PhotoSet, *, progress: bool) -> None:
    """Writes names, classes and two copies of each photo; in one pass, going on where it was.

    Raises:
        pyxai.images.ImageErrors: photos are gone, or are no longer those of the index.
    """
    labels, names = photos.labels, [photos.shown_name(each) for each in photos.photos]
    site.begin(f"{photos.address}/photos-", photos=photos.key, names=names)
    site.begin(f"{photos.address}/photos/", photos=photos.key, copy=_LARGE)
    site.begin(f"{photos.address}/thumbs/", photos=photos.key, copy=_THUMB)
    site.begin(f"{photos.address}/labels.js", photos=photos.key)
    failures: list[tuple[str, str]] = []
    bar = tqdm(photos.photos, desc="photos", unit="photo", disable=None if progress else True)
    for number, photo in enumerate(bar):
        copies = [_address(photos, kind, number) for kind in ("photos", "thumbs")]
        there = [site.has(each) for each in copies]
        if all(there):
            continue
        try:
            picture = open_photo(photo.path)
            check_content(photo)
        except ImageError as error:
            failures.append((photo.path, error.reason))
            continue
        for address, (side, quality) in zip(copies, (_LARGE, _THUMB), strict=True):
            site.picture(address, shrunk(picture, side), quality)
    if failures:
        raise ImageErrors(failures, len(photos.photos))
    for first in range(0, len(names), PHOTOS_PER_FILE):
        some = slice(first, first + PHOTOS_PER_FILE)
        sizes = [[photo.width, photo.height] for photo in photos.photos[some]]
        record = {"first": first, "names": names[some], "labels": labels[some], "sizes": sizes}
        site.write(f"{photos.address}/photos-{first // PHOTOS_PER_FILE}", record)
    known = np.array(labels)
    known[known < 0] = _NO_CLASS
    site.write(f"{photos.address}/labels", {"labels": packed(known, "uint16")})


def _address(photos: PhotoSet, kind: str, number: int) -> str:
    return f"{photos.address}/{kind}/{number // PHOTOS_PER_FILE}/{number}.jpg"


def check_photos(photos: PhotoSet) -> None:
    """Raises ImageErrors if photos are gone, or are no longer those of the index."""
    failures = []
    for photo in photos.photos:
        try:
            check_content(photo)
        except ImageError as error:
            failures.append((photo.path, error.reason))
    if failures:
        raise ImageErrors(failures, len(photos.photos))


def shrunk(picture: Image.Image, side: int) -> Image.Image:
    """The picture with its longer side at most this long."""
    width, height = picture.size
    if max(width, height) <= side:
        return picture
    scale = side / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def places_of(sets: Sequence[PhotoSet]) -> dict[str, tuple[int, int]]:
    """(set, id) of each photo by its path; the first set that has it."""
    found: dict[str, tuple[int, int]] = {}
    for each in sets:
        for number, photo in enumerate(each.photos):
            found.setdefault(photo.path, (each.number, number))
    return found
