"""The training loop: epochs of crops or whole photos, and what each of them gave."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from pyxai._errors import REFUSALS, argument_error, passes_through
from pyxai.classifier.borrow import borrowed, call
from pyxai.classifier.points import find_layer
from pyxai.classifier.reading import Reading
from pyxai.images import Preprocessing
from pyxai.train.augment import random_moves
from pyxai.train.evaluation import logits_of_photos, metrics_of
from pyxai.train.frozen import FrozenFeatures
from pyxai.train.layers import training_mode
from pyxai.train.photo_batches import normalized_batch, one_ahead, random_boxes, whole_boxes
from pyxai.train.photo_set import PhotoSet
from pyxai.train.settings import Plan

_WARM_UP = 0.05  # share of the steps in which the learning rate rises


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training photos gave.

    Attributes:
        number: from 1.
        loss: mean cross-entropy over the epoch, in training, weighted as in training.
        train_accuracy: share of the batches' crops or photos that came out right, in training.
        valid_accuracy: after the epoch: of the validation crops with `crop`, else whole photos.
        valid_loss: mean cross-entropy of the same, without weights.
    """

    number: int
    loss: float
    train_accuracy: float
    valid_accuracy: float
    valid_loss: float


@dataclass
class Best:
    """The epoch with the lowest validation loss so far, and a copy of its weights."""

    epoch: int
    loss: float
    weights: dict[str, torch.Tensor]


class Training:
    """A network in training.

    Attributes:
        network: with gradients for the weights that are trained.
        history: of the epochs so far.
        best: with early stopping only.
    """

    def __init__(
        self,
        network: nn.Module,
        train: PhotoSet,
        held_out: PhotoSet,
        preprocessing: Preprocessing,
        plan: Plan,
        *,
        head: str,
        reading: Reading | None = None,
        features: FrozenFeatures | None = None,
        progress: bool = True,
    ) -> None:
        self.network, self.train, self.held_out, self.plan = network, train, held_out, plan
        self.preprocessing, self.features, self.progress = preprocessing, features, progress
        self.head = find_layer(network, head)
        self.reading = Reading() if reading is None else reading
        self.device = next(network.parameters()).device
        self.generator = torch.Generator(device="cpu").manual_seed(plan.seed)
        trained = [each for each in network.parameters() if each.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [each for each in trained if each.ndim > 1]},
            {"params": [each for each in trained if each.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups, lr=plan.learning_rate, weight_decay=plan.weight_decay
        )
        self.steps_of_epoch = len(
            self._chunks(torch.arange(len(train), dtype=torch.int64, device="cpu"))
        )
        self.class_weights = None
        if plan.class_weight is not None:
            counts = train.labels.bincount()
            self.class_weights = (len(train) / (len(counts) * counts)).float().to(self.device)
        self.history: list[Epoch] = []
        self.best: Best | None = None

    @property
    def done(self) -> bool:
        """Whether all epochs are over, or the last ones were no better than one before."""
        number, patience = len(self.history), self.plan.early_stopping
        if self.best is None or patience is None:
            return number >= self.plan.epochs
        return number >= self.plan.epochs or number - self.best.epoch >= patience

    def changing(self) -> dict[str, torch.Tensor]:
        """All that training changes in the network: trained weights, and buffers."""
        state = self.network.state_dict(keep_vars=True)
        return {
            name: value.detach()
            for name, value in state.items()
            if value.requires_grad or not isinstance(value, nn.Parameter)
        }

    def put(self, weights: dict[str, torch.Tensor]) -> None:
        """Copies what `changing` gave back into the network."""
        with torch.no_grad():
            for name, value in self.changing().items():
                value.copy_(weights[name])

    def _chunks(self, order: torch.Tensor) -> list[torch.Tensor]:
        chunks = list(torch.split(order, self.plan.batch_size))
        # Batch norm after pooling has no variance in a batch of one.
        return chunks[:-1] if len(chunks) > 1 and len(chunks[-1]) == 1 else chunks

    def _batches(self) -> tuple[list[torch.Tensor], Iterable[torch.Tensor]]:
        """The photos of each step of an epoch, and what the network or its head takes of them."""
        count, plan = len(self.train), self.plan
        order = torch.randperm(count, generator=self.generator, device="cpu")
        mirrored = (
            torch.rand(count, generator=self.generator, dtype=torch.float32, device="cpu") < 0.5
        )
        mirrored &= plan.augmentation.mirror
        chunks = self._chunks(order)
        features = self.features
        if features is not None:
            return chunks, (features.batch(places, mirrored) for places in chunks)
        boxes, moves = whole_boxes(self.train.sizes), None
        if plan.crop is not None:
            boxes = random_boxes(self.train.sizes, plan.crop, self.generator)
        if plan.augmentation.moves:
            moves = random_moves(count, plan.augmentation, self.generator)
        return chunks, one_ahead(
            lambda places: normalized_batch(
                self.train, places, boxes, self.preprocessing, mirrored, moves
            ),
            chunks,
        )

    def epoch(self) -> None:
        """Trains on each photo once, and judges the result."""
        number = len(self.history) + 1
        chunks, batches = self._batches()
        bar = tqdm(
            zip(chunks, batches, strict=True),
            desc=f"epoch {number}/{self.plan.epochs}",
            total=len(chunks),
            unit="batch",
            disable=None if self.progress else True,
        )
        if self.plan.only_head:  # no dropout in front of it: kept features have none either
            self.network.eval()
            self.head.train()
        else:
            training_mode(self.network)
        loss, right, seen = 0.0, 0, 0
        for step, (places, inputs) in enumerate(bar, (number - 1) * self.steps_of_epoch):
            labels = self.train.labels[places].to(self.device)
            batch_loss, batch_right = self._update(step, inputs.to(self.device), labels)
            if not math.isfinite(batch_loss):
                expected = f"one at which the loss stays finite (it did not, in epoch {number})"
                raise argument_error("learning_rate", expected, self.plan.learning_rate)
            loss += batch_loss * len(places)
            right += batch_right
            seen += len(places)
            bar.set_postfix(loss=f"{loss / seen:.3f}", refresh=False)
        logits = self.whole_logits() if self.plan.crop is None else self.crop_logits()
        assert logits is not None
        judged = metrics_of(logits, self.held_out.labels)
        self.history.append(
            Epoch(
                number=number,
                loss=loss / seen,
                train_accuracy=right / seen,
                valid_accuracy=judged.accuracy,
                valid_loss=judged.log_loss,
            )
        )
        lowest = math.inf if self.best is None else self.best.loss
        if self.plan.early_stopping is not None and judged.log_loss < lowest:
            weights = {name: value.clone() for name, value in self.changing().items()}
            self.best = Best(number, judged.log_loss, weights)

    def _update(self, step: int, inputs: torch.Tensor, labels: torch.Tensor) -> tuple[float, int]:
        """One step; the loss and how many were right."""
        steps = self.plan.epochs * self.steps_of_epoch
        rise = (step + 1) / max(1.0, _WARM_UP * steps)
        fall = (1 + math.cos(math.pi * step / steps)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.learning_rate * min(1.0, rise) * fall
        if self.features is not None:
            logits: torch.Tensor = self.head(inputs)
        else:
            logits = self.reading.logits(call(self.network, inputs), len(inputs))
        loss = functional.cross_entropy(logits, labels, self.class_weights)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.device("cpu"):  # torch 2.11 counts steps on the default device
            self.optimizer.step()
        return float(loss.detach()), int((logits.argmax(1) == labels).sum())

    def crop_logits(self) -> torch.Tensor:
        """Of the same crop of each validation photo at every call, `[m, K]`."""
        assert self.plan.crop is not None
        places = torch.Generator(device="cpu").manual_seed(self.plan.seed)
        return self._logits(random_boxes(self.held_out.sizes, self.plan.crop, places))

    def whole_logits(self) -> torch.Tensor | None:
        """The same of whole photos; None if the network does not run on the largest of them."""
        if self.features is not None:
            with borrowed(self.network):
                logits: torch.Tensor = self.head(self.features.held_out)
            return logits.float().cpu()
        sizes = self.held_out.sizes
        height, width = sizes[sizes.prod(1).argmax()].tolist()
        if (height, width) != (self.plan.crop, self.plan.crop):
            try:
                with borrowed(self.network):
                    call(
                        self.network,
                        torch.zeros(1, 3, height, width, device=self.device, dtype=torch.float32),
                    )
            except REFUSALS as error:  # networks refuse sizes in every way there is
                if passes_through(error) or self.plan.crop is None:
                    raise
                return None
        return self._logits(whole_boxes(sizes))

    def _logits(self, boxes: torch.Tensor) -> torch.Tensor:
        return logits_of_photos(
            self.network,
            self.held_out,
            boxes,
            self.preprocessing,
            batch_size=self.plan.batch_size,
            reading=self.reading,
            progress=self.progress,
        )
