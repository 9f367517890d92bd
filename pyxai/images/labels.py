"""The class of a photo, told from the folders that it lies in: one meaning for all calls."""

from __future__ import annotations

import os
from pathlib import Path

_SPLITS = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
    "testing": "test",
}


class FolderLabels:
    """Labels and splits of photos that were given as folders and files.

    The label is the first folder below the one that was given; folders of a split (train, valid,
    test) are passed over. `data/cat/1.jpg`, `data/cat/kittens/2.jpg` and `data/train/cat/3.jpg` of
    `data` are of the class "cat". A photo right in the folder that was given has no class; where
    several folders were given, or files, it is the name of the folder that it lies in.

    A folder called "train" is a split only where there is no other folder beside it, or other
    splits with folders inside: among folders of other classes it is a class.
    """

    def __init__(self, photos: object) -> None:
        """Takes note of what was given.

        Args:
            photos: a folder or file, or a list or tuple of these; whatever else is passed over.
        """
        single = isinstance(photos, (str, os.PathLike))
        several = photos if isinstance(photos, (list, tuple)) else ()
        sources = [photos] if single else several
        paths = [_absolute(each) for each in sources if isinstance(each, (str, os.PathLike))]
        self._roots = {path for path in paths if path.is_dir()}
        self._has_splits: dict[Path, bool] = {}

    def label(self, path: str | os.PathLike[str], *, own: bool = False) -> str | None:
        """The class of a photo, or None.

        Args:
            path: of the photo.
            own: whether a photo right in the only folder that was given is of the class that this
                folder is named after.
        """
        root, names = self._below(path)
        if root is None:
            return next((name for name in reversed(names) if name.lower() not in _SPLITS), None)
        if names and names[0].lower() in _SPLITS and self._is_divided(root):
            names = names[1:]
        elif not names and (own or len(self._roots) > 1) and root.name.lower() not in _SPLITS:
            names = (root.name,)
        return (names[0] or None) if names else None

    def split(self, path: str | os.PathLike[str]) -> str | None:
        """The split that a photo belongs to, "train", "valid" or "test", or None."""
        root, names = self._below(path)
        if root is not None and not self._is_divided(root):
            names = names[1:]
        return next((_SPLITS[name.lower()] for name in names if name.lower() in _SPLITS), None)

    def _below(self, path: str | os.PathLike[str]) -> tuple[Path | None, tuple[str, ...]]:
        """The folder that was given and holds a photo, and the names of those between them."""
        there = _absolute(path)
        for folder in there.parents:
            if folder in self._roots:
                return folder, there.relative_to(folder).parts[:-1]
        return None, there.parts[1:-1]

    def _is_divided(self, root: Path) -> bool:
        if root not in self._has_splits:
            self._has_splits[root] = is_divided(root)
        return self._has_splits[root]


def is_divided(root: str | os.PathLike[str]) -> bool:
    """Whether folders called train, valid or test, right below one, are splits and not classes.

    They are if there are no others, or if there are several of them with folders inside.
    """
    names = _folders(root)
    splits = [name for name in names if name.lower() in _SPLITS]
    if len(splits) == len(names):
        return True
    several = len({_SPLITS[name.lower()] for name in splits}) > 1
    return several and any(_folders(Path(root) / name) for name in splits)


def split_folders(root: str | os.PathLike[str]) -> dict[str, Path]:
    """The folders of the splits right below one, by "train", "valid" and "test"."""
    if not is_divided(root):
        return {}
    there = {name.lower(): Path(root) / name for name in _folders(root)}
    # The first name counts where there are several: "valid" rather than "val".
    return {_SPLITS[name]: there[name] for name in reversed(_SPLITS) if name in there}


def _folders(root: str | os.PathLike[str]) -> list[str]:
    try:
        with os.scandir(root) as entries:
            found = [entry.name for entry in entries if entry.is_dir() and entry.name[0] != "."]
    except OSError:
        return []
    return sorted(map(os.fsdecode, found))


def _absolute(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.abspath(os.fsdecode(path)))  # noqa: PTH100 - links are not followed
