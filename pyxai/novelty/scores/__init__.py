"""Scores of familiarity, one class each: parameters, a fit by chunks, higher = more familiar."""

from __future__ import annotations

from typing import Any

from pyxai._errors import argument_error, closest
from pyxai.novelty.scores.base import Score, Setting
from pyxai.novelty.scores.confidence import GEN, MSP, Energy, MaxLogit
from pyxai.novelty.scores.distance import FDBD, KNN, Mahalanobis, RelativeMahalanobis
from pyxai.novelty.scores.estimator import OutlierEstimator, named_estimator
from pyxai.novelty.scores.logistic import Logistic
from pyxai.novelty.scores.shaping import ASH, SCALE, ReAct
from pyxai.novelty.scores.subspace import ViM

__all__ = [
    "ASH",
    "ESTIMATORS",
    "FDBD",
    "GEN",
    "KNN",
    "METHODS",
    "MSP",
    "SCALE",
    "SCORES",
    "Energy",
    "Logistic",
    "Mahalanobis",
    "MaxLogit",
    "OutlierEstimator",
    "ReAct",
    "RelativeMahalanobis",
    "Score",
    "Setting",
    "ViM",
    "score_for",
]

SCORES: dict[str, type[Score]] = {
    each.name: each
    for each in (
        Logistic,
        KNN,
        Mahalanobis,
        RelativeMahalanobis,
        ViM,
        Energy,
        MSP,
        MaxLogit,
        GEN,
        ReAct,
        ASH,
        SCALE,
        FDBD,
    )
}
ESTIMATORS = ("iforest", "ocsvm", "lof")
METHODS = (*SCORES, *ESTIMATORS)
"""All methods that have a name."""


def score_for(method: Any, *, learns: bool = False) -> Score:
    """An unfitted score for a name, a `Score` or an outlier detector of scikit-learn.

    Args:
        method: one of these; "auto" is logistic where there are novel examples, else knn.
        learns: whether there are novel examples.

    Raises:
        ValueError: it is none of these, with the closest names.
    """
    if isinstance(method, Score):
        return method.fresh()
    if isinstance(method, str):
        if method == "auto":
            method = Logistic.name if learns else KNN.name
        if method in SCORES:
            return SCORES[method]()
        if method in ESTIMATORS:
            return named_estimator(method)
        expected = f"one of auto, {', '.join(METHODS)}"
        raise ValueError(f"method: expected {expected}, got {method!r}{closest(method, METHODS)}")
    if hasattr(method, "fit") and hasattr(method, "get_params"):
        return OutlierEstimator(method)
    expected = "a name, a score of pyxai.novelty or an outlier detector of scikit-learn"
    raise argument_error("method", expected, method)


def name_of(score: Score) -> str:
    """What a score is called in tables: "knn", "knn(k=5)"; of an estimator, its class."""
    if isinstance(score, OutlierEstimator):
        return type(score.estimator).__name__
    usual = type(score)().get_params()
    other = {name: each for name, each in score.get_params().items() if each != usual[name]}
    inside = ", ".join(f"{name}={each}" for name, each in other.items())
    return f"{score.name}({inside})" if inside else score.name
