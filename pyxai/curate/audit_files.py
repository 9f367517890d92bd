"""An audit on disk: tables, JSON, sheets, and a page that needs neither a server nor a script."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from pyxai._files import write_json, write_table, write_text
from pyxai._locks import locked
from pyxai._outputs import OutputFolder
from pyxai.curate.audit_result import (
    ISSUES,
    WITHOUT_PICTURE,
    AuditResult,
    Finding,
    caption,
)
from pyxai.draw.page import page, table, text
from pyxai.images import ImageError, open_photo
from pyxai.images.errors import printable

SHOWN = 60
"""Photos of one list on the page; the tables hold all."""

_SIDE = 240
_STYLE = "\n.crops figcaption { overflow-wrap: anywhere; }\n.crops img { object-fit: contain; }\n"


class Audit(AuditResult):
    """A folder of photos, looked over before training. Nothing was changed, moved or deleted.

    See `AuditResult` for what it holds.
    """

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Writes findings.csv, photos.csv, audit.json, sheets and one page, index.html.

        Args:
            directory: made if need be. What an earlier audit has written there is replaced; all
                else in it stays as it is.

        Returns:
            The path of the page, which needs neither a server nor a script.

        Raises:
            ValueError: something of these names is there that no audit has written.
            BusyError: another process saves an audit there.
        """
        output_folder(directory)  # refused before anything is written
        with locked(Path(directory), "directory"):
            return self._write(output_folder(directory))

    def _write(self, folder: OutputFolder) -> Path:
        """All files; the path of the page."""
        columns = ("path", "label", *self.measures)
        with folder.writing("findings.csv") as path:
            write_table(path, *self._table())
        with folder.writing("photos.csv") as path:
            write_table(path, columns, _photo_rows(self))
        with folder.writing("audit.json") as path:
            write_json(path, self.to_dict(), indent=2)
        for issue, listed in self.findings.items():
            if listed and issue not in WITHOUT_PICTURE:
                with folder.writing(f"sheets/{issue}.jpg") as path:
                    self.sheet(issue).save(path, quality=90)
        page = _audit_page(self, folder)
        with folder.writing("index.html") as path:
            write_text(path, page)
        folder.finish()
        return folder.path / "index.html"


def output_folder(directory: str | os.PathLike[str], argument: str = "directory") -> OutputFolder:
    """The folder for an audit.

    Raises:
        ValueError: something of its names is there that no audit has written.
    """
    folder = OutputFolder(directory, argument, by="an audit")
    names = ("index.html", "findings.csv", "photos.csv", "audit.json", "sheets/0", "pictures/0")
    folder.check(*names)
    return folder


def _photo_rows(found: AuditResult) -> Iterable[Sequence[Any]]:
    columns = list(found.measures.values())
    for place, path in enumerate(found.paths):
        values = (float(column[place]) for column in columns)
        numbers = ("" if np.isnan(value) else f"{value:.6g}" for value in values)
        yield path, found.labels[place] or "", *numbers


def _audit_page(found: AuditResult, directory: OutputFolder) -> str:
    """The page, whose thumbnails are written on the way."""
    thumbnails = _Thumbnails(directory)
    listed = [issue for issue in ISSUES if found.findings.get(issue)]
    links = "".join(
        f'<a href="#{issue}">{_title(issue)} ({len(found[issue])})</a>\n' for issue in listed
    )
    what = f"{len(found.paths)} photos that can be read"
    model = f", features of {found.model}, {found.layer}" if found.model else ""
    parts = [
        f"<h1>{text(found.folder)}: what to look at before training</h1>",
        f"<p>{what}{text(model)}. Nothing was changed. A list is a place to look, no verdict.</p>",
        f"<nav>\n{links}</nav>" if links else "<p>Nothing was found.</p>",
        *(f'<p class="note">{text(note)}</p>' for note in found.notes),
        _class_table(found),
    ]
    parts += [_section(found, issue, thumbnails) for issue in listed]
    return page(f"{found.folder}: audit", "\n".join(parts), style=_STYLE)


def _title(issue: str) -> str:
    return issue.replace("_", " ").capitalize()


def _class_table(found: AuditResult) -> str:
    if not found.classes:
        return ""
    head, *rows = found.class_table()
    return table(head, rows)


def _section(found: AuditResult, issue: str, thumbnails: _Thumbnails) -> str:
    listed = found[issue]
    head = f'<h2 id="{issue}">{_title(issue)}: {len(listed)}</h2>\n<p>{escape(ISSUES[issue])}</p>'
    if issue in WITHOUT_PICTURE:
        names = "\n".join(
            f"<li>{text(found.short(each.path))}: {text(each.reason)}</li>"
            for each in listed[:SHOWN]
        )
        return f"{head}\n<ul>\n{names}\n</ul>{_more(listed)}"
    groups: dict[str, list[Finding]] = {}
    for each in listed:
        groups.setdefault((each.label or "") if issue == "unusual" else "", []).append(each)
    for name, group in groups.items():
        figures = "\n".join(_figure(found, each, thumbnails) for each in group[:SHOWN])
        title = f"<h3>{text(name)}</h3>\n" if name else ""
        head += f'\n{title}<div class="crops">\n{figures}\n</div>{_more(group)}'
    return head


def _more(listed: Sequence[Finding]) -> str:
    left = len(listed) - SHOWN
    return f'\n<p class="note">{left} more in findings.csv.</p>' if left > 0 else ""


def _figure(found: AuditResult, finding: Finding, thumbnails: _Thumbnails) -> str:
    name = escape(printable(found.short(finding.path)))
    words = f"{text(caption(finding))}<br>{name}"
    picture = thumbnails.of(finding.path)
    if picture is None:
        return f'<figure><figcaption title="{text(finding.reason)}">{words}</figcaption></figure>'
    address, width, height = picture
    image = (
        f'<img src="{address}" alt="{name}" title="{text(finding.reason)}" width="{width}" '
        f'height="{height}" loading="lazy">'
    )
    return (
        f'<figure><a href="{thumbnails.original(finding.path)}">{image}</a>'
        f"<figcaption>{words}</figcaption></figure>"
    )


class _Thumbnails:
    """Small copies of the photos on the page, each made once."""

    def __init__(self, directory: OutputFolder) -> None:
        self._directory = directory
        self._made: dict[str, tuple[str, int, int] | None] = {}

    def of(self, path: str) -> tuple[str, int, int] | None:
        """Address below the page, width and height; None for a photo that is gone."""
        if path not in self._made:
            self._made[path] = self._make(path)
        return self._made[path]

    def _make(self, path: str) -> tuple[str, int, int] | None:
        try:
            photo = open_photo(path)
        except ImageError:
            return None
        photo.thumbnail((_SIDE, _SIDE))
        name = f"pictures/{len(self._made):05d}.jpg"
        with self._directory.writing(name) as file:
            photo.save(file, quality=88)
        return name, *photo.size

    def original(self, path: str) -> str:
        """Where the photo itself lies, as seen from the page."""
        try:
            there = os.path.relpath(path, self._directory.path)
        except ValueError:  # another drive
            there = str(Path(path).absolute())
        return escape(quote(os.fsencode(there.replace(os.sep, "/"))))
