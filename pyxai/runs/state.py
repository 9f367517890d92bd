"""A run that goes step by step: what it needs to go on after its last one, in a folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pyxai._locks import locked
from pyxai._outputs import OutputFolder
from pyxai._sealed import load_tensors, read_record, save_tensors, write_record
from pyxai.runs.identity import check_identity, plain
from pyxai.runs.parts import Kind, not_one


class RunState:
    """A record and tensors of the last step, in a folder that the caller has locked.

    The record says how many steps there were, and the file of tensors of that number belongs to
    it, so that a run that is stopped while it writes leaves the state before.

    Attributes:
        directory: the folder.
        before: the record and tensors that were there, or None.
    """

    def __init__(self, kind: Kind, directory: Path, identity: Mapping[str, Any]) -> None:
        """Opens a folder; see `open_state`."""
        self._kind, self._identity = kind, plain(identity)
        self.directory = directory
        self._output = OutputFolder(directory, kind.argument, by=kind.name)
        self.before = self._read() if (directory / kind.file).exists() else None
        self._output.check(kind.file, *self._files())

    def save(
        self, step: int, record: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
    ) -> None:
        """Writes the state after a step, and removes the one before."""
        file = self._file(step)
        with self._output.writing(file) as path:
            save_tensors(path, tensors)
        whole = {"format": self._kind.format, "identity": self._identity, "step": step, **record}
        with self._output.writing(self._kind.file) as path:
            write_record(path, whole, indent=1)
        for old in self._files():
            if old != file and self._output.wrote(self.directory / old):
                self._output.remove(old)

    def _read(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        kind = self._kind
        try:
            record = read_record(self.directory / kind.file)
            if record["format"] != kind.format:
                raise ValueError(f"format {record['format']!r}")
            identity, step = dict(record["identity"]), int(record["step"])
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise not_one(self.directory, kind, error) from error
        check_identity(kind.argument, kind.name, self.directory, identity, self._identity)
        try:
            return record, load_tensors(self.directory / self._file(step))[0]
        except (ValueError, OSError) as error:
            raise not_one(self.directory, kind, error) from error

    def _file(self, step: int) -> str:
        return f"{self._kind.stem}-{step}.safetensors"

    def _files(self) -> list[str]:
        """Names in the folder that files of tensors have."""
        named = re.compile(rf"{self._kind.stem}-\d+\.safetensors", re.ASCII)
        return [each.name for each in self.directory.iterdir() if named.fullmatch(each.name)]


@contextmanager
def open_state(kind: Kind, directory: Path, identity: Mapping[str, Any]) -> Iterator[RunState]:
    """The state of a run in a folder that it has to itself.

    Args:
        kind: what it is.
        directory: the folder; it may hold files of others.
        identity: all that two runs must share if one is to go on where the other stopped, as
            plain data: numbers, texts, lists and dictionaries.

    Raises:
        BusyError: another run works in the folder.
        ValueError: it holds a run of another model or other settings, or a damaged one; or a file
            of others has a name that the run needs.
    """
    with locked(directory, kind.argument):
        yield RunState(kind, directory, identity)
