"""Small networks of the kinds that users bring."""

from __future__ import annotations

import torch
from torch import nn


class Block(nn.Module):
    """A residual block as torchvision writes it: in-place addition and ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.shortcut(x)
        return self.relu(y)


class SmallNet(nn.Module):
    """Stem, three blocks, pooling and a head; `wrap` shapes what forward returns."""

    def __init__(self, classes: int = 7, head: str = "linear", wrap=lambda logits: logits) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        )
        self.stage1 = Block(8, 12, 2)
        self.stage2 = Block(12, 16, 2)
        self.stage3 = Block(16, 24, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.5)
        self.fc = {
            "linear": lambda: nn.Linear(24, classes),
            "mlp": lambda: nn.Sequential(
                nn.Linear(24, 16), nn.ReLU(inplace=True), nn.Linear(16, classes)
            ),
            "norm": lambda: nn.Sequential(nn.LayerNorm(24), nn.Linear(24, classes)),
        }[head]()
        self.wrap = wrap
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.bias, std=0.3)

    def forward(self, x: torch.Tensor):
        x = self.stage3(self.stage2(self.stage1(self.stem(x))))
        return self.wrap(self.fc(self.drop(self.pool(x).flatten(1))))

    @classmethod
    def from_other(cls, other: SmallNet) -> SmallNet:
        """A copy with memory of its own."""
        copy = cls().eval()
        copy.load_state_dict(other.state_dict())
        return copy
