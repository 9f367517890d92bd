"""Making an index, going on with one, adding to one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from pyxai._errors import argument_error
from pyxai.classifier import Classifier
from pyxai.classifier.features import POOLINGS, Pooling
from pyxai.images import ImageError, PhotoSources
from pyxai.images.errors import ImageErrors
from pyxai.search.extraction import Extractor, Labels, LayerNames, extract
from pyxai.search.networks import match
from pyxai.search.storage import DTYPES, FILE, Store, load_store


def build_store(
    classifiers: Mapping[str, Classifier],
    photos: PhotoSources,
    folder: Path | None,
    *,
    layers: LayerNames,
    pooling: Pooling,
    dtype: str,
    labels: Labels,
    progress: bool,
) -> Store:
    """The features of photos; see `ImageIndex.build`."""
    if pooling not in POOLINGS:
        raise argument_error("pooling", f"one of {', '.join(POOLINGS)}", pooling)
    if dtype not in DTYPES:
        raise argument_error("dtype", f"one of {', '.join(DTYPES)}", dtype)
    extractor = Extractor(classifiers, layers)
    store = load_store(folder) if folder is not None and (folder / FILE).exists() else None
    if store is not None:
        match(classifiers.values(), store)
    elif folder is not None:
        folder.mkdir(parents=True, exist_ok=True)

    def start(inputs: list[torch.Tensor]) -> Store:
        header = extractor.header(inputs, pooling, dtype)
        if store is None:
            return Store(header, folder)
        if difference := store.header.difference(header):
            raise ValueError(
                f"directory: expected an index of the same networks and settings, got {folder}, "
                f"where these differ: {difference}"
            )
        return store

    known = {photo.path for photo in store.photos()} if store else set[str]()
    made, failures, count = extract(
        extractor, photos, start, known=known, labels=labels, progress=progress
    )
    return finish(made or store, failures, count)


def extend_store(
    store: Store,
    classifiers: Mapping[str, Classifier],
    photos: PhotoSources,
    *,
    labels: Labels,
    progress: bool,
) -> None:
    """Adds photos; see `ImageIndex.add`."""
    names = {n.name: [layer.name for layer in n.layers] for n in store.header.networks}
    made, failures, count = extract(
        Extractor(classifiers, names),
        photos,
        lambda inputs: store,
        known={photo.path for photo in store.photos()},
        labels=labels,
        progress=progress,
    )
    if made is None and failures and len(failures) == count:
        raise ImageErrors(list(failures.items()), count)
    finish(store, failures, count)


def finish(store: Store | None, failures: dict[str, str], count: int) -> Store:
    """Merges small shards and takes note of failures.

    Raises:
        pyxai.images.ImageError: there is no photo.
    """
    if store is None or not store.shards:
        if failures:
            raise ImageErrors(list(failures.items()), count)
        raise ImageError("photos", "expected at least one, got none")
    known = {photo.path for photo in store.photos()}
    store.failures = {k: v for k, v in {**store.failures, **failures}.items() if k not in known}
    store.compact()
    store.save()
    return store
