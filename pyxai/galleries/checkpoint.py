"""A run over many photos that may be interrupted: what it knows, in a folder."""

from __future__ import annotations

import hashlib
import os
import re
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyxai._files import refuse_other_file
from pyxai._sealed import DamagedError, load_tensors, read_record, save_tensors, write_record
from pyxai.classifier import Classifier
from pyxai.classifier.fingerprint import fingerprint
from pyxai.galleries.contents import Tally
from pyxai.galleries.selection import THUMBNAIL, Candidate, Selection
from pyxai.galleries.storage import box_of
from pyxai.images import ImageError, PhotoWarning, find_photos
from pyxai.runs.photos import is_in_memory

_FORMAT = "pyxai gallery run 1"
_STEM = "gallery-run"  # of the files' names, so that they meet no others

_LINE = re.compile(rb"[0-9a-f]{16}\n")  # of the photos that were seen
_LINES = re.compile(rb"([0-9a-f]{16}\n)*[0-9a-f]{0,16}")

PHOTOS_BETWEEN_SAVES = 200
_SECONDS_BETWEEN_SAVES = 60.0


class Checkpoint:
    """A run's candidates and the photos it has seen, in a folder; saved every few hundred photos.

    The state names the file of candidates and says how many of the names count, so that a run that
    is stopped while it writes leaves the state before.
    """

    def __init__(self, directory: Path, selection: Selection, classifier: Classifier) -> None:
        """Opens a folder, and fills the selection with what a former run left there.

        Raises:
            ValueError: it holds the run of another model or other settings, or a file of others
                has a name that the run needs.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._selection = selection
        self._identity = {
            "format": _FORMAT,
            **selection.settings.of_selection,
            "class_names": None if selection.class_names is None else [*selection.class_names],
            "preprocessing": repr(classifier.preprocessing),
            "weights": fingerprint(classifier.network),
        }
        self._new: list[str] = []
        self._names = 0  # lines of the file of names that count
        self._seen = hashlib.blake2b(digest_size=16)  # of these lines
        self._done = np.zeros(0, np.uint64)
        self._saved = time.monotonic()
        self._serial = 0
        self._state = directory / f"{_STEM}.json"
        self._names_file = directory / f"{_STEM}-names.txt"
        if self._state.exists():
            self._resume()
        else:  # or a run was stopped before it first saved
            for path in (self._names_file, *self._candidates()):
                refuse_other_file("checkpoint", path, "a file of a gallery's run", _is_ours)
            self._names_file.write_bytes(b"")

    def keep_to(self, photos: object) -> None:
        """Forgets the former run if it saw a photo that is not asked for now, or has changed.

        What it kept is the best of all that it saw: without one of them it might be another.

        Args:
            photos: as `iterate_photos` takes them; of a generator nothing is known beforehand.

        Warns:
            PhotoWarning: all photos are looked at anew.
        """
        names = _names_of(photos)
        if names is None or not len(self._done):
            return
        keys = np.fromiter((_key(name) for name in names), np.uint64)
        if np.isin(self._done, keys).all():
            return
        warnings.warn(
            f"checkpoint: photos of the run in {self._directory} are gone, changed or not asked "
            "for; all are looked at anew",
            PhotoWarning,
            stacklevel=3,
        )
        self._selection.start_anew()
        self._done, self._names = np.zeros(0, np.uint64), 0
        self._seen = hashlib.blake2b(digest_size=16)
        self._state.unlink()
        self._names_file.write_bytes(b"")

    def knows(self, name: str) -> bool:
        """Whether a former run has seen this photo as it is now."""
        key = _key(name)
        place = int(np.searchsorted(self._done, key))
        return place < len(self._done) and bool(self._done[place] == key)

    def done(self, name: str) -> None:
        """Takes note of a photo; saves when it is time."""
        self._new.append(name)
        late = time.monotonic() - self._saved > _SECONDS_BETWEEN_SAVES
        if late or len(self._new) >= PHOTOS_BETWEEN_SAVES:
            self.save()

    def save(self) -> None:
        """Writes all that is known."""
        if not self._new and self._serial:
            return
        lines = "".join(f"{_key(name):016x}\n" for name in self._new).encode("ascii")
        with self._names_file.open("ab") as file:
            file.write(lines)
        self._seen.update(lines)
        self._names += len(self._new)
        self._new.clear()
        self._serial += 1
        selection, arrays = self._selection, self._arrays_file()
        pools = {index: list(pool) for index, pool in selection.pools.items()}
        save_tensors(arrays, _arrays(pools))
        record = {
            "identity": self._identity,
            "serial": self._serial,
            "names": self._names,
            "names_digest": self._seen.hexdigest(),
            "class_count": selection.class_count,
            "tally": asdict(selection.tally),
            "pools": {
                str(index): [[each.score, each.name, each.box] for each in pool]
                for index, pool in pools.items()
            },
        }
        write_record(self._state, record)
        for old in self._candidates():
            if old != arrays:
                old.unlink()
        self._saved = time.monotonic()

    def _candidates(self) -> list[Path]:
        found = self._directory.glob(f"{_STEM}-candidates-*.safetensors")
        return [path for path in found if path.stem.removeprefix(f"{_STEM}-candidates-").isdigit()]

    def _arrays_file(self) -> Path:
        return self._directory / f"{_STEM}-candidates-{self._serial}.safetensors"

    def _resume(self) -> None:
        try:
            state = read_record(self._state)
            identity = dict(state["identity"])
            self._check(identity)
            self._serial, self._names = int(state["serial"]), int(state["names"])
            tensors, _ = load_tensors(self._arrays_file())
            arrays = {name: each.numpy() for name, each in tensors.items()}
            self._read_names(state["names_digest"])
            selection, crop = self._selection, self._selection.settings.crop
            selection.class_count = state["class_count"]
            selection.tally = Tally(**state["tally"])
            selection.tally.failures = [(name, reason) for name, reason in selection.tally.failures]
            selection.pools = {
                int(index): _candidates(rows, int(index), arrays, crop)
                for index, rows in state["pools"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError, FileNotFoundError) as error:
            if isinstance(error, _OtherRunError):
                raise
            raise ValueError(
                f"checkpoint: expected a folder that a gallery's run left, got {self._directory} "
                f"({type(error).__name__}: {error})"
            ) from error

    def _check(self, identity: dict[str, Any]) -> None:
        """Raises ValueError if the run was another one."""
        if identity != self._identity:
            names = sorted({*identity, *self._identity})
            other = [name for name in names if identity.get(name) != self._identity.get(name)]
            raise _OtherRunError(
                f"checkpoint: expected a run of the same model and settings, got {self._directory}"
                f", where these differ: {', '.join(other)}"
            )

    def _read_names(self, expected: str) -> None:
        """The photos seen, and cuts off what a stopped run wrote after its last state."""
        with self._names_file.open("rb+") as file:
            keys = np.zeros(self._names, np.uint64)
            for place in range(self._names):
                line = file.readline()
                self._seen.update(line)
                keys[place] = int(line, 16) if _LINE.fullmatch(line) else 0
            if self._seen.hexdigest() != expected:
                raise DamagedError(self._names_file, "the list of photos")
            file.truncate(file.tell())
        self._done = np.sort(keys)


def _is_ours(path: Path) -> bool:
    if path.suffix == ".txt":
        return bool(_LINES.fullmatch(path.read_bytes()))
    return bool(load_tensors(path))


class _OtherRunError(ValueError):
    pass


def _key(name: str) -> int:
    """Eight bytes that stand for a photo as it is now: a million photos take 8 MB."""
    try:
        status = Path(name).stat()
        state = f"{status.st_size} {status.st_mtime_ns} "
    except (OSError, ValueError):  # in memory, or gone
        state = ""
    data = (state + name).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _names_of(photos: object) -> list[str] | None:
    """The names that `iterate_photos` will give; None of what can be looked at once only."""
    if not isinstance(photos, (str, os.PathLike, list, tuple)):
        return None
    names: list[str] = []
    several = photos if isinstance(photos, (list, tuple)) else [photos]
    for place, each in enumerate(several):
        if not isinstance(each, (str, os.PathLike)):
            names.append(f"images[{place}]")
            continue
        try:
            names += map(str, find_photos(each))
        except ImageError as error:
            names.append(error.name)
    return names


def _arrays(pools: dict[int, list[Candidate]]) -> dict[str, torch.Tensor]:
    """Thumbnails of each class, and pixels where there are any."""
    found: dict[str, torch.Tensor] = {}
    for index, pool in pools.items():
        thumbnails = b"".join(each.thumbnail for each in pool)
        pixels = b"".join(each.pixels or b"" for each in pool)
        found[f"thumbnails.{index}"] = _tensor(thumbnails)
        found[f"pixels.{index}"] = _tensor(pixels)
    return found


def _tensor(data: bytes) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(bytearray(data), np.uint8))


def _candidates(
    rows: list[Any], index: int, arrays: dict[str, NDArray[np.uint8]], crop: int
) -> list[Candidate]:
    """A pool as it was; the order of its heap is kept."""
    thumbnails = arrays[f"thumbnails.{index}"].reshape(len(rows), THUMBNAIL**2)
    held = sum(is_in_memory(name) for _, name, _ in rows)
    pixels = iter(arrays[f"pixels.{index}"].reshape(held, crop * crop * 3))
    found = []
    for (score, name, box), thumbnail in zip(rows, thumbnails, strict=True):
        kept = next(pixels).tobytes() if is_in_memory(name) else None
        candidate = Candidate(float(score), str(name), box_of(box), thumbnail.tobytes(), kept)
        found.append(candidate)
    return found
