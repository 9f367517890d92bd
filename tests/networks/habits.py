"""Habits that people have when they write networks, each with a twin that avoids it.

A habit and its twin have the same weights and compute the same function. So whatever is explained
of the one must be explained of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

CLASSES = 4
SIZE = 32


class Net(nn.Module):
    """Three convolutions, global average pooling, one linear layer: plain modules, each used once.

    At 32 pixels its layers have 16, 16 and 8 cells a side. `forward` is written out, so that a
    habit is a class with another `forward` and the same weights.
    """

    widths = (3, 8, 16, 24)

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d = self.widths
        self.c1, self.c2 = nn.Conv2d(a, b, 3, 2, 1), nn.Conv2d(b, c, 3, 1, 1)
        self.c3 = nn.Conv2d(c, d, 3, 2, 1)
        self.r1, self.r2, self.r3 = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.pool, self.flat = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.fc = nn.Linear(d, CLASSES)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return self.r3(self.c3(self.r2(self.c2(self.r1(self.c1(x))))))

    def head(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.flat(self.pool(x)))

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.body(x))


class Even(Net):
    """All widths are equal, so that nothing is noticed by a shape."""

    widths = (3, 16, 16, 16)


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights with which features and logits vary, so that agreement says something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float32)
            if name.endswith("running_var"):
                value = noise.abs() + 0.5
            elif tensor.ndim > 1:
                fan = tensor[0].numel()
                last = tensor.shape[0] in (1, CLASSES)
                value = noise * ((6.0 if last else 1.6) / fan**0.5)
            else:
                value = noise * 0.2 + (1.0 if name.endswith("weight") else 0.05)
            tensor.copy_(value)
    return model.eval()


@dataclass(frozen=True)
class Habit:
    """A habit, and how to do without.

    Attributes:
        name: in a few words, for the table.
        habit: makes the network with the habit.
        twin: makes the other; it is given the weights of the first, by `rename`.
        rename: names of the habit's weights -> of the twin's, where these differ.
        channels: of the images.
        size: of the images, in pixels.
        class_names: how many to give, None for none.
        tolerance: by how much maps in [0, 1] may differ.
        target: of the explanations; None is the top class.
        before: what is done with the habit's network before it is explained.
        dtype: of the images.
    """

    name: str
    habit: Callable[[], nn.Module]
    twin: Callable[[], nn.Module]
    rename: Mapping[str, str] | Callable[[dict], dict] = field(default_factory=dict)
    channels: int = 3
    size: int = SIZE
    class_names: int | None = None
    tolerance: float = 1e-4
    target: Any = None
    before: Callable[[nn.Module], None] | None = None
    dtype: torch.dtype = torch.float32

    def pair(self) -> tuple[nn.Module, nn.Module]:
        """The network with the habit and its twin, with the same weights."""
        habit, twin = lively(self.habit()), self.twin().eval()
        state = {name: value.clone() for name, value in habit.state_dict().items()}
        if callable(self.rename):
            state = self.rename(state)
        else:
            for old, new in self.rename.items():
                for name in [each for each in state if each.startswith(old)]:
                    value = state[name]
                    for target in new.split("|"):
                        state[target + name.removeprefix(old)] = value
                    if old not in new.split("|"):
                        del state[name]
        own = twin.state_dict()
        assert own.keys() <= state.keys(), (self.name, own.keys() - state.keys())
        twin.load_state_dict({name: state[name] for name in own})
        if self.before is not None:
            self.before(habit)
        return habit, twin


HABITS: list[Habit] = []


def habit(name: str, twin: Callable[[], nn.Module] = Net, **more: Any) -> Callable[[Any], Any]:
    """Notes a class as a habit."""

    def note(kind: Any) -> Any:
        HABITS.append(Habit(name, kind, twin, **more))
        return kind

    return note


# ---- modules that run several times ----


@habit("one ReLU for all")
class SharedReLU(Net):
    def body(self, x):
        relu = self.r1
        return relu(self.c3(relu(self.c2(relu(self.c1(x))))))


@habit("one ReLU for all, equal widths", Even)
class SharedReLUEven(Even):
    body = SharedReLU.body


class Vector(Net):
    def __init__(self):
        super().__init__()
        self.f1, self.r4 = nn.Linear(24, 12), nn.ReLU()
        self.fc = nn.Linear(12, CLASSES)

    def head(self, x):
        return self.fc(self.r4(self.f1(self.flat(self.pool(x)))))


@habit("one ReLU for all, last on a vector", Vector)
class SharedReLUOnVector(Vector):
    body = SharedReLU.body

    def head(self, x):
        return self.fc(self.r1(self.f1(self.flat(self.pool(x)))))


@habit("one ReLU under two names")
class TwoNames(Net):
    def __init__(self):
        super().__init__()
        self.r3 = self.r2 = self.r1


class Normed(Even):
    def __init__(self):
        super().__init__()
        self.n1, self.n2, self.n3 = (nn.BatchNorm2d(16) for _ in range(3))

    def body(self, x):
        x = self.r1(self.n1(self.c1(x)))
        x = self.r2(self.n2(self.c2(x)))
        return self.r3(self.n3(self.c3(x)))


@habit("one batch norm for all", Normed, rename={"n1": "n1|n2|n3"})
class SharedNorm(Normed):
    def __init__(self):
        super().__init__()
        del self.n2, self.n3

    def body(self, x):
        norm = self.n1
        x = self.r1(norm(self.c1(x)))
        x = self.r2(norm(self.c2(x)))
        return self.r3(norm(self.c3(x)))


class Repeated(Even):
    def __init__(self):
        super().__init__()
        self.c4, self.r4 = nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU()

    def body(self, x):
        return self.r4(self.c4(self.r3(self.c3(self.r2(self.c2(self.r1(self.c1(x))))))))


@habit("a convolution used twice", Repeated, rename={"c2": "c2|c4"})
class SharedConv(Even):
    def body(self, x):
        x = self.r2(self.c2(self.r1(self.c1(x))))
        return self.r1(self.c2(self.r3(self.c3(x))))


class Pools(Net):
    def __init__(self):
        super().__init__()
        self.p1, self.p2 = nn.MaxPool2d(2), nn.MaxPool2d(2)
        self.c3 = nn.Conv2d(16, 24, 3, 1, 1)

    def body(self, x):
        x = self.r2(self.c2(self.p1(self.r1(self.c1(x)))))
        return self.r3(self.c3(self.p2(x)))


@habit("one max pooling for all", Pools, size=64)
class SharedPool(Pools):
    def body(self, x):
        x = self.r2(self.c2(self.p1(self.r1(self.c1(x)))))
        return self.r3(self.c3(self.p1(x)))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.c, self.r = nn.Conv2d(24, 24, 3, 1, 1), nn.ReLU()

    def forward(self, x):
        return self.r(self.c(x) + x)


class Blocks(Net):
    def __init__(self):
        super().__init__()
        self.b1, self.b2 = Block(), Block()

    def body(self, x):
        return self.b2(self.b1(super().body(x)))


@habit("a block run twice", Blocks, rename={"b1": "b1|b2"})
class SharedBlock(Blocks):
    def __init__(self):
        super().__init__()
        del self.b2

    def body(self, x):
        return self.b1(self.b1(Net.body(self, x)))


class Swish(Net):
    def __init__(self):
        super().__init__()
        self.r1, self.r2, self.r3 = nn.SiLU(), nn.SiLU(), nn.SiLU()


@habit("one in-place activation for all", Swish)
class SharedSwish(Swish):
    def __init__(self):
        super().__init__()
        self.r1 = nn.SiLU(inplace=True)

    body = SharedReLU.body


class Dropped(Net):
    def __init__(self):
        super().__init__()
        self.d1, self.d2 = nn.Dropout(0.5), nn.Dropout(0.5)

    def body(self, x):
        x = self.r1(self.c1(x))
        x = self.d1(self.r2(self.c2(x)))
        return self.d2(self.r3(self.c3(x)))


@habit("one dropout for all", Dropped)
class SharedDropout(Dropped):
    def body(self, x):
        x = self.d1(self.r2(self.c2(self.r1(self.c1(x)))))
        return self.d1(self.r3(self.c3(x)))


# ---- functions in place of modules ----


@habit("functional ReLU before a pooling module")
class FunctionalReLU(Net):
    def body(self, x):
        return F.relu(self.c3(F.relu(self.c2(F.relu(self.c1(x))))))


@habit("functional ReLU before functional pooling")
class FunctionalHead(FunctionalReLU):
    def head(self, x):
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


@habit("in-place functional ReLU before pooling, as in DenseNet")
class DenseStyle(Net):
    def body(self, x):
        return F.relu(self.c3(self.r2(self.c2(self.r1(self.c1(x))))), inplace=True)

    def head(self, x):
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1))


@habit("mean((2, 3))")
class Mean(FunctionalReLU):
    def head(self, x):
        return self.fc(x.mean((2, 3)))


@habit("mean of flattened positions")
class FlatMean(FunctionalReLU):
    def head(self, x):
        return self.fc(x.view(x.size(0), x.size(1), -1).mean(-1))


@habit("a sum over positions, divided by their number")
class SumHead(Net):
    def head(self, x):
        return self.fc(x.sum(dim=[-1, -2]) / (x.shape[2] * x.shape[3]))


@habit("the head as an einsum")
class EinsumHead(Net):
    def head(self, x):
        scores = torch.einsum("nchw,kc->nkhw", x, self.fc.weight)
        return scores.mean(dim=(2, 3)) + self.fc.bias


@habit("channels moved last by hand")
class PermutedHead(Net):
    def head(self, x):
        return self.fc(x.permute(0, 2, 3, 1)).mean(dim=(1, 2))


@habit("average pooling of the map's size")
class AvgPoolOfSize(FunctionalReLU):
    def head(self, x):
        return self.fc(F.avg_pool2d(x, x.shape[2:])[:, :, 0, 0])


class MaxHead(Net):
    def __init__(self):
        super().__init__()
        self.pool = nn.AdaptiveMaxPool2d(1)


@habit("amax", MaxHead)
class AMax(FunctionalReLU):
    def head(self, x):
        return self.fc(x.amax(dim=(2, 3)))


class FlatHead(Net):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(24 * 8 * 8, CLASSES)

    def head(self, x):
        return self.fc(self.flat(x))


@habit("a flattened map", FlatHead)
class Flattened(FlatHead):
    def forward(self, x):
        x = F.relu(self.c3(F.relu(self.c2(F.relu(self.c1(x))))))
        return self.fc(x.view(-1, 24 * 8 * 8))


class Tutorial(Net):
    """The network of PyTorch's tutorials, with modules of its own in each place."""

    def __init__(self):
        super().__init__()
        self.p1, self.p2 = nn.MaxPool2d(2), nn.MaxPool2d(2)
        self.f1, self.r4 = nn.Linear(24 * 4 * 4, 20), nn.ReLU()
        self.fc = nn.Linear(20, CLASSES)

    def body(self, x):
        x = self.r2(self.c2(self.p1(self.r1(self.c1(x)))))
        return self.p2(self.r3(self.c3(x)))

    def head(self, x):
        return self.fc(self.r4(self.f1(self.flat(x))))


@habit("PyTorch's tutorial: functions, one pooling, a flattened map", Tutorial, size=64)
class TutorialStyle(Tutorial):
    def forward(self, x):
        x = self.p1(F.relu(self.c1(x)))
        x = self.p1(F.relu(self.c3(F.relu(self.c2(x)))))
        x = torch.flatten(x, 1)
        return self.fc(F.relu(self.f1(x)))


@habit("methods of tensors")
class Methods(Net):
    def forward(self, x):
        x = self.c3(self.c2(self.c1(x).relu()).clamp(min=0)).relu_()
        return self.fc(x.mean(dim=-1).mean(dim=-1))


@habit("in-place functions whose result is not used")
class ResultNotUsed(Net):
    def body(self, x):
        x = self.c1(x)
        F.relu_(x)
        x = self.c2(x)
        x.relu_()
        x = self.c3(x)
        F.relu(x, inplace=True)
        return x


class InPlaceModules(Net):
    def __init__(self):
        super().__init__()
        self.r1, self.r2, self.r3 = (nn.ReLU(inplace=True) for _ in range(3))


@habit("in-place modules")
class InPlaceReLU(InPlaceModules):
    pass


@habit("in-place modules whose result is not used")
class ModuleResultNotUsed(InPlaceModules):
    def body(self, x):
        x = self.c1(x)
        self.r1(x)
        x = self.c2(x)
        self.r2(x)
        x = self.c3(x)
        self.r3(x)
        return x


@habit("weights without modules")
class Bare(Net):
    def body(self, x):
        x = F.relu(F.conv2d(x, self.c1.weight, self.c1.bias, 2, 1))
        x = F.relu(F.conv2d(x, self.c2.weight, self.c2.bias, padding=1))
        return F.relu(F.conv2d(x, self.c3.weight, self.c3.bias, 2, 1))

    def head(self, x):
        return F.linear(x.mean((2, 3)), self.fc.weight, self.fc.bias)


@habit("a head as a matrix product")
class HeadAsProduct(FunctionalReLU):
    def head(self, x):
        return x.mean((2, 3)) @ self.fc.weight.t() + self.fc.bias


@habit("negative values set to 0 by a mask")
class MaskedReLU(FunctionalReLU):
    def body(self, x):
        x = self.c3(F.relu(self.c2(F.relu(self.c1(x)))))
        x[x < 0] = 0
        return x


@habit("a ReLU in place on another view")
class ReLUOnView(FunctionalReLU):
    def body(self, x):
        x = self.c3(F.relu(self.c2(F.relu(self.c1(x)))))
        x.permute(0, 2, 3, 1).relu_()
        return x


@habit("writes into a buffer")
class Writes(FunctionalReLU):
    """Counts, and keeps a mean of what it is given, that it does not use."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(self.widths[0]))

    def forward(self, x):
        self.calls += 1
        self.mean.lerp_(x.detach().mean((0, 2, 3)).to(self.mean), 0.1)
        return super().forward(x)


@habit("forward called by hand")
class ForwardByHand(Net):
    def body(self, x):
        x = self.r1.forward(self.c1.forward(x))
        return self.r3.forward(self.c3.forward(self.r2.forward(self.c2.forward(x))))


@habit("modules called by keyword")
class Keywords(Net):
    def body(self, x):
        x = self.r1(input=self.c1(input=x))
        return self.r3(input=self.c3(input=self.r2(input=self.c2(input=x))))


@habit("a loop over a list of layers")
class Loop(Net):
    def body(self, x):
        for layer in (self.c1, self.c2, self.c3):
            x = F.relu(layer(x))
        return x


@habit("layers in a list that torch does not know")
class HiddenList(Net):
    def __init__(self):
        super().__init__()
        self.hidden = [nn.ReLU() for _ in range(3)]

    def body(self, x):
        for layer, relu in zip((self.c1, self.c2, self.c3), self.hidden, strict=True):
            x = relu(layer(x))
        return x


class Concatenated(Net):
    def __init__(self):
        super().__init__()
        self.c4, self.r4 = nn.Conv2d(16, 24, 3, 2, 1), nn.ReLU()
        self.join = Join()
        self.fc = nn.Linear(48, CLASSES)

    def body(self, x):
        x = self.r2(self.c2(self.r1(self.c1(x))))
        return self.r4(self.join(self.c3(x), self.c4(x)))


class Join(nn.Module):
    def forward(self, *parts):
        return torch.cat(parts, dim=1)


@habit("branches put together by functions", Concatenated)
class FunctionalBranches(Concatenated):
    def body(self, x):
        x = F.relu(self.c2(F.relu(self.c1(x))))
        return F.relu(torch.cat([self.c3(x), self.c4(x)], 1))


class Residual(Net):
    def __init__(self):
        super().__init__()
        self.c4, self.r4 = nn.Conv2d(24, 24, 3, 1, 1), nn.ReLU()
        self.add = Add()

    def body(self, x):
        x = super().body(x)
        return self.r4(self.add(self.c4(x), x))


class Add(nn.Module):
    def forward(self, x, y):
        return x + y


@habit("in-place additions", Residual)
class InPlaceAddition(Residual):
    def body(self, x):
        x = Net.body(self, x)
        y = self.c4(x)
        y += x
        return self.r4(y)


class Gated(Net):
    def __init__(self):
        super().__init__()
        self.squeeze, self.gate, self.scale = nn.Conv2d(24, 24, 1), nn.Sigmoid(), Scale()
        self.small = nn.AdaptiveAvgPool2d(1)

    def body(self, x):
        x = super().body(x)
        return self.scale(x, self.gate(self.squeeze(self.small(x))))


class Scale(nn.Module):
    def forward(self, x, y):
        return x * y


@habit("squeeze and excite by functions", Gated)
class FunctionalGate(Gated):
    def body(self, x):
        x = F.relu(self.c3(F.relu(self.c2(F.relu(self.c1(x))))))
        return x * torch.sigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))


class BothPools(Net):
    def __init__(self):
        super().__init__()
        self.most = nn.AdaptiveMaxPool2d(1)
        self.add = Add()

    def head(self, x):
        return self.fc(self.flat(self.add(self.pool(x), self.most(x))))


@habit("average and maximum of one functional ReLU", BothPools)
class FunctionalBothPools(BothPools):
    def forward(self, x):
        x = F.relu(self.c3(F.relu(self.c2(F.relu(self.c1(x))))))
        return self.fc(x.mean((2, 3)) + x.amax((2, 3)))


# ---- heads ----


class PointwiseMap(Net):
    """The class maps of a convolution, averaged."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Conv2d(24, CLASSES, 1)


def as_linear(state: dict) -> dict:
    return {**state, "fc.weight": state["fc.weight"].flatten(1)}


@habit("a 1 × 1 convolution, then the mean", rename=as_linear)
class ConvThenMean(PointwiseMap):
    def head(self, x):
        return self.fc(x).mean((2, 3))


@habit("a 1 × 1 convolution, then a pooling module", rename=as_linear)
class ConvThenPool(PointwiseMap):
    def head(self, x):
        return self.flat(self.pool(self.fc(x)))


@habit("pooling, then a 1 × 1 convolution", rename=as_linear)
class PoolThenConv(PointwiseMap):
    def head(self, x):
        return self.fc(self.pool(x)).flatten(1)


@habit("logits [N, K, 1, 1]", rename=as_linear)
class FourAxes(PointwiseMap):
    def head(self, x):
        return self.fc(self.pool(x))


def merged(state: dict) -> dict:
    weight = state["fc.weight"] @ state["f1.weight"]
    bias = state["fc.weight"] @ state["f1.bias"] + state["fc.bias"]
    return {**state, "fc.weight": weight, "fc.bias": bias}


@habit("two linear layers", rename=merged)
class TwoLinear(Net):
    def __init__(self):
        super().__init__()
        self.f1, self.fc = nn.Linear(24, 12), nn.Linear(12, CLASSES)

    def head(self, x):
        return self.fc(self.f1(self.flat(self.pool(x))))


def scaled(state: dict) -> dict:
    return {**state, "fc.weight": state["fc.weight"] / 2, "fc.bias": state["fc.bias"] / 2}


@habit("a head with dropout and a temperature", rename=scaled)
class Temperature(Net):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.3)

    def head(self, x):
        return self.fc(self.drop(self.flat(self.pool(x)))) / 2.0


@habit("features scaled before the head", rename=scaled)
class ScaledFeatures(Net):
    def head(self, x):
        return self.fc(0.5 * self.flat(self.pool(x))) - 0.5 * self.fc.bias


@habit("a head in a Sequential", rename={"head_.2": "fc"})
class InSequential(Net):
    def __init__(self):
        super().__init__()
        del self.fc, self.pool, self.flat
        self.head_ = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, CLASSES))

    def head(self, x):
        return self.head_(x)


@habit("everything in one Sequential", rename={"0": "c1", "2": "c2", "4": "c3", "8": "fc"})
def everything_in_one():
    net = Net()
    return nn.Sequential(
        *(net.c1, net.r1, net.c2, net.r2, net.c3, net.r3),
        *(net.pool, net.flat, net.fc),
    )


@habit("squeezed features")
class Squeezed(Net):
    def head(self, x):
        return self.fc(F.adaptive_avg_pool2d(x, 1).squeeze())


class EndsInLogSoftmax(Net):
    def __init__(self):
        super().__init__()
        self.end = nn.LogSoftmax(dim=1)

    def forward(self, x):
        return self.end(super().forward(x))


@habit("log_softmax at the end", EndsInLogSoftmax)
class LogSoftmax(FunctionalReLU):
    def forward(self, x):
        return F.log_softmax(super().forward(x), dim=1)


class EndsInSoftmax(Net):
    def __init__(self):
        super().__init__()
        self.end = nn.Softmax(dim=1)

    def forward(self, x):
        return self.end(super().forward(x))


@habit("softmax at the end", EndsInSoftmax)
class Softmax(FunctionalReLU):
    def forward(self, x):
        return super().forward(x).softmax(-1)


# ---- what goes in ----


class Normalizing(Net):
    def forward(self, x):
        return super().forward((x - 0.5) / 0.25)


@habit("normalizes its input in place", Normalizing)
class NormalizesInPlace(Net):
    def forward(self, x):
        return super().forward(x.sub_(0.5).div_(0.25))


class Clipping(Net):
    def forward(self, x):
        return super().forward(torch.where(x.amax() > 1, x / 2, x))


@habit("changes its input in place, but not always", Clipping)
class SometimesInPlace(Net):
    def forward(self, x):
        if x.max() > 1:
            x /= 2
        return super().forward(x)


class OneChannel(Net):
    widths = (1, 8, 16, 24)


@habit("one channel", OneChannel, channels=1)
class FunctionalOneChannel(OneChannel):
    forward = Mean.forward
    body, head = FunctionalReLU.body, Mean.head


class FourChannels(Net):
    widths = (4, 8, 16, 24)


@habit("four channels", FourChannels, channels=4)
class FunctionalFourChannels(FourChannels):
    body, head = FunctionalReLU.body, Mean.head


class ManyChannels(Net):
    widths = (13, 8, 16, 24)


@habit("thirteen channels", ManyChannels, channels=13)
class FunctionalManyChannels(ManyChannels):
    body, head = FunctionalReLU.body, Mean.head


# ---- what comes out ----


class WithDecoder(Net):
    def __init__(self):
        super().__init__()
        self.decoder = nn.ConvTranspose2d(24, 3, 4, 4)

    def both(self, x):
        features = self.body(x)
        logits = self.head(features)
        return logits, self.decoder(features)


def without(*prefixes: str) -> Callable[[dict], dict]:
    return lambda state: {k: v for k, v in state.items() if not k.startswith(prefixes)}


@habit("a decoder on the side, tuple", rename=without("decoder"))
class TupleWithDecoder(WithDecoder):
    def forward(self, x):
        return self.both(x)


@habit("a decoder on the side that runs last, dict", rename=without("decoder"))
class DictWithDecoder(WithDecoder):
    def forward(self, x):
        logits, picture = self.both(x)
        return {"reconstruction": picture, "logits": logits}


@habit("(embedding, logits)", class_names=CLASSES)
class EmbeddingFirst(Net):
    def forward(self, x):
        vectors = self.flat(self.pool(self.body(x)))
        return vectors, self.fc(vectors)


@habit("(probabilities, logits)")
class ProbabilitiesFirst(Net):
    def forward(self, x):
        logits = super().forward(x)
        return logits.softmax(1), logits


@dataclass
class Answer:
    features: torch.Tensor
    logits: torch.Tensor


@habit("a dataclass")
class ReturnsDataclass(Net):
    def forward(self, x):
        features = self.body(x)
        return Answer(features, self.head(features))


class Pair(NamedTuple):
    vectors: torch.Tensor
    scores: torch.Tensor


@habit("a named tuple", class_names=CLASSES)
class ReturnsNamedTuple(Net):
    def forward(self, x):
        vectors = self.flat(self.pool(self.body(x)))
        return Pair(vectors, self.fc(vectors))


@habit("[auxiliary, main], of other sizes", class_names=CLASSES)
class ListWithAuxiliary(Net):
    def __init__(self):
        super().__init__()
        self.aux = nn.Linear(24, 9)

    def forward(self, x):
        features = self.body(x)
        return [self.aux(features.mean((2, 3))), self.head(features)]


class OneOutput(Net):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(24, 1)


@habit("one number an image, [N]", OneOutput)
class OneNumber(OneOutput):
    def forward(self, x):
        return super().forward(x).squeeze(1)


@habit("one number, squeezed away", OneOutput)
class OneNumberSqueezed(OneOutput):
    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3))).squeeze()


class OneSigmoid(OneOutput):
    def __init__(self):
        super().__init__()
        self.end = nn.Sigmoid()

    def forward(self, x):
        return self.end(super().forward(x))


@habit("one sigmoid, [N, 1]", OneSigmoid)
class FunctionalOneSigmoid(OneOutput):
    def forward(self, x):
        return torch.sigmoid(super().forward(x))


@habit("one sigmoid [N], and its logit", OneOutput)
class SigmoidOfOne(OneOutput):
    def forward(self, x):
        return super().forward(x).sigmoid()[:, 0]


class Labels(Net):
    def __init__(self):
        super().__init__()
        self.end = nn.Sigmoid()

    def forward(self, x):
        return self.end(super().forward(x))


@habit("labels that do not exclude each other", Labels)
class FunctionalLabels(FunctionalReLU):
    def forward(self, x):
        return torch.sigmoid(super().forward(x))


@habit("a sigmoid for each label, put together", Labels)
class LabelByLabel(FunctionalReLU):
    def forward(self, x):
        scores = super().forward(x)
        return torch.cat([scores[:, k : k + 1].sigmoid() for k in range(CLASSES)], dim=1)


class Regression(Net):
    """Its number is scaled to its range, within a twin that keeps to modules."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(24, 1)
        self.scale = nn.Linear(1, 1)

    def forward(self, x):
        return self.scale(super().forward(x))


@habit("a regression, scaled to its range", Regression)
class FunctionalRegression(Regression):
    def forward(self, x):
        number = self.fc(F.relu(self.c3(F.relu(self.c2(F.relu(self.c1(x)))))).mean((2, 3)))
        return number * self.scale.weight[0, 0] + self.scale.bias


class Embeds(Net):
    """Rows of length 1 that are compared with a row for each class."""

    def forward(self, x):
        return F.normalize(super().forward(x), dim=1)


def likeness(embeddings: torch.Tensor) -> torch.Tensor:
    """The cosine to the embedding of another image."""
    return embeddings @ torch.tensor([0.5, -0.5, 0.5, 0.5]).to(embeddings)


@habit("an embedding, by a target function", Embeds, target=likeness, class_names=CLASSES)
class FunctionalEmbeds(FunctionalReLU):
    def forward(self, x):
        vectors = super().forward(x)
        return vectors / vectors.norm(dim=1, keepdim=True)


# ---- how it runs ----


class TwoBodies(Net):
    """The views of an image by bodies of their own; those of the last count."""

    def __init__(self):
        super().__init__()
        self.first = Net()

    def forward(self, x):
        return (self.first(x.flip(3)) + super().forward(x)) / 2


@habit(
    "two views averaged",
    TwoBodies,
    rename=lambda state: {**state, **{f"first.{k}": v for k, v in state.items()}},
)
class TwoViews(Net):
    def forward(self, x):
        return (super().forward(x.flip(3)) + super().forward(x)) / 2


class Branches(Net):
    def __init__(self):
        super().__init__()
        self.other = nn.Sequential(nn.Linear(24, 12), nn.Tanh(), nn.Linear(12, CLASSES))

    def forward(self, x):
        features = self.body(x)
        vectors = features.mean((2, 3))
        bright = x.mean((1, 2, 3)) > 0
        return torch.where(bright[:, None], self.fc(vectors), self.other(vectors))


@habit("another branch for some images", Branches)
class BranchesByMask(Branches):
    def forward(self, x):
        vectors = self.body(x).mean((2, 3))
        bright = x.mean((1, 2, 3)) > 0
        logits = self.other(vectors)
        logits[bright] = self.fc(vectors[bright])
        return logits


class NoExit(Vector):
    def forward(self, x):
        return self.head(self.body(x))


@habit("an early exit that is not taken", NoExit)
class EarlyExit(Vector):
    def __init__(self):
        super().__init__()
        self.early = nn.Linear(16, CLASSES)

    def forward(self, x):
        x = self.r2(self.c2(self.r1(self.c1(x))))
        sure = self.early(x.mean((2, 3)))
        if len(x) and sure.softmax(1).amax() > 1:
            return sure
        return self.head(self.r3(self.c3(x)))


@habit("the body under no_grad", Vector)
class BodyUnderNoGrad(Vector):
    def forward(self, x):
        with torch.no_grad():
            features = self.body(x)
        return self.head(features)


@habit("the body under inference_mode", Vector)
class BodyUnderInferenceMode(Vector):
    def forward(self, x):
        with torch.inference_mode():
            features = self.body(x)
        return self.head(features.clone())


@habit("everything under no_grad", Vector)
class AllUnderNoGrad(Vector):
    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


@habit("detached features", Vector)
class Detached(Vector):
    def forward(self, x):
        return self.head(self.body(x).detach())


@habit("checkpointing", Vector)
class Checkpointed(Vector):
    def forward(self, x):
        from torch.utils.checkpoint import checkpoint

        return self.head(checkpoint(self.body, x, use_reentrant=False))


@habit("checkpointing, as it was before", Vector)
class CheckpointedReentrant(Vector):
    def forward(self, x):
        from torch.utils.checkpoint import checkpoint

        return self.head(checkpoint(self.body, x, use_reentrant=True))


@habit("traced by fx")
def traced_by_fx():
    return torch.fx.symbolic_trace(FunctionalReLU())


@habit("compiled", rename=lambda state: {k.removeprefix("_orig_mod."): v for k, v in state.items()})
def compiled():
    return torch.compile(FunctionalReLU(), backend="eager")


class Parametrized(Net):
    def __init__(self):
        super().__init__()
        for layer in (self.c1, self.c2, self.c3, self.fc):
            nn.utils.parametrizations.weight_norm(layer)


def baked(state: dict) -> dict:
    found = {}
    for name, value in state.items():
        if name.endswith("original0"):
            direction = state[name.replace("original0", "original1")]
            layer = name.split(".parametrizations")[0]
            found[f"{layer}.weight"] = torch._weight_norm(direction, value, 0)
        elif not name.endswith("original1"):
            found[name] = value
    return found


habit("weights by parametrization", rename=baked)(Parametrized)


@habit("made in inference mode", Vector)
def made_in_inference_mode():
    with torch.inference_mode():
        return Vector()


def exchanged_head():
    net = Net()
    net.fc = nn.Linear(24, 9)
    return net


def exchange_head(net: nn.Module) -> None:
    """A call with another head, as before fine-tuning; then the head that counts."""
    import pyxai

    head = net.fc
    net.fc = nn.Linear(24, 9)
    pyxai.cam(net, torch.randn(1, 3, SIZE, SIZE))
    net.fc = head


habit("a head exchanged after the first call", before=exchange_head)(Net)


class Deeper(Net):
    """The last layer is another block."""

    def __init__(self):
        super().__init__()
        self.r3 = nn.Sequential(nn.ReLU(), nn.Conv2d(24, 24, 3, 1, 1), nn.ReLU())


def exchange_layer(net: nn.Module) -> None:
    import pyxai

    block = net.r3
    net.r3 = nn.ReLU()
    pyxai.cam(net, torch.randn(1, 3, SIZE, SIZE))
    net.r3 = block


habit("a layer exchanged after the first call", Deeper, before=exchange_layer)(Deeper)


def larger_first(net: nn.Module) -> None:
    import pyxai

    pyxai.cam(net, torch.randn(1, 3, 64, 64))


class Shrinking(Net):
    """Of small images the last layer has a single position."""

    def __init__(self):
        super().__init__()
        self.c3 = nn.Conv2d(16, 24, 3, 16, 1)


habit("one position for small images, after larger ones", Shrinking, before=larger_first)(Shrinking)


def training(net: nn.Module) -> None:
    net.train()


habit("left in training mode", Dropped, before=training)(Dropped)


def frozen(net: nn.Module) -> None:
    net.requires_grad_(False)


habit("all weights frozen", Vector, before=frozen)(Vector)


class Doubled(Net):
    def body(self, x):
        return 2 * super().body(x)


class Hooked(Net):
    """A hook of the user's changes what a layer gives."""

    def __init__(self):
        super().__init__()
        self.r3.register_forward_hook(lambda module, arguments, output: 2 * output)


habit("a hook that changes an output", Doubled)(Hooked)


# ---- numbers ----


def double() -> nn.Module:
    return FunctionalReLU().double()


def double_twin() -> nn.Module:
    return Net().double()


habit("float64", double_twin, dtype=torch.float64)(double)
habit(
    "bfloat16",
    lambda: Net().bfloat16(),
    dtype=torch.bfloat16,
    tolerance=2e-2,
)(lambda: FunctionalReLU().bfloat16())
habit(
    "float16",
    lambda: Net().half(),
    dtype=torch.float16,
    tolerance=2e-2,
)(lambda: FunctionalReLU().half())


class HalfBody(FunctionalReLU):
    """A body in bfloat16, the head in float32."""

    def __init__(self):
        super().__init__()
        for layer in (self.c1, self.c2, self.c3):
            layer.bfloat16()

    def forward(self, x):
        return self.fc(self.body(x.bfloat16()).float().mean((2, 3)))


class HalfBodyModules(Net):
    def __init__(self):
        super().__init__()
        for layer in (self.c1, self.c2, self.c3):
            layer.bfloat16()

    def forward(self, x):
        return self.fc(self.flat(self.pool(self.body(x.bfloat16()).float())))


habit("parameters of two dtypes", HalfBodyModules, tolerance=2e-2)(HalfBody)


# Convolutions sum in another order then, and a product of maps makes more of it.
@habit("channels_last weights", tolerance=3e-4)
def channels_last():
    return FunctionalReLU().to(memory_format=torch.channels_last)


# ---- transformers ----


class Tokens(nn.Module):
    """A small vision transformer with a class token."""

    batch_first = True

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.first = nn.Parameter(torch.zeros(1, 1, 16))
        layer = nn.TransformerEncoderLayer(
            16, 2, 24, batch_first=self.batch_first, norm_first=True, dropout=0.1
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.fc = nn.LayerNorm(16), nn.Linear(16, CLASSES)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], dim=1)
        return self.fc(self.norm(self.encoder(x))[:, 0])


@habit("a transformer with the sequence first", Tokens)
class SequenceFirst(Tokens):
    batch_first = False

    def forward(self, x):
        x = self.patch(x).flatten(2).permute(2, 0, 1)
        x = torch.cat([self.first.expand(-1, x.shape[1], -1), x], dim=0)
        return self.fc(self.norm(self.encoder(x))[0])


class MeanTokens(Tokens):
    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        return self.fc(self.norm(self.encoder(x)).mean(dim=1))


@habit("tokens normed by a function before the mean", MeanTokens)
class FunctionalNorm(MeanTokens):
    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = F.layer_norm(self.encoder(x), (16,), self.norm.weight, self.norm.bias)
        return self.fc(x.mean(dim=1))


class AttentionBlock(nn.Module):
    """Attention and a perceptron, each after a norm and past a shortcut."""

    def __init__(self, by_hand: bool):
        super().__init__()
        self.by_hand = by_hand
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)
        self.mlp = nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16))
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        images, tokens, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(images, tokens, 3, 2, 8).permute(2, 0, 3, 1, 4)
        if self.by_hand:
            found = self.drop((q @ k.transpose(-2, -1) * 8**-0.5).softmax(dim=-1)) @ v
        else:
            found = F.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(found.transpose(1, 2).reshape(images, tokens, width))
        return x + self.mlp(self.norm2(x))


class Patches(nn.Module):
    """Patches cut out by a function, so that no convolution tells of their grid."""

    by_hand = False

    def __init__(self):
        super().__init__()
        self.patch = nn.Linear(48, 16)
        self.first = nn.Parameter(torch.zeros(1, 1, 16))
        self.blocks = nn.Sequential(*(AttentionBlock(self.by_hand) for _ in range(2)))
        self.norm, self.fc = nn.LayerNorm(16), nn.Linear(16, CLASSES)

    def forward(self, x):
        x = self.patch(F.unfold(x, 4, stride=4).transpose(1, 2))
        x = torch.cat([self.first.expand(len(x), -1, -1), x], dim=1)
        return self.fc(self.norm(self.blocks(x))[:, 0])


class AttentionByHand(Patches):
    by_hand = True


# In float64, as gradients of so few numbers make much of rounding.
habit("attention by hand", lambda: Patches().double(), dtype=torch.float64)(
    lambda: AttentionByHand().double()
)
