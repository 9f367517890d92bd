"""A classifier as one safetensors file: weights, and in the metadata what else makes it one."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pyxai._errors import argument_error
from pyxai._files import refuse_other_file
from pyxai._sealed import DamagedError, map_tensors, save_tensors
from pyxai.classifier import Classifier
from pyxai.images import Preprocessing
from pyxai.zoo.head import HeadSpec, head_of
from pyxai.zoo.model_file import ModelFileError, names_in

State = dict[str, torch.Tensor]
_MARK, _FORMAT = "pyxai", "pyxai classifier 1"


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
    network has one that its architecture has not. Digests of all parts tell a damaged file. The
    same classifier always gives the same bytes.

    Raises:
        ValueError: the path is taken by a file that `save_classifier` has not written, or its
            folder does not exist.
    """
    check_is_free(path)
    if not Path(path).absolute().parent.is_dir():
        raise argument_error("path", "a file in a folder that exists", str(path))
    network = classifier.network
    metadata = {
        _MARK: _FORMAT,
        "preprocessing": json.dumps(asdict(classifier.preprocessing)),
    }
    if classifier.class_names is not None:
        metadata["class_names"] = json.dumps(classifier.class_names)
    head = head_of(network)
    if head is not None:
        metadata["head"] = json.dumps(asdict(head))
    save_tensors(Path(path), network.state_dict(), metadata)


def check_is_free(path: str | os.PathLike[str], argument: str = "path") -> None:
    """Refuses a path that `save_classifier` would refuse, before any work is done.

    Raises:
        ValueError: something else than a saved classifier has this path.
    """
    refuse_other_file(
        argument,
        Path(path),
        "a classifier saved by pyxai",
        lambda file: map_tensors(file).metadata[_MARK] == _FORMAT,
    )


def read_weights(path: str) -> Weights:
    """Reads a safetensors file, of ours or of others.

    Raises:
        ModelFileError: it is damaged, or its metadata are not what they should be.
    """
    try:
        file = map_tensors(Path(path), of_others=True)
        said = file.metadata
        if _MARK in said and not file.sealed:
            raise DamagedError(path, "the header")
        state = {name: file.checked(name) for name in file.tensors}
    except DamagedError as error:
        reason = error.__cause__ or f"{error.part} is not as it was written"
        raise ModelFileError(path, f"the file is damaged or cut off ({reason})") from error
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
