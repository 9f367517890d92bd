"""What the configurations of timm and of transformers say about photos, as a `Preprocessing`.

They are read as plain dicts; neither package is imported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pyxai.images.expressing import express, inexpressible, interpolation_name
from pyxai.images.preprocessing import Preprocessing

# --------------------------------------------------------------------------------------------------
# timm

# What timm takes for that which a configuration does not say.
_TIMM = {
    "input_size": (3, 224, 224),
    "crop_pct": 0.875,
    "crop_mode": "center",
    "interpolation": "bicubic",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}


def timm_preprocessing(spec: str, config: Mapping[str, Any]) -> Preprocessing:
    """What timm does to photos by a data config (of `resolve_data_config`) or a `pretrained_cfg`.

    Args:
        spec: whose it is, for errors.
        config: with `input_size`, `crop_pct`, `crop_mode`, `interpolation`, `mean` and `std`, or
            some of them.

    Raises:
        ValueError: it cannot be expressed as `Preprocessing`.
    """
    said = {**_TIMM, **{key: config[key] for key in _TIMM if config.get(key)}}
    try:
        channels, height, width = said["input_size"]
        scaled = tuple(math.floor(each / said["crop_pct"]) for each in (height, width))
    except (TypeError, ValueError, ZeroDivisionError) as error:
        wrong = f"input_size {said['input_size']!r} with crop_pct {said['crop_pct']!r}"
        raise inexpressible(spec, wrong) from error
    if channels != 3:
        raise inexpressible(spec, f"input_size {said['input_size']!r}, photos have 3 channels")
    if config.get("crop_border_pixels"):
        raise inexpressible(spec, "crop_border_pixels")
    mode = said["crop_mode"]
    if mode == "squash":
        resize: int | tuple[int, ...] | None = scaled
    elif mode == "center" and height == width:
        resize = scaled[0]
    else:
        raise inexpressible(spec, f"crop_mode {mode!r} at {height} × {width}")
    return express(
        spec,
        mean=said["mean"],
        std=said["std"],
        resize=resize,
        crop=(height, width) if height != width else height,
        interpolation=said["interpolation"],
    )


# --------------------------------------------------------------------------------------------------
# transformers

_SWITCHES = ("do_flip_channel_order", "do_pad", "do_color_quantize", "rescale_offset")
# Read below, or without influence on the photo of a classifier.
_KNOWN = {
    *("do_resize", "size", "resample", "crop_pct", "do_center_crop", "crop_size", "include_top"),
    *("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"),
    *("do_convert_rgb", "do_reduce_labels", "reduce_labels", "num_channels", "image_seq_length"),
    *("default_to_square", "pad_size", "disable_grouping", "use_fast"),
}
# What some kinds do without a word in their configuration.
_UNSAID = {
    "Perceiver": "a crop before the resize",
    "PPLCNet": "channels in another order",
    "UVDoc": "channels in another order",
}


def hf_preprocessing(spec: str, config: Mapping[str, Any]) -> Preprocessing:
    """What an image processor of transformers does, by its configuration (`to_dict()`).

    The same as its PIL form, but for the crop, which may lie one pixel further.

    Args:
        spec: whose it is, for errors.
        config: with `do_resize`, `size`, `image_mean` and so on.

    Raises:
        ValueError: it cannot be expressed as `Preprocessing`.
    """
    if isinstance(config.get("data_config"), Mapping):
        return timm_preprocessing(spec, config["data_config"])
    if not config.get("do_rescale", True):
        raise inexpressible(spec, "do_rescale=False")
    try:
        _refuse_more(spec, config)
        mean, std = _normalization(config)
        resize, crop = _hf_geometry(spec, config)
        resample = config.get("resample")
        interpolation = "bilinear" if resample is None else interpolation_name(resample)
    except (KeyError, TypeError) as error:  # lacks a field, or has another kind of thing in it
        reason = f"without {error}" if isinstance(error, KeyError) else str(error)
        raise inexpressible(spec, reason) from error
    return express(spec, mean=mean, std=std, resize=resize, crop=crop, interpolation=interpolation)


def _refuse_more(spec: str, config: Mapping[str, Any]) -> None:
    """Whatever an image processor does beyond resize, crop and normalisation is refused.

    Raises:
        ValueError: it does.
    """
    for switch in _SWITCHES:
        if config.get(switch):
            raise inexpressible(spec, switch)
    factor = config.get("rescale_factor")
    if factor is not None and abs(factor * 255 - 1) > 1e-6:
        raise inexpressible(spec, f"rescale_factor={factor}")
    for kind, step in _UNSAID.items():
        if _kind(config).startswith(kind):
            raise inexpressible(spec, step)
    # Switches and lengths of processors with steps of their own, such as `size_divisor`; texts are
    # about the file.
    for key, value in config.items():
        if key not in _KNOWN and isinstance(value, (bool, int, float)) and value:
            raise inexpressible(spec, f"{key}={value}")


def _kind(config: Mapping[str, Any]) -> str:
    return str(config.get("image_processor_type") or config.get("feature_extractor_type"))


def _normalization(config: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of an image processor."""
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    default = "image_mean" in config and "do_flip_channel_order" not in config
    if config.get("do_normalize", default):
        mean, std = _three(config["image_mean"]), _three(config["image_std"])
    if config.get("include_top"):  # EfficientNet divides twice
        again = _three(config["image_std"])
        std = tuple(first * second for first, second in zip(std, again, strict=False))
    return mean, std


def _three(value: Any) -> tuple[float, ...]:
    return (value,) * 3 if isinstance(value, (int, float)) else tuple(value)


_Size = int | tuple[int, int] | None


def _hf_geometry(spec: str, config: Mapping[str, Any]) -> tuple[_Size, _Size]:
    """(resize, crop) of an image processor."""
    crop = _height_width(config["crop_size"]) if config.get("do_center_crop") else None
    if not config.get("do_resize", True):
        return None, crop
    size, kind = config["size"], _kind(config)
    if not isinstance(size, Mapping):  # an int means the shorter side to some, a square to others
        raise inexpressible(spec, f"size {size!r}")
    sides = {key: value for key, value in size.items() if value is not None}
    share = config.get("crop_pct") if kind.startswith(("PoolFormer", "ConvNext", "None")) else None
    if {*sides} == {"height", "width"} and share is None:
        return (sides["height"], sides["width"]), crop
    if {*sides} != {"shortest_edge"}:
        raise inexpressible(spec, f"size {size}")
    edge: int = sides["shortest_edge"]
    if kind.startswith("Levit"):
        return int(256 / 224 * edge), crop
    if share is None:
        return edge, crop
    if kind.startswith("PoolFormer"):
        return int(edge / share), crop
    if crop not in (None, edge) or kind == "None":
        raise inexpressible(spec, f"crop_pct={share} with crop_size {crop}")
    return (int(edge / share), edge) if edge < 384 else ((edge, edge), crop)  # ConvNeXt


def _height_width(size: Mapping[str, int]) -> int | tuple[int, int]:
    height, width = size["height"], size["width"]
    return height if height == width else (height, width)
