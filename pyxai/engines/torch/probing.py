"""The images that a copy is checked with, and what the model and the copy make of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from pyxai._errors import REFUSALS, argument_error, describe, passes_through
from pyxai.classifier import typical_input_shape
from pyxai.classifier.borrow import borrowed, call
from pyxai.engines.torch.casting import tensors_in
from pyxai.engines.torch.keeping import unchanged
from pyxai.images import Preprocessing


def images_for(
    network: nn.Module, probe: torch.Tensor | None, preprocessing: Preprocessing | None
) -> torch.Tensor:
    """The probe in the model's dtype and on its device; noise where none was given."""
    like = next(
        (p for p in network.parameters() if p.is_floating_point()),
        torch.empty(0, dtype=torch.float32, device="cpu"),
    )
    if probe is not None:
        is_batch = isinstance(probe, torch.Tensor) and probe.is_floating_point()
        if not is_batch or probe.ndim != 4 or 0 in probe.shape:
            raise argument_error("probe", "a float tensor [N, C, H, W], not empty", probe)
        return probe.detach().to(like)
    # A generator of our own: the global random state belongs to the user.
    generator = torch.Generator(device="cpu").manual_seed(0)
    shape = typical_input_shape(network, preprocessing)
    return torch.randn(2, *shape, generator=generator, dtype=torch.float32, device="cpu").to(like)


def expected_of(network: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """The outputs of the network itself for the probe.

    Raises:
        ValueError: the model does not run on it, or returns nothing to compare.
    """
    try:
        with borrowed(network), unchanged(network):
            output = call(network, images)
    except REFUSALS as error:
        if passes_through(error):
            raise
        raise ValueError(
            f"probe: expected images that the model runs on, got {describe(images)} "
            f"({type(error).__name__}: {error}); pass probe= with images that it takes"
        ) from error
    expected = [tensor.clone() for tensor in tensors_in(output)]
    if not expected:
        raise argument_error("model", "to return floating tensors", output)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in expected):
        raise ValueError(
            f"probe: expected images with finite outputs, got NaN or infinity for "
            f"{describe(images)}; pass probe= with typical images"
        )
    return expected


@contextmanager
def same_draws(device: torch.device) -> Iterator[None]:
    """Random numbers as in every such block; afterwards as if none had been drawn."""
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        torch.default_generator.manual_seed(0)
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(0)
        yield


def are_close(expected: list[torch.Tensor], found: list[torch.Tensor]) -> bool:
    return len(expected) == len(found) and all(
        one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=1e-4)
        for one, other in zip(expected, found, strict=True)
    )


def compare(
    expected: list[torch.Tensor], output: Any, dtype: torch.dtype, tolerance: float | None
) -> None:
    """Refuses outputs that lie too far from the model's.

    Raises:
        ValueError: saying how far, and what to do.
    """
    allowed = tolerance
    if allowed is None:
        allowed = 5e-2 if dtype in (torch.bfloat16, torch.float16) else 1e-3
    found = tensors_in(output)
    if [t.shape for t in found] != [t.shape for t in expected]:
        raise ValueError("model: expected a copy with outputs of the same shapes, got others")
    for before, after in zip(expected, found, strict=True):
        if before.numel() == 0:
            continue
        largest = float(before.abs().max())
        gap = float((after.to(before.dtype) - before).abs().max())
        if not gap <= allowed * largest:  # also where the gap is NaN
            share = gap / largest if largest else float("inf")
            raise ValueError(
                f"tolerance: expected outputs within {allowed:g} of the largest on the probe, got "
                f"{share:.2g} (a gap of {gap:.3g}, largest {largest:.3g}): allow more, pass a "
                "probe of typical images, or choose a dtype of higher precision"
            )
