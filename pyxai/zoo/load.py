"""One call for every place that a classifier can come from."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch
from torch import nn

from pyxai._errors import argument_error, closest
from pyxai.classifier import Classifier
from pyxai.classifier.names import ClassNames, as_class_names
from pyxai.classifier.returned import Output
from pyxai.images import PreprocessingLike, as_preprocessing
from pyxai.zoo import files, hubs
from pyxai.zoo.hubs import Loaded

# Two letters at least: "C:" begins a path on Windows.
_PREFIX = re.compile(r"([A-Za-z][\w+.-]+):")
_FORMS = "'demo', 'torchvision:NAME', 'timm:NAME', 'hf:NAME' or a model file"


def load_classifier(
    source: str | os.PathLike[str],
    *,
    architecture: str | nn.Module | None = None,
    weights: str | None = "default",
    class_names: ClassNames | None = None,
    preprocessing: PreprocessingLike | None = None,
    output: Output = None,
    device: torch.device | str | None = None,
) -> Classifier:
    """Loads an image classifier, in evaluation mode, with its class names and preprocessing.

    No file is ever unpickled but by `torch.load(weights_only=True)`, and code that comes with a
    model is never run; docs/models.md says what is read how.

    Args:
        source: One of

            - "demo": the small scene classifier that ships with pyxai.
            - "torchvision:NAME", such as "torchvision:resnet50".
            - "timm:NAME", with or without a tag: "timm:resnet50", "timm:resnet50.a1_in1k".
            - "hf:NAME": an image classifier of the Hugging Face hub, or a folder that
              `save_pretrained` wrote ("hf:./my_model").
            - A file: an exported program (`torch.export.save`), TorchScript, or weights alone
              (safetensors or a state dict of `torch.save`), which need an `architecture`. A file
              called "demo" is "./demo"; `pathlib.Path` is always a file.
        architecture: For files of weights: "torchvision:NAME", "timm:NAME", "demo", built with as
            many classes as the file has; or a module, which is filled in place. A head that
            `pyxai.fine_tune` put on it is put on it again.
        weights: For the hubs: "default"; the name of one of the weights ("IMAGENET1K_V1" of
            torchvision, the tag of timm); None builds the network with random weights and takes
            class names and preprocessing of the default weights.
        class_names: In the order of the classes, or a dict index -> name or name -> index, in place
            of those that come with the model. A model that comes with none has none.
        preprocessing: In place of that which comes with the model: a `Preprocessing`, or what
            `pyxai.images.as_preprocessing` reads one from. A file brings none, except safetensors
            of `pyxai.zoo.save_classifier`; other weights alone are given that of the architecture's
            default weights.
        output: Where the logits are in what the model returns; see `pyxai.Classifier`.
        device: Where the model is put; the CPU if None (a module given as `architecture` stays).

    Returns:
        A classifier whose `name` is the source (of a file: the file's name).

    Raises:
        MissingExtraError: An optional package is not installed; the message names the extra.
        FileNotFoundError: There is no such file.
        pyxai.zoo.hubs.WeightsError: Weights are not available: no network, not on the server,
            damaged. An `OSError`.
        pyxai.zoo.model_file.ModelFileError: A file that cannot be read, is refused because reading
            it would run code, or does not fit the architecture. A `ValueError`.
        ValueError: An unknown prefix, name or kind of weights (with the closest known ones),
            preprocessing that `Preprocessing` cannot express, class names that are not one for
            each index, or a device that cannot be used.
    """
    # Before anything is loaded, which may take minutes.
    names = None if class_names is None else as_class_names(class_names)
    steps = None if preprocessing is None else as_preprocessing(preprocessing)
    if not isinstance(source, (str, os.PathLike)):
        raise argument_error("source", _FORMS, source)
    with torch.device("cpu"):  # whatever the default device is
        loaded = _loaded(source, architecture, weights, steps is None)
    return Classifier(
        _moved(loaded.model.eval(), device),
        class_names=loaded.class_names if names is None else names,
        preprocessing=loaded.preprocessing if preprocessing is None else preprocessing,
        output=output,
        name=Path(os.fsdecode(source)).name if loaded.name is None else loaded.name,
    )


def _loaded(
    source: str | os.PathLike[str],
    architecture: str | nn.Module | None,
    weights: str | None,
    with_preprocessing: bool,
) -> Loaded:
    """What a source holds; the arguments are those of `load_classifier`."""
    text = os.fsdecode(source)
    prefix = _PREFIX.match(text) if isinstance(source, str) else None
    if isinstance(source, str) and text == "demo":
        _refuse("architecture", architecture, text)
        if weights not in ("default", None):
            raise argument_error("weights", "'default' or None for the demo classifier", weights)
        return hubs.demo(random=weights is None)
    if prefix and prefix[1] in hubs.LOADERS:
        _refuse("architecture", architecture, text)
        name = text[prefix.end() :]
        return hubs.LOADERS[prefix[1]](name, weights, with_preprocessing=with_preprocessing)
    if prefix and not Path(text).exists():
        known = [*hubs.LOADERS, "demo"]
        hint = "; addresses are not downloaded" if "://" in text else closest(prefix[1], known)
        raise ValueError(f"source: expected {_FORMS}, got {text!r}{hint}")
    if weights != "default":
        raise argument_error("weights", f"'default' for a file such as {text}", weights)
    return _from_file(text, architecture, with_preprocessing)


def _moved(model: nn.Module, device: torch.device | str | None) -> nn.Module:
    if device is None:
        return model
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:  # an unknown device, or a torch without it
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device: expected one that torch can use here, got '{device}': {reason}"
        ) from error


def _from_file(path: str, architecture: str | nn.Module | None, with_preprocessing: bool) -> Loaded:
    try:
        return files.load_file(path, architecture, with_preprocessing=with_preprocessing)
    except FileNotFoundError as error:
        bare = re.fullmatch(r"[\w-]+", path) is not None
        hint = (
            f"; by name: 'demo', 'torchvision:{path}', 'timm:{path}', 'hf:{path}'" if bare else ""
        )
        raise FileNotFoundError(error.errno, f"no such model file{hint}", path) from None


def _refuse(argument: str, value: object, source: str) -> None:
    if value is not None:
        raise argument_error(argument, f"None for {source!r}, which is no file of weights", value)
