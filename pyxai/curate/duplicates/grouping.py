"""From pairs that look alike to groups of which one copy is kept."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pyxai.curate.duplicates.records import Record
from pyxai.images import FolderLabels

_SHARPER = 1.1  # factors of sharpness below this are taken for equal


@dataclass(frozen=True)
class Match:
    """Why two photos are taken for copies of each other.

    Attributes:
        stage: "exact" (the same file), "pixels" (the same pixels), "hash" or "features".
        distance: bits of the hash that differ; for features 1 - cosine; else 0.
    """

    stage: str
    distance: float


@dataclass(frozen=True)
class Copy:
    """A photo of a group, beside the one that is kept.

    Attributes:
        path: the photo.
        match: why it is taken for a copy of the one that is kept.
        why_not_kept: in words.
    """

    path: str
    match: Match
    why_not_kept: str


@dataclass(frozen=True)
class Group:
    """Photos that show the same, each of them near the one that is kept.

    Attributes:
        keep: the copy that is best to keep.
        copies: the others, the nearest first.
        splits: the parts of the data set (train, valid, test) that they lie in.
        labels: the names of the folders that they lie in.
        aliases: other names of these files, by links and hard links; they lie somewhere as well,
            but are no copies.
    """

    keep: str
    copies: tuple[Copy, ...]
    splits: tuple[str, ...]
    labels: tuple[str, ...]
    aliases: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """All photos of the group, the one to keep first."""
        return (self.keep, *(copy.path for copy in self.copies))

    @property
    def is_leak(self) -> bool:
        """Whether it spans several parts of the data set."""
        return len(self.splits) > 1

    @property
    def is_conflict(self) -> bool:
        """Whether its photos lie in folders of different names, other than those of the parts."""
        return len(self.labels) > 1


def group_photos(
    records: list[Record],
    matches: Iterable[tuple[int, int, Match]],
    root: Path,
    aliases: Mapping[str, tuple[str, ...]] | None = None,
    sources: Sequence[str | os.PathLike[str]] | None = None,
) -> tuple[Group, ...]:
    """Groups in which each photo matches the one that is kept.

    The best photo of all that has a match is kept, with all that match it as its copies; then the
    best of those that are left, and so on. So chains of photos that are each like the next do not
    become one group, and every copy can be compared with the photo that stays. A file that lies in
    several parts or folders by its names alone is a group without copies.

    Args:
        records: the photos.
        matches: places of two photos and why they match; any number of times.
        root: the folder that was searched, or that all of them lie in, to tell parts.
        aliases: other names of the files.
        sources: what was searched, to tell labels; by default the root.
    """
    aliases = aliases or {}
    folders = _Folders(FolderLabels(root), FolderLabels(root if sources is None else [*sources]))
    near: dict[int, dict[int, Match]] = defaultdict(dict)
    for one, other, match in matches:
        for here, there in ((one, other), (other, one)):
            known = near[here].get(there)
            if known is None or _STAGES[match.stage] < _STAGES[known.stage]:
                near[here][there] = match
    order = sorted(near, key=lambda place: quality(records[place]))
    taken: set[int] = set()
    groups = []
    for place in order:
        if place in taken:
            continue
        members = {other: match for other, match in near[place].items() if other not in taken}
        if not members:
            continue
        taken |= {place, *members}
        groups.append(_group(records, place, members, folders, aliases))
    for place, record in enumerate(records):
        if place not in taken and record.name in aliases:
            group = _group(records, place, {}, folders, aliases)
            if group.is_leak or group.is_conflict:
                groups.append(group)
    return tuple(sorted(groups, key=lambda group: group.keep))


class _Folders(NamedTuple):
    """What the folders of photos say: the part of the data set, and the class."""

    parts: FolderLabels
    classes: FolderLabels


_STAGES = {"exact": 0, "pixels": 1, "hash": 2, "features": 3}


def quality(record: Record) -> tuple[int, int, int, str]:
    """What photos are sorted by, the best first: resolution, sharpness, size of the file, name."""
    level = round(math.log(max(record.sharpness, 1e-3)) / math.log(_SHARPER))
    return -record.width * record.height, -level, -record.bytes, record.name


def _group(
    records: list[Record],
    place: int,
    members: dict[int, Match],
    folders: _Folders,
    aliases: Mapping[str, tuple[str, ...]],
) -> Group:
    kept = records[place]
    rows = sorted(
        members.items(),
        key=lambda row: (_STAGES[row[1].stage], row[1].distance, records[row[0]].name),
    )
    copies = tuple(
        Copy(records[other].name, match, why_kept(kept, records[other])) for other, match in rows
    )
    paths = [kept.name, *(copy.path for copy in copies)]
    others = [name for path in paths for name in aliases.get(path, ())]
    names = (*paths, *others)
    splits = sorted({split for name in names if (split := folders.parts.split(name))})
    labels = sorted({label for name in names if (label := folders.classes.label(name))})
    return Group(kept.name, copies, tuple(splits), tuple(labels), tuple(others))


def why_kept(kept: Record, other: Record) -> str:
    """Why the one is kept rather than the other."""
    ours, theirs = quality(kept), quality(other)
    if ours[0] != theirs[0]:
        return f"smaller: {other.width} × {other.height}, not {kept.width} × {kept.height}"
    if kept.file == other.file:
        return "the same file; the kept one comes first by name"
    if ours[1] != theirs[1]:
        share = other.sharpness / max(kept.sharpness, 1e-9)
        return f"less sharp: {share:.2f} of the detail"
    if ours[2] != theirs[2]:
        return f"more compressed: {other.bytes} bytes, not {kept.bytes}"
    return "as good; the kept one comes first by name"
