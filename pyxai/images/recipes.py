"""Preprocessing in the forms that people have it in, as `Preprocessing`."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeAlias

from pyxai._errors import describe
from pyxai.images.configs import hf_preprocessing, timm_preprocessing
from pyxai.images.preprocessing import Preprocessing
from pyxai.images.transforms import is_transform, transforms_preprocessing

PreprocessingLike: TypeAlias = Preprocessing | Mapping[str, Any] | Callable[..., Any]
"""What `as_preprocessing` takes."""

_EXPECTED = (
    "a pyxai.Preprocessing, transforms of torchvision or timm, an image processor of transformers "
    "or a data config of timm"
)
_ORDINARY = ("builtins", "__main__", "functools", "numpy", "torch")
_HF_KEYS = {"do_resize", "do_rescale", "do_normalize", "image_mean"}


def as_preprocessing(value: PreprocessingLike, channels: int | None = None) -> Preprocessing:
    """What is done to photos, read from what another library calls it.

    Args:
        value: One of:

            - a `Preprocessing`, which comes back as it is;
            - `weights.transforms()` of torchvision, or a `Compose` (of either generation, also one
              of `timm.data.create_transform`) of Resize, CenterCrop, ToTensor and Normalize, or of
              what does the same;
            - an image processor of transformers, or its configuration as a dict;
            - a data config or `pretrained_cfg` of timm.
        channels: How many the network takes, if known.

    Raises:
        ValueError: Anything else, or steps that `Preprocessing` does not have; the message names
            the step.
    """
    if isinstance(value, Preprocessing):
        return value
    config = _config(value)
    if config is not None:
        spec = f"the given {type(value).__name__}"
        for inside in ("image_processor", "pretrained_cfg"):  # of a file of transformers; of timm
            if isinstance(config.get(inside), Mapping):
                config = config[inside]
        if _HF_KEYS & config.keys() or "data_config" in config:
            return hf_preprocessing(spec, config)
        if "input_size" in config:
            return timm_preprocessing(spec, config)
    elif is_transform(value):
        return transforms_preprocessing(f"the given {type(value).__name__}", value, channels)
    package = type(value).__module__.partition(".")[0]
    whose = "" if package in _ORDINARY else f" of {package}"
    got = f"{describe(value)}{whose}{_hint(value)}"
    raise ValueError(f"preprocessing: expected {_EXPECTED}, got {got}")


def _config(value: Any) -> Mapping[str, Any] | None:
    """The value as a dict, if it is one or can say itself as one."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, type) or not callable(getattr(value, "to_dict", None)):
        return None
    try:
        config = value.to_dict()
    except Exception:  # somebody else's
        return None
    return config if isinstance(config, Mapping) else None


def _hint(value: Any) -> str:
    """What may have been meant."""
    names = {each.name for each in fields(Preprocessing)}
    if isinstance(value, Mapping) and value and {*value} <= names:
        return "; pass pyxai.Preprocessing(**it)"
    if isinstance(value, (list, tuple)) and value and all(map(is_transform, value)):
        return " of transforms; put them into one Compose"
    if isinstance(value, enum.Enum) and hasattr(value, "transforms"):
        return "; pass its .transforms()"
    if isinstance(value, (type, functools.partial)):
        return "; call it first"
    if callable(value):
        return "; what it does cannot be read, but tensors that it made are taken as they are"
    return ""
