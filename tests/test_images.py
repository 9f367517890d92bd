"""Photos from every source, what is refused and in which words, and the preprocessing."""

import io
import os
import pickle
import re
import struct
import weakref
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError, features

from pyxai._outputs import OutputFolder
from pyxai.images import (
    BACKGROUND,
    ImageError,
    ImageErrors,
    PhotoWarning,
    Preprocessing,
    class_folders,
    find_photos,
    is_model_input,
    iterate_photos,
    open_photo,
    reading,
    to_batch,
)
from pyxai.serve.guards import Refused
from pyxai.serve.photos import photo_of

SHARP = Preprocessing(mean=(0, 0, 0), std=(1, 1, 1))


def noise(height=13, width=19, channels=3, seed=0):
    shape = (height, width, channels) if channels else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def smooth(height=40, width=60):
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 4, columns * 3, (rows + columns) * 2], axis=2).astype(np.uint8)


def pixels(photo):
    assert type(photo) is Image.Image
    assert photo.mode == "RGB"
    return np.asarray(photo)


def encoded(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def refuse(source, match, **options):
    with pytest.raises(ImageError, match=match) as caught:
        open_photo(source, **options)
    return caught.value


@pytest.fixture
def photo_file(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(noise()).save(path)
    return path


# --- one photo: the kinds of source ---


def test_path_as_string_or_pathlike(photo_file):
    assert np.array_equal(pixels(open_photo(photo_file)), noise())
    assert np.array_equal(pixels(open_photo(str(photo_file))), noise())


def test_suffix_does_not_matter(photo_file):
    other = photo_file.rename(photo_file.with_suffix(".jpg"))
    assert np.array_equal(pixels(open_photo(other)), noise())


def test_binary_files_are_read_from_the_start_and_left_open(photo_file):
    with photo_file.open("rb") as file:
        file.seek(5)
        assert np.array_equal(pixels(open_photo(file)), noise())
        assert not file.closed
        file.seek(0)
        assert file.read(4) == b"\x89PNG"


def test_stream_that_cannot_seek():
    class Stream:
        def __init__(self, content):
            self.read = io.BytesIO(content).read

    assert np.array_equal(pixels(open_photo(Stream(encoded(Image.fromarray(noise()))))), noise())


def test_picture_is_copied_and_not_changed():
    picture = Image.fromarray(noise())
    picture.info["note"] = "kept"
    photo = open_photo(picture)
    photo.putpixel((0, 0), (1, 2, 3))
    assert np.array_equal(np.asarray(picture), noise())
    assert picture.info == {"note": "kept"}
    assert photo.info == {}


def test_arrays():
    rgb = noise()
    assert np.array_equal(pixels(open_photo(rgb)), rgb)
    assert np.array_equal(pixels(open_photo(rgb[::-1, ::2])), rgb[::-1, ::2])
    gray = noise(channels=0)
    expected = np.repeat(gray[:, :, None], 3, axis=2)
    assert np.array_equal(pixels(open_photo(gray)), expected)
    assert np.array_equal(pixels(open_photo(gray[:, :, None])), expected)
    rgba = np.concatenate([rgb, np.zeros((13, 19, 1), np.uint8)], axis=2)
    assert (pixels(open_photo(rgba)) == 255).all()


def test_photo_shares_no_memory_with_its_array():
    for array in (noise(), noise(channels=0)):
        photo = open_photo(array)
        before = pixels(photo).copy()
        array[:] = 0
        assert np.array_equal(pixels(photo), before)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tensors_with_channels_first_and_last(channels):
    array = noise(channels=channels)
    if channels == 4:
        array[:, :, 3] = 255
    expected = pixels(open_photo(array))
    last = torch.from_numpy(array)
    assert np.array_equal(pixels(open_photo(last)), expected)
    assert np.array_equal(pixels(open_photo(last.permute(2, 0, 1))), expected)


def test_ambiguous_tensor_has_channels_first():
    tensor = torch.from_numpy(noise(3, 8, 3))
    assert np.array_equal(pixels(open_photo(tensor)), tensor.permute(1, 2, 0).numpy())
    assert open_photo(torch.zeros(5, 7, dtype=torch.uint8)).size == (7, 5)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA: no device")
def test_tensor_on_a_gpu():
    tensor = torch.from_numpy(noise())
    assert np.array_equal(pixels(open_photo(tensor.cuda())), noise())
    batch = to_batch(tensor, SHARP, device="cuda")
    assert batch.is_cuda
    assert torch.equal(batch.cpu(), to_batch(tensor, SHARP))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (b"\x89PNG", r"expected a path.* got a bytes; wrap .* in io.BytesIO"),
        (None, "expected a path.* got None"),
        (7, "got 7"),
        ({}, "got a dict"),
        (Image, "got a module"),
        (io.BytesIO, "got a type"),
        (io.StringIO("x"), "got a text file"),
        (np.zeros((4, 5, 3)), r"got a float64 array \[4, 5, 3\]; scale the pixels"),
        (np.zeros((4, 5, 3), np.int64), "got an int64 array"),
        (np.zeros((4, 5), bool), "got a bool array"),
        (np.zeros((3, 40, 50), np.uint8), r"shape \[3, 40, 50\]; .*transpose\(1, 2, 0\)"),
        (np.zeros((2, 4, 5, 3), np.uint8), "not a batch"),
        (np.zeros((4, 5, 2), np.uint8), r"shape \[4, 5, 2\]"),
        (np.zeros(5, np.uint8), r"shape \[5\]"),
        (np.zeros((0, 5, 3), np.uint8), "without pixels"),
        (torch.zeros(3, 4, 5), r"a float32 tensor \[3, 4, 5\]; .*model input"),
        (torch.zeros(3, 4, 5, dtype=torch.int32), "an int32 tensor"),
        (torch.zeros(3, 4, 5, dtype=torch.bool), "a bool tensor"),
        (torch.zeros(3, 0, 5, dtype=torch.uint8), "without pixels"),
        (torch.zeros(7, 8, 9, dtype=torch.uint8), r"shape \[7, 8, 9\]"),
        (torch.zeros(1, 3, 8, 9, dtype=torch.uint8), "not a batch"),
        (Image.new("RGB", (0, 5)), "0 × 5 pixels"),
        ("", "empty string"),
        ("a\0b", "cannot be decoded|cannot be read"),
        ("x" * 5000, "cannot be read: File name too long"),
        ("https://example.org/a.jpg", "not downloaded"),
    ],
    ids=lambda value: repr(value)[:30] if isinstance(value, str) else type(value).__name__,
)
def test_refused_sources(source, words):
    refuse(source, words)


# --- one photo: what files hold ---


def stored(upright, orientation):
    """What a camera stores that was turned so; EXIF names the sides of row 0 and column 0."""
    turned = upright.transpose(1, 0, 2) if orientation > 4 else upright
    signs = [(1, 1), (1, -1), (-1, -1), (-1, 1), (1, 1), (-1, 1), (-1, -1), (1, -1)]
    rows, columns = signs[orientation - 1]
    return np.ascontiguousarray(turned[::rows, ::columns])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_orientation(format, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
    path = tmp_path / "turned"
    image = Image.fromarray(stored(smooth(), orientation))
    image.save(path, format, exif=exif, **options.get(format, {}))
    photo = open_photo(path)
    assert photo.size == (60, 40)
    difference = np.abs(pixels(photo).astype(int) - smooth()).max()
    assert difference <= (4 if format == "JPEG" else 0)
    with Image.open(path) as lazy:
        assert open_photo(lazy).tobytes() == photo.tobytes()
    assert open_photo(photo).tobytes() == photo.tobytes()  # a second time turns nothing


def test_damaged_orientation_is_ignored():
    for content in (
        b"Exif\0\0garbage",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x02x\0\0\0",
    ):
        image = Image.fromarray(noise())
        image.info["exif"] = content
        assert np.array_equal(pixels(open_photo(image)), noise())


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled(format, tmp_path):
    values = np.array([[0, 127, 128, 129, 257], [32768, 65278, 65406, 65407, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "grey", format)
    expected = np.round(values / 257).astype(np.uint8)
    assert np.array_equal(pixels(open_photo(tmp_path / "grey"))[:, :, 1], expected)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_16_bit_modes(mode):
    gray = Image.fromarray(np.array([[0, 257, 65535]], np.uint16)).convert("I")
    image = gray if mode == "I" else gray.convert(mode)
    assert pixels(open_photo(image))[0, :, 0].tolist() == [0, 1, 255]


def test_numbers_without_a_known_range_are_refused():
    refuse(Image.fromarray(np.array([[-1, 5]], np.int32)), "found integers from -1 to 5")
    refuse(Image.fromarray(np.array([[0, 65536]], np.int32)), "from 0 to 65536")
    refuse(Image.fromarray(np.zeros((2, 2), np.float32)), "floating-point pixels")


def test_cmyk(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    assert np.abs(pixels(open_photo(tmp_path / "a.jpg")).astype(int) - (255, 0, 0)).max() < 4


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "RGBX", "L", "1", "P", "PA", "RGBA", "LA"])
def test_modes(mode):
    image = Image.new("RGB", (6, 4), (255, 255, 255))
    image.paste((0, 0, 0), (0, 0, 3, 4))
    convertible = image.convert("P") if mode == "PA" else image
    found = pixels(open_photo(convertible.convert(mode)))
    assert np.abs(found.astype(int) - np.asarray(image)).max() <= 1


def test_lab(tmp_path):
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(srgb, lab, "RGB", "LAB")
    image = ImageCms.applyTransform(Image.new("RGB", (5, 4), (200, 100, 40)), transform)
    image.save(tmp_path / "lab.tif")
    assert np.abs(pixels(open_photo(tmp_path / "lab.tif")).astype(int) - (200, 100, 40)).max() < 5


def transparent_pictures():
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((0, 0), 1)
    gray = Image.new("L", (4, 4), 9)
    gray.putpixel((0, 0), 77)
    rgb = Image.new("RGB", (4, 4), (1, 2, 3))
    rgb.putpixel((0, 0), (4, 5, 6))
    rgba = rgb.convert("RGBA")
    rgba.putpixel((0, 0), (4, 5, 6, 0))
    la = gray.convert("LA")
    la.putpixel((0, 0), (77, 0))
    return {
        "palette": (palette, {"transparency": 1}, (10, 20, 30)),
        "palette with bytes": (palette, {"transparency": b"\xff\x00"}, (10, 20, 30)),
        "grey": (gray, {"transparency": 77}, (9, 9, 9)),
        "rgb": (rgb, {"transparency": (4, 5, 6)}, (1, 2, 3)),
        "rgba": (rgba, {}, (1, 2, 3)),
        "la": (la, {}, (9, 9, 9)),
    }


@pytest.mark.parametrize("kind", transparent_pictures())
def test_transparent_pixels_become_white(kind):
    image, options, color = transparent_pictures()[kind]
    found = pixels(open_photo(io.BytesIO(encoded(image, **options))))
    assert tuple(found[0, 0]) == BACKGROUND == (255, 255, 255)
    assert tuple(found[2, 2]) == color


def test_half_transparent_and_premultiplied_pixels_are_blended():
    image = Image.new("RGBA", (2, 2), (0, 100, 200, 51))
    assert tuple(pixels(open_photo(image))[0, 0]) == (204, 224, 244)
    blended = pixels(open_photo(image.convert("RGBa")))
    assert np.abs(blended[0, 0].astype(int) - (204, 224, 244)).max() <= 2
    gray = pixels(open_photo(Image.new("LA", (2, 2), (100, 51)).convert("La")))
    assert np.abs(gray[0, 0].astype(int) - 224).max() <= 2


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame(format, tmp_path):
    frames = [Image.new("RGB", (9, 7), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    frames[0].save(tmp_path / "x", format, save_all=True, append_images=frames[1:], **options)
    with Image.open(tmp_path / "x") as several:
        assert several.n_frames == 3
    assert (pixels(open_photo(tmp_path / "x")) == (255, 0, 0)).all()


# --- one photo: what is wrong with files ---


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_files(format, share, tmp_path):
    content = encoded(Image.fromarray(noise(120, 160)), format)
    path = tmp_path / "cut"
    path.write_bytes(content[: int(len(content) * share)])
    error = refuse(path, "cannot be decoded|no known format")
    assert error.name == str(path)
    refuse(io.BytesIO(path.read_bytes()), "cannot be decoded|no known format")


def test_files_that_are_no_photos(tmp_path):
    page, empty = tmp_path / "page.jpg", tmp_path / "empty.jpg"
    page.write_text("<!DOCTYPE html><html></html>")
    empty.touch()
    error = refuse(page, "expected an image, found .* begins with b'<!DOCTYPE html>")
    assert str(error) == f"{page}: {error.reason}"
    refuse(empty, "found an empty file")
    refuse(tmp_path, "found a folder")
    refuse(tmp_path / "missing.jpg", "no such file")
    refuse(page / "below.jpg", "cannot be read: Not a directory")
    refuse(io.BytesIO(), "no known format", name="images[3]")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.jpg")
        refuse(tmp_path / "pipe.jpg", "found a device, pipe or socket")


def test_heif_without_its_plugin_says_what_to_install(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    if "HEIF" not in Image.OPEN:
        refuse(tmp_path / "a.heic", "install pillow-heif")


def test_a_library_that_replaces_the_opener_of_pillow(tmp_path, monkeypatch):
    """As ultralytics does: what Pillow cannot read is given to a plugin that is not there."""
    pillow = Image.open

    def with_a_plugin(*arguments, **options):
        try:
            return pillow(*arguments, **options)
        except UnidentifiedImageError:
            raise ModuleNotFoundError("No module named 'pi_heif'") from None

    monkeypatch.setattr(Image, "open", with_a_plugin)
    test_files_that_are_no_photos(tmp_path)
    with pytest.raises(Refused, match="not a photo in a known format"):
        photo_of(b"<!DOCTYPE html><html></html>")


def test_postscript_is_not_run(tmp_path):
    (tmp_path / "a.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EOF\n")
    refuse(tmp_path / "a.eps", "no known format")


def huge_png(width, height):
    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000))


@pytest.mark.parametrize("size", [(60_000, 60_000), (10_000, 10_000)])
def test_decompression_bombs(size, tmp_path):
    # the smaller one makes Pillow warn only, and a warning is an error here
    limit = Image.MAX_IMAGE_PIXELS
    (tmp_path / "bomb.png").write_bytes(huge_png(*size))
    refuse(tmp_path / "bomb.png", "decompression bomb")
    assert limit == Image.MAX_IMAGE_PIXELS


def test_own_limit_holds_whatever_pillow_allows(photo_file, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    (photo_file.parent / "bomb.png").write_bytes(huge_png(60_000, 60_000))
    refuse(photo_file.parent / "bomb.png", "at most 178,956,970 pixels, found 60000 × 60000")
    monkeypatch.setattr(reading, "MAX_PIXELS", 13 * 19 - 1)
    refuse(photo_file, "at most 246 pixels, found 19 × 13")
    assert open_photo(noise()).size == (19, 13)  # already in memory
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_no_file_stays_open(photo_file):
    broken = photo_file.with_name("broken.png")
    broken.write_bytes(photo_file.read_bytes()[:200])
    tiff = photo_file.with_name("pages.tif")
    frame = Image.fromarray(noise())
    frame.save(tiff, save_all=True, append_images=[frame], compression="tiff_lzw")
    gif = photo_file.with_name("a.gif")
    frame.save(gif, save_all=True, append_images=[frame.rotate(90)])
    open_photo(photo_file)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0  # noqa: PTH208
    kept = []
    for _ in range(20):
        kept += [open_photo(each) for each in (photo_file, tiff, gif)]
        kept += [outcome for _, outcome in iterate_photos([broken, photo_file.parent])]
    after = len(os.listdir("/proc/self/fd")) if before else 0  # noqa: PTH208
    assert after == before


def test_eight_threads(tmp_path):
    names = []
    for index, format in enumerate(["PNG", "WEBP", "GIF", "TIFF"] * 8):
        path = tmp_path / f"{index:02}"
        options = {"lossless": True} if format == "WEBP" else {}
        Image.fromarray(noise(50, 60, channels=0, seed=index)).save(path, format, **options)
        names.append(path)
    one_by_one = [open_photo(name).tobytes() for name in names]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda name: open_photo(name).tobytes(), names * 4)) == one_by_one * 4


SAMPLES = [
    encoded(Image.fromarray(smooth()), format)
    for format in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "JPEG2000", "QOI")
    if format != "JPEG2000" or features.check("jpg_2000")
]
SAMPLES.append(encoded(Image.fromarray(noise(8, 8, 4)), "TIFF", compression="tiff_lzw"))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200), st.sampled_from([b"", *(sample[:30] for sample in SAMPLES)]))
@example(b"", b"")
def test_random_bytes_raise_nothing_else(tail, head):
    try:
        photo = open_photo(io.BytesIO(head + tail))
    except ImageError as error:
        assert error.reason  # noqa: PT017
    else:
        assert photo.mode == "RGB"


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_damaged_files_raise_nothing_else(content, damage):
    damaged = bytearray(content)
    for place, value in damage:
        damaged[place % len(damaged)] = value
    try:
        photo = open_photo(io.BytesIO(damaged))
    except ImageError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert min(photo.size) > 0


# --- errors ---


def test_errors_survive_pickling_and_name_the_photo():
    error = pickle.loads(pickle.dumps(ImageError("a.jpg", "is no photo")))
    assert isinstance(error, ValueError)
    assert (error.name, error.reason, str(error)) == ("a.jpg", "is no photo", "a.jpg: is no photo")
    several = ImageErrors([("a.jpg", "is empty"), ("b\n.jpg", "is a folder")], total=9)
    for each in (several, pickle.loads(pickle.dumps(several))):
        assert each.failures == (("a.jpg", "is empty"), ("b\n.jpg", "is a folder"))
        assert str(each).splitlines() == [
            "images: 2 of 9 photos cannot be used:",
            "  a.jpg: is empty",
            r"  'b\n.jpg': is a folder",
        ]
    single = pickle.loads(pickle.dumps(ImageErrors([("a.jpg", "is empty")], total=3)))
    assert str(single) == "a.jpg: is empty"
    assert single.failures == (("a.jpg", "is empty"),)


def test_names_that_no_terminal_shows_are_escaped():
    assert str(refuse("a\udcff.jpg", "no such file")).encode().startswith(rb"'a\udcff.jpg': ")
    assert len(str(refuse("x" * 5000, "too long"))) < 400


# --- folders and streams ---


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "photos"
    for name in ("b.PNG", "a/2.jpg", "a/1.jpeg", "a.png", ".hidden.png", ".cache/x.png"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise()).save(path)
    (root / "notes.txt").write_text("no photo")
    (root / "c.jpg").mkdir()
    (root / "c.jpg" / "inside.png").write_bytes((root / "b.PNG").read_bytes())
    return root


FOUND = ["a/1.jpeg", "a/2.jpg", "a.png", "b.PNG", "c.jpg/inside.png"]


def test_folder_is_sorted_and_hidden_files_are_skipped(folder):
    assert find_photos(folder) == [folder / name for name in FOUND]
    assert find_photos([folder / "notes.txt", str(folder)])[0] == folder / "notes.txt"
    assert [name for name, _ in iterate_photos(folder)] == [str(folder / name) for name in FOUND]


def test_names_are_as_given(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert [name for name, _ in iterate_photos(["a.png", "a"])] == ["a.png", "a/1.jpeg", "a/2.jpg"]
    assert find_photos("a") == [Path("a/1.jpeg"), Path("a/2.jpg")]


def test_links(folder):
    (folder / "a" / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "a" / "self").symlink_to(folder / "a" / "self")
    (folder / "z").symlink_to(folder / "a", target_is_directory=True)
    (folder / "broken.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "d.jpg").symlink_to(folder / FOUND[0])
    (folder / "only").mkdir()
    (folder / "only" / "link").symlink_to(folder / "a")
    said = r"links to folders are not followed: .*loop, .*link, .*z; name"
    with pytest.warns(PhotoWarning, match=said):
        names = [str(path.relative_to(folder)) for path in find_photos(folder)]
    assert sorted(names) == sorted([*FOUND, "broken.jpg", "d.jpg"])
    with pytest.warns(PhotoWarning, match=said):
        outcomes = dict(iterate_photos(folder))
    errors = [name for name, outcome in outcomes.items() if isinstance(outcome, ImageError)]
    assert errors == [str(folder / "broken.jpg")]
    with pytest.warns(PhotoWarning):  # one that is named is followed
        assert [path.name for path in find_photos(folder / "z")] == ["1.jpeg", "2.jpg"]
    with pytest.raises(ImageError, match=r"found none.*; links to .* not followed: .*link"):
        find_photos(folder / "only")


@pytest.mark.parametrize("slash", ["", "/"])
def test_what_pyxai_has_written_is_no_photo(folder, slash, monkeypatch):
    """The second `pyxai explain .` would explain the pictures of the first."""
    out = OutputFolder(folder, by="a test")
    for name in ("a.overlay.png", "new/1.overlay.png", "sheets/x.jpg"):
        with out.writing(name) as path:
            Image.fromarray(noise()).save(path)
    assert find_photos(f"{folder}{slash}") == [folder / name for name in FOUND]
    (folder / "new" / "1.overlay.png").write_bytes(b"somebody's own")
    assert folder / "new" / "1.overlay.png" in find_photos(f"{folder}{slash}")
    whole = OutputFolder(folder / "gallery", whole=True, by="a test")
    with whole.writing("crops/1.jpg") as path:
        Image.fromarray(noise()).save(path)
    (folder / "gallery" / "other.jpg").write_bytes(b"")
    monkeypatch.chdir(folder)
    (folder / "new" / "1.overlay.png").unlink()
    assert find_photos(".") == [Path(name) for name in FOUND]
    own = OutputFolder(folder / "own", by="a test")
    with own.writing("1.jpg") as path:
        Image.fromarray(noise()).save(path)
    with pytest.raises(ImageError, match="found none but what pyxai has written there"):
        find_photos(folder / "own")
    assert [each.name for each in class_folders(folder)] == ["a", "c.jpg"]
    (folder / "link").symlink_to(folder / "a")
    with pytest.warns(PhotoWarning, match="links to folders are not followed: .*link; name"):
        assert [each.name for each in class_folders(folder)] == ["a", "c.jpg"]


def test_folders_without_photos(tmp_path):
    with pytest.raises(ImageError, match="expected a folder with photos, found none"):
        find_photos(tmp_path)
    with pytest.raises(ImageError, match="no such file or folder"):
        find_photos(tmp_path / "missing")
    with pytest.raises(ImageError, match=r"expected a path or several, got 1\.5"):
        find_photos([1.5])
    [(name, error)] = iterate_photos(tmp_path)
    assert name == error.name == str(tmp_path)


def test_mixed_list_goes_on_after_a_bad_one(folder, photo_file):
    sources = [photo_file, "missing.jpg", Image.fromarray(noise()), noise(), b"", folder, None]
    outcomes = list(iterate_photos(sources))
    assert [name for name, _ in outcomes] == [
        *(str(photo_file), "missing.jpg", "images[2]", "images[3]", "images[4]"),
        *(str(folder / name) for name in FOUND),
        "images[6]",
    ]
    bad = [name for name, outcome in outcomes if isinstance(outcome, ImageError)]
    assert bad == ["missing.jpg", "images[4]", "images[6]"]
    for _, outcome in outcomes:
        if isinstance(outcome, ImageError):  # an error kept for later keeps no pixels
            assert outcome.__traceback__ is outcome.__cause__ is outcome.__context__ is None


def test_patterns_are_not_expanded(folder):
    [(name, error)] = iterate_photos(str(folder / "*.png"))
    assert name.endswith("*.png")
    assert isinstance(error, ImageError)


def test_batches_of_photos():
    array = np.stack([noise(seed=seed) for seed in range(3)])
    tensor = torch.from_numpy(array)
    for batch in (array, tensor, tensor.permute(0, 3, 1, 2)):
        outcomes = list(iterate_photos(batch))
        assert [name for name, _ in outcomes] == ["images[0]", "images[1]", "images[2]"]
        for (_, photo), expected in zip(outcomes, array, strict=True):
            assert np.array_equal(pixels(photo), expected)
    assert len(list(iterate_photos(array[0]))) == 1


def test_generator_is_consumed_lazily_and_one_photo_is_held():
    alive = []

    def track(photo):
        alive.append(weakref.ref(photo))
        return photo

    def sources():
        for _ in range(5):
            assert not any(reference() for reference in alive)
            yield track(Image.fromarray(noise()))

    stream = iterate_photos(sources())
    assert not alive
    for name, photo in stream:
        assert name == f"images[{len(alive) // 2}]"
        assert len(alive) % 2 == 1  # no further source was asked for
        assert alive[-1]() is None  # the source itself is gone too
        track(photo)
        del photo
    assert len(alive) == 10


@pytest.mark.parametrize("sources", [None, 3, {"a": 1}, {"a.jpg"}, torch.zeros(1, 3, 4, 4)])
def test_sources_of_a_wrong_kind_are_refused_at_once(sources):
    with pytest.raises(ImageError, match="images: expected photos"):
        iterate_photos(sources)


# --- preprocessing ---


def by_hand(photo, pre):
    """The steps of torchvision's Resize, CenterCrop, ToTensor and Normalize, written out."""
    resampling = getattr(Image.Resampling, pre.interpolation.upper())
    width, height = photo.size
    if isinstance(pre.resize, int):
        short, long = min(width, height), max(width, height)
        longer = int(pre.resize * long / short)
        size = (pre.resize, longer) if width <= height else (longer, pre.resize)
        photo = photo.resize(size, resampling)
    elif pre.resize is not None:
        photo = photo.resize(pre.resize[::-1], resampling)
    if pre.crop is not None:
        rows, columns = (pre.crop, pre.crop) if isinstance(pre.crop, int) else pre.crop
        width, height = photo.size
        if columns > width or rows > height:
            left, top = max(0, columns - width) // 2, max(0, rows - height) // 2
            right, bottom = (max(0, columns - width) + 1) // 2, (max(0, rows - height) + 1) // 2
            photo = ImageOps.expand(photo, (left, top, right, bottom), fill=0)
            width, height = photo.size
        top = int(round((height - rows) / 2.0))  # noqa: RUF046
        left = int(round((width - columns) / 2.0))  # noqa: RUF046
        photo = photo.crop((left, top, left + columns, top + rows))
    tensor = torch.from_numpy(np.array(photo)).permute(2, 0, 1).contiguous().float().div(255)
    mean, std = torch.tensor(pre.mean), torch.tensor(pre.std)
    return tensor.sub_(mean[:, None, None]).div_(std[:, None, None])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest", "lanczos"])
@pytest.mark.parametrize("size", [(37, 53), (53, 37), (40, 40), (101, 7), (1, 9), (25, 64)])
def test_equals_torchvision(size, interpolation):
    photo = Image.fromarray(noise(*size))
    for resize in (None, 1, 16, 37, 41, (20, 31), (37, 53)):
        for crop in (None, 13, 16, 17, (12, 35), (60, 5)):
            pre = Preprocessing(resize=resize, crop=crop, interpolation=interpolation)
            found = pre(photo)
            assert found.dtype == torch.float32
            assert found.is_contiguous()
            assert torch.equal(found, by_hand(photo, pre)), (resize, crop)


def test_torchvision_itself():
    transforms = pytest.importorskip("torchvision.transforms")
    photo = Image.fromarray(noise(91, 133))
    steps = [transforms.Resize(48), transforms.CenterCrop((33, 52)), transforms.ToTensor()]
    steps.append(transforms.Normalize(Preprocessing().mean, Preprocessing().std))
    found = Preprocessing(resize=48, crop=(33, 52))(photo)
    assert torch.equal(found, transforms.Compose(steps)(photo))


def test_exact_values():
    photo = Image.new("RGB", (1, 1), (0, 51, 255))
    found = Preprocessing(mean=(0.5, 0.1, 0.0), std=(0.5, 0.1, 2.0))(photo)
    assert torch.allclose(found.flatten(), torch.tensor([-1.0, 1.0, 0.5]))


def test_preprocessing_opens_what_is_not_open(photo_file):
    expected = torch.from_numpy(noise()).permute(2, 0, 1) / 255
    for source in (photo_file, noise(), torch.from_numpy(noise()), Image.fromarray(noise())):
        assert torch.equal(SHARP(source), expected)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = io.BytesIO(encoded(Image.fromarray(stored(smooth(), 6)), exif=exif))
    with Image.open(turned) as lazy:
        assert SHARP(lazy).shape == (3, 40, 60)


def test_view_is_what_the_network_sees():
    pre = Preprocessing(mean=(0, 0, 0), std=(1, 1, 1), resize=20, crop=(24, 18))
    photo = open_photo(noise(31, 45))
    view = pre.view(photo)
    assert view.size == (18, 24)
    seen = torch.from_numpy(np.array(view)).permute(2, 0, 1) / 255
    assert torch.equal(pre(photo), seen)
    assert not np.asarray(view)[:2].any()  # the black border
    assert np.array_equal(pixels(photo), noise(31, 45))


@pytest.mark.parametrize(
    ("options", "size", "expected"),
    [
        ({}, (40, 30), (0, 0, 40, 30)),
        ({"resize": 15}, (40, 30), (0, 0, 40, 30)),
        ({"resize": (7, 9)}, (40, 30), (0, 0, 40, 30)),
        ({"crop": 20}, (40, 30), (10, 5, 30, 25)),
        ({"crop": (10, 20)}, (41, 31), (10, 10, 30, 20)),  # 10.5 goes to the even neighbour
        ({"crop": 20}, (43, 30), (12, 5, 32, 25)),  # 11.5 does too
        ({"resize": 15, "crop": 10}, (40, 30), (10, 4, 30, 24)),  # of 20 × 15: offsets 5 and 2
        ({"resize": 256, "crop": 224}, (512, 512), (32, 32, 480, 480)),
        ({"crop": 40}, (40, 30), (0, -5, 40, 35)),  # 5 rows of border above and below
        ({"crop": (33, 45)}, (40, 30), (-2, -1, 43, 32)),
    ],
)
def test_region(options, size, expected):
    assert Preprocessing(**options).region(size) == expected


def test_region_of_a_rounded_resize():
    x0, y0, x1, y1 = Preprocessing(resize=256, crop=224).region((500, 375))
    across, down = 500 / 341, 375 / 256  # int(256 · 500 / 375) is 341
    assert (x0, y0, x1, y1) == pytest.approx((58 * across, 16 * down, 282 * across, 240 * down))


def test_region_of_a_photo(photo_file):
    pre = Preprocessing(resize=10, crop=8)
    expected = pre.region((19, 13))
    tensor = torch.from_numpy(noise())
    picture = Image.fromarray(noise())
    for photo in (photo_file, str(photo_file), noise(), tensor, tensor.permute(2, 0, 1), picture):
        assert pre.region(photo) == expected
    with photo_file.open("rb") as file:
        assert pre.region(file) == expected
    assert pre.region([19, 13]) == expected
    assert pre.region(np.array((19, 13)).tolist()) == expected
    for photo in ("missing.png", b"", None, Image.new("RGB", (0, 5)), torch.zeros(3, 4, 4)):
        with pytest.raises(ImageError):
            pre.region(photo)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_region_of_a_turned_photo(format, orientation, tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned"
    Image.fromarray(stored(smooth(), orientation)).save(path, format, exif=exif)
    pre = Preprocessing(resize=10, crop=8)
    expected = pre.region((60, 40))
    assert pre.region(path) == expected
    with Image.open(path) as decoded:
        decoded.load()
        assert pre.region(decoded) == expected
    with Image.open(path) as lazy:
        if format != "TIFF":
            monkeypatch.setattr(lazy, "load", lambda: pytest.fail("was decoded"))
        assert pre.region(lazy) == expected


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(20, 90), st.integers(20, 90)),
    st.integers(20, 70) | st.tuples(st.integers(20, 70), st.integers(20, 70)) | st.none(),
    st.tuples(st.integers(5, 20), st.integers(5, 20)),
)
def test_region_is_where_the_pixels_come_from(size, resize, crop):
    # in a picture whose colours are the coordinates, the view's colours tell where it looks
    width, height = size
    rows, columns = np.mgrid[0:height, 0:width]
    array = np.stack([columns * 2, rows * 2, 0 * rows], axis=2).astype(np.uint8)
    pre = Preprocessing(resize=resize, crop=crop)
    x0, y0, x1, y1 = pre.region(size)
    seen = np.asarray(pre.view(array)).astype(float)
    for found, start, end in ((seen[..., 0], x0, x1), (seen[..., 1], y0, y1)):
        assert found.mean() / 2 + 0.5 == pytest.approx((start + end) / 2, abs=0.75)


def test_extreme_proportions_do_not_explode():
    with pytest.raises(ImageError, match=r"after the resize, got 2240000 × 224 from \(10000, 1\)"):
        Preprocessing(resize=224)(Image.new("RGB", (10_000, 1)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mean": (0.5,)}, "mean: expected three finite numbers"),
        ({"mean": 0.5}, "mean: expected three"),
        ({"mean": (0.5, 0.5, float("nan"))}, "mean: expected three finite"),
        ({"std": (1, 1, 1, 1)}, "std: expected three"),
        ({"std": (1, 1, 0)}, "std: expected three numbers greater than 0"),
        ({"std": (1, 1, -1)}, "std: expected three numbers greater than 0"),
        ({"std": ("a", 1, 1)}, "std: expected three finite numbers"),
        ({"resize": 0}, "resize: expected an int or a pair"),
        ({"resize": 2.5}, "resize: .*got 2.5"),
        ({"resize": True}, "resize: .*got True"),
        ({"resize": (4,)}, "resize: "),
        ({"resize": (4, -4)}, r"resize: .*got \(4, -4\)"),
        ({"crop": -3}, "crop: .*got -3"),
        ({"crop": "all"}, "crop: .*got 'all'"),
        ({"interpolation": "cubic"}, "interpolation: expected one of 'bilinear', .*got 'cubic'"),
    ],
)
def test_wrong_preprocessing(options, words):
    with pytest.raises(ValueError, match=words):
        Preprocessing(**options)


def test_preprocessing_is_a_value():
    listed = Preprocessing(mean=[0, 0, 0], resize=[4, 5], crop=np.int64(3))
    assert listed == Preprocessing(mean=(0.0, 0.0, 0.0), resize=(4, 5), crop=3)
    assert len({listed, pickle.loads(pickle.dumps(listed))}) == 1
    for size in ((3,), (0, 5), (3, 4, 5), ("3", "4"), [noise(), noise()]):
        with pytest.raises(ValueError, match=r"photo: expected a photo, or its size \(width"):
            listed.region(size)


# --- batches ---


def test_model_input_passes_untouched():
    batch = torch.rand(2, 5, 4, 4, requires_grad=True)
    assert is_model_input(batch)
    assert to_batch(batch, SHARP) is batch
    assert to_batch(batch, SHARP, device="cpu", dtype=torch.float32) is batch
    assert to_batch(batch, SHARP, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert to_batch(torch.zeros(0, 3, 4, 4), SHARP).shape == (0, 3, 4, 4)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(3, 224, 224), r"images: .*float32 tensor \[3, 224, 224\]; .*images\[None\]"),
        (
            torch.zeros(3, 4),
            r"float tensor \[N, 3, H, W\] or photos, got a float32 tensor \[3, 4\]",
        ),
        (torch.zeros(1, 3, 0, 4), r"got a float32 tensor \[1, 3, 0, 4\]"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.int64), "an int64 tensor .*model input is floating"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.bool), "a bool tensor"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.complex64), "a complex64 tensor"),
        (np.zeros((1, 3, 4, 4), np.float32), "a float32 array .*convert them to uint8"),
        (np.zeros((1, 4, 4, 3), np.int64), "an int64 array"),
        ([], r"got none \(a list"),
        (iter(()), "got none"),
        (np.zeros((0, 4, 4, 3), np.uint8), "got none"),
        ([torch.zeros(3, 4, 4)], r"images\[0\]: .*one tensor \[N, 3, H, W\]"),
        ({"a": 1}, "got a dict"),
        (None, "got None"),
    ],
)
def test_refused_batches(images, words):
    assert not is_model_input(images)
    with pytest.raises(ImageError, match=words):
        to_batch(images, SHARP)


def test_photos_become_a_batch(folder):
    pre = Preprocessing(resize=12, crop=10)
    batch = to_batch(folder, pre)
    assert batch.shape == (5, 3, 10, 10)
    assert batch.is_contiguous()
    for row, path in zip(batch, find_photos(folder), strict=True):
        assert torch.equal(row, pre(path))
    assert torch.equal(to_batch(folder, pre, dtype=torch.float16), batch.half())
    with pytest.raises(ImageError, match=r"dtype: expected a floating-point type, got torch.uint8"):
        to_batch(folder, pre, dtype=torch.uint8)


def test_all_failures_are_listed(folder):
    (folder / "a" / "2.jpg").write_bytes(b"")
    (folder / "b.PNG").write_bytes(b"junk")
    with pytest.raises(ImageErrors) as caught:
        to_batch([folder, noise(), 3], SHARP)
    names = [str(folder / "a" / "2.jpg"), str(folder / "b.PNG"), "images[2]"]
    assert [name for name, _ in caught.value.failures] == names
    assert str(caught.value).startswith("images: 3 of 7 photos cannot be used:\n  ")
    with pytest.raises(ImageErrors, match=re.escape(f"{folder / 'b.PNG'}: expected an image")):
        to_batch(folder / "b.PNG", SHARP)
    with pytest.raises(ImageErrors, match=r"images\[0\]: .*after the resize"):
        to_batch(noise(1, 10_000), Preprocessing(resize=224))


def test_photos_of_different_sizes():
    words = r"images\[0\]: 13 × 19 and images\[1\]: 13 × 18; set resize and crop"
    with pytest.raises(ImageError, match=words):
        to_batch([noise(), noise(13, 18)], SHARP)
    assert to_batch([noise(), noise(13, 18)], Preprocessing(resize=(9, 9))).shape == (2, 3, 9, 9)
