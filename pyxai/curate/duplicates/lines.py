"""Files of records that grow line by line and survive a kill at any point."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyxai._errors import argument_error
from pyxai._sealed import DamagedError, sealed, unsealed


class Lines:
    """Records in the lines of a file, each with its digest; the first line tells what it is.

    What a kill has cut off at the end is not there, and the next record takes its place. One
    process at a time may have such a file; that is for the caller to see to.

    Attributes:
        records: those that were there.
    """

    def __init__(self, path: Path, kind: str, *, argument: str, expected: str) -> None:
        """Reads what is there; writes nothing.

        Args:
            path: of the file.
            kind: what the first line says that it is.
            argument: what the folder is called in errors.
            expected: what it was expected to be, in words.

        Raises:
            ValueError: the file is of another kind.
            DamagedError: a line is not as it was written.
        """
        self._path = path
        self._first = _line({"format": kind})
        data = path.read_bytes() if path.exists() else b""
        if not data.startswith(self._first) and not self._first.startswith(data):
            raise argument_error(argument, expected, str(path))
        self._length = data.rfind(b"\n") + 1
        self._is_cut = len(data) > self._length
        lines = data[: self._length].split(b"\n")[1:-1]
        self.records = [self._read(number, line) for number, line in enumerate(lines, 2)]

    def append(self, *records: Mapping[str, Any], sync: bool = False) -> None:
        """Adds records.

        Args:
            *records: of JSON values.
            sync: comes back when they are on the disk.
        """
        data = b"".join(map(_line, records))
        if not self._length:
            data = self._first + data
        with self._path.open("r+b" if self._path.exists() else "wb") as file:
            if self._is_cut:
                file.truncate(self._length)
            self._is_cut = True  # unless all of it is written
            file.seek(self._length)
            file.write(data)
            file.flush()
            self._is_cut = False
            self._length += len(data)
            if sync:
                os.fsync(file.fileno())

    def _read(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            return unsealed(json.loads(line), self._path)
        except (ValueError, RecursionError) as error:
            raise DamagedError(self._path, f"line {number}") from error


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(sealed(record)).encode("ascii") + b"\n"
