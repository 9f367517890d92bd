"""What the classes of a network look like in a set: their most convincing crops, in clusters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyxai.classifier import Classifier
from pyxai.classifier.fingerprint import identity
from pyxai.galleries.crop_size import choose_crop
from pyxai.galleries.gallery import ClassGallery
from pyxai.images import ImageError, ImageErrors
from pyxai.playground.photo_files import CROP, PhotoSet, places_of, shrunk
from pyxai.playground.unit_pictures import Drawing, draw
from pyxai.playground.writing import SiteFolder

_PER_CLASS, _CLUSTERS = 36, 9


def write_galleries(
    site: SiteFolder,
    photos: PhotoSet,
    number: int,
    classifier: Classifier,
    drawing: Drawing,
    *,
    progress: bool,
) -> None:
    """Writes the crops of each class, and pictures of those with the most.

    Args:
        site: where to.
        photos: the set.
        number: of the network.
        classifier: the network.
        drawing: how pictures are made; `drawing.units` is how many classes have one.
        progress: whether to show a bar.

    Raises:
        pyxai.images.ImageError: photos cannot be read any more.
    """
    base = f"{photos.address}/networks/{number}"
    of = identity(classifier)
    step, classes = (f"{base}/class-", f"{base}/crops/", f"{base}/classes.js"), f"{base}/classes"
    if not site.begin(*step, last=classes, photos=photos.key, of=of, drawing=drawing):
        paths = [photo.path for photo in photos.photos]
        found = fitted(classifier, paths, progress=progress)
        if found.failures:
            raise ImageErrors(found.failures, len(paths))
        ids = {path: place for path, (_, place) in places_of([photos]).items()}
        rows: list[dict[str, Any]] = []
        for index in range(len(found.class_names)):
            if found[index]:
                rows.append(_write_class(site, base, index, found, photos, ids))
        for row in _first(rows, drawing):
            row["picture"] = True
        record = {"crop": found.settings.crop, "evidence": found.settings.evidence}
        site.write(classes, {**record, "classes": rows})
    site.begin(f"networks/{number}/classes/", of=of, drawing=drawing)
    _write_pictures(site, number, classifier, site.read(classes)["classes"], drawing)


def fitted(classifier: Classifier, paths: Sequence[str], *, progress: bool) -> ClassGallery:
    """A gallery by class activation maps, or by windows where the network has no positions."""
    crop, _ = choose_crop(paths)
    try:
        cams = ClassGallery(classifier, crop, per_class=_PER_CLASS, clusters=_CLUSTERS)
        return cams.fit(paths, progress=progress)
    except ImageError:
        raise
    except ValueError:
        pass
    windows = ClassGallery(
        classifier, crop, evidence="sliding_window", per_class=_PER_CLASS, clusters=_CLUSTERS
    )
    return windows.fit(paths, progress=progress)


def _write_class(
    site: SiteFolder,
    base: str,
    index: int,
    gallery: ClassGallery,
    photos: PhotoSet,
    ids: dict[str, int],
) -> dict[str, Any]:
    """Writes the crops of a class; what classes.js says of it."""
    crops = gallery[index]
    groups: dict[int, list[dict[str, Any]]] = {}
    for place, crop in enumerate(crops):
        site.picture(f"{base}/crops/{index}-{place}.jpg", shrunk(crop.picture(), CROP))
        facts = {"i": place, "photo": ids[crop.name], "box": crop.box}
        groups.setdefault(crop.cluster, []).append({**facts, "score": round(crop.score, 5)})
    noise = groups.pop(-1, [])
    clusters = [groups[cluster] for cluster in sorted(groups)]
    site.write(
        f"{base}/class-{index}",
        {"class": index, "note": "", "clusters": clusters, "noise": noise},
    )
    best = [place for place, crop in enumerate(crops) if crop.representative]
    names, name = photos.classes, gallery.class_names[index]
    return {
        "class": index,
        "crops": len(crops),
        "photos": len({crop.name for crop in crops}),
        "clusters": len(clusters),
        "label": names.index(name) if name in names else None,
        "best": best,
        "picture": False,
    }


def _first(rows: list[dict[str, Any]], drawing: Drawing) -> list[dict[str, Any]]:
    """The classes that get a picture: those with the most crops."""
    return sorted(rows, key=lambda row: (-row["crops"], row["class"]))[: drawing.units]


def _write_pictures(
    site: SiteFolder,
    number: int,
    classifier: Classifier,
    rows: list[dict[str, Any]],
    drawing: Drawing,
) -> None:
    """Writes what excites the classes that get a picture."""
    wanted = sorted(row["class"] for row in rows if row["picture"])
    addresses = {each: f"networks/{number}/classes/{each}.jpg" for each in wanted}
    missing = [each for each in wanted if not site.has(addresses[each])]
    if missing:
        pictures, _ = draw(classifier, None, missing, drawing)
        for each, picture in zip(missing, pictures, strict=True):
            site.picture(addresses[each], picture, quality=90)
