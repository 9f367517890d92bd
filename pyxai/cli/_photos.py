"""What the commands that work on photos share: photos, classes, files and reports."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer
from PIL import Image
from tqdm import tqdm

from pyxai.classifier import Classifier
from pyxai.images import ImageError, iterate_photos

Result = tuple[dict[str, Any], dict[str, Image.Image]]
"""What goes into the JSON file of a photo, and pictures by what they are called."""


def process(
    command: str,
    photos: list[Path] | None,
    output: Path,
    work: Callable[[Image.Image], Result],
    *,
    as_json: bool,
    summary: Callable[[list[dict[str, Any]]], str],
) -> None:
    """Does the work of a command on one photo after the other, writes its files, and reports.

    Photos that cannot be used are listed at the end. Of these alone the exit code is 2, of some 1.

    Args:
        command: its name.
        photos: files and folders; None, the samples.
        output: folder for the files, made if need be.
        work: what is done to a photo; it may raise `ImageError`.
        as_json: print all results as JSON, and not the summary.
        summary: the results as text.
    """
    output.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    names: set[str] = set()
    # tqdm is silent when the terminal is not one.
    for name, photo in tqdm(list_photos(photos), desc=command, unit="photo", disable=None):
        try:
            if isinstance(photo, ImageError):
                raise photo
            result, pictures = work(photo)
        except ImageError as error:
            failures.append({"photo": name, "reason": error.reason})
            continue
        stem = free_name(name, names)
        files = {kind: f"{stem}.{kind}.png" for kind in pictures} | {"json": f"{stem}.json"}
        for kind, picture in pictures.items():
            picture.save(output / files[kind])
        result = {"photo": name, **result, "files": files}
        (output / files["json"]).write_text(json.dumps(result, indent=2) + "\n")
        results.append(result)
    if as_json:
        typer.echo(json.dumps({"results": results, "failures": failures}, indent=2))
    else:
        typer.echo(summary(results))
    for failure in failures:
        typer.echo(f"pyxai: not explained: {failure['photo']}: {failure['reason']}", err=True)
    if failures:
        raise typer.Exit(1 if results else 2)


def list_photos(
    photos: list[Path] | None,
) -> Iterator[tuple[str, Image.Image | ImageError]]:
    """The photos asked for one after the other, or scikit-learn's two sample photographs."""
    if photos:
        return iterate_photos(photos)
    from sklearn.datasets import load_sample_images

    samples = load_sample_images()
    named = zip(samples.filenames, samples.images, strict=True)
    return ((Path(name).name, Image.fromarray(pixels)) for name, pixels in named)


def class_of(target: str | None, classifier: Classifier) -> int | str | None:
    """The target as the library takes it; refused before the first photo is read."""
    if target is None:
        return None
    is_index = re.fullmatch(r"\d+", target) and target not in (classifier.class_names or ())
    wanted = int(target) if is_index else target
    return classifier.class_index(wanted)


def free_name(name: str, taken: set[str]) -> str:
    """A file name for the results of a photo: its own, with a number if that is taken."""
    stem = re.sub(r"[^\w.-]+", "_", Path(name).stem) or "photo"
    candidate, number = stem, 2
    while candidate in taken:
        candidate, number = f"{stem}-{number}", number + 1
    taken.add(candidate)
    return candidate
