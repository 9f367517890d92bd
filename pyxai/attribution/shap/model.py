"""What the SHAP methods ask of a model: outputs of some classes, in chunks, and their gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch

from pyxai._errors import argument_error, describe
from pyxai.classifier import Examined, Target
from pyxai.classifier.batches import images_at_once
from pyxai.classifier.borrow import call
from pyxai.classifier.memory_format import best_format

Output: TypeAlias = Literal["logits", "probability"]


@dataclass(frozen=True)
class Explained:
    """A model with the classes that are explained of each image.

    Call it within `borrowed`.

    Attributes:
        examined: the model and the images.
        predicted: `[N]`, the top classes.
        classes: `[N, k]`, the targets.
        single: whether results have no axis for the targets.
        outputs: of the images, `[N, k]` float64.
        output: logits or probabilities.
        batch_size: images in a forward pass.
        layout: memory layout that the model computes fast in.
    """

    examined: Examined
    predicted: torch.Tensor
    classes: torch.Tensor
    single: bool
    outputs: torch.Tensor
    output: Output
    batch_size: int
    layout: torch.memory_format

    @property
    def images(self) -> torch.Tensor:
        """The images, `[N, C, H, W]`."""
        return self.examined.inputs

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Of all classes, `[M, K]` float32."""
        given = images.contiguous(memory_format=self.layout)
        returned = call(self.examined.classifier.model, given, ours=given is not images)
        return self.examined.reading.logits(returned, len(images)).to(torch.float32)

    def of(self, images: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """What the model gives for the targets of the `places`-th images, `[M, k]`."""
        logits = self.logits(images)
        values = self.probabilities(logits) if self.output == "probability" else logits
        return values.gather(1, self.classes[places])

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Of all classes, `[M, K]`."""
        return self.examined.reading.probabilities(logits)

    def shaped(self, values: torch.Tensor) -> torch.Tensor:
        """`[N, k, ...]`, or `[N, ...]` where there is one target each."""
        return values[:, 0] if self.single else values


def explained(
    examined: Examined,
    target: Target,
    output: Any,
    batch_size: int | None,
) -> Explained:
    """The model once its outputs on the images are known; within `borrowed`.

    Raises:
        ValueError: no images; an unknown output; a target that does not fit; outputs that are not
            finite.
    """
    images = examined.inputs
    if images.ndim != 4 or not len(images) or 0 in images.shape[1:]:
        raise argument_error("images", "at least one image [N, C, H, W]", images)
    if output not in ("logits", "probability"):
        raise argument_error("output", "'logits' or 'probability'", output)
    if callable(target):
        expected = "None, classes or 'all' (functions of the outputs have no SHAP values yet)"
        raise ValueError(f"target: expected {expected}, got {describe(target)}")
    if images.is_inference():  # could not be kept for the backward pass
        images = images.clone()
        examined = examined.on(images)
    layout = best_format(examined)
    step = images_at_once(images) if batch_size is None else batch_size
    logits = torch.cat(
        [
            examined.on(some.contiguous(memory_format=layout)).logits().float()
            for some in torch.split(images, step)
        ]
    )
    if not bool(torch.isfinite(logits).all()):
        raise argument_error("images", "images on which the model's logits are finite", logits)
    resolved = examined.classifier.resolve_target(target, logits)
    classes, single = resolved.index.expand(len(images), -1), resolved.single
    values = examined.reading.probabilities(logits) if output == "probability" else logits
    outputs, predicted = values.gather(1, classes).double(), logits.argmax(dim=1)
    return Explained(
        examined=examined,
        predicted=predicted,
        classes=classes,
        single=single,
        outputs=outputs,
        output=output,
        batch_size=step,
        layout=layout,
    )
