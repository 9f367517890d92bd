"""The class of a photo, told from its path."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from pyxai._errors import argument_error
from pyxai.images import FolderLabels

Labels: TypeAlias = "str | Callable[[str], str | None] | None"


def labeler(photos: object, labels: Labels) -> Callable[[str], str | None]:
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
    return FolderLabels(photos).label
