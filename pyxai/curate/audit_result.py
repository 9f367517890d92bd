"""What an audit of a folder found: ranked lists, tables and sheets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pyxai._errors import argument_error, check_count, closest
from pyxai._results import Report, Rows, plain
from pyxai._text import text_table
from pyxai.draw.card import card
from pyxai.draw.sheet import sheet
from pyxai.images import ImageError, PhotoFailure, open_photo
from pyxai.images.errors import printable

ISSUES = {
    "unreadable": "files that should be photos but cannot be read",
    "no_photo": "files of other kinds, which training passes over",
    "no_class": "photos that lie in no folder of a class",
    "odd_size": "much smaller or larger than the median of the folder",
    "odd_aspect": "very long or very tall",
    "dark": "hardly any light pixel",
    "bright": "hardly any dark pixel",
    "blurred": "hardly any fine detail",
    "low_information": "few different tones: plain areas, drawings, plots",
    "gray": "hardly any colour",
    "no_features": "the network's features of it are not finite, or it cannot run on it",
    "label_error": "probably another class than its folder's",
    "unusual": "far from all others of its class",
}
"""The names of the lists, in the order of a report, and what is in each."""

_MOST_ROWS = 60  # JPEG files hold 65,535 pixels each way

WITHOUT_PICTURE = ("unreadable", "no_photo")


@dataclass(frozen=True)
class Finding:
    """One photo, or file, that a person should look at.

    Attributes:
        path: the file.
        label: the class by its folder; None where there are no classes.
        score: the measure that the list is ranked by; None for lists without one.
        reason: why it is listed, in words.
        suggested: for a probable label error, the class that it looks like.
    """

    path: str
    label: str | None
    score: float | None
    reason: str
    suggested: str | None = None


@dataclass(frozen=True, eq=False, repr=False)
class AuditResult(Report):
    """What an audit found, as numbers, text and pictures; `Audit` can also be written to disk.

    Attributes:
        folder: that was read.
        findings: for each name of `ISSUES` what was found, the worst first; "unusual" class by
            class, that of the most unusual photo first.
        classes: photos that could be read, by class, the rarest last; empty without classes.
        paths: these photos.
        labels: the class of each; None without one.
        measures: by name, one float32 value for each of `paths`: the fields of
            `pyxai.curate.quality.Quality`, and with a model `distance_ratio` (to its neighbours,
            1 is the median of the class) and `label_margin` (0, surely another class, to 1). NaN
            where there is none.
        model: name of the network; None without one.
        layer: whose features were used; None without a model.
        notes: what was not looked for, and why.
    """

    folder: str
    findings: Mapping[str, tuple[Finding, ...]]
    classes: Mapping[str, int]
    paths: tuple[str, ...]
    labels: tuple[str | None, ...]
    measures: Mapping[str, NDArray[np.float32]]
    model: str | None
    layer: str | None
    notes: tuple[str, ...]

    @property
    def failures(self) -> tuple[PhotoFailure, ...]:
        """The photos that could not be read."""
        return tuple(PhotoFailure(each.path, each.reason) for each in self.findings["unreadable"])

    def _facts(self) -> str:
        counts = [f"{len(each)} {name}" for name, each in self.findings.items() if each]
        told = ", ".join(counts) or "nothing found"
        return f"{len(self.paths)} photos in {printable(self.folder)}: {told}"

    def __iter__(self) -> Iterator[str]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __getitem__(self, issue: str) -> tuple[Finding, ...]:
        """What was found, the worst first.

        Raises:
            ValueError: there is no such list.
        """
        if issue not in self.findings:
            hint = closest(issue, self.findings) if isinstance(issue, str) else ""
            got = f"{issue!r}{hint}" if hint else issue
            raise argument_error("issue", f"one of {[*self.findings]}", got)
        return self.findings[issue]

    def __str__(self) -> str:
        """Two tables: how many of each issue with the worst photo, and the classes."""
        rows = [("issue", "photos", "the first one", "why")]
        for issue, found in self.findings.items():
            first = found[0] if found else None
            name = printable(self.short(first.path)) if first else "–"
            rows.append((issue, str(len(found)), name, first.reason if first else "–"))
        parts = [text_table(rows)]
        if self.classes:
            parts.append(text_table(self.class_table()))
        total = len(self.paths)
        parts.append("\n".join([f"{total} photos in {printable(self.folder)}", *self.notes]))
        return "\n\n".join(parts)

    def class_table(self) -> list[tuple[str, ...]]:
        """Photos, their share and what was found, by class; the first row says what is what."""
        columns = ("label_error", "blurred", "dark", "bright", "low_information")
        rows = [("class", "photos", "share", *(name.replace("_", " ") for name in columns))]
        total = max(1, sum(self.classes.values()))
        for name, count in self.classes.items():
            listed = (
                str(sum(each.label == name for each in self.findings[column])) for column in columns
            )
            rows.append((printable(name), str(count), f"{count / total:.1%}", *listed))
        return rows

    def short(self, path: str) -> str:
        """A path as seen from the folder."""
        try:
            return Path(path).relative_to(self.folder).as_posix()
        except ValueError:
            return path

    def sheet(
        self,
        issue: str,
        *,
        label: str | None = None,
        count: int = 40,
        columns: int = 8,
        cell: int = 160,
    ) -> Image.Image:
        """The first photos of a list, to be looked at; "unusual" has rows for each class.

        Below each photo stand its class (for probable label errors also what it looks like) and
        its score. A sheet has 60 rows at most.

        Args:
            issue: a name of `ISSUES`.
            label: only photos of this class; None, of all.
            count: how many photos at most; of "unusual", of each class.
            columns: of the sheet.
            cell: side of a photo's place in pixels.

        Raises:
            ValueError: nothing was found, the list is one of files that cannot be shown, or an
                argument does not fit.
        """
        found = self[issue]
        if label is not None:
            if label not in self.classes:
                raise argument_error("label", f"one of {[*self.classes]}", label)
            found = tuple(each for each in found if each.label == label)
        check_count("count", count)
        check_count("columns", columns)
        if issue in WITHOUT_PICTURE:
            raise argument_error("issue", "a list of photos that can be shown", issue)
        if not found:
            raise argument_error("issue", "a list with at least one photo", f"{issue!r}: empty")
        groups: dict[str | None, list[Finding]] = {}
        for each in found:
            groups.setdefault(each.label if issue == "unusual" else None, []).append(each)
        pictures: list[list[Image.Image | None]] = []
        captions: list[list[str]] = []
        for group in groups.values():
            shown = group[:count]
            for start in range(0, len(shown), columns):
                if len(pictures) == _MOST_ROWS:
                    break
                row = shown[start : start + columns]
                empty = columns - len(row) if len(found) > columns else 0
                pictures.append([*(_thumbnail(each.path, cell) for each in row), *[None] * empty])
                captions.append([*(caption(each) for each in row), *[""] * empty])
        return sheet(pictures, captions=captions, cell=cell)

    def figure(self, *, columns: int = 8, cell: int = 120) -> Image.Image:
        """The first photos of each list in a row; `sheet` shows more of one.

        Args:
            columns: photos of a list.
            cell: side of a photo's place in pixels.
        """
        shown = {
            issue: found[:columns]
            for issue, found in self.findings.items()
            if found and issue not in WITHOUT_PICTURE
        }
        if not shown:
            photos = f"{len(self.paths)} photos in {printable(self.folder)}"
            listed = sum(map(len, self.findings.values()))
            return card([photos, f"{listed} findings, none that a picture can show"])
        rows = [[_thumbnail(each.path, cell) for each in found] for found in shown.values()]
        captions = [[caption(each) for each in found] for found in shown.values()]
        titles = [f"{issue} ({len(self[issue])}): {ISSUES[issue]}" for issue in shown]
        for row, words in zip(rows, captions, strict=True):  # a page as wide as its titles
            row += [None] * (columns - len(row))
            words += [""] * (columns - len(words))
        return sheet(rows, row_titles=titles, captions=captions, cell=cell)

    def _table(self) -> Rows:
        rows = [
            (issue, rank, *finding_record(each).values())
            for issue, found in self.findings.items()
            for rank, each in enumerate(found, 1)
        ]
        return ("issue", "rank", "path", "label", "score", "reason", "suggested"), rows

    def to_dict(self) -> dict[str, Any]:
        """What `audit.json` and `pyxai audit --json` hold: all but the measures of each photo."""
        return {
            "folder": self.folder,
            "model": self.model,
            "layer": self.layer,
            "photos": len(self.paths),
            "classes": dict(self.classes),
            "notes": list(self.notes),
            "findings": {
                issue: [finding_record(each) for each in found]
                for issue, found in self.findings.items()
            },
            "failures": plain(self.failures),
        }


def finding_record(finding: Finding) -> dict[str, Any]:
    """A finding as JSON takes it."""
    score = finding.score
    return {
        "path": finding.path,
        "label": finding.label,
        "score": None if score is None or not math.isfinite(score) else round(score, 6),
        "reason": finding.reason,
        "suggested": finding.suggested,
    }


def caption(finding: Finding) -> str:
    """A few words below a photo: class, what it looks like, score."""
    words = printable(finding.label) if finding.label else ""
    if finding.suggested is not None:
        words = f"{words}, like {printable(finding.suggested)}"
    if finding.score is None:
        return words
    return f"{words}: {finding.score:.3g}" if words else f"{finding.score:.3g}"


def _thumbnail(path: str, cell: int) -> Image.Image | None:
    """A photo that fits a cell; None if it has gone since."""
    try:
        photo = open_photo(path)
    except ImageError:
        return None
    photo.thumbnail((cell, cell))
    return photo
