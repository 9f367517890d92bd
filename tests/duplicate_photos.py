"""Photos for the tests of duplicates."""

from __future__ import annotations

import errno
import os
import shutil

import numpy as np
from PIL import Image
from torch import nn

from pyxai import Classifier, Preprocessing
from pyxai.curate.duplicates import find_duplicates


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


def make_copies(root):
    """Two photos with two copies each, of times of their own; "0 copy.png" comes first by name."""
    (root / "b").mkdir(parents=True)
    for seed in range(2):
        scene(seed).save(root / f"{seed}.png")
        for place in ("b", "."):
            copy = root / place / f"{seed} copy.png"
            shutil.copy(root / f"{seed}.png", copy)
            os.utime(copy, ns=(seed, 10**9 + seed))
    return root


COPIES = ["0.png", "1.png", "b/0 copy.png", "b/1 copy.png"]
"""Those of `make_copies` that are not kept."""


def moved_names(away):
    """The photos in a folder and below."""
    return sorted(str(path.relative_to(away)) for path in away.rglob("*.png"))


def no_link(*paths, **options):
    """In the place of `os.link`: as from one file system to another."""
    raise OSError(errno.EXDEV, "Invalid cross-device link")


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
