"""A copy of a model that computes the same function faster."""

from __future__ import annotations

import copy
from typing import Any, overload

import torch
from torch import nn

from pyxai._errors import REFUSALS, argument_error, describe, passes_through
from pyxai.acceleration.casting import CastInputs, CastOutputs, tensors_in
from pyxai.acceleration.convolution import FastConv2d
from pyxai.acceleration.folding import Usage, fold_norms, observe
from pyxai.acceleration.fusion import fuse, settle
from pyxai.acceleration.graphs import Graphed
from pyxai.acceleration.tracing import TraceError, trace
from pyxai.classifier import Classifier, as_classifier, typical_input_shape
from pyxai.classifier.borrow import borrowed, call, unwrap
from pyxai.classifier.odd_models import check_model, check_numbers
from pyxai.images import Preprocessing

__all__ = ["accelerate"]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@overload
def accelerate(
    model: Classifier,
    *,
    dtype: torch.dtype | None = None,
    channels_last: bool = True,
    compile: bool = False,
    graphs: bool = False,
    probe: torch.Tensor | None = None,
    tolerance: float | None = None,
) -> Classifier: ...


@overload
def accelerate(
    model: nn.Module,
    *,
    dtype: torch.dtype | None = None,
    channels_last: bool = True,
    compile: bool = False,
    graphs: bool = False,
    probe: torch.Tensor | None = None,
    tolerance: float | None = None,
) -> nn.Module: ...


def accelerate(
    model: nn.Module | Classifier,
    *,
    dtype: torch.dtype | None = None,
    channels_last: bool = True,
    compile: bool = False,
    graphs: bool = False,
    probe: torch.Tensor | None = None,
    tolerance: float | None = None,
) -> nn.Module | Classifier:
    """A frozen copy of a model that computes the same function faster.

    Batch norms are folded into the layer before them. On the CPU, convolutions keep their weights
    in oneDNN's own order, and compute the activation and the addition of a shortcut that follow.
    Layers keep their names, so `layer="layer4.1"` means the same; only a convolution into which a
    norm was folded gives what the norm gave. Hooks on any layer see what they would in the plain
    model: a module whose inner layers are looked at runs them one by one. docs/acceleration.md has
    the measured gains, the cost in memory and the limits.

    Args:
        model: an `nn.Module` or a `Classifier`. It stays as it is: the copy shares nothing with it
            but what its code shares. torch.compile and DataParallel are taken off. The copy has
            none of its forward and backward hooks.
        dtype: float32, bfloat16 or float16 for weights and activations; None keeps those of the
            model. With a dtype, callers still pass float32 images and get float32 outputs.
        channels_last: lays out weights and images with the channels last, which is faster for
            convolutions nearly everywhere.
        compile: return the copy in `torch.compile`, which compiles at the first call.
            `pyxai.cam` needs the layers and so runs the copy inside, uncompiled.
        graphs: record calls on a CUDA device as CUDA graphs, one for each shape of images that
            comes twice (the last four are kept), and replay them: for small batches, where the
            host takes longer than the device. `pyxai.cam` replays too where it needs no gradients.
            Calls that cannot be replayed run as usual, so does everything on the CPU;
            docs/cuda.md says which. Not together with `compile`.
        probe: images `[N, C, H, W]` to check the copy with; by default two of noise, of the size
            that the preprocessing makes, or 224 x 224.
        tolerance: how far outputs on the probe may lie from the model's, as a share of the largest
            one; by default 1e-3, and 5e-2 for half precision.

    Returns:
        The same kind as given, in evaluation mode, no parameter of which needs a gradient. It can
        be copied, pickled (where the model can), moved, and used by several threads.

    Raises:
        ValueError: an argument does not fit; the model is TorchScript, cannot be copied or does not
            run on the probe; or the copy's outputs are too far from the model's.
    """
    network = _network_of(model)
    check_numbers(network)
    if dtype is not None and dtype not in _DTYPES:
        raise argument_error("dtype", "torch.float32, bfloat16, float16 or None", dtype)
    if tolerance is not None and not tolerance >= 0:
        raise argument_error("tolerance", "a number of at least 0", tolerance)
    if compile and graphs:
        raise ValueError(
            "graphs: expected False with compile=True, got True (torch.compile has graphs of its "
            'own: torch.compile(model, mode="reduce-overhead"))'
        )
    # Tensors made in inference mode could never be differentiated, as heads are by Grad-CAM.
    with torch.inference_mode(False), torch.no_grad():
        images = _images_for(network, probe, as_classifier(model).preprocessing)
        expected = _expected(network, images)
        fast = _frozen_copy(network)
        found, usage = _observe(fast, images)
        if not _are_close(expected, found):  # a hook makes what the network returns
            fast = _frozen_copy(network, hooks=True)
            _, usage = _observe(fast, images)
        _rebuild(fast, usage)
        if dtype is not None:
            fast.to(dtype)
            fast.register_forward_pre_hook(CastInputs(dtype, channels_last), with_kwargs=True)
            fast.register_forward_hook(CastOutputs())
        _settle(fast, images, channels_last)
        _compare(expected, fast(images.clone()), dtype or images.dtype, tolerance)
    result: Any = torch.compile(fast) if compile else Graphed(fast) if graphs else fast
    if isinstance(model, Classifier):
        return Classifier(
            result,
            class_names=model.class_names,
            preprocessing=model.preprocessing,
            output=model.output,
            name=model.name,
        )
    module: nn.Module = result
    return module


def _network_of(model: nn.Module | Classifier) -> nn.Module:
    """The module with the layers.

    Raises:
        ValueError: it is no module, or has TorchScript in it.
    """
    given = model.model if isinstance(model, Classifier) else model
    network = unwrap(check_model(given))
    scripted = next((m for m in network.modules() if isinstance(m, torch.jit.ScriptModule)), None)
    if scripted is not None:
        raise argument_error(
            "model",
            "a module in Python (TorchScript hides its layers; torch.jit.freeze optimises it)",
            scripted,
        )
    return network


def _settle(fast: nn.Module, images: torch.Tensor, channels_last: bool) -> None:
    """Lays out the weights and checks the fused modules, by a call.

    Networks that flatten by `view` do not take channels last; then layers give what they gave.
    """
    plans = [module.__dict__.get("_plan") for module in fast.modules()]
    if channels_last:
        _lay_out(fast, torch.channels_last)
    for plan in plans:
        if plan is not None:
            plan.checking = True
    try:
        fast(images.clone())
    except RuntimeError as error:
        if passes_through(error):
            raise
        _lay_out(fast, torch.contiguous_format)
        for module in fast.modules():
            if isinstance(module, FastConv2d):
                module.contiguous_output = True
        fast(images.clone())
    settle(fast)


def _frozen_copy(network: nn.Module, *, hooks: bool = False) -> nn.Module:
    """A deep copy in evaluation mode, without gradients; hooks that look on only if asked for."""
    try:
        fast = copy.deepcopy(network)
    except REFUSALS as error:
        if passes_through(error):
            raise
        raise ValueError(
            f"model: expected a module that copy.deepcopy can copy, got {describe(network)}: "
            f"{type(error).__name__}: {error}"
        ) from error
    fast.__dict__.pop("_replays", None)  # of a copy made with graphs=True
    fast.eval().requires_grad_(False)
    for parameter in fast.parameters():
        parameter.grad = None
    for module in () if hooks else fast.modules():
        # They belong to those who watch the model. Pre-hooks stay: some compute weights.
        module._forward_hooks.clear()
        module._forward_hooks_with_kwargs.clear()
        module._forward_hooks_always_called.clear()
        module._backward_hooks.clear()
        module._backward_pre_hooks.clear()
    return fast


def _images_for(
    network: nn.Module, probe: torch.Tensor | None, preprocessing: Preprocessing | None
) -> torch.Tensor:
    """The probe in the model's dtype and on its device; noise where none was given."""
    like = next(
        (p for p in network.parameters() if p.is_floating_point()),
        torch.empty(0, dtype=torch.float32, device="cpu"),
    )
    if probe is not None:
        is_batch = isinstance(probe, torch.Tensor) and probe.is_floating_point()
        if not is_batch or probe.ndim != 4 or 0 in probe.shape:
            raise argument_error("probe", "a float tensor [N, C, H, W], not empty", probe)
        return probe.detach().to(like)
    # A generator of our own: the global random state belongs to the user.
    generator = torch.Generator(device="cpu").manual_seed(0)
    shape = typical_input_shape(network, preprocessing)
    return torch.randn(2, *shape, generator=generator, dtype=torch.float32, device="cpu").to(like)


def _expected(network: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """The outputs of the network itself for the probe.

    Raises:
        ValueError: the model does not run on it, or returns nothing to compare.
    """
    try:
        with borrowed(network):
            output = call(network, images)
    except REFUSALS as error:
        if passes_through(error):
            raise
        raise ValueError(
            f"probe: expected images that the model runs on, got {describe(images)} "
            f"({type(error).__name__}: {error}); pass probe= with images that it takes"
        ) from error
    expected = [tensor.clone() for tensor in tensors_in(output)]
    if not expected:
        raise argument_error("model", "to return floating tensors", output)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in expected):
        raise ValueError(
            f"probe: expected images with finite outputs, got NaN or infinity for "
            f"{describe(images)}; pass probe= with typical images"
        )
    return expected


def _observe(network: nn.Module, images: torch.Tensor) -> tuple[list[torch.Tensor], Usage]:
    """The outputs of the copy for the probe, and how the modules were used."""
    output, usage = observe(network, images.clone())
    return [tensor.clone() for tensor in tensors_in(output)], usage


def _are_close(expected: list[torch.Tensor], found: list[torch.Tensor]) -> bool:
    return len(expected) == len(found) and all(
        one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=1e-4)
        for one, other in zip(expected, found, strict=True)
    )


def _rebuild(network: nn.Module, usage: Usage) -> None:
    """Folds, replaces the convolutions, and fuses, from the inside out."""
    containers = [m for m in network.modules() if m._modules and usage.calls[m]]
    containers = [m for m in containers if "forward" not in vars(m)]
    for container in reversed(containers):
        try:
            graph = trace(container, type(container))
        except TraceError:
            continue
        fold_norms(container, graph, usage)
    for module in network.modules():
        # Derived classes compute something else; hooks before may compute the weights.
        plain = type(module) is nn.Conv2d and not module._forward_pre_hooks
        if plain and module._parameters.get("weight") is not None:
            module.__class__ = FastConv2d
    for container in reversed(containers):
        fuse(container)


def _lay_out(network: nn.Module, layout: torch.memory_format) -> None:
    for module in network.modules():
        if isinstance(module, FastConv2d):
            module.forget_packed()
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=layout)


def _compare(
    expected: list[torch.Tensor], output: Any, dtype: torch.dtype, tolerance: float | None
) -> None:
    """Refuses outputs that lie too far from the model's.

    Raises:
        ValueError: saying how far, and what to do.
    """
    allowed = tolerance
    if allowed is None:
        allowed = 5e-2 if dtype in (torch.bfloat16, torch.float16) else 1e-3
    found = tensors_in(output)
    if [t.shape for t in found] != [t.shape for t in expected]:
        raise ValueError("model: expected a copy with outputs of the same shapes, got others")
    for before, after in zip(expected, found, strict=True):
        if before.numel() == 0:
            continue
        largest = float(before.abs().max())
        gap = float((after.to(before.dtype) - before).abs().max())
        if not gap <= allowed * largest:  # also where the gap is NaN
            share = gap / largest if largest else float("inf")
            raise ValueError(
                f"tolerance: expected outputs within {allowed:g} of the largest on the probe, got "
                f"{share:.2g} (a gap of {gap:.3g}, largest {largest:.3g}): allow more, pass a "
                "probe of typical images, or choose a dtype of higher precision"
            )
