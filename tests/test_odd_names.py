"""Every command over photos whose names are odd: not UTF-8, or with what tables and pages mean."""

from __future__ import annotations

import csv
import io
import json
import os

import numpy as np
import pytest
from PIL import Image

ODD = (
    b"caf\xe9.jpg",  # Latin-1
    b"new\nline.jpg",
    b'quo"te.jpg',
    b"com,ma.jpg",
    b"<script>alert(1)</script>.jpg".replace(b"/", b"\\"),
    b"-rf.jpg",
    b"%s{0}.jpg",
    b"sn\xc3\xb6w \xe2\x98\x83.jpg",
)
PLAIN = tuple(f"photo{number}.jpg".encode() for number in range(len(ODD)))


def photo(seed):
    """Noise with a square of a colour; a picture of its own for each seed."""
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 256, (64, 80, 3), np.uint8)
    pixels[8:40, 8:40] = draw.integers(0, 256, 3)
    return Image.fromarray(pixels)


def fill(folder, names):
    """In each of two classes a photo of each name, and a broken one; and a copy of the first."""
    for place, label in enumerate(("cat", "dog")):
        (folder / label).mkdir(parents=True)
        for number, name in enumerate(names):
            path = os.path.join(os.fsencode(folder), label.encode(), name)  # noqa: PTH118
            with open(path, "wb") as file:  # noqa: PTH123
                photo(100 * place + number).save(file, "JPEG", quality=95)
            with open(path[:-4] + b" broken.jpg", "wb") as file:  # noqa: PTH123
                file.write(b"no photo")
    for number, name in enumerate(names):
        with open(os.path.join(os.fsencode(folder), b"copy of " + name), "wb") as file:  # noqa: PTH118, PTH123
            photo(number).save(file, "JPEG", quality=95)


@pytest.fixture
def folders(tmp_path):
    """The same photos under plain names and under odd ones."""
    try:
        fill(tmp_path / "odd", ODD)
    except OSError as error:
        pytest.skip(f"this file system has no such names: {error}")
    fill(tmp_path / "plain", PLAIN)
    return tmp_path


FIRST = {
    "novelty score": ("novelty", "fit", "{}/dog", "--head", "head"),
    "search query": ("search", "build", "{}", "-o", "index"),
}
# Each command, and of which photos it must speak: "all", "broken" ones or "copies".
COMMANDS = {
    "explain": (("explain", "{}/cat", "-o", "out", "--json"), {"all", "broken"}),
    "windows": (("windows", "{}/cat", "--target", "forest", "-o", "out", "--json"), {"all"}),
    "undesirable": (
        ("undesirable", "{}/cat", "--steps", 2, "-o", "out", "--json"),
        {"all", "broken"},
    ),
    "shap": (
        ("shap", "{}/cat", "--samples", 8, "-o", "out", "--json"),
        {"all", "broken"},
    ),
    "gallery": (("gallery", "{}", "--crop", 32, "-o", "out", "--json"), {"broken"}),
    "features": (
        ("features", "{}/cat", "--channels", 2, "--steps", 1, "-o", "out", "--json"),
        {"broken"},
    ),
    "duplicates": (("duplicates", "{}", "-o", "out", "--json"), {"copies", "broken"}),
    "duplicates, table": (("duplicates", "{}", "-o", "out"), {"copies"}),
    "audit": (("audit", "{}", "-o", "out", "--json"), {"broken"}),
    "train": (("train", "{}", "--epochs", 1, "-o", "out/net.st", "--json"), {"broken"}),
    "novelty fit": (("novelty", "fit", "{}/cat", "--head", "head", "--json"), set()),
    "novelty score": (
        ("novelty", "score", "{}/cat", "--head", "head", "-o", "out", "--json"),
        {"all", "broken"},
    ),
    "search build": (("search", "build", "{}", "-o", "out", "--json"), {"broken"}),
    "search query": (
        ("search", "query", "index", "{}/cat/{first}", "-o", "out", "--json"),
        {"all", "copies"},
    ),
    "playground": (
        (
            *("playground", "build", "{}/cat", "-o", "out", "--layer", "stage3", "--map", "pca"),
            *("--metric", "cosine", "--units", "1", "--unit-steps", "1", "--explained", "1"),
            *("--no-windows", "--undesirable", "1", "--undesirable-steps", "1", "--no-galleries"),
        ),
        set(),
    ),
}


def texts(value):
    """All texts in JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)


def told(work, out):
    """All that a command says: its JSON, and every table and JSON file, read back."""
    said = []
    if out.startswith(("{", "[")):
        said += texts(json.loads(out))
    for path in work.rglob("*"):
        if path.name.startswith(".") or not path.is_file():
            continue
        if path.suffix == ".json":
            said += texts(json.loads(path.read_bytes()))
        elif path.suffix == ".csv":
            rows = csv.reader(io.StringIO(path.read_bytes().decode("utf-8", "surrogateescape")))
            said += [cell for row in rows for cell in row]
    return said


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command(run, folders, monkeypatch, command):
    arguments, wanted = COMMANDS[command]
    codes = {}
    for kind, names in (("plain", PLAIN), ("odd", ODD)):
        work = folders / f"work of {kind}"
        work.mkdir()
        monkeypatch.chdir(work)
        for line in (FIRST.get(command), arguments):
            if line is not None:
                first = os.fsdecode(names[0])
                words = [str(each).format(folders / kind, first=first) for each in line]
                codes[kind], out, err = run(*words)
        assert codes[kind] in (0, 1), err
        said = told(work, out)
        for name in map(os.fsdecode, names):
            stem = name.removesuffix(".jpg")
            endings = {"all": name, "copies": f"copy of {name}", "broken": f"{stem} broken.jpg"}
            for each in wanted:
                ending = endings[each]
                assert any(text.endswith(ending) for text in said), (command, ending)
    assert codes["odd"] == codes["plain"]
