"""Methods that are about more than one layer: FullGrad, RefineCAM."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from pyxai._errors import argument_error
from pyxai.classifier.borrow import borrowed, record
from pyxai.explain.cam_methods.registry import METHODS, Evidence, method
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
    if base not in METHODS or METHODS[base].fuses or not METHODS[base].layer:
        raise argument_error("base", "a method for one layer, such as 'gradcam++'", base)
    sizes = [each.features.shape[-2:] for each in evidence]
    finest = max(sizes, key=lambda size: size.numel())
    product: torch.Tensor | None = None
    for each in evidence:
        found = METHODS[base].compute(each)
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
    biases = _biases(evidence.network)
    with borrowed(evidence.network), torch.enable_grad():
        images = evidence.inputs.detach().clone().requires_grad_()
        recording = record(evidence.network, images, list(biases), differentiate=True, absent=True)
        scores = evidence.scores_in(recording.output)
        sums = scores.sum(dim=0).unbind()
    layers = {name: recording.layers[name] for name in biases if name in recording.layers}
    maps, gaps = [], []
    for k in range(scores.shape[1]):
        gradients = torch.autograd.grad(
            sums[k], [images, *layers.values()], retain_graph=True, allow_unused=True
        )
        if gradients[0] is None:
            raise ValueError(
                "model: expected scores that depend on the images through differentiable "
                "operations (does it run under no_grad?)"
            )
        parts = [images.detach() * gradients[0]]
        for name, gradient in zip(layers, gradients[1:], strict=True):
            if gradient is not None:
                shape = (1, -1) + (1,) * (gradient.ndim - 2)
                parts.append(biases[name].reshape(shape) * gradient)
        explained = sum(part.float().flatten(1).sum(dim=1) for part in parts)
        gaps.append((explained - scores[:, k].detach().float()).abs())
        maps.append(_added_up([part.float() for part in parts if part.ndim == 4]))
    evidence.report["gap"] = torch.stack(gaps, dim=1)
    return torch.stack(maps, dim=1)


def _added_up(parts: list[torch.Tensor]) -> torch.Tensor:
    """ψ of each part, resized to the first and added over channels and parts, `[N, H, W]`."""
    size = parts[0].shape[-2:]
    total = parts[0].new_zeros((len(parts[0]), *size))
    for part in parts:
        part = part.abs()
        low = part.amin(dim=(1, 2, 3), keepdim=True)
        span = part.amax(dim=(1, 2, 3), keepdim=True) - low
        # Scaling and resizing are linear, so the channels can be added first.
        scaled = torch.where(span > 0, (part - low) / span, 0).sum(dim=1, keepdim=True)
        total += functional.interpolate(scaled, size, mode="bilinear")[:, 0]
    return total


def _biases(network: nn.Module) -> dict[str, torch.Tensor]:
    """What each layer adds whatever its input is, by the layer's name."""
    found = {}
    for name, module in network.named_modules():
        bias = getattr(module, "bias", None)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.running_mean is None or module.running_var is None:
                continue
            scale = (module.running_var + module.eps).rsqrt()
            if module.weight is not None:
                scale = scale * module.weight
            bias = -module.running_mean * scale + (0 if module.bias is None else module.bias)
        elif not isinstance(module, (nn.Conv2d, nn.Linear)) or bias is None:
            continue
        if name:
            found[name] = bias.detach()
    return found
