"""Digests and perceptual hashes of photos."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pyxai._errors import MissingExtraError, argument_error

_THUMBNAIL = 64
_PLAIN = 2.0  # standard deviation of grey values below which a thumbnail tells nothing

# The eight ways to lay a picture: as it is first.
_TURNS: tuple[Image.Transpose | None, ...] = (
    None,
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
)
ORIENTATIONS = len(_TURNS)
"""How many ways a picture can be turned and mirrored."""

KINDS = ("dhash", "phash")
"""The kinds of perceptual hash, of 64 bits each."""


def pixel_digest(photo: Image.Image) -> str:
    """The same for photos that are equal pixel by pixel, however they were stored."""
    digest = hashlib.blake2b(f"{photo.size}".encode(), digest_size=16)
    digest.update(np.asarray(photo).tobytes())
    return digest.hexdigest()


def hash_function(kind: str) -> Callable[[Image.Image], Any]:
    """ImageHash's function for a kind of hash.

    Raises:
        ValueError: there is no such kind.
        MissingExtraError: ImageHash is not installed.
    """
    if kind not in KINDS:
        raise argument_error("hash", f"one of {', '.join(map(repr, KINDS))}", kind)
    try:
        import imagehash
    except ImportError as error:
        purpose = "finding duplicates by perceptual hashes (methods=('exact',) does without)"
        raise MissingExtraError(purpose, "ImageHash", "duplicates") from error
    function: Callable[[Image.Image], Any] = getattr(imagehash, kind)
    return function


def hashes(photo: Image.Image, function: Callable[[Image.Image], Any]) -> NDArray[np.uint64] | None:
    """The hashes of a photo in all eight orientations, `[8]`; None for a plain picture.

    All are taken of one thumbnail, so that the eight cost little more than one. The hash of a plain
    picture is that of any other.
    """
    small = photo.convert("L").resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    if float(np.asarray(small).std()) < _PLAIN:
        return None
    views = (small if turn is None else small.transpose(turn) for turn in _TURNS)
    bits = np.stack([np.asarray(function(view).hash, bool).ravel() for view in views])
    packed: NDArray[np.uint64] = np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)
    return packed
