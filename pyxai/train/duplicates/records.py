"""What is known of each photo, kept in a folder so that no photo is read twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from pyxai._errors import argument_error
from pyxai._files import replacing
from pyxai.train.quality import sharpness

_FORMAT = "pyxai duplicates 1"
_RECORDS = "photos.jsonl"
_SHARD = 512  # photos
_PART = 1 << 20  # bytes of a file that are read together
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


def file_digest(path: Path) -> str:
    """The same for files with the same bytes."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while part := file.read(_PART):
            digest.update(part)
    return digest.hexdigest()


class Store:
    """Records and features of former runs, and those of this one as they are made.

    Without a folder it keeps them in memory. A run that is stopped leaves what it has read, but for
    the last few hundred features.
    """

    def __init__(self, directory: Path | None, network: str) -> None:
        """Reads what is there.

        Args:
            directory: the folder, made if need be; None keeps nothing.
            network: what the features depend on: fingerprint, layer and preprocessing.

        Raises:
            ValueError: the folder holds something else.
        """
        self._directory, self._network = directory, network
        self._records: dict[str, Record] = {}
        self._features: dict[str, tuple[str, NDArray[np.float32]]] = {}
        self._waiting: list[tuple[Record, NDArray[np.float32]]] = []
        if directory is None:
            return
        directory.mkdir(parents=True, exist_ok=True)
        self._file = directory / _RECORDS
        if self._file.exists():
            self._read_records()
        else:
            self._append({"format": _FORMAT})
        self._prefix = f"features-{hashlib.blake2b(network.encode(), digest_size=6).hexdigest()}"
        for shard in sorted(directory.glob(f"{self._prefix}-*.safetensors")):
            self._read_shard(shard)

    def record(self, path: Path, kind: str | None) -> Record | None:
        """What is known of the photo, if it has not changed since."""
        found = self._records.get(str(path))
        return found if found is not None and found.fits(path, kind) else None

    def add(self, record: Record) -> None:
        """Takes note of a photo."""
        self._records[record.name] = record
        if self._directory is not None:
            self._append(asdict(record))

    def features(self, record: Record) -> NDArray[np.float32] | None:
        """The features of the photo by this network, if they are known."""
        found = self._features.get(record.name)
        return found[1] if found is not None and found[0] == record.pixels else None

    def add_features(self, record: Record, features: NDArray[np.float32]) -> None:
        """Takes note of features."""
        self._features[record.name] = (record.pixels, features)
        self._waiting.append((record, features))
        if len(self._waiting) >= _SHARD:
            self.flush()

    def flush(self) -> None:
        """Writes features that have not been written."""
        if self._directory is not None and self._waiting:
            number = len([*self._directory.glob(f"{self._prefix}-*.safetensors")])
            rows = np.stack([features for _, features in self._waiting])
            names = [[record.name, record.pixels] for record, _ in self._waiting]
            file = self._directory / f"{self._prefix}-{number:05d}.safetensors"
            metadata = {"photos": json.dumps(names), "network": self._network}
            with replacing(file) as partial:
                save_file({"features": rows}, partial, metadata=metadata)
        self._waiting.clear()

    def _append(self, entry: dict[str, Any]) -> None:
        with self._file.open("a", encoding="ascii") as file:
            file.write(f"{json.dumps(entry)}\n")

    def _read_records(self) -> None:
        lines = [*self._lines()]
        if not lines or lines[0].get("format") != _FORMAT:
            expected = "a folder that an earlier search for duplicates left, or an empty one"
            raise argument_error("store", expected, str(self._directory))
        for entry in lines[1:]:
            try:
                self._records[entry["name"]] = Record(**entry)
            except (TypeError, KeyError):  # of another version: read again
                continue

    def _lines(self) -> Iterator[dict[str, Any]]:
        for line in self._file.read_text(encoding="ascii", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # the last line of a run that was stopped
                continue
            if isinstance(entry, dict):
                yield entry

    def _read_shard(self, shard: Path) -> None:
        try:
            with safe_open(shard, framework="np") as file:
                metadata = file.metadata() or {}
            rows = load_file(shard)["features"]
            photos = json.loads(metadata["photos"])
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise argument_error("store", "files that can be read", f"{shard}: {error}") from error
        for (name, pixels), row in zip(photos, rows, strict=True):
            self._features[name] = (pixels, row)
