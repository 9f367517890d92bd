"""Photos of coloured squares to train on, and quick ways to train."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from pyxai.images import Preprocessing
from pyxai.train.fine_tune import fine_tune

COLORS = {"blue": (30, 40, 220), "green": (40, 200, 50), "red": (220, 40, 30)}


def photo(color, size, random):
    """Noise with squares of a colour all over it."""
    width, height = size
    pixels = random.integers(0, 256, (height, width, 3), np.uint8)
    for top in range(2, height - 8, 12):
        for left in range(2, width - 8, 12):
            pixels[top : top + 8, left : left + 8] = color
    return Image.fromarray(pixels)


def state_of(model):
    return {
        name: (tensor.clone(), tensor.requires_grad)
        for name, tensor in model.state_dict(keep_vars=True).items()
    }


def same_state(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(first[name][0], second[name][0]) and first[name][1] == second[name][1]
        for name in first
    )


def quick(model, folder, **options):
    """One epoch on crops of 24, all trained, without bars, unless told otherwise."""
    options = {"crop": 24, "unfreeze": "all", "epochs": 1, "progress": False} | options
    return fine_tune(model, folder, **options)


SQUARE = Preprocessing(resize=(32, 32))
