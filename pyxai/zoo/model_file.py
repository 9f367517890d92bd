"""What the readers of all kinds of model files share."""

from __future__ import annotations

import json

from pyxai.classifier.names import as_class_names

CLASS_NAMES_FILE = "class_names.json"
"""Extra file of an exported program or of TorchScript with the class names, in JSON."""


class ModelFileError(ValueError):
    """A model file that cannot be read, is refused, or does not fit; the message names it."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def names_in(text: str | bytes | None, path: str) -> tuple[str, ...] | None:
    """Class names from a JSON list, or a JSON dict index -> name or name -> index."""
    if not text:
        return None
    try:
        names = json.loads(text)
        if isinstance(names, dict) or all(isinstance(each, str) for each in names):
            return as_class_names(names)
    except (ValueError, TypeError):
        pass
    raise ModelFileError(
        path, "its class names are not a JSON list of strings, or a dict index -> name"
    )
