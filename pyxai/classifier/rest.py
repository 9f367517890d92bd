"""The part of a network that follows a layer, run on its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import nn

from pyxai._errors import REFUSALS, passes_through
from pyxai._precision import is_exact
from pyxai.classifier.borrow import call
from pyxai.classifier.layout import Layout
from pyxai.classifier.points import Point
from pyxai.classifier.recording import record


class CannotRunRestError(ValueError):
    """What follows a layer cannot be run on its own."""


class RestOfNetwork:
    """Calls a network from one of its layers on; use it inside `borrowed`.

    A module cannot be entered in the middle. So the network is called with an empty batch, which
    costs its body next to nothing, and the layer's output is replaced on the way. Where something
    else bypasses the layer, as a shortcut does, one image is given, whose part of the sum spreads
    over all rows. Where the network asks for the number of images, it gets as many small ones.
    Networks that take none of these get all images and pay for the body. Each way must first give
    back, twice, what the network gave for an image that it has seen.
    """

    def __init__(
        self,
        network: nn.Module,
        point: Point,
        layout: Layout,
        read: Callable[[Any, int], torch.Tensor],
        known: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        ways: list[Way] | None = None,
    ) -> None:
        """Takes note of a pass; nothing runs.

        Args:
            network: the network.
            point: the layer.
            layout: of its output.
            read: (what the network returns, images) -> the numbers that count, a row each.
            known: an image `[1, C, H, W]`, what the layer gave for it, and what was read.
            ways: what is left of `all_ways` to try first; what fails here is taken from it.
        """
        self._network = network
        self._point = point
        self._axis = 0 if layout.batch_first else 1
        self._read = read
        self._known = known
        self._ways = all_ways() if ways is None else ways
        self._tried = False

    def __call__(self, raw: torch.Tensor, images: torch.Tensor) -> Any:
        """What the network returns for other outputs of the layer.

        Args:
            raw: of m images, shaped as the layer gives them; gradients flow to it.
            images: the m inputs they stand for, or the one that all of them do.

        Raises:
            CannotRunRestError: the network does not go on from the layer as it did before.
        """
        if not self._tried:
            image, known, expected = self._known
            twice = known.detach().repeat_interleave(2, dim=self._axis)
            while self._ways and not self._gives(twice, image, expected):
                self._ways.pop(0)
            self._tried = True
        if not self._ways:
            raise CannotRunRestError(
                "method: expected a network whose part after the layer can run on its own for this "
                f"method, and after {self._point.name!r} it gave something else than before (does "
                "it depend on the other images of a batch, on chance, or on earlier calls?)"
            )
        return self._run(raw, self._ways[0](images, raw.shape[self._axis]))

    def _gives(self, raw: torch.Tensor, image: torch.Tensor, expected: torch.Tensor) -> bool:
        try:
            output = self._run(raw, self._ways[0](image, 2))
            found = self._read(output, 2).detach().float()
        except REFUSALS as error:  # it wants as many images
            if passes_through(error):
                raise
            if len(self._ways) == 1:
                call(self._network, image)  # if it is about the moment, it comes again
            return False
        expected = expected.detach().float()
        allowed = (1e-3 if is_exact(raw) else 5e-2) * float(expected.abs().max()) + 1e-6
        return found.shape[1:] == expected.shape[1:] and bool(
            (found - expected).abs().max() <= allowed
        )

    def _run(self, raw: torch.Tensor, images: torch.Tensor) -> Any:
        replace = {self._point.name: raw}
        return record(self._network, images, [self._point], replace=replace).output


Way: TypeAlias = Callable[[torch.Tensor, int], torch.Tensor]
"""Of the images of a call (or one for all) and how many there are, what the network is given."""

_SMALL = 32  # pixels; smaller ones would vanish in the body


def all_ways() -> list[Way]:
    """In which the rest of a network may be run, the cheapest first."""
    return [_no_image, _one_image, _small_images, _all_images]


def _small_images(images: torch.Tensor, count: int) -> torch.Tensor:
    step = max(1, min(images.shape[-2:]) // _SMALL)
    return _all_images(images[..., ::step, ::step], count)


def _no_image(images: torch.Tensor, count: int) -> torch.Tensor:
    return images[:0]


def _one_image(images: torch.Tensor, count: int) -> torch.Tensor:
    return images[:1] if len(images) == 1 else images


def _all_images(images: torch.Tensor, count: int) -> torch.Tensor:
    return images.expand(count, -1, -1, -1) if len(images) == 1 else images
