"""Learns masks over images: many at once, each on its own, and nothing but the masks learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch

from pyxai._errors import argument_error, describe
from pyxai.attribution.masks.objectives import Objective, Outcome, Terms
from pyxai.attribution.masks.plan import LearningPlan
from pyxai.attribution.masks.recording import Learning, Moved, RecordedSteps
from pyxai.attribution.masks.result import LearnedMasks, chances, pictures_of
from pyxai.classifier import Classifier, Examined, Target
from pyxai.classifier.batches import images_at_once
from pyxai.classifier.borrow import borrowed, call
from pyxai.classifier.cuda_graphs import CannotRecord, has_graphs, warn_of
from pyxai.classifier.gradients import through
from pyxai.classifier.memory_format import best_format
from pyxai.ops import mask_blend, mask_penalized_step_, mask_step_

_CHECK_EVERY = 10  # steps between looks at the losses, which a GPU would have to wait for


@dataclass(frozen=True)
class MaskTask:
    """What is learned.

    Attributes:
        objective: what the model should say of the perturbed images.
        cost: what learned cells cost, as arguments of `mask_penalty`; None, nothing.
        penalty: (masks `[M, h, w]`, share of the steps done, in [0, 1)) -> what else masks cost.
            The share is a tensor without axes where steps are recorded.
        shown: what is shown of learned cells `[M, h, w]`: masks of that shape, in [0, 1].
    """

    objective: Objective
    _: KW_ONLY
    cost: Mapping[str, Any] | None = None
    penalty: Callable[[torch.Tensor, float | torch.Tensor], Terms] = lambda masks, progress: {}
    shown: Callable[[torch.Tensor], torch.Tensor] = lambda cells: cells


def learn_masks(
    examined: Examined,
    target: Target,
    task: MaskTask,
    plan: LearningPlan,
) -> LearnedMasks:
    """Learns one mask for each image and target.

    The masks do not see each other, and a chunk of them runs at a time, so that memory grows
    neither with the steps nor with the images, but for the masks, their losses and the logits.
    Gradients are taken with respect to the masks alone: the graph leads nowhere else.

    Args:
        examined: the model and images; it is left exactly as it was.
        target: see `pyxai.cam`; classes, not a function.
        task: what is learned.
        plan: how.

    Raises:
        ValueError: the target does not fit, images equal their background, the model cannot be
            differentiated, or a loss is not finite (with the step and the term).
    """
    classifier, inputs = examined.classifier, examined.inputs
    with borrowed(examined.network):
        if inputs.is_inference():
            inputs = inputs.clone()  # could not be kept for the backward pass
            examined = examined.on(inputs)
        logits = _logits(examined, plan)
        classes, single = _classes(classifier, target, logits)
        many = classes.shape[1]
        rows = torch.arange(classes.numel(), device=inputs.device, dtype=torch.int64)
        found = _Found(len(rows), plan, like=logits)
        layout = best_format(examined)
        chunk = plan.batch_size or images_at_once(inputs)
        for start in range(0, len(rows), chunk):
            some = rows[start : start + chunk]
            images = inputs[some // many] if many > 1 else inputs[start : start + chunk]
            known = logits[some // many]
            background = plan.background.of(images, some // many)
            cells = _start(plan, single, classes.shape, some).to(inputs.device)
            images = images.contiguous(memory_format=layout)
            background = background.contiguous(memory_format=layout)
            chosen = classes.flatten()[some]
            run = _Run(
                examined=examined,
                images=images,
                background=background,
                original=known,
                classes=chosen,
                rows=some,
                layout=layout,
            )
            run.learn(cells, task, plan, found)
        shape = classes.shape[:1] if single else classes.shape
        before, left_before = chances(
            logits.repeat_interleave(many, dim=0), classes.flatten(), examined.reading
        )
        return LearnedMasks(
            mask=found.masks.reshape(*shape, *found.masks.shape[1:]),
            before=before.float().reshape(shape),
            after=found.after.reshape(shape),
            losses=found.losses.reshape(-1, *shape),
            steps=found.steps.reshape(shape),
            classes=classes.reshape(shape),
            size=(inputs.shape[-2], inputs.shape[-1]),
            class_names=classifier.class_names,
            background=plan.background,
            left=torch.stack((left_before, found.left_after)).reshape(2, *shape),
            pictures=pictures_of(inputs, plan.background, classifier.preprocessing),
        )


class _Found:
    """What was learned of all masks, filled in as they finish."""

    def __init__(self, count: int, plan: LearningPlan, like: torch.Tensor) -> None:
        self.masks = like.new_zeros((count, *plan.mask_size))
        self.losses = like.new_full((plan.steps, count), torch.nan)
        self.steps = torch.zeros(count, dtype=torch.long, device=like.device)
        self.after = like.new_zeros(count)
        self.left_after = like.new_zeros(count, dtype=torch.float64)


@dataclass(kw_only=True)
class _Run:
    """One chunk of masks; `rows` are their places in the result."""

    examined: Examined
    images: torch.Tensor
    background: torch.Tensor
    original: torch.Tensor
    classes: torch.Tensor
    rows: torch.Tensor
    layout: torch.memory_format

    def learn(self, cells: torch.Tensor, task: MaskTask, plan: LearningPlan, found: _Found) -> None:
        """Learns the masks from their first cells on, and writes them down as they finish."""
        state = Learning.start(cells)
        moves = _moves(plan)
        steps = _Steps(self, task, plan, moves)
        history: list[Terms] = []
        for step in range(1, plan.steps + 1):
            terms = steps.advance(state, step)
            history.append(terms)
            found.losses[step - 1, self.rows] = torch.stack(list(terms.values())).sum(dim=0)
            if step % _CHECK_EVERY and step < plan.steps:
                continue
            self._check(history, step)
            history.clear()
            done = _settled(found.losses[:step, self.rows], plan.tolerance)
            if step == plan.steps:
                done = torch.ones_like(done)
            if bool(done.any()):
                steps.forget()  # what was recorded is of other masks
                self._finish(done, state.cells, task, step, found)
                left = ~done
                state = state[left]
                self._reduce(left)
            if not len(self.rows):
                return

    def gradients(
        self, cells: torch.Tensor, task: MaskTask, progress: float | torch.Tensor, moved: Moved
    ) -> tuple[Terms, torch.Tensor]:
        """The terms of the loss without the cost of the cells, and the gradients of their sum."""
        leaf = cells.detach().requires_grad_()
        with torch.enable_grad(), through(self.examined):
            shown = task.shown(leaf)
            logits = self._call(self._blend(moved(self.images), shown, moved(self.background)))
            if not logits.requires_grad:
                raise ValueError(
                    "model: expected logits that depend on the images through differentiable "
                    "operations, got none (does the model itself run under no_grad or "
                    "inference_mode, or was it loaded inside inference_mode?)"
                )
            outcome = Outcome(logits, self.original, self.classes, self.examined.reading)
            terms = {**task.objective(outcome), **task.penalty(shown, progress)}
            total = torch.stack(list(terms.values())).sum()
        (gradients,) = torch.autograd.grad(total, leaf)
        return {name: term.detach() for name, term in terms.items()}, gradients

    def _blend(
        self, images: torch.Tensor, masks: torch.Tensor, background: torch.Tensor
    ) -> torch.Tensor:
        return mask_blend(images, masks, background, memory_format=self.layout)

    def _call(self, images: torch.Tensor) -> torch.Tensor:
        returned = call(self.examined.classifier.model, images, ours=True)  # blended for this call
        return self.examined.reading.logits(returned, len(images)).to(torch.float32)

    def _check(self, history: list[Terms], last: int) -> None:
        """Refuses losses that are not finite.

        Raises:
            ValueError: naming the step, the term and the masks.
        """
        if all(bool(torch.isfinite(term).all()) for terms in history for term in terms.values()):
            return
        for step, terms in enumerate(history, last - len(history) + 1):
            for name, term in terms.items():
                bad = self.rows[~torch.isfinite(term)].tolist()
                if bad:
                    raise ValueError(
                        f"losses: expected finite ones, got NaN or infinity in the term {name!r} "
                        f"at step {step}, in masks {bad[:8]}{'...' if len(bad) > 8 else ''}"
                    )

    def _finish(
        self, done: torch.Tensor, cells: torch.Tensor, task: MaskTask, step: int, found: _Found
    ) -> None:
        rows = self.rows[done]
        masks = task.shown(cells[done])
        logits = self._call(self._blend(self.images[done], masks, self.background[done]))
        found.masks[rows] = masks
        found.steps[rows] = step
        after, found.left_after[rows] = chances(logits, self.classes[done], self.examined.reading)
        found.after[rows] = after.float()

    def _reduce(self, left: torch.Tensor) -> None:
        self.images, self.background = self.images[left], self.background[left]
        self.original, self.classes = self.original[left], self.classes[left]
        self.rows = self.rows[left]


class _Steps:
    """Does the steps of one chunk, one by one or by replaying a recorded one."""

    def __init__(
        self, run: _Run, task: MaskTask, plan: LearningPlan, moves: torch.Tensor | None
    ) -> None:
        self._run, self._task, self._plan, self._moves = run, task, plan, moves
        self._recorded: RecordedSteps | None = None
        self._record = plan.graphs and has_graphs(run.images.device)

    def advance(self, state: Learning, step: int) -> Terms:
        """Does the step of that number, from 1."""
        plan = self._plan
        if self._recorded is None and self._record and plan.steps - step >= _CHECK_EVERY:
            try:
                self._recorded = RecordedSteps(self._one, state, self._moves, plan.steps, step)
            except CannotRecord as error:
                warn_of(error)
                self._record = False
        if self._recorded is not None:
            return self._recorded()
        return self._one(state, step, (step - 1) / plan.steps, self._movement(step))

    def forget(self) -> None:
        """Gives the recording back."""
        if self._recorded is not None:
            self._recorded.close()
            self._recorded = None

    def _one(
        self,
        state: Learning,
        number: int | torch.Tensor,
        progress: float | torch.Tensor,
        moved: Moved,
    ) -> Terms:
        terms, gradients = self._run.gradients(state.cells, self._task, progress, moved)
        tensors = (state.cells, gradients, state.first, state.second)
        rate, cost = self._plan.learning_rate, self._task.cost
        if cost is None:
            mask_step_(*tensors, number, learning_rate=rate)
            return terms
        costs = mask_penalized_step_(*tensors, number, learning_rate=rate, **cost)
        return {**terms, "penalty": costs}

    def _movement(self, step: int) -> Moved:
        if self._moves is None:
            return lambda pictures: pictures
        down, right = self._moves[step - 1].tolist()
        return lambda pictures: pictures.roll((down, right), dims=(2, 3))


def _moves(plan: LearningPlan) -> torch.Tensor | None:
    """By how many pixels images and background move down and right in each step, `[steps, 2]`."""
    if not plan.jitter:
        return None
    draw, most = torch.Generator(device="cpu").manual_seed(plan.seed), plan.jitter
    drawn = [
        torch.randint(-most, most + 1, (2,), generator=draw, dtype=torch.int64, device="cpu")
        for _ in range(plan.steps)
    ]
    return torch.stack(drawn)


def _settled(losses: torch.Tensor, tolerance: float | None) -> torch.Tensor:
    """Which masks `[M]` have stopped getting better, of their losses `[steps, M]`."""
    if tolerance is None or len(losses) < 2 * _CHECK_EVERY:
        return torch.zeros(losses.shape[1], dtype=torch.bool, device=losses.device)
    recent = losses[-_CHECK_EVERY:].mean(dim=0)
    earlier = losses[-2 * _CHECK_EVERY : -_CHECK_EVERY].mean(dim=0)
    return earlier - recent < tolerance


def _logits(examined: Examined, plan: LearningPlan) -> torch.Tensor:
    """The logits of the images, `[N, K]` float32; looks at the images on the way.

    Raises:
        ValueError: there are no images, images equal their background, or there is one class.
    """
    inputs = examined.inputs
    if not len(inputs):
        raise argument_error("images", "at least one image", inputs)
    chunk = plan.batch_size or images_at_once(inputs)
    found, same = [], []
    for start in range(0, len(inputs), chunk):
        images = inputs[start : start + chunk]
        places = torch.arange(start, start + len(images), device=inputs.device, dtype=torch.int64)
        change = (images - plan.background.of(images, places)).abs().flatten(1).amax(dim=1)
        scale = images.abs().flatten(1).amax(dim=1).clamp(min=1)
        same += places[change <= 1e-5 * scale].tolist()
        found.append(examined.on(images).logits().to(torch.float32))
    if same:
        several = f"images {same[:8]}{'...' if len(same) > 8 else ''}"
        raise ValueError(
            "images: expected pictures that differ from their background, for a mask to choose "
            f"between, got {several}, which equal it (a blurred constant image is itself)"
        )
    return torch.cat(found)


def _classes(
    classifier: Classifier, target: Target, logits: torch.Tensor
) -> tuple[torch.Tensor, bool]:
    """The targets `[N, k]`, and whether the result has no axis for them."""
    if callable(target):
        expected = "None, classes or 'all' (masks need probabilities of classes)"
        raise ValueError(f"target: expected {expected}, got {describe(target)}")
    resolved = classifier.resolve_target(target, logits)
    return resolved.index.expand(len(logits), -1), resolved.single


def _start(plan: LearningPlan, single: bool, shape: torch.Size, rows: torch.Tensor) -> torch.Tensor:
    """The first cells of some masks, `[M, h, w]`, of their own memory.

    Raises:
        ValueError: there are not as many as masks.
    """
    start, expected = plan.start, (*(shape[:1] if single else shape), *plan.mask_size)
    if start.ndim == 2:
        return start.repeat(len(rows), 1, 1)
    if start.shape != expected:
        raise argument_error("start", f"a tensor {[*plan.mask_size]} or {[*expected]}", start)
    return start.reshape(-1, *plan.mask_size)[rows.cpu()].clone()
