"""Which layers of a network are trained, where its head is, and a new head in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn

from pyxai._errors import argument_error
from pyxai.classifier.borrow import borrowed, call
from pyxai.classifier.nested import first_tensor
from pyxai.classifier.points import find_layer
from pyxai.classifier.reading import Reading
from pyxai.classifier.survey import watching
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
    """

    layers: tuple[str, ...]
    head: str | None
    features: int
    classes: int
    convolutional: bool = False


def anatomy_of(
    network: nn.Module, size: tuple[int, ...], reading: Reading | None = None
) -> Anatomy:
    """Runs a network once on noise of a size (height, width), and says what it is made of.

    The head is the last layer with weights that runs, if it is linear and gives what the network
    returns, or a 1 × 1 convolution with a bias whose maps (or their positive part) have what the
    network returns as their means.
    Any other network that returns vectors or maps has none.

    Raises:
        ValueError: it returns neither vectors nor maps, or changes what its last linear layer gives
            into as many other numbers.
    """
    names: list[str] = []
    last: list[tuple[str, nn.Module, torch.Tensor | None]] = []

    def watch(name: str, module: nn.Module, output: Any) -> None:
        if next(module.parameters(recurse=False), None) is not None:
            last[:] = [(name, module, first_tensor(output))]
            if name not in names:
                names.append(name)

    generator = torch.Generator(device="cpu").manual_seed(0)
    images = torch.randn(1, 3, *size, generator=generator, dtype=torch.float32, device="cpu").to(
        next(network.parameters()).device
    )
    with borrowed(network), watching(network, watch):
        output = _main_output(call(network, images), reading or Reading())
    features, layers = vectors(output), tuple(names)
    count = features.shape[1]
    name, module, given = last[0] if last else ("", None, None)
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
    return Anatomy(layers, None, count, 0)


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
    wide = hidden if kind == "mlp" else None
    spec = HeadSpec(kind, place, anatomy.features, classes, wide, removed)
    return put_head(network, spec), "head" if place is None else place


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
