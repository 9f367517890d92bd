"""Features of photos on disk: safetensors mapped into memory, and JSON; nothing is unpickled."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from pyxai._errors import argument_error, closest
from pyxai._files import replacing, write_json
from pyxai.neighbours.nearest import Matrix

FORMAT = "pyxai image index 1"
FILE = "index.json"
_MERGED_BYTES = 1 << 30  # shards are merged up to this size
DTYPES = {"float32": torch.float32, "float16": torch.float16}
_DTYPE_CODES = {"float32": "F32", "float16": "F16"}


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo in an index.

    Attributes:
        path: as it was found, or "images[i]" for one that came from memory.
        width: of the upright photo, in pixels.
        height: the same.
        label: its class, or None.
    """

    path: str
    width: int
    height: int
    label: str | None


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


@dataclass
class Shard:
    """Some photos with their features.

    Attributes:
        photos: in order.
        features: by `key`, `[n, F]`.
        stem: of its files; None in memory.
    """

    photos: list[Photo]
    features: dict[str, torch.Tensor]
    stem: str | None = None


def key(network: int, layer: int) -> str:
    """The name of a layer's features in a file."""
    return f"{network}.{layer}"


@dataclass
class Store:
    """Photos and features, in memory or in a folder.

    A shard's files are written under other names first, and the list of shards last, so that a run
    that was stopped leaves whole shards only.

    Attributes:
        header: what the features are.
        directory: the folder, or None.
        shards: the parts, in order.
        failures: reason by name of each photo that could not be used.
    """

    header: Header
    directory: Path | None = None
    shards: list[Shard] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    _serial: int = 0

    def append(self, photos: list[Photo], features: dict[str, torch.Tensor]) -> None:
        """Adds a shard, on disk if there is a folder."""
        shard = Shard(photos, features)
        self.shards.append(shard)
        if self.directory is not None:
            self._write([shard], shard)
            self.save()

    def save(self) -> None:
        """Writes the list of shards and failures."""
        if self.directory is None:
            return
        record = {
            "format": FORMAT,
            **asdict(self.header),
            "serial": self._serial,
            "shards": [{"stem": each.stem, "photos": len(each.photos)} for each in self.shards],
            "failures": [[name, reason] for name, reason in self.failures.items()],
        }
        write_json(self.directory / FILE, record, indent=None)

    def move_to(self, directory: Path) -> None:
        """Writes everything into a folder, which it lies in from then on."""
        directory.mkdir(parents=True, exist_ok=True)
        refuse_other_index(directory)
        self.directory, self._serial = directory, 0
        merged = Shard([], {})
        for shard in self.shards:
            merged.photos += shard.photos
        if self.shards:
            self._write(self.shards, merged)
            self.shards = [merged]
        self.save()

    def compact(self) -> None:
        """Merges neighbouring shards into large ones; what was read from them stays valid."""
        groups: list[list[Shard]] = []
        size = 0
        for shard in self.shards:
            own = sum(each.nbytes for each in shard.features.values())
            if not groups or size + own > _MERGED_BYTES:
                groups.append([])
                size = 0
            groups[-1].append(shard)
            size += own
        if len(groups) == len(self.shards):
            return
        old = [shard.stem for group in groups if len(group) > 1 for shard in group]
        self.shards = [group[0] if len(group) == 1 else self._merged(group) for group in groups]
        self.save()
        if self.directory is not None:
            for stem in old:
                for path in _files(self.directory, str(stem)):
                    path.unlink()

    def _merged(self, group: list[Shard]) -> Shard:
        merged = Shard([photo for shard in group for photo in shard.photos], {})
        if self.directory is None:
            for name in list(group[0].features):
                merged.features[name] = torch.cat([shard.features.pop(name) for shard in group])
        else:
            self._write(group, merged)
        return merged

    def _write(self, parts: Sequence[Shard], shard: Shard) -> None:
        """Writes the rows of some shards as one, which then reads them from there."""
        assert self.directory is not None
        shard.stem = f"{self._serial:06d}"
        self._serial += 1
        features, photos = _files(self.directory, shard.stem)
        names = list(parts[0].features)
        write_tensors(
            features, {name: [part.features[name] for part in parts] for name in names}, self.header
        )
        columns: dict[str, list[Any]] = {
            name: [getattr(photo, name) for photo in shard.photos] for name in Photo.__match_args__
        }
        write_json(photos, columns, indent=None)
        shard.features = _mapped(features)

    # ---- looking at it ----

    def photos(self) -> list[Photo]:
        """All photos in the order of their ids."""
        return [photo for shard in self.shards for photo in shard.photos]

    def matrix(self, network: int, layer: int) -> Matrix:
        """The features of a layer."""
        return Matrix([shard.features[key(network, layer)] for shard in self.shards])


def refuse_other_index(directory: Path) -> None:
    """Raises ValueError if the folder holds an index."""
    if (directory / FILE).exists():
        raise argument_error("directory", "a folder without an index", str(directory))


def load_store(directory: Path) -> Store:
    """Reads what a `Store` wrote; features stay on disk until they are looked at.

    Raises:
        ValueError: it is no index, or a damaged one.
        OSError: a file cannot be read.
    """
    path = directory / FILE
    if not path.is_file():
        raise argument_error("directory", f"a folder with an index ({FILE})", str(directory))
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise ValueError(f"format {record['format']!r}")
        header = _header_of(record)
        store = Store(header, directory, _serial=int(record["serial"]))
        for each in record["shards"]:
            store.shards.append(_read_shard(directory, header, each))
        store.failures = {str(name): str(reason) for name, reason in record["failures"]}
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        SafetensorError,
        FileNotFoundError,
    ) as e:
        raise ValueError(
            f"directory: expected an index saved by pyxai, got {directory} "
            f"({type(e).__name__}: {e})"
        ) from e
    return store


def _header_of(record: Mapping[str, Any]) -> Header:
    networks = tuple(
        Network(
            str(each["name"]),
            str(each["fingerprint"]),
            str(each["preprocessing"]),
            tuple(
                Layer(str(layer["name"]), str(layer["kind"]), int(layer["width"]))
                for layer in each["layers"]
            ),
        )
        for each in record["networks"]
    )
    if record["dtype"] not in DTYPES:
        raise ValueError(f"dtype {record['dtype']!r}")
    return Header(networks, str(record["pooling"]), str(record["dtype"]))


def _read_shard(directory: Path, header: Header, record: Mapping[str, Any]) -> Shard:
    stem, count = str(record["stem"]), int(record["photos"])
    if not stem.isdigit():  # names come from a file: nothing outside the folder is read
        raise ValueError(f"shard {stem!r}")
    features_file, photos_file = _files(directory, stem)
    columns = json.loads(photos_file.read_text(encoding="utf-8"))
    rows = zip(*(columns[name] for name in Photo.__match_args__), strict=True)
    photos = [
        Photo(str(path), int(width), int(height), None if label is None else str(label))
        for path, width, height, label in rows
    ]
    features = _mapped(features_file)
    expected = {
        key(i, j): (count, layer.width)
        for i, network in enumerate(header.networks)
        for j, layer in enumerate(network.layers)
    }
    found = {name: tuple(tensor.shape) for name, tensor in features.items()}
    kinds = {tensor.dtype for tensor in features.values()}
    if found != expected or len(photos) != count or kinds != {DTYPES[header.dtype]}:
        raise ValueError(f"shard {stem} does not hold the features of {count} photos")
    return Shard(photos, features, stem)


def _files(directory: Path, stem: str) -> tuple[Path, Path]:
    return directory / f"features-{stem}.safetensors", directory / f"photos-{stem}.json"


def _mapped(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, mapped into memory and not read."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def write_tensors(
    path: Path, tensors: Mapping[str, Iterable[torch.Tensor]], header: Header
) -> None:
    """Writes a safetensors file, piece by piece, so that no more than a piece is in memory.

    Args:
        path: of the file; it appears when all of it is written.
        tensors: pieces `[n_i, F]` of each, which are written as one.
        header: says of what type the numbers are.
    """
    entries: dict[str, Any] = {}
    lists = {name: list(pieces) for name, pieces in tensors.items()}
    offset, size = 0, torch.empty((), dtype=DTYPES[header.dtype], device="cpu").element_size()
    for name, pieces in lists.items():
        shape = [sum(len(piece) for piece in pieces), pieces[0].shape[1]]
        end = offset + shape[0] * shape[1] * size
        entries[name] = {
            "dtype": _DTYPE_CODES[header.dtype],
            "shape": shape,
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for pieces in lists.values():
            for piece in pieces:
                file.write(piece.contiguous().view(torch.uint8).numpy().data)
