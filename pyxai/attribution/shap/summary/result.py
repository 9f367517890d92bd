"""A summary of SHAP values by class: numbers with intervals, a picture, files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pyxai._errors import check_count
from pyxai._files import write_json, write_table
from pyxai._outputs import OutputFolder
from pyxai._results import Report, Rows, plain
from pyxai._text import text_table
from pyxai.attribution.shap.summary.photos import PhotoEvidence
from pyxai.attribution.shap.summary.statistics import (
    ClassSummary,
    class_summary,
    frame_and_corners,
    relative_gaps,
    share_of,
)
from pyxai.classifier import Classifier
from pyxai.draw.shap import Palette
from pyxai.draw.shap_summary import SummaryRow, shap_summary_figure
from pyxai.images import ImageError, PhotoFailure, Preprocessing, open_photo
from pyxai.images.errors import printable

_FORMAT = "pyxai shap summary 1"


@dataclass(frozen=True, eq=False, repr=False)
class ShapSummary(Report):
    """SHAP values of many photos by class; as text, a table. Iterates over the classes.

    Attributes:
        classes: those with photos, by index.
        settings: what was asked for.
        grid: rows and columns.
        frame_area: the share of the cells that is the frame.
        corner_area: the share that is the corners.
        confidence: of the intervals.
        failures: photos that could not be read.
        unnamed: how many photos were in no folder of a class.
    """

    classes: tuple[ClassSummary, ...]
    settings: dict[str, Any]
    grid: tuple[int, int]
    frame_area: float
    corner_area: float
    confidence: float
    failures: tuple[PhotoFailure, ...]
    unnamed: int
    _preprocessing: Preprocessing

    def _facts(self) -> str:
        photos = sum(len(each.photos) for each in self.classes)
        return f"{len(self.classes)} classes, {photos} photos, {len(self.failures)} failures"

    def __len__(self) -> int:
        return len(self.classes)

    def __iter__(self) -> Iterator[ClassSummary]:
        return iter(self.classes)

    def __getitem__(self, name: int | str) -> ClassSummary:
        for each in self.classes:
            if name in (each.index, each.name):
                return each
        raise KeyError(name)

    def __str__(self) -> str:
        frame = f"in the frame ({self.frame_area:.0%} of the area)"
        corners = f"in the corners ({self.corner_area:.0%})"
        rows = [("class", "photos", "for", "against", frame, corners, "agreement", "sampling gap")]
        for each in self.classes:
            rows.append(
                (
                    printable(each.name),
                    str(len(each.photos)),
                    f"{each.speaks_for.value:+.2f}",
                    f"{each.speaks_against.value:+.2f}",
                    f"{each.frame.percent()} %",
                    f"{each.corners.percent()} %",
                    f"{each.agreement:.2f}",
                    f"{relative_gaps(each.photos, 'sampling_gap')['median']:.2%}",
                )
            )
        return text_table(rows)

    def to_dict(self) -> dict[str, Any]:
        """All of it for JSON, but the single photos."""
        return {
            "format": _FORMAT,
            "settings": plain(self.settings),
            "confidence": self.confidence,
            "frame_area": self.frame_area,
            "corner_area": self.corner_area,
            "classes": {each.name: each.to_dict() for each in self.classes},
            "in_no_class_folder": self.unnamed,
            "failures": plain(self.failures),
        }

    def figure(
        self,
        examples: int = 3,
        *,
        palette: Palette = "red_blue",
        cell: int = 180,
        most: int | None = 16,
    ) -> Image.Image:
        """One row a class: its mean map, and photos with their values, typical and deviating ones.

        The mean maps share one scale, the photos another. A dot marks a cell whose interval has 0
        in it. Photos are read again.

        Args:
            examples: of typical and of deviating photos.
            palette: see `pyxai.draw.shap_panel`.
            cell: side of the pictures in pixels.
            most: classes that are shown; None, all.
        """
        check_count("examples", examples, least=0)
        return shap_summary_figure(
            [self._row(each, examples) for each in self.classes[:most]],
            scales=("mean of the photos", "single photos"),
            palette=palette,
            cell=cell,
        )

    def save(self, directory: str | os.PathLike[str], *, palette: Palette = "red_blue") -> Path:
        """Writes summary.json, photos.csv, regions.csv and summary.png.

        Args:
            directory: the folder; what an earlier summary has written there is replaced, all else
                in it stays.
            palette: of the picture.

        Returns:
            The picture's path.

        Raises:
            ValueError: something of these names is there that no summary has written.
        """
        folder = summary_folder(directory)
        with folder.writing("summary.json") as path:
            write_json(path, self.to_dict())
        for name, rows in (
            ("photos.csv", self._photo_rows()),
            ("regions.csv", self._region_rows()),
        ):
            with folder.writing(name) as path:
                write_table(path, rows[0], map(_rounded, rows[1:]))
        picture = self.figure(palette=palette, most=None)
        with folder.writing("summary.png") as path:
            picture.save(path)
        return folder.path / "summary.png"

    def _table(self) -> Rows:
        measures = ("speaks_for", "speaks_against", "frame", "corners")
        columns = ("class", "photos", "accuracy", *measures, "agreement")
        rows = [
            (
                *(each.name, len(each.photos), each.accuracy),
                *(getattr(each, name).value for name in measures),
                each.agreement,
            )
            for each in self.classes
        ]
        return columns, rows

    def _row(self, found: ClassSummary, examples: int) -> SummaryRow:
        count = len(found.photos)
        few = min(examples, count // 2)
        pairs = [("typical", each) for each in found.typical(few)]
        pairs += [("deviating", each) for each in found.deviating(few)]
        title = (
            f"{printable(found.name)}: {count} photos, of what speaks for it "
            f"{found.frame.percent()} % in the frame ({self.frame_area:.0%} of the area)"
        )
        return SummaryRow(
            title=title,
            mean=found.mean,
            unsure=~((found.low > 0) | (found.high < 0)),
            photos=[self._view(each.name) for _, each in pairs],
            values=[np.reshape(each.regions, self.grid) for _, each in pairs],
            captions=[f"{kind}: {printable(Path(each.name).name)}" for kind, each in pairs],
        )

    def _view(self, name: str) -> Image.Image:
        """What the network sees of a photo; grey if it has gone since."""
        try:
            return self._preprocessing.view(open_photo(name))
        except ImageError:
            return Image.new("RGB", (self.grid[1] * 16, self.grid[0] * 16), "#808080")

    def _photo_rows(self) -> list[Sequence[Any]]:
        head = ["photo", "class", "predicted", "output", "base_value", "additivity_gap"]
        head += ["sampling_gap", "speaks_for", "speaks_against", "frame", "corners", "similarity"]
        rows: list[Sequence[Any]] = [head]
        frame, corners = frame_and_corners(self.grid)
        for each in self.classes:
            for photo, similarity in zip(each.photos, each.similarity, strict=True):
                cells = np.reshape(photo.regions, self.grid)
                positive = cells.clip(min=0)
                shares = [share_of(positive, where) for where in (frame, corners)]
                rows.append(
                    (
                        *(photo.name, each.name, photo.predicted, photo.output, photo.base_value),
                        *(photo.additivity_gap, photo.sampling_gap, float(positive.sum())),
                        *(float(cells.clip(max=0).sum()), *shares, float(similarity)),
                    )
                )
        return rows

    def _region_rows(self) -> list[Sequence[Any]]:
        rows: list[Sequence[Any]] = [
            ["class", "row", "column", "mean", "low", "high", "mean_absolute"]
        ]
        for each in self.classes:
            for place in np.ndindex(*self.grid):
                arrays = (each.mean, each.low, each.high, each.mean_absolute)
                rows.append([each.name, *place, *(array[place] for array in arrays)])
        return rows


def summarized(
    classifier: Classifier,
    photos: Sequence[PhotoEvidence],
    settings: dict[str, Any],
    confidence: float,
    failures: Sequence[PhotoFailure],
    unnamed: int,
) -> ShapSummary:
    """The summary of photos that were explained."""
    rows, columns = settings["grid"]
    grid = (int(rows), int(columns))
    by_class: dict[int, list[PhotoEvidence]] = {}
    for photo in photos:
        by_class.setdefault(photo.target, []).append(photo)
    frame, corners = frame_and_corners(grid)
    return ShapSummary(
        classes=tuple(
            class_summary(index, classifier.class_name(index), by_class[index], grid, confidence)
            for index in sorted(by_class)
        ),
        settings=settings,
        grid=grid,
        frame_area=float(frame.mean()),
        corner_area=float(corners.mean()),
        confidence=confidence,
        failures=tuple(failures),
        unnamed=unnamed,
        _preprocessing=classifier.preprocessing,
    )


def summary_folder(directory: str | os.PathLike[str], argument: str = "directory") -> OutputFolder:
    """The folder for a summary.

    Raises:
        ValueError: something of its names is there that no summary has written.
    """
    folder = OutputFolder(directory, argument, by="a SHAP summary")
    folder.check("summary.json", "photos.csv", "regions.csv", "summary.png")
    return folder


def _rounded(row: Sequence[Any]) -> list[Any]:
    return [f"{each:.6g}" if isinstance(each, float) else each for each in row]
