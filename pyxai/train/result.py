"""A trained classifier, and how good it is, as data and as text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from PIL import Image

from pyxai._results import Report, Rows, plain
from pyxai._text import text_table
from pyxai.classifier import Classifier
from pyxai.draw.matrix import confusion_figure
from pyxai.images import PhotoFailure
from pyxai.images.errors import printable
from pyxai.train.evaluation import Metrics
from pyxai.train.loop import Epoch

_LISTED = 20  # classes of which the confusion matrix is printed


@dataclass(frozen=True, eq=False, repr=False)
class FineTuned(Report):
    """A trained classifier, and how good it is on the validation photos.

    Attributes:
        classifier: the trained copy in evaluation mode, with the names of its classes; after crop
            training its preprocessing keeps photos at their own resolution.
        history: one entry for each epoch.
        epoch: the number of the epoch whose weights these are; with early stopping that of the
            lowest validation loss, else the last.
        metrics: on whole validation photos, or on crops where `accuracy` is None.
        accuracy: share of whole validation photos that come out right, 0 to 1; None for a network
            that does not run on whole photos (`crop` only).
        crop_accuracy: the same for one random crop of each, the same ones after every epoch; None
            without `crop`.
        head: name of the module that gives the logits; with `head="mlp"` its child `hidden` gives
            the hidden activations.
        features_kept: whether the features of the frozen network were computed once for all epochs.
        too_small: photos left out because a side is shorter than the crop.
        failures: photos left out because they cannot be read.
    """

    classifier: Classifier
    history: tuple[Epoch, ...]
    epoch: int
    metrics: Metrics
    accuracy: float | None
    crop_accuracy: float | None
    head: str
    features_kept: bool
    too_small: tuple[str, ...]
    failures: tuple[PhotoFailure, ...]

    def _facts(self) -> str:
        classes, photos = len(self.metrics.classes), int(self.confusion.sum())
        told = f"accuracy {self.metrics.accuracy:.4f} of {classes} classes on {photos} photos"
        return f"{told}, epoch {self.epoch} of {len(self.history)}"

    @property
    def confusion(self) -> torch.Tensor:
        """`[K, K]` int64, row: class of the photo, column: predicted; see `metrics`."""
        return self.metrics.confusion

    def to_dict(self) -> dict[str, Any]:
        """All of it but the classifier."""
        names = self.classifier.class_names or ()
        metrics = self.metrics
        return {
            "class_names": [*names],
            "preprocessing": plain(self.classifier.preprocessing),
            "head": self.head,
            "features_kept": self.features_kept,
            "epoch": self.epoch,
            "accuracy": self.accuracy,
            "crop_accuracy": self.crop_accuracy,
            "balanced_accuracy": metrics.balanced_accuracy,
            "log_loss": metrics.log_loss,
            "classes": [
                {"name": name, **asdict(each)}
                for name, each in zip(names, metrics.classes, strict=True)
            ],
            "confusion": metrics.confusion.tolist(),
            "history": plain(self.history),
            "too_small": [*self.too_small],
            "failures": plain(self.failures),
        }

    def figure(self) -> Image.Image:
        """The confusion matrix on the validation photos."""
        names = [printable(each) for each in self._names()]
        judged = "photos" if self.accuracy is not None else "crops"
        title = f"{int(self.confusion.sum())} {judged}, accuracy {self.metrics.accuracy:.1%}"
        return confusion_figure(self.confusion.cpu().numpy(), names, title=title)

    def _table(self) -> Rows:
        rows = [
            (name, each.photos, each.precision, each.recall, each.f1)
            for name, each in zip(self._names(), self.metrics.classes, strict=True)
        ]
        return ("class", "photos", "precision", "recall", "f1"), rows

    def _names(self) -> list[str]:
        names = self.classifier.class_names
        return [*names] if names else [f"class {at}" for at in range(len(self.metrics.classes))]

    def __str__(self) -> str:
        """The figures as text: the classes, the confusion matrix, and what holds for all."""
        names = [printable(each) for each in self.classifier.class_names or ()]
        rows: list[tuple[str, ...]] = [("class", "photos", "precision", "recall", "F1")]
        for name, each in zip(names, self.metrics.classes, strict=True):
            shares = (f"{value:.3f}" for value in (each.precision, each.recall, each.f1))
            rows.append((name, str(each.photos), *shares))
        parts = [text_table(rows)]
        if len(names) <= _LISTED:
            counts = self.confusion.tolist()
            table = [("taken for", *names)]
            table += [(name, *map(str, row)) for name, row in zip(names, counts, strict=True)]
            parts.append(text_table(table))
        judged = "whole photos" if self.accuracy is not None else "crops"
        lines = [("judged on", judged), ("accuracy", f"{self.metrics.accuracy:.4f}")]
        if self.accuracy is not None and self.crop_accuracy is not None:
            lines.append(("accuracy on crops", f"{self.crop_accuracy:.4f}"))
        lines += [
            ("balanced accuracy", f"{self.metrics.balanced_accuracy:.4f}"),
            ("log loss", f"{self.metrics.log_loss:.4f}"),
            ("weights of epoch", f"{self.epoch}, of {len(self.history)}"),
        ]
        return "\n\n".join((*parts, text_table(lines)))
