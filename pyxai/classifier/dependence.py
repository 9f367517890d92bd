"""On which of the tensors of a pass what the network returns depends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from pyxai._errors import REFUSALS, passes_through
from pyxai.classifier.borrow import borrowed, call
from pyxai.classifier.forcing import WithGradients, is_about_inference
from pyxai.classifier.layout import Layout
from pyxai.classifier.points import Point, at_points
from pyxai.classifier.survey import Output

# The layer looked for is one of the last; gradients of early, large layers are seldom needed.
_TAIL = 64
_TRIED = 8  # layers that are changed one by one, where there are no gradients
_MOST_PATCHES = 0.5


def noise_like(images: torch.Tensor) -> torch.Tensor:
    """One image of noise of the size of images, the same at every call."""
    generator = torch.Generator(device="cpu").manual_seed(0)
    shape = (1, *images.shape[1:])
    noise = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
    return noise.to(images)


def last_that_matters(
    network: nn.Module,
    probe: torch.Tensor,
    outputs: Sequence[Output],
    score: Callable[[Any], torch.Tensor],
    image: torch.Tensor | None = None,
) -> tuple[Output, bool]:
    """The last of some outputs that the score depends on.

    It must depend on some position of a map, and on more than half of the patches of tokens: the
    last block before a class token is read passes that token alone. Weights of positions do not
    count, such as a softmax over these: they say where, and not what.

    Args:
        network: the network.
        probe: one image; what is run is noise of its shape, so that a black photo does not decide
            for all that follow.
        outputs: with positions, in order of execution; at least one.
        score: what the network returned -> a tensor.
        image: the image in whose pass the outputs arose; it is run where noise takes another way.

    Returns:
        The output, and whether that will hold: not for a head of zeros, which nothing depends on
        before it is trained. Where nothing can be told, the last output.
    """
    noise = noise_like(probe)
    if image is not None and not _runs(network, noise, outputs[-1]):
        noise = image  # another branch
    outputs = _wide(outputs)
    shares: dict[Output, float] = {}
    # Nearly always it is the last one; alone, it costs the gradients of the head.
    starts = {len(outputs) - 1, max(0, len(outputs) - _TAIL), 0}
    for start in sorted(starts, reverse=True):
        some = outputs[start:]
        shares = _shares(network, noise, some, score)
        for output in reversed(some):
            if shares.get(output, 0.0) > _least(output):
                return output, True
    if shares:
        return _reached(outputs, shares), any(shares.values())
    changed = _last_that_changes(network, noise, outputs[-_TRIED:], score)
    return (outputs[-1], True) if changed is None else (changed, True)


def _runs(network: nn.Module, image: torch.Tensor, output: Output) -> bool:
    """Whether an output arises in the pass of an image."""
    seen = []
    with borrowed(network), at_points(network, [output.point], lambda *_: seen.append(1)):
        try:
            call(network, image)
        except REFUSALS as error:
            if passes_through(error):
                raise
    return bool(seen)


def _wide(outputs: Sequence[Output]) -> Sequence[Output]:
    """Those of several channels, if there are any: one channel is a weight of positions."""
    some = []
    for output in outputs:
        nchw = output.layout is not None and output.layout.kind == "nchw"
        if output.shape[1 if nchw else -1] > 1:
            some.append(output)
    return some or outputs


def _cancels(gradient: torch.Tensor) -> bool:
    """Whether gradients `[1, C, h, w]` add up to nothing over positions, as before a softmax."""
    values = gradient.float().flatten(2)
    sizes = values.abs().sum(dim=2)
    return values.shape[2] > 1 and bool((values.sum(dim=2).abs() <= 1e-4 * sizes).all())


def _least(output: Output) -> float:
    layout = output.layout
    return _MOST_PATCHES if layout is not None and layout.kind == "tokens" else 0.0


def _reached(outputs: Sequence[Output], shares: Mapping[Output, float]) -> Output:
    """The last output on a way to the score, although its gradient is 0 just now."""
    return next((each for each in reversed(outputs) if each in shares), outputs[-1])


def _shares(
    network: nn.Module,
    noise: torch.Tensor,
    outputs: Sequence[Output],
    score: Callable[[Any], torch.Tensor],
) -> dict[Output, float]:
    """The share of positions with a gradient of each output that is on a way to the score."""
    shares = {}
    for output, gradient in reached(network, noise, outputs, score).items():
        if output.layout is not None:
            each = output.layout.features(gradient)
            there = each.ne(0).any(dim=1)
            shares[output] = 0.0 if _cancels(each) else float(there.to(torch.float32).mean())
    return shares


def reached(
    network: nn.Module,
    noise: torch.Tensor,
    outputs: Sequence[Output],
    score: Callable[[Any], torch.Tensor],
    *,
    forced: bool = False,
) -> dict[Output, torch.Tensor]:
    """The outputs on a way to the score, with gradients; none where there are no gradients.

    Args:
        network: the network.
        noise: one image.
        outputs: those in question.
        score: what the network returned -> a tensor.
        forced: also through what is detached or under `no_grad`; else that is done only if there
            are no gradients otherwise.
    """
    for mode in (WithGradients(), None) if forced else (None, WithGradients()):
        try:
            found = _gradients(network, noise, outputs, score, mode)
        except RuntimeError as error:
            if passes_through(error):
                raise
            if forced or is_about_inference(error):
                continue
            return {}  # the model has operations without gradients
        if found:
            return found
    return {}


def _gradients(
    network: nn.Module,
    noise: torch.Tensor,
    outputs: Sequence[Output],
    score: Callable[[Any], torch.Tensor],
    mode: WithGradients | None,
) -> dict[Output, torch.Tensor]:
    """The gradient of each output that is on a way to the score.

    Each counts from where it is on, not what was made of it before.
    """
    by_name = {output.point.name: output for output in outputs}
    starts: dict[str, torch.Tensor] = {}

    def pass_on(point: Point, tensor: torch.Tensor) -> torch.Tensor | None:
        if not tensor.is_floating_point():
            return None  # a layer that runs again and then gives something else
        if mode is not None:
            mode.armed = True
        with torch.inference_mode(False), torch.enable_grad():
            if not tensor.requires_grad:
                tensor = tensor.detach().clone().requires_grad_()
            passed = tensor.clone()
        torch.set_grad_enabled(True)  # until the pass ends
        starts[point.name] = passed  # a layer that runs again counts as it ran last
        return passed

    generator = torch.Generator(device="cpu").manual_seed(0)
    # Noise may run a layer less often than the image did: each run is looked at, the last counts.
    points = [output.point for output in outputs]
    points = [replace(point, run=1) if point.last else point for point in points]
    with borrowed(network), mode or nullcontext(), at_points(network, points, pass_on):
        returned = call(network, noise)
        with torch.enable_grad():
            found = score(returned)
        weights = torch.randn(found.shape, generator=generator, dtype=torch.float32, device="cpu")
        with torch.enable_grad():
            total = (weights.to(found) * found).mean()
    if not total.requires_grad:
        return {}
    gradients = torch.autograd.grad(total, list(starts.values()), allow_unused=True)
    pairs = zip(starts, gradients, strict=True)
    return {by_name[name]: each for name, each in pairs if each is not None}


def _last_that_changes(
    network: nn.Module,
    noise: torch.Tensor,
    outputs: Sequence[Output],
    score: Callable[[Any], torch.Tensor],
) -> Output | None:
    """The last output that the score reacts to, for networks that cannot be differentiated."""
    with borrowed(network):
        before = score(call(network, noise))
        for output in reversed(outputs):

            def change(
                point: Point, tensor: torch.Tensor, layout: Layout | None = output.layout
            ) -> torch.Tensor:
                # Class tokens stay: they matter to the last layer, and the patches need not.
                changed = tensor.flip(-1) * 2 + 1
                if layout is not None and layout.prefix:
                    axis = 1 if layout.batch_first else 0
                    kept = tensor.narrow(axis, 0, layout.prefix)
                    rest = tensor.shape[axis] - layout.prefix
                    changed = torch.cat([kept, changed.narrow(axis, layout.prefix, rest)], axis)
                return changed

            try:
                with at_points(network, [output.point], change):
                    after = score(call(network, noise))
            except REFUSALS as error:
                if passes_through(error):
                    raise
                continue
            if after.shape == before.shape and not torch.equal(after, before):
                return output
    return None
