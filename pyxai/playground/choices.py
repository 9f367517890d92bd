"""Where the photos of a site are, by data set."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from pyxai._errors import argument_error

PathLike: TypeAlias = "str | os.PathLike[str]"
Paths: TypeAlias = "PathLike | Sequence[PathLike]"


def name_sets(photos: Paths | Mapping[str, Paths]) -> dict[str, list[Path]]:
    """Folders and files of each data set by its name.

    Raises:
        ValueError: they are no paths.
    """
    expected = "a folder, files, or a mapping of names to these (photos must be files)"
    given: Mapping[str, Any] = photos if isinstance(photos, Mapping) else {"": photos}
    found: dict[str, list[Path]] = {}
    for name, paths in given.items():
        several = [paths] if isinstance(paths, (str, os.PathLike)) else paths
        if not isinstance(several, Iterable):
            raise argument_error("photos", expected, paths)
        several = list(several)
        if not several or not all(isinstance(each, (str, os.PathLike)) for each in several):
            raise argument_error("photos", expected, photos)
        listed = [Path(os.fsdecode(each)) for each in several]
        found[str(name) or listed[0].resolve().name or "photos"] = listed
    if not found:
        raise argument_error("photos", expected, photos)
    return found
