"""Going through photos: those that a run knows are not read again, new and changed ones are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from tqdm import tqdm

from pyxai._errors import argument_error
from pyxai.images import ImageError, PhotoSource, PhotoSources, open_photo
from pyxai.images.errors import PhotoFailure, printable
from pyxai.images.sources import name_photos
from pyxai.runs.identity import check_identity, plain
from pyxai.runs.parts import Kind, Part, Parts, writing_to
from pyxai.runs.photos import (
    PhotoState,
    content_of_file,
    content_of_picture,
    is_in_memory,
    stamp_of,
)
from pyxai.runs.working import EXECUTORS, Done, Executor, Task, Work, local

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Options(TypedDict, total=False):
    """How a run goes through photos.

    Attributes:
        key_of: what else than its content the row of a photo depends on, by name.
        first: photos of the first part, None 16; later ones have more, as long as they take less
            than half a minute.
        keep_memory: whether a photo from memory whose name is known is taken for that one.
        executor: where the work is done.
        progress: whether to show a bar; there is none without a terminal.
    """

    key_of: Callable[[str], str]
    first: int | None
    keep_memory: bool
    executor: Executor
    progress: bool


class Run:
    """One way through many photos, in memory or in a folder that keeps what is known.

    In a folder, a photo whose file and key have not changed is not read again, and one with the
    content of a known photo is not worked on again. A run that was stopped loses one part at most.

        with open_run(kind, directory, identity) as run:
            for part in run.parts_of(photos, work, desc="audit"):
                ...
        run.failures

    Attributes:
        parts: the rows.
        photos: those that can be used, in the order in which they were given; not listed in a run
            that keeps nothing.
        failures: those that cannot.
        count: how many were given.
    """

    def __init__(self, parts: Parts, *, keep: bool = False) -> None:
        """Goes on from rows that are known; see `open_run`.

        Args:
            parts: may be empty.
            keep: whether rows are kept in memory where there is no folder.
        """
        self.parts = parts
        self.photos: list[PhotoState] = []
        self.failures: list[PhotoFailure] = []
        self.count = 0
        self.keeps = keep or parts.directory is not None
        known = parts.photos()
        self._known = {photo.path: photo for photo in known}
        self._contents = {(photo.content, photo.key) for photo in known}
        self._seen: dict[str, None] = {}

    def parts_of(
        self, photos: PhotoSources, work: Work, *, desc: str, **options: Unpack[Options]
    ) -> Iterator[Part]:
        """The rows of all photos, which are made first where they are not known.

        Returns:
            Where rows are kept, all parts, which then have exactly these photos and no other;
            elsewhere each when it is made.

        Raises:
            ValueError: there is no such executor; most photos that are known are gone.
        """
        made = self._made(photos, work, desc=desc, **options)
        if not self.keeps:
            yield from made
            return
        for _ in made:
            pass
        if self.photos:
            self._check_removal()
            self.finish()
            yield from self.parts.parts

    def read(
        self, photos: PhotoSources, work: Work, *, desc: str, **options: Unpack[Options]
    ) -> None:
        """Has the parts know all photos, besides what they knew; see `finish`."""
        for _ in self._made(photos, work, desc=desc, **options):
            pass

    def _check_removal(self) -> None:
        """Refuses to forget most of what is known: a disk may not be mounted.

        Raises:
            ValueError: more than half of the photos that were known would go.
        """
        names = {photo.path for photo in self.photos}
        # Copies that were moved away are no loss: what is known of them is known of what stays.
        contents = {photo.content for photo in self.photos}
        gone = [
            photo.path
            for photo in self._known.values()
            if photo.path not in names and photo.content not in contents
        ]
        if 2 * len(gone) <= len(self._known):
            return
        kind, first = self.parts.kind, ", ".join(map(printable, sorted(gone)[:3]))
        raise ValueError(
            f"photos: expected most photos of the run in {self.parts.directory}, got "
            f"{len(gone)} of {len(self._known)} that are not there any more or not asked for "
            f"({first}, …): is a folder not mounted? For a run of other photos give another "
            f"folder as {kind.argument}, or remove this one"
        )

    def finish(self) -> None:
        """Has the parts hold exactly `photos`; nothing of others is left, on disk too."""
        self.parts.failures = {each.path: each.reason for each in self.failures}
        self.parts.arrange(self.photos)

    def _made(
        self,
        photos: PhotoSources,
        work: Work,
        *,
        desc: str,
        key_of: Callable[[str], str] = lambda name: "",
        first: int | None = None,
        keep_memory: bool = False,
        executor: Executor = "local",
        progress: bool = True,
    ) -> Iterator[Part]:
        """The parts that are new, one by one."""
        if executor not in EXECUTORS:
            raise argument_error("executor", f"one of {', '.join(EXECUTORS)}", executor)
        bar = tqdm(name_photos(photos), desc=desc, unit="photo", disable=None if progress else True)
        with bar:
            for done in local(work, self._tasks(bar, key_of, keep_memory), first):
                yield from self._taken(done)
        if self.keeps:
            yield from self._left(work, first)
        order = {name: place for place, name in enumerate(self._seen)}
        self.failures.sort(key=lambda failure: order[failure.path])

    def _left(self, work: Work, first: int | None) -> Iterator[Part]:
        """The parts that are new, once all photos were asked for."""
        # What had the content of a photo that failed is tried by itself.
        reasons = {each.path: each.reason for each in self.failures}
        refused = {
            (each.content, each.key): reasons[each.path]
            for each in self.photos
            if each.path in reasons
        }
        known = {(each.content, each.key) for each in self.parts.photos()}
        left = [each for each in self.photos if (each.content, each.key) not in known]
        left = [each for each in left if each.path not in reasons]
        again = [Task(each, each.path) for each in left if not is_in_memory(each.path)]
        for done in local(work, iter(again), first):
            yield from self._taken(done)
        self.failures += [
            PhotoFailure(each.path, refused[each.content, each.key])
            for each in left
            if is_in_memory(each.path)
        ]
        abouts = {(each.content, each.key): each.about for each in self.parts.photos()}
        self.photos = [
            replace(each, about=abouts[each.content, each.key])
            for each in self.photos
            if (each.content, each.key) in abouts
        ]

    def _taken(self, done: Done) -> Iterator[Part]:
        """Keeps what was made, where it is kept."""
        self.failures += done.failures
        if not done.rows:
            return
        part = done.part()
        yield self.parts.append(part.photos, part.tensors) if self.keeps else part

    # ---- what there is to do ----

    def _tasks(
        self,
        named: Iterable[tuple[str, PhotoSource | ImageError]],
        key_of: Callable[[str], str],
        keep_memory: bool,
    ) -> Iterator[Task]:
        """Photos that are not known, as they come."""
        for name, source in named:
            self.count += 1
            if name in self._seen:
                continue
            self._seen[name] = None
            try:
                if isinstance(source, ImageError):
                    raise source
                task = self._task(name, source, key_of(name), keep_memory)
            except ImageError as error:
                self.failures.append(PhotoFailure(name, error.reason))
                continue
            if self.keeps:
                self.photos.append(task.state)
                same = task.state.content, task.state.key
                if same in self._contents and task.state.content:
                    continue
                self._contents.add(same)
            yield task

    def _task(self, name: str, source: PhotoSource, key: str, keep_memory: bool) -> Task:
        """What is to be read, and what is known of it."""
        if not self.keeps:
            return Task(PhotoState(name, "", "", key), source)
        known = self._known.get(name)
        if known is not None and known.key != key:
            known = None
        if not isinstance(source, (str, os.PathLike)):
            if known is not None and keep_memory:
                return Task(known, source)
            picture = open_photo(source, name=name)
            return Task(PhotoState(name, content_of_picture(picture), "", key), picture)
        try:
            stamp = stamp_of(name)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            stamp = ""
        except OSError as error:
            if known is None:
                raise ImageError(name, f"cannot be read: {error.strerror}") from error
            why = f"cannot be looked at ({error.strerror}): what is kept is that of before"
            self.failures.append(PhotoFailure(name, why))
            return Task(known, source)
        if known is not None and stamp and known.stamp == stamp:
            return Task(known, source)
        return Task(PhotoState(name, content_of_file(name), stamp, key), source)


@contextmanager
def open_run(
    kind: Kind, directory: Path | None, identity: Mapping[str, Any], *, keep: bool = False
) -> Iterator[Run]:
    """A run in a folder that it has to itself, going on with the one that is there.

    Args:
        kind: what it is.
        directory: the folder, made if need be; None keeps nothing, or in memory.
        identity: all that rows depend on but the photos: JSON values.
        keep: whether rows are kept in memory where there is no folder.

    Raises:
        BusyError: another run works in the folder.
        ValueError: it holds a run of another model or other settings, a damaged one, or files of
            others with the names that a run needs.
    """
    with writing_to(directory, kind):
        now = plain(identity)
        if directory is None or not (directory / kind.file).exists():
            parts = Parts(kind, now, directory)
            parts.check_names()
        else:
            parts = Parts.load(directory, kind)
            check_identity(kind.argument, kind.name, directory, parts.identity, now)
        yield Run(parts, keep=keep)
