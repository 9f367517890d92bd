"""How much of a picture a position of a layer looks at, measured."""

from __future__ import annotations

import torch

from pyxai.classifier import Classifier, Examined
from pyxai.classifier.borrow import borrowed
from pyxai.feature_visualization import fourier
from pyxai.feature_visualization.units import look_at_layer

_PROBES = 4
_STRIP = 512, 4  # of a strip no more is looked at than so many pixels, or times its shorter side
_SHARE = 0.95  # of the gradient's magnitude


@torch.inference_mode(False)
def receptive_side(classifier: Classifier, layer: str | None, size: tuple[int, int]) -> int:
    """The side of the square around a position that nearly all of its response comes from.

    The effective receptive field (Luo et al. 2016): the gradient of the middle position by the
    input, of a random mixture of channels, on four pictures of noise. The square holds 95 % of its
    magnitude. The theoretical field of late layers is larger than most photos, but what lies far
    out hardly counts.

    Args:
        classifier: the model; it is left exactly as it was.
        layer: a layer with positions.
        size: (height, width) of the input.

    Returns:
        Pixels of the input, at most its longer side; of a strip, of the piece that is looked at.
    """
    most = max(_STRIP[0], _STRIP[1] * min(size))
    height, width = size = min(size[0], most), min(size[1], most)
    longer = max(size)
    random = fourier.stream(0, "receptive field")
    noise = torch.stack([fourier.start_spectrum(longer, random) for _ in range(_PROBES)])
    # A hundred times the contrast of a first picture is about that of a photo.
    pictures = fourier.render(100 * noise, fourier.wave_lengths(longer, 1.0, noise.device))
    preprocessing = classifier.preprocessing
    mean, std = (
        torch.tensor(values, dtype=torch.float32, device="cpu")[:, None, None]
        for values in (preprocessing.mean, preprocessing.std)
    )
    inputs = ((pictures[:, :, :height, :width] - mean) / std).to(
        classifier.device, classifier.dtype
    )
    examined = Examined(classifier, inputs)
    found = look_at_layer(examined, layer)
    mixture = torch.randn(found.channels, generator=random, dtype=torch.float32, device="cpu").to(
        classifier.device
    )
    row, column = (length // 2 for length in found.size)
    with borrowed(classifier.network), torch.enable_grad():
        inputs.requires_grad_()
        features = found.features(examined)
        total = (features[:, :, row, column].float() @ mixture).sum()
        (gradient,) = torch.autograd.grad(total, inputs)
    weight = gradient.float().abs().sum(dim=(0, 1)).double().cpu()
    middle = [(place + 0.5) * length / count for place, length, count in _axes(found.size, size)]
    down, across = (
        (torch.arange(length, dtype=torch.int64, device="cpu") + 0.5 - center).abs()
        for length, center in zip(size, middle, strict=True)
    )
    distance = torch.maximum(down[:, None], across[None]).flatten()
    order = distance.argsort(stable=True)
    mass = weight.flatten()[order].cumsum(0)
    if not float(mass[-1]) > 0:  # nothing gets through: a dead or a constant layer
        return longer
    reached = int(torch.searchsorted(mass, _SHARE * mass[-1]).clamp(max=len(mass) - 1))
    return min(longer, max(1, round(2 * float(distance[order[reached]]) + 1)))


def _axes(counts: tuple[int, int], size: tuple[int, int]) -> list[tuple[int, int, int]]:
    return [(count // 2, length, count) for count, length in zip(counts, size, strict=True)]
