"""What the features of an index are: networks, layers and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from pyxai._errors import argument_error, closest

DTYPES = {"float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True)
class Layer:
    """A layer in an index.

    Attributes:
        name: as in `model.named_modules()`.
        kind: the class of its module.
        width: numbers of a feature vector.
    """

    name: str
    kind: str
    width: int


@dataclass(frozen=True)
class Network:
    """A network in an index.

    Attributes:
        name: the classifier's.
        fingerprint: of its weights.
        preprocessing: how photos became its input, as text.
        layers: in order of execution.
    """

    name: str
    fingerprint: str
    preprocessing: str
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Header:
    """What the features of an index are; equal for indexes that can be one.

    Attributes:
        networks: the networks with their layers.
        pooling: how positions became one vector.
        dtype: of the numbers on disk.
    """

    networks: tuple[Network, ...]
    pooling: str
    dtype: str

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Header:
        """What `dataclasses.asdict` made a record of.

        Raises:
            ValueError, LookupError, TypeError: it is no such record.
        """
        networks = tuple(
            Network(
                str(network["name"]),
                str(network["fingerprint"]),
                str(network["preprocessing"]),
                tuple(
                    Layer(str(layer["name"]), str(layer["kind"]), int(layer["width"]))
                    for layer in network["layers"]
                ),
            )
            for network in record["networks"]
        )
        if record["dtype"] not in DTYPES:
            raise ValueError(f"dtype {record['dtype']!r}")
        return cls(networks, str(record["pooling"]), str(record["dtype"]))

    @property
    def row_bytes(self) -> int:
        """What the features of a photo take."""
        return sum(self.widths().values()) * DTYPES[self.dtype].itemsize

    def widths(self) -> dict[str, int]:
        """How many numbers a photo has, by `key` of the layer."""
        return {
            key(i, j): layer.width
            for i, network in enumerate(self.networks)
            for j, layer in enumerate(network.layers)
        }

    def difference(self, other: Header) -> str:
        """What differs, in words; "" if nothing does."""
        mine, others = asdict(self), asdict(other)
        found = [name for name in ("pooling", "dtype") if mine[name] != others[name]]
        if len(self.networks) != len(other.networks):
            found.append("number of networks")
        for a, b in zip(self.networks, other.networks, strict=False):
            names = ("name", "fingerprint", "preprocessing", "layers")
            found += [
                f"{name} of {a.name}" for name in names if getattr(a, name) != getattr(b, name)
            ]
        return ", ".join(found)

    def place(self, layer: str | None, model: str | None) -> tuple[int, int]:
        """(network, layer) of a layer; of None, the last of a network.

        Args:
            layer: its name.
            model: name of the network; None, the first that has the layer.

        Raises:
            ValueError: there is no such layer (with the closest names) or network.
        """
        networks = range(len(self.networks)) if model is None else [self._network(model)]
        if layer is None:
            return networks[0], len(self.networks[networks[0]].layers) - 1
        for i in networks:
            for j, each in enumerate(self.networks[i].layers):
                if each.name == layer:
                    return i, j
        names = [each.name for i in networks for each in self.networks[i].layers]
        hint = closest(layer, names) if isinstance(layer, str) else ""
        raise argument_error("layer", f"a layer of the index ({', '.join(names)}){hint}", layer)

    def places(
        self, layers: str | Sequence[str] | None, model: str | None
    ) -> list[tuple[int, int]]:
        """(network, layer) of several layers; of None, all, of a network or of all.

        Raises:
            ValueError: there is no such layer or network.
        """
        if layers is not None:
            names = [layers] if isinstance(layers, str) else list(layers)
            if not names:
                raise argument_error("layers", "None or at least one layer", layers)
            return [self.place(name, model) for name in names]
        networks = range(len(self.networks)) if model is None else [self._network(model)]
        return [(i, j) for i in networks for j in range(len(self.networks[i].layers))]

    def _network(self, model: str) -> int:
        names = [network.name for network in self.networks]
        if model not in names:
            raise argument_error("model", f"one of {', '.join(map(repr, names))}", model)
        return names.index(model)


def key(network: int, layer: int) -> str:
    """The name of a layer's features in a file."""
    return f"{network}.{layer}"
