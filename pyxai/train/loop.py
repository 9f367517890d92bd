"""The training loop: epochs of crops or whole photos, and what each of them gave."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from pyxai._errors import argument_error
from pyxai.classifier.borrow import borrowed, call
from pyxai.classifier.outputs import logits_of
from pyxai.images import Preprocessing
from pyxai.train.augment import normalised_batch, one_ahead, random_boxes, whole_boxes
from pyxai.train.evaluation import confusion_matrix, predicted_classes, share_right
from pyxai.train.folder import PhotoSet
from pyxai.train.layers import training_mode

_WARM_UP = 0.05  # share of the steps in which the learning rate rises


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training photos gave.

    Attributes:
        number: from 1.
        loss: mean cross-entropy over the epoch, in training.
        train_accuracy: share of the batches' crops or photos that came out right, in training.
        valid_accuracy: after the epoch: of the validation crops with `crop`, else whole photos.
    """

    number: int
    loss: float
    train_accuracy: float
    valid_accuracy: float


@dataclass(frozen=True)
class Plan:
    """The checked settings of a run."""

    crop: int | None
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    seed: int
    progress: bool


class Training:
    """A network in training."""

    def __init__(
        self,
        network: nn.Module,
        train: PhotoSet,
        held_out: PhotoSet,
        names: tuple[str, ...],
        preprocessing: Preprocessing,
        plan: Plan,
    ) -> None:
        self.network, self.train, self.held_out, self.plan = network, train, held_out, plan
        self.names, self.preprocessing = names, preprocessing
        self.device = next(network.parameters()).device
        self.generator = torch.Generator().manual_seed(plan.seed)
        trained = [each for each in network.parameters() if each.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [each for each in trained if each.ndim > 1]},
            {"params": [each for each in trained if each.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups, lr=plan.learning_rate, weight_decay=plan.weight_decay
        )
        self.steps = plan.epochs * len(self._chunks(torch.arange(len(train))))
        self.step = 0

    def _chunks(self, order: torch.Tensor) -> list[torch.Tensor]:
        chunks = list(torch.split(order, self.plan.batch_size))
        # Batch norm after pooling has no variance in a batch of one.
        return chunks[:-1] if len(chunks) > 1 and len(chunks[-1]) == 1 else chunks

    def epoch(self, number: int) -> Epoch:
        """Trains on each photo once."""
        count, crop = len(self.train), self.plan.crop
        order = torch.randperm(count, generator=self.generator)
        mirrored = torch.rand(count, generator=self.generator) < 0.5
        boxes = whole_boxes(self.train.sizes)
        if crop is not None:
            boxes = random_boxes(self.train.sizes, crop, self.generator)
        chunks = self._chunks(order)
        batches = one_ahead(
            lambda places: normalised_batch(
                self.train, places, boxes, self.preprocessing, mirrored
            ),
            chunks,
        )
        bar = tqdm(
            zip(chunks, batches, strict=True),
            desc=f"epoch {number}/{self.plan.epochs}",
            total=len(chunks),
            unit="batch",
            disable=None if self.plan.progress else True,
        )
        training_mode(self.network)
        loss, right, seen = 0.0, 0, 0
        for places, images in bar:
            labels = self.train.labels[places].to(self.device)
            batch_loss, batch_right = self._update(images.to(self.device), labels)
            if not math.isfinite(batch_loss):
                expected = f"one at which the loss stays finite (it did not, in epoch {number})"
                raise argument_error("learning_rate", expected, self.plan.learning_rate)
            loss += batch_loss * len(places)
            right += batch_right
            seen += len(places)
            bar.set_postfix(loss=f"{loss / seen:.3f}", refresh=False)
        confusion = self.whole_confusion() if crop is None else self.crop_confusion()
        assert confusion is not None
        return Epoch(number, loss / seen, right / seen, share_right(confusion))

    def _update(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[float, int]:
        """One step; the loss and how many were right."""
        rise = (self.step + 1) / max(1.0, _WARM_UP * self.steps)
        fall = (1 + math.cos(math.pi * self.step / self.steps)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.learning_rate * min(1.0, rise) * fall
        self.step += 1
        logits = logits_of(call(self.network, images))
        loss = functional.cross_entropy(logits, labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(loss.detach()), int((logits.argmax(1) == labels).sum())

    def crop_confusion(self) -> torch.Tensor:
        """Labels against predictions on the same crop of each validation photo at every call."""
        assert self.plan.crop is not None
        places = torch.Generator().manual_seed(self.plan.seed)
        return self._confusion(random_boxes(self.held_out.sizes, self.plan.crop, places))

    def whole_confusion(self) -> torch.Tensor | None:
        """The same on whole photos; None if the network does not run on the largest of them."""
        sizes = self.held_out.sizes
        height, width = sizes[sizes.prod(1).argmax()].tolist()
        if (height, width) != (self.plan.crop, self.plan.crop):
            try:
                with borrowed(self.network):
                    call(self.network, torch.zeros(1, 3, height, width, device=self.device))
            except torch.OutOfMemoryError:
                raise
            except Exception:  # networks refuse sizes in every way there is
                if self.plan.crop is None:
                    raise
                return None
        return self._confusion(whole_boxes(sizes))

    def _confusion(self, boxes: torch.Tensor) -> torch.Tensor:
        predicted = predicted_classes(
            self.network,
            self.held_out,
            boxes,
            self.preprocessing,
            batch_size=self.plan.batch_size,
            progress=self.plan.progress,
        )
        return confusion_matrix(self.held_out.labels, predicted, len(self.names))
