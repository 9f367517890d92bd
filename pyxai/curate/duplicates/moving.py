"""Moves copies into a folder, and back again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from pyxai._errors import argument_error
from pyxai._locks import LOCK, locked
from pyxai._results import Report, Rows, plain
from pyxai._sealed import file_digest
from pyxai.curate.duplicates import journal as states
from pyxai.curate.duplicates.journal import JOURNAL, Journal, Move
from pyxai.curate.duplicates.names import Source, lies_in
from pyxai.curate.duplicates.relocate import (
    FileState,
    is_plain,
    is_same_file,
    is_start_of,
    is_there,
    make_folder,
    relocate,
)
from pyxai.draw.card import card
from pyxai.images import PhotoFailure
from pyxai.images.errors import printable

_NAMED = 20  # of those that were not moved, in the figure


@dataclass(frozen=True, eq=False, repr=False)
class Moves(Report):
    """Where the copies are now that were moved; a sequence of paths.

    Attributes:
        paths: the new ones.
        failures: those that stay where they were, and why.
    """

    paths: tuple[str, ...] = ()
    failures: tuple[PhotoFailure, ...] = ()

    def _facts(self) -> str:
        return f"{len(self.paths)} moved, {len(self.failures)} not"

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __getitem__(self, place: int) -> str:
        return self.paths[place]

    def to_dict(self) -> dict[str, Any]:
        """The new paths, and those that were not moved."""
        return {"moved": [*self.paths], "failures": plain(self.failures)}

    def figure(self) -> Image.Image:
        """How many were moved, and the first that were not."""
        lines = [f"{len(self.paths)} copies moved, {len(self.failures)} not"]
        lines += [f"{printable(path)} {reason}" for path, reason in self.failures[:_NAMED]]
        return card(lines)

    def _table(self) -> Rows:
        rows = [("moved", path, None) for path in self.paths]
        return ("state", "path", "reason"), [*rows, *(("left", *each) for each in self.failures)]


class NotBackError(ValueError):
    """Some files could not be moved back; the others were.

    Attributes:
        moved: where those are again that are back.
        left: (path, reason) of the others; another call tries them again.
    """

    def __init__(self, moved: Sequence[str], left: Sequence[tuple[str, str]]) -> None:
        lines = "".join(f"\n  {printable(path)}: {printable(reason)}" for path, reason in left)
        count = len(moved) + len(left)
        super().__init__(f"{len(left)} of {count} photos are not back where they were:{lines}")
        self.moved, self.left = tuple(moved), tuple(left)


@dataclass(frozen=True)
class Wanted:
    """A copy that is to be moved.

    Attributes:
        path: as it was found.
        file: what it was then.
        keep: the photo that stays in its place, as it was then.
    """

    path: str
    file: FileState
    keep: FileState


def refuse_inside(folder: Source, sources: Sequence[Source]) -> None:
    """Refuses a folder for copies in which the next search would find them again.

    Raises:
        ValueError: it is one of those that were searched, or in one.
    """
    for source in sources:
        if Path(source).is_dir() and lies_in(folder, source):
            raise argument_error("directory", f"a folder outside {source}", str(folder))


def move_away(wanted: Sequence[Wanted], folder: Path) -> Moves:
    """Moves copies into a folder; see `Duplicates.move_copies`."""
    if not wanted:
        return Moves()
    if folder.exists() and not folder.is_dir():
        raise argument_error("directory", "a folder", f"the file {folder}")
    make_folder(folder)
    with locked(folder, "directory"):
        journal = Journal(folder)
        if journal.moves and journal.moves[-1].is_under_way:  # at most one was, when a kill came
            _settle(journal.moves[-1], journal, folder)
        for each in wanted:
            _refuse_target(folder, Path(each.file.inner))
        moves = _move_all(wanted, folder, journal)
        journal.close()
    return moves


def _move_all(wanted: Sequence[Wanted], folder: Path, journal: Journal) -> Moves:
    moved: list[tuple[Wanted, Move]] = []
    left: list[PhotoFailure] = []
    changes: dict[str, str | None] = {}  # of photos to keep, each of which is read once
    for each in wanted:
        keep = each.keep.place
        change = changes.get(keep) or each.keep.change(contents=keep not in changes)
        changes[keep] = change
        reason = change and _without(keep, change)
        reason = reason or _why_not(each, folder) or _move(each, folder, journal)
        if reason is None:
            moved.append((each, journal.moves[-1]))
        else:
            left.append(PhotoFailure(each.path, reason))
    for each, move in moved:
        change = each.keep.change(contents=False)
        if change is not None:  # the last copy may be what was just moved
            _settle(move, journal, folder)
            if move.state == states.BACK:
                left.append(PhotoFailure(each.path, _without(each.keep.place, change)))
    now = tuple(str(folder / each.file.inner) for each, move in moved if move.state == states.MOVED)
    return Moves(now, tuple(left))


def _without(keep: str, change: str) -> str:
    return f"stays, as {printable(keep)}, which was to be kept, {change}"


def _refuse_target(folder: Path, inner: Path) -> None:
    there = folder / inner
    real = Path(os.path.realpath(folder), inner.parent)
    if Path(os.path.realpath(there.parent)) != real:
        raise argument_error("directory", "no links in the way", str(there))
    if is_there(there):
        raise argument_error("directory", "no files in the way", str(there))


def _why_not(wanted: Wanted, folder: Path) -> str | None:
    """Why a copy has to stay."""
    here, keep = Path(wanted.file.place), Path(wanted.keep.place)
    if here.is_symlink():
        return "is a link; links stay where they are"
    reason = wanted.file.change()
    if reason is not None:
        return reason
    others = [each for each in wanted.file.others if _leads_to(Path(each), here)]
    if others:
        return f"has other names, which would stay: {', '.join(map(printable, others))}"
    if _leads_to(keep, here):
        return f"is the same file as {keep}, which is to be kept"
    if _would_part(here, folder):
        return "has hard links, which another file system would part"
    return None


def _leads_to(path: Path, file: Path) -> bool:
    with suppress(OSError):
        return path.samefile(file)
    return False


def _would_part(file: Path, folder: Path) -> bool:
    """Whether the file has other names, which it could not keep in the folder."""
    with suppress(OSError):
        status = file.stat()
        return status.st_nlink > 1 and status.st_dev != folder.stat().st_dev
    return False


def _move(wanted: Wanted, folder: Path, journal: Journal) -> str | None:
    """Moves a copy; why it could not be, or None."""
    here, inner = Path(wanted.file.place), Path(wanted.file.inner)
    there = folder / inner
    move = journal.begin(here, inner.as_posix(), wanted.file.digest)
    try:
        relocate(here, there, move.contents, partial(journal.note, move, states.COPYING))
    except FileExistsError:
        journal.note(move, states.BACK)
        return f"{there} is in the way"
    except OSError as error:
        _settle(move, journal, folder)
        return (
            None if move.state == states.MOVED else f"could not be moved: {error.strerror or error}"
        )
    journal.note(move, states.MOVED)
    return None


def _settle(move: Move, journal: Journal, folder: Path) -> None:
    """Ends a move that a kill or an error has stopped: it is done, or was not begun."""
    is_away = is_there(folder / move.name) and not is_there(Path(move.home))
    if move.state in (states.MOVING, states.COPYING) and is_away:
        journal.note(move, states.MOVED)
        return
    with suppress(OSError):  # another call will try again
        if _bring_back(move, journal, folder) is None:
            journal.note(move, states.BACK)


def move_back(directory: str | os.PathLike[str]) -> tuple[str, ...]:
    """Undoes `Duplicates.move_copies`: moves all copies of a folder back to where they came from.

    Also after a move, or a call of this, that was stopped at any point. Nothing is overwritten. A
    folder whose copies are all back already stays as it is.

    Args:
        directory: that copies were moved to; it may have been moved itself since.

    Returns:
        Where they are again.

    Raises:
        ValueError: nothing was ever moved to the folder.
        NotBackError: some are not back: they were changed or moved since, or something is in the
            way; all others are. Another call tries them again.
        DamagedError: the list of moves is not as it was written; nothing was moved then.
        BusyError: another run works in the folder.
    """
    goal = Path(directory)
    if not (goal / JOURNAL).exists():
        if (goal / LOCK).exists():
            return ()
        raise argument_error(
            "directory", f"a folder with {JOURNAL}, of moved copies", str(directory)
        )
    moved: list[str] = []
    left: list[tuple[str, str]] = []
    with locked(goal, "directory"):
        journal = Journal(goal)
        for move in journal.moves:
            if move.state == states.BACK:
                continue
            try:
                reason = _bring_back(move, journal, goal)
            except FileExistsError:
                journal.note(move, states.MOVED)
                reason = f"{move.home} is in the way"
            except OSError as error:
                reason = error.strerror or str(error)
            if reason is None:
                journal.note(move, states.BACK)
                moved.append(move.home)
            else:
                left.append((str(goal / move.name), reason))
        journal.close()
    if left:
        raise NotBackError(moved, left)
    return tuple(moved)


def _bring_back(move: Move, journal: Journal, folder: Path) -> str | None:
    """Moves a file to where it came from, however far it got; why that cannot be, or None."""
    away, home = folder / move.name, Path(move.home)
    if move.state == states.COPYING_BACK and is_start_of(home, away):
        if home.stat().st_size == away.stat().st_size:
            shutil.copystat(away, home)
            away.unlink()
            return None
        home.unlink()  # the start of our copy
    if is_there(home):
        return _settle_both(move, away, home)
    if not is_there(away):
        return f"is no longer there, nor is {home}"
    if not is_plain(away) or file_digest(away) != move.contents:
        return "has changed since it was moved"
    journal.note(move, states.RETURNING)
    relocate(away, home, move.contents, partial(journal.note, move, states.COPYING_BACK))
    return None


def _settle_both(move: Move, away: Path, home: Path) -> str | None:
    """What to do where the old name is taken: by the file itself, or by another."""
    begun = move.state == states.COPYING and is_start_of(away, home)
    if begun or is_same_file(away, home):
        away.unlink()
        return None
    if move.state in (states.MOVING, states.COPYING):  # it has never left
        return None
    if is_there(away):
        return f"{home} is in the way"
    if not is_plain(home) or file_digest(home) != move.contents:
        return f"is no longer there, and {home} is another file"
    return None
