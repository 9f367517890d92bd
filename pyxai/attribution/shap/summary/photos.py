"""What SHAP values say about each photo of a folder, region by region."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from pyxai._errors import argument_error
from pyxai.attribution.shap import values_of
from pyxai.attribution.shap.model import explained
from pyxai.attribution.shap.regions import grid_of
from pyxai.classifier import Classifier, Examined
from pyxai.classifier.borrow import borrowed
from pyxai.images import ImageError
from pyxai.runs import Kind, OpenPhoto, Part, PhotoFailure, Row

RUN = Kind("a SHAP summary's run", "shap-run", "pyxai shap summary run 2")


@dataclass(frozen=True)
class PhotoEvidence:
    """One photo, explained for one class.

    Attributes:
        name: its path.
        target: the class that is explained.
        predicted: the top class.
        output: of the explained class.
        base_value: the same on the background.
        additivity_gap: base_value + sum of all values - output.
        sampling_gap: see `ShapValues`.
        regions: the values of the regions, row by row.
    """

    name: str
    target: int
    predicted: int
    output: float
    base_value: float
    additivity_gap: float
    sampling_gap: float
    regions: tuple[float, ...]


def evidence_of(part: Part) -> Iterator[PhotoEvidence]:
    """What `Explaining` has made of photos."""
    for photo, regions in zip(part.photos, part.tensor("regions").tolist(), strict=True):
        target, predicted, *numbers = photo.about
        output, base_value, additivity_gap, sampling_gap = map(float, numbers)
        yield PhotoEvidence(
            name=photo.path,
            target=int(target),
            predicted=int(predicted),
            output=output,
            base_value=base_value,
            additivity_gap=additivity_gap,
            sampling_gap=sampling_gap,
            regions=tuple(regions),
        )


class Explaining:
    """The work of a summary: the values of each photo, summed up over the cells of a grid."""

    def __init__(
        self,
        classifier: Classifier,
        background: Any,
        grid: tuple[int, int],
        settings: dict[str, Any],
    ) -> None:
        """Takes note.

        Args:
            classifier: is explained.
            background: of all photos; see `shap_values`.
            grid: rows and columns.
            settings: arguments of `shap_values`.
        """
        self._classifier, self._background = classifier, background
        self._grid, self._settings = grid, settings

    def __call__(self, photos: Iterator[OpenPhoto]) -> Iterator[Row | PhotoFailure]:
        """See `pyxai.runs.working.Work`; a photo's key is its class, or "" for the top class."""
        for photo in photos:
            try:
                inputs = self._classifier.to_input(photo.picture)
            except ImageError as error:
                yield PhotoFailure(photo.name, error.reason)
                continue
            yield self._explained(photo.name, Examined(self._classifier, inputs), photo.key)

    def _explained(self, name: str, examined: Examined, label: str) -> Row:
        grid, settings = self._grid, self._settings
        size = (examined.inputs.shape[2], examined.inputs.shape[3])
        if size[0] < grid[0] or size[1] < grid[1]:
            expected = f"no more rows and columns than the {size[0]} × {size[1]} pixels of {name}"
            raise argument_error("grid", expected, grid)
        target = examined.classifier.class_index(label) if label else None
        cells = grid_of(size, *grid)
        with borrowed(examined.network):
            asked = explained(examined, target, settings["output"], None)
            method, samples, seed = settings["method"], settings["samples"], settings["seed"]
            values = values_of(asked, self._background, method, samples, seed, regions=cells)
        sums = torch.zeros(grid[0] * grid[1], dtype=torch.float64, device="cpu")
        sums.index_add_(0, cells.flatten(), values.maps()[0].double().cpu().flatten())
        numbers = (values.outputs, values.base_values, values.additivity_gap, values.sampling_gap)
        classes = int(asked.classes[0, 0]), int(asked.predicted[0])
        about = [*classes, *(float(each[0]) for each in numbers)]
        return Row(name, about, {"regions": sums})
