"""What SHAP values say about each photo of a folder, region by region, and a log to go on from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pyxai._locks import locked
from pyxai._sealed import sealed, unsealed

_FORMAT = "pyxai shap summary run 1"
_FILE = "shap-run.jsonl"


@dataclass(frozen=True)
class PhotoEvidence:
    """One photo, explained for one class.

    Attributes:
        name: its path.
        target: the class that is explained.
        predicted: the top class.
        output: of the explained class.
        base_value: the same on the background.
        additivity_gap: base_value + sum of all values - output.
        sampling_gap: see `ShapValues`.
        regions: the values of the regions, row by row.
        file: size and time of the photo's file when it was read, in bytes and nanoseconds.
    """

    name: str
    target: int
    predicted: int
    output: float
    base_value: float
    additivity_gap: float
    sampling_gap: float
    regions: tuple[float, ...]
    file: tuple[int, int] = (0, 0)


def file_state(path: Path) -> tuple[int, int]:
    """Size and time of a file.

    Raises:
        OSError: there is none.
    """
    status = path.stat()
    return status.st_size, status.st_mtime_ns


class Log:
    """Photos that are done, one line each, in a folder.

    The first line says for which model and settings; each has a digest. A last line that was cut
    off is dropped.

    Attributes:
        found: what the log holds, by name.
    """

    def __init__(self, directory: Path | None, identity: dict[str, Any]) -> None:
        """Takes note of where the log is to be, or that there is none.

        Args:
            directory: made if need be; None keeps everything in memory.
            identity: of the model and the settings, for JSON.
        """
        self.found: dict[str, PhotoEvidence] = {}
        self._directory = directory
        self._identity = json.loads(json.dumps({"format": _FORMAT, **identity}))

    def knows(self, path: Path) -> bool:
        """Whether the photo was explained as it is now."""
        found = self.found.get(str(path))
        try:
            return found is not None and found.file == file_state(path)
        except OSError:
            return False

    @contextmanager
    def writing(self) -> Iterator[_Writer]:
        """Reads the log and takes photos while it is open; each is on disk once it is taken.

        Raises:
            ValueError: the folder holds the run of another model or other settings, or something
                else, or the log is damaged.
            BusyError: another run writes it.
        """
        if self._directory is None:
            yield _Writer(self.found, None)
            return
        with locked(self._directory, "checkpoint"):
            path = self._directory / _FILE
            if path.exists():
                self._resume(path)
            with path.open("ab") as file:
                writer = _Writer(self.found, file)
                if not path.stat().st_size:
                    writer.write(self._identity)
                yield writer

    def _resume(self, path: Path) -> None:
        whole, end, lines = path.read_bytes(), 0, []
        for line in whole.splitlines(keepends=True):
            if line.endswith(b"\n"):
                lines.append(line)
                end += len(line)
        if lines:
            try:
                records = [unsealed(json.loads(line), path) for line in lines]
                head = records[0]
                if head.get("format") != _FORMAT:
                    raise ValueError("another format")
                photos = [_photo(record) for record in records[1:]]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"checkpoint: expected a folder that a SHAP summary's run left, got "
                    f"{path.parent} ({type(error).__name__}: {error})"
                ) from error
            names = sorted({*head, *self._identity})
            other = [name for name in names if head.get(name) != self._identity.get(name)]
            if other:
                raise ValueError(
                    f"checkpoint: expected a run of the same model and settings, got "
                    f"{path.parent}, where these differ: {', '.join(other)}"
                )
            self.found.update((photo.name, photo) for photo in photos)
        elif whole and not _begins_a_log(whole):
            raise ValueError(
                f"checkpoint: expected a folder that a SHAP summary's run left, got {path.parent}"
            )
        with path.open("rb+") as file:
            file.truncate(end)


def _begins_a_log(data: bytes) -> bool:
    """Whether this may be a first line that was cut off."""
    start = json.dumps({"format": _FORMAT})[:-1].encode()
    return data.startswith(start) or start.startswith(data)


class _Writer:
    def __init__(self, found: dict[str, PhotoEvidence], file: Any) -> None:
        self._found = found
        self._file = file

    def take(self, photo: PhotoEvidence) -> None:
        """Takes one more photo."""
        self._found[photo.name] = photo
        self.write(asdict(photo))

    def write(self, record: dict[str, Any]) -> None:
        """Adds a line to the log, if there is one."""
        if self._file is not None:
            self._file.write(json.dumps(sealed(record)).encode("ascii") + b"\n")
            self._file.flush()


def _photo(record: dict[str, Any]) -> PhotoEvidence:
    return PhotoEvidence(
        **{
            **record,
            "regions": tuple(map(float, record["regions"])),
            "file": (int(record["file"][0]), int(record["file"][1])),
        }
    )
