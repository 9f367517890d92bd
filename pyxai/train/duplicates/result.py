"""What a search for duplicates found: lists, tables, a sheet; and copies moved away if asked to."""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from pyxai._errors import argument_error
from pyxai._files import write_json
from pyxai._text import text_table
from pyxai.draw import sheet
from pyxai.images import ImageError, open_photo
from pyxai.images.errors import printable
from pyxai.train.duplicates.grouping import Group

LOG = "moved.json"
"""The file that tells where moved copies came from."""

_ACROSS = 6  # pictures in a row of the sheet


@dataclass(frozen=True)
class Duplicates:
    """Groups of photos that show the same; nothing was changed.

    Attributes:
        groups: each with the copy to keep and the others, sorted by the path of the first.
        photos: how many photos were compared.
        unreadable: (path, reason) of photos that could not be read.
        root: the folder that was searched.
        settings: how.
    """

    groups: tuple[Group, ...]
    photos: int
    unreadable: tuple[tuple[str, str], ...]
    root: str
    settings: dict[str, Any]

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
        if self.unreadable:
            lines.append(f"{len(self.unreadable)} photos could not be read")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        groups = []
        for group in self.groups:
            flags = {"leak": group.is_leak, "conflict": group.is_conflict}
            groups.append({**asdict(group), **flags})
        return {
            "root": self.root,
            "settings": self.settings,
            "photos": self.photos,
            "groups": groups,
            "unreadable": [{"photo": name, "reason": why} for name, why in self.unreadable],
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a `.json` file with everything, or a `.csv` file with a row for each photo.

        Raises:
            ValueError: the file is called otherwise.
        """
        file = Path(path)
        if file.suffix.lower() == ".json":
            write_json(file, self.as_dict())
        elif file.suffix.lower() == ".csv":
            with file.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
                writer = csv.writer(stream)
                writer.writerow(
                    ("group", "path", "keep", "stage", "distance", "reason", "leak", "conflict")
                )
                writer.writerows(self._rows())
        else:
            raise argument_error("path", "a .csv or .json file", str(file))

    def _rows(self) -> list[tuple[object, ...]]:
        rows: list[tuple[object, ...]] = []
        for number, group in enumerate(self.groups, 1):
            flags = (int(group.is_leak), int(group.is_conflict))
            rows.append((number, group.keep, 1, "", "", "", *flags))
            for copy in group.copies:
                found = (copy.match.stage, copy.match.distance, copy.why_not_kept)
                rows.append((number, copy.path, 0, *found, *flags))
        return rows

    def sheet(self, most: int = 30, *, cell: int = 160) -> Image.Image:
        """The groups as rows of pictures: the one to keep first, then its nearest copies.

        Args:
            most: groups that are shown; leaks and conflicts come first.
            cell: side of the pictures in pixels.

        Raises:
            ValueError: there are no groups.
        """
        if not self.groups:
            raise ValueError("duplicates: expected at least one group to show, got none")
        order = sorted(self.groups, key=lambda each: (not each.is_leak, not each.is_conflict))
        rows: list[list[Image.Image | None]] = []
        captions: list[list[str]] = []
        titles: list[str] = []
        for group in order[:most]:
            shown = group.copies[: _ACROSS - 1]
            rows.append([_picture(path) for path in (group.keep, *(each.path for each in shown))])
            texts = [f"{each.match.stage} {each.match.distance:.3g}" for each in shown]
            captions.append(["keep", *texts])
            notes = [
                f"{printable(Path(group.keep).name)} and {len(group.copies)} more",
                *(["LEAK: " + ", ".join(group.splits)] if group.is_leak else []),
                *(["in folders " + ", ".join(group.labels)] if group.is_conflict else []),
            ]
            titles.append("; ".join(notes))
        return sheet(rows, row_titles=titles, captions=captions, cell=cell)

    def move_copies(self, folder: str | os.PathLike[str]) -> tuple[str, ...]:
        """Moves the copies that could go into a folder; the ones to keep stay.

        Paths below the folder that was searched stay the same there. Nothing is overwritten, and
        `moved.json` there tells where each came from; `move_back` undoes it.

        Args:
            folder: outside the one that was searched; made if need be.

        Returns:
            Where they are now.

        Raises:
            ValueError: the folder lies in the one that was searched, or a file is in the way;
                nothing was moved then.
        """
        goal, root = Path(folder), Path(self.root)
        if goal.resolve() == root.resolve() or root.resolve() in goal.resolve().parents:
            raise argument_error("folder", f"a folder outside {root}", str(goal))
        moves = [(Path(path), goal / os.path.relpath(path, root)) for path in self.copies]
        inside = goal.resolve()
        for _, there in moves:
            if inside not in there.resolve().parents:
                raise argument_error("folder", f"copies below {root}", str(there))
            if there.exists():
                raise argument_error("folder", "no files in the way", str(there))
        goal.mkdir(parents=True, exist_ok=True)
        log = goal / LOG
        done = json.loads(log.read_text(encoding="utf-8"))["moved"] if log.exists() else []
        for here, there in moves:
            there.parent.mkdir(parents=True, exist_ok=True)
            done.append({"from": str(here.resolve()), "to": str(there.resolve())})
            write_json(log, {"moved": done})  # before the move: a stopped run can be undone
            shutil.move(here, there)
        return tuple(str(there) for _, there in moves)


_STAGES = ("exact", "pixels", "hash", "features")


def move_back(folder: str | os.PathLike[str]) -> tuple[str, ...]:
    """Undoes `Duplicates.move_copies`: moves all files of a folder back to where they came from.

    Returns:
        Where they are again.

    Raises:
        ValueError: the folder has no log, or a file is in the way; nothing was moved then.
    """
    log = Path(folder) / LOG
    if not log.exists():
        raise argument_error("folder", f"a folder with {LOG}", str(folder))
    moved = json.loads(log.read_text(encoding="utf-8"))["moved"]
    pending = [(Path(each["to"]), Path(each["from"])) for each in moved]
    pending = [(here, there) for here, there in pending if here.exists()]
    for _, there in pending:
        if there.exists():
            raise argument_error("folder", "no files in the way", str(there))
    for here, there in pending:
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(here, there)
    log.unlink()
    return tuple(str(there) for _, there in pending)


def _picture(path: str) -> Image.Image | None:
    try:
        return open_photo(path)
    except ImageError:
        return None
