"""The best crops of each class, kept in bounded memory while photos stream by.

Which crops are kept does not depend on the order of the photos: candidates have a total order (by
score, then name and box), each class keeps the first so many of it, and what looks alike is left
out at the end.
"""

from __future__ import annotations

import heapq
import re
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image

from pyxai.attribution.windows.overlap import apart
from pyxai.classifier.outputs import class_of_folder
from pyxai.galleries.contents import Settings, Tally
from pyxai.galleries.evidence import WindowEvidence
from pyxai.images import FolderLabels
from pyxai.runs.photos import is_in_memory

POOL = 4  # candidates kept for each crop wanted, as some will turn out to look alike
ALIKE = 0.95
THUMBNAIL = 16  # side in pixels

# Of SSIM's term for contrast and structure, for grey values up to 255 (Wang et al. 2004).
_CONSTANT = (0.03 * 255) ** 2
_IN_MEMORY = re.compile(r"images\[\d+\]")


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A crop that may be kept.

    Attributes:
        score: the logarithm of the class's probability.
        name: of the photo.
        box: (x0, y0, x1, y1).
        thumbnail: 16 × 16 grey values.
        pixels: its RGB bytes where the photo cannot be read again, else None.
    """

    score: float
    name: str
    box: tuple[int, int, int, int]
    thumbnail: bytes
    pixels: bytes | None = None

    def __lt__(self, other: Candidate) -> bool:
        """Whether it is worse; no two with the same photo and box compare."""
        if self.score != other.score:
            return self.score < other.score
        return (self.name, self.box) > (other.name, other.box)


@dataclass
class Selection:
    """Candidates of all classes.

    Attributes:
        settings: of the gallery.
        class_names: one a class, or None.
        folders: what the folders of the photos say.
        pools: for each class that has any, at most `POOL` × per_class candidates, a heap with the
            worst at its root.
        class_count: K, once a photo was looked at.
        tally: what became of the photos.
    """

    settings: Settings
    class_names: tuple[str, ...] | None
    folders: FolderLabels = field(default_factory=lambda: FolderLabels(None))
    pools: dict[int, list[Candidate]] = field(default_factory=dict)
    class_count: int | None = None
    tally: Tally = field(default_factory=Tally)

    def start_anew(self) -> None:
        """Forgets all photos."""
        self.pools.clear()
        self.class_count, self.tally = None, Tally()

    def label(self, name: str) -> str | None:
        """The class that the folder of a photo is named after, or None."""
        return class_of_folder(self.folders, name, self.class_names)

    def wants(self, name: str, photo: Image.Image) -> bool:
        """Counts a photo; whether it is to be looked at."""
        self.tally.photos += 1
        if min(photo.size) < self.settings.crop:
            self.tally.smaller += 1
            return False
        if self.settings.labels and self.label(name) is None:
            self.tally.unnamed += 1
            return False
        return True

    def offer(self, name: str, photo: Image.Image, found: WindowEvidence) -> None:
        """Takes the best windows of a photo, at most `per_photo` for each class."""
        self.class_count = found.class_count
        label = self.label(name) if self.settings.labels else None
        for index in np.unique(found.classes).tolist():
            if label is None or (self.class_names and self.class_names[index] == label):
                self._offer_class(index, name, photo, found)

    def _offer_class(
        self, index: int, name: str, photo: Image.Image, found: WindowEvidence
    ) -> None:
        pool = self.pools.setdefault(index, [])
        full = len(pool) >= POOL * self.settings.per_class
        wanted = (found.classes == index) & np.isfinite(found.scores)
        if full:  # worse ones can neither enter nor suppress better ones
            wanted &= found.scores >= pool[0].score
        places = np.flatnonzero(wanted)
        order = places[np.argsort(-found.scores[places], kind="stable")]
        boxes, settings = torch.from_numpy(found.boxes), self.settings
        best = apart(torch.from_numpy(order), boxes, settings.per_photo, settings.max_overlap)
        for place in best:
            x0, y0, x1, y1 = found.boxes[place].tolist()
            crop = photo.crop((x0, y0, x1, y1))
            side = (THUMBNAIL, THUMBNAIL)
            candidate = Candidate(
                float(found.scores[place]),
                name,
                (x0, y0, x1, y1),
                crop.convert("L").resize(side, Image.Resampling.BOX).tobytes(),
                crop.tobytes() if is_in_memory(name) else None,
            )
            if len(pool) < POOL * self.settings.per_class:
                heapq.heappush(pool, candidate)
            else:
                heapq.heappushpop(pool, candidate)

    def best(self, index: int) -> tuple[list[Candidate], int]:
        """The crops of a class, the best first, and how many were left out as near-duplicates."""
        candidates = sorted(self.pools.get(index, ()), reverse=True)
        return without_duplicates(candidates, self.settings.per_class)


def without_duplicates(candidates: list[Candidate], count: int) -> tuple[list[Candidate], int]:
    """The first `count` that look like none before them, and how many were left out.

    Two crops look alike if SSIM's term for contrast and structure, of their thumbnails as a whole,
    is 0.95 or more: `(2 cov(a, b) + C) / (var(a) + var(b) + C)`. For thumbnails of equal contrast
    that is their correlation. Brightness does not count; flat thumbnails are alike.
    """
    if not candidates:
        return [], 0
    values = np.frombuffer(b"".join(each.thumbnail for each in candidates), np.uint8)
    grey = values.reshape(len(candidates), -1).astype(np.float32)
    grey -= grey.mean(axis=1, keepdims=True)
    grey /= np.sqrt(grey.shape[1])  # products are covariances now
    variance = (grey**2).sum(axis=1)
    chosen: list[int] = []
    for place in range(len(candidates)):
        if len(chosen) == count:
            return [candidates[each] for each in chosen], place - count
        alike = (2 * grey[chosen] @ grey[place] + _CONSTANT) / (
            variance[chosen] + variance[place] + _CONSTANT
        )
        if not (alike >= ALIKE).any():
            chosen.append(place)
    return [candidates[each] for each in chosen], len(candidates) - len(chosen)
