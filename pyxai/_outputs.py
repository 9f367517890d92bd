"""Folders that results are written to: what lies there and is not ours stays as it is."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from pyxai._files import is_part, replacing, sweep
from pyxai._locks import LOCK, check_folder
from pyxai._sealed import file_digest

MANIFEST = ".pyxai-files.jsonl"
"""The file that lists, line by line, what was written into a folder."""


_OF_FILES = {".png", ".jpg", ".jpeg", ".csv", ".json", ".html", ".safetensors"}


class OutputFolder:
    """A folder with a list of the files that were written into it, kept beside them.

    Only what the list names as written by the same command, and nobody changed since, is replaced
    or removed. Whoever has photos, notes or results of another command in the same folder finds
    them there afterwards. Readers of photos pass over what the list names (`written_in`).
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        argument: str = "directory",
        *,
        by: str,
        whole: bool = False,
    ) -> None:
        """Opens the folder; it is made when the first file is written.

        Args:
            directory: the folder; it may hold anything.
            argument: what it is called in errors.
            by: who writes: "an audit", "a gallery".
            whole: whether it is to hold nothing but ours; readers of photos then pass over all of
                it, and what the list names is ours even if it was changed.

        Raises:
            ValueError: it is a file, or called as one; or `whole`, and it holds what is not ours.
        """
        self.path = Path(directory)
        if not os.fsdecode(directory):
            raise ValueError(f"{argument}: expected a folder ('.' is this one), got ''")
        if self.path.suffix.lower() in _OF_FILES and not self.path.exists():
            expected = f"{argument}: expected a folder, got what is called as a file"
            raise ValueError(f"{expected}, {str(directory)!r}")
        self._argument = argument
        self._by = by
        self._whole = whole
        if self.path.exists() and not self.path.is_dir():
            expected = f"{argument}: expected a folder, got the file {str(directory)!r}"
            raise ValueError(expected)
        self._known = _read(self.path)
        self._written: set[str] = set()
        if whole and not self._known.whole and _holds_others(self.path):
            raise ValueError(
                f"{argument}: expected a new or empty folder, or one that pyxai has made, got "
                f"{str(self.path)!r}, which holds other files"
            )

    @property
    def files(self) -> Mapping[str, str]:
        """The files of ours by name, with the digest of what was written last."""
        return {name: digests[-1] for name, digests in self._known.files.items()}

    def digest_of(self, name: str) -> str:
        """That of a file of ours, as it was written last."""
        return self._known.files[name][-1]

    def is_intact(self, name: str) -> bool:
        """Whether a file is there just as it was written last; reads it."""
        digests = self._known.files.get(name)
        try:
            return digests is not None and file_digest(self.path / name) == digests[-1]
        except OSError:
            return False

    def claim(self) -> None:
        """Makes the folder and its list, so that it is known for one of ours from now on."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / MANIFEST).open("ab") as file:
            if not self._known.lines and self._first():
                file.write(self._first().encode("ascii"))
                self._known.lines = 1

    def check(self, *names: str, of: str | None = None) -> None:
        """Refuses names that `writing` would refuse, before any work is done.

        Args:
            *names: of files below the folder, with "/".
            of: see `writing`.

        Raises:
            ValueError: there is something of one of these names that is not ours, was written by
                another command or of something else, or is a link; or a folder on its way is a
                link or a file, or others filled it.
        """
        check_folder(self._argument, self.path)
        self._check_names(names, of)

    def _check_names(self, names: Iterable[str], of: str | None) -> None:
        for name in names:
            path = self.path / name
            if _exists(path) and name not in self._known.files:
                self._known = _read(self.path)  # another run may have written it meanwhile
            foreign = next((each for each in self._way(name) if self._is_foreign(each)), None)
            if foreign is None and _exists(path) and not self._is_ours(name):
                foreign = path
            why = "was not written by pyxai"
            if foreign is None and _exists(path):
                by, about = self._known.makers[name]
                if by != self._by or (of is not None and about is not None and about != of):
                    foreign, why = path, f"was written by {by}" + (f" of {about}" if about else "")
            if foreign is not None:
                raise ValueError(
                    f"{self._argument}: expected a folder where {name!r} may be written, got "
                    f"{str(self.path)!r}, whose {foreign.relative_to(self.path).as_posix()!r} "
                    f"{why}; choose another folder"
                )

    @contextmanager
    def writing(self, name: str, *, of: str | None = None) -> Iterator[Path]:
        """A file to write to, which becomes the one of this name unless an error comes first.

        Args:
            name: below the folder, with "/"; folders on the way are made.
            of: the photo that it tells of; a file of another one is not replaced.

        Raises:
            ValueError: see `check`.
        """
        self.check(name, of=of)
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            yield partial
            # The list first: a process killed in between leaves no file that is nobody's.
            self._note(name, file_digest(partial), of)
        self._written.add(name)

    def take(self, name: str, source: Path, digest: str) -> bool:
        """Has a file that was written before, of another folder; linked where that is possible.

        `finish` leaves it if it was to be kept; see `keep`.

        Args:
            name: below this folder.
            source: the file.
            digest: of what it should hold.

        Returns:
            Whether it holds that; if not, nothing is taken.

        Raises:
            ValueError: see `check`.
        """
        self.check(name)
        path = self.path / name
        try:
            if file_digest(source) != digest:
                return False
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as partial:
                try:
                    partial.hardlink_to(source)
                except OSError:
                    shutil.copyfile(source, partial)
                self._note(name, digest)
        except FileNotFoundError:
            return False
        return True

    def keep(self, name: str) -> None:
        """Has `finish` leave a file that an earlier run has written."""
        self._written.add(name)

    def write_bytes(self, name: str, data: bytes) -> None:
        """Writes a file; see `writing`."""
        with self.writing(name) as path:
            path.write_bytes(data)

    def is_free(self, name: str, *, of: str | None = None) -> bool:
        """Whether `writing` would take this name.

        Raises:
            ValueError: it would take none, as nothing can be written here.
        """
        check_folder(self._argument, self.path)
        try:
            self._check_names([name], of)
        except ValueError:
            return False
        return True

    def wrote(self, path: str | os.PathLike[str]) -> bool:
        """Whether a file, wherever it is said to be, is one of ours in this folder."""
        try:
            name = Path(path).resolve().relative_to(self.path.resolve()).as_posix()
        except (OSError, ValueError):
            return False
        return name in self._known.files and self._is_ours(name)

    def remove(self, name: str) -> None:
        """Removes a file of ours, and folders that are empty then; leaves what is not ours."""
        if self._known.makers.get(name, (self._by, None))[0] != self._by:
            return
        if name in self._known.files and self._is_ours(name):
            (self.path / name).unlink(missing_ok=True)
        for folder in reversed(self._way(name)):
            with suppress(OSError):  # not empty, or a link
                folder.rmdir()
        self._note(name, None)

    def finish(self) -> None:
        """Removes what an earlier run of the same has written and this one has not."""
        for name in sorted(self._known.files.keys() - self._written):
            self.remove(name)
        self.tidy()

    def tidy(self) -> None:
        """Leaves a line for each file in the list, which grows with every file that is written."""
        if not (self.path / MANIFEST).exists():
            return
        with replacing(self.path / MANIFEST) as partial:
            known = self._known
            lines = [
                _line(name, each, *known.makers[name])
                for name, digests in known.files.items()
                for each in digests
            ]
            partial.write_text(self._first() + "".join(lines), encoding="ascii")

    def discard(self) -> None:
        """Removes all of ours, the list last; and the folder, if nothing else is in it.

        For a folder that no other run works in. What other commands have written there stays.
        """
        if {by for by, _ in self._known.makers.values()} - {self._by}:
            self._written.clear()
            self.finish()
            return
        ours = [name for name in self._known.files if self._is_ours(name)]
        for name in ours:
            (self.path / name).unlink(missing_ok=True)
        if self._known.whole:
            sweep(self.path, below=True)
        folders = {self.path / folder for folder in self._known.folders}
        if self._known.whole:  # a kill may have left folders without their file
            folders.update(Path(below) for below, _, _ in os.walk(self.path))
        for folder in sorted(folders - {self.path}, key=lambda each: len(each.parts), reverse=True):
            with suppress(OSError):  # not empty, or a link
                folder.rmdir()
        (self.path / MANIFEST).unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()
        self._known, self._written = Written(), set()

    def _way(self, name: str) -> list[Path]:
        """The folders between this one and a file."""
        parts = Path(name).parts
        return [self.path.joinpath(*parts[:depth]) for depth in range(1, len(parts))]

    def _is_foreign(self, folder: Path) -> bool:
        """Whether a folder on the way is a link or a file, or others alone filled it."""
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            return True
        if not folder.is_dir():
            return False
        ours = folder.relative_to(self.path).as_posix() in self._known.folders
        return not ours and _holds_files(folder)

    def _is_ours(self, name: str) -> bool:
        """Whether we wrote the file of this name, and nobody wrote over it."""
        path = self.path / name
        if any(each.is_symlink() for each in (path, *self._way(name))):
            return False
        if self._known.whole:
            return name in self._known.files
        return self._known.wrote(name, path)

    def _first(self) -> str:
        return json.dumps({"whole": True}) + "\n" if self._whole or self._known.whole else ""

    def _note(self, name: str, digest: str | None, of: str | None = None) -> None:
        """Adds a line to the list: one write, so that several processes may share it."""
        path = self.path / MANIFEST
        start = self._known.cut_off * "\n" + ("" if self._known.lines else self._first())
        self._known.cut_off = False
        line = start + _line(name, digest, self._by, of)
        with path.open("ab") as file:
            file.write(line.encode("ascii"))
        self._known.take(name, digest, self._by, of)


class Written:
    """What a list says: digests of the files that were written, the last two of each."""

    def __init__(self) -> None:
        self.whole = False
        self.files: dict[str, tuple[str, ...]] = {}
        self.makers: dict[str, tuple[str, str | None]] = {}  # who wrote each, and of which photo
        self.folders: Counter[str] = Counter()  # that hold these, at any depth
        self.lines = 0
        self.cut_off = False  # the last line, by a kill

    def take(self, name: str, digest: str | None, by: str, of: str | None) -> None:
        """Takes note of a line."""
        self.lines += 1
        if digest is None:
            self.makers.pop(name, None)
            if self.files.pop(name, None) is not None:
                for folder in _folders_of(name):
                    self.folders[folder] -= 1
                    if not self.folders[folder]:
                        del self.folders[folder]
            return
        if name not in self.files:
            self.folders.update(_folders_of(name))
        # With the one before: the new file may not have taken its place yet.
        before = [each for each in self.files.get(name, ()) if each != digest]
        self.files[name] = (*before[-1:], digest)
        self.makers[name] = by, of

    def wrote(self, name: str, path: Path) -> bool:
        """Whether the file is as it was written; reads it."""
        digests = self.files.get(name)
        if digests is None:
            return False
        try:
            return file_digest(path) in digests
        except FileNotFoundError:
            return True
        except OSError:
            return False


def written_in(directory: str | os.PathLike[str]) -> Written | None:
    """What pyxai has written into a folder; None if it has no list."""
    path = Path(directory)
    return _read(path) if (path / MANIFEST).is_file() else None


def _read(directory: Path) -> Written:
    found = Written()
    try:
        data = (directory / MANIFEST).read_bytes()
    except OSError:
        return found
    found.cut_off = bool(data) and not data.endswith(b"\n")
    for line in data.splitlines():
        with suppress(ValueError, LookupError, TypeError):  # cut off by a kill, or damaged
            record = json.loads(line)
            if "whole" in record:
                found.whole = record["whole"] is True
                found.lines += 1
                continue
            name, digest = str(record["file"]), record["digest"]
            of = record.get("of")
            if _is_below(name) and (digest is None or isinstance(digest, str)):
                found.take(name, digest, str(record["by"]), None if of is None else str(of))
    return found


def _folders_of(name: str) -> list[str]:
    """The folders that a file is in, below the one with the list."""
    parts = name.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def _holds_others(directory: Path) -> bool:
    """Whether a folder holds more than what a run that was killed may have left."""
    if not directory.is_dir():
        return False
    own = (MANIFEST, LOCK)
    return any(each.name not in own and not is_part(each.name) for each in directory.iterdir())


def _holds_files(directory: Path) -> bool:
    """Whether there is a file, at any depth; not what a run that was killed may have left."""
    for folder, folders, names in os.walk(directory):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        if any(not is_part(name) for name in (*links, *names)):
            return True
    return False


def _line(name: str, digest: str | None, by: str, of: str | None) -> str:
    record = {"file": name, "digest": digest, "by": by}
    return json.dumps(record if of is None else {**record, "of": of}) + "\n"


def _exists(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def _is_below(name: str) -> bool:
    """Whether a name stays in the folder, wherever the list came from."""
    path = Path(name)
    return not path.is_absolute() and ".." not in path.parts and path.parts != ()
