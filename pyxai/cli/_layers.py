"""Layers by name, as commands take them."""

from __future__ import annotations

from collections.abc import Sequence

from pyxai._errors import closest
from pyxai.classifier import Classifier
from pyxai.classifier.points import check_layer

_LISTED = 24  # layers that an error lists


def check_layers(classifier: Classifier, layers: Sequence[str | None] | None, model: str) -> None:
    """Refuses layers that a network does not have, before the first photo is read.

    Args:
        classifier: the network.
        layers: their names; None for those that are chosen later.
        model: the network, as the command line has it.

    Raises:
        ValueError: there is no such layer; the message has all, or the closest and how to see all.
    """
    modules = classifier.network.named_modules(remove_duplicate=False)
    known = [name for name, _ in modules if name]
    for layer in layers or ():
        if layer is None or layer in known or _may_exist(classifier, layer):
            continue
        hint = closest(layer, known)
        if len(known) <= _LISTED:
            hint += f"; there are {', '.join(map(repr, known))}"
        else:
            outer = [name for name in known if "." not in name]
            few = f", such as {', '.join(map(repr, outer))}" if len(outer) <= _LISTED else ""
            hint += f"; there are {len(known)}{few}; all: pyxai layers {model}"
        raise ValueError(f"--layer: expected a layer of {classifier.name}, got {layer!r}{hint}")


def _may_exist(classifier: Classifier, layer: str) -> bool:
    """Whether it may be a run of a layer or what a function gives, which a pass will show."""
    try:
        check_layer(classifier.network, layer)
    except ValueError:
        return False
    return True
