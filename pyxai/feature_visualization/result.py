"""What excites the units of a network: pictures made for them, and crops of photos."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from PIL import Image

from pyxai._results import Rows, Table, described, plain
from pyxai.draw import feature_sheet, sheet, to_pictures
from pyxai.draw.card import card
from pyxai.galleries.contents import cut
from pyxai.images import ImageError, PhotoFailure, open_photo
from pyxai.images.errors import printable

Box: TypeAlias = tuple[int, int, int, int]

_MOST, _VARIANTS = 4000, 8  # pixels of a side of a figure; pictures of one unit in it


@dataclass(frozen=True, eq=False, repr=False)
class FeaturePictures(Table):
    """Pictures that excite units of a network.

    With variants, the second axis of `pictures` and the last of `responses` and `dead` are these.

    Attributes:
        pictures: `[n, 3, size, size]` float32 in [0, 1] on the model's device.
        responses: `[steps, n]`, the mean activation (or the like) of each picture in each step.
        dead: `[n]`, True where the unit had no gradient in any step: its picture is noise.
        units: their names.
        layer: None for the logits.
        network_size: side of the network's input.
        view: side of what is in view, in pixels of the picture.
        positions: (rows, columns) of the layer.
    """

    pictures: torch.Tensor
    responses: torch.Tensor
    dead: torch.Tensor
    units: tuple[str, ...]
    layer: str | None
    network_size: int
    view: int
    positions: tuple[int, int]

    def _facts(self) -> str:
        shape = " × ".join(map(str, self.pictures.shape))
        dead = f", {int(self.dead.sum())} dead" if bool(self.dead.any()) else ""
        return f"{shape} of {self._where()}, {len(self.responses)} steps{dead}"

    def __len__(self) -> int:
        return len(self.units)

    def to_dict(self) -> dict[str, Any]:
        """Of each unit its first and last response, as `to_pandas()` has them, and the settings."""
        columns, rows = self._table()
        return {
            "layer": self.layer,
            "steps": len(self.responses),
            "network_size": self.network_size,
            "view": self.view,
            "positions": [*self.positions],
            "pictures": described(self.pictures),
            "units": [dict(zip(columns, plain(row), strict=True)) for row in rows],
        }

    def figure(self, *, cell: int = 160) -> Image.Image:
        """The pictures in rows, above each its unit with the first and the last response.

        Args:
            cell: side of the pictures in pixels.
        """
        pictures = self._pictures()
        across = len(pictures[0][:_VARIANTS]) * (cell + 2) + 8
        columns = max(1, 1200 // across)
        shown = columns * max(1, (_MOST - 40) // (cell + 23))
        first, last = (self.responses[at].reshape(len(self), -1)[:, 0] for at in (0, -1))
        captions = [
            f"{printable(name)}: {float(first[row]):.3g} -> {float(last[row]):.3g}"
            for row, name in enumerate(self.units[:shown])
        ]
        return feature_sheet(
            [each[:_VARIANTS] for each in pictures[:shown]],
            captions=captions,
            columns=columns,
            cell=cell,
            title=f"{self._where()}: response in the first step -> in the last",
        )

    def _pictures(self) -> list[list[Image.Image]]:
        """Of each unit its variants."""
        flat = to_pictures(self.pictures.flatten(0, -4).cpu(), (0, 0, 0), (1, 1, 1))
        many = len(flat) // len(self)
        return [flat[start : start + many] for start in range(0, len(flat), many)]

    def _where(self) -> str:
        return "the logits" if self.layer is None else printable(self.layer)

    def _table(self) -> Rows:
        columns = ("unit", "variant", "first_response", "last_response", "dead")
        values = (self.responses[0], self.responses[-1], self.dead)
        first, last, dead = (each.reshape(len(self), -1).tolist() for each in values)
        rows = [
            (name, variant, first[row][variant], last[row][variant], dead[row][variant])
            for row, name in enumerate(self.units)
            for variant in range(len(dead[row]))
        ]
        return columns, rows

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {"pictures": self.pictures, "responses": self.responses, "dead": self.dead}


@dataclass(frozen=True)
class ExcitingCrop:
    """A piece of a photo that a unit responds to.

    Attributes:
        name: the photo: its path, or its place in the argument, "images[3]".
        box: (x0, y0, x1, y1), edges in pixels of the upright photo; of the network's input where
            the photo has no file.
        response: the unit's activation there.
        position: (row, column) in the layer's output.
    """

    name: str
    box: Box
    response: float
    position: tuple[int, int]
    _pixels: bytes | None = field(default=None, repr=False, compare=False)

    def picture(self) -> Image.Image:
        """The crop as an RGB picture, read from the photo's file if it has one.

        Raises:
            pyxai.images.ImageError: the file is gone, or no longer what it was.
        """
        if self._pixels is not None:
            x0, y0, x1, y1 = self.box
            return Image.frombytes("RGB", (x1 - x0, y1 - y0), self._pixels)
        return cut(open_photo(Path(self.name)), self.name, self.box)


@dataclass(frozen=True, eq=False, repr=False)
class ExcitingCrops(Table):
    """The crops of photos that excite units most: a sequence of tuples, one a unit.

    Attributes:
        crops: of each unit, the strongest first.
        units: their names.
        layer: None for the logits.
        failures: photos that could not be used.
    """

    crops: tuple[tuple[ExcitingCrop, ...], ...]
    units: tuple[str, ...]
    layer: str | None
    failures: tuple[PhotoFailure, ...]

    def _facts(self) -> str:
        where = "the logits" if self.layer is None else printable(self.layer)
        count = sum(map(len, self.crops))
        return f"{count} crops of {len(self)} units of {where}, {len(self.failures)} failures"

    def __len__(self) -> int:
        return len(self.crops)

    def __iter__(self) -> Iterator[tuple[ExcitingCrop, ...]]:
        return iter(self.crops)

    def __getitem__(self, place: int) -> tuple[ExcitingCrop, ...]:
        return self.crops[place]

    def to_dict(self) -> dict[str, Any]:
        """Of each unit its crops."""
        pairs = zip(self.units, self.crops, strict=True)
        return {
            "layer": self.layer,
            "units": [{"unit": name, "crops": plain(crops)} for name, crops in pairs],
            "failures": plain(self.failures),
        }

    def figure(self, *, columns: int = 9, cell: int = 120) -> Image.Image:
        """A row of crops a unit, the response below each.

        A crop whose photo has gone leaves its place empty.

        Args:
            columns: crops of a unit, at most.
            cell: side of the crops in pixels.
        """
        if not any(self.crops):
            return card(["no crops"])
        shown = self.crops[: (_MOST - 6) // (cell + 38)]
        rows = [[_picture(each) for each in crops[:columns]] for crops in shown]
        captions = [[f"{each.response:.3g}" for each in crops[:columns]] for crops in shown]
        where = "the logits" if self.layer is None else printable(self.layer)
        titles = [f"{printable(name)} of {where}: responses" for name in self.units[: len(shown)]]
        return sheet(rows, row_titles=titles, captions=captions, cell=cell)

    def _table(self) -> Rows:
        columns = ("unit", "rank", "photo", "x0", "y0", "x1", "y1", "response")
        rows = [
            (name, rank, each.name, *each.box, each.response)
            for name, crops in zip(self.units, self.crops, strict=True)
            for rank, each in enumerate(crops)
        ]
        return columns, rows


def _picture(crop: ExcitingCrop) -> Image.Image | None:
    try:
        return crop.picture()
    except ImageError:
        return None
