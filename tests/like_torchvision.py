"""Photos, and transforms that are called as those of torchvision and timm."""

from __future__ import annotations

import enum

import numpy as np
import torch
from PIL import Image

from pyxai.images import Preprocessing, as_preprocessing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IN_BYTES = [255 * each for each in MEAN], [255 * each for each in STD]
SIZES = [(97, 64), (64, 97), (50, 50), (37, 53), (31, 29), (91, 133), (20, 70)]


def photos():
    """Of smooth spots and of noise, in ordinary and odd sizes, smaller than the crops too."""
    for seed, (width, height) in enumerate(SIZES):
        random = np.random.default_rng(seed)
        yield Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
        spots = random.integers(0, 256, (height // 6 + 2, width // 6 + 2, 3), dtype=np.uint8)
        yield Image.fromarray(spots).resize((width, height), Image.Resampling.BICUBIC)


def assert_same(transform, tolerance=0.0, *, tensors=False, given=None):
    """A transform gives what the preprocessing read from it gives; tolerance of 255."""
    found = as_preprocessing(given or transform)
    for photo in photos():
        pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)
        expected = torch.as_tensor(transform(pixels if tensors else photo)).float()
        difference = (found(photo) - expected).abs() * torch.tensor(found.std)[:, None, None] * 255
        assert difference.max() <= tolerance, (photo.size, found)
    return found


# ---- the logic, with classes that are called as those of the libraries ----


def step(name, module="torchvision.transforms.transforms", **attributes):
    """An instance of a class of this name in this module."""
    kind = type(name, (), {"__module__": module, "__call__": lambda self, photo: photo})
    made = kind()
    vars(made).update(attributes)
    return made


def compose(*steps):
    return step("Compose", transforms=[*steps])


def resize(size, interpolation="bilinear", **more):
    options = {"max_size": None, "antialias": True, **more}
    return step("Resize", size=size, interpolation=interpolation, **options)


def crop(size):
    return step("CenterCrop", size=size)


def normalize(mean=MEAN, std=STD):
    return step("Normalize", mean=mean, std=std)


TO_TENSOR = step("ToTensor")
TO_IMAGE = step("ToImage", "torchvision.transforms.v2._type_conversion")
PIL_TO_TENSOR = step("PILToTensor")
FLOATS = step("ToDtype", dtype=torch.float32, scale=True)
UNSCALED = step("ToDtype", dtype=torch.float32, scale=False)
CONVERT = step("ConvertImageDtype", dtype=torch.float32)
MODE = enum.Enum("InterpolationMode", {"BICUBIC": "bicubic", "EXACT": "nearest-exact"})
PLAIN = Preprocessing(resize=48, crop=40)


PRESET = {"mean": [*MEAN], "std": [*STD], "interpolation": MODE.BICUBIC, "antialias": True}


def preset(name="ImageClassification", **more):
    sizes = {"resize_size": [48], "crop_size": [40]}
    return step(name, "torchvision.transforms._presets", **{**PRESET, **sizes, **more})


class Mine:
    def __call__(self, photo):
        return photo


def to_rgb(photo):
    return photo


READY = (TO_TENSOR, normalize())
