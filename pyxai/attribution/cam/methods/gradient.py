"""Methods that weigh channels or single activations by gradients, or by the head's weights."""

from __future__ import annotations

import torch

from pyxai._errors import argument_error, check_count
from pyxai.attribution.cam.methods.registry import (
    METHODS,
    Evidence,
    canonical,
    method,
    per_target,
    weighted_sum,
)
from pyxai.ops import cam_project


@method("cam", relu=False, exact="mean")
def cam(evidence: Evidence) -> torch.Tensor:
    """CAM: the weights of the linear head (Zhou et al. 2016, arXiv:1512.04150, Eq. 2)."""
    return evidence.head.weight[evidence.classes]


@method("gradcam", gradients=True)
def gradcam(evidence: Evidence) -> torch.Tensor:
    """Grad-CAM: mean gradient of each channel (Selvaraju et al. 2017, arXiv:1610.02391, Eq. 1)."""
    return evidence.gradients.mean(dim=(-2, -1))


@method("gradcam++", gradients=True)
def gradcam_plus_plus(evidence: Evidence) -> torch.Tensor:
    """Grad-CAM++ (Chattopadhay et al. 2018, arXiv:1710.11063, Eq. 7 and 19).

    weight_c = Σ_p α ReLU(G), α = G² / (2 G² + S G³) with S = Σ A_c. Numerator and denominator share
    G², so α = 1 / (2 + S G): nothing underflows, and no ε is needed beside it.
    """
    return _plus_plus(evidence, evidence.gradients)


def _plus_plus(evidence: Evidence, gradients: torch.Tensor) -> torch.Tensor:
    total = evidence.features.sum(dim=(-2, -1))[:, None, :, None, None]
    positions = evidence.features.shape[-2:].numel() // gradients.shape[-2:].numel()
    denominator = 2 + total * gradients
    alpha = torch.where(denominator.abs() > 1e-6, 1 / denominator, 0)
    return (alpha * gradients.relu()).sum(dim=(-2, -1)) * positions


@method("smoothgradcam++", gradients=True)
def smoothgradcam_plus_plus(
    evidence: Evidence, *, samples: int = 4, std: float = 0.3, seed: int = 0
) -> torch.Tensor:
    """Smooth Grad-CAM++ (Omeiza et al. 2019, arXiv:1908.01224): derivatives averaged over noise.

    D_i is the mean of G^i over noisy copies of the image. weight_c = Σ_p α ReLU(D_1),
    α = D_2 / (2 D_2 + S D_3), S = Σ A_c of the image itself. Costs one forward pass a sample; none
    for a linear head, whose gradient is the same for every image.

    Args:
        evidence: of the images.
        samples: noisy copies of each image.
        std: standard deviation of the noise, in the units of the model's input.
        seed: of the noise, which is the same for each image of a batch.
    """
    check_count("samples", samples)
    if evidence.linear_head is not None:
        return gradcam_plus_plus(evidence)
    generator = torch.Generator(device="cpu").manual_seed(seed)
    moments = [torch.zeros_like(evidence.gradients) for _ in range(3)]
    for _ in range(samples):
        noise = (
            torch.randn(
                (1, *evidence.inputs.shape[1:]),
                generator=generator,
                dtype=torch.float32,
                device="cpu",
            )
            * std
        )
        noisy = evidence.inputs + noise.to(evidence.inputs)
        gradients = evidence.on(noisy).gradients
        for power, moment in enumerate(moments, start=1):
            moment += gradients**power / samples
    first, second, third = moments
    total = evidence.features.sum(dim=(-2, -1))[:, None, :, None, None]
    denominator = 2 * second + total * third
    usable = denominator.abs() > 1e-6 * second
    alpha = torch.where(usable, second / denominator, 0)
    return (alpha * first.relu()).sum(dim=(-2, -1))


@method("xgradcam", gradients=True)
def xgradcam(evidence: Evidence) -> torch.Tensor:
    """XGrad-CAM: gradients weighted by activation (Fu et al. 2020, arXiv:2008.02312, Eq. 9).

    weight_c = Σ_p G A / Σ_p A.
    """
    gradients, features = evidence.gradients, evidence.features
    if gradients.shape[-2:].numel() == 1:  # Σ G A / Σ A = G
        return gradients[..., 0, 0]
    total = features.sum(dim=(-2, -1))
    products = per_target(gradients, lambda gradient: (gradient * features).sum(dim=(-2, -1)))
    return products / (total[:, None] + 1e-7)


@method("hirescam", gradients=True, exact="sum")
def hirescam(evidence: Evidence) -> torch.Tensor:
    """HiResCAM: Σ_c G ⊙ A, not averaged over positions (Draelos & Carin 2020, arXiv:2011.08891).

    For a linear head the signed map (relu=False) adds up to logit - bias.
    """
    return weighted_sum(evidence, evidence.gradients)


@method("gradcam_elementwise", gradients=True)
def gradcam_elementwise(evidence: Evidence) -> torch.Tensor:
    """Element-wise Grad-CAM: Σ_c ReLU(G ⊙ A), as in pytorch-grad-cam (Gildenblat et al. 2021)."""
    gradients, features = evidence.gradients, evidence.features
    if gradients.shape[-2:].numel() > 1:
        return per_target(gradients, lambda gradient: (gradient * features).relu_().sum(dim=1))
    # ReLU(g a) = ReLU(g) ReLU(a) + ReLU(-g) ReLU(-a), so two projections do.
    weights = gradients[..., 0, 0]
    positive = cam_project(features.relu(), weights.relu())
    return positive + cam_project((-features).relu(), (-weights).relu())


@method("layercam", gradients=True)
def layercam(evidence: Evidence) -> torch.Tensor:
    """LayerCAM: Σ_c ReLU(G) ⊙ A (Jiang et al. 2021, doi:10.1109/TIP.2021.3089943, Eq. 5 to 7)."""
    return weighted_sum(evidence, evidence.gradients.relu())


@method("shapleycam", gradients=True)
def shapleycam(evidence: Evidence) -> torch.Tensor:
    """ShapleyCAM: second-order Shapley values (Cai 2025, arXiv:2501.06261).

    weight_c = mean over positions of G - ½ H A, with H the Hessian of the score; for a head that is
    linear, or piecewise linear, the Hessian is 0 and this is Grad-CAM.
    """
    products = evidence.hessian_products
    gradients = evidence.gradients
    if products is not None:
        gradients = gradients - 0.5 * products
    return gradients.mean(dim=(-2, -1))


@method("finercam", gradients=True)
def finercam(
    evidence: Evidence, *, base: str = "gradcam", references: int = 3, strength: float = 0.6
) -> torch.Tensor:
    """Finer-CAM: what tells a class from those most like it (Zhang et al. 2025, arXiv:2501.11309).

    The base method on the score z_k - strength × mean of z_r, where r are the classes whose logits
    are closest to that of k.

    Args:
        evidence: of the images; targets must be classes.
        base: another method of this file.
        references: how many similar classes; fewer if there are not so many.
        strength: of the subtraction; 0 gives the base method.
    """
    chosen = METHODS.get(canonical(base) or "")
    if chosen is None or not chosen.gradients or chosen.name in ("finercam", "refinecam"):
        raise argument_error("base", "a gradient method such as 'gradcam'", base)
    classes = evidence.logits.shape[1]
    if classes < 2:
        raise ValueError("method: 'finercam' expected targets that are classes, at least 2, got 1")
    check_count("references", references)
    distance = (evidence.scores[..., None] - evidence.logits[:, None].float()).abs()
    own = evidence.classes.expand(len(distance), -1)[..., None]
    distance = distance.scatter(-1, own, torch.inf)
    similar = distance.topk(min(references, classes - 1), dim=-1, largest=False).indices
    found: torch.Tensor = chosen.compute(evidence.contrast(similar, strength))
    return found


@method("random")
def random(evidence: Evidence, *, seed: int = 0) -> torch.Tensor:
    """Weights drawn from [-1, 1]: a control, as no method should look like this one.

    Args:
        evidence: of the images.
        seed: of the weights, which are the same for each image and target.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    channels = evidence.features.shape[1]
    weights = torch.rand(channels, generator=generator, dtype=torch.float32, device="cpu") * 2 - 1
    return weights.to(evidence.features.device).expand(1, evidence.classes.shape[1], -1)
