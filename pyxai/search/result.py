"""What a search found: photos with their distances."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pyxai._errors import check_count
from pyxai._results import Rows, Table, plain
from pyxai.draw import sheet
from pyxai.draw.cells import fitted
from pyxai.images import ImageError, open_photo
from pyxai.images.errors import printable
from pyxai.neighbors.distances import Metric
from pyxai.neighbors.nearest import Matrix

_BAR = 10  # pixels of the bar below a picture
# Blue and orange of Okabe and Ito, which colour-blind people tell apart; no label, grey.
_SAME, _OTHER, _UNKNOWN = (0, 114, 178), (230, 159, 0), (120, 120, 120)
_BARS = "bars: similarity"
_COLORS = "blue, the class of the query, orange, another"
_PAIRS = 1024  # whose mean distance is that of two photos
_PAIR_NUMBERS = 1 << 22  # fewer pairs of wide features


class Neighbor(NamedTuple):
    """One photo that was found.

    Attributes:
        id: its place in the index.
        path: its path.
        label: its class, or None.
        distance: to the query.
        similarity: in per cent; see `SearchResult`.
    """

    id: int
    path: str
    label: str | None
    distance: float
    similarity: float


@dataclass(frozen=True, eq=False, repr=False)
class SearchResult(Table):
    """The photos nearest to a query, the nearest first; a sequence of `Neighbor`.

    Attributes:
        query: the photo that was searched by: its path, or "images[i]".
        query_id: its id, where it was searched by that, else None.
        query_label: its class, if it is a photo of the index that has one.
        ids: `[k]` int64, places in the index.
        paths: k paths.
        labels: k classes or None.
        distances: `[k]` float64.
        similarity: `[k]` float64, 0 to 100 per cent: for cosine and correlation the cosine or the
            coefficient, at least 0; for other metrics 1 − distance / d, at least 0, where d is the
            mean distance of two photos of the index. At 0 a photo is no more alike than any.
        network: name of the network whose features were compared.
        layer: the layer.
        metric: the distance.
    """

    query: str
    query_id: int | None
    query_label: str | None
    ids: NDArray[np.int64]
    paths: tuple[str, ...]
    labels: tuple[str | None, ...]
    distances: NDArray[np.float64]
    similarity: NDArray[np.float64]
    network: str
    layer: str
    metric: str
    _picture: Image.Image | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Neighbor]:
        distances, similarity = self.distances.tolist(), self.similarity.tolist()
        rows = zip(self.ids.tolist(), self.paths, self.labels, distances, similarity, strict=True)
        return (Neighbor(*row) for row in rows)

    def _facts(self) -> str:
        where = f"{self.network} {self.layer}, {self.metric}"
        return f"{len(self)} photos by {where}, like {printable(self.query)}"

    def to_dict(self) -> dict[str, Any]:
        """The query, how was searched, and the photos as "results"."""
        return {
            "query": {"path": self.query, "id": self.query_id, "label": self.query_label},
            "network": self.network,
            "layer": self.layer,
            "metric": self.metric,
            "results": plain([*self]),
        }

    def _table(self) -> Rows:
        return Neighbor._fields, [*self]

    def figure(self, *, columns: int = 10, cell: int = 120, most: int = 50) -> Image.Image:
        """The query, at the left, and what was found as one picture, with similarities as bars.

        Bars are blue for the class of the query, orange for another, grey where one is unknown. A
        photo that cannot be read (any more) leaves its place empty.

        Args:
            columns: results in a row.
            cell: side of a picture, in pixels.
            most: how many are shown at most.

        Raises:
            ValueError: an argument does not fit.
        """
        for argument, value in (("columns", columns), ("cell", cell), ("most", most)):
            check_count(argument, value)
        query = self._picture or _read(self.query)
        first = None if query is None else _tile(query, cell, 100.0, (0, 0, 0))
        rows: list[list[Image.Image | None]] = []
        titles = []
        for start in range(0, max(1, min(len(self), most)), columns):
            end = min(start + columns, len(self), most)
            rows.append([first if start == 0 else None])
            rows[-1] += [self._tile(place, cell) for place in range(start, end)]
            if end > start:
                span = f"{self.distances[start]:.4g} to {self.distances[end - 1]:.4g}"
                titles.append(f"{self.metric} {span}, {self.network} {self.layer}")
                if start == 0:
                    bars = _BARS if self.query_label is None else f"{_BARS}; {_COLORS}"
                    titles[0] = f"{bars}; {titles[0]}"
        return sheet(rows, row_titles=titles or ["nothing found"], cell=cell)

    def _tile(self, place: int, side: int) -> Image.Image | None:
        picture = _read(self.paths[place])
        if picture is None:
            return None
        color = _color(self.query_label, self.labels[place])
        return _tile(picture, side, float(self.similarity[place]), color)


def _color(label: str | None, other: str | None) -> tuple[int, int, int]:
    if label is None or other is None:
        return _UNKNOWN
    return _SAME if label == other else _OTHER


def _read(path: str) -> Image.Image | None:
    try:
        return open_photo(path)
    except ImageError:
        return None


def _tile(
    picture: Image.Image, side: int, percent: float, color: tuple[int, int, int]
) -> Image.Image:
    """A picture in a square with a bar below it."""
    page = Image.new("RGB", (side, side), "white")
    page.paste(fitted(picture, side, side - _BAR))
    pen = ImageDraw.Draw(page)
    pen.rectangle((0, side - _BAR + 2, side - 1, side - 1), fill=(225, 225, 225))
    if percent > 0:
        width = max(1, round((side - 1) * percent / 100))
        pen.rectangle((0, side - _BAR + 2, width, side - 1), fill=color)
    return page


def typical_distance(matrix: Matrix, metric: Metric) -> float:
    """The mean distance of two photos, from a fixed sample of pairs; above 0."""
    generator = torch.Generator(device="cpu").manual_seed(0)
    count = max(16, min(_PAIRS, _PAIR_NUMBERS // max(1, matrix.width)))
    pairs = torch.randint(
        len(matrix), (2, count), generator=generator, dtype=torch.int64, device="cpu"
    )
    pairs = pairs[:, pairs[0] != pairs[1]]
    mean = 0.0
    if pairs.shape[1]:
        first, second = matrix.take(pairs[0]), matrix.take(pairs[1])
        mean = float(metric.distances(first, second[:, None]).mean())
    return mean if mean > 0 else 1.0
