"""Does the classifier know such images at all? Detectors on its activations.

`NoveltyDetector` fits and scores, `compare` puts methods side by side, `holdout` repeats hold-outs
of the logistic head, `active_share` counts active neurons. Scores with parameters are classes:
`NoveltyDetector(clf, method=KNN(k=10))`.
"""

from pyxai._measure import Measure
from pyxai.novelty.activations import Activations
from pyxai.novelty.activity import ActiveShare, active_share
from pyxai.novelty.comparison import Comparison, HoldOut, compare, holdout
from pyxai.novelty.detector import NoveltyDetector
from pyxai.novelty.metrics import Evaluation, evaluate_scores
from pyxai.novelty.scores import (
    ASH,
    FDBD,
    GEN,
    KNN,
    METHODS,
    MSP,
    SCALE,
    Energy,
    Logistic,
    Mahalanobis,
    MaxLogit,
    OutlierEstimator,
    ReAct,
    RelativeMahalanobis,
    Score,
    ViM,
)

__all__ = [
    "ASH",
    "FDBD",
    "GEN",
    "KNN",
    "METHODS",
    "MSP",
    "SCALE",
    "Activations",
    "ActiveShare",
    "Comparison",
    "Energy",
    "Evaluation",
    "HoldOut",
    "Logistic",
    "Mahalanobis",
    "MaxLogit",
    "Measure",
    "NoveltyDetector",
    "OutlierEstimator",
    "ReAct",
    "RelativeMahalanobis",
    "Score",
    "ViM",
    "active_share",
    "compare",
    "evaluate_scores",
    "holdout",
]
