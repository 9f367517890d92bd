"""How good a classifier is on photos with labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from pyxai.classifier.borrow import borrowed, call
from pyxai.classifier.reading import Reading
from pyxai.images import Preprocessing
from pyxai.train.photo_batches import normalized_batch, one_ahead
from pyxai.train.photo_set import PhotoSet

# Of a batch, so that memory does not grow with the photos: 32 of 512 × 512.
_MAX_PIXELS = 1 << 23


def logits_of_photos(
    network: nn.Module,
    photos: PhotoSet,
    boxes: torch.Tensor,
    preprocessing: Preprocessing,
    *,
    batch_size: int = 32,
    progress: bool = True,
    description: str = "validation",
    mirrored: torch.Tensor | None = None,
    reading: Reading | None = None,
    read: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """The logits of a box of each photo, float32 `[n, K]` on the CPU.

    Boxes `[n, 4]` may be of several sizes: those of one size run together. The network runs in
    evaluation mode, where its first parameter lies, and stays as it was.

    Args:
        network: gives the logits.
        photos: where boxes are cut from.
        boxes: see `random_boxes`.
        preprocessing: gives mean and deviation.
        batch_size: boxes that run together at most.
        progress: False shows no bar.
        description: of the bar.
        mirrored: `[n]` bool, which photos are turned left to right.
        reading: where the logits are in what the network returns.
        read: images to other rows `[b, F]` that are wanted in place of logits.
    """
    by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        by_size[y1 - y0, x1 - x0].append(place)
    chunks: list[torch.Tensor] = []
    for (height, width), places in by_size.items():
        most = max(1, min(batch_size, _MAX_PIXELS // (height * width)))
        chunks += torch.split(torch.tensor(places, dtype=torch.int64, device="cpu"), most)

    device = next(network.parameters()).device
    reading = Reading() if reading is None else reading
    run = read or (lambda images: reading.logits(call(network, images), len(images)))
    result: torch.Tensor | None = None
    batches = one_ahead(
        lambda places: normalized_batch(photos, places, boxes, preprocessing, mirrored), chunks
    )
    with borrowed(network):
        bar = tqdm(
            zip(chunks, batches, strict=True),
            desc=description,
            total=len(chunks),
            unit="batch",
            leave=False,
            disable=None if progress else True,
        )
        for places, batch in bar:
            rows = run(batch.to(device)).float().cpu()
            if result is None:
                result = torch.empty(len(boxes), rows.shape[1], dtype=torch.float32, device="cpu")
            result[places] = rows
    assert result is not None
    return result


def confusion_matrix(labels: torch.Tensor, predicted: torch.Tensor, classes: int) -> torch.Tensor:
    """How many photos of each class (row) were taken for each class (column), int64 `[K, K]`."""
    return (labels * classes + predicted).bincount(minlength=classes**2).reshape(classes, classes)


def share_right(confusion: torch.Tensor) -> float:
    """The accuracy, from 0 to 1."""
    return int(confusion.trace()) / int(confusion.sum())


@dataclass(frozen=True)
class ClassMetrics:
    """How well one class is told from the others.

    Attributes:
        photos: how many of the class there are.
        precision: share of the photos taken for the class that are of it; 0 if there are none.
        recall: share of the photos of the class that are taken for it; 0 if there are none.
        f1: harmonic mean of the two; 0 if both are.
    """

    photos: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Metrics:
    """How good a classifier is on labelled photos.

    Attributes:
        accuracy: share of the photos that come out right.
        balanced_accuracy: mean recall of the classes that have photos.
        log_loss: mean of −log of the probability of the right class, in nats.
        classes: by class, in the order of the logits.
        confusion: `[K, K]` int64, row: class of the photo, column: predicted.
    """

    accuracy: float
    balanced_accuracy: float
    log_loss: float
    classes: tuple[ClassMetrics, ...]
    confusion: torch.Tensor


def metrics_of(logits: torch.Tensor, labels: torch.Tensor) -> Metrics:
    """The metrics of logits `[n, K]` against labels `[n]`, as scikit-learn defines them."""
    confusion = confusion_matrix(labels, logits.argmax(1), logits.shape[1])
    right, of_class = confusion.diagonal().double(), confusion.sum(1)
    recall = right / of_class.clamp(min=1)
    precision = right / confusion.sum(0).clamp(min=1)
    f1 = 2 * right / (of_class + confusion.sum(0)).clamp(min=1)
    return Metrics(
        accuracy=share_right(confusion),
        balanced_accuracy=float(recall[of_class > 0].mean()),
        log_loss=float(functional.cross_entropy(logits.double(), labels)),
        classes=tuple(
            ClassMetrics(int(n), float(p), float(r), float(f))
            for n, p, r, f in zip(of_class, precision, recall, f1, strict=True)
        ),
        confusion=confusion,
    )
