"""SHAP values: which pixels speak for a class and which against it, in the unit of the output."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from pyxai._errors import argument_error, check_count
from pyxai.attribution.masks.blur import gaussian_blur
from pyxai.attribution.shap.coalitions import Game
from pyxai.attribution.shap.gradients import drawn, integrate
from pyxai.attribution.shap.kernel import EXACT, exact, regression
from pyxai.attribution.shap.model import Explained, Output, explained
from pyxai.attribution.shap.partition import owen_values
from pyxai.attribution.shap.regions import grid_of, regions_of
from pyxai.attribution.shap.result import SHOWN, ShapValues
from pyxai.classifier import Classifier, Examined, Target, as_classifier
from pyxai.classifier.borrow import borrowed
from pyxai.draw.inputs import shown_pictures
from pyxai.images import Images

__all__ = ["ShapValues", "shap_values"]

Method: TypeAlias = Literal["gradient", "partition", "kernel"]

_SIGMA = 20.0  # of the blur, in pixels of an image whose shorter side is 224
_CELLS = 32  # a side of the finest grid of "partition"


def shap_values(
    model: nn.Module | Classifier,
    images: Images,
    background: Images | Literal["blur", "mean"] = "blur",
    target: Target = None,
    *,
    method: Method = "gradient",
    samples: int = 200,
    regions: int | torch.Tensor | None = None,
    output: Output = "logits",
    correct_gap: bool = True,
    seed: int = 0,
    batch_size: int | None = None,
) -> ShapValues:
    """How much each pixel speaks for a class, and against it.

    The values of an image add up to the difference between the model's output on it and on the
    background. docs/shap.md says which method to take and when to trust it.

    Args:
        model: any classifying `nn.Module`, or a `Classifier`. It is left exactly as it was.
        images: the model's input or photos.
        background: what pixels are compared with: "blur", the image without its detail; "mean", its
            mean colour; or images as the model's input `[B, C, H, W]` or photos. Method "gradient"
            takes the mean over all B; the others take one for all images (B = 1) or one for each
            (B = N), which may be colours `[B, C, 1, 1]`.
        target: None, the top class of each image; classes; several of them; or "all"; see
            `pyxai.cam`. Several targets share all forward passes.
        method: "gradient", expected gradients for each pixel; "partition", Owen values of
            rectangles, cut finer where there is more to tell; "kernel", Shapley values of regions,
            exact for up to 12 of them, else by weighted regression.
        samples: evaluations of the model for each image. "gradient" takes a gradient at each;
            "partition" needs 2 at least; "kernel" with more than 12 regions at least twice their
            number, with fewer it takes as many as there are coalitions.
        regions: of "kernel": about how many cells of a grid, by default 64, or as many as there are
            pixels; or a label for each pixel, `[H, W]` integers.
        output: "logits" or "probability".
        correct_gap: of "gradient": take out of the values what their sum misses by sampling, by a
            control variate. False leaves the plain expected gradients. Either way `sampling_gap`
            says what was missed. The other methods always add up.
        seed: of everything that is drawn; the same draw for every image, so that a result does not
            depend on the batch. The global random state is left alone.
        batch_size: images in a forward pass; None, as many as suit cache and memory.

    Returns:
        A `ShapValues`.

    Raises:
        ImageError: photos that cannot be used.
        ValueError: an argument does not fit, or outputs or background are not finite.

    Source: Erion et al., "Improving performance of deep learning models with axiomatic attribution
    priors and expected gradients" (2021); Lundberg and Lee, "A unified approach to interpreting
    model predictions" (2017); Owen, "Values of games with a priori unions" (1977).
    """
    classifier = as_classifier(model)
    check_settings(method, samples, seed)
    if batch_size is not None:
        check_count("batch_size", batch_size, or_none=True)
    if regions is not None and method != "kernel":
        raise argument_error("regions", f"None for the method {method!r}", regions)
    inputs = classifier.to_input(images)
    with borrowed(classifier.network):
        asked = explained(Examined(classifier, inputs), target, output, batch_size)
        return values_of(
            asked,
            background,
            method,
            samples,
            seed,
            regions=regions,
            correct_gap=correct_gap,
            batch_size=batch_size,
        )


def check_settings(method: Any, samples: Any, seed: Any) -> None:
    """Refuses what `values_of` cannot work with.

    Raises:
        ValueError: an argument does not fit.
    """
    if method not in ("gradient", "partition", "kernel"):
        raise argument_error("method", "'gradient', 'partition' or 'kernel'", method)
    check_count("samples", samples, least=2)
    check_count("seed", seed, least=0)


def values_of(
    model: Explained,
    background: Images | Literal["blur", "mean"],
    method: Method,
    samples: int,
    seed: int,
    *,
    regions: int | torch.Tensor | None = None,
    correct_gap: bool = True,
    batch_size: int | None = None,
) -> ShapValues:
    """The values of a model whose outputs are known; within `borrowed`. See `shap_values`."""
    if method == "gradient":
        if batch_size is None:  # layers' outputs stay until the way back
            model = replace(model, batch_size=max(1, 3 * model.batch_size // 4))
        return _by_gradients(model, background, samples, seed, correct_gap)
    pictures = _one_background(model, background)
    if method == "partition":
        return _by_partition(model, pictures, samples)
    labels = regions_of(regions, _size(model.images))
    return _by_kernel(model, pictures, labels, samples, seed)


def _by_gradients(
    model: Explained, background: Any, samples: int, seed: int, correct: bool
) -> ShapValues:
    if isinstance(background, str):
        pictures = _made(model.images, background)[:, None].expand_as(model.images[:, None])
    else:
        pictures = _given(model, background)
        if pictures.shape[1:] != model.images.shape[1:]:
            expected = f"images [B, {', '.join(map(str, model.images.shape[1:]))}]"
            raise argument_error("background", expected, pictures)
    draw = drawn(samples, 1 if pictures.ndim == 5 else len(pictures), seed)
    found = integrate(model, pictures, draw, correct)
    sums = found.values.double().sum(dim=(2, 3, 4))
    return _result(model, found.values, found.error, found.base, sums, samples, gap=found.gap)


def _by_partition(model: Explained, background: torch.Tensor, samples: int) -> ShapValues:
    height, width = _size(model.images)
    grid = (min(_CELLS, height), min(_CELLS, width))
    cells = grid_of((height, width), *grid)
    game = Game(model, background, cells)
    base = game.hidden()
    values = owen_values(game, grid, model.outputs.cpu(), base, samples - 1).flatten(2)
    return _of_cells(model, game, values, torch.zeros_like(values), cells, base, fixed=False)


def _by_kernel(
    model: Explained, background: torch.Tensor, labels: torch.Tensor, samples: int, seed: int
) -> ShapValues:
    count, images = int(labels.max()) + 1, len(model.images)
    game = Game(model, background, labels)
    base = game.hidden()
    if count <= EXACT:
        values = exact(game, images, count)
        errors = torch.zeros_like(values)
    else:
        if samples < 2 * count:
            expected = f"at least {2 * count}, twice the {count} regions, or fewer regions"
            raise argument_error("samples", expected, samples)
        outputs = model.outputs.cpu()
        values, errors = regression(
            game, images, count, samples=samples // 2 * 2, seed=seed, outputs=outputs, base=base
        )
    return _of_cells(model, game, values, errors, labels, base, fixed=True)


def _of_cells(
    model: Explained,
    game: Game,
    values: torch.Tensor,
    errors: torch.Tensor,
    labels: torch.Tensor,
    base: torch.Tensor,
    *,
    fixed: bool,
) -> ShapValues:
    """The result of values `[N, k, cells]`, spread over the pixels of each cell."""
    device = model.images.device
    pixels = labels.flatten().bincount().double()
    spread = (values / pixels)[:, :, labels][:, :, None].float().to(device)
    noise = (errors / pixels)[:, :, labels][:, :, None].float().to(device)
    return _result(
        model,
        spread,
        noise,
        base=base.to(device),
        sums=values.sum(dim=2).to(device),
        evaluations=int(game.evaluations.max()),
        regions=labels.to(device) if fixed else None,
        region_values=values.to(device) if fixed else None,
    )


def _result(
    model: Explained,
    values: torch.Tensor,
    error: torch.Tensor,
    base: torch.Tensor,
    sums: torch.Tensor,
    evaluations: int,
    regions: torch.Tensor | None = None,
    region_values: torch.Tensor | None = None,
    gap: torch.Tensor | None = None,
) -> ShapValues:
    if not bool(torch.isfinite(sums).all()):
        raise argument_error("background", "one on which the outputs are finite", "NaN or infinity")
    shaped, left = model.shaped, base + sums - model.outputs
    preprocessing = model.examined.classifier.preprocessing
    return ShapValues(
        values=shaped(values),
        base_values=shaped(base),
        outputs=shaped(model.outputs),
        standard_error=shaped(error),
        additivity_gap=shaped(left),
        sampling_gap=shaped(left if gap is None else gap),
        classes=shaped(model.classes),
        regions=regions,
        region_values=None if region_values is None else shaped(region_values),
        evaluations=evaluations,
        class_names=model.examined.classifier.class_names,
        output=model.output,
        pictures=tuple(shown_pictures(model.images[:SHOWN], preprocessing.mean, preprocessing.std)),
    )


def _size(images: torch.Tensor) -> tuple[int, int]:
    return images.shape[2], images.shape[3]


def _given(model: Explained, background: Any) -> torch.Tensor:
    """A background that was given, as model input."""
    images = model.images
    found = background
    if not isinstance(background, torch.Tensor) or not background.is_floating_point():
        found = model.examined.classifier.to_input(background)
    if found.ndim != 4 or not len(found):
        raise argument_error("background", "at least one image [B, C, H, W]", found)
    if not bool(torch.isfinite(found).all()):
        raise argument_error("background", "finite pixels", "NaN or infinity")
    pictures: torch.Tensor = found.detach().to(images.device, images.dtype)
    return pictures


def _one_background(model: Explained, background: Any) -> torch.Tensor:
    """`[N or 1, C, H or 1, W or 1]`."""
    if isinstance(background, str):
        return _made(model.images, background)
    found, images = _given(model, background), model.images
    count, channels, height, width = images.shape
    fits = found.shape[0] in (1, count) and found.shape[1] == channels
    if not fits or found.shape[2:] not in ((height, width), (1, 1)):
        inner = f"{channels}, {height}, {width}"
        expected = f"one image for all or for each, [{count} or 1, {inner}], or colours [..., 1, 1]"
        raise argument_error("background", expected, found)
    return found


def _made(images: torch.Tensor, kind: str) -> torch.Tensor:
    """A background made of the images themselves."""
    if kind == "mean":
        return images.mean(dim=(2, 3), keepdim=True)
    if kind != "blur":
        raise argument_error("background", "'blur', 'mean' or images", kind)
    shorter = min(_size(images))
    sigma = _SIGMA * shorter / 224
    kernel = min(2 * math.ceil(2 * sigma) + 1, 2 * shorter - 1)
    return gaussian_blur(images, max(sigma, 1e-3), kernel)
