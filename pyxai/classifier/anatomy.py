"""What a network is made of, found by running it: its last spatial layer and the kind of its head.

Found once for a model and kept as long as the model lives, without keeping it alive.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pyxai.classifier.borrow import borrowed, call, find_layer, first_tensor, record
from pyxai.classifier.outputs import logits_of
from pyxai.ops import cam_project

_POOLING = (
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.AvgPool2d,
    nn.MaxPool2d,
    nn.LPPool2d,
)


@dataclass(frozen=True)
class LinearHead:
    """Global average pooling and one linear layer: logits = weight · mean(features) + bias.

    Attributes:
        weight: `[K, C]` float32.
        bias: `[K]` float32.
    """

    weight: torch.Tensor
    bias: torch.Tensor


@dataclass(frozen=True)
class _Anatomy:
    layer: str | None
    why_not: str
    # A later layer gave a single position, so that a larger input may have a later spatial layer.
    shrunk: bool
    size: tuple[int, ...]
    linear: dict[str, str | None]  # the name of the linear head after a layer, None if none


_known: weakref.WeakKeyDictionary[nn.Module, _Anatomy] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def last_spatial_layer(model: nn.Module, images: torch.Tensor) -> str:
    """The name of the last layer whose output is `[N, C, h, w]` with more than one position.

    Pooling layers do not count: the layer before them sees more.

    Raises:
        ValueError: there is none, or the network goes on with tokens after it.
    """
    found = _anatomy(model, images)
    if found.layer is None:
        raise ValueError(f"layer: {found.why_not}")
    return found.layer


def linear_head(model: nn.Module, images: torch.Tensor, layer: str) -> LinearHead | None:
    """The head, if it is global average pooling and one linear layer, else None.

    Checked on numbers, not on names: the output of the layer is replaced by random features, and
    the logits must be the weighted means of these. The weights are read afresh at each call.
    """
    found = _anatomy(model, images)
    if layer not in found.linear:
        name = _find_linear_head(model, images, layer)
        with _lock:
            found.linear[layer] = name
    name = found.linear[layer]
    return None if name is None else _head_of(find_layer(model, name))


def is_still_linear(head: LinearHead, features: torch.Tensor, logits: torch.Tensor) -> bool:
    """Whether a head found earlier still explains what the model just returned.

    Looks at one class of one image, so that every call can afford it. Features that are not finite
    tell nothing, nor does an empty batch.
    """
    if logits.numel() == 0:
        return True
    mean = cam_project(features[:1], head.weight[None, :1]).mean()
    gap = abs(float(mean) + float(head.bias[0]) - float(logits[0, 0]))
    return not gap > _tolerance(features.dtype) * (1e-6 + float(logits[0].abs().max()))


def _tolerance(dtype: torch.dtype) -> float:
    """How far logits may lie from the weighted means, as a share of the largest logit."""
    return 2e-3 if dtype == torch.float32 else 5e-2


def forget(model: nn.Module) -> None:
    """Drops what is known of the model, after it was seen to be no longer true."""
    with _lock:
        _known.pop(model, None)


def _anatomy(model: nn.Module, images: torch.Tensor) -> _Anatomy:
    size = tuple(images.shape[1:])
    with _lock:
        found = _known.get(model)
    if found is None or (found.shrunk and found.size != size):
        found = _examine(model, images)
        with _lock:
            _known[model] = found
    return found


def _probe(images: torch.Tensor) -> torch.Tensor:
    """One image; an empty batch has none, and any will do."""
    return images[:1] if len(images) else images.new_zeros((1, *images.shape[1:]))


def _examine(model: nn.Module, images: torch.Tensor) -> _Anatomy:
    """Runs one image through the model and looks at the output of every layer."""
    size = tuple(images.shape[1:])
    owner = threading.get_ident()
    pooled: list[torch.Tensor] = []  # kept, so that identity means something
    layer, shrunk, tokens = None, False, False
    seen: list[str] = []

    def look(name: str, module: nn.Module, output: Any) -> None:
        nonlocal layer, shrunk, tokens
        tensor = first_tensor(output)
        if tensor is None or not tensor.is_floating_point():
            return
        seen.append(f"{name} {[*tensor.shape]}")
        if isinstance(module, _POOLING):
            pooled.append(tensor)
        if any(tensor is other for other in pooled):
            return
        if tensor.ndim == 4 and tensor.shape[-2] * tensor.shape[-1] > 1:
            layer, shrunk, tokens = name, False, False
        elif tensor.ndim == 4:
            shrunk = True
        elif tensor.ndim == 3 and tensor.shape[1] > 1:
            tokens = True

    def hook_for(name: str) -> Any:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            if threading.get_ident() == owner:
                look(name, module, output)

        return hook

    handles = []
    with borrowed(model):
        try:
            for name, module in model.named_modules():
                if name and not isinstance(module, torch.jit.ScriptModule):
                    handles.append(module.register_forward_hook(hook_for(name)))
            call(model, _probe(images))
        finally:
            for handle in handles:
                handle.remove()
    why_not = ""
    if layer is not None and tokens:
        why_not = (
            f"expected a network with a last spatial layer; this one goes on with tokens after "
            f"{layer!r}: pass layer= one whose output is [N, C, h, w]"
        )
        layer = None
    elif layer is None:
        last = ", ".join(seen[-3:]) or "nothing that can be observed"
        hint = (
            " (TorchScript hides its layers)" if isinstance(model, torch.jit.ScriptModule) else ""
        )
        why_not = (
            "expected a network with a layer whose output is [N, C, h, w] with more than one "
            f"position for an input {[*images.shape]}, found none; its last layers give: "
            f"{last}{hint}"
        )
    return _Anatomy(layer, why_not, shrunk, size, {})


def _head_of(module: nn.Module) -> LinearHead | None:
    """The weights of a linear layer or a 1 × 1 convolution, None for any other module."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, torch.Tensor) or not _is_linear(module):
        return None
    weight = weight.detach().to(torch.float32)
    if weight.ndim > 2:
        weight = weight.flatten(1)
    bias = getattr(module, "bias", None)
    if not isinstance(bias, torch.Tensor):
        return LinearHead(weight, weight.new_zeros(len(weight)))
    return LinearHead(weight, bias.detach().to(torch.float32))


def _find_linear_head(model: nn.Module, images: torch.Tensor, layer: str) -> str | None:
    """The name of the linear layer that alone, after averaging, makes the logits; None if none."""
    probe = _probe(images)
    with borrowed(model):
        features = record(model, probe, [layer], stop=True).layers[layer]
        if features.ndim != 4:
            return None
        # A generator of our own: the global random state belongs to the user. Both signs, another
        # mean in each channel, and means that no normalisation would leave as they are.
        generator = torch.Generator().manual_seed(0)
        noise = 3 * torch.randn(features.shape, generator=generator)
        noise += 4 * torch.randn((1, features.shape[1], 1, 1), generator=generator) + 2
        noise = noise.to(features)
        means = noise.to(torch.float32).mean(dim=(2, 3))  # now: the head may work in place
        try:
            output = record(model, probe, [layer], replace={layer: noise}).output
            logits = logits_of(output).to(torch.float32)
        except ValueError:
            return None
    tolerance = _tolerance(features.dtype)
    for name, module in reversed(list(model.named_modules())):
        head = _head_of(module)
        if head is None or head.weight.shape != (logits.shape[1], means.shape[1]):
            continue
        expected = means @ head.weight.T + head.bias
        if bool((expected - logits).abs().max() <= tolerance * logits.abs().max()):
            return str(name)
    return None


def _is_linear(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.kernel_size == (1, 1) and module.groups == 1
    return isinstance(module, nn.Linear)
