"""Fitted detectors on disk: one safetensors file with JSON in its header; nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyxai._errors import argument_error
from pyxai._files import refuse_other_file
from pyxai._sealed import load_tensors, map_tensors, save_tensors
from pyxai.novelty.estimator_files import UntrustedTypesError, estimator_bytes, estimator_from
from pyxai.novelty.identity import Identity
from pyxai.novelty.scores import SCORES, OutlierEstimator, Score

_MARK, _FORMAT = "pyxai", "pyxai novelty 2"
_OLDER = ("pyxai novelty 1",)  # without digests
_ESTIMATOR = "estimator"
_PARAMETERS = ("layer", "false_alarm_rate", "holdout", "batch_size", "seed")


def save_detector(detector: Any, path: Path) -> None:
    """Writes a fitted detector; see `NoveltyDetector.save`."""
    check_is_free(path)
    score: Score = detector.method_
    params = score.get_params(deep=False)
    tensors = {name: each.cpu().contiguous() for name, each in score.state.items()}
    if isinstance(score, OutlierEstimator):
        params.pop("estimator")
        written = estimator_bytes(score.fitted)
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
        "detector": {name: getattr(detector, name) for name in _PARAMETERS},
    }
    save_tensors(path, tensors, {_MARK: json.dumps(record)})


def check_is_free(path: Path, argument: str = "path") -> None:
    """Refuses a path that `save_detector` would refuse, before any work is done.

    Raises:
        ValueError: it is in no folder that exists, or something else than a detector has it.
    """
    if not path.absolute().parent.is_dir():
        raise argument_error(argument, "a file in a folder that exists", str(path))
    refuse_other_file(
        argument,
        path,
        "a detector saved by pyxai",
        lambda file: _format_of(file) in (_FORMAT, *_OLDER),
    )


@dataclass(frozen=True, kw_only=True)
class SavedDetector:
    """What a file says of a fitted detector.

    Attributes:
        parameters: those that a detector is made with, by name.
        score: the fitted one.
        threshold: images that score below it are novel.
        width: numbers of an image.
        input_shape: `[C, H, W]` of the first image.
        known: images that the score was fitted on.
        threshold_on: images that the threshold was chosen on.
        identity: the network and what was read of it.
    """

    parameters: dict[str, Any]
    score: Score
    threshold: float
    width: int
    input_shape: tuple[int, ...] | None
    known: int
    threshold_on: int
    identity: Identity


def read_detector(path: Path, trusted: Sequence[str]) -> SavedDetector:
    """Reads what `save_detector` wrote; see `NoveltyDetector.load`.

    Raises:
        ValueError: it is no such file, or an older one.
        UntrustedTypesError: an estimator is made of types that are not trusted.
    """
    if not path.is_file():
        raise ValueError(f"path: expected a file saved by NoveltyDetector.save, got {str(path)!r}")
    try:
        tensors, metadata = load_tensors(path)
        record = json.loads(metadata[_MARK])
        if record["format"] != _FORMAT:
            raise ValueError(f"format {record['format']!r}")
        shape = record["input_shape"]
        return SavedDetector(
            parameters={name: record["detector"][name] for name in _PARAMETERS},
            score=_score(record, tensors, trusted),
            threshold=float(record["threshold"]),
            width=int(record["features"]),
            input_shape=None if shape is None else tuple(map(int, shape)),
            known=int(record["known"]),
            threshold_on=int(record["threshold_on"]),
            identity=_identity(record["identity"]),
        )
    except UntrustedTypesError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        older = _format_of(path) in _OLDER
        reason = "an older version, without digests: fit again" if older else str(error)
        raise ValueError(
            f"path: expected a file saved by NoveltyDetector.save, got {str(path)!r} "
            f"({type(error).__name__}: {reason})"
        ) from error


def _identity(record: dict[str, Any]) -> Identity:
    names = record["class_names"]
    return Identity(**{**record, "class_names": None if names is None else tuple(names)})


def _score(
    record: dict[str, Any], tensors: dict[str, torch.Tensor], trusted: Sequence[str]
) -> Score:
    if record["method"] == OutlierEstimator.name:
        from sklearn.base import clone

        data = tensors[_ESTIMATOR].numpy().tobytes()
        fitted = estimator_from(data, int(record["features"]), trusted)
        estimated = OutlierEstimator(clone(fitted), **record["params"])
        estimated.fitted = fitted
        return estimated
    score = SCORES[record["method"]](**record["params"])
    score.state = {name: each.clone() for name, each in tensors.items()}  # off the file
    if record["report"] is not None:
        score.report = record["report"]  # type: ignore[attr-defined]
    return score


def _format_of(path: Path) -> str:
    """What the header says, "" if it says nothing."""
    try:
        return str(json.loads(map_tensors(path, of_others=True).metadata[_MARK])["format"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""
