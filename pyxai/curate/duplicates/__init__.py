"""Finds photos that show the same: copies of a file, of its pixels, and near-duplicates."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pyxai._errors import argument_error, check_count, folder_of
from pyxai.classifier import Classifier, as_classifier
from pyxai.classifier.fingerprint import fingerprint
from pyxai.curate.duplicates.grouping import Copy, Group, Match, group_photos
from pyxai.curate.duplicates.hashes import hash_function
from pyxai.curate.duplicates.matching import Matches, alike, by_features, by_hash, same_pixels
from pyxai.curate.duplicates.moving import Moves, NotBackError, move_back
from pyxai.curate.duplicates.names import below, distinct, place, root_of
from pyxai.curate.duplicates.nearby import least_cosine
from pyxai.curate.duplicates.records import RUN, Describing, Record
from pyxai.curate.duplicates.relocate import FileState
from pyxai.curate.duplicates.result import Duplicates
from pyxai.images import find_photos
from pyxai.images.errors import printable
from pyxai.runs import Executor, PhotoFailure, PhotoState, open_run

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
    executor: Executor = "local",
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
            changed since are not read again and a run that was stopped goes on. It keeps nothing of
            photos that are not among these any more.
        batch_size: photos in a forward pass; None, as many as suit cache and memory.
        executor: where photos are read: "local", in this process.
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
    most = _limits(max_bits, min_cosine)
    kind = hash if "hash" in chosen else None
    function = None if kind is None else hash_function(kind)
    sources = (photos,) if isinstance(photos, (str, os.PathLike)) else tuple(photos)
    names = distinct(find_photos(sources))
    root = root_of(sources, [*names])
    classifier = as_classifier(model) if model is not None and "features" in chosen else None
    identity = {"hash": kind, "layer": layer, **_network(classifier)}
    states = {str(path): _size_and_time(path) for path in names}  # before they are read
    with open_run(RUN, folder_of("store", store), identity, keep=True) as run:
        about = run.parts.chosen
        if layer is not None:
            about["layer"] = layer
        work = Describing(classifier, about, function, batch_size)
        parts = [
            *run.parts_of([*names], work, desc="duplicates", executor=executor, progress=progress)
        ]
        records = [_record(photo, *states[photo.path], kind) for photo in run.photos]
        features = [each for part in parts for each in part.lists("features")] if classifier else []
    failures = [*run.failures, *_without_features(run.photos)]
    aliases = {str(path): tuple(map(str, more)) for path, more in names.items() if more}
    if sum(1 + len(aliases.get(record.name, ())) for record in records) < 2:
        raise _too_few(len(records), failures)
    found, min_cosine = _matches(records, features, kind, most, orientations, min_cosine)
    settings = {
        "methods": [*chosen],
        "hash": kind,
        "max_bits": most,
        "orientations": orientations,
        "min_cosine": min_cosine,
        "layer": about.get("layer") if classifier is not None else None,
    }
    groups = group_photos(records, found, root, aliases, sources)
    return Duplicates(
        groups=groups,
        photos=len(records),
        failures=tuple(failures),
        root=str(root),
        settings=settings,
        sources=tuple(str(Path.cwd() / os.fsdecode(source)) for source in sources),
        aliases=aliases,
        files=_states(records, groups, aliases, root),
    )


def _too_few(count: int, failures: Sequence[PhotoFailure]) -> ValueError:
    first = failures[0] if failures else None
    reason = f"; {printable(first.path)}: {first.reason}" if first else ""
    return argument_error("photos", f"two or more photos that can be read{reason}", count)


def _limits(max_bits: int, min_cosine: float | None) -> int:
    """How many bits may differ, once both limits are known to fit."""
    most = check_count("max_bits", max_bits, least=0)
    if most > 31:
        raise argument_error("max_bits", "at most 31 of 64 bits", max_bits)
    if min_cosine is not None and not (
        isinstance(min_cosine, (int, float)) and 0 < min_cosine <= 1
    ):
        raise argument_error("min_cosine", "a number above 0 and at most 1, or None", min_cosine)
    return most


def _matches(
    records: Sequence[Record],
    features: Sequence[torch.Tensor],
    kind: str | None,
    most: int,
    orientations: bool,
    min_cosine: float | None,
) -> tuple[Matches, float | None]:
    """Which photos match, by all methods, and the cosine that was asked for or is told."""
    same = alike(records, "pixels")
    found = [same_pixels(records, same)]
    if kind is not None:
        found.append(by_hash(records, same, kind, most, orientations=orientations))
    described = [places for places in same if features and len(features[places[0]])]
    if described:
        rows = _unit(torch.cat([features[places[0]] for places in described]).numpy())
        # In digits that do not depend on how photos fell into batches.
        min_cosine = round(least_cosine(rows), 6) if min_cosine is None else min_cosine
        found.append(by_features(described, rows, float(min_cosine)))
    return chain.from_iterable(found), min_cosine


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


def _network(classifier: Classifier | None) -> dict[str, str]:
    """What the features of photos depend on."""
    if classifier is None:
        return {}
    how = repr(classifier.preprocessing)
    return {"network": fingerprint(classifier.network), "preprocessing": how}


def _size_and_time(path: Path) -> tuple[int, int]:
    """Bytes and nanoseconds; of a file that is gone nothing is asked later."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _record(photo: PhotoState, size: int, modified: int, kind: str | None) -> Record:
    pixels, width, height, sharpness, hashes, _ = photo.about
    return Record(
        name=photo.path,
        bytes=size,
        modified=modified,
        file=photo.content,
        pixels=pixels,
        width=width,
        height=height,
        sharpness=sharpness,
        hashes={} if kind is None else {kind: hashes},
    )


def _without_features(photos: Sequence[PhotoState]) -> list[PhotoFailure]:
    """Photos that the network cannot take, and which are compared in all other ways."""
    return [
        PhotoFailure(photo.path, f"compared without features: {photo.about[-1]}")
        for photo in photos
        if photo.about[-1] is not None
    ]


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (rows / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit
