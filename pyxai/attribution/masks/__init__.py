"""What stands in a classifier's way, and other questions that a learned mask answers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, overload

import torch
from torch import nn

from pyxai._errors import argument_error, settings_or
from pyxai.attribution.masks.extremal import area_penalty, smooth_maximum
from pyxai.attribution.masks.learning import MaskTask, learn_masks
from pyxai.attribution.masks.objectives import (
    lower_target,
    non_target_factors,
    raise_target,
    target_factors,
    target_logit,
)
from pyxai.attribution.masks.plan import Start, learning_plan
from pyxai.attribution.masks.result import LearnedMasks
from pyxai.attribution.masks.settings import (
    ExtremalSettings,
    MaskSettings,
    MeaningfulSettings,
)
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
    background: torch.Tensor | None = None,
    start: Start = "random",
    seed: int = 0,
    batch_size: int | None = None,
    graphs: bool = False,
    settings: MaskSettings | None = None,
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
        background: what is shown in place of hidden pixels, as the model's input: pictures
            `[N or 1, C, H, W]` or colours `[N or 1, C, 1, 1]`; None, the image itself, blurred.
        start: the first mask: "random" (uniform in [0, 1], drawn from the seed, the same for all
            images and targets), "ones", a number, or a tensor `[h, w]`, `[N, h, w]` or, for k
            targets, `[N, k, h, w]`.
        seed: of the start; the global random state is neither used nor changed.
        batch_size: masks of one pass; by default as many as suit cache and memory. Masks do not
            see each other: they depend on it only by the rounding of the model's arithmetic.
        graphs: on a CUDA device, record a step as a CUDA graph and replay it, which spares the host
            nearly all of its work; elsewhere nothing changes. A model that cannot be recorded
            runs as usual, with a RuntimeWarning.
        settings: weights, steps, learning rate, the mask's size and the blur; None, the defaults
            of `pyxai.MaskSettings`.

    Returns:
        A `LearnedMasks`: `mask`, `heatmap`, `before`, `after`, `improvement()`, `area()`, ...

    Raises:
        ValueError: an argument does not fit (its name, what was expected, what was got), the model
            has one class or cannot be differentiated, an image equals its background, or a loss is
            not finite (with the step and the term).
        pyxai.images.ImageError: photos that cannot be used, all of them named.
    """
    settings = settings_or(MaskSettings(), settings)
    objectives = {
        None: raise_target,
        "target": target_factors(settings.gamma),
        "non_target": non_target_factors(settings.gamma),
    }
    if factor not in objectives:
        raise argument_error("factor", "'target', 'non_target' or None", factor)
    classifier = as_classifier(model)
    inputs = classifier.to_input(images)
    plan = learning_plan(
        inputs,
        settings,
        background=background,
        start=start,
        seed=seed,
        batch_size=batch_size,
        graphs=graphs,
        tolerance=settings.tolerance,
    )
    task = MaskTask(objectives[factor], cost=settings.cost)
    return learn_masks(Examined(classifier, inputs), target, task, plan)


def meaningful_perturbation(
    model: nn.Module | Classifier,
    images: Images,
    target: Target = None,
    *,
    goal: Goal = "delete",
    background: torch.Tensor | None = None,
    start: Start = "ones",
    seed: int = 0,
    batch_size: int | None = None,
    graphs: bool = False,
    settings: MeaningfulSettings | None = None,
) -> LearnedMasks:
    """The smallest region whose loss destroys a class, or that alone preserves it.

    Fong and Vedaldi 2017, arXiv:1704.03296. docs/learned_masks.md says what is done here and when
    to trust it.

    Args:
        model: any classifying `nn.Module`, or a `Classifier`.
        images: the model's input or photos.
        target: the class; None, the top class of each image.
        goal: "delete" hides as little as possible such that the class becomes improbable;
            "preserve" shows as little as possible such that it stays probable.
        background: see `undesirable_pixels`.
        start: see `undesirable_pixels`; from an image that is all hidden few find back.
        seed: of the moves of the image and of a random start.
        batch_size: see `undesirable_pixels`.
        graphs: see `undesirable_pixels`.
        settings: weights, steps, learning rate, jitter, the mask's size and the blur; None, the
            defaults of `pyxai.MeaningfulSettings`.

    Returns:
        A `LearnedMasks`. The heat map shows what is hidden for both goals: for "preserve", what is
        needed is where it is 0, and `mask` 1.

    Raises:
        ValueError, pyxai.images.ImageError: see `undesirable_pixels`.
    """
    settings = settings_or(MeaningfulSettings(), settings)
    _check_goal(goal)
    classifier = as_classifier(model)
    inputs = classifier.to_input(images)
    plan = learning_plan(
        inputs,
        settings,
        background=background,
        start=start,
        seed=seed,
        batch_size=batch_size,
        graphs=graphs,
        tolerance=settings.tolerance,
        jitter=settings.jitter,
    )
    if goal == "delete":
        task = MaskTask(lower_target, cost=settings.cost)
    else:  # to show costs what it costs to hide, so the cells say what is hidden
        task = MaskTask(raise_target, cost=settings.cost, shown=lambda cells: 1 - cells)
        plan = replace(plan, start=1 - plan.start)
    return learn_masks(Examined(classifier, inputs), target, task, plan)


class _ExtremalOptions(TypedDict, total=False):
    goal: Goal
    background: torch.Tensor | None
    start: Start
    seed: int
    batch_size: int | None
    graphs: bool
    settings: ExtremalSettings | None


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
    background: torch.Tensor | None = None,
    start: Start = 0.5,
    seed: int = 0,
    batch_size: int | None = None,
    graphs: bool = False,
    settings: ExtremalSettings | None = None,
) -> LearnedMasks | dict[float, LearnedMasks]:
    """The region of a given area that says most of a class, alone or by its absence.

    Fong, Patrick and Vedaldi 2019, arXiv:1910.08485: instead of a weight for the area there is the
    area itself. docs/learned_masks.md says where this differs from the paper.

    Args:
        model: any classifying `nn.Module`, or a `Classifier`.
        images: the model's input or photos.
        target: the class; None, the top class of each image.
        areas: the share of the image to preserve or delete, in (0, 1). A list gives a dict of
            results, by area.
        goal: "preserve" shows that share such that the class's logit is highest; "delete" hides it
            such that the logit is lowest.
        background: see `undesirable_pixels`.
        start: see `undesirable_pixels`.
        seed: of a random start.
        batch_size: see `undesirable_pixels`.
        graphs: see `undesirable_pixels`.
        settings: steps, learning rate, smoothing, the weight of the area, the mask's size and the
            blur; None, the defaults of `pyxai.ExtremalSettings`.

    Returns:
        A `LearnedMasks`, or a dict of these.

    Raises:
        ValueError, pyxai.images.ImageError: see `undesirable_pixels`.
    """
    settings = settings_or(ExtremalSettings(), settings)
    _check_goal(goal)
    shares = [areas] if isinstance(areas, (int, float)) else list(areas)
    if not shares or not all(isinstance(area, (int, float)) and 0 < area < 1 for area in shares):
        raise argument_error("areas", "a number in (0, 1), or a list of these", areas)
    classifier = as_classifier(model)
    inputs = classifier.to_input(images)
    plan = learning_plan(
        inputs,
        settings,
        background=background,
        start=start,
        seed=seed,
        batch_size=batch_size,
        graphs=graphs,
    )
    preserve = goal == "preserve"
    objective = target_logit(1 if preserve else -1)
    masks, examined = {}, Examined(classifier, inputs)
    for area in shares:
        penalty = area_penalty(area if preserve else 1 - area, settings.area_weight)
        shown = smooth_maximum(settings.smoothing, of_hidden=not preserve)
        task = MaskTask(objective, penalty=penalty, shown=shown)
        masks[area] = learn_masks(examined, target, task, plan)
    return next(iter(masks.values())) if isinstance(areas, (int, float)) else masks


def _check_goal(goal: Any) -> None:
    if goal not in ("delete", "preserve"):
        raise argument_error("goal", "'delete' or 'preserve'", goal)
