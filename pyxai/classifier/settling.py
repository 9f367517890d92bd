"""A reading that one image suggests, tried on noise: numbers may look so by chance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from pyxai._errors import REFUSALS, passes_through
from pyxai.classifier.borrow import call
from pyxai.classifier.dependence import noise_like
from pyxai.classifier.reading import BETWEEN, Reading

# Of what a sigmoid or softmax is written by hand; a linear layer at the end makes logits.
_ENDS_BY_HAND = ("exp", "div", "truediv", "rtruediv", "rdiv", "reciprocal", "mul", "rmul", "pow")
_LOUD = 1000  # times noise: logits do not stay between 0 and 1 then


def settled(
    network: nn.Module,
    reading: Reading,
    returned: Any,
    guess: str | None,
    probe: torch.Tensor,
    made_by: str,
) -> tuple[Reading, str | None]:
    """The reading, after a look at noise where the numbers of one image may be so by chance.

    Logits of a black image are biases, which may add up to 1; small logits may lie in [0, 1].
    """
    if reading.activation is None:
        reading = replace(reading, by_chance=reading.lies_between(returned, len(probe)))
    if not reading.lies_between(returned, len(probe)) or made_by in ("sigmoid", "softmax"):
        return reading, guess
    noise = noise_like(probe)
    try:
        others = [call(network, each) for each in (noise, _LOUD * noise, -_LOUD * noise)]
        if reading.activation == "softmax" and not all(reading.fits(each, 1) for each in others):
            reading = replace(reading, activation=None, by_chance=True)
        between = all(reading.lies_between(each, 1) for each in others)
        found = torch.cat([reading.logits(each, 1) for each in others])
        varied = bool((found.amax(dim=0) - found.amin(dim=0)).amax() > 1e-6)
    except REFUSALS as error:
        if passes_through(error):
            raise
        return reading, guess
    by_hand = made_by in _ENDS_BY_HAND
    if reading.activation is None and by_hand and between and varied and guess is None:
        guess = BETWEEN
    return reading, guess
