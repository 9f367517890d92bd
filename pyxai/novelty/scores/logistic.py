"""A head that learns from novel examples: logistic regression on the activations."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from pyxai._errors import argument_error, check_count
from pyxai.novelty.activations import Activations
from pyxai.novelty.scores.base import Score, Setting, from_numpy

Array = np.ndarray[Any, Any]


@dataclass(eq=False)
class Logistic(Score):
    """Log odds that an image is known: w · x + b, by logistic regression with novel examples.

    scikit-learn's LogisticRegression (lbfgs, class_weight="balanced") in a GridSearchCV over `C`
    and `tol`, by neg_log_loss. What was found is in `report`: the best C and tol, the score of the
    grid, iterations and whether lbfgs met its tolerance. lbfgs stops where the steepest slope is
    below `tol`, which for hundreds of wide rows can be well before the optimum: `tol=(1e-9,)`
    finds it, in two to four times the time.

    Source: Lazarev, "Novelty detection in image classification" (a tutorial of the open course of
    machine learning, mlcourse.ai).

    Attributes:
        scale: whether activations are first standardised; the parameters are folded into w and b.
        C: inverse strengths of the L2 penalty to try.
        tol: tolerances of lbfgs to try.
        folds: of the cross-validation; stratified, of shuffled examples.
        max_iter: of lbfgs.
    """

    scale: bool = False
    C: Sequence[float] = (10, 2, 0.9, 0.4, 0.1)
    tol: Sequence[float] = (1e-4, 1e-3)
    folds: int = 3
    max_iter: int = 1000

    name: ClassVar[str] = "logistic"
    needs_novel: ClassVar[bool] = True

    def begin(self, setting: Setting) -> None:
        check_count("folds", self.folds, least=2)
        check_count("max_iter", self.max_iter)
        super().begin(setting)
        self._known: list[Array] = []
        self._novel: list[Array] = []
        self._seed = setting.seed
        self.report: dict[str, Any] = {}

    def update(self, chunk: Activations, labels: Array | None) -> None:
        self._known.append(_rows(chunk))

    def update_novel(self, chunk: Activations) -> None:
        """Takes novel activations into account."""
        self._novel.append(_rows(chunk))

    def finish(self) -> None:
        counts = {
            "known": sum(map(len, self._known)),
            "novel": sum(map(len, self._novel)),
        }
        for argument, count in counts.items():
            if count < self.folds:
                expected = f"at least {self.folds} examples, one for each fold"
                raise argument_error(argument, expected, count)
        rows = np.concatenate([*self._novel, *self._known])
        known = np.repeat([0, 1], [counts["novel"], counts["known"]])
        # Folds are cut in the order of the examples, and those of one folder are alike.
        order = np.random.default_rng(self._seed).permutation(len(rows))
        rows, known = rows[order], known[order]
        weight, bias, self.report = fit_logistic(rows, known, self)
        self.state = {"weight": from_numpy(weight), "bias": from_numpy([bias])}
        del self._known, self._novel

    def score(self, chunk: Activations, state: dict[str, torch.Tensor]) -> torch.Tensor:
        return chunk.features.double() @ state["weight"] + state["bias"]


def fit_logistic(
    rows: Array, known: Array, settings: Logistic
) -> tuple[Array, float, dict[str, Any]]:
    """Weight `[d]`, bias and a report of the grid search; `known` is 1 for known rows, else 0."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    head = LogisticRegression(solver="lbfgs", class_weight="balanced", max_iter=settings.max_iter)
    steps = [StandardScaler(), head] if settings.scale else [head]
    grid = {
        "logisticregression__C": list(settings.C),
        "logisticregression__tol": list(settings.tol),
    }
    search = GridSearchCV(
        make_pipeline(*steps), grid, scoring="neg_log_loss", cv=settings.folds, error_score="raise"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the report says so
        search.fit(rows, known)
    head = search.best_estimator_[-1]
    weight, bias = head.coef_[0].astype(np.float64), float(head.intercept_[0])
    if settings.scale:
        scaler = search.best_estimator_[0]
        weight = weight / scaler.scale_
        bias -= float(weight @ scaler.mean_)
    iterations = int(head.n_iter_[0])
    report = {
        "C": float(search.best_params_["logisticregression__C"]),
        "tol": float(search.best_params_["logisticregression__tol"]),
        "neg_log_loss": float(search.best_score_),
        "iterations": iterations,
        "converged": iterations < settings.max_iter,
    }
    return weight, bias, report


def _rows(chunk: Activations) -> Array:
    found: Array = chunk.features.cpu().double().numpy()
    return found
