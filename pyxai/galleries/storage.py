"""Galleries on disk: JSON, safetensors and JPEG files; nothing is unpickled."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyxai._files import write_text
from pyxai._locks import locked
from pyxai._outputs import OutputFolder
from pyxai._sealed import digest, load_tensors, read_record, save_tensors, write_record
from pyxai.galleries.contents import (
    ClassCrops,
    Contents,
    GalleryCrop,
    Settings,
    StoredPicture,
    Tally,
)
from pyxai.images import PhotoFailure

_FORMAT = "pyxai gallery 1"
_QUALITY = 92
_LONGEST = 60
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)


def folder_names(class_names: Sequence[str]) -> list[str]:
    """A folder name for each class, safe on every system and never the same twice."""
    found: list[str] = []
    taken: set[str] = set()
    for name in class_names:
        plain = unicodedata.normalize("NFC", name)
        stem = re.sub(r"[^\w-]+", "_", plain).strip("_")[:_LONGEST] or "class"
        stem = re.sub(r"[\ud800-\udfff]", "_", stem)
        if _RESERVED.fullmatch(stem):
            stem = f"{stem}_"
        candidate, number = stem, 2
        while candidate.casefold() in taken:
            candidate, number = f"{stem}-{number}", number + 1
        taken.add(candidate.casefold())
        found.append(candidate)
    return found


class GalleryFolder(OutputFolder):
    """A folder that a gallery is written to."""

    def __init__(self, directory: Path, argument: str = "directory") -> None:
        super().__init__(directory, argument, by="a gallery")


def save_gallery(
    directory: Path,
    settings: Settings,
    contents: Contents,
    report: dict[str, Any],
    page: Callable[[list[list[str]]], str] | None = None,
) -> None:
    """Writes the crops as JPEG files, their features, and gallery.json, which makes them a gallery.

    The names of files have digests of what is in them, so that a gallery that was here stays whole
    until gallery.json is replaced, all at once; only then do its other files go.

    Args:
        directory: the folder.
        settings: of the gallery.
        contents: of the gallery.
        report: of the gallery.
        page: makes the text of index.html from the names of the crops' files of each class.

    Raises:
        ValueError: something of these names is there that no gallery has written.
        BusyError: another process saves a gallery here.
    """
    names = ("gallery.json", "index.html", "crops/x/0")
    GalleryFolder(directory).check(*names)  # refused before anything is written
    with locked(directory, "directory"):
        output = GalleryFolder(directory)
        output.check(*names)
        pictures: list[list[str]] = []
        files: list[list[str]] = []
        folders = folder_names(contents.class_names)
        for found, folder in zip(contents.classes, folders, strict=True):
            crops = enumerate(found.crops)
            pictures.append([_write_picture(output, crop, folder, rank) for rank, crop in crops])
            ranks = enumerate(pictures[-1])
            files.append([crop_file(folder, rank, each) for rank, each in ranks])
        features = np.concatenate([each.features for each in contents.classes])
        described = _write_features(output, features)
        if page is not None:
            with output.writing("index.html") as path:
                write_text(path, page(files))
        record = {
            "format": _FORMAT,
            "model": contents.model,
            "layer": contents.layer,
            "clustering": contents.clustering,
            "settings": asdict(settings),
            "class_names": list(contents.class_names),
            "report": report,
            "tally": asdict(contents.tally),
            "features": described,
            "classes": [
                _class_record(found, each)
                for found, each in zip(contents.classes, pictures, strict=True)
            ],
        }
        with output.writing("gallery.json") as path:
            write_record(path, record, indent=1)
        if page is None:
            output.remove("index.html")  # of the gallery before: its pictures go now
        output.finish()


def crop_file(folder: str, rank: int, picture: str) -> str:
    """Where the picture of a crop, known by its digest, lies below the gallery's folder."""
    return f"crops/{folder}/{rank:03d}-{picture[:8]}.jpg"


def _features_file(described: str) -> str:
    return f"features-{described[:8]}.safetensors"


def _write_features(output: OutputFolder, features: NDArray[np.float32]) -> str:
    """Writes the features of all crops; the digest in the name of the file."""
    described = digest([np.ascontiguousarray(features).tobytes()])
    with output.writing(_features_file(described)) as path:
        save_tensors(path, {"features": torch.from_numpy(np.ascontiguousarray(features))})
    return described


def _class_record(found: ClassCrops, pictures: list[str]) -> dict[str, Any]:
    crops = []
    for crop, picture in zip(found.crops, pictures, strict=True):
        facts = {name: value for name, value in asdict(crop).items() if not name.startswith("_")}
        crops.append({**facts, "picture": picture})
    return {"near_duplicates": found.near_duplicates, "note": found.note, "crops": crops}


def _write_picture(output: OutputFolder, crop: GalleryCrop, folder: str, rank: int) -> str:
    """Writes the picture of a crop; its digest."""
    data = crop.jpeg(_QUALITY)
    picture = digest([data])
    output.write_bytes(crop_file(folder, rank, picture), data)
    return picture


def load_gallery(directory: Path) -> tuple[Settings, Contents]:
    """Reads what `save_gallery` wrote.

    File names are made from the class names anew: none is taken from the JSON file.

    Raises:
        ValueError: it is no gallery, or a damaged one.
        OSError: a file is missing.
    """
    path = directory / "gallery.json"
    try:
        record = read_record(path)
        if record["format"] != _FORMAT:
            raise ValueError(f"format {record['format']!r}")
        tensors, _ = load_tensors(directory / _features_file(_digest_of(record["features"])))
        features = tensors["features"].numpy()
        settings = Settings(**record["settings"])
        class_names = tuple(map(str, record["class_names"]))
        classes, row = [], 0
        for each, folder in zip(record["classes"], folder_names(class_names), strict=True):
            rows = features[row : row + len(each["crops"])]
            row += len(rows)
            classes.append(_class_from(each, rows, directory, folder))
        if row != len(features):
            raise ValueError(f"{row} crops, {len(features)} features")
        tally = Tally(**record["tally"])
        tally.failures = [PhotoFailure(str(name), str(reason)) for name, reason in tally.failures]
        texts = [str(record[name]) for name in ("model", "layer", "clustering")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"directory: expected a gallery saved by pyxai, got {directory} "
            f"({type(error).__name__}: {error})"
        ) from error
    model, layer, clustering = texts
    contents = Contents(model, layer, clustering, class_names, tuple(classes), tally)
    return settings, contents


def _class_from(
    record: dict[str, Any], features: NDArray[np.float32], directory: Path, folder: str
) -> ClassCrops:
    crops = tuple(
        GalleryCrop(
            str(each["name"]),
            box_of(each["box"]),
            float(each["score"]),
            None if each["label"] is None else str(each["label"]),
            int(each["cluster"]),
            bool(each["representative"]),
            _stored=_stored_picture(directory, folder, rank, each["picture"]),
        )
        for rank, each in enumerate(record["crops"])
    )
    if len(features) != len(crops):
        raise ValueError(f"{len(crops)} crops, {len(features)} features")
    return ClassCrops(crops, features, int(record["near_duplicates"]), str(record["note"]))


def _stored_picture(directory: Path, folder: str, rank: int, picture: Any) -> StoredPicture:
    known = _digest_of(picture)
    return StoredPicture((directory / crop_file(folder, rank, known)).absolute(), known)


def _digest_of(value: Any) -> str:
    """A digest out of a file, which becomes part of a name.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{32}", value):
        raise ValueError(f"digest {value!r}")
    return value


def box_of(values: Any) -> tuple[int, int, int, int]:
    """A box as it was before JSON."""
    x0, y0, x1, y1 = map(int, values)
    return x0, y0, x1, y1
