"""Batches of photos as a network takes them: random crops, changed or not, or whole photos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from pyxai.images import Preprocessing
from pyxai.ops import crop_windows
from pyxai.train.augment import moved
from pyxai.train.photo_set import PhotoSet

Job = TypeVar("Job")
Result = TypeVar("Result")


def random_boxes(sizes: torch.Tensor, crop: int, generator: torch.Generator) -> torch.Tensor:
    """A square at a random place in each photo.

    Args:
        sizes: `[n, 2]` int64, (height, width), none below `crop`.
        crop: side of the squares in pixels.
        generator: where the places are drawn from.

    Returns:
        `[n, 4]` int64, (x0, y0, x1, y1); every place is equally likely.
    """
    # Float64: in float32 a number just below 1 could be rounded up to the first place outside.
    drawn = torch.rand(sizes.shape, generator=generator, dtype=torch.float64, device="cpu")
    corners = (drawn * (sizes - crop + 1)).long().flip(1)
    return torch.cat([corners, corners + crop], dim=1)


def whole_boxes(sizes: torch.Tensor) -> torch.Tensor:
    """The whole of each photo, as `random_boxes` gives its squares."""
    ends = sizes.flip(1)
    return torch.cat([torch.zeros_like(ends), ends], dim=1)


def normalized_batch(
    photos: PhotoSet,
    places: torch.Tensor,
    boxes: torch.Tensor,
    preprocessing: Preprocessing,
    mirrored: torch.Tensor | None = None,
    moves: torch.Tensor | None = None,
) -> torch.Tensor:
    """Boxes of photos, `[b, 3, h, w]` float32, normalised.

    Args:
        photos: where they are cut from.
        places: `[b]`, of the photos.
        boxes: `[n, 4]`, of all photos; those of the batch have one size.
        preprocessing: gives mean and deviation; no more is done.
        mirrored: `[n]` bool, which of all photos are turned left to right.
        moves: `[n, 2, 2]`, see `random_moves`; applied after that.
    """
    x0, y0, x1, y1 = boxes[places[0]].tolist()
    batch = torch.empty(len(places), 3, y1 - y0, x1 - x0, dtype=torch.float32, device="cpu")
    for row, place in enumerate(places.tolist()):
        crop_windows(
            photos.pixels(place),
            boxes[place : place + 1],
            mean=preprocessing.mean,
            std=preprocessing.std,
            out=batch[row : row + 1],
        )
    if mirrored is not None:
        turned = mirrored[places]
        batch[turned] = batch[turned].flip(3)
    return batch if moves is None else moved(batch, moves[places])


def one_ahead(work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
    """The results of jobs, in order; a thread works on the next one while one is in use."""
    with ThreadPoolExecutor(1) as worker:
        upcoming: Future[Result] | None = None
        for job in jobs:
            current, upcoming = upcoming, worker.submit(work, job)
            if current is not None:
                yield current.result()
        if upcoming is not None:
            yield upcoming.result()
