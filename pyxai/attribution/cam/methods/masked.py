"""Methods that change something and look what the score does."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pyxai._errors import check_count
from pyxai.attribution.cam.methods.registry import Evidence, method
from pyxai.ops import mask_blend

_SAMPLE = 16  # channels whose scores stand for those that a screening leaves out


@method("ablationcam")
def ablationcam(evidence: Evidence) -> torch.Tensor:
    """Ablation-CAM: the drop of the score without a channel (Desai & Ramaswamy 2020, WACV, Eq. 4).

    weight_c = (y - y without c) / |y|, the channel set to 0. For a linear head that is
    W[k, c] mean(A_c) / |y|; for others only what follows the layer runs again, once for each
    channel.
    """
    features, scores = evidence.features, evidence.scores
    size = torch.where(scores.abs() > 1e-20, scores.abs(), 1.0)[..., None]
    if evidence.linear_head is not None:
        weight = evidence.linear_head.weight[evidence.classes]
        return weight * features.mean(dim=(-2, -1))[:, None] / size
    channels = features.shape[1]
    drops = features.new_empty((len(features), scores.shape[1], channels))
    # Heads are cheap beside the memory that carries their input: a few times the images at once.
    step = 4 * evidence.images_at_once
    for row in range(len(features)):
        for part in torch.split(torch.arange(channels, dtype=torch.int64, device="cpu"), step):
            ablated = features[row].expand(len(part), -1, -1, -1).clone()
            ablated[torch.arange(len(part), dtype=torch.int64, device="cpu"), part] = 0
            drops[row, :, part] = (scores[row] - evidence.scores_from(ablated, row)).mT
    return drops / size


@method("scorecam")
def scorecam(evidence: Evidence, *, channels: int | None = None) -> torch.Tensor:
    """Score-CAM (Wang et al. 2020, arXiv:1910.01279): channels as masks over the image.

    weight = softmax over channels of the target's logit for image ⊙ mask_c, where mask_c is the
    channel scaled to [0, 1] and resized. One forward pass for each channel, in constant memory.

    Args:
        evidence: of the images.
        channels: how many channels to score, those with the largest sums; the others get the mean
            score of a sample of 16 of them. What this costs is in the report: "screening_error",
            the standard error it leaves in the map, as a share of the map's range.
    """
    return _scored(evidence, channels, lambda row, masks: evidence.scores_of(masks.over(row), row))


@method("sscam")
def sscam(
    evidence: Evidence,
    *,
    samples: int = 35,
    std: float = 2.0,
    seed: int = 0,
    channels: int | None = None,
) -> torch.Tensor:
    """SS-CAM (Wang et al. 2020, arXiv:2006.14255): Score-CAM with noise on the masks, averaged.

    Args:
        evidence: of the images.
        samples: noisy copies of each mask; each costs one forward pass for each channel.
        std: standard deviation of the noise; masks have values in [0, 1].
        seed: of the noise, which is the same for each image of a batch.
        channels: see `scorecam`.
    """
    check_count("samples", samples)

    def score(row: int, masks: _Masks) -> torch.Tensor:
        # A stream of its own for each channel, so that chunks do not matter.
        streams = [
            torch.Generator(device="cpu").manual_seed((seed << 32) + int(c)) for c in masks.channels
        ]
        total = torch.zeros((), dtype=torch.float32, device="cpu")
        for _ in range(samples):
            size = evidence.inputs.shape[-2:]
            noise = torch.stack(
                [
                    torch.randn(size, generator=stream, dtype=torch.float32, device="cpu")
                    for stream in streams
                ]
            )
            noise = noise.to(evidence.inputs.device) * std
            total = total + evidence.scores_of(masks.over(row, noise=noise), row)
        return total / samples

    return _scored(evidence, channels, score)


@method("iscam")
def iscam(evidence: Evidence, *, samples: int = 10, channels: int | None = None) -> torch.Tensor:
    """IS-CAM (Naidu et al. 2020, arXiv:2010.03023): Score-CAM integrated over the masks' strength.

    The score of a channel is the mean for masks × i / samples, i = 1 ... samples.

    Args:
        evidence: of the images.
        samples: steps of the integral; each costs one forward pass for each channel.
        channels: see `scorecam`.
    """
    check_count("samples", samples)

    def score(row: int, masks: _Masks) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float32, device="cpu")
        for step in range(1, samples + 1):
            strength = step / samples
            total = total + evidence.scores_of(masks.over(row, strength=strength), row)
        return total / samples

    return _scored(evidence, channels, score)


class _Masks:
    """Some channels of one image as masks, laid over the image in a buffer that is used again."""

    def __init__(self, evidence: Evidence, size: int) -> None:
        self.inputs = evidence.inputs
        layout = torch.contiguous_format
        if self.inputs.is_contiguous(memory_format=torch.channels_last):
            layout = torch.channels_last
        shape = (size, *self.inputs.shape[1:])
        self.buffer = torch.empty(
            shape, dtype=self.inputs.dtype, device=self.inputs.device, memory_format=layout
        )
        self.channels: torch.Tensor = torch.empty(0, dtype=torch.float32, device="cpu")
        self.masks: torch.Tensor = torch.empty(0, dtype=torch.float32, device="cpu")

    def choose(self, features: torch.Tensor, channels: torch.Tensor) -> None:
        chosen = features[channels]
        low = chosen.amin(dim=(-2, -1), keepdim=True)
        span = chosen.amax(dim=(-2, -1), keepdim=True) - low
        self.masks = torch.where(span > 0, (chosen - low) / span, 0)
        self.channels = channels

    def over(
        self, row: int, *, strength: float = 1.0, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        masks = self.masks * strength
        if noise is not None:
            size = list(noise.shape[-2:])
            masks = torch.nn.functional.interpolate(masks[None], size, mode="bilinear")[0] + noise
        if self.inputs.dtype == torch.float64:
            masks = masks.to(torch.float64)
        return mask_blend(self.inputs[row : row + 1], masks, out=self.buffer[: len(masks)])


def _scored(
    evidence: Evidence,
    count: int | None,
    score: Callable[[int, _Masks], torch.Tensor],
) -> torch.Tensor:
    """Softmax over channels of the scores that `score` gives for masks, `[N, k, C]`."""
    features = evidence.features
    channels = features.shape[1]
    if count is not None:
        check_count("channels", count, or_none=True)
    masks = _Masks(evidence, min(evidence.images_at_once, channels))
    targets = evidence.scores.shape[1]
    weights = features.new_empty((len(features), targets, channels))
    errors = features.new_zeros((len(features), targets))
    for row in range(len(features)):
        order = features[row].sum(dim=(-2, -1)).argsort(descending=True)
        kept = channels if count is None else min(count, channels)
        rest = order[kept:]
        # Evenly spread over the rest, which is in order of strength.
        places = (
            torch.linspace(
                0, len(rest) - 1, min(_SAMPLE, len(rest)), dtype=torch.float32, device="cpu"
            )
            .round()
            .long()
        )
        wanted = torch.cat([order[:kept], rest[places.to(rest.device)]])
        if kept == channels:
            wanted = torch.arange(channels, device=features.device, dtype=torch.int64)
        found = []
        for part in torch.split(wanted, len(masks.buffer)):
            masks.choose(features[row], part)
            found.append(score(row, masks))
        scores = torch.cat(found)  # [channels that were scored, k]
        everything = scores[kept:].mean(dim=0).expand(channels, -1).clone()
        everything[wanted] = scores
        weights[row] = everything.softmax(dim=0).mT
        if len(rest) > 1:
            errors[row] = _screening_error(features[row], weights[row], rest, scores[kept:])
    if count is not None:
        evidence.report["screening_error"] = errors
    return weights


def _screening_error(
    features: torch.Tensor, weights: torch.Tensor, rest: torch.Tensor, sample: torch.Tensor
) -> torch.Tensor:
    """Standard error `[k]` that scores guessed from a sample leave in a map, by its range.

    A score that is off by e makes a weight off by the factor exp(e). Channels scatter around the
    guess, independently and as much as the sample does; and the guess, a mean over the sample, is
    itself off, for all of them together.
    """
    spread = (sample - sample.mean(dim=0)).exp().std(dim=0)  # [k]
    guessed, left = weights[:, rest], features[rest]
    own = torch.einsum("kc,chw->khw", guessed.square(), left.square())
    common = torch.einsum("kc,chw->khw", guessed, left).square() / len(sample)
    variance = own + common
    maps = torch.einsum("kc,chw->khw", weights, features).relu()
    span = maps.amax(dim=(-2, -1)) - maps.amin(dim=(-2, -1))
    return spread * variance.sqrt().amax(dim=(-2, -1)) / span.clamp_min(1e-12)
