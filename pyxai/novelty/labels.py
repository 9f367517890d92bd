"""The class of each known image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from pyxai._errors import argument_error
from pyxai.classifier import Classifier
from pyxai.classifier.outputs import class_index
from pyxai.images import FolderLabels
from pyxai.images.errors import printable
from pyxai.novelty.activations import Activations

Array = np.ndarray[Any, Any]
Labels: TypeAlias = "Sequence[int | str] | Array | str | None"
"""One class an image, "folder", or None for the network's top class."""


class Labeler:
    """Hands out the labels of one chunk after the other."""

    def __init__(self, labels: Labels, classifier: Classifier | None, known: object) -> None:
        """Takes note of the labels.

        Args:
            labels: see `NoveltyDetector.fit`.
            classifier: whose classes they are.
            known: the images, as they were given; their folders are told from it.

        Raises:
            ValueError: the labels are of no such kind.
        """
        if isinstance(labels, str) and labels != "folder":
            raise argument_error("labels", "None, 'folder' or one class for each image", labels)
        self._names = None if classifier is None else classifier.class_names
        self._folders = FolderLabels(known) if isinstance(labels, str) else None
        self._labels: list[Any] | None = None
        if labels is not None and self._folders is None:
            self._labels = np.asarray(labels).ravel().tolist() if len(labels) else []
        self._next = 0

    def classes(self, chunk: Activations) -> Array | None:
        """The classes `[n]` of a chunk; None without labels and logits.

        Raises:
            ValueError: a label is no class of the network, or there are too few.
        """
        if self._folders is not None:
            if chunk.names is None:
                raise argument_error("labels", "one class for each image", "'folder' of no photos")
            found = [self._folders.label(name, own=True) for name in chunk.names]
            if None in found:
                got = chunk.names[found.index(None)]
                raise argument_error("labels", "each photo in a folder of its class", got)
        elif self._labels is None:
            return None if chunk.logits is None else chunk.logits.argmax(dim=1).cpu().numpy()
        else:
            found = self._labels[self._next : self._next + len(chunk)]
            self._next += len(chunk)
            if len(found) < len(chunk):
                expected = "one class for each known image"
                raise argument_error("labels", expected, f"only {len(self._labels)}")
        count = None if chunk.logits is None else chunk.logits.shape[1]
        names = chunk.names or [""] * len(found)
        indices = [self._index(*each, count) for each in zip(found, names, strict=True)]
        return np.array(indices, np.int64)

    def count(self, chunk: Activations) -> int | None:
        """How many classes there are: the network's, else as many as the labels need."""
        if chunk.logits is not None:
            return chunk.logits.shape[1]
        if self._names is not None:
            return len(self._names)
        whole = [each for each in self._labels or [] if not isinstance(each, str)]
        return max(map(int, whole)) + 1 if whole else None

    def finish(self) -> None:
        """Checks that no label is left over."""
        if self._labels is not None and self._next != len(self._labels):
            expected = f"one class for each of {self._next} known images"
            raise argument_error("labels", expected, f"{len(self._labels)}")

    def _index(self, label: Any, name: str, count: int | None) -> int:
        try:
            index = class_index(label, self._names)
        except ValueError as error:
            of = "" if self._folders is None else f" (the folder of {printable(name)})"
            raise ValueError(str(error).replace("target:", "labels:", 1) + of) from None
        if index < 0 or (count is not None and index >= count):
            classes = "" if count is None else f" below {count}"
            raise argument_error("labels", f"class indices of the network{classes}", index)
        return index
