"""What is known of each photo, kept in a folder so that no photo is read twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pyxai._errors import argument_error
from pyxai._locks import locked
from pyxai._sealed import DamagedError, load_tensors, save_tensors
from pyxai.curate.duplicates.lines import Lines
from pyxai.curate.quality import sharpness

_KIND = "pyxai duplicates 2"
_RECORDS = "photos.jsonl"
_SHARD = 512  # photos
_SIDE = 256  # longer side of the picture on which sharpness is measured


@dataclass(frozen=True)
class Record:
    """What is known of a photo without a network.

    Attributes:
        name: its path.
        bytes: size of the file.
        modified: time of its last change in nanoseconds.
        file: digest of the file.
        pixels: digest of the decoded pixels.
        width: in pixels.
        height: in pixels.
        sharpness: variance of the Laplacian at a common size.
        hashes: of each kind that was asked for, in eight orientations; None for a plain picture.
    """

    name: str
    bytes: int
    modified: int
    file: str
    pixels: str
    width: int
    height: int
    sharpness: float
    hashes: dict[str, list[int] | None]

    def fits(self, path: Path, kind: str | None) -> bool:
        """Whether the file is still the one that was read, and the hash is known."""
        status = path.stat()
        same = (status.st_size, status.st_mtime_ns) == (self.bytes, self.modified)
        return same and (kind is None or kind in self.hashes)


def sharpness_of(photo: Image.Image) -> float:
    """Of the photo, its longer side at most 256 pixels; 0 where it is too small to tell."""
    small = photo.convert("L")
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    found = sharpness(np.asarray(small))
    return found if np.isfinite(found) else 0.0


@contextmanager
def open_store(directory: Path | None, network: str) -> Iterator[Store]:
    """What is known of photos, in a folder that no other run works in meanwhile.

    Args:
        directory: the folder, made if need be; None keeps nothing.
        network: what the features depend on: fingerprint, layer and preprocessing.

    Raises:
        ValueError: the folder holds something else.
        DamagedError: a file in it is not as it was written.
        BusyError: another run works in it.
    """
    if directory is None:
        yield Store(None, network)
        return
    if directory.exists() and not directory.is_dir():
        raise argument_error("store", "a folder", f"the file {directory}")
    with locked(directory, "store"):
        store = Store(directory, network)
        try:
            yield store
        finally:
            store.flush()


class Store:
    """Records and features of former runs, and those of this one as they are made.

    Without a folder it keeps them in memory. A run that is stopped leaves what it has read, but for
    the last few hundred features.

    Attributes:
        layer: that the features are of; None where there are none yet.
    """

    def __init__(self, directory: Path | None, network: str) -> None:
        """Reads what is there; see `open_store`."""
        self._directory, self._network = directory, network
        self._records: dict[str, Record] = {}
        self._features: dict[str, tuple[str, NDArray[np.float32]]] = {}
        self._waiting: list[tuple[Record, NDArray[np.float32]]] = []
        self._shards = 0
        self.layer: str | None = None
        if directory is None:
            return
        expected = "a folder that an earlier search for duplicates left, or an empty one"
        self._lines = Lines(directory / _RECORDS, _KIND, argument="store", expected=expected)
        for record in self._lines.records:
            self._records[record["name"]] = Record(**record)
        self._prefix = f"features-{hashlib.blake2b(network.encode(), digest_size=6).hexdigest()}"
        for shard in sorted(directory.glob(f"{self._prefix}-*.safetensors")):
            number = shard.stem.rpartition("-")[2]
            if number.isdecimal():  # or it is somebody's copy
                self._read_shard(shard)
                self._shards = max(self._shards, int(number) + 1)

    def record(self, path: Path, kind: str | None) -> Record | None:
        """What is known of the photo, if it has not changed since."""
        found = self._records.get(str(path))
        return found if found is not None and found.fits(path, kind) else None

    def add(self, record: Record) -> None:
        """Takes note of a photo."""
        self._records[record.name] = record
        if self._directory is not None:
            self._lines.append(asdict(record))

    def features(self, record: Record) -> NDArray[np.float32] | None:
        """The features of the photo by this network, if they are known."""
        found = self._features.get(record.name)
        return found[1] if found is not None and found[0] == record.pixels else None

    def add_features(self, record: Record, features: NDArray[np.float32], layer: str) -> None:
        """Takes note of features of a layer, which is the same for all."""
        self.layer = layer
        self._features[record.name] = (record.pixels, features)
        self._waiting.append((record, features))
        if len(self._waiting) >= _SHARD:
            self.flush()

    def flush(self) -> None:
        """Writes features that have not been written."""
        if self._directory is not None and self._waiting:
            rows = np.stack([features for _, features in self._waiting])
            names = [[record.name, record.pixels] for record, _ in self._waiting]
            about = {"photos": json.dumps(names), "network": self._network}
            about["layer"] = str(self.layer)
            file = self._directory / f"{self._prefix}-{self._shards:05d}.safetensors"
            save_tensors(file, {"features": torch.from_numpy(rows)}, about)
            self._shards += 1
        self._waiting.clear()

    def _read_shard(self, shard: Path) -> None:
        tensors, about = load_tensors(shard)
        if about.get("network") != self._network or self.layer not in (None, about["layer"]):
            raise DamagedError(shard, "the network or layer")
        self.layer = about["layer"]
        rows = tensors["features"].numpy()
        for (name, pixels), row in zip(json.loads(about["photos"]), rows, strict=True):
            self._features[name] = (pixels, row)
