"""What transforms of torchvision and of timm do to a photo, as a `Preprocessing`.

Neither package is imported: a step is known by the name and package of its class, and read by its
attributes. The steps are followed one by one, from the picture to the numbers that the network
gets; whatever does not lead to a `Preprocessing` is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from pyxai.images.expressing import INSTEAD, express, inexpressible, interpolation_name, length
from pyxai.images.preprocessing import Preprocessing

_PACKAGES = ("torchvision", "timm", "torch")
_CONTAINERS = ("Compose", "Sequential")
_RANDOM = (
    *("ColorJitter", "AutoAugment", "RandAugment", "TrivialAugmentWide", "AugMix", "AugMixAugment"),
    *("ElasticTransform", "GaussianBlur", "GaussianNoise", "ScaleJitter", "MixUp", "CutMix"),
)
_EVALUATION = "pass the transforms of evaluation (Resize, CenterCrop, ToTensor, Normalize)"
_BEFORE = "let it come before ToTensor() or ToImage()"
_TO_FRACTIONS = "ToDtype(torch.float32, scale=True)"

# What the photo is after a step: a picture of PIL; a tensor of whole numbers; one of fractions; one
# that was normalised.
_PICTURE, _WHOLE, _FRACTION, _NORMALIZED = range(4)


def is_transform(value: object) -> bool:
    """Whether this is a transform of torchvision or timm, or a `torch.nn.Sequential`."""
    kind = type(value)
    package = kind.__module__.partition(".")[0]
    if package == "torch":
        return kind.__name__ in _CONTAINERS
    return package in _PACKAGES and callable(value)


def transforms_preprocessing(
    spec: str, transforms: Any, channels: int | None = None
) -> Preprocessing:
    """What transforms do to a photo: one of torchvision's presets, or a `Compose` of steps.

    Equal to the bit where the steps resize and crop a picture of PIL. Where they resize a tensor,
    photos differ by 1 of 255 at most, by 2 with bicubic.

    Args:
        spec: whose they are, for errors.
        transforms: of torchvision (both generations) or timm.
        channels: how many the network takes, if known.

    Raises:
        ValueError: they cannot be expressed as `Preprocessing`; the message names the step.
    """
    path = _Path(spec, channels)
    steps = [*_flat(transforms)]
    names = [_class_name(step) for step in steps]
    if not {*names} & _FROM_PICTURES and {*names} & {"ToDtype", "ConvertImageDtype"}:
        path.stage = _WHOLE  # for photos that were read as tensors
    for step, name in zip(steps, names, strict=True):
        follow = _STEPS.get(name)
        if follow is None:
            raise _unknown(spec, name)
        try:
            follow(path, step)
        except (AttributeError, TypeError) as error:  # a class of the same name, but another one
            raise path.wrong(f"the step {name}: {error}") from error
    return path.end()


def _unknown(spec: str, name: str) -> ValueError:
    """The error for a step that `Preprocessing` does not have."""
    if name.startswith("Random") or name in _RANDOM:
        return inexpressible(spec, f"{name}, a random step of training", _EVALUATION)
    if name == "Lambda" or name.startswith("function "):
        why = "leave it out if it makes photos RGB, which they are, or pass a pyxai.Preprocessing"
        return inexpressible(spec, f"the {name}, which cannot be read", why)
    return inexpressible(spec, f"the step {name}")


def _flat(transforms: Any) -> Iterator[Any]:
    """The steps, those of nested containers too."""
    name = _class_name(transforms)
    if name not in _CONTAINERS:
        yield transforms
        return
    for each in transforms if name == "Sequential" else transforms.transforms:
        yield from _flat(each)


def _class_name(step: Any) -> str:
    """What the step's class is called; with its package, if that is none of the known ones."""
    kind = type(step)
    package = kind.__module__.partition(".")[0]
    if package in _PACKAGES:
        return kind.__name__
    if hasattr(step, "__name__"):
        return f"function {step.__name__}"
    return f"{kind.__module__}.{kind.__qualname__}"


class _Path:
    """What has happened to the photo so far."""

    def __init__(self, spec: str, channels: int | None) -> None:
        self.spec, self.channels = spec, channels
        self.stage = _PICTURE
        self.resize: int | tuple[int, ...] | None = None
        self.crop: int | tuple[int, ...] | None = None
        self.interpolation = "bilinear"
        self.top = 1.0  # the number for white
        self.mean: tuple[float, ...] = (0.0, 0.0, 0.0)
        self.std: tuple[float, ...] = (1.0, 1.0, 1.0)

    def wrong(self, what: str, instead: str = INSTEAD) -> ValueError:
        return inexpressible(self.spec, what, instead)

    def end(self) -> Preprocessing:
        """All of it.

        Raises:
            ValueError: it does not end with fractions, or has no equal.
        """
        if self.stage == _PICTURE:
            raise self.wrong("it ends with a picture", "add ToTensor()")
        if self.stage == _WHOLE:
            raise self.wrong("it ends with whole numbers", f"add {_TO_FRACTIONS}")
        return express(
            self.spec,
            mean=tuple(each / self.top for each in self.mean),
            std=tuple(each / self.top for each in self.std),
            resize=self.resize,
            crop=self.crop,
            interpolation=self.interpolation,
        )


def _nothing(path: _Path, step: Any) -> None:
    """Photos are RGB already, and a tensor is a tensor."""


def _to_picture(path: _Path, step: Any) -> None:
    """Of use for arrays, which are no pictures yet."""
    if path.stage != _PICTURE or path.resize is not None or path.crop is not None:
        raise path.wrong("ToPILImage after other steps")
    if step.mode not in (None, "RGB"):
        raise path.wrong(f"ToPILImage with mode {step.mode!r}")


def _resize(path: _Path, step: Any) -> None:
    if path.resize is not None:
        raise path.wrong("a second Resize")
    if path.crop is not None:
        raise path.wrong("Resize after CenterCrop")
    if path.stage == _NORMALIZED:
        raise path.wrong("Resize after Normalize")
    if step.size is None or getattr(step, "max_size", None) is not None:
        raise path.wrong("Resize with max_size")
    path.interpolation = _interpolation(path, step)
    path.resize = length(step.size)


def _interpolation(path: _Path, step: Any) -> str:
    """The interpolation as PIL would have it, if PIL has it."""
    name = interpolation_name(step.interpolation)
    if path.stage == _PICTURE:
        return "nearest" if name == "nearest-exact" else name
    # Tensors: as PIL but for rounding, if antialiased. Only whole numbers in the second generation
    # are cut off at black and white as PIL does, beyond which bicubic reaches; "nearest" takes
    # other pixels than PIL, "nearest-exact" too.
    cut_off = path.stage == _WHOLE and ".v2." in type(step).__module__
    like_pil = ("bilinear", "bicubic") if cut_off else ("bilinear",)
    if name not in like_pil:
        what = f"Resize of a tensor with interpolation {name!r}, unlike that of a picture"
        raise path.wrong(what, _BEFORE)
    if getattr(step, "antialias", None) is not True:
        raise path.wrong("Resize of a tensor without antialias=True", _BEFORE)
    return name


def _crop(path: _Path, step: Any) -> None:
    if path.crop is not None:
        raise path.wrong("a second CenterCrop")
    crop = length(step.size)
    rows, columns = crop if isinstance(crop, tuple) else (crop, crop)
    path.crop = rows if rows == columns else (rows, columns)
    resized = path.resize if isinstance(path.resize, tuple) else (path.resize or 0,) * 2
    # What a crop adds to a photo that is too small is 0: black, but not once it was normalised.
    if path.stage == _NORMALIZED and (resized[0] < rows or resized[1] < columns):
        raise path.wrong("CenterCrop after Normalize, which may add a border that is not black")


def _to_tensor(path: _Path, step: Any) -> None:
    if path.stage != _PICTURE:
        return _to_whole(path, step)
    # That of timm which is called the same does not divide by 255.
    scale = not hasattr(step, "dtype")
    path.stage = _WHOLE
    _to_dtype(path, _Values(dtype=torch.float32 if scale else step.dtype, scale=scale))


def _to_whole(path: _Path, step: Any) -> None:
    if path.stage == _PICTURE:
        path.stage = _WHOLE
    elif _class_name(step) not in ("ToImage", "MaybeToTensor", "MaybePILToTensor"):
        raise path.wrong(f"{_class_name(step)} of a tensor")


def _to_dtype(path: _Path, step: Any) -> None:
    name, dtype = _class_name(step), step.dtype
    if path.stage == _PICTURE:
        raise path.wrong(f"{name} of a picture, before ToImage or PILToTensor")
    if path.stage == _WHOLE and dtype == torch.uint8:
        return
    if dtype not in (torch.float32, torch.float64):
        raise path.wrong(f"{name}({dtype})")
    if path.stage == _WHOLE:
        path.stage = _FRACTION
        path.top = 1.0 if getattr(step, "scale", True) else 255.0


def _normalize(path: _Path, step: Any) -> None:
    if path.stage == _NORMALIZED:
        raise path.wrong("a second Normalize")
    if path.stage == _PICTURE:
        raise path.wrong("Normalize of a picture", "put ToTensor() before it")
    if path.stage == _WHOLE:
        raise path.wrong("Normalize of whole numbers", f"put {_TO_FRACTIONS} before it")
    mean, std = _numbers(step.mean), _numbers(step.std)
    if len(mean) == 1 and path.channels not in (None, 3):
        raise path.wrong(
            f"Normalize of one channel, for a network of {path.channels}, but photos have three",
            "tensors that you make yourself are taken as they are",
        )
    # torchvision takes a single number for all channels.
    path.mean = mean * 3 if len(mean) == 1 else mean
    path.std = std * 3 if len(std) == 1 else std
    path.stage = _NORMALIZED


def _numbers(values: Any) -> tuple[float, ...]:
    """The numbers as they were written: 0.485, also where a float32 tensor holds them."""
    if not isinstance(values, (torch.Tensor, np.ndarray)):
        values = [values] if isinstance(values, (int, float)) else [*values]
    array = np.atleast_1d(np.asarray(values))
    return tuple(float(str(each)) for each in array)


def _preset(path: _Path, step: Any) -> None:
    """`weights.transforms()`: all of the steps in one."""
    _resize(path, _Values(size=step.resize_size, **_of(step, "interpolation", "antialias")))
    _crop(path, _Values(size=step.crop_size))
    if path.stage == _PICTURE:
        path.stage = _WHOLE
    _to_dtype(path, _Values(dtype=torch.float32))
    _normalize(path, step)


class _Values:
    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


def _of(step: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(step, name, None) for name in names}


_FROM_PICTURES = {
    *("ToTensor", "MaybeToTensor", "ToImage", "PILToTensor", "MaybePILToTensor"),
    "ImageClassification",
}
_STEPS: dict[str, Callable[[_Path, Any], None]] = {
    "Resize": _resize,
    "CenterCrop": _crop,
    "ToTensor": _to_tensor,
    "MaybeToTensor": _to_tensor,
    "ToImage": _to_whole,
    "PILToTensor": _to_whole,
    "MaybePILToTensor": _to_whole,
    "ToDtype": _to_dtype,
    "ConvertImageDtype": _to_dtype,
    "Normalize": _normalize,
    "ImageClassification": _preset,
    "ToPILImage": _to_picture,
    "RGB": _nothing,
    "Identity": _nothing,
    "ToPureTensor": _nothing,
}
