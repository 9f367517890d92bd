"""`audit`: what a person should look at in a folder of photos before training on it."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from pyxai._errors import argument_error, check_count, folder_of
from pyxai._outputs import written_in
from pyxai.classifier import Classifier, as_classifier
from pyxai.curate.audit_files import Audit
from pyxai.curate.audit_result import ISSUES, Finding
from pyxai.curate.label_errors import confident_learning, out_of_fold_probabilities
from pyxai.curate.photo_pass import Seen, look_at
from pyxai.curate.quality import CHECKS
from pyxai.curate.unusual import distance_ratios
from pyxai.images import SUFFIXES, FolderLabels, ImageError, find_photos
from pyxai.runs import Executor

ODD_SIZE = 4.0
"""How many times the folder's median a photo's side may be, or a part of it: see `odd_size`."""


def audit(
    model: nn.Module | Classifier | None,
    photos: str | os.PathLike[str],
    *,
    layer: str | None = None,
    unusual: int = 12,
    n_neighbors: int = 10,
    folds: int = 5,
    batch_size: int | None = None,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    executor: Executor = "local",
    progress: bool = True,
) -> Audit:
    """Looks over a folder of photos before training: ranked lists for a person to go through.

    Every photo is decoded once, for its measures and for the network; one batch of photos and one
    vector a photo are held (in at most 1 GiB: with more photos features are projected to fewer
    dimensions). Nothing is changed, moved or deleted.

    Args:
        model: any classifying `nn.Module`, or a `Classifier`, whose features say what is alike;
            its own classes do not matter. It is left exactly as it was. None looks at the pictures
            alone: no unusual photos, no label errors.
        photos: `photos/CLASS/*.jpg`, or `photos/train/CLASS` and `photos/valid/CLASS`, which are
            looked over as one; or photos without classes.
        layer: the layer whose output, averaged over positions, describes a photo; None, the last
            one with spatial positions.
        unusual: how many photos of each class are listed as unusual.
        n_neighbors: to how many of its class a photo's distance is measured.
        folds: in how many parts photos are cut for label errors; classes with fewer photos are left
            out of that search, and a note says so.
        batch_size: images in a forward pass; None, as many as suit cache and memory.
        seed: of the folds.
        checkpoint: a folder for what is known of each photo: a run that was stopped goes on, and
            only photos that are new or have changed are looked at again.
        executor: where photos are looked at: "local", in this process.
        progress: False shows no bar, nor does an output that is no terminal.

    Raises:
        ValueError: there is no such folder, or an argument does not fit.
        BusyError: another run works in the checkpoint.
        ImageError: a folder cannot be listed, or has no photo that can be read; a ValueError too.
    """
    for name, value, least in (("unusual", unusual, 0), ("folds", folds, 2), ("seed", seed, 0)):
        check_count(name, value, least=least)
    check_count("n_neighbors", n_neighbors)
    check_count("batch_size", batch_size or 1)
    classifier = None if model is None else as_classifier(model)
    root = _folder(photos)
    files = [str(path) for path in find_photos(root)]
    seen = look_at(
        files,
        classifier,
        layer,
        batch_size=batch_size,
        checkpoint=folder_of("checkpoint", checkpoint),
        executor=executor,
        progress=progress,
    )
    if not seen.paths:
        name, reason = seen.unreadable[0]
        found = f"found {len(files)}, the first {name}: {reason}"
        raise ImageError(str(root), f"expected a photo that can be read, {found}")

    folders = FolderLabels(root)
    labels = [folders.label(path) for path in seen.paths]
    findings = _Findings(seen.paths, labels)
    _check_files(findings, seen, folders, root)
    _check_pictures(findings, seen.measures)
    notes: list[str] = []
    measures = dict(seen.measures)
    if classifier is None:
        notes.append("without a model: no unusual photos and no label errors")
    else:
        _check_features(findings, seen, measures, notes, (unusual, n_neighbors, folds, seed))
    counts = Counter(label for label in labels if label is not None).most_common()
    return Audit(
        folder=str(root),
        findings=findings.in_order(),
        classes=dict(counts),
        paths=tuple(seen.paths),
        labels=tuple(labels),
        measures=measures,
        model=None if classifier is None else classifier.name,
        layer=seen.layer,
        notes=tuple(notes),
    )


class _Findings:
    """The lists, while they grow."""

    def __init__(self, paths: list[str], labels: list[str | None]) -> None:
        self.paths, self.labels = paths, labels
        self._found: dict[str, list[Finding]] = {issue: [] for issue in ISSUES}

    def add(
        self,
        issue: str,
        path: str,
        label: str | None,
        score: float | None,
        reason: str,
        suggested: str | None = None,
    ) -> None:
        self._found[issue].append(Finding(path, label, score, reason, suggested))

    def add_photo(
        self,
        issue: str,
        place: int | np.int64,
        score: float | None,
        reason: str,
        suggested: str | None = None,
    ) -> None:
        """One of `paths`."""
        self.add(issue, self.paths[place], self.labels[place], score, reason, suggested)

    def in_order(self) -> dict[str, tuple[Finding, ...]]:
        return {issue: tuple(found) for issue, found in self._found.items()}


def _folder(photos: str | os.PathLike[str]) -> Path:
    if not isinstance(photos, (str, os.PathLike)):
        raise argument_error("photos", "the path of a folder", photos)
    root = Path(photos)
    if not root.is_dir():
        raise argument_error("photos", "a folder of photos", str(root))
    return root


def _check_files(findings: _Findings, seen: Seen, folders: FolderLabels, root: Path) -> None:
    """What is no photo, or none that can be read."""
    for path, reason in seen.unreadable:
        findings.add("unreadable", path, folders.label(path), None, reason)
    for path in _other_files(root):
        findings.add("no_photo", path, None, None, f"its name ends in {Path(path).suffix!r}")


def _check_pictures(findings: _Findings, measures: dict[str, NDArray[np.float32]]) -> None:
    """What needs no network."""
    if any(label is not None for label in findings.labels):
        for place, label in enumerate(findings.labels):
            if label is None:
                findings.add_photo("no_class", place, None, "it lies beside the class folders")
    sides = np.sqrt(measures["width"] * measures["height"])
    ratios = sides / np.median(sides)
    oddness = np.maximum(ratios, 1 / ratios)
    for place in _ranked(-oddness, oddness > ODD_SIZE):
        size = f"{measures['width'][place]:.0f} × {measures['height'][place]:.0f} pixels"
        times = f"{ratios[place]:.2g} times the folder's median side"
        findings.add_photo("odd_size", place, float(ratios[place]), f"{size}, {times}")
    for check in CHECKS:
        values = measures[check.measure]
        order = values if check.side == "below" else -values
        for place in _ranked(order, check.failed(values)):
            value = float(values[place])
            findings.add_photo(check.issue, place, value, check.reason.format(value))


def _check_features(
    findings: _Findings,
    seen: Seen,
    measures: dict[str, NDArray[np.float32]],
    notes: list[str],
    settings: tuple[int, int, int, int],
) -> None:
    """What the network's features tell; adds lists, measures and notes."""
    unusual, n_neighbors, folds, seed = settings
    assert seen.features is not None
    rows, described = seen.features.of(seen.paths)
    for place in np.nonzero(~described)[0]:
        findings.add_photo(
            "no_features", place, None, "no finite features; left out of what follows"
        )
    if not described.any():
        layer = seen.layer or "the last one with positions"
        raise argument_error("layer", "a layer with finite features of at least one photo", layer)
    names = sorted({label for label in findings.labels if label is not None})
    # Without classes all photos are one; else those in no class folder are not compared.
    codes = np.array(
        [names.index(label) if label is not None else -1 for label in findings.labels], np.int64
    )
    usable = described & ((codes >= 0) | (not names))
    (places,) = np.nonzero(usable)
    measures["distance_ratio"] = _find_unusual(findings, rows, codes, places, unusual, n_neighbors)
    measures["label_margin"] = _find_label_errors(
        findings, rows, codes, places, names=names, notes=notes, folds=folds, seed=seed
    )


def _find_unusual(
    findings: _Findings,
    rows: NDArray[np.float32],
    codes: NDArray[np.int64],
    places: NDArray[np.int64],
    most: int,
    n_neighbors: int,
) -> NDArray[np.float32]:
    """Lists the photos that lie farthest from their class; how far each lies."""
    ratios = np.full(len(codes), np.nan, np.float32)
    ratios[places] = distance_ratios(rows[places], codes[places], n_neighbors=n_neighbors)
    best = [
        _ranked(-ratios, (codes == code) & np.isfinite(ratios))[:most]
        for code in np.unique(codes[places])
    ]
    listed = sorted((group for group in best if len(group)), key=lambda g: -ratios[g[0]])
    for place in (place for group in listed for place in group):
        far = f"{ratios[place]:.2f} times as far from its neighbours as the median"
        findings.add_photo("unusual", place, float(ratios[place]), far)
    return ratios


def _find_label_errors(
    findings: _Findings,
    rows: NDArray[np.float32],
    codes: NDArray[np.int64],
    places: NDArray[np.int64],
    names: list[str],
    notes: list[str],
    *,
    folds: int,
    seed: int,
) -> NDArray[np.float32]:
    """Lists the photos that look like another class; by how much each looks like its own."""
    margins = np.full(len(codes), np.nan, np.float32)
    counts = np.bincount(codes[places], minlength=len(names)) if names else np.zeros(0, np.int64)
    searched = [code for code in range(len(names)) if counts[code] >= folds]
    small = [names[code] for code in range(len(names)) if counts[code] < folds]
    if small:
        few = f"fewer than {folds} photos (folds={folds})"
        notes.append(f"label errors: classes with {few} were left out: {', '.join(small)}")
    if len(searched) < 2:
        reason = f"it takes two classes of at least {folds} photos, found {len(searched)}"
        notes.append(f"label errors were not looked for: {reason}")
        return margins
    places = places[np.isin(codes[places], searched)]
    own = np.searchsorted(searched, codes[places])
    probabilities = out_of_fold_probabilities(rows[places], own, folds=folds, seed=seed)
    errors = confident_learning(probabilities, own)
    margins[places] = errors.margins
    for row in _ranked(errors.margins, errors.suggested != own):
        name = names[searched[errors.suggested[row]]]
        looks = f"looks like {name}: {probabilities[row, errors.suggested[row]]:.2f}"
        reason = f"{looks}, like its own class: {probabilities[row, own[row]]:.2f}"
        score = float(errors.margins[row])
        findings.add_photo("label_error", places[row], score, reason, name)
    return margins


def _ranked(order: NDArray[np.float32], listed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Places of the listed, the smallest first, those that are equal in their own order."""
    (places,) = np.nonzero(listed)
    found: NDArray[np.int64] = places[np.argsort(order[places], kind="stable")]
    return found


def _other_files(root: Path) -> list[str]:
    """Files that are not taken for photos, by suffix; what is skipped elsewhere is skipped here."""
    found = []
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        written = written_in(here)
        if written is not None and written.whole and here != root:
            folders.clear()
            continue
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for name in sorted(names):
            path = here / name
            if name.startswith(".") or path.suffix.lower() in SUFFIXES:
                continue
            if written is None or not written.wrote(name, path):
                found.append(str(path))
    return found
