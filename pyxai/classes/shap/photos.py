"""What SHAP values say about each photo of a folder, region by region, and a log to go on from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
    """

    name: str
    target: int
    predicted: int
    output: float
    base_value: float
    additivity_gap: float
    sampling_gap: float
    regions: tuple[float, ...]


class Log:
    """Photos that are done, one line each, in a folder.

    The first line says for which model and settings; a line that was cut off is dropped.

    Attributes:
        found: what the log holds, by name.
    """

    def __init__(self, directory: Path | None, identity: dict[str, Any]) -> None:
        """Opens a log, or none.

        Args:
            directory: made if need be; None keeps everything in memory.
            identity: of the model and the settings, for JSON.

        Raises:
            ValueError: it holds the run of another model or other settings, or something else.
        """
        self.found: dict[str, PhotoEvidence] = {}
        self._path = None if directory is None else directory / _FILE
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        identity = {"format": _FORMAT, **identity}
        if self._path.exists() and self._path.stat().st_size:
            self._resume(self._path, json.loads(json.dumps(identity)))
        else:
            self._path.write_text(json.dumps(identity) + "\n", encoding="utf-8")

    @contextmanager
    def writing(self) -> Iterator[_Writer]:
        """Takes photos while it is open; each is on disk once it is taken."""
        if self._path is None:
            yield _Writer(self.found, None)
            return
        with self._path.open("a", encoding="utf-8") as file:
            yield _Writer(self.found, file)

    def _resume(self, path: Path, identity: dict[str, Any]) -> None:
        whole, end, lines = path.read_bytes(), 0, []
        for line in whole.splitlines(keepends=True):
            if line.endswith(b"\n"):
                lines.append(line)
                end += len(line)
        try:
            records = [json.loads(line) for line in lines]
            head = dict(records[0])
            if head.get("format") != _FORMAT:
                raise ValueError("another format")
            photos = [_photo(record) for record in records[1:]]
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ValueError(
                f"checkpoint: expected a folder that a SHAP summary's run left, got {path.parent} "
                f"({type(error).__name__}: {error})"
            ) from error
        names = sorted({*head, *identity})
        other = [name for name in names if head.get(name) != identity.get(name)]
        if other:
            raise ValueError(
                f"checkpoint: expected a run of the same model and settings, got {path.parent}, "
                f"where these differ: {', '.join(other)}"
            )
        self.found = {photo.name: photo for photo in photos}
        with path.open("rb+") as file:
            file.truncate(end)


class _Writer:
    def __init__(self, found: dict[str, PhotoEvidence], file: Any) -> None:
        self._found = found
        self._file = file

    def take(self, photo: PhotoEvidence) -> None:
        """Takes one more photo."""
        self._found[photo.name] = photo
        if self._file is not None:
            self._file.write(json.dumps(asdict(photo)) + "\n")
            self._file.flush()


def _photo(record: dict[str, Any]) -> PhotoEvidence:
    return PhotoEvidence(**{**record, "regions": tuple(map(float, record["regions"]))})
