"""The work on photos, part by part, and where it is done."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any, Literal, Protocol, TypeAlias

import torch

from pyxai.images import ImageError, PhotoSource, open_photo
from pyxai.images.errors import PhotoFailure
from pyxai.runs.parts import Part, counted
from pyxai.runs.photos import OpenPhoto, PhotoState, content_of_file

Executor: TypeAlias = Literal["local"]
"""Where the work is done: "local", in this process."""

EXECUTORS = ("local",)

_FIRST, _MOST = 16, 512  # photos of a part
_MOST_BYTES = 1 << 28
_SECONDS = 30.0  # that a part may take, judged by the one before


@dataclass(frozen=True)
class Row:
    """What came of a photo.

    Attributes:
        name: of the photo.
        about: JSON values, which are held in memory for all photos.
        tensors: a row of each, `[...]`, of the same shapes for all photos.
        lists: `[k, ...]`, of which each photo may have another number of rows.
    """

    name: str
    about: Any = None
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    lists: dict[str, torch.Tensor] = field(default_factory=dict)


class Work(Protocol):
    """What a run does with photos."""

    def __call__(self, photos: Iterator[OpenPhoto]) -> Iterator[Row | PhotoFailure]:
        """Takes photos one by one; gives a row or a failure for each, in any order.

        It holds no more than a batch of them.
        """


@dataclass(frozen=True)
class Task:
    """A photo to read.

    Attributes:
        state: what is known of it.
        source: what `open_photo` opens.
    """

    state: PhotoState
    source: PhotoSource


@dataclass
class Done:
    """What came of some photos."""

    states: dict[str, PhotoState] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    failures: list[PhotoFailure] = field(default_factory=list)

    def part(self) -> Part:
        """The rows, in memory, in the order in which the photos came."""
        place = {name: at for at, name in enumerate(self.states)}
        rows = sorted(self.rows, key=lambda row: place[row.name])
        photos = [replace(self.states[row.name], about=row.about) for row in rows]
        tensors: dict[str, torch.Tensor] = {}
        for name in rows[0].tensors if rows else ():
            tensors[name] = torch.stack([row.tensors[name] for row in rows])
        for name in rows[0].lists if rows else ():
            tensors |= counted(name, [row.lists[name] for row in rows])
        return Part(photos, None, tensors)


def local(work: Work, tasks: Iterator[Task], first: int | None = None) -> Iterator[Done]:
    """Works on photos in this process, as they come.

    Args:
        work: what to do.
        tasks: the photos; none is asked for before the one before was worked on.
        first: how many the first part has; None, 16.
    """
    size = min(first or _FIRST, _MOST)
    for task in tasks:
        start = time.monotonic()
        done = work_on(work, chain([task], islice(tasks, size - 1)))
        took = time.monotonic() - start
        bytes_a_row = sum(map(_bytes, done.rows)) / max(1, len(done.rows))
        if 2 * took < _SECONDS:
            size = min(2 * size, _MOST)
        size = max(1, min(size, int(_MOST_BYTES / max(1, bytes_a_row))))
        yield done


def work_on(work: Work, tasks: Iterable[Task]) -> Done:
    """Opens photos one by one, and works on them."""
    done = Done()

    def opened() -> Iterator[OpenPhoto]:
        for task in tasks:
            state = task.state
            try:
                photo = _open(task)
            except ImageError as error:
                done.failures.append(PhotoFailure(state.path, error.reason))
                continue
            done.states[state.path] = state
            yield photo

    for row in work(opened()):
        if isinstance(row, PhotoFailure):
            done.failures.append(row)
        else:
            done.rows.append(row)
    return done


def _open(task: Task) -> OpenPhoto:
    name, is_file = task.state.path, isinstance(task.source, (str, os.PathLike))
    picture = open_photo(task.source, name=name)
    if is_file and task.state.content and content_of_file(name) != task.state.content:
        raise ImageError(name, "changed while it was read")
    return OpenPhoto(name, task.state.key, picture, is_file)


def _bytes(row: Row) -> int:
    return sum(each.nbytes for each in (*row.tensors.values(), *row.lists.values()))
