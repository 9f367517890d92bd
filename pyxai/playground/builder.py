"""Computes all that a playground shows, and writes its site."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from PIL import Image

from pyxai._errors import check_count, settings_or
from pyxai._results import Report, Rows, plain
from pyxai.classifier import Classifier
from pyxai.draw import sheet
from pyxai.draw.card import card
from pyxai.images import ImageError, ImageErrors, PhotoFailure, open_photo
from pyxai.images.errors import printable
from pyxai.playground.anatomies import write_anatomy
from pyxai.playground.choices import PathLike, Paths, name_sets
from pyxai.playground.editions import SiteHome, site_home
from pyxai.playground.explanations import write_explanations
from pyxai.playground.galleries import write_galleries
from pyxai.playground.photo_files import PhotoSet, check_photos, write_photos
from pyxai.playground.settings import SiteSettings, check_maps
from pyxai.playground.similar import (
    MEASURES,
    NEIGHBORS,
    good_start,
    write_maps,
    write_neighbors,
    write_retrieval,
)
from pyxai.playground.unit_pictures import write_units
from pyxai.playground.writing import SiteFolder
from pyxai.search.index import ImageIndex
from pyxai.search.labels import Labels
from pyxai.search.networks import Models, named
from pyxai.search.storage import erase_index

_PAGES = Path(__file__).parent / "site"
_SHOWN = ("*.css", "*.svg", "scripts/*.js")  # of these, what visitors need beside index.html
_ACROSS = 10  # photos in a row of the figure


@dataclass(frozen=True, eq=False, repr=False)
class Site(Report):
    """A site that was built.

    Attributes:
        page: the path of its index.html.
        photos: how many it shows.
        failures: other photos, which could not be used.
        removed: photos that the index of its features (`index=`) had before and has not any more,
            and those that vanished meanwhile. Without an index, which knows them, only the latter.
    """

    page: Path
    photos: int
    failures: tuple[PhotoFailure, ...]
    removed: tuple[str, ...]

    def _facts(self) -> str:
        left = f"{len(self.failures)} not readable, {len(self.removed)} removed"
        return f"{self.photos} photos, {left}: {printable(str(self.page))}"

    def to_dict(self) -> dict[str, Any]:
        """The page, how many photos it shows, and those that it does not."""
        return {
            "page": str(self.page),
            "photos": self.photos,
            "failures": plain(self.failures),
            "removed": [*self.removed],
        }

    def figure(self, most: int = 40, *, cell: int = 96) -> Image.Image:
        """The first photos that the site shows.

        Args:
            most: how many.
            cell: side of a photo in pixels.
        """
        files = sorted(self.page.parent.rglob("thumbs/0/*.jpg"), key=lambda each: int(each.stem))
        pictures: list[Image.Image | None] = [open_photo(each) for each in files[:most]]
        if not pictures:
            return card([f"{self.photos} photos", printable(str(self.page))])
        rows = [pictures[start : start + _ACROSS] for start in range(0, len(pictures), _ACROSS)]
        title = f"{printable(str(self.page))}: {len(pictures)} of {self.photos} photos"
        return sheet(rows, row_titles=[title, *[""] * (len(rows) - 1)], cell=cell)

    def _table(self) -> Rows:
        rows = [("not readable", *each) for each in self.failures]
        rows += [("removed", name, "is not there any more") for name in self.removed]
        return ("state", "photo", "reason"), rows

    def __fspath__(self) -> str:
        return str(self.page)


def build(
    models: Models,
    photos: Paths | Mapping[str, Paths],
    directory: PathLike,
    *,
    settings: SiteSettings | None = None,
    labels: Labels = "folder",
    index: PathLike | None = None,
    allow_removal: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> Site:
    """Makes a web site to explore what classifiers see in photos.

    Everything is computed now, so that any static server can serve the folder, and a browser can
    open its index.html from disk. The site holds small copies of the photos and no features. A call
    that was interrupted goes on where it was when it is made again, and one with other settings
    keeps what does not depend on them. Until the end visitors see the site that was there before;
    then all that it has of photos that are gone goes. docs/playground.md shows the screens.

    Args:
        models: a classifier (or `nn.Module`), several, or several by name.
        photos: a folder or files; or several data sets by name.
        directory: the folder of the site: a new or empty one, or that of an earlier call. Files of
            yours that you have put there since stay.
        settings: what the site holds; None, the defaults of `pyxai.playground.SiteSettings`.
        labels: the class of a photo, see `pyxai.ImageIndex.build`.
        index: a folder to keep the features in, for an interrupted call to go on from, and for a
            live search (`serve`); None keeps them in memory.
        allow_removal: see `pyxai.ImageIndex.build`.
        seed: of all that is drawn at random; the global random state is left alone.
        progress: whether to show bars; there are none without a terminal.

    Returns:
        What there is: the page, and which photos are not shown.

    Raises:
        ValueError: an argument does not fit; the folder holds other files; there are fewer than
            two photos; the index is of other networks, or damaged, or most of its photos are gone.
        pyxai.images.ImageError: there are no photos. Single ones that cannot be read, and those
            that vanish or change meanwhile, are left out and named.
        BusyError: another build works in one of the folders.
    """
    classifiers = named(models)
    if not _PAGES.joinpath("index.html").exists():
        raise FileNotFoundError(f"the pages of the playground are not installed at {_PAGES}")
    settings = settings_or(SiteSettings(), settings)
    check_count("seed", seed, least=0)
    work = _Work(
        classifiers=classifiers,
        sources=name_sets(photos),
        settings=settings,
        seed=seed,
        progress=progress,
    )
    with site_home(Path(directory)) as home:
        indexes = [
            ImageIndex.build(
                classifiers,
                list(paths),
                directory=None if index is None else Path(index) / str(number),
                layers=settings.layers,
                labels=labels,
                allow_removal=allow_removal,
                progress=progress,
            )
            for number, paths in enumerate(work.sources.values())
        ]
        removed = [name for each in indexes for name in each.removed]
        page, failures, gone = work.run(home, indexes)
        removed += gone
        if index is not None:
            removed += _erase_others(Path(index), len(indexes))
    there = {photo.path for each in indexes for photo in each.photos}
    told = tuple(name for name in dict.fromkeys(removed) if name not in there)
    unusable = tuple(PhotoFailure(*each) for each in failures.items())
    return Site(page, sum(map(len, indexes)), unusable, told)


def _take_out(indexes: Sequence[ImageIndex], error: ImageError) -> list[dict[str, str]]:
    """Takes photos out of the indexes that cannot be read any more; why, for each index.

    Raises:
        pyxai.images.ImageError: the error, if it is of no photo of theirs.
    """
    several = error.failures if isinstance(error, ImageErrors) else [(error.name, error.reason)]
    gone = []
    for index in indexes:
        known = {photo.path for photo in index.photos}
        gone.append({name: why for name, why in several if name in known})
        if gone[-1]:
            index.remove([*gone[-1]])
    if not any(gone):
        raise error
    return gone


def _erase_others(folder: Path, count: int) -> list[str]:
    """Erases the features of data sets that the site has no more; names their photos."""
    found = []
    for path in folder.iterdir():
        if path.name.isdigit() and int(path.name) >= count:
            found += erase_index(path)
    return found


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What a site is made of."""

    classifiers: Mapping[str, Classifier]
    sources: Mapping[str, list[Path]]
    settings: SiteSettings
    seed: int
    progress: bool

    def run(
        self, home: SiteHome, indexes: Sequence[ImageIndex]
    ) -> tuple[Path, dict[str, str], list[str]]:
        """The page of the site, why photos are not in it, and which of these vanished meanwhile.

        What was made with these is made again.
        """
        failures = [dict(each.failures) for each in indexes]
        vanished: list[str] = []
        while True:
            try:
                page = self._write(home, indexes, failures)
            except ImageError as error:
                gone = _take_out(indexes, error)
                failures = [{**a, **b} for a, b in zip(failures, gone, strict=True)]
                vanished += [name for each in gone for name in each]
            else:
                told = {name: why for each in failures for name, why in each.items()}
                return page, told, vanished

    def _write(
        self,
        home: SiteHome,
        indexes: Sequence[ImageIndex],
        failures: Sequence[Mapping[str, str]],
    ) -> Path:
        """Writes the site and shows it; the path of its page.

        Raises:
            ValueError: a set has fewer than two photos.
            pyxai.images.ImageError: photos of the indexes are gone, or are no longer what they
                were.
        """
        site = SiteFolder(home)
        sets = [
            _photo_set(number, name, paths, found)
            for number, ((name, paths), found) in enumerate(
                zip(self.sources.items(), indexes, strict=True)
            )
        ]
        for each in sets:  # first, as it looks at each photo and does not take long
            write_photos(site, each, progress=self.progress)
        networks = self._write_networks(site, indexes[0], sets)
        about = []
        for photos, index, unusable in zip(sets, indexes, failures, strict=True):
            told = self._write_set(site, photos, index)
            about.append({**told, "unreadable": len(unusable)})
        for each in sets:
            check_photos(each)
        site.begin("live.js")
        site.write("live", {"available": False})
        site.begin("pages/")
        for pattern in _SHOWN:
            for path in _PAGES.glob(pattern):
                name = f"pages/{path.relative_to(_PAGES).as_posix()}"
                site.write_bytes(name, path.read_bytes())
        self._write_site(site, indexes, about, networks)
        return site.finish(_PAGES.joinpath("index.html").read_text(encoding="utf-8"))

    def _write_site(
        self,
        site: SiteFolder,
        indexes: Sequence[ImageIndex],
        sets: list[dict[str, Any]],
        networks: list[dict[str, Any]],
    ) -> None:
        record = {
            "format": 1,
            "title": self.settings.title or ", ".join(self.sources),
            "pyxai": _version(),
            "k": min(NEIGHBORS, *(len(found) - 1 for found in indexes)),
            "metrics": list(self.settings.metrics),
            "measures": list(MEASURES),
            "sets": sets,
            "networks": networks,
        }
        # The day is that of the last change.
        if not site.begin("site.js", last="site", about=record, made_from=site.marks()):
            site.write("site", {**record, "made": datetime.date.today().isoformat()})

    def _write_set(self, site: SiteFolder, photos: PhotoSet, index: ImageIndex) -> dict[str, Any]:
        """What site.js says of a data set, once its files are written."""
        settings, seed, progress = self.settings, self.seed, self.progress
        metrics, maps = settings.metrics, check_maps(settings.maps)
        drawing, explaining = settings.drawing(seed), settings.explaining(seed)
        write_neighbors(site, photos, index, metrics, progress=progress)
        write_maps(site, photos, index, maps, seed, progress=progress)
        report = write_retrieval(site, photos, index, metrics, seed)
        explained = 0
        for number, classifier in enumerate(self.classifiers.values()):
            explained = write_explanations(
                site, photos, number, classifier, explaining, progress=progress
            )
            if settings.galleries:
                write_galleries(site, photos, number, classifier, drawing, progress=progress)
        return {
            "name": photos.name,
            "photos": len(index),
            "features": index.version,
            "classes": photos.classes,
            "sizes": photos.sizes,
            "maps": list(maps),
            "retrieval": report is not None,
            "start": good_start(photos, index, report, metrics[0]),
            "explained": explained,
            "galleries": settings.galleries,
        }

    def _write_networks(
        self, site: SiteFolder, index: ImageIndex, sets: Sequence[PhotoSet]
    ) -> list[dict[str, Any]]:
        """What site.js says of the networks, once the files about them are written."""
        drawing = self.settings.drawing(self.seed)
        found = []
        for number, network in enumerate(index.networks):
            classifier = self.classifiers[network.name]
            names = [layer.name for layer in network.layers]
            widths = [layer.width for layer in network.layers]
            about = write_anatomy(site, number, classifier, names, widths)
            layers = about["layers"]
            write_units(site, number, classifier, layers, sets, drawing, progress=self.progress)
            found.append({**about, "name": network.name.removesuffix(".safetensors")})
        return found


def _photo_set(number: int, name: str, paths: list[Path], index: ImageIndex) -> PhotoSet:
    """The photos of an index as a data set.

    Raises:
        ValueError: there is only one.
    """
    if len(index) < 2:
        raise ValueError(f"photos: expected at least two that can be read, got one in {name}")
    return PhotoSet(number, name, index.photos, tuple(paths))


def _version() -> str:
    try:
        return version("pyxai-vision")
    except PackageNotFoundError:  # run from a checkout
        return "not installed"
