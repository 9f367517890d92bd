"""Photos to features: every photo is decoded once, every network runs once for all its layers."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from tqdm import tqdm

from pyxai._errors import argument_error
from pyxai.classifier import Classifier
from pyxai.classifier.batches import images_at_once
from pyxai.classifier.features import Pooling, pooled_features
from pyxai.classifier.fingerprint import fingerprint
from pyxai.classifier.points import check_layer
from pyxai.images import ImageError, PhotoSources, iterate_photos, to_batch
from pyxai.search.layers import kind_of, spread_layers
from pyxai.search.storage import DTYPES, Header, Layer, Network, Photo, Store, key

PHOTOS_BETWEEN_SAVES = 512
_SECONDS_BETWEEN_SAVES = 60.0
_BYTES_BETWEEN_SAVES = 1 << 28

Labels: TypeAlias = "str | Callable[[str], str | None] | None"
LayerNames: TypeAlias = "str | Sequence[str] | Mapping[str, str | Sequence[str]] | None"


@dataclass
class Waiting:
    """A photo on its way.

    Attributes:
        photo: what the index will know of it.
        inputs: of each network, `[C, H, W]`.
    """

    photo: Photo
    inputs: list[torch.Tensor]


class Extractor:
    """Some networks with the layers whose features are wanted."""

    def __init__(self, classifiers: Mapping[str, Classifier], layers: LayerNames) -> None:
        """Takes note; nothing runs.

        Raises:
            ValueError: a layer does not exist in its network, or a network is not among those.
        """
        self.classifiers = dict(classifiers)
        self._layers: dict[str, list[str] | None] = dict.fromkeys(self.classifiers)
        if layers is None:
            return
        named = layers if isinstance(layers, Mapping) else dict.fromkeys(self.classifiers, layers)
        for name, given in named.items():
            if name not in self.classifiers:
                expected = f"layers by name of a network ({', '.join(self.classifiers)})"
                raise argument_error("layers", expected, name)
            wanted = [given] if isinstance(given, str) else list(dict.fromkeys(given))
            if not wanted:
                raise argument_error("layers", "at least one layer", wanted)
            for layer in wanted:
                check_layer(self.classifiers[name].network, layer)
            self._layers[name] = wanted

    def header(self, inputs: Sequence[torch.Tensor], pooling: Pooling, dtype: str) -> Header:
        """What the features will be, found out on one photo's inputs `[1, C, H, W]`."""
        networks = []
        for (name, classifier), one in zip(self.classifiers.items(), inputs, strict=True):
            one = one.to(classifier.device, classifier.dtype)
            layers = self._layers[name] or spread_layers(classifier, one)
            self._layers[name] = layers
            found = pooled_features(classifier, one, layers, pooling)
            networks.append(
                Network(
                    name,
                    fingerprint(classifier.network),
                    repr(classifier.preprocessing),
                    tuple(
                        Layer(layer, kind_of(classifier, one, layer), found[layer].shape[1])
                        for layer in layers
                    ),
                )
            )
        return Header(tuple(networks), pooling, dtype)

    def inputs(self, photo: object) -> list[torch.Tensor]:
        """What each network gets of a photo, `[C, H, W]` on the CPU."""
        pairs = {each.preprocessing: None for each in self.classifiers.values()}
        ready = {p: to_batch([photo], p)[0] for p in pairs}  # type: ignore[list-item]
        return [ready[each.preprocessing] for each in self.classifiers.values()]


def features_of(
    classifier: Classifier, inputs: Sequence[torch.Tensor], layers: list[str], pooling: Pooling
) -> dict[str, torch.Tensor]:
    """Features `[n, F]` float32 on the CPU of inputs `[C, H, W]`; those of one size together."""
    parts: dict[str, list[torch.Tensor]] = {layer: [] for layer in layers}
    for _, group in itertools.groupby(inputs, key=lambda each: each.shape):
        same = list(group)
        step = images_at_once(same[0][None].to(classifier.device))
        for start in range(0, len(same), step):
            batch = torch.stack(same[start : start + step])
            batch = batch.to(classifier.device, classifier.dtype)
            found = pooled_features(classifier, batch, layers, pooling)
            for layer in layers:
                parts[layer].append(found[layer].cpu())
    if any(len({each.shape[1] for each in several}) > 1 for several in parts.values()):
        raise ValueError(
            f"pooling: expected photos of one size for {pooling!r}, got several; set resize and "
            f"crop of the preprocessing"
        )
    return {layer: torch.cat(several) for layer, several in parts.items()}


def extract(
    extractor: Extractor,
    photos: PhotoSources,
    start: Callable[[list[torch.Tensor]], Store],
    *,
    known: set[str],
    labels: Labels,
    progress: bool,
) -> tuple[Store | None, dict[str, str], int]:
    """Puts the features of photos into a store, in shards.

    Args:
        extractor: networks and layers.
        photos: see `pyxai.images.iterate_photos`.
        start: makes or finds the store, given the inputs of the first photo.
        known: names of the photos that are in it.
        labels: see `ImageIndex.build`.
        progress: whether to show a bar.

    Returns:
        The store, None without a photo that can be read; failures; how many photos there were.
    """
    label_of = labeller(photos, labels)
    failures: dict[str, str] = {}
    store: Store | None = None
    run: _Run | None = None
    count = 0
    bar = tqdm(
        iterate_photos(photos), desc="index", unit="photo", disable=None if progress else True
    )
    for name, photo in bar:
        count += 1
        if name in known:
            continue
        try:
            if isinstance(photo, ImageError):
                raise photo
            inputs = extractor.inputs(photo)
        except ImageError as error:
            failures[name] = error.reason
            continue
        known.add(name)
        if run is None:
            store = start([each[None] for each in inputs])
            run = _Run(extractor, store, failures)
        run.add(Waiting(Photo(name, photo.width, photo.height, label_of(name)), inputs))
    if run is not None:
        run.finish()
    return store, failures, count


class _Run:
    """Collects photos until there are enough for a forward pass, and features for a shard."""

    def __init__(self, extractor: Extractor, store: Store, failures: dict[str, str]) -> None:
        self._extractor = extractor
        self._store = store
        self._failures = failures
        self._waiting: list[Waiting] = []
        self._photos: list[Photo] = []
        self._rows: dict[str, list[torch.Tensor]] = {}
        self._bytes = 0
        self._at_once = 0
        self._saved = time.monotonic()

    def add(self, one: Waiting) -> None:
        if not self._at_once:
            classifiers = self._extractor.classifiers.values()
            pairs = zip(one.inputs, classifiers, strict=True)
            self._at_once = min(images_at_once(each[None].to(c.device)) for each, c in pairs)
        self._waiting.append(one)
        if len(self._waiting) >= self._at_once:
            self._forward()

    def finish(self) -> None:
        if self._waiting:
            self._forward()
        if self._photos:
            self._flush()

    def _forward(self) -> None:
        header, found = self._store.header, {}
        usable = torch.ones(len(self._waiting), dtype=torch.bool, device="cpu")
        for i, network in enumerate(header.networks):
            layers = [layer.name for layer in network.layers]
            inputs = [each.inputs[i] for each in self._waiting]
            classifier = self._extractor.classifiers[network.name]
            rows = features_of(classifier, inputs, layers, header.pooling)  # type: ignore[arg-type]
            for j, layer in enumerate(network.layers):
                if rows[layer.name].shape[1] != layer.width:
                    raise ValueError(
                        f"pooling: expected {layer.width} features of {layer.name}, as of the "
                        f"first photo, got {rows[layer.name].shape[1]}: photos of several sizes"
                    )
                values = rows[layer.name].to(DTYPES[header.dtype])
                usable &= torch.isfinite(values).all(dim=1)
                found[key(i, j)] = values
        for each, fine in zip(self._waiting, usable.tolist(), strict=True):
            if fine:
                self._photos.append(each.photo)
            else:
                self._failures[each.photo.path] = (
                    f"features are not finite in {header.dtype}: the network gives NaN or infinity"
                )
        self._waiting.clear()
        for name, values in found.items():
            kept = values if bool(usable.all()) else values[usable]
            self._rows.setdefault(name, []).append(kept)
            self._bytes += kept.nbytes
        late = time.monotonic() - self._saved > _SECONDS_BETWEEN_SAVES
        many = len(self._photos) >= PHOTOS_BETWEEN_SAVES or self._bytes > _BYTES_BETWEEN_SAVES
        if self._photos and (late or many):
            self._flush()

    def _flush(self) -> None:
        features = {name: torch.cat(parts) for name, parts in self._rows.items()}
        self._store.failures.update(self._failures)
        self._store.append(self._photos, features)
        self._photos, self._rows, self._bytes = [], {}, 0
        self._saved = time.monotonic()


def labeller(photos: object, labels: Labels) -> Callable[[str], str | None]:
    """Tells the class of a photo from its path.

    Raises:
        ValueError: `labels` is none of those that `ImageIndex.build` lists.
    """
    if labels is None:
        return lambda name: None
    if callable(labels):
        return labels
    if labels != "folder":
        raise argument_error("labels", "'folder', None or a function of the path", labels)
    single = isinstance(photos, (str, os.PathLike))
    several = photos if isinstance(photos, (list, tuple)) else ()
    sources = [photos] if single else several
    roots = {Path(each) for each in _paths(sources) if Path(each).is_dir()}

    def label(name: str) -> str | None:
        path = Path(name)
        for root in path.parents:
            if root in roots:
                below = path.relative_to(root).parts
                return below[0] if len(below) > 1 else None
        return path.parent.name or None if path.parent != path and not roots else None

    return label


def _paths(sources: Iterable[object]) -> Iterator[str]:
    return (os.fsdecode(each) for each in sources if isinstance(each, (str, os.PathLike)))
