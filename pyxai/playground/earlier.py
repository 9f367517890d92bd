"""Explanations that an earlier edition of a site has, by the photos that they are of."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pyxai.playground.writing import read_data


class EarlierExplanations:
    """Those in some files of data, which are read when the first one is asked for.

    Photos that are new or gone move all that follow into other files; what is said of each stays.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        """Takes note of files as `write_explanations` writes them, none of them damaged."""
        self._files = iter(files)
        self._places: dict[str, tuple[Path, int]] | None = None
        self._open: tuple[Path, list[Any]] | None = None

    def get(self, mark: str) -> dict[str, Any] | None:
        """What was said of a photo.

        Args:
            mark: what it depends on.
        """
        if self._places is None:
            self._places = {}
            for path in self._files:
                marks = read_data(path).get("of", [])
                self._places.update({each: (path, at) for at, each in enumerate(marks) if each})
        if mark not in self._places:
            return None
        path, at = self._places[mark]
        if self._open is None or self._open[0] != path:
            self._open = path, read_data(path)["photos"]
        found: dict[str, Any] = self._open[1][at]
        return found
