"""The best crops of each class, kept in bounded memory while photos stream by.

Which crops are kept does not depend on the order of the photos: candidates have a total order (by
score, then name and box), each class keeps the first so many of it, and what looks alike is left
out at the end.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image

from pyxai.attribution.windows.overlap import apart
from pyxai.classifier.outputs import class_of_folder
from pyxai.galleries.contents import Settings, Tally
from pyxai.galleries.evidence import Evidence, WindowEvidence
from pyxai.images import FolderLabels
from pyxai.runs import OpenPhoto, Part, Row

POOL = 4  # candidates kept for each crop wanted, as some will turn out to look alike
ALIKE = 0.95
THUMBNAIL = 16  # side in pixels

# Of SSIM's term for contrast and structure, for grey values up to 255 (Wang et al. 2004).
_CONSTANT = (0.03 * 255) ** 2

_SMALLER, _UNNAMED = "smaller", "unnamed"  # why a photo was not searched


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


class Search:
    """The work of a gallery: the best windows of each photo, at most `per_photo` of each class."""

    def __init__(
        self, evidence: Evidence, settings: Settings, class_names: tuple[str, ...] | None
    ) -> None:
        """Takes note; see `choose_evidence`."""
        self._evidence, self._settings, self._class_names = evidence, settings, class_names

    def __call__(self, photos: Iterator[OpenPhoto]) -> Iterator[Row]:
        """See `pyxai.runs.working.Work`; rows say how many classes there are, or why none."""
        for photo in photos:
            if min(photo.picture.size) < self._settings.crop:
                yield self._row(photo, _SMALLER)
            elif self._settings.labels and not photo.key:
                yield self._row(photo, _UNNAMED)
            else:
                seen = self._evidence(photo.picture)
                yield self._row(photo, seen.class_count, seen, self._best(seen, photo.key))

    def _best(self, seen: WindowEvidence, label: str) -> list[int]:
        """The windows that are candidates."""
        best: list[int] = []
        boxes, settings = torch.from_numpy(seen.boxes), self._settings
        for index in np.unique(seen.classes).tolist():
            if label and self._class_names and self._class_names[index] != label:
                continue
            (places,) = np.nonzero((seen.classes == index) & np.isfinite(seen.scores))
            order = places[np.argsort(-seen.scores[places], kind="stable")]
            best += apart(torch.from_numpy(order), boxes, settings.per_photo, settings.max_overlap)
        return best

    def _row(
        self,
        photo: OpenPhoto,
        about: int | str,
        seen: WindowEvidence | None = None,
        best: list[int] | None = None,
    ) -> Row:
        crops = [photo.picture.crop(seen.boxes[at].tolist()) for at in best or () if seen]
        side = (THUMBNAIL, THUMBNAIL)
        small = [each.convert("L").resize(side, Image.Resampling.BOX) for each in crops]
        at = np.array(best or [], np.int64)
        nothing = np.zeros(0)
        lists = {
            "scores": torch.from_numpy(seen.scores[at] if seen else nothing),
            "classes": torch.from_numpy(seen.classes[at] if seen else nothing.astype(np.int64)),
            "boxes": torch.from_numpy(
                seen.boxes[at] if seen else nothing.astype(np.int64).reshape(0, 4)
            ),
            "thumbnails": _bytes([each.tobytes() for each in small], THUMBNAIL**2),
            "pixels": _bytes(
                [] if photo.is_file else [each.tobytes() for each in crops],
                3 * self._settings.crop**2,
            ),
        }
        return Row(photo.name, about, lists=lists)


def _bytes(rows: list[bytes], width: int) -> torch.Tensor:
    """`[n, width]` uint8."""
    return torch.from_numpy(np.frombuffer(bytearray(b"".join(rows)), np.uint8).reshape(-1, width))


@dataclass
class Selection:
    """Candidates of all classes.

    Attributes:
        settings: of the gallery.
        class_names: one a class, or None.
        folders: what the folders of the photos say.
        pools: for each class that has any, at most `POOL` × per_class candidates, a heap with the
            worst at its root.
        class_count: K, once a photo was searched.
        tally: what became of the photos.
    """

    settings: Settings
    class_names: tuple[str, ...] | None
    folders: FolderLabels = field(default_factory=lambda: FolderLabels(None))
    pools: dict[int, list[Candidate]] = field(default_factory=dict)
    class_count: int | None = None
    tally: Tally = field(default_factory=Tally)

    def label(self, name: str) -> str | None:
        """The class that the folder of a photo is named after, or None."""
        return class_of_folder(self.folders, name, self.class_names)

    def key(self, name: str) -> str:
        """What decides which windows of a photo may be candidates, besides its pixels."""
        return (self.label(name) or "") if self.settings.labels else ""

    def take(self, part: Part) -> None:
        """Takes what `Search` has found in some photos."""
        names = ("scores", "classes", "boxes", "thumbnails", "pixels")
        rows = zip(part.photos, *(part.lists(name) for name in names), strict=True)
        for photo, scores, classes, boxes, thumbnails, pixels in rows:
            if photo.about == _SMALLER:
                self.tally.smaller += 1
            elif photo.about == _UNNAMED:
                self.tally.unnamed += 1
            else:
                self.class_count = int(photo.about)
            for at, (score, index) in enumerate(
                zip(scores.tolist(), classes.tolist(), strict=True)
            ):
                x0, y0, x1, y1 = boxes[at].tolist()
                kept = pixels[at].numpy().tobytes() if len(pixels) else None
                thumbnail = thumbnails[at].numpy().tobytes()
                self._offer(index, Candidate(score, photo.path, (x0, y0, x1, y1), thumbnail, kept))

    def _offer(self, index: int, candidate: Candidate) -> None:
        pool = self.pools.setdefault(index, [])
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
    gray = values.reshape(len(candidates), -1).astype(np.float32)
    gray -= gray.mean(axis=1, keepdims=True)
    gray /= np.sqrt(gray.shape[1])  # products are covariances now
    variance = (gray**2).sum(axis=1)
    chosen: list[int] = []
    for place in range(len(candidates)):
        if len(chosen) == count:
            return [candidates[each] for each in chosen], place - count
        alike = (2 * gray[chosen] @ gray[place] + _CONSTANT) / (
            variance[chosen] + variance[place] + _CONSTANT
        )
        if not (alike >= ALIKE).any():
            chosen.append(place)
    return [candidates[each] for each in chosen], len(candidates) - len(chosen)
