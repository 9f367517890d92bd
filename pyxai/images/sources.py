"""Many photos, one after the other, from folders, lists, generators and batches."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
import torch
from PIL import Image

from pyxai._errors import describe
from pyxai.images.errors import ImageError
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

_EXPECTED = "expected photos: paths, folders, PIL images, uint8 arrays or tensors"


def find_photos(source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The photo files of a folder and of all folders in it, by suffix; nothing is opened.

    Args:
        source: A folder, a file (returned whatever its suffix), or several of them.

    Returns:
        Paths that begin with the source as given, sorted by name, folder by folder. Files and
        folders whose name begins with a dot are skipped. Links to folders are followed, each real
        folder once, so links that form a loop do no harm.

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
    return _open_each(_separate(sources))


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


def _open_each(sources: Iterator[object]) -> Iterator[tuple[str, Image.Image | ImageError]]:
    index = -1
    for source in sources:
        index += 1
        if not isinstance(source, (str, os.PathLike)):
            name = f"images[{index}]"
            held = [source]
            del source  # no photo is held here while the consumer works or the next one is made
            yield name, _attempt(held.pop(), name)
            continue
        path = os.fsdecode(source)
        for found in _walk(path) if _is_folder(path) else (path,):
            if isinstance(found, ImageError):
                yield found.name, found
            else:
                yield found, _attempt(found, found)


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


def _walk(folder: str) -> Iterator[str | ImageError]:
    """The photo files below a folder in the order of their names, and the folders that fail."""
    found_any = False
    seen: set[tuple[int, int]] = set()
    stack = [(folder, True)]
    while stack:
        path, is_folder = stack.pop()
        if not is_folder:
            found_any = True
            yield path
            continue
        try:
            status = Path(path).stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            stack += _entries(path)
        except OSError as error:
            found_any = True
            yield ImageError(path, f"the folder cannot be listed: {error.strerror}")
    if not found_any:
        found = "found none; files are told by their suffix, such as .jpg and .png"
        yield ImageError(folder, f"expected a folder with photos, {found}")


def _entries(folder: str) -> list[tuple[str, bool]]:
    """Photo files and folders in it, with whether each is a folder, last name first."""
    entries = []
    with os.scandir(folder) as listing:
        for entry in listing:
            if entry.name.startswith("."):
                continue
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link that leads nowhere: an error when it is opened
                is_folder = False
            if is_folder or os.path.splitext(entry.name)[1].lower() in SUFFIXES:  # noqa: PTH122
                entries.append((entry.path, is_folder))
    return sorted(entries, reverse=True)
