"""A small scene classifier that ships with the package, to try the explanations on.

Its head is global average pooling followed by one linear layer, so a class activation map of
``stage4`` is an exact decomposition of the class score. How it was trained and what it can and
cannot do is written in ``docs/demo_classifier.md``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

CLASS_NAMES: tuple[str, ...] = ("buildings", "forest", "glacier", "mountain", "sea", "street")

# Channel values are scaled to 0..1 first; `resize` is the shorter side of the photo in pixels.
PREPROCESSING: dict[str, Any] = {
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "resize": 192,
}

WEIGHTS_FILE = Path(__file__).with_name("demo.safetensors")


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut around them.

    Every activation is a module of its own and none works in place, so that hooks see the
    values that were really computed.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                # Rounding up gives the size that the padded convolution above has.
                nn.AvgPool2d(stride, ceil_mode=True),
                nn.Conv2d(channels_in, channels_out, 1, bias=False),
                nn.BatchNorm2d(channels_out),
            )
        self.relu2 = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        """Returns the block's output features."""
        inner = self.relu1(self.norm1(self.conv1(features)))
        output: Tensor = self.relu2(self.norm2(self.conv2(inner)) + self.shortcut(features))
        return output


class DemoNet(nn.Module):
    """A residual network for six kinds of scene, for pictures from about 48 pixels a side.

    ``stage4`` gives one feature vector for every 16 x 16 pixels. The class scores are
    ``head`` applied to the average of these vectors, and nothing else happens in between.

    Args:
        n_classes: Number of class scores.
    """

    def __init__(self, n_classes: int = len(CLASS_NAMES)) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()
        )
        self.stage1 = ResidualBlock(32, 48, stride=2)
        self.stage2 = nn.Sequential(
            ResidualBlock(48, 96, stride=2), ResidualBlock(96, 96, stride=1)
        )
        self.stage3 = ResidualBlock(96, 160, stride=2)
        self.stage4 = ResidualBlock(160, 160, stride=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(160, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Returns class scores (N, classes) of normalised RGB images (N, 3, height, width)."""
        features = self.stage2(self.stage1(self.stem(images)))
        features = self.stage4(self.stage3(features))
        scores: Tensor = self.head(self.pool(features).flatten(1))
        return scores


def load_demo_network() -> DemoNet:
    """Returns the trained network in single precision and evaluation mode."""
    stored = load_file(WEIGHTS_FILE)
    with torch.device("cpu"):
        network = DemoNet().to(torch.float32)
    # The file holds half precision; copying into the new network's parameters widens the values.
    network.load_state_dict(stored)
    return network.eval()
