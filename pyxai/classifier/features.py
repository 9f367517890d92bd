"""One vector for each image, of any layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import torch

from pyxai._errors import argument_error
from pyxai.classifier import Examined

Pooling: TypeAlias = Literal["average", "max", "gem", "flatten"]
POOLINGS: tuple[str, ...] = get_args(Pooling)
"""How the positions of a layer become one vector."""

_GEM_POWER = 3.0
_GEM_LEAST = 1e-6


def pooled_features(
    examined: Examined,
    layers: str | Sequence[str],
    pooling: Pooling = "average",
) -> dict[str, torch.Tensor]:
    """The outputs of layers as one vector for each image; the forward pass ends after the last.

    Args:
        examined: the model and images; it is left exactly as it was.
        layers: one name or several, as in `model.named_modules()`.
        pooling: see `pooled`.

    Returns:
        For each layer `[N, F]` float32 on the model's device.

    Raises:
        ValueError: a layer does not exist, or has neither vectors nor positions of these images.
    """
    found = examined.activations(layers)
    return {layer: pooled(examined, layer, raw, pooling) for layer, raw in found.items()}


def pooled(
    examined: Examined,
    layer: str,
    raw: torch.Tensor,
    pooling: Pooling = "average",
) -> torch.Tensor:
    """One vector for each image from a layer's raw output.

    Args:
        examined: the model and the images that it was called with.
        layer: the name of the layer.
        raw: its output. Where that is one vector for each image, it is taken as it is.
        pooling: over the positions of each channel, the "average", the "max", or "gem", the
            generalised mean (mean of max(x, 1e-6)³)^(1/3), which lies in between (Radenović,
            Tolias and Chum, "Fine-tuning CNN image retrieval with no human annotation", 2018, Eq.
            3, with its p = 3); or "flatten", all of them one after the other, channel by channel.

    Returns:
        `[N, F]` float32 on the model's device.

    Raises:
        ValueError: it has neither vectors nor positions of these images; an unknown pooling.
    """
    if pooling not in POOLINGS:
        raise argument_error("pooling", f"one of {', '.join(POOLINGS)}", pooling)
    images = len(examined.inputs)
    if raw.ndim == 2 and len(raw) == images:
        return raw.float()
    if raw.ndim == 4 and raw.shape[2:] == (1, 1) and len(raw) == images:
        return raw.float().flatten(1)
    layout = examined.layout(layer, raw)
    features = layout.features(raw).float()
    if pooling == "average":
        return features.mean(dim=(2, 3))
    if pooling == "max":
        return features.amax(dim=(2, 3))
    if pooling == "gem":
        powers = features.clamp(min=_GEM_LEAST).pow(_GEM_POWER)
        return powers.mean(dim=(2, 3)).pow(1 / _GEM_POWER)
    return features.flatten(1)
