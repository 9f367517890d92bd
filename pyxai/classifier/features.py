"""One vector for each image, of any layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pyxai.classifier import Classifier, anatomy


def pooled_features(
    classifier: Classifier, inputs: torch.Tensor, layers: str | Sequence[str]
) -> dict[str, torch.Tensor]:
    """The outputs of layers as one vector for each image; the forward pass ends after the last.

    Args:
        classifier: the model; it is left exactly as it was.
        inputs: its input, `[N, C, H, W]`.
        layers: one name or several, as in `model.named_modules()`.

    Returns:
        For each layer `[N, F]` float32 on the model's device: the output itself where it is one
        vector for each image, else the mean over its positions.

    Raises:
        ValueError: a layer does not exist, or has neither vectors nor positions of these images.
    """
    found = classifier.activations(inputs, layers)
    return {layer: pooled(classifier, inputs, layer, raw) for layer, raw in found.items()}


def pooled(
    classifier: Classifier, inputs: torch.Tensor, layer: str, raw: torch.Tensor
) -> torch.Tensor:
    """One vector for each image from a layer's raw output; see `pooled_features`."""
    if raw.ndim == 2 and len(raw) == len(inputs):
        return raw.float()
    if raw.ndim == 4 and raw.shape[2:] == (1, 1) and len(raw) == len(inputs):
        return raw.float().flatten(1)
    layout = anatomy.layout_of(classifier.network, inputs, layer, raw)
    return layout.features(raw).float().mean(dim=(2, 3))
