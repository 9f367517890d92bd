"""Which network, read how: what a fitted detector is bound to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from torch import nn

from pyxai.classifier import Classifier, LinearHead, as_classifier
from pyxai.classifier.fingerprint import fingerprint


@dataclass(frozen=True)
class Identity:
    """What must be the same for activations to mean the same.

    Attributes:
        network: its name, for messages.
        fingerprint: of all weights and buffers; of the linear layer alone where only that is known;
            None for activations of unknown origin.
        layer: that was read.
        preprocessing: as JSON would have it, None without a classifier.
        class_names: None without.
    """

    network: str
    fingerprint: str | None
    layer: str | None
    preprocessing: dict[str, Any] | None
    class_names: tuple[str, ...] | None

    def differences(self, other: Identity) -> list[str]:
        """What is not the same, in words: "weights", "preprocessing (...)"."""
        found = []
        if self.fingerprint != other.fingerprint:
            found.append(f"weights (of {self.network}; {other.network})")
        for name in ("layer", "preprocessing", "class_names"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                found.append(f"{name} ({_short(mine)}; {_short(theirs)})")
        return found


def identity_of(model: Classifier | nn.Module | LinearHead | None, layer: str | None) -> Identity:
    """The identity of a network read at a layer."""
    if model is None:
        return Identity("none", None, layer, None, None)
    if isinstance(model, LinearHead):
        linear = nn.Module()
        linear.register_buffer("weight", model.weight)
        linear.register_buffer("bias", model.bias)
        return Identity("LinearHead", fingerprint(linear), layer, None, None)
    classifier = as_classifier(model)
    # As it comes back from JSON: lists, not tuples.
    preprocessing = json.loads(json.dumps(classifier.preprocessing.steps))
    return Identity(
        classifier.name,
        fingerprint(classifier.network),
        layer,
        preprocessing,
        classifier.class_names,
    )


def weights_token(classifier: Classifier | None) -> tuple[Any, ...]:
    """Changes whenever weights are written to or replaced; costs microseconds, no hashing.

    It may change without need (another copy of the same numbers). Two ways of writing go unseen, as
    torch does not count them: through `.data`, and into tensors of inference mode.
    """
    if classifier is None:
        return ()
    found: list[Any] = []
    for tensors in (classifier.network.parameters(), classifier.network.buffers()):
        for tensor in tensors:
            version = 0 if tensor.is_inference() else tensor._version
            found.append((id(tensor), tensor.data_ptr(), version))
    return tuple(found)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
