"""The mask operators against eager PyTorch: blending, its gradient, the penalty, the step.

    pytest benchmarks/bench_mask.py --benchmark-json=results.json   # every row, pytest-benchmark
    python benchmarks/bench_mask.py [--json FILE]                   # the ratios, both sides in turn

Rows of one group do the same work. `blend`: masks over one photo, into a tensor used again.
`gradient`: photos blended with their backgrounds under masks, and the gradient by the masks of a
loss whose gradient by the blend is given. `penalty`: with its gradient, both through autograd;
`slopes`: the same, ours from the kernel itself. `step`: against the fused Adam and a clamp.
`penalized step`: the gradient of a loss is given, the penalty's is added, then a step; `... apart`:
the same against the operators of the penalty and the step.
"""

from __future__ import annotations

import functools
import itertools

import pytest
import torch
import workloads

from pyxai.ops import (
    mask_blend,
    mask_penalized_step_,
    mask_penalty,
    mask_step_,
    reference,
)
from pyxai.ops.learn import PENALTY

# masks, side of the masks, side of the photo
SHAPES = [(1, 7, 224), (32, 7, 224), (32, 14, 224), (16, 25, 800)]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
BACKGROUNDS = ["none", "colour", "picture"]


def blend_sides(shape, dtype, layout, background):
    """The ways to blend one photo under several masks."""
    count, low, size = shape
    masks = torch.rand(count, low, low)
    photo = torch.randn(1, 3, size, size).to(dtype).contiguous(memory_format=layout)
    behind = {
        "none": None,
        "colour": torch.randn(1, 3, 1, 1).to(dtype),
        "picture": torch.randn_like(photo),
    }[background]
    out = torch.empty((count, 3, size, size), dtype=dtype, memory_format=layout)
    return {
        "pyxai": lambda: mask_blend(photo, masks, behind, out=out),
        "eager": lambda: workloads.eager_blend(photo, masks, behind),
    }


# masks, photos, side of the masks, side of the photos
GRADIENT_SHAPES = [(1, 1, 28, 224), (32, 1, 28, 224), (32, 32, 28, 224), (32, 32, 224, 224)]
# masks, side of the masks
CELL_SHAPES = [(1, 28), (32, 28), (256, 28), (1, 224), (32, 224)]
PENALTIES = [(2.0, True), (3.0, True), (2.5, True), (2.0, False), (3.0, False)]


def gradient_sides(shape, dtype, layout):
    """Forward and backward through blending."""
    count, photos, low, size = shape
    masks = torch.rand(count, low, low, requires_grad=True)
    images, behind = (
        torch.randn(photos, 3, size, size).to(dtype).contiguous(memory_format=layout)
        for _ in range(2)
    )
    gradients = torch.randn(count, 3, size, size).to(dtype).contiguous(memory_format=layout)

    def both_ways(blend):
        return lambda: torch.autograd.grad(blend(), masks, gradients)

    return {
        "pyxai": both_ways(lambda: mask_blend(images, masks, behind, memory_format=layout)),
        "eager": both_ways(lambda: workloads.eager_blend(images, masks, behind)),
    }


def penalty_sides(shape, beta, root):
    """The penalty of each mask, and the gradient of their sum."""
    count, side = shape
    masks = torch.rand(count, side, side, requires_grad=True)
    ones = torch.ones(count)
    numbers = {"tv_weight": 1.7, "l1_weight": 3.0, "beta": beta, "root": root, "mean": True}
    return {
        "pyxai": lambda: torch.autograd.grad(mask_penalty(masks, **numbers), masks, ones),
        "eager": lambda: torch.autograd.grad(reference.mask_penalty(masks, **numbers), masks, ones),
    }


def slopes_sides(shape, beta, root):
    """The same, but ours is the operator that autograd calls."""
    masks = torch.rand(*shape, shape[-1])
    operator, numbers = PENALTY.kernel, (1.7, 3.0, beta, root, True)
    return {
        "kernel": lambda: operator(masks, *numbers),
        "eager": penalty_sides(shape, beta, root)["eager"],
    }


def step_sides(shape):
    """Adam, then a clamp."""
    count, side = shape
    start, gradients = torch.rand(2, count, side, side)
    masks, first, second = start.clone(), *torch.zeros(2, count, side, side)
    theirs = torch.nn.Parameter(start.clone())
    theirs.grad = gradients
    optimizer = torch.optim.Adam([theirs], lr=0.1, fused=True)

    @torch.no_grad()
    def fused():
        optimizer.step()
        theirs.clamp_(0, 1)

    return {
        "pyxai": lambda: mask_step_(masks, gradients, first, second, 1, learning_rate=0.1),
        "fused": fused,
    }


def penalized_step_sides(shape, other):
    """The gradient of the penalty is added to a given one, then a step; `other`: eager or apart."""
    count, side = shape
    start, gradients = torch.rand(2, count, side, side)
    masks, first, second = start.clone(), *torch.zeros(2, count, side, side)
    numbers = {"tv_weight": 1.7, "l1_weight": 3.0, "beta": 3.0, "root": False, "mean": True}
    theirs = torch.nn.Parameter(start.clone())
    moments = torch.zeros(2, count, side, side)
    optimizer = torch.optim.Adam([theirs], lr=0.1, fused=True)

    def eager():
        costs = reference.mask_penalty(theirs, **numbers)
        (slopes,) = torch.autograd.grad(costs.sum(), theirs)
        theirs.grad = slopes.add_(gradients)
        optimizer.step()
        with torch.no_grad():
            theirs.clamp_(0, 1)

    def apart():
        costs = mask_penalty(theirs, **numbers)
        (slopes,) = torch.autograd.grad(costs.sum(), theirs)
        mask_step_(theirs.detach(), slopes.add_(gradients), *moments, 1, learning_rate=0.1)

    state = masks, gradients, first, second, 1
    return {
        "pyxai": lambda: mask_penalized_step_(*state, learning_rate=0.1, **numbers),
        other: {"eager": eager, "apart": apart}[other],
    }


# ---- pytest-benchmark ----


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("side", ["pyxai", "eager"])
def bench_blend(benchmark, threads, shape, dtype, layout, background, side):
    benchmark.group = f"blend {shape} {dtype} {layout} {background} threads={threads}"
    benchmark(blend_sides(shape, DTYPES[dtype], FORMATS[layout], background)[side])


@pytest.mark.parametrize("shape", GRADIENT_SHAPES, ids=str)
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("side", ["pyxai", "eager"])
def bench_gradient(benchmark, threads, shape, dtype, layout, side):
    benchmark.group = f"gradient {shape} {dtype} {layout} threads={threads}"
    benchmark(gradient_sides(shape, DTYPES[dtype], FORMATS[layout])[side])


@pytest.mark.parametrize("shape", CELL_SHAPES, ids=str)
@pytest.mark.parametrize(("beta", "root"), PENALTIES)
@pytest.mark.parametrize("side", ["pyxai", "eager"])
def bench_penalty(benchmark, threads, shape, beta, root, side):
    benchmark.group = f"penalty {shape} {beta} {root} threads={threads}"
    benchmark(penalty_sides(shape, beta, root)[side])


@pytest.mark.parametrize("shape", CELL_SHAPES, ids=str)
@pytest.mark.parametrize("side", ["pyxai", "fused"])
def bench_step(benchmark, threads, shape, side):
    benchmark.group = f"step {shape} threads={threads}"
    benchmark(step_sides(shape)[side])


@pytest.mark.parametrize("shape", CELL_SHAPES, ids=str)
@pytest.mark.parametrize("side", ["pyxai", "eager"])
def bench_penalized_step(benchmark, threads, shape, side):
    benchmark.group = f"penalized step {shape} threads={threads}"
    benchmark(penalized_step_sides(shape, "eager")[side])


# ---- ratios ----


def cases():
    """(name of the work, a function that makes its two sides)."""
    for shape in SHAPES:
        for dtype, layout, background in itertools.product(DTYPES, FORMATS, BACKGROUNDS):
            name = "blend M{} {}->{}".format(*shape) + f" {dtype} {layout} {background}"
            arguments = (shape, DTYPES[dtype], FORMATS[layout], background)
            yield name, functools.partial(blend_sides, *arguments)
    for shape, dtype, layout in itertools.product(GRADIENT_SHAPES, DTYPES, FORMATS):
        name = "gradient M{} X{} {}->{}".format(*shape) + f" {dtype} {layout}"
        yield name, functools.partial(gradient_sides, shape, DTYPES[dtype], FORMATS[layout])
    for shape, (beta, root) in itertools.product(CELL_SHAPES, PENALTIES):
        name = "penalty M{} {}".format(*shape) + f" beta {beta:g} {'root' if root else 'no root'}"
        yield name, functools.partial(penalty_sides, shape, beta, root)
        yield name.replace("penalty", "slopes"), functools.partial(slopes_sides, shape, beta, root)
    for shape in CELL_SHAPES:
        name = "step M{} {}".format(*shape)
        yield name, functools.partial(step_sides, shape)
        yield f"penalized {name}", functools.partial(penalized_step_sides, shape, "eager")
        yield f"penalized {name} apart", functools.partial(penalized_step_sides, shape, "apart")


def measure(rounds):
    """Rows (work, threads, ours in us, the other in us, ratio)."""
    rows = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for name, make in cases():
            times = workloads.in_turn(make(), rounds=rounds)
            ours, other = times
            rows.append(workloads.compared(name, times, ours, other))
    return rows


if __name__ == "__main__":
    workloads.command_line(__doc__, measure, rounds=15)
