"""What can be said of a photo without a network: size, tones, colour, sharpness, information."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 128
"""Longer side of the picture on which tones, colour, blur and information are measured."""


class Quality(NamedTuple):
    """Measures of one photo.

    Attributes:
        width: in pixels, upright.
        height: in pixels, upright.
        aspect: the longer side divided by the shorter, 1 or more.
        dark_tone: 5 % of the pixels are darker than this grey value, 0 to 255.
        bright_tone: 1 % of the pixels are brighter than this grey value, 0 to 255.
        colour: 1 % of the pixels have a larger difference between their largest and smallest
            channel, 0 (grey) to 255.
        detail: variance of the 3 × 3 Laplacian of the grey picture divided by the grey picture's
            own variance, so that neither contrast nor exposure matters; about 0.01 for blurred
            photos, 0.3 and more for most sharp ones. NaN for a plain picture, or one of fewer
            than 3 × 3 pixels.
        information: Shannon entropy of the histogram of the 256 grey values, 0 to 8 bits.
    """

    width: float
    height: float
    aspect: float
    dark_tone: float
    bright_tone: float
    color: float
    detail: float
    information: float


@dataclass(frozen=True)
class Check:
    """From which value of a measure on a photo is listed.

    Attributes:
        issue: what it is then called.
        measure: a field of `Quality`.
        side: whether values below or above the limit are listed.
        limit: the value.
        reason: in words, with a place for the value.
    """

    issue: str
    measure: str
    side: Literal["below", "above"]
    limit: float
    reason: str

    def failed(self, values: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which of these values are beyond the limit; NaN never is."""
        return values < self.limit if self.side == "below" else values > self.limit


# Chosen between ordinary photos and their blurred, dark, pale and grey copies:
# tools/audit_study.py, docs/audit.md.
CHECKS = (
    Check("odd_aspect", "aspect", "above", 3.0, "one side is {:.1f} times as long as the other"),
    Check("dark", "bright_tone", "below", 80.0, "99 % of it is darker than {:.0f} of 255"),
    Check("bright", "dark_tone", "above", 190.0, "95 % of it is brighter than {:.0f} of 255"),
    Check("blurred", "detail", "below", 0.05, "little fine detail: {:.3f}"),
    Check("low_information", "information", "below", 4.0, "{:.1f} of 8 bits in its grey values"),
    Check("gray", "color", "below", 8.0, "hardly any colour: {:.0f} of 255"),
)


def measure(photo: Image.Image) -> Quality:
    """Measures one photo, mode RGB."""
    width, height = photo.size
    scale = min(1.0, SIDE / max(width, height))
    size = (max(1, round(scale * width)), max(1, round(scale * height)))
    small = photo.resize(size, Image.Resampling.BOX)
    pixels = np.asarray(small)
    gray = np.asarray(small.convert("L"))
    spread = pixels.max(axis=2) - pixels.min(axis=2)
    return Quality(
        width=width,
        height=height,
        aspect=max(width, height) / min(width, height),
        dark_tone=float(np.percentile(gray, 5)),
        bright_tone=float(np.percentile(gray, 99)),
        color=float(np.percentile(spread, 99)),
        detail=_detail(gray),
        information=_information(gray),
    )


def sharpness(gray: NDArray[np.uint8]) -> float:
    """Variance of the 3 × 3 Laplacian of a grey picture (Pech-Pacheco et al. 2000).

    It grows with detail and with contrast, so compare photos of the same thing at the same size.

    Args:
        grey: `[H, W]`, 0 to 255.

    Returns:
        0 for a plain picture; NaN for one of fewer than 3 × 3 pixels.
    """
    if min(gray.shape) < 3:
        return float("nan")
    values = gray.astype(np.float32)
    around = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:]
    return float((around - 4 * values[1:-1, 1:-1]).var())


def _detail(gray: NDArray[np.uint8]) -> float:
    contrast = float(gray.astype(np.float32).var())
    return sharpness(gray) / contrast if contrast >= 1 else float("nan")


def _information(gray: NDArray[np.uint8]) -> float:
    shares = np.bincount(gray.ravel(), minlength=256) / gray.size
    shares = shares[shares > 0]
    return float(-(shares * np.log2(shares)).sum())
