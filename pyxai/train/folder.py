"""Photos with labels: a folder a class, what is left out and why, and their pixels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from pyxai._errors import argument_error
from pyxai.images import ImageError, find_photos, open_photo

CACHE_BYTES = 1 << 30
"""Pixels that one set of photos keeps in memory; photos beyond that are read in every epoch."""

SHARE = 0.2
"""Part of each class that is held out for validation where none is given."""

Folder = str | os.PathLike[str]


@dataclass(frozen=True)
class Listing:
    """Photo files and the names of their classes, in a fixed order; nothing was opened."""

    paths: tuple[Path, ...]
    names: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, sorted."""
        return tuple(sorted(set(self.names)))


def list_photos(folder: Folder, *, argument: str = "folder") -> Listing:
    """The photos of a folder with a sub-folder for each class.

    Raises:
        ValueError: there is no such folder, it has fewer than two sub-folders, or one is empty.
    """
    root = Path(folder)
    if not root.is_dir():
        raise argument_error(argument, "a folder with a sub-folder for each class", str(root))
    classes = sorted(each for each in root.iterdir() if each.is_dir() and each.name[0] != ".")
    if len(classes) < 2:
        expected = f"a sub-folder for each of two or more classes in {root}"
        raise argument_error(argument, expected, [each.name for each in classes] or "none")
    paths: list[Path] = []
    names: list[str] = []
    for each in classes:
        found = find_photos(each)  # an empty folder is an error
        paths += found
        names += [each.name] * len(found)
    return Listing(tuple(paths), tuple(names))


def training_and_validation(
    folder: Folder, valid: Folder | float | None, seed: int
) -> tuple[Listing, Listing]:
    """The photos to train on and those to judge by; see `pyxai.fine_tune`.

    Raises:
        ValueError: as `list_photos`; the share is not between 0 and 1; a class has too few photos
            to hold some out; or validation has a class that training has not.
    """
    root = Path(folder)
    has_both = (root / "train").is_dir() and (root / "valid").is_dir()
    if valid is None and has_both:
        valid = root / "valid"
    train = list_photos(root / "train" if has_both else root)
    if isinstance(valid, (str, os.PathLike)):
        held_out = list_photos(valid, argument="valid")
        unknown = sorted(set(held_out.names) - set(train.names))
        if unknown:
            raise argument_error("valid", f"classes among {[*train.classes]}", unknown)
        return train, held_out
    share = SHARE if valid is None else valid
    if isinstance(share, bool) or not isinstance(share, float) or not 0 < share < 1:
        raise argument_error("valid", "a folder, or a share between 0 and 1", valid)
    return _split(train, share, seed)


def _split(listing: Listing, share: float, seed: int) -> tuple[Listing, Listing]:
    generator = torch.Generator().manual_seed(seed)
    held_out: set[int] = set()
    for name in listing.classes:
        places = [place for place, each in enumerate(listing.names) if each == name]
        count = max(1, round(share * len(places)))
        if count >= len(places):
            expected = f"a share that leaves photos of {name!r}, of which there are {len(places)}"
            raise argument_error("valid", expected, share)
        order = torch.randperm(len(places), generator=generator)[:count].tolist()
        held_out.update(places[each] for each in order)

    def part(of_held_out: bool) -> Listing:
        kept = [each for each in range(len(listing.paths)) if (each in held_out) == of_held_out]
        return Listing(
            tuple(listing.paths[each] for each in kept), tuple(listing.names[each] for each in kept)
        )

    return part(False), part(True)


class PhotoSet:
    """Labelled photos that can be read and are large enough, as pixels.

    Attributes:
        labels: `[n]` int64, places in `class_names`.
        sizes: `[n, 2]` int64, (height, width).
        unreadable: (path, reason) of each photo that cannot be read.
        too_small: paths of the photos with a side shorter than `smallest`.
    """

    def __init__(
        self,
        listing: Listing,
        class_names: tuple[str, ...],
        view: Callable[[Image.Image], Image.Image],
        *,
        smallest: int = 1,
        description: str = "photos",
        progress: bool = True,
    ) -> None:
        """Reads every photo once.

        Args:
            listing: the photos.
            class_names: all classes, in the order of the labels.
            view: what is done to a photo before its pixels are taken.
            smallest: photos with a shorter side in pixels are left out.
            description: of the progress bar.
            progress: False shows none, nor does an output that is no terminal.
        """
        self._view = view
        self._paths: list[Path] = []
        self._kept: dict[int, torch.Tensor] = {}
        self.unreadable: list[tuple[str, str]] = []
        self.too_small: list[str] = []
        labels, sizes, free = [], [], CACHE_BYTES
        quiet = None if progress else True
        pairs = zip(listing.paths, listing.names, strict=True)
        for path, name in tqdm(
            pairs, desc=description, total=len(listing.paths), unit="photo", disable=quiet
        ):
            try:
                pixels = self._read(path)
            except ImageError as error:
                self.unreadable.append((str(path), error.reason))
                continue
            if min(pixels.shape[1:]) < smallest:
                self.too_small.append(str(path))
                continue
            free -= pixels.numel()
            if free >= 0:
                self._kept[len(self._paths)] = pixels
            self._paths.append(path)
            labels.append(class_names.index(name))
            sizes.append(tuple(pixels.shape[1:]))
        self.labels = torch.tensor(labels, dtype=torch.int64)
        self.sizes = torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self._paths)

    def pixels(self, place: int) -> torch.Tensor:
        """The pixels of a photo, uint8 `[3, H, W]`.

        Raises:
            ImageError: it could be read before, but no longer.
        """
        kept = self._kept.get(place)
        return self._read(self._paths[place]) if kept is None else kept

    def _read(self, path: Path) -> torch.Tensor:
        pixels = np.array(self._view(open_photo(path)))
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def without_photos(self, class_names: tuple[str, ...]) -> list[str]:
        """The classes of which no photo is left."""
        counts = Counter(self.labels.tolist())
        return [name for label, name in enumerate(class_names) if not counts[label]]

    def left_out(self) -> str:
        """What was left out, in words."""
        first = f", {self.unreadable[0][0]}: {self.unreadable[0][1]}" if self.unreadable else ""
        return (
            f"{len(self.too_small)} smaller than the crop, {len(self.unreadable)} unreadable{first}"
        )
