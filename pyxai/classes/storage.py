"""Galleries on disk: JSON, safetensors and JPEG files; nothing is unpickled."""

from __future__ import annotations

import json
import re
import shutil
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from pyxai._files import write_json
from pyxai.classes.contents import ClassCrops, Contents, GalleryCrop, Settings, Tally

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


def crop_file(folder: str, rank: int) -> str:
    """Where the picture of a crop lies below the gallery's folder."""
    return f"crops/{folder}/{rank:03d}.jpg"


def save_gallery(
    directory: Path, settings: Settings, contents: Contents, report: dict[str, Any]
) -> None:
    """Writes gallery.json, features.safetensors and the crops as JPEG files."""
    folders = folder_names(contents.class_names)
    for found, folder in zip(contents.classes, folders, strict=True):
        (directory / "crops" / folder).mkdir(parents=True, exist_ok=True)
        for rank, crop in enumerate(found.crops):
            _write_picture(crop, directory / crop_file(folder, rank))
        _remove_pictures(directory, folder, len(found.crops))
    features = np.concatenate([each.features for each in contents.classes])
    save_file({"features": np.ascontiguousarray(features)}, directory / "features.safetensors")
    record = {
        "format": _FORMAT,
        "model": contents.model,
        "layer": contents.layer,
        "clustering": contents.clustering,
        "settings": asdict(settings),
        "class_names": list(contents.class_names),
        "report": report,
        "tally": asdict(contents.tally),
        "classes": [_class_record(found) for found in contents.classes],
    }
    write_json(directory / "gallery.json", record)


def _class_record(found: ClassCrops) -> dict[str, Any]:
    crops = [
        {name: value for name, value in asdict(crop).items() if not name.startswith("_")}
        for crop in found.crops
    ]
    return {"near_duplicates": found.near_duplicates, "note": found.note, "crops": crops}


def _write_picture(crop: GalleryCrop, path: Path) -> None:
    stored = crop._stored
    if stored is None:
        crop.picture().save(path, quality=_QUALITY)
    elif stored.resolve() != path.resolve():
        shutil.copyfile(stored, path)  # saved before: not compressed a second time


def _remove_pictures(directory: Path, folder: str, first: int) -> None:
    """Removes the crops that a larger gallery left in this place."""
    rank = first
    while (path := directory / crop_file(folder, rank)).is_file():
        path.unlink()
        rank += 1


def load_gallery(directory: Path) -> tuple[Settings, Contents]:
    """Reads what `save_gallery` wrote.

    File names are made from the class names anew: none is taken from the JSON file.

    Raises:
        ValueError: it is no gallery, or a damaged one.
        OSError: a file is missing.
    """
    path = directory / "gallery.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != _FORMAT:
            raise ValueError(f"format {record['format']!r}")
        features = load_file(directory / "features.safetensors")["features"]
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
        tally.failures = [(str(name), str(reason)) for name, reason in tally.failures]
        texts = [str(record[name]) for name in ("model", "layer", "clustering")]
    except (ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
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
            _stored=(directory / crop_file(folder, rank)).absolute(),
        )
        for rank, each in enumerate(record["crops"])
    )
    if len(features) != len(crops):
        raise ValueError(f"{len(crops)} crops, {len(features)} features")
    return ClassCrops(crops, features, int(record["near_duplicates"]), str(record["note"]))


def box_of(values: Any) -> tuple[int, int, int, int]:
    """A box as it was before JSON."""
    x0, y0, x1, y1 = map(int, values)
    return x0, y0, x1, y1
