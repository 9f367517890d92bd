"""Pictures as amplitudes of waves, in colours that vary independently: what is optimised."""

from __future__ import annotations

import hashlib
import math

import torch

_DEVIATION = 0.01  # of the amplitudes at the start
_CONTRAST = 0.25  # of a picture, by its amplitudes

# Columns: how red, green and blue vary together in photos, first brightness, then two colours.
# Principal axes of logit(RGB) over 1,000 photos, one of each ImageNet class, each axis as long as
# its standard deviation, the longest 1: `python tools/colour_statistics.py PHOTOS`.
_COLORS = ((0.558, 0.194, -0.060), (0.572, 0.005, 0.121), (0.601, -0.185, -0.060))


def stream(seed: int, *key: object) -> torch.Generator:
    """A generator of its own for everything that has a key; the global one is left alone."""
    digest = hashlib.sha256(repr((seed, *key)).encode()).digest()
    return torch.Generator(device="cpu").manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def start_spectrum(size: int, generator: torch.Generator) -> torch.Tensor:
    """The amplitudes of a grey picture with faint noise, `[3, size, size // 2 + 1, 2]` float32."""
    return _DEVIATION * torch.randn(
        3, size, size // 2 + 1, 2, generator=generator, dtype=torch.float32, device="cpu"
    )


def wave_lengths(size: int, decay: float, device: torch.device) -> torch.Tensor:
    """What amplitudes are multiplied by: 1 / frequency^decay, `[size, size // 2 + 1]` float32.

    Frequencies are in cycles a pixel. The mean of a picture, of frequency 0, counts as the lowest
    other frequency.
    """
    down = torch.fft.fftfreq(size, dtype=torch.float32, device="cpu")
    across = torch.fft.rfftfreq(size, dtype=torch.float32, device="cpu")
    frequencies = torch.hypot(down[:, None], across[None]).clamp(min=1 / size)
    return frequencies.pow(-decay).to(device)


def render(spectrum: torch.Tensor, waves: torch.Tensor) -> torch.Tensor:
    """The pictures of amplitudes.

    With decay 1 all octaves of frequencies have the same energy, as in photos, so that one
    learning rate suits all of them, and neither fine nor coarse patterns are favoured.

    Args:
        spectrum: `[n, 3, size, size // 2 + 1, 2]` float32, real and imaginary parts; the three
            are brightness and two colours.
        waves: see `wave_lengths`.

    Returns:
        `[n, 3, size, size]` RGB in (0, 1).
    """
    size = spectrum.shape[2]
    amplitudes = torch.view_as_complex(spectrum) * waves
    channels = torch.fft.irfft2(amplitudes, s=(size, size), norm="ortho")
    colors = torch.tensor(_COLORS, device=spectrum.device, dtype=torch.float32) * _CONTRAST
    return torch.einsum("nchw,kc->nkhw", channels, colors).sigmoid()


def nearest_even(length: float) -> int:
    """A length in pixels, so that half of it is whole."""
    return 2 * math.floor(length / 2 + 0.5)
