"""Which photos there are and what is on them: a folder for each class, or a table."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from pyxai._errors import argument_error
from pyxai.images import class_folders, find_photos, split_folders

SHARE = 0.2
"""Part of each class that is held out for validation where none is given."""

Folder = str | os.PathLike[str]


@dataclass(frozen=True)
class Listing:
    """Photo files and the names of their classes, in a fixed order; nothing was opened."""

    paths: tuple[Path, ...]
    names: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, sorted."""
        return tuple(sorted(set(self.names)))


def list_photos(photos: Folder, *, argument: str = "photos", classes: int = 2) -> Listing:
    """The photos of a folder with a sub-folder for each class.

    Raises:
        ValueError: there is no such folder, it has fewer sub-folders than `classes`, or one is
            empty.
    """
    root = Path(photos)
    if not root.is_dir():
        expected = "a folder with a sub-folder for each class, or a CSV file"
        raise argument_error(argument, expected, str(root))
    folders = class_folders(root)
    if len(folders) < classes:
        many = "two or more classes" if classes > 1 else "its classes"
        expected = f"a sub-folder for each of {many} in {root}"
        raise argument_error(argument, expected, [each.name for each in folders] or "none")
    paths: list[Path] = []
    names: list[str] = []
    for each in folders:
        found = find_photos(each)  # an empty folder is an error
        paths += found
        names += [each.name] * len(found)
    return Listing(tuple(paths), tuple(names))


def read_table(file: Path, *, argument: str = "photos") -> dict[str, Listing]:
    """The photos of a CSV file with the columns `path`, `label` and perhaps `split`.

    Paths are relative to the file's folder, or absolute.

    Returns:
        By split, "train" or "valid"; all under "train" where there is no such column.

    Raises:
        ValueError: a column is missing, a cell is empty, a split has another name, or there are
            fewer than two classes to train on.
    """
    rows: dict[str, list[tuple[Path, str]]] = {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            reader = csv.DictReader(text)
            columns = [*(reader.fieldnames or ())]
            if not {"path", "label"} <= {*columns}:
                expected = f"the columns path and label in {file}"
                raise argument_error(argument, expected, columns or "none")
            for row in reader:
                path, label = row["path"], row["label"]
                split = row["split"] if "split" in columns else "train"
                if not path or not label or split not in ("train", "valid"):
                    expected = "a path, a label and, as a split, train or valid"
                    where = f"in line {reader.line_num} of {file}"
                    raise argument_error(argument, f"{expected} {where}", (path, label, split))
                rows.setdefault(split, []).append((file.parent / path, label))
    except (UnicodeDecodeError, csv.Error) as error:
        raise argument_error(argument, f"a CSV file in UTF-8 ({error})", str(file)) from error
    found = {
        split: Listing(tuple(path for path, _ in pairs), tuple(label for _, label in pairs))
        for split, pairs in rows.items()
    }
    return found


def training_and_validation(
    photos: Folder, valid: Folder | float | None, seed: int
) -> tuple[Listing, Listing]:
    """The photos to train on and those to judge by; see `pyxai.fine_tune`.

    Raises:
        ValueError: as `list_photos` and `read_table`; the share is not between 0 and 1; a class has
            too few photos to hold some out; or validation has a class that training has not.
    """
    root = Path(photos)
    own: Listing | None = None
    if root.is_file():
        table = read_table(root)
        train, own = table.get("train", Listing((), ())), table.get("valid")
        if len(train.classes) < 2:
            expected = f"photos of two or more classes to train on in {root}"
            raise argument_error("photos", expected, [*train.classes] or "none")
    else:
        splits = split_folders(root)
        train = list_photos(splits.get("train", root))
        if valid is None and "train" in splits and "valid" in splits:
            own = list_photos(splits["valid"], argument="valid", classes=1)
    if isinstance(valid, (str, os.PathLike)):
        own = _held_out(Path(valid))
    if own is not None and not isinstance(valid, float):
        unknown = sorted(set(own.names) - set(train.names))
        if unknown:
            raise argument_error("valid", f"classes among {[*train.classes]}", unknown)
        return train, own
    share = SHARE if valid is None else valid
    if isinstance(share, bool) or not isinstance(share, float) or not 0 < share < 1:
        raise argument_error("valid", "a folder, a table, or a share between 0 and 1", valid)
    return _split(train, share, seed)


def _held_out(source: Path) -> Listing:
    """All photos of a folder or table, whatever their split."""
    if not source.is_file():
        return list_photos(source, argument="valid", classes=1)
    parts = read_table(source, argument="valid").values()
    paths = tuple(path for part in parts for path in part.paths)
    if not paths:
        raise argument_error("valid", f"photos in {source}", "none")
    return Listing(paths, tuple(name for part in parts for name in part.names))


def _split(listing: Listing, share: float, seed: int) -> tuple[Listing, Listing]:
    generator = torch.Generator(device="cpu").manual_seed(seed)
    held_out: set[int] = set()
    for name in listing.classes:
        places = [place for place, each in enumerate(listing.names) if each == name]
        count = max(1, round(share * len(places)))
        if count >= len(places):
            expected = f"a share that leaves photos of {name!r}, of which there are {len(places)}"
            raise argument_error("valid", expected, share)
        order = torch.randperm(len(places), generator=generator, device="cpu")[:count].tolist()
        held_out.update(places[each] for each in order)

    def part(of_held_out: bool) -> Listing:
        kept = [each for each in range(len(listing.paths)) if (each in held_out) == of_held_out]
        return Listing(
            tuple(listing.paths[each] for each in kept), tuple(listing.names[each] for each in kept)
        )

    return part(False), part(True)
