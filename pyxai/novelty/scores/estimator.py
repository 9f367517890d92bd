"""scikit-learn's outlier detectors as scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from pyxai._errors import argument_error, check_count
from pyxai.novelty.activations import Activations
from pyxai.novelty.moments import Reservoir
from pyxai.novelty.scores.base import SAMPLE, Score, Setting

_EXPECTED = (
    "an outlier detector of scikit-learn with fit and score_samples or decision_function "
    "(LocalOutlierFactor only with novelty=True)"
)


@dataclass(eq=False)
class OutlierEstimator(Score):
    """The score of any outlier detector of scikit-learn: `score_samples`, else `decision_function`.

    A clone is fitted on at most `max_samples` known rows, a uniform sample decided by the seed,
    as most of these detectors need several passes or compare all pairs.

    Attributes:
        estimator: the detector; it stays unfitted.
        max_samples: known rows kept.
    """

    estimator: Any = None
    max_samples: int = SAMPLE

    name: ClassVar[str] = "estimator"

    def begin(self, setting: Setting) -> None:
        super().begin(setting)
        if not hasattr(self.estimator, "fit") or not _scorer(self.estimator):
            raise argument_error("method", _EXPECTED, self.estimator)
        self._kept = Reservoir(check_count("max_samples", self.max_samples), setting.seed)
        self._seed = setting.seed

    def update(self, chunk: Activations, labels: np.ndarray[Any, Any] | None) -> None:
        self._kept.add(chunk.features.float().cpu())

    def finish(self) -> None:
        from sklearn.base import clone

        fitted = clone(self.estimator)
        if "random_state" in fitted.get_params() and fitted.random_state is None:
            fitted.set_params(random_state=self._seed)
        self.fitted = fitted.fit(self._kept.rows().numpy())
        del self._kept

    def score(self, chunk: Activations, state: dict[str, torch.Tensor]) -> torch.Tensor:
        rows = chunk.features.float().cpu().numpy()
        found = getattr(self.fitted, _scorer(self.fitted))(rows)
        return torch.from_numpy(np.asarray(found, np.float64).reshape(len(rows)))


def named_estimator(name: str) -> OutlierEstimator:
    """The detector of that short name, with scikit-learn's defaults.

    iforest: Liu, Ting and Zhou, "Isolation forest" (2008). ocsvm: Schölkopf et al., "Estimating the
    support of a high-dimensional distribution" (2001). lof: Breunig et al., "LOF: identifying
    density-based local outliers" (2000).
    """
    if name == "iforest":
        from sklearn.ensemble import IsolationForest

        return OutlierEstimator(IsolationForest())
    if name == "ocsvm":
        from sklearn.svm import OneClassSVM

        return OutlierEstimator(OneClassSVM())
    from sklearn.neighbors import LocalOutlierFactor

    return OutlierEstimator(LocalOutlierFactor(novelty=True))


def _scorer(estimator: Any) -> str:
    """The method that scores rows, "" if there is none."""
    names = ("score_samples", "decision_function")
    return next((name for name in names if callable(getattr(estimator, name, None))), "")
