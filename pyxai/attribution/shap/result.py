"""SHAP values with what tells whether to believe them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from pyxai._results import Rows, Table, described, plain
from pyxai.draw.shap import Palette, shap_figure
from pyxai.images.errors import printable

SHOWN = 8
"""Images whose pictures are kept for the figure."""

_ACROSS = 6  # classes of one image in it


@dataclass(frozen=True, eq=False, repr=False)
class ShapValues(Table):
    """How much each pixel speaks for or against a class, of N images with one target each.

    With k targets an image, all but `regions` have an axis of k after N. Tensors are without a
    graph, on the model's device.

    Attributes:
        values: `[N, C, H, W]` float32 (method "gradient"), else `[N, 1, H, W]`: the values of
            regions, spread evenly over their pixels. In the unit of the output: their sum is the
            output minus `base_values`, but for `additivity_gap`.
        base_values: the mean output on the background, `[N]` float64.
        outputs: the output on the images, `[N]` float64.
        standard_error: of `values`, of their shape; 0 where nothing is sampled. For "gradient" from
            how much neighbouring samples differ; rather too large than too small.
        additivity_gap: base_values + sum of values - outputs, `[N]` float64; near 0 by
            construction, but for "gradient" without the control variate or where that cannot help.
        sampling_gap: the same before the control variate of "gradient": how far its samples alone
            are off.
        classes: the targets, `[N]` int64.
        regions: `[H, W]` int64, which region each pixel belongs to; None without fixed regions.
        region_values: `[N, R]` float64; None without fixed regions.
        evaluations: forward passes that one image took.
        class_names: one name a class, or None.
        output: whether outputs are "logits" or a "probability".
        pictures: the first eight images, for the figure.
    """

    values: torch.Tensor
    base_values: torch.Tensor
    outputs: torch.Tensor
    standard_error: torch.Tensor
    additivity_gap: torch.Tensor
    sampling_gap: torch.Tensor
    classes: torch.Tensor
    regions: torch.Tensor | None
    region_values: torch.Tensor | None
    evaluations: int
    class_names: tuple[str, ...] | None
    output: str
    pictures: tuple[Image.Image, ...]

    def _facts(self) -> str:
        shape = " × ".join(map(str, self.values.shape))
        gap, sampled = float(self.relative_gap().max()), float(self.relative_sampling_gap().max())
        told = f"gap at most {gap:.2%}, of samples alone {sampled:.2%}"
        return f"{shape}, {self.evaluations} evaluations, {told}"

    def to_dict(self) -> dict[str, Any]:
        """The sums of each image and class, as `to_pandas()` has them, and the values' range."""
        columns, rows = self._table()
        return {
            "output": self.output,
            "evaluations": self.evaluations,
            "values": described(self.values),
            "explained": [dict(zip(columns, plain(row), strict=True)) for row in rows],
        }

    def figure(self, *, palette: Palette = "red_blue", cell: int = 260) -> Image.Image:
        """The first images with a panel for each class, on one scale.

        Args:
            palette: see `pyxai.draw.shap_panel`.
            cell: side of the pictures in pixels.
        """
        count, several = len(self.pictures), self.classes.ndim == 2
        maps = self.maps()[:count].cpu()
        shown, titles = [], []
        for row in range(count):
            places = range(min(_ACROSS, self.classes.shape[1])) if several else [None]
            at = [row if place is None else (row, place) for place in places]
            shown.append([maps[each] for each in at])
            titles.append([self._title(each) for each in at])
        what = "logit" if self.output == "logits" else "probability"
        unit = f"{what} a pixel"
        return shap_figure(self.pictures, shown, titles, palette=palette, cell=cell, unit=unit)

    def _title(self, at: Any) -> str:
        """The class, and how its output comes about."""
        base, output = float(self.base_values[at]), float(self.outputs[at])
        name = printable(self._name(int(self.classes[at])))
        return f"{name}: {output:.2f} = {base:.2f} {output - base:+.2f}"

    def _table(self) -> Rows:
        columns = ["image", "class", "name", "output", "base_value", "speaks_for"]
        columns += ["speaks_against", "additivity_gap", "sampling_gap"]
        flat = self.values.flatten(-3)
        values = [self.outputs, self.base_values, flat.clamp(min=0).sum(-1)]
        values += [flat.clamp(max=0).sum(-1), self.additivity_gap, self.sampling_gap]
        many = self.classes.shape[1] if self.classes.ndim == 2 else 1
        rows: list[Any] = []
        for place, index in enumerate(self.classes.flatten().tolist()):
            numbers = (each.flatten()[place].item() for each in values)
            rows.append((place // many, index, self._name(index), *numbers))
        return columns, rows

    def _tensors(self) -> dict[str, torch.Tensor]:
        names = ["values", "base_values", "outputs", "standard_error", "additivity_gap"]
        names += ["sampling_gap", "classes", "regions", "region_values"]
        found = {name: getattr(self, name) for name in names}
        return {name: each for name, each in found.items() if each is not None}

    def _name(self, index: int) -> str:
        return f"class {index}" if self.class_names is None else self.class_names[index]

    def maps(self) -> torch.Tensor:
        """The values of each pixel, its channels added up, `[N, H, W]`."""
        return self.values.sum(dim=-3)

    def relative_gap(self) -> torch.Tensor:
        """The gap as a share of what is to be explained, |outputs - base_values|; `[N]` float64.

        Where nothing is to be explained (both are equal) it is large or infinite.
        """
        return self.additivity_gap.abs() / (self.outputs - self.base_values).abs()

    def relative_sampling_gap(self) -> torch.Tensor:
        """The same of `sampling_gap`: whether there were samples enough; `[N]` float64."""
        return self.sampling_gap.abs() / (self.outputs - self.base_values).abs()
