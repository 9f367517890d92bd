"""Runs a model that belongs to someone else: seen from outside, nothing about it changes.

Evaluation mode, hooks and gradient mode are put back after every call, also after one that raised.
Calls from several threads do not see each other: a hook acts for the thread that set it only, and
the training mode is restored by the last of the calls that overlap.
"""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from pyxai._errors import argument_error, closest, describe

_STATE = "last_hidden_state"


@dataclass
class _Loan:
    """The modules of one model that were in training mode when the first call borrowed it."""

    calls: int = 0
    training: list[nn.Module] = field(default_factory=list)


_loans: weakref.WeakKeyDictionary[nn.Module, _Loan] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def _in_training(model: nn.Module) -> list[nn.Module]:
    """The modules that are in training mode; some several times, if they are used several times.

    For each call, so without `model.modules()`, which takes five times as long.
    """
    if isinstance(model, torch.jit.ScriptModule):
        return [module for module in model.modules() if module.training]
    found, left = [], [model]
    while left:
        module = left.pop()
        if module.training:
            found.append(module)
        left.extend(child for child in module._modules.values() if child is not None)
    return found


@contextmanager
def borrowed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, no inference tensors; all of it restored at the end."""
    with _lock:
        loan = _loans.setdefault(model, _Loan())
        loan.calls += 1
        if loan.calls == 1:
            loan.training = _in_training(model)
            for module in loan.training:
                module.training = False
    try:
        # Inference tensors could not be differentiated later, in the head.
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        with _lock:
            loan.calls -= 1
            if loan.calls == 0:
                for module in loan.training:
                    module.training = True
                del _loans[model]


def unwrap(model: nn.Module) -> nn.Module:
    """The network inside torch.compile and DataParallel, whose own layers can be observed."""
    while not isinstance(model, torch.jit.ScriptModule):
        parallel = isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel))
        inner = model._modules.get("module" if parallel else "_orig_mod")
        if inner is None:
            break
        model = inner
    return model


def call(model: nn.Module, images: torch.Tensor) -> Any:
    """Calls the model; where torch rejects the input, says what the model expects.

    Raises:
        ValueError: the input has another number of channels or another dtype than the model.
    """
    try:
        return model(images)
    except RuntimeError as error:
        parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
        if (
            parameter is not None
            and parameter.dtype != images.dtype
            and not torch.is_autocast_enabled(images.device.type)
        ):
            name = str(parameter.dtype).removeprefix("torch.")
            raise argument_error("images", f"dtype {name}, the model's", images) from error
        first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
        if first is not None and images.ndim == 4 and images.shape[1] != first.in_channels:
            expected = f"a tensor [N, {first.in_channels}, H, W]"
            raise argument_error("images", expected, images) from error
        raise


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The submodule of that dotted name.

    Raises:
        ValueError: there is none; the message has the closest names.
    """
    try:
        if name:
            return model.get_submodule(name)
    except AttributeError:
        pass
    hint = closest(name, (known for known, _ in model.named_modules() if known))
    raise ValueError(
        f"layer: expected the name of a submodule of {type(model).__name__}, got {name!r}{hint}"
    )


class _Stopped(BaseException):
    """Ends a forward pass after the last layer asked for; models cannot catch it by accident."""


@dataclass
class Recording:
    """What a forward pass gave.

    Attributes:
        output: what the model returned, None if it was stopped early.
        layers: the output of each layer asked for. With `differentiate`, `torch.autograd.grad` of
            the output with respect to these works; otherwise they carry no graph.
    """

    output: Any
    layers: dict[str, torch.Tensor]


def record(
    model: nn.Module,
    images: torch.Tensor,
    layers: Sequence[str],
    *,
    differentiate: bool = False,
    stop: bool = False,
    replace: Mapping[str, torch.Tensor] | None = None,
    absent: bool = False,
) -> Recording:
    """Runs the model and keeps the outputs of some layers; call it inside `borrowed`.

    A model of `pyxai.accelerate(graphs=True)` replays a recorded pass, unless gradients or
    replaced layers are asked for.

    Args:
        model: an unwrapped model.
        images: its input.
        layers: names of submodules. One that runs several times gives its last output.
        differentiate: build the graph from the first of these layers on, and nowhere before it.
        stop: end the pass once each layer has run.
        replace: layers whose output is another one from here on.
        absent: layers that do not run are left out instead of an error.

    Raises:
        ValueError: a layer does not exist, did not run, or gave no tensor.
    """
    modules = {name: find_layer(model, name) for name in layers}
    for name, module in modules.items():
        if isinstance(module, torch.jit.ScriptModule):
            raise argument_error("layer", "a layer outside TorchScript, which hides its own", name)

    def run(images: torch.Tensor) -> tuple[Any, dict[str, torch.Tensor]]:
        return _run_watched(model, images, modules, differentiate, stop, replace)

    replays = model.__dict__.get("_replays")
    if replays is None or differentiate or replace:
        output, found = run(images)
    else:
        output, found = replays(model, ("record", *layers, stop), run, images)
    for name in layers:
        if name not in found and not absent:
            raise argument_error(
                "layer", "a layer that runs when the model is called", f"{name} (it did not run)"
            )
    return Recording(output, found)


def _run_watched(
    model: nn.Module,
    images: torch.Tensor,
    modules: Mapping[str, nn.Module],
    differentiate: bool,
    stop: bool,
    replace: Mapping[str, torch.Tensor] | None,
) -> tuple[Any, dict[str, torch.Tensor]]:
    """What the model returned (None if stopped) and what the modules gave, by hooks."""
    owner = threading.get_ident()
    found: dict[str, torch.Tensor] = {}

    def keep(name: str, output: Any) -> Any:
        tensor = first_tensor(output)
        if tensor is None:
            expected = "a module whose output is a tensor"
            raise ValueError(f"layer {name!r}: expected {expected}, got {describe(output)}")
        if replace and name in replace:
            found[name] = replace[name].to(tensor)
            return with_first(output, found[name].clone())
        if differentiate and tensor.is_floating_point():
            if not tensor.requires_grad:
                tensor = tensor.detach().requires_grad_()
            torch.set_grad_enabled(True)  # until the pass ends
        found[name] = tensor
        if stop and len(found) == len(modules):
            raise _Stopped
        # The model goes on with a copy: a later in-place operation must not reach what was kept.
        return with_first(output, tensor.clone())

    def hook_for(name: str) -> Any:
        def hook(module: nn.Module, arguments: Any, output: Any) -> Any:
            return keep(name, output) if threading.get_ident() == owner else None

        return hook

    handles = []
    grad_enabled = torch.is_grad_enabled()
    try:
        with _lock:
            for name, module in modules.items():
                handles.append(module.register_forward_hook(hook_for(name)))
        output = call(model, images)
    except _Stopped:
        output = None
    finally:
        torch.set_grad_enabled(grad_enabled)
        with _lock:
            for handle in handles:
                handle.remove()
    return output, found


def first_tensor(output: Any) -> torch.Tensor | None:
    """The tensor that a layer's output is about, None if there is none.

    The output itself; the first element of a tuple or list; of a dictionary or an object, what it
    calls `last_hidden_state` (as Hugging Face does), else a dictionary's first value.
    """
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    elif isinstance(output, Mapping) and output:
        output = output[_main_key(output)]
    elif hasattr(output, _STATE):
        output = getattr(output, _STATE)
    return output if isinstance(output, torch.Tensor) else None


def with_first(output: Any, tensor: torch.Tensor) -> Any:
    """The same output with another tensor in the place of `first_tensor`; `output` stays as is."""
    if isinstance(output, torch.Tensor):
        return tensor
    if hasattr(output, "_replace"):  # a named tuple
        return output._replace(**{output._fields[0]: tensor})
    if isinstance(output, (tuple, list)):
        return type(output)((tensor, *output[1:]))
    changed = copy.copy(output)
    if isinstance(changed, MutableMapping):
        changed[_main_key(output)] = tensor
    else:
        setattr(changed, _STATE, tensor)
    return changed


def _main_key(output: Mapping[Any, Any]) -> Any:
    return _STATE if _STATE in output else next(iter(output))
