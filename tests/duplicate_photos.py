"""Photos for the tests of duplicates."""

from __future__ import annotations

import numpy as np
from PIL import Image
from torch import nn

from pyxai import Classifier, Preprocessing
from pyxai.train.duplicates import find_duplicates


def scene(seed, size=(96, 72)):
    """A photo of blurred blobs, unlike those of other seeds."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (6, 8, 3), np.uint8)
    photo = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
    noise = random.normal(0, 6, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.asarray(photo) + noise, 0, 255).astype(np.uint8))


def quick(folder, *arguments, **options):
    return find_duplicates(folder, *arguments, progress=False, **options)


class Means(nn.Module):
    """Features are the mean colour of a photo."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flat = nn.Flatten()
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(self.flat(self.pool(x)))


def describing():
    """A classifier that describes photos by their mean color."""
    return Classifier(Means(), preprocessing=Preprocessing((0.5,) * 3, (0.5,) * 3, (24, 32)))


def tree(folder):
    """All that lies in a folder: names, contents, times and links."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = ("link", str(path.readlink()))
        elif path.is_dir():
            found[name] = ("folder",)
        else:
            status = path.stat()
            found[name] = ("file", path.read_bytes(), status.st_mtime_ns, status.st_nlink)
    return found
