"""How often a classifier is right on photos with labels."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import nn
from tqdm import tqdm

from pyxai.classifier.borrow import borrowed, call
from pyxai.classifier.outputs import logits_of
from pyxai.images import Preprocessing
from pyxai.train.augment import normalised_batch, one_ahead
from pyxai.train.folder import PhotoSet

# Of a batch, so that memory does not grow with the photos: 32 of 512 × 512.
_MAX_PIXELS = 1 << 23


def predicted_classes(
    network: nn.Module,
    photos: PhotoSet,
    boxes: torch.Tensor,
    preprocessing: Preprocessing,
    *,
    batch_size: int = 32,
    progress: bool = True,
) -> torch.Tensor:
    """The top class of a box of each photo, int64 `[n]` on the CPU.

    Boxes `[n, 4]` may be of several sizes: those of one size run together. The network runs in
    evaluation mode, where its first parameter lies, and stays as it was.
    """
    by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        by_size[y1 - y0, x1 - x0].append(place)
    chunks: list[torch.Tensor] = []
    for (height, width), places in by_size.items():
        most = max(1, min(batch_size, _MAX_PIXELS // (height * width)))
        chunks += torch.split(torch.tensor(places), most)

    device = next(network.parameters()).device
    result = torch.empty(len(boxes), dtype=torch.int64)
    batches = one_ahead(
        lambda places: normalised_batch(photos, places, boxes, preprocessing), chunks
    )
    with borrowed(network):
        bar = tqdm(
            zip(chunks, batches, strict=True),
            desc="validation",
            total=len(chunks),
            unit="batch",
            leave=False,
            disable=None if progress else True,
        )
        for places, batch in bar:
            result[places] = logits_of(call(network, batch.to(device))).argmax(1).cpu()
    return result


def confusion_matrix(labels: torch.Tensor, predicted: torch.Tensor, classes: int) -> torch.Tensor:
    """How many photos of each class (row) were taken for each class (column), int64 `[K, K]`."""
    return (labels * classes + predicted).bincount(minlength=classes**2).reshape(classes, classes)


def share_right(confusion: torch.Tensor) -> float:
    """The accuracy, from 0 to 1."""
    return int(confusion.trace()) / int(confusion.sum())
