"""Making an index, going on with one, adding to one, taking photos out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from pyxai._errors import argument_error
from pyxai.classifier import Classifier
from pyxai.classifier.features import POOLINGS, Pooling
from pyxai.images import ImageError, PhotoSources
from pyxai.images.errors import ImageErrors, printable
from pyxai.runs import Executor, PhotoFailure, PhotoState, Run
from pyxai.runs.parts import writing_to
from pyxai.search.backends.lancedb import remove_tables
from pyxai.search.extraction import Extractor, Features, LayerNames
from pyxai.search.header import DTYPES, Header
from pyxai.search.labels import Labels, labeler
from pyxai.search.networks import match
from pyxai.search.storage import KIND, Store

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
    executor: Executor,
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
    with writing_to(folder, KIND):
        store = Store(KIND, {}, folder)
        is_new = True
        if folder is None or not (folder / KIND.file).exists():
            store.check_names()
        else:
            store, is_new = Store.load(folder, KIND), False
            match(classifiers.values(), store)
            settings = {"pooling": pooling, "dtype": dtype}
            other = [name for name in settings if getattr(store.header, name) != settings[name]]
            _refuse(store, ", ".join(filter(None, [*other, extractor.difference(store.header)])))

        def header_of(inputs: list[torch.Tensor]) -> Header:
            header = extractor.header(inputs, pooling, dtype)
            if is_new:
                store.identity = asdict(header)
            _refuse(store, store.header.difference(header))
            return header

        before, label_of = store.photos(), labeler(photos, labels)
        run = Run(store, keep=True)
        work = Features(extractor, header_of, label_of)
        run.read(photos, work, desc="index", executor=executor, progress=progress)
        _check_used(run)
        run.photos = [_labeled(photo, label_of(photo.path)) for photo in run.photos]
        removed = _removed(before, run.photos)
        if not allow_removal:
            _check_removal(removed, len(before), run.failures, folder)
        _finish(run, before)
    return store, removed


def extend_store(
    store: Store,
    classifiers: Mapping[str, Classifier],
    photos: PhotoSources,
    *,
    labels: Labels,
    executor: Executor,
    progress: bool,
) -> tuple[Store, list[str]]:
    """Adds photos; see `ImageIndex.add`."""
    names = {n.name: [layer.name for layer in n.layers] for n in store.header.networks}
    with writing_to(store.directory, KIND):
        store = _as_it_is(store)
        before, label_of = store.photos(), labeler(photos, labels)
        run = Run(store, keep=True)
        work = Features(Extractor(classifiers, names), lambda inputs: store.header, label_of)
        run.read(photos, work, desc="index", keep_memory=True, executor=executor, progress=progress)
        _check_used(run)
        known = {photo.path: photo for photo in before}
        unusable = {each.path for each in run.failures} - {photo.path for photo in run.photos}
        after = {name: photo for name, photo in known.items() if name not in unusable}
        for photo in run.photos:  # one that is there keeps its place and its class
            name = photo.path
            label = known[name].about[2] if name in known else label_of(name)
            after[name] = _labeled(photo, label)
        run.photos = [*after.values()]
        earlier = [PhotoFailure(*each) for each in store.failures.items()]
        now = {*after, *(each.path for each in run.failures)}
        run.failures = [each for each in earlier if each.path not in now] + run.failures
        _finish(run, before)
    return store, _removed(before, run.photos)


def reduce_store(store: Store, paths: Sequence[str | os.PathLike[str]]) -> tuple[Store, list[str]]:
    """Takes photos out; see `ImageIndex.remove`."""
    with writing_to(store.directory, KIND):
        store = _as_it_is(store)
        before = store.photos()
        names = [*(photo.path for photo in before), *store.failures]
        taken = _below(names, paths)
        after = [photo for photo in before if photo.path not in taken]
        if not after:
            expected = "photos of the index, but not all (delete its folder to be rid of them)"
            raise argument_error("paths", expected, [os.fsdecode(each) for each in paths])
        run = Run(store, keep=True)
        run.photos = after
        run.failures = [
            PhotoFailure(*each) for each in store.failures.items() if each[0] not in taken
        ]
        _finish(run, before)
    return store, [photo.path for photo in before if photo.path in taken]


def _as_it_is(store: Store) -> Store:
    """What is in the folder now: another process may have changed it since it was read."""
    return store if store.directory is None else Store.load(store.directory, KIND)


def _refuse(store: Store, difference: str) -> None:
    if difference:
        raise ValueError(
            f"directory: expected an index of the same networks and settings, got "
            f"{store.directory}, where these differ: {difference}"
        )


def _check_used(run: Run) -> None:
    """Raises ImageError if there is no photo that can be used."""
    if not run.photos:
        if run.failures:
            raise ImageErrors(run.failures, run.count)
        raise ImageError("photos", "expected at least one, got none")


def _labeled(photo: PhotoState, label: str | None) -> PhotoState:
    return replace(photo, about=[*photo.about[:2], label])


def _removed(before: Sequence[PhotoState], after: Sequence[PhotoState]) -> list[str]:
    """Names of photos that are not there any more; not those that have another name now."""
    names = {photo.path for photo in after}
    known = {photo.path for photo in before}
    moved = {photo.content for photo in after if photo.path not in known}
    return [p.path for p in before if p.path not in names and p.content not in moved]


def _check_removal(
    removed: list[str], count: int, failures: Iterable[PhotoFailure], folder: Path | None
) -> None:
    """Refuses to drop what may be there and only cannot be seen.

    Raises:
        ValueError: most photos would go, or some below a folder that cannot be listed.
    """
    failed = {Path(each.path) for each in failures}
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


def _finish(run: Run, before: Iterable[PhotoState]) -> None:
    """Has the store hold these photos, and nothing of others, in the tables of LanceDB as well."""
    there = {photo.content for photo in run.photos}
    directory = run.parts.directory
    if directory is not None and any(photo.content not in there for photo in before):
        remove_tables(directory)
    run.finish()


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
