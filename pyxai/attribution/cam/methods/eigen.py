"""Methods that look at the features alone, or at their principal components."""

from __future__ import annotations

import torch

from pyxai.attribution.cam.methods.registry import Evidence, method, per_target


@method("fem")
def fem(evidence: Evidence, *, deviations: float = 2.0) -> torch.Tensor:
    """FEM: channels count by how often they stand out (Fuad et al. 2020, hal-02963298).

    weight_c = share of positions with A_c > mean + deviations × standard deviation. No class is
    involved: the map is the same for all.
    """
    features = evidence.features
    mean = features.mean(dim=(-2, -1), keepdim=True)
    deviation = (features - mean).square().mean(dim=(-2, -1), keepdim=True).sqrt()
    share = (features > mean + deviations * deviation).to(torch.float32).mean(dim=(-2, -1))
    return share[:, None].expand(-1, evidence.classes.shape[1], -1)


@method("eigencam")
def eigencam(evidence: Evidence) -> torch.Tensor:
    """Eigen-CAM: the first principal component (Muhammad & Yeasin 2020, arXiv:2008.00299).

    Features are centred over positions, as in pytorch-grad-cam. A principal component has no sign
    of its own; here it correlates positively with Σ_c A. The map is the same for all classes.
    """
    component = _oriented(_first_component(_rows(evidence.features)), evidence.features)
    return component[:, None].expand(-1, evidence.classes.shape[1], -1, -1)


@method("eigengradcam", gradients=True)
def eigengradcam(evidence: Evidence) -> torch.Tensor:
    """Eigen-CAM of G ⊙ A instead of A, which makes it depend on the class (pytorch-grad-cam).

    The sign is that of the correlation with Σ_c A.
    """
    features = evidence.features

    def component(gradient: torch.Tensor) -> torch.Tensor:
        return _oriented(_first_component(_rows(gradient * features)), features)

    return per_target(evidence.gradients, component)


@method("kpcacam")
def kpcacam(evidence: Evidence, *, gamma: float | None = None) -> torch.Tensor:
    """KPCA-CAM: kernel principal component (Karmani et al. 2024, arXiv:2410.00267), sigmoid kernel.

    k(a, b) = tanh(gamma a·b + 1) of centred features, gamma = 1 / C by default. Its cost grows with
    the cube of the number of positions. The sign is that of the correlation with Σ_c A.
    """
    rows = _rows(evidence.features)
    centered = rows - rows.mean(dim=1, keepdim=True)
    scale = 1 / rows.shape[2] if gamma is None else gamma
    kernel = (centered @ centered.mT * scale + 1).tanh_()
    kernel = kernel - kernel.mean(dim=1, keepdim=True)
    kernel = kernel - kernel.mean(dim=2, keepdim=True)
    component = _oriented(_scaled_eigenvector(kernel), evidence.features)
    return component[:, None].expand(-1, evidence.classes.shape[1], -1, -1)


def _rows(features: torch.Tensor) -> torch.Tensor:
    """One row of channels for each position, `[N, h * w, C]`.

    In float64: products of features square the condition of the problem.
    """
    return features.flatten(2).mT.to(torch.float64)


def _first_component(rows: torch.Tensor) -> torch.Tensor:
    """Projections `[N, P]` of centred rows `[N, P, C]` on their first principal component."""
    rows = rows - rows.mean(dim=1, keepdim=True)
    if rows.shape[1] <= rows.shape[2]:
        return _scaled_eigenvector(rows @ rows.mT)
    _, vectors = torch.linalg.eigh(rows.mT @ rows)
    projections: torch.Tensor = (rows @ vectors[..., -1:])[..., 0]
    return projections


def _scaled_eigenvector(matrix: torch.Tensor) -> torch.Tensor:
    """The last eigenvector times the root of its eigenvalue."""
    values, vectors = torch.linalg.eigh(matrix)
    scaled: torch.Tensor = vectors[..., -1] * values[..., -1:].clamp_min(0).sqrt()
    return scaled


def _oriented(component: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Maps `[N, h, w]` float32 of components `[N, P]`, turned to correlate with the features."""
    total = features.sum(dim=1).flatten(1).to(component.dtype)
    centered = total - total.mean(dim=1, keepdim=True)
    along = (component * centered).sum(dim=1, keepdim=True)
    sizes = features.abs().sum(dim=1).flatten(1).to(component.dtype).norm(dim=1, keepdim=True)
    sizes = sizes * component.norm(dim=1, keepdim=True)
    # After a fresh layer norm the sums are all 0 but for rounding: then the largest value is.
    peak = component.gather(1, component.abs().argmax(dim=1, keepdim=True))
    sign = torch.where(torch.where(along.abs() > 1e-4 * sizes, along, peak) < 0, -1.0, 1.0)
    maps = (component * sign).reshape(len(features), *features.shape[-2:])
    return maps.to(torch.float32)
