"""What the commands that work on photos share: photos, classes, files and reports."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
from PIL import Image
from tqdm import tqdm

from pyxai._files import write_json
from pyxai._outputs import OutputFolder
from pyxai._results import plain
from pyxai.classifier import Classifier
from pyxai.images import ImageError, PhotoFailure, find_photos, iterate_photos
from pyxai.images.errors import printable

_SHOWN = 20  # photos of a kind that are named
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

    Photos that cannot be used are listed at the end; if there are no others, the exit code is 1.
    All photos are listed before the first file is written; what is not of pyxai, of another command
    or another photo is never written over: a photo's files then get another number.

    Args:
        command: its name.
        photos: files and folders; None, the samples.
        output: folder for the files, made if need be.
        work: what is done to a photo; it may raise `ImageError`.
        as_json: print all results as JSON, and not the summary.
        summary: the results as text.
    """
    folder = OutputFolder(output, "--output", by=f"pyxai {command}")
    folder.check()  # before the work, not after it
    results: list[dict[str, Any]] = []
    failures: list[PhotoFailure] = []
    names: set[str] = set()
    # tqdm is silent when the terminal is not one.
    for name, photo in tqdm(list_photos(photos, folder), desc=command, unit="photo", disable=None):
        try:
            if isinstance(photo, ImageError):
                raise photo
            result, pictures = work(photo)
        except ImageError as error:
            failures.append(PhotoFailure(name, error.reason))
            continue
        suffixes = {kind: f".{kind}.png" for kind in pictures} | {"json": ".json"}
        of = whole_name(name)
        stem = free_name(name, names, folder, suffixes.values(), of=of)
        files = {kind: f"{stem}{suffix}" for kind, suffix in suffixes.items()}
        for kind, picture in pictures.items():
            with folder.writing(files[kind], of=of) as path:
                picture.save(path)
        result = {"photo": name, **result, "files": files}
        with folder.writing(files["json"], of=of) as path:
            write_json(path, result, indent=2)
        results.append(result)
    if as_json:
        typer.echo(json.dumps({"results": results, "failures": plain(failures)}, indent=2))
    else:
        typer.echo(summary(results))
    for name, reason in failures:
        typer.echo(f"pyxai: not explained: {printable(name)}: {reason}", err=True)
    if not results:  # nothing could be done; with a name that is none it was asked for wrongly
        raise typer.Exit(1 if any(Path(each.path).is_file() for each in failures) else 2)


def list_photos(
    photos: list[Path] | None, output: OutputFolder
) -> Iterator[tuple[str, Image.Image | ImageError]]:
    """The photos asked for one after the other, or scikit-learn's two sample photographs.

    Args:
        photos: files and folders; folders are listed now.
        output: where results go; what was written there before is no photo, even if it is named
            (`pyxai explain *.png -o .` would explain its own pictures the second time).

    Raises:
        ValueError: there is nothing else.
    """
    if photos:
        listed = [path for each in photos for path in _listed(each) if not output.wrote(path)]
        if not listed:
            got = f"pictures that pyxai has written in {str(output.path)!r}"
            raise ValueError(f"photos: expected photos, got {got}")
        return iterate_photos(listed)
    from sklearn.datasets import load_sample_images

    samples = load_sample_images()
    named = zip(samples.filenames, samples.images, strict=True)
    return ((Path(name).name, Image.fromarray(pixels)) for name, pixels in named)


def _listed(source: Path) -> list[Path]:
    """The photos of a folder; what fails is left as it is, to fail by its name."""
    try:
        return find_photos(source)
    except ImageError:
        return [source]


def report_left_out(failures: Sequence[PhotoFailure], removed: Sequence[str]) -> None:
    """Names, on stderr, the first photos that could not be used, and that are no longer there."""
    lines = [f"not read: {printable(name)}: {reason}" for name, reason in failures]
    for text, kind in ((lines, "not readable"), ([*map(_removed, removed)], "removed")):
        for line in text[:_SHOWN]:
            typer.echo(f"pyxai: {line}", err=True)
        if text:
            typer.echo(f"pyxai: photos {kind}: {len(text)}", err=True)


def _removed(name: str) -> str:
    return f"removed: {printable(name)}"


def class_of(target: str | None, classifier: Classifier) -> int | str | None:
    """The target as the library takes it; refused before the first photo is read."""
    if target is None:
        return None
    is_index = re.fullmatch(r"\d+", target) and target not in (classifier.class_names or ())
    wanted = int(target) if is_index else target
    return classifier.class_index(wanted)


def whole_name(name: str) -> str:
    """The name of a photo from wherever one stands, as the list of an output folder has it."""
    return os.path.abspath(name) if Path(name).exists() else name  # noqa: PTH100 - links stay


def free_name(
    name: str,
    taken: set[str],
    output: OutputFolder,
    suffixes: Iterable[str],
    *,
    of: str | None = None,
) -> str:
    """The start of the file names of a photo's results: its own, with a number if that is taken.

    Args:
        name: of the photo.
        taken: by other photos of this run, where this one is added.
        output: where the files go; what is there and not of this command is left alone.
        suffixes: what follows.
        of: the photo, if files of others that an earlier call has written are left alone too.
    """
    stem = re.sub(r"[^\w.-]+", "_", Path(name).stem) or "photo"
    candidate, number = stem, 2
    endings = tuple(suffixes)
    while candidate in taken or not all(
        output.is_free(candidate + each, of=of) for each in endings
    ):
        candidate, number = f"{stem}-{number}", number + 1
    taken.add(candidate)
    return candidate
