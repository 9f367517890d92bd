"""Methods that are about more than one layer: FullGrad, RefineCAM."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from pyxai._errors import argument_error
from pyxai.attribution.cam.methods.registry import METHODS, Evidence, canonical, method
from pyxai.classifier.borrow import borrowed, call
from pyxai.classifier.calls import FunctionCalls
from pyxai.classifier.points import function_name
from pyxai.ops import cam_project, cam_render


@method("refinecam", gradients=True, fuses=True)
def refinecam(evidence: Sequence[Evidence], *, base: str = "gradcam++") -> torch.Tensor:
    """RefineCAM: the product of one method's maps over several layers (arXiv:2605.14641).

    Each map is cut at 0, scaled to [0, 1], and resized to the finest of the layers.

    Args:
        evidence: one for each layer.
        base: the method.

    Raises:
        ValueError: fewer than two layers.
    """
    if len(evidence) < 2:
        raise ValueError(
            "layer: expected at least two layers for 'refinecam', such as "
            f"layer=['layer3', 'layer4'], got {len(evidence)}"
        )
    chosen = METHODS.get(canonical(base) or "")
    if chosen is None or chosen.fuses or not chosen.layer:
        raise argument_error("base", "a method for one layer, such as 'gradcam++'", base)
    sizes = [each.features.shape[-2:] for each in evidence]
    finest = max(sizes, key=lambda size: size.numel())
    product: torch.Tensor | None = None
    for each in evidence:
        found = chosen.compute(each)
        maps = found if found.ndim == 4 else cam_project(each.features, found)
        maps = cam_render(maps, finest, relu=True)
        product = maps if product is None else product * maps
    assert product is not None
    return product


@method("fullgrad", layer=False)
def fullgrad(evidence: Evidence) -> torch.Tensor:
    """FullGrad (Srinivas & Fleuret 2019, arXiv:1905.00780, Eq. 3 and 5).

    Σ_colours ψ(x ⊙ ∂z/∂x) + Σ_layers Σ_channels ψ(b ⊙ ∂z/∂b), with ψ the absolute value, scaled to
    [0, 1] over one image and layer and resized to the image. b is the bias of a convolution, or of
    a batch norm with what its running mean contributes. A whole backward pass for each target. In
    the report: "gap" `[N, k]`, how far the sums without ψ, biases of linear layers included, are
    from the score; 0 for networks of ReLUs, biases and these layers alone.
    """
    with borrowed(evidence.network), torch.enable_grad():
        images = evidence.inputs.detach().clone().requires_grad_()
        with evidence.gradients_through(), _Biases(evidence.network) as biases:
            output = call(evidence.network, images)
        scores = evidence.scores_in(output)
        sums = scores.sum(dim=0).unbind()
    maps, gaps = [], []
    for k in range(scores.shape[1]):
        outputs = [each for _, each in biases.added]
        gradients = _gradients_of(sums[k], [images, *outputs])
        if gradients[0] is None:
            raise ValueError(
                "model: expected scores that depend on the images through differentiable "
                "operations (does it run under no_grad?)"
            )
        parts = [images.detach() * gradients[0]]
        for (bias, _), gradient in zip(biases.added, gradients[1:], strict=True):
            if gradient is not None:
                part = bias * gradient
                if part.ndim == 3 and len(part) != len(images):  # the sequence first
                    part = part.transpose(0, 1)
                if len(part) != len(images):
                    raise ValueError(
                        "method: expected a network that runs on all images of a batch for "
                        f"'fullgrad', got a layer that ran on {len(part)} for {len(images)}; pass "
                        "single images, or batch_size=1"
                    )
                channels_last = part.ndim == 4 and bias.ndim == 1
                parts.append(part.movedim(-1, 1) if channels_last else part)
        explained = sum(part.float().flatten(1).sum(dim=1) for part in parts)
        gaps.append((explained - scores[:, k].detach().float()).abs())
        maps.append(_added_up([part.float() for part in parts if part.ndim == 4]))
    evidence.report["gap"] = torch.stack(gaps, dim=1)
    return torch.stack(maps, dim=1)


def _gradients_of(
    score: torch.Tensor, tensors: Sequence[torch.Tensor]
) -> Sequence[torch.Tensor | None]:
    """None for those that the score does not depend on."""
    found: list[torch.Tensor | None] = [None] * len(tensors)
    places = [place for place, tensor in enumerate(tensors) if tensor.requires_grad]
    if score.requires_grad:
        some = [tensors[place] for place in places]
        gradients = torch.autograd.grad(score, some, retain_graph=True, allow_unused=True)
        for place, gradient in zip(places, gradients, strict=True):
            found[place] = gradient
    return found


def _added_up(parts: list[torch.Tensor]) -> torch.Tensor:
    """ψ of each part, resized to the first and added over channels and parts, `[N, H, W]`.

    A part that is the same everywhere, as the bias of a head that is a convolution, says nothing
    about places and is left out, as are biases of linear layers.
    """
    size = parts[0].shape[-2:]
    total = parts[0].new_zeros((len(parts[0]), *size))
    for part in parts:
        part = part.abs()
        low = part.amin(dim=(1, 2, 3), keepdim=True)
        span = part.amax(dim=(1, 2, 3), keepdim=True) - low
        # Scaling and resizing are linear, so the channels can be added first.
        scaled = torch.where(span > 0, (part - low) / span, 0).sum(dim=1, keepdim=True)
        flat = scaled.flatten(1)
        varies = flat.amax(dim=1) - flat.amin(dim=1) > 1e-5 * flat.amax(dim=1)
        scaled = scaled * varies[:, None, None, None]
        total += functional.interpolate(scaled, size, mode="bilinear")[:, 0]
    return total


class _Biases(FunctionCalls):
    """Watches one pass for what is added whatever the input is, each time that it is.

    Layers of torch call functions that are given the bias; those of accelerated copies do not, so
    their modules are watched as well.

    Attributes:
        added: (bias, shaped to be added to it; the output that it was added to) of each run.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.added: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._network = network
        self._handles: list[Any] = []

    def __enter__(self) -> _Biases:
        owner = threading.get_ident()
        begun: list[int] = []

        def before(module: nn.Module, arguments: Any) -> None:
            if threading.get_ident() == owner:
                begun.append(len(self.added))

        def after(module: nn.Module, arguments: Any, output: Any) -> Any:
            if threading.get_ident() != owner or begun.pop() != len(self.added):
                return None  # what the module called has said it
            return self._note(_bias_of(module), output, last=isinstance(module, nn.Linear))

        for module in self._network.modules():
            if isinstance(module, _WITH_BIAS) and not isinstance(module, torch.jit.ScriptModule):
                self._handles.append(module.register_forward_pre_hook(before))
                self._handles.append(module.register_forward_hook(after))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()

    def called(self, function: Any, args: Sequence[Any], named: dict[str, Any]) -> Any:
        output = function(*args, **named)
        name = function_name(function)
        if name not in _FUNCTIONS_WITH_BIAS:
            return output
        try:
            given = inspect.signature(_FUNCTIONS_WITH_BIAS[name]).bind(*args, **named)
        except TypeError:  # a form of the function that torch alone calls
            return output
        bias: torch.Tensor | None = given.arguments.get("bias")
        if name == "batch_norm":
            bias = _bias_of_norm(**given.arguments)
        return self._note(bias, output, last=name == "linear")

    def _note(self, bias: torch.Tensor | None, output: torch.Tensor, *, last: bool) -> torch.Tensor:
        """Keeps an output; `last` says that its channels are the last axis, not the second."""
        if bias is None:
            return output
        shape = (-1,) if last else (-1, *[1] * (output.ndim - 2))
        self.added.append((bias.detach().reshape(shape), output))
        return output.clone()


_WITH_BIAS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.modules.batchnorm._BatchNorm)


def _convolution(input: Any, weight: Any, bias: Any = None, *others: Any, **more: Any) -> None: ...


def _batch_norm(
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: Any = False,
    momentum: Any = 0.1,
    eps: Any = 1e-5,
) -> None: ...


# By name, with their arguments.
_FUNCTIONS_WITH_BIAS: dict[str, Callable[..., None]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "linear"), _convolution),
    "batch_norm": _batch_norm,
}


def _bias_of(module: nn.Module) -> torch.Tensor | None:
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return _bias_of_norm(
            module.running_mean, module.running_var, module.weight, module.bias, eps=module.eps
        )
    bias = getattr(module, "bias", None)
    return bias if isinstance(bias, torch.Tensor) else None


def _bias_of_norm(
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,
    eps: float = 1e-5,
    **others: Any,
) -> torch.Tensor | None:
    """What a batch norm with fixed statistics adds."""
    if running_mean is None or running_var is None or training:
        return None
    scale = (running_var + eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    return -running_mean * scale + (0 if bias is None else bias)
