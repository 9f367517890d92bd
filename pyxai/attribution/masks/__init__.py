"""What stands in a classifier's way, and other questions that a learned mask answers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, overload

import torch
from torch import nn

from pyxai._errors import argument_error
from pyxai.attribution.masks.extremal import area_penalty, smooth_maximum
from pyxai.attribution.masks.learning import MaskTask, learn_masks
from pyxai.attribution.masks.objectives import (
    lower_target,
    non_target_factors,
    raise_target,
    target_factors,
    target_logit,
)
from pyxai.attribution.masks.result import Background, LearnedMasks
from pyxai.attribution.masks.settings import Start, at_least_zero, kernel_for, mask_settings
from pyxai.classifier import Classifier, Examined, Target, as_classifier
from pyxai.images import Images

if TYPE_CHECKING:
    from typing_extensions import Unpack

Factor: TypeAlias = Literal["target", "non_target"]
Goal: TypeAlias = Literal["delete", "preserve"]


def undesirable_pixels(
    model: nn.Module | Classifier,
    images: Images,
    target: Target = None,
    *,
    factor: Factor | None = "target",
    steps: int = 200,
    learning_rate: float = 0.1,
    mask_size: int | tuple[int, int] | None = None,
    tv_weight: float = 1.7,
    l1_weight: float = 3.0,
    beta: float = 2.0,
    gamma: float = 0.3,
    root: bool = True,
    reduction: Literal["mean", "sum"] = "mean",
    background: torch.Tensor | None = None,
    blur_sigma: float = 5.0,
    blur_kernel: int | None = None,
    start: Start = "random",
    seed: int = 0,
    tolerance: float | None = None,
    batch_size: int | None = None,
    graphs: bool = False,
) -> LearnedMasks:
    """Pixels that stand in a class's way: blurring them makes the class more probable.

    Kang, Jung and Lee, "Interpreting Undesirable Pixels for Image Classification on Black-Box
    Models". A coarse mask is learned for each image and target, such that the image, blurred where
    the mask is 0, has a high probability of the target, while as little as possible is blurred.
    docs/undesirable_pixels.md has the formulas, how they were read, and what was measured.

    Args:
        model: any classifying `nn.Module`, or a `Classifier`. It is left exactly as it was.
        images: a float tensor `[N, C, H, W]`, taken as the model's input; or photos (paths, PIL
            images, uint8 arrays or tensors), which go through the classifier's preprocessing.
        target: the class to make more probable: None, the top class of each image; classes or
            "all", as in `pyxai.cam`.
        factor: "target" (F-TC, Eq. 5), what hides the target itself: the logits of the other
            classes stay, on average, what they are. "non_target" (F-NTC, Eq. 7), what speaks for
            other classes: the target's logit stays what it is. None (Eq. 3), neither.
        steps: of the optimisation, at most.
        learning_rate: of Adam.
        mask_size: cells of the mask, an int or (height, width), at most the image's size; None, 28,
            or that size where it is less.
        tv_weight: λ1, what a rough mask costs.
        l1_weight: λ2, what it costs to hide.
        beta: the exponent of the total variation, at least 1.
        gamma: γ, what it costs to change the logits that should stay.
        root: whether the total variation has the root 1/β, as in the paper.
        reduction: whether the cost is a "mean" over cells or, as the paper writes it, a "sum".
        background: what is shown in place of hidden pixels, as the model's input: pictures
            `[N or 1, C, H, W]` or colours `[N or 1, C, 1, 1]`; None, the image itself, blurred.
        blur_sigma: standard deviation of the blur in pixels.
        blur_kernel: pixels a side of the blur, odd; None, 11, or what fits a smaller image.
        start: the first mask: "random" (uniform in [0, 1], drawn from the seed, the same for all
            images and targets), "ones", a number, or a tensor `[h, w]`, `[N, h, w]` or, for k
            targets, `[N, k, h, w]`.
        seed: of the start; the global random state is neither used nor changed.
        tolerance: a mask stops when its mean loss over ten steps falls by less; None, never.
        batch_size: masks of one pass; by default as many as suit cache and memory. Masks do not
            see each other: they depend on it only by the rounding of the model's arithmetic.
        graphs: on a CUDA device, record a step as a CUDA graph and replay it, which spares the host
            nearly all of its work; elsewhere nothing changes. A model that cannot be recorded
            runs as usual, with a RuntimeWarning.

    Returns:
        A `LearnedMasks`: `mask`, `heatmap`, `before`, `after`, `improvement()`, `area()`, ...

    Raises:
        ValueError: an argument does not fit (its name, what was expected, what was got), the model
            has one class or cannot be differentiated, an image equals its background, or a loss is
            not finite (with the step and the term).
        pyxai.images.ImageError: photos that cannot be used, all of them named.
    """
    objectives = {
        None: raise_target,
        "target": target_factors(at_least_zero("gamma", gamma)),
        "non_target": non_target_factors(gamma),
    }
    if factor not in objectives:
        raise argument_error("factor", "'target', 'non_target' or None", factor)
    if reduction not in ("mean", "sum"):
        raise argument_error("reduction", "'mean' or 'sum'", reduction)
    cost = _cost(tv_weight, l1_weight, beta, root=root, mean=reduction == "mean")
    classifier = as_classifier(model)
    inputs = classifier.to_input(images)
    settings = mask_settings(
        inputs,
        Background(background, blur_sigma, kernel_for(inputs, blur_kernel, 11)),
        steps=steps,
        learning_rate=learning_rate,
        mask_size=mask_size,
        start=start,
        seed=seed,
        tolerance=tolerance,
        batch_size=batch_size,
        graphs=graphs,
    )
    return learn_masks(
        Examined(classifier, inputs), target, MaskTask(objectives[factor], cost), settings
    )


def meaningful_perturbation(
    model: nn.Module | Classifier,
    images: Images,
    target: Target = None,
    *,
    goal: Goal = "delete",
    steps: int = 300,
    learning_rate: float = 0.1,
    mask_size: int | tuple[int, int] | None = None,
    tv_weight: float = 1e-2,
    l1_weight: float = 1e-4,
    beta: float = 3.0,
    jitter: int = 4,
    background: torch.Tensor | None = None,
    blur_sigma: float = 10.0,
    blur_kernel: int | None = None,
    start: Start = "ones",
    seed: int = 0,
    tolerance: float | None = None,
    batch_size: int | None = None,
    graphs: bool = False,
) -> LearnedMasks:
    """The smallest region whose loss destroys a class, or that alone preserves it.

    Fong and Vedaldi 2017, arXiv:1704.03296. docs/learned_masks.md says what is done here and when
    to trust it. Arguments that are not listed are those of `undesirable_pixels`.

    Args:
        model: any classifying `nn.Module`, or a `Classifier`.
        images: the model's input or photos.
        target: the class; None, the top class of each image.
        goal: "delete" hides as little as possible such that the class becomes improbable;
            "preserve" shows as little as possible such that it stays probable.
        steps: of the optimisation, at most.
        learning_rate: of Adam.
        mask_size: cells of the mask; None, 28, or the image's size where that is less.
        tv_weight: weight of the sum of |dy|^beta + |dx|^beta.
        l1_weight: what it costs to hide (delete) or to show (preserve) a cell.
        beta: the exponent of the total variation.
        jitter: the image moves under the mask by up to so many pixels, differently in each step,
            drawn from the seed.
        background: see `undesirable_pixels`.
        blur_sigma: standard deviation of the blur in pixels.
        blur_kernel: pixels a side of the blur, odd; None, 41, or what fits a smaller image.
        start: see `undesirable_pixels`; from an image that is all hidden few find back.
        seed: of the jitter and of a random start.
        tolerance: see `undesirable_pixels`; compares losses under different moves of the image.
        batch_size: see `undesirable_pixels`.
        graphs: see `undesirable_pixels`.

    Returns:
        A `LearnedMasks`. The heat map shows what is hidden for both goals: for "preserve", what is
        needed is where it is 0, and `mask` 1.

    Raises:
        ValueError, pyxai.images.ImageError: see `undesirable_pixels`.
    """
    _check_goal(goal)
    cost = _cost(tv_weight, l1_weight, beta, root=False, mean=False)
    classifier = as_classifier(model)
    inputs = classifier.to_input(images)
    settings = mask_settings(
        inputs,
        Background(background, blur_sigma, kernel_for(inputs, blur_kernel, 41)),
        steps=steps,
        learning_rate=learning_rate,
        mask_size=mask_size,
        start=start,
        seed=seed,
        tolerance=tolerance,
        batch_size=batch_size,
        graphs=graphs,
        jitter=jitter,
    )
    if goal == "delete":
        task = MaskTask(lower_target, cost)
    else:  # to show costs what it costs to hide, so the cells say what is hidden
        task = MaskTask(raise_target, cost, shown=lambda cells: 1 - cells)
        settings = replace(settings, start=1 - settings.start)
    return learn_masks(Examined(classifier, inputs), target, task, settings)


class _ExtremalOptions(TypedDict, total=False):
    goal: Goal
    steps: int
    learning_rate: float
    mask_size: int | tuple[int, int] | None
    smoothing: float
    area_weight: float
    background: torch.Tensor | None
    blur_sigma: float
    blur_kernel: int | None
    start: Start
    seed: int
    batch_size: int | None
    graphs: bool


@overload
def extremal_perturbation(
    model: nn.Module | Classifier,
    images: Images,
    target: Target = None,
    *,
    areas: float = 0.1,
    **options: Unpack[_ExtremalOptions],
) -> LearnedMasks: ...


@overload
def extremal_perturbation(
    model: nn.Module | Classifier,
    images: Images,
    target: Target = None,
    *,
    areas: list[float] | tuple[float, ...],
    **options: Unpack[_ExtremalOptions],
) -> dict[float, LearnedMasks]: ...


def extremal_perturbation(
    model: nn.Module | Classifier,
    images: Images,
    target: Target = None,
    *,
    areas: float | list[float] | tuple[float, ...] = 0.1,
    goal: Goal = "preserve",
    steps: int = 200,
    learning_rate: float = 0.05,
    mask_size: int | tuple[int, int] | None = None,
    smoothing: float = 2.0,
    area_weight: float = 1000.0,
    background: torch.Tensor | None = None,
    blur_sigma: float = 20.0,
    blur_kernel: int | None = None,
    start: Start = 0.5,
    seed: int = 0,
    batch_size: int | None = None,
    graphs: bool = False,
) -> LearnedMasks | dict[float, LearnedMasks]:
    """The region of a given area that says most of a class, alone or by its absence.

    Fong, Patrick and Vedaldi 2019, arXiv:1910.08485: instead of a weight for the area there is the
    area itself. docs/learned_masks.md says where this differs from the paper. Arguments that are
    not listed are those of `undesirable_pixels`.

    Args:
        model: any classifying `nn.Module`, or a `Classifier`.
        images: the model's input or photos.
        target: the class; None, the top class of each image.
        areas: the share of the image to preserve or delete, in (0, 1). A list gives a dict of
            results, by area.
        goal: "preserve" shows that share such that the class's logit is highest; "delete" hides it
            such that the logit is lowest.
        steps: of the optimisation.
        learning_rate: of Adam.
        mask_size: cells of the mask; None, 28, or the image's size where that is less.
        smoothing: standard deviation, in cells, of the bumps that masks are made of.
        area_weight: of the mean squared distance between the sorted cells and the wanted ones, at
            the last step; it grows from 0.
        background: see `undesirable_pixels`.
        blur_sigma: standard deviation of the blur in pixels.
        blur_kernel: pixels a side of the blur, odd; None, 81, or what fits a smaller image.
        start: see `undesirable_pixels`.
        seed: of a random start.
        batch_size: see `undesirable_pixels`.
        graphs: see `undesirable_pixels`.

    Returns:
        A `LearnedMasks`, or a dict of these.

    Raises:
        ValueError, pyxai.images.ImageError: see `undesirable_pixels`.
    """
    _check_goal(goal)
    shares = [areas] if isinstance(areas, (int, float)) else list(areas)
    if not shares or not all(isinstance(each, (int, float)) and 0 < each < 1 for each in shares):
        raise argument_error("areas", "a number in (0, 1), or a list of these", areas)
    if not (isinstance(smoothing, (int, float)) and 0 < smoothing < math.inf):
        raise argument_error("smoothing", "a number greater than 0", smoothing)
    at_least_zero("area_weight", area_weight)
    classifier = as_classifier(model)
    inputs = classifier.to_input(images)
    settings = mask_settings(
        inputs,
        Background(background, blur_sigma, kernel_for(inputs, blur_kernel, 81)),
        steps=steps,
        learning_rate=learning_rate,
        mask_size=mask_size,
        start=start,
        seed=seed,
        batch_size=batch_size,
        graphs=graphs,
    )
    preserve, examined = goal == "preserve", Examined(classifier, inputs)
    found = {}
    for area in shares:
        penalty = area_penalty(area if preserve else 1 - area, area_weight)
        shown = smooth_maximum(smoothing, of_hidden=not preserve)
        task = MaskTask(target_logit(1 if preserve else -1), penalty=penalty, shown=shown)
        found[area] = learn_masks(examined, target, task, settings)
    return next(iter(found.values())) if isinstance(areas, (int, float)) else found


def _cost(
    tv_weight: float, l1_weight: float, beta: float, *, root: bool, mean: bool
) -> dict[str, Any]:
    if not (isinstance(beta, (int, float)) and 1 <= beta < math.inf):
        raise argument_error("beta", "a number of at least 1", beta)
    return {
        "tv_weight": at_least_zero("tv_weight", tv_weight),
        "l1_weight": at_least_zero("l1_weight", l1_weight),
        "beta": float(beta),
        "root": root,
        "mean": mean,
    }


def _check_goal(goal: Any) -> None:
    if goal not in ("delete", "preserve"):
        raise argument_error("goal", "'delete' or 'preserve'", goal)
