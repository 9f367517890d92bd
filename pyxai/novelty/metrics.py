"""How well scores tell known from novel, with bootstrap intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from pyxai._errors import argument_error, check_count
from pyxai._measure import Measure
from pyxai._results import Report, Rows, plain
from pyxai._text import text_table
from pyxai.draw.bars import Bar, bars
from pyxai.images import PhotoFailure

Array = np.ndarray[Any, Any]
_AT_ONCE = 1 << 22  # numbers of a bootstrap chunk

NAMES = {
    "auroc": "AUROC",
    "aupr_known": "AUPR, known positive",
    "aupr_novel": "AUPR, novel positive",
    "fpr95_known": "novel accepted when 95 % of known are accepted",
    "fpr95_novel": "known rejected when 95 % of novel are rejected",
}
"""The measures and what they are called."""

HEADINGS = {
    "auroc": "AUROC",
    "aupr_known": "AUPR known+",
    "aupr_novel": "AUPR novel+",
    "fpr95_known": "FPR95 known+",
    "fpr95_novel": "FPR95 novel+",
}
"""The same for the head of a table: known+ counts known as positive, novel+ novel."""


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Report):
    """How well a score tells known from novel images.

    Attributes:
        auroc: the probability that a known image scores higher than a novel one, ties half.
        aupr_known: area under precision and recall (average precision) with known as positive.
        aupr_novel: the same with novel as positive. Both depend on how many images of each there
            are; compare them on the same sets only.
        fpr95_known: share of novel images accepted at the highest threshold that accepts 95 % of
            the known ones: "FPR at 95 % TPR" with known as positive, as in most papers.
        fpr95_novel: share of known images rejected at the lowest threshold that rejects 95 % of the
            novel ones: "FPR at 95 % TPR" with novel as positive, as OpenOOD and pytorch-ood count.
        known: how many known images.
        novel: how many novel ones.
        confidence: of the intervals, 0 to 1.
        failures: photos that could not be used.
    """

    auroc: Measure
    aupr_known: Measure
    aupr_novel: Measure
    fpr95_known: Measure
    fpr95_novel: Measure
    known: int
    novel: int
    confidence: float
    failures: tuple[PhotoFailure, ...] = ()

    def _facts(self) -> str:
        return f"AUROC {self.auroc}, {self.known} known, {self.novel} novel images"

    def to_dict(self) -> dict[str, Any]:
        """Value, low and high of each measure by name, the counts and the failures."""
        found: dict[str, Any] = {"known": self.known, "novel": self.novel}
        found["confidence"] = self.confidence
        for name in NAMES:
            found[name] = getattr(self, name).to_dict()
        return {**found, "failures": plain(self.failures)}

    def figure(self) -> Image.Image:
        """The measures as bars with their intervals."""
        rows = [Bar(text, *measure_of(self, name)) for name, text in HEADINGS.items()]
        counts = f"{self.known} known and {self.novel} novel images"
        title = f"{counts}; intervals of {self.confidence:.0%}"
        notes = ("known+ counts known images as positive, novel+ novel ones; FPR at 95 % TPR",)
        return bars(rows, title=title, notes=notes)

    def _table(self) -> Rows:
        rows = [(text, *measure_of(self, name)) for name, text in HEADINGS.items()]
        return ("measure", "value", "low", "high"), rows

    def __str__(self) -> str:
        rows = [(text, str(getattr(self, name))) for name, text in NAMES.items()]
        return text_table([*rows, ("known, novel images", f"{self.known}, {self.novel}")])


def measure_of(found: Evaluation, name: str) -> tuple[float, float, float]:
    """Value, low and high of a measure."""
    measure: Measure = getattr(found, name)
    return measure.value, measure.low, measure.high


def evaluate_scores(
    known: Array,
    novel: Array,
    *,
    bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Evaluation:
    """Measures of scores, higher = more familiar.

    Intervals are percentiles of the measures of `bootstrap` samples, drawn with replacement among
    the known and among the novel images, as many of each as there are. They say how far other
    images of the same kind would move the measures, not other kinds of novelty or another fit.

    Args:
        known: `[n]` scores of known images.
        novel: `[m]` scores of novel images.
        bootstrap: how many samples; 0 for none.
        confidence: of the intervals.
        seed: of the samples; the global random state is left alone.

    Raises:
        ValueError: no scores, or some are not finite; a bad argument.

    Source: Efron and Tibshirani, "An introduction to the bootstrap" (1993), percentile intervals.
    """
    for argument, values in (("known", known), ("novel", novel)):
        if np.ndim(values) != 1 or not len(values) or not np.isfinite(values).all():
            raise argument_error(argument, "at least one finite score, [n]", np.asarray(values))
    check_count("bootstrap", bootstrap, least=0)
    if not 0 < confidence < 1:
        raise argument_error("confidence", "a number between 0 and 1", confidence)
    levels, places = np.unique(np.concatenate([known, novel]), return_inverse=True)
    places = len(levels) - 1 - places  # the most familiar first
    sides = places[: len(known)], places[len(known) :]
    whole = measures(*(np.bincount(side, minlength=len(levels))[None] for side in sides))[:, 0]
    ends = np.full((2, len(NAMES)), np.nan)
    if bootstrap:
        random = np.random.default_rng(seed)
        step = max(1, _AT_ONCE // len(places))
        drawn = [
            measures(*(_resampled(side, len(levels), count, random) for side in sides))
            for start in range(0, bootstrap, step)
            for count in [min(step, bootstrap - start)]
        ]
        tail = (1 - confidence) / 2
        ends = np.quantile(np.concatenate(drawn, axis=1), [tail, 1 - tail], axis=1)
    found = {
        name: Measure(float(whole[i]), float(ends[0, i]), float(ends[1, i]))
        for i, name in enumerate(NAMES)
    }
    return Evaluation(
        auroc=found["auroc"],
        aupr_known=found["aupr_known"],
        aupr_novel=found["aupr_novel"],
        fpr95_known=found["fpr95_known"],
        fpr95_novel=found["fpr95_novel"],
        known=len(known),
        novel=len(novel),
        confidence=confidence,
    )


def _resampled(places: Array, levels: int, count: int, random: np.random.Generator) -> Array:
    """How often each level occurs in samples with replacement, `[count, levels]`."""
    drawn = places[random.integers(len(places), size=(count, len(places)))]
    drawn += np.arange(count)[:, None] * levels
    return np.bincount(drawn.ravel(), minlength=count * levels).reshape(count, levels)


def measures(known: Array, novel: Array) -> Array:
    """The measures, in the order of NAMES, of several samples at once.

    Args:
        known: `[b, g]`, how many known images have each score; the highest score first.
        novel: `[b, g]`, how many novel ones.

    Returns:
        `[5, b]`.
    """
    n, m = known.sum(axis=1, keepdims=True), novel.sum(axis=1, keepdims=True)
    k, v = known.cumsum(axis=1), novel.cumsum(axis=1)  # accepted at each score
    above = (known * (m - v + 0.5 * novel)).sum(axis=1) / (n * m)[:, 0]
    # From the lowest score on: rejected at each score.
    back_k, back_v = n - k + known, m - v + novel
    return np.stack(
        [
            above,
            (known * (k / np.maximum(k + v, 1))).sum(axis=1) / n[:, 0],
            (novel * (back_v / np.maximum(back_k + back_v, 1))).sum(axis=1) / m[:, 0],
            _first(k >= 0.95 * n - 1e-9, v) / m[:, 0],
            _first((back_v >= 0.95 * m - 1e-9)[:, ::-1], back_k[:, ::-1]) / n[:, 0],
        ]
    )


def _first(reached: Array, values: Array) -> Array:
    """Of each row, the value at the first place where `reached`."""
    found: Array = np.take_along_axis(values, reached.argmax(axis=1)[:, None], axis=1)[:, 0]
    return found
