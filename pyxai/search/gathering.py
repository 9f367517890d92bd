"""Going through photos: those that an index knows are not read again, new and changed ones are."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from tqdm import tqdm

from pyxai.images import ImageError, PhotoSources, open_photo
from pyxai.images.sources import name_photos
from pyxai.search.contents import Photo, content_of_file, content_of_picture, stamp_of
from pyxai.search.extraction import Extractor, Features, Waiting
from pyxai.search.labels import Labels, labeller
from pyxai.search.storage import Store


@dataclass
class Gathered:
    """What came of the photos that were given.

    Attributes:
        store: with the features of all of `photos`; None if there was no photo.
        photos: those that can be used, in the order in which they were given.
        failures: why others cannot, by name.
        count: how many were given.
    """

    store: Store | None
    photos: list[Photo] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    count: int = 0


def gather(
    extractor: Extractor,
    photos: PhotoSources,
    store: Store | None,
    start: Callable[[list[torch.Tensor]], Store],
    *,
    labels: Labels,
    keep_memory: bool,
    progress: bool,
) -> Gathered:
    """Looks at photos, and has the store know the features of each.

    A file with the stamp that the store has is not read; one with the content of a photo of the
    store, whatever its name, is not shown to the networks.

    Args:
        extractor: networks and layers.
        photos: see `pyxai.images.iterate_photos`.
        store: what is known.
        start: makes or checks the store, given the inputs of the first photo that is new.
        labels: see `ImageIndex.build`.
        keep_memory: whether a photo from memory whose name is known is taken for the known one.
        progress: whether to show a bar.
    """
    look = _Look(extractor, store, start, labeller(photos, labels), keep_memory)
    named = tqdm(
        name_photos(photos), desc="index", unit="photo", disable=None if progress else True
    )
    for name, source in named:
        look.at(name, source)
    return look.finish()


class _Look:
    def __init__(
        self,
        extractor: Extractor,
        store: Store | None,
        start: Callable[[list[torch.Tensor]], Store],
        label_of: Callable[[str], str | None],
        keep_memory: bool,
    ) -> None:
        known = store.photos() if store is not None else []
        self._known: Mapping[str, Photo] = {photo.path: photo for photo in known}
        self._contents = {photo.content: photo for photo in known}
        self._extractor = extractor
        self._start = start
        self._label_of = label_of
        self._keep_memory = keep_memory
        self._features: Features | None = None
        self._found = Gathered(store)
        self._seen: set[str] = set()

    def at(self, name: str, source: Any) -> None:
        """Looks at a photo; one that was given twice counts once."""
        self._found.count += 1
        if name in self._seen:
            return
        self._seen.add(name)
        try:
            if isinstance(source, ImageError):
                raise source
            is_file = isinstance(source, (str, os.PathLike))
            photo = self._file(name) if is_file else self._picture(name, source)
        except ImageError as error:
            self._found.failures[name] = error.reason
            return
        self._found.photos.append(photo)

    def finish(self) -> Gathered:
        """What was found; photos that the networks refused have become failures."""
        found, refused = self._found, dict[str, str]()
        if self._features is not None:
            self._features.finish()
            refused = self._features.refused
        for photo in found.photos:
            if photo.content in refused:
                found.failures[photo.path] = refused[photo.content]
        found.photos = [photo for photo in found.photos if photo.content not in refused]
        return found

    def _file(self, name: str) -> Photo:
        known = self._known.get(name)
        try:
            stamp = stamp_of(name)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            stamp, known = "", None
        except OSError as error:
            if known is None:
                raise ImageError(name, f"cannot be read: {error.strerror}") from error
            why = f"cannot be looked at ({error.strerror}): its features are those of before"
            self._found.failures[name] = why
            return known
        if known is not None and stamp and known.stamp == stamp:
            return replace(known, label=self._label_of(name))
        content = content_of_file(name)
        twin = self._contents.get(content)
        if twin is not None:
            return replace(twin, path=name, label=self._label_of(name), stamp=stamp)
        return self._new(name, name, content, stamp)

    def _picture(self, name: str, source: Any) -> Photo:
        known = self._known.get(name)
        if known is not None and self._keep_memory:
            return known
        picture = open_photo(source, name=name)
        content = content_of_picture(picture)
        twin = self._contents.get(content)
        if twin is not None:
            return replace(twin, path=name, label=self._label_of(name), stamp="")
        return self._new(name, picture, content, "")

    def _new(self, name: str, source: Any, content: str, stamp: str) -> Photo:
        """A photo that the networks have not seen."""
        picture = open_photo(source, name=name)
        inputs = self._extractor.inputs(picture, name)
        if source is name and (not content or content_of_file(name) != content):
            raise ImageError(name, "changed while it was read")
        photo = Photo(name, *picture.size, self._label_of(name), content, stamp)
        if self._features is None:
            self._found.store = self._start([each[None] for each in inputs])
            self._features = Features(self._extractor, self._found.store)
        self._contents[content] = photo
        self._features.add(Waiting(photo, inputs))
        return photo
