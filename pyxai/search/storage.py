"""Features of photos on disk: safetensors mapped into memory, and JSON; nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from pyxai._errors import argument_error
from pyxai._files import sweep
from pyxai._locks import locked
from pyxai._outputs import OutputFolder, written_in
from pyxai._sealed import TensorFile, digest, map_tensors, read_record, save_tensors, write_record
from pyxai.search.contents import Photo
from pyxai.search.header import DTYPES, Header, key

FORMAT = "pyxai image index 2"
FILE = "index.json"
_MERGED_BYTES = 1 << 30  # shards are merged up to this size
_PHOTOS = "photos"  # metadata of a file of features: whose they are


@dataclass
class Shard:
    """Some photos with their features.

    Attributes:
        photos: in order.
        stem: of its files; None in memory.
    """

    photos: list[Photo]
    stem: str | None = None
    _tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    _file: TensorFile | None = None
    _rows: list[int] | None = None  # those of the file that count; None, all

    def tensor(self, name: str) -> torch.Tensor:
        """The features `[n, F]` of a layer, by `key`.

        Raises:
            DamagedError: they are not as they were written, which is found out at the first use.
        """
        if name not in self._tensors and self._file is not None:
            whole = self._file.checked(name)
            self._tensors[name] = whole if self._rows is None else whole[self._rows]
        return self._tensors[name]

    def features(self, network: int, layer: int) -> torch.Tensor:
        """The same by numbers."""
        return self.tensor(key(network, layer))

    @property
    def is_whole(self) -> bool:
        """Whether all photos of its files count."""
        return self._rows is None

    def only(self, rows: list[int]) -> Shard:
        """Some of the photos."""
        return Shard([self.photos[row] for row in rows], self.stem, {}, self._file, rows)


@dataclass
class _Run:
    """Neighbouring rows of a shard, and the photos that they are now."""

    shard: Shard
    start: int
    photos: list[Photo]

    @property
    def is_whole(self) -> bool:
        return self.shard.is_whole and len(self.photos) == len(self.shard.photos)

    def tensor(self, name: str) -> torch.Tensor:
        return self.shard.tensor(name)[self.start : self.start + len(self.photos)]


@dataclass
class Store:
    """Photos and features, in memory or in a folder.

    A shard's files are written under other names first, and the list of shards last, so that a run
    that was stopped leaves whole shards only. All writing is for one process at a time: see
    `writing_to`.

    Attributes:
        header: what the features are.
        directory: the folder, or None.
        shards: the parts, in order.
        failures: reason by name of each photo that could not be used.
    """

    header: Header
    directory: Path | None = None
    shards: list[Shard] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    _serial: int = 0
    _output: OutputFolder | None = None

    def append(self, photos: list[Photo], features: dict[str, torch.Tensor]) -> None:
        """Adds a shard, on disk if there is a folder."""
        shard = Shard(photos, None, features)
        if self.directory is not None:
            shard = self._written([_Run(shard, 0, photos)])
        self.shards.append(shard)
        self.save()

    def save(self) -> None:
        """Writes the list of shards and failures."""
        if self.directory is None:
            return
        record = {
            "format": FORMAT,
            **asdict(self.header),
            "serial": self._serial,
            "shards": [{"stem": each.stem, "photos": len(each.photos)} for each in self.shards],
            "failures": [[name, reason] for name, reason in self.failures.items()],
        }
        with self.output.writing(FILE) as path:
            write_record(path, record)

    def arrange(self, photos: Sequence[Photo], *, anew: bool = False) -> None:
        """Holds exactly these photos from now on, in this order.

        What there is no photo of any more is gone, on disk too. A shard whose photos follow each
        other as before stays as it is; small ones become one. What was read from them stays valid.

        Args:
            photos: whose content is known; path, label and stamp may be others.
            anew: whether to write all of it, in a folder that has none of it.
        """
        kept: list[Shard] = []
        for group in _groups(list(self._runs(photos)), self.header.row_bytes):
            first = group[0]
            stays = len(group) == 1 and first.is_whole and not anew
            if not stays or any(first.shard.stem == each.stem is not None for each in kept):
                kept.append(self._merged(group))
                continue
            if _differ(first.shard.photos, first.photos):
                self._write_photos(first.shard.stem, first.photos)
            kept.append(replace(first.shard, photos=first.photos))
        self.shards = kept
        self.save()
        self._remove_others()

    def copied_to(self, directory: Path) -> Store:
        """The same in a folder.

        Raises:
            ValueError: there is an index in it.
        """
        with writing_to(directory):
            refuse_other_index(directory)
            copy = Store(self.header, directory, self.shards, dict(self.failures))
            copy.arrange(self.photos(), anew=True)
        return copy

    @property
    def output(self) -> OutputFolder:
        """The folder with the list of what was written there."""
        assert self.directory is not None
        if self._output is None:
            self._output = OutputFolder(self.directory, by="an index")
        return self._output

    def _runs(self, photos: Sequence[Photo]) -> Iterator[_Run]:
        """The rows of photos, those of a shard that follow each other together."""
        by_name: dict[tuple[str, str], tuple[int, int]] = {}
        by_content: dict[str, tuple[int, int]] = {}
        for number, shard in enumerate(self.shards):
            for row, photo in enumerate(shard.photos):
                by_name[photo.path, photo.content] = by_content[photo.content] = number, row
        run, before = None, (-1, -1)
        for photo in photos:
            place = by_name.get((photo.path, photo.content)) or by_content[photo.content]
            if run is None or place != (before[0], before[1] + 1):
                if run is not None:
                    yield run
                run = _Run(self.shards[place[0]], place[1], [])
            run.photos.append(photo)
            before = place
        if run is not None:
            yield run

    def _merged(self, runs: list[_Run]) -> Shard:
        if self.directory is not None:
            return self._written(runs)
        photos = [photo for run in runs for photo in run.photos]
        names = self.header.widths()
        return Shard(photos, None, {n: torch.cat([run.tensor(n) for run in runs]) for n in names})

    def _written(self, runs: Sequence[_Run]) -> Shard:
        """Writes some rows as a shard, which is then read from there."""
        assert self.directory is not None
        stem = f"{self._serial:06d}"
        self._serial += 1
        photos = [photo for run in runs for photo in run.photos]
        features, _ = _files(stem)
        with self.output.writing(features) as path:
            save_tensors(
                path,
                {name: [run.tensor(name) for run in runs] for name in self.header.widths()},
                {_PHOTOS: _whose(photos)},
            )
        self._write_photos(stem, photos)
        return Shard(photos, stem, {}, map_tensors(self.directory / features))

    def _write_photos(self, stem: str | None, photos: Sequence[Photo]) -> None:
        if self.directory is None:
            return
        columns: dict[str, list[Any]] = {
            name: [getattr(photo, name) for photo in photos] for name in Photo.__match_args__
        }
        with self.output.writing(_files(str(stem))[1]) as path:
            write_record(path, columns)

    def _remove_others(self) -> None:
        """Removes files of shards that are no more, also those that a killed run has left."""
        if self.directory is None:
            return
        ours = {FILE, *(name for shard in self.shards for name in _files(str(shard.stem)))}
        for name in [name for name in self.output.files if name not in ours]:
            self.output.remove(name)
        self.output.tidy()

    # ---- looking at it ----

    def photos(self) -> list[Photo]:
        """All photos in the order of their ids."""
        return [photo for shard in self.shards for photo in shard.photos]


def _groups(runs: list[_Run], row_bytes: int) -> list[list[_Run]]:
    """Neighbouring runs that become one shard."""
    groups: list[list[_Run]] = []
    size = 0
    for run in runs:
        own = row_bytes * len(run.photos)
        if not groups or size + own > _MERGED_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(run)
        size += own
    return groups


def _differ(some: Sequence[Photo], others: Sequence[Photo]) -> bool:
    return any(a != b or a.stamp != b.stamp for a, b in zip(some, others, strict=True))


def _whose(photos: Sequence[Photo]) -> str:
    """Tells whether features are of these photos; other names and classes do not matter."""
    return digest(photo.content.encode() + b"\n" for photo in photos)


@contextmanager
def writing_to(directory: Path | None) -> Iterator[None]:
    """Keeps other runs out of the folder of an index; None is memory.

    Raises:
        BusyError: another run is in it.
        ValueError: it has a file that is called as an index and is none.
    """
    if directory is None:
        yield
        return
    if (directory / FILE).exists() and not _is_index(directory / FILE):
        got = f"{str(directory)!r}, whose {FILE!r} was not written by pyxai"
        raise ValueError(f"directory: expected a folder for an index, got {got}")
    with locked(directory, "directory"):
        sweep(directory)
        yield


def _is_index(path: Path) -> bool:
    """Whether a file is an index, be it a damaged one."""
    written = written_in(path.parent)
    if written is not None and path.name in written.files:
        return True
    with suppress(OSError, ValueError, LookupError, TypeError):
        return str(json.loads(path.read_bytes())["format"]).startswith("pyxai image index")
    return False


def refuse_other_index(directory: Path) -> None:
    """Raises ValueError if the folder holds an index."""
    if (directory / FILE).exists():
        raise argument_error("directory", "a folder without an index", str(directory))


def erase_index(directory: Path) -> list[str]:
    """Removes an index from a folder, whose other files stay; the names of its photos.

    Raises:
        BusyError: another run works in the folder.
    """
    if not (directory / FILE).is_file():
        return []
    with writing_to(directory):
        names = []
        with suppress(ValueError):  # a damaged one goes as well
            names = [photo.path for photo in load_store(directory).photos()]
        OutputFolder(directory, by="an index").discard()
    return names


def load_store(directory: Path) -> Store:
    """Reads what a `Store` wrote; features stay on disk until they are looked at.

    Raises:
        ValueError: it is no index, or a damaged one; the message names the file.
        OSError: a file cannot be read.
    """
    path = directory / FILE
    if not path.is_file():
        raise argument_error("directory", f"a folder with an index ({FILE})", str(directory))
    record: dict[str, Any] = {}
    while True:
        try:
            record = read_record(path)
            return _store_of(directory, record)
        except FileNotFoundError as error:
            if path.is_file() and read_record(path) != record:
                continue  # another process has put it in order meanwhile
            raise _no_index(directory, error) from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise _no_index(directory, error) from error


def _no_index(directory: Path, error: Exception) -> ValueError:
    return ValueError(
        f"directory: expected an index saved by pyxai, got {directory} "
        f"({type(error).__name__}: {error})"
    )


def _store_of(directory: Path, record: Mapping[str, Any]) -> Store:
    if record["format"] != FORMAT:
        raise ValueError(f"format {record['format']!r}")
    header = Header.from_record(record)
    store = Store(header, directory, _serial=int(record["serial"]))
    for each in record["shards"]:
        store.shards.append(_read_shard(directory, header, each))
    store.shards = _without_repeats(store.shards)
    store.failures = {str(name): str(reason) for name, reason in record["failures"]}
    return store


def _without_repeats(shards: list[Shard]) -> list[Shard]:
    """Without photos that a later shard has as well: a run was stopped that read them again."""
    seen: set[str] = set()
    found = []
    for shard in reversed(shards):
        rows = [row for row, photo in enumerate(shard.photos) if photo.path not in seen]
        seen.update(photo.path for photo in shard.photos)
        if rows:
            found.append(shard if len(rows) == len(shard.photos) else shard.only(rows))
    return found[::-1]


def _read_shard(directory: Path, header: Header, record: Mapping[str, Any]) -> Shard:
    stem, count = str(record["stem"]), int(record["photos"])
    if not stem.isdigit():  # names come from a file: nothing outside the folder is read
        raise ValueError(f"shard {stem!r}")
    features, listed = (directory / name for name in _files(stem))
    columns = read_record(listed)
    rows = zip(*(columns[name] for name in Photo.__match_args__), strict=True)
    photos = [
        Photo(
            str(path),
            int(width),
            int(height),
            None if label is None else str(label),
            str(content),
            str(stamp),
        )
        for path, width, height, label, content, stamp in rows
    ]
    file = map_tensors(features)
    expected = {name: (count, width) for name, width in header.widths().items()}
    found = {name: tuple(tensor.shape) for name, tensor in file.tensors.items()}
    kinds = {tensor.dtype for tensor in file.tensors.values()}
    same = len(photos) == count and file.metadata.get(_PHOTOS) == _whose(photos)
    if found != expected or not same or kinds != {DTYPES[header.dtype]}:
        raise ValueError(f"{features} does not hold the features of the photos in {listed.name}")
    return Shard(photos, stem, {}, file)


def _files(stem: str) -> tuple[str, str]:
    """The names of a shard's files: features, photos."""
    return f"features-{stem}.safetensors", f"photos-{stem}.json"
