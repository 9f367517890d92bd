"""What a site is to be made of, checked."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from pyxai._errors import MissingExtraError, argument_error
from pyxai.neighbors.distances import METRICS, as_metric

PathLike: TypeAlias = "str | os.PathLike[str]"
Paths: TypeAlias = "PathLike | Sequence[PathLike]"


def check_metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    """The names of the metrics, each once.

    Raises:
        ValueError: one is unknown, or there is none.
    """
    if isinstance(metrics, str) or not metrics:
        raise argument_error("metrics", f"at least one of {', '.join(METRICS)}", metrics)
    return tuple(dict.fromkeys(as_metric(each).name for each in metrics))


def check_maps(maps: Sequence[str] | None) -> tuple[str, ...]:
    """The kinds of map.

    Raises:
        ValueError: one is unknown.
        MissingExtraError: UMAP is asked for and not installed.
    """
    installed = importlib.util.find_spec("umap") is not None
    if maps is None:
        return ("umap", "pca") if installed else ("pca",)
    unknown = [each for each in maps if each not in ("pca", "umap")]
    if isinstance(maps, str) or unknown:
        raise argument_error("maps", "some of 'pca' and 'umap'", maps)
    if "umap" in maps and not installed:
        raise MissingExtraError("a map by UMAP", "umap-learn", "umap")
    return tuple(dict.fromkeys(maps))


def name_sets(photos: Paths | Mapping[str, Paths]) -> dict[str, list[Path]]:
    """Folders and files of each data set by its name.

    Raises:
        ValueError: they are no paths.
    """
    expected = "a folder, files, or a mapping of names to these (photos must be files)"
    given: Mapping[str, Any] = photos if isinstance(photos, Mapping) else {"": photos}
    found: dict[str, list[Path]] = {}
    for name, paths in given.items():
        several = [paths] if isinstance(paths, (str, os.PathLike)) else paths
        if not isinstance(several, Iterable):
            raise argument_error("photos", expected, paths)
        several = list(several)
        if not several or not all(isinstance(each, (str, os.PathLike)) for each in several):
            raise argument_error("photos", expected, photos)
        listed = [Path(os.fsdecode(each)) for each in several]
        found[str(name) or listed[0].resolve().name or "photos"] = listed
    if not found:
        raise argument_error("photos", expected, photos)
    return found
