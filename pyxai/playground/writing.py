"""What a site consists of: files of data and pictures, in steps that are done or taken over."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pyxai._sealed import digest
from pyxai.playground.editions import RECORD, Edition, SiteHome

_TYPES = {"uint8": "<u1", "uint16": "<u2", "uint32": "<u4", "float32": "<f4"}


class SiteFolder:
    """Writes the next edition of a site; every file all or nothing.

    A build has steps, each with a key that says what its files are made from. Files of a step with
    the same key are taken over, from a build that was stopped and from the site that is there, if
    they are as they were written; others are made. docs/playground_files.md describes the files.
    """

    def __init__(self, home: SiteHome) -> None:
        """Goes on with the edition that a stopped build has left, or begins one."""
        self._home = home
        self._next = home.next()
        self._keys: dict[str, str] = {}
        self._intact: set[str] = set()
        # Whether visitors would see just what they see now.
        self._is_same = home.seen is not None and not self._next.files.files

    def begin(self, step: str, *more: str, last: str | None = None, **key: Any) -> bool:
        """Starts or continues a step; what was made from something else is left behind.

        Args:
            step: what the names of its files begin with.
            *more: the same, of other files of the step.
            last: the file that is written last, if its files are good together only: without it,
                or with one that is damaged, the step begins anew. None, files are good one by one.
            **key: what its files are made from; as JSON.

        Returns:
            Whether all of it is there, by `last`.
        """
        text = json.dumps(key, sort_keys=True, default=str)
        mark = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        self._keys[step] = mark
        starts, whole = (step, *more), False
        if self._next.keys.get(step) == mark:
            whole = self._check(starts, last)
        else:
            for name in self._next.names(starts):
                self._next.files.remove(name)
            self._next.keys[step] = mark
            self._next.save()
        for edition in self._home.others:
            if edition.keys.get(step) == mark and not whole:
                whole = self._take(edition, starts, last)
        return whole

    def marks(self) -> dict[str, str]:
        """What the files of each step so far were made from."""
        return dict(self._keys)

    def has(self, address: str) -> bool:
        """Whether there is such a file of data or, with its suffix, such a picture.

        It is then a part of the site.
        """
        name = address if address.endswith(".jpg") else f"{address}.js"
        if name in self._intact:
            self._next.files.keep(name)
        return name in self._intact

    def earlier(self, start: str) -> Iterator[Path]:
        """Files that other editions have, whose addresses begin so, if they are as written."""
        for edition in self._home.others:
            for name in edition.names([start]):
                if edition.files.is_intact(name):
                    yield edition.path / name

    def write(self, address: str, record: dict[str, Any]) -> None:
        """Writes a file of data."""
        # JSON in ASCII is a JavaScript expression; "<" is escaped for whoever inlines it.
        text = json.dumps(record, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
        line = f"playground.receive({json.dumps(address)}, {text});\n"
        self.write_bytes(f"{address}.js", line.encode("ascii"))

    def read(self, address: str) -> dict[str, Any]:
        """What `write` has written."""
        return read_data(self._next.path / f"{address}.js")

    def picture(self, address: str, picture: Image.Image, quality: int = 85) -> None:
        """Writes a picture as a JPEG file; the address ends in ".jpg"."""
        data = io.BytesIO()
        picture.save(data, "JPEG", quality=quality, optimize=True)
        self.write_bytes(address, data.getvalue())

    def write_bytes(self, name: str, data: bytes) -> None:
        """Writes a file, unless it is there."""
        if name in self._intact and self._next.files.digest_of(name) == digest([data]):
            self._next.files.keep(name)
            return
        self._is_same = False
        self._next.files.write_bytes(name, data)
        self._intact.add(name)

    def finish(self, page: str) -> Path:
        """Has visitors see this edition, and removes all that is not a part of it.

        Args:
            page: the text of index.html.

        Returns:
            Its path.
        """
        home, seen = self._home, self._home.seen
        self._next.keys = self._keys
        self._next.files.keep(RECORD)
        self._next.files.finish()
        self._next.save(whole=True)
        if self._is_same and seen is not None and seen.files.files == self._next.files.files:
            return home.stay(page)
        return home.publish(page)

    def _check(self, starts: tuple[str, ...], last: str | None) -> bool:
        """Sees which files of a step the edition has."""
        names = self._next.names(starts)
        intact = [name for name in names if self._next.files.is_intact(name)]
        whole = last is not None and f"{last}.js" in names and len(intact) == len(names)
        kept = {*intact} if whole or last is None else set[str]()
        self._intact |= kept
        for name in names:
            if name not in kept:
                self._next.files.remove(name)
            elif whole:
                self._next.files.keep(name)
        return whole

    def _take(self, edition: Edition, starts: tuple[str, ...], last: str | None) -> bool:
        """Takes over files of a step from another edition."""
        names = [name for name in edition.names(starts) if name not in self._intact]
        if last is not None:
            if f"{last}.js" not in names:
                return False
            names.sort(key=lambda name: name == f"{last}.js")
        taken = []
        for name in names:
            if self._next.files.take(name, edition.path / name, edition.files.digest_of(name)):
                taken.append(name)
                continue
            self._is_same = False
            if last is not None:
                for each in taken:
                    self._next.files.remove(each)
                return False
        self._intact.update(taken)
        for name in taken if last is not None else ():
            self._next.files.keep(name)
        return last is not None


def read_data(path: Path) -> dict[str, Any]:
    """A file of data, as `SiteFolder.write` has written it.

    Raises:
        ValueError: it is something else.
        OSError: it cannot be read.
    """
    text = path.read_text("ascii")
    if not text.startswith("playground.receive("):
        raise ValueError(f"{path}: expected a file of data of a site, got something else")
    found: dict[str, Any] = json.loads(text[text.index(", ") + 2 : text.rindex(")")])
    return found


def packed(values: NDArray[Any], kind: str) -> dict[str, Any]:
    """An array as the pages read it: "uint8", "uint16", "uint32" or "float32"."""
    data = np.ascontiguousarray(values, dtype=_TYPES[kind]).tobytes()
    return {
        "type": kind,
        "shape": [*values.shape],
        "data": base64.b64encode(data).decode("ascii"),
    }
