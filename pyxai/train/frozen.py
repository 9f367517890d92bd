"""What enters the head of a frozen network, computed once for all epochs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pyxai._precision import as_given
from pyxai.classifier.borrow import call
from pyxai.classifier.points import find_layer
from pyxai.classifier.reading import Reading
from pyxai.images import Preprocessing
from pyxai.train.evaluation import logits_of_photos
from pyxai.train.photo_batches import whole_boxes
from pyxai.train.photo_set import PhotoSet
from pyxai.train.settings import Plan

FEATURE_BYTES = 1 << 30
"""Memory for features; what needs more is computed anew in every epoch."""


class _NotAlone(Exception):
    """The head is not all that is done after its input."""


@dataclass(frozen=True)
class FrozenFeatures:
    """What enters the head for whole photos.

    Attributes:
        train: `[1 or 2, n, F]`; the second are those of the mirrored photos.
        held_out: `[m, F]`.
    """

    train: torch.Tensor
    held_out: torch.Tensor

    def batch(self, places: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
        """The features of photos, of those that are mirrored if there are such."""
        versions = mirrored[places].long() if len(self.train) > 1 else torch.zeros_like(places)
        return self.train[versions, places]


def frozen_features(
    network: nn.Module,
    head: str,
    train: PhotoSet,
    held_out: PhotoSet,
    preprocessing: Preprocessing,
    plan: Plan,
    progress: bool,
    reading: Reading,
) -> FrozenFeatures | None:
    """The features, where they can be kept and that saves time; else None.

    They cannot where more than the head is trained, where crops or moves change photos in every
    epoch, where the head is not the last thing that the network does, or where memory does not
    suffice. Mirrored photos are a second version, so with these it takes two epochs at least to
    save anything.
    """
    versions = 1 + plan.augmentation.mirror
    if not plan.only_head or plan.crop is not None:
        return None
    if plan.augmentation.moves or versions > plan.epochs:
        return None
    module = find_layer(network, head)
    entered: list[torch.Tensor] = []

    def keep(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        entered[:] = [arguments[0].detach()]

    photos = versions * len(train) + len(held_out)

    def read(images: torch.Tensor) -> torch.Tensor:
        logits = reading.logits(call(network, images), len(images))
        features = entered[0] if entered else images
        alone = features.ndim == 2 and len(features) == len(images)
        if not alone or features.shape[1] * 4 * photos > FEATURE_BYTES:
            raise _NotAlone
        with as_given():
            again = module(features).to(logits)
        if again.shape != logits.shape or not torch.allclose(again, logits, rtol=1e-4, atol=1e-5):
            raise _NotAlone
        return features

    def of(part: PhotoSet, mirrored: bool) -> torch.Tensor:
        return logits_of_photos(
            network,
            part,
            whole_boxes(part.sizes),
            preprocessing,
            batch_size=plan.batch_size,
            progress=progress,
            description="features",
            mirrored=torch.ones(len(part), dtype=torch.bool, device="cpu") if mirrored else None,
            read=read,
        ).to(next(network.parameters()).device)

    handle = module.register_forward_pre_hook(keep)
    try:
        found = [of(train, mirrored) for mirrored in (False, True)[:versions]]
        return FrozenFeatures(torch.stack(found), of(held_out, False))
    except _NotAlone:
        return None
    finally:
        handle.remove()
