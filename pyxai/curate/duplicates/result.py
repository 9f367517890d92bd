"""What a search for duplicates found: lists, tables, a sheet; and copies moved away if asked to."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from pyxai._results import Report, Rows, plain
from pyxai._text import text_table
from pyxai.curate.duplicates.grouping import Group
from pyxai.curate.duplicates.moving import Moves, Wanted, move_away, refuse_inside
from pyxai.curate.duplicates.relocate import FileState
from pyxai.draw import sheet
from pyxai.draw.card import card
from pyxai.images import ImageError, PhotoFailure, PhotoWarning, open_photo
from pyxai.images.errors import printable

_ACROSS = 6  # pictures in a row of the sheet


@dataclass(frozen=True, eq=False, repr=False)
class Duplicates(Report):
    """Groups of photos that show the same, a sequence of these; nothing was changed.

    Attributes:
        groups: each with the copy to keep and the others, sorted by the path of the first.
        photos: how many photos were compared.
        failures: photos that could not be read, or not be compared in all ways.
        root: the folder that was searched, or the one that all photos lie in.
        settings: how.
        sources: the folders and files that were searched, absolute.
        aliases: other names of a photo, by links and hard links to its file, by its name here.
        files: what the files of the groups were when they were read, by path.
    """

    groups: tuple[Group, ...]
    photos: int
    failures: tuple[PhotoFailure, ...]
    root: str
    settings: dict[str, Any]
    sources: tuple[str, ...]
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    files: Mapping[str, FileState] = field(default_factory=dict)

    def _facts(self) -> str:
        found = f"{len(self.groups)} groups, {len(self.copies)} copies that could go"
        return f"{self.photos} photos, {found}, {len(self.failures)} failures"

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[Group]:
        return iter(self.groups)

    def __getitem__(self, place: int) -> Group:
        return self.groups[place]

    @property
    def copies(self) -> tuple[str, ...]:
        """All photos that could go: those of the groups but for the ones to keep."""
        return tuple(copy.path for group in self.groups for copy in group.copies)

    @property
    def leaks(self) -> tuple[Group, ...]:
        """Groups that span training and validation or test photos."""
        return tuple(group for group in self.groups if group.is_leak)

    @property
    def conflicts(self) -> tuple[Group, ...]:
        """Groups whose photos lie in folders of different classes."""
        return tuple(group for group in self.groups if group.is_conflict)

    def __str__(self) -> str:
        rows = [("found by", "copies")]
        counts: dict[str, int] = {}
        for group in self.groups:
            for copy in group.copies:
                counts[copy.match.stage] = counts.get(copy.match.stage, 0) + 1
        rows += [(stage, str(counts[stage])) for stage in _STAGES if stage in counts]
        lines = [
            f"{self.photos} photos, {len(self.groups)} groups, {len(self.copies)} copies that "
            "could go",
            *([text_table(rows)] if counts else []),
        ]
        if self.leaks:
            lines.append(f"{len(self.leaks)} groups across parts of the data set: leaks")
        if self.conflicts:
            lines.append(f"{len(self.conflicts)} groups across folders of different names")
        if self.aliases:
            count = sum(map(len, self.aliases.values()))
            lines.append(f"{count} further names of these files (links), which are no copies")
        if self.failures:
            lines.append(f"{len(self.failures)} photos could not be read or compared in all ways")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """All of it."""
        groups = []
        for group in self.groups:
            flags = {"leak": group.is_leak, "conflict": group.is_conflict}
            groups.append({**plain(group), **flags})
        return {
            "root": self.root,
            "settings": plain(self.settings),
            "photos": self.photos,
            "aliases": {path: [*names] for path, names in self.aliases.items()},
            "groups": groups,
            "failures": plain(self.failures),
        }

    def _table(self) -> Rows:
        rows: list[tuple[Any, ...]] = []
        for number, group in enumerate(self.groups, 1):
            flags = (int(group.is_leak), int(group.is_conflict))
            rows.append((number, group.keep, 1, "", "", "", *flags))
            for copy in group.copies:
                found = (copy.match.stage, copy.match.distance, copy.why_not_kept)
                rows.append((number, copy.path, 0, *found, *flags))
            for path in group.paths:
                reason = f"another name of the file {path}"
                for name in self.aliases.get(path, ()):
                    rows.append((number, name, 1, "link", "", reason, *flags))
        return _COLUMNS, rows

    def figure(self, most: int = 20, *, cell: int = 160) -> Image.Image:
        """The groups as rows of pictures: the one to keep first, then its nearest copies.

        Args:
            most: groups that are shown; leaks and conflicts come first.
            cell: side of the pictures in pixels.
        """
        if not self.groups:
            return card([f"no duplicates among {self.photos} photos"])
        order = sorted(self.groups, key=lambda each: (not each.is_leak, not each.is_conflict))
        rows: list[list[Image.Image | None]] = []
        captions: list[list[str]] = []
        titles: list[str] = []
        for group in order[:most]:
            shown = group.copies[: _ACROSS - 1]
            rows.append([_picture(path) for path in (group.keep, *(each.path for each in shown))])
            texts = [f"{each.match.stage} {each.match.distance:.3g}" for each in shown]
            captions.append(["keep", *texts])
            labels = ", ".join(map(printable, group.labels))
            notes = [
                f"{printable(Path(group.keep).name)} and {len(group.copies)} more",
                *([f"{len(group.aliases)} links"] if group.aliases else []),
                *(["LEAK: " + ", ".join(group.splits)] if group.is_leak else []),
                *([f"in folders {labels}"] if group.is_conflict else []),
            ]
            titles.append("; ".join(notes))
        return sheet(rows, row_titles=titles, captions=captions, cell=cell)

    def move_copies(self, directory: str | os.PathLike[str]) -> Moves:
        """Moves the copies that could go into a folder; the ones to keep stay.

        Paths below the folder that was searched stay the same there. Nothing is overwritten, a file
        loses its old name only when it has the new one, and `moved.jsonl` there tells where each
        came from before it is moved: `move_back` undoes it, also after a kill.

        Left where they are, and named: links, files with further names (links to them would lead
        nowhere), photos that have changed since the search, and the copies of a photo to keep that
        is not there any more, or another.

        Args:
            directory: outside those that were searched; made if need be.

        Returns:
            Where they are now; its `failures` are those that were not moved.

        Warns:
            PhotoWarning: some were not moved.

        Raises:
            ValueError: the folder lies in one that was searched, or a file is in the way; nothing
                was moved then.
            BusyError: another run works in the folder.
        """
        goal = Path(directory)
        for inner in {Path(), *(Path(self.files[path].inner).parent for path in self.copies)}:
            refuse_inside(goal / inner, self.sources)
        wanted = [
            Wanted(copy.path, self.files[copy.path], self.files[group.keep])
            for group in self.groups
            for copy in group.copies
        ]
        moves = move_away(wanted, goal)
        if moves.failures:
            first = "; ".join(f"{printable(path)} {why}" for path, why in moves.failures[:_NAMED])
            left = len(moves.failures) - _NAMED
            more = f"; and {left} more" if left > 0 else ""
            warnings.warn(
                f"{len(moves.failures)} of {len(wanted)} copies were not moved: {first}{more}",
                PhotoWarning,
                stacklevel=2,
            )
        return moves


_STAGES = ("exact", "pixels", "hash", "features")
_COLUMNS = ("group", "path", "keep", "stage", "distance", "reason", "leak", "conflict")
_NAMED = 10  # copies in a warning


def _picture(path: str) -> Image.Image | None:
    try:
        return open_photo(path)
    except ImageError:
        return None
