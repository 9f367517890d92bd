"""One pass over many photos: each is decoded once, measured, and described by a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pyxai.classifier import Classifier, Examined
from pyxai.classifier.batches import Batch, batches_of
from pyxai.classifier.features import pooled_features
from pyxai.classifier.fingerprint import fingerprint
from pyxai.curate.quality import Quality, measure
from pyxai.runs import Executor, Kind, OpenPhoto, PhotoFailure, Row, open_run

RUN = Kind("an audit's run", "audit-run", "pyxai audit run 1")

MAX_BYTES = 1 << 30
"""What the features of all photos may take; beyond it they are projected to fewer dimensions."""

_FEWEST = 16


class Features:
    """Pooled features of one layer, collected part by part."""

    def __init__(self, photos: int, *, seed: int = 0) -> None:
        """Collects nothing yet.

        Args:
            photos: how many there will be at most.
            seed: of the random projection, if there is one.
        """
        self._photos = photos
        self._seed = seed
        self._places: dict[str, int] = {}
        self._rows: NDArray[np.float32] | None = None
        self._projection: NDArray[np.float32] | None = None

    def add(self, names: Sequence[str], features: NDArray[np.float32]) -> None:
        """Takes features `[n, F]` of photos."""
        if not len(names):
            return
        if self._rows is None:
            self._rows = self._allocate(features.shape[1])
        if self._projection is not None:
            features = features @ self._projection
        start = len(self._places)
        self._rows[start : start + len(features)] = features
        for offset, name in enumerate(names):
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


class Looking:
    """The work of an audit: measures of each photo, and a network's features where there is one."""

    def __init__(
        self, classifier: Classifier | None, chosen: dict[str, Any], batch_size: int | None
    ) -> None:
        """Takes note.

        Args:
            classifier: describes photos; None describes none.
            chosen: gets the "layer" of the features, unless it has it.
            batch_size: of the network.
        """
        self._classifier, self._chosen, self._batch_size = classifier, chosen, batch_size

    def __call__(self, photos: Iterator[OpenPhoto]) -> Iterator[Row | PhotoFailure]:
        """See `pyxai.runs.working.Work`; what the network cannot take has no features."""
        measures: dict[str, torch.Tensor] = {}

        def measured() -> Iterator[tuple[str, Image.Image]]:
            for photo in photos:
                measures[photo.name] = torch.tensor(
                    measure(photo.picture), dtype=torch.float32, device="cpu"
                )
                yield photo.name, photo.picture

        nothing = {"features": torch.zeros(0, dtype=torch.float32, device="cpu")}
        if (classifier := self._classifier) is None:
            for name, _ in measured():
                yield Row(name, None, {"measures": measures.pop(name)}, nothing)
            return
        for batch in batches_of(classifier, measured(), self._batch_size):
            if not isinstance(batch, Batch):
                yield Row(batch.name, None, {"measures": measures.pop(batch.name)}, nothing)
                continue
            examined = Examined(classifier, batch.inputs)
            if self._chosen.get("layer") is None:
                self._chosen["layer"] = examined.layer()
            layer = self._chosen["layer"]
            rows = pooled_features(examined, layer)[layer].float().cpu()
            for name, row in zip(batch.names, rows, strict=True):
                of_photo = {"measures": measures.pop(name)}
                yield Row(name, None, of_photo, {"features": row[None]})


@dataclass(frozen=True)
class Seen:
    """What one pass over the photos has brought.

    Attributes:
        paths: of the photos that could be read.
        measures: of each, by the names of the fields of `Quality`, float32 `[n]`.
        unreadable: the others.
        features: the network's; None without one.
        layer: that the features are of, or None.
    """

    paths: list[str]
    measures: dict[str, NDArray[np.float32]]
    unreadable: list[PhotoFailure]
    features: Features | None
    layer: str | None


def look_at(
    files: list[str],
    classifier: Classifier | None,
    layer: str | None = None,
    *,
    batch_size: int | None = None,
    checkpoint: Path | None = None,
    executor: Executor = "local",
    progress: bool = True,
) -> Seen:
    """Decodes each photo once; measures it, and runs the network on it where there is one.

    See `pyxai.audit` for the arguments.
    """
    identity: dict[str, Any] = {"layer": layer}
    if classifier is not None:
        identity["network"] = fingerprint(classifier.network)
        identity["preprocessing"] = repr(classifier.preprocessing)
    paths: list[str] = []
    measures: list[NDArray[np.float32]] = []
    features = None if classifier is None else Features(len(files))
    with open_run(RUN, checkpoint, identity) as run:
        chosen = run.parts.chosen
        if layer is not None:
            chosen["layer"] = layer
        work = Looking(classifier, chosen, batch_size)
        for part in run.parts_of(files, work, desc="audit", executor=executor, progress=progress):
            names = [photo.path for photo in part.photos]
            paths += names
            measures.append(part.tensor("measures").numpy())
            if features is not None:
                counts = part.tensor("features.counts").tolist()
                described = [name for name, count in zip(names, counts, strict=True) if count]
                features.add(described, part.tensor("features").numpy())
    columns = np.concatenate([np.zeros((0, len(Quality._fields)), np.float32), *measures])
    return Seen(
        paths=paths,
        measures={name: columns[:, place] for place, name in enumerate(Quality._fields)},
        unreadable=run.failures,
        features=features,
        layer=chosen.get("layer") if classifier is not None else None,
    )
