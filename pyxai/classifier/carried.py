"""Class names and preprocessing of a network: what its user says, else what it carries itself.

Networks of timm and of transformers do. Neither package is imported. Only what lies in the network
as a plain attribute is read, so that no code of its own runs, and only what fits the network as it
is now is believed.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from pyxai._errors import passes_through
from pyxai.classifier.names import ClassNames, as_class_names
from pyxai.images import Preprocessing, PreprocessingLike, as_preprocessing
from pyxai.images.configs import timm_preprocessing

_IMAGENET = Preprocessing()


def class_names_of(network: nn.Module, given: ClassNames | None) -> tuple[str, ...] | None:
    """The names given, else those that the network carries, else None.

    Raises:
        ValueError: what is given is not one name for each class.
    """
    return _carried_class_names(network) if given is None else as_class_names(given)


def preprocessing_of(network: nn.Module, given: PreprocessingLike | None) -> Preprocessing:
    """The preprocessing given, else that which the network carries, else that of ImageNet.

    Raises:
        ValueError: what is given cannot be understood.
    """
    if given is None:
        return _carried_preprocessing(network) or _IMAGENET
    if isinstance(given, Preprocessing):
        return given
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    return as_preprocessing(given, None if first is None else first.in_channels)


def _carried_class_names(network: nn.Module) -> tuple[str, ...] | None:
    """`config.id2label` of transformers or `label_names` of timm's `pretrained_cfg`.

    None if there are none, or if their number is not that of the network's classes: of its last
    layer, as heads are exchanged without a word to the configuration.
    """
    attributes = _attributes(network)
    names = label_names(_get(attributes.get("config"), "id2label"))
    if names is None:
        names = label_names(_get(attributes.get("pretrained_cfg"), "label_names"))
    return names if names is not None and len(names) == _last_width(network) else None


def label_names(labels: object) -> tuple[str, ...] | None:
    """Labels as class names; None for none, and for LABEL_0, LABEL_1 and so on."""
    if not isinstance(labels, (Mapping, list, tuple)) or not labels:
        return None
    try:
        names = as_class_names(labels)
    except ValueError:  # an index is missing, or whatever a user may have put there
        return None
    placeholders = names[0].startswith("LABEL_") and all(
        re.fullmatch(r"LABEL_\d+", name) for name in names
    )
    return None if placeholders else names


def _carried_preprocessing(network: nn.Module) -> Preprocessing | None:
    """What timm's `pretrained_cfg` says, also where transformers has it in its `config`.

    The size is that of the network, where it tells it, as networks are made for other sizes than
    their weights were. None if there is none. Warns if there is one that cannot be expressed.
    """
    attributes = _attributes(network)
    config = attributes.get("pretrained_cfg")
    if config is None:
        config = _get(attributes.get("config"), "pretrained_cfg")
    if not isinstance(config, Mapping) or "input_size" not in config:
        return None
    size = getattr(network._modules.get("patch_embed"), "img_size", None)
    if isinstance(size, (tuple, list)) and len(size) == 2:
        config = {**config, "input_size": (3, *size)}
    try:
        return timm_preprocessing(f"this {type(network).__name__}", config)
    except ValueError as error:
        text = f"{error}. Photos are normalized as for ImageNet and not resized until then."
        warnings.warn(text, stacklevel=4)
        return None


def _attributes(network: nn.Module) -> Mapping[str, Any]:
    return {} if isinstance(network, torch.jit.ScriptModule) else vars(network)


def _get(config: Any, name: str) -> Any:
    """An entry of a dict or an attribute of an object that may be anything."""
    try:
        return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
    except Exception as error:  # of somebody else's code
        if passes_through(error):
            raise
        return None


def _last_width(module: nn.Module) -> int | None:
    """The outputs of the last linear layer or convolution, in the order of registration."""
    for child in reversed(module._modules.values()):
        width = None if child is None else _last_width(child)
        if width is not None:
            return width
    own = vars(module)
    width = own.get("out_features", own.get("out_channels"))
    return width if isinstance(width, int) else None
