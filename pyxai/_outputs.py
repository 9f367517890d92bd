"""Folders that results are written to: what lies there and is not ours stays as it is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pyxai._files import write_json

_MANIFEST = ".pyxai-files.json"


class OutputFolder:
    """A folder with a list of the files that were written into it, kept beside them.

    Only what the list of an earlier run names is replaced or removed. Whoever has photos or notes
    in the same folder finds them there afterwards.
    """

    def __init__(self, directory: str | Path, argument: str = "out") -> None:
        """Makes the folder if need be.

        Args:
            directory: the folder; it may hold anything.
            argument: what it is called in errors.

        Raises:
            ValueError: it is a file.
        """
        self.path = Path(directory)
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{argument}: expected a folder, got the file {str(directory)!r}")
        self.path.mkdir(parents=True, exist_ok=True)
        self._argument = argument
        self._before = self._read()
        self._written: dict[str, str] = {}

    def file(self, name: str) -> Path:
        """Where to write a file of ours; folders on the way are made.

        Args:
            name: below the folder, with "/".

        Raises:
            ValueError: there is something of this name that is not ours, a link, or a folder on the
                way that holds what others put there.
        """
        self.check(name)
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name not in self._written:
            self._written[name] = ""
            self._save({**self._before, **self._written})  # first: a kill leaves no orphan
        return path

    def check(self, name: str) -> None:
        """Refuses a name that `file` would refuse, before anything is written."""
        path = self.path / name
        foreign = next((each for each in self._way(name) if self._is_foreign(each)), None)
        if foreign is None and (path.is_symlink() or path.exists()) and not self._is_ours(name):
            foreign = path
        if foreign is not None:
            raise ValueError(
                f"{self._argument}: expected a folder where {name!r} may be written, got "
                f"{str(self.path)!r}, whose {foreign.relative_to(self.path).as_posix()!r} was not "
                "written by pyxai; choose another folder"
            )

    def finish(self) -> None:
        """Removes what an earlier run has written and this one has not; all else stays."""
        for name in sorted(set(self._before) - set(self._written)):
            path = self.path / name
            if self._is_ours(name) and path.is_file():
                path.unlink()
            for folder in reversed(self._way(name)):
                if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
                    folder.rmdir()
        self._before = {}
        self._written = {name: _hash(self.path / name) for name in self._written}
        self._save(self._written)

    def _way(self, name: str) -> list[Path]:
        """The folders between this one and a file."""
        parts = Path(name).parts
        return [self.path.joinpath(*parts[:depth]) for depth in range(1, len(parts))]

    def _is_foreign(self, folder: Path) -> bool:
        """Whether a folder on the way is a link or a file, or others have put something there."""
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            return True
        start = folder.relative_to(self.path).as_posix() + "/"
        ours = any(each.startswith(start) for each in (*self._before, *self._written))
        return folder.is_dir() and not ours and any(folder.iterdir())

    def _is_ours(self, name: str) -> bool:
        """Whether we wrote the file of this name, and nobody wrote over it."""
        if name in self._written:
            return True
        path, known = self.path / name, self._before.get(name)
        if known is None or any(each.is_symlink() for each in (path, *self._way(name))):
            return False
        return known == "" or not path.exists() or known == _hash(path)

    def _read(self) -> dict[str, str]:
        try:
            files = json.loads((self.path / _MANIFEST).read_text(encoding="utf-8"))["files"]
            return {str(name): str(known) for name, known in files.items() if _is_below(name)}
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return {}

    def _save(self, files: dict[str, str]) -> None:
        write_json(self.path / _MANIFEST, {"files": dict(sorted(files.items()))})


def _hash(path: Path) -> str:
    """Of a file's content, "" of one that is not there."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _is_below(name: str) -> bool:
    """Whether a name stays in the folder, wherever the list came from."""
    path = Path(name)
    return not path.is_absolute() and ".." not in path.parts and path.parts != ()
