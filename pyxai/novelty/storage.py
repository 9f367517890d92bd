"""Fitted detectors on disk: one safetensors file with JSON in its header; nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pyxai._errors import MissingExtraError, argument_error
from pyxai._files import replacing
from pyxai.novelty.identity import Identity, identity_of, weights_token
from pyxai.novelty.scores import SCORES, OutlierEstimator, Score

_FORMAT = "pyxai novelty 1"
_ESTIMATOR = "estimator"
# What iforest, ocsvm and lof are made of, beside what skops trusts by itself.
TRUSTED = (
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neighbors._kd_tree.KDTree64",
    "sklearn.tree._tree.Tree",
)


def save_detector(detector: Any, path: Path) -> None:
    """Writes a fitted detector; see `NoveltyDetector.save`."""
    if not path.absolute().parent.is_dir():
        raise argument_error("path", "a file in a folder that exists", str(path))
    score: Score = detector.method_
    params = score.get_params(deep=False)
    tensors = {name: each.cpu().contiguous() for name, each in score.state.items()}
    if isinstance(score, OutlierEstimator):
        params.pop("estimator")
        written = _skops().dumps(score.fitted)
        tensors[_ESTIMATOR] = torch.from_numpy(np.frombuffer(written, np.uint8).copy())
    record = {
        "format": _FORMAT,
        "method": score.name,
        "params": params,
        "report": getattr(score, "report", None),
        "threshold": detector.threshold_,
        "features": detector.n_features_in_,
        "input_shape": detector.input_shape_,
        "known": detector.n_known_,
        "threshold_on": detector.n_threshold_,
        "identity": asdict(detector.identity_),
        "detector": {
            name: getattr(detector, name)
            for name in ("layer", "false_alarm_rate", "holdout", "batch_size", "seed")
        },
    }
    with replacing(path) as partial:
        save_file(tensors, partial, metadata={"pyxai": json.dumps(record)})


def load_detector(
    cls: Any, path: Path, clf: Any, other_network: bool, trusted: Sequence[str]
) -> Any:
    """Reads a detector; see `NoveltyDetector.load`."""
    if not path.is_file():
        raise ValueError(f"path: expected a file saved by NoveltyDetector.save, got {str(path)!r}")
    try:
        with safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {})["pyxai"])
            if record["format"] != _FORMAT:
                raise ValueError(f"format {record['format']!r}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        identity = _identity(record["identity"])
        detector = cls(clf, **record["detector"])
        detector.threshold_ = float(record["threshold"])
        detector.n_features_in_ = int(record["features"])
        shape = record["input_shape"]
        detector.input_shape_ = None if shape is None else tuple(map(int, shape))
        detector.n_known_ = int(record["known"])
        detector.n_threshold_ = int(record["threshold_on"])
        if record["method"] != OutlierEstimator.name:
            score = SCORES[record["method"]](**record["params"])
            score.state = tensors
            if record["report"] is not None:
                score.report = record["report"]  # type: ignore[attr-defined]
    except (ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise ValueError(
            f"path: expected a file saved by NoveltyDetector.save, got {str(path)!r} "
            f"({type(error).__name__}: {error})"
        ) from error
    if record["method"] == OutlierEstimator.name:
        score = _estimator(tensors[_ESTIMATOR], record["params"], trusted)
    detector.method = score.fresh()
    detector.method_, detector.failures_ = score, []
    detector._fitted_source = detector._source(detector.input_shape_)
    detector.layer_ = detector._fitted_source.layer_name()
    detector.identity_ = identity_of(clf, detector.layer_)
    detector._token = weights_token(detector._classifier())
    differences = identity.differences(detector.identity_)
    if differences and not other_network:
        raise ValueError(
            f"clf: expected the network that {str(path)!r} was fitted on, got another one: "
            f"{'; '.join(differences)} differ. Fit again, or pass other_network=True if the "
            "activations are known to be the same"
        )
    return detector


def _identity(record: dict[str, Any]) -> Identity:
    names = record["class_names"]
    return Identity(**{**record, "class_names": None if names is None else tuple(names)})


def _estimator(
    written: torch.Tensor, params: dict[str, Any], trusted: Sequence[str]
) -> OutlierEstimator:
    """An estimator made of nothing but trusted types.

    Raises:
        ValueError: of others.
    """
    skops = _skops()
    data = written.numpy().tobytes()
    asked = set(skops.get_untrusted_types(data=data))
    if unknown := sorted(asked - {*TRUSTED, *trusted}):
        raise ValueError(
            f"path: expected an estimator of trusted types, got one with {', '.join(unknown)}; if "
            "you trust where the file comes from, pass these names as trusted="
        )
    fitted = skops.loads(data, trusted=sorted(asked))
    from sklearn.base import clone

    score = OutlierEstimator(clone(fitted), **params)
    score.fitted = fitted
    return score


def _skops() -> Any:
    try:
        from skops import io
    except ImportError as error:
        purpose = "Saving and loading detectors of scikit-learn"
        raise MissingExtraError(purpose, "skops", "novelty") from error
    return io
