"""Heads that take the place of a network's own, or follow a network that has none."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from pyxai._errors import argument_error, describe
from pyxai.classifier.nested import first_tensor
from pyxai.classifier.points import find_layer

HeadKind: TypeAlias = Literal["linear", "mlp"]
"""One linear layer, or `MlpHead`."""

_DROPOUT = 0.5


class MlpHead(nn.Sequential):
    """Dropout, a hidden layer, dropout, a linear layer.

    The child `hidden` gives the activations after its ELU, the child `output` the logits.

    Attributes:
        features: how many enter.
        width: of the hidden layer.
        classes: how many logits leave.
    """

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        layers: list[tuple[str, nn.Module]] = [
            ("drop1", nn.Dropout(_DROPOUT)),
            ("hidden", nn.Sequential(_linear(features, hidden), nn.ELU())),
            ("drop2", nn.Dropout(_DROPOUT)),
            ("output", _linear(hidden, classes)),
        ]
        super().__init__(OrderedDict(layers))
        self.features, self.width, self.classes = features, hidden, classes


class PlainHead(nn.Linear):
    """A linear head where the architecture has something else: a cosine, a normed weight."""


class WithHead(nn.Module):
    """A network without a head of its own, and one that follows it.

    Attributes:
        body: images to features `[N, F]`, or to maps `[N, F, h, w]`, whose mean is taken.
        head: features to logits.
    """

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits `[N, K]`."""
        logits: torch.Tensor = self.head(vectors(self.body(images)))
        return logits


def vectors(output: Any) -> torch.Tensor:
    """What a network without a head returned, as features `[N, F]`.

    Raises:
        ValueError: it is neither vectors nor maps.
    """
    features = first_tensor(output)
    if features is not None and features.ndim == 4:
        features = features.mean(dim=(2, 3))
    if features is None or features.ndim != 2 or not features.is_floating_point():
        expected = "a classifier, or a network that returns features [N, F] or maps [N, F, h, w]"
        got = f"one that returns {describe(output)}"
        raise ValueError(f"model: expected {expected}, got {got}")
    return features


@dataclass(frozen=True)
class HeadSpec:
    """All that is needed to put a head on a network again; its weights come from elsewhere.

    Attributes:
        kind: of the head.
        place: name of the module that it replaces; None for one that follows the network.
        features: how many enter.
        classes: how many logits leave.
        hidden: width of the hidden layer of an "mlp", else None.
        removed: modules of the network that are identities in front of a head that follows.
    """

    kind: HeadKind
    place: str | None
    features: int
    classes: int
    hidden: int | None = None
    removed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        counts = [self.features, self.classes, *([self.hidden] if self.kind == "mlp" else [])]
        if not all(isinstance(each, int) and each >= 1 for each in counts):
            raise argument_error("head", "sizes of at least 1", tuple(counts))
        if self.kind not in ("linear", "mlp"):
            raise argument_error("head", "'linear' or 'mlp'", self.kind)

    def build(self, *, plain: bool = True) -> nn.Module:
        """The head with random weights of torch's generator; linear: a `PlainHead`, or `plain`."""
        if self.kind == "linear":
            return _linear(self.features, self.classes, nn.Linear if plain else PlainHead)
        assert self.hidden is not None
        return MlpHead(self.features, self.hidden, self.classes)


def put_head(network: nn.Module, spec: HeadSpec) -> nn.Module:
    """Changes a network so that it has this head, with random weights.

    Returns:
        The network itself, or for a head that follows it, a module around it.

    Raises:
        ValueError: the network has no module of a name in `spec`.
    """
    like = next(network.parameters())
    plain = spec.place is None or _is_plain(find_layer(network, spec.place))
    head = spec.build(plain=plain).to(like.device, like.dtype)
    if spec.place is None:
        for name in spec.removed:
            _replace(network, name, nn.Identity())
        return WithHead(network, head)
    _replace(network, spec.place, head)
    return network


def head_of(network: nn.Module) -> HeadSpec | None:
    """The head that `put_head` gave a network; None where the architecture tells it all."""
    if isinstance(network, WithHead):
        removed = tuple(
            name for name, module in network.body.named_modules() if isinstance(module, nn.Identity)
        )
        return _spec(network.head, None, removed)
    for name, module in network.named_modules():
        if isinstance(module, (MlpHead, PlainHead)):
            return _spec(module, name, ())
    return None


def _linear(inputs: int, outputs: int, kind: type[nn.Linear] = nn.Linear) -> nn.Linear:
    return kind(inputs, outputs, dtype=torch.float32, device="cpu")


def _is_plain(module: nn.Module) -> bool:
    """Whether weights of a new linear layer mean the same in this one."""
    own = isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward
    return (
        own and not isinstance(module, PlainHead) and {*module.state_dict()} == {"weight", "bias"}
    )


def _spec(head: nn.Module, place: str | None, removed: tuple[str, ...]) -> HeadSpec:
    if isinstance(head, MlpHead):
        return HeadSpec("mlp", place, head.features, head.classes, head.width, removed)
    assert isinstance(head, nn.Linear)
    return HeadSpec("linear", place, head.in_features, head.out_features, None, removed)


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    find_layer(network, name)  # a name that does not exist is an error
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, module)
