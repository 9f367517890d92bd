"""Photos to features: every network runs once on each for all its layers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from PIL import Image

from pyxai._errors import argument_error
from pyxai.classifier import Classifier, Examined
from pyxai.classifier.batches import images_at_once, pixels_at_once
from pyxai.classifier.features import Pooling, pooled_features
from pyxai.classifier.fingerprint import fingerprint
from pyxai.classifier.points import check_layer
from pyxai.images import ImageError, to_batch
from pyxai.runs import OpenPhoto, PhotoFailure, Row
from pyxai.search.header import DTYPES, Header, Layer, Network, key
from pyxai.search.layers import kind_of, spread_layers

_SLENDER = 4  # to one: photos of other shapes may not take more than others do

LayerNames: TypeAlias = "str | Sequence[str] | Mapping[str, str | Sequence[str]] | None"


@dataclass
class Waiting:
    """A photo on its way.

    Attributes:
        name: its path, or "images[i]".
        size: its width and height.
        inputs: of each network, `[C, H, W]`.
    """

    name: str
    size: tuple[int, int]
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
            examined = Examined(classifier, one)
            layers = self._layers[name] or spread_layers(examined)
            self._layers[name] = layers
            found = pooled_features(examined, layers, pooling)
            networks.append(
                Network(
                    name,
                    fingerprint(classifier.network),
                    repr(classifier.preprocessing),
                    tuple(
                        Layer(layer, kind_of(examined, layer), found[layer].shape[1])
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
            found = pooled_features(Examined(classifier, batch), layers, pooling)
            for layer in layers:
                parts[layer].append(found[layer].cpu())
    if any(len({each.shape[1] for each in several}) > 1 for several in parts.values()):
        raise ValueError(
            f"pooling: expected photos of one size for {pooling!r}, got several; set resize and "
            f"crop of the preprocessing"
        )
    return {layer: torch.cat(several) for layer, several in parts.items()}


class Features:
    """The work of an index: networks run on photos, as many at once as suit the memory."""

    def __init__(
        self,
        extractor: Extractor,
        header_of: Callable[[list[torch.Tensor]], Header],
        label_of: Callable[[str], str | None],
    ) -> None:
        """Takes note.

        Args:
            extractor: networks and layers.
            header_of: what the features are, given the inputs of the first photo; it may refuse.
            label_of: tells the class of a photo from its path.
        """
        self._extractor = extractor
        self._header_of = header_of
        self._label_of = label_of
        self._header: Header | None = None

    def __call__(self, photos: Iterator[OpenPhoto]) -> Iterator[Row | PhotoFailure]:
        """See `pyxai.runs.working.Work`; rows say how large the photo is, and its class."""
        waiting: list[Waiting] = []
        at_once = 0
        for photo in photos:
            try:
                inputs = self._extractor.inputs(photo.picture, photo.name)
            except ImageError as error:
                yield PhotoFailure(photo.name, error.reason)
                continue
            if self._header is None:
                self._header = self._header_of([each[None] for each in inputs])
            if not at_once:
                pairs = zip(inputs, self._extractor.classifiers.values(), strict=True)
                at_once = min(images_at_once(each[None].to(c.device)) for each, c in pairs)
            waiting.append(Waiting(photo.name, photo.picture.size, inputs))
            if len(waiting) >= at_once:
                yield from self._rows(self._header, waiting)
                waiting.clear()
        if waiting and self._header is not None:
            yield from self._rows(self._header, waiting)

    def _rows(self, header: Header, waiting: list[Waiting]) -> Iterator[Row | PhotoFailure]:
        values: dict[str, torch.Tensor] = {}
        usable = torch.ones(len(waiting), dtype=torch.bool, device="cpu")
        for i, network in enumerate(header.networks):
            layers = [layer.name for layer in network.layers]
            inputs = [each.inputs[i] for each in waiting]
            classifier = self._extractor.classifiers[network.name]
            rows = features_of(classifier, inputs, layers, header.pooling)  # type: ignore[arg-type]
            for j, layer in enumerate(network.layers):
                if rows[layer.name].shape[1] != layer.width:
                    raise ValueError(
                        f"pooling: expected {layer.width} features of {layer.name}, as of the "
                        f"first photo, got {rows[layer.name].shape[1]}: photos of several sizes"
                    )
                of_layer = rows[layer.name].to(DTYPES[header.dtype])
                usable &= torch.isfinite(of_layer).all(dim=1)
                values[key(i, j)] = of_layer
        why = f"features are not finite in {header.dtype}: the network gives NaN or infinity"
        for at, (each, fine) in enumerate(zip(waiting, usable.tolist(), strict=True)):
            if fine:
                about = [*each.size, self._label_of(each.name)]
                yield Row(each.name, about, {name: rows[at] for name, rows in values.items()})
            else:
                yield PhotoFailure(each.name, why)
