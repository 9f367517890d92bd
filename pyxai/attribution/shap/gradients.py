"""Expected gradients: Shapley values by integrating gradients from background to image."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pyxai.attribution.shap.backgrounds import mean_outputs
from pyxai.attribution.shap.model import Explained
from pyxai.classifier.gradients import through

_BELIEVED = 4.0  # standard errors up to which a gap is one of sampling
_FEWEST = 4  # samples for a regression


@dataclass(frozen=True)
class Draw:
    """At which points gradients are taken; the same for all images.

    Samples that follow each other on the way of one background stand side by side.

    Attributes:
        which: the background of each sample, `[S]` int64.
        places: where on the way from the background to the image, 0 to 1, `[S]` float64.
        weights: of the samples, `[S]` float64; their sum is 1.
        pairs: what the squared difference of a sample and the one before it, each times its
            weight, adds to the variance of the sum, `[S]` float64; 0 where they do not belong
            together.
    """

    which: torch.Tensor
    places: torch.Tensor
    weights: torch.Tensor
    pairs: torch.Tensor


@dataclass(frozen=True)
class Integral:
    """What the integration gave.

    Attributes:
        values: `[N, k, C, H, W]` float32.
        error: standard error of the values, of their shape.
        base: the mean output on the background, `[N, k]` float64.
        gap: base + sum of values - outputs, `[N, k]` float64, as the samples left it.
    """

    values: torch.Tensor
    error: torch.Tensor
    base: torch.Tensor
    gap: torch.Tensor


def drawn(samples: int, backgrounds: int, seed: int) -> Draw:
    """Points for so many samples.

    Each background counts alike, and has as many samples as any other, or one more, with equal
    steps between them. Where the steps begin differs: together the backgrounds cover the whole way
    evenly, and which one begins where is drawn. So one background alone gets the midpoint rule.
    With fewer than two samples for each background, those that get one are drawn, and all samples
    lie on one way.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    order = torch.randperm(backgrounds, generator=generator, device="cpu")
    rounds = samples // backgrounds
    if rounds < 2:
        again = torch.randperm(backgrounds, generator=generator, device="cpu")
        steps = (torch.arange(samples, dtype=torch.float64, device="cpu") + 0.5) / samples
        pairs = torch.full_like(steps, samples / (2 * (samples - 1)))
        pairs[0] = 0
        which = torch.cat([order, again])[:samples]
        return Draw(which, steps, torch.full_like(steps, 1 / samples), pairs)
    begins = (
        torch.randperm(backgrounds, generator=generator, device="cpu") + 0.5
    ).double() / backgrounds
    counts = torch.full((backgrounds,), rounds, dtype=torch.int64, device="cpu")
    counts[order[: samples % backgrounds]] += 1
    which = torch.arange(backgrounds, dtype=torch.int64, device="cpu").repeat_interleave(counts)
    turn = (
        torch.arange(samples, dtype=torch.int64, device="cpu") - (counts.cumsum(0) - counts)[which]
    )
    many = counts[which].double()
    return Draw(
        which,
        (turn + begins[which]) / many,
        1 / (backgrounds * many),
        torch.where(turn > 0, many / (2 * (many - 1)), 0.0),
    )


def integrate(model: Explained, background: torch.Tensor, draw: Draw, correct: bool) -> Integral:
    """Expected gradients of all images.

    The values of one sample add up to the derivative g of the output along the way, and the mean of
    g is known: outputs - base. So g can serve as a control variate: values are moved along their
    regression on g until they add up. Where the gap is more than sampling explains, as by outputs
    that jump, they are left as they are, and so they are with fewer than four samples.

    Args:
        model: what is explained.
        background: `[B, C, H, W]` for all images, or `[N, 1, C, H, W]`, one for each.
        draw: where gradients are taken.
        correct: whether to use the control variate.

    Source: the error is that of successive differences: Wolter, "Introduction to variance
    estimation" (1985), 7.2, v2; control variates: Owen, "Monte Carlo theory, methods and examples"
    (2013), 8.9.
    """
    images, samples, targets = model.images, len(draw.which), model.classes.shape[1]
    own = background.ndim == 5
    which, places = draw.which.to(images.device), draw.places.to(images.device)
    weights = draw.weights.to(images.device, torch.float32)
    pairs = weights**2 * draw.pairs.to(images.device, torch.float32)
    sums = _Sums(images, targets)
    last = len(images) * samples
    for start in range(0, last, model.batch_size):
        rows = torch.arange(
            start, min(start + model.batch_size, last), device=images.device, dtype=torch.int64
        )
        image, sample = rows // samples, rows % samples
        other = background[image, which[sample]] if own else background[which[sample]]
        way = images[image] - other
        points = torch.addcmul(other, places[sample].to(way.dtype)[:, None, None, None], way)
        del other
        gradients = _gradients(model, points, image)
        del points
        for target, gradient in enumerate(gradients):
            found = way.float() * gradient.float()
            sums.add(target, start, found.flatten(1), weights, pairs)
    shape = (len(images), targets, *images.shape[1:])
    base = _base(model, background)
    gap = base + sums.total.double().sum(dim=2) - model.outputs
    values, error = sums.total, sums.squares.sqrt()
    if correct and samples >= _FEWEST:
        values, error = sums.corrected(gap)
    return Integral(values.reshape(shape), error.reshape(shape), base, gap)


class _Sums:
    """Sums over the samples of each image and target, `[N, k, P]` for P numbers of an image.

    Attributes:
        total: of values.
        squares: of squared differences of neighbours: the variance of the total.
        cross: of their products with the differences of g, the sum of a sample's values.
        of_sum: of squared differences of g, `[N, k]`: the variance of its total.
    """

    def __init__(self, images: torch.Tensor, targets: int) -> None:
        shape = (len(images), targets, images[0].numel())
        new = images.new_zeros
        self.total, self.squares, self.cross = (new(shape, dtype=torch.float32) for _ in range(3))
        self.of_sum = new(shape[:2], dtype=torch.float32)
        self._last = new(shape[1:], dtype=torch.float32)

    def add(
        self,
        target: int,
        start: int,
        found: torch.Tensor,
        weights: torch.Tensor,
        pairs: torch.Tensor,
    ) -> None:
        """The next samples of a target.

        Args:
            target: its number.
            start: how many samples came before, those of earlier images included.
            found: their values, `[M, P]`.
            weights: of the samples of an image, `[S]`.
            pairs: what the squared difference to the sample before counts, `[S]`.
        """
        steps = torch.empty_like(found)
        torch.sub(found[0], self._last[target], out=steps[0])
        torch.sub(found[1:], found[:-1], out=steps[1:])
        self._last[target] = found[-1]
        slopes, row = steps.sum(dim=1), 0
        while row < len(found):
            place, first = divmod(start + row, len(weights))
            end = min(row + len(weights) - first, len(found))
            part, samples = slice(row, end), slice(first, first + end - row)
            step, slope, pair = steps[part], slopes[part], pairs[samples]
            self.total[place, target] += weights[samples] @ found[part]
            self.cross[place, target] += (pair * slope) @ step
            self.of_sum[place, target] += pair @ slope**2
            self.squares[place, target] += pair @ step.square_()
            row = end

    def corrected(self, gap: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Values that add up, and their standard error.

        Args:
            gap: how much too large the sums of the totals are, `[N, k]`.
        """
        explained = (self.of_sum > 0) & (gap**2 <= _BELIEVED**2 * self.of_sum)
        inverse = torch.where(explained, 1 / self.of_sum, 0.0)
        variance = self.squares - self.cross**2 * inverse[:, :, None]
        slope = inverse * gap.float()
        return self.total - self.cross * slope[:, :, None], variance.clamp_(min=0).sqrt_()


def _gradients(model: Explained, points: torch.Tensor, image: torch.Tensor) -> list[torch.Tensor]:
    """Of each target the gradient of its output by the points; one forward pass for all."""
    leaf = points.detach().requires_grad_()
    with torch.enable_grad(), through(model.examined):
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
        return mean_outputs(model, background)[model.classes]
    flat, count = background.flatten(0, 1), background.shape[1]
    places = torch.arange(len(background), device=flat.device, dtype=torch.int64).repeat_interleave(
        count
    )
    parts = zip(
        torch.split(flat, model.batch_size), torch.split(places, model.batch_size), strict=True
    )
    found = torch.cat([model.of(images, some).double() for images, some in parts])
    return found.reshape(len(background), count, -1).mean(dim=1)
