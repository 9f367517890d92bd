"""What a network is made of, found by running it: its last spatial layer and the kind of its head.

Found once for a model and kept as long as the model lives, without keeping it alive.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from pyxai._errors import argument_error
from pyxai.classifier.borrow import borrowed, call, find_layer, record
from pyxai.classifier.layout import Layout, find_layout
from pyxai.classifier.outputs import logits_of
from pyxai.classifier.survey import Survey, last_that_matters, watching
from pyxai.ops import cam_project


@dataclass(frozen=True)
class LinearHead:
    """Global average pooling and one linear layer: logits = weight · mean(features) + bias.

    The mean is over the positions of the layer: for tokens, over the patches.

    Attributes:
        weight: `[K, C]` float32.
        bias: `[K]` float32.
    """

    weight: torch.Tensor
    bias: torch.Tensor


@dataclass
class _Anatomy:
    layer: str | None  # None also as long as nobody asked which of the candidates it is
    candidates: dict[str, Layout]  # layers with several positions, in order of execution
    layouts: dict[str, Layout | None]  # of every layer that ran
    why_not: str
    # A later layer gave a single position, so that a larger input may have a later spatial layer.
    shrunk: bool
    size: tuple[int, ...]
    linear: dict[str, str | None]  # the name of the linear head after a layer, None if none


_known: weakref.WeakKeyDictionary[nn.Module, _Anatomy] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def last_spatial_layer(model: nn.Module, images: torch.Tensor) -> str:
    """The name of the last layer with more than one position that the logits are made from.

    Its output is `[N, C, h, w]`, `[N, h, w, C]` or tokens `[N, T, C]`. Pooling layers do not count:
    the layer before them sees more. In networks of tokens, neither do linear layers (queries, keys
    and values are not the tokens), nor layers on most of whose patches the logits do not depend:
    the last block before a class token is read passes that token alone.

    Raises:
        ValueError: there is none.
    """
    found = _anatomy(model, images)
    if found.layer is None:
        if not found.candidates:
            raise ValueError(f"layer: {found.why_not}")
        layer, certain = last_that_matters(model, _probe(images), found.candidates)
        if not certain:
            return layer
        found.layer = layer
    return found.layer


def layout_of(model: nn.Module, images: torch.Tensor, layer: str, output: torch.Tensor) -> Layout:
    """How the raw output of a layer for these images holds their positions.

    Raises:
        ValueError: it has no positions, or is not of these images (windows are not).
    """
    found = _anatomy(model, images)
    size = (images.shape[-2], images.shape[-1])
    known = found.layouts.get(layer)
    layout = None
    if output.is_floating_point():
        if known is not None:
            layout = _at_size(known, found.size[-2:], output.shape, size)
        elif layer not in found.layouts:  # it did not run when the model was examined
            layout = find_layout(output.shape, size)
    if layout is None or output.shape[0 if layout.batch_first else 1] != len(images):
        expected = "a layer whose output is [N, C, h, w], [N, h, w, C] or tokens [N, T, C]"
        raise argument_error("layer", expected, output)
    return layout


def _at_size(
    known: Layout, examined: tuple[int, ...], shape: Sequence[int], size: tuple[int, int]
) -> Layout | None:
    """The layout of a layer known from the size that was examined, for an image of this size."""
    if known.kind == "nchw":
        return Layout("nchw", shape[2], shape[3]) if len(shape) == 4 else None
    if known.kind == "nhwc":
        return Layout("nhwc", shape[1], shape[2]) if len(shape) == 4 else None
    if len(shape) != 3:
        return None
    tokens = shape[1 if known.batch_first else 0]
    # The stride is that of the size examined, unless the model resizes its input by itself.
    rows, columns = (
        {new * old // whole, -(-new * old // whole)}
        for old, new, whole in zip((known.height, known.width), size, examined, strict=True)
    )
    for height in rows:
        for width in columns:
            if tokens == known.prefix + height * width:
                return replace(known, height=height, width=width)
    if tokens == known.prefix + known.positions:
        return known
    found = find_layout((1, tokens, 1), size, prefix=known.prefix)
    return None if found is None else replace(found, batch_first=known.batch_first)


def linear_head(model: nn.Module, images: torch.Tensor, layer: str) -> LinearHead | None:
    """The head, if it is the mean over all positions and one linear layer, else None.

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
    survey = Survey((images.shape[-2], images.shape[-1]))
    with borrowed(model), watching(model, survey.look):
        call(model, _probe(images))
    layer = None
    if not survey.tokens:
        survey.layouts.update(survey.unclear)
        layer = survey.plain
    hint = " (TorchScript hides its layers)" if isinstance(model, torch.jit.ScriptModule) else ""
    why_not = (
        "expected a network with a layer whose output is [N, C, h, w], [N, h, w, C] or tokens "
        f"[N, T, C] with more than one position for an input {[*images.shape]}, found none; its "
        f"last layers give: {', '.join(survey.last) or 'nothing that can be observed'}{hint}"
    )
    size = tuple(images.shape[1:])
    candidates = survey.candidates if survey.tokens else {}
    return _Anatomy(layer, candidates, survey.layouts, why_not, survey.shrunk, size, {})


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
        raw = record(model, probe, [layer], stop=True).layers[layer]
        try:
            layout = layout_of(model, probe, layer, raw)
        except ValueError:
            return None
        features = layout.features(raw)
        # A generator of our own: the global random state belongs to the user. Both signs, another
        # mean in each channel, and means that no normalisation would leave as they are.
        generator = torch.Generator().manual_seed(0)
        noise = 3 * torch.randn(features.shape, generator=generator)
        noise += 4 * torch.randn((1, features.shape[1], 1, 1), generator=generator) + 2
        noise = noise.to(features)
        means = noise.to(torch.float32).mean(dim=(2, 3))  # now: the head may work in place
        try:
            replaced = layout.restore(noise, raw)
            output = record(model, probe, [layer], replace={layer: replaced}).output
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
