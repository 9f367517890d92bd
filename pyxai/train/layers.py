"""Which layers of a network are trained: its head, the last few, some by name, or all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import nn

from pyxai._errors import argument_error
from pyxai.classifier.borrow import borrowed, call, find_layer
from pyxai.classifier.outputs import logits_of
from pyxai.classifier.survey import watching

Unfreeze: TypeAlias = str | int | Sequence[str]
"""What is trained beside the head; see `pyxai.fine_tune`."""


def layers_in_order(network: nn.Module, images: torch.Tensor) -> tuple[list[str], str]:
    """The layers with weights of their own, in the order in which they run, and the linear head.

    Raises:
        ValueError: no linear layer gives the logits.
    """
    names: list[str] = []
    heads: list[str] = []

    def watch(name: str, module: nn.Module, output: Any) -> None:
        if next(module.parameters(recurse=False), None) is not None and name not in names:
            names.append(name)
        if isinstance(module, nn.Linear):
            heads.append(name)

    with borrowed(network), watching(network, watch):
        logits = logits_of(call(network, images))
    if not heads or find_layer(network, heads[-1]).out_features != logits.shape[1]:
        expected = "a network whose logits come from a torch.nn.Linear"
        raise argument_error("model", expected, heads[-1] if heads else "none")
    return names, heads[-1]


def replace_head(network: nn.Module, name: str, classes: int) -> None:
    """Puts a new linear layer for so many classes in the place of the head."""
    old = find_layer(network, name)
    assert isinstance(old, nn.Linear)
    new = nn.Linear(old.in_features, classes, device=old.weight.device, dtype=old.weight.dtype)
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, new)


def unfreeze_layers(
    network: nn.Module, unfreeze: Unfreeze, names: Sequence[str], head: str
) -> None:
    """Lets gradients reach the weights that are to be trained, and no others.

    Raises:
        ValueError: `unfreeze` is of another kind or names a layer that does not exist.
    """
    modules: list[nn.Module]
    if unfreeze == "all":
        modules = [network]
    elif unfreeze == "head":
        modules = []
    elif isinstance(unfreeze, int) and not isinstance(unfreeze, bool) and unfreeze >= 1:
        modules = [find_layer(network, name) for name in names[-unfreeze:]]
    elif isinstance(unfreeze, str):
        modules = [find_layer(network, unfreeze)]
    elif isinstance(unfreeze, Sequence) and all(isinstance(each, str) for each in unfreeze):
        modules = [find_layer(network, name) for name in unfreeze]
    else:
        expected = "'head', 'all', a number of layers of at least 1, or names of layers"
        raise argument_error("unfreeze", expected, unfreeze)
    network.requires_grad_(False)
    for module in (*modules, find_layer(network, head)):
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
