"""Many photos, one after the other, from folders, lists, generators and batches."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
import torch
from PIL import Image

from pyxai._errors import describe
from pyxai._outputs import Written, written_in
from pyxai.images.errors import ImageError, PhotoWarning, printable
from pyxai.images.reading import PhotoSource, open_photo

PhotoSources: TypeAlias = PhotoSource | Iterable[PhotoSource]
"""One photo, a folder of them, or several of either."""

SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif"),
        *(".bmp", ".dib", ".tif", ".tiff", ".avif", ".heic", ".heif"),
        *(".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".qoi"),
    )
)
"""The files of a folder that are taken for photos, by suffix, in upper or lower case."""

Opened = TypeVar("Opened")
_EXPECTED = "expected photos: paths, folders, PIL images, uint8 arrays or tensors"


def find_photos(source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The photo files of a folder and of all folders in it, by suffix; nothing is opened.

    Args:
        source: A folder, a file (returned whatever its suffix), or several of them.

    Returns:
        Paths that begin with the source as given, sorted by name, folder by folder. Files and
        folders whose name begins with a dot are skipped, and so is what pyxai has written (the
        list in a folder of results says what that is). Links to folders are not followed, but for
        the source itself; links to photos are photos.

    Warns:
        PhotoWarning: There are links to folders.

    Raises:
        ImageError: A path does not exist, a folder cannot be listed or holds no photo.
    """
    paths = []
    single = isinstance(source, (str, os.PathLike))
    for each in cast("Iterable[object]", (source,) if single else source):
        if not isinstance(each, (str, os.PathLike)):
            raise ImageError("source", f"expected a path or several, got {describe(each)}")
        path = os.fsdecode(each)
        if not _is_folder(path):
            if not path or not Path(path).exists():
                raise ImageError(path, "no such file or folder")
            paths.append(Path(path))
            continue
        for found in _walk(path):
            if isinstance(found, ImageError):
                raise found
            paths.append(Path(found))
    return paths


def iterate_photos(sources: PhotoSources) -> Iterator[tuple[str, Image.Image | ImageError]]:
    """Opens photos one after the other; a bad one is handed out as an error and does not stop it.

    At no time is more than one photo held, and a generator is asked for the next source only when
    the next photo is asked for.

    Args:
        sources: Anything that `open_photo` opens; a folder, read as `find_photos` does; a list,
            tuple, generator or other iterable of these; or a batch of photos, a uint8 tensor
            `[N, 3, H, W]` (or `[N, H, W, 3]`) or array `[N, H, W, 3]`. Patterns such as "*.jpg"
            are not expanded.

    Returns:
        An iterator of (name, photo or the `ImageError` that it raised). The name is the path, as
        given, or "images[i]" with the place of the source. An empty folder is one error.

    Raises:
        ImageError: At once, when the sources as a whole are of a kind not listed above.
    """
    return _each(_separate(sources), _attempt)


def name_photos(sources: PhotoSources) -> Iterator[tuple[str, PhotoSource | ImageError]]:
    """The photos that `iterate_photos` opens, with their names, and not opened.

    Args:
        sources: See `iterate_photos`.

    Returns:
        An iterator of (name, what `open_photo` opens, or an `ImageError` for a folder that cannot
        be listed or holds no photo).

    Raises:
        ImageError: See `iterate_photos`.
    """
    return _each(_separate(sources), lambda source, name: source)


def _separate(sources: object) -> Iterator[object]:
    """The sources one by one; which of them are folders is seen later."""
    if isinstance(sources, (torch.Tensor, np.ndarray)):
        uint8 = torch.uint8 if isinstance(sources, torch.Tensor) else np.uint8
        if sources.dtype != uint8:
            hint = "scale pixels to 0…255 and convert them to uint8"
            if isinstance(sources, torch.Tensor) and sources.is_floating_point():
                hint = "a floating-point tensor is model input and not photos"
            raise ImageError("images", f"{_EXPECTED}, got {describe(sources)}; {hint}")
        return iter(sources if sources.ndim == 4 else [sources])
    single = isinstance(sources, (str, os.PathLike, Image.Image, bytes, bytearray, memoryview))
    if single or callable(getattr(sources, "read", None)):
        return iter([sources])
    if not isinstance(sources, Iterable) or isinstance(sources, (Mapping, Set)):
        raise ImageError("images", f"{_EXPECTED}, or a list of them, got {describe(sources)}")
    return iter(sources)


def _each(
    sources: Iterator[object], open_: Callable[[Any, str], Opened]
) -> Iterator[tuple[str, Opened | ImageError]]:
    index = -1
    for source in sources:
        index += 1
        if not isinstance(source, (str, os.PathLike)):
            name = f"images[{index}]"
            held = [source]
            del source  # no photo is held here while the consumer works or the next one is made
            yield name, open_(held.pop(), name)
            continue
        path = os.fsdecode(source)
        for found in _walk(path) if _is_folder(path) else (path,):
            if isinstance(found, ImageError):
                yield found.name, found
            else:
                yield found, open_(found, found)


def _attempt(source: object, name: str) -> Image.Image | ImageError:
    try:
        return open_photo(cast(PhotoSource, source), name=name)
    except ImageError as error:
        return ImageError(error.name, error.reason)  # without the frames that hold the pixels


def _is_folder(path: str) -> bool:
    try:
        return bool(path) and Path(path).is_dir()
    except (OSError, ValueError):  # too long or not a path at all: an error when it is opened
        return False


def class_folders(root: str | os.PathLike[str]) -> list[Path]:
    """The folders right below one, by name, that hold photos of others.

    Hidden ones, links, and folders with nothing but what pyxai has written are left out.

    Warns:
        PhotoWarning: There are links to folders.

    Raises:
        OSError: The folder cannot be listed.
    """
    of_root = written_in(root)
    found, links = [], []
    for path, kind in reversed(_entries(os.fsdecode(root))):
        if kind == _LINK:
            links.append(path)
        if kind != _FOLDER:
            continue
        name, own = Path(path).name, written_in(path)
        is_used = of_root is not None and any(each.startswith(f"{name}/") for each in of_root.files)
        lists: _Lists = () if of_root is None else ((of_root, f"{name}/"),)
        if (own is None or not own.whole) and (
            not (is_used or own is not None) or _has_photos(path, lists)
        ):
            found.append(Path(path))
    if links:
        _warn_of(links, os.fsdecode(root))
    return found


def _has_photos(folder: str, lists: _Lists) -> bool:
    return any(not isinstance(each, ImageError) for each in _walk(folder, lists, quiet=True))


_PHOTO, _FOLDER, _LINK = range(3)
_Lists: TypeAlias = "tuple[tuple[Written, str], ...]"
_Entry: TypeAlias = "tuple[str, int, _Lists]"
"""A path, what it is, and the lists of the folders above, each with the way from there."""


def _walk(folder: str, above: _Lists = (), *, quiet: bool = False) -> Iterator[str | ImageError]:
    """The photo files below a folder in the order of their names, and the folders that fail.

    Links to folders are not followed, which is said once, in a warning; what pyxai has written is
    passed over, as the lists in the folders say, and those above it.
    """
    found_any = False
    links: list[str] = []
    ours = 0
    stack: list[_Entry] = [(folder, _FOLDER, above)]
    while stack:
        path, kind, lists = stack.pop()
        name = os.path.basename(path)  # noqa: PTH119
        if kind == _LINK:
            links.append(path)
        elif kind == _PHOTO:
            if any(written.wrote(way + name, Path(path)) for written, way in lists):
                ours += 1
                continue
            found_any = True
            yield path
        else:
            is_root = path == folder
            own = written_in(path)
            if own is not None and own.whole and not is_root:
                ours += 1
                continue
            below = lists if is_root else tuple((each, f"{way}{name}/") for each, way in lists)
            below += () if own is None else ((own, ""),)
            try:
                stack += ((*each, below) for each in _entries(path))
            except OSError as error:
                found_any = True
                yield ImageError(path, f"the folder cannot be listed: {error.strerror}")
    if not found_any:
        found = "found none; files are told by their suffix, such as .jpg and .png"
        if ours:
            found = "found none but what pyxai has written there"
        if links:
            found += f"; links to folders are not followed: {_some(links)}"
        yield ImageError(folder, f"expected a folder with photos, {found}")
    elif links and not quiet:
        _warn_of(links, folder)


def _warn_of(links: Sequence[str], folder: str) -> None:
    warnings.warn(
        f"{printable(folder)}: links to folders are not followed: {_some(links)}; name these "
        "folders beside it if they are meant",
        PhotoWarning,
        stacklevel=4,
    )


def _some(links: Sequence[str]) -> str:
    """The first of several links."""
    more = f" and {len(links) - 3} more" if len(links) > 3 else ""
    return ", ".join(map(printable, links[:3])) + more


def _entries(folder: str) -> list[tuple[str, int]]:
    """Photo files, folders and links to folders in it, last name first."""
    entries = []
    with os.scandir(folder) as listing:
        for entry in listing:
            if entry.name.startswith("."):
                continue
            kind = _PHOTO
            try:
                if entry.is_dir():
                    kind = _LINK if entry.is_symlink() else _FOLDER
            except OSError:  # a link that leads nowhere: an error when it is opened
                pass
            if kind != _PHOTO or os.path.splitext(entry.name)[1].lower() in SUFFIXES:  # noqa: PTH122
                entries.append((entry.path, kind))
    return sorted(entries, reverse=True)
