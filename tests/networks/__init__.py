"""Small networks of the kinds that users bring."""

from __future__ import annotations

import copy

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


class TokenBlock(nn.Module):
    """A block of a vision transformer: norm, attention, norm, perceptron; `[N, T, C]`."""

    def __init__(self, channels: int, heads: int = 2) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class SmallViT(nn.Module):
    """A vision transformer of stride 8 that reads its class token or the mean of its patches.

    `registers` are more tokens before the patches; with `pool="mean"` there is no class token.
    """

    def __init__(
        self, *, pool: str = "class", registers: int = 0, channels: int = 12, depth: int = 3
    ) -> None:
        super().__init__()
        self.pool, self.prefix = pool, registers + (pool == "class")
        self.patch = nn.Conv2d(3, channels, 8, 8)
        self.before = nn.Parameter(torch.randn(1, self.prefix, channels))
        self.blocks = nn.Sequential(*(TokenBlock(channels) for _ in range(depth)))
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.before.expand(len(x), -1, -1), patches], dim=1)
        tokens = self.norm(self.blocks(tokens))
        if self.pool == "class":
            return self.head(tokens[:, 0])
        return self.head(tokens[:, self.prefix :].mean(dim=1))


class WindowBlock(nn.Module):
    """Attention in windows of 2 × 2 positions, as Swin has it without the shift; `[N, h, w, C]`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels)
        )
        self.windows = nn.Identity()  # an output for each window, and not for each image

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        images, rows, columns, channels = x.shape
        y = self.norm1(x).reshape(images, rows // 2, 2, columns // 2, 2, channels)
        y = self.windows(y.transpose(2, 3).reshape(-1, 4, channels))
        q, k, v = self.qkv(y).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        y = self.proj(y).reshape(images, rows // 2, columns // 2, 2, 2, channels)
        x = x + y.transpose(2, 3).reshape(images, rows, columns, channels)
        return x + self.mlp(self.norm2(x))


class SmallSwin(nn.Module):
    """Two stages of windows, patches merged in between: strides 4 and 8; `[N, h, w, C]` inside."""

    def __init__(self, channels: int = 10) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, channels, 4, 4)
        self.stage1 = WindowBlock(channels)
        self.merge = nn.Linear(4 * channels, 2 * channels)
        self.stage2 = WindowBlock(2 * channels)
        self.norm = nn.LayerNorm(2 * channels)
        self.head = nn.Linear(2 * channels, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stage1(self.patch(x).permute(0, 2, 3, 1))
        parts = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        x = self.norm(self.stage2(self.merge(torch.cat(parts, dim=3))))
        return self.head(x.mean(dim=(1, 2)))


def random_net(head: str = "linear", classes: int = 7) -> SmallNet:
    """A `SmallNet` with batch-norm statistics and with logits as large as training leaves them.

    `head` "smooth" is a perceptron with second derivatives, which ReLUs do not have.
    """
    model = SmallNet(classes, "linear" if head == "smooth" else head)
    if head == "smooth":
        model.fc = nn.Sequential(nn.Linear(24, 16), nn.GELU(), nn.Linear(16, classes))
        nn.init.normal_(model.fc[0].weight, std=0.5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    last = model.fc if isinstance(model.fc, nn.Linear) else model.fc[-1]
    nn.init.normal_(last.weight, std=8)
    return model.eval()


def full_pass(model: nn.Module, images: torch.Tensor, score, layer: str):
    """Features and gradients of a layer by one graph through the whole network, in float64.

    `score` takes what the network returns and gives one number for each image.
    """
    model, kept = copy.deepcopy(model).double().eval(), []

    def keep(module, arguments, output):
        kept.append(output)
        return output.clone()  # what follows may work in place

    model.get_submodule(layer).register_forward_hook(keep)
    output = model(images.double())
    (gradient,) = torch.autograd.grad(score(output).sum(), kept[-1])
    return kept[-1].detach(), gradient
