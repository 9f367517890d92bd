"""Computes all that a playground shows, and writes its site."""

from __future__ import annotations

import datetime
import importlib.util
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pyxai._errors import MissingExtraError, argument_error, check_count
from pyxai.classifier import Classifier
from pyxai.explain.cam_methods import cam_method
from pyxai.neighbours.distances import METRICS, as_metric
from pyxai.playground.anatomies import write_anatomy
from pyxai.playground.explanations import Explaining, write_explanations
from pyxai.playground.galleries import write_galleries
from pyxai.playground.photo_files import PhotoSet, write_photos
from pyxai.playground.similar import (
    MEASURES,
    NEIGHBORS,
    good_start,
    write_maps,
    write_neighbors,
    write_retrieval,
)
from pyxai.playground.unit_pictures import Drawing, write_units
from pyxai.playground.writing import SiteFolder
from pyxai.search.extraction import LayerNames
from pyxai.search.index import ImageIndex
from pyxai.search.labels import Labels
from pyxai.search.networks import Models, named

PathLike: TypeAlias = "str | os.PathLike[str]"
Paths: TypeAlias = "PathLike | Sequence[PathLike]"

_PAGES = Path(__file__).parent / "site"
_SHOWN = ("*.html", "*.css", "*.svg", "scripts/*.js")  # of these, what visitors need


def build(
    models: Models,
    photos: Paths | Mapping[str, Paths],
    out: PathLike,
    *,
    title: str | None = None,
    layers: LayerNames = None,
    metrics: Sequence[str] = ("cosine", "euclidean", "sqeuclidean", "minkowski"),
    maps: Sequence[Literal["pca", "umap"]] | None = None,
    units: int = 30,
    unit_size: int = 128,
    unit_steps: int = 128,
    crops: int = 6,
    explained: int | None = None,
    methods: Sequence[str] = ("auto", "gradcam++", "layercam", "eigencam"),
    windows: bool = True,
    undesirable: int = 16,
    undesirable_steps: int = 200,
    galleries: bool = True,
    labels: Labels = "folder",
    index: PathLike | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Makes a web site to explore what classifiers see in photos.

    Everything is computed now, so that any static server can serve the folder, and a browser can
    open its index.html from disk. The site holds small copies of the photos and no features. A call
    that was interrupted goes on where it was when it is made again, and one with other settings
    keeps what does not depend on them. docs/playground.md shows the screens.

    Args:
        models: a classifier (or `nn.Module`), several, or several by name.
        photos: a folder or files; or several data sets by name.
        out: the folder of the site: a new or empty one, or that of an earlier call.
        title: of the site; None, the names of the data sets.
        layers: see `pyxai.ImageIndex.build`.
        metrics: of the search; see `pyxai.ImageIndex.search`. "minkowski" is that of order 3.
        maps: "pca" and "umap" (extra `umap`); None, both if umap-learn is installed.
        units: channels of each layer that get a picture, drawn at random; also how many classes
            do. 0 for none.
        unit_size: side of these pictures in pixels, at most that of the network's input.
        unit_steps: of their optimisation; more give clearer pictures.
        crops: pieces of photos beside each of them.
        explained: how many photos of each data set have explanations, spread over it; None, all.
        methods: of class activation maps, see `pyxai.cam`.
        windows: whether explanations include sliding windows.
        undesirable: how many photos of each data set, spread over it, have a map of undesirable
            pixels (`pyxai.undesirable_pixels`), which takes longest.
        undesirable_steps: of learning these.
        galleries: whether classes get a page with their most convincing crops
            (`pyxai.ClassGallery`).
        labels: the class of a photo, see `pyxai.ImageIndex.build`.
        index: a folder to keep the features in, for an interrupted call to go on from, and for a
            live search (`serve`); None keeps them in memory.
        seed: of all that is drawn at random; the global random state is left alone.
        progress: whether to show bars; there are none without a terminal.

    Returns:
        The path of index.html.

    Raises:
        ValueError: an argument does not fit; the folder holds other files; there are fewer than
            two photos; the index is of other networks, or damaged.
        pyxai.images.ImageError: there are no photos. Single ones that cannot be read are left out
            and counted.
        MissingExtraError: "umap" without umap-learn.
    """
    classifiers = named(models)
    if not _PAGES.joinpath("index.html").exists():
        raise FileNotFoundError(f"the pages of the playground are not installed at {_PAGES}")
    chosen = _metrics(metrics)
    projections = _maps(maps)
    for argument, number in {"units": units, "undesirable": undesirable, "crops": crops}.items():
        check_count(argument, number, least=0)
    for argument, number in {"unit_size": unit_size, "unit_steps": unit_steps}.items():
        check_count(argument, number)
    check_count("undesirable_steps", undesirable_steps)
    check_count("seed", seed, least=0)
    if explained is not None:
        check_count("explained", explained, least=0, or_none=True)
    methods = [cam_method(each).name for each in methods]
    drawing = Drawing(units, unit_size, unit_steps, crops, seed)
    explaining = Explaining(
        explained, tuple(dict.fromkeys(methods)), windows, undesirable, undesirable_steps, seed
    )
    sources = _sources(photos)
    site = SiteFolder(Path(out))
    indexes = [
        ImageIndex.build(
            classifiers,
            list(paths),
            directory=None if index is None else Path(index) / str(number),
            layers=layers,
            labels=labels,
            progress=progress,
        )
        for number, paths in enumerate(sources.values())
    ]
    sets = [
        _photo_set(number, name, paths, found)
        for number, ((name, paths), found) in enumerate(zip(sources.items(), indexes, strict=True))
    ]
    about_networks = _write_networks(site, classifiers, indexes[0], sets, drawing, progress)
    about_sets = []
    for photo_set, found in zip(sets, indexes, strict=True):
        about = _write_set(site, photo_set, found, chosen, projections, seed, progress)
        for number, classifier in enumerate(classifiers.values()):
            about["explained"] = write_explanations(
                site, photo_set, number, classifier, explaining, progress=progress
            )
            if galleries:
                write_galleries(site, photo_set, number, classifier, drawing, progress=progress)
        about_sets.append({**about, "galleries": galleries})
    site.begin("live")
    site.write("live", {"available": False})
    site.begin("site")
    site.write(
        "site",
        {
            "format": 1,
            "title": title or ", ".join(sources),
            "made": datetime.date.today().isoformat(),
            "pyxai": _version(),
            "k": min(NEIGHBORS, *(len(found) - 1 for found in indexes)),
            "metrics": list(chosen),
            "measures": list(MEASURES),
            "sets": about_sets,
            "networks": about_networks,
        },
    )
    site.finish()
    return _write_pages(site.root)


def _photo_set(number: int, name: str, paths: list[Path], index: ImageIndex) -> PhotoSet:
    """The photos of an index as a data set.

    Raises:
        ValueError: there is only one.
    """
    if len(index) < 2:
        raise ValueError(f"photos: expected at least two that can be read, got one in {name}")
    return PhotoSet(number, name, index.photos, tuple(paths))


def _write_set(
    site: SiteFolder,
    photos: PhotoSet,
    index: ImageIndex,
    metrics: tuple[str, ...],
    maps: tuple[str, ...],
    seed: int,
    progress: bool,
) -> dict[str, Any]:
    """What site.js says of a data set, once photos, neighbours, maps and retrieval are written."""
    write_photos(site, photos, progress=progress)
    write_neighbors(site, photos, index, metrics, progress=progress)
    write_maps(site, photos, index, maps, seed, progress=progress)
    report = write_retrieval(site, photos, index, metrics, seed)
    return {
        "name": photos.name,
        "photos": len(index),
        "classes": photos.classes,
        "sizes": photos.sizes,
        "unreadable": len(index.failures),
        "maps": list(maps),
        "retrieval": report is not None,
        "start": good_start(photos, index, report, metrics[0]),
    }


def _write_networks(
    site: SiteFolder,
    classifiers: Mapping[str, Classifier],
    index: ImageIndex,
    sets: Sequence[PhotoSet],
    drawing: Drawing,
    progress: bool,
) -> list[dict[str, Any]]:
    """What site.js says of the networks, once the files about them are written."""
    found = []
    for number, network in enumerate(index.networks):
        classifier = classifiers[network.name]
        names = [layer.name for layer in network.layers]
        widths = [layer.width for layer in network.layers]
        about = write_anatomy(site, number, classifier, names, widths)
        write_units(site, number, classifier, about["layers"], sets, drawing, progress=progress)
        found.append({**about, "name": network.name.removesuffix(".safetensors")})
    return found


def _write_pages(root: Path) -> Path:
    """Copies the pages, which are the same for every site."""
    for pattern in _SHOWN:
        for path in _PAGES.glob(pattern):
            goal = root / path.relative_to(_PAGES)
            goal.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, goal)
    return root / "index.html"


def _metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    """The names of the metrics, each once.

    Raises:
        ValueError: one is unknown, or there is none.
    """
    if isinstance(metrics, str) or not metrics:
        raise argument_error("metrics", f"at least one of {', '.join(METRICS)}", metrics)
    return tuple(dict.fromkeys(as_metric(each).name for each in metrics))


def _maps(maps: Sequence[str] | None) -> tuple[str, ...]:
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


def _sources(photos: Paths | Mapping[str, Paths]) -> dict[str, list[Path]]:
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


def _version() -> str:
    try:
        return version("pyxai-vision")
    except PackageNotFoundError:  # run from a checkout
        return "not installed"
