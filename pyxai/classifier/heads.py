"""Heads that are linear: logits = weight · mean over positions of the features + bias.

Judged on numbers, not on names: what follows a layer is run on features of our own, and the logits
must be an affine function of their means, whatever the image was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from pyxai._precision import full_precision, is_exact
from pyxai.classifier.points import find_layer

_PEAK = 256  # times the mean, at most
_SURE = 0.02  # of what is allowed: rounding
_AT_ONCE = 1 << 24  # numbers of the features that are given at a time


@dataclass(frozen=True)
class LinearHead:
    """Global average pooling and linear layers: logits = weight · mean(features) + bias.

    The mean is over the positions of the layer: for tokens, over the patches.

    Attributes:
        weight: `[K, C]` float32.
        bias: `[K]` float32.
    """

    weight: torch.Tensor
    bias: torch.Tensor


@dataclass(frozen=True, eq=False)
class Rest:
    """What follows a layer, in a pass of one image.

    Attributes:
        run: features `[m, C, h, w]` -> logits `[m, K]`.
        features: of the image, `[1, C, h, w]`.
        scale: the largest logit that the network gave for it.
    """

    run: Callable[[torch.Tensor], torch.Tensor]
    features: torch.Tensor
    scale: float


@dataclass(frozen=True)
class FoundHead:
    """What was found out about the head after a layer.

    Attributes:
        module: the linear layer whose weights these are, read afresh at each use; None where more
            than one module makes them.
        read: of what was measured, the weights, and the state of the parameters they hold for.
    """

    module: str | None
    read: tuple[LinearHead, tuple[tuple[int, int], ...]] | None = None


@full_precision()
def find_head(
    network: nn.Module, rest: Rest, others: Sequence[Rest] = (), *, loud: bool = True
) -> FoundHead | None:
    """The linear head after a layer, None if it is of another kind.

    Args:
        network: whose parameters may be the weights.
        rest: what follows the layer, in a pass of one image.
        others: the same in passes of other images: what it gives must not depend on these.
        loud: whether features may be much larger than the image's. Not where logits are taken back
            from probabilities, which are soon 0 or 1.
    """
    features = rest.features
    probes, share = _probes(features, loud)
    logits = rest.run(probes).float()
    means = probes.float().mean(dim=(2, 3))
    if not bool(torch.isfinite(logits).all()):
        return None
    allowed = _allowed(logits, features)
    zero, one, two, both, turned, *peaks = logits
    if not _close(one + two - zero, both, allowed) or not _close(one, turned, allowed):
        return None
    peak = zero + share * (one - zero)
    of_peaks = _allowed(torch.stack([zero, peak]), features)
    if not all(_close(each, peak, of_peaks) for each in peaks):
        return None
    for other in others:
        beside = other.run(probes).float()
        # Without features of ours that drown it, what another image brings shows.
        own = tolerance(features) * max(rest.scale, other.scale) + 1e-6
        if not _close(beside, logits, allowed) or not _close(beside[0], zero, own):
            return None
    return _closest_head(network, rest, logits, means, allowed)


def _closest_head(
    network: nn.Module,
    rest: Rest,
    logits: torch.Tensor,
    means: torch.Tensor,
    allowed: torch.Tensor,
) -> FoundHead | None:
    """The module whose weights make the logits, or measured weights where none does exactly.

    There may be others with nearly the same weights: an average over the training, for one.
    """

    def gap(head: LinearHead) -> float:
        return float(((means @ head.weight.T + head.bias - logits).abs() / allowed).max())

    gaps: dict[str, float] = {}
    for name, module in network.named_modules():
        head = head_of(module)
        if head is not None and head.weight.shape == (logits.shape[1], means.shape[1]):
            gaps[name] = gap(head)
    best = min(reversed(list(gaps)), key=gaps.__getitem__, default=None)
    if best is not None and gaps[best] <= _SURE:
        return FoundHead(best)
    head = _measured(rest.features, rest.run)
    found = gap(head)
    if best is not None and gaps[best] <= min(1.0, 4 * found):
        return FoundHead(best)
    return FoundHead(None, (head, state_of(network))) if found <= 1 else None


def read_head(network: nn.Module, found: FoundHead) -> LinearHead | None:
    """The weights of a head now; None if they have to be measured again."""
    if found.module is not None:
        try:
            return head_of(find_layer(network, found.module))
        except ValueError:  # it was taken out
            return None
    assert found.read is not None
    head, state = found.read
    return head if state == state_of(network) else None


def state_of(network: nn.Module) -> tuple[tuple[int, int], ...]:
    """Changes whenever a parameter or buffer does."""
    tensors = (*network.parameters(), *network.buffers())
    return tuple((each.data_ptr(), each._version) for each in tensors if not each.is_inference())


@full_precision()
def explains(head: LinearHead, features: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Of which images a head explains the logits, `[N]`; features that are not finite tell nothing.

    Args:
        head: found for another image.
        features: `[N, C, h, w]`.
        logits: `[N, K]` that the network gave.
    """
    logits = logits.float()
    if head.bias.shape[0] != logits.shape[1] or head.weight.shape[1] != features.shape[1]:
        return torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    means = features.float().mean(dim=(2, 3))
    gaps = torch.addmm(head.bias, means, head.weight.T).sub_(logits).abs_()
    if bool((gaps <= tolerance(features) * logits.abs()).all()):  # nearly always
        return torch.ones(len(logits), dtype=torch.bool, device=logits.device)
    # By the size of what is added up: a logit may be near 0 where large numbers cancel.
    sizes = torch.addmm(head.bias.abs(), means.abs(), head.weight.abs().T)
    largest = logits.abs().amax(dim=1, keepdim=True)
    allowed = tolerance(features) * (1e-6 + torch.minimum(sizes, largest))
    rounding = _rounding(features) * sizes.amax(dim=1, keepdim=True)
    return ~(gaps > allowed + rounding).any(dim=1)


def _allowed(logits: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """By how much logits `[m, K]` may be off, `[K]`: outputs beside much larger ones count too."""
    sizes = logits.abs().amax(dim=0)
    return tolerance(features) * sizes + _rounding(features) * sizes.amax() + 1e-30


def _rounding(features: torch.Tensor) -> float:
    """How far sums of products may be off, as a share of the largest."""
    return 4e-6 if is_exact(features) else 1e-2


def tolerance(features: torch.Tensor) -> float:
    """How far logits may lie from the weighted means, as a share of the largest logit."""
    return 2e-3 if is_exact(features) else 5e-2


def head_of(module: nn.Module) -> LinearHead | None:
    """The weights of a linear layer or a 1 × 1 convolution, None for any other module."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, torch.Tensor) or not is_linear(module):
        return None
    weight = weight.detach().to(torch.float32)
    if weight.ndim > 2:
        weight = weight.flatten(1)
    bias = getattr(module, "bias", None)
    if not isinstance(bias, torch.Tensor):
        return LinearHead(weight, weight.new_zeros(len(weight)))
    return LinearHead(weight, bias.detach().to(torch.float32))


def is_linear(module: nn.Module) -> bool:
    """Whether a module is linear in the channels and does nothing else."""
    if isinstance(module, torch.jit.ScriptModule):
        return False
    if isinstance(module, nn.Conv2d):
        plain = (module.kernel_size, module.stride, module.groups) == ((1, 1), (1, 1), 1)
        return plain and module.padding in ((0, 0), "valid", "same")
    return isinstance(module, nn.Linear)


def _probes(features: torch.Tensor, loud: bool) -> tuple[torch.Tensor, float]:
    """Features whose logits tell whether positions count alike and channels add up.

    Returns:
        `[7, C, h, w]`: nothing, one, another, their sum, the first with its positions turned, and
        twice a part of its mean in a single position; and that part.

    From a generator of our own: the global random state belongs to the user. Both signs, another
    mean in each channel, and means that no normalisation would leave as they are.
    """
    generator = torch.Generator(device="cpu").manual_seed(0)
    shape = (2, *features.shape[1:])
    noise = 3 * torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
    means = (2, shape[1], 1, 1)
    noise += 4 * torch.randn(means, generator=generator, dtype=torch.float32, device="cpu") + 2
    if not loud:
        noise *= (
            features.detach().float().square().mean().sqrt().cpu() / noise.square().mean().sqrt()
        )
    one, two = noise.to(features)
    positions = one.shape[-2] * one.shape[-1]
    times = min(positions, _PEAK)  # half precision ends at 65504
    peaks = one.new_zeros((2, *one.shape))
    for peak, position in zip(peaks.flatten(2), (positions // 3, positions - 1), strict=True):
        peak[:, position] = times * one.float().mean(dim=(1, 2)).to(one.dtype)
    zero = torch.zeros_like(one)
    probes = torch.stack([zero, one, two, one + two, one.flip(-1, -2), *peaks])
    return probes, times / positions


def _measured(features: torch.Tensor, run: Callable[[torch.Tensor], torch.Tensor]) -> LinearHead:
    """The weights of a head that is known to be affine: what each channel alone brings."""
    channels = features.shape[1]
    positions = features.shape[2:]
    bias = run(features.new_zeros((1, channels, *positions)))[0].float()
    step = max(1, _AT_ONCE // (channels * positions.numel()))
    columns = []
    for start in range(0, channels, step):
        some = torch.arange(
            start, min(start + step, channels), device=features.device, dtype=torch.int64
        )
        single = features.new_zeros((len(some), channels, *positions))
        single[torch.arange(len(some), device=features.device, dtype=torch.int64), some] = 1
        columns.append(run(single).float() - bias)
    return LinearHead(torch.cat(columns).T.contiguous(), bias)


def _close(found: torch.Tensor, expected: torch.Tensor, allowed: torch.Tensor | float) -> bool:
    return bool(((found - expected).abs() <= allowed).all())
