"""Making an index, going on with one, adding to one, taking photos out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from pyxai._errors import argument_error
from pyxai.classifier import Classifier
from pyxai.classifier.features import POOLINGS, Pooling
from pyxai.images import ImageError, PhotoSources
from pyxai.images.errors import ImageErrors, printable
from pyxai.search.backends.lancedb import remove_tables
from pyxai.search.contents import Photo
from pyxai.search.extraction import Extractor, LayerNames
from pyxai.search.gathering import Gathered, gather
from pyxai.search.header import DTYPES
from pyxai.search.labels import Labels
from pyxai.search.networks import match
from pyxai.search.storage import FILE, Store, load_store, writing_to

_NAMED = 3  # photos that an error names


def build_store(
    classifiers: Mapping[str, Classifier],
    photos: PhotoSources,
    folder: Path | None,
    *,
    layers: LayerNames,
    pooling: Pooling,
    dtype: str,
    labels: Labels,
    allow_removal: bool,
    progress: bool,
) -> tuple[Store, list[str]]:
    """The features of photos, and the names of those that are not there any more.

    See `ImageIndex.build`.
    """
    if pooling not in POOLINGS:
        raise argument_error("pooling", f"one of {', '.join(POOLINGS)}", pooling)
    if dtype not in DTYPES:
        raise argument_error("dtype", f"one of {', '.join(DTYPES)}", dtype)
    extractor = Extractor(classifiers, layers)
    with writing_to(folder):
        store = load_store(folder) if folder is not None and (folder / FILE).exists() else None
        if store is not None:
            match(classifiers.values(), store)
            settings = {"pooling": pooling, "dtype": dtype}
            found = [name for name in settings if getattr(store.header, name) != settings[name]]
            _refuse(store, ", ".join(filter(None, [*found, extractor.difference(store.header)])))

        def start(inputs: list[torch.Tensor]) -> Store:
            header = extractor.header(inputs, pooling, dtype)
            if store is None:
                return Store(header, folder)
            _refuse(store, store.header.difference(header))
            return store

        before = [] if store is None else store.photos()
        gathered = gather(
            extractor, photos, store, start, labels=labels, keep_memory=False, progress=progress
        )
        made = _used(gathered)
        removed = _removed(before, gathered.photos)
        if not allow_removal:
            _check_removal(removed, len(before), gathered.failures, folder)
        made.failures = gathered.failures
        _arrange(made, gathered.photos, before)
    return made, removed


def extend_store(
    store: Store,
    classifiers: Mapping[str, Classifier],
    photos: PhotoSources,
    *,
    labels: Labels,
    progress: bool,
) -> tuple[Store, list[str]]:
    """Adds photos; see `ImageIndex.add`."""
    names = {n.name: [layer.name for layer in n.layers] for n in store.header.networks}
    with writing_to(store.directory):
        store = _as_it_is(store)
        before = store.photos()
        gathered = gather(
            Extractor(classifiers, names),
            photos,
            store,
            lambda inputs: store,
            labels=labels,
            keep_memory=True,
            progress=progress,
        )
        _used(gathered)
        known = {photo.path: photo for photo in before}
        unusable = gathered.failures.keys() - {photo.path for photo in gathered.photos}
        after = {name: photo for name, photo in known.items() if name not in unusable}
        for photo in gathered.photos:  # one that is there keeps its place and its class
            name = photo.path
            after[name] = replace(photo, label=known[name].label) if name in known else photo
        store.failures = {
            name: why for name, why in store.failures.items() if name not in after
        } | gathered.failures
        _arrange(store, [*after.values()], before)
    return store, _removed(before, [*after.values()])


def reduce_store(store: Store, paths: Sequence[str | os.PathLike[str]]) -> tuple[Store, list[str]]:
    """Takes photos out; see `ImageIndex.remove`."""
    with writing_to(store.directory):
        store = _as_it_is(store)
        before = store.photos()
        names = [*(photo.path for photo in before), *store.failures]
        taken = _below(names, paths)
        after = [photo for photo in before if photo.path not in taken]
        if not after:
            expected = "photos of the index, but not all (delete its folder to be rid of them)"
            raise argument_error("paths", expected, [os.fsdecode(each) for each in paths])
        store.failures = {k: why for k, why in store.failures.items() if k not in taken}
        _arrange(store, after, before)
    return store, [photo.path for photo in before if photo.path in taken]


def _as_it_is(store: Store) -> Store:
    """What is in the folder now: another process may have changed it since it was read."""
    return store if store.directory is None else load_store(store.directory)


def _refuse(store: Store, difference: str) -> None:
    if difference:
        raise ValueError(
            f"directory: expected an index of the same networks and settings, got "
            f"{store.directory}, where these differ: {difference}"
        )


def _used(gathered: Gathered) -> Store:
    """The store of what was gathered.

    Raises:
        pyxai.images.ImageError: there is no photo that can be used.
    """
    if gathered.store is None or not gathered.photos:
        if gathered.failures:
            raise ImageErrors([*gathered.failures.items()], gathered.count)
        raise ImageError("photos", "expected at least one, got none")
    return gathered.store


def _removed(before: Sequence[Photo], after: Sequence[Photo]) -> list[str]:
    """Names of photos that are not there any more; not those that have another name now."""
    names = {photo.path for photo in after}
    known = {photo.path for photo in before}
    moved = {photo.content for photo in after if photo.path not in known}
    return [p.path for p in before if p.path not in names and p.content not in moved]


def _check_removal(
    removed: list[str], count: int, failures: Mapping[str, str], folder: Path | None
) -> None:
    """Refuses to drop what may be there and only cannot be seen.

    Raises:
        ValueError: most photos would go, or some below a folder that cannot be listed.
    """
    failed = {Path(name) for name in failures}
    unseen = [name for name in removed if not failed.isdisjoint(Path(name).parents)]
    if not unseen and 2 * len(removed) <= count:
        return
    first = ", ".join(printable(name) for name in (unseen or removed)[:_NAMED])
    why = f"below a folder that cannot be read, {first}, …" if unseen else f"{first}, …"
    raise ValueError(
        f"photos: expected most photos of the index in {folder}, got {len(removed)} of {count} "
        f"that are not there any more ({why}): is a folder not mounted? allow_removal=True "
        f"(--allow-removal) drops them from the index"
    )


def _arrange(store: Store, photos: Sequence[Photo], before: Iterable[Photo]) -> None:
    """Has the store hold these photos, and nothing of others, in the tables of LanceDB as well."""
    there = {photo.content for photo in photos}
    if store.directory is not None and any(photo.content not in there for photo in before):
        remove_tables(store.directory)
    store.arrange(photos)


def _below(names: Iterable[str], paths: Sequence[str | os.PathLike[str]]) -> set[str]:
    """Those of the names that are one of the paths, or below one.

    Raises:
        ValueError: a path is none of them.
    """
    whole = {name: Path(name).absolute() for name in names}
    found: set[str] = set()
    for each in paths:
        text = os.fsdecode(each)
        path = Path(text).absolute()
        some = {
            name
            for name, place in whole.items()
            if name == text or place == path or path in place.parents
        }
        if not some:
            raise argument_error("paths", "photos of the index, or folders of these", text)
        found |= some
    return found
