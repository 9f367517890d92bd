"""A network that knows three colours, and photos with squares of them, for the gallery tests."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import nn

from pyxai import Classifier, Preprocessing

COLORS = ("red", "green", "blue")
NAMES = (*COLORS, "grey")
CROP = 32
PLAIN = Preprocessing(mean=(0, 0, 0), std=(1, 1, 1))


class ColorNet(nn.Module):
    """How much of each colour there is: 1 × 1 convolution, mean, head; no border effects.

    Three more channels see brightness, which no class depends on.
    """

    def __init__(self, head: str = "linear", size: int | None = None) -> None:
        super().__init__()
        self.size = size
        self.body = nn.Conv2d(3, 6, 1)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(6, 4)
        self.after = nn.Identity()
        with torch.no_grad():
            self.body.weight[:3] = (1.5 * torch.eye(3) - 0.5)[..., None, None]
            self.body.weight[3:] = 1 / 3
            self.body.bias.copy_(torch.tensor([0, 0, 0, -0.1, -0.25, -0.4]))
            self.fc.weight.copy_(torch.eye(4, 6) * torch.tensor([[8.0], [8.0], [8.0], [0.0]]))
            self.fc.bias.copy_(torch.tensor([0, 0, 0, 0.5]))
        if head == "mlp":
            self.after = nn.Sequential(nn.Tanh(), nn.Linear(4, 4))
            with torch.no_grad():
                self.fc.weight /= 4
                self.after[1].weight.copy_(12 * torch.eye(4))
                self.after[1].bias.zero_()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.size is not None and images.shape[-2:] != (self.size, self.size):
            raise ValueError(f"expected images of {self.size} pixels")
        return self.after(self.fc(self.relu(self.body(images)).mean(dim=(2, 3))))


def color_classifier(head="linear", names=NAMES, **options):
    return Classifier(
        ColorNet(head, **options).eval(), class_names=names, preprocessing=PLAIN, name="colours"
    )


def photo(seed, color=None, corner=(32, 16), size=96, strength=120, side=CROP):
    """Grey noise of blocks, with a square of a colour at (x, y); every seed looks different."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 120, (size // 4 + 1, size // 4 + 1))
    gray = np.kron(blocks, np.ones((4, 4), int))[:size, :size]
    pixels = np.repeat(gray[..., None], 3, axis=2)
    if color is not None:
        x, y = corner
        pixels[y : y + side, x : x + side, COLORS.index(color)] += strength
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def folder_of_photos(folder, count=5, **options):
    """`count` photos of each colour in folders of these names; lossless."""
    for index, name in enumerate(COLORS):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            seed = 100 * index + number
            corner = (8 * (seed % 8), 8 * (seed % 7))
            strength = 80 + 10 * number
            picture = photo(seed, name, corner, strength=strength, **options)
            picture.save(folder / name / f"{number}.png")
    return folder


def facts(gallery):
    """All that a gallery says of its crops."""
    return {name: gallery[name] for name in gallery}
