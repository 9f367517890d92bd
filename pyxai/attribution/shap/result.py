"""SHAP values with what tells whether to believe them."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False, repr=False)
class ShapValues:
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

    def __repr__(self) -> str:
        shape = " × ".join(map(str, self.values.shape))
        gap, sampled = float(self.relative_gap().max()), float(self.relative_sampling_gap().max())
        told = f"gap at most {gap:.2%}, of samples alone {sampled:.2%}"
        return f"ShapValues({shape}, {self.evaluations} evaluations, {told})"

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
