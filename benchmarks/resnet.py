"""Networks of ResNet's sizes and shapes, so that benchmarks need no torchvision."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import nn


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """What is added to a block: its input, by a 1x1 convolution where the shape changes."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = shortcut(inputs, outputs, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """Stem, stages of blocks, pooling and a linear head."""

    def _build(self, make_stages: Callable[[], nn.Module], width: int, classes: int) -> None:
        stem = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(64), nn.ReLU(True), nn.MaxPool2d(3, 2, 1))
        self.stages = make_stages()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.pool(self.stages(self.stem(x))).flatten(1))


class ResNet18(ResNet):
    """He et al. 2016 (arXiv:1512.03385): four stages of two blocks, 64 to 512 channels."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self._build(self._stages, 512, classes)

    def _stages(self) -> nn.Module:
        widths = (64, 64, 128, 256, 512)
        return nn.Sequential(
            *(
                nn.Sequential(Block(a, b, 1 if k == 0 else 2), Block(b, b, 1))
                for k, (a, b) in enumerate(itertools.pairwise(widths))
            )
        )


class Bottleneck(nn.Module):
    """A 3x3 convolution between two of 1x1, and a shortcut; four times as wide outside."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = shortcut(inputs, outputs, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))
        return self.relu(y + self.shortcut(x))


class ResNet50(ResNet):
    """He et al. 2016: four stages of 3, 4, 6 and 3 bottlenecks, 256 to 2048 channels."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self._build(self._stages, 2048, classes)

    def _stages(self) -> nn.Module:
        blocks, inputs = [], 64
        for stage, count in enumerate((3, 4, 6, 3)):
            for block in range(count):
                stride = 2 if stage and block == 0 else 1
                blocks.append(Bottleneck(inputs, 64 << stage, stride))
                inputs = 256 << stage
        return nn.Sequential(*blocks)
