"""The methods by which scikit-learn knows an estimator, without importing it before it is asked."""

from __future__ import annotations

from typing import Any, TypeVar

from pyxai._errors import argument_error, describe
from pyxai.novelty.scores import Score

PARAMETERS = (
    "model",
    "layer",
    "method",
    "false_alarm_rate",
    "holdout",
    "batch_size",
    "seed",
    "progress",
)

Self = TypeVar("Self", bound="OutlierDetector")


class OutlierDetector:
    """Parameters, clones and tags; `NoveltyDetector` does the work."""

    method: Any
    layer: str | None

    def __init__(self, **params: Any) -> None:
        for name, value in params.items():
            setattr(self, name, value)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters of the constructor; with `deep` also those of a score, method__NAME."""
        found = {name: getattr(self, name) for name in PARAMETERS}
        if deep and hasattr(self.method, "get_params"):
            inner = self.method.get_params(deep=True)
            found.update({f"method__{name}": value for name, value in inner.items()})
        return found

    def set_params(self: Self, **params: Any) -> Self:
        """Sets parameters by name; method__NAME reaches those of a score."""
        known = self.get_params(deep=False)
        for name, value in params.items():
            if name.startswith("method__") and hasattr(self.method, "set_params"):
                self.method.set_params(**{name.removeprefix("method__"): value})
            elif name in known:
                setattr(self, name, value)
            else:
                raise argument_error("params", f"one of {[*known]}", name)
        return self

    def __sklearn_clone__(self: Self) -> Self:
        """An unfitted detector of the same network, which is borrowed and not copied."""
        params = self.get_params(deep=False)
        method = params.pop("method")
        if isinstance(method, Score):
            method = method.fresh()
        elif hasattr(method, "get_params"):
            from sklearn.base import clone

            method = clone(method)
        return type(self)(method=method, **params)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "threshold_")

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(
            estimator_type="outlier_detector",
            target_tags=TargetTags(required=False),
            input_tags=InputTags(two_d_array=True),
            no_validation=True,
        )

    def __repr__(self) -> str:
        method = self.method if isinstance(self.method, str) else describe(self.method)
        state = "fitted" if self.__sklearn_is_fitted__() else "not fitted"
        return f"NoveltyDetector({method}, layer={self.layer!r}, {state})"
