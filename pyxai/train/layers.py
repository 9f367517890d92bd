"""Which layers of a network are trained, where its head is, and a new head in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.nn.utils import parametrize

from pyxai._errors import argument_error
from pyxai.classifier.borrow import borrowed, call
from pyxai.classifier.nested import first_tensor
from pyxai.classifier.points import find_layer, version_of
from pyxai.classifier.reading import Reading
from pyxai.classifier.survey import WITH_WEIGHTS, watching
from pyxai.train.functional_head import (
    LastProduct,
    Product,
    find_functional_head,
    is_of,
    may_be_head,
    names_of,
)
from pyxai.zoo.head import HeadKind, HeadSpec, MlpHead, put_head, vectors

Unfreeze: TypeAlias = str | int | Sequence[str]
"""What is trained beside the head; see `pyxai.fine_tune`."""

_FROM = "from "


@dataclass(frozen=True)
class Anatomy:
    """What a network is made of, as far as training cares.

    Attributes:
        layers: names of the layers with weights of their own, in the order in which they run; the
            head's are among them.
        head: name of the module that gives the logits; None for a network without one.
        features: how many enter the head, or leave a network without one.
        classes: how many logits the head gives, 0 without.
        convolutional: whether the head is a convolution whose maps are pooled afterwards.
        called: whether the head is called; else the network reads its weights.
        biased: whether its bias is added.
        doubt: a warning where what is taken for features may be logits, else "".
    """

    layers: tuple[str, ...]
    head: str | None
    features: int
    classes: int
    convolutional: bool = False
    called: bool = True
    biased: bool = True
    doubt: str = ""


def anatomy_of(
    network: nn.Module, size: tuple[int, ...], reading: Reading | None = None
) -> Anatomy:
    """Runs a network on noise of a size (height, width), and says what it is made of.

    The head is the last layer with weights that runs, if it is linear and gives what the network
    returns, or a 1 × 1 convolution with a bias whose maps (or their positive part) have what the
    network returns as their means. Or it is what holds the weights of the last product, if a linear
    layer can take its place; see `pyxai.train.functional_head`.
    Any other network that returns vectors or maps has none.

    Raises:
        ValueError: it returns neither vectors nor maps, or changes what its last linear layer gives
            into as many other numbers.
    """
    reading, names = reading or Reading(), list[str]()
    last: list[tuple[str, nn.Module, torch.Tensor | None]] = []
    vector_layers: list[tuple[str, nn.Module, torch.Tensor, int]] = []
    inside: list[Product | None] = [None]  # the last product when that layer ended

    def watch(name: str, module: nn.Module, output: Any) -> None:
        own = next(module.parameters(recurse=False), None) is not None
        if ".parametrizations." in f".{name}.":
            return  # these make weights
        if own or parametrize.is_parametrized(module):
            last[:] = [(name, module, first_tensor(output))]
            vector = first_tensor(output)
            if isinstance(module, nn.Linear) and vector is not None and vector.ndim == 2:
                vector_layers.append((name, module, vector, version_of(vector)))
            if name not in names:
                names.append(name)
            if seen.found is not None and not is_of(seen.found, module):
                seen.found = None
            inside[:] = [seen.found]

    generator = torch.Generator(device="cpu").manual_seed(0)
    images = torch.randn(1, 3, *size, generator=generator, dtype=torch.float32, device="cpu").to(
        next(network.parameters()).device
    )
    seen = LastProduct(network)
    with borrowed(network), watching(network, watch), seen:
        output = _main_output(call(network, images), reading)
    product, found = seen.found, None
    for name, module, vector, version in vector_layers:  # after the head, a decoder may run
        if vector is output and version_of(vector) == version:
            found = _layer_head(network, tuple(names), (name, module, vector), output)
    if found is None and last and product is inside[0]:
        found = _layer_head(network, tuple(names), last[0], output)
        if isinstance(last[0][1], WITH_WEIGHTS):
            product = None  # a layer of torch that gives features
    if found is not None:
        return found
    without = Anatomy(tuple(names), None, vectors(output).shape[1], 0)
    return _other_head(network, images, without, product, reading)


def _layer_head(
    network: nn.Module,
    layers: tuple[str, ...],
    last: tuple[str, nn.Module, torch.Tensor | None],
    output: Any,
) -> Anatomy | None:
    """The head, if that is the last layer, given what the network returned."""
    (name, module, given), features = last, vectors(output)
    count = features.shape[1]
    if isinstance(module, nn.Linear) and given is not None and given.numel() == count:
        if not torch.allclose(given.reshape(1, count), features):
            expected = f"a network that returns what its last layer {name!r} gives"
            raise argument_error("model", expected, "other numbers, such as probabilities")
        parent = name.rpartition(".")[0]
        around = network.get_submodule(parent)
        if isinstance(around, MlpHead):
            return Anatomy(layers, parent, around.features, count)
        return Anatomy(layers, name, module.in_features, count)
    if (
        isinstance(module, nn.Conv2d)
        and (module.kernel_size, module.out_channels) == ((1, 1), count)
        and module.bias is not None
        and given is not None
        and output.ndim == 2  # pooled: not maps, which a network without a head may return
        and any(torch.allclose(each.mean((2, 3)), features) for each in (given, given.relu()))
    ):
        return Anatomy(layers, name, module.in_channels, count, convolutional=True)
    return None


def _other_head(
    network: nn.Module,
    images: torch.Tensor,
    without: Anatomy,
    product: Product | None,
    reading: Reading,
) -> Anatomy:
    """A head that is no layer of torch; else the anatomy without a head, perhaps with a doubt."""
    layers, count = without.layers, without.features
    if product is not None:
        some = replace(reading, classes=None)
        found = find_functional_head(
            network, images, product, count, lambda said: vectors(_main_output(said, some))
        )
        if found is not None:
            layers = layers if found.place in layers else (*layers, found.place)
            head = Anatomy(layers, found.place, found.features, count)
            return replace(head, called=found.called, biased=found.biased)
    last = None
    if product is not None and may_be_head(network, product, count):
        last = f"{product.function} with {names_of(network, product)}"
    if last is None and reading.classes != count:
        return without  # features, as far as one can tell
    doubt = (
        f"model: no head was found that can be replaced ({last or 'no linear layer'} comes last), "
        f"so a new one is trained behind the {count} numbers that the network returns. That is "
        "right if these are features; if they are logits, have them made by a layer: "
        "self.fc = nn.Linear(features, classes) and self.fc(x) at the end of forward"
    )
    return replace(without, doubt=doubt)


def _main_output(output: Any, reading: Reading) -> Any:
    """The logits where the network returns some, else the tensor that its output is about."""
    try:
        return reading.logits(output, 1)
    except ValueError:
        return output if first_tensor(output) is None else first_tensor(output)


def with_head(
    network: nn.Module, anatomy: Anatomy, kind: HeadKind, hidden: int, classes: int, *, keep: bool
) -> tuple[nn.Module, str]:
    """A network with a head for so many classes: its own, if that is one and may be kept.

    Args:
        network: what it is put on, in place.
        anatomy: of the network.
        kind: of head.
        hidden: width of the hidden layer of an "mlp".
        classes: how many logits it is to give.
        keep: whether a head of this kind and these sizes may stay.

    Returns:
        The network, perhaps with a module around it, and the name of its head.

    Raises:
        ValueError: an "mlp" for a network that does not call its head.
    """
    place, removed = anatomy.head, tuple[str, ...]()
    if place is not None:
        old = find_layer(network, place)
        width = old.width if isinstance(old, MlpHead) else None
        same_kind = width == (hidden if kind == "mlp" else None)
        if keep and same_kind and anatomy.classes == classes:
            return network, place
        if anatomy.convolutional:
            removed, place = (place,), None
    if kind == "mlp" and not anatomy.called:
        got = f"'mlp' for one that reads the weights of {place!r}; call it: self.{place}(x)"
        raise ValueError(f"head: expected 'linear', or a network that calls its head, got {got}")
    wide = hidden if kind == "mlp" else None
    spec = HeadSpec(kind, place, anatomy.features, classes, wide, removed)
    network = put_head(network, spec)
    if not anatomy.biased:  # a bias that the network does not read is none
        nn.init.zeros_(network.get_parameter(f"{place}.bias"))
    return network, "head" if place is None else place


def chosen_modules(
    network: nn.Module, unfreeze: Unfreeze, anatomy: Anatomy
) -> list[nn.Module] | None:
    """The modules that are trained beside the head; None for all there are.

    Raises:
        ValueError: `unfreeze` is of another kind or names a layer that does not exist.
    """
    layers = anatomy.layers
    if unfreeze == "all":
        return None
    if unfreeze == "head":
        return []
    if isinstance(unfreeze, int) and not isinstance(unfreeze, bool) and unfreeze >= 1:
        head = anatomy.head
        before = [
            each for each in layers if each != head and not (head and each.startswith(f"{head}."))
        ]
        return [find_layer(network, name) for name in before[max(0, len(before) - unfreeze + 1) :]]
    if isinstance(unfreeze, str) and unfreeze.startswith(_FROM):
        first = unfreeze.removeprefix(_FROM)
        find_layer(network, first)
        places = [
            place
            for place, name in enumerate(layers)
            if name == first or name.startswith(f"{first}.")
        ]
        if not places:
            raise argument_error("unfreeze", "a layer with weights that runs", unfreeze)
        return [find_layer(network, name) for name in layers[places[0] :]]
    if isinstance(unfreeze, str):
        return [find_layer(network, unfreeze)]
    if isinstance(unfreeze, Sequence) and all(isinstance(each, str) for each in unfreeze):
        return [find_layer(network, name) for name in unfreeze]
    expected = "'head', 'all', a number of layers of at least 1, 'from LAYER', or names of layers"
    raise argument_error("unfreeze", expected, unfreeze)


def unfreeze_layers(network: nn.Module, modules: Sequence[nn.Module] | None, head: str) -> None:
    """Lets gradients reach the weights of these modules and of the head, and no others."""
    network.requires_grad_(False)
    for module in (network,) if modules is None else (*modules, find_layer(network, head)):
        for parameter in module.parameters():
            if parameter.is_floating_point():
                parameter.requires_grad_()


def training_mode(module: nn.Module) -> None:
    """Training mode for modules of which every weight is trained, evaluation mode for all others.

    So batch norms that are frozen keep their statistics, and no dropout changes frozen features.
    """
    module.eval()
    parameters = [*module.parameters()]
    if parameters and all(each.requires_grad for each in parameters):
        module.train()
        return
    for child in module.children():
        training_mode(child)
