"""What one may search by: photos, pieces of photos, ids of the index, model input."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image

from pyxai._errors import argument_error
from pyxai.images import PhotoSource, is_model_input, open_photo
from pyxai.search.contents import Photo

Query: TypeAlias = "int | PhotoSource"
Box: TypeAlias = tuple[int, int, int, int]


@dataclass(frozen=True)
class OneQuery:
    """A query that was looked at.

    Attributes:
        name: its path, or "images[i]".
        id: of the photo in the index, or None.
        images: what the network gets; None for a photo of the index as a whole.
        picture: what to show, where no file has it.
    """

    name: str
    id: int | None
    images: Any = None
    picture: Image.Image | None = None

    @property
    def is_stored(self) -> bool:
        """Whether the index has its features."""
        return self.images is None


def read_queries(
    query: Any, photos: Sequence[Photo], box: Box | None
) -> tuple[list[OneQuery], bool]:
    """The queries one by one, and whether it is a single one; see `ImageIndex.search`.

    Raises:
        ValueError: there are none, an id is not in the index, or the box does not fit.
        pyxai.images.ImageError: a photo cannot be read.
    """
    queries, single = several(query)
    if not queries:
        raise argument_error("query", "a photo, an id, or several", query)
    return [_read(each, at, photos, box) for at, each in enumerate(queries)], single


def _read(query: Any, at: int, photos: Sequence[Photo], box: Box | None) -> OneQuery:
    number = id_of(query, len(photos))
    name = name_of(query, at, number, photos)
    if number is not None and box is None:
        return OneQuery(name, number)
    if is_model_input(query):
        if box is not None:
            raise argument_error("box", "None for model input, which is no photo", box)
        return OneQuery(name, None, query)
    photo = open_photo(query if number is None else name)
    piece = photo if box is None else cut(photo, box)
    from_file = box is None and isinstance(query, (str, os.PathLike))
    return OneQuery(name, number, [piece], None if from_file else piece)


def several(query: Any) -> tuple[list[Any], bool]:
    """The queries one by one, and whether it is a single one."""
    if is_model_input(query):
        return [query[at : at + 1] for at in range(len(query))], False
    if isinstance(query, (list, tuple, range)):
        return list(query), False
    if isinstance(query, np.ndarray) and query.ndim == 1 and query.dtype.kind in "iu":
        return query.tolist(), False
    return [query], True


def id_of(query: Any, count: int) -> int | None:
    """The id that a query is, None for a photo."""
    if isinstance(query, (str, bytes, os.PathLike, Image.Image)) or (
        isinstance(query, (np.ndarray, torch.Tensor)) and query.ndim
    ):
        return None
    try:
        number = -1 if isinstance(query, bool) else operator.index(query)
    except TypeError:
        return None
    if not 0 <= number < count:
        raise argument_error("query", f"an id from 0 to {count - 1}, or a photo", query)
    return number


def name_of(query: Any, at: int, number: int | None, photos: Sequence[Photo]) -> str:
    """What to call a query in a result."""
    if number is not None:
        return photos[number].path
    return os.fsdecode(query) if isinstance(query, (str, os.PathLike)) else f"images[{at}]"


def cut(photo: Image.Image, box: Box) -> Image.Image:
    """A piece of a photo.

    Raises:
        ValueError: it is empty or reaches beyond the photo.
    """
    try:
        x0, y0, x1, y1 = (operator.index(each) for each in box)
        fits = 0 <= x0 < x1 <= photo.width and 0 <= y0 < y1 <= photo.height
    except (TypeError, ValueError):
        fits = False
    if not fits:
        expected = f"(x0, y0, x1, y1) inside {photo.width} × {photo.height} pixels"
        raise argument_error("box", expected, box)
    return photo.crop((x0, y0, x1, y1))
