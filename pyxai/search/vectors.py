"""The features of what is searched by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from pyxai._errors import argument_error
from pyxai.classifier import Classifier
from pyxai.neighbors.nearest import Matrix
from pyxai.search.extraction import features_of
from pyxai.search.queries import OneQuery


def query_vectors(
    queries: Sequence[OneQuery],
    matrix: Matrix,
    layer: str,
    classifier_of: Callable[[], Classifier],
    pooling: Any,
) -> torch.Tensor:
    """Features `[q, F]`: those of photos of the index are there, others are computed.

    Args:
        queries: what to search by.
        matrix: the features of the index.
        layer: the name of their layer.
        classifier_of: gives the network; asked only if there are new photos.
        pooling: of the index.

    Raises:
        ValueError: a photo gives another number of features, or some that are not finite.
    """
    found = torch.zeros((len(queries), matrix.width), dtype=torch.float32, device="cpu")
    known = [at for at, one in enumerate(queries) if one.is_stored]
    new = [at for at, one in enumerate(queries) if not one.is_stored]
    if known:
        found[known] = matrix.take(
            torch.tensor([queries[at].id for at in known], dtype=torch.int64, device="cpu")
        )
    if new:
        classifier = classifier_of()
        inputs = [classifier.to_input(queries[at].images)[0].cpu() for at in new]
        rows = features_of(classifier, inputs, [layer], pooling)[layer]
        if rows.shape[1] != matrix.width:
            expected = f"photos that give {matrix.width} features of {layer}"
            raise argument_error("query", expected, f"{rows.shape[1]}, of another size")
        if not bool(torch.isfinite(rows).all()):
            raise ValueError("query: expected photos with finite features, got NaN or infinity")
        found[new] = rows
    return found
