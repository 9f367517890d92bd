"""The class of a photo, told from its path."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from pyxai._errors import argument_error

Labels: TypeAlias = "str | Callable[[str], str | None] | None"


def labeller(photos: object, labels: Labels) -> Callable[[str], str | None]:
    """Tells the class of a photo from its path.

    Raises:
        ValueError: `labels` is none of those that `ImageIndex.build` lists.
    """
    if labels is None:
        return lambda name: None
    if callable(labels):
        return labels
    if labels != "folder":
        raise argument_error("labels", "'folder', None or a function of the path", labels)
    single = isinstance(photos, (str, os.PathLike))
    several = photos if isinstance(photos, (list, tuple)) else ()
    sources = [photos] if single else several
    roots = {Path(each) for each in _paths(sources) if Path(each).is_dir()}

    def label(name: str) -> str | None:
        path = Path(name)
        for root in path.parents:
            if root in roots:
                below = path.relative_to(root).parts
                return below[0] if len(below) > 1 else None
        return path.parent.name or None if path.parent != path and not roots else None

    return label


def _paths(sources: Iterable[object]) -> Iterator[str]:
    return (os.fsdecode(each) for each in sources if isinstance(each, (str, os.PathLike)))
