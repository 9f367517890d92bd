"""Which parts of a layer are looked at, and how strongly they respond."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from pyxai._errors import argument_error, describe
from pyxai.classifier import Classifier, Examined
from pyxai.classifier.borrow import borrowed
from pyxai.classifier.forcing import WithGradients, is_about_inference
from pyxai.classifier.layout import Layout

Channels: TypeAlias = "int | str | Sequence[int | str] | torch.Tensor | None"
"""Indices, classes by name, or directions `[n, C]`; None for the layer as a whole."""


@dataclass(frozen=True)
class Layer:
    """A layer as features `[N, C, h, w]`; h = w = 1 where it gives one vector an image.

    Attributes:
        name: None for the logits.
        channels: C.
        layout: None where it gives vectors.
        size: (h, w) for the image it was looked at with.
    """

    name: str | None
    channels: int
    layout: Layout | None
    size: tuple[int, int]

    @property
    def title(self) -> str:
        """What it is called in messages."""
        return "the logits" if self.name is None else f"layer {self.name!r}"

    def features(self, examined: Examined) -> torch.Tensor:
        """Its output for images of the size it was looked at with; call it inside `borrowed`.

        The forward pass ends there. Gradients reach the inputs if they are enabled.
        """
        raw = _output(examined, self.name)
        if self.layout is not None:
            return self.layout.features(raw)
        return raw if raw.ndim == 4 else raw[:, :, None, None]


def _output(examined: Examined, name: str | None) -> torch.Tensor:
    try:
        return _plain_output(examined, name)
    except RuntimeError as error:  # weights made in inference mode have no gradients by themselves
        if not is_about_inference(error):
            raise
    with WithGradients(armed=True):
        return _plain_output(examined, name)


def _plain_output(examined: Examined, name: str | None) -> torch.Tensor:
    if name is None:
        return examined.logits()
    return examined.record([name], stop=True).layers[name]


def look_at_layer(examined: Examined, name: str | None) -> Layer:
    """Finds out what a layer gives, from one image.

    Raises:
        ValueError: it does not exist (with the closest names), or has neither channels nor
            positions.
    """
    return features_of(examined.on(examined.image), name)[1]


def features_of(examined: Examined, name: str | None) -> tuple[torch.Tensor, Layer]:
    """The output of a layer for inputs, `[N, C, h, w]` without a graph; and the layer.

    Raises:
        ValueError: as for `look_at_layer`.
    """
    with borrowed(examined.network):
        raw = _output(examined, name)
    single = raw.ndim == 2 or (raw.ndim == 4 and raw.shape[2:] == (1, 1))
    if single and len(raw) == len(examined.inputs) and raw.is_floating_point():
        return raw.reshape(*raw.shape[:2], 1, 1), Layer(name, raw.shape[1], None, (1, 1))
    layout = examined.layout(str(name), raw)
    features = layout.features(raw)
    return features, Layer(name, features.shape[1], layout, (layout.height, layout.width))


@dataclass(frozen=True)
class Units:
    """What to look at in a layer.

    Attributes:
        names: of each, such as "channel 3".
        keys: of each, from which its random numbers are made.
        indices: `[n]` int64: channels.
        directions: `[n, C]` float32, in place of channels. Where both are None, the one unit is
            the layer as a whole.
        position: (row, column) of a neuron; None, the mean over positions.
    """

    names: tuple[str, ...]
    keys: tuple[str, ...]
    indices: torch.Tensor | None = None
    directions: torch.Tensor | None = None
    position: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def maps(self, features: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """The response of unit `rows[i]` at each position of image i.

        Args:
            features: `[m, C, h, w]`.
            rows: `[m]` int64.

        Returns:
            `[m, h, w]` float32: activations, for the whole layer the mean of their squares.
        """
        if self.indices is not None:
            places = torch.arange(len(rows), device=features.device, dtype=torch.int64)
            return features[places, self.indices[rows]].float()
        if self.directions is not None:
            return torch.einsum("nchw,nc->nhw", features.float(), self.directions[rows])
        return features.float().square().mean(dim=1)

    def responses(self, features: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """The responses `[m]`: the mean over positions, or at the position of the neuron."""
        maps = self.maps(features, rows)
        if self.position is None:
            return maps.mean(dim=(1, 2))
        return maps[:, self.position[0], self.position[1]]


def find_units(
    classifier: Classifier, layer: Layer, channels: Any, position: tuple[int, int] | None = None
) -> Units:
    """The units that channels mean in a layer.

    Raises:
        ValueError: a channel is out of range, a class unknown, a direction of another length, not
            finite or 0, or there are none.
    """
    if channels is None:
        if layer.name is None:
            raise argument_error("channels", "classes, as no layer was given", channels)
        return Units((layer.title,), ("layer",), position=position)
    if isinstance(channels, torch.Tensor) and channels.is_floating_point():
        return _directions(classifier, layer, channels, position)
    given = [channels] if isinstance(channels, (int, str)) else channels
    if isinstance(given, torch.Tensor):
        given = given.flatten().tolist()
    try:
        found = [_index(classifier, layer, each) for each in given]
    except TypeError:
        raise argument_error("channels", _EXPECTED, channels) from None
    if not found:
        raise argument_error("channels", "at least one", channels)
    kind = "class" if layer.name is None else "channel"
    names = tuple(
        classifier.class_name(each) if layer.name is None else f"channel {each}" for each in found
    )
    device = classifier.device
    keys = tuple(f"{kind} {each}" for each in found)
    return Units(
        names,
        keys,
        indices=torch.tensor(found, device=device, dtype=torch.int64),
        position=position,
    )


_EXPECTED = "indices, class names (where layer is None), or directions as a float tensor [n, C]"


def _index(classifier: Classifier, layer: Layer, channel: Any) -> int:
    if isinstance(channel, str):
        if layer.name is not None:
            raise ValueError(
                f"channels: expected indices of channels of {layer.title}, got {channel!r}; for a "
                "class, pass layer=None"
            )
        return classifier.class_index(channel)
    if isinstance(channel, bool) or not hasattr(channel, "__index__"):
        raise argument_error("channels", _EXPECTED, channel)
    index = int(channel.__index__())
    if not 0 <= index < layer.channels:
        expected = f"indices from 0 to {layer.channels - 1}, the channels of {layer.title}"
        raise argument_error("channels", expected, index)
    return index


def _directions(
    classifier: Classifier, layer: Layer, given: torch.Tensor, position: tuple[int, int] | None
) -> Units:
    directions = given.detach().to(classifier.device, torch.float32)
    directions = directions[None] if directions.ndim == 1 else directions
    if directions.ndim != 2 or not len(directions) or directions.shape[1] != layer.channels:
        expected = f"directions [n, {layer.channels}], one number for each channel of {layer.title}"
        raise argument_error("channels", expected, given)
    lengths = directions.norm(dim=1, keepdim=True)
    if not bool((torch.isfinite(lengths) & (lengths > 0)).all()):
        raise ValueError(
            f"channels: expected finite directions other than 0, got {describe(given)}"
        )
    directions = directions / lengths
    names = tuple(f"direction {place}" for place in range(len(directions)))
    keys = tuple(repr([round(value, 5) for value in row]) for row in directions.tolist())
    return Units(names, keys, directions=directions, position=position)
