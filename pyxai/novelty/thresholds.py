"""The threshold: chosen on known images for a share of false alarms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyxai._errors import argument_error
from pyxai.novelty.activations import Activations
from pyxai.novelty.moments import Reservoir
from pyxai.novelty.scores import Score
from pyxai.novelty.scores.base import SAMPLE

_RATE = 0.05


class Held:
    """Known activations for the threshold: a sample of at most 10,000."""

    def __init__(self, seed: int) -> None:
        # The same draws, so that rows stay together.
        self._features, self._logits = (Reservoir(SAMPLE, seed) for _ in range(2))

    def __len__(self) -> int:
        return len(self._features)

    def add(self, chunk: Activations) -> None:
        if len(chunk):
            self._features.add(chunk.features.float().cpu())
            if chunk.logits is not None:
                self._logits.add(chunk.logits.float().cpu())

    def scores(self, score: Score) -> NDArray[np.float64]:
        logits: Iterable[Any] = self._logits.parts() or [None] * len(self._features.parts())
        parts = zip(self._features.parts(), logits, strict=True)
        return np.concatenate([score(Activations(*part)).numpy() for part in parts])


def check_rates(rate: float | None, holdout: float, *, own: bool) -> float | None:
    """The rate of false alarms to aim at; None where the score has a threshold of its `own`.

    Raises:
        ValueError: rate or holdout is no share.
    """
    for argument, value, least in (
        ("false_alarm_rate", _RATE if rate is None else rate, "above"),
        ("holdout", holdout, "from"),
    ):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not (0 < value < 1 or (least == "from" and value == 0)):
            raise argument_error(argument, f"a share {least} 0 and below 1", value)
    if rate is None:
        return None if own else _RATE
    return float(rate)


def threshold_for(scores: NDArray[np.float64], rate: float) -> float:
    """The threshold below which a share of at most `rate` of known images will fall.

    The k-th smallest of n scores with k = ⌊rate · (n + 1)⌋: another known image falls below it with
    probability k / (n + 1), if it is drawn as these were. With fewer than 1 / rate - 1 scores no
    threshold does as well, and the smallest score is taken.

    Source: Vovk, Gammerman and Shafer, "Algorithmic learning in a random world" (2005), conformal
    p-values.
    """
    place = max(int(np.floor(rate * (len(scores) + 1) + 1e-9)), 1)
    return float(np.partition(scores, place - 1)[place - 1])
