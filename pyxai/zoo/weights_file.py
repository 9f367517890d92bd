"""A classifier as one safetensors file: weights, and in the metadata what else makes it one."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pyxai._files import replacing
from pyxai.classifier import Classifier
from pyxai.images import Preprocessing
from pyxai.zoo.head import HeadSpec, head_of
from pyxai.zoo.model_file import ModelFileError, names_in

State = dict[str, torch.Tensor]


class Weights(NamedTuple):
    """What a file of weights holds; None for what it does not say."""

    state: State
    class_names: tuple[str, ...] | None = None
    preprocessing: Preprocessing | None = None
    head: HeadSpec | None = None


def save_classifier(classifier: Classifier, path: str | os.PathLike[str]) -> None:
    """Writes what `pyxai.load_classifier` makes the same classifier of, given the architecture.

    The metadata of the safetensors file are JSON texts: `class_names`, a list; `preprocessing`, the
    fields of `pyxai.Preprocessing`; and `head`, the fields of `pyxai.zoo.head.HeadSpec`, if the
    network has one that its architecture has not.
    """
    network = classifier.network
    # Copies, as weights that are used twice must be stored twice.
    state = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in network.state_dict().items()
    }
    metadata = {"preprocessing": json.dumps(asdict(classifier.preprocessing))}
    if classifier.class_names is not None:
        metadata["class_names"] = json.dumps(classifier.class_names)
    head = head_of(network)
    if head is not None:
        metadata["head"] = json.dumps(asdict(head))
    with replacing(Path(path)) as partial:
        save_file(state, partial, metadata=metadata)


def read_weights(path: str) -> Weights:
    """Reads a safetensors file.

    Raises:
        ModelFileError: it is damaged, or its metadata are not what they should be.
    """
    try:
        with safe_open(path, framework="pt") as file:
            said = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ModelFileError(path, f"the file is damaged or cut off ({error})") from error
    names = names_in(said.get("class_names"), path)
    return Weights(state, names, _preprocessing(said, path), _head(said, path))


def _preprocessing(said: dict[str, str], path: str) -> Preprocessing | None:
    if "preprocessing" not in said:
        return None
    try:
        fields = json.loads(said["preprocessing"])
        pairs: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in fields.items()
        }
        return Preprocessing(**pairs)
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelFileError(path, f"its preprocessing cannot be used ({error})") from error


def _head(said: dict[str, str], path: str) -> HeadSpec | None:
    if "head" not in said:
        return None
    try:
        fields = json.loads(said["head"])
        spec = HeadSpec(**{**fields, "removed": tuple(fields.get("removed", ()))})
        if spec.place is not None and not isinstance(spec.place, str):
            raise TypeError("its place is no name")
        return spec
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelFileError(path, f"its head cannot be used ({error})") from error
