"""Which labels are probably wrong: confident learning on the frozen features of a network."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

INVERSE_PENALTIES = (0.0003, 0.003, 0.03, 0.3)
"""C of the logistic heads that are tried. Weak heads learn fewer wrong labels by heart, but weak
features need strong heads: docs/audit.md."""


@dataclass(frozen=True)
class LabelErrors:
    """What a head that has not seen a photo thinks of its label.

    Attributes:
        probabilities: `[n, K]` float32, out of fold.
        suggested: `[n]` int64, the class that is confidently another one, or the label itself.
        margins: `[n]` float32, 0 (surely another class) to 1 (surely the label): half of 1 plus the
            label's probability minus the largest other one.
    """

    probabilities: NDArray[np.float32]
    suggested: NDArray[np.int64]
    margins: NDArray[np.float32]


def out_of_fold_probabilities(
    features: NDArray[np.float32], labels: NDArray[np.int64], *, folds: int, seed: int
) -> NDArray[np.float32]:
    """`[n, K]`: probabilities of each photo by a head that was fitted without it.

    Of the heads of `INVERSE_PENALTIES`, the one with the smallest log loss on these photos.

    Args:
        features: `[n, F]`, finite.
        labels: `[n]`, 0 to K - 1, each at least `folds` times.
        folds: in how many parts the photos are cut, 2 or more.
        seed: of the cut.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    best, smallest = None, np.inf
    for penalty in INVERSE_PENALTIES:
        head = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=300))
        with warnings.catch_warnings():
            # A head that is nearly as good as it can get ranks as well.
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = cross_val_predict(head, features, labels, cv=split, method="predict_proba")
        own = found[np.arange(len(labels)), labels]
        loss = -float(np.log(np.maximum(own, 1e-7)).mean())
        if loss < smallest:
            best, smallest = found, loss
    return np.asarray(best, np.float32)


def confident_learning(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64]
) -> LabelErrors:
    """Labels that are probably wrong (Northcutt, Jiang and Chuang 2021).

    A photo counts as class j when its probability of j is at least the mean probability of j over
    all photos labelled j; of several such classes, as the most probable. Where that is not its
    label, it is an off-diagonal entry of the confident joint, and listed.

    Args:
        probabilities: `[n, K]`, out of fold.
        labels: `[n]`, 0 to K - 1; each class occurs.
    """
    rows = np.arange(len(labels))
    own = probabilities[rows, labels]
    classes = probabilities.shape[1]
    thresholds = np.array([own[labels == label].mean() for label in range(classes)])
    confident = np.where(probabilities >= thresholds - 1e-6, probabilities, -1)
    best = confident.argmax(axis=1)
    suggested = np.where(confident[rows, best] < 0, labels, best)
    others = probabilities.copy()
    others[rows, labels] = -1
    margins = (1 + own - others.max(axis=1)) / 2
    return LabelErrors(probabilities, suggested.astype(np.int64), margins.astype(np.float32))
