"""Expected gradients: Shapley values by integrating gradients from background to image."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pyxai.explain.shap.model import Explained


@dataclass(frozen=True)
class Integral:
    """What the integration gave.

    Attributes:
        values: `[N, k, C, H, W]` float32.
        error: standard error of the values, of their shape.
        base: the mean output on the background, `[N, k]` float64.
    """

    values: torch.Tensor
    error: torch.Tensor
    base: torch.Tensor


def drawn(samples: int, backgrounds: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The background and the place on the way to the image of each sample, `[samples]` both.

    Places are stratified: each of `samples` equal parts of [0, 1] has one. Each background gets as
    many samples as any other, or one more, and these are spread over the whole way.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(backgrounds, generator=generator)
    rounds = -(-samples // backgrounds)
    # The j-th round of all backgrounds lies in the j-th part of the way.
    turns = [order[torch.randperm(backgrounds, generator=generator)] for _ in range(rounds)]
    which = torch.cat(turns)[:samples]
    inside = torch.rand(samples, generator=generator, dtype=torch.float64)
    places = (torch.arange(samples, dtype=torch.float64) + inside) / samples
    return which, places


def integrate(model: Explained, background: torch.Tensor, samples: int, seed: int) -> Integral:
    """Expected gradients of all images.

    Args:
        model: what is explained.
        background: `[B, C, H, W]` for all images, or `[N, 1, C, H, W]`, one for each.
        samples: points at which gradients are taken, for each image; the same draw for all.
        seed: of the draw.
    """
    images = model.images
    own = background.ndim == 5
    count = background.shape[1] if own else len(background)
    which, places = (each.to(images.device) for each in drawn(samples, count, seed))
    shape = (len(images), model.classes.shape[1], *images.shape[1:])
    total, squares = (images.new_zeros(shape, dtype=torch.float32) for _ in range(2))
    rows = torch.arange(len(images) * samples, device=images.device)
    for some in torch.split(rows, model.batch_size):
        image, sample = some // samples, some % samples
        other = background[image, which[sample]] if own else background[which[sample]]
        way = images[image] - other
        share = places[sample].to(way.dtype)[:, None, None, None]
        for target, gradient in enumerate(_gradients(model, other + share * way, image)):
            found = way.float() * gradient.float()
            total[:, target].index_add_(0, image, found)
            squares[:, target].index_add_(0, image, found**2)
    values = total / samples
    spread = (squares / samples - values**2).clamp(min=0) / max(samples - 1, 1)
    return Integral(values, spread.sqrt(), _base(model, background))


def _gradients(model: Explained, points: torch.Tensor, image: torch.Tensor) -> list[torch.Tensor]:
    """Of each target the gradient of its output by the points; one forward pass for all."""
    leaf = points.detach().requires_grad_()
    with torch.enable_grad():
        outputs = model.of(leaf, image)
        if not outputs.requires_grad:
            raise ValueError(
                "model: expected outputs that depend on the images through differentiable "
                "operations, got none (does the model itself run under no_grad or inference_mode?)"
            )
        sums = outputs.sum(dim=0).unbind()
    last = len(sums) - 1
    return [
        torch.autograd.grad(sums[target], leaf, retain_graph=target < last)[0]
        for target in range(len(sums))
    ]


def _base(model: Explained, background: torch.Tensor) -> torch.Tensor:
    if background.ndim == 4:
        return model.of_each(background).mean(dim=0)
    flat, count = background.flatten(0, 1), background.shape[1]
    places = torch.arange(len(background), device=flat.device).repeat_interleave(count)
    parts = zip(
        torch.split(flat, model.batch_size), torch.split(places, model.batch_size), strict=True
    )
    found = torch.cat([model.of(images, some).double() for images, some in parts])
    return found.reshape(len(background), count, -1).mean(dim=1)
