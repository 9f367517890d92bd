"""One pass over many photos: each is decoded once, measured, and described by a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from pyxai.classifier import Classifier
from pyxai.classifier.batches import Batch, iterate_batches
from pyxai.classifier.features import pooled_features
from pyxai.curate.quality import Quality, measure
from pyxai.images import ImageError, iterate_photos

MAX_BYTES = 1 << 30
"""What the features of all photos may take; beyond it they are projected to fewer dimensions."""

_FEWEST = 16


class Features:
    """Pooled features of one layer, collected batch by batch."""

    def __init__(
        self, classifier: Classifier, layer: str | None, photos: int, *, seed: int = 0
    ) -> None:
        """Collects nothing yet.

        Args:
            classifier: the model.
            layer: a name; None, the last layer with spatial positions.
            photos: how many there will be at most.
            seed: of the random projection, if there is one.
        """
        self.layer = layer
        self._classifier = classifier
        self._photos = photos
        self._seed = seed
        self._places: dict[str, int] = {}
        self._rows: NDArray[np.float32] | None = None
        self._projection: NDArray[np.float32] | None = None

    def add(self, batch: Batch) -> None:
        """Runs the network on a batch.

        Raises:
            ValueError: the layer does not exist, or has no features of images.
        """
        if self.layer is None:
            self.layer = self._classifier.last_spatial_layer(batch.inputs)
        raw = pooled_features(self._classifier, batch.inputs, self.layer)[self.layer]
        found: NDArray[np.float32] = raw.cpu().numpy()
        if self._rows is None:
            self._rows = self._allocate(found.shape[1])
        if self._projection is not None:
            found = found @ self._projection
        start = len(self._places)
        self._rows[start : start + len(found)] = found
        for offset, name in enumerate(batch.names):
            self._places[name] = start + offset

    def of(self, names: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """`[n, F]` and which of these rows are there and finite; the others are zero."""
        if self._rows is None:
            return np.zeros((len(names), 1), np.float32), np.zeros(len(names), np.bool_)
        places = np.array([self._places.get(name, -1) for name in names])
        # Photos come in their order, so without gaps this is no copy.
        whole = np.array_equal(places, np.arange(len(places)))
        rows = self._rows[: len(places)] if whole else self._rows[places]
        described = (places >= 0) & np.isfinite(rows).all(axis=1)
        rows[~described] = 0
        return rows, described

    def _allocate(self, width: int) -> NDArray[np.float32]:
        """Room for all; distances survive a random projection (Johnson and Lindenstrauss 1984)."""
        affordable = max(_FEWEST, MAX_BYTES // (4 * self._photos))
        if width > affordable:
            random = np.random.default_rng(self._seed)
            matrix = random.standard_normal((width, affordable), np.float32)
            self._projection = matrix / np.float32(np.sqrt(affordable))
            width = affordable
        return np.zeros((self._photos, width), np.float32)


@dataclass(frozen=True)
class Seen:
    """What one pass over the photos has brought.

    Attributes:
        paths: of the photos that could be read.
        measures: of each, by the names of the fields of `Quality`, float32 `[n]`.
        unreadable: (path, reason) of the others.
        features: the network's; None without one.
    """

    paths: list[str]
    measures: dict[str, NDArray[np.float32]]
    unreadable: list[tuple[str, str]]
    features: Features | None


def look_at(
    files: list[str],
    classifier: Classifier | None,
    layer: str | None = None,
    *,
    batch_size: int | None = None,
    progress: bool = True,
) -> Seen:
    """Decodes each photo once; measures it, and runs the network on it where there is one."""
    paths: list[str] = []
    measured: list[Quality] = []
    failures: list[ImageError] = []
    bar = tqdm(total=len(files), desc="audit", unit="photo", disable=None if progress else True)

    def look(name: str, photo: Image.Image) -> None:
        paths.append(name)
        measured.append(measure(photo))
        bar.update()

    features = None
    with bar:
        if classifier is None:
            for name, photo in iterate_photos(files):
                if isinstance(photo, ImageError):
                    failures.append(photo)
                else:
                    look(name, photo)
        else:
            features = Features(classifier, layer, len(files))
            for batch in iterate_batches(
                classifier, files, batch_size=batch_size, failures=failures, look=look
            ):
                features.add(batch)
    known = set(paths)
    columns = np.array(measured, np.float32).reshape(len(paths), len(Quality._fields))
    return Seen(
        paths,
        {name: columns[:, place] for place, name in enumerate(Quality._fields)},
        [(error.name, error.reason) for error in failures if error.name not in known],
        features,
    )
