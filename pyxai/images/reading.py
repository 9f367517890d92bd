"""One photo, from wherever it comes, as upright 8-bit RGB pixels."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

from pyxai._errors import describe
from pyxai.images.errors import ImageError
from pyxai.images.transparency import transparent_pixels

PhotoSource: TypeAlias = (
    str | os.PathLike[str] | Image.Image | IO[bytes] | NDArray[np.uint8] | torch.Tensor
)
"""What counts as one photo."""

MAX_PIXELS = 178_956_970
"""A file that says it holds more pixels is refused before it is decoded (a decompression bomb).

It is the size at which Pillow refuses too. To raise it, set `pyxai.images.reading.MAX_PIXELS` and
`PIL.Image.MAX_IMAGE_PIXELS` (half as much).
"""

BACKGROUND = (255, 255, 255)
"""The colour behind transparent pixels."""

FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF"),
    *("AVIF", "JPEG2000", "PPM", "QOI", "HEIF"),
)
"""The file formats that are read, told by content and not by suffix; HEIF where a plugin reads it.

Left out are formats that start another program (EPS) and those without a signature (TGA), as
which almost any damaged file would pass.
"""

_EXPECTED = (
    "expected a path, a PIL image, a binary file object, a uint8 array [H, W, 3] or "
    "a uint8 tensor [3, H, W]"
)
_CHANNELS = (1, 3, 4)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112


def open_photo(source: PhotoSource, *, name: str | None = None) -> Image.Image:
    """Reads one photo: mode RGB, upright, its first frame, fully decoded.

    Args:
        source: One of:

            - a path (`str` or `os.PathLike`) of a file in one of `FORMATS`;
            - a binary file object, read from its start and left open;
            - a PIL image, at its current frame; it is not changed (one that was opened lazily is
              decoded);
            - a uint8 array `[H, W]` or `[H, W, C]`, with C of 1 (grey), 3 (RGB) or 4 (RGBA);
            - a uint8 tensor on any device: `[H, W]`, `[C, H, W]` or `[H, W, C]`. Where both the
              first and the last length are 1, 3 or 4, the first is taken for the channels.
        name: What error messages call the photo; its path, or "image", if left out.

    Returns:
        A new picture that shares no memory with the source and holds no file. The EXIF orientation
        is applied, transparency is laid over `BACKGROUND`, 16 bits of grey become 8 (65535 becomes
        255), CMYK, YCbCr, LAB and palettes become RGB. Embedded colour profiles and other
        metadata are dropped without being applied.

    Raises:
        ImageError: There is no such file, it is no photo, it is damaged or truncated, it has more
            than `MAX_PIXELS`; or the source is of a kind, type or shape not listed above.
    """
    label = name_of(source) if name is None else name
    try:
        return _open(source, label)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        reason = "expected an image, found a file in no known format"
        raise ImageError(label, reason) from error
    except Exception as error:  # decoders fail in every way there is
        raise ImageError(label, f"cannot be decoded: {_in_words(error)}") from error


def undecoded(file: IO[bytes]) -> Image.Image:
    """The picture in a file of one of `FORMATS`, of which only the header is read.

    Raises:
        UnidentifiedImageError: It is in none of them.
    """
    formats = [each for each in FORMATS if each != "HEIF" or each in Image.OPEN]
    try:
        return Image.open(file, formats=formats)
    except ImportError as error:  # ultralytics replaces `Image.open`: its own then wants a plugin
        raise UnidentifiedImageError(str(error)) from error


def upright_size(source: PhotoSource) -> tuple[int, int]:
    """(width, height) of a photo as `open_photo` gives it; PIL images are not decoded for it.

    Those in TIFF are, and PNG files without orientation: only then is it known how they lie.

    Raises:
        ImageError: As for `open_photo`.
    """
    if not isinstance(source, Image.Image) or 0 in source.size:
        return open_photo(source).size
    if source.format == "TIFF":
        source.load()  # Pillow turns its size before its pixels
    width, height = source.size
    return (height, width) if _orientation(source) >= 5 else (width, height)


def is_upright_rgb(photo: object) -> bool:
    """Whether this is a picture just as `open_photo` returns it, so that it need not be opened."""
    return type(photo) is Image.Image and photo.mode == "RGB" and not photo.info


def name_of(source: object) -> str:
    """What error messages call a photo."""
    if isinstance(source, (str, os.PathLike)):
        return os.fsdecode(source)
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "image"


def _in_words(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:300] if text else type(error).__name__


def _open(source: object, name: str) -> Image.Image:
    if isinstance(source, (str, os.PathLike)):
        return _from_path(os.fsdecode(source), name)
    if isinstance(source, Image.Image):
        return _upright_rgb(source, name)
    if isinstance(source, np.ndarray):
        return _from_array(source, name)
    if isinstance(source, torch.Tensor):
        return _from_tensor(source, name)
    if isinstance(source, (bytes, bytearray, memoryview)):
        found = f"got {describe(source)}; wrap the content of a file in io.BytesIO"
        raise ImageError(name, f"{_EXPECTED}, {found}")
    if callable(getattr(source, "read", None)) and not isinstance(source, type):
        return _from_file(source, name)
    raise ImageError(name, f"{_EXPECTED}, got {describe(source)}")


def _from_path(path: str, name: str) -> Image.Image:
    try:
        if not path:
            raise ImageError(name, "expected a path, got an empty string")
        status = Path(path).stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(name, "expected an image file, found a folder")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(name, "expected an image file, found a device, pipe or socket")
        if status.st_size == 0:
            raise ImageError(name, "expected an image, found an empty file")
        with Path(path).open("rb") as file:
            return _from_file(file, name)
    except FileNotFoundError as error:
        remote = path.startswith(("http://", "https://", "s3://", "gs://"))
        hint = "; addresses are not downloaded, only files are read" if remote else ""
        raise ImageError(name, f"no such file{hint}") from error
    except UnidentifiedImageError as error:
        raise ImageError(name, _unknown_format(path)) from error
    except OSError as error:
        if error.errno is None:  # Pillow's own, about the content
            raise
        raise ImageError(name, f"cannot be read: {error.strerror}") from error


def _unknown_format(path: str) -> str:
    with Path(path).open("rb") as file:
        start = file.read(16)
    heif = start[4:8] == b"ftyp" and start[8:11] in (b"hei", b"hev", b"mif", b"msf")
    if heif and "HEIF" not in Image.OPEN:
        return "found a HEIF photo; install pillow-heif and call pillow_heif.register_heif_opener()"
    return f"expected an image, found a file in no known format that begins with {start!r}"


def _from_file(file: Any, name: str) -> Image.Image:
    if isinstance(file, io.TextIOBase):
        raise ImageError(name, "expected a binary file object, got a text file; open it with 'rb'")
    try:
        image = undecoded(file)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(name, _in_words(error)) from error
    with image:
        return _upright_rgb(image, name)


def _upright_rgb(image: Image.Image, name: str) -> Image.Image:
    width, height = image.size
    if not width or not height:
        raise ImageError(name, f"expected a photo, got an empty one of {width} × {height} pixels")
    if isinstance(image, ImageFile.ImageFile) and width * height > MAX_PIXELS:
        size = f"{width} × {height} pixels"
        raise ImageError(name, f"expected at most {MAX_PIXELS:,} pixels, found {size}")
    clear = transparent_pixels(image)
    image.load()
    turn = _TURNS.get(_orientation(image))
    if turn is None:
        photo = _rgb(image, name, clear)
    else:
        photo = (image if _is_plain_rgb(image) else _rgb(image, name, clear)).transpose(turn)
    photo.info = {}  # it told of other pixels; a second orientation would be wrong
    return photo


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
        return value if isinstance(value, int) else 1
    except Exception:  # damaged metadata is no reason to refuse the pixels
        return 1


def _is_plain_rgb(image: Image.Image) -> bool:
    return image.mode == "RGB" and not image.has_transparency_data


def _rgb(image: Image.Image, name: str, clear: NDArray[np.bool_] | None = None) -> Image.Image:
    """A new RGB picture, whatever the mode; `clear`, if given, says where it is transparent."""
    mode = image.mode
    if clear is not None:
        plain = _from_16_bits(image, name) if mode.startswith("I") else image.convert("RGB")
        plain.paste(BACKGROUND, mask=Image.fromarray(clear))
        return plain
    if mode == "F":
        raise ImageError(
            name,
            "expected 8 or 16 bits per channel, found floating-point pixels, whose range is not "
            "known; scale them to uint8",
        )
    if mode == "I" or mode.startswith("I;16"):
        return _from_16_bits(image, name)
    if mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        transform = ImageCms.buildTransform(lab, ImageCms.createProfile("sRGB"), "LAB", "RGB")
        photo = ImageCms.applyTransform(image, transform)
        assert photo is not None
        return photo
    if mode in ("La", "RGBa"):  # colours already multiplied by alpha
        return _rgb(image.convert("LA" if mode == "La" else "RGBA"), name)
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    alpha = layer.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return layer.convert("RGB")
    photo = Image.new("RGB", image.size, BACKGROUND)
    photo.paste(layer, mask=alpha)
    return photo


def _from_16_bits(image: Image.Image, name: str) -> Image.Image:
    """Grey of 16 bits, which Pillow keeps in I;16 or in the low half of I, divided by 257."""
    values = np.asarray(image if image.mode == "I" else image.convert("I"))
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        found = f"found integers from {low} to {high}; scale them to uint8"
        raise ImageError(name, f"expected grey values from 0 to 65535, {found}")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")


def _from_array(array: NDArray[Any], name: str) -> Image.Image:
    _check_type(array, array.dtype == np.uint8, name)
    shape = array.shape
    if array.ndim == 3 and shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in _CHANNELS):
        hint = ""
        if array.ndim == 3 and shape[0] in _CHANNELS:
            hint = "; put the channels last with array.transpose(1, 2, 0)"
        elif array.ndim == 4:
            hint = "; this place takes one photo, not a batch"
        expected = "expected a uint8 array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]"
        raise ImageError(name, f"{expected}, got shape {[*shape]}{hint}")
    if array.size == 0:
        raise ImageError(name, f"expected a photo, got {describe(array)} without pixels")
    return _rgb(Image.fromarray(np.ascontiguousarray(array)), name)


def _from_tensor(tensor: torch.Tensor, name: str) -> Image.Image:
    _check_type(tensor, tensor.dtype == torch.uint8, name)
    shape = tensor.shape
    if tensor.ndim == 3 and shape[0] in _CHANNELS:
        tensor = tensor.permute(1, 2, 0)
    elif tensor.ndim != 2 and not (tensor.ndim == 3 and shape[2] in _CHANNELS):
        hint = "; this place takes one photo, not a batch" if tensor.ndim == 4 else ""
        expected = "expected a uint8 tensor [H, W], [C, H, W] or [H, W, C] with C of 1, 3 or 4"
        raise ImageError(name, f"{expected}, got shape {[*shape]}{hint}")
    return _from_array(tensor.detach().cpu().numpy(), name)


def _check_type(value: NDArray[Any] | torch.Tensor, is_uint8: bool, name: str) -> None:
    if is_uint8:
        return
    hint = "scale the pixels to 0…255 and convert them to uint8"
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        hint = "floating-point tensors are model input: pass them as one tensor [N, 3, H, W]"
    elif isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating):
        hint = f"{hint}, or pass model input as a torch tensor [N, 3, H, W]"
    raise ImageError(name, f"{_EXPECTED}, got {describe(value)}; {hint}")
