"""Rows of photos on disk: safetensors mapped into memory, and JSON; nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pyxai._files import sweep
from pyxai._locks import locked
from pyxai._outputs import OutputFolder, written_in
from pyxai._sealed import TensorFile, digest, map_tensors, read_record, save_tensors, write_record
from pyxai.runs.photos import PhotoState

if TYPE_CHECKING:
    from typing_extensions import Self

_MERGED_BYTES = 1 << 30  # parts are merged up to this size
_PHOTOS = "photos"  # metadata of a file of tensors: whose they are
_COUNTS = ".counts"
_COLUMNS = ("path", "content", "stamp", "key", "about")


@dataclass(frozen=True)
class Kind:
    """What is kept in a folder, and what it is called.

    Attributes:
        name: in words, with its article: "an index", "a gallery's run".
        stem: of the files' names.
        format: the first thing that the list of parts says.
        argument: what the folder is called in errors.
    """

    name: str
    stem: str
    format: str
    argument: str = "checkpoint"

    @property
    def file(self) -> str:
        """The list of parts, which is written last."""
        return f"{self.stem}.json"


@dataclass
class Part:
    """Some photos with their rows.

    Tensors are `[n, ...]`, a row a photo; or lists, of which each photo has as many rows as
    `NAME.counts` says.

    Attributes:
        photos: in order.
        stem: of its files; None in memory.
    """

    photos: list[PhotoState]
    stem: str | None = None
    _tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    _file: TensorFile | None = None
    _rows: list[int] | None = None  # those of the file that count; None, all

    @property
    def names(self) -> list[str]:
        """Of the tensors."""
        return sorted(self.tensors)

    @property
    def row_bytes(self) -> int:
        """What the tensors of a photo take."""
        lengths = [len(self.tensors[name]) for name in self.names if not self._is_list(name)]
        return sum(each.nbytes for each in self.tensors.values()) // max(1, *lengths, 1)

    def tensor(self, name: str) -> torch.Tensor:
        """The rows of the photos.

        Raises:
            DamagedError: they are not as they were written, which is found out at the first use.
        """
        if name not in self._tensors:
            assert self._file is not None
            whole = self._file.checked(name)
            if self._rows is None:
                self._tensors[name] = whole
            else:
                counts = self._file.tensors.get(name + _COUNTS)
                self._tensors[name] = _rows_of(whole, counts, self._rows)
        return self._tensors[name]

    def lists(self, name: str) -> Iterator[torch.Tensor]:
        """Of a tensor with counts, what belongs to each photo."""
        yield from torch.split(self.tensor(name), self.tensor(name + _COUNTS).tolist())

    @property
    def is_whole(self) -> bool:
        """Whether all photos of its files count."""
        return self._rows is None

    def only(self, rows: list[int], photos: Sequence[PhotoState] | None = None) -> Part:
        """Some of the photos, or what these are now."""
        some = [self.photos[row] for row in rows] if photos is None else list(photos)
        if self._file is not None:
            inner = rows if self._rows is None else [self._rows[row] for row in rows]
            return Part(some, self.stem, {}, self._file, inner)
        tensors = {
            name: _rows_of(self._tensors[name], self._tensors.get(name + _COUNTS), rows)
            for name in self._tensors
        }
        return Part(some, self.stem, tensors, None, rows)

    def fits(self) -> bool:
        """Whether all that was read is of so many photos."""
        by_row = [name for name in self.names if not self._is_list(name)]
        return all(len(self.tensors[name]) == len(self.photos) for name in by_row)

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """All that the files have, unchecked, also of photos that do not count; see `tensor`."""
        return self._tensors if self._file is None else self._file.tensors

    def _is_list(self, name: str) -> bool:
        return name + _COUNTS in self.tensors


def _pieces(parts: Sequence[Part], name: str) -> list[torch.Tensor]:
    """A tensor of several parts; an empty list may have other widths than the others."""
    tensors = [part.tensor(name) for part in parts]
    return [each for each in tensors if len(each)] or tensors[:1]


def counted(name: str, lists: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Lists of several photos, one after the other, with their counts."""
    counts = torch.tensor([len(each) for each in lists], dtype=torch.int64, device="cpu")
    return {name: torch.cat([*lists]), name + _COUNTS: counts}


def _rows_of(whole: torch.Tensor, counts: torch.Tensor | None, rows: list[int]) -> torch.Tensor:
    """Those rows of a tensor, or of a list."""
    if counts is not None:
        ends = counts.cumsum(0).tolist()
        starts = [0, *ends[:-1]]
        rows = [place for row in rows for place in range(starts[row], ends[row])]
    if rows and rows == [*range(rows[0], rows[0] + len(rows))]:
        return whole[rows[0] : rows[0] + len(rows)]  # no copy
    return whole[rows]


@dataclass
class Parts:
    """Rows of photos, in memory or in a folder.

    The files of a part are written first, and the list of parts last, so that a run that was
    stopped leaves whole parts only. All writing is for one process at a time: see `writing_to`.

    Attributes:
        kind: what it is.
        identity: what the rows depend on.
        directory: the folder, or None.
        parts: in order.
        failures: reason by name of each photo that could not be used.
        chosen: what the first rows told of all, such as the layer that was chosen.
    """

    kind: Kind
    identity: dict[str, Any]
    directory: Path | None = None
    parts: list[Part] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    chosen: dict[str, Any] = field(default_factory=dict)
    _serial: int = 0
    _output: OutputFolder | None = None

    def append(self, photos: list[PhotoState], tensors: dict[str, torch.Tensor]) -> Part:
        """Adds a part, on disk if there is a folder."""
        part = Part(photos, None, tensors)
        if self.directory is not None:
            part = self._written([part])
        self.parts.append(part)
        self.save()
        return part

    def save(self) -> None:
        """Writes the list of parts and failures."""
        if self.directory is None:
            return
        record = {
            "format": self.kind.format,
            "identity": self.identity,
            "chosen": self.chosen,
            "serial": self._serial,
            "parts": [
                {"stem": part.stem, "photos": len(part.photos), "tensors": bool(part.names)}
                for part in self.parts
            ],
            "failures": [[name, reason] for name, reason in self.failures.items()],
        }
        with self.output.writing(self.kind.file) as path:
            write_record(path, record)

    def arrange(self, photos: Sequence[PhotoState], *, anew: bool = False) -> None:
        """Holds exactly these photos from now on, in this order.

        What there is no photo of any more is gone, on disk too. A part whose photos follow each
        other as before stays as it is; small ones become one. What was read from them stays valid.

        Args:
            photos: whose content is known; path, stamp and what is said about them may be others.
            anew: whether to write all of it, in a folder that has none of it.
        """
        kept: list[Part] = []
        for group in _groups([*self._runs(photos)]):
            first = group[0]
            stays = len(group) == 1 and first.is_whole and not anew
            if not stays or any(first.part.stem == each.stem is not None for each in kept):
                kept.append(self._merged([each.cut() for each in group]))
                continue
            if _differ(first.part.photos, first.photos):
                self._write_photos(first.part.stem, first.photos)
            kept.append(replace(first.part, photos=first.photos))
        self.parts = kept
        self.save()
        self._remove_others()

    def copied_to(self, directory: Path) -> Self:
        """The same in a folder.

        Raises:
            ValueError: there is one in it.
        """
        with writing_to(directory, self.kind):
            if (directory / self.kind.file).exists():
                raise ValueError(
                    f"{self.kind.argument}: expected a folder without {self.kind.name}, got "
                    f"{str(directory)!r}"
                )
            copy = replace(self, directory=directory, _output=None, _serial=0)
            copy.failures = dict(self.failures)
            copy.arrange(self.photos(), anew=True)
        return copy

    @classmethod
    def load(cls, directory: Path, kind: Kind) -> Self:
        """Reads what was written there; tensors stay on disk until they are used.

        Raises:
            ValueError: it is something else, or damaged; the message names the file.
            OSError: a file cannot be read.
        """
        path = directory / kind.file
        if not path.is_file():
            raise ValueError(
                f"{kind.argument}: expected a folder with {kind.name} ({kind.file}), got "
                f"{str(directory)!r}"
            )
        record: dict[str, Any] = {}
        while True:
            try:
                record = read_record(path)
                if record["format"] != kind.format:
                    raise ValueError(f"format {record['format']!r}")
                parts = cls(kind, dict(record["identity"]), directory)
                parts.chosen = dict(record["chosen"])
                parts._read(record)
                return parts
            except FileNotFoundError as error:
                if path.is_file() and read_record(path) != record:
                    continue  # another process has put it in order meanwhile
                raise not_one(directory, kind, error) from error
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                raise not_one(directory, kind, error) from error

    @property
    def output(self) -> OutputFolder:
        """The folder with the list of what was written there."""
        assert self.directory is not None
        if self._output is None:
            self._output = OutputFolder(self.directory, self.kind.argument, by=self.kind.name)
        return self._output

    def photos(self) -> list[PhotoState]:
        """All photos in order."""
        return [photo for part in self.parts for photo in part.photos]

    def check(self, part: Part) -> None:
        """Raises ValueError if a part that was read is not one of these."""

    def check_names(self) -> None:
        """Raises ValueError if files of others have the names that are needed first."""
        if self.directory is not None:
            self.output.check(self.kind.file, *self._files("000000"))

    def _runs(self, photos: Sequence[PhotoState]) -> Iterator[_Neighbors]:
        """The rows of photos, those of a part that follow each other together."""
        by_name: dict[tuple[str, str, str], tuple[int, int]] = {}
        by_content: dict[tuple[str, str], tuple[int, int]] = {}
        for number, part in enumerate(self.parts):
            for row, photo in enumerate(part.photos):
                by_name[photo.path, photo.content, photo.key] = number, row
                by_content[photo.content, photo.key] = number, row
        run, before = None, (-1, -1)
        for photo in photos:
            named = by_name.get((photo.path, photo.content, photo.key))
            place = named or by_content[photo.content, photo.key]
            if run is None or place != (before[0], before[1] + 1):
                if run is not None:
                    yield run
                run = _Neighbors(self.parts[place[0]], place[1], [])
            run.photos.append(photo)
            before = place
        if run is not None:
            yield run

    def _merged(self, pieces: list[Part]) -> Part:
        if self.directory is not None:
            return self._written(pieces)
        photos = [photo for piece in pieces for photo in piece.photos]
        names = pieces[0].names
        return Part(photos, None, {name: torch.cat(_pieces(pieces, name)) for name in names})

    def _written(self, pieces: Sequence[Part]) -> Part:
        """Writes some rows as a part, which is then read from there."""
        assert self.directory is not None
        stem = f"{self._serial:06d}"
        self._serial += 1
        photos = [photo for piece in pieces for photo in piece.photos]
        tensors, _ = self._files(stem)
        if names := pieces[0].names:
            with self.output.writing(tensors) as path:
                save_tensors(
                    path,
                    {name: _pieces(pieces, name) for name in names},
                    {_PHOTOS: _whose(photos)},
                )
        self._write_photos(stem, photos)
        return Part(photos, stem, {}, map_tensors(self.directory / tensors) if names else None)

    def _write_photos(self, stem: str | None, photos: Sequence[PhotoState]) -> None:
        if self.directory is None:
            return
        columns = {name: [getattr(photo, name) for photo in photos] for name in _COLUMNS}
        with self.output.writing(self._files(str(stem))[1]) as path:
            write_record(path, columns)

    def _remove_others(self) -> None:
        """Removes files of parts that are no more, also those that a killed run has left."""
        if self.directory is None:
            return
        ours = {name for part in self.parts for name in self._files(str(part.stem))}
        for name in [name for name in self.output.files if name not in {self.kind.file, *ours}]:
            if name.startswith(f"{self.kind.stem}-"):
                self.output.remove(name)
        self.output.tidy()

    def _files(self, stem: str) -> tuple[str, str]:
        """The names of a part's files: tensors, photos."""
        return f"{self.kind.stem}-{stem}.safetensors", f"{self.kind.stem}-{stem}.json"

    def _read(self, record: Mapping[str, Any]) -> None:
        """Takes what the list of parts says."""
        self._serial = int(record["serial"])
        parts = [self._read_part(each) for each in record["parts"]]
        self.parts = _without_repeats(parts)
        self.failures = {str(name): str(reason) for name, reason in record["failures"]}

    def _read_part(self, record: Mapping[str, Any]) -> Part:
        assert self.directory is not None
        stem, count = str(record["stem"]), int(record["photos"])
        if not stem.isdigit():  # names come from a file: nothing outside the folder is read
            raise ValueError(f"part {stem!r}")
        tensors, listed = (self.directory / name for name in self._files(stem))
        columns = read_record(listed)
        rows = zip(*(columns[name] for name in _COLUMNS), strict=True)
        photos = [
            PhotoState(str(path), str(content), str(stamp), str(key), about)
            for path, content, stamp, key, about in rows
        ]
        file = map_tensors(tensors) if record["tensors"] else None
        part = Part(photos, stem, {}, file)
        fits = file is None or file.metadata.get(_PHOTOS) == _whose(photos)
        if not fits or len(photos) != count or not part.fits():
            raise ValueError(f"{tensors} does not hold the rows of the photos in {listed.name}")
        self.check(part)
        return part


@dataclass
class _Neighbors:
    """Rows of a part that follow each other, and the photos that they are now."""

    part: Part
    start: int
    photos: list[PhotoState]

    @property
    def is_whole(self) -> bool:
        return self.part.is_whole and len(self.photos) == len(self.part.photos)

    def cut(self) -> Part:
        rows = [*range(self.start, self.start + len(self.photos))]
        return self.part.only(rows, self.photos)


def _groups(runs: list[_Neighbors]) -> list[list[_Neighbors]]:
    """Those that become one part, one after the other."""
    groups: list[list[_Neighbors]] = []
    size = 0
    for run in runs:
        own = run.part.row_bytes * len(run.photos)
        if not groups or size + own > _MERGED_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(run)
        size += own
    return groups


def _differ(some: Sequence[PhotoState], others: Sequence[PhotoState]) -> bool:
    return any(a != b or a.stamp != b.stamp for a, b in zip(some, others, strict=True))


def _whose(photos: Sequence[PhotoState]) -> str:
    """Tells whether rows are of these photos; other names do not matter."""
    return digest(photo.content.encode() + b"\n" for photo in photos)


def _without_repeats(parts: list[Part]) -> list[Part]:
    """Without photos that a later part has as well: a run was stopped that read them again."""
    seen: set[str] = set()
    kept = []
    for part in reversed(parts):
        rows = [row for row, photo in enumerate(part.photos) if photo.path not in seen]
        seen.update(photo.path for photo in part.photos)
        if rows:
            kept.append(part if len(rows) == len(part.photos) else part.only(rows))
    return kept[::-1]


@contextmanager
def writing_to(directory: Path | None, kind: Kind) -> Iterator[None]:
    """Keeps other runs out of a folder; None is memory.

    Raises:
        BusyError: another run is in it.
        ValueError: it has a file that is called as the list of parts and is none.
    """
    if directory is None:
        yield
        return
    if (directory / kind.file).exists() and not _is_ours(directory / kind.file, kind):
        got = f"{str(directory)!r}, whose {kind.file!r} was not written by pyxai"
        raise ValueError(f"{kind.argument}: expected a folder for {kind.name}, got {got}")
    with locked(directory, kind.argument):
        sweep(directory)
        yield


def _is_ours(path: Path, kind: Kind) -> bool:
    """Whether a file is a list of parts, be it a damaged one."""
    written = written_in(path.parent)
    if written is not None and path.name in written.files:
        return True
    with suppress(OSError, ValueError, LookupError, TypeError):
        words = kind.format.rsplit(" ", 1)[0]
        return str(json.loads(path.read_bytes())["format"]).startswith(words)
    return False


def erase(directory: Path, kind: Kind) -> list[str]:
    """Removes all parts from a folder, whose other files stay; the names of their photos.

    Raises:
        BusyError: another run works in the folder.
    """
    if not (directory / kind.file).is_file():
        return []
    with writing_to(directory, kind):
        names = []
        with suppress(ValueError):  # a damaged one goes as well
            names = [photo.path for photo in Parts.load(directory, kind).photos()]
        OutputFolder(directory, by=kind.name).discard()
    return names


def not_one(directory: Path, kind: Kind, error: Exception) -> ValueError:
    """What to raise where a folder holds something else, or a damaged run."""
    return ValueError(
        f"{kind.argument}: expected {kind.name} saved by pyxai, got {directory} "
        f"({type(error).__name__}: {error})"
    )
