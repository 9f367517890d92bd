"""Classifiers by the names that an index has for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from torch import nn

from pyxai._errors import argument_error
from pyxai.classifier import Classifier, as_classifier
from pyxai.classifier.fingerprint import fingerprint
from pyxai.search.storage import Store

Model: TypeAlias = nn.Module | Classifier
Models: TypeAlias = "Model | Sequence[Model] | Mapping[str, Model]"


def named(models: Models) -> dict[str, Classifier]:
    """Classifiers by name; a second one of a name gets a number."""
    if isinstance(models, Mapping):
        named = {str(name): as_classifier(each) for name, each in models.items()}
    else:
        several: Sequence[Any] = models if isinstance(models, (tuple, list)) else [models]
        named = {}
        for each in several:
            classifier = as_classifier(each)
            name, number = classifier.name, 2
            while name in named:
                name, number = f"{classifier.name}-{number}", number + 1
            named[name] = classifier
    if not named:
        raise argument_error("models", "a classifier, or several", models)
    return named


def match(classifiers: Iterable[Classifier], store: Store) -> dict[str, Classifier]:
    """The classifiers by the names that the index has for them.

    Raises:
        ValueError: one is not in the index: its weights or its preprocessing differ.
    """
    found: dict[str, Classifier] = {}
    for classifier in classifiers:
        print_, steps = fingerprint(classifier.network), repr(classifier.preprocessing)
        same = [each for each in store.header.networks if each.fingerprint == print_]
        fitting = [each for each in same if each.preprocessing == steps and each.name not in found]
        if not fitting:
            why = "another preprocessing" if same else "other weights"
            names = ", ".join(each.name for each in store.header.networks)
            expected = f"networks of the index ({names})"
            raise argument_error("models", expected, f"{classifier.name} with {why}")
        found[fitting[0].name] = classifier
    return found
