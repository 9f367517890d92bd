"""Labelled photos that can be used, as pixels, and what is left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from pyxai.images import ImageError, open_photo
from pyxai.train.listing import Listing

CACHE_BYTES = 1 << 30
"""Pixels that one set of photos keeps in memory; photos beyond that are read in every epoch."""


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
        self.labels = torch.tensor(labels, dtype=torch.int64, device="cpu")
        self.sizes = torch.tensor(sizes, dtype=torch.int64, device="cpu").reshape(-1, 2)

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
