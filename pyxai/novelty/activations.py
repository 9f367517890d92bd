"""Activations with logits: read from photos in one forward pass, or given as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from pyxai._errors import argument_error, check_count
from pyxai._precision import full_precision
from pyxai.classifier import (
    Classifier,
    Examined,
    LinearHead,
    as_classifier,
    typical_input_shape,
)
from pyxai.classifier.batches import Batch, iterate_batches
from pyxai.classifier.readout import Readout, find_readout, read_layer, read_penultimate
from pyxai.images import ImageError, Images, PhotoFailure, is_model_input

_ROWS = 4096  # of ready activations in a chunk
_EXPECTED = "photos, model input [N, C, H, W], activations [n, d] or chunks of these"


@dataclass(frozen=True, eq=False)
class Activations:
    """What a layer says about some images.

    Attributes:
        features: `[n, d]` floating tensor.
        logits: `[n, K]`, None where they are not known.
        names: of the images, where they are known: paths, or "images[i]".
        failures: photos between these and the images before them that could not be used.
    """

    features: torch.Tensor
    logits: torch.Tensor | None = None
    names: tuple[str, ...] | None = None
    failures: tuple[PhotoFailure, ...] = ()

    def __post_init__(self) -> None:
        for argument, value in (("features", self.features), ("logits", self.logits)):
            if value is None:
                continue
            given = isinstance(value, torch.Tensor)
            tensor = value if given else torch.from_numpy(np.asarray(value))
            if tensor.ndim != 2 or not tensor.is_floating_point():
                raise argument_error(argument, "floating-point numbers [n, d]", value)
            object.__setattr__(self, argument, tensor.detach())
        if self.logits is not None and len(self.logits) != len(self.features):
            expected = f"as many rows as features, {len(self.features)}"
            raise argument_error("logits", expected, self.logits)

    def __len__(self) -> int:
        return len(self.features)

    def rows(self, index: Any) -> Activations:
        """Some rows: a slice, or an int64 or bool tensor or array."""
        if isinstance(index, np.ndarray):
            index = torch.from_numpy(index)
        logits = None if self.logits is None else self.logits[index]
        names = None
        if self.names is not None:
            places = torch.arange(len(self), dtype=torch.int64, device="cpu")[
                index if isinstance(index, slice) else index.cpu()
            ]
            names = tuple(self.names[place] for place in places.tolist())
        return Activations(self.features[index], logits, names)


Known: TypeAlias = "Images | Activations | Iterable[Activations]"
"""Photos as `pyxai.images` takes them, model input, activations, or chunks of activations."""


def failures_of(errors: Iterable[ImageError]) -> tuple[PhotoFailure, ...]:
    """What could not be used, as results list it."""
    return tuple(PhotoFailure(each.name, each.reason) for each in errors)


def join(parts: Iterable[Activations]) -> Activations:
    """All rows as one, on the CPU.

    Raises:
        ValueError: there are none.
    """
    found = list(parts)
    if not found:
        raise argument_error("images", "at least one image", "none")
    logits = [part.logits.cpu() for part in found if part.logits is not None]
    names = [part.names for part in found if part.names is not None]
    return Activations(
        torch.cat([part.features.cpu() for part in found]),
        torch.cat(logits) if len(logits) == len(found) else None,
        tuple(chain.from_iterable(names)) if len(names) == len(found) else None,
    )


def classifier_of(model: object) -> Classifier | None:
    """The classifier of a detector's model; None where that has only a head, or nothing.

    Raises:
        ValueError: it is something else.
    """
    if model is None or isinstance(model, LinearHead):
        return None
    if not isinstance(model, (nn.Module, Classifier)):
        expected = "a torch.nn.Module, a pyxai.Classifier, a LinearHead or None"
        raise argument_error("model", expected, model)
    return as_classifier(model)


def source_of(model: object, layer: object, shape: tuple[int, ...] | None = None) -> Source:
    """Where the activations come from that a detector of this model and layer looks at.

    Raises:
        ValueError: the model or the layer is of a kind that cannot be.
    """
    if layer is not None and not isinstance(layer, str):
        raise argument_error("layer", "the name of a layer or None", layer)
    head = model if isinstance(model, LinearHead) else None
    return Source(classifier_of(model), layer, head, shape)


class Source:
    """Where activations come from: a classifier and a layer, or a linear head alone, or nothing.

    Attributes:
        classifier: None where only ready activations are taken.
        layer: the layer asked for, None for the penultimate features.
        shape: `[C, H, W]` of the first image, or of one that the network is known to take.
    """

    def __init__(
        self,
        classifier: Classifier | None,
        layer: str | None,
        head: LinearHead | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        self.classifier = classifier
        self.layer = layer
        self.shape = shape
        self._head = head
        self._ready = classifier is None
        self._readout: Readout | None = None
        self._layer_read: str | None = layer

    def layer_name(self) -> str | None:
        """The layer that was read: "fc (input)" for the penultimate features; None if unknown."""
        if self.layer is not None or self.classifier is None:
            return self.layer
        self._find_out(None)
        return self._layer_read or (f"{self._readout.layer} (input)" if self._readout else None)

    def head(self) -> LinearHead | None:
        """The weights that make the logits from these features, None where there are none.

        Raises:
            ValueError: the network has no preprocessing that tells the size of its input.
        """
        self._find_out(None)
        return self._head

    def read(self, inputs: torch.Tensor) -> Activations:
        """Features and logits of a batch, on the model's device, from one forward pass."""
        assert self.classifier is not None
        if self.shape is None:
            self.shape = tuple(inputs.shape[1:])
        self._find_out(inputs)
        examined = Examined(self.classifier, inputs)
        if self._layer_read is None:
            assert self._readout is not None
            return Activations(*read_penultimate(examined, self._readout.layer))
        return Activations(*read_layer(examined, self._layer_read))

    def chunks(
        self,
        images: Known,
        *,
        batch_size: int | None = None,
        failures: list[ImageError] | None = None,
        progress: str = "",
    ) -> Iterator[Activations]:
        """Activations of any number of images, no more than one batch at a time.

        Args:
            images: see `Known`.
            batch_size: see `iterate_batches`.
            failures: gets the error of photos that cannot be used; None raises the first.
            progress: what a bar is called; none without it, nor where no terminal listens.

        Raises:
            ImageError: a photo cannot be used.
            ValueError: a bad batch size, activations that are not finite, of another width than
                before, or photos without a classifier.
        """
        if batch_size is not None:
            check_count("batch_size", batch_size, or_none=True)
        ready, rest = _sorted_out(images)
        if ready is None:
            if self.classifier is None:
                raise argument_error("model", "a classifier, to read photos", None)
            ready = self._from_images(rest, batch_size, failures, progress)
        width: int | None = None
        for chunk in ready:
            if width is not None and chunk.features.shape[1] != width:
                raise argument_error("activations", f"rows of {width} numbers", chunk.features)
            width = chunk.features.shape[1]
            yield self._checked(chunk)

    def _from_images(
        self,
        images: Any,
        batch_size: int | None,
        failures: list[ImageError] | None,
        progress: str,
    ) -> Iterator[Activations]:
        assert self.classifier is not None
        batches: Iterable[Batch] = iterate_batches(
            self.classifier, images, batch_size=batch_size, failures=failures
        )
        with tqdm(desc=progress, unit="photo", disable=None if progress else True) as bar:
            for batch in batches:
                found = self.read(batch.inputs)
                bar.update(len(found))
                yield Activations(found.features, found.logits, batch.names)

    @full_precision()
    def _checked(self, chunk: Activations) -> Activations:
        """The chunk with logits where there are any; refused if it is not finite."""
        for what, values in (("features", chunk.features), ("logits", chunk.logits)):
            if values is not None and not bool(torch.isfinite(values).all()):
                row = int((~torch.isfinite(values)).any(dim=1).nonzero()[0, 0])
                name = f"row {row}" if chunk.names is None else chunk.names[row]
                got = f"NaN or infinity in the {what} of {name}"
                raise argument_error("activations", "finite numbers", got)
        if chunk.logits is None and (head := self.head()) is not None:
            if chunk.features.shape[1] != head.weight.shape[1]:
                expected = f"[n, {head.weight.shape[1]}], as the last linear layer takes them"
                raise argument_error("activations", expected, chunk.features)
            features = chunk.features.float()
            logits = features @ head.weight.to(features).T + head.bias.to(features)
            return Activations(chunk.features, logits, chunk.names)
        return chunk

    def _find_out(self, inputs: torch.Tensor | None) -> None:
        """Finds the last linear layer, and whether the layer asked for is what enters it."""
        if self._ready:
            return
        classifier = self.classifier
        assert classifier is not None
        if inputs is None or not len(inputs):
            typical = typical_input_shape(classifier.network, classifier.preprocessing)
            shape = typical if self.shape is None else self.shape
            generator = torch.Generator(device="cpu").manual_seed(0)
            noise = torch.randn((2, *shape), generator=generator, dtype=torch.float32, device="cpu")
            inputs = noise.to(classifier.device, classifier.dtype)
        examined = Examined(classifier, inputs[:2])
        readout = find_readout(examined)
        if self.layer is None:
            self._readout = readout
            self._head = None if readout is None else readout.head
            if readout is None:
                self._layer_read = examined.layer()
                self._head = _head_after(examined, self._layer_read)
        elif readout is not None:
            features, _ = read_layer(examined, self.layer)
            entering, _ = read_penultimate(examined, readout.layer)
            if features.shape == entering.shape and torch.allclose(features, entering, rtol=1e-4):
                self._head = readout.head
        self._ready = True


def _head_after(examined: Examined, layer: str) -> LinearHead | None:
    """What makes the logits of a layer's means without a linear layer: a function, with weights."""
    head = examined.linear_head(layer)
    if head is None:
        return None
    features, logits = read_layer(examined, layer)
    if features.shape[1] != head.weight.shape[1]:
        return None
    again = features @ head.weight.T + head.bias
    allowed = 1e-3 * float(logits.abs().max()) + 1e-6
    # Maps whose means are the logits are no features.
    trivial = features.shape == logits.shape and bool((features - logits).abs().max() <= allowed)
    fits = again.shape == logits.shape and bool((again - logits).abs().max() <= allowed)
    return head if fits and not trivial else None


def _sorted_out(images: Any) -> tuple[Iterator[Activations] | None, Any]:
    """Chunks of ready activations, or None and the images."""
    if isinstance(images, Iterator):
        first = next(images, None)
        if first is None:
            raise argument_error("images", _EXPECTED, "an empty iterator")
        images = chain([first], images)
        if not _is_chunk(first):
            return None, images
    elif _is_chunk(images):
        return _slices(images), images
    elif isinstance(images, np.ndarray) and np.issubdtype(images.dtype, np.floating):
        raise argument_error("images", _EXPECTED, images)
    elif isinstance(images, torch.Tensor) and images.is_floating_point():
        if not is_model_input(images):
            raise argument_error("images", _EXPECTED, images)
        return None, images
    elif not isinstance(images, (list, tuple)) or not images or not _is_chunk(images[0]):
        return None, images
    return (part for chunk in images for part in _slices(chunk)), images


def _is_chunk(value: Any) -> bool:
    if isinstance(value, Activations):
        return True
    if isinstance(value, np.ndarray):
        return value.ndim == 2 and np.issubdtype(value.dtype, np.floating)
    return isinstance(value, torch.Tensor) and value.ndim == 2 and value.is_floating_point()


def _slices(chunk: Any) -> Iterator[Activations]:
    """A few thousand rows at a time, so that an array may lie in a file (`numpy.memmap`)."""
    if not _is_chunk(chunk):
        raise argument_error("activations", "chunks [n, d] of floating-point numbers", chunk)
    for start in range(0, len(chunk), _ROWS):
        some = slice(start, start + _ROWS)
        if isinstance(chunk, Activations):
            yield chunk.rows(some)
        elif isinstance(chunk, np.ndarray):
            # A copy where torch would warn that it cannot write.
            yield Activations(torch.from_numpy(np.require(chunk[some], requirements=["W", "C"])))
        else:
            yield Activations(chunk[some])


def is_activations(images: Any) -> bool:
    """Whether these are ready activations and not images; iterators are taken for images."""
    some = images[0] if isinstance(images, (list, tuple)) and images else images
    return _is_chunk(some)
