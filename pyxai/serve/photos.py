"""Photos that clients send."""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence

from PIL import Image, UnidentifiedImageError

from pyxai.images import ImageError, Preprocessing, open_photo
from pyxai.images.reading import undecoded
from pyxai.serve.guards import Refused

MAX_PIXELS = 50_000_000
"""Of a photo that is sent: the largest that cameras of telephones make."""

MAX_SEEN = 1_048_576
"""Of what a network sees of it.

This decides about memory: a network takes 100 to 1000 bytes for each, and the photo's shape decides
how many these are. 4000 × 2 pixels are a hundred bytes of PNG, and 512,000 × 256 once resized.
"""

_decoding = threading.Lock()  # decoders take up to 20 bytes for each pixel: one photo at a time


def photo_of(body: bytes, seen_by: Sequence[Preprocessing] = ()) -> Image.Image:
    """The photo that was sent.

    Args:
        body: a file, in one of the formats of `pyxai.images`.
        seen_by: the preprocessings of the networks that will see it.

    Raises:
        Refused: it is none (422), or too large (413).
    """
    with _decoding:
        photo = _decoded(body)
    for each in seen_by:
        try:
            width, height = each.seen_size(photo.size)
        except ImageError as error:
            raise Refused(413, error.reason) from error
        if width * height > MAX_SEEN:
            expected = f"a photo of which a network sees at most {MAX_SEEN:,} pixels"
            size = f"{photo.width} × {photo.height}, seen as {width} × {height}"
            raise Refused(413, f"expected {expected}, got {size}")
    return photo


def _decoded(body: bytes) -> Image.Image:
    try:
        with undecoded(io.BytesIO(body)) as picture:
            width, height = picture.size
        if width * height > MAX_PIXELS:
            expected = f"a photo of at most {MAX_PIXELS:,} pixels"
            raise Refused(413, f"expected {expected}, got {width} × {height}")
        return open_photo(io.BytesIO(body), name="photo")
    except ImageError as error:
        raise Refused(422, error.reason) from error
    except UnidentifiedImageError as error:
        raise Refused(422, "not a photo in a known format") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Refused(413, f"expected a photo of at most {MAX_PIXELS:,} pixels") from error
    except (OSError, ValueError, SyntaxError) as error:  # decoders fail in every way there is
        raise Refused(422, "a damaged photo") from error
