"""The share of neurons that an image activates: unfamiliar images often activate more of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from pyxai._errors import argument_error
from pyxai._results import Report, Rows, plain
from pyxai._text import text_table
from pyxai.classifier import Classifier, as_classifier
from pyxai.classifier.batches import iterate_batches
from pyxai.draw.histogram import histogram
from pyxai.images import ImageError, ImageErrors, PhotoFailure
from pyxai.novelty.activations import Known, Source, failures_of, is_activations


@dataclass(frozen=True, eq=False, repr=False)
class ActiveShare(Report):
    """Shares of active neurons.

    Attributes:
        shares: of each group, one share an image, 0 to 1.
        layer: that was read; None for ready activations of unknown origin.
        failures: photos that could not be used.
    """

    shares: dict[str, NDArray[np.float64]]
    layer: str | None
    failures: tuple[PhotoFailure, ...] = ()

    def _facts(self) -> str:
        images = sum(map(len, self.shares.values()))
        where = "" if self.layer is None else f" of {self.layer}"
        return f"{images} images in {len(self.shares)} groups{where}"

    def to_dict(self) -> dict[str, Any]:
        """Count, smallest, 5th percentile, median, mean, 95th and largest of each group."""
        failures = plain(self.failures)
        return {"layer": self.layer, "groups": self._groups(), "failures": failures}

    def _groups(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for name, each in self.shares.items():
            low, middle, high = np.percentile(each, [5, 50, 95])
            found[name] = {
                "images": len(each),
                "smallest": float(each.min()),
                "percentile_5": float(low),
                "median": float(middle),
                "mean": float(each.mean()),
                "percentile_95": float(high),
                "largest": float(each.max()),
            }
        return found

    def figure(self, bins: int = 40) -> Image.Image:
        """One histogram a group on a common axis."""
        title = f"share of active neurons{'' if self.layer is None else f' of {self.layer}'}"
        return histogram(self.shares, bins=bins, title=title, percent=True)

    def _table(self) -> Rows:
        groups = self._groups()
        columns = ("group", *next(iter(groups.values())))
        return columns, [(name, *each.values()) for name, each in groups.items()]

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = []
        for name, each in self._groups().items():
            if not rows:
                rows.append(("group", *(key.replace("_", " ") for key in each)))
            shares = (f"{value:.1%}" for key, value in each.items() if key != "images")
            rows.append((name, str(each["images"]), *shares))
        return text_table(rows)


def active_share(
    model: Classifier | nn.Module | None,
    images: Known | Mapping[str, Known],
    layer: str | None = None,
    *,
    batch_size: int | None = None,
) -> ActiveShare:
    """The share of a layer's numbers that are above 0, of each image.

    Of a layer with positions all numbers count, before they are averaged. What enters the last
    layer of most convolutional networks is an average over positions of ReLU outputs, nearly all of
    which are above 0: there, name a hidden fully connected layer, or one with positions.

    Args:
        model: the classifier; None for ready activations.
        images: see `NoveltyDetector.fit`; or a dictionary of groups of these.
        layer: any layer; None for what enters the last linear layer.
        batch_size: images in a forward pass.

    Returns:
        The shares of each group. Photos that cannot be used are left out and listed in `failures`.

    Raises:
        ImageError: no photo of a group can be used.
        ValueError: the layer does not exist or has no activations; or there are no images.

    Source: Lazarev's tutorial, see `Logistic`.
    """
    classifier = None if model is None else as_classifier(model)
    groups = images if isinstance(images, Mapping) else {"images": images}
    source = Source(classifier, layer)
    failures: list[ImageError] = []
    shares = {
        str(name): _shares(source, classifier, some, layer, batch_size, failures)
        for name, some in groups.items()
    }
    if not shares or not all(map(len, shares.values())):
        raise argument_error("images", "groups of at least one image", images)
    return ActiveShare(shares, source.layer_name(), failures_of(failures))


def _shares(
    source: Source,
    classifier: Classifier | None,
    images: Any,
    layer: str | None,
    batch_size: int | None,
    failures: list[ImageError],
) -> NDArray[np.float64]:
    found: list[NDArray[np.float64]] = []
    before = len(failures)
    if layer is None or classifier is None or is_activations(images):
        for chunk in source.chunks(images, batch_size=batch_size, failures=failures):
            found.append(_positive(chunk.features))
    else:
        for batch in iterate_batches(classifier, images, batch_size=batch_size, failures=failures):
            raw = classifier.activations(batch.inputs, layer)[layer]
            if raw.ndim < 2 or len(raw) != len(batch.inputs) or not raw[0].numel():
                expected = "a layer with numbers for each image, [N, ...]"
                raise argument_error("layer", expected, raw)
            found.append(_positive(raw.flatten(1)))
    if not found and failures[before:]:
        raise ImageErrors([(each.name, each.reason) for each in failures[before:]])
    return np.concatenate(found) if found else np.empty(0)


def _positive(rows: torch.Tensor) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = (rows > 0).double().mean(dim=1).cpu().numpy()
    return shares
