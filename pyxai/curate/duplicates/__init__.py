"""Finds photos that show the same: copies of a file, of its pixels, and near-duplicates."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from tqdm import tqdm

from pyxai._errors import argument_error, check_count
from pyxai._sealed import file_digest
from pyxai.classifier import Classifier, as_classifier
from pyxai.classifier.batches import iterate_batches
from pyxai.classifier.features import pooled_features
from pyxai.classifier.fingerprint import fingerprint
from pyxai.curate.duplicates.grouping import Copy, Group, Match, group_photos
from pyxai.curate.duplicates.hashes import hash_function, hashes, pixel_digest
from pyxai.curate.duplicates.matching import alike, by_features, by_hash, same_pixels
from pyxai.curate.duplicates.moving import Moves, NotBackError, move_back
from pyxai.curate.duplicates.names import below, distinct, place, root_of
from pyxai.curate.duplicates.nearby import least_cosine
from pyxai.curate.duplicates.records import Record, Store, open_store, sharpness_of
from pyxai.curate.duplicates.relocate import FileState
from pyxai.curate.duplicates.result import Duplicates
from pyxai.images import ImageError, find_photos, open_photo
from pyxai.images.errors import printable

__all__ = [
    "Copy",
    "Duplicates",
    "Group",
    "Match",
    "Moves",
    "NotBackError",
    "find_duplicates",
    "move_back",
]

METHODS = ("exact", "hash", "features")
"""The ways to look for duplicates."""


def find_duplicates(
    photos: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    model: nn.Module | Classifier | None = None,
    *,
    methods: Sequence[str] | None = None,
    hash: str = "phash",
    max_bits: int = 7,
    orientations: bool = False,
    min_cosine: float | None = None,
    layer: str | None = None,
    store: str | os.PathLike[str] | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> Duplicates:
    """Groups of photos that show the same, with a suggestion which copy to keep.

    Nothing is deleted or moved. A file is one photo, whatever its names: links, hard links and
    other spellings are no copies. docs/duplicates.md says how well each way does.

    Args:
        photos: a folder with photos, or several of them, or photo files.
        model: describes photos for the method "features"; any classifier, also of other things.
        methods: some of "exact" (equal files, and equal pixels in other files), "hash" (perceptual
            hashes that differ in few bits; needs the extra `duplicates`) and "features" (a
            network's features that point the same way). None takes the first two, and the third
            where there is a model.
        hash: "phash" or "dhash", of 64 bits.
        max_bits: hashes that differ in at most so many bits match.
        orientations: hashes also match if one of the photos is turned by a multiple of 90 degrees
            or mirrored.
        min_cosine: features with at least this cosine match; None takes a value that chance does
            not reach among these photos, as networks differ.
        layer: whose output is averaged over positions; None, the last with positions.
        store: a folder for what was found out about each photo, so that photos that have not
            changed since are not read again and a run that was stopped goes on.
        batch_size: photos in a forward pass; None, as many as suit cache and memory.
        progress: False shows no bars, nor does an output that is no terminal.

    Returns:
        The groups. Every photo of a group matches the one to keep. That is the one with the highest
        resolution; of equals the sharper, then that with the larger file, then the first by name.

    Raises:
        ImageError: a folder does not exist or holds no photos.
        ValueError: a bad argument; fewer than two photos that can be read.
        DamagedError: a file of the store is not as it was written.
        BusyError: another run works in the store.
        MissingExtraError: the method "hash" needs ImageHash.

    Source: dHash as in Rosebrock, "Detect and remove duplicate images from a dataset"; pHash:
    Zauner, "Implementation and benchmarking of perceptual image hash functions" (2010).
    """
    chosen = _methods(methods, model)
    most = check_count("max_bits", max_bits, least=0)
    if most > 31:
        raise argument_error("max_bits", "at most 31 of 64 bits", max_bits)
    if min_cosine is not None and not (
        isinstance(min_cosine, (int, float)) and 0 < min_cosine <= 1
    ):
        raise argument_error("min_cosine", "a number above 0 and at most 1, or None", min_cosine)
    kind = hash if "hash" in chosen else None
    function = None if kind is None else hash_function(kind)
    sources = (photos,) if isinstance(photos, (str, os.PathLike)) else tuple(photos)
    names = distinct(find_photos(sources))
    root = root_of(sources, [*names])
    classifier = as_classifier(model) if model is not None and "features" in chosen else None
    run = _Run(classifier, layer, kind, function)
    records, unreadable = run.read(
        [*names], None if store is None else Path(store), batch_size, progress
    )
    aliases = {str(path): tuple(map(str, more)) for path, more in names.items() if more}
    if sum(1 + len(aliases.get(record.name, ())) for record in records) < 2:
        reason = f"; {printable(unreadable[0][0])}: {unreadable[0][1]}" if unreadable else ""
        raise argument_error("photos", f"two or more photos that can be read{reason}", len(records))
    same = alike(records, "pixels")
    found = [same_pixels(records, same)]
    if kind is not None:
        found.append(by_hash(records, same, kind, most, orientations=orientations))
    if classifier is not None:
        rows = run.features([records[places[0]] for places in same])
        # In digits that do not depend on how photos fell into batches.
        min_cosine = round(least_cosine(rows), 6) if min_cosine is None else min_cosine
        found.append(by_features(same, rows, float(min_cosine)))
    settings = {
        "methods": [*chosen],
        "hash": kind,
        "max_bits": most,
        "orientations": orientations,
        "min_cosine": min_cosine,
        "layer": run.layer,
    }
    groups = group_photos(records, chain.from_iterable(found), root, aliases, sources)
    return Duplicates(
        groups=groups,
        photos=len(records),
        unreadable=tuple(unreadable),
        root=str(root),
        settings=settings,
        sources=tuple(str(Path.cwd() / os.fsdecode(source)) for source in sources),
        aliases=aliases,
        files=_states(records, groups, aliases, root),
    )


def _methods(methods: Sequence[str] | None, model: object) -> tuple[str, ...]:
    if methods is None:
        return METHODS if model is not None else METHODS[:2]
    chosen = (methods,) if isinstance(methods, str) else tuple(methods)
    unknown = [each for each in chosen if each not in METHODS]
    if unknown or not chosen:
        raise argument_error("methods", f"some of {', '.join(map(repr, METHODS))}", methods)
    if "features" in chosen and model is None:
        raise argument_error("model", "a classifier, for the method 'features'", model)
    return chosen


def _states(
    records: Sequence[Record],
    groups: Sequence[Group],
    aliases: Mapping[str, Sequence[str]],
    root: Path,
) -> dict[str, FileState]:
    """What the files of all groups were when they were read."""
    wanted = {path for group in groups for path in group.paths}
    return {
        each.name: FileState(
            place=str(place(each.name)),
            inner=str(below(each.name, root)),
            bytes=each.bytes,
            modified=each.modified,
            digest=each.file,
            others=tuple(str(place(name)) for name in aliases.get(each.name, ())),
        )
        for each in records
        if each.name in wanted
    }


class _Run:
    """Reads photos that are not known yet, each once."""

    def __init__(
        self,
        classifier: Classifier | None,
        layer: str | None,
        kind: str | None,
        function: Any,
    ) -> None:
        self.layer = layer
        self._classifier, self._kind, self._function = classifier, kind, function
        self._store = Store(None, "")
        self._bar: Any = None

    def read(
        self, paths: Sequence[Path], directory: Path | None, batch_size: int | None, progress: bool
    ) -> tuple[list[Record], list[tuple[str, str]]]:
        """The records of all photos that can be read, and the others with the reason."""
        records: list[Record] = []
        unreadable: list[tuple[str, str]] = []
        network = ""
        if (classifier := self._classifier) is not None:
            parts = (fingerprint(classifier.network), self.layer, classifier.preprocessing)
            network = repr(parts)
        bar = tqdm(
            total=len(paths), desc="duplicates", unit="photo", disable=None if progress else True
        )
        with open_store(directory, network) as self._store, bar as self._bar:
            photos = self._photos(paths, records, unreadable)
            if classifier is None:
                for _ in photos:
                    pass
            else:
                self.layer = self.layer or self._store.layer
                self._describe(photos, unreadable, batch_size)
        bad = {name for name, _ in unreadable}
        return [record for record in records if record.name not in bad], unreadable

    def _photos(
        self,
        paths: Sequence[Path],
        records: list[Record],
        unreadable: list[tuple[str, str]],
    ) -> Iterator[tuple[Record, Image.Image]]:
        """Makes the records; hands on the photos whose features are wanted."""
        for path in paths:
            try:
                record, photo = self._read(path)
            except (ImageError, OSError) as error:
                reason = error.reason if isinstance(error, ImageError) else error.strerror
                unreadable.append((str(path), reason or str(error)))
                continue
            finally:
                self._bar.update()
            records.append(record)
            if photo is not None:
                yield record, photo

    def _read(self, path: Path) -> tuple[Record, Image.Image | None]:
        """What is known of a photo, and the photo if its features are wanted."""
        known = self._store.record(path, self._kind)
        described = known is not None and self._store.features(known) is not None
        wanted = self._classifier is not None and not described
        if known is not None and not wanted:
            return known, None
        status = path.stat()
        photo = open_photo(path)
        record = known or self._record(path, photo, status)
        if not record.fits(path, None):
            raise ImageError(str(path), "changed while it was read")
        if known is None:
            self._store.add(record)
        return record, photo if wanted else None

    def _record(self, path: Path, photo: Image.Image, status: os.stat_result) -> Record:
        found: dict[str, list[int] | None] = {}
        if self._kind is not None:
            values = hashes(photo, self._function)
            found[self._kind] = None if values is None else [int(each) for each in values]
        return Record(
            name=str(path),
            bytes=status.st_size,
            modified=status.st_mtime_ns,
            file=file_digest(path),
            pixels=pixel_digest(photo),
            width=photo.width,
            height=photo.height,
            sharpness=sharpness_of(photo),
            hashes=found,
        )

    def _describe(
        self,
        photos: Iterator[tuple[Record, Image.Image]],
        unreadable: list[tuple[str, str]],
        batch_size: int | None,
    ) -> None:
        """Runs the photos through the network, and keeps their features."""
        assert self._classifier is not None
        waiting: dict[str, Record] = {}

        def pictures() -> Iterator[Image.Image]:
            for number, (record, photo) in enumerate(photos):
                waiting[f"images[{number}]"] = record
                yield photo

        failures: list[ImageError] = []
        batches = iterate_batches(
            self._classifier, pictures(), batch_size=batch_size, failures=failures
        )
        for batch in batches:
            if self.layer is None:
                self.layer = self._classifier.last_spatial_layer(batch.inputs)
            found = pooled_features(self._classifier, batch.inputs, self.layer)[self.layer]
            rows = found.cpu().numpy()
            for name, row in zip(batch.names, rows, strict=True):
                if not np.isfinite(row).all():
                    got = f"NaN or infinity for {waiting[name].name}"
                    raise argument_error("layer", "a layer whose features are finite", got)
                self._store.add_features(waiting.pop(name), row, self.layer)
        unreadable += [(waiting[each.name].name, each.reason) for each in failures]

    def features(self, records: Sequence[Record]) -> NDArray[np.float32]:
        """`[n, d]` of length 1."""
        rows = [self._store.features(record) for record in records]
        found = np.stack([row for row in rows if row is not None])
        assert len(found) == len(records)
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        unit: NDArray[np.float32] = (found / np.maximum(lengths, 1e-12)).astype(np.float32)
        return unit
