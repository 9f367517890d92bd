"""Scores of the distance to known activations: neighbours, classes, decision boundaries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional

from pyxai._errors import argument_error, check_count
from pyxai.neighbors.products import products
from pyxai.neighbors.smallest import Smallest
from pyxai.novelty.activations import Activations
from pyxai.novelty.moments import Moments, Reservoir
from pyxai.novelty.scores.base import Score, Setting, from_numpy

Labels = np.ndarray[Any, Any] | None
_QUERIES = 1024  # rows compared with a block of 4,096 at once


@dataclass(eq=False)
class KNN(Score):
    """Minus the distance to the k-th nearest known neighbour, of vectors of length 1.

    -|x/|x| - n_k/|n_k||, from -2 to 0. Exact search, block by block: at no time more than 1,024 ×
    4,096 distances. Known images that are scored again find themselves, at a distance of 0 but for
    rounding (5e-4, as distances come from float32 cosines).

    Source: Sun et al., "Out-of-distribution detection with deep nearest neighbors" (2022).

    Attributes:
        k: which neighbour; the farthest where there are fewer.
        max_samples: known rows kept, float32; of more a uniform sample decided by the seed. 100,000
            of 2,048 numbers are 0.8 GB.
    """

    k: int = 50
    max_samples: int = 100_000

    name: ClassVar[str] = "knn"

    def begin(self, setting: Setting) -> None:
        check_count("k", self.k)
        super().begin(setting)
        self._kept = Reservoir(check_count("max_samples", self.max_samples), setting.seed)

    def update(self, chunk: Activations, labels: Labels) -> None:
        self._kept.add(_unit(chunk.features).cpu())

    def finish(self) -> None:
        self.state = {f"block{i}": part for i, part in enumerate(self._kept.parts())}
        del self._kept

    def score(self, chunk: Activations, state: dict[str, torch.Tensor]) -> torch.Tensor:
        rows = _unit(chunk.features)
        best = Smallest(len(rows), min(self.k, sum(map(len, state.values()))), rows.device)
        first = 0
        for block in state.values():
            for start in range(0, len(rows), _QUERIES):
                part = slice(start, start + _QUERIES)
                best.add(products(rows[part], block).neg_(), first, part)
            first += len(block)
        return -(2 + 2 * best.values.amax(dim=1).double()).clamp_min(0).sqrt()


@dataclass(eq=False)
class Mahalanobis(Score):
    """Minus the squared Mahalanobis distance to the nearest class.

    -min_c (x - m_c)ᵀ S⁺ (x - m_c), with S the covariance about the means of the classes, over n,
    and S⁺ its pseudo-inverse: directions in which known activations do not vary count for nothing.
    Classes without known images are left out.

    Source: Lee et al., "A simple unified framework for detecting out-of-distribution samples and
    adversarial attacks" (2018), Eq. 1 and 2, without input perturbation.

    Attributes:
        shrinkage: a in (1 - a) S + a · tr(S)/d · I, from 0 to 1. Above 0 no direction is ignored,
            which matters with fewer known images than a few times d.
    """

    shrinkage: float = 0.0

    name: ClassVar[str] = "mahalanobis"
    needs_labels: ClassVar[bool] = True

    def begin(self, setting: Setting) -> None:
        if not 0 <= self.shrinkage <= 1:
            raise argument_error("shrinkage", "a number from 0 to 1", self.shrinkage)
        super().begin(setting)
        assert setting.classes is not None
        self._moments = Moments(setting.classes, setting.width)

    def update(self, chunk: Activations, labels: Labels) -> None:
        self._moments.add(chunk.features, labels)

    def finish(self) -> None:
        moments = self._moments
        white = _whitening(moments.within(), self.shrinkage)
        self.state = _whitened(white, moments.means[moments.counts > 0])
        del self._moments

    def score(self, chunk: Activations, state: dict[str, torch.Tensor]) -> torch.Tensor:
        return -_nearest(chunk.features, state, "").amin(dim=1)


@dataclass(eq=False)
class RelativeMahalanobis(Mahalanobis):
    """As Mahalanobis, minus the distance to all known images as one class.

    -min_c [M_c(x) - M_0(x)], with M_c as in Mahalanobis and M_0(x) = (x - m)ᵀ T⁺ (x - m), mean and
    covariance of all known activations. What is unusual in a way that says nothing about classes
    cancels out. Needs known images of two classes or more.

    Source: Ren et al., "A simple fix to Mahalanobis distance for improving near-OOD detection"
    (2021), Eq. 2.
    """

    name: ClassVar[str] = "relative_mahalanobis"

    def finish(self) -> None:
        moments = self._moments
        if int((moments.counts > 0).sum()) < 2:
            expected = "images of two classes or more for relative_mahalanobis"
            raise argument_error("known", expected, "one class")
        total = _whitening(moments.about(moments.mean), self.shrinkage)
        self.state = {
            **_whitened(
                _whitening(moments.within(), self.shrinkage), moments.means[moments.counts > 0]
            ),
            **_whitened(total, moments.mean[None], "all_"),
        }
        del self._moments

    def score(self, chunk: Activations, state: dict[str, torch.Tensor]) -> torch.Tensor:
        to_all = _nearest(chunk.features, state, "all_")
        return -(_nearest(chunk.features, state, "") - to_all).amin(dim=1)


@dataclass(eq=False)
class FDBD(Score):
    """Distance to the decision boundaries, over the distance to the mean of the known.

    (1 / (K - 1)) Σ_{c ≠ y} |l_y - l_c| / |w_y - w_c|, divided by |x - m|, with y the top class, w_c
    the rows of the last linear layer and m the mean of known activations.

    Source: Liu and Qin, "Fast decision boundary based out-of-distribution detector" (2024), Eq. 8.
    """

    name: ClassVar[str] = "fdbd"
    needs_logits: ClassVar[bool] = True
    needs_head: ClassVar[bool] = True

    def begin(self, setting: Setting) -> None:
        super().begin(setting)
        assert setting.head is not None
        self._weight = setting.head.weight
        self._moments = Moments(1, setting.width, scatter=False)

    def update(self, chunk: Activations, labels: Labels) -> None:
        self._moments.add(chunk.features)

    def finish(self) -> None:
        self.state = {
            "weight": self._weight.double().cpu().contiguous(),
            "mean": from_numpy(self._moments.mean),
        }
        del self._moments, self._weight

    def score(self, chunk: Activations, state: dict[str, torch.Tensor]) -> torch.Tensor:
        assert chunk.logits is not None
        weight, logits = state["weight"], chunk.logits.double()
        top, classes = logits.max(dim=1)
        squares = weight.square().sum(dim=1)
        apart = squares[classes, None] + squares - 2 * (weight[classes] @ weight.T)
        gaps = (top[:, None] - logits) / apart.clamp_min(1e-12).sqrt()
        gaps.scatter_(1, classes[:, None], 0.0)
        far = (chunk.features.double() - state["mean"]).square().sum(dim=1).sqrt()
        return gaps.sum(dim=1) / (logits.shape[1] - 1) / far.clamp_min(1e-12)


def _unit(rows: torch.Tensor) -> torch.Tensor:
    unit: torch.Tensor = functional.normalize(rows.float(), dim=1, eps=1e-10)
    return unit


def _whitening(covariance: np.ndarray[Any, Any], shrinkage: float) -> np.ndarray[Any, Any]:
    """A `[d, r]` with A Aᵀ the pseudo-inverse of the covariance (shrunk), r its rank."""
    from scipy.linalg import eigh

    if shrinkage:
        sphere = np.eye(len(covariance)) * (np.trace(covariance) / len(covariance))
        covariance = (1 - shrinkage) * covariance + shrinkage * sphere
    values, vectors = eigh(covariance)
    # As scipy.linalg.pinvh: what is left of rounding counts as 0.
    kept = values > max(float(values[-1]), 0.0) * len(values) * np.finfo(np.float64).eps
    if not kept.any():
        raise argument_error("known", "activations that differ from each other", "equal ones")
    found: np.ndarray[Any, Any] = vectors[:, kept] / np.sqrt(values[kept])
    return found


def _whitened(
    white: np.ndarray[Any, Any], means: np.ndarray[Any, Any], prefix: str = ""
) -> dict[str, torch.Tensor]:
    """The state from which `_nearest` computes; the first mean is the origin."""
    return {
        f"{prefix}whitening": from_numpy(white),
        f"{prefix}origin": from_numpy(means[0]),
        f"{prefix}centres": from_numpy((means - means[0]) @ white),
    }


def _nearest(rows: torch.Tensor, state: dict[str, torch.Tensor], prefix: str) -> torch.Tensor:
    """Squared Mahalanobis distances `[n, c]` to the centres."""
    white = (rows.double() - state[f"{prefix}origin"]) @ state[f"{prefix}whitening"]
    centers = state[f"{prefix}centres"]
    squares = white.square().sum(dim=1, keepdim=True) + centers.square().sum(dim=1)
    return (squares - 2 * white @ centers.T).clamp_min(0)
