"""Photos to features: every network runs once on each for all its layers."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from PIL import Image

from pyxai._errors import argument_error
from pyxai.classifier import Classifier
from pyxai.classifier.batches import images_at_once, pixels_at_once
from pyxai.classifier.features import Pooling, pooled_features
from pyxai.classifier.fingerprint import fingerprint
from pyxai.classifier.points import check_layer
from pyxai.images import ImageError, to_batch
from pyxai.search.contents import Photo
from pyxai.search.header import DTYPES, Header, Layer, Network, key
from pyxai.search.layers import kind_of, spread_layers
from pyxai.search.storage import Store

PHOTOS_BETWEEN_SAVES = 512
_SECONDS_BETWEEN_SAVES = 60.0
_BYTES_BETWEEN_SAVES = 1 << 28
_SLENDER = 4  # to one: photos of other shapes may not take more than others do

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

    def difference(self, header: Header) -> str:
        """What can be told to differ from an index before a photo is looked at, in words."""
        there = {n.name: [layer.name for layer in n.layers] for n in header.networks}
        return ", ".join(
            f"layers of {name}"
            for name, layers in self._layers.items()
            if layers is not None and there.get(name) != layers
        )

    def inputs(self, photo: Image.Image, name: str) -> list[torch.Tensor]:
        """What each network gets of a photo, `[C, H, W]` on the CPU.

        Raises:
            pyxai.images.ImageError: it does not become their input, or is so slender that it would
                take many times the memory of others.
        """
        ready: dict[object, torch.Tensor] = {}
        for each in self.classifiers.values():
            steps = each.preprocessing
            if steps not in ready:
                ready[steps] = to_batch([photo], steps)[0]
                _check_slender(photo, name, ready[steps], pixels_at_once(each.device))
        return [ready[each.preprocessing] for each in self.classifiers.values()]


def _check_slender(photo: Image.Image, name: str, one: torch.Tensor, most: int) -> None:
    """Refuses a photo that the resize makes a band of more pixels than a batch of others has."""
    height, width = one.shape[1:]
    is_slender = max(height, width) > _SLENDER * min(height, width)
    if is_slender and height * width > max(most, photo.width * photo.height):
        expected = f"expected at most {most:,} pixels of a photo with sides over {_SLENDER} : 1"
        got = f"{photo.width} × {photo.height} become {width} × {height} for the network"
        raise ImageError(name, f"{expected}, got: {got}; cut the photo")


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


class Features:
    """Collects photos until there are enough for a forward pass, and features for a shard.

    Attributes:
        refused: why photos could not be used, by their content.
    """

    def __init__(self, extractor: Extractor, store: Store) -> None:
        """Of these networks, into this store."""
        self.refused: dict[str, str] = {}
        self._extractor = extractor
        self._store = store
        self._waiting: list[Waiting] = []
        self._photos: list[Photo] = []
        self._rows: dict[str, list[torch.Tensor]] = {}
        self._bytes = 0
        self._at_once = 0
        self._saved = time.monotonic()

    def add(self, one: Waiting) -> None:
        """Takes a photo; its features may come later."""
        if not self._at_once:
            classifiers = self._extractor.classifiers.values()
            pairs = zip(one.inputs, classifiers, strict=True)
            self._at_once = min(images_at_once(each[None].to(c.device)) for each, c in pairs)
        self._waiting.append(one)
        if len(self._waiting) >= self._at_once:
            self._forward()

    def finish(self) -> None:
        """Computes and stores what is left."""
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
                self.refused[each.photo.content] = (
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
        self._store.append(self._photos, features)
        self._photos, self._rows, self._bytes = [], {}, 0
        self._saved = time.monotonic()
