"""Heads that a network computes by a function, `F.linear(x, self.fc.weight)`, not by a layer.

A linear layer that only holds the weights can be replaced like one that is called: the network
reads the new weights. Whether that is so is tried out, not guessed from names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pyxai._errors import REFUSALS, passes_through
from pyxai.classifier.borrow import borrowed, call
from pyxai.classifier.calls import FunctionCalls
from pyxai.classifier.nested import first_tensor, tensors_in
from pyxai.classifier.points import function_name

_PRODUCTS = (
    *("linear", "matmul", "rmatmul", "mm", "mv", "bmm", "addmm", "addmv", "baddbmm", "inner"),
    *("einsum", "tensordot", "conv2d"),
)
_INSIDE = ".parametrizations."  # modules that make the weights of the module around them


@dataclass(frozen=True)
class Product:
    """A product of something of the image with weights.

    Attributes:
        function: that made it.
        features: what the weights were multiplied with.
        parameters: the identities of the parameters that the weights are, or were made of.
    """

    function: str
    features: torch.Tensor
    parameters: frozenset[int]


@dataclass(frozen=True)
class FunctionalHead:
    """A module with the weights of the last product, which a linear layer can take the place of.

    Attributes:
        place: its name.
        features: how many enter.
        called: whether it is called, being of a class of its own; else its weights are read.
        biased: whether the bias of a linear layer in its place is added.
    """

    place: str
    features: int
    called: bool
    biased: bool


class LastProduct(FunctionCalls):
    """Keeps the last product with weights in the passes of a block.

    Attributes:
        found: that product, None where there was none.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.found: Product | None = None
        # What depends on parameters and not on the image, by identity; alive, so that none is used
        # again for another tensor.
        self._weights: dict[int, tuple[torch.Tensor, frozenset[int]]] = {}
        for buffer in network.buffers():
            self._weights[id(buffer)] = (buffer, frozenset())
        for parameter in network.parameters():
            self._weights[id(parameter)] = (parameter, frozenset([id(parameter)]))

    def called(self, function: Any, args: Sequence[Any], named: dict[str, Any]) -> Any:
        result = function(*args, **named)
        given = list(tensors_in((args, list(named.values()))))
        known = [self._weights[id(each)][1] for each in given if id(each) in self._weights]
        parameters = frozenset[int]().union(*known)
        if given and len(known) == len(given):
            for tensor in tensors_in(result):
                self._weights.setdefault(id(tensor), (tensor, parameters))
        elif parameters and (name := function_name(function)) in _PRODUCTS:
            others = (each for each in given if id(each) not in self._weights)
            features = next((each for each in others if each.is_floating_point()), None)
            if features is not None:
                self.found = Product(name, features.detach().clone(), parameters)
        return result


def is_of(product: Product, module: nn.Module) -> bool:
    """Whether the weights of a product are a module's."""
    return any(id(each) in product.parameters for each in module.parameters())


def find_functional_head(
    network: nn.Module,
    images: torch.Tensor,
    product: Product,
    classes: int,
    read: Callable[[Any], torch.Tensor],
) -> FunctionalHead | None:
    """The module whose weights make the logits, if a linear layer can take its place.

    Args:
        network: is changed while this runs.
        images: one that it takes.
        product: the last of the pass.
        classes: how many logits it gives.
        read: finds the logits `[1, K]` in what it returns.
    """
    width = _width(product)
    if not _has_size(network, product, width * classes):
        return None
    for place in _places(network, product):
        found = _tried(network, place, images, product, (width, classes), read)
        if found is not None:
            return found
    return None


def may_be_head(network: nn.Module, product: Product, classes: int) -> bool:
    """Whether a product gives numbers like logits: of vectors, or by a 1 × 1 convolution."""
    if product.features.ndim == 4:
        return _has_size(network, product, _width(product) * classes)
    return product.features.ndim == 2


def names_of(network: nn.Module, product: Product) -> str:
    """The parameters of a product in words, for messages."""
    names = [
        repr(name) for name, each in network.named_parameters() if id(each) in product.parameters
    ]
    return ", ".join(names)


def _width(product: Product) -> int:
    features = product.features
    return features.shape[1] if features.ndim == 4 else features.numel()


def _has_size(network: nn.Module, product: Product, size: int) -> bool:
    """Whether one of the parameters of a product has so many numbers."""
    own = (each for each in network.parameters() if id(each) in product.parameters)
    return any(each.numel() == size for each in own)


def _places(network: nn.Module, product: Product) -> Iterator[str]:
    """The modules that have the weights of a product, each before those around it."""
    seen = {""}
    # A module may go by two names, of which the network reads one.
    for name, module in network.named_modules(remove_duplicate=False):
        if any(id(each) in product.parameters for each in module.parameters(recurse=False)):
            place = f"{name}.".partition(_INSIDE)[0].rstrip(".")
            while place not in seen:
                seen.add(place)
                yield place
                place = place.rpartition(".")[0]


def _tried(
    network: nn.Module,
    place: str,
    images: torch.Tensor,
    product: Product,
    sizes: tuple[int, int],
    read: Callable[[Any], torch.Tensor],
) -> FunctionalHead | None:
    """What a pass with a linear layer in this place tells about it."""
    # One class more, so that code that goes by the old number is noticed here and not in training.
    layer = _random_layer(sizes[0], sizes[1] + 1, images.device)
    entered: list[torch.Tensor | None] = []
    layer.register_forward_pre_hook(lambda _, given: entered.append(first_tensor(given)))
    around, _, last = place.rpartition(".")
    parent = network.get_submodule(around)
    old = getattr(parent, last)
    try:
        setattr(parent, last, layer)
        with borrowed(network), LastProduct(network) as seen:
            logits = read(call(network, images))
    except REFUSALS as error:
        if passes_through(error):
            raise
        return None
    finally:
        setattr(parent, last, old)
    features: torch.Tensor | None = None
    if len(entered) == 1:
        features = entered[0]
    elif not entered and seen.found is not None:
        features = seen.found.features
        # Weights that are used earlier as well cannot be replaced without changing the features.
        if features.shape != product.features.shape or not _close(features, product.features):
            return None
        features = features.mean((2, 3)) if features.ndim == 4 else features.reshape(1, -1)
    if features is None or features.shape != (1, sizes[0]) or logits.shape != (1, sizes[1] + 1):
        return None
    plain = features @ layer.weight.T
    for biased in (True, False):
        if _close(logits, plain + layer.bias if biased else plain):
            return FunctionalHead(place, sizes[0], bool(entered), biased)
    return None


def _random_layer(features: int, classes: int, device: torch.device) -> nn.Linear:
    """A linear layer with numbers of our own: new heads are drawn from torch's generator."""
    layer = nn.Linear(features, classes, dtype=torch.float32, device="meta")
    layer = layer.to_empty(device=device).requires_grad_(False)
    generator = torch.Generator(device="cpu").manual_seed(0)
    for each in layer.parameters():
        numbers = torch.randn(each.shape, generator=generator, dtype=torch.float32, device="cpu")
        each.copy_(numbers)
    return layer


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-4, atol=1e-4)
