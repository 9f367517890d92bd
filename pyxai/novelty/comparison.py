"""All methods on the same images, from one forward pass; and repeated hold-outs of the head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from pyxai._errors import argument_error, check_count
from pyxai._results import Report, Rows, plain
from pyxai._text import text_table
from pyxai.classifier import Classifier, LinearHead
from pyxai.draw.bars import Bar, bars
from pyxai.draw.card import card
from pyxai.draw.histogram import histogram
from pyxai.images import ImageError, PhotoFailure
from pyxai.novelty.activations import Activations, Known, failures_of, join, source_of
from pyxai.novelty.labels import Labeler, Labels
from pyxai.novelty.metrics import HEADINGS, NAMES, Evaluation, evaluate_scores, measure_of
from pyxai.novelty.scores import METHODS, Logistic, Score, Setting, name_of, score_for
from pyxai.novelty.scores.logistic import fit_logistic


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Report):
    """Methods side by side.

    Attributes:
        results: the evaluation of each method, the highest AUROC first.
        skipped: why the other methods are not available.
        scores: of each method, those of the known and of the novel images.
        failures: photos that could not be used.
    """

    results: dict[str, Evaluation]
    skipped: dict[str, str]
    scores: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
    failures: tuple[PhotoFailure, ...] = ()

    def _facts(self) -> str:
        best = next(iter(self.results), None)
        told = "" if best is None else f", {best} best: AUROC {self.results[best].auroc}"
        return f"{len(self.results)} methods, {len(self.skipped)} skipped{told}"

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    def __getitem__(self, name: str) -> Evaluation:
        return self.results[name]

    def to_dict(self) -> dict[str, Any]:
        """The evaluations by method, and why the others were skipped."""
        results = {name: each.to_dict() for name, each in self.results.items()}
        failures = plain(self.failures)
        return {"results": results, "skipped": dict(self.skipped), "failures": failures}

    def figure(self, measure: str = "auroc") -> Image.Image:
        """One measure of all methods as bars with intervals.

        Args:
            measure: a field of `Evaluation`, such as "auroc" or "fpr95_known".

        Raises:
            ValueError: there is no such measure.
        """
        if measure not in NAMES:
            raise argument_error("measure", f"one of {', '.join(NAMES)}", measure)
        if not self.results:
            return card(["no method could be evaluated", *_reasons(self.skipped)])
        rows = [Bar(name, *measure_of(each, measure)) for name, each in self.results.items()]
        one = next(iter(self.results.values()))
        title = f"{NAMES[measure]}: {one.known} known and {one.novel} novel images"
        return bars(rows, title=title, notes=_reasons(self.skipped))

    def _table(self) -> Rows:
        columns = ["method"]
        for name in NAMES:
            columns += [name, f"{name}_low", f"{name}_high"]
        rows = [
            (method, *(number for name in NAMES for number in measure_of(each, name)))
            for method, each in self.results.items()
        ]
        return columns, rows

    def __str__(self) -> str:
        rows = [("method", *HEADINGS.values())]
        for name, each in self.results.items():
            rows.append((name, *(str(getattr(each, measure)) for measure in NAMES)))
        lines = [text_table(rows)]
        lines += [f"{name}: not available: {reason}" for name, reason in self.skipped.items()]
        return "\n".join(lines)


def _reasons(skipped: dict[str, str]) -> list[str]:
    return [f"{name} was skipped: {reason}" for name, reason in skipped.items()]


def compare(
    model: Classifier | nn.Module | LinearHead | None,
    fit_on: Known,
    known: Known,
    novel: Known,
    *,
    novel_fit: Known | None = None,
    methods: Sequence[Any] = METHODS,
    labels: Labels = None,
    layer: str | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
) -> Comparison:
    """Fits all methods on the same images and evaluates them on the same others.

    Each image is run through the network once. Activations of `known` and `novel` are held in
    memory, those of `fit_on` are not.

    Args:
        model: as for `NoveltyDetector`.
        fit_on: known images to fit on.
        known: other known images, to evaluate on.
        novel: novel images, to evaluate on.
        novel_fit: novel examples for "logistic", which is left out without.
        methods: names, scores or outlier detectors of scikit-learn.
        labels: of `fit_on`; see `NoveltyDetector.fit`.
        layer: see `NoveltyDetector`.
        bootstrap: samples for the intervals; 0 for none.
        seed: of everything drawn.
        batch_size: images in a forward pass.
        progress: bars.

    Returns:
        The evaluations. Photos that cannot be used are left out and listed in `failures`; those of
        `fit_on` are errors where there are labels.

    Raises:
        ValueError: images or labels that cannot be used. A method that is not available with this
            network or layer is listed in `skipped`.
    """
    check_count("seed", seed, least=0)
    source = source_of(model, layer)
    labeler = Labeler(labels, source.classifier, fit_on)

    failures: list[ImageError] = []

    def read(images: Known, what: str) -> Iterator[Activations]:
        # With labels a photo that is left out would shift those of the others.
        passed_over = None if what == "fit_on" and labels is not None else failures
        bar = what if progress else ""
        return source.chunks(images, batch_size=batch_size, failures=passed_over, progress=bar)

    running = _by_name(methods)
    skipped = {
        name: "it needs novel_fit, novel examples to learn from"
        for name, score in running.items()
        if score.needs_novel and novel_fit is None
    }
    for name in skipped:
        del running[name]

    def setting_of(chunk: Activations) -> Setting:
        logits = None if chunk.logits is None else chunk.logits.shape[1]
        count = labeler.count(chunk)
        return Setting(chunk.features.shape[1], logits, count, source.head(), seed)

    _fit(running, skipped, read(fit_on, "fit_on"), labeler, setting_of)
    if novel_fit is not None:
        for chunk in read(novel_fit, "novel_fit"):
            for score in running.values():
                if isinstance(score, Logistic):
                    score.update_novel(chunk)
    _try_all(running, skipped, _finish)
    sides = [join(read(known, "known")), join(read(novel, "novel"))]
    scores = {
        name: (score(sides[0]).numpy(), score(sides[1]).numpy()) for name, score in running.items()
    }
    results = {
        name: evaluate_scores(*both, bootstrap=bootstrap, seed=seed)
        for name, both in scores.items()
    }
    results = dict(sorted(results.items(), key=lambda item: -item[1].auroc.value))
    return Comparison(results, skipped, scores, failures_of(failures))


def _by_name(methods: Sequence[Any]) -> dict[str, Score]:
    """The scores, the second one of a name with a number behind it."""
    found: dict[str, Score] = {}
    for each in methods:
        score = score_for(each)
        name = each if isinstance(each, str) else name_of(score)
        found[name if name not in found else f"{name}-{len(found)}"] = score
    return found


def _begin(setting: Setting, score: Score) -> None:
    score.begin(setting)


def _finish(score: Score) -> None:
    score.finish()


def _fit(
    running: dict[str, Score],
    skipped: dict[str, str],
    chunks: Iterator[Activations],
    labeler: Labeler,
    setting_of: Callable[[Activations], Setting],
) -> None:
    """Hands all known images to all scores; those that cannot take them are skipped.

    Raises:
        ValueError: there are no images.
    """
    begun = False
    for chunk in chunks:
        classes = labeler.classes(chunk)
        if not begun:
            _try_all(running, skipped, partial(_begin, setting_of(chunk)))
            begun = True
        for score in running.values():
            score.update(chunk, classes)
    labeler.finish()
    if not begun:
        raise argument_error("fit_on", "at least one image", "none")


def _try_all(
    running: dict[str, Score], skipped: dict[str, str], step: Callable[[Score], None]
) -> None:
    """Takes a step of each score; those that cannot are moved to `skipped`, with the reason."""
    for name, score in [*running.items()]:
        try:
            step(score)
        except ValueError as error:
            skipped[name] = str(error)
            del running[name]


@dataclass(frozen=True, eq=False, repr=False)
class HoldOut(Report):
    """The accuracy of a logistic head on images that it was not fitted on, over many splits.

    Attributes:
        accuracies: `[splits]`, share of the held-out images that come out right.
        reports: of each split, what the grid search found.
        known: how many known images.
        novel: how many novel ones.
        share: held out of each.
        failures: photos that could not be used.
    """

    accuracies: NDArray[np.float64]
    reports: tuple[dict[str, Any], ...]
    known: int
    novel: int
    share: float
    failures: tuple[PhotoFailure, ...] = ()

    @property
    def mean(self) -> float:
        """The mean accuracy."""
        return float(self.accuracies.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """The 2.5th and 97.5th percentile of the splits.

        Splits share images, so this is how much one split differs from another and not a confidence
        interval of the mean.
        """
        low, high = np.percentile(self.accuracies, [2.5, 97.5])
        return float(low), float(high)

    def _facts(self) -> str:
        return f"accuracy {self.mean:.4f} over {len(self.accuracies)} splits"

    def figure(self, bins: int = 20) -> Image.Image:
        """How often which accuracy came out."""
        title = f"accuracy on held-out images: mean {self.mean:.1%}"
        return histogram({"splits": self.accuracies}, bins=bins, title=title, percent=True)

    def _table(self) -> Rows:
        rows = [
            (split, accuracy, report.get("C"), report.get("tol"))
            for split, (accuracy, report) in enumerate(
                zip(self.accuracies.tolist(), self.reports, strict=True)
            )
        ]
        return ("split", "accuracy", "C", "tol"), rows

    def to_dict(self) -> dict[str, Any]:
        """The accuracies with their mean, and what was fitted in each split."""
        return {
            "mean": self.mean,
            "interval": list(self.interval),
            "accuracies": self.accuracies.tolist(),
            "reports": plain(self.reports),
            "known": self.known,
            "novel": self.novel,
            "share": self.share,
            "failures": plain(self.failures),
        }

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"accuracy {self.mean:.4f} ({low:.4f} - {high:.4f}) over {len(self.accuracies)} splits "
            f"that hold {self.share:.0%} of {self.known} known and {self.novel} novel images out"
        )


def holdout(
    model: Classifier | nn.Module | LinearHead | None,
    known: Known,
    novel: Known,
    *,
    method: Logistic | None = None,
    splits: int = 20,
    share: float = 0.3,
    layer: str | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
) -> HoldOut:
    """Fits the logistic head on a part of known and novel images, and counts how often it is right
    on the rest, again and again.

    Args:
        model: as for `NoveltyDetector`.
        known: known images that the network was not trained on.
        novel: novel ones.
        method: the head with its parameters; None is `Logistic()`.
        splits: how many.
        share: of known and of novel images that are held out (a stratified split).
        layer: see `NoveltyDetector`.
        seed: of the splits.
        batch_size: images in a forward pass.
        progress: bars.

    Returns:
        The accuracies. Photos that cannot be used are left out and listed in `failures`.

    Raises:
        ValueError: a bad argument, or fewer images than folds.
    """
    from sklearn.model_selection import StratifiedShuffleSplit

    check_count("splits", splits)
    if not isinstance(share, float) or not 0 < share < 1:
        raise argument_error("share", "a number between 0 and 1", share)
    head = Logistic() if method is None else method
    source = source_of(model, layer)
    parts: list[Activations] = []
    failures: list[ImageError] = []
    for what, images in (("known", known), ("novel", novel)):
        bar = what if progress else ""
        found = join(source.chunks(images, batch_size=batch_size, failures=failures, progress=bar))
        least = int(np.ceil(head.folds / (1 - share)))
        if len(found) < least:
            expected = f"at least {least} images for {head.folds} folds of what is not held out"
            raise argument_error(what, expected, len(found))
        parts.append(replace(found, logits=None, names=None))
    rows = torch.cat([part.features for part in parts]).double().numpy()
    classes = np.repeat([1, 0], [len(part) for part in parts])
    cut = StratifiedShuffleSplit(splits, test_size=share, random_state=seed)
    accuracies, reports = [], []
    for train, test in cut.split(rows, classes):
        weight, bias, report = fit_logistic(rows[train], classes[train], head)
        accuracies.append(float(((rows[test] @ weight + bias > 0) == classes[test]).mean()))
        reports.append(report)
    known_count, novel_count = map(len, parts)
    return HoldOut(
        accuracies=np.array(accuracies),
        reports=tuple(reports),
        known=known_count,
        novel=novel_count,
        share=share,
        failures=failures_of(failures),
    )
