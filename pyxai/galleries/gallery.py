"""What a class looks like to a network: its most convincing crops out of many photos."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from pyxai._errors import argument_error, folder_of
from pyxai._results import Rows, Table, plain
from pyxai.classifier import Classifier, as_classifier
from pyxai.classifier.fingerprint import fingerprint
from pyxai.draw import sheet
from pyxai.galleries.contents import ClassCrops, Contents, GalleryCrop, Settings, purity
from pyxai.galleries.describing import describe_crops
from pyxai.galleries.evidence import choose_evidence
from pyxai.galleries.grouping import Grouping, silhouette
from pyxai.galleries.page import gallery_page
from pyxai.galleries.selection import Search, Selection
from pyxai.galleries.storage import load_gallery, save_gallery
from pyxai.images import FolderLabels, ImageError, PhotoFailure, PhotoSources
from pyxai.images.errors import ImageErrors, printable
from pyxai.runs import Executor, Kind, open_run

Directory: TypeAlias = "str | os.PathLike[str]"

_RUN = Kind("a gallery's run", "gallery-run", "pyxai gallery run 2")
_ACROSS = 10  # crops in a row of a sheet with all of them
_CLASSES = 16  # in a figure of all classes


class ClassGallery(Table):
    """The crops that a classifier is surest of, for each class, put into clusters.

    Windows slide over every photo. A window is a candidate for its top class. Of each class the
    best candidates are kept: few of one photo, none that overlap much, none that look alike. The
    network's own features tell which of them show the same thing, and one of each such cluster,
    that with the highest probability, represents it. docs/galleries.md says more.

    Memory does not grow with the number of photos. The result does not depend on their order.

        gallery = pyxai.ClassGallery(classifier, crop=160).fit("photos/")
        gallery.figure("street").save("street.png")
    """

    def __init__(
        self,
        model: nn.Module | Classifier,
        crop: int = 160,
        *,
        evidence: Literal["cam", "sliding_window"] = "cam",
        stride: int | None = None,
        resize: int | None = None,
        per_class: int = 100,
        per_photo: int = 3,
        max_overlap: float = 0.3,
        layer: str | None = None,
        clusters: int = 9,
        clusterer: Any = None,
        distance_threshold: float | None = None,
        labels: Literal["folder"] | None = None,
        mode: Literal["exhaustive", "shared"] = "exhaustive",
        seed: int = 0,
    ) -> None:
        """Keeps the settings; nothing runs.

        Args:
            model: any classifying `nn.Module`, or a `Classifier`. It is left exactly as it was.
            crop: side of the windows, in pixels of the photos. Smaller photos are skipped.
            evidence: "cam", from one forward pass on the whole photo: window means of the class
                maps where the head is global average pooling and one linear layer, else of
                Grad-CAM. "sliding_window" runs every window by itself: the network cannot see
                what lies around it.
            stride: pixels between windows; None, a quarter of the crop.
            resize: side that each crop is resized to for the network; None keeps it.
            per_class: how many crops of each class are kept, at most.
            per_photo: how many of them may come from one photo.
            max_overlap: of two crops of one photo, intersection over union.
            layer: the layer whose features, averaged over positions, describe a crop; None, the
                last one with spatial positions.
            clusters: how many clusters a class has (Ward's clustering); as many as crops where
                there are fewer of these.
            clusterer: any clusterer of scikit-learn in its place.
            distance_threshold: up to where Ward's clustering merges, in place of a number;
                features are unit vectors.
            labels: "folder" lets only photos in a folder named after a class stand for this class;
                None takes any photo.
            mode: of `pyxai.sliding_window`, for that evidence.
            seed: for a clusterer whose random_state is None.

        Raises:
            ValueError: an argument does not fit: its name, what was expected, what was got.
        """
        self.classifier: Classifier | None = as_classifier(model)
        self.settings = Settings(
            crop=crop,
            evidence=evidence,
            stride=stride,
            resize=resize,
            per_class=per_class,
            per_photo=per_photo,
            max_overlap=max_overlap,
            layer=layer,
            labels=labels,
            mode=mode,
            seed=seed,
        )
        if labels is not None and self.classifier.class_names is None:
            raise ValueError(
                "labels: expected None for a classifier without class names, got 'folder'"
            )
        self._grouping = Grouping(clusters, distance_threshold, clusterer, seed)
        self._contents: Contents | None = None

    def _facts(self) -> str:
        if self._contents is None:
            return f"crop={self.settings.crop}, not fitted"
        crops = sum(len(each.crops) for each in self._contents.classes)
        return f"{self._describe()}: {crops} crops"

    # ---- making one ----

    def fit(
        self,
        photos: PhotoSources,
        *,
        checkpoint: Directory | None = None,
        executor: Executor = "local",
        progress: bool = True,
    ) -> ClassGallery:
        """Looks at all photos, one after the other, and keeps the best crops of each class.

        Args:
            photos: a folder, a list, a generator; see `pyxai.images.iterate_photos`. Each is taken
                upright and as large as it is; the classifier's resize and crop are not applied.
            checkpoint: a folder for what is known of each photo, written at least once a minute. A
                run that was interrupted goes on from there when it is started again, with the same
                result. Photos may be added, changed and taken away: only what is new is read, and
                nothing is kept of what is gone.
            executor: where the photos are searched: "local", in this process.
            progress: whether to show a bar; there is none without a terminal.

        Returns:
            Itself.

        Raises:
            ValueError: no photo is as large as the crop; the network cannot be searched this way;
                the checkpoint is of another run, or damaged; the gallery was loaded and has no
                model.
            BusyError: another run works in the folder of the checkpoint.
            pyxai.images.ImageError: there are no photos, or none can be read. Single photos that
                cannot be read are listed in the report.
        """
        if self.classifier is None:
            raise ValueError("fit: expected a gallery with a model, got one that was loaded")
        classifier, settings = self.classifier, self.settings
        names = classifier.class_names
        selection = Selection(settings, names, FolderLabels(photos))
        identity = {
            **settings.of_selection,
            "class_names": names,
            "preprocessing": repr(classifier.preprocessing),
            "weights": fingerprint(classifier.network),
        }
        search = Search(choose_evidence(classifier, settings), settings, names)
        folder = folder_of("checkpoint", checkpoint)
        with open_run(_RUN, folder, identity) as run:
            for part in run.parts_of(
                photos,
                search,
                desc="gallery",
                key_of=selection.key,
                executor=executor,
                progress=progress,
            ):
                selection.take(part)
        selection.tally.photos = run.count
        for failure in run.failures:
            selection.tally.fail(*failure)
        self._contents = self._finish(classifier, selection)
        return self

    def _finish(self, classifier: Classifier, selection: Selection) -> Contents:
        """Features and clusters of the crops that were kept."""
        tally = selection.tally
        if selection.class_count is None:
            if tally.unreadable and tally.unreadable == tally.photos:
                raise ImageErrors(tally.failures, tally.photos)
            if not tally.photos:
                raise ImageError("photos", "expected at least one, got none")
            raise ValueError(
                f"crop: expected at most the size of the photos, got {self.settings.crop}: of "
                f"{tally.photos} photos {tally.smaller} are smaller, {tally.unreadable} cannot be "
                f"read, and {tally.unnamed} lie in a folder of no class"
            )
        names = classifier.class_names or tuple(
            f"class {index}" for index in range(selection.class_count)
        )
        classes, layer = describe_crops(classifier, selection, names)
        grouped = tuple(map(self._grouping, classes))
        return Contents(classifier.name, layer, str(self._grouping), names, grouped, tally)

    def recluster(
        self,
        clusters: int = 9,
        *,
        clusterer: Any = None,
        distance_threshold: float | None = None,
    ) -> ClassGallery:
        """The same crops in other clusters: a new gallery, without another look at the photos.

        Args:
            clusters: see `ClassGallery`.
            clusterer: see `ClassGallery`.
            distance_threshold: see `ClassGallery`.

        Raises:
            ValueError: the gallery is not fitted, or an argument does not fit.
        """
        contents = self._fitted()
        grouping = Grouping(clusters, distance_threshold, clusterer, self.settings.seed)
        classes = tuple(map(grouping, contents.classes))
        twin = object.__new__(ClassGallery)
        twin.classifier, twin.settings, twin._grouping = self.classifier, self.settings, grouping
        twin._contents = replace(contents, classes=classes, clustering=str(grouping))
        return twin

    # ---- looking at it ----

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        return self._fitted().class_names

    def __iter__(self) -> Iterator[str]:
        return iter(self.class_names)

    def __getitem__(self, target: int | str) -> list[GalleryCrop]:
        """The crops of a class, the best first; an empty list where none speaks for it.

        Raises:
            ValueError: there is no such class (with the closest names).
        """
        contents = self._fitted()
        return list(contents.classes[contents.index(target)].crops)

    def features(self, target: int | str) -> NDArray[np.float32]:
        """What the crops of a class were clustered by: `[n, C]` unit vectors, in their order."""
        contents = self._fitted()
        features: NDArray[np.float32] = contents.classes[contents.index(target)].features.copy()
        return features

    def figure(
        self,
        target: int | str | None = None,
        *,
        crops: Literal["representatives", "all"] = "representatives",
        titles: bool = True,
        cell: int = 160,
    ) -> Image.Image:
        """The crops of a class, or of all classes, as one picture.

        Args:
            target: a class, by index or name; None, a row of representatives for each class, 16
                classes at most.
            crops: "representatives", one of each cluster, the largest cluster first, row by row;
                "all", a row or more for each cluster.
            titles: whether rows say how many crops their clusters have.
            cell: side of a crop in the picture, in pixels.

        Raises:
            ValueError: an argument does not fit.
        """
        contents = self._fitted()
        if target is None:
            return self._overview(cell)
        found = contents.classes[contents.index(target)]
        if crops not in ("representatives", "all"):
            raise argument_error("crops", "'representatives' or 'all'", crops)
        rows = (_representatives if crops == "representatives" else _all_crops)(found)
        if not rows:
            name = printable(contents.class_names[contents.index(target)])
            return sheet([[None]], row_titles=[f"{name}: none"] if titles else (), cell=cell)
        pictures = [[each.picture() for each in row] for _, row in rows]
        lines = [line for line, _ in rows]
        return sheet(pictures, row_titles=lines if titles else (), cell=cell)

    def _overview(self, cell: int) -> Image.Image:
        """The best representatives of each class, their probabilities below them."""
        contents = self._fitted()
        shown = [
            (name, len(found.crops), [group[0] for group in found.clusters[:_ACROSS]])
            for name, found in zip(contents.class_names, contents.classes[:_CLASSES], strict=False)
        ]
        columns = max(4, *(len(best) for _, _, best in shown))  # titles have room above four
        rows: list[list[Image.Image | None]] = []
        captions, titles = [], []
        for name, count, best in shown:
            empty = columns - len(best)
            titles.append(f"{printable(name)}: crops: {count}; one of each cluster, probability")
            rows.append([*(each.picture() for each in best), *[None] * empty])
            captions.append([*(f"{each.score:.3f}" for each in best), *[""] * empty])
        return sheet(rows, row_titles=titles, captions=captions, cell=cell)

    def _table(self) -> Rows:
        columns = ("class", "rank", "photo", "x0", "y0", "x1", "y1", "score", "label", "cluster")
        contents = self._fitted()
        rows = [
            (name, rank, each.name, *each.box, each.score, each.label, each.cluster)
            for name, found in zip(contents.class_names, contents.classes, strict=True)
            for rank, each in enumerate(found.crops)
        ]
        return columns, rows

    @property
    def failures(self) -> tuple[PhotoFailure, ...]:
        """The first 1,000 photos that could not be read."""
        return tuple(self._fitted().tally.failures)

    def to_dict(self) -> dict[str, Any]:
        """What was found, as a dictionary that JSON can hold.

        Returns:
            "photos", "smaller_than_crop", "in_no_class_folder", "unreadable" (how many) and
            "failures" (the first 1,000 of these: path and reason); "purity" over all crops and
            "silhouette", the mean over the classes that have one; and for each of "classes":
            "crops", "photos", "clusters", "purity", "silhouette", "near_duplicates" and "note". A
            second class of one name is called "name (index)".
        """
        contents = self._fitted()
        classes: dict[str, dict[str, Any]] = {}
        for index, found in enumerate(contents.classes):
            name = contents.class_names[index]
            key = name if name not in classes else f"{name} ({index})"
            classes[key] = {
                "crops": len(found.crops),
                "photos": len({crop.name for crop in found.crops}),
                "clusters": len(found.clusters),
                "purity": purity([(name, found)]),
                "silhouette": silhouette(found),
                "near_duplicates": found.near_duplicates,
                "note": found.note,
            }
        known = [row["silhouette"] for row in classes.values() if row["silhouette"] is not None]
        tally = contents.tally
        return {
            "photos": tally.photos,
            "smaller_than_crop": tally.smaller,
            "in_no_class_folder": tally.unnamed,
            "unreadable": tally.unreadable,
            "failures": plain(tally.failures),
            "purity": purity(zip(contents.class_names, contents.classes, strict=True)),
            "silhouette": sum(known) / len(known) if known else None,
            "classes": classes,
        }

    # ---- keeping it ----

    def save(self, directory: Directory) -> Path:
        """Writes gallery.json, the crops as JPEG files, and their features; returns the folder.

        A gallery that was saved there before is replaced all at once; a process that is killed
        leaves the old one or the new one. What else is in the folder stays.

        Raises:
            ValueError: something of these names is there that no gallery has written.
            BusyError: another process saves a gallery there.
        """
        folder = Path(directory)
        save_gallery(folder, self.settings, self._fitted(), self.to_dict())
        return folder

    @classmethod
    def load(cls, directory: Directory) -> ClassGallery:
        """Reads a gallery that was saved, to look at it or to cluster it anew; needs no model.

        Raises:
            ValueError: it is none, or damaged.
            OSError: a file is missing.
        """
        gallery = object.__new__(cls)
        gallery.settings, gallery._contents = load_gallery(Path(directory))
        gallery.classifier, gallery._grouping = None, Grouping()
        return gallery

    def page(self, directory: Directory) -> Path:
        """Saves the gallery with a page, index.html, that shows it in any browser.

        Returns:
            The path of the page.
        """
        folder, contents, report = Path(directory), self._fitted(), self.to_dict()

        def page(files: list[list[str]]) -> str:
            return gallery_page(contents, files, self._describe(), report)

        save_gallery(folder, self.settings, contents, report, page)
        return folder / "index.html"

    def made_by(self) -> dict[str, Any]:
        """How the gallery was made: "model", "evidence", "crop", "layer" and "clusters"."""
        contents, settings = self._fitted(), self.settings
        mode = f" ({settings.mode})" if settings.evidence == "sliding_window" else ""
        return {
            "model": contents.model,
            "evidence": f"{settings.evidence}{mode}",
            "crop": settings.crop,
            "layer": contents.layer,
            "clusters": contents.clustering,
        }

    def _describe(self) -> str:
        """The settings in a line."""
        by = self.made_by()
        return f"{by['evidence']}, crop {by['crop']}, layer {by['layer']}, {by['clusters']}"

    def _fitted(self) -> Contents:
        if self._contents is None:
            raise ValueError("gallery: expected one that was fitted, call fit(photos) first")
        return self._contents


_Rows: TypeAlias = "list[tuple[str, list[GalleryCrop]]]"


def _representatives(found: ClassCrops) -> _Rows:
    """Titles and rows of a square of representatives."""
    clusters = found.clusters
    columns = max(1, math.ceil(math.sqrt(len(clusters))))
    rows: _Rows = []
    for start in range(0, len(clusters), columns):
        part = clusters[start : start + columns]
        sizes = ", ".join(str(len(group)) for group in part)
        rows.append((f"{sizes} crops", [group[0] for group in part]))
    return rows


def _all_crops(found: ClassCrops) -> _Rows:
    """Titles and rows of all crops, cluster by cluster."""
    named = [(f"cluster {number}", group) for number, group in enumerate(found.clusters, 1)]
    rows: _Rows = []
    for name, group in [*named, ("in no cluster", found.noise)]:
        for start in range(0, len(group), _ACROSS):
            title = "" if start else f"{name}: {len(group)} crops"
            rows.append((title, group[start : start + _ACROSS]))
    return rows
