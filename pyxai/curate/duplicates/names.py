"""Files by what they are: links, hard links and other spellings are names of one file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from pyxai._errors import argument_error

Source = str | os.PathLike[str]


def distinct(paths: Iterable[Path]) -> dict[Path, tuple[Path, ...]]:
    """Each file once, by the name that is best to use, with its other names.

    Of the names, one that is no link is best, then the first. Ways to spell the same name (`q/../p`
    beside `p`) are not other names; a spelling that goes straight there is best.

    Args:
        paths: of files, which need not be there.
    """
    here = Path.cwd()
    folders: dict[Path, str] = {}
    spellings: dict[str, Path] = {}
    for path in paths:
        if path.parent not in folders:
            folders[path.parent] = os.path.realpath(path.parent)
        real = os.path.join(folders[path.parent], path.name)  # noqa: PTH118
        known = spellings.get(real)
        if known is None or (str(here / path) == real != str(here / known)):
            spellings[real] = path
    files: dict[object, list[Path]] = {}
    for real, path in spellings.items():
        files.setdefault(_identity(path, real), []).append(path)
    found = {}
    for names in files.values():
        best = names[0] if len(names) == 1 else min(names, key=Path.is_symlink)
        found[best] = tuple(name for name in names if name is not best)
    return found


def _identity(path: Path, real: str) -> object:
    """The same for all names of a file."""
    try:
        status = path.stat()
    except OSError:  # an error when it is opened
        return real
    # Some file systems have no numbers.
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)


def place(path: Source) -> Path:
    """Where a file or link lies, whatever the links on the way; of a link, its own place."""
    given = Path(path)
    return Path(os.path.realpath(given.parent), given.name)


def root_of(sources: Sequence[Source], paths: Sequence[Path]) -> Path:
    """The folder searched, or that which all photos lie in.

    Raises:
        ValueError: they lie on several drives.
    """
    if len(sources) == 1 and Path(sources[0]).is_dir():
        return Path(sources[0])
    try:
        return Path(os.path.commonpath({_absolute(path.parent) for path in paths}))
    except ValueError as error:
        raise argument_error("photos", "folders on one drive", [*map(str, sources)]) from error


def below(path: Source, root: Source) -> Path:
    """The way from a folder to a file in it, by their names.

    Raises:
        ValueError: it lies elsewhere.
    """
    try:
        inner = Path(path).relative_to(root)
    except ValueError:
        inner = Path("..")
    return inner if ".." not in inner.parts else _absolute(path).relative_to(_absolute(root))


def lies_in(path: Source, folder: Source) -> bool:
    """Whether a path, which need not be there, is a folder or lies in it, also by links."""
    real = Path(os.path.realpath(path))
    return _absolute(path).is_relative_to(_absolute(folder)) or any(
        each.exists() and each.samefile(folder) for each in (real, *real.parents)
    )


def _absolute(path: Source) -> Path:
    """By names; only where a way goes up are links followed, as it goes up from where they lead."""
    given = Path(path)
    if ".." in given.parts:
        return Path(os.path.realpath(given)) if given.name == ".." else place(given)
    return Path.cwd() / given
