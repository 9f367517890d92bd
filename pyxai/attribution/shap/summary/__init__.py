"""SHAP values of many photos, summed up by class and region: where is what speaks for a class?"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from torch import nn

from pyxai._errors import argument_error, check_count, folder_of
from pyxai.attribution.shap import Method, check_settings
from pyxai.attribution.shap.backgrounds import digest
from pyxai.attribution.shap.model import Output
from pyxai.attribution.shap.summary.photos import RUN, Explaining, evidence_of
from pyxai.attribution.shap.summary.result import ShapSummary, summarized
from pyxai.classifier import Classifier, as_classifier
from pyxai.classifier.fingerprint import identity as identity_of
from pyxai.classifier.outputs import class_of_folder
from pyxai.images import FolderLabels, ImageError, Images, find_photos
from pyxai.runs import Executor, open_run

_SMALLEST = 3  # rows and columns, so that there is something within the frame


def shap_summary(
    model: nn.Module | Classifier,
    photos: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    background: Images | Literal["blur", "mean"] = "blur",
    *,
    target: Literal["folder", "predicted"] = "folder",
    grid: int | tuple[int, int] = 8,
    per_folder: int | None = None,
    method: Method = "partition",
    samples: int = 200,
    output: Output = "logits",
    seed: int = 0,
    confidence: float = 0.95,
    checkpoint: str | os.PathLike[str] | None = None,
    executor: Executor = "local",
    progress: bool = True,
) -> ShapSummary:
    """What speaks for each class in the regions of many photos.

    Each photo is explained for one class by `pyxai.shap_values`, and the values are summed up over
    the cells of a grid. Of each class come the means by cell with intervals, the share of what
    speaks for it that lies in the frame and in the corners, and the photos that are most and least
    like the others. Where positions mean something, and where not, is said in docs/shap.md.

    Photos are read one after the other; of each the values of its cells are kept.

    Args:
        model: any classifying `nn.Module`, or a `Classifier`. It is left exactly as it was.
        photos: a folder, or files and folders.
        background: one for all photos; see `shap_values`.
        target: the class that a photo is explained for: "folder", the one that its folder is named
            after (photos in other folders are counted and left out); "predicted", its top class.
        grid: rows and columns of the grid over what the network sees, or one number for both.
        per_folder: at most so many photos of each folder, drawn; None, all.
        method: see `shap_values`; "kernel" takes the cells as its regions.
        samples: evaluations for each photo.
        output: "logits" or "probability".
        seed: of all that is drawn.
        confidence: of the intervals, 0 to 1.
        checkpoint: a folder for what is known of each photo, from which a run that was stopped goes
            on; nothing is kept of photos that are gone.
        executor: where photos are explained: "local", in this process.
        progress: show a bar on a terminal.

    Raises:
        ImageError: there are no photos, or none that can be read.
        ValueError: an argument does not fit; no photo is in a folder of a class; the checkpoint is
            that of another run, or damaged.
        BusyError: another run works in the folder of the checkpoint.
    """
    classifier = as_classifier(model)
    rows, columns = _grid(grid)
    check_settings(method, samples, seed)
    _check_target(target, classifier)
    if per_folder is not None:
        check_count("per_folder", per_folder, or_none=True)
    if not 0 < confidence < 1:
        raise argument_error("confidence", "a number between 0 and 1", confidence)
    folders = FolderLabels(photos)
    paths, unnamed = _chosen(photos, folders, classifier, target, per_folder, seed)
    settings: Any = {"method": method, "samples": samples, "output": output, "seed": seed}
    pictures: Any = background
    if not isinstance(background, str):
        pictures = classifier.to_input(background)

    def label_of(name: str) -> str:
        if target != "folder":
            return ""
        return class_of_folder(folders, name, classifier.class_names) or ""

    identity = {"model": identity_of(classifier), "target": target, **settings}
    identity |= {"grid": [rows, columns]}
    identity |= {"background": pictures if isinstance(pictures, str) else digest(pictures)}
    with open_run(RUN, folder_of("checkpoint", checkpoint), identity) as run:
        parts = run.parts_of(
            paths,
            Explaining(classifier, pictures, (rows, columns), settings),
            desc="shap",
            key_of=label_of,
            first=1,
            executor=executor,
            progress=progress,
        )
        done = [evidence for part in parts for evidence in evidence_of(part)]
    if not done:
        raise ImageError(*run.failures[0])
    told = {"model": classifier.name, "target": target, "grid": [rows, columns], **settings}
    told |= {"background": background if isinstance(background, str) else f"{len(pictures)} images"}
    return summarized(classifier, done, told, confidence, run.failures, unnamed)


def _check_target(target: str, classifier: Classifier) -> None:
    if target not in ("folder", "predicted"):
        raise argument_error("target", "'folder' or 'predicted'", target)
    if target == "folder" and classifier.class_names is None:
        raise ValueError(
            "target: expected 'predicted' for a classifier without class names, got 'folder'"
        )


def _grid(grid: Any) -> tuple[int, int]:
    pair = (grid, grid) if isinstance(grid, int) else grid
    fits = isinstance(pair, (tuple, list)) and len(pair) == 2
    if not fits or not all(type(each) is int and each >= _SMALLEST for each in pair):
        raise argument_error("grid", f"rows and columns of at least {_SMALLEST}", grid)
    return pair[0], pair[1]


def _chosen(
    photos: Any,
    folders: FolderLabels,
    classifier: Classifier,
    target: str,
    per_folder: int | None,
    seed: int,
) -> tuple[list[Path], int]:
    """The photos to explain, in order, and how many are in no folder of a class."""
    by_folder: dict[Path, list[Path]] = {}
    unnamed = 0
    for path in find_photos(photos):
        if target == "folder" and class_of_folder(folders, path, classifier.class_names) is None:
            unnamed += 1
            continue
        by_folder.setdefault(path.parent, []).append(path)
    if not by_folder:
        names = ", ".join((classifier.class_names or ())[:5])
        expected = f"photos in folders named after classes ({names}, ...)"
        raise argument_error("photos", expected, f"{unnamed} in other folders")
    chosen: list[Path] = []
    for folder, paths in by_folder.items():
        count = len(paths) if per_folder is None else min(per_folder, len(paths))
        places = random.Random(f"{seed} {folder.name}").sample(range(len(paths)), count)
        chosen += [paths[place] for place in sorted(places)]
    return chosen, unnamed
